"""The task of a verification: read a region, and compare it with the expected values.

Faults are returned, not raised: an object that cannot be read, a level that is not made of
the one below, a frame that its source decodes to something else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr

from dcmdask.errors import Note
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.store.plan import Plan
from dcmdask.store.pyramid import halve
from dcmdask.store.regions import (
    Key,
    Layout,
    decoded_or_filled,
    frames_of,
    moved,
    places_of,
    stored_as,
    within,
)
from dcmdask.store.target.place import Place, check_reached
from dcmdask.store.zarr_format import check_length, reads_beyond

# Number of frames that a difference names.
_NAMED = 10


class Difference(NamedTuple):
    """A fault of a store.

    Attributes
    ----------
    where : str
        Key of an object; array and frames of a region; or name of another part of the store.
    what : str
    """

    where: str
    what: str


class Compared(NamedTuple):
    """Result of a verification, as in :class:`VerifyReport`."""

    complete: bool
    regions: tuple[int, int]
    levels: int
    source_token_same: bool | None
    notes: tuple[Note, ...]
    differences: tuple[Difference, ...]


# A store that is not complete, as a difference.
NOT_ENDED = Difference("complete", "the export has not ended; with resume it goes on")


def sample(counts: Mapping[int, int], fraction: float, source: str) -> dict[int, list[int]]:
    """Return the numbers of the regions of each level to check: a deterministic sample."""
    random = np.random.default_rng(list(source.encode()))
    chosen = {}
    for level, count in counts.items():
        some = min(count, max(1, math.ceil(fraction * count)))
        chosen[level] = sorted(random.choice(count, some, replace=False).tolist())
    return chosen


class Expected(NamedTuple):
    """Expected values of level 0; picklable.

    Attributes
    ----------
    frames : array-like
        Frames of the source, decoded with the general path.
    exported : array-like
        The same frames, as the export decoded them.
    by_codec : bool
        Whether a JPEG codec may have converted colours: then these two may differ by 1.
    absent : ndarray of bool or None
        Places without a frame.
    """

    frames: ArrayLike
    exported: ArrayLike
    by_codec: bool
    absent: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class Check:
    """Parameters of all regions of a verification; picklable.

    Attributes
    ----------
    place : Place
    layout : Layout
    arrays : tuple of zarr.Array
        One for each level.
    missing : zarr.Array or None
        Marks of the frames that are missing.
    lost : frozenset of str
        Keys of objects that are known not to be there.
    is_label_map : bool
        Whether values are labels, of which no mean can be taken.
    fill_value : float, list of float or None
        Value of missing frames, or one for each sample.
    expected : Expected or None
        None where there is no source.
    """

    place: Place
    layout: Layout
    arrays: tuple[zarr.Array[Any], ...]
    missing: zarr.Array[Any] | None
    lost: frozenset[str]
    is_label_map: bool
    fill_value: float | list[float] | None
    expected: Expected | None


class Found(NamedTuple):
    """Result of the task of a region.

    Attributes
    ----------
    differences : list of Difference
    rounded : list of int
        Numbers of samples that differ by 1 as a JPEG codec's may, of each frame with such.
    decodable : list of tuple of int
        Frames that are marked as missing, and decode.
    """

    differences: list[Difference]
    rounded: list[int]
    decodable: list[tuple[int, ...]]


def check_region(check: Check, number: int, *, level: int = 0) -> Found:
    """Compare a region of level 0 with source and level 1, or one of others with the one below."""
    plan, found = check.layout.plan, Found([], [], [])
    region = plan.region(level, number)
    if level:
        below = _read(check, level - 1, plan.below(level, region), found)
        _compare_level(check, level, region, below, found)
        return found
    stored = _read(check, 0, region, found)
    marked = None if check.missing is None else _marked(check, check.missing, region, found)
    if stored is not None:
        _compare_fill(check, region, stored, marked, found)
        if check.expected is not None:
            _compare_source(check, check.expected, region, stored, marked, found)
    if len(check.arrays) > 1:
        _compare_level(check, 1, plan.above(region), stored, found)
    return found


# Reading


def error_text(error: Exception) -> str:
    """Return the type and the message of an error of a store or a codec."""
    return f"{type(error).__name__}: {error}"


def _read(check: Check, level: int, region: Key, found: Found) -> npt.NDArray[Any] | None:
    """Return a region; None, once these are listed, where objects of it are lost or damaged."""
    plan, array = check.layout.plan, check.arrays[level]
    objects = {check.layout.key(level, index): index for index in plan.objects(level, region)}
    is_unsafe = check.place.fs is not None and reads_beyond(array)
    if not is_unsafe and check.lost.isdisjoint(objects):
        # A codec may raise anything. Each object is then read alone to find the damaged one.
        with suppress(Exception):
            return np.asarray(array[region])
    shape = [one.stop - one.start for one in region]
    values: npt.NDArray[Any] | None = np.empty(shape, array.dtype)
    for key, index in objects.items():
        if key in check.lost:
            values = None
            continue
        lengths = zip(index, plan.levels[level].objects, region, strict=True)
        at = tuple(slice(max(i * n, r.start), min((i + 1) * n, r.stop)) for i, n, r in lengths)
        part = read_object(check.place, array, key, at)
        if isinstance(part, Difference):
            found.differences.append(part)
            values = None
        elif values is not None:
            values[moved(at, region)] = part
    return values


def read_object(
    place: Place, array: zarr.Array[Any], key: str, region: Key
) -> npt.NDArray[Any] | Difference:
    """Return the region that an object holds; a difference where it is damaged."""
    try:
        if place.fs is not None and reads_beyond(array):
            check_length(place.fs, place.path_of(key))
        return np.asarray(array[region])
    except Exception as error:
        check_reached(error)
        return Difference(key, f"it is damaged: {error_text(error)}")


def _marked(
    check: Check, missing: zarr.Array[Any], region: Key, found: Found
) -> npt.NDArray[np.bool_] | None:
    """Return which frames of a region are marked as missing; None if that cannot be read."""
    key = check.layout.mask_key(region)
    if key in check.lost:
        return None
    places = places_of(check.layout.plan, region)
    try:
        marked = np.asarray(missing[places])
        return marked.reshape([one.stop - one.start for one in places]).astype(bool)
    except Exception as error:
        check_reached(error)
        found.differences.append(Difference(key, f"it is damaged: {error_text(error)}"))
        return None


# Comparing


def _compare_level(
    check: Check, level: int, region: Key, below: npt.NDArray[Any] | None, found: Found
) -> None:
    stored = _read(check, level, region, found)
    if stored is not None and below is not None:
        made = halve(below, check.layout.plan.halved, labels=check.is_label_map)
        origin = f"from level {check.layout.names[level - 1]}, halved,"
        _tell(check, level, region, stored, made, unequal(stored, made), origin, found)


def _compare_fill(
    check: Check,
    region: Key,
    stored: npt.NDArray[Any],
    marked: npt.NDArray[np.bool_] | None,
    found: Found,
) -> None:
    """Compare the frames that are marked as missing with the fill value."""
    if marked is None or check.fill_value is None:
        return
    axis = check.layout.plan.samples_axis
    samples, behind = (1, 0) if axis is None else (stored.shape[axis], stored.ndim - 1 - axis)
    fill = np.full(samples, np.resize(check.fill_value, samples), stored.dtype)
    fill = fill.reshape(-1, *[1] * behind)
    wrong = unequal(stored, fill) & _spread(check.layout.plan, marked, region)
    origin = "from the fill value, though marked as missing,"
    _tell(check, 0, region, stored, fill, wrong, origin, found)


def _compare_source(
    check: Check,
    expected: Expected,
    region: Key,
    stored: npt.NDArray[Any],
    marked: npt.NDArray[np.bool_] | None,
    found: Found,
) -> None:
    plan, name = check.layout.plan, check.layout.names[0]
    places = places_of(plan, region)
    block, failures = decoded_or_filled(plan, expected.frames, region, 0)
    decoded = stored_as(plan, block)
    nowhere = np.zeros([one.stop - one.start for one in places], bool)
    failed, filled = nowhere.copy(), nowhere if marked is None else marked
    absent = nowhere if expected.absent is None else expected.absent[places]
    for frame, reason in failures:
        place = within(places, frame)
        failed[place] = True
        if not filled[place]:
            what = f"the source does not decode: {reason}"
            found.differences.append(Difference(f"{name}{list(frame)}", what))
    if marked is not None:
        for frame in _frames(absent & ~marked, places):
            what = "the source has no such frame, and it is not marked as missing"
            found.differences.append(Difference(f"{name}{list(frame)}", what))
    found.decodable.extend(_frames(filled & ~absent & ~failed, places))
    wrong = unequal(stored, decoded)
    if (filled | failed).any():
        wrong &= ~_spread(plan, filled | failed, region)
    if expected.by_codec and wrong.any():
        exported = stored_as(plan, decoded_or_filled(plan, expected.exported, region, 0)[0])
        off = np.abs(np.subtract(stored[wrong], decoded[wrong], dtype=np.float64))
        near = wrong.copy()
        near[wrong] = (stored[wrong] == exported[wrong]) & (off <= 1)
        found.rounded.extend(n for n in _counts(plan, near).ravel().tolist() if n)
        wrong &= ~near
    _tell(check, 0, region, stored, decoded, wrong, "from the source", found)


def unequal(own: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where two arrays differ; NaN is equal to NaN."""
    wrong: npt.NDArray[np.bool_] = own != other
    if own.dtype.kind == "f" and wrong.any():
        wrong &= ~(np.isnan(own) & np.isnan(other))
    return wrong


def _within_frames(plan: Plan) -> tuple[int, ...]:
    """Return the axes that do not number frames."""
    return tuple(axis for axis in range(len(plan.dims)) if axis not in plan.frame_axes)


def _counts(plan: Plan, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return how many values of each frame, or of each tile, are chosen in a region."""
    found = chosen.sum(_within_frames(plan))
    for axis, piece in enumerate(plan.pieces):
        if piece > 1:
            found = np.add.reduceat(found, np.arange(0, found.shape[axis], piece), axis)
    return np.asarray(found)


def _spread(plan: Plan, frames: npt.NDArray[np.bool_], region: Key) -> npt.NDArray[np.bool_]:
    """Return a mask of frames or tiles in a shape that is broadcast over the values of a region."""
    for axis, (one, piece) in enumerate(zip(frames_of(plan, region), plan.pieces, strict=True)):
        if piece > 1:
            frames = frames.take(np.arange(one.stop - one.start) // piece, axis)
    return np.expand_dims(frames, _within_frames(plan))


def _frames(chosen: npt.NDArray[np.bool_], along: Key) -> list[tuple[int, ...]]:
    """Return the indices of the frames of a region that are chosen."""
    starts = [one.start for one in along]
    return [tuple(place) for place in (np.argwhere(chosen) + starts).tolist()]


def _tell(
    check: Check,
    level: int,
    region: Key,
    own: npt.NDArray[Any],
    other: npt.NDArray[Any],
    wrong: npt.NDArray[np.bool_],
    origin: str,
    found: Found,
) -> None:
    """List the values that are wrong, if there are any: their number, distance and frames."""
    if not wrong.any():
        return
    plan, count = check.layout.plan, int(wrong.sum())
    along = frames_of(plan, region)
    others = np.broadcast_to(other, own.shape)[wrong]
    off = np.abs(np.subtract(own[wrong], others, dtype=np.float64))
    # The distance from NaN is not known; it counts as infinite.
    most = np.nan_to_num(off, nan=np.inf).max()
    by = "as NaN or infinity does" if most == np.inf else f"by {most:g} at most"
    kind = "frame" if plan.tile is None else "tile"
    listed = ""
    # Tiles are those of level 0; above there are none.
    if plan.tile is None or level == 0:
        places = along if plan.tile is None else places_of(plan, region)
        frames = _frames(_counts(plan, wrong) > 0, places)
        named = ", ".join(str(one[0] if len(one) == 1 else one) for one in frames[:_NAMED])
        more = f" and {len(frames) - _NAMED} more" if len(frames) > _NAMED else ""
        listed = f": {kind}{'s' if len(frames) > 1 else ''} {named}{more}"
    where = f"{check.layout.names[level]}[{', '.join(f'{r.start}:{r.stop}' for r in along)}]"
    values = "1 value differs" if count == 1 else f"{count} values differ"
    what = f"{values} {origin} {by}{listed}"
    found.differences.append(Difference(where, what))
