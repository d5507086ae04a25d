"""Exports that are killed at any moment go on: the same store in the end, little decoded twice."""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from counting import count_decodings
from export_worker import Exporter
from made_series import AXIAL, along, classic
from make_dicom import encapsulated, encoded, noise, saved
from pydicom.uid import JPEG2000Lossless
from s3_here import BUCKET, Server, serving

from dcmdask import to_zarr
from dcmdask.store.target.ownership import TEMPORARY

# Regions of two frames and of two objects; `missing` has a third, all blank.
SMALL = {"chunks": [2, 8, 16], "shards": None, "on_error": "fill", "fill_value": 0}
SHARDED = {"chunks": [1, 16, 16], "shards": [2, 16, 32]}
# Written first, and last.
ROOT = "zarr.json"
# One of so many states is made by a kill; the others are copied while an export runs.
KILLED = 10
# Of Zarr 3 and Zarr 2; level 1 is written with level 0.
_OBJECT = re.compile(r"((pixels|missing)/c|0)/(?P<region>\d+)(/|\Z)")
SEED = 4


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    exporter = Exporter(tmp_path_factory.mktemp("counts"))
    yield exporter
    exporter.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Exporter]:
    exporter = Exporter(tmp_path_factory.mktemp("counts"), **server.env)
    yield exporter
    exporter.close()


def made(folder: Path, frames: int, rows: int = 16, columns: int = 16) -> Path:
    """JPEG 2000 frames, of which one is blank: its chunks have to be written as well."""
    pixels = noise(frames, rows, columns, dtype="u2")
    pixels[1] = 0
    return saved(folder, encapsulated(pixels, JPEG2000Lossless))


def listing(store: Path) -> dict[str, bytes]:
    """What a store holds, by key, without temporary files."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and not TEMPORARY.search(path.name)
    }


def temporaries(store: Path) -> list[str]:
    return [path.name for path in store.rglob("*") if TEMPORARY.search(path.name)]


def looks_complete(objects: dict[str, bytes]) -> bool:
    if ".zattrs" in objects and ".zmetadata" in objects:
        copied = json.loads(objects[".zmetadata"])["metadata"][".zattrs"]
        told = json.loads(objects[".zattrs"])
        return bool(told["dcmdask"]["complete"] and copied == told)
    if ROOT not in objects:
        return False
    complete: bool = json.loads(objects[ROOT])["attributes"]["dcmdask"]["complete"]
    return complete


def left(there: dict[str, bytes], whole: dict[str, bytes]) -> int:
    """How many regions lack an object; one for each place along the first axis."""
    found = (_OBJECT.match(key) for key in whole if key not in there)
    return len({match["region"] for match in found if match})


def kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


class Trials:
    """One source, one uninterrupted export of it, and others that are killed."""

    def __init__(self, exporter: Exporter, src: Path, frames: int, **order: Any) -> None:
        self.exporter, self.src, self.frames, self.order = exporter, src, frames, order

    def resumed(
        self,
        store: str | Path,
        there: dict[str, bytes],
        whole: dict[str, bytes],
        now: Callable[[], dict[str, bytes]],
        what: str,
    ) -> None:
        """Go on with what is `there`, and check that it is `whole` and what was decoded."""
        before = self.exporter.decoded
        options = {**self.order["options"], "resume": True, "overwrite": False}
        answer = self.exporter.export(self.src, store, **{**self.order, "options": options})
        assert answer is not None and "error" not in answer, (what, answer)
        assert now() == whole, what
        assert looks_complete(whole)
        region = self.frames // answer["regions"]
        assert answer["written"] == left(there, whole), what
        assert self.exporter.decoded == region * left(there, whole), what
        # Of what was decoded before the kill, the regions in flight are lost.
        in_flight = 2 if self.order.get("scheduler") != "sync" else 1
        assert before + self.exporter.decoded <= self.frames + in_flight * region, what


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames that this process decodes."""
    frames: list[int] = []
    count_decodings(monkeypatch, frames.append)
    return frames


def copies(
    exporter: Exporter, src: Path, store: Path, begin: Callable[[Path], None], **options: Any
) -> list[tuple[Path, int]]:
    """Export once; return what a kill before each change leaves, and what was decoded by then.

    A killed process leaves the files as they are, so most of these are copied while it runs;
    one of `KILLED` is of a process that was killed.
    """
    order = {"scheduler": "sync", "options": options, "watched": str(store)}
    begin(store)
    folder = store.parent / "copies"
    answer = exporter.export(src, store, **order, copies=str(folder))
    assert answer is not None and "error" not in answer, answer
    found = [folder / str(change) for change in range(answer["changes"])]
    decoded = [int(copy.with_suffix(".decoded").read_text()) for copy in found]
    shutil.move(store, whole := store.parent / "whole.zarr")
    for change in range(3, len(found), KILLED):
        begin(store)
        assert exporter.export(src, store, **order, kill_at=change) is None, "it was to be killed"
        decoded[change] = exporter.decoded
        shutil.rmtree(found[change])
        shutil.move(store, found[change])
    shutil.move(whole, store)
    return list(zip(found, decoded, strict=True))


def killed_everywhere(
    exporter: Exporter,
    src: Path,
    frames: int,
    begin: Callable[[Path], None],
    decoded: list[int],
    **options: Any,
) -> int:
    """Go on from what a kill of an export before each of its changes leaves."""
    store = src.parent / "killed.zarr"
    found = copies(exporter, src, store, begin, **options)
    whole = listing(store)
    assert looks_complete(whole)
    for change, (copy, before) in enumerate(found):
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        (lock := src.parent / ".killed.zarr.lock").touch()
        there = listing(store)
        assert not looks_complete(there) or there == whole or change == 0, change
        decoded.clear()
        with dask.config.set(scheduler="sync"):
            report = to_zarr(src, store, **{**options, "resume": True})
        assert listing(store) == whole, change
        region = frames // report.regions
        assert report.written == left(there, whole), change
        assert len(decoded) == region * report.written, change
        # Of what was decoded before the kill, the region in flight is lost.
        assert before + len(decoded) <= frames + region, change
        assert not temporaries(store) and not lock.exists()
    return len(found)


def nothing(store: Path) -> None:
    """There is no store yet."""


@pytest.mark.rare
def test_killed_before_every_change(exporter: Exporter, tmp_path: Path, decoded: list[int]) -> None:
    changes = killed_everywhere(exporter, made(tmp_path, 6), 6, nothing, decoded, **SMALL)
    # Metadata of three nodes, nine objects, and twice the root; each is made and renamed.
    assert changes >= 28


@pytest.mark.rare
def test_killed_with_coordinates(exporter: Exporter, tmp_path: Path, decoded: list[int]) -> None:
    series = tmp_path / "series"
    classic(series, noise(4, 6, 8, dtype="u2"), along(AXIAL, [0, 2, 4, 6]))
    options = {"chunks": [2, 6, 8], "shards": None}
    assert killed_everywhere(exporter, series, 4, nothing, decoded, **options) > 30
    assert "z" in zarr.open_group(tmp_path / "killed.zarr", mode="r")


@pytest.mark.rare
def test_ome_zarr_0_4_killed(exporter: Exporter, tmp_path: Path, decoded: list[int]) -> None:
    series = tmp_path / "series"
    classic(series, noise(6, 8, 8, dtype="u2"), along(AXIAL, 4.0 * np.arange(6)))
    options = {"format": "ome-zarr", "ome_version": "0.4", "levels": 1, "chunks": [2, 8, 8]}
    assert killed_everywhere(exporter, series, 6, nothing, decoded, **options) > 30
    assert zarr.open_group(tmp_path / "killed.zarr", mode="r").metadata.zarr_format == 2


@pytest.mark.rare
def test_resume_of_a_complete_ome_zarr_0_4_killed(
    exporter: Exporter, tmp_path: Path, decoded: list[int]
) -> None:
    series, first = tmp_path / "series", tmp_path / "first.zarr"
    classic(series, noise(4, 8, 8, dtype="u2"), along(AXIAL, 4.0 * np.arange(4)))
    options = {"format": "ome-zarr", "ome_version": "0.4", "levels": 1, "chunks": [2, 8, 8]}
    to_zarr(series, first, **options)
    options["resume"] = True
    killed_everywhere(exporter, series, 4, partial(_copied, first), decoded, **options)


@pytest.mark.slow
def test_pyramid_killed(exporter: Exporter, tmp_path: Path) -> None:
    """Levels from 2 on are made from the store; no frame is decoded for them."""
    series, store = tmp_path / "series", tmp_path / "killed.zarr"
    positions = along(AXIAL, [2.0 * z for z in range(8)])
    classic(series, noise(8, 32, 32, dtype="u2"), positions)
    options = {"format": "ome-zarr", "levels": 3, "chunks": [2, 16, 16], "shards": [2, 32, 32]}
    order = {"scheduler": "threads", "watched": str(tmp_path)}
    answer = exporter.export(series, store, **order, options=options)
    assert answer is not None and "error" not in answer, answer
    assert exporter.decoded == 8 and answer["regions"] > 4
    whole = listing(store)
    assert looks_complete(whole) and any(key.startswith("2/c/") for key in whole)
    for change in range(1, answer["changes"], answer["changes"] // 5):
        shutil.rmtree(store)
        killed = exporter.export(series, store, **order, options=options, kill_at=change)
        before, there = exporter.decoded, listing(store)
        assert killed is None
        assert not looks_complete(there) or there == whole
        resumed = {**options, "resume": True}
        answer = exporter.export(series, store, scheduler="threads", options=resumed)
        assert answer is not None and "error" not in answer, answer
        assert listing(store) == whole, change
        # Two regions of two frames were in flight.
        assert before + exporter.decoded <= 8 + 4
        assert not temporaries(store)


def test_resume_killed_before_every_change(
    exporter: Exporter, tmp_path: Path, decoded: list[int]
) -> None:
    src = made(tmp_path, 6)
    first = tmp_path / "first.zarr"
    to_zarr(src, first, **SMALL)
    # One region lacks one of two objects, one all, and a temporary file is left.
    for key in ("pixels/c/0/1/0", "pixels/c/2/0/0", "pixels/c/2/1/0", "missing/c/2"):
        (first / key).unlink()
    (first / "pixels/c/2/0" / f"0.{'0' * 32}.partial").write_bytes(b"half")
    root = first / ROOT
    root.write_text(root.read_text().replace('"complete": true', '"complete": false'))
    options = {**SMALL, "resume": True}
    killed_everywhere(exporter, src, 6, partial(_copied, first), decoded, **options)


def test_resume_of_a_complete_store_killed(
    exporter: Exporter, tmp_path: Path, decoded: list[int]
) -> None:
    src, first = made(tmp_path, 6), tmp_path / "first.zarr"
    to_zarr(src, first, **SMALL)
    options = {**SMALL, "resume": True}
    killed_everywhere(exporter, src, 6, partial(_copied, first), decoded, **options)


def _copied(first: Path, store: Path) -> None:
    shutil.copytree(first, store)


def test_overwrite_killed_before_every_change(exporter: Exporter, tmp_path: Path) -> None:
    """The old store or the new one, whole; between two renames neither, and the old one aside."""
    src, folder = made(tmp_path, 2), tmp_path / "beside"
    store = folder / "killed.zarr"
    to_zarr(src, tmp_path / "first.zarr", chunks=1)
    old = listing(tmp_path / "first.zarr")
    options = {"chunks": [2, 16, 16], "overwrite": True}
    order = {"scheduler": "sync", "options": options, "watched": str(folder)}
    _copied(tmp_path / "first.zarr", store)
    answer = exporter.export(src, store, **order, copies=str(tmp_path / "copies"))
    assert answer is not None and "error" not in answer, answer
    new = listing(store)
    assert new != old
    for change in range(answer["changes"]):
        shutil.rmtree(folder)
        if change % KILLED == 3:
            _copied(tmp_path / "first.zarr", store)
            assert exporter.export(src, store, **order, kill_at=change) is None
        else:
            shutil.copytree(tmp_path / "copies" / str(change), folder)
        there = listing(store)
        if there:
            assert there in (old, new), change
        else:
            (aside,) = folder.glob(".killed.zarr.old-*")
            assert listing(aside) == old
        with dask.config.set(scheduler="sync"):
            to_zarr(src, store, **options)
        assert listing(store) == new
        assert os.listdir(folder) == ["killed.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [SMALL, SHARDED], ids=["chunks", "shards"])
def test_killed_at_random_moments(
    exporter: Exporter, tmp_path: Path, options: dict[str, Any]
) -> None:
    frames = 24
    src = made(tmp_path, frames, columns=32 if options is SHARDED else 16)
    trials = Trials(exporter, src, frames, scheduler="threads", options=options)
    whole_store, store = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    started = time.perf_counter()
    answer = exporter.export(src, whole_store, scheduler="threads", options=options)
    seconds = time.perf_counter() - started
    whole = listing(whole_store)
    assert answer is not None and exporter.decoded == frames
    print(f"seed {SEED}")
    moments = random.Random(SEED)
    for moment in range(8):
        shutil.rmtree(store, ignore_errors=True)
        group = exporter.start(src, store, scheduler="threads", options=options)
        exporter.go()
        time.sleep(moments.uniform(0, seconds))
        kill(group)
        ended = exporter.ended()
        there = listing(store)
        assert ended is None or there == whole
        assert there == whole or not looks_complete(there)
        trials.resumed(store, there, whole, lambda: listing(store), f"moment {moment}")
        assert not temporaries(store)


def test_killed_again_and_again(exporter: Exporter, tmp_path: Path) -> None:
    """Each try is killed after a few changes; what the one before it wrote is kept."""
    src, store = made(tmp_path, 6), tmp_path / "killed.zarr"
    order = {"scheduler": "sync", "options": {**SMALL, "resume": True}, "watched": str(store)}
    decoded = tries = 0
    answer = None
    while answer is None:
        answer = exporter.export(src, store, **order, kill_at=14)
        decoded += exporter.decoded
        tries += 1
    to_zarr(src, tmp_path / "whole.zarr", **SMALL)
    assert listing(store) == listing(tmp_path / "whole.zarr")
    assert tries > 2 and decoded <= 6 + 2 * tries


@pytest.mark.rare
def test_killed_on_s3(remote: Exporter, server: Server, tmp_path: Path) -> None:
    """Before every seventh change; before all of them it is killed on local files."""
    src, step = made(tmp_path, 6), 7
    order = {"scheduler": "threads", "options": SMALL}
    server.count()
    answer = remote.export(src, f"s3://{BUCKET}/undisturbed.zarr", **order)
    changes = server.changes
    assert answer is not None and "error" not in answer, answer
    whole = server.objects("undisturbed.zarr/")
    trials = Trials(remote, src, 6, **order)
    for change in range(0, changes, step):
        name = f"killed-{change}.zarr"
        group = remote.start(src, f"s3://{BUCKET}/{name}", **order)
        server.count(change, group)
        remote.go()
        assert remote.ended() is None
        server.count()
        there = server.objects(f"{name}/")
        assert not looks_complete(there)
        now = partial(server.objects, f"{name}/")
        trials.resumed(f"s3://{BUCKET}/{name}", there, whole, now, name)


@pytest.mark.rare
def test_killed_cluster(exporter: Exporter, tmp_path: Path) -> None:
    frames, store = 24, tmp_path / "killed.zarr"
    src = made(tmp_path, frames, 16, 64)
    to_zarr(src, tmp_path / "whole.zarr", **SHARDED)
    whole = listing(tmp_path / "whole.zarr")
    trials = Trials(exporter, src, frames, options=SHARDED)
    for decoded in (1, 17):
        shutil.rmtree(store, ignore_errors=True)
        group = exporter.start(src, store, cluster=True, options=SHARDED)
        exporter.go()
        while exporter.decoded < decoded:
            time.sleep(0.001)
        kill(group)
        assert exporter.ended() is None
        # Its workers are not children of anybody who waits for them.
        time.sleep(0.5)
        there = listing(store)
        assert not looks_complete(there)
        trials.resumed(store, there, whole, lambda: listing(store), f"{decoded} frames")
        assert not temporaries(store)


def test_failures_are_told_across_a_kill(exporter: Exporter, tmp_path: Path) -> None:
    pixels = noise(8, 16, 16)
    streams = [encoded(frame, JPEG2000Lossless) for frame in pixels]
    bad = [1, 4, 7]
    for frame in bad:
        streams[frame] = streams[frame][: len(streams[frame]) // 2]
    src = saved(tmp_path, encapsulated(pixels, JPEG2000Lossless, streams=streams))
    expected = pixels.copy()
    expected[bad] = 7
    options = {**SMALL, "fill_value": 7}
    store = tmp_path / "filled.zarr"
    found = copies(exporter, src, store, nothing, **options)
    whole = listing(store)
    for copy, _ in found[::4]:
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        report = to_zarr(src, store, **options, resume=True)
        assert [failure.frame for failure in report.failures] == [(frame,) for frame in bad]
        assert all(failure.reason for failure in report.failures)
        group = zarr.open_group(store, mode="r")
        assert np.flatnonzero(group["missing"][:]).tolist() == bad
        np.testing.assert_array_equal(group["pixels"][:], expected)
        assert listing(store) == whole
