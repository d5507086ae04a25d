"""Exports at the edges: other stores, other clients, odd fill values, headers that differ."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from made_series import AXIAL, along, classic
from make_dicom import encapsulated, encoded, native, noise, saved
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from dcmdask import StoreExistsError, StoreLostError, from_dicom, to_zarr, verify
from dcmdask.dicom import header
from dcmdask.store import regions, scheduler
from dcmdask.store.regions import write
from dcmdask.store.target.group import Place, check_resumable


def about(store: Any) -> Any:
    return zarr.open_group(store, mode="r").attrs.asdict()["dcmdask"]


# Stores.


def test_a_folder_that_took_the_place_of_a_store_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "out.zarr"
    array = zarr.create_group(LocalStore(root)).create_array("p", shape=4, chunks=2, dtype="u1")
    root.rename(tmp_path / "moved.zarr")
    root.mkdir()
    (root / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreLostError, match="the store is gone"):
        write(array, (slice(0, 2),), np.ones(2, "u1"))
    assert (root / "thesis.txt").read_text() == "years of work"


def test_shards_beyond_the_edge_of_a_store_that_cannot_be_listed() -> None:
    store = MemoryStore()
    to_zarr(native(noise(7, 16, 16)), store, chunks=(1, 8, 8), shards=(3, 24, 24))
    assert about(store)["complete"] is True
    assert verify(store).ok


def test_resume_of_a_store_of_fsspec(tmp_path: Path) -> None:
    """One with options of its own, which no URL says."""
    fs = fsspec.filesystem("memory")
    store = FsspecStore.from_url("memory://edges/out.zarr")
    src = saved(tmp_path, native(noise(6)))
    to_zarr(src, store, chunks=1)
    fs.rm("/edges/out.zarr/pixels/c/3/0/0")
    assert to_zarr(src, store, chunks=1, resume=True).written == 1
    assert verify(store, src).ok
    fs.rm("/edges", recursive=True)


def test_overwrite_of_a_url_removes_nothing_else(tmp_path: Path) -> None:
    fs, src = fsspec.filesystem("memory"), saved(tmp_path, native(noise(6)))
    to_zarr(src, "memory://edges/out.zarr")
    for stranger in (
        "precious.txt",
        "other.zarr/pixels/zarr.json",
        "pixels/notes",
        "pixels/c/1/0/0",
    ):
        fs.pipe_file(f"/edges/out.zarr/{stranger}", b"keep")
        with pytest.raises(StoreExistsError, match=f"{stranger} stands in the way"):
            to_zarr(src, "memory://edges/out.zarr", overwrite=True)
        assert fs.cat_file(f"/edges/out.zarr/{stranger}") == b"keep"
        fs.rm_file(f"/edges/out.zarr/{stranger}")
    to_zarr(src, "memory://edges/out.zarr", overwrite=True)
    fs.rm("/edges", recursive=True)


def test_resume_trusts_only_what_writes_whole(tmp_path: Path) -> None:
    fs = fsspec.filesystem("dir", path=str(tmp_path), fs=fsspec.filesystem("file"))
    with pytest.raises(ValueError, match="dir does not promise"):
        check_resumable(Place(MemoryStore(), fs, "out.zarr"))


@pytest.mark.parametrize("target", ["/", ""])
def test_a_target_without_a_name(target: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name"):
        to_zarr(saved(tmp_path, native(noise(1))), target)


def test_long_names_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = saved(tmp_path, native(noise(2)))
    monkeypatch.setenv("HOME", str(tmp_path))
    to_zarr(src, "~/out.zarr")
    assert (tmp_path / "out.zarr").is_dir()
    long = tmp_path / ("容" * 82)
    to_zarr(src, long)
    to_zarr(src, long, overwrite=True)
    assert about(long)["complete"] is True


# Schedulers.


def test_no_graph_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask takes longer for a graph than it has tasks."""
    computed: list[int] = []
    compute = scheduler.compute

    def counting(*tasks: Any) -> Any:
        computed.append(len(tasks))
        return compute(*tasks)

    monkeypatch.setattr(scheduler, "compute", counting)
    to_zarr(native(noise(1100, 2, 2)), tmp_path / "out.zarr", chunks=1, shards=None)
    assert computed == [500, 500, 100]


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.usefixtures("client")
def test_what_was_broken_off_writes_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that a worker is at when an export ends is waited for."""
    src, store = saved(tmp_path, native(noise(6))), tmp_path / "out.zarr"
    begun = threading.Event()
    stored_as = regions.stored_as

    def slow(plan: Any, block: Any) -> Any:
        if not begun.is_set():
            begun.set()
            time.sleep(1)
        return stored_as(plan, block)

    monkeypatch.setattr(regions, "stored_as", slow)

    def broken_off(done: int, total: int | None) -> None:
        assert begun.wait(10)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        to_zarr(src, store, chunks=1, shards=None, compressors=None, progress=broken_off)
    monkeypatch.undo()
    to_zarr(src, store, chunks=1, shards=None, overwrite=True)
    time.sleep(1.2)
    assert verify(store, src).ok


def test_inside_a_task(client: Client, tmp_path: Path) -> None:
    """Both threads of the worker export, and leave them to their regions."""
    src = saved(tmp_path, native(noise(6)))
    stores = [str(tmp_path / f"{name}.zarr") for name in "ab"]
    futures = client.map(lambda store: to_zarr(src, store, chunks=1).written, stores, pure=False)
    assert client.gather(futures) == [6, 6]


# Values.


@pytest.mark.parametrize("value", [300, -1, 0.5, float("nan"), float("inf")])
def test_fill_values_that_do_not_fit(value: float, tmp_path: Path) -> None:
    src = saved(tmp_path, native(noise(3)))
    with pytest.raises(ValueError, match="does not fit uint8"):
        to_zarr(src, tmp_path / "out.zarr", on_error="fill", fill_value=value)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("values", ["stored", "modality"])
def test_palette_indices_have_no_mean(values: Any, tmp_path: Path) -> None:
    lut = {
        f"{colour}PaletteColorLookupTable{what}": given
        for colour in ("Red", "Green", "Blue")
        for what, given in (("Descriptor", [256, 0, 16]), ("Data", bytes(512)))
    }
    frame = np.array([[[95, 130], [33, 215]]], "u1")
    src = saved(tmp_path, native(frame, PhotometricInterpretation="PALETTE COLOR", **lut))
    to_zarr(src, tmp_path / "out.zarr", format="ome-zarr", levels=2, values=values)
    assert zarr.open_group(tmp_path / "out.zarr", mode="r")["1"][...].ravel().tolist() == [95]


# Headers.


def test_names_in_their_own_character_set(tmp_path: Path) -> None:
    src = saved(
        tmp_path,
        native(noise(1), SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jürgen"),
    )
    to_zarr(src, tmp_path / "out.zarr", with_identifiers=True)
    assert about(tmp_path / "out.zarr")["identifiers"]["PatientName"] == "Müller^Jürgen"


def test_what_instances_do_not_have_in_common(tmp_path: Path) -> None:
    paths = classic(tmp_path / "series", noise(4), along(AXIAL, 2.5 * np.arange(4)))
    for number, path in enumerate(sorted(paths)):
        dataset = dcmread(path)
        dataset.WindowCenter, dataset.WindowWidth = [10, 40 + number], [100, 200]
        dataset.FrameTime = 10 + number
        dataset.LossyImageCompression = "01" if number else "00"
        dataset.LossyImageCompressionRatio = [5, 9, 9, 20][number]
        dataset.save_as(path)
    to_zarr(tmp_path / "series", tmp_path / "out.zarr")
    header = about(tmp_path / "out.zarr")["header"]
    assert header["WindowCenter"] == 10 and header["WindowWidth"] == 100
    assert header["LossyImageCompression"] == "01"
    assert header["LossyImageCompressionRatio"] == [9.0, 20.0]
    assert not header.keys() & {"FrameTime", "SOPInstanceUID"}


def test_versions(tmp_path: Path) -> None:
    to_zarr(native(noise(1)), tmp_path / "out.zarr")
    versions = about(tmp_path / "out.zarr")["versions"]
    assert versions["zarr"] == zarr.__version__
    assert versions.keys() == {
        *("dcmdask", "imagecodecs", "numpy", "pydicom", "simplejpeg", "zarr")
    }


@pytest.mark.parametrize("lengths", [np.int64(2), [np.int64(2), 6, 8]])
def test_numbers_of_numpy(lengths: Any, tmp_path: Path) -> None:
    assert to_zarr(native(noise(4)), tmp_path / "out.zarr", chunks=lengths).chunks == (2, 6, 8)


@pytest.mark.parametrize("lengths", [1.5, [1.5, 6, 8]])
def test_parts_of_frames(lengths: Any, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        to_zarr(native(noise(4)), tmp_path / "out.zarr", chunks=lengths)
    assert not (tmp_path / "out.zarr").exists()


def test_a_bad_frame_costs_its_region_once_more(tmp_path: Path) -> None:
    frames = noise(8, 16, 16)
    streams = [encoded(frame, JPEG2000Lossless) for frame in frames]
    streams[5] = streams[5][:40]
    src = saved(tmp_path, encapsulated(frames, JPEG2000Lossless, streams=streams))
    with dask.config.set(scheduler="sync"):
        report = to_zarr(src, tmp_path / "out.zarr", chunks=4, on_error="fill", fill_value=7)
    assert [frame for frame, _ in report.failures] == [(5,)]
    stored = zarr.open_group(tmp_path / "out.zarr", mode="r")["pixels"][...]
    frames[5] = 7
    np.testing.assert_array_equal(stored, frames)


# The header of one file.


def test_the_header_of_a_file_is_walked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames and their description come from one walk; pydicom reads the provenance, once."""
    counts = Counter[str]()
    for name in ("_read_elements", "dcmread"):
        function = getattr(header, name)

        def counted(*args: Any, name: str = name, function: Any = function, **more: Any) -> Any:
            counts[name] += 1
            return function(*args, **more)

        monkeypatch.setattr(header, name, counted)
    made = native(noise(4, 8, 8), RescaleSlope=2, RescaleIntercept=1, FrameTime=40)
    path = saved(tmp_path, made)
    for src in (path, made):
        from_dicom(src, values="modality").compute(scheduler="sync")
        assert counts == {"_read_elements": 1}
        counts.clear()
        to_zarr(src, tmp_path / "out.zarr", values="modality", overwrite=True)
        assert counts == {"_read_elements": 1, "dcmread": 1}
        counts.clear()
    to_zarr(path, tmp_path / "ome.zarr", format="ome-zarr")
    # A scan describes it, and opening it afterwards builds the index of its frames.
    assert counts == {"_read_elements": 2, "dcmread": 1}
