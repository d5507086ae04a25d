"""Diffusion weightings in private elements: b-values and directions are those of dcm2niix."""

import subprocess
import warnings
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from made_series import AXIAL, along, classic
from make_dicom import noise
from pydicom import Dataset, dcmread
from real_files import DCM2NIIX

from dcmdask import DcmdaskWarning, GeometryError, scan
from dcmdask.dicom.description import describe
from dcmdask.sources.files import locate

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
PLANES = {
    "axial": AXIAL,
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
}
B_VALUES = [0, 700, 700, 1000, 1000, 1000, 2000]
Fill = Callable[[Dataset, int, Sequence[float]], None]


def ge(dataset: Dataset, b: int, gradient: Sequence[float], length: float = 1.0) -> None:
    # Blocks other than the usual ones: the creators say which.
    dataset.private_block(0x0019, "SOMEBODY ELSE", create=True)
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "IS", [b + 10**9 if b else 0, 8, 0, 0])
    block = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for number, part in enumerate(gradient):
        block.add_new(0xBB + number, "DS", f"{length * part:.9f}")


def philips(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
    block = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
    block.add_new(0x03, "FL", float(b))
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for number, part in enumerate(gradient):
        block.add_new(0xB0 + number, "FL", float(part))


def siemens(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", str(b))
    if b:
        block.add_new(0x0E, "FD", list(map(float, gradient)))


def united_imaging(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
    block = dataset.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x09, "FD", float(b))
    block.add_new(0x37, "FD", list(map(float, gradient)))


def canon(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
    dataset.DiffusionBValue = float(b)
    dataset.ImageComments = "b={}({:.6f},{:.6f},{:.6f})".format(b, *gradient)


MAKERS: dict[str, tuple[str, Fill]] = {
    "GE": ("GE MEDICAL SYSTEMS", ge),
    "Philips": ("Philips Medical Systems", philips),
    "Siemens": ("SIEMENS", siemens),
    "UIH": ("UIH", united_imaging),
    "Canon": ("CANON_MEC", canon),
}


def made(
    folder: Path, maker: str, fill: Fill, orientation: Sequence[float] = AXIAL, **elements: Any
) -> np.ndarray:
    """Write a series of four planes for each of `B_VALUES`; return the gradients (n, 3)."""
    planes = 4
    gradients = np.random.default_rng(7).normal(size=(len(B_VALUES), 3))
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    gradients[0] = 0
    paths = classic(
        folder,
        noise(planes * len(B_VALUES), 16, 16, seed=3),
        np.tile(along(orientation, 2.0 * np.arange(planes)), (len(B_VALUES), 1)),
        orientation=orientation,
        modality="MR",
        seed=None,
        each={"AcquisitionNumber": np.repeat(range(1, 1 + len(B_VALUES)), planes).tolist()},
        **{
            "Manufacturer": maker,
            "SliceThickness": 2,
            "EchoTime": 80,
            "RepetitionTime": 5000,
            "ScanningSequence": "EP",
            "PatientPosition": "HFS",
            "InPlanePhaseEncodingDirection": "COL",
            **elements,
        },
    )
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        which = number // planes
        fill(dataset, B_VALUES[which], gradients[which].tolist())
        dataset.save_as(path)
    return gradients


def opened(source: Path) -> xr.DataArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        return scan(source)[0].to_xarray()


def in_patient(gradients: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The directions (n, 3) on RAS axes of a .bvec that belongs to an image with this affine."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    found = gradients.copy()
    if np.linalg.det(axes) > 0:
        found[0] *= -1
    return (axes @ found).T


def compare_with_dcm2niix(source: Path, target: Path, scaled: bool = False) -> None:
    """Of `.dcm`, and of the files that `to_nifti` writes; rows are the other way round there.

    Where it scaled and rounded b-values, directions of dcm2niix are not quite unit vectors, and
    those of GE keep a length that is nearly 1.
    """
    assert DCM2NIIX is not None
    command = [DCM2NIIX, "-z", "n", "-b", "n", "-f", "theirs", "-o", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    theirs: Any = nib.load(target / "theirs.nii")
    b_values, gradients = (np.loadtxt(target / f"theirs.{kind}") for kind in ("bval", "bvec"))
    assert np.abs(gradients).max() > 0.5
    if scaled:
        gradients[:, 1:] /= np.linalg.norm(gradients[:, 1:], axis=0)
    expected = in_patient(gradients, theirs.affine)
    v = opened(source)
    assert v.dims[0] == "diffusion"
    np.testing.assert_allclose(v.dcm.bvals, b_values, atol=0.01)
    found = in_patient(v.dcm.bvecs, LPS_TO_RAS @ v.dcm.affine)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    v.dcm.to_nifti(target / "ours.nii")
    ours: Any = nib.load(target / "ours.nii")
    np.testing.assert_allclose(np.loadtxt(target / "ours.bval"), b_values, atol=0.01)
    found = in_patient(np.loadtxt(target / "ours.bvec"), ours.affine)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("phase_encoding", ["COL", "ROW"])
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(
    ("maker", "position"),
    [*((maker, "HFS") for maker in MAKERS), *product(["GE", "Canon"], ["FFS", "HFP"])],
)
def test_made_series(
    maker: str, position: str, plane: str, phase_encoding: str, tmp_path: Path
) -> None:
    """Oblique planes, nearest to axial, sagittal and coronal ones, of patients who lie so."""
    turn, _ = np.linalg.qr([[1, 0.1, -0.2], [-0.1, 1, 0.15], [0.2, -0.15, 1]])
    turn *= np.sign(np.diag(turn))
    orientation = (np.reshape(PLANES[plane], (2, 3)) @ turn.T).ravel().tolist()
    name, fill = MAKERS[maker]
    how = {"InPlanePhaseEncodingDirection": phase_encoding, "PatientPosition": position}
    made(tmp_path / "in", name, fill, orientation, **how)
    compare_with_dcm2niix(tmp_path / "in", tmp_path)


@pytest.mark.parametrize("maker", ["GE", "Canon"])
@pytest.mark.parametrize(("length", "expected"), [(0.61, [260, 370, 745]), (0.05, [5, 5, 5])])
def test_a_short_gradient_scales_the_b_value(
    maker: str, length: float, expected: list[int], tmp_path: Path
) -> None:
    """dcm2niix issue 163: GE measures several b-values as parts of the largest."""
    name, fill = MAKERS[maker]

    def shorter(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
        fill(dataset, b, [length * part for part in gradient])
        dataset.DiffusionBValue = float(b)

    made(tmp_path / "in", name, shorter)
    compare_with_dcm2niix(tmp_path / "in", tmp_path, scaled=True)
    b_values = [0, *np.repeat(expected, [2, 3, 1])]
    np.testing.assert_array_equal(opened(tmp_path / "in").b_value, b_values)


def test_real_series(corpus: Path, tmp_path: Path) -> None:
    compare_with_dcm2niix(corpus / "dcm_qa_ge/01_Ax_DWI_TENSOR_R2", tmp_path, scaled=True)


def test_the_direction_of_an_unweighted_frame_says_nothing(tmp_path: Path) -> None:
    def fill(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
        dataset.DiffusionBValue = float(b)
        dataset.DiffusionGradientOrientation = list(gradient) if b else [np.nan] * 3

    gradients = made(tmp_path, "SIEMENS", fill)
    (series,) = scan(tmp_path)
    assert "unreadable-weighting" not in [note.code for note in series.notes]
    v = opened(tmp_path)
    np.testing.assert_allclose(v.direction_x[1:], gradients[1:, 0])
    assert not v.dcm.bvecs[:, 0].any()


@pytest.mark.parametrize("maker", ["CANON_MEC", "Canon Medical Systems"])
def test_canon_writes_the_b_value_into_a_comment(maker: str, tmp_path: Path) -> None:
    def fill(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
        canon(dataset, b, gradient)
        del dataset.DiffusionBValue

    gradients = made(tmp_path / "in", maker, fill)
    v = opened(tmp_path / "in")
    np.testing.assert_array_equal(v.dcm.bvals, B_VALUES)
    # Axial, with phase encoding along columns: these come first.
    np.testing.assert_allclose(v.direction_y[1:], -gradients[1:, 0], atol=1e-6)
    np.testing.assert_allclose(v.direction_x[1:], -gradients[1:, 1], atol=1e-6)
    # A comment of another maker may mean anything.
    made(tmp_path / "other", "SIEMENS", fill)
    assert "b_value" not in opened(tmp_path / "other").coords


@pytest.mark.parametrize("phase_encoding", [None, "OTHER"])
@pytest.mark.parametrize("maker", ["GE", "Canon"])
def test_directions_of_unknown_axes_are_unreadable(
    maker: str, phase_encoding: str | None, tmp_path: Path
) -> None:
    """dcm2niix warns, and writes them as they are."""
    name, fill = MAKERS[maker]
    made(tmp_path, name, fill, InPlanePhaseEncodingDirection=phase_encoding)
    (note,) = [one for one in scan(tmp_path)[0].notes if one.code == "unreadable-weighting"]
    assert "24 of 28 frames" in note.text and "turned to the patient's axes" in note.text
    v = opened(tmp_path)
    np.testing.assert_array_equal(v.dcm.bvals, B_VALUES)
    assert np.isnan(v.direction_x[0]) and np.isinf(v.direction_x[1:]).all()
    with pytest.raises(GeometryError, match="cannot be read"):
        _ = v.dcm.bvecs


def test_elements_of_the_standard_come_first(tmp_path: Path) -> None:
    def fill(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
        siemens(dataset, b, gradient)
        dataset.DiffusionBValue = b + 5.0
        dataset.DiffusionGradientOrientation = [0.0, 0.6, 0.8]

    made(tmp_path, "SIEMENS", fill)
    v = opened(tmp_path)
    np.testing.assert_array_equal(v.b_value, np.array(B_VALUES) + 5)
    assert (v.direction_z == 0.8).all()


def test_zeros_are_no_direction(tmp_path: Path) -> None:
    """As of means over several directions."""
    made(tmp_path, "Philips", lambda dataset, b, gradient: philips(dataset, b, [0, 0, 0]))
    v = opened(tmp_path)
    np.testing.assert_array_equal(v.b_value, B_VALUES)
    assert np.isnan(v.direction_x).all() and not v.dcm.bvecs.any()


@pytest.mark.parametrize("maker", ["GE", "Canon"])
@pytest.mark.parametrize("length", [0.0, 0.02])
def test_a_gradient_without_length_leaves_the_b_value(
    maker: str, length: float, tmp_path: Path
) -> None:
    """dcm2niix issues 245 and 690: a mean over directions, or an image without weighting."""
    name, fill = MAKERS[maker]

    def shorter(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
        fill(dataset, b, [length * part for part in gradient] if b == 1000 else gradient)

    made(tmp_path, name, shorter)
    v = opened(tmp_path)
    np.testing.assert_array_equal(v.b_value, B_VALUES)
    assert np.isnan(v.direction_x).values.tolist() == [b in (0, 1000) for b in B_VALUES]
    assert not v.dcm.bvecs[:, 3:6].any()


def test_only_gradients_are_directions_of_ge(tmp_path: Path) -> None:
    """Other sequences have numbers of a user's own in these elements."""
    b_values = [None, 0, 700, 1000]
    paths = classic(tmp_path, noise(4, 8, 8), along(AXIAL, [0, 2, 4, 6]), modality="MR", seed=None)
    for path, b, length in zip(paths, b_values, [1.0, 1.0, 1.02, 10.0], strict=True):
        dataset = dcmread(path)
        dataset.InPlanePhaseEncodingDirection = "COL"
        ge(dataset, b or 0, [0.0, 0.6, 0.8], length)
        if b is None:
            dataset[0x00430010].value = "NOBODY"
        dataset.save_as(path)
    facts = np.concatenate([describe(locate(path)).facts for path in paths])
    np.testing.assert_array_equal(facts["b_value"], [np.nan, 0, 700, 1000])
    assert np.isnan(facts["direction"][:2]).all() and np.isfinite(facts["direction"][2]).all()
    assert np.isinf(facts["direction"][3]).all()


def of_the_standard(dataset: Dataset, b: Any, gradient: Any) -> None:
    dataset.DiffusionBValue = b
    dataset.DiffusionGradientOrientation = gradient


def of_siemens(dataset: Dataset, b: Any, gradient: Any) -> None:
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "LO", str(b))
    block.add_new(0x0E, "FD", gradient)


def of_ge(dataset: Dataset, b: Any, gradient: Any) -> None:
    dataset.InPlanePhaseEncodingDirection = "COL"
    ge(dataset, 0, gradient)
    dataset[0x0043, 0x1039].VR = "LO"
    dataset[0x0043, 0x1039].value = [str(b), "8"]


@pytest.mark.parametrize("fill", [siemens, of_the_standard])
def test_gradients_are_unit_vectors(fill: Any, tmp_path: Path) -> None:
    """As dcm2niix makes them, whatever their length in the header."""

    def other(dataset: Dataset, b: int, gradient: Sequence[float]) -> None:
        fill(dataset, float(b), [(0.5 if b > 1000 else 2.0) * part for part in gradient])

    gradients = made(tmp_path / "in", "SIEMENS", other)
    v = opened(tmp_path / "in")
    found = in_patient(v.dcm.bvecs, LPS_TO_RAS @ v.dcm.affine)
    np.testing.assert_allclose(found, gradients @ LPS_TO_RAS[:3, :3], atol=1e-9)
    if fill is siemens:
        compare_with_dcm2niix(tmp_path / "in", tmp_path)


@pytest.mark.parametrize(
    ("fill", "b", "gradient", "tag"),
    [
        (of_ge, "abc", [0.0, 0.3, 0.4], "(0018,9087)"),
        (of_siemens, "abc", [0.0, 0.6, 0.8], "(0018,9087)"),
        (of_siemens, -500, [0.0, 0.6, 0.8], "(0018,9087)"),
        (of_the_standard, -500.0, [0.0, 0.6, 0.8], "(0018,9087)"),
        (of_siemens, 1000, [0.6, 0.8], "(0018,9089)"),
        (of_the_standard, 1000.0, [0.6, 0.8], "(0018,9089)"),
        (of_the_standard, np.inf, [0.0, 0.6, 0.8], "(0018,9087)"),
        (of_the_standard, np.nan, [0.0, 0.6, 0.8], "(0018,9087)"),
        (of_the_standard, 1000.0, [np.nan] * 3, "(0018,9089)"),
        (of_siemens, 1000, [np.nan] * 3, "(0018,9089)"),
    ],
)
def test_unreadable_weightings_are_not_taken_for_none(
    fill: Any, b: Any, gradient: list[float], tag: str, tmp_path: Path
) -> None:
    """dcm2niix writes a b-value for each volume; here, an error says which are not known."""
    positions = np.tile(along(AXIAL, [0, 2]), (3, 1))
    each = {"AcquisitionNumber": [1, 1, 2, 2, 3, 3]}
    paths = classic(tmp_path / "in", noise(6, 8, 8), positions, modality="MR", seed=None, each=each)
    of_each = [(0.0, [0.0, 0.0, 0.0]), (b, gradient), (2000.0, [0.0, 0.6, 0.8])]
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        fill(dataset, *of_each[number // 2])
        dataset.save_as(path)
    (stack,) = scan(tmp_path / "in")[0].stacks
    (note,) = [note for note in stack.notes if note.code == "unreadable-weighting"]
    assert tag in note.text and "2 of 6 frames" in note.text and str(paths[2]) in note.text
    v = opened(tmp_path / "in")
    expected = [0, 1000 if b == 1000 else np.inf, 2000]
    np.testing.assert_array_equal(v.b_value, expected)
    with pytest.raises(GeometryError, match="cannot be read") as caught:
        v.dcm.to_nifti(tmp_path / "v.nii")
    assert caught.value.code == "GeometryError/unreadable"
    assert not list(tmp_path.glob("v.*"))
    v.isel(diffusion=[0, 2]).dcm.to_nifti(tmp_path / "v.nii")
    assert np.loadtxt(tmp_path / "v.bval").tolist() == [0, 2000]
