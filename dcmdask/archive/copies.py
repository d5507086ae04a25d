"""Copies of one scan in one series: its frames in single-frame and in multi-frame files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from dcmdask.geometry.grid import Irregularity
from dcmdask.images.volume import Stack

OnDuplicate: TypeAlias = Literal["error", "first"]
ON_DUPLICATE: tuple[str, ...] = get_args(OnDuplicate)
# Headers of both kinds round positions, in mm, and direction cosines.
_SAME, _SAME_DIRECTION = 0.01, 1e-3


def check_on_duplicate(on_duplicate: str) -> None:
    """Refuse a choice that does not exist."""
    if on_duplicate not in ON_DUPLICATE:
        raise ValueError(f"on_duplicate is one of {', '.join(ON_DUPLICATE)}, not {on_duplicate!r}")


def copies_among(stacks: Sequence[Stack]) -> dict[int, int]:
    """Return the numbers of stacks that have the frames of an earlier one, and the number of that.

    One is of single-frame and the other of multi-frame files, with the same shape and the same
    positions. Nothing but headers is compared.
    """
    found: dict[int, int] = {}
    kinds = [len(stack.instances[0]) > 1 for stack in stacks]
    if len(set(kinds)) < 2:
        return found
    earlier: dict[tuple[int, ...], list[int]] = {}
    for number, stack in enumerate(stacks):
        same_shape = earlier.setdefault(stack.shape, [])
        for before in same_shape:
            if kinds[before] is not kinds[number] and _lie_alike(stacks[before], stack):
                found[number] = before
                break
        else:
            same_shape.append(number)
    return found


def _lie_alike(one: Stack, other: Stack) -> bool:
    here, there = one.geometry, other.geometry
    if here is None or there is None or len(here.positions) != len(there.positions):
        return False
    return bool(
        np.allclose(here.orientation, there.orientation, atol=_SAME_DIRECTION)
        and np.allclose(here.origin, there.origin, atol=_SAME)
        and np.allclose(here.positions, there.positions, atol=_SAME)
    )


def irregularities(copies: dict[int, int]) -> list[Irregularity]:
    """Name stacks that have the frames of another one."""
    return [
        Irregularity(
            "duplicate",
            f"stack {number} has as many frames at the positions of stack {original}: copies in "
            "single-frame and in multi-frame files",
        )
        for number, original in copies.items()
    ]


def have_equal_pixels(one: Stack, other: Stack) -> bool:
    """Return whether the first, the middle and the last frame of two stacks are the same."""
    here, there = one.frames, other.frames
    shape, count = here.numbers.shape, here.numbers.size
    places = [np.unravel_index(number, shape) for number in (0, count // 2, count - 1)]
    return all(np.array_equal(here[place], there[place]) for place in places)
