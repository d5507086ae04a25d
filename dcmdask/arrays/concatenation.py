"""`JoinedFrames`: the frames of several instances of one shape, as one array-like."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dcmdask.arrays.tiles import TiledFrames
from dcmdask.dicom.description import Described
from dcmdask.dicom.image_pixel import HEADER_OPTIONS, OVERRIDES, image_pixel
from dcmdask.dicom.instance import Instance, instance_of, open_instance
from dcmdask.dicom.offsets import NumberedItems
from dcmdask.errors import HeaderError, SourceChangedError
from dcmdask.pixels.array_like import ArrayLike, InnerKey, frame_numbers, inner_shape, split
from dcmdask.pixels.bulk import decoded_frames, encoded_frames
from dcmdask.pixels.decode import Decoding, Encoded, check_plugin
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.pixels.reduced import decode_reduced
from dcmdask.sources import files
from dcmdask.sources.current import check_unchanged
from dcmdask.sources.dicomweb import ServedInstance

# Instances on servers that are read at once: each takes a request or two of its own.
_REMOTE = (ServedInstance, files.RemoteFile)
_REQUESTS = 8
# The scan found the number of frames, file by file.
_OF_ONE_FILE = frozenset({"number_of_frames", "extended_offsets", "allow_excess_frames"})


class JoinedFrames(ArrayLike):
    """Frames of several instances as (frames, rows, columns) or (..., samples).

    Frames count through the instances in the order given, each with as many as it was
    described with; transfer syntaxes may differ, and types of integers: frames are decoded in
    that of their instance, and cast to the smallest one that holds all. An instance of one frame
    is opened when it is read, one of several frames here, once: its frame index is carried.
    Opening notices that a local file has changed since it was described. Of each kind
    of note, one is issued as a warning, for the first instance that has one; the logger
    ``dcmdask`` gets all.

    Holds no open file, so it can be pickled, shared by threads and used behind a fork.

    Parameters
    ----------
    instances : sequence of Described
        Of the same rows, columns and samples, and of one type of stored values or of integers.
    raw, decoding_plugin, **decoding_options
        As for :func:`dcmdask.open_frames`, for every instance, besides those that they were
        described with; no other `number_of_frames` and `allow_excess_frames` than these, and no
        `extended_offsets`.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
        Of stored values, in native byte order, whatever that of the files is.
    tiles : int
        Number of frames that are tiles of one that is stored, and decoded together.
    transfer_syntaxes : Counter of str
        Number of frames encoded in each, by UID.
    read_singly : int
        Number of frames that are opened each time that they are read.

    Raises
    ------
    HeaderError
        The shapes of frames differ, or there is no type of integers that holds all values.
    SourceChangedError, FileNotFoundError
        An instance of several frames is not as described, or not there any more; for one of
        a single frame when it is read.
    DcmdaskError
        Others, for an instance of several frames, as for :func:`dcmdask.open_frames`.
    """

    def __init__(
        self,
        instances: Sequence[Described],
        *,
        raw: bool = False,
        decoding_plugin: str = "",
        **decoding_options: Any,
    ) -> None:
        if not instances:
            raise ValueError("no instances: there has to be one at least")
        self._how = Decoding(bool(raw), decoding_plugin)
        self._options = opening_of(instances, decoding_options)
        self._sources = [one.source for one in instances]
        # Other options than those of the scan may change how frames look.
        is_scanned = not decoding_options.keys() - dict(instances[0].overrides).keys()
        self._indices = [one.index if is_scanned else None for one in instances]
        # A local file that is another one has another size or time; others are asked.
        self._uids = {
            number: one.sop_instance_uid
            for number, one in enumerate(instances)
            if one.sop_instance_uid and not isinstance(one.source, files.LocalFile)
        }
        self._starts = np.cumsum([0, *(len(one) for one in instances)])
        frame_shape, self._types = look(instances, decoding_options)
        self.dtype = common_type(self._types)
        self.shape = (int(self._starts[-1]), *frame_shape)
        self.transfer_syntaxes: Counter[str] = Counter()
        for one in instances:
            self.transfer_syntaxes[one.transfer_syntax] += len(one)
        self._warned: set[str] = set()
        self.tiles = instances[0].tiles
        several = np.flatnonzero(np.diff(self._starts) != self.tiles).tolist()
        self._opened = {number: self._open(number) for number in several}
        self.read_singly = len(instances) - len(several)

    def _open(self, number: int) -> FrameArray | TiledFrames:
        """Open the instance `number`, and hold it against what was described."""
        source, index = self._sources[number], self._indices[number]
        if index is not None:
            check_unchanged(source)
            instance = instance_of(source, index, self._warned)
        else:
            uid = self._uids.get(number, "")
            instance = open_instance(
                source, self._options, warned=self._warned, sop_instance_uid=uid
            )
        check_plugin(instance, self._how.plugin)
        stored = FrameArray(instance, self._how)
        frames: FrameArray | TiledFrames = stored
        if self.tiles > 1:
            frames = TiledFrames(stored, self.tiles, *self.shape[1:3])
        expected = (int(self._starts[number + 1] - self._starts[number]), *self.shape[1:])
        # A scan may count declared frames only (`frame_count`); opening warns of others.
        declared = instance.pixels.number_of_frames * self.tiles
        counted = expected[0] in (declared, len(frames))
        there = (expected[0] if counted else len(frames), *frames.shape[1:])
        if there != expected or frames.dtype.newbyteorder("=") not in self._types:
            types = " or ".join(sorted(map(str, self._types)))
            raise SourceChangedError(
                f"there are frames of {frames.shape} {frames.dtype.newbyteorder('=')}, and "
                f"{expected} {types} were there when the headers were read",
                source=source.name,
            )
        return frames

    @property
    def name(self) -> str:
        """Display name of the sources."""
        more = len(self._sources) - 1
        return self._sources[0].name + (f" and {more} more" if more else "")

    @property
    def token(self) -> str:
        """Hash of all sources (path, size and modification time, or content) and all options."""
        parts = (
            [source.token for source in self._sources],
            self._starts.tolist(),
            self.shape,
            sorted(one.str for one in self._types),
            sorted((key, str(value)) for key, value in self._options.items()),
            tuple(self._how),
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sources": _packed(self._sources)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "_sources": _unpacked(state["_sources"])})

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Decode the frames that `key` names, as :meth:`FrameArray.__getitem__` does.

        Raises
        ------
        FrameNumberError, IndexError, DecodeError
            As there.
        SourceChangedError, FileNotFoundError
            An instance is not as described, or not there any more.
        """
        (outer,), inner = split(key, self.ndim)
        frames = self._decode(frame_numbers(outer, len(self), self.name), inner)
        if not isinstance(outer, int):
            return frames
        frame: npt.NDArray[Any] = frames[0]
        return frame

    def encoded(self, frames: Sequence[int]) -> Iterator[tuple[Instance, Encoded]]:
        """Yield frames as they are stored, each with its instance, in the order asked for.

        Each is only valid until the next one: its memory is used again.
        """
        for instance, some in self._owners(frames):
            for one in encoded_frames(instance, some):
                yield instance, one

    def each(self, frames: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Yield frames decoded, in the type of their instance, in the order asked for.

        Each is only valid until the next one: its memory is used again.
        """
        for instance, some in self._owners(frames):
            yield from decoded_frames(instance, self._how, some)

    def lengths(self, frames: Sequence[int]) -> list[int]:
        """Return the bytes of the span of each frame."""
        found: list[int] = []
        for instance, some in self._owners(frames):
            if isinstance(instance.spans, NumberedItems):
                # A server tells it with the frame.
                found += [len(one.span) for one in encoded_frames(instance, some)]
            else:
                found += instance.spans.locate(np.asarray(some, np.int64))[1]
        return found

    def reduced(
        self, frames: Sequence[int], factor: int
    ) -> Iterator[tuple[int, int, npt.NDArray[Any] | None]]:
        """Yield frames at 1 / `factor` of their size, run by run of those of one instance.

        Yields
        ------
        start, stop : int
            Bounds of the run in `frames`.
        small : ndarray or None
            As :meth:`FrameArray.reduced` returns it.
        """
        start = 0
        for instance, some in self._owners(frames):
            stop = start + len(some)
            yield start, stop, decode_reduced(instance, self._how, some, factor)
            start = stop

    def _owners(self, frames: Sequence[int]) -> Iterator[tuple[Instance, list[int]]]:
        numbers = np.asarray(frames, np.int64)
        owners = np.searchsorted(self._starts, numbers, "right") - 1
        for start, stop in _runs(owners):
            owner = int(owners[start])
            opened = self._opened[owner] if owner in self._opened else self._open(owner)
            assert isinstance(opened, FrameArray)
            yield opened.instance, (numbers[start:stop] - self._starts[owner]).tolist()

    def _decode(self, frames: list[int], inner: InnerKey) -> npt.NDArray[Any]:
        shape, whole = inner_shape(inner, self.shape[1:])
        numbers = np.asarray(frames, np.int64)
        owners = np.searchsorted(self._starts, numbers, "right") - 1
        within = numbers - self._starts[owners]
        runs = _runs(owners)
        if len(runs) > 1 and isinstance(self._sources[int(owners[0])], _REMOTE):
            return self._decode_remote(runs, owners, within, inner)
        out: npt.NDArray[Any] | None = None
        for start, stop in runs:
            owner = int(owners[start])
            # Not kept: there may be 10^5, and each is opened in 0.05 ms.
            instance = self._opened[owner] if owner in self._opened else self._open(owner)
            if out is not None and whole:
                instance.decode_into(out[start:stop], within[start:stop].tolist())
                continue
            part = instance[(within[start:stop], *inner)]
            if stop - start == len(frames):
                return part.astype(self.dtype, copy=False)
            if out is None:
                # Not before a frame came that the header's size was true of.
                out = np.empty((len(frames), *shape), self.dtype)
            out[start:stop] = part
        return np.empty((0, *shape), self.dtype) if out is None else out

    def _decode_remote(
        self,
        runs: Sequence[tuple[int, int]],
        owners: npt.NDArray[np.int64],
        within: npt.NDArray[np.int64],
        inner: InnerKey,
    ) -> npt.NDArray[Any]:
        """Decode runs of frames of instances on servers, several at a time."""

        def decode(run: tuple[int, int]) -> npt.NDArray[Any]:
            owner = int(owners[run[0]])
            instance = self._opened[owner] if owner in self._opened else self._open(owner)
            return instance[(within[slice(*run)], *inner)]

        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="dcmdask") as pool:
            parts = list(pool.map(decode, runs))
        return np.concatenate(parts, dtype=self.dtype)


def _runs(owners: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return start and stop of each run of equal numbers."""
    bounds = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
    return list(pairwise(bounds)) if len(owners) else []


def opening_of(instances: Sequence[Described], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that instances are opened with: besides `options` those of the scan.

    Raises
    ------
    ValueError
        The instances were described with different options.
    TypeError
        An option changes the number of frames that a scan has found.
    """
    overrides, *others = {one.overrides for one in instances}
    if others:
        raise ValueError("the instances are of scans with different decoding options")
    described = dict(overrides)
    for name in sorted(_OF_ONE_FILE & options.keys()):
        if name not in described or described[name] != options[name]:
            how = f", or of the scan: scan(src, {name}={options[name]!r})"
            scanned = how if name in HEADER_OPTIONS else ""
            raise TypeError(f"{name!r} is an option for one file alone{scanned}")
    return {**described, **options}


def types_of(instances: Sequence[Described]) -> frozenset[np.dtype[Any]]:
    """Return the types of the stored values, in native byte order."""
    # A plane of tiles may have more rows than a frame can have.
    return look([part for one in instances for part in one.stored or (one,)], {})[1]


def common_type(types: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """Return the smallest type that holds all values of some types of integers; of one, itself.

    Examples
    --------
    >>> common_type(map(np.dtype, ("u1", "i2"))), common_type(map(np.dtype, ("u2", "i2")))
    (dtype('int16'), dtype('int32'))
    """
    return np.result_type(*types)


def look(
    instances: Sequence[Described], options: dict[str, Any]
) -> tuple[tuple[int, ...], frozenset[np.dtype[Any]]]:
    """Return the shape of a frame, which all instances have, and the types of stored values.

    Raises
    ------
    HeaderError, MissingElementError
        Shapes differ, no type of integers holds all values, or what is described cannot be.
    """
    distinct: dict[tuple[Any, ...], Described] = {}
    for one in instances:
        distinct.setdefault((_elements_of(one), one.transfer_syntax), one)
    overrides = {key: value for key, value in options.items() if key in OVERRIDES}
    looks: dict[tuple[tuple[int, ...], np.dtype[Any]], str] = {}
    for one in distinct.values():
        elements = {**_elements(one), **overrides}
        pixels, _ = image_pixel(Dataset(), UID(one.transfer_syntax), elements, one.source.name)
        looks.setdefault((pixels.frame_shape, pixels.dtype.newbyteorder("=")), one.source.name)
    (expected, first), *others = looks.items()
    types = frozenset(dtype for _, dtype in looks)
    for other, name in others:
        if other[0] != expected[0] or common_type(types).kind not in "iu":
            raise HeaderError(
                f"its frames are {other[0]} {other[1]}, those of {first} are {expected[0]} "
                f"{expected[1]}, and only frames that look alike make one array",
                source=name,
            )
    return expected[0], types


# Elements that decide how frames look: pydicom's keywords, and the attributes of a `Described`.
_ELEMENTS = {
    "rows": "rows",
    "columns": "columns",
    "samples_per_pixel": "samples",
    "bits_allocated": "bits_allocated",
    "bits_stored": "bits_stored",
    "pixel_representation": "signed",
    "photometric_interpretation": "photometric_interpretation",
    "pixel_keyword": "pixel_keyword",
}
# Called for each of 10^5 instances.
_elements_of = attrgetter(*_ELEMENTS.values())


def _elements(one: Described) -> dict[str, Any]:
    found = dict(zip(_ELEMENTS, _elements_of(one), strict=True))
    signed = int(found["pixel_representation"])
    return {
        **found,
        "pixel_representation": signed,
        "planar_configuration": 0,
        "number_of_frames": 1,
    }


def _packed(sources: list[files.Stored]) -> Any:
    """Return the sources in fewer bytes: local files share the beginning of their paths."""
    local = [source for source in sources if isinstance(source, files.LocalFile)]
    if len(local) < len(sources):
        return sources
    # Letter by letter, so names that only count up take a few bytes each.
    beginning = os.path.commonprefix([source.path for source in local])  # noqa: RUF071  letters are meant
    # No path holds a zero byte.
    rest = "\0".join(source.path[len(beginning) :] for source in local)
    numbers = np.array([(source.size, source.modified) for source in local], np.int64)
    return beginning, rest, numbers


def _unpacked(packed: Any) -> list[files.Stored]:
    if isinstance(packed, list):
        return packed
    beginning, rest, numbers = packed
    return [
        files.LocalFile(beginning + path, size, modified)
        for path, (size, modified) in zip(rest.split("\0"), numbers.tolist(), strict=True)
    ]
