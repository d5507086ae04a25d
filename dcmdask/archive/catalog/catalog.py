"""`Catalog`: the series of an archive as they were scanned, without reading a header again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import pyarrow as pa
from pydicom.datadict import tag_for_keyword

from dcmdask.archive.catalog.parts import (
    INSTANCES,
    read_mark,
    read_part,
    read_skipped,
)
from dcmdask.archive.catalog.root import absolute, instances_of, without_slash
from dcmdask.archive.catalog.series_table import KEY_COLUMNS, keys_of, of_series, read_series
from dcmdask.archive.discovery import Skipped, absolute_source, folder_of, may_be_lost
from dcmdask.archive.grouping import copy_of
from dcmdask.archive.scanned import Scan, equals, has
from dcmdask.archive.series import Series
from dcmdask.archive.table import COLUMNS, KEYWORDS, frame_of, matching
from dcmdask.dicom.description import Described
from dcmdask.dicom.texts import IDENTIFIERS
from dcmdask.errors import CatalogError
from dcmdask.geometry.grid import Irregularity
from dcmdask.sources.folder import Folder

if TYPE_CHECKING:
    import pandas as pd


# Row groups that are kept in memory: those of neighbouring series are mostly the same.
_KEPT = 4
_SHOWN = tuple(name for name in COLUMNS if name != "number")


def open_catalog(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Catalog:
    """Open a catalog, which :func:`build_catalog` or ``dcmdask scan -o`` made.

    Parameters
    ----------
    path : str or path-like
        The folder of the catalog, or a URL for fsspec.
    root : str or path-like, optional
        The folder or URL of the archive, where it is no longer the one that was scanned.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file systems of URLs: of the catalog and of the archive.

    Returns
    -------
    Catalog
        Nothing of the archive is read.

    Raises
    ------
    FileNotFoundError
        There is no catalog.
    CatalogError
        It is damaged, of another version, or its first scan was not finished.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask import build_catalog
    >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests" / "98892001"
    >>> _ = build_catalog(folder, target := Path(mkdtemp()) / "archive.catalog")
    >>> found = open_catalog(target)
    >>> found
    <Catalog: 2 series, 7 instances of 7 files>
    >>> found.select(SeriesDescription="smart*")[0].to_dask().shape
    (5, 16, 16)
    """
    options = storage_options if "://" in os.fspath(path) else None
    where = None if root is None else os.fspath(root)
    return Catalog(Folder.of(path, options), root=where, storage_options=storage_options)


class Changes(NamedTuple):
    """Counts of a scan into a catalog.

    Attributes
    ----------
    new, changed, gone, known : int
        Numbers of files: read for the first time, read again, no longer there, and not read.
    """

    new: int
    changed: int
    gone: int
    known: int


class Catalog(Scan):
    """The series of a catalog; made by :func:`open_catalog` and :func:`build_catalog`.

    It is used as a :class:`Scan`: ``catalog[0]`` is a `Series`, whose instances are read from the
    catalog, and so are the places of their frames. Each file is held against its size and its
    modification time or entity tag when its frames are read.

    Attributes
    ----------
    skipped, doubtful : tuple of Skipped
        Files and folders that are no part of a series; the second may be.
    files : int
        Number of files that were looked into.
    name, root : str
        The folder or URL of the archive.
    changes : Changes or None
        What the scan found that made it; None of one that was opened.
    """

    changes: Changes | None = None

    def __init__(
        self,
        folder: Folder,
        *,
        root: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        mark = read_mark(folder)
        if mark is None:
            raise FileNotFoundError(f"{folder.url} is no catalog: there is no catalog.json")
        if not mark.series:
            raise CatalogError(
                "its first scan was not finished; the same command goes on with it",
                source=folder.url,
                code="catalog-unfinished",
            )
        if root is not None:
            mark = mark._replace(root=without_slash(absolute_source(root)))
        self._folder, self._mark = folder, mark
        self._storage_options = dict(storage_options or {}) if "://" in mark.root else {}
        self._table = pa.concat_tables(
            read_series(folder, one, mark.instances) for one in mark.series
        )
        self._numbers: Sequence[int] = range(len(self._table))
        self._groups = lru_cache(_KEPT)(partial(_read_group, folder))
        self.files, self.name = mark.files, mark.root
        self.root = mark.root

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, key: int | str) -> Series: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Series, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Series | tuple[Series, ...]:
        if isinstance(key, slice):
            return tuple(self._series_of(number) for number in self._numbers[key])
        return self._series_of(self._numbers[self._place_of(key) if isinstance(key, str) else key])

    def keys(self) -> list[tuple[str, ...]]:
        """Return study, UID, modality and folder of each series; with a UID nothing but that."""
        return [
            (*same, "" if same[1] else self._absolute(folder))
            for *same, folder in self._rows["key"].to_pylist()
        ]

    @property
    def _rows(self) -> pa.Table:
        if len(self._numbers) == len(self._table):
            return self._table
        return self._table.take(list(self._numbers))

    def __repr__(self) -> str:
        instances = sum(self._rows["instances"].to_pylist())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"<Catalog: {len(self)} series, {instances} instances of {self.files} files{skipped}>"
        )

    @cached_property
    def skipped(self) -> tuple[Skipped, ...]:  # type: ignore[override]  # read when asked for
        """Files and folders that are no part of a series, sorted by path."""
        left = [
            one.one._replace(path=self._absolute(one.one.path))
            for name in self._mark.skipped
            for one in read_skipped(self._folder, name)
        ]
        for copies in self._table["copies"].to_pylist():
            for copy in copies:
                left.append(copy_of(*(self._absolute(copy[name]) for name in ("path", "original"))))
        return tuple(sorted(left))

    @cached_property
    def doubtful(self) -> tuple[Skipped, ...]:  # type: ignore[override]  # likewise
        """Those of `skipped` that may be part of a series."""
        return tuple(one for one in self.skipped if one.kind == "doubtful")

    @cached_property
    def _lost(self) -> dict[str, list[str]]:
        """Files that may be part of a series, with the reason why not, by folder."""
        found: dict[str, list[str]] = {}
        for one in filter(may_be_lost, self.skipped):
            found.setdefault(folder_of(one.path), []).append(f"{one.path}: {one.reason}")
        return found

    def _absolute(self, path: str) -> str:
        return absolute(self._mark.root, path)

    def _series_of(self, number: int) -> Series:
        row = self._table.slice(number, 1).to_pylist()[0]
        try:
            return self._read(row)
        except CatalogError:
            # A job may take hours, and a scan may bring the catalog up to date meanwhile.
            now = Catalog(self._folder, root=self.root, storage_options=self._storage_options)
            if now._mark == self._mark:
                raise
            keys = now._table["key"].to_pylist()
            if row["key"] not in keys:
                raise
            return now._read(now._table.slice(keys.index(row["key"]), 1).to_pylist()[0])

    def _read(self, row: Mapping[str, Any]) -> Series:
        study, uid, modality, folder = row["key"]
        copies = {copy["path"] for copy in row["copies"]}
        instances: list[Described] = []
        for place in row["places"]:
            for group in place["groups"]:
                table = self._groups(place["part"], group)
                rows = of_series(table, (study, uid, modality, folder), copies)
                instances += instances_of(self._folder, self._mark, self._storage_options, rows)
        if len(instances) != row["instances"]:
            raise CatalogError(
                f"series {uid} has {row['instances']} instances, and {len(instances)} are there",
                source=self._folder.url,
                code="catalog-damaged",
            )
        conflicts = [Irregularity("conflict", text) for text in row["conflicts"]]
        folders = {folder_of(one.source.name) for one in instances}
        if len(self._table) == 1:
            left_out = [text for texts in self._lost.values() for text in texts]
        else:
            beside = sorted(folders & self._lost.keys())
            left_out = [text for one in beside for text in self._lost[one]]
        return Series(uid, instances, conflicts, left_out)

    def select(self, query: str | None = None, **elements: Any) -> Catalog:
        """Return the series that match, as a catalog; no header is read for columns that it has.

        Parameters
        ----------
        query : str, optional
            Expression of pandas over the columns of :meth:`to_frame`, such as
            ``"Modality == 'MR' and frames > 20"``.
        **elements
            Values by DICOM keyword. Text may have wildcards, such as
            ``SeriesDescription="*bold*"``, and does not tell cases apart. What a catalog does not
            keep is read from the header of the first instance of each series that is left.

        Returns
        -------
        Catalog
            Empty if no value matches.

        Raises
        ------
        ValueError
            `query` cannot be evaluated, or matches nothing; the message says what there is.
        ImportError
            There is a `query`, and pandas is not installed.
        """
        for keyword in elements:
            if tag_for_keyword(keyword) is None:
                raise ValueError(f"{keyword!r} is not a DICOM keyword")
        numbers = list(self._numbers)
        if query is not None:
            numbers = [numbers[place] for place in matching(self.to_frame(), query)]
        by_column = {keyword: column for column, keyword in KEYWORDS.items()}
        for keyword, wanted in elements.items():
            if keyword in by_column:
                values = self._table[by_column[keyword]].to_pylist()
                # If instances differ, that of the first counts, as in a scan.
                numbers = [
                    one
                    for one in numbers
                    if (
                        has(self._series_of(one), keyword, wanted)
                        if values[one] is None
                        else equals(values[one], wanted)
                    )
                ]
            elif self._mark.identifiers and keyword in IDENTIFIERS:
                found = self._identifiers(keyword)
                numbers = [one for one in numbers if equals(found[one], wanted)]
        kept = {*by_column, *(IDENTIFIERS if self._mark.identifiers else ())}
        others = {key: value for key, value in elements.items() if key not in kept}
        if others:
            series = ((one, self._series_of(one)) for one in numbers)
            numbers = [
                number for number, one in series if all(has(one, *pair) for pair in others.items())
            ]
        return self._with(numbers)

    def _identifiers(self, keyword: str) -> list[str]:
        """Return the value of the first instance of each series, by its path."""
        first: dict[tuple[str, ...], tuple[str, str]] = {}
        for part in self._mark.instances:
            columns = (*KEY_COLUMNS, f"identifiers.{keyword}")
            table = read_part(self._folder, INSTANCES, part, columns)
            found = (table[name].to_pylist() for name in ("path", "identifiers"))
            for key, path, value in zip(keys_of(table), *found, strict=True):
                one = path, (value or {}).get(keyword) or ""
                first[key] = min(first.get(key, one), one)
        return [first.get(tuple(key), ("", ""))[1] for key in self._table["key"].to_pylist()]

    def _with(self, numbers: Sequence[int]) -> Catalog:
        found = object.__new__(Catalog)
        found.__dict__.update(self.__dict__)
        found._numbers = numbers
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return facts of each series, as JSON has types for them; none is assembled for it.

        Nothing in it but ``description`` and ``folder`` can be personal; UIDs are there, so that
        the source can be found again.

        Returns
        -------
        list of dict
            ``number`` is the place among these series; the others are those of
            :meth:`Scan.rows`.
        """
        rows = self._rows.select(_SHOWN).to_pylist()
        return [
            {"number": number, **row, "folder": self._absolute(row["folder"])}
            for number, row in enumerate(rows)
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return :meth:`rows` as a pandas data frame, one row for each series.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        return frame_of(self.rows())

    def opener(self, place: int) -> Callable[[], Series]:
        """Return what reads a series from the catalog.

        Parameters
        ----------
        place : int
        """
        return partial(self.__getitem__, place)

    def reading_order(self, places: Iterable[int]) -> list[int]:
        """Return places of series in the order in which their rows are read the fastest.

        Parameters
        ----------
        places : iterable of int
        """
        first = self._rows["places"].to_pylist()
        parts = {name: at for at, name in enumerate(self._mark.instances)}

        def place(one: int) -> tuple[int, int]:
            where: Any = first[one][0]
            return parts[where["part"]], where["groups"][0]

        return sorted(places, key=place)

    def __getstate__(self) -> dict[str, Any]:
        kept = {**self.__dict__}
        del kept["_groups"]
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._groups = lru_cache(_KEPT)(partial(_read_group, self._folder))


def opened_with(
    path: str, storage_options: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> Catalog:
    """Open a catalog with decoding options: with none, or those that it was made with.

    Raises
    ------
    CatalogError
        It was made with others.
    """
    found = open_catalog(path, storage_options=storage_options)
    if options and dict(options) != found._mark.options:
        raise CatalogError(
            f"it was made with the decoding options {found._mark.options}, and not with "
            f"{dict(options)}: scan again into another catalog, or take the files",
            source=path,
            code="catalog-options",
        )
    return found


def _read_group(folder: Folder, part: str, group: int) -> pa.Table:
    return read_part(folder, INSTANCES, part, groups=[group])
