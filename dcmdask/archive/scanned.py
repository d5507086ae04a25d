"""`Scan`: the series that a scan found, queries of them, and their table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, overload

from pydicom.datadict import tag_for_keyword

from dcmdask.archive.discovery import Skipped, common_folder
from dcmdask.archive.grouping import by_series
from dcmdask.archive.series import Series
from dcmdask.archive.table import HEADS, cells, frame_of, matching, row
from dcmdask.pixels.notebook import html_table

if TYPE_CHECKING:
    import pandas as pd

# Series that a table in a notebook shows.
_SHOWN = 100


class Scan(Sequence[Series]):
    """The series that :func:`scan` found.

    A sequence: ``scan[0]`` is a `Series`, ``scan[2:5]`` a tuple of them, and
    ``scan["1.2.3"]`` the one with this Series Instance UID, or whose UID ends like this. In a
    notebook it is a table.

    Attributes
    ----------
    skipped : tuple of Skipped
        ``(path, reason, kind, code)`` of each file or folder that is no part of a series, sorted
        by path.
    doubtful : tuple of Skipped
        Those of `skipped` that may be part of a series: damaged, unreadable, gone.
    files : int
        Number of files that were looked into.
    name : str
        Display name of the source.
    root : str
        Folder or URL that holds all files, where one was named; empty otherwise.
    """

    root = ""

    def __init__(
        self, series: Iterable[Series], skipped: Iterable[Skipped], files: int, name: str
    ) -> None:
        self._series = tuple(series)
        self.skipped = tuple(skipped)
        self.doubtful = tuple(one for one in self.skipped if one.kind == "doubtful")
        self.files = files
        self.name = name

    def __len__(self) -> int:
        return len(self._series)

    @overload
    def __getitem__(self, key: int | str) -> Series: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Series, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Series | tuple[Series, ...]:
        if not isinstance(key, str):
            return self._series[key]
        return self._series[self._place_of(key)]

    def _place_of(self, key: str) -> int:
        """Return the place of the series whose UID is `key`, or ends like it."""
        uids = [uid for _, uid, _, _ in self.keys()]
        same = [place for place, uid in enumerate(uids) if uid == key]
        found = same or [place for place, uid in enumerate(uids) if key and uid.endswith(key)]
        if len(found) != 1:
            raise KeyError(
                f"the Series Instance UIDs of {len(found)} of {len(self)} series are {key!r} or "
                "end like this"
            )
        return found[0]

    def keys(self) -> list[tuple[str, ...]]:
        """Return study, UID, modality and folder of each series; with a UID nothing but that."""
        return [key_of(one) for one in self]

    def opener(self, place: int) -> Callable[[], Series]:
        """Return what returns a series and does not hold the others.

        Parameters
        ----------
        place : int
        """
        one = self[place]
        return lambda: one

    def reading_order(self, places: Iterable[int]) -> list[int]:
        """Return places of series in the order in which they are read the fastest.

        Parameters
        ----------
        places : iterable of int
        """
        return list(places)

    def __repr__(self) -> str:
        instances = sum(map(len, self))
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<Scan: {len(self)} series, {instances} instances of {self.files} files{skipped}>"

    def _repr_html_(self) -> str:
        rows = self.rows()[:_SHOWN]
        root = common_folder(row["folder"] for row in rows)
        shown = [cells(row, root) for row in rows]
        more = f"; {len(self) - _SHOWN} more are not shown" if len(self) > _SHOWN else ""
        return html_table(f"{len(self)} series of {self.files} files in {root}{more}", HEADS, shown)

    def select(self, query: str | None = None, **elements: Any) -> Scan:
        """Return the series that match, as a scan.

        Parameters
        ----------
        query : str, optional
            Expression of pandas over the columns of :meth:`to_frame`, such as
            ``"Modality == 'MR' and frames > 20"``.
        **elements
            Values by DICOM keyword. Text may have wildcards, such as
            ``SeriesDescription="*bold*"``, and does not tell cases apart. What a scan does not keep
            is read from the header of the first instance of each series.

        Returns
        -------
        Scan
            Empty if no value matches.

        Raises
        ------
        ValueError
            `query` cannot be evaluated, or matches nothing; the message says what there is.
        ImportError
            There is a `query`, and pandas is not installed.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> from dcmdask import scan
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892003"
        >>> scan(folder).select(Modality="MR", SeriesDescription="angio*")
        <Scan: 1 series, 7 instances of 17 files>
        """
        for keyword in elements:
            if tag_for_keyword(keyword) is None:
                raise ValueError(f"{keyword!r} is not a DICOM keyword")
        places = range(len(self)) if query is None else matching(self.to_frame(), query)
        chosen = [self[place] for place in places]
        chosen = [one for one in chosen if all(has(one, *pair) for pair in elements.items())]
        return Scan(chosen, self.skipped, self.files, self.name)

    def rows(self) -> list[dict[str, Any]]:
        """Return facts of each series, as JSON has types for them.

        Nothing in it but ``description`` and ``folder`` can be personal; UIDs are there, so that
        the source can be found again.

        Returns
        -------
        list of dict
            ``number`` is the place in this scan. ``kinds`` are those of the stacks. ``rows``,
            ``columns``, ``samples`` and ``dtype`` are None where instances differ, ``summary``
            (a line that says what it is), ``dims``, ``shape`` and ``spacing`` (z, y, x in mm,
            None where it is not known) where there is not exactly one stack.
            ``irregularities`` are in words.
        """
        return [row(number, series) for number, series in enumerate(self)]

    def to_frame(self) -> pd.DataFrame:
        """Return :meth:`rows` as a pandas data frame, one row for each series.

        Raises
        ------
        ImportError
            pandas is not installed.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> from dcmdask import scan
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/77654033"
        >>> table = scan(folder).to_frame()
        >>> table[["modality", "frames", "dims", "regular"]]
          modality  frames           dims  regular
        0       CR       1  [frame, y, x]     True
        1       CR       1  [frame, y, x]     True
        2       CR       1  [frame, y, x]     True
        3       CT       4      [z, y, x]    False
        >>> table[~table.regular].irregularities.item()
        ['gaps are uneven, from 1.25 to 202.5 mm (median 1.25): 202.5 mm behind the frame that \
is 0 mm from the first']
        """
        return frame_of(self.rows())


def key_of(series: Series) -> tuple[str, ...]:
    """Return study, UID, modality and folder of a series, as its instances are grouped by."""
    study, _, *others = by_series(series.instances[0])
    return study, series.uid, *others


def has(series: Series, keyword: str, wanted: Any) -> bool:
    """Return whether an element of a series has a value, as :meth:`Scan.select` compares it."""
    known = {**series.metadata, "SeriesDescription": series.description}
    value = known[keyword] if keyword in known else series.header.get(keyword)
    return equals(value, wanted)


def equals(value: Any, wanted: Any) -> bool:
    """Return whether a value is what is wanted; text may have wildcards."""
    if isinstance(wanted, str):
        # Spaces around a value are padding (PS3.5 6.2).
        text = "" if value is None else str(value).strip()
        return fnmatchcase(text.lower(), wanted.lower())
    return bool(value == wanted)
