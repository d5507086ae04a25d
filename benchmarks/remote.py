"""A slide behind a web server that is 50 ms away, beside pydicom and wsidicom over fsspec.

    python benchmarks/remote.py [--tiles 20000] [--delay 0.05] [--repeats 3]

The slides are those of `slides.py`, with and without an offset table. The server is one of Python's
own: it gives ranges, counts requests and the bytes of its answers, and waits before each. Each
competitor has its own process and opens the file anew in each round.

- open: until frames can be asked for; pydicom reads the header, and finds its frames later.
- one: a frame in the middle.
- many: 500 frames that lie side by side, decoded, and 5 by pydicom. Not decoded are those of
  `encoded`, the spans of 500 frames as dcmdask reads them, and `transfer`, one request for their
  bytes.
"""

from __future__ import annotations

import argparse
import http.server
import multiprocessing
import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from competitors import frame_spans
from inputs import FOLDER
from machine import describe_machine, table
from pydicom.uid import JPEGBaseline8Bit
from slide_inputs import TILE, Case, make, size_of

MANY = 500
# pydicom reads an offset table again for each frame, by two requests of 5 MB.
FEW = 5


class Step(NamedTuple):
    """What a step took."""

    seconds: float
    requests: int
    megabytes: float


class Counting:
    """A web server over the files of a folder."""

    def __init__(self, folder: Path, delay: float) -> None:
        self.requests = self.sent = 0
        lock, counts = threading.Lock(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Say nothing of each request."""

            def do_HEAD(self) -> None:
                self._answer(False)

            def do_GET(self) -> None:
                self._answer(True)

            def _answer(self, with_body: bool) -> None:
                time.sleep(delay)
                path = folder / self.path.lstrip("/")
                size = path.stat().st_size
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
                first, last = 0, size - 1
                if asked:
                    first, last = int(asked[1]), min(last, int(asked[2] or last))
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(last - first + 1))
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", f'"{size}"')
                if asked:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.end_headers()
                sent = 0
                if with_body:
                    with path.open("rb") as file:
                        try:
                            self.connection.sendfile(file, first, last - first + 1)
                        except ConnectionError:
                            # Some ask for all to see what it is, and read no further.
                            self.close_connection = True
                        sent = file.tell() - first
                with lock:
                    counts.requests += 1
                    counts.sent += sent

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


# Competitors: a function of a URL that opens it and returns one that decodes frames.

Frames = Callable[[int, int], Any]


def dcmdask(url: str) -> Frames:
    """`from_dicom`, by the threaded scheduler."""
    import dcmdask as library

    x = library.from_dicom(url)
    return lambda first, count: x[first : first + count].compute(scheduler="threads")


def encoded(url: str) -> Frames:
    """Spans of the frames, which are not decoded."""
    import dcmdask as library

    instance = library.open_frames(url).instance
    return lambda first, count: instance.read(list(range(first, first + count)))


def pydicom(url: str) -> Frames:
    """`dcmread` of the open file, and `iter_pixels`."""
    import fsspec
    from pydicom import dcmread
    from pydicom.pixels import iter_pixels

    file = fsspec.open(url, "rb").open()
    dcmread(file, stop_before_pixels=True)

    def frames(first: int, count: int) -> Any:
        file.seek(0)
        return list(iter_pixels(file, indices=range(first, first + count)))

    return frames


def wsidicom(url: str) -> Frames:
    """Tiles of the level."""
    import wsidicom as library
    from wsidicom.geometry import Point

    slide = library.WsiDicom.open(url)
    level = slide.pyramids[0].base_level
    across = level.size.width // TILE

    def frames(first: int, count: int) -> Any:
        numbers = range(first, first + count)
        return [np.asarray(level.get_tile(Point(n % across, n // across))) for n in numbers]

    return frames


def transfer(url: str) -> Frames:
    """One request for the bytes, which are not decoded."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    spans = frame_spans(os.environ["REMOTE_FILE"])

    def frames(first: int, count: int) -> Any:
        (start, _), (last, length) = spans[first], spans[first + count - 1]
        return fs.cat_file(path, start, last + length)

    return frames


READERS: dict[str, Callable[[str], Frames]] = {
    "dcmdask": dcmdask,
    "encoded": encoded,
    "wsidicom": wsidicom,
    "pydicom": pydicom,
    "transfer": transfer,
}
_opened: dict[str, Frames] = {}


def prepare(name: str, path: str) -> None:
    """Import what the competitor needs, by a frame of a small local file."""
    os.environ["REMOTE_FILE"] = path
    if name != "transfer":
        READERS[name](path)(0, 1)


def perform(name: str, url: str, step: str, middle: int) -> float:
    """Return the seconds of a step."""
    started = time.perf_counter()
    if step == "open":
        _opened[name] = READERS[name](url)
    else:
        many = FEW if name == "pydicom" else MANY
        _opened[name](middle, many if step == "many" else 1)
    return time.perf_counter() - started


def measure(case: Case, options: argparse.Namespace) -> dict[tuple[str, str], list[Step]]:
    """Return what each step of each competitor took, in each round."""
    path = make(case, options.folder, case.tiles)
    small = make(Case("small", case.syntax, 20, True), options.folder, 20)
    size = size_of(case.tiles)
    middle = (size.down // 2) * size.across
    server = Counting(path.parent, options.delay)
    context = multiprocessing.get_context("spawn")
    taken: dict[tuple[str, str], list[Step]] = {}
    try:
        for number in range(options.repeats):
            for name in [*READERS][:: 1 if number % 2 else -1]:
                if options.skip and name in options.skip.split(","):
                    continue
                with ProcessPoolExecutor(1, mp_context=context) as worker:
                    worker.submit(
                        prepare, name, str(path if name == "transfer" else small)
                    ).result()
                    for step in ("open", "one", "many"):
                        server.requests = server.sent = 0
                        url = f"{server.url}/{path.name}"
                        seconds = worker.submit(perform, name, url, step, middle).result()
                        found = Step(seconds, server.requests, server.sent / 1e6)
                        taken.setdefault((name, step), []).append(found)
    finally:
        server.close()
    return taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--tiles", type=int, default=20_000, help="of a slide (%(default)s)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds (%(default)s)")
    parser.add_argument("--skip", default="", help="competitors to leave out, with commas")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)
    print(describe_machine(), end="\n\n")
    rows = []
    for has_table in (True, False):
        kind = "table" if has_table else "no table"
        case = Case(kind, JPEGBaseline8Bit, options.tiles, has_table)
        for (name, step), steps in measure(case, options).items():
            seconds = statistics.median(one.seconds for one in steps)
            last = steps[-1]
            size = f"{last.megabytes:.2f}"
            rows.append([kind, name, step, f"{seconds:.2f}", str(last.requests), size])
        print(kind, "measured", file=sys.stderr, flush=True)
    heads = ["slide", "competitor", "step", "seconds", "requests", "MB"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
