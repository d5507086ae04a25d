"""Which frames are of one time, echo, component or diffusion weighting: pure functions.

A level is a number from 0 on for each frame. A place, likewise, is what frames have in
common besides time: their position, and the levels of what else they differ on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.geometry import Floats, Integers

COMPONENTS = (b"MAGNITUDE", b"PHASE", b"REAL", b"IMAGINARY")
# Most telling first.
TIMES = ("temporal_position", "trigger_time", "reference_time", "acquisition_time")
# They only order frames.
NUMBERS = {"acquisition_number": "Acquisition Number", "instance_number": "Instance Number"}
# Numbers that differ by less are the same: ms of times, s/mm2 of b-values.
_SAME = 1e-3
# Likewise of unit vectors.
_SAME_DIRECTION = 1e-5
# The time from one frame to the next may be off by this part of it.
_UNSTEADY = 0.4
# Volumes are not measured quite as regularly as that: a part of the time for one.
_LATE = 0.5

_COMPARED = (*TIMES, *NUMBERS, "echo_time", "echo_number", "b_value", "direction", "position_index")
# Numbers of this size count nothing; the ms since year 0 are fewer.
_ABSURD = 1e15


class Axis(NamedTuple):
    """A dimension that frames differ on: its name, the column that tells, each frame's level.

    `ranked`: levels are but an order, in which frames behind a hole would be taken for those
    before.
    """

    name: str
    column: str
    level: Integers
    noted: str = ""
    ranked: bool = False


def plausible(facts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the facts with NaN for numbers that are infinite or so large that none was meant."""
    absurd = [column for column in _COMPARED if (np.abs(facts[column]) >= _ABSURD).any()]
    if absurd:
        facts = facts.copy()
    for column in absurd:
        facts[column][np.abs(facts[column]) >= _ABSURD] = np.nan
    return facts


def distinct(values: npt.NDArray[Any], same: float = _SAME) -> Integers:
    """Return the rank of each value among the distinct ones, tiny differences left out.

    Examples
    --------
    >>> distinct(np.array([40.0, 0.0, 40.0000001]))
    array([1, 0, 1])
    """
    order = np.argsort(values, kind="stable")
    level = np.empty(len(values), np.int64)
    level[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > same)])
    return level


def joined(levels: Sequence[Integers], place: Integers) -> Integers:
    """Return one number for each combination of a place and levels, sorted in this order."""
    for level in levels:
        place = distinct(place * (level.max() + 1) + level, 0.5)
    return place


def ranks(place: Integers, order: Integers) -> Integers:
    """Return the rank of each frame, in `order`, among those of its place."""
    by_place = order[np.argsort(place[order], kind="stable")]
    sizes = np.bincount(place)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(place), np.int64)
    rank[by_place] = np.arange(len(place)) - np.repeat(starts, sizes)
    return rank


def differs(level: Integers, place: Integers) -> bool:
    """Return whether some frames of one place are on different levels."""
    return bool(joined([level], place).max() > place.max())


def determines(level: Integers, other: Integers) -> bool:
    """Return whether frames on one level are on one of the other, too."""
    return not differs(other, level)


# Echo, component, diffusion


def fixed_axes(facts: npt.NDArray[Any], z: Integers) -> list[Axis]:
    """Return the axes other than time on which frames of one position differ."""
    axes = [Axis("diffusion", "b_value", _weightings(facts))]
    for column in ("echo_time", "echo_number"):
        if np.isfinite(facts[column]).all():
            axes.append(Axis("echo", column, distinct(facts[column])))
    axes.append(Axis("component", "component", _components(facts["component"])))
    found: list[Axis] = []
    for axis in axes:
        if differs(axis.level, z) and axis.name not in [one.name for one in found]:
            found.append(axis)
    return found


def _weightings(facts: npt.NDArray[Any]) -> Integers:
    """Number the diffusion weightings; the direction of an unweighted frame says nothing."""
    b = np.nan_to_num(facts["b_value"], nan=-1.0)
    direction = np.where((b > 0)[:, np.newaxis], np.nan_to_num(facts["direction"]), 0.0)
    return joined([distinct(axis, _SAME_DIRECTION) for axis in direction.T], distinct(b))


def _components(words: npt.NDArray[np.bytes_]) -> Integers:
    found, which = np.unique(words, return_inverse=True)
    known = [*COMPONENTS, *(word for word in found.tolist() if word not in COMPONENTS)]
    return distinct(np.array([known.index(word) for word in found.tolist()])[which.reshape(-1)])


# Time


def time_axes(column: str, times: Floats, place: Integers) -> Iterator[Axis]:
    """Yield how frames that share a place may differ by time, the surest first.

    As the same values at each place; as their order at each place, where the times between
    them agree; by these times, where frames are missing.
    """
    if not _tell(times, place):
        return
    noted = ""
    if column in NUMBERS:
        noted = f"frames share positions, and only {NUMBERS[column]} tells them apart: it orders t"
    yield Axis("t", column, distinct(times), noted)
    by_time = _Places(times, place)
    if by_time.steady:
        yield Axis("t", column, by_time.rank, noted)
    elif (level := by_time.matched()) is not None:
        noted = noted or "each position has times of its own: the time between its frames tells t"
        yield Axis("t", column, level, noted)


def order_axis(column: str, times: Floats, place: Integers) -> Iterator[Axis]:
    """Yield the order of frames at each place, if the times between them are what they are."""
    if _tell(times, place):
        noted = (
            f"frames share positions, and by {NUMBERS.get(column, 'their times')} the steps from "
            "one to the next differ between positions: t is their order at each"
        )
        yield Axis("t", column, ranks(place, np.argsort(times, kind="stable")), noted, ranked=True)


def _tell(times: Floats, place: Integers) -> bool:
    """Return whether frames share places, and all that share one have times of their own."""
    if not np.isfinite(times).all() or place.max() + 1 == len(place):
        return False
    return bool(joined([distinct(times)], place).max() + 1 == len(place))


class _Places:
    """The times of each place in order; no two of a place are the same."""

    def __init__(self, times: Floats, place: Integers) -> None:
        self.rows = np.lexsort((times, place))
        self.times = times[self.rows]
        self.counts = np.bincount(place)
        self.ends = np.cumsum(self.counts)
        self.rank = ranks(place, np.argsort(times, kind="stable"))
        most = int(self.counts.max())
        full = np.repeat(self.counts == most, self.counts)
        self.steps = np.diff(self.times[full].reshape(-1, most), axis=1)
        # The median; of two the smaller, as a step is longer where a frame is missing.
        self.typical: Floats = np.sort(self.steps, axis=0)[(len(self.steps) - 1) // 2]

    @property
    def steady(self) -> bool:
        """Whether all places have as many frames, at steps that agree."""
        if (self.counts < len(self.typical) + 1).any():
            return False
        if (np.abs(self.steps - self.typical) > _UNSTEADY * self.typical).any():
            return False
        return not self._first_levels(self.typical).any()

    def matched(self) -> Integers | None:
        """Return levels with gaps where steps are as long as several, or None if that fails."""
        # Where every place lacks some, their steps are not typical.
        for steps in (self.typical, np.full(len(self.typical), np.median(self.typical))):
            # Every place may lack some, and so there may be more.
            more = np.full(1 + len(steps) // 3, np.median(steps))
            after = np.cumsum([0.0, *steps, *more]).tolist()
            level = np.empty(len(self.rows), np.int64)
            for first, count, end in zip(
                self._first_levels(steps).tolist(), self.counts, self.ends, strict=True
            ):
                times = self.times[end - count : end].tolist()
                walked = _walked(times, after, first)
                if first and count <= len(steps) and (walked is None or walked[-1] > len(steps)):
                    # Late, but no later than a full place: it was the last to be measured.
                    walked = _walked(times, after, first - 1)
                if walked is None:
                    break
                level[self.rows[end - count : end]] = walked
            else:
                return level
        return None

    def _first_levels(self, steps: Floats) -> Integers:
        """Return the level of the first frame of each place.

        Places are measured together, volume by volume, or one behind the other. Where one
        begins later than together with others, but too early to be behind them, its first
        frames are missing; if it has as many as any, only where that is clear.
        """
        starts = self.times[self.ends - self.counts]
        after = np.cumsum(steps)
        behind = after[-1] + np.median(steps) / 2
        leaders = np.empty(len(starts))
        leader = -np.inf
        for i in np.argsort(starts, kind="stable").tolist():
            if starts[i] - leader > behind:
                leader = starts[i]
            leaders[i] = leader
        full = self.counts == len(steps) + 1
        late = np.where(full, _LATE * np.median(steps), 0.0)
        levels: Integers = np.searchsorted(after, starts - leaders - late, "right")
        return levels


def _walked(times: list[float], after: list[float], first: int) -> list[int] | None:
    """Return the levels of the frames of one place, or None where its steps are others.

    `after` is when each level comes after the first.
    """
    walked = [first]
    for before, time in pairwise(times):
        now = walked[-1]
        aim = after[now] + time - before
        level = max(bisect_left(after, aim), now + 1)
        if level > now + 1 and (level == len(after) or aim - after[level - 1] < after[level] - aim):
            level -= 1
        if level == len(after) or (
            abs(after[level] - aim) > _UNSTEADY * (after[level] - after[level - 1])
        ):
            return None
        walked.append(level)
    return walked
