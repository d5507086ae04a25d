"""Stores are whole, equal to what was decoded, aligned, and say nothing about a patient."""

import asyncio
import itertools
import json
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import fsspec
import numpy as np
import pytest
import xarray
import zarr
from canaries import CANARY, file_of, fill, traces
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from make_dicom import described, encapsulated, native, noise, saved
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from real_files import packaged_file
from zarr.storage import LocalStore, MemoryStore

from dcmdask import (
    AlignmentError,
    DecodeError,
    ExportReport,
    FrameArray,
    StoreExistsError,
    StoreLostError,
    from_dicom,
    open_frames,
    pixel_array,
    scan,
    to_zarr,
    write_array,
)
from dcmdask.store.dask_writer import zarr_chunks
from dcmdask.store.regions import write
from dcmdask.store.scheduler import Awaited
from dcmdask.store.target import ownership

CINE = packaged_file("examples_ybr_color.dcm")


def entries(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def pixels(store: Any) -> np.ndarray:
    return zarr.open_group(store, mode="r")["pixels"][:]


def told(store: Any) -> dict[str, Any]:
    return dict(zarr.open_group(store, mode="r").attrs)["dcmdask"]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """An existing store that is not to be lost."""
    store = tmp_path / "out.zarr"
    write_array(da.arange(6, chunks=2), store)
    return store


# What a store holds.


def test_the_store(tmp_path: Path) -> None:
    store = tmp_path / "cine.zarr"
    report = to_zarr(CINE, store, chunks=8)
    array = zarr.open_group(store, mode="r")["pixels"]
    assert array.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("frame", "row", "column", "sample")
    assert array.chunks == (8, 240, 320, 3)
    blosc, checksum = array.compressors
    assert checksum.to_dict() == {"name": "crc32c"}
    blosc_settings = blosc.to_dict()["configuration"]
    assert (blosc_settings["cname"], blosc_settings["shuffle"]) == ("zstd", "bitshuffle")
    np.testing.assert_array_equal(array[:], pixel_array(CINE))
    files = [path for path in store.rglob("*") if path.is_file()]
    assert report == ExportReport(
        store=str(store),
        shape=(30, 240, 320, 3),
        dtype=np.dtype("u1"),
        chunks=(8, 240, 320, 3),
        bytes_decoded=30 * 240 * 320 * 3,
        bytes_stored=sum(path.stat().st_size for path in files),
        seconds=report.seconds,
        token=open_frames(CINE).token,
        regions=4,
        written=4,
    )
    lines = str(report).splitlines()
    assert lines[:2] == [str(store), "  (30, 240, 320, 3) uint8, chunks (8, 240, 320, 3)"]
    assert lines[2].startswith("  6.59 MiB decoded, ")
    assert entries(tmp_path) == ["cine.zarr"]


def test_xarray_opens_it(tmp_path: Path) -> None:
    frames = noise(5, 6, 8, dtype="i2")
    store = tmp_path / "made.zarr"
    to_zarr(native(frames), store, chunks=2)
    # A missing consolidation is a warning of xarray's, and warnings are errors here.
    with xarray.open_zarr(store) as opened:
        assert opened.pixels.dims == ("frame", "row", "column")
        assert opened.pixels.dtype == np.int16
        assert opened.pixels.chunks == ((2, 2, 1), (6,), (8,))
        np.testing.assert_array_equal(opened.pixels.values, frames)
        assert opened.attrs["dcmdask"]["complete"] is True


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
def test_big_endian_becomes_native(tmp_path: Path, dtype: str) -> None:
    frames = noise(3, dtype=dtype)
    source = native(frames, ExplicitVRBigEndian)
    if dtype != "u1":
        assert not open_frames(source).dtype.isnative
    report = to_zarr(source, tmp_path / "a.zarr")
    assert report.dtype.isnative
    stored = pixels(tmp_path / "a.zarr")
    assert stored.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(stored, frames)


def test_a_single_frame_keeps_its_axis(tmp_path: Path) -> None:
    assert to_zarr(native(noise(1)), tmp_path / "a.zarr").shape == (1, 6, 8)


@pytest.mark.parametrize("compressors", [None, {"name": "gzip", "configuration": {"level": 1}}])
def test_compressors(tmp_path: Path, compressors: Any) -> None:
    frames = noise(3)
    to_zarr(native(frames), tmp_path / "a.zarr", compressors=compressors)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["pixels"]
    assert len(array.compressors) == (compressors is not None)
    np.testing.assert_array_equal(array[:], frames)


def test_a_frame_array_as_source(tmp_path: Path) -> None:
    frames = open_frames(CINE, raw=True)
    assert to_zarr(frames, tmp_path / "a.zarr").token == frames.token
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr"), frames[:])
    with pytest.raises(TypeError, match="options that it was opened with"):
        to_zarr(frames, tmp_path / "b.zarr", raw=True)


def test_blank_chunks_are_stored(tmp_path: Path) -> None:
    write_array(da.zeros((4, 2), chunks=(1, 2)), tmp_path / "a.zarr")
    assert sum(path.is_file() for path in (tmp_path / "a.zarr/pixels/c").rglob("*")) == 4


# What its attributes say.


def test_attributes(tmp_path: Path) -> None:
    to_zarr(CINE, tmp_path / "a.zarr")
    about = told(tmp_path / "a.zarr")
    dataset = dcmread(CINE, stop_before_pixels=True)
    assert list(zarr.open_group(tmp_path / "a.zarr", mode="r").attrs) == ["dcmdask"]
    assert about.keys() == {
        *("arrays", "complete", "format", "header"),
        *("plan", "source", "spacing_source", "values", "version", "versions"),
    }
    assert about["spacing_source"] == "SequenceOfUltrasoundRegions"
    assert about["plan"]["source"] == about["source"]["token"]
    assert about["source"]["token"] == open_frames(CINE).token
    assert about["source"]["decoding"]["photometric_interpretation"] == "YBR_FULL_422"
    assert about["header"] == {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1",
        "SOPInstanceUID": dataset.SOPInstanceUID,
        "StudyInstanceUID": dataset.StudyInstanceUID,
        "SeriesInstanceUID": dataset.SeriesInstanceUID,
        "Modality": "US",
        "BitsStored": 8,
        "FrameTime": 33.333,
        "PhotometricInterpretation": "RGB",
        "TransferSyntaxUID": JPEGBaseline8Bit,
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 19.0,
    }


def test_a_file_has_the_units_of_its_series(tmp_path: Path) -> None:
    path = get_testdata_file("CT_small.dcm")
    for number, source in enumerate((path, scan(path)[0])):
        to_zarr(source, tmp_path / f"{number}.zarr", values="modality")
        assert told(tmp_path / f"{number}.zarr")["units"] == "HU"


def shared(keyword: str, **elements: Any) -> dict[str, Any]:
    """Elements in a sequence of the shared functional groups."""
    inner, group = Dataset(), Dataset()
    for name, value in elements.items():
        setattr(inner, name, value)
    setattr(group, keyword, Sequence([inner]))
    return {"SharedFunctionalGroupsSequence": Sequence([group])}


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, {"PixelSpacing": [0.5, 0.25]}),
        (
            shared("PixelMeasuresSequence", PixelSpacing=[1, 2], SliceThickness=3),
            {"PixelSpacing": [1.0, 2.0], "SliceThickness": 3.0},
        ),
        ({"RescaleSlope": "2", "RescaleIntercept": "-1024"}, {"RescaleIntercept": -1024.0}),
        ({"WindowCenter": ["40", "400"]}, {"WindowCenter": [40.0, 400.0]}),
        ({"LossyImageCompressionMethod": "ISO_10918_1"}, {"LossyImageCompressionMethod": ...}),
        ({"SliceThickness": None}, {}),
        ({"Modality": ""}, {}),
    ],
)
@pytest.mark.parametrize("as_dataset", [False, True])
def test_header_values(
    elements: dict[str, Any], expected: dict[str, Any], as_dataset: bool
) -> None:
    frames = noise(2)
    elements = {key: value for key, value in elements.items() if value is not None}
    source: Any = native(frames, **elements)
    if as_dataset:
        source = described(frames, **elements)
        source.PixelData = frames.tobytes()
        source["PixelData"].VR = "OW"
        source.file_meta = dcmread(CINE, stop_before_pixels=True).file_meta
        source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    store = MemoryStore()
    to_zarr(source, store)
    header = told(store)["header"]
    for keyword, value in expected.items():
        assert header[keyword] == (elements[keyword] if value is ... else value)
    assert header.keys() >= expected.keys()
    if not expected:
        assert not header.keys() & elements.keys()


@pytest.mark.parametrize(
    ("interpretation", "syntax", "options", "expected"),
    [
        ("RGB", ExplicitVRLittleEndian, {}, "RGB"),
        ("YBR_FULL", ExplicitVRLittleEndian, {}, "RGB"),
        ("YBR_FULL", ExplicitVRLittleEndian, {"raw": True}, "YBR_FULL"),
        ("YBR_FULL_422", ExplicitVRLittleEndian, {"raw": True}, "YBR_FULL"),
        ("YBR_RCT", JPEG2000Lossless, {}, "RGB"),
        ("YBR_RCT", JPEG2000Lossless, {"raw": True}, "RGB"),
    ],
)
def test_interpretation_of_the_result(
    interpretation: str, syntax: Any, options: dict[str, Any], expected: str
) -> None:
    frames = noise(2, samples=3)
    make = encapsulated if syntax.is_encapsulated else native
    store = MemoryStore()
    to_zarr(make(frames, syntax, PhotometricInterpretation=interpretation), store, **options)
    assert told(store)["header"]["PhotometricInterpretation"] == expected


def test_nothing_personal(tmp_path: Path) -> None:
    frames = noise(2)
    dataset = described(frames, PatientName=None)
    with disable_value_validation():
        nested = fill(Dataset())
        dataset.SharedFunctionalGroupsSequence = [nested]
        dataset.RequestAttributesSequence = [nested]
        source = saved(tmp_path, file_of(fill(dataset), frames), f"{CANARY}.dcm")
    assert source.read_bytes().count(CANARY.encode()) > 2000
    store = tmp_path / "a.zarr"
    to_zarr(source, store, compressors=None)
    for path in store.rglob("*"):
        assert CANARY not in path.name
        if path.is_file():
            assert traces(path.read_bytes()) == []
    assert told(store)["header"]["SOPInstanceUID"] == dataset.SOPInstanceUID


# Alignment.


@settings(max_examples=60)
@given(st.data())
def test_written_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any array reads back equal, or is refused and leaves nothing; no chunk is shared."""
    shape = data.draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    dtype = np.dtype(data.draw(st.sampled_from(["u1", ">u2", "i4", "f8", "?"])))
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)

    def lengths(side: int) -> st.SearchStrategy[tuple[int, ...]]:
        uniform = st.integers(1, max(1, side)).map(
            lambda n: (n,) * (side // n) + ((side % n,) if side % n or not side else ())
        )
        cuts = st.lists(st.integers(0, side), max_size=3).map(
            lambda at: tuple(np.diff([0, *sorted(at), side]).tolist())
        )
        return uniform | cuts

    blocks = tuple(data.draw(lengths(side)) for side in shape)
    chunks = data.draw(st.none() | st.tuples(*[st.integers(1, 9) for _ in shape]))
    x = da.from_array(values, chunks=blocks)
    folder = tmp_path_factory.mktemp("aligned")
    try:
        layout = zarr_chunks(x.chunks, chunks)
    except AlignmentError:
        with pytest.raises(AlignmentError):
            write_array(x, folder / "a", chunks=chunks)
        assert entries(folder) == []
        return
    for lengths_, chunk in zip(x.chunks, layout, strict=True):
        ends = np.cumsum((0, *lengths_))
        owners = [{i // chunk for i in range(a, b)} for a, b in itertools.pairwise(ends)]
        assert sum(map(len, owners)) == len(set().union(*owners))
    report = write_array(x, folder / "a", chunks=chunks)
    assert (report.shape, report.chunks) == (shape, layout)
    stored = pixels(folder / "a") if shape else zarr.open_group(folder / "a")["pixels"][()]
    assert stored.dtype == dtype.newbyteorder("=")
    np.testing.assert_array_equal(stored, values)
    assert entries(folder) == ["a"]


@pytest.mark.parametrize(
    ("blocks", "wanted", "expected"),
    [
        ([(4, 4, 4)], None, (4,)),
        ([(4, 4, 1)], None, (4,)),
        ([(3,)], None, (3,)),
        ([(0,)], None, (1,)),
        ([(4, 8, 3)], (4,), (4,)),
        ([(4, 6)], (2,), (2,)),
        ([(3,)], (5,), (5,)),
        ([], None, ()),
    ],
)
def test_plan(blocks: Any, wanted: Any, expected: Any) -> None:
    assert zarr_chunks(blocks, wanted) == expected


@pytest.mark.parametrize(
    ("blocks", "wanted", "message"),
    [
        (
            [(10, 10, 7, 10)],
            None,
            r"axis 0: Dask chunk 2 ends at 27, inside the Zarr chunk from 20 to 30, .*"
            r"chunks of 1 would fit, or \.rechunk\(\{0: 10\}\)",
        ),
        ([(4,), (4, 6)], None, r"axis 1: .*chunks of 4 or a divisor of it would fit"),
        ([(6, 6, 6)], (4,), r"ends at 6, inside the Zarr chunk from 4 to 8"),
        ([(float("nan"),)], None, r"unknown length.*compute_chunk_sizes"),
    ],
)
def test_plan_refuses(blocks: Any, wanted: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        zarr_chunks(blocks, wanted)


@pytest.mark.parametrize("wanted", [(2,), (2, 0), (2, 2, 2)])
def test_chunks_that_make_no_sense(wanted: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one positive integer for each of the 2 axes"):
        zarr_chunks([(2,), (2,)], wanted)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": "a/b"}, ValueError),
        ({"name": ""}, ValueError),
        ({"name": ".."}, ValueError),
        ({"dimension_names": ["frame", "row"]}, ValueError),
        ({"compressors": "no such codec"}, (TypeError, ValueError)),
    ],
)
def test_bad_arguments_touch_nothing(tmp_path: Path, arguments: Any, error: Any) -> None:
    with pytest.raises(error):
        write_array(da.ones(3), tmp_path / "a" / "b", **arguments)
    assert entries(tmp_path) == []


def test_chunks_too_large_for_the_codec(tmp_path: Path) -> None:
    x = da.zeros((2**31,), dtype="u1", chunks=-1)
    with pytest.raises(AlignmentError, match="larger than the 2147483647 bytes"):
        write_array(x, tmp_path / "a")
    assert entries(tmp_path) == []


def test_chunks_that_do_not_fit_into_shards(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match="not made of whole chunks"):
        to_zarr(CINE, tmp_path / "a.zarr", chunks=4, shards=6)
    assert entries(tmp_path) == []


# How it is written.


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    async def set(self, key: str, value: Any, *more: Any) -> None:
        self.counts[key] += 1
        await super().set(key, value, *more)


def test_each_frame_is_decoded_once_and_each_chunk_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: Counter[int] = Counter()
    getitem = FrameArray.__getitem__

    def counting(self: FrameArray, key: Any) -> np.ndarray:
        decoded.update(range(30)[key[0]])
        return getitem(self, key)

    monkeypatch.setattr(FrameArray, "__getitem__", counting)
    store = CountingStore()
    to_zarr(CINE, store, chunks=4)
    assert decoded == Counter(range(30))
    written = {key: n for key, n in store.counts.items() if "/c/" in key}
    pixels = {f"pixels/c/{i}/0/0/0": 1 for i in range(8)}
    assert written == {"y/c/0": 1, "x/c/0": 1, **pixels}


def test_several_chunks_of_a_block_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = CountingStore()
    write_array(da.ones((10, 4), chunks=(5, 4)), store, chunks=(5, 2))
    written = {key: n for key, n in store.counts.items() if "/c/" in key}
    assert written == {f"pixels/c/{i}/{j}": 1 for i in range(2) for j in range(2)}


def test_processes(tmp_path: Path) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        to_zarr(CINE, tmp_path / "a.zarr", chunks=10)
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr"), pixel_array(CINE))


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.usefixtures("client")
def test_cluster(tmp_path: Path, corrupt: Path) -> None:
    to_zarr(CINE, tmp_path / "a.zarr", chunks=3)
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr"), pixel_array(CINE))
    with pytest.raises(DecodeError, match="frame 2"):
        to_zarr(corrupt, tmp_path / "b.zarr", chunks=1)
    # What the workers' memory took is lost, and that is not passed over in silence.
    with pytest.raises(StoreLostError, match="0 of 10 objects"):
        to_zarr(CINE, "memory://lost.zarr", chunks=3)
    with pytest.raises(DecodeError, match="frame 2"):
        to_zarr(corrupt, tmp_path / "a.zarr", chunks=1, overwrite=True)
    deadline = time.monotonic() + 10
    while entries(tmp_path) != ["a.zarr", "b.zarr", "made.dcm"]:
        # A worker may have been about to write when another failed; it clears up.
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_task_carries_little(tmp_path: Path) -> None:
    group = zarr.create_group(LocalStore(tmp_path / "a.zarr"))
    array = group.create_array("pixels", shape=(10**6, 8, 8), chunks=(100, 8, 8), dtype="u2")
    put = pickle.dumps(Awaited(partial(write, array)))
    assert len(put) < 4000
    pickle.loads(put)((slice(0, 100), slice(0, 8), slice(0, 8)), np.ones((100, 8, 8), "u2"))
    assert array[99, 7, 7] == 1


# What is there is not lost.


def test_an_existing_store_is_kept(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameArray, "__getitem__", lambda *_: pytest.fail("decoded"))
    with pytest.raises(StoreExistsError, match="exists"):
        to_zarr(CINE, good)
    np.testing.assert_array_equal(pixels(good), range(6))
    assert entries(good.parent) == ["out.zarr"]


def test_overwrite(good: Path) -> None:
    to_zarr(CINE, good, overwrite=True)
    assert pixels(good).shape == (30, 240, 320, 3)
    assert entries(good.parent) == ["out.zarr"]


def test_overwrite_through_a_link(good: Path) -> None:
    link = good.with_name("link.zarr")
    link.symlink_to(good)
    write_array(da.ones(3), link, overwrite=True)
    assert link.is_symlink()
    np.testing.assert_array_equal(pixels(good), [1, 1, 1])
    assert entries(good.parent) == ["link.zarr", "out.zarr"]


def test_a_failure_leaves_what_was_there(corrupt: Path, good: Path) -> None:
    with pytest.raises(DecodeError, match="frame 2"):
        to_zarr(corrupt, good, overwrite=True, chunks=1)
    np.testing.assert_array_equal(pixels(good), range(6))
    assert entries(good.parent) == ["made.dcm", "out.zarr"]


def test_a_failure_leaves_what_was_written(corrupt: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "new" / "deep" / "b.zarr"
    with dask.config.set(scheduler="synchronous"), pytest.raises(DecodeError, match="frame 2"):
        to_zarr(corrupt, fresh, chunks=1)
    assert told(fresh)["complete"] is False
    assert entries(fresh.parent) == ["b.zarr"]
    with pytest.raises(StoreExistsError, match=r"not finished \(resume goes on with it\)"):
        to_zarr(corrupt, fresh, chunks=1)


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(block: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    x = da.ones(4, chunks=1).map_blocks(interrupted, meta=np.empty(0))
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        write_array(x, tmp_path / "a.zarr")
    assert entries(tmp_path) == []


def test_threads_that_run_on_are_waited_for(tmp_path: Path) -> None:
    writing = threading.Event()

    class SlowStore(LocalStore):
        async def set(self, key: str, value: Any) -> None:
            if "/c/" in key:
                writing.set()
                await asyncio.sleep(0.2)
            await super().set(key, value)

    def block(values: np.ndarray) -> np.ndarray:
        if values[0]:
            assert writing.wait(10)
            raise OSError("disk on fire")
        return values

    (tmp_path / "a").mkdir()
    x = da.from_array(np.array([0, 1]), chunks=1).map_blocks(block, meta=np.empty(0, int))
    with dask.config.set(scheduler="threads", num_workers=2), pytest.raises(OSError, match="fire"):
        write_array(x, SlowStore(tmp_path / "a"))
    assert (tmp_path / "a" / "pixels" / "c" / "0").exists()


def test_a_task_that_runs_on_clears_up(tmp_path: Path) -> None:
    root = tmp_path / f".a.zarr.partial-{'0' * 12}"
    array = zarr.create_group(LocalStore(root)).create_array("p", shape=4, chunks=2, dtype="u1")
    write(array, (slice(0, 2),), np.ones(2, "u1"))
    ownership.discard(root)
    with pytest.raises(StoreLostError, match="the store is gone"):
        write(array, (slice(2, 4),), np.ones(2, "u1"))
    assert entries(tmp_path) == []


def make_file(path: Path) -> None:
    path.write_text("keep")


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "keep.txt").write_text("keep")


def make_mixed(path: Path) -> None:
    write_array(da.ones(3), path)
    (path / "keep.txt").write_text("keep")


def make_nested(path: Path) -> None:
    write_array(da.ones(3), path)
    (path / "pixels" / "keep.txt").write_text("keep")


def make_fake(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text("[]")


def make_other(path: Path) -> None:
    zarr.create_group(path).create_array("pixels", data=np.ones(3))


def make_link(path: Path) -> None:
    write_array(da.ones(3), path)
    os.rename(path / "pixels/c/0", path.with_name("mine"))
    (path / "pixels/c/0").symlink_to(path.with_name("mine"))


def make_chunk(path: Path) -> None:
    write_array(da.ones(3), path)
    saved(path / "pixels/c", native(noise()), "1")


def make_deeper(path: Path) -> None:
    write_array(da.ones(3), path)
    os.remove(path / "pixels/c/0")
    (path / "pixels/c/0").mkdir()
    saved(path / "pixels/c/0", native(noise()), "0")


@pytest.mark.parametrize(
    "make",
    [
        *(make_file, make_folder, make_mixed, make_nested, make_fake),
        *(make_other, make_link, make_chunk, make_deeper),
    ],
)
def test_what_is_no_store_is_never_replaced(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "a.zarr"
    make(path)
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(StoreExistsError, match="stands in the way: dcmdask did not write it"):
        to_zarr(CINE, path, overwrite=True)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    to_zarr(native(noise()), tmp_path / "a.zarr")
    assert entries(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_source_is_no_target(tmp_path: Path, overwrite: bool) -> None:
    source = saved(tmp_path, native(noise()))
    data = source.read_bytes()
    with pytest.raises(ValueError, match=r"made\.dcm is the source .*made\.dcm"):
        to_zarr(source, source, overwrite=overwrite)
    with pytest.raises(NotADirectoryError, match="is a file"):
        to_zarr(source, source / "a.zarr", overwrite=overwrite)
    assert source.read_bytes() == data
    assert entries(tmp_path) == ["made.dcm"]


def test_what_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"

    def meanwhile(block: np.ndarray) -> np.ndarray:
        store.mkdir(exist_ok=True)
        (store / "keep.txt").touch()
        return block

    x = da.ones(4, chunks=2).map_blocks(meanwhile, meta=np.empty(0))
    with pytest.raises(StoreExistsError):
        write_array(x, store)
    assert entries(tmp_path) == ["a.zarr"]
    assert entries(store) == ["keep.txt"]


def test_a_failing_rename_puts_the_old_one_back(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = os.rename, []

    def failing(source: Any, destination: Any) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise PermissionError("no")
        rename(source, destination)

    monkeypatch.setattr(ownership.os, "rename", failing)
    with pytest.raises(PermissionError):
        write_array(da.ones(3), good, overwrite=True)
    np.testing.assert_array_equal(pixels(good), range(6))
    assert entries(good.parent) == ["out.zarr"]


# Stores that are written in place.


@pytest.fixture(params=["url", "store"])
def in_place(request: pytest.FixtureRequest) -> Any:
    if request.param == "store":
        return MemoryStore()
    fsspec.filesystem("memory").store.clear()
    return "memory://folder/out.zarr"


def test_in_place(in_place: Any, corrupt: Path) -> None:
    to_zarr(CINE, in_place, chunks=10)
    assert told(in_place)["complete"] is True
    np.testing.assert_array_equal(pixels(in_place), pixel_array(CINE))
    with pytest.raises(StoreExistsError, match="holds a store already"):
        to_zarr(CINE, in_place)
    with pytest.raises(DecodeError):
        to_zarr(corrupt, in_place, overwrite=True, chunks=1)
    assert told(in_place)["complete"] is False
    with pytest.raises(StoreExistsError, match="a store that is not complete"):
        to_zarr(CINE, in_place)
    report = to_zarr(native(noise()), in_place, overwrite=True)
    assert (report.shape, report.bytes_stored) == ((3, 6, 8), None)
    assert pixels(in_place).shape == (3, 6, 8)


def test_in_place_only_our_own_is_replaced(in_place: Any) -> None:
    zarr.create_group(in_place, attributes={"whose": "somebody's"})
    with pytest.raises(StoreExistsError, match="stands in the way: dcmdask did not write it"):
        to_zarr(CINE, in_place, overwrite=True)
    assert dict(zarr.open_group(in_place, mode="r").attrs) == {"whose": "somebody's"}


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    report = to_zarr(native(noise()), f"file://{tmp_path}/a.zarr")
    assert report.bytes_stored
    assert entries(tmp_path) == ["a.zarr"]


def test_attributes_of_ones_own(tmp_path: Path) -> None:
    write_array(
        da.ones((2, 3)),
        tmp_path / "a.zarr",
        name="mine",
        dimension_names=("y", None),
        attributes={"unit": "mm"},
    )
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert dict(group.attrs) == {
        "unit": "mm",
        "dcmdask": {"complete": True, "arrays": {"mine": [1, 1]}},
    }
    assert group["mine"].metadata.dimension_names == ("y", None)
    assert json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["zarr_format"] == 3


def test_rle_in_several_chunks(tmp_path: Path) -> None:
    frames = noise(7, dtype="u2", bits=12)
    source = encapsulated(frames, RLELossless, BitsStored=12, HighBit=11)
    to_zarr(source, tmp_path / "a.zarr", chunks=3)
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr"), frames)
    np.testing.assert_array_equal(from_dicom(source).compute(), frames)


@pytest.mark.parametrize(
    "wrong",
    [lambda b: b[:1], lambda b: b.sum(), lambda b: b.astype("f8")],
    ids=["less", "0-d", "f8"],
)
def test_blocks_that_are_not_what_the_array_says(tmp_path: Path, wrong: Any) -> None:
    ones = da.ones((4, 6), chunks=(2, 6), dtype="i4")
    x = ones.map_blocks(wrong, chunks=((2, 2), (6,)), dtype="i4", meta=np.empty((0, 0), "i4"))
    with pytest.raises(AlignmentError, match="a task gave"):
        write_array(x, tmp_path / "x.zarr")
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_chunks_is_deleted(tmp_path: Path) -> None:
    store = tmp_path / "x.zarr"
    x = da.ones((4, 6), chunks=(2, 6))
    write_array(x, store)
    (store / "pixels" / "c" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreExistsError, match="thesis"):
        write_array(x, store, overwrite=True)
    assert (store / "pixels" / "c" / "thesis.txt").read_text() == "years of work"


def test_what_is_no_dask_array(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Dask array"):
        write_array(np.ones((2, 3)), tmp_path / "x.zarr")
    with pytest.raises(ValueError, match="no name"):
        write_array(da.ones((2, 3)), "")


def test_damaged_functional_groups_are_left_out(tmp_path: Path) -> None:
    frames = noise(2, 5, 6)
    data = native(frames, SharedFunctionalGroupsSequence=[Dataset()])
    at = data.index(bytes.fromhex("0052 2992")) + 12
    damaged = data[:at] + b"\xff" * 8 + data[at + 8 :]
    report = to_zarr(damaged, tmp_path / "x.zarr")
    assert report.shape == (2, 5, 6)
