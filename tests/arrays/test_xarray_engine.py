"""`xarray.open_dataset(..., engine="dcmdask")` and `open_datatree`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from made_series import AXIAL, SERIES, along, classic
from make_dicom import noise

import dcmdask
from dcmdask import AmbiguousSourceError, IrregularSeriesError
from dcmdask.xarray import DicomBackend

FRAMES = noise(6, 5, 7, dtype="i2")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    classic(tmp_path / "a", FRAMES, along(AXIAL, 2.5 * np.arange(6)), RescaleIntercept=-24)
    uneven = along(AXIAL, [0, 2.5, 9])
    classic(tmp_path / "b", FRAMES[:3], uneven, series=f"{SERIES}.2")
    return tmp_path


def test_a_series_is_opened_lazily(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    read = dcmdask.FrameArray.__getitem__

    def watched(self: dcmdask.FrameArray, index: object) -> object:
        decoded.append(1)
        return read(self, index)

    monkeypatch.setattr(dcmdask.FrameArray, "__getitem__", watched)
    ds = xr.open_dataset(study / "a", engine="dcmdask", values="modality")
    assert ds.pixels.dims == ("z", "y", "x") and ds.pixels.attrs["units"] == "HU"
    part = ds.pixels.sel(z=-2, method="nearest")[::-1, [1, 4]]
    np.testing.assert_array_equal(part.values, FRAMES[2, ::-1, [1, 4]].T - 24.0)
    assert ds.pixels.dcm.spacing == (2.5, 0.5, 0.75)
    expected = dcmdask.scan(study / "a")[0].to_xarray("modality")
    xr.testing.assert_identical(ds.pixels.rename("modality"), expected.compute())


def test_chunks_are_those_of_to_dask(study: Path) -> None:
    ds = xr.open_dataset(study / "a", engine="dcmdask", chunks={})
    assert ds.pixels.chunks == dcmdask.from_dicom(study / "a").chunks
    np.testing.assert_array_equal(ds.pixels, FRAMES)
    assert "position_z" not in xr.open_dataset(
        study / "a", engine="dcmdask", drop_variables="position_z"
    )


def test_what_is_no_single_regular_series(study: Path) -> None:
    with pytest.raises(AmbiguousSourceError, match="2 series"):
        xr.open_dataset(study, engine="dcmdask")
    with pytest.raises(IrregularSeriesError):
        xr.open_dataset(study / "b", engine="dcmdask")
    kept = xr.open_dataset(study / "b", engine="dcmdask", on_irregular="keep")
    np.testing.assert_allclose(np.diff(kept.z), [2.5, 6.5])


@pytest.mark.filterwarnings("ignore::dcmdask.DcmdaskWarning")
def test_a_study_is_a_tree(study: Path) -> None:
    big = noise(2, 9, 9, dtype="i2")
    each = {"SOPInstanceUID": ["1.2.3.1", "1.2.3.2"]}
    classic(study / "c", big, along(AXIAL, [0, 1]), series=f"{SERIES}.2", each=each)
    tree = xr.open_datatree(study, engine="dcmdask")
    assert set(tree.children) == {SERIES, f"{SERIES}.2"}
    np.testing.assert_array_equal(tree[SERIES].pixels, FRAMES)
    assert set(tree[f"{SERIES}.2"].children) == {"stack-0", "stack-1"}
    assert tree[f"{SERIES}.2/stack-1"].pixels.shape == (2, 9, 9)
    with pytest.raises(IrregularSeriesError):
        xr.open_datatree(study, engine="dcmdask", on_irregular="error")


def test_files_are_recognised_by_their_suffix(tmp_path: Path) -> None:
    backend = DicomBackend()
    assert backend.guess_can_open("cine.DCM") and not backend.guess_can_open("cine.nc")
    (path,) = classic(tmp_path, FRAMES[:1], along(AXIAL, [0]))
    path.rename(tmp_path / "one.dcm")
    assert xr.open_dataset(str(tmp_path / "one.dcm")).pixels.shape == (1, 5, 7)
