"""`dcmdask scan -o`, and commands that take the catalog as their source."""

import json
from pathlib import Path

import made_series
import numpy as np
import pytest
import zarr
from commands import run

import dcmdask


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "files"
    made_series.archive(folder, 3)
    return folder


@pytest.fixture
def kept(archive: Path, tmp_path: Path) -> Path:
    target = tmp_path / "kept.catalog"
    dcmdask.build_catalog(archive, target)
    return target


def test_scan_into_a_catalog(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    plain = run("scan", archive)
    first = run("scan", archive, "-o", target)
    assert (first.returncode, first.stdout) == (0, plain.stdout)
    files = dcmdask.scan(archive).files
    assert f"{files} new, 0 changed, 0 gone, 0 as before" in first.stderr
    again = run("scan", archive, "--output", target, "--json")
    assert f"0 new, 0 changed, 0 gone, {files} as before" in again.stderr
    assert json.loads(again.stdout) == json.loads(run("scan", archive, "--json").stdout)
    shown = run("scan", target)
    assert (shown.returncode, shown.stdout) == (0, plain.stdout)
    chosen = run("scan", target, "--select", "frames > 0 and Modality == 'CT'", "--csv")
    assert chosen.returncode == 0 and len(chosen.stdout.splitlines()) == 4


def test_commands_take_a_catalog(archive: Path, kept: Path, tmp_path: Path) -> None:
    store = tmp_path / "one.zarr"
    uid = dcmdask.scan(archive)[1].uid
    done = run("export", kept, store, "--series", uid)
    assert done.returncode == 0, done.stderr
    expected = tmp_path / "expected.zarr"
    assert run("export", archive, expected, "--series", uid).returncode == 0
    names = sorted(one for one, _ in zarr.open_group(store, mode="r").arrays())
    for name in names:
        ours, theirs = (zarr.open_group(one, mode="r")[name] for one in (store, expected))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert names and run("verify", store, "--source", kept, "--series", uid).returncode == 0
    told = run("info", kept, "--series", uid)
    assert told.returncode == 0 and uid in told.stdout
    picture = tmp_path / "one.png"
    assert run("picture", kept, picture, "--series", uid).returncode == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("scan", "{archive}", "--walk"), "go with --output"),
        (("scan", "{archive}", "--scheduler", "tcp://127.0.0.1:1"), "go with --output"),
        (("scan", "{archive}", "{archive}", "-o", "{tmp}/x"), "one folder"),
        (("scan", "{archive}/nowhere", "-o", "{tmp}/x"), "nowhere"),
        (("scan", "{kept}", "--exclude", "*.png"), "chosen already"),
        (("scan", "{archive}", "-o", "{archive}"), "is or holds the folder"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], text: str, archive: Path, kept: Path, tmp_path: Path
) -> None:
    done = run(*(one.format(archive=archive, tmp=tmp_path, kept=kept) for one in arguments))
    assert done.returncode == 2 and text in done.stderr
    assert len(done.stderr.splitlines()) == 1
