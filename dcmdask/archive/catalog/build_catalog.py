"""`build_catalog`: a scan that is kept, goes on where it was interrupted, and reads what is new."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dcmdask import __version__
from dcmdask.archive.catalog.catalog import Catalog, Changes
from dcmdask.archive.catalog.known import Known, is_lasting
from dcmdask.archive.catalog.parts import (
    INSTANCES,
    KINDS,
    SERIES,
    SKIPPED,
    Left,
    Mark,
    group_sizes,
    read_mark,
    read_part,
    write_instances,
    write_mark,
    write_skipped,
    write_tables,
)
from dcmdask.archive.catalog.root import (
    absolute,
    check_apart,
    instances_of,
    is_below,
    leads_out,
    source_and_root,
    without_root,
)
from dcmdask.archive.catalog.series_table import (
    KEY_COLUMNS,
    Key,
    compacted,
    keys_of,
    read_series,
    write_series,
)
from dcmdask.archive.descriptions import Outcome
from dcmdask.archive.discovery import CATALOG_MARK, Skipped, choice, is_url
from dcmdask.archive.listing import Listing, outcomes
from dcmdask.dicom.description import Described
from dcmdask.dicom.image_pixel import HEADER_OPTIONS, check_options
from dcmdask.errors import CatalogError, StoreExistsError
from dcmdask.sources import files
from dcmdask.sources.current import listed
from dcmdask.sources.folder import Folder

if TYPE_CHECKING:
    from distributed import Client

# Files of a part, frames of all its instances, and seconds that it may take to come together: so
# much is in memory, and lost where a scan is interrupted.
_ROWS, _FRAMES, _SECONDS = 10_000, 2_000_000, 60.0


def build_catalog(
    src: str | os.PathLike[str],
    catalog: str | os.PathLike[str],
    *,
    exclude: Iterable[str] | str = (),
    follow_links: bool = False,
    walk: bool = False,
    identifiers: bool = False,
    compact: bool = False,
    client: Client | None = None,
    progress: Callable[[int, int | None], object] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    **decoding_options: Any,
) -> Catalog:
    """Scan a folder into a catalog, or bring a catalog up to date; only headers are read.

    A catalog is a folder of Parquet files that :func:`open_catalog` opens. At the first call all
    files are read, later those that are new or have another size, modification time or entity tag;
    those that are gone are removed. A call that was interrupted goes on with the next one. Until a
    call is complete, the catalog is what it was before.

    Parameters
    ----------
    src : str or path-like
        A folder, or a URL of fsspec that is one. Paths in the catalog are relative to it.
    catalog : str or path-like
        A folder, or a URL for fsspec, that is new, empty or a catalog. It may lie in the source:
        a scan leaves it out.
    exclude : str or iterable of str, optional
        Patterns such as ``"*.png"`` or ``"thumbnails"`` for the names of files and folders
        to leave out, at any depth; one with a slash, such as ``"old/*.dcm"``, is for the
        path below `src`.
    follow_links : bool, optional
        Follow links to folders.
    walk : bool, optional
        Walk over the items of remote files that have no offset table, and keep where each frame
        is. That moves all bytes of these files, once; without it, each time that they are opened.
    identifiers : bool, optional
        Keep elements that name a person, a study or a place as well, such as Patient ID and Study
        Date, so that series can be selected by them: such a catalog is as confidential as its
        archive.
    compact : bool, optional
        Write all parts of the catalog again, few and sorted by series, which is quicker to read
        after many small changes.
    client : distributed.Client, optional
        Workers that read the headers; they have to see the files under the same names.
    progress : callable, optional
        Called now and then with the number of files that are done, and how many there are,
        which is None until all are found.
    storage_options, target_options : mapping, optional
        Keyword arguments for the fsspec file systems of `src` and of `catalog`. They are not
        written down.
    **decoding_options
        For all files, which are opened with them as well: overrides of group 0028 by pydicom's
        keywords, `transfer_syntax_uid`, `inflate_limit` and `allow_excess_frames`.

    Returns
    -------
    Catalog
        Its `changes` say what was new.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        The source is not there, or no folder.
    ValueError
        The source is an archive, a URL with a query, or a folder in the catalog.
    StoreExistsError
        `catalog` holds something else, is being written by another process, or is of another
        archive: none of its files is in `src`.
    CatalogError
        It is damaged, or made with other decoding options.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from pydicom.data import get_testdata_file
    >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests" / "98892003"
    >>> target = Path(mkdtemp()) / "archive.catalog"
    >>> build_catalog(folder, target)
    <Catalog: 7 series, 17 instances of 17 files>
    >>> build_catalog(folder, target).changes
    Changes(new=0, changed=0, gone=0, known=17)
    """
    check_options(decoding_options, build_catalog, HEADER_OPTIONS)
    source, root = source_and_root(src, storage_options or {})
    folder = Folder.of(catalog, target_options)
    check_apart(folder.url, source)
    listing = Listing(
        [source], storage_options or {}, choice(exclude, follow_links), decoding_options
    )
    with folder.lease(CATALOG_MARK) as held:
        if not held:
            raise _busy(folder)
        mark = _begun(folder, root, decoding_options, identifiers)
        there = {kind: _parts(folder, kind) for kind in KINDS}
        # Another version may understand what one did not.
        skipped = there[SKIPPED] if mark.version == __version__ else ()
        known = Known(folder, there[INSTANCES], skipped, indexed=walk)
        scan = _Scan(folder, listing, root, known, walk, identifiers)
        scan.run(progress, client)
        changes = scan.committed(mark, there, compact)
    found = Catalog(folder, storage_options=storage_options)
    found.changes = changes
    return found


def _busy(folder: Folder) -> StoreExistsError:
    return StoreExistsError(
        f"another process is writing the catalog {folder.url}: wait for it, and scan again",
        code="catalog-busy",
    )


def _begun(folder: Folder, root: str, options: Mapping[str, Any], identifiers: bool) -> Mark:
    mark = read_mark(folder)
    if mark is None:
        others = [name for name in folder.names("") if not name.startswith(".")]
        if others:
            raise StoreExistsError(
                f"{folder.url} is no catalog, and holds other files, such as {min(others)}",
                code="no-catalog",
            )
        mark = Mark(root, dict(options), 0, identifiers, __version__)
        write_mark(folder, mark)
    if mark.options != dict(options):
        raise CatalogError(
            f"it was made with the decoding options {mark.options}, and not with {dict(options)}",
            source=folder.url,
            code="catalog-options",
        )
    if mark.identifiers != identifiers:
        raise CatalogError(
            f"it was made {'with' if mark.identifiers else 'without'} identifiers, and is to be "
            f"brought up to date {'with' if identifiers else 'without'} them: identifiers=True "
            "(--with-identifiers) belongs to every scan of a catalog, or to none",
            source=folder.url,
            code="catalog-identifiers",
        )
    return mark


def _parts(folder: Folder, kind: str) -> list[str]:
    return sorted(name for name in folder.names(kind) if name.endswith(".parquet"))


@dataclass
class _Scan:
    """One call of :func:`build_catalog`: what it has found so far."""

    folder: Folder
    listing: Listing
    root: str
    known: Known
    walk: bool
    identifiers: bool
    written: dict[str, list[str]] = field(default_factory=lambda: {INSTANCES: [], SKIPPED: []})
    read: int = 0
    _instances: list[tuple[str, Described]] = field(default_factory=list)
    _left: list[Left] = field(default_factory=list)
    _frames: int = 0
    _since: float = field(default_factory=time.monotonic)
    # Size and state of files that are being read, by path.
    _states: dict[str, tuple[int, int | None, str | None]] = field(default_factory=dict)

    def run(
        self, progress: Callable[[int, int | None], object] | None, client: Client | None
    ) -> None:
        """Read what is not known, and write it in parts."""
        self.listing.identifiers = self.identifiers
        self.listing.indexing = "walk" if self.walk else "at hand"
        self.listing.is_known = self._sees
        done = 0
        try:
            with closing(outcomes(self.listing, client)) as found:
                for some in found:
                    for one in some:
                        self._add(one)
                    done += len(some)
                    if progress is not None:
                        total = self.listing.files if self.listing.complete else None
                        progress(done + self.known.seen, total)
                    if self._is_enough():
                        self._flush()
        finally:
            # Also an interrupted scan keeps the headers that it has read.
            self._flush()
        self._check_archive()
        for one in self.listing.skipped:
            self._leave(one)
        self._flush()

    def _path(self, name: str) -> str:
        """Return the path of a file in the catalog; bytes that are no UTF-8 are escaped."""
        path = name.removeprefix(self.root).removeprefix("/")
        return path.encode("utf-8", "backslashreplace").decode()

    def _sees(self, one: str | files.RemoteFile) -> bool:
        """Return whether a file is known as it is, and otherwise remember how it is."""
        if isinstance(one, str) and is_url(one):
            if not len(self.known):
                return False
            found = listed(one, self.listing.storage_options)
            if found is None:
                return False
            one = found
        if isinstance(one, files.RemoteFile):
            path, size, key = self._path(one.name), one.size, one.key
            self._states[one.name] = (size, None, key)
            return self._is_seen(one.name, path, size, key)
        try:
            status = os.stat(one)
        except OSError:
            return False
        self._states[one] = (status.st_size, status.st_mtime_ns, None)
        return self._is_seen(one, self._path(one), status.st_size, status.st_mtime_ns)

    def _is_seen(self, name: str, path: str, size: int, state: object) -> bool:
        if self.known.sees(path, size, state):
            del self._states[name]
            return True
        return False

    def _add(self, one: Outcome) -> None:
        self.read += 1
        if isinstance(one, Skipped):
            self._leave(one)
            return
        name = one.source.name
        self._states.pop(name, None)
        if not isinstance(one.source, files.LocalFile | files.RemoteFile):
            text = "its server gives no ranges of bytes, so that it cannot be in a catalog"
            self._leave(Skipped(name, text, "doubtful", "no-ranges"))
        elif leads_out(path := self._path(name)) or absolute(self.root, path) != name:
            text = "its name is not UTF-8, or leads elsewhere, so that it cannot be in a catalog"
            self._leave(Skipped(name, text, "doubtful", "name"))
        else:
            self._instances.append((path, one))
            self._frames += len(one)

    def _leave(self, one: Skipped) -> None:
        state = self._states.pop(one.path, None)
        if state is None and is_lasting(one) and is_url(one.path):
            # A web server lists names only, and is asked before it is read where that can help.
            found = listed(one.path, self.listing.storage_options)
            state = None if found is None else (found.size, None, found.key)
        one = one._replace(path=self._path(one.path), reason=without_root(one.reason, self.root))
        if not self.known.sees_entry(one):
            self._left.append(Left(one, *(state or ())))

    def _is_enough(self) -> bool:
        count = len(self._instances) + len(self._left)
        late = time.monotonic() - self._since > _SECONDS
        return count >= _ROWS or self._frames >= _FRAMES or late

    def _flush(self) -> None:
        if self._instances:
            self.written[INSTANCES].append(write_instances(self.folder, self._instances))
        if self._left:
            self.written[SKIPPED].append(write_skipped(self.folder, self._left))
        self._instances, self._left, self._frames = [], [], 0
        self._since = time.monotonic()

    def _check_archive(self) -> None:
        """Refuse to empty a catalog whose archive is not there."""
        has_instances = any(kind == INSTANCES for kind, _ in self.known.kept())
        if not has_instances or self.known.seen:
            return
        before: set[str] = set()
        for kind, name in self.known.kept():
            before.update(read_part(self.folder, kind, name, ("path",))["path"].to_pylist())
        _, again = self._written_among(before)
        if not again:
            found = f"{self.read} other files are" if self.read else "nothing is"
            raise StoreExistsError(
                f"none of the {len(self.known)} files that the catalog {self.folder.url} knows is "
                f"there, and {found} in {self.root}: is this the archive, and is its disk mounted? "
                "For another archive take another catalog",
                code="catalog-archive",
            )

    def _check_alone(self, mark: Mark) -> None:
        """Check that nobody has written the catalog meanwhile: an object store has no locks."""
        if read_mark(self.folder) != mark:
            raise _busy(self.folder)

    def committed(self, mark: Mark, there: Mapping[str, Sequence[str]], compact: bool) -> Changes:
        """Remove what is gone, write the series, and put all that in place at once."""
        self._check_alone(mark)
        gone: set[str] = set()
        changed: set[Key] = set()
        parts = {INSTANCES: [*self.written[INSTANCES]], SKIPPED: [*self.written[SKIPPED]]}
        fresh = {*there[INSTANCES]} - {*mark.instances}
        unreadable = [self._path(one.path) for one in self.listing.skipped if one.code == "folder"]
        for (kind, name), kept in self.known.kept().items():
            if kept.all():
                parts[kind].append(name)
                continue
            table = read_part(self.folder, kind, name)
            paths = table["path"].to_pylist()
            # A folder that cannot be read now may hold all that it held.
            lost = [
                not yes and not any(is_below(path, one) for one in unreadable)
                for yes, path in zip(kept.tolist(), paths, strict=True)
            ]
            gone.update(path for path, is_lost in zip(paths, lost, strict=True) if is_lost)
            if not any(lost):
                parts[kind].append(name)
                continue
            if kind == INSTANCES:
                # All rows that an interrupted scan has left are new to their series.
                is_news = pa.array([name in fresh or one for one in lost], pa.bool_())
                changed.update(keys_of(table.filter(is_news)))
            parts[kind] += self._without(kind, name, table, lost)
        for name in {*self.written[INSTANCES], *fresh} & {*parts[INSTANCES]}:
            changed.update(keys_of(read_part(self.folder, INSTANCES, name, KEY_COLUMNS)))
        written, again = self._written_among(gone)
        changes = Changes(written - again, again, len(gone) - again, self.known.seen)
        if compact:
            parts[INSTANCES] = compacted(self.folder, parts[INSTANCES])
        instances, skipped = (tuple(sorted(parts[kind])) for kind in (INSTANCES, SKIPPED))
        now = mark._replace(
            root=self.root,
            files=self.listing.files,
            version=__version__,
            instances=instances,
            skipped=skipped,
            series=(),
        )
        # Another version may say other things of the same instances.
        is_there = mark.version == __version__ and {*mark.series} <= {*there[SERIES]}
        same = mark.series if is_there else ()
        if same and now == mark._replace(series=()):
            return changes
        described = partial(
            instances_of, self.folder, now, self.listing.storage_options, with_index=False
        )
        before = (read_series(self.folder, one, mark.instances) for one in same)
        series = write_series(self.folder, now.instances, changed, before, described, self.root)
        now = now._replace(series=(series,))
        self._check_alone(mark)
        write_mark(self.folder, now)
        # Those of before, and of scans that were interrupted; not those of one that begins now.
        for kind in KINDS:
            spent = {*there[kind], *self.written.get(kind, ())} - {*getattr(now, kind)}
            self.folder.remove(f"{kind}/{name}" for name in spent)
        return changes

    def _without(self, kind: str, name: str, table: pa.Table, lost: list[bool]) -> list[str]:
        """Write a part again without some rows, and return its name; nothing of an empty one."""
        if all(lost):
            return []
        sizes = group_sizes(self.folder, name) if kind == INSTANCES else [table.num_rows]
        groups, start = [], 0
        for size in sizes:
            mask = pa.array([not one for one in lost[start : start + size]], pa.bool_())
            group = table.slice(start, size).filter(mask)
            groups += [group] if group.num_rows else []
            start += size
        return [write_tables(self.folder, kind, groups)]

    def _written_among(self, paths: set[str]) -> tuple[int, int]:
        """Return the number of rows that were written, and of those with one of some paths."""
        count = among = 0
        for kind, names in self.written.items():
            for name in names:
                column = read_part(self.folder, kind, name, ("path",))["path"].to_pylist()
                count += len(column)
                among += sum(one in paths for one in column)
        return count, among
