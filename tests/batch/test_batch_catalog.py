"""Jobs over the series of a catalog: no header is read, and the driver's memory stays flat."""

import os
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_series
import pytest
from distributed import Client
from pydicom.data import get_testdata_file

import dcmdask
from dcmdask import batch
from dcmdask.archive.catalog import build_catalog as building
from dcmdask.batch.selection import selected
from dcmdask.dicom.description import Described, describe
from dcmdask.sources import files
from dcmdask.sources.folder import Folder


def peak(series: dcmdask.Series) -> dict[str, Any]:
    return {"peak": int(series.to_dask().max().compute()), "instances": len(series)}


def counting(series: dcmdask.Series) -> dict[str, Any]:
    return {"instances": len(series)}


def without_headers(root: Path) -> None:
    for path in (one for one in root.rglob("*") if one.is_file()):
        status = path.stat()
        with open(path, "r+b") as file:
            file.write(b"\xff" * 512)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_job_over_a_catalog(client: Client, tmp_path: Path) -> None:
    archive, kept = tmp_path / "archive", tmp_path / "archive.catalog"
    made_series.archive(archive, 6)
    plain = batch.run(peak, archive, tmp_path / "plain", client=client, thumbnails=False)
    dcmdask.build_catalog(archive, kept)
    without_headers(archive)
    ran = batch.run(peak, kept, tmp_path / "out", client=client, thumbnails=False)
    assert ran.ok and ran.processed == 6
    assert ran.to_frame().drop(columns="job").equals(plain.to_frame().drop(columns="job"))
    # Results of files and those of their catalog are the same to a later run.
    again = batch.run(peak, kept, tmp_path / "plain", client=client, thumbnails=False)
    assert again.processed == 0 and again.before == {"done": 6}
    with pytest.raises(ValueError, match=r"archive"):
        batch.run(peak, kept, archive, client=client)


def made(root: Path, count: int) -> Iterator[Described]:
    """Descriptions of so many series of one instance, of which the files are links to one."""
    source = files.locate(get_testdata_file("CT_small.dcm"))
    one = describe(source, indexing="at hand")
    for number in range(count):
        yield replace(
            one,
            source=replace(source, path=f"{root}/{number:06}.dcm"),
            series_uid=f"{made_series.SERIES}.{100_000 + number}",
            sop_instance_uid=f"{made_series.SERIES}.9.{number}",
        )


def catalog_of(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    root, target = folder / f"archive {count}", folder / f"{count}.catalog"
    root.mkdir()
    shutil.copy2(get_testdata_file("CT_small.dcm"), root / f"{0:06}.dcm")
    for number in range(1, count):
        os.link(root / f"{0:06}.dcm", root / f"{number:06}.dcm")
    with monkeypatch.context() as patched:
        rows = ([one] for one in made(root, count))
        patched.setattr(building, "outcomes", lambda listing, client: (one for one in rows))
        dcmdask.build_catalog(root, target)
    return target


def test_memory_of_a_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series that waits takes its name and its place, and not its instances."""
    taken = {}
    for count in (50, 550):
        kept = catalog_of(tmp_path, count, monkeypatch)
        tracemalloc.start()
        # A function without a file, as to look at the code of one takes memory, too.
        chosen = selected(len, kept, Folder.of(tmp_path / f"out {count}"))
        assert sum(len(work.series) for work in chosen.works()) == count
        taken[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    each = (taken[550] - taken[50]) / 500
    assert each < 1000, f"{each:.0f} bytes for each series"


@pytest.mark.rare
def test_twenty_thousand_series(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {}
    for count in (2_000, 20_000):
        kept = catalog_of(tmp_path, count, monkeypatch)
        tracemalloc.start()
        ran = batch.run(counting, kept, tmp_path / f"out {count}", client=client, thumbnails=False)
        taken[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert ran.ok and ran.processed == count
    print(taken)
    # Names, numbers and the rows of the table of results.
    assert (taken[20_000] - taken[2_000]) / 18_000 < 2_000
