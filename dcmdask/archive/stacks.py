"""Frames that can be one array: the stacks of a series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.description import Described, facts_of
from dcmdask.geometry.planes import Integers, alike, are_in_the_way, grouped, share_positions
from dcmdask.images.classes import meaning_of, meant
from dcmdask.images.objects.mosaic import is_mosaic
from dcmdask.images.objects.slide import flavour_of, has_extended_depth
from dcmdask.images.tiled import with_planes
from dcmdask.images.volume import Stack, compacted

# Digits of direction cosines and spacings that are told.
_DIGITS = 3
_SLIGHTLY = f"orientation or pixel spacing, by less than {10**-_DIGITS:g}"
_IN_THE_WAY = ("Frame of Reference UID", "single-frame and multi-frame files")


def stacks_of(uid: str, instances: Sequence[Described]) -> tuple[Stack, ...]:
    """Group frames that look alike, and lie and measure alike, into stacks; the largest first.

    Alike are: rows, columns, samples, what grey means, localizer or mosaic or neither;
    orientation, pixel spacing and Stack ID; and of colour, floating point and single bits the
    type of the stored values. Transfer syntaxes and types of integers may differ, and so may
    Frame of Reference UIDs, unless positions of several planes with one are in the way of those
    with another. Single-frame and multi-frame files with frames at one position are copies, or at
    least not one array.
    """
    looks: dict[tuple[object, ...], list[Described]] = {}
    for one in map(meant, with_planes(instances)):
        looks.setdefault(tuple(_look(one).values()), []).append(one)
    stacks: list[Stack] = []
    for members in looks.values():
        facts = facts_of(members)
        groups = alike(facts, members[0].rows, members[0].columns)
        groups = _apart(groups, facts, _frames_of_reference(members), are_in_the_way)
        groups = _apart(groups, facts, _kinds_of_files(members), share_positions)
        stacks += compacted(uid, members, groups)
    return tuple(sorted(stacks, key=_size_and_name))


def differences(stacks: Sequence[Stack]) -> str:
    """Return what tells stacks apart, such as ``orientation (3), pixel spacing (2)``.

    The numbers are those of different values.
    """
    found = []
    for stack in stacks:
        one, frame = stack.instances[0], stack.facts[0]
        found.append(
            {
                **_look(one),
                # Without the sign of zero.
                "orientation": frame["orientation"].round(_DIGITS) + 0.0,
                "pixel spacing": frame["spacing"].round(_DIGITS) + 0.0,
                "Stack ID": frame["stack_id"],
                "Frame of Reference UID": one.frame_of_reference_uid,
                "single-frame and multi-frame files": len(one) > 1,
            }
        )
    # As text, in which NaN is equal to itself.
    values = {name: [str(each[name]) for each in found] for name in found[0]}
    # Those in the way of one another are told where nothing else tells all stacks apart.
    certain = {name: texts for name, texts in values.items() if name not in _IN_THE_WAY}
    if len(set(zip(*certain.values(), strict=True))) == len(stacks):
        values = certain
    counts = [(name, len(set(texts))) for name, texts in values.items()]
    named = [f"{name} ({count})" for name, count in counts if count > 1]
    return ", ".join(named) or _SLIGHTLY


def _size_and_name(stack: Stack) -> tuple[Any, ...]:
    numbers, one = stack.frame_numbers, stack.instances[0]
    # A slide has a plane in each of its images.
    size = len(numbers) * (one.rows * one.columns if one.stored else 1)
    return -size, stack.instances[0].source.name, int(numbers[0])


def _look(one: Described) -> dict[str, object]:
    """Return what is the same for all frames of a stack, by its name."""
    return {
        "rows and columns": (one.rows, one.columns),
        "samples": one.samples,
        "element of the pixels": one.pixel_keyword,
        "stored type": () if _is_of_integers(one) else (one.bits_allocated, one.signed),
        "Photometric Interpretation": one.photometric_interpretation * (one.samples == 1),
        "Image Type": ("LOCALIZER" in one.image_type, is_mosaic(one), flavour_of(one)),
        "Extended Depth of Field": has_extended_depth(one),
        "Pyramid UID": one.tiling.pyramid if one.tiling else "",
        "tiles of a mosaic": one.tiles,
        "file": one.source.name if _is_separate(one) else "",
    }


def _is_separate(one: Described) -> bool:
    least = meaning_of(one).separate_from
    return least is not None and len(one) >= least


def _is_of_integers(one: Described) -> bool:
    """Return whether stored values are grey integers, which any larger type of integers holds."""
    grey = one.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2")
    # No integer type holds all values of 64 bits with and without a sign.
    return grey and one.pixel_keyword == "PixelData" and 1 < one.bits_allocated <= 32


def _frames_of_reference(members: Sequence[Described]) -> Integers:
    """Return for each frame the number of its Frame of Reference UID."""
    numbers: dict[str, int] = {}
    which = [numbers.setdefault(one.frame_of_reference_uid, len(numbers)) for one in members]
    return np.repeat(np.array(which, np.int64), [len(one) for one in members])


def _kinds_of_files(members: Sequence[Described]) -> Integers:
    """Return for each frame 1 where its file has several, otherwise 0; planes of tiles have 1."""
    counts = np.array([len(one) for one in members])
    several = [len(one) > 1 or bool(one.stored) for one in members]
    return np.repeat(np.array(several, np.int64), counts)


def _apart(
    groups: Iterable[Integers],
    facts: npt.NDArray[Any],
    which: Integers,
    are_apart: Callable[[npt.NDArray[Any], Integers], bool],
) -> list[Integers]:
    """Return groups of frames, of which some are split by what is the same for each part."""
    found: list[Integers] = []
    for numbers in groups:
        of_each = which[numbers]
        if (of_each != of_each[0]).any() and are_apart(facts[numbers], of_each):
            found += [numbers[part] for part in grouped(of_each)]
        else:
            found.append(numbers)
    return found
