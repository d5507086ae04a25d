"""The jobs under pipelines/: on real and on known series, on a cluster, started both ways."""

import csv
import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pydicom
import pytest
import xarray
import zarr
from canaries import CANARY, file_of, fill, traces
from distributed import Client, LocalCluster
from made_series import AXIAL, SERIES, along, classic
from made_slides import made_slide
from make_dicom import described, noise
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.pixels import apply_modality_lut
from pydicom.uid import CTImageStorage, RLELossless
from real_files import ROOT, packaged_file
from s3_here import BUCKET, serving

import dcmdask
from dcmdask import batch
from dcmdask.batch.outputs import Shared, in_use
from dcmdask.batch.staging import Staging
from dcmdask.sources.folder import Folder

PIPELINES = ROOT / "pipelines"
NAMES = ("export_zarr", "projections", "quality", "tissue", "training_set")
REAL = packaged_file("DICOMDIR-nopatient").parent
# Of REAL: five regular CT frames of 16 x 16, four uneven ones, and two stacks of one frame.
CT5N = REAL / "98892001/CT5N"
VOLUME = "1.3.6.1.4.1.5962.1.1.0.0.0.1194734704.16302.0.6"
UNEVEN = "1.3.6.1.4.1.5962.1.1.0.0.0.1196530851.28319.0.2"
LOCALIZER = "1.3.6.1.4.1.5962.1.1.0.0.0.1194734704.16302.0.2"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def run(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a pipeline on the cluster as `dcmdask run` does, and return its exit code and output."""

    def run(name: str, *arguments: Any) -> tuple[int, str]:
        path = str(PIPELINES / f"{name}.py")
        told = [path, *map(str, arguments), "--scheduler", address, "--retries", "0"]
        monkeypatch.setattr(sys, "argv", told)
        # A script changes what is kept of them.
        monkeypatch.setattr(sys, "path", [*sys.path])
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, capsys.readouterr().out

    return run


def loaded(name: str) -> dict[str, Any]:
    """What a script defines."""
    return runpy.run_path(str(PIPELINES / f"{name}.py"))


def record(target: Path, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((target / "records" / f"{name}.json").read_text())
    return told


def rows(path: Path, key: str = "series") -> dict[str, dict[str, str]]:
    with path.open(newline="") as lines:
        return {row[key]: row for row in csv.DictReader(lines)}


def stored(target: Path, series: str, key: str) -> zarr.Array[Any]:
    return zarr.open_array(target / "series" / series / key, path="pixels", mode="r")


def hounsfield(folder: Path) -> np.ndarray:
    """The CT of a folder as pydicom has it, by position."""
    files = [pydicom.dcmread(path) for path in folder.iterdir()]
    files.sort(key=lambda one: one.ImagePositionPatient[2])
    return np.stack([f.pixel_array * f.RescaleSlope + f.RescaleIntercept for f in files])


# Both ways of starting


def started(*command: Any) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.rare
def test_started_both_ways_it_is_one_job(address: str, tmp_path: Path) -> None:
    script = PIPELINES / "projections.py"
    more = (CT5N, tmp_path, "--scheduler", address)
    assert "1 processed now" in started(sys.executable, script, *more)
    again = started(sys.executable, "-m", "dcmdask", "run", script, *more)
    assert "1 of 1 series done; 0 processed now" in again


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = loaded(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        batch.main(script["process"], description=script["__doc__"])
    assert not ended.value.code
    shown = capsys.readouterr().out
    for option in list(inspect.signature(script["process"]).parameters)[1:]:
        assert "--" + option.replace("_", "-") in shown
        assert "--" + option.replace("_", "-") in script["__doc__"]


# Export


def test_export(run: Any, tmp_path: Path) -> None:
    code, told = run("export_zarr", REAL, tmp_path, "--values", "modality")
    assert code == 1 and "12 of 13 series done; 13 processed now" in told
    # The one that failed says why, and nothing of it is there.
    failed = record(tmp_path, UNEVEN)
    assert failed["stage"] == "assemble" and failed["error"] == "IrregularSeriesError"
    ct = zarr.open_group(tmp_path / "series" / VOLUME / "stack-0.zarr", mode="r")
    assert ct.attrs["dcmdask"]["complete"] and "ome" in ct.attrs
    np.testing.assert_array_equal(ct["0"][...], hounsfield(CT5N))
    assert rows(tmp_path / "results.csv")[LOCALIZER]["stores"] == "2"
    outputs = record(tmp_path, LOCALIZER)["outputs"]
    assert sorted(outputs) == ["stack-0.zarr", "stack-1.zarr"]
    for path in outputs.values():
        assert zarr.open_group(tmp_path / path, mode="r").attrs["dcmdask"]["complete"]
    # Again: only what failed; and with another option, which settles it, everything.
    code, told = run("export_zarr", REAL, tmp_path, "--values", "modality", "--only-failed")
    assert code == 1 and "0 of 1 series done; 1 processed now" in told
    assert "files left out: 50" in told
    code, told = run(
        "export_zarr", REAL, tmp_path, "--values", "modality", "--on-irregular", "keep", "--redo"
    )
    # There are files without pixels in the folder, too.
    assert code == 1 and "13 of 13 series done; 13 processed now" in told
    # OME-Zarr has no place for what is uneven.
    assert rows(tmp_path / "results.csv")[UNEVEN]["plain"] == "1"
    kept = stored(tmp_path, UNEVEN, "stack-0.zarr")
    np.testing.assert_array_equal(kept[...], hounsfield(REAL / "77654033/CT2"))
    code, told = run(
        "export_zarr", REAL, tmp_path, "--values", "modality", "--on-irregular", "keep"
    )
    assert code == 1 and "13 of 13 series done; 0 processed now" in told


def test_export_splits(run: Any, tmp_path: Path) -> None:
    code, _ = run("export_zarr", REAL / "77654033/CT2", tmp_path, "--on-irregular", "split")
    assert code == 0
    parts = [
        zarr.open_group(tmp_path / path, mode="r")["0"].shape[0]
        for path in record(tmp_path, UNEVEN)["outputs"].values()
    ]
    # By position.
    assert parts == [1, 3]


def test_an_export_that_was_begun_is_gone_on_with_or_replaced(run: Any, tmp_path: Path) -> None:
    """As a killed worker leaves it: a staged store that is not complete, and no record."""
    store = tmp_path / "series" / VOLUME / "stack-0.zarr"

    def killed() -> None:
        group = zarr.open_group(store, mode="r+")
        group.attrs["dcmdask"] = {**group.attrs["dcmdask"], "complete": False}
        told = record(tmp_path, VOLUME)
        owner = f"{told['made_by']} {told['made_from']} {told['times']}"
        place = Path(Staging(Folder.of(tmp_path), VOLUME, owner).path(store.name))
        store.rename(place)
        (tmp_path / "records" / f"{VOLUME}.json").unlink()
        (tmp_path / "records" / f"{VOLUME}.files").unlink()

    def written() -> list[int]:
        chunks = (path for path in (store / "0" / "c").rglob("0") if path.is_file())
        return sorted(path.stat().st_mtime_ns for path in chunks)

    assert run("export_zarr", CT5N, tmp_path)[0] == 0
    before = written()
    killed()
    assert run("export_zarr", CT5N, tmp_path)[0] == 0
    assert written() == before
    # Of other options nothing can be kept.
    killed()
    assert run("export_zarr", CT5N, tmp_path, "--values", "modality")[0] == 0
    assert written() != before
    group = zarr.open_group(store, mode="r")
    assert group.attrs["dcmdask"]["complete"]
    np.testing.assert_array_equal(group["0"][...], hounsfield(CT5N))


# Outputs that a job writes itself


def staged(folder: Folder, name: str, owner: str) -> Staging:
    staging = Staging(folder, name, owner)
    staging.clear()
    return staging


def test_output_belongs_to_one_job(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    staging = staged(folder, "1.2", "a")
    with in_use(staging):
        path = Path(batch.output("notes.txt"))
        path.write_text("mine")
    assert staging.given == {"notes.txt": "series/1.2/notes.txt"}
    assert path.parent == tmp_path / staging.aside
    with in_use(staged(folder, "1.2", "a")):
        assert Path(batch.output("notes.txt")).read_text() == "mine"
    with in_use(staged(folder, "1.2", "b")):
        assert not Path(batch.output("notes.txt")).exists()
    # Another series is not touched.
    with in_use(staged(folder, "1.3", "b")):
        batch.output("notes.txt")
    with in_use(staged(folder, "1.2", "c")):
        batch.output("other.txt")
    assert (tmp_path / "records/1.3.new").is_dir()


@pytest.mark.parametrize(
    "name", ["plain", "../a.txt", ".txt", "a/b.txt", "a..txt", "", "a" * 62 + ".txt"]
)
def test_output_has_a_name(name: str, tmp_path: Path) -> None:
    with in_use(staged(Folder.of(tmp_path), "1.2", "a")), pytest.raises(ValueError, match="cannot"):
        batch.output(name)


def test_output_is_for_a_series_that_is_processed() -> None:
    with pytest.raises(RuntimeError, match=r"batch\.run"):
        batch.output("a.txt")


def test_output_is_not_returned_as_well(address: str, tmp_path: Path) -> None:
    def process(series: dcmdask.Series) -> dict[str, Any]:
        batch.output("a.zarr")
        return {"a": np.zeros(3)}

    with Client(address) as client:
        report = batch.run(process, CT5N, tmp_path, client=client, retries=0)
    assert "a.zarr itself" in report.failures[0].message


# Projections


@pytest.mark.parametrize("kind", ["max", "mean", "min"])
@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_projections(kind: str, axis: str, run: Any, tmp_path: Path) -> None:
    code, _ = run("projections", CT5N, tmp_path, "--kind", kind, "--axis", axis)
    assert code == 0
    name = f"{kind}-{axis}-0"
    expected = getattr(hounsfield(CT5N), kind)("zyx".index(axis))
    projection = stored(tmp_path, VOLUME, f"{name}.zarr")
    np.testing.assert_allclose(projection[...], expected, rtol=1e-6)
    assert projection.metadata.dimension_names == tuple(dim for dim in "zyx" if dim != axis)
    told = stored(tmp_path, VOLUME, f"{name}.zarr").attrs
    assert told["units"] == "HU" and "affine" not in told
    picture = np.asarray(Image.open(tmp_path / "series" / VOLUME / f"{name}-picture.png"))
    # Five frames of 2.5 mm beside pixels of 0.488281 mm.
    assert picture.shape == ((16, 16) if axis == "z" else (26, 16))
    shown = picture[::25] if axis != "z" else picture
    flipped = expected[::-1][[0, -1]] if axis != "z" else expected
    low, high = expected.min(), expected.max()
    # What is between rows of the volume is interpolated; the outermost are themselves.
    np.testing.assert_allclose(shown, (flipped - low) * 255 / (high - low), atol=0.51)


def test_projections_in_a_window_of_what_there_is(run: Any, tmp_path: Path) -> None:
    window = ("--center", "40", "--width", "400")
    code, told = run("projections", REAL, tmp_path, *window, "--on-irregular", "keep")
    assert code == 1 and "10 of 13 series done" in told
    # Frames without a position have no axis z.
    assert told.count("there is no axis z to project along") == 3
    assert rows(tmp_path / "results.csv")[LOCALIZER]["projected"] == "2"
    picture = Image.open(tmp_path / "series" / VOLUME / "max-z-0-picture.png")
    expected = (hounsfield(CT5N).max(0) + 160).clip(0, 400) * 255 / 400
    np.testing.assert_allclose(np.asarray(picture), expected, atol=0.51)


def test_what_other_options_led_to_is_gone(run: Any, tmp_path: Path) -> None:
    for axis in "zyx":
        more = ("--redo",) if axis != "z" else ()
        code, told = run("projections", CT5N, tmp_path, "--axis", axis, *more)
        assert code == 0 and "1 processed now" in told
        names = {path.name for path in (tmp_path / "series" / VOLUME).iterdir()}
        assert names == {f"max-{axis}-0.zarr", f"max-{axis}-0-picture.png"}
    # Where they fail it stays, and the record says what it is of.
    made_by = record(tmp_path, VOLUME)["made_by"]
    code, _ = run("projections", CT5N, tmp_path, "--axis", "t", "--redo")
    assert code == 1
    assert names == {path.name for path in (tmp_path / "series" / VOLUME).iterdir()}
    told = record(tmp_path, VOLUME)
    assert told["made_by"] == made_by != told["job"] and not told["done"]


def test_a_window_is_two_numbers() -> None:
    with pytest.raises(ValueError, match="center and a width"):
        loaded("projections")["process"](dcmdask.scan(CT5N)[0], center=40)


def test_a_picture_shows_two_dimensions() -> None:
    import xarray as xr

    plane = loaded("projections")["plane"]
    cine = xr.DataArray(np.arange(120).reshape(3, 5, 4, 2), dims=("t", "z", "y", "sample"))
    shown = plane(cine)
    assert shown.dims == ("z", "y", "sample")
    np.testing.assert_array_equal(shown, cine[1, ::-1])


# Quality


def test_quality(run: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(CT5N, source / "real")
    frames = noise(6, 32, 24, dtype="u2", bits=12)
    frames[0] = 7
    frames[1, :, :2] = 4095
    classic(source / "made", frames, along(AXIAL, [0, 1, 2, 3, 4, 6]), RescaleIntercept=-1000)
    # Two frames that another series has, in another order, and one blank frame.
    other = np.stack([frames[4], noise(1, 32, 24, dtype="u2", bits=11, seed=9)[0], frames[2]])
    other = np.concatenate([other, frames[:1]])
    classic(
        source / "other", other, along(AXIAL, [0, 1, 2, 3]), series=f"{SERIES}1",
        RescaleIntercept=-1000,
    )  # fmt: skip
    code, told = run("quality", source, target)
    assert code == 0 and "3 of 3 series done" in told
    found = rows(target / "results.csv")

    ct, row = hounsfield(CT5N), found[VOLUME]
    assert (float(row["low"]), float(row["high"])) == (ct.min(), ct.max())
    assert float(row["mean"]) == pytest.approx(ct.mean())
    assert float(row["deviation"]) == pytest.approx(ct.std())
    assert row["geometry"] == "regular"

    row = found[SERIES]
    assert (row["frames"], row["blank"], row["saturated"]) == ("6", "1", "1")
    assert row["geometry"] == "missing"
    assert float(row["mean"]) == pytest.approx(frames.mean() - 1000)
    assert float(row["high"]) == 3095
    assert found[SERIES]["pixels"] != found[f"{SERIES}1"]["pixels"]

    with (target / "duplicates.csv").open(newline="") as lines:
        pairs = [tuple(row.values()) for row in csv.DictReader(lines)]
    assert pairs == [(f"{SERIES}1", "0", SERIES, "4"), (f"{SERIES}1", "2", SERIES, "2")]
    assert "duplicates.csv: 2 frames" in told


def test_quality_of_a_copy(run: Any, tmp_path: Path) -> None:
    """Compressed again, renamed and shuffled, pixels are the same."""
    frames = noise(4, 16, 16, dtype="u2", bits=12)
    classic(tmp_path / "in" / "a", frames, along(AXIAL, [0, 1, 2, 3]))
    classic(tmp_path / "in" / "b", frames[::-1], along(AXIAL, [0, 5, 10, 15]), series=f"{SERIES}2")
    for path in (tmp_path / "in" / "b").iterdir():
        one = pydicom.dcmread(path)
        one.compress(RLELossless)
        one.save_as(path)
    assert run("quality", tmp_path / "in", tmp_path / "out")[0] == 0
    found = rows(tmp_path / "out" / "results.csv")
    assert found[SERIES]["pixels"] == found[f"{SERIES}2"]["pixels"]
    assert len((tmp_path / "out" / "duplicates.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("deviation", [5.0, 20.0])
def test_noise_is_estimated(deviation: float) -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1000, 200) + np.zeros((160, 1))
    frame = ramp + rng.normal(0, deviation, ramp.shape)
    # An edge, which is signal and no noise.
    frame[60:, :] += 500
    snr = loaded("quality")["signal_to_noise"](frame)
    low, high = np.percentile(frame, (5, 95))
    assert (high - low) / snr == pytest.approx(deviation, rel=0.05)
    assert snr == pytest.approx(loaded("quality")["signal_to_noise"](frame * 3 - 1000))


def test_frames_without_noise_or_numbers() -> None:
    of_frame = loaded("quality")["of_frame"]
    assert np.isnan(loaded("quality")["signal_to_noise"](np.ones((2, 2))))
    assert of_frame(np.full((4, 4), np.nan), 0.01)[0] == 0
    some = np.array([[1.0, np.inf, 3.0], [np.nan, 5.0, 7.0]] * 2)
    assert of_frame(some, 0.01)[:4] == (8, 1, 7, 4)


def test_nothing_to_compare(tmp_path: Path) -> None:
    import pandas as pd

    with in_use(Shared(Folder.of(tmp_path))):
        loaded("quality")["finish"](pd.DataFrame(), str(tmp_path))
        loaded("training_set")["finish"](pd.DataFrame(), str(tmp_path))
    assert (tmp_path / "duplicates.csv").read_text() == "series,frame,of_series,of_frame\n"
    assert (tmp_path / "index.csv").read_text() == "series,split,path,modality,z,y,x\n"


@pytest.mark.parametrize(
    ("folder", "verdict"),
    [
        ("dcmqi/data/segmentations/ct-3slice", "regular"),
        ("dcmqi/data/paramaps/pm-example-dcm.zip.d/701-ADCb500", "regular"),
        ("dicom-numpy/tests/dupe-positions.zip.d", "duplicate, uneven"),
    ],
)
def test_quality_of_the_corpus(
    folder: str, verdict: str, run: Any, corpus: Path, compared: Any, tmp_path: Path
) -> None:
    assert run("quality", corpus / folder, tmp_path)[0] == 0
    (row,) = rows(tmp_path / "results.csv").values()
    values = []
    for path in sorted((corpus / folder).rglob("*")):
        if path.is_file():
            one = pydicom.dcmread(path)
            values.append(apply_modality_lut(one.pixel_array, one))
            compared(path)
    assert (float(row["low"]), float(row["high"])) == (np.min(values), np.max(values))
    assert float(row["mean"]) == pytest.approx(np.mean(values))
    assert float(row["deviation"]) == pytest.approx(np.std(values))
    assert int(row["frames"]) == len(values)
    assert row["geometry"] == verdict


# Tissue of slides


@pytest.mark.parametrize("form", ["zarr", "png"])
def test_tissue(form: str, run: Any, tmp_path: Path) -> None:
    made = made_slide(
        tmp_path / "slides", (600, 900), (64, 64), downsamples=(1, 4), associated=("LABEL",)
    )
    (uid,) = {one.uid for one in dcmdask.scan(tmp_path / "slides")}
    target = tmp_path / "out"
    sizes = ("--size", 100, "--mask-size", 225, "--form", form, "--tissue", 0.6)
    code, told = run("tissue", tmp_path / "slides", target, *sizes)
    assert code == 0 and "patches of 1 slides" in told
    listed = rows(target / "patches.csv", "patch")
    assert listed and len(listed) == int(rows(target / "results.csv")[uid]["count"])
    script = loaded("tissue")
    mask = script["mask_of"](np.asarray(dcmdask.open_slide(made.folder).thumbnail(225)))
    whole = np.kron(mask, np.ones((4, 4)))
    matrix = made.levels[0].matrix[0, 0]
    folder = target / "series" / uid
    stored_ = None if form == "png" else zarr.open_group(folder / "patches.zarr", mode="r")
    for number, one in enumerate(listed.values()):
        top, left = int(one["top"]), int(one["left"])
        assert (top % 100, left % 100, one["level"]) == (0, 0, "0")
        expected = matrix[top : top + 100, left : left + 100]
        if stored_ is None:
            found = np.asarray(Image.open(folder / "patches.d" / f"{top:06d}_{left:06d}.png"))
        else:
            found = np.asarray(stored_["pixels"][number])
        np.testing.assert_array_equal(found, expected)
        assert float(one["tissue"]) >= 0.6
        share = whole[top : top + 100, left : left + 100].mean()
        assert abs(float(one["tissue"]) - share) < 0.05
    assert np.asarray(Image.open(folder / "picture.png")).shape == (150, 225, 3)
    # Fewer, and of another level.
    more = (*sizes, "--most", 2, "--mpp", 2, "--size", 20)
    code, told = run("tissue", tmp_path / "slides", target, *more, "--redo")
    assert code == 0 and "2 patches of 1 slides" in told
    assert {one["level"] for one in rows(target / "patches.csv", "patch").values()} == {"1"}


# Training set


def ramp(shape: tuple[int, int, int], steps: tuple[float, ...]) -> np.ndarray:
    """Hounsfield units that are linear in millimetres along all axes."""
    z, y, x = (np.arange(n) * s for n, s in zip(shape, steps, strict=True))
    return (-100 + 8 * z[:, None, None] + 4 * y[:, None] + 2 * x).round()


def test_training_set_of_a_ramp(run: Any, tmp_path: Path) -> None:
    values = ramp((9, 12, 16), (2.5, 0.5, 0.5))
    classic(
        tmp_path / "in", (values + 1024).astype("u2"), along(AXIAL, np.arange(9) * 2.5),
        spacing=(0.5, 0.5), RescaleSlope=1, RescaleIntercept=-1024, PatientID="somebody",
    )  # fmt: skip
    how = ("--spacing", 1.25, "--center", 0, "--width", 800)
    code, _ = run("training_set", tmp_path / "in", tmp_path / "out", *how)
    assert code == 0
    volume = stored(tmp_path / "out", SERIES, "volume.zarr")
    # To 20, 5.5 and 7.5 mm.
    assert volume.dtype == np.float16 and volume.shape == (17, 5, 7)
    expected = (ramp((17, 5, 7), (1.25, 1.25, 1.25)) + 400) / 800
    np.testing.assert_allclose(volume[...], expected, atol=2e-3)
    place = tmp_path / "out" / "series" / SERIES / "volume.zarr"
    made = xarray.open_zarr(place, consolidated=False)["pixels"]
    assert made.dcm.spacing == (1.25,) * 3
    # The same place in the patient, by the old affine and by the new one.
    old = dcmdask.scan(tmp_path / "in")[0].stacks[0].geometry.affine
    place = made.dcm.affine @ [4, 2, 6, 1]
    np.testing.assert_allclose(place, old @ [10, 5, 3, 1], atol=1e-6)
    (row,) = rows(tmp_path / "out" / "index.csv").values()
    assert (row["path"], row["z"], row["y"], row["x"]) == (
        f"series/{SERIES}/volume.zarr", "17", "5", "7",
    )  # fmt: skip


def test_training_set_of_real_files(run: Any, tmp_path: Path) -> None:
    arguments = ("--seed", "17", "--train", "0.4", "--validation", "0.3")
    code, told = run("training_set", REAL, tmp_path, *arguments)
    assert code == 1 and "5 of 13 series done" in told
    split = {name: row["split"] for name, row in rows(tmp_path / "index.csv").items()}
    patients = {
        str(one.SeriesInstanceUID): one.PatientID
        for path in REAL.rglob("*")
        if path.is_file() and (one := pydicom.dcmread(path, force=True)).get("SeriesInstanceUID")
    }
    parts = {
        patient: {split[name] for name in split if patients[name] == patient}
        for patient in patients.values()
    }
    # Each patient is in one part.
    assert all(len(found) <= 1 for found in parts.values())
    code, told = run("training_set", REAL, tmp_path, *arguments, "--only-failed")
    assert code == 1 and "0 of 8 series done; 8 processed now" in told


def test_the_parts_are_as_large_as_they_are_asked_to_be(tmp_path: Path) -> None:
    part = loaded("training_set")["part"]
    counts = {"train": 0, "validation": 0, "test": 0}
    classic(tmp_path, noise(1, 4, 4), along(AXIAL, [0]), PatientID="P")
    series = dcmdask.scan(tmp_path)[0]
    for seed in range(400):
        counts[part(series, "PatientID", str(seed), 0.7, 0.2)] += 1
    assert abs(counts["train"] - 280) < 40 and abs(counts["validation"] - 80) < 35
    with pytest.raises(ValueError, match="IssuerOfPatientID is empty"):
        part(series, "IssuerOfPatientID", "0", 0.7, 0.2)


# Elsewhere


@pytest.mark.rare
def test_on_an_object_store(
    run: Any, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def know(environment: dict[str, str]) -> None:
        os.environ.update(environment)

    with serving() as server:
        for key, value in server.env.items():
            monkeypatch.setenv(key, value)
        with Client(address) as client:
            client.run(know, server.env)
        for name in NAMES:
            target = f"s3://{BUCKET}/{name}"
            for now in (1, 0):
                code, told = run(name, CT5N, target)
                assert code == 0 and f"1 of 1 series done; {now} processed now" in told, told
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        store = f"s3://{BUCKET}/export_zarr/series/{VOLUME}/stack-0.zarr"
        found = zarr.open_group(store, mode="r")["0"][...]
        frames = np.load(fs.open(f"{BUCKET}/quality/series/{VOLUME}/digests.npy"))
        index = fs.cat(f"{BUCKET}/training_set/index.csv").decode()
        assert fs.exists(f"{BUCKET}/projections/series/{VOLUME}/max-z-0-picture.png")
    np.testing.assert_array_equal(found - 1024, hounsfield(CT5N))
    assert len(frames) == 5
    assert VOLUME in index


# Nothing personal


def test_no_trace_of_a_person(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "private"
    source.mkdir()
    frames = noise(3, 16, 16, dtype="i2", bits=12)
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = fill(
            described(
                frames[:1], SOPClassUID=CTImageStorage, SeriesInstanceUID=SERIES, PatientName=None,
                StudyInstanceUID="1.2.826.0.1.3680043.8.498.6", Modality="CT",
                ImageType=["ORIGINAL"],
                FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.5", PixelSpacing=[0.5, 0.75],
                ImageOrientationPatient=list(AXIAL), RescaleSlope=1, RescaleIntercept=-1024,
            )
        )  # fmt: skip
        dataset.NumberOfFrames = 1
        for number, position in enumerate(along(AXIAL, [0, 2.5, 5])):
            dataset.ImagePositionPatient = position.tolist()
            dataset.SOPInstanceUID = f"{SERIES}.{number}"
            data = file_of(dataset, frames[number : number + 1])
            assert data.count(CANARY.encode()) > 1500
            (source / str(number)).write_bytes(data)
    # A slide, of which the label names somebody as well.
    slide = made_slide(tmp_path / "slide", associated=("LABEL", "OVERVIEW"))
    for path in slide.folder.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword in ("PatientName", "PatientID", "InstitutionName", "ContainerIdentifier"):
            setattr(dataset, keyword, CANARY)
        dataset.OpticalPathSequence[0].OpticalPathDescription = CANARY
        dataset.save_as(path)
    for name in NAMES:
        target = tmp_path / name
        code, told = run(name, slide.folder if name == "tissue" else source, target)
        assert code == 0, told
        assert traces(told) == []
        files = [path for path in target.rglob("*") if path.is_file()]
        shared = [path for path in files if path.relative_to(target).parts[0] != "records"]
        assert len(shared) > 2
        for path in shared:
            assert traces(str(path.relative_to(target))) == []
            assert traces(path.read_bytes()) == [], path
            assert str(source).encode() not in path.read_bytes(), path
        # Nor in the records, which do hold paths.
        for path in set(files) - set(shared):
            assert traces(path.read_bytes()) == [], path


def test_the_script_of_the_readme(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PIPELINES / "README.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(\"\"\".+?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "brightest.py").write_text(code)
    assert len(code.splitlines()) < 40
    monkeypatch.setattr(sys.modules[__name__], "PIPELINES", tmp_path)
    code, told = run("brightest", CT5N, tmp_path / "out", "--width", "1000")
    assert code == 0 and "1 series, the brightest has" in told
    expected = hounsfield(CT5N)
    row = rows(tmp_path / "out" / "results.csv")[VOLUME]
    assert int(row["frame"]) == expected.mean((1, 2)).argmax()
    assert float(row["peak"]) == expected[int(row["frame"])].max()
    means = stored(tmp_path / "out", VOLUME, "mean.zarr")
    np.testing.assert_allclose(means[...], expected.mean((1, 2)))
    assert (tmp_path / "out" / "series" / VOLUME / "picture.png").is_file()


def test_the_readme_knows_all_scripts() -> None:
    text = (PIPELINES / "README.md").read_text("utf-8")
    assert sorted(path.stem for path in PIPELINES.glob("*.py")) == list(NAMES)
    assert all(f"[`{name}.py`]({name}.py)" in text for name in NAMES)
