"""The outputs of one series: written beside, and put in place once all of them are whole.

Below the target, ``series/NAME/.new`` holds what is being written, and the file ``owner`` in it
says for which job and which files; ``records/NAME.files`` lists what dcmdask has written to
``series/NAME``. Only what it lists is ever replaced or removed. From the moment that a record
says that its outputs are pending they are whole, and whoever finds them puts them in place.
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
from dcmdask.batch.mark import claim
from dcmdask.batch.records import RECORDS, Record, is_current, records
from dcmdask.export.ownership import check_ours
from dcmdask.export.target import sync_below

OUTPUTS = "series"
_NEW = ".new"
_OWNER = "owner"
_BEGUN = re.compile(rf"\.{_OWNER}\.[0-9a-f]{{32}}\.partial")
# The extension keeps what is written apart from what is returned.
_FILE = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
# Of a path below the folder of the outputs: none of its parts is "..".
_OUTPUT = re.compile(r"(?!\.)[^/]+(/(?!\.\.?(/|\Z))[^/]+)*")


@dataclass
class Staging:
    """Where the outputs of a series are written before they are put in place.

    Attributes
    ----------
    folder : Folder
    name : str
        Of the series.
    owner : str
        Tells one job, its options and the files of the series from others.
    given : dict
        Name to final path of what the job writes itself.
    """

    folder: Folder
    name: str
    owner: str
    given: dict[str, str] = field(default_factory=dict)

    @property
    def below(self) -> str:
        """The folder of the outputs."""
        return f"{OUTPUTS}/{self.name}"

    def clear(self) -> None:
        """Remove what was staged for another version of the job or of the files.

        Raises
        ------
        StoreExistsError
            The place is taken by something that no job has staged.
        """
        staged = self.folder.files(f"{self.below}/{_NEW}")
        if not staged:
            return
        if _OWNER not in staged:
            # But for what a process leaves that was killed while it wrote that.
            others = sorted(one for one in staged if not _BEGUN.fullmatch(one))
            check_ours(self.folder.path(f"{self.below}/{_NEW}"), others, ())
        owner = self.folder.read([self._key(_OWNER)]).get(self._key(_OWNER))
        if owner != self.owner.encode():
            self.discard()

    def forget(self, names: Iterable[str]) -> None:
        """Remove what a try that died has left of outputs.

        Not on an object store: objects are whole there, and another driver may write the same.
        """
        if self.folder.is_local:
            tops = set(names)
            staged = self.folder.files(f"{self.below}/{_NEW}")
            self.folder.remove(self._key(one) for one in staged if one.partition("/")[0] in tops)

    def discard(self) -> None:
        """Remove what is staged, the owner last."""
        staged = self.folder.files(f"{self.below}/{_NEW}")
        last = sorted(staged, key=lambda one: one == _OWNER)
        self.folder.remove(map(self._key, last))
        self.folder.prune(f"{self.below}/{_NEW}")

    def path(self, name: str) -> str:
        """Return the path or URL to write an output to; its folder is there."""
        key = self._key(_OWNER)
        if self.folder.read([key]).get(key) != self.owner.encode():
            self.folder.write(key, self.owner.encode())
        return self.folder.path(self._key(name))

    def write(self, name: str, data: bytes) -> None:
        """Write an output of one file."""
        self.path(name)
        self.folder.write(self._key(name), data)

    def output(self, name: str) -> str:
        """Return where the job itself may write an output."""
        self.given[name] = f"{self.below}/{name}"
        return self.path(name)

    def check_free(self, names: list[str]) -> None:
        """Refuse outputs in whose place something lies that dcmdask did not write.

        Parameters
        ----------
        names : list of str
            Of files or folders.
        """
        there = self.folder.files(self.below)
        in_place = sorted(one for one in there if one.partition("/")[0] in names)
        check_ours(self.folder.path(self.below), in_place, _listed(self.folder, self.name)[0])

    def put_in_place(self, record: Record) -> Record:
        """Put what is staged in place of what an earlier run wrote, and write the record.

        Raises
        ------
        StoreExistsError
            Something that dcmdask did not write stands in the way; nothing has changed.
        OSError
            A file cannot be written or moved; the next try goes on with it.
        """
        tops = {path.rpartition("/")[2] for path in record.outputs.values()}
        found = self.folder.files(f"{self.below}/{_NEW}")
        # What only an earlier try has written is no output.
        staged = {one for one in found if one.partition("/")[0] in tops}
        there = records(self.folder, [self.name]).get(self.name)
        if there is not None and is_current(
            replace(there, pending=False), record.job, record.source, record.times
        ):
            # Another driver's worker puts the same in place, and may have removed some of these.
            return settled(self.folder, there)
        self.check_free(sorted(tops))
        written, _ = _listed(self.folder, self.name)
        if not staged and not written:
            if found:
                self.discard()
            record.write(self.folder)
            return record
        if self.folder.is_local:
            # Before a record says that they are whole.
            sync_below(self.folder.path(f"{self.below}/{_NEW}"))
        _list(self.folder, self.name, written, staged)
        record = replace(record, pending=True)
        record.write(self.folder)
        return settled(self.folder, record)

    def _key(self, name: str) -> str:
        return f"{self.below}/{_NEW}/{name}"


def settled(folder: Folder, record: Record) -> Record:
    """Put the outputs of a record in place that are pending, also those of a run that died.

    Returns
    -------
    Record
        Without anything pending, as it is written.
    """
    staging = Staging(folder, record.name, "")
    written, new = _listed(folder, record.name)
    folder.remove(f"{staging.below}/{one}" for one in sorted(written - new))
    folder.move(f"{staging.below}/{_NEW}", staging.below, sorted(new))
    _list(folder, record.name, new, new)
    staging.discard()
    record = replace(record, pending=False)
    record.write(folder)
    return record


def _listed(folder: Folder, name: str) -> tuple[set[str], set[str]]:
    """Return the files of a series that dcmdask has written, and those that are to stay."""
    key = f"{RECORDS}/{name}.files"
    try:
        told = json.loads(folder.read([key])[key])
        written, new = {*told["written"]}, {*told["new"]}
        # One that was put there by hand must not lead elsewhere.
        if all(_OUTPUT.fullmatch(one) for one in written | new):
            return written | new, new
    except (KeyError, ValueError, TypeError):
        pass
    return set(), set()


def _list(folder: Folder, name: str, written: set[str], new: set[str]) -> None:
    told = {"written": sorted(written - new), "new": sorted(new)}
    folder.write(f"{RECORDS}/{name}.files", json.dumps(told).encode())


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
