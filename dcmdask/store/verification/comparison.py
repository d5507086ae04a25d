"""The task of a verification: read a region, and compare it with the expected values.

What is found is returned, not raised: an object that cannot be read, a level that is not
made of the one below, a frame that its source decodes to something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

from dcmdask.pixels.array_like import ArrayLike
from dcmdask.store.completion import Layout, key_of
from dcmdask.store.group import Place
from dcmdask.store.plan import Plan
from dcmdask.store.pyramid import halve
from dcmdask.store.regions import Key, decoded_or_filled, frames_of

# Number of frames that a difference names.
_NAMED = 10
# Its last four bytes are the length of all.
_BLOSC_HEADER = 16


class Difference(NamedTuple):
    """Something in a store that is not as it should be.

    Attributes
    ----------
    where : str
        An object by its key; a region by its array and its frames; or what else of the store.
    what : str
    """

    where: str
    what: str


class Expected(NamedTuple):
    """Expected values of level 0; picklable.

    Attributes
    ----------
    frames : array-like
        Of the source, decoded with the general path.
    exported : array-like
        Likewise, as the export decoded them.
    by_codec : ndarray of bool or None
        Frames of which a JPEG codec converted the colours: these two may differ by 1.
    absent : ndarray of bool or None
        Places without a frame.
    """

    frames: ArrayLike
    exported: ArrayLike
    by_codec: npt.NDArray[np.bool_] | None
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
        Of which frames are missing.
    lost : frozenset of str
        Keys of objects that are known not to be there.
    labels : bool
        Whether levels are made of labels.
    fill_value : float or None
        Value of missing frames.
    expected : Expected or None
        None where there is no source.
    """

    place: Place
    layout: Layout
    arrays: tuple[zarr.Array[Any], ...]
    missing: zarr.Array[Any] | None
    lost: frozenset[str]
    labels: bool
    fill_value: float | None
    expected: Expected | None


class Found(NamedTuple):
    """Result of the task of a region.

    Attributes
    ----------
    differences : list of Difference
    rounded : list of int
        For each frame with such, how many samples differ by 1 as a JPEG codec's may.
    decodable : list of tuple of int
        Frames that are marked as missing, and decode.
    """

    differences: list[Difference]
    rounded: list[int]
    decodable: list[tuple[int, ...]]


def check_region(check: Check, number: int) -> Found:
    """Compare region `number` of level 0 with its source, and level 1 with the region."""
    plan, found = check.layout.plan, Found([], [], [])
    region = plan.region(0, number)
    stored = _read(check, 0, region, found)
    marked = None if check.missing is None else _marked(check, number, region, found)
    if stored is not None:
        _compare_frames(check, region, stored, marked, found)
    if len(check.arrays) > 1:
        _compare_level(check, 1, plan.above(region), stored, found)
    return found


def check_level(check: Check, number: int, *, level: int) -> Found:
    """Compare region `number` of `level`, 2 or above, with the level below it."""
    plan, found = check.layout.plan, Found([], [], [])
    region = plan.region(level, number)
    below = _read(check, level - 1, plan.below(level, region), found)
    _compare_level(check, level, region, below, found)
    return found


# Reading


def told(error: Exception) -> str:
    """Return an error of a store or a codec in words."""
    return f"{type(error).__name__}: {error}"


def _read(check: Check, level: int, region: Key, found: Found) -> npt.NDArray[Any] | None:
    """Return a region; None, once its damaged objects are listed, if it cannot be read."""
    plan, array, name = check.layout.plan, check.arrays[level], check.layout.names[level]
    keys = {key_of(name, index): index for index in plan.objects(level, region)}
    cut = {key: what for key in keys if key not in check.lost and (what := _cut(check, array, key))}
    found.differences.extend(Difference(key, what) for key, what in cut.items())
    there = {key: index for key, index in keys.items() if key not in check.lost | cut.keys()}
    reason = ""
    if len(there) == len(keys):
        try:
            return np.asarray(array[region])
        except Exception as error:
            # A codec may raise anything.
            reason = told(error)
    before = len(found.differences)
    for key, index in there.items():
        lengths = plan.levels[level].objects
        at = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, lengths, strict=True))
        try:
            array[at]
        except Exception as error:
            found.differences.append(Difference(key, f"it is damaged: {told(error)}"))
    if reason and len(found.differences) == before:
        found.differences.append(Difference(_named(plan, name, region), f"unreadable: {reason}"))
    return None


def _ends_with_blosc(array: zarr.Array[Any]) -> bool:
    return bool(array.compressors) and isinstance(array.compressors[-1], BloscCodec)


def _cut(check: Check, array: zarr.Array[Any], key: str) -> str:
    """Return in words that an object is not as long as its Blosc header says; or nothing.

    The decompressor is not told how much there is: of what is cut short it reads on in
    memory that is not its own, and may return that as values. A checksum behind it, or that of
    a shard's index, comes first.
    """
    fs = check.place.fs
    if fs is None or array.shards or not _ends_with_blosc(array):
        return ""
    path = f"{check.place.root.rstrip('/')}/{key}"
    try:
        head, size = fs.cat_file(path, start=0, end=_BLOSC_HEADER), fs.size(path)
    except Exception as error:
        return f"it cannot be read: {told(error)}"
    says = int.from_bytes(head[12:], "little")
    if len(head) == _BLOSC_HEADER and says == size:
        return ""
    return f"it is damaged: it has {size} bytes, and {says} by its header"


def _marked(check: Check, number: int, region: Key, found: Found) -> npt.NDArray[np.bool_] | None:
    """Return which frames of a region are marked as missing; None if that cannot be read."""
    assert check.missing is not None
    (key,) = (
        key for key in check.layout.keys(0, number) if key.startswith(f"{check.layout.mask}/")
    )
    if key in check.lost:
        return None
    along = frames_of(check.layout.plan, region)
    try:
        marked = np.asarray(check.missing[along])
        return marked.reshape([one.stop - one.start for one in along]).astype(bool)
    except Exception as error:
        found.differences.append(Difference(key, f"it is damaged: {told(error)}"))
        return None


# Comparing


def _compare_level(
    check: Check, level: int, region: Key, below: npt.NDArray[Any] | None, found: Found
) -> None:
    stored = _read(check, level, region, found)
    if stored is None or below is None:
        return
    plan, name = check.layout.plan, check.layout.names[level]
    made = halve(below, plan.halved, labels=check.labels)
    differing = _Differing(plan, name, region)
    own, expected = _by_frame(plan, stored), _by_frame(plan, made)
    for place in np.ndindex(*own.shape[: len(plan.frame_axes)]):
        differing.add(place, own[place], expected[place], unequal(own[place], expected[place]))
    differing.tell(f"from what level {level - 1} makes of it", found)


def _compare_frames(
    check: Check,
    region: Key,
    stored: npt.NDArray[Any],
    marked: npt.NDArray[np.bool_] | None,
    found: Found,
) -> None:
    plan, name = check.layout.plan, check.layout.names[0]
    own = _by_frame(plan, stored)
    if marked is not None and check.fill_value is not None:
        fill = np.full(1, check.fill_value, plan.dtype)
        filled = _Differing(plan, name, region)
        for place in map(tuple, np.argwhere(marked).tolist()):
            filled.add(place, own[place], fill, unequal(own[place], fill))
        filled.tell("from the fill value, though marked as missing,", found)
    if check.expected is not None:
        _compare_source(plan, name, region, check.expected, own, marked, found)


def _compare_source(
    plan: Plan,
    name: str,
    region: Key,
    expected: Expected,
    own: npt.NDArray[Any],
    marked: npt.NDArray[np.bool_] | None,
    found: Found,
) -> None:
    along = frames_of(plan, region)
    starts = [one.start for one in along]
    decoded, failures = decoded_or_filled(expected.frames, along, 0)
    failed = dict(failures)
    differing = _Differing(plan, name, region)
    for place in np.ndindex(*own.shape[: len(along)]):
        frame = tuple(start + i for start, i in zip(starts, place, strict=True))
        absent = expected.absent is not None and bool(expected.absent[frame])
        if marked is not None and absent and not marked[place]:
            what = "the source has no such frame, and it is not marked as missing"
            found.differences.append(Difference(f"{name}{list(frame)}", what))
        if marked is not None and marked[place]:
            if not absent and frame not in failed:
                found.decodable.append(frame)
        elif frame in failed:
            what = f"the source does not decode: {failed[frame]}"
            found.differences.append(Difference(f"{name}{list(frame)}", what))
        else:
            wrong = unequal(own[place], decoded[place])
            if wrong.any() and expected.by_codec is not None and expected.by_codec[frame]:
                rounded = wrong & _rounded(own[place], decoded[place], expected.exported[frame])
                found.rounded.extend([int(rounded.sum())] if rounded.any() else [])
                wrong &= ~rounded
            differing.add(place, own[place], decoded[place], wrong)
    differing.tell("from the source", found)


def _rounded(
    own: npt.NDArray[Any], decoded: npt.NDArray[Any], exported: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """Return where a value is what the export decoded, and that off by 1 at most."""
    off = np.abs(np.subtract(own, decoded, dtype=np.float64))
    near: npt.NDArray[np.bool_] = (own == exported) & (off <= 1)
    return near


def unequal(own: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where two arrays differ; NaN is equal to NaN."""
    wrong: npt.NDArray[np.bool_] = own != other
    if own.dtype.kind == "f" and wrong.any():
        wrong &= ~(np.isnan(own) & np.isnan(other))
    return wrong


class _Differing:
    """Frames of a region that differ, and by how much."""

    def __init__(self, plan: Plan, name: str, region: Key) -> None:
        self._plan, self._name, self._region = plan, name, region
        self._places: list[tuple[int, ...]] = []
        self._count = 0
        self._most = 0.0

    def add(
        self,
        place: tuple[int, ...],
        own: npt.NDArray[Any],
        other: npt.NDArray[Any],
        wrong: npt.NDArray[np.bool_],
    ) -> None:
        """Count the values of a frame that are wrong."""
        if not wrong.any():
            return
        self._places.append(place)
        self._count += int(wrong.sum())
        other = np.broadcast_to(other, own.shape)
        off = np.abs(np.subtract(own[wrong], other[wrong], dtype=np.float64))
        # Beside NaN there is no distance, and none is farther.
        self._most = max(self._most, float(np.nan_to_num(off, nan=np.inf).max()))

    def tell(self, from_what: str, found: Found) -> None:
        """List the difference, if there is one."""
        if self._places:
            values = "1 value differs" if self._count == 1 else f"{self._count} values differ"
            by = "as NaN or infinity does" if self._most == np.inf else f"by {self._most:g} at most"
            what = f"{values} {from_what} {by}: {self._worded(self._places)}"
            where = _named(self._plan, self._name, self._region)
            found.differences.append(Difference(where, what))

    def _worded(self, places: Sequence[tuple[int, ...]]) -> str:
        """Return frames by their place in the array, the first of them if there are many."""
        told = ", ".join(self._frames(places[:_NAMED]))
        more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
        return f"frame{'s' if len(places) > 1 else ''} {told}{more}"

    def _frames(self, places: Sequence[tuple[int, ...]]) -> Iterator[str]:
        starts = [one.start for one in frames_of(self._plan, self._region)]
        for place in places:
            frame = [start + i for start, i in zip(starts, place, strict=True)]
            yield str(frame[0]) if len(frame) == 1 else f"({', '.join(map(str, frame))})"


def _named(plan: Plan, name: str, region: Key) -> str:
    """Return a region by its array and its frames."""
    return f"{name}[{', '.join(f'{one.start}:{one.stop}' for one in frames_of(plan, region))}]"


def _by_frame(plan: Plan, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view of a stored block as frames are decoded: samples last."""
    return block if plan.samples_axis is None else np.moveaxis(block, plan.samples_axis, -1)
