"""Described instances become series; copies of one instance count once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import chain, groupby
from typing import Any

from dcmdask.archive.descriptions import quiet
from dcmdask.archive.discovery import Skipped, folder_of
from dcmdask.archive.processes import in_threads
from dcmdask.archive.series import Series
from dcmdask.dicom.conversion import uid
from dcmdask.dicom.description import Described
from dcmdask.dicom.frame_index import PixelDataElement
from dcmdask.dicom.header import read_header
from dcmdask.dicom.instance import open_instance
from dcmdask.geometry.grid import Irregularity
from dcmdask.sources import files
from dcmdask.sources.dicomweb import ServedInstance

__all__ = ["by_series", "copy_of", "series_of"]

# Threads that compare files; they wait for the disk.
_READERS = 4
# Tags of lookup tables: Modality LUT and VOI LUT Sequence; where frames have a VOI LUT
# of their own, all functional groups; the descriptors and data of palettes.
_LUTS = (0x00283000, 0x00283010)
_FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)
_PALETTE = tuple(0x00281100 + kind + colour for kind in (0, 0x100, 0x120) for colour in range(1, 5))
# Bytes that are in memory at a time.
_BLOCK = 2**20
_DESCRIBED = tuple(one.name for one in fields(Described) if one.compare and one.name != "source")


def series_of(
    described: Sequence[Described], lost: Iterable[Skipped] = ()
) -> tuple[list[Series], dict[str, str]]:
    """Return series without copies, and the copies.

    Parameters
    ----------
    described : sequence of Described
        In any order.
    lost : iterable of Skipped, optional
        Files that may be part of a series: of those that they lie beside, or of the only one.

    Returns
    -------
    series : list of Series
        By Study and Series Instance UID; several studies in one series, by the first of them.
    copies : dict
        Of each instance, all files but the first by name, with the name of that.
    """
    ordered = sorted(described, key=_by_series_and_name)
    copies: dict[str, str] = {}
    conflicts: dict[tuple[str, ...], list[Irregularity]] = {}
    for different in in_threads(_versions, _sharing_uid(ordered), _READERS):
        for original, *others in different:
            copies.update(dict.fromkeys((one.source.name for one in others), original.source.name))
        if len(different) > 1:
            first = different[0][0]
            text = (
                f"{len(different)} different files have the SOP Instance UID "
                f"{uid(first.sop_instance_uid) or '…'}: "
                + "; ".join(one[0].source.name for one in different)
            )
            conflicts.setdefault(by_series(first), []).append(Irregularity("conflict", text))
    beside: dict[str, list[str]] = {}
    for one in lost:
        beside.setdefault(folder_of(one.path), []).append(f"{one.path}: {one.reason}")
    kept = (one for one in ordered if one.source.name not in copies)
    series = []
    for key, group in groupby(kept, by_series):
        instances = list(group)
        folders = sorted({folder_of(one.source.name) for one in instances} & beside.keys())
        left_out = [text for folder in folders for text in beside[folder]]
        series.append(Series(key[1], instances, sorted(conflicts.get(key, ())), left_out))
    if len(series) == 1:
        series[0].left_out = tuple(chain.from_iterable(beside.values()))
    return sorted(series, key=_by_study), copies


def copy_of(path: str, original: str) -> Skipped:
    """Return the entry of a file that is a copy of another one."""
    return Skipped(path, f"the same instance as {original}", "copy", "copy")


def _by_study(series: Series) -> tuple[str, str]:
    return min(one.study_uid for one in series.instances), series.uid


def by_series(one: Described) -> tuple[str, ...]:
    """Return the key of the series of an instance; with a UID of the series, that alone."""
    if one.series_uid:
        return "", one.series_uid, "", ""
    return one.study_uid, "", one.modality, folder_of(one.source.name)


def _by_series_and_name(one: Described) -> tuple[str, ...]:
    return *by_series(one), one.source.name


def _sharing_uid(ordered: Iterable[Described]) -> Iterator[list[Described]]:
    """Yield the instances of a series that have the same SOP Instance UID."""
    for _, series in groupby(ordered, by_series):
        same: dict[str, list[Described]] = {}
        for one in series:
            if one.sop_instance_uid:
                same.setdefault(one.sop_instance_uid, []).append(one)
        yield from (group for group in same.values() if len(group) > 1)


# Copies


def _versions(same_uid: Iterable[Described]) -> list[list[Described]]:
    """Group files with one SOP Instance UID by what is in them.

    Copies have the same facts, lookup tables and encoded pixel data; in other elements they
    may differ. Pixel data is read only where all else and the lengths are the same, and files
    are not links to the same one. A file that cannot be read again is the copy of none.

    Returns
    -------
    list of list of Described
        Each a group of copies; groups and copies in the order they came in.
    """
    groups = [list(same_uid)]
    with quiet():
        for key in (_facts, _tables, _length, _digest):
            groups = [part for group in groups for part in _parts(group, key)]
    return groups


def _parts(group: list[Described], key: Callable[[Described], Any]) -> list[list[Described]]:
    if len(group) == 1 or len({_file_identity(one) for one in group}) == 1:
        return [group]
    parts: dict[Any, list[Described]] = {}
    for one in group:
        try:
            value = key(one)
        except Exception:
            # Libraries that speak to servers raise errors of any class.
            value = one.source.name
        parts.setdefault(value, []).append(one)
    return list(parts.values())


def _file_identity(one: Described) -> Any:
    """Return device and inode of a local file, which links to it share; otherwise its name."""
    if isinstance(one.source, files.LocalFile):
        try:
            status = os.stat(one.source.path)
        except OSError:
            return one.source.path
        return status.st_dev, status.st_ino
    return one.source.name


def _facts(one: Described) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in _DESCRIBED)


def _tables(one: Described) -> Any:
    """Return hashes of the lookup tables; one of the file where their places are not known."""
    sequences = (
        *(_LUTS if one.has_lut else ()),
        *(_FUNCTIONAL_GROUPS if one.has_frame_lut else ()),
    )
    palette = _PALETTE if one.photometric_interpretation == "PALETTE COLOR" else ()
    if not sequences and not palette:
        return None
    header = read_header(one.source, palette, one.transfer_syntax, sequences)
    hashes = []
    for tag, place in sorted(header.sequences.items()):
        if place is None:
            return _hash(header.source, 0, header.source.size)
        hashes.append((tag, _hash(header.source, place.offset, place.offset + place.length)))
    entries = sorted((tag, raw.value) for tag, raw in header.values.items())
    return tuple(entries), tuple(hashes)


def _length(one: Described) -> int:
    place = _pixel_data(one)
    return place.end - place.offset


def _digest(one: Described) -> bytes:
    """Hash the encoded pixel data; where its length is undefined, up to the end of the file."""
    if isinstance(one.source, ServedInstance):
        # It has no file; only frames of another one like it can be the same bytes.
        instance = open_instance(one.source, dict(one.overrides), warned=set())
        digest = hashlib.blake2b(digest_size=32)
        for frame in range(len(instance)):
            digest.update(instance.read([frame])[0])
        return digest.digest()
    place = _pixel_data(one)
    return _hash(place.source, place.offset, place.end)


def _hash(source: files.Source, begin: int, end: int) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    with files.opened(source) as file:
        file.seek(begin)
        while begin < end and (block := file.read(min(_BLOCK, end - begin))):
            digest.update(block)
            begin += len(block)
    return digest.digest()


def _pixel_data(one: Described) -> PixelDataElement:
    header = read_header(one.source, (), one.transfer_syntax)
    assert header.pixel_data is not None, "nothing is described that has none"
    return PixelDataElement(header.source, header.pixel_data.offset, header.pixel_data.length)
