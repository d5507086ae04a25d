"""JPEG frames whose codestream shows other colours than the header says."""

import io
import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr
from make_dicom import by_pydicom, encapsulated, saved
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from dcmdask import DcmdaskWarning, from_dicom, open_frames, to_zarr

Y, X = np.mgrid[:32, :48]
PICTURE = np.stack([4 * X, 7 * Y, 255 - 3 * X - 2 * Y], axis=-1).astype("u1")


def without_marker(stream: bytes, marker: int) -> bytes:
    """A JPEG without the application segments of this marker."""
    at, kept = 2, stream[:2]
    while stream[at + 1] != 0xDA:
        stop = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] != marker:
            kept += stream[at:stop]
        at = stop
    return kept + stream[at:]


def adobe(transform: int) -> bytes:
    return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


def jpeg(
    subsampling: str, transform: int | None = None, rgb: bool = False, jfif: bool = False
) -> bytes:
    """The picture as JPEG of YCbCr or RGB, with no markers but these."""
    coded = "RGB" if rgb else "YCBCR"
    stream = imagecodecs.jpeg8_encode(
        PICTURE, level=98, colorspace="RGB", outcolorspace=coded, subsampling=subsampling
    )
    for marker in (0xEE,) if jfif else (0xE0, 0xEE):
        stream = without_marker(stream, marker)
    return stream[:2] + (b"" if transform is None else adobe(transform)) + stream[2:]


def renumbered(stream: bytes) -> bytes:
    """RGB with the component identifiers 1, 2 and 3, which do not spell it."""
    start = stream.index(b"\xff\xda")
    head, rest = stream[:start], stream[start:]
    head = head.replace(b"\3R\x11", b"\3\1\x11").replace(b"G\x11", b"\2\x11")
    head = head.replace(b"B\x11", b"\3\x11")
    return (
        head
        + rest[:4]
        + rest[4:11].replace(b"R", b"\1").replace(b"G", b"\2").replace(b"B", b"\3")
        + rest[11:]
    )


def one_file(stream: bytes, interpretation: str) -> bytes:
    return encapsulated(
        PICTURE[np.newaxis],
        JPEGBaseline8Bit,
        streams=[stream],
        PhotometricInterpretation=interpretation,
    )


CASES = [
    (("444", 1), "RGB"),
    (("444", None, False, True), "RGB"),
    (("422", None), "RGB"),
    (("420", None), "RGB"),
    (("422", 1), "YBR_PARTIAL_422"),
    (("422", None), "YBR_PARTIAL_422"),
    (("444", None), "YBR_ICT"),
    (("444", None), "YBR_RCT"),
]


@pytest.mark.parametrize(("form", "interpretation"), CASES)
def test_the_codestream_decides_where_the_header_cannot_be_true(
    form: tuple[Any, ...], interpretation: str
) -> None:
    """pydicom issue 2280, dicom-rs issue 829."""
    data = one_file(jpeg(*form), interpretation)
    right = open_frames(one_file(jpeg(*form), "YBR_FULL_422"))[0]
    assert np.abs(right.astype("i2") - PICTURE).mean() < 4
    for options in ({}, {"apply_jls_sign_correction": False}):  # shortcut and general path
        with pytest.warns(DcmdaskWarning, match=f"is {interpretation}, and the JPEG") as caught:
            found = open_frames(data, **options)[0]
        assert {one.message.code for one in caught} == {"photometric-interpretation"}
        assert np.abs(found.astype("i2") - right).max() <= 1
    with pytest.warns(DcmdaskWarning):
        shown = from_dicom(data, values="display").compute()
    assert np.abs(shown[0].astype("i2") - right).max() <= 1


# pydicom goes by a JFIF marker in any case, so not with one.
@pytest.mark.parametrize(("form", "interpretation"), [c for c in CASES if len(c[0]) == 2])
def test_what_is_asked_for_is_not_corrected(form: tuple[Any, ...], interpretation: str) -> None:
    """pydicom issue 2280, dicom-rs issue 829: raw values, and a plugin that is named."""
    data = one_file(jpeg(*form), interpretation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = by_pydicom(data, raw=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", DcmdaskWarning)
        raw = open_frames(data, raw=True)[:]
        named = open_frames(data, decoding_plugin="imagecodecs")[:]
        asked = open_frames(data, photometric_interpretation=interpretation)
        assert open_frames(data).token != asked.token
        given = asked[:]
    for found in (raw, named, given):
        assert np.abs(found.astype("i2") - stored).max() <= 3  # two IDCTs and upsamplings


def test_rgb_stays_rgb() -> None:
    for transform in (None, 0):
        data = one_file(jpeg("444", transform, rgb=True), "RGB")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = open_frames(data)[0]
        assert np.abs(found.astype("i2") - PICTURE).mean() < 4


def test_rgb_in_a_codestream_under_a_retired_interpretation() -> None:
    data = one_file(renumbered(jpeg("444", 0, rgb=True)), "YBR_PARTIAL_422")
    with pytest.warns(DcmdaskWarning, match="coded as RGB"):
        found = open_frames(data)[0]
    assert np.abs(found.astype("i2") - PICTURE).mean() < 4


def test_pillow_agrees() -> None:
    stream = jpeg("422", 1)
    shown = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB"))
    with pytest.warns(DcmdaskWarning):
        found = open_frames(one_file(stream, "RGB"))[0]
    assert np.abs(found.astype("i2") - shown).max() <= 3


@pytest.mark.parametrize(("form", "interpretation"), CASES)
def test_a_store_names_the_colours_that_were_read(
    form: tuple[Any, ...], interpretation: str, tmp_path: Path
) -> None:
    """pydicom issue 2280, dicom-rs issue 829."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = saved(folder, one_file(jpeg(*form), interpretation))
    hows: dict[str, dict[str, Any]] = {
        "read": {},
        "display": {"values": "display"},
        "raw": {"raw": True},
    }
    for name, options in hows.items():
        with warnings.catch_warnings():
            # pydicom warns as well.
            warnings.simplefilter("ignore", UserWarning)
            for src in (path, folder):
                to_zarr(src, tmp_path / f"{name}.zarr", overwrite=True, **options)
                about: Any = zarr.open_group(tmp_path / f"{name}.zarr").attrs["dcmdask"]
                colours = interpretation if name == "raw" else "RGB"
                assert about["header"]["PhotometricInterpretation"] == colours
