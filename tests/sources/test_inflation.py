"""Sources that inflate to far more than they hold: little memory is taken, or an error."""

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_dicom import described, native, noise, part10, pixel_element
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dcmdask import from_dicom
from dcmdask.cli.info import info
from dcmdask.dicom import header as reading
from dcmdask.dicom import walk
from dcmdask.dicom.description import describe
from dcmdask.errors import DcmdaskError, HeaderError, PixelDataError
from dcmdask.pixels.frame_array import open_frames
from dcmdask.sources import files
from dcmdask.sources.inflation import InflatedFile

pytest.importorskip("resource")

MIB = 2**20
# What a bomb inflates to, and what a process may take in addition to what it has.
BOMB, ROOM = 320 * MIB, 128 * MIB
FRAMES = noise(2, 8, 8, dtype="u1")


def bomb(where: str) -> Iterator[bytes]:
    """A data set with zeros in a private element, or in the pixel data."""
    shape = (BOMB // 2**26, 2**13, 2**13) if where == "pixel data" else (2, 8, 8)
    body = part10(header(shape), ExplicitVRLittleEndian, b"", preamble=False, meta=False)
    if where != "pixel data":
        behind = body.index(b"\x10\x00\x10\x00PN")
        # Of a VR that only pydicom takes.
        odd = struct.pack("<HH2sH2s", 9, 0x10, b"ZZ", 2, b"ab") if where == "odd header" else b""
        yield body[:behind] + odd + struct.pack("<HH2sHL", 9, 0x1001, b"OB", 0, BOMB)
        yield from [bytes(MIB)] * (BOMB // MIB)
        yield body[behind:] + pixel_element(FRAMES.tobytes(), ExplicitVRLittleEndian)
    else:
        yield body + struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, BOMB)
        yield from [bytes(MIB)] * (BOMB // MIB)


def header(shape: tuple[int, ...]) -> Any:
    sizes = dict(zip(("NumberOfFrames", "Rows", "Columns"), shape, strict=True))
    return described(FRAMES, Modality="MR", SeriesInstanceUID="1.2.4", **sizes)


def file_meta(syntax: UID) -> bytes:
    """All of a file that comes before the data set."""
    whole = part10(header((2, 8, 8)), syntax, b"")
    body = part10(header((2, 8, 8)), syntax, b"", preamble=False, meta=False)
    return whole[: len(whole) - len(body)]


def saved(folder: Path, kind: str, where: str) -> str:
    """A file with a bomb in it; its path or URL."""
    path = folder / f"{where}.{kind}"
    meta = file_meta(ExplicitVRLittleEndian)
    if kind == "dcm":
        packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        with open(path, "wb") as file:
            file.write(file_meta(DeflatedExplicitVRLittleEndian))
            file.writelines(map(packer.compress, bomb(where)))
            file.write(packer.flush())
        return str(path)
    if kind == "gz":
        with gzip.open(path, "wb", 1) as packed:
            packed.writelines((meta, *bomb(where)))
        return str(path)
    if kind == "zip":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("a.dcm", "w") as member,
        ):
            member.writelines((meta, *bomb(where)))
        return f"zip://a.dcm::{path}"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("a.dcm")
        info.size = len(meta) + sum(map(len, bomb(where)))
        tar.addfile(info, io.BufferedReader(Pieces(iter((meta, *bomb(where))))))
    return f"tar://a.dcm::{path}"


class Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any, /) -> int:
        self._held = self._held or next(self._pieces, b"")
        part, self._held = self._held[: len(room)], self._held[len(room) :]
        room[: len(part)] = part
        return len(part)


OTHERS = [
    ("dcm", "header"),
    ("dcm", "odd header"),
    ("dcm", "pixel data"),
    ("zip", "odd header"),
    ("zip", "pixel data"),
    ("tar.gz", "header"),
    ("tar.gz", "odd header"),
    ("tar.gz", "pixel data"),
]
LITTLE_MEMORY = """
import json, resource, sys
import dcmdask, dcmdask.store.provenance, dcmdask.arrays.chunks
from dcmdask.cli.info import info
from dcmdask.pixels import codecs
import fsspec.implementations.zip, fsspec.implementations.tar
dcmdask.from_dicom(sys.argv[3]).shape
info(sys.argv[3], as_json=True)
(vm, *_), page = open("/proc/self/statm").read().split(), resource.getpagesize()
most = int(vm) * page + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
url = sys.argv[1]
told = {}
found = dcmdask.scan(url)
told["scan"] = [len(found), [one.reason for one in found.skipped]]
told["from_dicom"] = dcmdask.from_dicom(url).shape
info(url, as_json=True)
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the size of a process")
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("zip", "header"),
        *(pytest.param(*one, marks=pytest.mark.rare) for one in OTHERS),
    ],
)
def test_headers_take_little_memory(kind: str, where: str, tmp_path: Path) -> None:
    url = saved(tmp_path, kind, where)
    small = tmp_path / "small.dcm"
    small.write_bytes(native(FRAMES, DeflatedExplicitVRLittleEndian))
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, url, str(ROOM), str(small)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["scan"] == [1, []]
    assert told["from_dicom"] == ([5, 2**13, 2**13] if where == "pixel data" else [2, 8, 8])


GZIP = """
import gzip, io, resource, sys
import dcmdask
dcmdask.open_frames(sys.argv[3])
(vm, *_), page = open("/proc/self/statm").read().split(), resource.getpagesize()
most = int(vm) * page + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
with gzip.open(sys.argv[1]) as file:
    try:
        dcmdask.open_frames(file, inflate_limit=2**25)
    except dcmdask.errors.PixelDataError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the size of a process")
def test_a_file_like_takes_no_more_than_the_limit(tmp_path: Path) -> None:
    small = tmp_path / "small.dcm"
    small.write_bytes(native(FRAMES))
    line = [sys.executable, "-c", GZIP, saved(tmp_path, "gz", "pixel data"), str(ROOM), str(small)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert f"more than {2**25} bytes would be read into memory" in done.stdout
    assert "inflate_limit" in done.stdout


def test_the_limit_of_a_deflated_data_set(tmp_path: Path) -> None:
    frames = np.zeros((4, 512, 512), "u1")
    path = tmp_path / "a.dcm"
    path.write_bytes(native(frames, DeflatedExplicitVRLittleEndian))
    for call in (open_frames, from_dicom):
        with pytest.raises(PixelDataError) as caught:
            call(path, inflate_limit=frames.nbytes)
        for part in (str(path), f"more than {frames.nbytes} bytes", "inflate_limit"):
            assert part in str(caught.value)
        np.testing.assert_array_equal(np.asarray(call(path, inflate_limit=2 * MIB)), frames)
        with pytest.raises(PixelDataError, match="inflate_limit"):
            info(str(path), inflate_limit=frames.nbytes)
    # A scan needs no more than the header.
    assert len(describe(files.locate(path))) == 4


def test_the_header_is_all_that_a_scan_inflates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(native(np.zeros((64, 512, 512), "u1"), DeflatedExplicitVRLittleEndian))
    inflated = []
    step = InflatedFile._next

    def counting(self: InflatedFile) -> bool:
        before = self._end
        more = step(self)
        inflated.append(self._end - before)
        return more

    monkeypatch.setattr(InflatedFile, "_next", counting)
    describe(files.locate(path))
    assert 0 < sum(inflated) <= MIB


def test_no_element_that_is_wanted_takes_memory_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walk, "_LARGEST", 1000)
    monkeypatch.setattr(reading, "_BY_PYDICOM", 1000)
    # What lies within a block that was read is taken by headers that were met before.
    reading._filter.cache_clear()
    data = native(FRAMES, Modality="MR")
    at = data.index(b"\x08\x00\x60\x00CS")
    long = struct.pack("<HH2sHL", 8, 0x60, b"UN", 0, 1002) + bytes(1002)
    with pytest.raises(HeaderError, match=r"\(0008,0060\) has 1002 bytes, more than any valid"):
        describe(files.locate(data[:at] + long + data[at + 10 :]))


def test_what_only_pydicom_reads_takes_no_memory_without_end() -> None:
    data = native(FRAMES, DeflatedExplicitVRLittleEndian)
    start = len(file_meta(DeflatedExplicitVRLittleEndian))
    body = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    # Of a VR that only pydicom takes, and of a length that does not say where its items end.
    odd = struct.pack("<HH2sH2sHH2sHL", 9, 0x10, b"ZZ", 2, b"ab", 9, 0x1001, b"SQ", 0, 2**32 - 1)
    at = body.index(b"\x10\x00\x10\x00PN")
    item = struct.pack("<HHLHH2sHL", 0xFFFE, 0xE000, 2**32 - 1, 9, 0x1002, b"OB", 0, 40 * MIB)
    packed = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    bomb = packed.compress(body[:at] + odd + item + bytes(40 * MIB)) + packed.flush()
    with pytest.raises(HeaderError, match="more than 16777216 bytes of it would be read"):
        describe(files.locate(data[:start] + bomb))


def test_facts_of_frames_take_no_memory_without_end() -> None:
    # 5 MB are 1.4 GB of facts; deflated, they would be 5 kB.
    data = native(np.zeros((5_000_000, 1, 1), "u1"), DeflatedExplicitVRLittleEndian)
    with pytest.raises(PixelDataError, match="is 5000000, and the facts of so many"):
        describe(files.locate(data))
    assert len(open_frames(data)) == 5_000_000


def test_a_sequence_that_is_skipped_takes_no_memory() -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    sequence = struct.pack("<HH2sHL", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    data = native(FRAMES, PatientName=None)
    at = data.index(b"\x28\x00\x02\x00US")
    source = files.locate(data[:at] + sequence + item * 200_000 + end + data[at:])
    tracemalloc.start()
    try:
        describe(source)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_header_may_be_no_longer_than_the_limit() -> None:
    dataset = native(FRAMES, DeflatedExplicitVRLittleEndian, ImageComments="a" * 10000)
    with pytest.raises(DcmdaskError, match="more than 5000 bytes"):
        open_frames(dataset, inflate_limit=5000)


def test_bytes_that_are_in_memory_have_no_limit() -> None:
    data = native(FRAMES)
    for source in (data, io.BytesIO(data)):
        assert open_frames(source, inflate_limit=100).shape == FRAMES.shape


@pytest.mark.parametrize("reads", [[(0, 10)], [(100_000, 7), (5, 3), (99_998, 9), (0, 200_000)]])
def test_an_inflated_file_is_read_anywhere(reads: list[tuple[int, int]]) -> None:
    data = noise(1, 300, 500, dtype="u1").tobytes()
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = b"before" + packer.compress(data) + packer.flush() + b"\0"
    file = InflatedFile(io.BytesIO(packed), 6, len(data), "name")
    for offset, length in reads:
        file.seek(offset)
        assert file.read(length) == data[offset : offset + length]
        assert file.tell() == min(offset + length, len(data))
    assert file.seek(0, io.SEEK_END) == len(data)
    assert file.read(1) == b""
    with pytest.raises(PixelDataError, match=f"more than {len(data) - 1} bytes"):
        InflatedFile(io.BytesIO(packed), 6, len(data) - 1, "name").read(len(data))
    with pytest.raises(PixelDataError, match="ends early"):
        InflatedFile(io.BytesIO(packed[:-500]), 6, len(data), "name").seek(0, io.SEEK_END)
