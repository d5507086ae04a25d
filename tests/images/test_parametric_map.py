"""Parametric maps: their dimensions, by highdicom's files and by others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.pm import RealWorldValueMapping
from made_images import parametric_map
from made_series import AXIAL, along, enhanced
from make_dicom import noise
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ParametricMapStorage

import dcmdask
from dcmdask import HeaderError, Stack, scan

UNITS = {
    "ADC": codes.UCUM.SquareMillimeterPerSecond,
    "T1": codes.UCUM.Millisecond,
    "share": codes.UCUM.Percent,
}
SLOPES = {"ADC": 1e-6, "T1": 3.0, "share": 0.5}


def mapping(label: str, limits: tuple[float, float] = (0, 65535)) -> Any:
    return RealWorldValueMapping(label, "", UNITS[label], limits, slope=SLOPES[label])


def stack_of(path: Path) -> Stack:
    (stack,) = scan(path)[0].stacks
    return stack


def test_planes_of_one_quantity(tmp_path: Path) -> None:
    pixels = noise(4, 6, 8, dtype="u2")
    stack = stack_of(parametric_map(tmp_path, pixels, [mapping("T1")]))
    assert stack.kind == "parametric map" and stack.dims == ("z", "y", "x")
    np.testing.assert_array_equal(stack.to_dask(), pixels)
    v = stack.to_xarray("real-world")
    np.testing.assert_allclose(v.z.diff("z"), 2.5)
    np.testing.assert_allclose(v.dcm.affine[:3, 3], along(AXIAL, [0])[0])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_several_quantities(dtype: str, tmp_path: Path) -> None:
    """highdicom has no dimension index for them: each frame has the mapping of its channel."""
    pixels = noise(4 * 3, 6, 8, dtype="u1").reshape(4, 3, 6, 8).transpose(0, 2, 3, 1).astype(dtype)
    limits = (0.0, 255.0) if dtype[0] == "f" else (0, 255)
    mappings = [[mapping(label, limits)] for label in ("T1", "ADC", "share")]
    stack = stack_of(parametric_map(tmp_path, pixels, mappings))
    assert stack.dims == ("channel", "z", "y", "x") and not stack.irregularities
    v = stack.to_xarray()
    assert v.channel.values.tolist() == ["T1", "ADC", "share"]
    np.testing.assert_array_equal(v, pixels.transpose(3, 0, 1, 2))
    real = stack.to_xarray("real-world")
    for number, label in enumerate(("T1", "ADC", "share")):
        expected = pixels[..., number].astype("f8") * SLOPES[label]
        np.testing.assert_allclose(real.sel(channel=label), expected, rtol=1e-6)
    # They are of several units.
    assert "units" not in real.attrs
    with pytest.raises(HeaderError, match="0 of 1 mappings with this label") as caught:
        stack.to_xarray("real-world:ADC")
    assert caught.value.frame is not None


def test_ome_zarr_has_channels(tmp_path: Path) -> None:
    pixels = noise(8, 6, 8, dtype="u2").reshape(4, 2, 6, 8).transpose(0, 2, 3, 1)
    path = parametric_map(tmp_path, pixels, [[mapping("T1")], [mapping("ADC")]])
    dcmdask.to_zarr(path, tmp_path / "m.zarr", format="ome-zarr", values="real-world")
    assert dcmdask.verify(tmp_path / "m.zarr", path).ok


def by_hand(
    folder: Path,
    labels: Sequence[str],
    positions: np.ndarray,
    indices: Sequence[Sequence[int]] = (),
    pointers: Sequence[int] = (),
) -> np.ndarray:
    """A parametric map with any dimension indices; return its frames as they are stored."""
    stored = noise(len(labels), 4, 5, dtype="u2")
    contents = [{"DimensionIndexValues": list(one)} for one in indices]
    path = enhanced(folder, stored, positions, contents=contents or None)
    dataset = dcmread(path)
    dataset.SOPClassUID = ParametricMapStorage
    dataset.SpecificCharacterSet = "ISO_IR 100"
    if pointers:
        dataset.DimensionIndexSequence = []
    for tag in pointers:
        pointer = Dataset()
        pointer.DimensionIndexPointer = tag
        dataset.DimensionIndexSequence.append(pointer)
    for group, label in zip(dataset.PerFrameFunctionalGroupsSequence, labels, strict=True):
        one = Dataset()
        one.LUTLabel, one.RealWorldValueSlope, one.RealWorldValueIntercept = label, 1.0, 0.0
        group.RealWorldValueMappingSequence = [one]
    dataset.save_as(path)
    return stored


TWICE = np.repeat(along(AXIAL, [0, 2, 4]), 2, axis=0)


def test_without_dimension_indices(tmp_path: Path) -> None:
    stored = by_hand(tmp_path, ["\xe4, min", "b"] * 3, TWICE)
    v = stack_of(tmp_path).to_xarray()
    assert v.dims == ("channel", "z", "y", "x") and v.channel.values.tolist() == ["\xe4, min", "b"]
    np.testing.assert_array_equal(v, stored.reshape(3, 2, 4, 5).swapaxes(0, 1))


@pytest.mark.parametrize("pointer", [0x00409210, 0x00409220])
def test_a_dimension_index_of_the_quantity_is_enough(pointer: int, tmp_path: Path) -> None:
    """Of LUT Label, or of the definition of the quantity."""
    indices = [(z, channel) for z in (1, 2, 3) for channel in (2, 1)]
    pointers = (0x00209057, pointer)  # In-Stack Position Number first
    stored = by_hand(tmp_path, ["a", "b"] * 3, TWICE, indices, pointers)
    v = stack_of(tmp_path).to_xarray()
    assert v.dims == ("channel", "z", "y", "x") and v.channel.values.tolist() == ["b", "a"]
    np.testing.assert_array_equal(v, stored.reshape(3, 2, 4, 5).swapaxes(0, 1)[::-1])


def test_dimensions_that_quantities_follow_from(tmp_path: Path) -> None:
    """Three echoes of two quantities."""
    places = np.repeat(along(AXIAL, [0, 2]), 3, axis=0)
    indices = [(z, echo) for z in (1, 2) for echo in (1, 2, 3)]
    by_hand(tmp_path, ["a", "b", "b"] * 2, places, indices, (0x00209057, 0x00189082))
    assert stack_of(tmp_path).dims == ("echo", "z", "y", "x")


def test_quantities_without_labels_of_their_own(tmp_path: Path) -> None:
    by_hand(tmp_path, ["a"] * 6, TWICE)
    stack = stack_of(tmp_path)
    assert {one.code for one in stack.irregularities} == {"duplicate"}


def test_a_quantity_that_some_positions_lack(tmp_path: Path) -> None:
    by_hand(tmp_path, ["a", "b", "a", "b", "a"], TWICE[:5])
    assert stack_of(tmp_path).irregularities
