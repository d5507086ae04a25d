"""`dcmdask export` and `dcmdask verify`: every option, exit codes, and where the work is done."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import typer
import zarr
from distributed import LocalCluster
from made_series import AXIAL, along, classic
from make_dicom import noise
from real_files import packaged_file
from typer.testing import CliRunner

import dcmdask
from dcmdask.cli import app
from dcmdask.cli.export import numbers
from dcmdask.console import progress
from dcmdask.sources import files

FRAMES = noise(12, 20, 24)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "series"
    classic(folder, FRAMES, along(AXIAL, 2.5 * np.arange(12)))
    return folder


def run(*arguments: Any, expected: int = 0) -> str:
    """What the command prints; in this process, where that is enough."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == expected, (done.output, done.exception)
    return done.output


def command(*arguments: Any, expected: int = 0) -> tuple[str, str]:
    """What the command prints as a process of its own, and what it says."""
    done = commands.run(*arguments, timeout=120)
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def about(store: Path) -> dict[str, Any]:
    found = zarr.open_group(store, mode="r").attrs.asdict()["dcmdask"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("options", "chunks", "shards"),
    [
        ([], (12, 20, 24), None),
        (["--chunks", "2,10,8"], (2, 10, 8), None),
        (["--chunks", "2,10,8", "--shards", "4,20,24"], (2, 10, 8), (4, 20, 24)),
        (["--chunks", "3", "--shards", "6"], (3, 20, 24), (6, 20, 24)),
        (["--chunks", "auto", "--shards", "none"], (12, 20, 24), None),
    ],
)
def test_chunks_and_shards(
    options: list[str], chunks: Any, shards: Any, series: Path, tmp_path: Path
) -> None:
    run("export", series, tmp_path / "a.zarr", *options)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["pixels"]
    assert (array.chunks, array.shards) == (chunks, shards)
    np.testing.assert_array_equal(array[...], dcmdask.from_dicom(series).compute())


@pytest.mark.parametrize("wrong", ["0", "-1", "1,-2,3", "1e3", "many", "1, 2,x", "", "1,,2"])
def test_what_is_no_shape(wrong: str, series: Path, tmp_path: Path) -> None:
    for option in ("--chunks", "--shards", "--levels"):
        run("export", series, tmp_path / "a.zarr", f"{option}={wrong}", expected=2)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", ["--chunks", "--shards", "--levels"])
@pytest.mark.parametrize("wrong", ["0", "many"])
def test_a_wrong_number_names_its_option(option: str, wrong: str) -> None:
    with pytest.raises(typer.BadParameter) as raised:
        numbers(wrong, option)
    assert raised.value.format_message().startswith(f"Invalid value for {option}: '{wrong}': ")


def test_a_resume_with_nothing_to_do_claims_no_speed(series: Path, tmp_path: Path) -> None:
    assert "/s" in run("export", series, tmp_path / "a.zarr", "--chunks=2")
    again = run("export", series, tmp_path / "a.zarr", "--chunks=2", "--resume")
    assert "0 of 6 regions written" in again and "/s" not in again


def test_ome_zarr_0_4(series: Path, tmp_path: Path) -> None:
    store, asked = tmp_path / "a.zarr", ["--format", "ome-zarr", "--ome-version", "0.4"]
    shown = run("export", series, store, *asked, "--dry-run", "--json")
    assert json.loads(shown)["levels"][0]["shards"] is None and not store.exists()
    run("export", series, store, *asked, "--compressor", "zstd", "--verify", 1)
    assert zarr.open_group(store, mode="r").metadata.zarr_format == 2
    assert about(store)["plan"]["codecs"] == [{"id": "zstd", "level": 0, "checksum": True}]
    run("export", series, store, *asked, "--compressor", "zstd", "--resume")
    assert "the same as the source" in run("verify", store, "--source", series)


@pytest.mark.parametrize(
    "named",
    [[], ["--tolerance", "0.1"], ["--fill-value", "7"]],
    ids=lambda named: " ".join(named) or "defaults",
)
def test_the_command_goes_on_with_an_export_of_python(
    named: list[str], series: Path, tmp_path: Path
) -> None:
    """Options equal to their defaults are in no store, whoever named them."""
    store = tmp_path / "a.zarr"
    options = {named[0][2:].replace("-", "_"): float(named[1])} if named else {}
    dcmdask.to_zarr(series, store, chunks=3, **options)
    recorded = {
        name: str(value) if name == "fill_value" else value for name, value in options.items()
    }
    assert about(store)["plan"]["options"] == recorded
    os.unlink(store / "pixels/c/3/0/0")
    run("export", series, store, "--chunks", 3, *named, "--resume")
    assert about(store)["complete"] and dcmdask.verify(store, series).ok
    report = dcmdask.to_zarr(series, store, chunks=3, **options, raw=False, resume=True)
    assert report.written == 0


def test_options_that_version_0_2_recorded(series: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    dcmdask.to_zarr(series, store)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    told = about(store)
    told["plan"]["options"] = {"fill_value": None, "raw": False}
    group.update_attributes({"dcmdask": told})
    assert dcmdask.to_zarr(series, store, resume=True).written == 0
    assert about(store)["plan"]["options"] == {}


def test_lines_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.counting("regions") as advance:
        for done in range(1, 31):
            now[0] += 1
            advance(done, 30 if done > 10 else None)
    assert capsys.readouterr().err.splitlines() == [
        "dcmdask: 10 regions",
        "dcmdask: 20 of 30 regions",
        "dcmdask: 30 of 30 regions",
    ]


def test_a_dry_run_says_what_is_then_written(series: Path, tmp_path: Path) -> None:
    options = ["--format", "ome-zarr", "--levels", "2", "--chunks", "2,10,24", "--values=modality"]
    printed = run("export", series, tmp_path / "a.zarr", *options, "--dry-run")
    assert "chunks 2 x 10 x 24" in printed and "a sixth of this machine's memory" in printed
    told = json.loads(run("export", series, tmp_path / "a.zarr", *options, "--dry-run", "--json"))
    assert os.listdir(tmp_path) == []
    report = json.loads(run("export", series, tmp_path / "a.zarr", *options, "--json"))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    for level in told["levels"]:
        array = group[level["name"]]
        assert list(array.shape) == level["shape"]
        assert list(array.chunks) == level["chunks"]
    assert told["regions"] == report["regions"] == report["written"]
    assert told["bytes_decoded"] == report["bytes_decoded"]
    assert str(group["0"].dtype) == told["dtype"]
    assert set(told["coordinates"]) | {"0", "1"} == set(group.keys())


def test_a_region_that_does_not_fit(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcmdask.store.scheduler.MEMORY_LIMIT", 8000)
    for option in ([], ["--dry-run"]):
        done = CliRunner().invoke(app, ["export", str(series), str(tmp_path / "a"), *option])
        assert isinstance(done.exception, dcmdask.AlignmentError)
        assert "would fit" in str(done.exception)
    assert os.listdir(tmp_path) == []


def test_a_bad_frame(corrupt: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    _, said = command("export", corrupt, store, "--chunks", 1, expected=2)
    assert "frame 2" in said
    assert about(store)["complete"] is False
    printed = run(
        "export", corrupt, store, "--overwrite", "--on-error", "fill", "--chunks", 1, expected=1
    )
    assert "  frame 2 filled: " in printed
    assert about(store)["complete"] is True
    np.testing.assert_array_equal(
        zarr.open_group(store, mode="r")["missing"][...], [False, False, True, False]
    )
    told = json.loads(
        run("export", corrupt, store, "--resume", "--on-error=fill", "--chunks=1", "--json",
            expected=1)
    )  # fmt: skip
    assert told["written"] == 0
    assert told["failures"] == [[[2], "filled before the export was resumed"]]
    run("verify", store, "--source", corrupt)


def test_export_and_verify_at_once(series: Path, tmp_path: Path) -> None:
    printed = run("export", series, tmp_path / "a.zarr", "--verify", "0.5", "--chunks", "2")
    assert ": the same" in printed
    told = json.loads(
        run("export", series, tmp_path / "a.zarr", "--resume", "--verify=1", "--json", "--chunks=2")
    )
    assert told["written"] == 0 and told["verified"]["differences"] == []


def test_verify_finds_differences(series: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    run("export", series, store, "--chunks", "2")
    assert run("verify", store, "--source", series)
    os.unlink(store / "pixels/c/3/0/0")
    printed = run("verify", store, expected=1)
    assert "pixels/c/3/0/0" in printed
    told = json.loads(run("verify", store, "--json", expected=1))
    assert told["ok"] is False and len(told["differences"]) == 1
    _, said = command("verify", tmp_path / "nothing.zarr", expected=2)
    assert str(tmp_path / "nothing.zarr") in said


def test_exclusive_options(series: Path, tmp_path: Path) -> None:
    for pair in (["--resume", "--overwrite"], ["--scheduler", "tcp://127.0.0.1:1", "--workers=1"]):
        _, said = command("export", series, tmp_path / "a.zarr", *pair, expected=2)
        assert "not both" in said
    assert os.listdir(tmp_path) == []


def test_levels_of_plain_zarr(series: Path, tmp_path: Path) -> None:
    _, said = command("export", series, tmp_path / "a.zarr", "--levels", 3, expected=2)
    assert "ome-zarr" in said


# Where the work is done.


def test_workers(series: Path, tmp_path: Path) -> None:
    printed, said = command("export", series, tmp_path / "a.zarr", "--workers", 2, "--chunks", 2)
    assert printed.startswith(str(tmp_path / "a.zarr"))
    # On a slow machine a line of progress.
    assert not [line for line in said.splitlines() if not line.endswith(" regions")]
    assert dcmdask.verify(tmp_path / "a.zarr", series).ok


@pytest.fixture
def address() -> Iterator[str]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_that_runs(address: str, series: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    options = ["--scheduler", address, "--chunks", 2, "--verify", 1]
    printed, said = command("export", series, store, *options)
    assert ": the same" in printed and said == ""
    assert dcmdask.verify(store, series).ok


def test_nobody_answers(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmdask.store.scheduler.PATIENCE", "1s")
    done = CliRunner().invoke(
        app,
        ["export", str(series), str(tmp_path / "a.zarr"), "--scheduler", "tcp://127.0.0.1:9"],
    )
    assert isinstance(done.exception, OSError)
    assert os.listdir(tmp_path) == []


def test_info_holds_each_look_at_a_file_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one for its size: a server that gives no parts sends the whole file."""
    limits, locate = [], files.locate

    def located(src: Any, options: Any = None, limit: int = files.INFLATE_LIMIT) -> files.Stored:
        limits.append(limit)
        return locate(src, options, limit)

    monkeypatch.setattr(files, "locate", located)
    path = str(packaged_file("CT_small.dcm"))
    done = CliRunner().invoke(app, ["info", path, "--inflate-limit", "12345678"])
    assert done.exit_code == 0 and {*limits} == {12345678}


def test_the_tolerance_of_positions(tmp_path: Path) -> None:
    """0.1 mm of 2.5 are more than is allowed for."""
    classic(tmp_path / "a", noise(4, 5, 7), along(AXIAL, [0, 2.5, 5.1, 7.5]))
    _, said = command("export", tmp_path / "a", tmp_path / "a.zarr", expected=2)
    assert "gaps are uneven" in said
    _, said = command("export", tmp_path / "a", tmp_path / "a.zarr", "--tolerance", 0.2)
    assert "by up to 0.1 mm" in said
