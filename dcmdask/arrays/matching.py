"""Which frames are of one time where each place has times of its own: pure functions.

A place is what frames have in common besides time, as in `dcmdask.arrays.levels`.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.geometry import Floats, Integers

# The time from one frame to the next may be off by this part of it.
_UNSTEADY = 0.4
# Positions of one trigger are at one time, but for this part of the time between frames.
_IN_PHASE = 0.25
# All positions of a volume are measured within the time for one, and this part of it.
_WITHIN = 1.1
# Volumes are not measured quite as regularly as that: a part of the time for one.
_LATE = 0.5
# A step is about two where it is this much longer than that of another place.
_TWO = 1.5
# Each place is compared with so many that come next.
_NEXT = 8


class Contradiction(NamedTuple):
    """Two places that seem to lack frames of different times.

    `rows`: the frame that the first place takes longer to than the second, and the one that
    the second does. `ranks`: their numbers in the order of time. `steps`: for either rank the
    time from the frame before, of the first and of the second place.
    """

    rows: tuple[int, int]
    ranks: tuple[int, int]
    steps: tuple[tuple[float, float], tuple[float, float]]


def ranks(place: Integers, order: Integers) -> Integers:
    """Return the rank of each frame, in `order`, among those of its place."""
    by_place = order[np.argsort(place[order], kind="stable")]
    sizes = np.bincount(place)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(place), np.int64)
    rank[by_place] = np.arange(len(place)) - np.repeat(starts, sizes)
    return rank


class Places:
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
        self.typical = _typical(self.steps)

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
        for steps in (self.typical, np.full(len(self.typical), _typical(self.typical))):
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

    def contradiction(self) -> Contradiction | None:
        """Return why the order of frames seems to put different times together, if it does.

        That is where each place lacks another frame: all take as long altogether, and each one
        about two steps of the others at another rank. A pause of all at one rank does not count,
        nor one in the middle of a volume.
        """
        most = len(self.typical) + 1
        if (self.counts < most).any() or self._in_volumes(most):
            return None
        # Steps that are merely uneven add up to other times.
        whole = self.steps.sum(axis=1)
        if np.median(np.abs(whole - np.median(whole))) > _IN_PHASE * np.median(self.steps):
            return None
        for apart in range(1, min(_NEXT + 1, len(self.steps))):
            one, other = self.steps[:-apart], self.steps[apart:]
            longer, shorter = one > _TWO * other, other > _TWO * one
            places = np.flatnonzero(longer.any(axis=1) & shorter.any(axis=1))
            if len(places):
                place = int(places[0])
                return self._between(place, place + apart, longer[place], shorter[place])
        return None

    def _between(
        self, one: int, other: int, longer: npt.NDArray[np.bool_], shorter: npt.NDArray[np.bool_]
    ) -> Contradiction:
        first, second = int(np.argmax(longer)), int(np.argmax(shorter))
        rows = self.rows.reshape(len(self.steps), -1)
        of_one, of_other = self.steps[one].tolist(), self.steps[other].tolist()
        return Contradiction(
            (int(rows[one, first + 1]), int(rows[other, second + 1])),
            (first + 1, second + 1),
            ((of_one[first], of_other[first]), (of_one[second], of_other[second])),
        )

    def _in_volumes(self, most: int) -> bool:
        """Return whether ranks follow one another, with places in one order or its reverse."""
        times = self.times.reshape(-1, most)
        order = np.argsort(times, axis=0, kind="stable")
        same = (order == order[:, :1]).all(axis=0) | (order == order[::-1, :1]).all(axis=0)
        return bool(same.all() and (times[:, :-1].max(axis=0) < times[:, 1:].min(axis=0)).all())

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


def _typical(steps: Floats) -> Floats:
    """Return the median; of two the smaller, as a step is longer where a frame is missing."""
    typical: Floats = np.sort(steps, axis=0)[(len(steps) - 1) // 2]
    return typical


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
