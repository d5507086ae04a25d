"""Measure what dcmdask takes beside reading and decoding, and print tables.

    python benchmarks/overhead.py [--most 1000]

Frames are 16 x 16 pixels of 8 bits, so that decoding takes next to nothing. One thread
throughout: what two threads save would hide what there is.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from competitors import decoder, frame_spans, places
from inputs import FOLDER, NATIVE, make_tiny
from machine import describe_machine, table
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit, RLELossless

import dcmdask
from dcmdask.dicom.offsets import ItemSpans
from dcmdask.pixels.frame_array import FrameArray

COUNTS = (10, 100, 1_000, 10_000, 100_000)
KINDS = (
    ("native", NATIVE, True),
    ("RLE, table", RLELossless, True),
    ("RLE, no table", RLELossless, False),
    ("JPEG, table", JPEGBaseline8Bit, True),
    ("JPEG, no table", JPEGBaseline8Bit, False),
)
GROUPS = 5_000
FRAME_BAR = 0.05
IMPORT = "import dcmdask"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--most", type=int, default=10**6, help="frames at most (%(default)s)")
    options = parser.parse_args(arguments)
    print(describe_machine(), end="\n\n")
    print(per_frame(options.folder, options.most), end="\n\n")
    print(single(options.folder, options.most))


def per_frame(folder: Path, most: int) -> str:
    """Return what a frame takes beside reading and decoding, by number of frames."""
    rows = []
    for name, syntax, offsets in KINDS:
        for count in COUNTS:
            if count <= most:
                path = make_tiny(syntax, count, offsets, folder=folder)
                rows.append(_row(name, str(path), count))
    path = make_tiny(RLELossless, min(GROUPS, most), False, groups=True, folder=folder)
    rows.append(_row("RLE, no table, functional groups", str(path), min(GROUPS, most)))
    heads = ["", "frames", "bare", "frames[:]", "reached", "opening, ms", "Dask", "reached"]
    return (
        f"Microseconds per frame; the bar is {1e3 * FRAME_BAR:g}. bare: reading and decoding\n"
        "alone. frames[:]: what that takes beyond bare, the file being open. Dask: what\n"
        "from_dicom(path).map_blocks(...).compute() takes beyond bare, opening included.\n\n"
    ) + table(heads, rows)


def _row(name: str, path: str, count: int) -> list[str]:
    spans = frame_spans(path)
    header = dcmread(path, stop_before_pixels=True)
    read, (frame,) = decoder(header), places(header, 0)
    file = os.open(path, os.O_RDONLY)

    def bare() -> None:
        for span in spans:
            read(file, *span, frame)

    def dask() -> None:
        x = dcmdask.from_dicom(path)
        x.map_blocks(lambda b: b[:, :1, :1].copy()).compute(scheduler="synchronous")

    frames = dcmdask.open_frames(path)
    open_seconds = seconds(lambda: dcmdask.open_frames(path))
    limit = seconds(bare)
    array = seconds(lambda: frames[:]) - limit
    whole = seconds(dask) - limit
    os.close(file)
    array, whole = 1e6 * array / count, 1e6 * whole / count
    return [
        name,
        str(count),
        f"{1e6 * limit / count:.1f}",
        f"{array:.1f}",
        "yes" if array <= 1e3 * FRAME_BAR else "no",
        f"{1e3 * open_seconds:.2f}",
        f"{whole:.1f}",
        "yes" if whole <= 1e3 * FRAME_BAR else "no",
    ]


def seconds(function: Callable[[], object], least: float = 0.2) -> float:
    """Return the median over at least three calls, more where they are quick."""
    function()
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < least and len(taken) < 50):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def single(folder: Path, most: int) -> str:
    """Return what happens once for each file or process."""
    rows = []

    def add(what: str, value: float, unit: str, bar: float | None) -> None:
        reached = "" if bar is None else "yes" if value <= bar else "no"
        rows.append(
            [what, f"{value:.3g} {unit}", "" if bar is None else f"{bar:.3g} {unit}", reached]
        )

    many = min(10**6, most)
    frames = without_file(folder, many)
    add(f"lazy array of {many} frames", seconds(lambda: dcmdask.from_dicom(frames)), "s", 0.2)
    x = dcmdask.from_dicom(frames)
    add(f"graph of {many} frames, pickled", len(pickle.dumps(x)) / 1e6, "MB", 5)
    add(f"x[i].compute() of {many} frames, one decoded", one_of(x), "ms", None)
    fragments = min(10**5, most)
    path = make_tiny(RLELossless, fragments, False, folder=folder)
    add(f"{fragments} fragments indexed", seconds(lambda: dcmdask.open_frames(path)), "s", 0.3)
    for count in (1, min(5_000, most)):
        path = make_tiny(JPEGBaseline8Bit, count, True, folder=folder)
        took = 1e3 * seconds(lambda path=path: dcmdask.open_frames(path))
        add(f"open_frames, {count} JPEG frames", took, "ms", None)
    add(IMPORT, process(IMPORT), "s", 0.3)
    add("the same process without it", process("pass"), "s", None)
    pydicom = process("import pydicom")
    add("import pydicom", pydicom, "s", None)
    for name in ("info", "scan"):
        add(f"dcmdask {name} FILE", command(name, path), "s", 2 * pydicom)
    add("dcmdask --help", command("--help"), "s", 2 * pydicom)
    return table(["once", "takes", "bar", "reached"], rows)


def without_file(folder: Path, count: int) -> FrameArray:
    """Return the frames of a small file, as if there were `count` of them.

    Spans lie one behind the other as in a file; those of the small file come first, so
    that its frames decode.
    """
    few = dcmdask.open_frames(make_tiny(RLELossless, 10, False, folder=folder))
    # An index is public behaviour, its parts are not: there is no file of this size to open.
    instance = few._instance
    assert isinstance(instance.spans, ItemSpans)
    rng = np.random.default_rng(0)
    lengths = 8 + 2 * rng.integers(5_000, 20_000, count)
    lengths[:10] = instance.spans.lengths[:10]
    starts = instance.spans.offsets[0] + np.cumsum(lengths) - lengths
    return FrameArray(replace(instance, spans=ItemSpans(starts, lengths)), few._how)


def one_of(x) -> float:
    """Return the milliseconds for one frame; with 10 frames in the file, one has to do."""
    decoded = []

    def compute() -> None:
        decoded.append(x[7].compute(scheduler="synchronous").shape)

    took = 1e3 * seconds(compute)
    assert set(decoded) == {(16, 16)}  # frames beyond the tenth do not exist: none was touched
    return took


def command(*arguments: str) -> float:
    """Return the seconds that the command takes as a process of its own."""
    line = [sys.executable, "-m", "dcmdask", *arguments]
    return seconds(lambda: subprocess.run(line, check=True, stdout=subprocess.DEVNULL), 3)


def process(statement: str) -> float:
    """Return the seconds that a new interpreter takes for a statement."""
    return seconds(lambda: subprocess.run([sys.executable, "-c", statement], check=True), 3)


if __name__ == "__main__":
    main()
