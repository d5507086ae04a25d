"""Files with the same SOP Instance UID: copies of one instance, or a contradiction."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from dcmdask.errors import DcmdaskError
from dcmdask.frames import files
from dcmdask.frames.facts import Described
from dcmdask.frames.frame_index import PixelDataElement
from dcmdask.frames.header import read_header

# Bytes that are in memory at a time.
_BLOCK = 2**20
_LOOKS = tuple(one.name for one in fields(Described) if one.name not in ("source", "facts"))


def versions(same_uid: Iterable[Described]) -> list[list[Described]]:
    """Group files with one SOP Instance UID by what is in them.

    Copies have the same facts and the same encoded pixel data; in other elements they may
    differ. Pixel data is read only where facts and lengths are the same, and files are
    not links to the same one. A file that cannot be read again is the copy of none.

    Returns
    -------
    list of list of Described
        Each a group of copies; groups and copies in the order they came in.
    """
    groups = [list(same_uid)]
    for key in (_facts, _length, _digest):
        groups = [part for group in groups for part in _parts(group, key)]
    return groups


def _parts(group: list[Described], key: Callable[[Described], Any]) -> list[list[Described]]:
    if len(group) == 1 or len({_place(one) for one in group}) == 1:
        return [group]
    parts: dict[Any, list[Described]] = {}
    for one in group:
        try:
            value = key(one)
        except (OSError, DcmdaskError):
            value = one.source.name
        parts.setdefault(value, []).append(one)
    return list(parts.values())


def _place(one: Described) -> Any:
    """Return what links to one file have in common."""
    if isinstance(one.source, files.LocalFile):
        try:
            status = os.stat(one.source.path)
        except OSError:
            return one.source.path
        return status.st_dev, status.st_ino
    return one.source.name


def _facts(one: Described) -> tuple[Any, ...]:
    return *(getattr(one, name) for name in _LOOKS), one.facts.tobytes()


def _length(one: Described) -> int:
    place = _pixel_data(one)
    return place.end - place.offset


def _digest(one: Described) -> bytes:
    """Hash the encoded pixel data; where its length is undefined, up to the end of the file."""
    place = _pixel_data(one)
    digest = hashlib.blake2b(digest_size=32)
    for start in range(place.offset, place.end, _BLOCK):
        (block,) = files.read(place.source, [start], [min(_BLOCK, place.end - start)])
        digest.update(block)
    return digest.digest()


def _pixel_data(one: Described) -> PixelDataElement:
    header = read_header(one.source, (), one.transfer_syntax)
    assert header.pixel_data is not None, "nothing is described that has none"
    return PixelDataElement(header.source, header.pixel_data.offset, header.pixel_data.length)
