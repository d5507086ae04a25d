"""Real world values: those of highdicom, and of mappings that it does not write."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from commands import run
from highdicom.pm import RealWorldValueMapping
from made_images import parametric_map
from made_series import AXIAL, along, classic, enhanced
from make_dicom import native, noise, saved
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

import dcmdask
from dcmdask import HeaderError, scan

UCUM = codes.UCUM
RANDOM = np.random.default_rng(0)


def mapping(label: str, unit: Any, limits: tuple[float, float], **how: Any) -> Any:
    return RealWorldValueMapping(label, f"about {label}", unit, limits, **how)


ADC = mapping("ADC", UCUM.SquareMillimeterPerSecond, (0, 65535), slope=1e-6, intercept=0.25)
T1 = mapping("T1", UCUM.Millisecond, (0, 65535), slope=3.0, intercept=-7.0)


def by_highdicom(path: Path, one: Any) -> Any:
    """The planes from the feet on, by highdicom, which raises where a value is not mapped."""
    dataset = dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    heights = [group.PlanePositionSequence[0].ImagePositionPatient[2] for group in groups]
    return one.apply(dataset.pixel_array[np.argsort(heights)])


@pytest.mark.parametrize(
    ("pixels", "one", "dtype", "units"),
    [
        (noise(4, 6, 8, dtype="u2"), ADC, "f4", "mm2/s"),
        (noise(4, 6, 8), mapping("P", UCUM.Percent, (0, 255), slope=0.1), "f4", "%"),
        (
            RANDOM.normal(size=(4, 6, 8)).astype("f4"),
            mapping("R", UCUM.NoUnits, (-9.0, 9.0), slope=2.0, intercept=1.0),
            "f4",
            "1",
        ),
        (
            RANDOM.normal(size=(4, 6, 8)),
            mapping("R", UCUM.NoUnits, (-9.0, 9.0), slope=2.0, intercept=1.0),
            "f8",
            "1",
        ),
        (
            noise(4, 6, 8),
            mapping("L", UCUM.Millisecond, (0, 255), lut_data=np.sqrt(np.arange(256.0)).tolist()),
            "f4",
            "ms",
        ),
    ],
)
def test_parametric_maps(
    pixels: np.ndarray, one: Any, dtype: str, units: str, tmp_path: Path
) -> None:
    path = parametric_map(tmp_path, pixels, [one])
    v = scan(path)[0].to_xarray("real-world")
    assert v.dims == ("z", "y", "x") and v.dtype == dtype and v.attrs["units"] == units
    np.testing.assert_allclose(v.z.diff("z"), 2.5)
    np.testing.assert_allclose(v.values, by_highdicom(path, one), rtol=1e-6, atol=1e-6)
    x = scan(path)[0].to_dask(f"real-world:{one.LUTLabel}", chunks=1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x))[2, 1::2].compute(), v[2, 1::2])
    frames = dcmdask.from_dicom(path, values="real-world").compute()
    np.testing.assert_array_equal(np.sort(frames.ravel()), np.sort(v.values.ravel()))


def test_one_of_several_mappings(tmp_path: Path) -> None:
    path = parametric_map(tmp_path, noise(4, 6, 8, dtype="u2"), [ADC, T1])
    series = scan(path)[0]
    with pytest.raises(HeaderError, match="has 2 mappings") as caught:
        series.to_xarray("real-world")
    assert caught.value.code == "HeaderError/real-world-label"
    assert caught.value.detail == "their labels are 'ADC', 'T1'"
    assert "real-world:LABEL" in str(caught.value)
    v = series.to_xarray("real-world:T1")
    assert v.attrs["values"] == "real-world:T1" and v.name == "real-world"
    assert v.attrs["units"] == "ms"
    np.testing.assert_allclose(v.values, by_highdicom(path, T1), rtol=1e-6)
    with pytest.raises(HeaderError, match="0 of 2 mappings with this label"):
        series.to_xarray("real-world:T2")


def test_stores_and_the_command_line(tmp_path: Path) -> None:
    path = parametric_map(tmp_path, noise(4, 6, 8, dtype="u2"), [ADC, T1])
    arguments = ["export", path, tmp_path / "a.zarr", "--values"]
    done = run(*arguments, "real-world:ADC")
    assert done.returncode == 0, done.stderr
    stored = xr.open_zarr(tmp_path / "a.zarr").pixels
    assert stored.attrs["units"] == "mm2/s"
    expected = dcmdask.from_dicom(path, values="real-world:ADC").compute()
    np.testing.assert_array_equal(stored.values, expected)
    assert dcmdask.verify(tmp_path / "a.zarr", path).ok
    dcmdask.to_zarr(path, tmp_path / "b.zarr", values="real-world:ADC", format="ome-zarr")
    assert dcmdask.verify(tmp_path / "b.zarr", path).ok
    for wrong in ("modality:ADC", "real-world:"):
        assert run(*arguments, wrong).returncode == 2
    done = run("export", path, tmp_path / "c.zarr", "--values", "real-world")
    assert done.returncode == 2 and "'ADC', 'T1'" in done.stderr
    assert "--values real-world:LABEL" in done.stderr


def item(first: int, last: int, **elements: Any) -> Dataset:
    """A mapping of stored integers, as no toolkit checks it."""
    unit, one = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator = "ms", "UCUM"
    one.MeasurementUnitsCodeSequence = [unit]
    one.LUTLabel = "T1"
    for name, value in (("First", first), ("Last", last)):
        one.add_new(f"RealWorldValue{name}ValueMapped", "SS" if first < 0 else "US", value)
    for keyword, value in elements.items():
        setattr(one, keyword, value)
    return one


# pydicom writes a long table as UN (PS3.5 6.2.2), and says so.
LONG = pytest.mark.filterwarnings("ignore:The value for the data element:UserWarning")
LINEAR = {"RealWorldValueSlope": 2.0, "RealWorldValueIntercept": 1.0}


@LONG
@pytest.mark.parametrize(
    ("dtype", "first", "last"), [("u2", 1000, 40000), ("i2", -300, 20000), ("u1", 7, 100)]
)
@pytest.mark.parametrize("by_table", [False, True])
def test_values_that_are_not_mapped_are_nan(
    dtype: str, first: int, last: int, by_table: bool, tmp_path: Path
) -> None:
    """At the top level of single frames, in every encoding."""
    table = np.linspace(-5, 5, last - first + 1)
    how: dict[str, Any] = {"RealWorldValueLUTData": table.tolist()} if by_table else LINEAR
    stored = noise(3, 7, 9, dtype=dtype)
    stored[:, 0, :2] = first, last
    paths = classic(
        tmp_path, stored, along(AXIAL, 2.0 * np.arange(3)), modality="MR",
        RescaleSlope="100", RealWorldValueMappingSequence=[item(first, last, **how)],
    )  # fmt: skip
    inside = (stored >= first) & (stored <= last)
    mapped = (
        table[np.where(inside, stored.astype(int) - first, 0)] if by_table else stored * 2.0 + 1
    )
    for implicit in (False, True):
        for path in paths if implicit else ():
            dataset = dcmread(path)
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dataset.save_as(path, implicit_vr=True, little_endian=True)
        v = scan(tmp_path)[0].to_xarray("real-world")
        assert v.dtype == np.float32 and v.attrs["units"] == "ms"
        np.testing.assert_allclose(v.values, np.where(inside, mapped, np.nan), rtol=1e-6)


def test_mappings_of_frames_may_differ(tmp_path: Path) -> None:
    """A frame without its own has that of all, and a data set's comes last."""
    stored = noise(3, 6, 8, dtype="u2")
    path = enhanced(tmp_path, stored, along(AXIAL, [0, 2, 4]))
    dataset = dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.RealWorldValueMappingSequence = [
        item(0, 65535, RealWorldValueSlope=1000.0, RealWorldValueIntercept=0.0)
    ]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.RealWorldValueMappingSequence = [item(0, 65535, **LINEAR)]
    groups[0].RealWorldValueMappingSequence = [
        item(0, 65535, RealWorldValueSlope=5.0, RealWorldValueIntercept=-1.0)
    ]
    dataset.save_as(path)
    v = scan(tmp_path)[0].to_xarray("real-world")
    expected = stored * np.array([5.0, 2, 2]).reshape(-1, 1, 1) + np.array([-1.0, 1, 1]).reshape(
        -1, 1, 1
    )
    np.testing.assert_allclose(v.values, expected, rtol=1e-6)
    assert v.attrs["units"] == "ms"
    groups[0].RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "s"
    dataset.save_as(path)
    assert "units" not in scan(tmp_path)[0].to_xarray("real-world").attrs


@LONG
@pytest.mark.parametrize("by_table", [False, True])
def test_big_endian(by_table: bool, tmp_path: Path) -> None:
    table = np.linspace(-5, 5, 60000 - 300 + 1)
    how: dict[str, Any] = {"RealWorldValueLUTData": table.tolist()} if by_table else LINEAR
    stored = noise(1, 6, 8, dtype="u2")
    mappings = [item(300, 60000, **how)]
    data = native(stored, ExplicitVRBigEndian, RealWorldValueMappingSequence=mappings)
    found = dcmdask.from_dicom(saved(tmp_path, data), values="real-world").compute()
    inside = (stored >= 300) & (stored <= 60000)
    places = np.where(inside, stored.astype(int) - 300, 0)
    mapped = table[places] if by_table else stored * 2.0 + 1
    np.testing.assert_allclose(found, np.where(inside, mapped, np.nan), rtol=1e-6)


def test_labels_have_the_character_set_of_the_data_set(tmp_path: Path) -> None:
    one = item(0, 255, **LINEAR)
    one.LUTLabel = "\xe4nd"
    paths = classic(
        tmp_path / "a", noise(1, 4, 4), along(AXIAL, [0]),
        SpecificCharacterSet="ISO_IR 100", RealWorldValueMappingSequence=[one],
    )  # fmt: skip
    groups = enhanced(tmp_path / "b", noise(2, 4, 4), along(AXIAL, [0, 1]))
    dataset = dcmread(groups)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = [one]
    dataset.save_as(groups)
    for path in (*paths, groups):
        assert dcmdask.from_dicom(path, values="real-world:\xe4nd").dtype == np.float32


@pytest.mark.parametrize(
    ("unit", "scheme", "told"),
    [
        ("mm2/s", "UCUM", "mm2/s"),
        ("10*-6.mm2/s", "UCUM", "10*-6.mm2/s"),
        ("[hnsf'U]", "UCUM", "[hnsf'U]"),
        ("{SUVbw}g/ml", "UCUM", "{SUVbw}g/ml"),
        ("g/ml{SUVbw}", "UCUM", "g/ml{SUVbw}"),
        ("/min", "UCUM", "/min"),
        ("ml/100ml/s", "UCUM", "ml/100ml/s"),
        ("mm2/s", "99LOCAL", None),
        ("SMITH", "UCUM", None),
        ("{SMITH}", "UCUM", None),
        ("", "UCUM", None),
    ],
)
def test_units_are_those_of_ucum(unit: str, scheme: str, told: str | None, tmp_path: Path) -> None:
    one = item(0, 65535, **LINEAR)
    code = one.MeasurementUnitsCodeSequence[0]
    code.CodeValue, code.CodingSchemeDesignator = unit, scheme
    classic(tmp_path, noise(2, 4, 4), along(AXIAL, [0, 1]), RealWorldValueMappingSequence=[one])
    assert scan(tmp_path)[0].to_xarray("real-world").attrs.get("units") == told


@pytest.mark.parametrize(
    ("items", "code", "text"),
    [
        ([], "real-world-value-mapping", "is missing"),
        ([item(9, 0, **LINEAR)], "unreadable", "above the last one"),
        ([item(0, 9)], "unreadable", "neither slope and intercept nor a table"),
        ([item(0, 9, RealWorldValueLUTData=[1.0, 2.0])], "unreadable", "a table of 2 values"),
        (
            [item(0, 9, RealWorldValueSlope=np.nan, RealWorldValueIntercept=0.0)],
            "unreadable",
            "no number",
        ),
        ([item(0, 9, **LINEAR)] * 2, "real-world-label", "has 2 mappings"),
    ],
)
def test_what_cannot_be_used(
    items: Sequence[Dataset], code: str, text: str, tmp_path: Path
) -> None:
    (path,) = classic(
        tmp_path, noise(1, 4, 4), along(AXIAL, [0]), RealWorldValueMappingSequence=list(items)
    )
    with pytest.raises(HeaderError, match=text) as caught:
        dcmdask.from_dicom(path, values="real-world")
    assert caught.value.code == f"HeaderError/{code}" and caught.value.source == str(path)


def test_a_table_is_for_integers(tmp_path: Path) -> None:
    path = parametric_map(tmp_path, RANDOM.normal(size=(2, 6, 8)), [
        mapping("R", UCUM.NoUnits, (-9.0, 9.0))
    ])  # fmt: skip
    dataset = dcmread(path)
    (one,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    one.DoubleFloatRealWorldValueFirstValueMapped = 0.0
    one.DoubleFloatRealWorldValueLastValueMapped = 1.0
    one.RealWorldValueLUTData = [1.0, 2.0]
    dataset.save_as(path)
    with pytest.raises(HeaderError, match="fractions"):
        dcmdask.from_dicom(path, values="real-world")


@pytest.mark.parametrize("name", ["parametric_map_float.dcm", "eCT_Supplemental.dcm"])
def test_real_files(name: str, corpus: Path, compared: Callable[[Path], None]) -> None:
    path = corpus / "pydicom-data/data_store/data" / name
    found = dcmdask.from_dicom(path, values="real-world").compute()
    dataset = dcmread(path)
    (one,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    expected = dataset.pixel_array * one.RealWorldValueSlope + one.RealWorldValueIntercept
    np.testing.assert_allclose(found, expected.reshape(found.shape))
    compared(path)
