"""Nothing that a header says of a person is in any output; nor are paths in what is shared."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canaries import CANARY, file_of, fill, traces
from made_series import AXIAL, SERIES, along
from make_dicom import described, noise
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage
from typer.testing import CliRunner

import dcmdask
from dcmdask import AmbiguousSourceError, HeaderError, IrregularSeriesError, Stack
from dcmdask.cli import app
from dcmdask.labelled import pictures

FRAMES = noise(3, 5, 7, dtype="i2", bits=12)
EVEN, GAP = (0, 2.5, 5), (0, 2.5, 7.5)
UIDS = {
    "SOPClassUID": CTImageStorage,
    "SeriesInstanceUID": SERIES,
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.6",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.5",
}
NEEDED = {
    "PatientName": None,  # a canary comes in its place
    "Modality": "CT",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", CANARY],
    "ImageOrientationPatient": list(AXIAL),
    "PixelSpacing": [0.5, 0.75],
    "SliceThickness": 2,
    "RescaleSlope": 2,
    "RescaleIntercept": -1024,
    "WindowCenter": 40,
    "WindowWidth": 400,
    "VOILUTFunction": "LINEAR",
    "LossyImageCompressionRatio": 1,
}
# Of one term each, and text in their place.
BARE = {"Modality": None, "SOPInstanceUID": None, **dict.fromkeys(UIDS)}


def acquired(second: int) -> str:
    return f"194201011942{second:02}"


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def classic(folder: Path, distances: Any = EVEN, frames: Any = FRAMES, **elements: Any) -> Path:
    """A file for each frame, with canaries at the top, in a sequence and in private elements."""
    folder.mkdir(parents=True, exist_ok=True)
    uids = elements.get("SeriesInstanceUID", "") is None
    nested = fill(Dataset(), uids=uids)
    dataset = fill(described(frames[:1], **{**UIDS, **NEEDED, **elements}), uids=uids)
    dataset.NumberOfFrames = 1
    dataset.RequestAttributesSequence = [nested]
    dataset.ReferencedImageSequence = [nested]
    for number, position in enumerate(along(AXIAL, distances)):
        dataset.ImagePositionPatient = position.tolist()
        dataset.AcquisitionDateTime = dataset.FrameAcquisitionDateTime = acquired(number)
        dataset.InstanceNumber = number
        if not uids:
            dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"
        data = file_of(dataset, frames[number : number + 1])
        assert data.count(CANARY.encode()) > 4000 and data.count(b"1942") > 1000
        (folder / str(number)).write_bytes(data)
    return folder


def enhanced(folder: Path, distances: Any = EVEN) -> Path:
    """One multi-frame file, with canaries also in its functional groups."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = fill(
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
            PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.75], SliceThickness=2)],
            FrameVOILUTSequence=[
                item(WindowCenter=40, WindowWidth=400, WindowCenterWidthExplanation=CANARY)
            ],
            CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", CANARY, CANARY, CANARY])],
        )
    )
    groups = []
    for number, position in enumerate(along(AXIAL, distances)):
        content = item(FrameAcquisitionDateTime=acquired(number), InStackPositionNumber=number + 1)
        values = item(RescaleSlope=2, RescaleIntercept=-1024, RescaleType=CANARY)
        group = item(
            PlanePositionSequence=[item(ImagePositionPatient=position.tolist())],
            FrameContentSequence=[fill(content)],
            PixelValueTransformationSequence=[values],
            UnassignedPerFrameConvertedAttributesSequence=[fill(Dataset())],
        )
        groups.append(fill(group))
    elements = {**UIDS, **NEEDED, "SOPClassUID": EnhancedCTImageStorage}
    dataset = described(FRAMES, **elements, SOPInstanceUID=f"{SERIES}.9")
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = groups
    data = file_of(fill(dataset), FRAMES)
    assert data.count(CANARY.encode()) > 10000
    (folder / "0").write_bytes(data)
    return folder


def malformed(folder: Path) -> Path:
    """A series where even what is always a term or a UID is text; so all files have one UID."""
    return classic(folder, **BARE, RescaleType=CANARY, Units=CANARY)


MADE: dict[str, Callable[[Path], Path]] = {
    "classic": classic,
    "enhanced": enhanced,
    "malformed": malformed,
    "gap": lambda folder: classic(folder, GAP),
    "enhanced with a gap": lambda folder: enhanced(folder, GAP),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("made")
    with disable_value_validation():
        return {name: make(parent / name / "series") for name, make in MADE.items()}


@pytest.fixture(autouse=True)
def told(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Outputs of a test; at its end no trace of a canary is in them, in warnings and in logs."""
    outputs: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield outputs
    outputs += [str(one.message) for one in caught]
    outputs += [one.getMessage() for one in caplog.get_records("call")]
    for output in outputs:
        assert traces(output) == [], output


def of_stack(stack: Stack, settled: str) -> list[str]:
    """What a stack says of itself; `settled` is how its irregularities are dealt with."""
    found = [repr(stack), stack.name, repr(stack.notes), repr(stack.irregularities)]
    found += [repr(stack.frames), repr(stack.geometry), repr(stack.arrangement)]
    for values in ("stored", "modality", "display"):
        x, v = (make(values, on_irregular=settled) for make in (stack.to_dask, stack.to_xarray))
        found += [repr(x), x.name, x._repr_html_(), v.data.name]
        found += [repr(v), v._repr_html_(), str(v.to_dict(data=False))]
        found += [repr(one) for one in v.coords.values()]
    return found


# Free text that a scan shows to whoever asks, and that nothing stores; see `test_stores`.
SHOWN = ["description", "folder"]


@pytest.mark.parametrize("name", MADE)
def test_a_scan_and_what_comes_of_it(name: str, folders: dict[str, Path], told: list[str]) -> None:
    found = dcmdask.scan(folders[name])
    (series,) = found
    assert sum(map(len, series.instances)) == 3
    table = found.to_frame().drop(columns=SHOWN)
    told += [repr(found), str(found), repr(found.skipped)]
    told += [repr(table), table.to_csv(), table.to_html(), *map(repr, table.to_numpy().flat)]
    told += [repr(series), series.name, repr(series.metadata), repr(series.irregularities)]
    (stack,) = series.stacks
    told += of_stack(stack, "keep")
    if "gap" in name:
        told += of_stack(stack, "fill")
        for part in stack.split():
            told += of_stack(part, "error")
    elif name != "malformed":
        assert stack.shape == (3, 5, 7) and not stack.irregularities
        # Times are there, from the first frame.
        times = series.to_xarray().acquisition_time.values
        np.testing.assert_array_equal(times, [0, 1000, 2000])


@pytest.mark.parametrize("name", MADE)
def test_arrays(name: str, folders: dict[str, Path], told: list[str]) -> None:
    folder = folders[name]
    for values in ("stored", "modality", "display"):
        x = dcmdask.from_dicom(folder, values=values, on_irregular="keep")
        y = dcmdask.from_dicom(folder / "0", values=values)
        told += [repr(x), x.name, x._repr_html_(), repr(y), y.name]
        x.compute()
        y.compute()
    frames = dcmdask.open_frames(folder / "0")
    told += [repr(frames), repr(frames.notes), repr(frames.decoding), frames.token]


@pytest.mark.parametrize("arguments", ["scan", "scan --json", "scan --csv", "info", "info --json"])
@pytest.mark.parametrize("name", MADE)
def test_the_command_line(
    name: str, arguments: str, folders: dict[str, Path], told: list[str]
) -> None:
    folder = folders[name]
    for source in [folder, folder / "0"] if "info" in arguments else [folder]:
        done = CliRunner().invoke(app, [*arguments.split(), str(source)])
        assert done.exit_code == 0, done.output
        assert "CT" in done.output or SERIES in done.output or name == "malformed"
        # The description, which is free text.
        assert (f"{CANARY}LO" in done.output) is arguments.startswith("scan")
        told.append(done.output.replace(f"{CANARY}LO", ""))


@pytest.mark.slow
def test_the_command_itself(folders: dict[str, Path], tmp_path: Path, told: list[str]) -> None:
    """In a process of its own, which shows warnings in its own way."""
    for arguments in (
        ["info", folders["malformed"]],
        ["export", folders["enhanced"] / "0", tmp_path / "a.zarr"],
    ):
        command = [sys.executable, "-m", "dcmdask", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        told += [done.stdout, done.stderr]


STORES: dict[str, dict[str, Any]] = {
    "frames": {},
    "series": {"values": "modality", "on_irregular": "fill", "on_error": "fill", "fill_value": 0},
    "irregular": {"on_irregular": "keep"},
    "display": {"values": "display", "on_irregular": "keep"},
    "pyramid": {"format": "ome-zarr", "on_irregular": "fill", "levels": 2, "fill_value": 0},
}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("name", MADE)
def test_stores(
    name: str, kind: str, folders: dict[str, Path], tmp_path: Path, told: list[str]
) -> None:
    source = folders[name] / "0" if kind == "frames" else folders[name]
    if name == "malformed" and kind in ("series", "pyramid"):
        # Several files have one UID, which filling does not mend.
        with pytest.raises(IrregularSeriesError, match="SOP Instance UID") as refused:
            dcmdask.to_zarr(source, tmp_path / "a.zarr", **STORES[kind])
        told.append(str(refused.value))
        assert list(tmp_path.iterdir()) == []
        return
    report = dcmdask.to_zarr(source, tmp_path / "a.zarr", compressors=None, **STORES[kind])
    checked = dcmdask.verify(tmp_path / "a.zarr", source)
    assert checked.ok
    told += [repr(report), str(report), repr(checked), str(checked)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    told += [str(path.relative_to(tmp_path)) for path in files]
    told += [path.read_bytes().decode("latin-1") for path in files]


def test_who_asks_for_names_gets_them(folders: dict[str, Path], tmp_path: Path) -> None:
    dcmdask.to_zarr(folders["classic"], tmp_path / "a.zarr", with_identifiers=True)
    about = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["attributes"]["dcmdask"]
    named = about["identifiers"]
    assert CANARY in named["PatientName"] and CANARY in named["PatientID"]
    assert named["sources"] == sorted(map(str, folders["classic"].iterdir()))


def test_suv_and_real_world_values(tmp_path: Path, told: list[str]) -> None:
    """Weight, dose and times are in SUV; a unit is told if it is one."""
    unit = item(CodeValue=CANARY, CodingSchemeDesignator="UCUM")
    linear = {"RealWorldValueSlope": 2.0, "RealWorldValueIntercept": 1.0}
    dose = fill(item(RadionuclideHalfLife="7200", RadionuclideTotalDose="19421942"))
    pet = {
        "Modality": "PT",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY", CANARY],
        "PatientSize": "1.7",
        "RadiopharmaceuticalInformationSequence": [dose],
        "RealWorldValueMappingSequence": [
            fill(item(MeasurementUnitsCodeSequence=[fill(unit)], **linear))
        ],
    }
    with disable_value_validation():
        folder = classic(tmp_path / "in", **pet)
    for values in ("suv", "suv-bsa", "real-world"):
        v = dcmdask.scan(folder)[0].to_xarray(values)
        assert ("units" in v.attrs) is (values != "real-world")
        told += [repr(v), v._repr_html_(), str(v.to_dict(data=False)), v.data.name]
        store = tmp_path / f"{values}.zarr"
        told.append(repr(dcmdask.to_zarr(folder, store, values=values, compressors=None)))
        assert dcmdask.verify(store, folder).ok
        told += [path.read_text("latin-1") for path in store.rglob("*") if path.is_file()]


def test_pictures(folders: dict[str, Path], tmp_path: Path, told: list[str]) -> None:
    for name in ("classic", "enhanced"):
        v = dcmdask.scan(folders[name])[0].to_xarray("modality")
        told.append(str(pictures.frame(v[0], tmp_path / f"{name} 1")))
        told.append(str(pictures.contact_sheet(v, tmp_path / f"{name} 2")))
        told.append(str(pictures.planes(v, tmp_path / f"{name} 3")))
    made = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(made) == 6
    told += [data.decode("latin-1") for data in made]


def test_messages_of_errors(folders: dict[str, Path], tmp_path: Path, told: list[str]) -> None:
    for name in ("gap", "enhanced with a gap"):
        (series,) = dcmdask.scan(folders[name])
        for action in (
            series.to_dask,
            series.to_xarray,
            lambda name=name: dcmdask.from_dicom([folders[name]]),
        ):
            with pytest.raises(IrregularSeriesError) as irregular:
                action()
            told.append(str(irregular.value))
    with pytest.raises(IrregularSeriesError) as conflict:
        dcmdask.from_dicom(folders["malformed"])
    assert "different files have the SOP Instance UID" in str(conflict.value)
    both = [folders["malformed"], folders["gap"]]
    with pytest.raises(AmbiguousSourceError, match="2 series") as several:
        dcmdask.from_dicom(both)
    told += [str(conflict.value), str(several.value)]
    with disable_value_validation():
        smaller = classic(tmp_path / "a", frames=FRAMES[:, :4])
        odd = classic(tmp_path / "b", VOILUTFunction=None)
    (series,) = dcmdask.scan([folders["gap"], smaller])
    with pytest.raises(AmbiguousSourceError, match="2 stacks") as stacks:
        series.to_xarray()
    told.append(str(stacks.value))
    with pytest.raises(HeaderError, match="VOI LUT Function") as function:
        dcmdask.from_dicom(odd, values="display")
    told.append(str(function.value))


@pytest.mark.parametrize("name", ["classic", "enhanced", "malformed", "gap"])
def test_what_is_shared_has_no_paths(
    name: str, folders: dict[str, Path], tmp_path: Path, told: list[str]
) -> None:
    folder = tmp_path / CANARY / f"{CANARY} of 1942.1942"
    folder.parent.mkdir()
    folder.symlink_to(folders[name], target_is_directory=True)
    (folder.parent / "notes.txt").write_text(CANARY)
    found = dcmdask.scan([str(folder), str(folder.parent)])
    (series,) = found
    assert CANARY in found.skipped[0].path and CANARY in series.instances[0].source.name
    told += [repr(found), found.to_frame().drop(columns=SHOWN).to_csv()]
    told += [repr(series.metadata), repr(series.stacks[0].geometry)]
    for values in ("stored", "modality", "display"):
        v = series.to_xarray(values, on_irregular="keep")
        told += [repr(v), str(v.to_dict(data=False)), *map(repr, v.coords.values())]
    dcmdask.to_zarr(folder / "0", tmp_path / "a.zarr", compressors=None)
    for path in (tmp_path / "a.zarr").rglob("*"):
        told.append(str(path.relative_to(tmp_path)))
        if path.is_file():
            told.append(path.read_bytes().decode("latin-1"))
