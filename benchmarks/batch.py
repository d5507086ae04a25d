"""Jobs over series: beside bare loops; what the driver takes for a series; 20 000 of them.

    python benchmarks/batch.py [--repeats 3] [--series 16] [--frames 100] [--many 20000]

The bare loops are the limit: two processes, each with half of the files, that know where each
frame is, decode it with the codec alone and add it up. dcmdask has two workers of one thread, scans
the folder, writes records, thumbnails and the table. Rounds run both and alternate in order; ratios
are taken within a round. The job without work shows what is left: nothing is decoded.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from competitors import decoder, frame_spans
from distributed.protocol import pickle
from inputs import CASES, FOLDER, make
from machine import describe_machine, most_memory, table
from pydicom import dcmread, dcmwrite

import dcmdask
from dcmdask import batch
from dcmdask.batch.outcome import Progress
from dcmdask.store.scheduler import cluster

# Part of the bare loops' speed; milliseconds of the driver for a series; memory, and seconds to
# start again.
BAR, OVERHEAD_BAR, MEMORY_BAR, AGAIN_BAR = 0.9, 5.0, 1.1, 10.0
WORKERS = 2
CASE = {case.name: case for case in CASES}
# Frames of a series in units of --frames, so that both take about as long.
NAMES = {"12-bit JPEG 2000": 1, "RGB tiles JPEG": 30}
SIDE = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--series", type=int, default=16, help="with frames (%(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="of each (%(default)s)")
    parser.add_argument("--many", type=int, default=20_000, help="small series (%(default)s)")
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.of:
        print(json.dumps(alone(*options.of)))
        return
    print(describe_machine(), end="\n\n")
    print(throughput(options.folder, options.series, options.frames, options.repeats), end="\n\n")
    print(many(options.folder, options.many))


# Beside bare loops


def mean_of(series: dcmdask.Series) -> dict[str, Any]:
    """Return the mean of all samples."""
    return {"mean": series.to_dask().mean(dtype="f8")}


def bare_mean_of(path: str) -> float:
    """Return the same, without any check."""
    header, spans = dcmread(path, stop_before_pixels=True), frame_spans(path)
    read_frame = decoder(header)
    color = [3] if header.SamplesPerPixel == 3 else []
    dtype = "u1" if header.BitsAllocated == 8 else "u2"
    frame = np.empty((header.Rows, header.Columns, *color), dtype)
    file, total = os.open(path, os.O_RDONLY), 0.0
    for span in spans:
        read_frame(file, *span, frame)
        total += float(frame.sum(dtype="f8"))
    os.close(file)
    return total / len(spans) / frame.size


def bare_loop(paths: list[str]) -> list[float]:
    """Go through some files, one after the other."""
    return [bare_mean_of(path) for path in paths]


def throughput(folder: Path, count: int, frames: int, repeats: int) -> str:
    """Return how long both take, and how near the one is to the other."""
    rows = []
    # Workers know nothing of this file.
    pickle.cloudpickle.register_pickle_by_value(sys.modules[mean_of.__module__])
    with (
        multiprocessing.get_context("spawn").Pool(WORKERS) as pool,
        cluster(None, WORKERS, 1) as client,
        tempfile.TemporaryDirectory(dir=folder.parent) as target,
    ):
        for name, longer in NAMES.items():
            paths = archive(folder, name, count, longer * frames)
            halves = [paths[start::WORKERS] for start in range(WORKERS)]
            taken: dict[str, list[float]] = {"dcmdask": [], "bare loops": []}
            found: dict[str, list[float]] = {}
            # The first round warms everything up.
            for number in range(repeats + 1):
                for way in list(taken)[:: 1 if number % 2 else -1]:
                    started = time.perf_counter()
                    if way == "dcmdask":
                        place = Path(target) / f"{longer}-{number}"
                        report = batch.run(mean_of, Path(paths[0]).parent, place, client=client)
                        taken[way].append(time.perf_counter() - started)
                        assert report.ok and report.processed == count, report
                        found[way] = list(report.to_frame()["mean"])
                    else:
                        means = pool.map(bare_loop, halves, chunksize=1)
                        taken[way].append(time.perf_counter() - started)
                        found[way] = [one for some in means for one in some]
            assert np.allclose(sorted(found["dcmdask"]), sorted(found["bare loops"]))
            ours, theirs = (times[1:] for times in taken.values())
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            seconds = [f"{statistics.median(one):.2f}" for one in (ours, theirs)]
            reached = "yes" if ratio >= BAR else "no"
            rows.append([name, *seconds, f"{ratio:.2f}", f"{BAR:g}", reached])
    heads = ["", "dcmdask, s", "bare loops, s", "of the bare loops' speed", "bar", "reached"]
    return f"{count} series on {WORKERS} workers: median\n\n" + table(heads, rows)


def archive(folder: Path, name: str, count: int, frames: int) -> list[str]:
    """Return files of a folder, each with a series of its own."""
    source = make(CASE[name], folder, frames)
    place = folder / f"{source.stem}-{count}-series"
    paths = [place / f"{number:03}.dcm" for number in range(count)]
    if not paths[-1].exists():
        place.mkdir(exist_ok=True)
        dataset = dcmread(source)
        for number, path in enumerate(paths):
            rename(dataset, number)
            dcmwrite(path, dataset)
    return list(map(str, paths))


def rename(dataset: Any, number: int) -> None:
    """Give a data set UIDs of its own, of the same length for each number."""
    dataset.SeriesInstanceUID = f"2.25.{10**12 + number}"
    dataset.SOPInstanceUID = f"2.25.{2 * 10**12 + number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


# Many small ones


def nothing(series: dcmdask.Series) -> dict[str, int]:
    """Decode nothing."""
    return {"files": len(series)}


def many(folder: Path, most: int) -> str:
    """Return what the driver takes for few and for many series, and to start again."""
    counts = (max(2, most // 20), most)
    told = {count: measured(folder, count) for count in counts}
    rows = []
    for count, one in told.items():
        cells = [one["wall"], one["processor"]]
        cells += [one["memory"] / 2**20, one["scan"] / 2**20, one["again"]]
        rows.append([f"{count} series", *(f"{cell:.3g}" for cell in cells)])
    heads = ["", "ms a series", "ms of the driver", "memory, MiB", "of it the scan", "again, s"]
    few, most_of_all = told.values()
    bars = [
        ["driver and scheduler, ms of a core a series", most_of_all["processor"], OVERHEAD_BAR],
        [
            f"memory, {counts[1]} beside {counts[0]} series",
            most_of_all["memory"] / few["memory"],
            MEMORY_BAR,
        ],
        [
            "the same without the scan",
            (most_of_all["memory"] - most_of_all["scan"]) / (few["memory"] - few["scan"]),
            MEMORY_BAR,
        ],
        ["to start again, s", most_of_all["again"], AGAIN_BAR],
    ]
    reached = [
        [name, f"{value:.3g}", f"{bar:g}", "yes" if value <= bar else "no"]
        for name, value, bar in bars
    ]
    text = "Series of one file, a job that decodes nothing, two workers\n\n" + table(heads, rows)
    return text + "\n\n" + table(["", "is", "bar", "reached"], reached)


def measured(folder: Path, count: int) -> dict[str, float]:
    """Return what a process says that runs the job, and starts it again."""
    source = small(folder, count)
    with tempfile.TemporaryDirectory(dir=folder.parent) as target:
        command = [sys.executable, __file__, "--of", str(source), f"{target}/out"]
        first, second = (
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(2)
        )
    return {**first, "again": second["seconds"]}


def small(folder: Path, count: int) -> Path:
    """Return a folder of series of one small file each."""
    whole = folder / f"small-{count}-series"
    if not whole.exists():
        place = whole.with_name(f"{whole.name}.partial")
        shutil.rmtree(place, ignore_errors=True)
        dataset = dcmread(make(CASE["12-bit native"], folder, 1))
        dataset.Rows = dataset.Columns = SIDE
        dataset.NumberOfFrames = 1
        dataset.PixelData = bytes(2 * SIDE * SIDE)
        for number in range(count):
            rename(dataset, number)
            path = place / f"{number // 500:03}" / f"{number:05}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            dcmwrite(path, dataset)
        place.rename(whole)
    return whole


def alone(source: str, target: str) -> dict[str, float]:
    """Run the job in this process, and return milliseconds for a series, seconds and bytes."""
    started, resumed = time.perf_counter(), Path(target).exists()
    if resumed:
        report = batch.run(nothing, source, target, thumbnails=False)
        assert report.ok and not report.processed, report
        return {"seconds": time.perf_counter() - started}
    # Time, time of this process and memory, once the scan is through.
    marks: list[tuple[float, float, int]] = []

    def mark(now: Progress) -> None:
        if now.total and not marks:
            marks.append((time.perf_counter(), time.process_time(), most_memory()))

    with cluster(None, WORKERS, 1) as client:
        before = most_memory()
        report = batch.run(nothing, source, target, client=client, thumbnails=False, progress=mark)
        ((wall, processor, scanned),) = marks
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    assert report.ok and report.processed, report
    return {
        "wall": 1000 * wall / report.processed,
        "processor": 1000 * processor / report.processed,
        "memory": most_memory(),
        "scan": scanned - before,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
