"""Where bytes come from: paths, file-likes, bytes, data sets and URLs, all read alike."""

import gzip
import http.server
import io
import itertools
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from make_dicom import encapsulated, native, noise, saved
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dcmdask.errors import (
    DcmdaskError,
    HeaderError,
    MissingElementError,
    NoPixelDataError,
    PixelDataError,
    SourceChangedError,
)
from dcmdask.pixels.frame_array import open_frames
from dcmdask.pixels.pixel_array import iter_pixels, pixel_array
from dcmdask.sources.ranges import COALESCE_GAP, COALESCE_LENGTH, FIRST, coalesce

FRAMES = noise(6, 9, 10, dtype="u2")
KINDS = {
    "native": native(FRAMES),
    "implicit": native(FRAMES, ImplicitVRLittleEndian),
    "big endian": native(FRAMES, ExplicitVRBigEndian),
    "deflated": native(FRAMES, DeflatedExplicitVRLittleEndian),
    "RLE": encapsulated(FRAMES, RLELossless),
    "extended": encapsulated(FRAMES, RLELossless, table="extended"),
    "fragments": encapsulated(noise(6, 9, 10), JPEGLSLossless, table="none", fragments=3),
}


class PathLike:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __fspath__(self) -> str:
        return self.path


class BytesPath(PathLike):
    def __fspath__(self) -> Any:
        return os.fsencode(self.path)


class NamedBytes(io.BytesIO):
    """A file-like that is no plain file, though it has the name of one."""

    name = "elsewhere.dcm"


OPENERS: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "Path": Path,
    "path-like": PathLike,
    "bytes path": BytesPath,
    "file": lambda path: path.open("rb"),
    "unbuffered file": lambda path: path.open("rb", buffering=0),
    "file for update": lambda path: path.open("r+b"),
    "descriptor": lambda path: os.fdopen(os.open(path, os.O_RDONLY), "rb"),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "named BytesIO": lambda path: NamedBytes(path.read_bytes()),
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "Dataset": dcmread,
    "deferred Dataset": lambda path: dcmread(path, defer_size=64),
    "file URL": lambda path: path.as_uri(),
    "fsspec file": lambda path: fsspec.open(path.as_uri(), "rb").open(),
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same(kind: str, opener: str, tmp_path: Path) -> None:
    path = saved(tmp_path, KINDS[kind])
    expected = open_frames(path)[:]
    source = OPENERS[opener](path)
    is_file = hasattr(source, "seek")
    if is_file:
        source.seek(7)
    frames = open_frames(source)
    np.testing.assert_array_equal(frames[::-2], expected[::-2])
    np.testing.assert_array_equal(pixel_array(source), expected)
    assert sum(1 for _ in iter_pixels(source)) == len(expected)
    assert frames.dataset.Rows == 9
    assert frames.dataset.PatientName == "Made^For^Tests"
    assert "PixelData" not in frames.dataset
    if not isinstance(source, Dataset):
        filled = Dataset()
        pixel_array(source, ds_out=filled, specific_tags=[0x00100010])
        assert (filled.Rows, filled.PatientName) == (9, "Made^For^Tests")
        assert filled.file_meta.TransferSyntaxUID == frames.transfer_syntax
    again = pickle.loads(pickle.dumps(frames))
    np.testing.assert_array_equal(again[2], expected[2])
    assert again.token == frames.token
    if is_file:
        assert source.tell() == 7
        source.close()
        # Reopened, or held: the caller's handle is not needed any more.
        np.testing.assert_array_equal(frames[1], expected[1])


def test_a_file_that_is_written_to_is_flushed_first(tmp_path: Path) -> None:
    with (tmp_path / "a.dcm").open("w+b") as file:
        file.write(KINDS["native"])
        np.testing.assert_array_equal(open_frames(file)[:], FRAMES)


def test_a_gzip_file_is_read_and_not_the_file_it_names(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm.gz"
    path.write_bytes(gzip.compress(KINDS["RLE"]))
    with gzip.open(path) as file:
        file.seek(100)
        np.testing.assert_array_equal(open_frames(file)[:], FRAMES)
        assert file.tell() == 100


def test_an_open_file_that_was_replaced_is_the_one_read(tmp_path: Path) -> None:
    path = saved(tmp_path, KINDS["native"])
    with path.open("rb") as file:
        saved(tmp_path, native(FRAMES[::-1]), "new.dcm").replace(path)
        np.testing.assert_array_equal(open_frames(file)[:], FRAMES)
        path.unlink()
        np.testing.assert_array_equal(open_frames(file)[:], FRAMES)


def test_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("not binary")
    with pytest.raises((TypeError, DcmdaskError)), path.open() as file:
        open_frames(file)
    with pytest.raises(TypeError, match="binary"):
        open_frames(io.StringIO("not binary"))


# URLs.


@pytest.mark.parametrize("kind", KINDS)
def test_urls(kind: str, tmp_path: Path) -> None:
    expected = open_frames(KINDS[kind])[:]
    fsspec.filesystem("memory").pipe("/sources/a.dcm", KINDS[kind])
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("study/a.dcm", KINDS[kind])
    for url in ("memory://sources/a.dcm", f"zip://study/a.dcm::file://{archive}"):
        frames = open_frames(url)
        np.testing.assert_array_equal(frames[[4, 0]], expected[[4, 0]])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[:], expected)
        np.testing.assert_array_equal(pixel_array(url), expected)
        assert frames.dataset.Rows == 9
        assert url in repr(frames)
        filled = Dataset()
        pixel_array(url, ds_out=filled)
        assert filled.Rows == 9


def test_urls_that_lead_nowhere(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/sources/folder/a.dcm", b"")
    with pytest.raises(FileNotFoundError):
        open_frames("memory://sources/none.dcm")
    with pytest.raises(IsADirectoryError):
        open_frames("memory://sources/folder")
    with pytest.raises(ValueError, match="nonesuch"):
        open_frames("nonesuch://a.dcm")
    for src in (saved(tmp_path, KINDS["RLE"]), KINDS["RLE"], io.BytesIO(KINDS["RLE"])):
        with pytest.raises(ValueError, match="storage_options are for URLs"):
            open_frames(src, storage_options={"anon": True})


def test_storage_options_reach_the_file_system(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/sources/cached.dcm", KINDS["RLE"])
    frames = open_frames(
        "simplecache::memory://sources/cached.dcm",
        storage_options={"simplecache": {"cache_storage": str(tmp_path / "cache")}},
    )
    np.testing.assert_array_equal(frames[:], FRAMES)
    assert any((tmp_path / "cache").iterdir())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str, bytes], str]]:
    """Serve bytes over HTTP; this server answers a request for a range with everything."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def publish(name: str, data: bytes) -> str:
        saved(tmp_path, data, name)
        return f"http://127.0.0.1:{server.server_port}/{name}"

    yield publish
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_http_without_ranges(kind: str, serve: Callable[[str, bytes], str]) -> None:
    expected = open_frames(KINDS[kind])[:]
    frames = open_frames(serve("a.dcm", KINDS[kind]))
    np.testing.assert_array_equal(frames[:], expected)
    np.testing.assert_array_equal(frames[4], expected[4])


def test_http_without_ranges_and_a_large_file(serve: Callable[[str, bytes], str]) -> None:
    # Larger than one block, so that reading on asks for a range.
    frames = noise(30, 128, 256)
    url = serve("large.dcm", native(frames))
    opened = open_frames(url)
    np.testing.assert_array_equal(opened[[29, 3]], frames[[29, 3]])
    with pytest.raises(FileNotFoundError):
        open_frames(url.replace("large", "none"))


def test_a_url_without_ranges_takes_no_more_than_the_limit(
    serve: Callable[[str, bytes], str],
) -> None:
    frames = noise(30, 64, 64)
    url = serve("whole.dcm", native(frames))
    assert open_frames(url).shape == frames.shape
    # Fewer than a first look brings, as many, and more.
    for limit in (100, FIRST, 100_000):
        with pytest.raises(PixelDataError, match=f"more than {limit} bytes would be read into"):
            open_frames(url, inflate_limit=limit)


# What a remote read asks for.


@given(
    ranges=st.lists(
        st.tuples(st.integers(0, 10**8), st.integers(0, 10**6)), min_size=1, max_size=20
    )
)
@example(ranges=[(i * 10**6, 10**6) for i in range(100)])
def test_requests_cover_every_range_once(ranges: list[tuple[int, int]]) -> None:
    offsets, lengths = [r[0] for r in ranges], [r[1] for r in ranges]
    requests = coalesce(offsets, lengths)
    members = sorted(m for _, _, some in requests for m in some)
    assert members == list(range(len(ranges)))
    for start, end, some in requests:
        for m in some:
            assert start <= offsets[m] and offsets[m] + lengths[m] <= end
        assert len(some) == 1 or end - start <= COALESCE_LENGTH
    for (_, end, _), (start, _, _) in itertools.pairwise(requests):
        assert start >= end or start - end <= COALESCE_GAP


# Sources that change, or are none.


def test_a_file_that_changed_after_opening(tmp_path: Path) -> None:
    path = saved(tmp_path, KINDS["native"])
    frames = open_frames(path)
    path.write_bytes(KINDS["native"][:-50])
    with pytest.raises(SourceChangedError, match=rf"{re.escape(str(path))}.*bytes now"):
        frames[0]
    path.write_bytes(KINDS["native"])
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceChangedError, match="changed"):
        frames[0]
    with pytest.raises(SourceChangedError):
        assert frames.dataset
    with pytest.raises(OSError):
        frames[0]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        frames[0]


def test_a_url_that_became_shorter() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/sources/b.dcm", KINDS["native"])
    frames = open_frames("memory://sources/b.dcm")
    memory.pipe("/sources/b.dcm", KINDS["native"][:-50])
    with pytest.raises(SourceChangedError):
        frames[5]


def test_no_file_at_all(tmp_path: Path) -> None:
    for opens in (open_frames, pixel_array, lambda p: next(iter_pixels(p))):
        with pytest.raises(FileNotFoundError):
            opens(tmp_path / "none.dcm")
        with pytest.raises(IsADirectoryError, match="is a directory"):
            opens(tmp_path)
        with pytest.raises(TypeError):
            opens(None)
        with pytest.raises(TypeError):
            opens(3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        open_frames(tmp_path / "fifo")


# Data sets.


def test_a_dataset_in_memory() -> None:
    dataset = dcmread(io.BytesIO(KINDS["native"]))
    dataset.PixelData = FRAMES[::-1].tobytes()
    frames = open_frames(dataset)
    np.testing.assert_array_equal(frames[:], FRAMES[::-1])
    assert frames.dataset.Rows == 9 and "PixelData" in dataset
    token = frames.token
    dataset.PixelData = FRAMES.tobytes()
    assert open_frames(dataset).token != token
    np.testing.assert_array_equal(frames[:], FRAMES[::-1])


def test_buffered_pixel_data(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(FRAMES.tobytes())
    dataset = dcmread(io.BytesIO(KINDS["native"]))
    with (tmp_path / "raw").open("rb") as file:
        dataset.PixelData = file
        file.seek(0)
        np.testing.assert_array_equal(open_frames(dataset)[:], FRAMES)


def test_datasets_that_lack_something() -> None:
    dataset = dcmread(io.BytesIO(KINDS["native"]))
    del dataset.file_meta
    with pytest.raises(MissingElementError, match="transfer_syntax_uid"):
        open_frames(dataset)
    frames = open_frames(dataset, transfer_syntax_uid="1.2.840.10008.1.2.1")
    np.testing.assert_array_equal(frames[:], FRAMES)
    assert frames.dataset.Rows == 9
    dataset = dcmread(io.BytesIO(KINDS["native"]))
    dataset.FloatPixelData = b"1234"
    with pytest.raises(HeaderError, match="PixelData"):
        open_frames(dataset)
    for empty in (b"", None):
        dataset = dcmread(io.BytesIO(KINDS["native"]))
        dataset.PixelData = empty
        with pytest.raises(NoPixelDataError):
            open_frames(dataset)
    del dataset.PixelData
    with pytest.raises(NoPixelDataError):
        open_frames(dataset)
    dataset = dcmread(io.BytesIO(KINDS["native"]))
    del dataset.Rows
    with pytest.raises(MissingElementError, match="rows"):
        open_frames(dataset)
    np.testing.assert_array_equal(open_frames(dataset, rows=9)[:], FRAMES)


def test_an_encapsulated_dataset_with_its_tables() -> None:
    for kind in ("RLE", "extended"):
        dataset = dcmread(io.BytesIO(KINDS[kind]))
        frames = open_frames(dataset)
        np.testing.assert_array_equal(frames[:], FRAMES)
        assert "Offset Table" in frames.indexed_by


def test_a_path_is_never_a_url(tmp_path: Path) -> None:
    path = tmp_path / "a::b.dcm"
    path.write_bytes(native(FRAMES))
    np.testing.assert_array_equal(open_frames(path)[:], FRAMES)
