"""`open_frames`: which options it takes, what they do, and how they are told apart."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_dicom import (
    encapsulated,
    native,
    noise,
    saved,
)
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from dcmdask.errors import DcmdaskWarning, MissingElementError
from dcmdask.pixels import frame_array
from dcmdask.pixels.frame_array import open_frames

GREY = noise(7, 5, 6, dtype="i2")
COLOUR = noise(4, 5, 6, 3)

# Options.


@pytest.mark.parametrize(
    "name", ["index", "indices", "view_only", "ds_out", "specific_tags", "chunk", "Rows"]
)
def test_an_option_that_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=repr(name)):
        open_frames(native(GREY), **{name: 1})


OVERRIDES: list[tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = [
    ({"rows": 6, "columns": 5}, lambda whole: whole.reshape(7, 6, 5)),
    ({"rows": np.int64(30), "columns": np.int64(1)}, lambda whole: whole.reshape(7, 30, 1)),
    ({"number_of_frames": 2, "allow_excess_frames": False}, lambda whole: whole[:2]),
    ({"pixel_representation": 0}, lambda whole: whole.view("u2")),
    ({"bits_stored": 12}, lambda whole: whole << 4 >> 4),
    ({"bits_stored": 12, "correct_unused_bits": False}, lambda whole: whole),
    (
        {"bits_allocated": 8, "bits_stored": 8, "columns": 12, "pixel_representation": 0},
        lambda whole: whole.view("u1"),
    ),
]


@pytest.mark.filterwarnings("ignore::dcmdask.errors.DcmdaskWarning")
@pytest.mark.parametrize(
    ("options", "meant"), OVERRIDES, ids=lambda v: str(v)[:40] if isinstance(v, dict) else ""
)
def test_overrides_are_honoured_and_told(
    options: dict[str, Any], meant: Callable[[np.ndarray], np.ndarray]
) -> None:
    data = native(GREY)
    opened = open_frames(data, **options)
    np.testing.assert_array_equal(opened[:], meant(GREY))
    assert (opened.shape, opened.dtype) == (meant(GREY).shape, meant(GREY).dtype)
    assert opened.token != open_frames(data).token


def test_colour_overrides() -> None:
    data = native(COLOUR)
    converted = open_frames(data, photometric_interpretation="YBR_FULL")
    assert (converted[:] != COLOUR).any()
    np.testing.assert_array_equal(
        open_frames(data, photometric_interpretation="YBR_FULL", raw=True)[:], COLOUR
    )
    planes = COLOUR.reshape(4, 3, 5, 6).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(open_frames(data, planar_configuration=1)[:], planes)
    grey = open_frames(data, samples_per_pixel=1, photometric_interpretation="MONOCHROME2", rows=15)
    np.testing.assert_array_equal(grey[:], COLOUR.reshape(4, 15, 6))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless])
def test_a_bare_data_set_needs_its_syntax_if_it_is_encapsulated(syntax: str) -> None:
    make = encapsulated if syntax == RLELossless else native
    bare = make(GREY, syntax, preamble=False, meta=False)
    if syntax == RLELossless:
        with pytest.raises(MissingElementError, match="pass transfer_syntax_uid"):
            open_frames(bare)
    else:
        with pytest.warns(DcmdaskWarning, match="no file meta information"):
            np.testing.assert_array_equal(open_frames(bare)[:], GREY)
    opened = open_frames(bare, transfer_syntax_uid=syntax)
    np.testing.assert_array_equal(opened[:], GREY)
    assert opened.dataset.Rows == 5


# Tokens.


def test_a_token_is_the_same_in_another_process(tmp_path: Path) -> None:
    path = saved(tmp_path, native(GREY))
    code = (
        "import sys; from dcmdask.pixels.frame_array import open_frames as o\n"
        "print(o(sys.argv[1]).token, o(open(sys.argv[1], 'rb').read(), raw=True).token)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, path],
        check=True,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONHASHSEED": "7",
            "PYTHONPATH": str(Path(frame_array.__file__).parents[2]),
        },
    ).stdout.split()
    assert told == [open_frames(path).token, open_frames(path.read_bytes(), raw=True).token]


@pytest.mark.filterwarnings("ignore::dcmdask.errors.DcmdaskWarning")
def test_a_token_tells_sources_and_options_apart(tmp_path: Path) -> None:
    path = saved(tmp_path, native(GREY))
    options: list[dict[str, Any]] = [
        {},
        {"raw": True},
        {"rows": 6, "columns": 5},
        {"number_of_frames": 3, "allow_excess_frames": False},
        {"number_of_frames": 3},
        {"bits_stored": 12},
        {"correct_unused_bits": False},
        {"apply_jls_sign_correction": False},
    ]
    tokens = {open_frames(path, **some).token for some in options}
    assert len(tokens) == len(options)
    assert open_frames(path).token in tokens
    assert open_frames(str(path)).token == open_frames(path).token
    other = saved(tmp_path, path.read_bytes(), "other.dcm")
    tokens.add(open_frames(other).token)
    os.utime(path, ns=(1, 1))
    tokens.add(open_frames(path).token)
    path.write_bytes(path.read_bytes() + b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0")
    os.utime(path, ns=(1, 1))
    tokens.add(open_frames(path).token)
    assert len(tokens) == len(options) + 3
    data = encapsulated(noise(1, 8, 8), JPEG2000Lossless)
    assert open_frames(data).token != open_frames(data, decoding_plugin="pylibjpeg").token
    assert open_frames(data).token == open_frames(bytearray(data)).token


def test_a_vr_that_the_caller_knows_better() -> None:
    # As if the words of two had been bytes all along (PS3.5 8.1.2).
    frames = noise(3, 4, 6)
    data = native(frames, ExplicitVRBigEndian, vr="OW")
    swapped = frames.reshape(3, 4, 3, 2)[..., ::-1].reshape(frames.shape)
    np.testing.assert_array_equal(open_frames(data)[:], frames)
    np.testing.assert_array_equal(open_frames(data, pixel_vr="OB")[:], swapped)


def test_the_header_is_read_in_the_syntax_that_is_given() -> None:
    frames = noise(2, 5, 6, dtype="u2")
    data = bytearray(native(frames, ExplicitVRBigEndian))
    # The file meta information says little endian, and the data set is not.
    wrong, right = str(ExplicitVRLittleEndian).encode(), str(ExplicitVRBigEndian).encode()
    data = data.replace(right, wrong.ljust(len(right), b"\0"), 1)
    found = open_frames(bytes(data), transfer_syntax_uid=ExplicitVRBigEndian)
    np.testing.assert_array_equal(found[:], frames)
    assert (found.dataset.Rows, found.dataset.Columns) == (5, 6)
