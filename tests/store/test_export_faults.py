"""What goes wrong while an export runs: said clearly, never called complete, gone on with."""

import json
import math
import os
import pickle
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array
import fsspec
import numpy as np
import psutil
import pytest
import zarr
from counting import count_decodings
from export_worker import Exporter
from hypothesis import assume, given
from hypothesis import strategies as st
from made_series import AXIAL, along, classic
from make_dicom import encapsulated, encoded, native, noise, saved
from pydicom.uid import JPEG2000Lossless, RLELossless
from s3_here import BUCKET, Server, serving
from zarr.storage import MemoryStore

from dcmdask import (
    AlignmentError,
    DecodeError,
    SourceChangedError,
    StoreExistsError,
    to_zarr,
    verify,
    write_array,
)
from dcmdask.store import writer
from dcmdask.store.plan import Axes, check_fits, planned
from dcmdask.store.target.ownership import TEMPORARY

OPTIONS: dict[str, Any] = {"chunks": [2, 8, 16], "shards": None}


@pytest.fixture(autouse=True)
def one_by_one() -> Iterator[None]:
    """Tasks in order, so that what is there when one fails does not depend on time."""
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    exporter = Exporter(tmp_path_factory.mktemp("counts"))
    yield exporter
    exporter.close()


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return saved(tmp_path, encapsulated(noise(6, 16, 16), RLELossless))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    frames: list[int] = []
    count_decodings(monkeypatch, frames.append)
    return frames


def listing(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def complete(store: Any) -> Any:
    return zarr.open_group(store, mode="r").attrs.asdict()["dcmdask"]["complete"]


def whole(src: Any, tmp_path: Path, **options: Any) -> dict[str, bytes]:
    """The listing of an export that nothing happened to."""
    to_zarr(src, tmp_path / "whole.zarr", **{**OPTIONS, **options})
    return listing(tmp_path / "whole.zarr")


# Objects that are damaged or gone.


def test_deleted_objects_are_restored(src: Path, tmp_path: Path, decoded: list[int]) -> None:
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path)
    to_zarr(src, store, **OPTIONS)
    for key in ("pixels/c/0/0/0", "pixels/c/2/0/0", "pixels/c/2/1/0"):
        (store / key).unlink()
    decoded.clear()
    report = to_zarr(src, store, **OPTIONS, resume=True)
    assert (report.written, report.regions) == (2, 3)
    assert sorted(decoded) == [0, 1, 4, 5]
    assert listing(store) == expected


def test_a_damaged_object_beside_a_missing_one(src: Path, tmp_path: Path) -> None:
    """Zarr reads a shard before it overwrites it; half a shard would end the resume."""
    options = {"chunks": [1, 8, 8], "shards": [2, 8, 16]}
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path, **options)
    to_zarr(src, store, **options)
    (store / "pixels/c/1/0/0").write_bytes(b"half")
    (store / "pixels/c/1/1/0").unlink()
    assert to_zarr(src, store, **options, resume=True).written == 1
    assert listing(store) == expected


@pytest.mark.parametrize(
    ("options", "length", "what"),
    [
        ({}, 0, "it is empty"),
        ({"shards": [2, 16, 16], "chunks": [1, 8, 8]}, 0, "it is empty"),
        (
            {"shards": [2, 16, 16], "chunks": [1, 8, 8]},
            100,
            "it is damaged: it has 100 bytes, and should have at least 128",
        ),
        (
            {"compressors": None},
            255,
            "it is damaged: it has 255 bytes, and should have 256",
        ),
    ],
)
def test_what_a_power_failure_cut(
    src: Path, tmp_path: Path, options: dict[str, Any], length: int, what: str
) -> None:
    """Resume and verify agree on what is whole."""
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path, **options)
    to_zarr(src, store, **{**OPTIONS, **options})
    for key in ("pixels/c/0/0/0", "pixels/c/2/0/0"):
        os.truncate(store / key, length)
    found = {one.where: one.what for one in verify(store).differences}
    assert found == dict.fromkeys(("pixels/c/0/0/0", "pixels/c/2/0/0"), what)
    report = to_zarr(src, store, **{**OPTIONS, **options}, resume=True)
    assert (report.written, report.regions) == (2, 3)
    assert listing(store) == expected
    assert verify(store, src).ok


def test_an_empty_object_on_an_object_store(src: Path) -> None:
    store = "memory://faults/out.zarr"
    to_zarr(src, store, **OPTIONS)
    fsspec.filesystem("memory").pipe_file("/faults/out.zarr/pixels/c/1/1/0", b"")
    assert to_zarr(src, store, **OPTIONS, resume=True).written == 1
    assert verify(store, src).ok
    fsspec.filesystem("memory").rm("/faults", recursive=True)


@pytest.mark.parametrize("key", ["zarr.json", "pixels/zarr.json", "missing/zarr.json"])
def test_metadata_that_a_power_failure_emptied(src: Path, tmp_path: Path, key: str) -> None:
    options = {**OPTIONS, "on_error": "fill", "fill_value": 0}
    remote = "memory://faults/out.zarr"
    for store in (tmp_path / "out.zarr", remote):
        to_zarr(src, store, **options)
        if store == remote:
            fsspec.filesystem("memory").pipe_file(f"/faults/out.zarr/{key}", b"")
        else:
            os.truncate(store / key, 0)
        with pytest.raises(
            StoreExistsError, match=r"(is damaged|not a Zarr store|that dcmdask did not write)"
        ):
            to_zarr(src, store, **options, resume=True)
        if key == "zarr.json":
            with pytest.raises(ValueError, match="cannot be opened as a Zarr store"):
                verify(store)
        else:
            differences = verify(store).differences
            assert any(where == key and "damaged" in what for where, what in differences)
    fsspec.filesystem("memory").rm("/faults", recursive=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("write", [to_zarr, write_array])
def test_all_is_on_the_disk_before_it_is_called_complete(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, overwrite: bool
) -> None:
    parent, made = tmp_path / "out", dask.array.ones(6, chunks=2)
    if overwrite:
        write_array(made, parent / "out.zarr")
    synced: dict[str, bool] = {}
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        path = os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), parent)
        folder, _, key = path.partition("/")
        if (parent / folder / "zarr.json").exists():
            synced[key] = bool(complete(parent / folder))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write(made if write is write_array else src, parent / "out.zarr", overwrite=overwrite)
    before = {key for key, is_complete in synced.items() if not is_complete}
    # Of the group the metadata that say so, and that there is such a file.
    assert synced.keys() - before == {"", "zarr.json"}
    files = listing(parent / "out.zarr").keys()
    folders = {os.path.dirname(key) for key in files}
    assert synced.keys() >= files | folders


def test_a_damaged_object_alone_is_for_verify(src: Path, tmp_path: Path) -> None:
    """Resume trusts objects that exist; it says so by what it wrote, which is nothing."""
    store = tmp_path / "out.zarr"
    to_zarr(src, store, **OPTIONS)
    (store / "pixels/c/0/0/0").write_bytes(b"half")
    assert to_zarr(src, store, **OPTIONS, resume=True).written == 0
    assert (store / "pixels/c/0/0/0").read_bytes() == b"half"


@pytest.mark.parametrize("key", ["pixels/zarr.json", "zarr.json"])
def test_damaged_metadata(src: Path, tmp_path: Path, key: str) -> None:
    store = tmp_path / "out.zarr"
    to_zarr(src, store, **OPTIONS)
    (store / key).write_bytes((store / key).read_bytes()[:50])
    with pytest.raises(StoreExistsError, match=r"out\.zarr.*(damaged|not a Zarr store)"):
        to_zarr(src, store, **OPTIONS, resume=True)
    if key != "zarr.json":
        assert complete(store) is False


def test_metadata_that_is_gone_is_made_anew(src: Path, tmp_path: Path) -> None:
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path)
    to_zarr(src, store, **OPTIONS)
    (store / "pixels/zarr.json").unlink()
    assert to_zarr(src, store, **OPTIONS, resume=True).written == 0
    assert listing(store) == expected


# A disk that is full, a path that cannot be written.


@pytest.mark.parametrize("size", [9000, 100], ids=["pixels", "metadata"])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_disk_full(exporter: Exporter, tmp_path: Path, size: int, scheduler: str) -> None:
    src = saved(tmp_path, native(noise(6, 64, 64, dtype="u2")))
    options = {"chunks": [2, 64, 64], "shards": None, "compressors": None}
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path, **options)
    order = {"scheduler": scheduler, "options": options}
    answer = exporter.export(src, store, **order, file_size=size)
    assert answer is not None
    kind, message = answer["error"]
    assert kind == "OSError" and "File too large" in message
    assert size == 100 or "out.zarr/pixels" in message
    assert not (tmp_path / ".out.zarr.lock").exists()
    there = listing(store)
    assert not any(TEMPORARY.search(key) for key in there)
    assert "zarr.json" not in there or complete(store) is False
    answer = exporter.export(src, store, scheduler=scheduler, options={**options, "resume": True})
    assert answer is not None and "error" not in answer, answer
    assert listing(store) == expected


def test_a_target_below_a_file(src: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"made\.dcm is a file"):
        to_zarr(src, src / "below" / "out.zarr")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder that refuses everybody")
def test_permission_denied(src: Path) -> None:
    with pytest.raises(OSError, match=r"/sys/kernel/\.?out\.zarr"):
        to_zarr(src, "/sys/kernel/out.zarr")


def test_a_file_where_a_folder_should_be(src: Path, tmp_path: Path) -> None:
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path)
    to_zarr(src, store, **OPTIONS)
    shutil.rmtree(store / "pixels/c/2")
    (store / "pixels/c/2").write_bytes(b"no folder")
    with pytest.raises(StoreExistsError, match="pixels/c/2 stands in the way"):
        to_zarr(src, store, **OPTIONS, resume=True)
    assert (store / "pixels/c/2").read_bytes() == b"no folder"
    (store / "pixels/c/2").unlink()
    to_zarr(src, store, **OPTIONS, resume=True)
    assert listing(store) == expected


# A source that vanishes or changes, frames that do not decode.


@pytest.mark.parametrize("on_error", ["fail", "fill"])
@pytest.mark.parametrize("how", ["deleted", "changed"])
@pytest.mark.parametrize("kind", ["file", "series"])
def test_the_source_vanishes_midway(
    tmp_path: Path, kind: str, how: str, on_error: str, decoded: list[int]
) -> None:
    if kind == "file":
        folder = last = saved(tmp_path, encapsulated(noise(6, 16, 16), RLELossless))
    else:
        folder = tmp_path / "series"
        positions = along(AXIAL, [2.0 * z for z in range(6)])
        *_, last = classic(folder, noise(6, 16, 16), positions, seed=None)
    options = {**OPTIONS, "on_error": on_error, "fill_value": 0}
    store, expected = tmp_path / "out.zarr", whole(folder, tmp_path, **options)
    kept = last.rename(tmp_path / "kept")
    shutil.copy2(kept, last)
    decoded.clear()

    def vanish(written: int, total: int | None) -> None:
        if decoded and last.exists():
            last.unlink()
            if how == "changed":
                last.write_bytes(kept.read_bytes() + bytes(2))

    error = FileNotFoundError if how == "deleted" else SourceChangedError
    with pytest.raises(error, match=re.escape(str(last))):
        to_zarr(folder, store, **options, progress=vanish)
    assert complete(store) is False
    if how == "changed":
        with pytest.raises(StoreExistsError, match="begun with another source"):
            to_zarr(folder, store, **options, resume=True)
    last.unlink(missing_ok=True)
    kept.rename(last)
    decoded.clear()
    to_zarr(folder, store, **options, resume=True)
    assert 0 < len(decoded) < 6
    assert listing(store) == expected


def test_a_corrupt_frame_ends_it(tmp_path: Path, decoded: list[int]) -> None:
    pixels = noise(6, 16, 16)
    streams = [encoded(frame, JPEG2000Lossless) for frame in pixels]
    streams[3] = streams[3][: len(streams[3]) // 2]
    src = saved(tmp_path, encapsulated(pixels, JPEG2000Lossless, streams=streams))
    store = tmp_path / "out.zarr"
    for resume in (False, True):
        decoded.clear()
        with pytest.raises(DecodeError, match=r"made\.dcm, frame 3: "):
            to_zarr(src, store, **OPTIONS, resume=resume)
        assert (0 in decoded) is not resume
        assert complete(store) is False
    assert (store / "pixels/c/0/0/0").exists() and not (store / "pixels/c/1").exists()
    with pytest.raises(StoreExistsError, match="begun with another on_error: fail there, fill now"):
        to_zarr(src, store, **OPTIONS, resume=True, on_error="fill", fill_value=0)
    report = to_zarr(src, store, **OPTIONS, overwrite=True, on_error="fill", fill_value=0)
    ((frame, reason),) = report.failures
    assert frame == (3,) and "frame 3" in reason
    assert complete(store) is True


def test_nothing_is_written_behind_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that run while another fails are waited for; those that did not begin do not."""
    src = saved(tmp_path, native(noise(8, 16, 16)))
    store, running = tmp_path / "out.zarr", threading.Event()
    written: list[int] = []

    def slow(job: Any, number: int, level: int) -> list[Any]:
        if number == 0:
            assert running.wait(30)
            raise DecodeError("this one")
        running.set()
        time.sleep(0.2)
        written.append(number)
        return []

    monkeypatch.setattr(writer, "write_region", slow)
    with (
        dask.config.set(scheduler="threads", num_workers=2),
        pytest.raises(DecodeError, match="this one"),
    ):
        to_zarr(src, store, **{**OPTIONS, "chunks": 1})
    there = list(written)
    time.sleep(0.5)
    assert written == there != []
    assert complete(store) is False


# Two at once.


def stopped(group: int) -> None:
    """Wait until a process was stopped."""
    while psutil.Process(group).status() != psutil.STATUS_STOPPED:
        time.sleep(0.005)


@pytest.mark.parametrize("killed", [False, True], ids=["ends", "killed"])
def test_two_at_once(exporter: Exporter, src: Path, tmp_path: Path, killed: bool) -> None:
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path)
    order = {"scheduler": "sync", "options": OPTIONS, "signal": signal.SIGSTOP}
    group = exporter.start(src, store, **order, watched=str(store), kill_at=9)
    exporter.go()
    stopped(group)
    there = listing(store)
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(StoreExistsError, match="is being written by another export") as locked:
            to_zarr(src, store, **OPTIONS, **how)
        assert locked.value.code == "StoreExistsError/locked"
    assert listing(store) == there
    os.killpg(group, signal.SIGKILL if killed else signal.SIGCONT)
    assert (exporter.ended() is None) is killed
    if killed:
        assert complete(store) is False
    to_zarr(src, store, **OPTIONS, resume=True)
    assert listing(store) == expected
    assert not (tmp_path / ".out.zarr.lock").exists()


@pytest.mark.parametrize("where", ["same thread", "other thread"])
def test_two_at_once_in_one_process(src: Path, tmp_path: Path, where: str) -> None:
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path)
    refused: list[str] = []

    def second() -> None:
        try:
            to_zarr(src, store, **OPTIONS, resume=True)
        except StoreExistsError as error:
            refused.append(str(error))

    def progress(written: int, total: int | None) -> None:
        if where == "same thread":
            second()
            return
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    to_zarr(src, store, **OPTIONS, progress=progress)
    assert refused and all("is being written by another export" in one for one in refused)
    assert listing(store) == expected


@pytest.mark.rare
def test_two_at_once_on_s3(tmp_path: Path, src: Path) -> None:
    """Nobody notices; the second goes on with what is there, and both write the same."""
    with serving() as server:
        first = Exporter(tmp_path / "first", **server.env)
        second = Exporter(tmp_path / "second", **server.env)
        order = {"scheduler": "threads", "options": OPTIONS}
        again = {"scheduler": "threads", "options": {**OPTIONS, "resume": True}}
        answer = first.export(src, f"s3://{BUCKET}/whole.zarr", **order)
        assert answer is not None and "error" not in answer, answer
        expected = server.objects("whole.zarr/")
        store = f"s3://{BUCKET}/out.zarr"
        group = first.start(src, store, **order)
        server.count(5, group, signal.SIGSTOP)
        first.go()
        stopped(group)
        server.count()
        answer = second.export(src, store, **order)
        assert answer is not None
        assert answer["error"][0] == "StoreExistsError"
        assert "holds a store that is not complete" in answer["error"][1]
        answer = second.export(src, store, **again)
        assert answer is not None and "error" not in answer, answer
        os.killpg(group, signal.SIGCONT)
        answer = first.ended()
        assert answer is not None and "error" not in answer, answer
        assert server.objects("out.zarr/") == expected
        # A store of somebody else's is left alone.
        _foreign_on_s3(server, second, src)
        first.close()
        second.close()


def _foreign_on_s3(server: Server, exporter: Exporter, src: Path) -> None:
    root = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"mine": 1}}).encode()
    server.put("mine.zarr/zarr.json", root)
    for how in ({}, {"resume": True}, {"overwrite": True}):
        order = {"scheduler": "sync", "options": {**OPTIONS, **how}}
        answer = exporter.export(src, f"s3://{BUCKET}/mine.zarr", **order)
        assert answer is not None
        assert answer["error"][0] == "StoreExistsError", answer
    assert server.objects("mine.zarr/") == {"zarr.json": root}
    server.put("mine/notes.txt", b"keep")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        order = {"scheduler": "sync", "options": {**OPTIONS, **how}}
        answer = exporter.export(src, f"s3://{BUCKET}/mine", **order)
        assert answer is not None
        assert answer["error"][1].startswith(f"s3://{BUCKET}/mine/notes.txt stands in"), answer
    assert server.objects("mine/") == {"notes.txt": b"keep"}


# Resume with what does not go on.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("values", {"values": "modality"}),
        ("chunks", {"chunks": [1, 8, 16]}),
        ("chunks", {"chunks": [2, 16, 16]}),
        ("shards", {"shards": [4, 8, 16]}),
        ("codecs", {"compressors": None}),
        ("on_error", {"on_error": "fill", "fill_value": 3}),
        ("on_irregular", {"on_irregular": "keep"}),
        ("with_identifiers", {"with_identifiers": True}),
        ("(options|source)", {"bits_stored": 7}),
        ("format", {"format": "ome-zarr", "levels": 2}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_resume_with_another_plan(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    series = tmp_path / "series"
    classic(
        series,
        noise(6, 16, 16),
        along(AXIAL, [2.0 * z for z in range(6)]),
        RescaleSlope=2,
        RescaleIntercept=1,
    )
    store = tmp_path / "out.zarr"
    to_zarr(series, store, **OPTIONS)
    before = listing(store)
    with pytest.raises(StoreExistsError, match=f"was begun with another {name}: .* there, .* now"):
        to_zarr(series, store, **{**OPTIONS, **options}, resume=True)
    assert listing(store) == before


def test_resume_with_another_fill_value(src: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    to_zarr(src, store, **OPTIONS, on_error="fill", fill_value=3)
    with pytest.raises(StoreExistsError, match=r"another fill_value: 3\S* there, 4\S* now"):
        to_zarr(src, store, **OPTIONS, on_error="fill", fill_value=4, resume=True)


def test_resume_with_another_source(src: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    to_zarr(src, store, **OPTIONS)
    other = saved(tmp_path, encapsulated(noise(6, 16, 16, seed=1), RLELossless), "other.dcm")
    with pytest.raises(StoreExistsError, match="begun with another source") as caught:
        to_zarr(other, store, **OPTIONS, resume=True)
    assert caught.value.code == "StoreExistsError/other-source"


def test_resume_of_a_complete_store(src: Path, tmp_path: Path, decoded: list[int]) -> None:
    store = tmp_path / "out.zarr"
    to_zarr(src, store, **OPTIONS)
    before = listing(store)
    decoded.clear()
    report = to_zarr(src, store, **OPTIONS, resume=True)
    assert (report.written, decoded) == (0, [])
    assert listing(store) == before
    assert complete(store) is True


def test_resume_of_nothing_begins(src: Path, tmp_path: Path) -> None:
    store = tmp_path / "new" / "out.zarr"
    assert to_zarr(src, store, **OPTIONS, resume=True).written == 3
    empty = tmp_path / "empty.zarr"
    empty.mkdir()
    assert to_zarr(src, empty, **OPTIONS, resume=True).written == 3
    assert listing(empty) == listing(store)


def test_resume_of_temporary_files_begins(src: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    store.mkdir()
    (store / f"zarr.{'0' * 32}.partial").write_bytes(b"{")
    assert to_zarr(src, store, **OPTIONS, resume=True).written == 3
    assert listing(store) == whole(src, tmp_path)


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}], ids=str)
def test_what_is_no_export_is_left_alone(src: Path, tmp_path: Path, how: dict[str, bool]) -> None:
    """Not even what has the name of a temporary file is removed."""
    store = tmp_path / "out.zarr"
    store.mkdir()
    (store / "mine").write_bytes(b"1")
    (store / f"mine.{'0' * 32}.partial").write_bytes(b"2")
    with pytest.raises(StoreExistsError, match=r"out\.zarr"):
        to_zarr(src, store, **OPTIONS, **how)
    assert sorted(listing(store).values()) == [b"1", b"2"]


def test_resume_of_another_kind_of_store(src: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    zarr.create_group(store, attributes={"mine": 1})
    with pytest.raises(StoreExistsError, match="is not a store of dcmdask's that could be resumed"):
        to_zarr(src, store, resume=True)
    shutil.rmtree(store)
    write_array(dask.array.arange(6, chunks=2), store)
    with pytest.raises(StoreExistsError, match="is not a store of dcmdask's that could be resumed"):
        to_zarr(src, store, resume=True)
    shutil.rmtree(store)
    zarr.create_array(store, shape=(2,), dtype="u1")
    with pytest.raises(StoreExistsError, match="is not a Zarr store that could be resumed"):
        to_zarr(src, store, resume=True)
    shutil.rmtree(store)
    store.write_bytes(b"a file")
    with pytest.raises(StoreExistsError, match=r"out\.zarr exists"):
        to_zarr(src, store, resume=True)
    assert store.read_bytes() == b"a file"


@pytest.mark.parametrize("there", [False, True])
def test_what_a_killed_overwrite_left(src: Path, tmp_path: Path, there: bool) -> None:
    """An old store that was put aside comes back where nothing took its place."""
    folder = tmp_path / "beside"
    store, old = folder / "out.zarr", folder / ".out.zarr.old-0123456789ab"
    if there:
        to_zarr(src, store, **OPTIONS)
    to_zarr(src, old, chunks=1)
    expected = listing(store if there else old)
    (folder / ".out.zarr.partial-0123456789ab").mkdir()
    (folder / ".out.zarr.partial-of-another").mkdir()
    with pytest.raises(StoreExistsError):
        to_zarr(src, store, chunks=2)
    assert listing(store) == expected
    assert sorted(os.listdir(folder)) == [".out.zarr.partial-of-another", "out.zarr"]


def test_a_folder_of_temporary_files_is_empty(src: Path, tmp_path: Path) -> None:
    for number, how in enumerate(({}, {"overwrite": True}, {"resume": True})):
        store = tmp_path / f"{number}.zarr"
        store.mkdir()
        (store / f"zarr.{'0' * 32}.partial").write_text("{")
        to_zarr(src, store, **OPTIONS, **how)
        assert complete(store)
        assert not [path for path in listing(store) if path.endswith("partial")]


def test_the_graph_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all tasks have in common travels once, and a task is a number."""
    frames = noise(20_000, 1, 1)
    offered: list[tuple[int, int]] = []

    def run(function: Any, job: Any, numbers: Any, advance: Any) -> list[Any]:
        offered.append((len(pickle.dumps(job)), len(list(numbers))))
        raise InterruptedError

    monkeypatch.setattr("dcmdask.store.scheduler.run", run)
    with pytest.raises(InterruptedError):
        to_zarr(native(frames), tmp_path / "out.zarr", chunks=100, shards=None)
    ((size, tasks),) = offered
    assert tasks == 200
    # The bytes are part of it here, twice as many as there are frames.
    assert size < 2 * len(frames) + 30_000


def test_overwrite_of_an_interrupted_store(src: Path, tmp_path: Path) -> None:
    store, expected = tmp_path / "out.zarr", whole(src, tmp_path)

    class Interrupted(Exception):
        pass

    def interrupt(written: int, total: int | None) -> None:
        if (store / "pixels/c/0").exists():
            (store / f"pixels/c/0/0/0.{'0' * 32}.partial").write_bytes(b"half")
            raise Interrupted

    with pytest.raises(Interrupted):
        to_zarr(src, store, **{**OPTIONS, "chunks": 1}, progress=interrupt)
    with pytest.raises(
        StoreExistsError, match=r"not finished \(resume goes on with it\)"
    ) as caught:
        to_zarr(src, store, **OPTIONS)
    assert caught.value.code == "StoreExistsError/incomplete"
    to_zarr(src, store, **OPTIONS, overwrite=True)
    assert listing(store) == expected


def test_a_store_that_cannot_be_listed(src: Path) -> None:
    store = MemoryStore()
    to_zarr(src, store, **OPTIONS, resume=True)
    with pytest.raises(ValueError, match="resume needs a path or URL"):
        to_zarr(src, store, **OPTIONS, resume=True)
    assert complete(store) is True


# Regions that are too large.


@st.composite
def plans(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    frames = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=2)))
    plane = draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    colour = draw(st.booleans())
    shape = (*frames, *plane, *([3] if colour else []))
    chunk = tuple(draw(st.integers(1, n)) for n in (*frames, *plane))
    shard = tuple(c * draw(st.integers(1, 4)) for c in chunk) if draw(st.booleans()) else None
    axis = len(frames)
    halved = (axis, axis + 1) if draw(st.booleans()) else (axis - 1, axis, axis + 1)
    levels = draw(st.integers(1, 3)) if max(shape[a] for a in halved) > 4 else 1
    arguments = {
        "shape": shape,
        "dtype": np.dtype(draw(st.sampled_from(["u1", "i2", "f4"]))),
        "axes": Axes(
            ("t", "z", "y", "x", "sample")[2 - axis :][: len(shape)],
            tuple(range(axis)),
            len(shape) - 1 if colour else None,
            halved,
        ),
        "chunks": chunk,
        "shards": shard,
        "levels": levels,
    }
    return planned(**arguments), arguments


@given(plans(), st.floats(0, 1))
def test_the_shape_that_would_fit_fits(made: tuple[Any, dict[str, Any]], part: float) -> None:
    """The refusal gives both numbers; the shape that it gives really fits."""
    plan, arguments = made
    limit = int(plan.region_bytes * part)
    assume(limit < plan.region_bytes)
    with pytest.raises(AlignmentError) as raised:
        check_fits(plan, limit, "what there is")
    message = str(raised.value)
    assert str(plan.region_bytes) in message and f"{limit} (what there is)" in message
    if found := re.search(r"(chunks|shards) of ([\d,]+) would fit", message):
        wanted = {found[1]: tuple(map(int, found[2].split(",")))}
        assert planned(**{**arguments, **wanted}).region_bytes <= limit
        return
    assert re.search("one frame needs more memory|use chunks of fewer frames", message)
    if arguments["levels"] == 1:
        # Not even one chunk along each axis of frames fits, and that is the least.
        least = arguments["chunks"] if arguments["shards"] else (1,) * len(plan.frame_axes)
        unit = plan.unit(0)
        frames = math.prod(min(least[axis], unit[axis]) for axis in plan.frame_axes)
        others = math.prod(unit[axis] for axis in plan.frame_axes)
        assert frames * plan.region_bytes > limit * others


def test_a_region_too_large_is_refused_first(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "room", lambda: (600, "a quarter of nearly nothing"))
    store = tmp_path / "out.zarr"
    message = (
        r"\(6, 16, 16\), 1536 bytes decoded, and a task may take 600 .*; chunks of [12],16,16 "
    )
    with pytest.raises(AlignmentError, match=message):
        to_zarr(src, store, chunks=[6, 16, 16], shards=None)
    assert not store.exists()
    to_zarr(src, store, chunks=[2, 16, 16], shards=None)
