"""The outputs of one series: written beside, and put in place once all of them are whole.

Below the target, ``series/NAME/.new-OWNER`` holds what is being written for one job and one state
of the files; the file ``.outputs`` in it lists the outputs that were begun there.
``records/NAME.files`` lists the files that dcmdask has written to ``series/NAME``. Only what these
list is ever replaced or removed. From the moment that a record says that its outputs are pending
they are whole, and whoever finds them puts them in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from dcmdask.batch.folder import Folder
from dcmdask.batch.identity import digest
from dcmdask.batch.mark import claim
from dcmdask.batch.records import RECORDS, Record, is_current, records
from dcmdask.errors import StoreExistsError, StoreLostError
from dcmdask.store.ownership import NODE, check_ours, sync_below

OUTPUTS = "series"
_NEW = ".new-"
_BEGUN = ".outputs"
# That list, and what is left of it by a process that was killed while it wrote it.
_LIST = re.compile(rf"\.?{re.escape(_BEGUN)}(\.[0-9a-f]{{32}}\.partial)?")
# The extension keeps what is written apart from what is returned.
_FILE = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
# Of an output, also one that is returned.
_STAGED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Of a path below the folder of the outputs: none of its parts is "..".
_OUTPUT = re.compile(r"(?!\.)[^/]+(/(?!\.\.?(/|\Z))[^/]+)*")
# Metadata of groups and arrays of Zarr 3 and 2, in the order to remove them: attributes and the
# list of all of a group go while nobody reads their node any more.
_METADATA = (NODE, ".zgroup", ".zarray", ".zmetadata", ".zattrs")


@dataclass
class Staging:
    """A folder beside the outputs of a series, for those that are being written.

    Attributes
    ----------
    folder : Folder
    name : str
        Of the series.
    owner : str
        Tells one job, its options and the files of the series from others.
    given : dict
        Name to final path of what the job writes itself.
    begun : set of str
        Names of outputs that were begun here: the list may be gone, where another driver's
        worker was through first.
    """

    folder: Folder
    name: str
    owner: str
    given: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)

    @property
    def below(self) -> str:
        """The folder of the outputs."""
        return f"{OUTPUTS}/{self.name}"

    @property
    def place(self) -> str:
        """The folder in it that they are written to."""
        return f"{self.below}/{_NEW}{digest(self.owner.encode())}"

    def clear(self) -> None:
        """Remove what was staged for other versions of the job or of the files.

        Raises
        ------
        StoreExistsError
            The folder of the outputs, or of all series, is a link.
        """
        self.folder.check_links([self.below])
        tops = {_top(one) for one in self.folder.files(self.below)}
        for one in sorted(tops):
            if one.startswith(_NEW) and f"{self.below}/{one}" != self.place:
                _discard(self.folder, f"{self.below}/{one}")

    def forget(self, names: Iterable[str]) -> None:
        """Remove what a try that died has left of outputs.

        Not on an object store: objects are whole there, and another driver may write the same.
        """
        if self.folder.is_local:
            begun = _begun(self.folder, self.place) & {*names}
            staged = self.folder.files(self.place)
            self.folder.remove(f"{self.place}/{one}" for one in staged if _top(one) in begun)

    def discard(self) -> None:
        """Remove what is staged."""
        _discard(self.folder, self.place, self.begun)

    def path(self, name: str) -> str:
        """Return the path or URL to write an output to; its folder is there."""
        self.folder.check_links([self.place])
        self.begun.add(name)
        begun = _begun(self.folder, self.place)
        if name not in begun:
            told = json.dumps(sorted({*begun, name}))
            self.folder.write(f"{self.place}/{_BEGUN}", told.encode())
        return self.folder.path(f"{self.place}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Write an output of one file."""
        self.path(name)
        self.folder.write(f"{self.place}/{name}", data)

    def output(self, name: str) -> str:
        """Return where the job itself may write an output."""
        self.given[name] = f"{self.below}/{name}"
        return self.path(name)

    def check_free(self, names: Iterable[str]) -> None:
        """Refuse outputs in whose place something lies that dcmdask did not write.

        Parameters
        ----------
        names : iterable of str
            Of files or folders.
        """
        tops = {*names}
        for name in tops:
            # An empty folder is no loss.
            self.folder.prune(f"{self.below}/{name}")
        in_place = sorted(one for one in self.folder.files(self.below) if _top(one) in tops)
        listed = _listed(self.folder, self.name)
        written = {*listed.written, *listed.new} if listed else set()
        check_ours(self.folder.path(self.below), in_place, written)

    def put_in_place(self, record: Record, earlier: Record | None) -> Record:
        """Put what is staged in place of what an earlier run wrote, and write the record.

        Parameters
        ----------
        record : Record
            Of the results.
        earlier : Record or None
            The record that was there when the job began with the series.

        Raises
        ------
        StoreExistsError
            Something that dcmdask did not write stands in the way, or another version of the job
            has put its results in place meanwhile; nothing has changed.
        StoreLostError
            An output was not written.
        OSError
            A file cannot be written or moved; the next try goes on with it.
        """
        tops = {path.rpartition("/")[2] for path in record.outputs.values()}
        found = self.folder.files(self.place)
        # What only an earlier try has written is no output.
        staged = {one for one in found if _top(one) in tops}
        there = records(self.folder, [self.name]).get(self.name)
        if there is not None and is_current(
            replace(there, pending=False), record.job, record.source, record.times
        ):
            # Another driver's worker puts the same in place, and may have removed some of these.
            if there.pending:
                there = settled(self.folder, there)
            self.discard()
            return there
        if _results_of(there) != _results_of(earlier):
            raise StoreExistsError(
                f"{self.folder.path(self.below)}: another version of the job has put its results "
                "in place meanwhile"
            )
        if missing := tops - {_top(one) for one in staged}:
            raise StoreLostError(
                f"the output {min(missing)} was not written", source=self.folder.path(self.place)
            )
        self.check_free(tops)
        listed = _listed(self.folder, self.name)
        written = set() if listed is None else listed.written
        if listed is not None and listed.place != self.place:
            # Otherwise another driver's worker is about to put the same in place.
            written |= listed.new
        if not staged and not written:
            if found:
                self.discard()
            record.write(self.folder)
            return record
        if self.folder.is_local:
            # Before a record says that they are whole.
            sync_below(self.folder.path(self.place))
        _Listed(written, staged, self.place).write(self.folder, self.name)
        record = replace(record, pending=True)
        record.write(self.folder)
        return settled(self.folder, record)


def settled(folder: Folder, record: Record) -> Record:
    """Put the outputs of a record in place that are pending, also those of a run that died.

    Groups and arrays have no metadata while objects are replaced, at whatever depth, so that nobody
    reads a mixture of two versions. Where another driver's worker does the same and is through
    first, what is staged is gone: only metadata that are held in memory are removed, so that they
    can be put back.

    Returns
    -------
    Record
        Without anything pending, as it is written.

    Raises
    ------
    StoreExistsError
        The folder of the outputs is a link.
    StoreLostError
        Some of them are neither staged nor in place.
    """
    below = f"{OUTPUTS}/{record.name}"
    folder.check_links([below])
    listed = _listed(folder, record.name)
    # In this order: another driver's worker may be moving them.
    staged = folder.files(listed.place) if listed else set()
    there = folder.files(below)
    if listed is None or listed.new - staged - there:
        raise StoreLostError(
            f"the outputs of a run that died are lost; remove {key_of_list(record.name)} and the "
            "record beside it to do the series again",
            source=folder.path(below),
        )
    keys = {f"{listed.place}/{one}": one for one in listed.new & staged if _is_metadata(one)}
    held = {keys[key]: data for key, data in folder.read(keys).items()}
    # No links are followed: what lies behind one is not what is listed.
    old = (listed.written & there) - (listed.new - held.keys())
    metadata = {one for one in old if _is_metadata(one)}
    for one in sorted(metadata, key=_rank):
        folder.remove([f"{below}/{one}"])
    folder.remove(f"{below}/{one}" for one in sorted(old - metadata))
    folder.move(listed.place, below, sorted((listed.new & staged) - held.keys()))
    for one in sorted(held, key=_rank, reverse=True):
        if folder.is_local:
            # Alone here; and a write that is killed would leave a file beside.
            folder.move(listed.place, below, [one])
        else:
            folder.write(f"{below}/{one}", held[one])
    _Listed(set(), listed.new, listed.place).write(folder, record.name)
    _discard(folder, listed.place)
    record = replace(record, pending=False)
    record.write(folder)
    return record


def _top(path: str) -> str:
    return path.partition("/")[0]


def _is_metadata(path: str) -> bool:
    """Return whether a file is metadata of a group or an array, without which nobody reads it."""
    return path.rpartition("/")[2] in _METADATA


def _rank(metadata: str) -> tuple[int, int]:
    """Return what metadata are removed by, from the outside to the inside."""
    return metadata.count("/"), _METADATA.index(metadata.rpartition("/")[2])


def _results_of(record: Record | None) -> tuple[str, str, str]:
    return ("", "", "") if record is None else (record.made_by, record.made_from, record.times)


def _begun(folder: Folder, place: str) -> set[str]:
    """Return the names of the outputs that were begun in a staging folder."""
    key = f"{place}/{_BEGUN}"
    try:
        told = json.loads(folder.read([key])[key])
        return {one for one in told if _STAGED.fullmatch(one)}
    except (KeyError, ValueError, TypeError):
        return set()


def _discard(folder: Folder, place: str, known: Iterable[str] = ()) -> None:
    """Remove the outputs that were begun in a staging folder, and their list last."""
    begun = {*_begun(folder, place), *known}
    staged = folder.files(place)
    folder.remove(f"{place}/{one}" for one in staged if _top(one) in begun)
    folder.remove(f"{place}/{one}" for one in staged if _LIST.fullmatch(one))
    folder.prune(place)


@dataclass
class _Listed:
    """The files of a series that dcmdask has written.

    Attributes
    ----------
    written, new : set of str
        Those that were there before, and those that are to be.
    place : str
        The folder that the new ones come from.
    """

    written: set[str]
    new: set[str]
    place: str

    def write(self, folder: Folder, name: str) -> None:
        told = {"written": sorted(self.written), "new": sorted(self.new), "from": self.place}
        folder.write(key_of_list(name), json.dumps(told).encode())


def key_of_list(name: str) -> str:
    """Return where the list of the files of a series is, below the target."""
    return f"{RECORDS}/{name}.files"


def _listed(folder: Folder, name: str) -> _Listed | None:
    """Return the list of the files of a series, if there is one that can be believed."""
    key = key_of_list(name)
    try:
        told = json.loads(folder.read([key])[key])
        found = _Listed({*told["written"]}, {*told["new"]}, told["from"])
        # One that was put there by hand must not lead elsewhere.
        place = re.fullmatch(
            rf"{OUTPUTS}/{re.escape(name)}/{re.escape(_NEW)}[0-9a-f]+", found.place
        )
        if place and all(_OUTPUT.fullmatch(one) for one in found.written | found.new):
            return found
    except (KeyError, ValueError, TypeError):
        pass
    return None


@dataclass
class OfAll:
    """The outputs of `finish`: files beside the table of results, listed in the mark."""

    folder: Folder

    def output(self, name: str) -> str:
        """Return where `finish` may write a file."""
        claim(self.folder, [name])
        return self.folder.path(name)


_in_use: ContextVar[Staging | OfAll] = ContextVar("outputs_in_use")


@contextmanager
def in_use(outputs: Staging | OfAll) -> Iterator[None]:
    """Let `output` name files of these meanwhile."""
    token = _in_use.set(outputs)
    try:
        yield
    finally:
        _in_use.reset(token)


def output(name: str) -> str:
    """Return the path or URL of something that `process` writes itself, below the target.

    For what is better not returned: a store that another function writes, or goes on with.
    It goes into the record of the series. What an earlier try began is still there, if it was
    one of the same job with the same options and files. It is put in place with the other
    results, once all of them are whole. In `finish`, for a file beside the table of results,
    which the next run writes again.

    Parameters
    ----------
    name : str
        Of a file or a folder, with an extension; letters, digits, ``_`` and ``-``.

    Raises
    ------
    RuntimeError
        No series is being processed here; neither is one inside of a task of Dask's.
    StoreExistsError
        In `finish`: the file was not written by dcmdask.
    ValueError
        That is no such name.

    Examples
    --------
    >>> def process(series):
    ...     dcmdask.to_zarr(series, batch.output("pixels.zarr"), resume=True)
    """
    if not _FILE.fullmatch(name):
        raise ValueError(f"{name!r} cannot name an output: letters, digits, _ and -, and a '.ext'")
    return _outputs().output(name)


def target_options() -> dict[str, Any]:
    """Return the options for the file system of what :func:`output` names.

    Keyword arguments for fsspec, where the target is a URL and options were given for it.

    Raises
    ------
    RuntimeError
        As :func:`output` does.

    Examples
    --------
    >>> def process(series):
    ...     with fsspec.open(batch.output("a.bin"), "wb", **batch.target_options()) as file:
    ...         file.write(b"...")
    """
    return dict(_outputs().folder.options or {})


def _outputs() -> Staging | OfAll:
    outputs = _in_use.get(None)
    if outputs is None:
        raise RuntimeError(
            "batch.output is for the function that batch.run calls with a series, and for finish; "
            "not for tasks of its arrays"
        )
    return outputs
