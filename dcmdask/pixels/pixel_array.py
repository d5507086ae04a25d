"""`pixel_array` and `iter_pixels` as pydicom 3 documents them, on all cores."""

from __future__ import annotations

import math
import multiprocessing
import operator
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_has_tag, dictionary_is_retired
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from dcmdask.dicom import offsets
from dcmdask.dicom.header import (
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
    read_whole_header,
)
from dcmdask.dicom.instance import Instance, open_instance
from dcmdask.errors import FrameNumberError
from dcmdask.pixels.bulk import decode_frames, encoded_frames
from dcmdask.pixels.decode import (
    Decoding,
    Encoded,
    allocate,
    check_plugin,
    decode_into,
    examine,
    general,
)
from dcmdask.sources import files

# Decoded bytes of a task: enough to make handing it out cheap, few enough to keep
# memory bounded and an interrupt quick.
TASK_BYTES = 4 * 2**20
TASK_FRAMES = 16
SPECIFIC_CHARACTER_SET = 0x00080005


def pixel_array(
    src: Any,
    *,
    ds_out: Dataset | None = None,
    specific_tags: list[int] | None = None,
    index: int | None = None,
    raw: bool = False,
    decoding_plugin: str = "",
    storage_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> npt.NDArray[Any]:
    """Return the decoded pixel data of `src`, as :func:`pydicom.pixels.pixel_array` does.

    On all cores; in one thread where the caller is itself one of many: in a thread other
    than the main one, or in a child process, such as a Dask task or a data loader's worker.

    Parameters
    ----------
    src : str, path-like, file-like, bytes or pydicom.Dataset
        A local path, an fsspec URL, a binary file-like, whose position is restored, the
        bytes of a file, or a data set.
    ds_out : pydicom.Dataset, optional
        Updated with the non-retired elements of group 0028, the file meta information,
        and `specific_tags`. Not for a `Dataset` as `src`.
    specific_tags : list of int, optional
        More elements for `ds_out`.
    index : int, optional
        The frame to return, from 0; by default all of them.
    raw : bool, optional
        Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB. For 8-bit
        JPEG the conversion is done by the codec (ITU-T T.871), which differs from pydicom's
        by 1 in 0.03 % of samples; name any `decoding_plugin` for pydicom's.
    decoding_plugin : str, optional
        The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer
        syntax. By default imagecodecs is tried, then whatever pydicom has.
    storage_options : mapping, optional
        For the fsspec file system of a URL.
    **kwargs
        pydicom's decoding options and overrides of group 0028. With ``view_only=True``
        native pixel data may come as a read-only array.

    Returns
    -------
    numpy.ndarray
        (rows, columns) or (rows, columns, samples) for one frame,
        (frames, rows, columns) or (frames, rows, columns, samples) for more.

    Raises
    ------
    FrameNumberError
        `index` is negative or beyond the last frame; also a ValueError and an IndexError.
    DecodeError
        A frame does not decode.
    DcmdaskError
        The file cannot be opened.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> path = get_testdata_file("examples_ybr_color.dcm")
    >>> pixel_array(path).shape, pixel_array(path, index=2).shape
    ((30, 240, 320, 3), (240, 320, 3))
    """
    instance, how, extra = _open(src, raw, decoding_plugin, storage_options, kwargs)
    if index is not None:
        frame = _checked(index, instance)
        array = _decode_one(
            instance, how, examine(instance, frame, instance.read([frame])[0]), extra
        )
    elif extra:
        array = _view(instance, how, extra)
    else:
        array = _decode_all(instance, how)
        if len(instance) == 1:
            array = array[0]
    _fill(ds_out, src, instance, specific_tags)
    return array


def iter_pixels(
    src: Any,
    *,
    ds_out: Dataset | None = None,
    specific_tags: list[int] | None = None,
    indices: Iterable[int] | None = None,
    raw: bool = False,
    decoding_plugin: str = "",
    storage_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Iterator[npt.NDArray[Any]]:
    """Yield the decoded frames of `src`, as :func:`pydicom.pixels.iter_pixels` does.

    Decodes ahead on all cores, a bounded number of frames; in the caller's thread where
    that is one of many, see :func:`pixel_array`. Threads end when the iterator does.

    Parameters
    ----------
    src : str, path-like, file-like, bytes or pydicom.Dataset
        A local path, an fsspec URL, a binary file-like, whose position is restored, the
        bytes of a file, or a data set.
    ds_out : pydicom.Dataset, optional
        Updated with the non-retired elements of group 0028, the file meta information,
        and `specific_tags` before the first frame. Not for a `Dataset` as `src`.
    specific_tags : list of int, optional
        More elements for `ds_out`.
    indices : iterable of int, optional
        The frames to yield, in that order, from 0; by default all of them. Consumed as
        frames are decoded.
    raw : bool, optional
        Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB. For 8-bit
        JPEG the conversion is done by the codec (ITU-T T.871), which differs from pydicom's
        by 1 in 0.03 % of samples; name any `decoding_plugin` for pydicom's.
    decoding_plugin : str, optional
        The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer
        syntax. By default imagecodecs is tried, then whatever pydicom has.
    storage_options : mapping, optional
        For the fsspec file system of a URL.
    **kwargs
        pydicom's decoding options and overrides of group 0028. With ``view_only=True``
        native pixel data may come as a read-only array.

    Yields
    ------
    numpy.ndarray
        (rows, columns), or (rows, columns, samples).

    Raises
    ------
    FrameNumberError, DecodeError
        When it is the turn of a frame that does not exist or does not decode: those before
        it are yielded.
    DcmdaskError
        The file cannot be opened.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> path = get_testdata_file("examples_ybr_color.dcm")
    >>> sum(1 for frame in iter_pixels(path, indices=range(0, 30, 10)))
    3
    """
    instance, how, extra = _open(src, raw, decoding_plugin, storage_options, kwargs)
    _fill(ds_out, src, instance, specific_tags)
    wanted = range(len(instance)) if indices is None else indices
    together = _frames_of_a_task(instance)

    def decode(frames: list[int]) -> tuple[list[npt.NDArray[Any]], Exception | None]:
        arrays: list[npt.NDArray[Any]] = []
        try:
            for run in _existing(frames, instance):
                for encoded in encoded_frames(instance, run):
                    arrays.append(_decode_one(instance, how, encoded, extra))
        except Exception as error:
            return arrays, error
        return arrays, None

    for arrays, error in _ahead(decode, _grouped(wanted, together)):
        yield from arrays
        if error is not None:
            raise error


def _open(
    src: Any,
    raw: bool,
    plugin: str,
    storage_options: Mapping[str, Any] | None,
    kwargs: dict[str, Any],
) -> tuple[Instance, Decoding, dict[str, Any]]:
    """Open `src`; return also `view_only`, which only native pixel data has."""
    options = {k: v for k, v in kwargs.items() if k != "view_only"}
    instance = open_instance(src, options, storage_options)
    check_plugin(instance, plugin)
    view = kwargs.get("view_only") and not instance.pixels.transfer_syntax.is_encapsulated
    return instance, Decoding(bool(raw), plugin), {"view_only": True} if view else {}


def _checked(index: int, instance: Instance) -> int:
    index = operator.index(index)
    if not 0 <= index < len(instance):
        raise FrameNumberError(
            f"frame {index} does not exist: the frames are 0 to {len(instance) - 1}",
            source=instance.name,
        )
    return index


def _existing(frames: list[int], instance: Instance) -> Iterator[list[int]]:
    """Yield the frames before one that does not exist, and then raise for that one."""
    run: list[int] = []
    try:
        for frame in frames:
            run.append(_checked(frame, instance))
    except (FrameNumberError, TypeError):
        yield run
        raise
    yield run


def _decode_one(
    instance: Instance, how: Decoding, encoded: Encoded, extra: dict[str, Any]
) -> npt.NDArray[Any]:
    if extra:
        return general(instance, how, encoded, **extra)
    array: npt.NDArray[Any] = allocate(instance, how, [encoded.frame], encoded)[0]
    decode_into(instance, how, encoded, array)
    return array


def _view(instance: Instance, how: Decoding, extra: dict[str, Any]) -> npt.NDArray[Any]:
    """Return all frames of native pixel data as a view of the bytes, where pydicom does."""
    source, spans = instance.source, instance.spans
    assert isinstance(spans, offsets.NativeSpans)
    if isinstance(spans, offsets.NumberedNative):
        each = [
            general(instance, how, one, **extra)
            for one in encoded_frames(instance, range(len(spans)))
        ]
        return np.stack(each) if len(each) > 1 else each[0]
    starts, lengths = spans.locate(np.array([0, len(spans) - 1], np.int64))
    stop = starts[1] + lengths[1]
    if isinstance(source, files.Memory):
        data: Any = memoryview(source.data)[starts[0] : stop]
    else:
        (data,) = files.read(source, [starts[0]], [stop - starts[0]])
    options = {**instance.pixels.options, "number_of_frames": len(spans), **extra}
    decoder = get_decoder(instance.pixels.transfer_syntax)
    array, _ = decoder.as_array(data, raw=how.raw, validate=False, **options)
    return array


def _decode_all(instance: Instance, how: Decoding) -> npt.NDArray[Any]:
    count = len(instance)
    out = allocate(instance, how, range(count), examine(instance, 0, instance.read([0])[0]))
    together = _frames_of_a_task(instance)

    def decode(frames: list[int]) -> None:
        # Frames of a task follow each other.
        decode_frames(instance, how, frames, out[frames[0] : frames[-1] + 1])

    for _ in _ahead(decode, _grouped(range(count), together)):
        pass
    return out


def _frames_of_a_task(instance: Instance) -> int:
    frame_bytes = math.prod(instance.pixels.frame_shape) * instance.pixels.dtype.itemsize
    return max(1, min(TASK_FRAMES, TASK_BYTES // frame_bytes))


def _grouped(frames: Iterable[int], size: int) -> Iterator[list[int]]:
    iterator = iter(frames)
    while group := list(islice(iterator, size)):
        yield group


def _ahead(function: Callable[[list[int]], Any], tasks: Iterator[list[int]]) -> Iterator[Any]:
    """Yield ``function(task)`` in order, a few tasks ahead on all cores."""
    threads = _free_cores()
    first = list(islice(tasks, 2 * threads))
    if threads == 1 or len(first) <= 1:
        for task in first:
            yield function(task)
        yield from map(function, tasks)
        return
    pool = ThreadPoolExecutor(min(threads, len(first)), thread_name_prefix="dcmdask")
    try:
        pending: deque[Future[Any]] = deque(pool.submit(function, task) for task in first)
        while pending:
            yield pending.popleft().result()
            for task in islice(tasks, 1):
                pending.append(pool.submit(function, task))
    finally:
        # Also when the consumer stops early or is interrupted.
        pool.shutdown(wait=True, cancel_futures=True)


def _free_cores() -> int:
    """Return the number of threads to decode in: one if the caller is one of many."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or multiprocessing.parent_process() is not None:
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fill(
    ds_out: Dataset | None, src: Any, instance: Instance, specific_tags: list[int] | None
) -> None:
    """Update `ds_out` with the elements that pydicom's functions put into it."""
    if ds_out is None or isinstance(src, Dataset):
        return
    header = read_whole_header(instance.source, instance.pixels.transfer_syntax)
    tables = EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS
    wanted = {SPECIFIC_CHARACTER_SET, *tables, *(specific_tags or ())}
    ds_out.file_meta = header.file_meta
    ds_out.set_original_encoding(*header.original_encoding)
    for tag in sorted(header.keys()):
        current = tag.group == 0x0028 and dictionary_has_tag(tag) and not dictionary_is_retired(tag)
        if current or tag in wanted:
            ds_out[tag] = header.get_item(tag)
