"""Which frames are of one time, echo, component or diffusion weighting: pure functions.

A level is a number from 0 on for each frame. A place, likewise, is what frames have in
common besides time: their position, and the levels of what else they differ on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.geometry import Floats, Integers
from dcmdask.arrays.matching import Contradiction, Places, ranks
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
# Values of which no position has both are two if they differ by this part of the least step.
_APART = 0.5

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
    `contradiction`: why all are.
    """

    name: str
    column: str
    level: Integers
    noted: str = ""
    holes: float = _HOLES
    own: bool = False
    unsure: tuple[int, ...] = ()
    contradiction: Contradiction | None = None


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
    by_time = Places(times, place, column == _SINCE_TRIGGER)
    if by_time.steady:
        yield Axis("t", column, by_time.rank, noted, own=True)
    elif (level_and_unsure := by_time.matched()) is not None:
        level, unsure = level_and_unsure
        noted = noted or "each position has times of its own: the time between its frames tells t"
        rows = tuple(np.flatnonzero(unsure[place]).tolist())
        yield Axis("t", column, level, noted, own=True, unsure=rows)


def order_axis(column: str, times: Floats, place: Integers) -> Iterator[Axis]:
    """Yield the order of frames at each place, if the times between them are what they are.

    All frames are unsure where places take about two steps of others, each to another frame.
    """
    if not _tell(times, place):
        return
    noted = (
        f"frames share positions, and by {NUMBERS.get(column, 'their times')} the steps from "
        "one to the next differ between positions: t is their order at each"
    )
    by_time = Places(times, place, column == _SINCE_TRIGGER)
    found = by_time.contradiction() if column in TIMES else None
    unsure = tuple(dict.fromkeys((*found.rows, *range(len(place))))) if found else ()
    yield Axis("t", column, by_time.rank, noted, 0.0, True, unsure, found)


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
