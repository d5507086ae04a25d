"""Rescale and window values that are there and cannot be read are never taken for absent."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from instances import instance
from made_series import AXIAL, along, classic
from make_dicom import native, noise, saved
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dcmdask import (
    DcmdaskWarning,
    HeaderError,
    IrregularSeriesError,
    from_dicom,
    scan,
    to_zarr,
    verify,
)
from dcmdask.arrays.transformation import fill_for

FRAMES = noise(2, 4, 4, dtype="u2", bits=12)


def odd(keyword: str, value: str, frames: np.ndarray = FRAMES[:1], **elements: Any) -> bytes:
    """A file with a text that pydicom would not write as DS."""
    same = "9" * len(value)
    data = native(frames, **{"Modality": "CT", **elements, keyword: same})
    assert data.count(same.encode()) == 1
    return data.replace(same.encode(), value.encode())


def test_a_decimal_comma_in_rescale_intercept(tmp_path: Path) -> None:
    """fo-dicom issues 1915 and 1296."""
    path = saved(tmp_path, odd("RescaleIntercept", "-1024,0 ", RescaleSlope=1))
    expected = FRAMES[:1].astype("i4") - 1024
    for src in (path, tmp_path):
        np.testing.assert_array_equal(from_dicom(src, values="modality").compute(), expected)
        to_zarr(src, tmp_path / "a.zarr", values="modality", overwrite=True)
        stored: Any = zarr.open_group(tmp_path / "a.zarr", mode="r")["pixels"]
        np.testing.assert_array_equal(stored[...].reshape(expected.shape), expected)
        assert verify(tmp_path / "a.zarr", src).ok


def test_a_decimal_comma_in_the_window() -> None:
    """fo-dicom issue 1891."""
    data = odd("WindowCenter", "2040,0", WindowWidth=400)
    expected = native(FRAMES[:1], WindowCenter=2040, WindowWidth=400)
    np.testing.assert_array_equal(
        from_dicom(data, values="display").compute(), from_dicom(expected, values="display")
    )


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_no_number_raises_with_file_tag_and_text(keyword: str, tmp_path: Path) -> None:
    """fo-dicom issues 1915 and 1296."""
    path = saved(tmp_path, odd(keyword, "Smith^Jo", SeriesInstanceUID="1.2.3"))
    np.testing.assert_array_equal(from_dicom(tmp_path).compute(), FRAMES[:1])
    (series,) = scan(tmp_path)
    for use in (
        lambda: from_dicom(path, values="modality"),
        lambda: from_dicom(path, values="display"),
        lambda: series.to_dask(values="modality"),
    ):
        with pytest.raises(HeaderError, match=r"\(0028,105[23]\) 'Rescale") as caught:
            use()
        error = caught.value
        assert error.code == "HeaderError/unreadable"
        assert error.source == str(path)
        assert "Smith" in error.detail
        assert "Smith" not in error.message


def test_a_window_that_is_no_number_is_not_the_full_range() -> None:
    """fo-dicom issue 1891."""
    data = odd("WindowCenter", "forty   ", WindowWidth=400)
    with pytest.raises(HeaderError, match=r"\(0028,1050\) 'Window Center'"):
        from_dicom(data, values="display")
    assert from_dicom(data, values="modality").dtype.kind == "i"


def test_the_frame_is_named_where_there_are_several() -> None:
    def group(value: str) -> Dataset:
        item, outer = Dataset(), Dataset()
        item.RescaleSlope, item.RescaleIntercept = "1", value
        outer.PixelValueTransformationSequence = Sequence([item])
        return outer

    groups = Sequence([group("1234"), group("987654")])
    data = native(FRAMES, PerFrameFunctionalGroupsSequence=groups)
    data = data.replace(b"987654", b"98 654")
    with pytest.raises(HeaderError, match="Rescale Intercept") as caught:
        from_dicom(data, values="modality")
    assert (caught.value.frame, caught.value.detail) == (1, "")


def test_a_slope_of_zero_is_noted() -> None:
    data = native(FRAMES[:1], RescaleSlope=0, RescaleIntercept=7)
    with pytest.warns(DcmdaskWarning, match="Rescale Slope' is 0") as caught:
        values = from_dicom(data, values="modality")
    assert [one.message.code for one in caught] == ["rescale-slope"]
    assert (values.compute() == 7).all()


def test_padding_that_is_no_number_fills_nothing() -> None:
    data = native(FRAMES[:1], PixelPaddingValue=7)
    head = bytes.fromhex("28002001") + b"US"
    assert data.count(head) == 1
    # Three bytes are no number of two.
    data = data.replace(head + b"\2\0\7\0", head + b"\3\0\7\0\0")
    one = instance(data)
    assert one.padding == np.inf
    with pytest.raises(ValueError, match="pass fill_value"):
        fill_for(from_dicom(data), [one], "stored")


def test_a_decimal_comma_beside_a_voi_lut() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [4096, -1024, 8])
    item.add_new("LUTData", "US", [n % 256 for n in range(4096)])
    lut = {"VOILUTSequence": Sequence([item]), "RescaleSlope": 1}
    expected = from_dicom(native(FRAMES[:1], RescaleIntercept=-1024, **lut), values="display")
    found = from_dicom(odd("RescaleIntercept", "-1024,0 ", **lut), values="display")
    np.testing.assert_array_equal(found.compute(), expected.compute())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("keyword", "text", "tag"),
    [
        ("ImagePositionPatient", "Smith\\0\\1", r"\(0020,0032\) 'Image Position"),
        ("ImagePositionPatient", "1e999\\0\\1", r"\(0020,0032\) 'Image Position"),
        ("ImagePositionPatient", "1e30\\00\\1", r"\(0020,0032\) 'Image Position"),
        ("ImageOrientationPatient", "1\\0\\0\\0\\Smith\\0", r"\(0020,0037\) 'Image Orien"),
    ],
)
def test_a_position_that_cannot_be_read_is_irregular(
    keyword: str, text: str, tag: str, count: int, tmp_path: Path
) -> None:
    """As dcmjs issue 287 is of Pixel Spacing: an element that is there is not absent."""
    frames = noise(3, 4, 4)
    paths = sorted(classic(tmp_path, frames, along(AXIAL, [0, 2, 4]), seed=None))
    old = {
        "ImagePositionPatient": b"-12.5\\30.25\\-",
        "ImageOrientationPatient": b"1\\0\\0\\0\\1\\0",
    }
    for path in paths[:count]:
        data = path.read_bytes()
        at = data.index(old[keyword])
        length = int.from_bytes(data[at - 2 : at], "little")
        value = text.encode() + b" " * (len(text) % 2)
        head = len(value).to_bytes(2, "little")
        path.write_bytes(data[: at - 2] + head + value + data[at + length :])
    (series,) = scan(tmp_path)
    stack = next(one for one in series.stacks if one.instances[0].source.name == str(paths[0]))
    (irregularity,) = [one for one in stack.irregularities if one.code == "unreadable"]
    assert re.search(tag, irregularity.text) and str(paths[0]) in irregularity.text
    assert "Smith" not in irregularity.text
    with (
        pytest.warns(DcmdaskWarning) if len(stack.frame_numbers) > 1 else nullcontext(),
        pytest.raises(IrregularSeriesError, match=tag) as caught,
    ):
        stack.to_dask()
    assert text.split("\\", maxsplit=1)[0] in caught.value.detail
    assert "Smith" not in caught.value.message
    with pytest.warns(DcmdaskWarning) if len(stack.frame_numbers) > 1 else nullcontext():
        kept = stack.to_dask(on_irregular="keep")
    assert len(kept) == len(stack.frame_numbers) and kept.compute().any()
    assert sum(len(part.frame_numbers) for part in stack.split()) == len(kept)


def test_a_decimal_comma_in_pixel_spacing(tmp_path: Path) -> None:
    """dcmjs issue 287, pydicom issue 173."""
    (path,) = classic(tmp_path, FRAMES[:1], along(AXIAL, [0]), spacing=(0.5, 0.75))
    path.write_bytes(path.read_bytes().replace(b"0.5\\0.75", b"0,5\\0,75"))
    (stack,) = scan(tmp_path)[0].stacks
    assert stack.irregularities == () and stack.geometry is not None
    assert stack.geometry.spacing[1:] == (0.5, 0.75)
    v = stack.to_xarray()
    np.testing.assert_allclose(np.diff(v.y), 0.5)
    np.testing.assert_allclose(np.diff(v.x), 0.75)


def test_a_spacing_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """dcmjs issue 287, pydicom issue 173."""
    (path,) = classic(tmp_path, FRAMES[:1], along(AXIAL, [0]), spacing=(11.25, 12.75))
    path.write_bytes(path.read_bytes().replace(b"11.25\\12.75", b"Smith\\12.75"))
    (stack,) = scan(tmp_path)[0].stacks
    (irregularity,) = stack.irregularities
    assert irregularity.code == "spacing" and "inf" not in irregularity.text
    said = "(0028,0030) 'Pixel Spacing': the spacing of pixels is there and cannot be read"
    assert irregularity.text == f"{said} ({path})"
    with pytest.raises(IrregularSeriesError, match="cannot be read") as caught:
        stack.to_dask()
    assert "Smith" in caught.value.detail


def test_the_spacing_of_a_detector_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    spacings = {"PixelSpacing": None, "ImagerPixelSpacing": "11.25\\12.75"}
    (path,) = classic(tmp_path, FRAMES[:1], along(AXIAL, [0]), **spacings)
    path.write_bytes(path.read_bytes().replace(b"11.25\\12.75", b"Smith\\12.75"))
    (stack,) = scan(tmp_path)[0].stacks
    (irregularity,) = stack.irregularities
    assert irregularity.text.startswith("(0018,1164) 'Imager Pixel Spacing': ")
    with pytest.raises(IrregularSeriesError, match=r"1164.*cannot be read") as caught:
        stack.to_dask()
    assert "Smith" in caught.value.detail and "Smith" not in caught.value.message


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_no_window_of_stored_values_is_told_by_what_cannot_be_read(
    keyword: str, tmp_path: Path
) -> None:
    """fo-dicom issues 1915 and 1296."""
    elements = {"WindowCenter": 100, "WindowWidth": 50, "PixelSpacing": [1, 1]}
    elements |= {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": list(AXIAL)}
    for name, data in (
        ("good", native(FRAMES[:1], **elements, **{keyword: 4})),
        ("bad", odd(keyword, "Smith^Jo", **elements)),
    ):
        path, store = saved(tmp_path, data, name), tmp_path / f"{name}.zarr"
        to_zarr(path, store, format="ome-zarr")
        omero = zarr.open_group(store, mode="r").attrs.asdict()["ome"].get("omero")
        assert bool(omero) is (name == "good")
