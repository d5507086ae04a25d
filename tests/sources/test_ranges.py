"""Remote files: how many requests and bytes opening and reading take, and what fails and passes."""

import os
import pickle
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3_here
from hypothesis import given
from hypothesis import strategies as st
from make_dicom import encapsulated, native, noise, saved
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless
from servers import faults, nginx

from dcmdask import (
    DcmdaskError,
    DcmdaskWarning,
    NotDicomError,
    PixelDataError,
    SourceChangedError,
    UnreachableError,
    from_dicom,
    scan,
)
from dcmdask.pixels.frame_array import open_frames
from dcmdask.sources import files, ranges
from dcmdask.sources.ranges import COALESCE_GAP, FIRST, MOST_AHEAD, RangeFile

# 1 200 frames of 3 KiB: as many again would be moved by a look at each item.
FRAMES = noise(1200, 64, 64, dtype="u1", bits=6)
MEGABYTE = 10**6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    for table in ("basic", "extended", "none"):
        saved(root, encapsulated(FRAMES, JPEGLSLossless, table=table), f"{table}.dcm")
    # Each item is longer than a first look, and shorter than what is not worth a request.
    large = noise(8, 400, 400, dtype="u1", bits=6)
    saved(root, encapsulated(large, JPEGLSLossless, table="none"), "large.dcm")
    saved(root, encapsulated(np.tile(large, (1, 3, 3)), JPEGLSLossless, table="none"), "huge.dcm")
    saved(root, native(FRAMES), "native.dcm")
    return root


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[nginx.Nginx]:
    if nginx.missing():
        pytest.skip(nginx.missing())
    with nginx.serving(folder, tmp_path_factory.mktemp("nginx"), "autoindex on;") as served:
        yield served


@pytest.mark.parametrize("table", ["basic", "extended"])
def test_a_file_with_a_table_is_opened_by_four_requests(table: str, server: nginx.Nginx) -> None:
    server.asked()
    x = from_dicom(f"{server.url}/{table}.dcm")
    asked = server.asked()
    assert [one.method for one in asked].count("HEAD") == 1
    assert len(asked) <= 4
    # The table has at most 16 bytes a frame.
    assert sum(one.sent for one in asked) <= 16 * len(FRAMES) + MEGABYTE
    np.testing.assert_array_equal(x[1000:1010].compute(), FRAMES[1000:1010])
    (one,) = server.asked()
    assert one.status == 206 and one.sent < 10 * 5000


@pytest.mark.parametrize(("name", "share"), [("none", 1.0), ("large", 1.0), ("huge", 0.5)])
def test_a_walk_moves_a_file_once(
    name: str, share: float, server: nginx.Nginx, folder: Path
) -> None:
    server.asked()
    found = open_frames(f"{server.url}/{name}.dcm")
    asked = server.asked()
    size = (folder / f"{name}.dcm").stat().st_size
    assert sum(one.sent for one in asked) <= share * size
    assert len(asked) <= 12
    np.testing.assert_array_equal(found[-1], open_frames(folder / f"{name}.dcm")[-1])


def test_native_pixel_data_are_not_looked_at(server: nginx.Nginx) -> None:
    server.asked()
    x = from_dicom(f"{server.url}/native.dcm")
    asked = server.asked()
    assert len(asked) == 2 and sum(one.sent for one in asked) == FIRST
    np.testing.assert_array_equal(x[7].compute(), FRAMES[7])


def test_a_folder_of_a_web_server(server: nginx.Nginx, folder: Path) -> None:
    (folder / "sub/deeper").mkdir(parents=True, exist_ok=True)
    for number in range(4):
        numbers = {"SOPInstanceUID": f"1.2.{number}", "InstanceNumber": number}
        made = native(FRAMES[:1], SeriesInstanceUID="1.2.9", **numbers)
        saved(folder / ("sub/deeper" if number % 2 else "sub"), made, f"{number}.dcm")
    found = scan(f"{server.url}/sub/")
    assert [len(one) for one in found] == [4] and not found.skipped
    with pytest.warns(DcmdaskWarning, match="position"):
        assert from_dicom(f"{server.url}/sub/").shape == (4, 64, 64)


def test_an_object_of_a_store_is_opened_by_three_requests(folder: Path) -> None:
    with s3_here.serving() as store:
        store.put("a.dcm", (folder / "basic.dcm").read_bytes())
        store.asked.clear()
        x = from_dicom(f"s3://{s3_here.BUCKET}/a.dcm", storage_options=store.options)
        assert [one.method for one in store.asked] == ["HEAD", "GET", "GET"]
        np.testing.assert_array_equal(x[1000].compute(), FRAMES[1000])
        assert len(store.asked) == 4


def test_a_scan_of_a_store_asks_once_for_each_object() -> None:
    with s3_here.serving() as store:
        for number in range(20):
            made = native(FRAMES[:1], SOPInstanceUID=f"1.2.{number}", InstanceNumber=number)
            store.put(f"in/{number}.dcm", made)
        store.put("in/empty", b"")
        store.asked.clear()
        found = scan(f"s3://{s3_here.BUCKET}/in/", storage_options=store.options)
        assert [len(one) for one in found] == [20] and found.files == 21
        assert Counter(one.method for one in store.asked)["HEAD"] <= 1
        assert len(store.asked) <= 23
        # The tokens are those of files that are located one by one.
        sources = [one.source for one in found[0].instances]
        located = [files.locate(one.name, store.options) for one in sources]
        assert sources == located


def test_an_object_that_was_replaced_behind_a_scan_is_the_one_that_is_there() -> None:
    with s3_here.serving() as store:
        url = f"s3://{s3_here.BUCKET}/replaced/"
        for some in (FRAMES[:2], FRAMES[2:5], FRAMES[5:8]):
            store.put("replaced/a.dcm", native(some))
            found = scan(url, storage_options=store.options)
            assert len(found[0].instances[0]) == len(some)
            # Behind the scan, of another size or of the same.
            for now in (FRAMES[:4], FRAMES[4:8]):
                store.put("replaced/a.dcm", native(now))
                x = from_dicom(f"{url}a.dcm", storage_options=store.options)
                np.testing.assert_array_equal(x.compute(), now)


def test_first_bytes_are_not_kept(server: nginx.Nginx) -> None:
    located = files.locate(f"{server.url}/basic.dcm")
    assert isinstance(located, files.RemoteFile) and len(located.start) == FIRST
    assert not pickle.loads(pickle.dumps(located)).start
    found = open_frames(located)
    assert found.instance.source == located and not found.instance.source.start


@given(
    data=st.binary(min_size=1, max_size=400),
    first=st.integers(1, 64),
    known=st.integers(0, 100),
    reads=st.lists(st.tuples(st.integers(0, 420), st.integers(0, 120)), max_size=12),
)
def test_a_range_file_reads_what_there_is(
    data: bytes, first: int, known: int, reads: list[tuple[int, int]]
) -> None:
    fetched: list[range] = []

    def fetch(offset: int, length: int) -> bytes:
        fetched.append(range(offset, offset + length))
        return data[offset : offset + length]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "FIRST", first)
        patch.setattr(ranges, "COALESCE_GAP", 8)
        file = RangeFile(fetch, len(data), "a", data[:known])
        for offset, length in reads:
            file.seek(offset)
            assert file.read(length) == data[offset : offset + length]
        assert all(len(one) > 0 and one.stop <= len(data) for one in fetched)
        # On the way forwards no byte comes twice.
        file, fetched[:] = RangeFile(fetch, len(data), "a"), []
        for offset, length in sorted(reads):
            file.seek(offset)
            assert file.read(length) == data[offset : offset + length]
        ends = [one.stop for one in fetched]
        assert all(one.start >= end for one, end in zip(fetched[1:], ends, strict=False))


def test_reading_on_takes_more_at_a_time() -> None:
    lengths: list[int] = []

    def fetch(offset: int, length: int) -> bytes:
        lengths.append(length)
        return bytes(length)

    file = RangeFile(fetch, 20 * MOST_AHEAD, "a")
    while file.tell() < 3 * MOST_AHEAD:
        file.read(1000)
    assert lengths[:2] == [FIRST, 2 * FIRST] and lengths[-1] == MOST_AHEAD
    file.seek(15 * MOST_AHEAD)
    file.read(8)
    assert lengths[-1] == FIRST


def test_an_object_that_was_replaced_is_noticed(server: nginx.Nginx, folder: Path) -> None:
    path = saved(folder, native(FRAMES[:600]), "replaced.dcm")
    found = open_frames(f"{server.url}/replaced.dcm")
    np.testing.assert_array_equal(found[599], FRAMES[599])
    # Of the same length, which nothing else tells apart.
    path.write_bytes(native(FRAMES[600:]))
    os.utime(path, (10**9, 10**9))
    with pytest.raises(SourceChangedError, match="has changed since it was opened") as caught:
        found[599]
    assert caught.value.code == "SourceChangedError/changed"


# Faults of servers, some of which pass.


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[faults.Faults]:
    monkeypatch.setattr(ranges, "_PAUSES", (0.0, 0.0, 0.0))
    with faults.serving() as served:
        served.files["/a.dcm"] = native(FRAMES[:600])
        yield served


@pytest.mark.parametrize(
    "some", [[503], [429, 500], [502, 504, 408], ["reset"], ["reset", 503, "reset"], ["cut"]]
)
def test_a_fault_that_passes(some: list[int | str], faulty: faults.Faults) -> None:
    faulty.faults = list(some)
    found = open_frames(f"{faulty.url}/a.dcm")
    assert not faulty.faults and faulty.asked == len(some) + 1
    faulty.faults, faulty.asked = list(some), 0
    np.testing.assert_array_equal(found[599], FRAMES[599])
    assert not faulty.faults and faulty.asked == len(some) + 1


@pytest.mark.parametrize(
    ("some", "left", "expected"),
    [
        ([503] * 5, 1, Exception),
        (["reset"] * 20, 1, Exception),
        ([403, 206], 1, Exception),
        ([404, 206], 1, FileNotFoundError),
        (["long"], 0, DcmdaskError),
    ],
)
def test_a_fault_that_stays(
    some: list[int | str], left: int, expected: type[Exception], faulty: faults.Faults
) -> None:
    found = open_frames(f"{faulty.url}/a.dcm")
    faulty.faults = list(some)
    with pytest.raises(expected) as caught:
        found[500]
    assert faulty.url in str(caught.value)
    # aiohttp itself repeats a request where a connection breaks that was used before.
    assert len(faulty.faults) >= left


@pytest.mark.parametrize("size", [0, 1, 2, 131])
def test_small_files(size: int, faulty: faults.Faults) -> None:
    faulty.files["/small.dcm"] = bytes(size)
    with pytest.raises(DcmdaskError, match=f"{faulty.url}/small.dcm"):
        from_dicom(f"{faulty.url}/small.dcm")


@pytest.mark.parametrize("passes", [503, "cut"])
def test_of_several_faults_the_one_that_stays_is_told(
    passes: int | str, faulty: faults.Faults
) -> None:
    found = open_frames(f"{faulty.url}/a.dcm")
    offsets = [0, FIRST + COALESCE_GAP, 2 * (FIRST + COALESCE_GAP)]
    # Whichever request comes first.
    for some in ([passes, 412, passes], [412, passes, passes], [passes, passes, 412]):
        faulty.faults = list(some)
        with pytest.raises(SourceChangedError, match="has changed"):
            files.read(found.instance.source, offsets, [8] * 3)


def test_an_object_that_became_shorter(faulty: faults.Faults) -> None:
    found = open_frames(f"{faulty.url}/a.dcm")
    faulty.files["/a.dcm"] = faulty.files["/a.dcm"][:-100]
    with pytest.raises(DcmdaskError, match="shorter than when it was opened"):
        found[599]


@pytest.mark.parametrize("kind", ["native", "basic", "extended", "none", "deflated"])
@pytest.mark.parametrize("surplus", [-100_000, -1000, -1, 1, 1000, 10**6, 10**12])
def test_a_server_that_lies_about_a_length(surplus: int, kind: str, faulty: faults.Faults) -> None:
    few = FRAMES[:100]
    if kind == "native":
        made = native(few)
    elif kind == "deflated":
        made = native(few, DeflatedExplicitVRLittleEndian)
    else:
        made = encapsulated(few, JPEGLSLossless, table=kind)
    faulty.files["/a.dcm"], faulty.surplus = made, surplus
    try:
        with warnings.catch_warnings():
            # One byte may be of a delimiter that nobody needs.
            warnings.simplefilter("ignore", DcmdaskWarning)
            frames = open_frames(f"{faulty.url}/a.dcm")[:]
    except DcmdaskError as error:
        assert f"{faulty.url}/a.dcm" in str(error)
        assert isinstance(error, PixelDataError | SourceChangedError)
    else:
        assert surplus == -1 or kind == "native"
        np.testing.assert_array_equal(frames, few)


def test_ranges_are_of_bytes_that_are_not_encoded(faulty: faults.Faults) -> None:
    faulty.encoded = True
    found = open_frames(f"{faulty.url}/a.dcm")
    assert isinstance(found.instance.source, files.RemoteFile)
    np.testing.assert_array_equal(found[:], FRAMES[:600])


def test_a_file_of_one_byte_is_none_of_dicom(faulty: faults.Faults) -> None:
    faulty.files["/one"] = b"x"
    with pytest.raises(NotDicomError):
        from_dicom(f"{faulty.url}/one")
    (skipped,) = scan(f"{faulty.url}/one").skipped
    assert skipped.kind == "not DICOM"


def test_pages_are_none_of_dicom_and_files_may_be_called_pages(faulty: faults.Faults) -> None:
    faulty.content_type = "text/html"
    faulty.files["/page"] = b"<html>a page</html>"
    np.testing.assert_array_equal(from_dicom(f"{faulty.url}/a.dcm")[7].compute(), FRAMES[7])
    (skipped,) = scan(f"{faulty.url}/page").skipped
    assert skipped.kind == "not DICOM"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(503, UnreachableError), (403, UnreachableError), (404, FileNotFoundError)],
)
def test_a_file_is_absent_only_where_the_server_says_so(
    status: int, expected: type[Exception], faulty: faults.Faults
) -> None:
    faulty.status = status
    for function in (from_dicom, scan):
        with pytest.raises(expected, match=f"{faulty.url}/a.dcm"):
            function(f"{faulty.url}/a.dcm")


@pytest.mark.parametrize("failing", [1, 2, 5])
def test_a_size_is_asked_for_again(failing: int, faulty: faults.Faults) -> None:
    faulty.failing = failing
    x = from_dicom(f"{faulty.url}/a.dcm")
    np.testing.assert_array_equal(x[7].compute(), FRAMES[7])


def test_a_server_that_is_not_there() -> None:
    with faults.serving() as other:
        url = other.url
    with pytest.raises(UnreachableError, match=url):
        from_dicom(f"{url}/a.dcm")
