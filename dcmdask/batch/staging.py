"""Staging of the outputs of one series: written aside, and put in place once all are whole.

Below the target, ``records/NAME.new/OWNER`` holds the outputs that are being written for one job
and one state of the files; all below ``records`` belongs to dcmdask. ``records/NAME.files`` lists
the files that dcmdask has written to ``series/NAME``; only these are ever replaced or removed
there. Once a record says that its outputs are pending they are whole, and whoever finds it puts
them in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dcmdask.archive.discovery import GROUP
from dcmdask.batch.identity import digest
from dcmdask.batch.records import RECORDS, Record, record_of
from dcmdask.errors import StoreExistsError, StoreLostError
from dcmdask.sources.folder import Folder
from dcmdask.store.target.ownership import check_links, check_ours, sync_below

OUTPUTS = "series"
# A path below the folder of the outputs: none of its parts is "..".
_OUTPUT = re.compile(r"(?!\.)[^/]+(/(?!\.\.?(/|\Z))[^/]+)*")
# Metadata of groups and arrays of Zarr 3 and 2, in the order to remove them: attributes and
# consolidated metadata go once nobody finds their node any more.
_METADATA = (GROUP, ".zgroup", ".zarray", ".zmetadata", ".zattrs")


@dataclass
class Staging:
    """Folder of the outputs of a series that are being written.

    Attributes
    ----------
    folder : Folder
    name : str
        Name of the series.
    owner : str
        Tells the job, its options and the files of the series from others.
    given : dict
        Name to final path of each output that the job writes itself.
    """

    folder: Folder
    name: str
    owner: str
    given: dict[str, str] = field(default_factory=dict)

    @property
    def below(self) -> str:
        """Folder of the outputs in place."""
        return f"{OUTPUTS}/{self.name}"

    @property
    def aside(self) -> str:
        """Folder that they are written to first."""
        return f"{_staged_below(self.name)}/{digest(self.owner.encode())}"

    def clear(self) -> None:
        """Remove outputs that were staged for other versions of the job or of the files."""
        check_links(self.folder, [self.below])
        for one in self.folder.names(_staged_below(self.name)):
            if (other := f"{_staged_below(self.name)}/{one}") != self.aside:
                _discard(self.folder, other)

    def forget(self, names: Iterable[str]) -> None:
        """Remove outputs of these names that a try which died has left.

        Not on an object store: objects are whole there, and another driver may write the same.
        """
        if self.folder.is_local:
            tops = {*names}
            staged = self.folder.files(self.aside)
            self.folder.remove(f"{self.aside}/{one}" for one in staged if _top(one) in tops)

    def discard(self) -> None:
        """Remove all that is staged."""
        _discard(self.folder, self.aside)

    def path(self, name: str) -> str:
        """Return the path or URL to write an output to; its folder exists."""
        check_links(self.folder, [self.aside])
        self.folder.make(self.aside)
        return self.folder.path(f"{self.aside}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Write an output of one file."""
        self.path(name)
        self.folder.write(f"{self.aside}/{name}", data)

    def output(self, name: str) -> str:
        """Return the path or URL for an output that the job writes itself."""
        self.given[name] = f"{self.below}/{name}"
        return self.path(name)

    def check_free(self, names: Iterable[str]) -> None:
        """Refuse outputs in whose place there is a file that dcmdask did not write."""
        tops = {*names}
        for name in tops:
            # An empty folder is no loss.
            self.folder.prune(f"{self.below}/{name}")
        in_place = sorted(one for one in self.folder.files(self.below) if _top(one) in tops)
        listed = _listed(self.folder, self.name)
        check_ours(self.folder.path(self.below), in_place, listed.written | listed.new)

    def put_in_place(self, record: Record, earlier: Record | None) -> Record:
        """Put the staged outputs in place of those of an earlier run, and write the record.

        `earlier` is the record that was there when the job began with the series. Where a file
        that dcmdask did not write stands in the way, or another version of the job has put its
        results in place meanwhile, nothing is changed. After an OSError the next try goes on.
        """
        tops = {path.rpartition("/")[2] for path in record.outputs.values()}
        found = self.folder.files(self.aside)
        # Without files that only an earlier try has written.
        staged = {one for one in found if _top(one) in tops}
        there = record_of(self.folder, self.name)
        if there and there.done and there.is_of(record.job, record.source, record.times):
            # Another driver's worker puts the same in place, and may have removed some of these.
            there = settled(self.folder, there)
            self.discard()
            return there
        if _results_of(there) != _results_of(earlier):
            raise StoreExistsError(
                f"{self.folder.path(self.below)}: another version of the job has put its results "
                "in place meanwhile",
                code="other-version",
            )
        if missing := tops - {_top(one) for one in staged}:
            raise StoreLostError(
                f"the output {min(missing)} was not written",
                source=self.folder.path(self.aside),
                code="output-missing",
            )
        self.check_free(tops)
        listed = _listed(self.folder, self.name)
        # If the list names this folder, another driver's worker is about to do the same.
        written = listed.written | (set() if listed.aside == self.aside else listed.new)
        if not staged and not written:
            self.discard()
            record.write(self.folder)
            return record
        if self.folder.is_local:
            # Before a record says that they are whole.
            sync_below(self.folder.path(self.aside))
        _Listed(written, staged, self.aside).write(self.folder, self.name)
        record = replace(record, pending=True)
        record.write(self.folder)
        return settled(self.folder, record)


def settled(folder: Folder, record: Record) -> Record:
    """Put the pending outputs of a record in place, also those of a run that died.

    Groups and arrays have no metadata while objects are replaced, at whatever depth, so that nobody
    reads a mixture of two versions. Another driver's worker may do the same and be through first,
    and staged files are gone then: only metadata that are held in memory are removed, so that they
    can be written again.
    """
    if not record.pending:
        return record
    below = f"{OUTPUTS}/{record.name}"
    check_links(folder, [below])
    listed = _listed(folder, record.name)
    # In this order: another driver's worker may be moving them.
    staged = folder.files(listed.aside) if listed.aside else set()
    there = folder.files(below)
    if not listed.aside or listed.new - staged - there:
        raise StoreLostError(
            f"the outputs of a run that died are lost; remove {_key_of_list(record.name)} and the "
            "record beside it to do the series again",
            source=folder.path(below),
            code="pending-lost",
        )
    keys = {f"{listed.aside}/{one}": one for one in listed.new & staged if _is_metadata(one)}
    held = {keys[key]: data for key, data in folder.read(keys).items()}
    # Files behind a link are not those that are listed.
    old = (listed.written & there) - (listed.new - held.keys())
    metadata = {one for one in old if _is_metadata(one)}
    for one in sorted(metadata, key=_rank):
        folder.remove([f"{below}/{one}"])
    folder.remove(f"{below}/{one}" for one in sorted(old - metadata))
    folder.move(listed.aside, below, sorted((listed.new & staged) - held.keys()))
    for one in sorted(held, key=_rank, reverse=True):
        if folder.is_local:
            # Under a lease; and a write that is killed would leave a file beside.
            folder.move(listed.aside, below, [one])
        else:
            folder.write(f"{below}/{one}", held[one])
    _Listed(set(), listed.new, listed.aside).write(folder, record.name)
    _discard(folder, listed.aside)
    record = replace(record, pending=False)
    record.write(folder)
    return record


def _staged_below(name: str) -> str:
    return f"{RECORDS}/{name}.new"


def _top(path: str) -> str:
    return path.partition("/")[0]


def _is_metadata(path: str) -> bool:
    """Return whether a file is metadata, without which a group or an array cannot be opened."""
    return path.rpartition("/")[2] in _METADATA


def _rank(metadata: str) -> tuple[int, int]:
    """Return a key that sorts metadata in the order to remove them, from the outside inwards."""
    return metadata.count("/"), _METADATA.index(metadata.rpartition("/")[2])


def _results_of(record: Record | None) -> tuple[str, str, str]:
    return ("", "", "") if record is None else (record.made_by, record.made_from, record.times)


def _discard(folder: Folder, below: str) -> None:
    """Remove a staging folder, and the folder above it if it was the last one."""
    folder.remove(f"{below}/{one}" for one in folder.files(below))
    folder.prune(below.rpartition("/")[0])


@dataclass
class _Listed:
    """Files of a series that dcmdask has written.

    Attributes
    ----------
    written, new : set of str
        Files of earlier outputs, and of the present ones.
    aside : str
        Staging folder of the new ones; empty where there is no list.
    """

    written: set[str]
    new: set[str]
    aside: str

    def write(self, folder: Folder, name: str) -> None:
        lists = {"written": sorted(self.written), "new": sorted(self.new), "from": self.aside}
        folder.write(_key_of_list(name), json.dumps(lists).encode())


def _key_of_list(name: str) -> str:
    return f"{RECORDS}/{name}.files"


def _listed(folder: Folder, name: str) -> _Listed:
    """Return the list of the files of a series; empty where there is none that can be trusted."""
    key = _key_of_list(name)
    try:
        lists = json.loads(folder.read([key])[key])
        found = _Listed({*lists["written"]}, {*lists["new"]}, lists["from"])
        # One that was put there by hand must not lead elsewhere.
        is_ours = re.fullmatch(rf"{re.escape(_staged_below(name))}/[0-9a-f]+", found.aside)
        if is_ours and all(_OUTPUT.fullmatch(one) for one in found.written | found.new):
            return found
    except (KeyError, ValueError, TypeError):
        pass
    return _Listed(set(), set(), "")
