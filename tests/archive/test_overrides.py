"""Overrides of headers through scans, folders, archives, stores, xarray and the command line.

fo-dicom issue 340: a folder of files that lack Bits Stored, or the transfer syntax.
"""

import gzip
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from made_series import AXIAL, SERIES, along, classic
from make_dicom import encapsulated, native, noise, saved
from pydicom.uid import RLELossless
from typer.testing import CliRunner

import dcmdask
import dcmdask.archive.listing as listing
from dcmdask import AmbiguousSourceError, MissingElementError, from_dicom, scan
from dcmdask.archive import processes
from dcmdask.batch.identity import source_of
from dcmdask.batch.selection import _scanned
from dcmdask.cli import app

FRAMES = noise(4, 5, 7, dtype="i2", bits=12)
EVEN = along(AXIAL, 2.5 * np.arange(4))
RESCALED = {"RescaleIntercept": -24, "RescaleSlope": 2}


@pytest.fixture
def lacking(tmp_path: Path) -> Path:
    """Files of one series that lack Bits Stored."""
    folder = tmp_path / "lacking"
    classic(folder, FRAMES, EVEN, BitsStored=None, **RESCALED)
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Files of one series without file meta information, of which the pixel data is encoded."""
    folder = tmp_path / "bare"
    for number, frame in enumerate(FRAMES):
        data = encapsulated(
            frame[np.newaxis],
            RLELossless,
            preamble=False,
            meta=False,
            SOPInstanceUID=f"{SERIES}.{number}",
            SeriesInstanceUID=SERIES,
            ImagePositionPatient=EVEN[number].tolist(),
            ImageOrientationPatient=list(AXIAL),
            PixelSpacing=[0.5, 0.75],
        )
        folder.mkdir(exist_ok=True)
        saved(folder, data, f"{number}")
    return folder


def run(*arguments: Any, expected: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == expected, (done.output, done.exception)
    return done.output


def test_a_scan_takes_what_headers_lack(lacking: Path, bare: Path) -> None:
    """fo-dicom issue 340."""
    for folder, advice in ((lacking, "pass bits_stored"), (bare, "pass transfer_syntax_uid")):
        found = scan(folder)
        assert not len(found) and len(found.doubtful) == 4
        assert all(advice in one.reason for one in found.doubtful)
    for folder, options in (
        (lacking, {"bits_stored": 12}),
        (bare, {"transfer_syntax_uid": RLELossless}),
    ):
        found = scan(folder, **options)
        assert not found.skipped
        series = pickle.loads(pickle.dumps(found[0]))
        np.testing.assert_array_equal(series.to_dask(), FRAMES)
        np.testing.assert_array_equal(series.stacks[0].frames, FRAMES)
        np.testing.assert_array_equal(from_dicom(folder, **options), FRAMES)
        assert series.to_dask().name == from_dicom(folder, **options).name
    assert scan(lacking, bits_stored=12)[0].instances[0].bits_stored == 12


@pytest.mark.parametrize("few", [0, 4])
def test_processes_describe_with_them(
    few: int, lacking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PATIENCE", 0)
    monkeypatch.setattr(listing, "BATCH", 2)
    monkeypatch.setattr("dask.system.CPU_COUNT", 2)
    monkeypatch.setattr(processes, "_FEW", few)
    assert len(scan(lacking, bits_stored=12)[0]) == 4


def test_archives_and_remote_files(lacking: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in lacking.iterdir():
            archive.write(path, path.name)
    np.testing.assert_array_equal(from_dicom(tmp_path / "a.zip", bits_stored=12), FRAMES)
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in lacking.iterdir():
        memory.pipe(f"/lacking/{path.name}", path.read_bytes())
    try:
        np.testing.assert_array_equal(from_dicom("memory://lacking", bits_stored=12), FRAMES)
    finally:
        memory.rm("/lacking", recursive=True)


@pytest.mark.parametrize("values", ["modality", "display"])
def test_a_file_and_a_folder_have_the_same_values(values: Any, tmp_path: Path) -> None:
    data = {"BitsStored": None, "PixelRepresentation": None, **RESCALED}
    (path,) = classic(tmp_path / "one", FRAMES[:1].view("u2"), None, **data)
    with pytest.raises(MissingElementError):
        from_dicom(path, bits_stored=12, values=values)
    options = {"bits_stored": 12, "pixel_representation": 1, "values": values}
    expected = from_dicom(path, **options).compute()
    np.testing.assert_array_equal(from_dicom(tmp_path / "one", **options), expected)
    if values == "modality":
        np.testing.assert_array_equal(expected, FRAMES[:1] * 2.0 - 24)


def test_frames_of_each_file(tmp_path: Path) -> None:
    frames = noise(6, 5, 7)
    data = native(frames, SeriesInstanceUID=SERIES)
    saved(tmp_path, data.replace(b"IS\x02\x006 ", b"IS\x02\x00x "), "a")
    (skipped,) = scan(tmp_path).doubtful
    assert "pass number_of_frames" in skipped.reason
    options = {"number_of_frames": 6}
    np.testing.assert_array_equal(from_dicom(tmp_path, **options), frames)
    np.testing.assert_array_equal(from_dicom(tmp_path / "a", **options), frames)
    (stack,) = scan(tmp_path, **options)[0].stacks
    np.testing.assert_array_equal(stack.to_dask(**options), frames)
    with pytest.raises(TypeError, match="'number_of_frames' is an option for one file alone"):
        stack.to_dask(number_of_frames=3)


def test_a_series_is_scanned_with_the_options_of_its_store(tmp_path: Path) -> None:
    """Of a store that was exported with options which the caller of `verify` does not pass."""
    source = saved(tmp_path, native(noise(6, 5, 7), SeriesInstanceUID=SERIES))
    store = tmp_path / "a.zarr"
    dcmdask.to_zarr(source, store, number_of_frames=6)
    with pytest.raises(TypeError, match=r"of the scan: scan\(src, number_of_frames=6\)"):
        dcmdask.verify(store, scan(source)[0])
    assert dcmdask.verify(store, source).ok
    assert dcmdask.verify(store, scan(source, number_of_frames=6)[0]).regions


def test_options_of_opening_come_first(tmp_path: Path) -> None:
    colour = noise(2, 4, 6, 3)
    classic(tmp_path, colour, EVEN[:2], PhotometricInterpretation="YBR_FULL")
    series = scan(tmp_path, photometric_interpretation="RGB")[0]
    np.testing.assert_array_equal(series.to_dask(), colour)
    converted = series.to_dask(photometric_interpretation="YBR_FULL").compute()
    np.testing.assert_array_equal(converted, scan(tmp_path)[0].to_dask())
    assert not np.array_equal(converted, colour)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bits_stord": 12}, r"scan\(\) has no parameter 'bits_stord': did you mean 'bits_stored'"),
        ({"exclud": "a"}, "did you mean 'exclude'"),
        ({"decode_times": False}, "'decode_times': decoding options are allow_excess_frames"),
        ({"raw": True}, "'raw': decoding options are allow_excess_frames, bits_allocated"),
        ({"extended_offsets": ([], [])}, "no parameter 'extended_offsets'"),
    ],
)
def test_an_option_that_there_is_not(wrong: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=words):
        scan(tmp_path, **wrong)


@pytest.mark.parametrize("kind", ["zarr", "ome-zarr"])
def test_an_export_is_resumed_and_verified_with_its_options(
    kind: Any, lacking: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dcmdask.to_zarr(lacking, store, format=kind, values="modality", bits_stored=12)
    series = scan(lacking, bits_stored=12)[0]
    for source in (lacking, series, series.stacks[0]):
        found = dcmdask.verify(store, source)
        assert found.ok and found.source_token_same, str(found)
    other = tmp_path / "b.zarr"
    dcmdask.to_zarr(series, other, format=kind, values="modality")
    found = dcmdask.verify(other, lacking)
    assert found.ok and found.source_token_same, str(found)
    how: dict[str, Any] = {"format": kind, "values": "modality", "resume": True}
    for source, options in ((lacking, {"bits_stored": 12}), (series, {})):
        assert not dcmdask.to_zarr(source, store, **how, **options).written
    with pytest.raises(dcmdask.StoreExistsError):
        dcmdask.to_zarr(lacking, store, **how, bits_stored=16)
    assert not dcmdask.verify(store, lacking, bits_stored=10, photometric_interpretation="RGB").ok


def test_a_file_as_volume_and_as_frames(lacking: Path, tmp_path: Path) -> None:
    path = min(lacking.iterdir())
    for kind in ("zarr", "ome-zarr"):
        how: dict[str, Any] = {"format": kind, "values": "modality", "bits_stored": 12}
        dcmdask.to_zarr(path, tmp_path / kind, **how)
        assert dcmdask.verify(tmp_path / kind, path).ok


def test_the_engine_of_xarray(lacking: Path) -> None:
    ds = xr.open_dataset(lacking, engine="dcmdask", values="modality", bits_stored=12)
    np.testing.assert_array_equal(ds.pixels, FRAMES * 2.0 - 24)
    tree = xr.open_datatree(lacking, engine="dcmdask", bits_stored=12)
    np.testing.assert_array_equal(tree[SERIES].pixels, FRAMES)
    lazy = xr.open_dataset(lacking, engine="dcmdask", chunks={}, bits_stored=12)
    np.testing.assert_array_equal(lazy.pixels, FRAMES)
    path = min(lacking.iterdir())
    assert xr.open_dataset(path, engine="dcmdask", bits_stored=12).pixels.shape == (1, 5, 7)
    with pytest.raises(TypeError, match="did you mean 'bits_stored'"):
        xr.open_dataset(lacking, engine="dcmdask", bits_stord=12)
    with pytest.raises(AmbiguousSourceError, match="pass bits_stored"):
        xr.open_dataset(lacking, engine="dcmdask")


def test_a_job_knows_a_source_by_its_options(lacking: Path) -> None:
    plain = scan(lacking, bits_stored=12)[0]
    assert source_of(plain) == source_of(scan(lacking, bits_stored=12)[0])
    assert source_of(plain) != source_of(scan(lacking, bits_stored=16)[0])
    # A limit changes no value.
    assert source_of(plain) == source_of(scan(lacking, bits_stored=12, inflate_limit=10**6)[0])
    found = scan(lacking, bits_stored=12)
    with pytest.raises(ValueError, match=r"pixel_representation: .* is a Scan already"):
        _scanned(found, None, None, {"exclude": (), "pixel_representation": 0})


@pytest.mark.parametrize("setting", ["bits_stored=12", "BitsStored=12"])
def test_commands_take_them(setting: str, lacking: Path, tmp_path: Path) -> None:
    given = ("--set", setting)
    run("scan", lacking, expected=1)
    assert json.loads(run("scan", lacking, "--json", *given))["series"][0]["frames"] == 4
    assert json.loads(run("info", lacking, "--json", *given))["series"][0]["stacks"]
    path = min(lacking.iterdir())
    assert json.loads(run("info", path, "--json", *given))["bits_stored"] == 12
    picture = tmp_path / "a.png"
    for series in ((), ("--series", "0")):
        run("picture", lacking, picture, *series, *given)
        assert picture.read_bytes()[:4] == b"\x89PNG"
        store = tmp_path / f"{len(series)}.zarr"
        run("export", lacking, store, *series, *given, "--verify", 1)
        run("verify", store, "--source", lacking, *series)
        run("verify", store, "--source", lacking, *series, *given)
        run("export", lacking, store, *series, *given, "--resume")


def test_commands_take_a_transfer_syntax(bare: Path, tmp_path: Path) -> None:
    for given in (
        ("--set", f"transfer_syntax_uid={RLELossless}"),
        ("--set", f"TransferSyntaxUID={RLELossless}"),
    ):
        assert json.loads(run("scan", bare, "--json", *given))["series"][0]["frames"] == 4
    known = ("--transfer-syntax-uid", RLELossless)
    assert json.loads(run("info", bare, "--json", *known))["series"][0]["stacks"]
    run("export", bare, tmp_path / "a.zarr", *known, "--set", "rows=7", "--set", "columns=5")
    assert dcmdask.verify(tmp_path / "a.zarr", bare).ok


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("bits_stord=12", "KEYWORD is one of allow_excess_frames, bits_allocated"),
        ("bits_stored", "VALUE is missing"),
        ("photometric_interpretation", "VALUE is missing"),
        ("transfer_syntax_uid=", "VALUE is missing"),
        ("allow_excess_frames=0", "true or false"),
        ("bits_stored=a", "whole number"),
        ("PatientName=X", "KEYWORD is one of"),
    ],
)
def test_commands_refuse_what_is_none(setting: str, words: str, lacking: Path) -> None:
    said = run("scan", lacking, "--set", setting, expected=2).replace("│", "")
    assert words in " ".join(said.split())


def test_commands_refuse_a_keyword_twice(lacking: Path) -> None:
    twice = ("--set", "bits_stored=12", "--set", "BitsStored=13")
    assert "given twice" in run("scan", lacking, *twice, expected=2)
    both = ("--number-of-frames", 1, "--set", "NumberOfFrames=2")
    said = run("info", lacking, *both, expected=2).replace("│", "")
    assert "--number-of-frames is given too" in " ".join(said.split())


@pytest.mark.parametrize("limit", [0, -1, 1.5, "x", None])
def test_a_limit_that_is_no_number_of_bytes(limit: Any, lacking: Path) -> None:
    for open_ in (scan, dcmdask.from_dicom, dcmdask.open_frames):
        with pytest.raises(ValueError, match="inflate_limit is a number of bytes"):
            open_(lacking, inflate_limit=limit)


def test_commands_take_every_option_of_a_scan(tmp_path: Path) -> None:
    path = saved(tmp_path, native(FRAMES).replace(b"IS\x02\x004 ", b"IS\x02\x002 "))
    for given, frames in (((), 4), (("--set", "allow_excess_frames=False"), 2)):
        assert json.loads(run("info", path, "--json", *given))["shape"][0] == frames
    zipped = saved(tmp_path, gzip.compress(path.read_bytes()), "a.dcm.gz")
    path.unlink()
    for limit, series in ((100, 0), (10**6, 1)):
        said = run("scan", zipped, "--json", "--set", f"inflate_limit={limit}", expected=1 - series)
        assert len(json.loads(said)["series"]) == series
