"""A scan takes time in proportion to what there is: work is counted for n and 4 n files."""

import io
import math
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from counting import count_calls
from make_dicom import native, noise
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

import dcmdask.archive.listing as listing
from dcmdask.archive.scan import Skipped, scan
from dcmdask.console.output import skipped_files

FEW, MANY = 100, 400
IMAGE = native(noise(1, 4, 6, dtype="u2"), Modality="MR", SeriesInstanceUID="1.2.4")


def enhanced(number: int) -> bytes:
    item = Dataset()
    item.StackID = "1"
    return native(
        noise(2, 20, 30, dtype="u2"),
        Modality="MR",
        SOPInstanceUID=f"1.2.{number}",
        PerFrameFunctionalGroupsSequence=Sequence([item, item]),
    )


UNINTERESTING = {
    "text": b"A text that is no image.",
    "empty": b"",
    "damaged": IMAGE[:300],
    "without a syntax": bytes(128) + b"DICM",
}


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is described where nobody counts, and a look at a kind is a call."""
    monkeypatch.setattr(listing, "PATIENCE", math.inf)
    monkeypatch.setattr(Skipped, "kind", property(lambda one: one[2]))


def zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def tarred(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def is_linear(few: int, many: int) -> bool:
    return 0 < many <= 4.2 * few


@pytest.mark.parametrize("kind", UNINTERESTING)
def test_uninteresting_files(kind: str, tmp_path: Path) -> None:
    counted = []
    for number in (FEW, MANY):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "image").write_bytes(IMAGE)
        for name in range(number):
            (folder / f"{name}").write_bytes(UNINTERESTING[kind])
        scan(folder)  # what is imported late
        counted.append(count_calls(lambda folder=folder: skipped_files(scan(folder))))
        assert len(scan(folder).skipped) == number
    assert is_linear(*counted), counted


# Noise, so that packed they are not all in one block; some have a header that is read twice.
MEMBERS = [
    native(noise(1, 40, 60, dtype="u2"), Modality="MR", SOPInstanceUID=f"1.2.{number}")
    if number % 3
    else enhanced(number)
    for number in range(MANY)
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_members_of_archives(
    suffix: str, nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    for kind in (zipfile.ZipFile, tarfile.TarFile):
        begin = kind.__init__

        def counting(self: Any, *args: Any, begin: Any = begin, **more: Any) -> None:
            opened.append(self)
            begin(self, *args, **more)

        monkeypatch.setattr(kind, "__init__", counting)
    counted, named = [], []
    for number in (FEW, MANY):
        path = tmp_path / f"{number}.{suffix}"
        names = (f"{i}/a" if nested else f"{i}" for i in range(number))
        {"zip": zipped}.get(suffix, tarred)(path, dict(zip(names, MEMBERS, strict=False)))
        protocol = suffix.partition(".")[0]
        url = f"{protocol}://**::{path}"
        opened.clear()
        found = scan(url)
        assert len(opened) == 1
        assert sum(map(len, found)) == number
        counted.append(count_calls(lambda url=url: scan(url)))
        # Members that are named are of one archive, too.
        opened.clear()
        urls = [one.source.name for series in found for one in reversed(series.instances)]
        named.append(count_calls(lambda urls=urls: scan(urls)))
        assert len(opened) == 1
    assert is_linear(*counted), counted
    assert is_linear(*named), named
