"""``dcmdask scan`` and ``dcmdask info`` of a folder: what they print, and what never."""

import csv
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from made_series import AXIAL, SERIES, along, classic
from make_dicom import noise

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
    named = {"PatientName": CANARY, "SeriesDescription": CANARY, "StudyDate": "20010203"}
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
    assert first == "13 files, 2 series"
    assert heads.split() == ["kind", "files", "frames", "array", "mm", "notes"]
    assert " ".join(regular.split()) == "[0] CT 6 6 z:6 y:5 x:7 int16 2.5 x 0.5 x 0.75"
    assert "[1]" in irregular and "1 of 5 positions 1 mm apart are missing, at 3 mm" in irregular
    assert skipped[0].startswith("skipped 3 files: ")
    # What may belong to a series comes first.
    assert skipped[1].strip().startswith(f"{archive / 'b' / 'cut.dcm'}: the header ends early")
    assert skipped[2].strip() == f"{archive / 'b' / 'empty.dcm'}: an empty file"
    assert skipped[3].strip() == f"{archive / 'notes.txt'}: not a DICOM file"


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
    assert "20010203" not in json.dumps(told)


@pytest.mark.slow
def test_scan_of_nothing(tmp_path: Path) -> None:
    assert run("scan", tmp_path).stdout == "0 files, 0 series\n"
    assert run("scan", "--csv", tmp_path).stdout.startswith("series_uid,")
    assert "absent" in run("scan", tmp_path / "absent", code=2).stderr
    classic(tmp_path / "a", FRAMES, along(AXIAL, 2.5 * np.arange(6)))
    files = sorted((tmp_path / "a").iterdir())
    assert run("scan", *files).stdout.startswith("6 files, 1 series\n")
    assert "for one file" in run("info", "--raw", tmp_path / "a", code=2).stderr
    assert "one of them" in run("scan", "--json", "--csv", tmp_path, code=2).stderr


@pytest.mark.slow
def test_info_of_a_folder(archive: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in run("info", archive / "a").stdout.splitlines())
    assert lines["series"] == SERIES
    assert lines["what"] == "CT Image Storage, CT, volume"
    assert lines["array"] == "z: 6, y: 5, x: 7  int16"
    assert lines["spacing"] == "2.5 x 0.5 x 0.75 mm (z, y, x)"
    assert lines["order"] == "x, y, z point to the left, the back, the head"
    assert lines["z"] == "0 2.5 5 7.5 10 12.5 mm"
    assert lines["syntax"] == "Explicit VR Little Endian"
    assert "irregular" not in lines
    text = run("info", archive / "b").stdout
    assert "irregular" in text and "are missing, at 3 mm" in text
    (series,) = json.loads(run("info", "--json", archive / "b").stdout)["series"]
    assert series["stacks"][0]["coordinates"]["z"] == [0, 1, 2, 4]
    assert series["stacks"][0]["affine"] is None
    (archive / "none").mkdir()
    assert "no DICOM images" in run("info", archive / "none", code=2).stderr


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
