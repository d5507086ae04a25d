"""Requests and bytes of opening and reading, for every encoding and kind of offset table."""

import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytest
import s3_here
from made_slides import Made, made_slide
from make_dicom import encapsulated, encoded, native, noise, saved
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from servers import nginx

from dcmdask import from_dicom, open_slide
from dcmdask.dicom.offsets import Spans
from dcmdask.pixels.frame_array import open_frames
from dcmdask.sources import files
from dcmdask.sources.ranges import COALESCE_GAP, FIRST

# 80 frames of 15 to 20 KB, of which each 25th is too far from the next to be fetched with it.
COUNT = 80
FRAMES = np.resize(noise(8, 128, 160, bits=6), (COUNT, 128, 160))
BITS = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
NATIVE: dict[str, Callable[[], bytes]] = {
    "little": lambda: native(FRAMES),
    "implicit": lambda: native(FRAMES, ImplicitVRLittleEndian),
    "big": lambda: native(FRAMES.view("u2"), ExplicitVRBigEndian),
    # Neighbours share a byte.
    "bits": lambda: native(noise(COUNT, 401, 401, dtype="?"), **BITS),
    "float": lambda: native(noise(COUNT, 64, 80, dtype="f4")),
    "double": lambda: native(noise(COUNT, 64, 40, dtype="f8")),
    "single": lambda: native(FRAMES[:1]),
}
CODECS = {
    "rle": RLELossless,
    "jpeg": JPEGBaseline8Bit,
    "jpeg-lossless": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
    "htj2k": HTJ2KLossless,
}
TABLES = ("basic", "extended", "none")
ENCAPSULATED = [
    *((name, table, COUNT) for name in CODECS for table in TABLES),
    *((name, table, 1) for name in CODECS for table in TABLES),
]
# Organisation, offset table, and kind of TIFF file that a slide also is.
SLIDES = [
    *((kind, table, "") for kind in ("TILED_FULL", "TILED_SPARSE") for table in TABLES),
    ("TILED_FULL", "none", "II*"),
    ("TILED_SPARSE", "none", "MM+"),
]
CALLED = {
    "basic": "Basic Offset Table",
    "extended": "Extended Offset Table",
    "none": "item headers",
}
# Requests and bytes beyond a header and a table that opening takes at most.
REQUESTS, BEYOND = 4, 300_000


class Moved(NamedTuple):
    """What has been asked for; a read of a local file is no request."""

    requests: int
    bytes: int


class Place(Protocol):
    """Where files are read from."""

    def put(self, path: Path) -> tuple[str, dict[str, Any] | None]:
        """Return the source of a file that is put there, and its storage options."""

    def moved(self) -> Moved:
        """Return what has been asked for since this was called before."""


class Local:
    """Files of this machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read = 0
        place = self

        class Counted(io.FileIO):
            def read(self, size: int | None = -1, /) -> Any:
                data = super().read(size)
                place._read += len(data)
                return data

            def readinto(self, room: Any, /) -> Any:
                count = super().readinto(room)
                place._read += count
                return count

        monkeypatch.setattr(files, "open", lambda path, *_, **__: Counted(path), raising=False)

    def put(self, path: Path) -> tuple[str, dict[str, Any] | None]:
        return str(path), None

    def moved(self) -> Moved:
        read, self._read = self._read, 0
        return Moved(0, read)


class Http:
    """Files that a web server gives."""

    def __init__(self, server: nginx.Nginx, folder: Path) -> None:
        self._server, self._folder = server, folder

    def put(self, path: Path) -> tuple[str, dict[str, Any] | None]:
        return f"{self._server.url}/{path.relative_to(self._folder)}", None

    def moved(self) -> Moved:
        asked = self._server.asked()
        return Moved(len(asked), sum(one.sent for one in asked))


class Store:
    """Objects of a store."""

    def __init__(self, server: s3_here.Server) -> None:
        self._server = server

    def put(self, path: Path) -> tuple[str, dict[str, Any] | None]:
        self._server.put(path.name, path.read_bytes())
        return f"s3://{s3_here.BUCKET}/{path.name}", self._server.options

    def moved(self) -> Moved:
        asked = list(self._server.asked)
        self._server.asked.clear()
        return Moved(len(asked), sum(one.sent for one in asked))


@cache
def codestreams(name: str) -> list[bytes]:
    # JPEG makes little of differences that are small.
    frames = FRAMES[:8] << 2 if name == "jpeg" else FRAMES[:8]
    return [encoded(frame, CODECS[name]) for frame in frames]


def encapsulated_file(name: str, table: str, count: int) -> bytes:
    streams = [codestreams(name)[frame % 8] for frame in range(count)]
    return encapsulated(FRAMES[:count], CODECS[name], table=table, streams=streams)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def web(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[nginx.Nginx]:
    if nginx.missing():
        pytest.skip(nginx.missing())
    with nginx.serving(folder, tmp_path_factory.mktemp("nginx")) as served:
        yield served


@pytest.fixture(scope="module")
def store() -> Iterator[s3_here.Server]:
    with s3_here.serving() as served:
        yield served


@pytest.fixture(params=["local", "http", "s3"])
def place(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "local":
        return Local(monkeypatch)
    if request.param == "http":
        return Http(request.getfixturevalue("web"), folder)
    return Store(request.getfixturevalue("store"))


def check(path: Path, place: Place, indexed_by: str) -> None:
    """Check what opening and reading a file ask for, and that its frames are those of the file."""
    local = open_frames(path)
    count, size = len(local), path.stat().st_size
    spans = local.instance.spans
    (first, last), (_, length) = spans.locate(np.array([0, count - 1]))
    adjacent, scattered = slice(count // 3, 2 * count // 3 + 1), slice(0, count, 25)
    expected = local[:]
    source, options = place.put(path)
    is_local = source == str(path)

    place.moved()
    x = from_dicom(source, storage_options=options)
    opened = place.moved()
    walks = indexed_by == "item headers" and count > 1 and not is_local
    if walks:
        assert opened.requests <= 8 and opened.bytes <= 1.02 * size
    else:
        # The tags of a TIFF file lie behind the frames, and are found in two steps.
        behind, more = (size - last - length, 2) if "TIFF" in indexed_by else (0, 0)
        assert opened.requests <= REQUESTS + more
        assert opened.bytes <= first + behind + BEYOND
        # A web server is asked for the last byte of a small file by itself, by header and index.
        assert is_local or opened.bytes <= size + isinstance(place, Http)
        assert count > 1 or not isinstance(place, Store) or opened.requests == 2

    for some in (slice(count - 1, count), scattered):
        np.testing.assert_array_equal(x[some].compute(), expected[some])
        _compare(place.moved(), spans, range(count)[some], 0 if is_local else len(expected[some]))

    some = x[adjacent]
    np.testing.assert_array_equal(some.compute(), expected[adjacent])
    # One for each chunk.
    requests = 0 if is_local else some.numblocks[0]
    _compare(place.moved(), spans, range(count)[adjacent], requests)


def _compare(moved: Moved, spans: Spans, frames: range, requests: int) -> None:
    _, lengths = spans.locate(np.array(frames))
    assert moved.requests == requests
    # Neighbours that share a byte are read as one.
    assert sum(lengths) - len(frames) <= moved.bytes <= 1.1 * sum(lengths)


@pytest.mark.parametrize("name", NATIVE)
def test_native(name: str, place: Place, folder: Path) -> None:
    path = saved(folder, NATIVE[name](), f"{name}.dcm")
    check(path, place, "arithmetic over native pixel data")


@pytest.mark.parametrize(("name", "table", "count"), ENCAPSULATED)
def test_encapsulated(name: str, table: str, count: int, place: Place, folder: Path) -> None:
    path = saved(folder, encapsulated_file(name, table, count), f"{name}-{table}-{count}.dcm")
    check(path, place, CALLED[table])


@cache
def slide(folder: Path, organisation: str, table: str, dual: str) -> Made:
    look = {"organisation": organisation, "table": table, "dual": dual}
    made = made_slide(
        folder / "-".join(look.values()).replace("*", ""),
        (7 * 192, 9 * 192),
        (192, 192),
        syntax=JPEGLSLossless,
        **look,
    )
    return made.levels[0]


@pytest.mark.parametrize(("organisation", "table", "dual"), SLIDES)
def test_slides(organisation: str, table: str, dual: str, place: Place, folder: Path) -> None:
    level = slide(folder, organisation, table, dual)
    check(level.path, place, "TIFF tag TileOffsets" if dual else CALLED[table])
    # A region of the total pixel matrix moves the tiles that it touches.
    source, options = place.put(level.path)
    (opened,) = open_slide(source, storage_options=options).levels
    region = opened.to_dask()[400:560, 200:1500]
    place.moved()
    np.testing.assert_array_equal(region.compute(), level.matrix[0, 0, 400:560, 200:1500])
    moved = place.moved()
    tiles = range(9 * 2 + 1, 9 * 2 + 8)
    _compare(moved, open_frames(level.path).instance.spans, tiles, moved.requests)
    assert moved.requests <= len(tiles)


def test_deflated(place: Place, folder: Path) -> None:
    path = saved(folder, native(FRAMES, DeflatedExplicitVRLittleEndian), "deflated.dcm")
    source, options = place.put(path)
    size = path.stat().st_size
    # It is inflated to its end to be measured, for which a local header is read once more.
    more = FIRST if source == str(path) else 0
    place.moved()
    x = from_dicom(source, storage_options=options)
    opened = place.moved()
    assert opened.bytes <= 1.02 * size + more and opened.requests <= 8
    np.testing.assert_array_equal(x[COUNT - 1].compute(), FRAMES[COUNT - 1])
    # A process inflates it once.
    read = place.moved()
    assert read.bytes <= 1.02 * size and read.requests <= 8
    np.testing.assert_array_equal(x.compute(), FRAMES)
    assert place.moved() == (0, 0)


def test_frames_with_little_between_them_are_one_request(web: nginx.Nginx, folder: Path) -> None:
    path = saved(folder, native(FRAMES), "near.dcm")
    place = Http(web, folder)
    source, _ = place.put(path)
    frames = open_frames(source)
    place.moved()
    some = range(0, COUNT, 10)
    np.testing.assert_array_equal(frames[::10], FRAMES[::10])
    moved = place.moved()
    assert moved.requests == 1
    assert moved.bytes <= sum(map(len, map(frames.encoded, some))) + COALESCE_GAP * (len(some) - 1)
