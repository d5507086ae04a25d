"""``dcmdask scan`` and ``dcmdask info`` of a folder: what they print, and what never."""

import csv
import gzip
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from made_segmentations import COLUMNS, PLANES, ROWS, source, written
from made_series import AXIAL, SERIES, along, classic
from make_dicom import noise
from PIL import Image
from real_files import packaged_file

from dcmdask import scan

FRAMES = noise(6, 5, 7, dtype="i2", bits=12)
CANARY = "CANARY"


def run(*arguments: Any, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = commands.run(*arguments)
    assert "Traceback" not in done.stderr
    assert code is None or done.returncode == code, done.stderr
    assert CANARY not in done.stdout + done.stderr
    return done


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A regular series, one with a gap, and files that are neither."""
    named = {"PatientName": CANARY, "SeriesDescription": "Körper", "StudyDate": "20010203"}
    named["SpecificCharacterSet"] = "ISO_IR 100"
    classic(tmp_path / "a" / "deep", FRAMES, along(AXIAL, 2.5 * np.arange(6)), **named)
    gap = along(AXIAL, [0, 1, 2, 4])
    classic(tmp_path / "b", FRAMES[:4], gap, series=SERIES + ".2", modality="MR", **named)
    (tmp_path / "notes.txt").write_text(CANARY)
    (tmp_path / "b" / "empty.dcm").touch()
    whole = next((tmp_path / "b").glob("*0*")).read_bytes()
    (tmp_path / "b" / "cut.dcm").write_bytes(whole[:400])
    return tmp_path


def test_scan_for_people(archive: Path) -> None:
    first, heads, regular, irregular, *skipped = run("scan", archive, code=1).stdout.splitlines()
    assert first == f"13 files, 2 series in {archive}"
    assert heads.split() == ["what", "description", "files", "array", "mm", "folder", "notes"]
    assert " ".join(regular.split()) == (
        "0 CT volume of 6 planes Körper 6 z:6 y:5 x:7 int16 2.5 x 0.5 x 0.75 a/deep"
    )
    assert (
        irregular.startswith("1  MR")
        and "1 of 5 positions 1 mm apart are missing, at 3 mm" in irregular
    )
    assert skipped[0].startswith("skipped 3 files: ")
    # What may belong to a series comes first.
    assert skipped[1].strip().startswith(f"{archive / 'b' / 'cut.dcm'}: the header ends early")
    assert skipped[2].strip() == f"{archive / 'b' / 'empty.dcm'}: an empty file"
    assert skipped[3].strip() == f"{archive / 'notes.txt'}: not a DICOM file"


def test_packed_files_in_a_folder_are_named_as_such(archive: Path) -> None:
    (archive / "a.dcm.gz").write_bytes(gzip.compress(next(archive.glob("a/deep/*")).read_bytes()))
    assert "a packed file or an archive, which is read where it is the source itself" in (
        run("scan", archive, code=1).stdout
    )


def test_only_dicom_that_cannot_be_read_is_a_failure(archive: Path) -> None:
    # An empty file or a pipe that stays would fail every later scan.
    (archive / "b" / "cut.dcm").unlink()
    os.mkfifo(archive / "pipe")
    done = run("scan", archive, code=0)
    assert "empty.dcm: an empty file" in done.stdout
    assert "pipe: a named pipe that is not a file" in done.stdout


def test_scan_for_programs(archive: Path) -> None:
    told = json.loads(run("scan", "--json", archive, code=1).stdout)
    assert told["files"] == 13 and len(told["skipped"]) == 3
    assert [one["series_uid"] for one in told["series"]] == [SERIES, SERIES + ".2"]
    assert told["series"][0]["shape"] == [6, 5, 7] and told["series"][0]["regular"]
    done = run("scan", "--csv", archive, code=1)
    assert "empty.dcm: an empty file" in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["frames"] for row in rows] == ["6", "4"]
    assert rows[0]["shape"] == "6 5 7" and rows[1]["regular"] == "False"
    assert rows[0]["description"] == "Körper" and rows[1]["folder"] == str(archive / "b")
    assert "20010203" not in json.dumps(told)


@pytest.mark.slow
def test_scan_of_nothing(tmp_path: Path) -> None:
    assert run("scan", tmp_path).stdout == "0 files, 0 series\n"
    assert run("scan", "--csv", tmp_path).stdout.startswith("number,series_uid,")
    assert "absent" in run("scan", tmp_path / "absent", code=2).stderr
    classic(tmp_path / "a", FRAMES, along(AXIAL, 2.5 * np.arange(6)))
    files = sorted((tmp_path / "a").iterdir())
    assert run("scan", *files).stdout.startswith(f"6 files, 1 series in {tmp_path}/a\n")
    assert "for one file" in run("info", "--raw", tmp_path / "a", code=2).stderr
    assert "one of them" in run("scan", "--json", "--csv", tmp_path, code=2).stderr


@pytest.mark.slow
def test_info_of_a_folder(archive: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in run("info", archive / "a").stdout.splitlines())
    assert lines["series"] == SERIES
    assert lines["what"] == "CT Image Storage, CT, volume of 6 planes"
    assert lines["array"] == "z: 6, y: 5, x: 7  int16"
    assert lines["spacing"] == "2.5 x 0.5 x 0.75 mm (z, y, x)"
    assert lines["order"] == "x, y, z point to the left, the back, the head"
    assert lines["z"] == "-7 -4.5 -2 0.5 3 5.5 mm"
    assert lines["syntax"] == "Explicit VR Little Endian"
    assert "irregular" not in lines
    text = run("info", archive / "b").stdout
    assert "irregular" in text and "are missing, at 3 mm" in text
    (series,) = json.loads(run("info", "--json", archive / "b").stdout)["series"]
    assert series["stacks"][0]["coordinates"]["z"] == [-7, -6, -5, -3]
    assert series["stacks"][0]["affine"] is None
    (archive / "none").mkdir()
    assert "no DICOM images" in run("info", archive / "none", code=2).stderr
    wrong = run("info", archive / "a", "--set", "bits_stored=99", code=2).stderr
    assert "'Bits Stored' must be from 1 to 16" in wrong


@pytest.mark.slow
def test_nothing_steers_the_terminal(tmp_path: Path) -> None:
    classic(tmp_path / "a", FRAMES[:2], along(AXIAL, [0, 1]), each={"SOPInstanceUID": ["1"] * 2})
    (tmp_path / "a" / "q\x1b[31mRED").write_text("not DICOM")
    (tmp_path / "a" / "line\nbreak").write_bytes(bytes(128) + b"DICM")
    for arguments in (["scan"], ["scan", "--csv"], ["info"]):
        done = run(*arguments, tmp_path / "a", code=None)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\\x1b[31mRED" in done.stdout or "--csv" in arguments
        assert "line\\nbreak" in done.stdout + done.stderr
    assert "\x1b" not in run("info", "\x1b[31mabsent", code=2).stderr


def test_a_damaged_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK" + bytes(100))
    assert "zip" in run("scan", f"zip://**::{tmp_path}/a.zip", code=2).stderr


def test_series_are_selected_and_keep_their_numbers(archive: Path) -> None:
    done = run("scan", archive, "--select", 'Modality == "MR"', code=1)
    first, _, line, *_ = done.stdout.splitlines()
    assert first == f"13 files, 2 series, 1 selected in {archive}/b"
    assert line.startswith("1  MR")
    told = json.loads(run("scan", "--json", archive, "--select", "frames < 5", code=1).stdout)
    assert [one["number"] for one in told["series"]] == [1]
    assert "matches none of 2 series" in run("scan", archive, "--select", "rows > 9", code=2).stderr


@pytest.mark.parametrize("series", ["0", SERIES, SERIES[-3:]])
def test_a_series_is_named(archive: Path, series: str, tmp_path: Path) -> None:
    store = tmp_path / "ct.zarr"
    done = run("export", archive, store, "--series", series, "--verify", "1")
    assert f"series {SERIES}" in done.stderr and "(6, 5, 7)" in done.stdout
    run("verify", store, "--source", archive, "--series", series)
    assert f"series   {SERIES}\n" in run("info", archive, "--series", series).stdout
    wrong = run("verify", store, "--source", archive, "--series", "1", code=2)
    assert f"series {SERIES}.2" in wrong.stderr and "is not regular" in wrong.stderr


def test_a_stack_is_named(archive: Path, tmp_path: Path) -> None:
    turned = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    uids = {"SOPInstanceUID": [f"1.2.{number}" for number in range(6)]}
    classic(archive / "a", FRAMES, along(turned, range(6)), orientation=turned, each=uids)
    source, store = archive / "a", tmp_path / "ct.zarr"
    error = run("export", source, store, code=2).stderr
    assert "2 stacks, which differ in orientation (2)" in error and "--stack takes one" in error
    assert "scan(...)" not in error and "on_" not in error
    run("export", source, store, "--stack", "1")
    assert '"ok": true' in run("verify", store, "--source", source, "--stack", "1", "--json").stdout
    run("verify", store, "--source", source, "--stack", "0", code=1)
    run("picture", source, tmp_path / "a.png", "--series", "0", "--stack", "1")
    assert "has 2" in run("export", source, store, "--stack", "2", code=2).stderr
    assert "none" in run("verify", store, "--stack", "0", code=2).stderr
    assert "2 stacks, which differ" in run("scan", source).stdout


def test_advice_is_given_in_options(archive: Path, tmp_path: Path) -> None:
    error = run("export", archive, tmp_path / "a.zarr", code=2).stderr
    assert "2 series" in error and "--series takes one" in error and "scan(" not in error
    error = run("export", archive / "b", tmp_path / "a.zarr", code=2).stderr
    assert "--on-irregular fill puts empty frames into gaps" in error and "split" not in error
    run("export", archive, tmp_path / "a.zarr", "--series", "0")
    # An option that the command does not have is not advised.
    error = run("verify", tmp_path / "a.zarr", "--source", archive / "b", code=2).stderr
    assert "is not regular" in error and "--on-irregular" not in error


def test_a_series_that_is_not_there(archive: Path, tmp_path: Path) -> None:
    for series in ("2", "1.2.3", SERIES[:9], ""):
        error = run("export", archive, tmp_path / "a.zarr", "--series", series, code=2).stderr
        assert "dcmdask scan lists" in error and error.count("\n") == 1
    assert not (tmp_path / "a.zarr").exists()
    assert "is a file" in run("info", next(archive.glob("b/0*")), "--series", "0", code=2).stderr
    run("export", archive, tmp_path / "a.zarr", "--series", "0")
    assert "there is none" in run("verify", tmp_path / "a.zarr", "--series", "0", code=2).stderr


def test_info_of_a_gzipped_file(archive: Path, tmp_path: Path) -> None:
    (path, *_) = sorted((archive / "a" / "deep").iterdir())
    (tmp_path / "one.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed, plain = (
        json.loads(run("info", "--json", name).stdout) for name in (tmp_path / "one.dcm.gz", path)
    )
    assert packed.pop("file") != plain.pop("file") and packed == plain
    (tmp_path / "one.dcm.gz").write_bytes(gzip.compress(path.read_bytes())[:200])
    assert "damaged, or ends early" in run("info", tmp_path / "one.dcm.gz", code=2).stderr


# Pictures


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pictures(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    run("picture", archive, target, "--series", "0", "--window", "0,2000")
    # Rows of 0.5 mm and columns of 0.75 mm, six frames of 2.5 mm; 4 pixels between planes.
    assert picture(target).shape == (30, 10 + 4 + 10 + 4 + 5)
    run("picture", archive / "a", target, "--mip", "y")
    assert picture(target).shape == (20, 7)
    run("picture", archive / "a", target, "--sheet")
    assert picture(target).shape[0] > 10
    run("picture", archive / "a", target, "--frame", "2", "--window", "0,2000")
    expected = np.round(np.clip((FRAMES[2].astype(float) + 1000) / 2000, 0, 1) * 255)
    np.testing.assert_array_equal(picture(target)[:, ::9], expected[:, ::6])
    # Positions of the other are not even: all frames side by side.
    run("picture", archive, target, "--series", "1")
    colour = packaged_file("examples_ybr_color.dcm")
    assert "are no volume" in run("picture", colour, target, "--mip", "y", code=2).stderr
    run("picture", colour, target, "--frame", "7")
    assert picture(target).shape == (240, 320, 3)


def test_an_overlay_is_drawn_in_colours(tmp_path: Path) -> None:
    ct, seg, target = tmp_path / "ct", tmp_path / "seg.dcm", tmp_path / "a.png"
    pixels = np.zeros((PLANES, ROWS, COLUMNS, 1), np.uint8)
    pixels[1, 2:4, 5:9] = 1
    written(seg, source(ct), pixels, labels=("Liver",))
    (colour,) = scan(seg)[0].to_xarray().segment_colour.values
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    run("picture", ct, target, "--overlay", seg, "--window", "10000,10")
    shown = picture(target)
    # The image is black in this window, and the plane is that of the segment.
    half = [round(part / 2) for part in (red, green, blue)]
    assert (np.abs(shown[2:4, 9:12].astype(int) - half) <= 1).all()
    assert not shown[5:ROWS, :10].any()
    run("picture", ct, target, "--overlay", seg, "--sheet")
    assert picture(target).ndim == 3
    assert "--mip" in run("picture", ct, target, "--overlay", seg, "--mip", "y", code=2).stderr
    assert run("picture", ct, seg, "--overlay", seg, code=2).stderr.count("source")


def test_a_picture_never_replaces_its_source(archive: Path, tmp_path: Path) -> None:
    source = min((archive / "a" / "deep").iterdir())
    before = source.read_bytes()
    (tmp_path / "link").symlink_to(source)
    for target in (source, tmp_path / "link"):
        done = run("picture", archive / "a", target, code=2)
        assert "is a file of the source" in done.stderr
    assert source.read_bytes() == before


def test_a_picture_says_what_it_leaves_out(archive: Path, tmp_path: Path) -> None:
    for series in ("1", "1.2.826.0.1.3680043.8.498.7.2"):
        done = run("picture", archive, tmp_path / "a.png", "--series", series)
        assert "left out (2)" in done.stderr and "cut.dcm: the header ends early" in done.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--frame", "6"), "there are 6 frames, from 0 on"),
        (("--frame", "1", "--sheet"), "one of them at a time"),
        (("--window", "40"), "a center and a width"),
        (("--window", "40,-2"), "shows nothing"),
    ],
)
def test_pictures_that_cannot_be(archive: Path, tmp_path: Path, options: Any, text: str) -> None:
    done = run("picture", archive / "a", tmp_path / "a.png", *options, code=2)
    assert text in " ".join(done.stderr.split()) and not (tmp_path / "a.png").exists()
