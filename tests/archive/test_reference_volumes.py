"""Volumes of real series are those that other tools make of them, voxels and affine.

dcm2niix stores rows the other way round and in RAS axes; so both are brought to one orientation
first. nibabel reads what it wrote.
"""

import json
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from pydicom import dcmread
from real_files import DCM2NIIX

from dcmdask import DcmdaskWarning, Series, Stack, scan

Volume: TypeAlias = tuple[np.ndarray, np.ndarray]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def canonical(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A volume (x, y, z[, t]) with a RAS affine, its axes as near to R, A, S as can be."""
    image = nib.as_closest_canonical(nib.Nifti1Image(values, affine))
    return np.asarray(image.dataobj), image.affine


def lazily(stack: Stack) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        return stack.to_xarray()


def volumes(stack: Stack) -> list[Volume]:
    """Each volume (x, y, z) of a stack, as nibabel sees it."""
    v = lazily(stack)
    affine = LPS_TO_RAS @ v.dcm.affine
    values = v.transpose(..., "x", "y", "z").values
    each = values.reshape(-1, *values.shape[-3:])
    return [canonical(one, affine) for one in each]


def test_echo_times(corpus: Path) -> None:
    (series,) = scan(corpus / "dcm_qa_pdt2/In/Siemens/VE11")
    reference = "dcm_qa_pdt2/Ref/Siemens_pd+t2_tse_sag_ISO_1.8mm_3"
    told = [json.loads((corpus / f"{reference}_e{n}.json").read_text())["EchoTime"] for n in (1, 2)]
    np.testing.assert_allclose(series.to_xarray().echo, 1000 * np.array(told))


# dcm2niix itself

# Files whose volume is another one there, and why.
OTHER_THERE = {
    "slicethickness_empty_string.dcm": "ends within the codestream, which dcm2niix does not read",
    "J2K_pixelrep_mismatch.dcm": "the codestream is signed and the header not, or the reverse",
    "JPEGLossless_1s_1f_u_16_12.dcm": "one plane: Spacing Between Slices is taken for its step",
    "JPEGLossless_1s_1f_i_16_16_bad.dcm": "the damage decodes to other values",
}


def test_dcm2niix(corpus: Path, tmp_path: Path) -> None:
    """Each volume of each regular stack of the corpus is among the outputs of dcm2niix.

    So are its Repetition Time and its b-values.
    """
    found, other, absent = 0, set[str](), []
    repetition_times = b_values = 0
    for number, series in enumerate(scan(corpus)):
        stacks = [one for one in series.stacks if one.kind == "volume" and not one.irregularities]
        if not stacks:
            continue
        outputs = list(convert(series, tmp_path / str(number)))
        for stack in stacks:
            made = volumes(stack)
            places = [
                next((i for i, other in enumerate(outputs) if equal(one, other)), -1)
                for one in made
            ]
            missing = [place for place in places if place < 0]
            assert missing or places == sorted(places)
            found += len(made) - len(missing)
            if len(made) > 1:
                repetition_times += check_repetition_time(stack, tmp_path / str(number))
                b_values += check_b_values(stack, tmp_path / str(number))
            names = {Path(one.source.name).name for one in stack.instances}
            if missing and names <= OTHER_THERE.keys():
                other |= names
            elif missing:
                absent.append(f"{len(missing)} of {len(made)} volumes of {stack.name}, {names}")
    assert not absent
    assert other == OTHER_THERE.keys() and found > 90
    assert repetition_times >= 7 and b_values >= 1


def check_repetition_time(stack: Stack, folder: Path) -> bool:
    told = {json.loads(path.read_text()).get("RepetitionTime") for path in folder.glob("*.json")}
    v = lazily(stack)
    assert {v.attrs["repetition_time"] / 1000} == told
    if "t" in v.dims and "t" in v.coords:
        np.testing.assert_allclose(v.t.diff("t"), v.attrs["repetition_time"], rtol=0.01)
    return True


def check_b_values(stack: Stack, folder: Path) -> bool:
    v = lazily(stack)
    if "diffusion" not in v.dims:
        return False
    (path,) = folder.glob("*.bval")
    np.testing.assert_allclose(v.dcm.bvals, np.loadtxt(path), rtol=1e-6)
    return True


def convert(series: Series, folder: Path) -> Iterator[Volume]:
    """Volumes (x, y, z) that dcm2niix makes of the files of a series."""
    (folder / "in").mkdir(parents=True)
    for number, name in enumerate(series.files):
        (folder / "in" / f"{number}.dcm").symlink_to(name)
    run_dcm2niix(folder / "in", folder)
    for path in sorted(folder.glob("*.nii")):
        image: Any = nib.load(path)
        values, affine = canonical(np.asarray(image.dataobj.get_unscaled()), image.affine)
        if values.dtype.names is None:
            for volume in np.moveaxis(values.reshape(*values.shape[:3], -1), -1, 0):
                yield volume, affine


def equal(one: Volume, other: Volume) -> bool:
    return np.array_equal(one[0], other[0]) and np.allclose(one[1], other[1], atol=0.01)


def run_dcm2niix(source: Path, target: Path) -> None:
    assert DCM2NIIX is not None
    command = [DCM2NIIX, "-z", "n", "-b", "y", "-f", "%s_%e_%r", "-o", str(target), str(source)]
    # It reads what it can, and exits with 1 or more where that is not all.
    subprocess.run(command, check=False, capture_output=True, timeout=120)


def test_what_dcm2niix_resamples_is_named(corpus: Path, tmp_path: Path) -> None:
    run_dcm2niix(corpus / "dcm_qa_ct/In/GE", tmp_path)
    # Besides the volume as it is, it writes one without the tilt, and one of even gaps.
    assert any("_Tilt" in path.name or "_Eq" in path.name for path in tmp_path.glob("*.nii"))
    (stack,) = scan(corpus / "dcm_qa_ct/In/GE")[0].stacks
    assert "tilt" in {note.code for note in stack.notes}


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
