"""Decode every frame of each file with dcmdask and its peers, side by side, and print tables.

    python benchmarks/run.py [--only "JPEG 2000"] [--frames 100] [--repeats 5]

README.md says what is compared and why it is fair.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from competitors import COMPETITORS, ONLY_JPEG_2000, installed, time_once
from inputs import CASES, FOLDER, NATIVE, Case, make
from machine import describe_machine, table
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

# Multiples of pydicom's speed by syntax, with all plugins and with the fastest alone.
AGAINST_ITER_PIXELS = {
    NATIVE: 1.0,
    RLELossless: 1.7,
    JPEGBaseline8Bit: 20.0,
    JPEGLosslessSV1: 3.0,
    JPEGLSLossless: 2.8,
    HTJ2KLossless: 1.6,
}
AGAINST_JPEG_2000 = {"gdcm, threads": 1.2, "iter_pixels, pylibjpeg": 1.9}
AGAINST_BARE_LOOP, AGAINST_BARE_LOOP_NATIVE = 0.95, 0.8
# A competitor that takes this long for one file is timed in this many rounds at most.
SLOW_SECONDS, SLOW_ROUNDS = 4.0, 2
# One that takes this long is timed once.
SLOWEST_SECONDS = 20.0
WARM_UP_FRAMES = 8

Times = Mapping[str, Sequence[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--only", default="", help="cases that have this in their name")
    parser.add_argument("--frames", type=int, help="at most so many a file, to try things out")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)

    names = installed()
    if missing := COMPETITORS.keys() - names:
        print("not installed, left out:", ", ".join(sorted(missing)), file=sys.stderr)
    print(describe_machine(), end="\n\n")
    context = multiprocessing.get_context("spawn")
    workers = {name: ProcessPoolExecutor(1, mp_context=context) for name in names}
    results: dict[Case, Times] = {}
    try:
        for case in CASES:
            if options.only in case.name:
                path = make(case, options.folder, options.frames)
                small = make(case, options.folder, min(WARM_UP_FRAMES, options.frames or 8))
                results[case] = measure(case, path, small, workers, options.repeats)
                print(case.name, "measured", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.shutdown()
    frames = {case: min(case.frames, options.frames or case.frames) for case in results}
    print(speeds(results, frames, names), end="\n\n")
    print(bars(results))


def measure(
    case: Case,
    path: Path,
    small: Path,
    workers: Mapping[str, ProcessPoolExecutor],
    repeats: int,
) -> Times:
    """Return the seconds of each competitor in each round.

    Each has its own process, warmed up with a small file of the same kind, and waits while
    another one runs. Rounds alternate in direction, so that nobody always follows the same.
    """
    names = [n for n in workers if case.syntax == JPEG2000Lossless or n not in ONLY_JPEG_2000]
    _fill_page_cache(path)
    taken: dict[str, list[float]] = {}
    for name in names:
        try:
            workers[name].submit(time_once, name, str(small)).result()
            taken[name] = []
        except Exception as error:
            print(f"{case.name}: {name} fails: {error!r:.200}", file=sys.stderr)
    for number in range(repeats):
        for name in list(taken)[:: 1 if number % 2 else -1]:
            times = taken[name]
            if number >= SLOW_ROUNDS and times[0] > SLOW_SECONDS:
                continue
            if number and times[0] > SLOWEST_SECONDS:
                continue
            times.append(workers[name].submit(time_once, name, str(path)).result())
    return taken


def _fill_page_cache(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(2**24):
            pass


def speeds(results: Mapping[Case, Times], frames: Mapping[Case, int], names: Sequence[str]) -> str:
    """Return milliseconds per frame: the median of the rounds, and the whole range."""
    rows = []
    for case, times in results.items():
        row = [case.name, str(frames[case])]
        for name in names:
            each = [1e3 * t / frames[case] for t in times.get(name, ())]
            row.append(
                f"{statistics.median(each):.3g} ({min(each):.3g}–{max(each):.3g})" if each else ""
            )
        rows.append(row)
    return "Milliseconds per frame: median (fastest–slowest round)\n\n" + table(
        ["", "frames", *names], rows
    )


def bars(results: Mapping[Case, Times]) -> str:
    """Return how many times as fast dcmdask is, and whether that is enough."""
    rows = []
    for case, times in results.items():
        for against, bar in _asked(case, times).items():
            ratio, limit = speedup(times, "dcmdask", against), speedup(times, "bare loop", against)
            least = AGAINST_BARE_LOOP if case.encapsulated else AGAINST_BARE_LOOP_NATIVE
            asked = f"{bar:g}"
            if not against.startswith("bare loop") and limit < bar:
                # The limit itself does not get there.
                asked += f" → {least:g} × {limit:.2f}"
                bar = least * limit
            reached = "yes" if ratio >= bar else "no"
            rows.append([case.name, against, f"{ratio:.2f}", f"{limit:.2f}", asked, reached])
    met = sum(row[-1] == "yes" for row in rows)
    heads = ["", "against", "dcmdask", "bare loop", "bar", "reached"]
    return f"Times as fast; {met} of {len(rows)} bars reached\n\n" + table(heads, rows)


def _asked(case: Case, times: Times) -> dict[str, float]:
    """Return the bar for each competitor that there is one for."""
    least = AGAINST_BARE_LOOP if case.encapsulated else AGAINST_BARE_LOOP_NATIVE
    asked = {"bare loop": least, "bare loop, chunks": least}
    if case.syntax == JPEG2000Lossless:
        asked |= AGAINST_JPEG_2000
    else:
        asked["iter_pixels"] = AGAINST_ITER_PIXELS[case.syntax]
        asked["iter_pixels, fastest plugin"] = AGAINST_ITER_PIXELS[case.syntax]
    return {name: bar for name, bar in asked.items() if name in times}


def speedup(times: Times, fast: str, slow: str) -> float:
    """Return the median over rounds of the ratio within a round, where drift cancels out."""
    return statistics.median(s / f for s, f in zip(times[slow], times[fast], strict=False))


if __name__ == "__main__":
    main()
