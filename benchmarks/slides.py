"""Whole slides beside wsidicom, highdicom and OpenSlide, and beside the bare loop.

    python benchmarks/slides.py [--only "JPEG 2000"] [--most 2000] [--peer-tiles 2000] [--repeats 3]

The slides are one level of 256 x 256 RGB tiles in TILED_FULL order. Each competitor has its own
process, and waits while another one runs; files are in the page cache. Rounds alternate in
direction, and ratios are taken within a round.

- Full pass: dcmdask computes `open_slide(path).levels[0].to_dask()` and keeps one pixel of each
  chunk, opening included; the bare loop decodes spans that it knows into one tile for each of two
  threads. Peers read some rows of tiles, each time others, 4 x 4 at a time, opened before by each
  thread for itself.
- Regions: 512 x 512 pixels at random places, by one thread and by two.
- Opening and the first region: in a process that has imported what it needs.
- Export without decoding: beside the same bytes in one file for each tile.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from competitors import decoder, frame_spans, places
from inputs import FOLDER, SEED
from machine import describe_machine, most_memory, table
from pydicom import dcmread
from slide_inputs import CASES, TILE, Case, Size, make, size_of

REGION, THREADS = 512, 2
AGAINST_BARE_LOOP, AGAINST_PEERS, AGAINST_COPY = 0.9, 3.0, 0.7
# Seconds of opening and the first region, by the number of tiles.
OPENING = {20_000: 0.5, 200_000: 3.0}
# Tiles of a slide that is exported: each is a file.
MOST_EXPORTED = 20_000


class Question(NamedTuple):
    """What a competitor is to do with a slide in one round."""

    path: str
    size: Size
    threads: int
    peer_tiles: int
    regions: int
    turn: int = 0
    """Number of the question: others are asked for, since peers keep decoded tiles."""


# Competitors: a function of a path that opens it and returns one of x, y, width and height.

Region = Callable[[int, int, int, int], np.ndarray]


def dcmdask(path: str) -> Region:
    """`Slide.read_region`."""
    import dcmdask as library

    slide = library.open_slide(path)
    return lambda x, y, width, height: slide.read_region((x, y), 0, (width, height))


def wsidicom(path: str) -> Region:
    """`WsiDicom.read_region`, as an array."""
    import wsidicom as library

    slide = library.WsiDicom.open(path)
    return lambda x, y, width, height: np.asarray(slide.read_region((x, y), 0, (width, height)))


def openslide(path: str) -> Region:
    """`OpenSlide.read_region`, without the alpha that it adds."""
    import openslide as library

    slide = library.OpenSlide(path)
    return lambda x, y, width, height: np.asarray(slide.read_region((x, y), 0, (width, height)))[
        ..., :3
    ]


def highdicom(path: str) -> Region:
    """`Image.get_total_pixel_matrix`, with frames read when they are needed."""
    import logging

    import highdicom as library

    # It would say that there is no ICC profile.
    logging.getLogger("highdicom").setLevel(logging.ERROR)
    image = library.imread(path, lazy_frame_retrieval=True)

    def region(x: int, y: int, width: int, height: int) -> np.ndarray:
        return image.get_total_pixel_matrix(
            row_start=y,
            row_end=y + height,
            column_start=x,
            column_end=x + width,
            as_indices=True,
            apply_icc_profile=False,
        )

    return region


READERS: dict[str, Callable[[str], Region]] = {
    "dcmdask": dcmdask,
    "wsidicom": wsidicom,
    "highdicom": highdicom,
    "OpenSlide": openslide,
}
LOOP = "bare loop"

# Each thread opens a slide itself: highdicom's images are of one thread, and those of others wait
# for one another where they share a file. The threads stay, so that each opens it once.
_threads = [ThreadPoolExecutor(1) for _ in range(THREADS)]
_own = threading.local()


def _reader(name: str, path: str) -> Region:
    """Return a way to read, opened by this thread once."""
    if not hasattr(_own, "opened"):
        _own.opened = {}
    if (name, path) not in _own.opened:
        _own.opened[name, path] = READERS[name](path)
    return _own.opened[name, path]


def _on_threads(call: Callable[[int], Any], threads: int) -> list[Any]:
    """Return what the calls with 0, 1, ... give, each in a thread."""
    calls = [thread.submit(call, n) for n, thread in enumerate(_threads[:threads])]
    return [one.result() for one in calls]


# Measurements, each in the process of a competitor


def centre(name: str, question: Question) -> np.ndarray:
    """Return the region in the middle."""
    return READERS[name](question.path)(*_middle(question.size))


def _middle(size: Size) -> tuple[int, int, int, int]:
    return size.across * TILE // 2 - 100, size.down * TILE // 2 - 50, REGION, REGION


def opening(name: str, question: Question) -> float:
    """Return the seconds of opening and the first region."""
    started = time.perf_counter()
    centre(name, question)
    return time.perf_counter() - started


def latencies(name: str, question: Question) -> list[float]:
    """Return the seconds of each region at a random place."""
    rng = np.random.default_rng([SEED, question.turn])
    most = [TILE * n - REGION for n in (question.size.across, question.size.down)]
    numbers = rng.integers(0, most, (question.regions, 2)).tolist()

    def some(thread: int) -> list[float]:
        read = _reader(name, question.path)
        read(*_middle(question.size))
        taken = []
        for x, y in numbers[thread :: question.threads]:
            started = time.perf_counter()
            read(x, y, REGION, REGION)
            taken.append(time.perf_counter() - started)
        return taken

    return list(itertools.chain(*_on_threads(some, question.threads)))


def full_pass(name: str, question: Question) -> float:
    """Return seconds per tile."""
    if name == LOOP:
        return _loop(question)
    return _by_dask(question) if name == "dcmdask" else _by_rows(name, question)


def _by_dask(question: Question) -> float:
    import dask

    import dcmdask as library

    started = time.perf_counter()
    x = library.open_slide(question.path).levels[0].to_dask()
    with dask.config.set(scheduler="threads", num_workers=question.threads):
        x.map_blocks(lambda block: block[:1, :1].copy()).compute()
    return (time.perf_counter() - started) / math.prod(question.size)


def _by_rows(name: str, question: Question) -> float:
    """Read squares of 4 x 4 tiles, in rows; opening is not timed."""
    side, (down, across) = min(4, *question.size), question.size
    columns = range(0, across - side + 1, side)
    least = -(-question.peer_tiles // (len(columns) * side * side))
    count = max(1, min(least, down // side - 1))
    first = question.turn * count % max(1, down // side - count + 1)
    corners = [(x, y * side) for y in range(first, first + count) for x in columns]

    def warm_up(thread: int) -> None:
        _reader(name, question.path)(0, 0, side * TILE, side * TILE)

    def some(thread: int) -> None:
        read = _reader(name, question.path)
        for x, y in corners[thread :: question.threads]:
            read(x * TILE, y * TILE, side * TILE, side * TILE)

    _on_threads(warm_up, question.threads)
    started = time.perf_counter()
    _on_threads(some, question.threads)
    return (time.perf_counter() - started) / (len(corners) * side * side)


def _loop(question: Question) -> float:
    header = dcmread(question.path, stop_before_pixels=True)
    spans = frame_spans(question.path)
    file = os.open(question.path, os.O_RDONLY)

    def work(numbers: Any) -> None:
        read_frame, (frame,) = decoder(header), places(header, 0)
        for number in numbers:
            read_frame(file, *spans[number], frame)

    numbers = iter(range(len(spans)))
    started = time.perf_counter()
    with ThreadPoolExecutor(question.threads) as pool:
        list(pool.map(work, [numbers] * question.threads))
    taken = time.perf_counter() - started
    os.close(file)
    return taken / len(spans)


def memory(name: str, question: Question) -> int:
    """Return the most memory that this process has had, in bytes."""
    return most_memory()


def kept(name: str, question: Question) -> float:
    """Return the seconds of an export without decoding, or of writing the same bytes."""
    target = Path(question.path).parent.with_suffix(f".{name}.zarr".replace(" ", "-"))
    shutil.rmtree(target, ignore_errors=True)
    spans = frame_spans(question.path) if name == LOOP else []
    os.sync()
    started = time.perf_counter()
    try:
        if name == LOOP:
            _copy(question, spans, target)
        else:
            import dcmdask as library

            library.to_zarr(question.path, target, keep_codec=True)
        os.sync()
        return time.perf_counter() - started
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _copy(question: Question, spans: Sequence[tuple[int, int]], target: Path) -> None:
    """Write each tile as a file, where a Zarr array has its chunk; a folder for each row."""
    file = os.open(question.path, os.O_RDONLY)

    def row(number: int) -> None:
        folder = target / str(number)
        folder.mkdir(parents=True)
        first = number * question.size.across
        for column, (offset, length) in enumerate(spans[first : first + question.size.across]):
            (folder / str(column)).write_bytes(os.pread(file, length, offset))

    with ThreadPoolExecutor(question.threads) as pool:
        list(pool.map(row, range(question.size.down)))
    os.close(file)


# The rounds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--only", default="", help="slides that have this in their name")
    parser.add_argument("--most", type=int, default=200_000, help="tiles, to try things out")
    parser.add_argument(
        "--peer-tiles", type=int, default=2000, help="that peers read in a pass (%(default)s)"
    )
    parser.add_argument("--regions", type=int, default=200, help="at random (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)
    names = [name for name in READERS if importlib.util.find_spec(name.lower())]
    if missing := READERS.keys() - names:
        print("not installed, left out:", ", ".join(sorted(missing)), file=sys.stderr)
    print(describe_machine(), end="\n\n")
    results = {}
    for case in CASES:
        if options.only in case.name:
            count = min(case.tiles, options.most)
            path = make(case, options.folder, count)
            question = Question(
                str(path), size_of(count), THREADS, options.peer_tiles, options.regions
            )
            results[case] = measure(names, question, options.repeats)
            print(case.name, "measured", file=sys.stderr, flush=True)
    print(passes(results, names), end="\n\n")
    print(regions(results, names), end="\n\n")
    print(openings(results, names), end="\n\n")
    print(copies(results))


Taken = Mapping[str, Mapping[str, list[Any]]]


def measure(names: Sequence[str], question: Question, repeats: int) -> Taken:
    """Return what each competitor gave in each round, by measurement and name."""
    context = multiprocessing.get_context("spawn")
    taken: dict[str, dict[str, list[Any]]] = {}

    def ask(what: str, call: Callable[..., Any], some: Sequence[str], how: Question) -> None:
        for name in some:
            found = workers[name].submit(call, name, how).result()
            taken.setdefault(what, {}).setdefault(name, []).append(found)

    with open(question.path, "rb") as file:
        while file.read(2**24):
            pass
    workers = {name: ProcessPoolExecutor(1, mp_context=context) for name in [*names, LOOP]}
    try:
        # Imports; and all see the same picture.
        ask("picture", centre, names, question)
        first, *others = (found[0].astype(int) for found in taken.pop("picture").values())
        for other in others:
            # Other builds of libjpeg, and pydicom's colours, differ by 1.
            np.testing.assert_allclose(other, first, atol=2)
        for number in range(repeats):
            order = [*names, LOOP][:: 1 if number % 2 else -1]
            readers = [name for name in order if name != LOOP]
            ask("opening", opening, readers, question)
            for threads in (1, THREADS):
                some = question._replace(threads=threads, turn=2 * number + threads)
                ask(f"regions {threads}", latencies, readers, some)
                if threads == THREADS or number == 0:
                    ask(f"pass {threads}", full_pass, order, some)
            if math.prod(question.size) <= MOST_EXPORTED:
                pair = [name for name in order if name in ("dcmdask", LOOP)]
                ask("copy", kept, pair, question)
        ask("memory", memory, ["dcmdask"], question)
    finally:
        for worker in workers.values():
            worker.shutdown()
    return taken


# Tables


def ratio(others: Sequence[float], ours: Sequence[float]) -> float:
    """Return the median over rounds of how many times as long others take."""
    return statistics.median(theirs / own for theirs, own in zip(others, ours, strict=True))


def _peers(found: Mapping[str, Any]) -> list[str]:
    return [name for name in found if name not in ("dcmdask", LOOP)]


def _reached(bars: Sequence[tuple[float, float]]) -> str:
    return "yes" if all(value >= bar for value, bar in bars) else "no"


def passes(results: Mapping[Case, Taken], names: Sequence[str]) -> str:
    """Return milliseconds per tile of a full pass."""
    rows = []
    for case, taken in results.items():
        for threads in (1, THREADS):
            found = taken[f"pass {threads}"]
            each = [f"{1e3 * statistics.median(found[name]):.3f}" for name in [*names, LOOP]]
            of_loop = ratio(found[LOOP], found["dcmdask"])
            peers = [ratio(found[name], found["dcmdask"]) for name in _peers(found)]
            bars = [(of_loop, AGAINST_BARE_LOOP), (min(peers, default=math.inf), AGAINST_PEERS)]
            row = [case.name, str(threads), *each, f"{of_loop:.2f}"]
            row.append(f"{min(peers):.1f}" if peers else "")
            memory = f"{taken['memory']['dcmdask'][0] / 2**20:.0f}"
            rows.append([*row, *((_reached(bars), memory) if threads == THREADS else ("", ""))])
    heads = ["", "threads", *names, LOOP, "of the loop's speed", "times the fastest peer"]
    heads += [f"{AGAINST_BARE_LOOP} and {AGAINST_PEERS}", "dcmdask's peak, MiB"]
    return "Full pass, ms per tile: median\n\n" + table(heads, rows)


def regions(results: Mapping[Case, Taken], names: Sequence[str]) -> str:
    """Return milliseconds per region."""
    rows = []
    for case, taken in results.items():
        for threads in (1, THREADS):
            found = {
                name: np.percentile(rounds, (50, 99), axis=1)
                for name, rounds in taken[f"regions {threads}"].items()
            }
            middle = {name: 1e3 * np.median(one, axis=1) for name, one in found.items()}
            each = [f"{middle[name][0]:.2f}, {middle[name][1]:.2f}" for name in names]
            least = [
                min(
                    (ratio(found[name][k], found["dcmdask"][k]) for name in _peers(found)),
                    default=1,
                )
                for k in (0, 1)
            ]
            row = [case.name, str(threads), *each, f"{least[0]:.2f}, {least[1]:.2f}"]
            rows.append([*row, _reached([(value, 1.0) for value in least])])
    heads = ["", "threads", *names, "times the fastest peer", "1 and 1"]
    return f"Regions of {REGION} x {REGION}, ms: p50, p99\n\n" + table(heads, rows)


def openings(results: Mapping[Case, Taken], names: Sequence[str]) -> str:
    """Return seconds of opening and the first region."""
    rows = []
    for case, taken in results.items():
        found = taken["opening"]
        each = [f"{statistics.median(found[name]):.3f}" for name in names]
        least = min((ratio(found[name], found["dcmdask"]) for name in _peers(found)), default=1)
        most = OPENING.get(case.tiles, math.inf)
        bars = [(least, 1.0), (most, statistics.median(found["dcmdask"]))]
        rows.append([case.name, *each, f"{least:.2f}", f"{most:g}", _reached(bars)])
    heads = ["", *names, "times the fastest peer", "at most, s", "reached"]
    return "Opening and the first region, s: median\n\n" + table(heads, rows)


def copies(results: Mapping[Case, Taken]) -> str:
    """Return seconds of exports without decoding."""
    rows = []
    for case, taken in results.items():
        if found := taken.get("copy"):
            each = [f"{statistics.median(found[name]):.2f}" for name in ("dcmdask", LOOP)]
            of_copy = ratio(found[LOOP], found["dcmdask"])
            bars = [(of_copy, AGAINST_COPY)]
            rows.append([case.name, *each, f"{of_copy:.2f}", f"{AGAINST_COPY}", _reached(bars)])
    heads = ["", "dcmdask", "bytes of the tiles", "of its speed", "bar", "reached"]
    return "Export without decoding, s: median\n\n" + table(heads, rows)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
