"""Measure what a decoded megabyte costs on one thread, for the plan of chunks.

    python benchmarks/costs.py

The table SYNTAXES in dcmdask/pixels/guard.py holds the larger of the two
pictures' numbers, rounded: an estimate for a task's length, not a promise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from inputs import CASES, FOLDER, make
from machine import describe_machine, table

import dcmdask

FRAMES = 40
ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--frames", type=int, default=FRAMES, help="a file (%(default)s)")
    options = parser.parse_args(arguments)
    rows = []
    for case in CASES:
        if not case.table:
            continue  # the same frames once more
        frames = dcmdask.open_frames(make(case, options.folder, options.frames))
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            frames[:]
            taken.append(time.perf_counter() - started)
        # The fastest round: whatever else the machine does is no cost of decoding.
        cost = min(taken) / (frames.nbytes / 1e6)
        each = 1e3 * min(taken) / len(frames)
        rows.append([case.name, str(case.syntax), f"{each:.3g}", f"{cost:.2g}"])
    print(describe_machine(), end="\n\n")
    print(table(["", "transfer syntax", "ms per frame", "seconds per megabyte"], rows))


if __name__ == "__main__":
    main()
