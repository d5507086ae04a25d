"""Objects without pixels are named with what reads them, in errors and in scans."""

from __future__ import annotations

import shutil
from pathlib import Path

import commands
import pytest
from make_dicom import described, noise, part10, saved
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, UID_dictionary
from real_files import packaged_file

import dcmdask
from dcmdask import NoPixelDataError, open_frames, scan
from dcmdask.dicom.without_pixels import without_pixels

# Parts of the names of SOP classes whose instances have no pixels.
WITHOUT = (
    *("SR Storage", "Waveform Storage", "Presentation State Storage", "Structure Set Storage"),
    *("RT Plan Storage", "RT Ion Plan", "Treatment Record", "Treatment Summary", "Encapsulated"),
    *("Surface", "Raw Data", "Spatial Registration Storage", "Fiducials", "Tractography"),
    *("Spectroscopy", "Value Mapping", "Hanging Protocol Storage", "Color Palette Storage"),
    *("Bulk Simple Annotations", "Procedure Protocol", "Key Object", "Measurements Storage"),
)


@pytest.mark.parametrize("name", WITHOUT)
def test_classes_without_pixels_are_named(name: str) -> None:
    found = [uid for uid, (title, *_) in UID_dictionary.items() if name in title]
    assert found
    for uid in found:
        title, _, _, retired, _ = UID_dictionary[uid]
        if not retired and title.endswith("Storage"):
            assert without_pixels(uid).startswith(f"{title} has no pixels: ")


def test_classes_with_pixels_are_not() -> None:
    names = ("Image Storage", "Segmentation Storage", "Map Storage", "Dose Storage", "US Volume")
    for uid, (title, *_) in UID_dictionary.items():
        if any(name in title for name in names) and "Surface" not in title:
            assert not without_pixels(uid), title
    assert not without_pixels("1.2.3") and not without_pixels("")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rtplan.dcm", "RT Plan Storage has no pixels: plans are read by pydicom"),
        (
            "reportsi.dcm",
            "Basic Text SR Storage has no pixels: structured reports are",
        ),
        ("waveform_ecg.dcm", "12-lead ECG Waveform Storage has no pixels: waveforms are read by"),
    ],
)
def test_real_objects(tmp_path: Path, name: str, said: str) -> None:
    path = packaged_file(name)
    for source in (path, path.read_bytes(), dcmread(path)):
        with pytest.raises(NoPixelDataError, match=said):
            open_frames(source)
    with pytest.raises(NoPixelDataError, match=said):
        dcmdask.from_dicom(path)
    shutil.copy(path, tmp_path)
    (one,) = scan(tmp_path).skipped
    assert one.reason.startswith(said) and one.kind == one.code == "no pixel data"
    with pytest.raises(dcmdask.AmbiguousSourceError, match=said):
        dcmdask.from_dicom(tmp_path)


def test_a_scan_counts_each_class(tmp_path: Path) -> None:
    for number, name in enumerate(("rtplan.dcm", "reportsi.dcm", "rtplan.dcm")):
        shutil.copy(packaged_file(name), tmp_path / str(number))
    private = described(noise(1), SOPClassUID="1.2.826.0.1.3680043.8.498.7", Rows=None)
    saved(tmp_path, part10(private, ExplicitVRLittleEndian, b""), "private")
    text = commands.run("scan", tmp_path).stdout
    assert "2 × RT Plan Storage has no pixels: plans are read by pydicom" in text
    assert "1 × Basic Text SR Storage has no pixels" in text
    assert "1 × no pixel data" in text
