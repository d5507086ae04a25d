"""Competitors: each decodes every frame of one file, by all means that it has.

A competitor is a function of a path that gets ready and returns a function without
arguments, which is what is timed. Imports are inside, so that each competitor's process
holds what it needs and nothing else.
"""

from __future__ import annotations

import importlib.util
import math
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydicom import dcmread
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

Pass = Callable[[], object]
PROBED_FRAMES = 8
# Limit of `chunks="auto"` by default: a quarter of Dask's array.chunk-size.
CHUNK_BYTES = 32 * 2**20


def dcmdask(path: str) -> Pass:
    """The threaded scheduler; opening included; each chunk is decoded and one pixel kept."""
    import dask

    import dcmdask as library

    def run() -> object:
        x = library.from_dicom(path)
        with dask.config.set(scheduler="threads"):
            return x.map_blocks(lambda b: b[:, :1, :1].copy()).compute()

    return run


# pydicom


def iter_pixels(path: str, plugin: str = "") -> Pass:
    """pydicom with every plugin installed, which takes the first that works."""
    from pydicom.pixels import iter_pixels as frames_of

    def run() -> None:
        for _ in frames_of(path, decoding_plugin=plugin):
            pass

    return run


def fastest_plugin(path: str) -> Pass:
    """pydicom with the plugin that is fastest over the first few frames."""
    return iter_pixels(path, probe(path))


def probe(path: str) -> str:
    """Return the plugin of pydicom's that is fastest over the first few frames."""
    from pydicom.pixels import get_decoder
    from pydicom.pixels import iter_pixels as frames_of

    syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return ""
    taken = {}
    for plugin in get_decoder(syntax).available_plugins:
        try:
            for _ in frames_of(path, indices=[0], decoding_plugin=plugin):
                pass
            started = time.perf_counter()
            for _ in frames_of(path, indices=range(PROBED_FRAMES), decoding_plugin=plugin):
                pass
        except Exception:
            continue  # a plugin that does not decode the file is no competitor
        taken[plugin] = time.perf_counter() - started
    return min(taken, key=taken.__getitem__)


def gdcm_threads(path: str) -> Pass:
    """pydicom with gdcm in a thread per core; its OpenJPEG also takes all cores by itself."""
    from pydicom.pixels import iter_pixels as frames_of

    frames, cores = _count(path), _cores()

    def part(first: int) -> None:
        for _ in frames_of(path, indices=range(first, frames, cores), decoding_plugin="gdcm"):
            pass

    def run() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(part, range(min(cores, frames))))

    return run


# Others


def simpleitk(path: str) -> Pass:
    """SimpleITK reads whole files, into one image."""
    import SimpleITK

    return lambda: SimpleITK.ReadImage(path)


def highdicom(path: str) -> Pass:
    """highdicom's lazy frames, one after the other; opening included."""
    import logging

    import highdicom as library

    # It would say for each file that there is no ICC profile.
    logging.getLogger("highdicom").setLevel(logging.ERROR)
    frames = _count(path)

    def run() -> None:
        image = library.imread(path, lazy_frame_retrieval=True)
        for number in range(1, frames + 1):
            image.get_stored_frame(number)

    return run


# The limit


def bare_loop(path: str, room: int = 0) -> Pass:
    """Read, decode, shift; nothing else.

    The file is open and the spans are known. One thread per core; whoever is free takes the
    next frame. Each thread has one frame that every codec call fills again, so that what is
    decoded never leaves the processor's cache; with `room` it has so many bytes for frames,
    as a task must have that hands over a chunk.
    """
    header = dcmread(path, stop_before_pixels=True)
    spans = frame_spans(path)
    cores = _cores()

    def work(numbers) -> None:
        read_frame = decoder(header)
        frames = places(header, room)
        for turn, number in enumerate(numbers):
            read_frame(file, *spans[number], frames[turn % len(frames)])

    file = os.open(path, os.O_RDONLY)

    def run() -> None:
        numbers = iter(range(len(spans)))
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(work, [numbers] * cores))

    return run


def places(header, room: int):
    """Return an array of one frame, or of as many as `room` bytes hold."""
    import numpy as np

    dtype = np.dtype("u1" if header.BitsAllocated == 8 else "u2")
    shape = (header.Rows, header.Columns, 3)[: 3 if header.SamplesPerPixel == 3 else 2]
    each = math.prod(shape) * dtype.itemsize
    count = max(1, room // each)
    # libjpeg-turbo writes past the cache into rows that start at a multiple of 32 bytes, which
    # takes a fifth longer; these start in the middle between two.
    space = np.empty(count * each + 32, np.uint8)
    start = (16 - space.ctypes.data) % 32
    return space[start : start + count * each].view(dtype).reshape(count, *shape)


def decoder(header) -> Callable[..., None]:
    """Return a function (file, offset, length, frame) that fills `frame`."""
    import imagecodecs
    import numpy as np

    syntax, color = header.file_meta.TransferSyntaxUID, header.SamplesPerPixel == 3
    unused = header.BitsAllocated - header.BitsStored
    name = "u1" if header.BitsAllocated == 8 else "u2"

    def shift(frame) -> None:
        """Drop unused bits as pydicom does by default: to the left and back."""
        np.left_shift(frame, unused, out=frame)
        np.right_shift(frame, unused, out=frame)

    def native(file: int, offset: int, length: int, frame) -> None:
        os.preadv(file, [frame], offset)
        if unused:
            shift(frame)

    def rle(file: int, offset: int, length: int, frame) -> None:
        target = memoryview(planes if color else frame).cast("B")
        imagecodecs.dicomrle_decode(os.pread(file, length, offset), name, out=target)
        if unused:
            shift(frame)
        if color:
            for sample, plane in enumerate(planes):
                frame[..., sample] = plane

    def codec(function: Callable[..., object]) -> Callable[..., None]:
        return lambda file, offset, length, frame: function(
            os.pread(file, length, offset), out=frame
        )

    planes = np.empty((3, header.Rows, header.Columns), name)
    jpeg = partial(imagecodecs.jpeg8_decode, colorspace="YCBCR", outcolorspace="RGB")
    lossless = partial(imagecodecs.jpeg8_decode, colorspace="RGB", outcolorspace="RGB")
    # The lossless codestreams hold no more bits than are stored: there is nothing to shift.
    # HTJ2K as dcmdask reads it; imagecodecs' own codec for it returns garbage where it fails.
    jpeg2000 = partial(imagecodecs.jpeg2k_decode, numthreads=1)
    functions = {
        JPEGBaseline8Bit: jpeg if color else imagecodecs.jpeg8_decode,
        JPEGLosslessSV1: lossless if color else imagecodecs.jpeg8_decode,
        JPEGLSLossless: imagecodecs.jpegls_decode,
        JPEG2000Lossless: jpeg2000,
        HTJ2KLossless: jpeg2000,
    }
    if not syntax.is_encapsulated:
        return native
    return rle if syntax == RLELossless else codec(functions[syntax])


def frame_spans(path: str) -> list[tuple[int, int]]:
    """Return offset and length of each frame's bytes; a fragment holds one frame."""
    with open(path, "rb") as file:
        header = dcmread(file, stop_before_pixels=True)
        position = file.tell() + 12  # tag, VR, two bytes, length
        if not header.file_meta.TransferSyntaxUID.is_encapsulated:
            length = header.Rows * header.Columns * header.SamplesPerPixel
            length *= header.BitsAllocated // 8
            return [(position + i * length, length) for i in range(header.NumberOfFrames)]
        spans = []
        while True:
            file.seek(position)
            tag, length = struct.unpack("<4sL", file.read(8))
            if tag != b"\xfe\xff\x00\xe0":
                return spans[1:]  # the first item is the Basic Offset Table
            spans.append((position + 8, length))
            position += 8 + length


def _count(path: str) -> int:
    return int(dcmread(path, stop_before_pixels=True).NumberOfFrames)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# In the order of the printed table, each with the package that it needs.
COMPETITORS: dict[str, tuple[Callable[[str], Pass], str]] = {
    "iter_pixels": (iter_pixels, "pydicom"),
    "iter_pixels, fastest plugin": (fastest_plugin, "pydicom"),
    "iter_pixels, pylibjpeg": (partial(iter_pixels, plugin="pylibjpeg"), "openjpeg"),
    "gdcm, threads": (gdcm_threads, "gdcm"),
    "SimpleITK": (simpleitk, "SimpleITK"),
    "highdicom": (highdicom, "highdicom"),
    "bare loop": (bare_loop, "imagecodecs"),
    "bare loop, chunks": (partial(bare_loop, room=CHUNK_BYTES), "imagecodecs"),
    "dcmdask": (dcmdask, "dcmdask"),
}
# Only a limit to hold JPEG 2000 against.
ONLY_JPEG_2000 = ("iter_pixels, pylibjpeg", "gdcm, threads")


def installed() -> list[str]:
    """Return the names of the competitors whose package is there."""
    return [name for name, (_, package) in COMPETITORS.items() if importlib.util.find_spec(package)]


_ready: dict[tuple[str, str], Pass] = {}


def time_once(name: str, path: str) -> float:
    """Return the seconds that the competitor takes for all frames of the file.

    Getting ready is not timed.
    """
    if (name, path) not in _ready:
        _ready[name, path] = COMPETITORS[name][0](path)
    run = _ready[name, path]
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
