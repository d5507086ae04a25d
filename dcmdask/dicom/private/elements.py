"""Private elements, in whichever block their creator reserved (PS3.5 7.8.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from dcmdask.dicom.conversion import LONGEST, NUMBERS, numbers
from dcmdask.dicom.elements import Encoding, RawValue

Blocks: TypeAlias = Mapping[tuple[int, bytes], Sequence[int]]
"""First tags of blocks, by group and creator."""


def private_tags(group: int, *numbers: int) -> frozenset[int]:
    """Return the tags of the creators in a group, and of elements in any block they reserve."""
    return frozenset(
        group << 16 | element
        for block in range(0x10, 0x100)
        for element in (block, *(block << 8 | number for number in numbers))
    )


def private_blocks(values: Mapping[int, RawValue]) -> Blocks:
    """Return the first tags of the blocks that each private creator reserved in each group."""
    found: dict[tuple[int, bytes], list[int]] = {}
    # Odd groups are private, and their creators have the numbers up to FF (PS3.5 7.8.1).
    for tag, raw in values.items():
        if tag & 0x10000 and not tag & 0xFF00:
            block = tag & 0xFFFF0000 | (tag & 0xFF) << 8
            found.setdefault((tag >> 16, raw.value.strip(b"\0 ")), []).append(block)
    return found


def private_value(
    values: Mapping[int, RawValue], blocks: Blocks, place: tuple[int, bytes], number: int
) -> RawValue | None:
    """Return the first value of a private element, in whichever block of its creator it is."""
    found = (values.get(block | number) for block in blocks.get(place, ()))
    return next((raw for raw in found if raw is not None and raw.value), None)


def private_numbers(raw: RawValue | None, usual: str, encoding: Encoding) -> tuple[float, ...]:
    """Return the numbers of an element, by its VR; by the usual one where it has none."""
    if raw is None:
        return ()
    vr = usual if raw.vr in (None, "UN") else str(raw.vr)
    if vr not in NUMBERS and vr != "IS":
        vr = "DS"  # text of another VR
    return numbers(raw.value[:LONGEST], vr, encoding.little_endian)
