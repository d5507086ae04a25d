"""`from_dicom`: lazy, pushed down, planned, and the same under every scheduler."""

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pytest
from counting import count_decodings
from hypothesis import given
from hypothesis import strategies as st
from make_dicom import LOSSLESS, described, encapsulated, encoded, native, noise, saved
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dcmdask.archive.from_dicom import from_dicom
from dcmdask.arrays.chunks import (
    LEAST_CHUNKS,
    LEAST_TASK_SECONDS,
    SECONDS_PER_FRAME,
    plan_chunks,
)
from dcmdask.dicom.image_pixel import image_pixel
from dcmdask.dicom.instance import Instance
from dcmdask.dicom.offsets import ItemSpans
from dcmdask.errors import DecodeError
from dcmdask.pixels.decode import Decoding
from dcmdask.pixels.frame_array import FrameArray, open_frames
from dcmdask.sources.files import LocalFile

FRAMES = noise(120, 12, 16, dtype="u2", bits=12)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("dask"), encapsulated(FRAMES, JPEGLSLossless))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of every frame that is decoded while the test runs."""
    log: list[int] = []
    count_decodings(monkeypatch, log.append)
    return log


def synthetic(
    count: int,
    rows: int = 64,
    columns: int = 64,
    samples: int = 1,
    syntax: str = JPEGLSLossless,
    source: LocalFile | None = None,
    length: int = 1000,
) -> FrameArray:
    """Frames of an instance that was indexed, of a file that need not be there."""
    shape = (1, rows, columns) if samples == 1 else (1, rows, columns, samples)
    dataset = described(np.broadcast_to(np.uint8(0), shape), NumberOfFrames=count)
    pixels, _ = image_pixel(dataset, UID(syntax), {"pixel_keyword": "PixelData"}, "a")
    offsets = 1000 + np.arange(count, dtype=np.int64) * (length + 8)
    spans = ItemSpans(offsets, np.full(count, length + 8, np.int64))
    source = source or LocalFile("/nowhere/a.dcm", int(offsets[-1]) + length + 8, 0)
    return FrameArray(Instance(source, pixels, spans, "a test", ()), Decoding())


# Laziness.

SELECTIONS: list[tuple[Any, list[int]]] = [
    ((5,), [5]),
    ((-1,), [119]),
    ((slice(3, 5), slice(10, 12)), [3, 4]),
    ((slice(None, None, 50),), [0, 50, 100]),
    ((slice(101, 120, 9), 3, slice(2, 9)), [101, 110, 119]),
    ((slice(4, 4),), []),
]


@pytest.mark.parametrize("chunks", ["auto", -1, 7])
@pytest.mark.parametrize(("key", "frames"), SELECTIONS, ids=str)
def test_a_slice_decodes_only_its_frames(
    chunks: Any, key: Any, frames: list[int], path: Path, decoded: list[int]
) -> None:
    x = from_dicom(path, chunks=chunks)
    selected = x[key]
    assert decoded == []
    np.testing.assert_array_equal(selected.compute(), FRAMES[key])
    assert sorted(decoded) == frames


def test_a_labelled_slice_decodes_only_its_frames(path: Path, decoded: list[int]) -> None:
    import xarray

    x = xarray.DataArray(from_dicom(path, chunks=40), dims=("frame", "row", "column"))
    selected = x.isel(frame=7, row=slice(2, 5))
    assert decoded == []
    np.testing.assert_array_equal(selected.values, FRAMES[7, 2:5])
    assert decoded == [7]


def test_a_reduction_decodes_each_frame_once(path: Path, decoded: list[int]) -> None:
    mean = from_dicom(path).mean(axis=0)
    assert decoded == []
    np.testing.assert_allclose(mean.compute(), FRAMES.mean(axis=0))
    assert sorted(decoded) == list(range(120))


def test_what_is_declared_is_computed(tmp_path: Path) -> None:
    made = {
        "grey": native(noise(3, 4, 5, dtype="i2")),
        "big endian": native(noise(3, 4, 5, dtype="u2"), ExplicitVRBigEndian),
        "float": native(noise(3, 4, 5, dtype="f4")),
        "colour": encapsulated(noise(3, 8, 8, 3), JPEG2000Lossless),
        "one frame": native(noise(1, 4, 5)),
        "one colour frame": encapsulated(noise(1, 8, 8, 3), RLELossless),
    }
    for name, data in made.items():
        file = saved(tmp_path, data)
        x = from_dicom(file)
        computed = x.compute()
        assert (x.shape, x.dtype) == (computed.shape, computed.dtype), name
        assert type(x._meta) is np.ndarray and x._meta.dtype == x.dtype
        assert x.ndim == (4 if "colour" in name else 3)
        np.testing.assert_array_equal(computed, open_frames(file)[:])
        blocks: Any = x.map_blocks(lambda block: block[:, :1, :1].copy())
        assert blocks.dtype == x.dtype


def test_sources_and_options(path: Path, tmp_path: Path) -> None:
    np.testing.assert_array_equal(from_dicom(path.read_bytes()), FRAMES)
    np.testing.assert_array_equal(from_dicom(open_frames(path))[3], FRAMES[3])
    with pytest.raises(TypeError, match="has its options already"):
        from_dicom(open_frames(path), raw=True)
    for name in ("index", "indices", "view_only", "ds_out", "nonesuch"):
        with pytest.raises(TypeError, match=repr(name)):
            from_dicom(path, **{name: 1})
    grey = saved(tmp_path, native(FRAMES))
    np.testing.assert_array_equal(
        from_dicom(grey, rows=16, columns=12), FRAMES.reshape(120, 16, 12)
    )


def test_a_bad_frame_fails_its_task_alone(tmp_path: Path) -> None:
    streams = [encoded(frame, RLELossless) for frame in FRAMES[:6]]
    streams[2] = bytes(len(streams[2]))
    bad = saved(tmp_path, encapsulated(FRAMES[:6], RLELossless, streams=streams))
    x = from_dicom(bad, chunks=2)
    np.testing.assert_array_equal(x[3:].compute(), FRAMES[3:6])
    for scheduler in ("synchronous", "threads", "processes"):
        with pytest.raises(DecodeError, match="frame 2") as caught:
            x.compute(scheduler=scheduler)
        assert caught.value.frame == 2


# Chunks.

SHAPE = (120, 12, 16)


@pytest.mark.parametrize(
    ("chunks", "along"),
    [
        (50, (50, 50, 20)),
        (np.int64(50), (50, 50, 20)),
        (1000, (120,)),
        (-1, (120,)),
        (None, (120,)),
        ("auto", (54, 54, 12)),
        (f"{12 * 16 * 2 * 40} B", (40, 40, 40)),
        ("64 MiB", (120,)),
        ("1 B", (1,) * 120),
        ((50, -1, -1), (50, 50, 20)),
        ((50, 12, 16), (50, 50, 20)),
        ((50, None, 100), (50, 50, 20)),
        (("auto", -1, -1), (54, 54, 12)),
        (((100, 20), (12,), (16,)), (100, 20)),
        (((100, 20), -1, -1), (100, 20)),
        ({0: 60}, (60, 60)),
        ({}, (54, 54, 12)),
        ({0: (100, 20), 1: -1}, (100, 20)),
        ([60, -1, -1], (60, 60)),
    ],
    ids=str,
)
def test_chunks_are_whole_frames(chunks: Any, along: tuple[int, ...], path: Path) -> None:
    x = from_dicom(path, chunks=chunks)
    assert x.chunks == (along, (12,), (16,))
    np.testing.assert_array_equal(x[[0, -1]].compute(), FRAMES[[0, -1]])


@pytest.mark.parametrize(
    "chunks",
    [
        (50, 6, -1),
        (50, -1, 8),
        (50, (6, 6), -1),
        {0: 50, 2: 8},
        {1: 6},
        (50, 12),
        (50, -1, -1, -1),
        (),
        ((100, 30), -1, -1),
        "nonsense",
        (50, "8 B", -1),
    ],
    ids=str,
)
def test_chunks_that_split_frames_or_do_not_add_up(chunks: Any, path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        from_dicom(path, chunks=chunks)
    if chunks in ((50, 6, -1), {1: 6}):
        assert ".rechunk({1: 6})" in str(caught.value)


@given(
    count=st.integers(1, 5000),
    rows=st.integers(1, 4096),
    columns=st.integers(1, 4096),
    samples=st.sampled_from([1, 3]),
    syntax=st.sampled_from([*LOSSLESS, ExplicitVRLittleEndian]),
    limit=st.sampled_from([1 << 20, 1 << 27]),
)
def test_planned_chunks(
    count: int, rows: int, columns: int, samples: int, syntax: str, limit: int
) -> None:
    frames = synthetic(count, rows, columns, samples, syntax)
    with dask.config.set({"array.chunk-size": limit}):
        along, *rest = plan_chunks(frames)
        assert plan_chunks(frames) == (along, *rest)
    assert sum(along) == count and min(along) >= 1
    assert rest == [(length,) for length in frames.shape[1:]]
    assert (
        len(along) >= min(count, LEAST_CHUNKS) or along[0] * SECONDS_PER_FRAME <= LEAST_TASK_SECONDS
    )
    # All but the last are equal, as Zarr wants them.
    assert set(along[:-1]) <= {along[0]} and along[-1] <= along[0]
    frame_bytes = math.prod(frames.shape[1:])
    assert along[0] == 1 or along[0] * frame_bytes <= limit / 4


# Names.


def test_names_are_deterministic(path: Path, tmp_path: Path) -> None:
    assert from_dicom(path).name == from_dicom(str(path)).name
    names = {
        from_dicom(path, **options).name
        for options in (
            {},
            {"chunks": 50},
            {"raw": True},
            {"decoding_plugin": "imagecodecs"},
            {"bits_stored": 12},
            {"chunks": ((50, 60, 10), -1, -1)},
            {"chunks": ((50, 10, 60), -1, -1)},
        )
    }
    assert len(names) == 7
    copy = saved(tmp_path, path.read_bytes())
    assert from_dicom(copy).name not in names
    assert dask.base.tokenize(open_frames(path)) == dask.base.tokenize(open_frames(path))


def test_two_chunkings_of_one_file_in_one_graph(path: Path) -> None:
    # Dask takes tasks of one name for the same, so chunks of other sizes need another name.
    one = from_dicom(path, chunks=((50, 70), -1, -1))
    two = from_dicom(path, chunks=((50, 30, 40), -1, -1))
    for computed in dask.compute(one, two):
        np.testing.assert_array_equal(computed, FRAMES)


# What a graph carries.


def test_a_million_frames_travel_light(tmp_path: Path, decoded: list[int]) -> None:
    frame = noise(1, 16, 16)[0]
    stream = encoded(frame, JPEGLSLossless)
    stream += bytes(len(stream) % 2)
    item = b"\xfe\xff\x00\xe0" + len(stream).to_bytes(4, "little") + stream
    count, wanted = 10**6, 765_432
    # A file with holes: only the frame that is asked for is there.
    sparse = tmp_path / "sparse.dcm"
    with sparse.open("wb") as file:
        file.seek(1000 + wanted * len(item))
        file.write(item)
        file.truncate(1000 + count * len(item))
    status = sparse.stat()
    source = LocalFile(str(sparse), status.st_size, status.st_mtime_ns)
    frames = synthetic(count, 16, 16, source=source, length=len(stream))
    x = from_dicom(frames)
    assert len(pickle.dumps(frames)) < 5_000_000
    assert len(cloudpickle.dumps(x)) < 5_000_000
    # With an index of its own for every task it would be terabytes.
    assert len(x.dask.layers) == 2 or len(pickle.dumps(dict(x[:3].dask))) < 6_000_000
    np.testing.assert_array_equal(x[wanted].compute(), frame)
    assert decoded == [wanted]
    again = cloudpickle.loads(cloudpickle.dumps(x))
    np.testing.assert_array_equal(again[wanted, 3:5].compute(), frame[3:5])
    assert again.name == x.name


# Schedulers.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import distributed

    with (
        dask.config.set({"distributed.worker.daemon": True}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        yield client


KINDS = {
    "native": lambda: native(FRAMES),
    "deflated": lambda: native(FRAMES, UID("1.2.840.10008.1.2.1.99")),
    "RLE": lambda: encapsulated(FRAMES, RLELossless),
    "fragments": lambda: encapsulated(FRAMES, JPEG2000Lossless, table="none", fragments=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_schedulers_agree(kind: str, tmp_path: Path) -> None:
    x = from_dicom(saved(tmp_path, KINDS[kind]()))
    # Starting processes takes seconds, so not every kind of file has its own.
    processes = ["processes"] if kind in ("deflated", "fragments") else []
    for scheduler in ("synchronous", "threads", *processes):
        sums, some = dask.compute(
            x[::3].sum(axis=(1, 2)), x[5:9], scheduler=scheduler, num_workers=2
        )
        np.testing.assert_array_equal(sums, FRAMES[::3].sum(axis=(1, 2)))
        np.testing.assert_array_equal(some, FRAMES[5:9])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster_of_two_processes_agrees(kind: str, tmp_path: Path, cluster: Any) -> None:
    x = from_dicom(saved(tmp_path, KINDS[kind]()), chunks=10)
    whole, one = cluster.gather(cluster.compute([x, x[17, 3:5]]))
    np.testing.assert_array_equal(whole, FRAMES)
    np.testing.assert_array_equal(one, FRAMES[17, 3:5])
    workers = {address for who in cluster.who_has().values() for address in who}
    assert workers <= set(cluster.scheduler_info()["workers"])


def test_an_error_comes_back_from_a_cluster(tmp_path: Path, cluster: Any) -> None:
    streams = [encoded(frame, RLELossless) for frame in FRAMES[:4]]
    streams[1] = bytes(len(streams[1]))
    bad = saved(tmp_path, encapsulated(FRAMES[:4], RLELossless, streams=streams))
    x = from_dicom(bad, chunks=1)
    with pytest.raises(DecodeError, match=r"made\.dcm, frame 1") as caught:
        cluster.compute(x, sync=True)
    assert caught.value.frame == 1
    np.testing.assert_array_equal(cluster.compute(x[2:], sync=True), FRAMES[2:4])


@pytest.mark.parametrize("chunks", [0, -2, {7: 5}, {-1: 1}, {"frame": 10}])
def test_chunks_that_mean_nothing_are_refused(chunks: Any) -> None:
    with pytest.raises(ValueError, match="chunks"):
        from_dicom(native(noise(4, 5, 6)), chunks=chunks)
