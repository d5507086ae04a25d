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
from dcmdask.frames.frame_facts import DAY

COMPONENTS = (b"MAGNITUDE", b"PHASE", b"REAL", b"IMAGINARY")
# Most telling first.
TIMES = ("temporal_position", "trigger_time", "reference_time", "acquisition_time")
# A number that says which time a frame is of, not when that was.
_INDEX = "temporal_position"
# Times since an event that begins anew at each position.
_SINCE_TRIGGER = "trigger_time"
# They only order frames.
NUMBERS = {"acquisition_number": "Acquisition Number", "instance_number": "Instance Number"}
# Numbers that differ by less are the same: ms of times, s/mm2 of b-values.
_SAME = 1e-3
# Likewise of unit vectors.
_SAME_DIRECTION = 1e-5
# The time from one frame to the next may be off by this part of it.
_UNSTEADY = 0.4
# Values of which no position has both are two if they differ by this part of the least step.
_APART = 0.5
# Positions of one trigger are at one time, but for this part of the time between frames.
_IN_PHASE = 0.25
# All positions of a volume are measured within the time for one, and this part of it.
_WITHIN = 1.1
# Volumes are not measured quite as regularly as that: a part of the time for one.
_LATE = 0.5

_COMPARED = (*TIMES, *NUMBERS, "echo_time", "echo_number", "b_value", "direction", "position_index")
# A grid with more holes than this is no grid; one more, where frames say where they belong.
_HOLES = 0.25
_HOLES_BETWEEN_KNOWN = 0.49
# Numbers of this size count nothing; the ms since year 0 are fewer.
_ABSURD = 1e15


class Axis(NamedTuple):
    """A dimension that frames differ on: its name, the column that tells, each frame's level.

    `holes`: which part of a grid of these levels may be missing; none of a mere order, in which
    frames behind a hole would be taken for those before. `own`: each place has times of its
    own, which are matched. `unsure`: frames of places where that can be done in several ways.
    """

    name: str
    column: str
    level: Integers
    noted: str = ""
    holes: float = _HOLES
    own: bool = False
    unsure: tuple[int, ...] = ()


def plausible(facts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the facts with NaN for numbers that are infinite or so large that none was meant."""
    absurd = [column for column in _COMPARED if (np.abs(facts[column]) >= _ABSURD).any()]
    if absurd:
        facts = facts.copy()
    for column in absurd:
        facts[column][np.abs(facts[column]) >= _ABSURD] = np.nan
    return facts


def midnight_notes(facts: npt.NDArray[Any]) -> tuple[str, ...]:
    """Say where times of day were taken to go on behind midnight, and the numbers deny it."""
    times = facts["acquisition_time"]
    before, behind = (
        facts[(times >= 0) & (times < DAY)],
        facts[(times >= DAY) & (times < 2 * DAY)],
    )
    for column in NUMBERS if len(before) and len(behind) else ():
        if behind[column].max() < before[column].min():
            return (
                f"Acquisition Time (0008,0032) without a date seems to pass midnight, but "
                f"{NUMBERS[column]} says that the earlier times of day were first",
            )
    return ()


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

    As the same values at each place; otherwise, if each has values of its own, as their order
    at each place, where the times between them agree; by these times, where frames are missing.
    """
    if not _tell(times, place):
        return
    noted = ""
    if column in NUMBERS:
        noted = f"frames share positions, and only {NUMBERS[column]} tells them apart: it orders t"
    level = distinct(times)
    if column == _INDEX or _in_common(times, place):
        yield Axis("t", column, level, noted, _HOLES_BETWEEN_KNOWN)
        return
    yield Axis("t", column, level, noted)
    by_time = _Places(times, place, column == _SINCE_TRIGGER)
    if by_time.steady:
        yield Axis("t", column, by_time.rank, noted, own=True)
    elif (level_and_unsure := by_time.matched()) is not None:
        level, unsure = level_and_unsure
        noted = noted or "each position has times of its own: the time between its frames tells t"
        rows = tuple(np.flatnonzero(unsure[place]).tolist())
        yield Axis("t", column, level, noted, own=True, unsure=rows)


def order_axis(column: str, times: Floats, place: Integers) -> Iterator[Axis]:
    """Yield the order of frames at each place, if the times between them are what they are."""
    if _tell(times, place):
        noted = (
            f"frames share positions, and by {NUMBERS.get(column, 'their times')} the steps from "
            "one to the next differ between positions: t is their order at each"
        )
        yield Axis(
            "t", column, ranks(place, np.argsort(times, kind="stable")), noted, 0.0, own=True
        )


def numbered(
    axis: Axis, facts: npt.NDArray[Any], place: Integers, other_order: Integers
) -> Iterator[Axis]:
    """Yield what the numbers of frames say of the times that each place has for itself.

    As Acquisition Numbers that places have in common, or Instance Numbers that count the places
    of each time, or the times of each place; places being in either order.
    """
    for column, levels_of, places in (
        ("acquisition_number", _shared, place),
        ("instance_number", _counted, place),
        ("instance_number", _counted, other_order),
    ):
        numbers = facts[column]
        level = levels_of(numbers, places) if np.isfinite(numbers).all() else None
        if level is None or not _same_order(level, axis.level, place):
            continue
        noted = axis.noted
        if axis.column in TIMES and (axis.unsure or not np.array_equal(level, axis.level)):
            noted = f"each position has times of its own: {NUMBERS[column]} tells t"
        yield Axis("t", axis.column, level, noted, _HOLES_BETWEEN_KNOWN)


def denied(axis: Axis, numbers: Floats, place: Integers) -> bool:
    """Return whether Acquisition Numbers that places share contradict what was only ranked."""
    return axis.own and _tell(numbers, place) and not determines(distinct(numbers), axis.level)


def _shared(numbers: Floats, place: Integers) -> Integers | None:
    level = distinct(numbers)
    return level if _in_common(numbers, place) else None


def _counted(numbers: Floats, place: Integers) -> Integers | None:
    """Return levels by which numbers from 1 on count places and times, or None where none do."""
    places, most = int(place.max()) + 1, int(np.bincount(place).max())
    found = []
    for along in (place, place.max() - place):
        of_time, at_place = numbers - 1 - along, numbers - 1 - most * along
        if (of_time % places == 0).all():
            found.append((of_time / places).astype(np.int64))
        if (at_place % 1 == 0).all() and at_place.min() >= 0 and at_place.max() < most:
            found.append(at_place.astype(np.int64))
    fewest = min((level.max() for level in found), default=0)
    found = [level for level in found if level.max() == fewest]
    if places == 1 or not found or any((level != found[0]).any() for level in found):
        return None
    return distinct(found[0], 0.5)


def _same_order(level: Integers, other: Integers, place: Integers) -> bool:
    one, two = (ranks(place, np.argsort(of, kind="stable")) for of in (level, other))
    return bool((one == two).all() and joined([level], place).max() + 1 == len(place))


def _in_common(times: Floats, place: Integers) -> bool:
    """Return whether places draw from one set of values, each clearly apart from the next.

    Those that only differ in their last digits, or belong to other places, are not.
    """
    level = distinct(times)
    order = np.lexsort((level, place))
    steps, jumps = np.diff(times[order]), np.diff(level[order])
    inside = np.diff(place[order]) == 0
    together = np.zeros(level.max() + 1, bool)
    together[level[order][:-1][inside & (jumps == 1)]] = True
    if together[:-1].all():
        return True
    values = np.zeros(len(together))
    values[level] = times
    if not (together[:-1] | (np.diff(values) > _APART * steps[inside].min(initial=np.inf))).all():
        return False
    cells = len(together) * (int(place.max()) + 1)
    return len(level) > (1 - _HOLES_BETWEEN_KNOWN) * cells


def _tell(times: Floats, place: Integers) -> bool:
    """Return whether frames share places, and all that share one have times of their own."""
    if not np.isfinite(times).all() or place.max() + 1 == len(place):
        return False
    return bool(joined([distinct(times)], place).max() + 1 == len(place))


class _Places:
    """The times of each place in order; no two of a place are the same."""

    def __init__(self, times: Floats, place: Integers, in_phase: bool) -> None:
        self.in_phase = in_phase
        self.rows = np.lexsort((times, place))
        self.times = times[self.rows]
        self.counts = np.bincount(place)
        self.ends = np.cumsum(self.counts)
        self.starts = self.times[self.ends - self.counts]
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

    def matched(self) -> tuple[Integers, npt.NDArray[np.bool_]] | None:
        """Return levels with gaps where steps are as long as several, or None if that fails.

        And for each place whether the levels of its frames might as well be others.
        """
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
                return level, self._unsure(level, np.array(after), float(np.median(steps)))
        return None

    def _unsure(self, level: Integers, after: Floats, step: float) -> npt.NDArray[np.bool_]:
        """Return the places whose frames may all be a level earlier or later.

        The frames that lie between others are where the time between them says. Of a place
        that lacks its first or last, only the other places of a volume can tell.
        """
        first, last = level[self.rows[self.ends - self.counts]], level[self.rows[self.ends - 1]]
        leaders = self._leaders(after[len(self.typical)] + step / 2)
        offset = self.starts - leaders - after[first]
        if self.in_phase:
            short = (first > 0) | (last < level.max())
            off = np.abs(offset - np.median(offset)) > _IN_PHASE * step
            return np.asarray(short & off)
        unsure = np.zeros(len(first), bool)
        for leader in np.unique(leaders):
            here = np.flatnonzero(leaders == leader)
            ascending = np.sort(offset[here])
            others = int(len(here) > 1)
            # The extremes of the others.
            low = np.where(offset[here] == ascending[0], ascending[others], ascending[0])
            high = np.where(offset[here] == ascending[-1], ascending[-1 - others], ascending[-1])
            for shift in (-1, 1):
                moved = offset[here] - shift * step
                span = np.maximum(high, moved) - np.minimum(low, moved)
                possible = (first[here] + shift >= 0) & (last[here] + shift <= level.max())
                unsure[here] |= possible & ((span < _WITHIN * step) | (others == 0))
        return unsure

    def _first_levels(self, steps: Floats) -> Integers:
        """Return the level of the first frame of each place.

        Places are measured together, volume by volume, or one behind the other. Where one
        begins later than together with others, but too early to be behind them, its first
        frames are missing; if it has as many as any, only where that is clear.
        """
        after = np.cumsum(steps)
        since = self.starts - self._leaders(after[-1] + np.median(steps) / 2)
        late = np.zeros(len(since))
        late[self.counts == len(steps) + 1] = _LATE * np.median(steps)
        if self.in_phase:
            # The nearest level: as much later than halfway from the one before.
            late[self.counts <= len(steps)] = -_LATE * np.median(steps)
        levels: Integers = np.searchsorted(after, since - late, "right")
        return levels

    def _leaders(self, behind: float) -> Floats:
        """Return for each place the start of the first of those that are measured with it."""
        leaders = np.empty(len(self.starts))
        leader = -np.inf
        for i in np.argsort(self.starts, kind="stable").tolist():
            if self.starts[i] - leader > behind:
                leader = self.starts[i]
            leaders[i] = leader
        return leaders


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
