"""Export files to Zarr with dcmdask, with Dask's own writer and by a bare loop; pyramids; memory.

    python benchmarks/exporting.py [--repeats 5] [--frames 5000] [--files 500] [--most 10000]

The bare loop is the limit: it knows where each frame is, decodes it with the codec alone, and
writes the same chunks and shards with the same compressor, a region at a time on a thread per
core. Dask's writer gets an array of one chunk per shard, which is where it is correct. Rounds run
everyone once, in this process, and alternate in direction; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import zarr
from competitors import decoder, frame_spans
from inputs import CASES, FOLDER, make
from machine import describe_machine, most_memory, table
from pydicom import dcmread
from volumes import make as make_volume

import dcmdask
from dcmdask.store.export import Prepared, prepare

# Part of the bare loop's speed, and the time of five levels beside one.
BARS = {"12-bit JPEG 2000": 0.9, "12-bit native": 0.8, "RGB tiles JPEG": 0.8}
LEVEL_BARS = {"12-bit JPEG 2000": 1.15, "12-bit native": 1.7}
MEMORY_BAR = 1.1
LEVELS = 5
CASE = {case.name: case for case in CASES}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    parser.add_argument("--frames", type=int, default=5000, help="of a file at most (%(default)s)")
    parser.add_argument("--files", type=int, default=500, help="of a series (%(default)s)")
    parser.add_argument("--most", type=int, default=10_000, help="frames for memory (%(default)s)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        print(peak(options.memory_of))
        return
    print(describe_machine(), end="\n\n")
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as target:
        store = Path(target) / "a.zarr"
        print(speeds(options.folder, store, options.frames, options.repeats), end="\n\n")
        print(pyramids(options.folder, store, options.frames, options.repeats), end="\n\n")
        print(series(options.folder, store, options.files, options.repeats), end="\n\n")
    print(memory(options.folder, options.most))


# Speed


def speeds(folder: Path, store: Path, frames: int, repeats: int) -> str:
    """Return how long files take, and how near to the bare loop that is."""
    rows = []
    for name, bar in BARS.items():
        path = str(make(CASE[name], folder, frames))
        prepared = prepare(path)
        ways = {
            "dcmdask": lambda path=path: dcmdask.to_zarr(path, store),
            "bare loop": bare_loop(path, prepared, store),
            "dask": dask_writer(path, prepared, store),
        }
        taken = rounds(ways, store, repeats)
        ratio = ratio_of(taken["bare loop"], taken["dcmdask"])
        seconds = [f"{statistics.median(taken[way]):.2f}" for way in ways]
        reached = "yes" if ratio >= bar else "no"
        count = str(prepared.plan.levels[0].shape[0])
        rows.append([name, count, *seconds, f"{ratio:.2f}", f"{bar:g}", reached])
    heads = ["", "frames", "dcmdask, s", "bare loop, s", "Dask's writer, s"]
    return "Files to Zarr: median\n\n" + table(
        [*heads, "of the bare loop's speed", "bar", "reached"], rows
    )


def _created(prepared: Prepared, store: Path) -> zarr.Array:
    ((name, made),) = prepared.arrays()
    group = zarr.create_group(store)
    return group.create_array(name, **made, config={"write_empty_chunks": True})


def bare_loop(path: str, prepared: Prepared, store: Path) -> Callable[[], None]:
    """The file is open and the spans are known; a thread per core takes region after region."""
    header, spans, plan = dcmread(path, stop_before_pixels=True), frame_spans(path), prepared.plan
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    file = os.open(path, os.O_RDONLY)

    def run() -> None:
        array = _created(prepared, store)

        def write(number: int) -> None:
            read_frame = decoder(header)
            region = plan.region(0, number)
            block = np.empty([one.stop - one.start for one in region], plan.dtype)
            for place, frame in enumerate(range(region[0].start, region[0].stop)):
                read_frame(file, *spans[frame], block[place])
            array[region] = block

        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(write, range(plan.count(0))))

    return run


def dask_writer(path: str, prepared: Prepared, store: Path) -> Callable[[], None]:
    """`dask.array.to_zarr` into the same chunks and shards, aligned by hand."""

    def run() -> None:
        x = dcmdask.from_dicom(path, chunks=prepared.plan.unit(0)[0])
        ((name, made),) = prepared.arrays()
        layout = {key: made[key] for key in ("shards", "compressors") if made[key] is not None}
        x.to_zarr(str(store), component=name, chunks=made["chunks"], **layout)

    return run


def rounds(
    ways: dict[str, Callable[[], object]], store: Path, repeats: int
) -> dict[str, list[float]]:
    """Return the seconds of each way in each round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            shutil.rmtree(store, ignore_errors=True)
            # So that nothing of one is written out on the other's time.
            os.sync()
            started = time.perf_counter()
            ways[name]()
            taken[name].append(time.perf_counter() - started)
    return taken


def ratio_of(others: list[float], ours: list[float]) -> float:
    """Return the median over rounds of how many times as long others take."""
    return statistics.median(theirs / own for theirs, own in zip(others, ours, strict=True))


# Pyramids


def pyramids(folder: Path, store: Path, frames: int, repeats: int) -> str:
    """Return what five levels cost beside one."""
    rows = []
    for name, bar in LEVEL_BARS.items():
        path = str(make(CASE[name], folder, frames))
        ways = {
            count: lambda path=path, count=count: dcmdask.to_zarr(
                path, store, format="ome-zarr", levels=count
            )
            for count in (1, LEVELS)
        }
        taken = rounds(ways, store, repeats)
        ratio = ratio_of(taken[LEVELS], taken[1])
        seconds = [f"{statistics.median(taken[count]):.2f}" for count in ways]
        rows.append([name, *seconds, f"{ratio:.2f}", f"{bar:g}", "yes" if ratio <= bar else "no"])
    heads = ["", "1 level, s", f"{LEVELS} levels, s", "times as long", "bar", "reached"]
    return "OME-Zarr: median\n\n" + table(heads, rows)


def series(folder: Path, store: Path, files: int, repeats: int) -> str:
    """Return how long a series takes from files to OME-Zarr, as whole processes."""
    source = make_volume(folder, "native", files)
    listed = in_order(source)
    commands = {
        "dcmdask export": [
            *(sys.executable, "-m", "dcmdask", "export", str(source), str(store)),
            *("--format", "ome-zarr", "--levels", str(LEVELS)),
        ],
        "ngff-zarr": [
            *(sys.executable, "-m", "ngff_zarr.cli", "-q", "--input-backend", "itk"),
            *("-i", *map(str, listed), "-o", str(store), "-m", "dask_bin_shrink"),
        ],
    }
    if any(importlib.util.find_spec(name) is None for name in ("ngff_zarr", "itk", "dask_image")):
        del commands["ngff-zarr"]
    ways = {
        name: lambda command=command: subprocess.run(command, check=True, capture_output=True)
        for name, command in commands.items()
    }
    taken = rounds(ways, store, min(repeats, 3))
    rows = [[name, f"{statistics.median(times):.2f}"] for name, times in taken.items()]
    return f"{files} files to OME-Zarr, the whole process: median\n\n" + table(["", "s"], rows)


def in_order(source: Path) -> list[Path]:
    """Return links to the files of a series in order of position, with the suffix `.dcm`.

    The other command takes files in the order given, and by suffix.
    """
    beside = source.with_name(source.name + "-links")
    beside.mkdir(exist_ok=True)
    found = []
    for path in source.iterdir():
        number = dcmread(path, specific_tags=["InstanceNumber"], force=True).InstanceNumber
        link = beside / f"{number:06}.dcm"
        if not link.is_symlink():
            link.symlink_to(path)
        found.append(link)
    return sorted(found)


# Memory


def memory(folder: Path, most: int) -> str:
    """Return the peak memory of processes that export 1 000 and more frames."""
    rows = []
    for name in ("RGB tiles JPEG", "RGB tiles native"):
        peaks = {}
        for count in (max(2, most // 10), most):
            case = CASE[name]
            path = repeated(make(case, folder, min(case.frames, count)), count)
            command = [sys.executable, __file__, "--memory-of", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[count] = int(done.stdout)
        few, many = peaks.values()
        reached = "yes" if many <= MEMORY_BAR * few else "no"
        cells = [f"{few / 2**20:.0f}", f"{many / 2**20:.0f}", f"{many / few:.3f}"]
        rows.append([name, *cells, f"{MEMORY_BAR:g}", reached])
    heads = ["", f"{max(2, most // 10)} frames, MiB", f"{most} frames, MiB", "times", "bar"]
    return "Peak memory of a process that exports\n\n" + table([*heads, "reached"], rows)


def repeated(path: Path, count: int) -> Path:
    """Return a file of `count` frames, made of those of a file with no more."""
    header = dcmread(path, stop_before_pixels=True)
    if header.NumberOfFrames == count:
        return path
    target = path.with_name(f"{path.stem}-repeated-{count}.dcm")
    if not target.exists():
        frames = dcmdask.open_frames(path)
        from inputs import describe, write

        color = header.SamplesPerPixel == 3
        shape = (header.Rows, header.Columns, *([3] if color else []))
        syntax = header.file_meta.TransferSyntaxUID
        encoded = (frames.encoded(i % len(frames)) for i in range(count))
        if syntax.is_encapsulated:
            # Without the item header, which is written anew.
            encoded = (bytes(one[8:]) for one in encoded)
        write(target, describe(syntax, shape, count, header.BitsStored), encoded, count, True)
    return target


def peak(path: str) -> int:
    """Export in this process, and return the most memory that it took, in bytes."""
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as target:
        dcmdask.to_zarr(path, Path(target) / "a.zarr", shards=32, chunks=1)
    return most_memory()


if __name__ == "__main__":
    main(sys.argv[1:])
