"""Volumes of real series are those that other tools make of them, voxels and affine.

dcm2niix stores rows the other way round, in RAS axes, and one file for each echo; so both
are brought to one orientation first. nibabel reads what it wrote.
"""

import json
import subprocess
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from real_files import DCM2NIIX

from dcmdask import DcmdaskWarning, Series, scan

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def canonical(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A volume (x, y, z[, t]) with a RAS affine, its axes as near to R, A, S as can be."""
    image = nib.as_closest_canonical(nib.Nifti1Image(values, affine))
    return np.asarray(image.dataobj), image.affine


def volumes(series: Series) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each (x, y, z[, t]) volume of the only stack, echoes apart, as nibabel sees it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        v = series.to_xarray()
    affine = LPS_TO_RAS @ v.dcm.affine
    echoes = [v.isel(echo=i) for i in range(v.sizes["echo"])] if "echo" in v.dims else [v]
    axes = [one.transpose("x", "y", "z", *(["t"] if "t" in one.dims else [])) for one in echoes]
    return [canonical(one.values, affine) for one in axes]


def compare(made: tuple[np.ndarray, np.ndarray], image: Any) -> None:
    values, affine = canonical(np.asarray(image.dataobj.get_unscaled()), image.affine)
    np.testing.assert_array_equal(made[0], values)
    np.testing.assert_allclose(made[1], affine, atol=0.01)


REFERENCES = [
    *((f"dcm_qa_nih/In/20180918GE/mr_000{n}", [f"dcm_qa_nih/Ref/DCM2NIIX_regression_test_{n}"])
      for n in (4, 5, 6, 7)),
    ("dcm_qa_pdt2/In/Siemens/VE11",
     [f"dcm_qa_pdt2/Ref/Siemens_pd+t2_tse_sag_ISO_1.8mm_3_e{n}" for n in (1, 2)]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "references"), REFERENCES, ids=[r[0] for r in REFERENCES])
def test_references_of_the_corpus(corpus: Path, source: str, references: list[str]) -> None:
    (series,) = scan(corpus / source)
    assert series.irregularities == ()
    made = volumes(series)
    assert len(made) == len(references)
    for one, reference in zip(made, references, strict=True):
        compare(one, nib.load(corpus / f"{reference}.nii"))
    if len(made) > 1:
        told = [json.loads((corpus / f"{r}.json").read_text())["EchoTime"] for r in references]
        np.testing.assert_allclose(series.to_xarray().echo, 1000 * np.array(told))


# dcm2niix itself


@pytest.mark.parametrize(
    "source", ["dcm_qa_agfa/Agfa", "dcm_qa_agfa/Siemens", "dcm_qa_pdt2/In/Siemens/VE11"]
)
def test_dcm2niix(corpus: Path, source: str, tmp_path: Path) -> None:
    convert(corpus / source, tmp_path)
    made = volumes(scan(corpus / source)[0])
    written = sorted(tmp_path.glob("*.nii"))
    assert len(made) == len(written)
    for one, path in zip(made, written, strict=True):
        compare(one, nib.load(path))


def convert(source: Path, target: Path) -> None:
    assert DCM2NIIX is not None
    command = [DCM2NIIX, "-z", "n", "-b", "n", "-f", "%s_%e", "-o", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def test_what_dcm2niix_resamples_is_named(corpus: Path, tmp_path: Path) -> None:
    convert(corpus / "dcm_qa_ct/In/GE", tmp_path)
    # Besides the volume as it is, it writes one without the tilt, and one of even gaps.
    assert any("_Tilt" in path.name or "_Eq" in path.name for path in tmp_path.glob("*.nii"))
    (stack,) = scan(corpus / "dcm_qa_ct/In/GE")[0].stacks
    assert "tilt" in {note.code for note in stack.notes}


def test_mosaics_are_named(corpus: Path) -> None:
    found = [*scan(corpus / "dcm_qa_ts/In"), *scan(corpus / "dcm_qa_12bit/In")]
    assert found
    for series in found:
        assert {stack.kind for stack in series.stacks} == {"mosaic"}
        for stack in series.stacks:
            assert stack.notes[0].code == "mosaic" and stack.dims[0] == "frame"


# highdicom


def test_highdicom_agrees_on_geometry(corpus: Path) -> None:
    """Every regular series of single frames of the corpus that highdicom makes a volume of."""
    from highdicom import get_volume_from_series

    compared = 0
    for series in scan(corpus):
        for stack in series.stacks:
            regular = stack.geometry is not None and stack.geometry.regular
            if not regular or stack.arrangement.dims != ("z",) or len(stack.frame_numbers) < 3:
                continue
            if any(len(one) > 1 for one in stack.instances) or len(stack.instances) > 60:
                continue
            datasets = [dcmread(one.source.path) for one in stack.instances]
            volume = get_volume_from_series(
                datasets, apply_modality_transform=False, orientation_tol=1e-3
            )
            # Its axes are slice, row, column.
            theirs = volume.affine[:, [2, 1, 0, 3]]
            mine = stack.geometry.affine
            if theirs[:3, 2] @ mine[:3, 2] < 0:
                theirs[:3, 3] += (len(stack.frame_numbers) - 1) * theirs[:3, 2]
                theirs[:3, 2] *= -1
            np.testing.assert_allclose(mine, theirs, atol=0.01, err_msg=series.uid)
            compared += 1
    assert compared >= 5
