"""A catalog of made instances: how long it takes to write, to open and to query, and its size.

    python benchmarks/catalog.py [--instances 1000000] [--folder FOLDER]

The instances are made from the description of one CT file, 100 for each series, each with a path,
UIDs, position and times of its own; no file is there. What is measured of the scan is what a
catalog adds to it.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.data import get_testdata_file

import dcmdask
from dcmdask.archive.catalog import build_catalog
from dcmdask.dicom.description import Described, describe
from dcmdask.dicom.frame_facts import FACTS
from dcmdask.dicom.frame_index import FrameIndex
from dcmdask.sources import files

SERIES = 100
MODALITIES = ("CT", "MR", "PT")


def made(count: int, root: str) -> Iterator[Described]:
    """Yield descriptions of instances that could lie below `root`."""
    source = files.locate(get_testdata_file("CT_small.dcm"))
    one = describe(source, indexing="at hand")
    facts = np.frombuffer(one.table, FACTS).copy()
    assert one.index is not None
    random = np.random.default_rng(16)
    for number in range(count):
        series, plane = divmod(number, SERIES)
        if plane == 0:
            series_uid, study_uid = (f"2.25.{random.integers(2**62)}" for _ in range(2))
            folder = f"{root}/patient{series // 4:06}/{uuid.UUID(int=int(random.integers(2**62)))}"
        facts["position"][0, 2] = 1.25 * plane
        facts["instance_number"] = plane
        facts["content_time"] = 1000.0 * number
        spans = replace(one.index.spans, start=int(random.integers(2000, 9000)))  # type: ignore[type-var]
        yield replace(
            one,
            source=files.LocalFile(f"{folder}/{plane:04}.dcm", 600_000, 10**18 + number),
            sop_instance_uid=f"2.25.{random.integers(2**62)}{random.integers(2**62)}",
            series_uid=series_uid,
            study_uid=study_uid,
            modality=MODALITIES[series % len(MODALITIES)],
            table=facts.tobytes(),
            index=FrameIndex(one.index.pixels, spans, *one.index[2:]),
        )


def timed(name: str, call: Any, limit: float | None) -> Any:
    """Call, print how long it took, and return the result."""
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    bar = "" if limit is None else f"{limit:g}"
    reached = "" if limit is None else "yes" if seconds <= limit else "no"
    print(f"| {name} | {seconds:.2f} | {bar} | {reached} |")
    return result


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--folder", default=None)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        (folder / "archive").mkdir()
        root, target = str(folder / "archive"), str(folder / "archive.catalog")
        batches = ([one] for one in made(given.instances, root))
        build_catalog.outcomes = lambda listing, client: (one for one in batches)  # type: ignore[assignment]
        print(f"{given.instances} instances in {given.instances // SERIES} series\n")
        print("| | s | bar | reached |\n|---|---|---|---|")
        started = time.process_time()
        for _ in made(min(10_000, given.instances), root):
            pass
        making = (time.process_time() - started) * given.instances / min(10_000, given.instances)
        write = lambda: dcmdask.build_catalog(root, target)  # noqa: E731
        timed(f"write (of it {making:.0f} s to make them up)", write, 60 + making)
        found = timed("open", lambda: dcmdask.open_catalog(target), 1)
        timed("number of series", lambda: len(found), None)
        query = 'Modality == "CT" and frames > 50'
        chosen = timed(f"select {query}", lambda: found.select(query), 2)
        timed('select(Modality="CT")', lambda: found.select(Modality="CT"), 2)
        timed("to_frame()", found.to_frame, None)
        timed("first series that was selected, as an array", chosen[0].to_dask, None)
        size = sum(one.stat().st_size for one in Path(target).rglob("*") if one.is_file())
        limit = 300 * given.instances / 1e6
        print(f"\nsize {size / 1e6:.0f} MB, {size / given.instances:.0f} bytes an instance", end="")
        print(f" (bar {limit:.0f} MB, reached: {'yes' if size <= limit * 1e6 else 'no'})")
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"most memory {most:.0f} MB")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
