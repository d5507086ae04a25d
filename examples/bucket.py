"""Scan a bucket into a catalog, query it, and decode three frames of one of its series.

    python examples/bucket.py [s3://BUCKET/PREFIX/] [CATALOG] [--query QUERY] [--anon]

Headers are read once, and no file is downloaded: what is asked of the server is printed for each
step. The second time the same command reads what is new. Credentials and another server come from
the environment, as for every tool of AWS. Without a bucket, small files of pydicom's are put into
one on this machine, by moto.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pydicom

import dcmdask

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


@contextmanager
def bucket_here() -> Iterator[str]:
    """Put files into a bucket of a server on this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        fs = fsspec.filesystem("s3")
        fs.mkdir("images")
        fs.put(str(FOLDER), "images/archive", recursive=True)
        yield "s3://images/archive/"
    finally:
        server.stop()


class Asked:
    """What a file system of s3fs asks of its server."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        fs, _ = fsspec.core.url_to_fs(url, **options)
        fs.connect()
        fs.s3.meta.events.register("after-call.s3", self._count)
        self.requests = self.bytes = 0

    def _count(self, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        self.requests += 1
        if model.name == "GetObject":
            self.bytes += parsed.get("ContentLength", 0)

    def say(self, step: str) -> None:
        """Print what a step took, and count anew."""
        print(f"{step}: {self.requests} requests, {self.bytes / 1e3:.1f} kB")
        self.requests = self.bytes = 0


def look(source: str, target: str, query: str, options: dict[str, Any]) -> None:
    """Scan, query and decode, and say what each takes."""
    asked = Asked(source, options)
    catalog = dcmdask.build_catalog(source, target, storage_options=options)
    changes = catalog.changes
    asked.say(f"scan of {catalog.files} files, {changes.new} of them new, {len(catalog)} series")
    catalog = dcmdask.build_catalog(source, target, storage_options=options)
    asked.say(f"scan once more, {catalog.changes.new} of them new")

    chosen = catalog.select(query)
    series = max(chosen, key=lambda one: sum(map(len, one.instances)))
    asked.say(f"query {query!r}, {len(chosen)} series")

    stack = series.stacks[0]
    frames = stack.to_dask(on_irregular="keep")
    print(f"{stack.summary}: {frames.shape} {frames.dtype}")
    for number in (0, len(frames) // 2, len(frames) - 1):
        values = frames[number].compute()
        print(f"plane {number}: from {values.min()} to {values.max()}")
    asked.say("three planes")


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?")
    parser.add_argument("catalog", nargs="?")
    parser.add_argument(
        "--query",
        default="Modality == 'CT' and frames > 2",
        help="over the columns of dcmdask scan",
    )
    parser.add_argument("--anon", action="store_true", help="the bucket is public")
    given = parser.parse_args()
    options = {"anon": True} if given.anon else {}
    target = given.catalog or f"{tempfile.mkdtemp()}/archive.catalog"
    if given.source:
        look(given.source, target, given.query, options)
        return
    with bucket_here() as source:
        look(source, target, given.query, options)


if __name__ == "__main__":
    main()
