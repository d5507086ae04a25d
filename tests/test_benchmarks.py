"""The benchmark scripts run, on inputs so small that their numbers say nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.rare

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def run(script: str, folder: Path, *arguments: str) -> str:
    # Dask's own files and the compiled scripts stay out of the source tree.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    # The scripts import each other from their folder, which the safe path leaves out.
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, SCRIPTS / script, "--folder", folder, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_compares_with_the_peers_that_are_installed(folder: Path) -> None:
    case = "RGB tiles JPEG, no table"
    printed = run("run.py", folder, "--only", case, "--frames", "3", "--repeats", "1")
    speeds, bars = printed.split("Times as fast;")
    assert f"| {case} " in speeds
    assert f"| {case} " in bars
    assert "bare loop" in bars
    assert "iter_pixels" in bars


def test_overhead(folder: Path) -> None:
    printed = run("overhead.py", folder, "--most", "10")
    assert "| RLE, no table, functional groups |     10 |" in printed
    assert "| import dcmdask" in printed


def test_costs_has_every_case_once(folder: Path) -> None:
    printed = run("costs.py", folder, "--frames", "1")
    names = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert len(names) == len(set(names)) == 13 + 2  # heads and rule


def test_scanning(folder: Path) -> None:
    printed = run("scanning.py", folder, "--files", "150", "--repeats", "1")
    assert "dcmdask, one process against pydicom" in printed


def test_volumes(folder: Path) -> None:
    printed = run("volumes.py", folder, "--files", "4", "--frames", "200", "--repeats", "1")
    assert "| native " in printed and "| 1000 positions x times" in printed
    assert "| native " in printed.split("`dcmdask picture`")[1]


def test_resampling(folder: Path) -> None:
    printed = run("resampling.py", folder, "--files", "100", "--repeats", "1")
    assert "| isotropic(1.0) |" in printed and "| like(turned) " in printed


def test_images(folder: Path) -> None:
    few = ("--segments", "3", "--planes", "6", "--mosaics", "3", "--repeats", "1")
    printed = run("images.py", folder, *few)
    assert printed.count("times as fast") == 3 and "highdicom, s" in printed


def test_exporting(folder: Path) -> None:
    few = ("--frames", "8", "--files", "4", "--most", "40", "--repeats", "1")
    printed = run("exporting.py", folder, *few)
    assert "| 12-bit JPEG 2000 |" in printed and "| dcmdask export |" in printed
    assert "| RGB tiles native |" in printed.split("Peak memory")[1]


def test_batch(folder: Path) -> None:
    few = ("--frames", "2", "--series", "2", "--many", "40", "--repeats", "1")
    printed = run("batch.py", folder, *few)
    assert "| 12-bit JPEG 2000 |" in printed and "| RGB tiles JPEG " in printed
    assert "| 40 series |" in printed and "| to start again, s " in printed


def test_slides(folder: Path) -> None:
    few = ("--only", "20 000 JPEG, no table", "--most", "64", "--peer-tiles", "16")
    printed = run("slides.py", folder, *few, "--regions", "4", "--repeats", "1")
    assert printed.count("| 20 000 JPEG, no table |") == 6 and "wsidicom" in printed


def test_remote(folder: Path) -> None:
    printed = run("remote.py", folder, "--tiles", "1000", "--delay", "0", "--repeats", "1")
    rows = [line for line in printed.splitlines() if line.startswith(("| table", "| no table"))]
    assert len(rows) == 2 * 5 * 3


def test_remote_scan(folder: Path) -> None:
    printed = run("remote_scan.py", folder, "--files", "100", "--delay", "0")
    rows = [line for line in printed.splitlines() if line.startswith(("| dcm", "| build", "| pyd"))]
    assert len(rows) == 4


def test_catalog(folder: Path) -> None:
    printed = run("catalog.py", folder, "--instances", "1000")
    assert printed.count("| yes |") == 4 and "bytes an instance" in printed
