"""The headers of many files behind a web server that is 50 ms away, beside pydicom over fsspec.

    python benchmarks/remote_scan.py [--files 10000] [--delay 0.05]

The server is one of Python's own, in a process of its own: it lists the files on a page, gives
ranges, counts requests and the bytes of its answers, and waits before each. The files are one CT
file of pydicom's with UIDs by their number, 100 for each series.
"""

from __future__ import annotations

import argparse
import http.server
import multiprocessing
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fsspec
from machine import describe_machine, table
from pydicom import dcmread
from pydicom.data import get_testdata_file

import dcmdask

SERIES = 100
# Files that pydicom reads one after the other; what they take is multiplied.
FEW = 100


def serve(files: int, delay: float, pipe: Connection) -> None:
    """Serve until the pipe says so; say how many requests and bytes there were when it asks."""
    template = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    header = dcmread(get_testdata_file("CT_small.dcm"), stop_before_pixels=True)
    sop, series = (str(one).encode() for one in (header.SOPInstanceUID, header.SeriesInstanceUID))
    counts = {"requests": 0, "sent": 0}
    lock = threading.Lock()
    page = "".join(f'<a href="{number:06}.dcm">{number:06}.dcm</a>' for number in range(files))

    def content(number: int) -> bytes:
        named = template.replace(sop, sop[:-6] + f"{number:06}".encode())
        return named.replace(series, series[:-6] + f"{number // SERIES:06}".encode())

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
            number = re.fullmatch(r"/(\d+)\.dcm", self.path)
            data = content(int(number[1])) if number else page.encode()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
            first, last = 0, len(data) - 1
            if asked:
                first, last = int(asked[1]), min(last, int(asked[2] or last))
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Content-Type", "application/dicom" if number else "text/html")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"1"')
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.end_headers()
            if with_body:
                self.wfile.write(data[first : last + 1])
            with lock:
                counts["requests"] += 1
                counts["sent"] += (last - first + 1) * with_body

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(f"http://127.0.0.1:{server.server_port}/")
    while pipe.recv():
        with lock:
            pipe.send((counts["requests"], counts["sent"]))
            counts |= {"requests": 0, "sent": 0}
    server.shutdown()


def by_pydicom(url: str) -> None:
    """Read some headers, one after the other."""
    fs = fsspec.filesystem("http")
    for number in range(FEW):
        with fs.open(f"{url}{number:06}.dcm", "rb") as file:
            dcmread(file, stop_before_pixels=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--folder", default=None, help="of the catalog")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds (%(default)s)")
    options = parser.parse_args(arguments)
    print(describe_machine(), end="\n\n")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(options.files, options.delay, theirs))
    process.start()
    url = ours.recv()
    folder = tempfile.mkdtemp(dir=options.folder)
    steps: list[tuple[str, Callable[[], Any], float]] = [
        ("dcmdask.scan", lambda: dcmdask.scan(url), 1),
        ("build_catalog", lambda: dcmdask.build_catalog(url, f"{folder}/catalog"), 1),
        ("build_catalog, again", lambda: dcmdask.build_catalog(url, f"{folder}/catalog"), 1),
        (f"pydicom, {FEW} files, times {options.files / FEW:g}", lambda: by_pydicom(url), FEW),
    ]
    rows = []
    try:
        for name, call, few in steps:
            ours.send(True)
            ours.recv()
            started = time.perf_counter()
            call()
            times = 1 if few == 1 else options.files / few
            seconds = (time.perf_counter() - started) * times
            ours.send(True)
            requests, sent = ours.recv()
            megabytes = f"{sent * times / 1e6:.1f}"
            rows.append([name, f"{seconds:.1f}", f"{requests * times:.0f}", megabytes])
    finally:
        ours.send(False)
        process.join()
        shutil.rmtree(folder)
    print(table([f"{options.files} files", "seconds", "requests", "MB"], rows))


if __name__ == "__main__":
    main()
