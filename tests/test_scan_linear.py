"""A scan takes time in proportion to what there is: work is counted for n and 4 n files."""

import math
from pathlib import Path

import pytest
from counting import count_calls
from make_dicom import native, noise

import dcmdask.arrays.scan as scanning
from dcmdask.arrays.scan import Skipped, scan
from dcmdask.cli.output import skipped_files

FEW, MANY = 100, 400
IMAGE = native(noise(1, 4, 6, dtype="u2"), Modality="MR", SeriesInstanceUID="1.2.4")
UNINTERESTING = {
    "text": b"A text that is no image.",
    "empty": b"",
    "damaged": IMAGE[:300],
    "without a syntax": bytes(128) + b"DICM",
}


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is described where nobody counts, and a look at a kind is a call."""
    monkeypatch.setattr(scanning, "PATIENCE", math.inf)
    monkeypatch.setattr(Skipped, "kind", property(lambda one: one[2]))


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
