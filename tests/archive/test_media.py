"""Archives, gzipped files and directories of media as what they contain or list."""

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_series import AXIAL, along, classic
from make_dicom import native, noise
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

import dcmdask
from dcmdask import HeaderError, PixelDataError, scan
from dcmdask.archive.containers.media import listed_in, medium_of, unzipped

FRAMES = noise(4, 5, 7, dtype="i2", bits=12)
EVEN = 2.5 * np.arange(4)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    classic(folder, FRAMES, along(AXIAL, EVEN), PatientID="1", StudyID="1", SeriesNumber=1)
    return folder


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def tarred(folder: Path, target: Path, mode: Any) -> Path:
    with tarfile.open(target, mode) as archive:
        archive.add(folder, "some/folder")
    return target


@pytest.mark.parametrize("kind", ["zip", "ZIP", "tar", "tar.gz", "tgz"])
def test_an_archive_stands_for_its_members(kind: str, series: Path, tmp_path: Path) -> None:
    """pylibjpeg issue 41."""
    path = tmp_path / f"study.{kind}"
    if kind.lower() == "zip":
        zipped(series, path)
    else:
        tarred(series, path, "w" if kind == "tar" else "w:gz")
    found = scan(path)
    assert [len(one) for one in found] == [4] and not found.doubtful
    np.testing.assert_array_equal(dcmdask.from_dicom(str(path)), FRAMES)
    dcmdask.to_zarr(path, tmp_path / "a.zarr")
    assert dcmdask.verify(tmp_path / "a.zarr", path).ok
    assert len(scan([path, series])[0]) == 4


def test_a_gzipped_file_stands_for_what_is_in_it(series: Path, tmp_path: Path) -> None:
    """Weasis issue 4."""
    data = native(noise(3, 5, 7), SeriesInstanceUID="1.2.3", SOPInstanceUID="1.2.3.4")
    path = tmp_path / "a.dcm.gz"
    path.write_bytes(gzip.compress(data))
    found = scan(path)
    assert [len(one) for one in found] == [1] and found[0].instances[0].source.name == str(path)
    np.testing.assert_array_equal(dcmdask.from_dicom(path), noise(3, 5, 7))
    assert dcmdask.from_dicom(path, values="display").shape == (3, 5, 7)
    dcmdask.to_zarr(path, tmp_path / "a.zarr")
    assert dcmdask.verify(tmp_path / "a.zarr", path).ok
    with pytest.raises(PixelDataError, match="more than 100 bytes"):
        dcmdask.from_dicom(path, inflate_limit=100)
    calls: list[Any] = []
    found = scan([path, series], progress=lambda *call: calls.append(call))
    assert len(found) == 2 and calls[-1] == (5, 5)


@pytest.mark.parametrize("cut", [3, 40, 100])
def test_a_damaged_gzipped_file_is_named(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm.gz"
    data = bytearray(gzip.compress(native(noise(3, 50, 70))))
    path.write_bytes(data[:cut])
    found = scan(path)
    assert len(found) == 0 and [one.path for one in found.skipped] == [str(path)]
    with pytest.raises(PixelDataError, match="damaged, or ends early"):
        unzipped(str(path))


def test_damaged_archives_are_named(series: Path, tmp_path: Path) -> None:
    for path in (
        zipped(series, tmp_path / "a.zip"),
        tarred(series, tmp_path / "a.tar.gz", "w:gz"),
    ):
        path.write_bytes(path.read_bytes()[:-40])
        found = scan([path, series])
        (one,) = found.doubtful
        assert str(path) in one.path and one.reason == "the archive is damaged, or ends early"
        assert len(found) == 1
        with pytest.raises(HeaderError, match="the archive is damaged"):
            scan(path)


def test_encrypted_members_are_named(series: Path, tmp_path: Path) -> None:
    path = zipped(series, tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    # The flags of the first member, in its own header and in that of the directory.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    found = scan(path)
    assert [one.reason for one in found.doubtful] == ["an encrypted member of an archive"]
    assert len(found[0]) == 3


def dicomdir(folder: Path, target: Path) -> Path:
    """The files of a folder below another one, with a directory of them."""
    records = [Dataset() for _ in range(3)]
    (target / "ST000000").mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, target / "ST000000" / f"IM{number:06}")
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = ["ST000000", f"IM{number:06}"]
        records.append(record)
    directory = Dataset()
    directory.FileSetID = "MADE"
    directory.DirectoryRecordSequence = records
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.save_as(target / "DICOMDIR", enforce_file_format=True)
    return target / "DICOMDIR"


def test_a_directory_stands_for_the_files_that_it_lists(series: Path, tmp_path: Path) -> None:
    """pylibjpeg issue 41, Weasis issue 4: a DICOMDIR."""
    path = dicomdir(series, tmp_path / "media")
    shutil.copytree(series, tmp_path / "media" / "OTHER")
    listed = sorted(listed_in(str(path)))
    assert len(listed) == 4 and medium_of(str(path)) == "directory"
    found = scan(path)
    assert sorted(one.source.name for one in found[0].instances) == listed
    assert found.skipped == () and found.files == 4
    np.testing.assert_array_equal(dcmdask.from_dicom(path), FRAMES)
    together = scan([path, *listed])
    assert (len(together[0]), together.files) == (4, 5)
    os.unlink(listed[1])
    found = scan(path)
    assert [(one.path, one.reason) for one in found.doubtful] == [
        (listed[1], "the DICOMDIR lists it, and it is not there")
    ]
    assert len(found[0]) == 3


def test_media_in_lower_case(series: Path, tmp_path: Path) -> None:
    path = dicomdir(series, tmp_path / "media")
    for one in sorted(path.parent.rglob("*"), key=lambda one: -len(one.parts)):
        if one != path:
            one.rename(one.with_name(one.name.lower()))
    assert len(scan(path)[0]) == 4


@pytest.mark.parametrize(
    "name", [["..", "outside"], ["a", "/etc/passwd"], [".", "a"], ["a\\b", ".."]]
)
def test_a_directory_leads_nowhere_else(name: list[str], series: Path, tmp_path: Path) -> None:
    path = dicomdir(series, tmp_path / "media")
    dataset = dcmread(path)
    dataset.DirectoryRecordSequence[-1].ReferencedFileID = name
    dataset.save_as(path)
    (one,) = scan(path).doubtful
    assert one.path == str(path) and one.code == "HeaderError/directory"


def test_a_damaged_directory_is_named(series: Path, tmp_path: Path) -> None:
    path = dicomdir(series, tmp_path / "media")
    path.write_bytes(path.read_bytes()[:-60])
    (one,) = scan(path).doubtful
    assert one.path == str(path) and "the file is probably truncated" in one.reason


def test_the_home_folder(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(series.parent))
    assert len(scan("~/series")[0]) == len(scan("~/ser*")[0]) == 4
    np.testing.assert_array_equal(dcmdask.from_dicom("~/series"), FRAMES)
    (path, *_) = series.iterdir()
    assert len(dcmdask.from_dicom(f"~/series/{path.name}")) == 1


def test_files_that_stand_for_themselves(series: Path, tmp_path: Path) -> None:
    (path, *_) = series.iterdir()
    (tmp_path / "short.zip").write_bytes(b"PK")
    # A DICOM file may be a ZIP file as well, by what is behind it.
    both = tmp_path / "both.zip"
    data = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("a", b"b")
    both.write_bytes(data.getvalue())
    for one in (path, tmp_path / "short.zip", both, series, tmp_path / "absent"):
        assert medium_of(str(one)) is None
    (tmp_path / "odd.gz").write_bytes(b"\x1f\x8b" + bytes(20))
    assert medium_of(str(tmp_path / "odd.gz")) == "gzip"
