"""Loops of frames have the times that their header gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_images import LOOP, loop
from make_dicom import noise
from pydicom.uid import (
    UID,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

import dcmdask
from dcmdask import DcmdaskWarning, Stack, scan, verify

FRAME_TIME, FRAME_TIME_VECTOR, SLICE_VECTOR = 0x00181063, 0x00181065, 0x00540080
RECENT = {"FrameIncrementPointer": FRAME_TIME_VECTOR}


def stack_of(src: Path) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


@pytest.mark.parametrize(
    ("elements", "times"),
    [
        ({"FrameTime": 40.5}, [0, 40.5, 81, 121.5]),
        ({"FrameTime": 40, "FrameIncrementPointer": FRAME_TIME}, [0, 40, 80, 120]),
        ({"FrameTime": 40, "CineRate": 10}, [0, 40, 80, 120]),
        ({"FrameTimeVector": [0, 30, 30, 40]}, [0, 30, 60, 100]),
        # The first value is the time since a frame before.
        ({"FrameTimeVector": [33, 30, 30, 40], **RECENT}, [0, 30, 60, 100]),
        ({"FrameTimeVector": [0, 30, 30, 40], "FrameTime": 99}, [0, 30, 60, 100]),
        # The pointer says which of them tells frames apart.
        (
            {
                "FrameTimeVector": [0, 30, 30, 40],
                "FrameTime": 99,
                "FrameIncrementPointer": FRAME_TIME,
            },
            [0, 99, 198, 297],
        ),
        ({"FrameTime": 25, **RECENT}, [0, 25, 50, 75]),
        ({"FrameTime": 0, "CineRate": 20}, [0, 50, 100, 150]),
        ({"CineRate": 20, "FrameIncrementPointer": FRAME_TIME}, [0, 50, 100, 150]),
        ({"CineRate": 20}, [0, 50, 100, 150]),
    ],
)
@pytest.mark.parametrize("samples", [1, 3])
def test_times(tmp_path: Path, elements: Any, times: list[float], samples: int) -> None:
    frames = noise(4, 6, 8, samples)
    stack = stack_of(loop(tmp_path, frames, **elements))
    assert stack.kind == "loop" and not stack.notes and not stack.irregularities
    v = stack.to_xarray()
    assert v.dims == ("t", "y", "x", "sample")[: frames.ndim]
    np.testing.assert_allclose(v["t"], times)
    assert v["t"].attrs["units"] == "ms"
    np.testing.assert_array_equal(v, frames)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"FrameTimeVector": [0, 30, 30]}, "has 3 values for 4 frames"),
        ({"FrameTimeVector": [0, 30, 30, 30, 30]}, "has 5 values for 4 frames"),
        ({"FrameTimeVector": [0, 30, 30], "FrameTime": 40, **RECENT}, "has 3 values for 4 frames"),
        ({"FrameTimeVector": [0, 30, 0, 30]}, "no times between frames"),
        ({"FrameTimeVector": [0, 30, -30, 30]}, "no times between frames"),
        ({"FrameTime": 0}, "'Frame Time' has values that are no times"),
        ({"FrameTime": -40, "CineRate": 20}, "'Frame Time' has values that are no times"),
        ({"FrameTime": 0, "CineRate": 0}, "'Frame Time' has values that are no times"),
        ({"FrameIncrementPointer": FRAME_TIME}, "'Frame Time' has values that are no times"),
    ],
)
def test_without_times_frames_are_plain(tmp_path: Path, elements: Any, said: str) -> None:
    stack = stack_of(loop(tmp_path, **elements))
    assert stack.kind == "loop" and stack.dims == ("frame", "y", "x")
    assert [note.code for note in stack.notes] == ["frame-time"] and said in stack.notes[0].text
    with pytest.warns(DcmdaskWarning, match="frames have no times"):
        np.testing.assert_array_equal(stack.to_xarray(), LOOP)


@pytest.mark.parametrize("text", [b"ab.c", b" inf", b"    "])
@pytest.mark.parametrize("vector", [False, True])
def test_times_that_cannot_be_read(tmp_path: Path, text: bytes, vector: bool) -> None:
    elements = {"FrameTimeVector": [0, 30, 77.5, 30]} if vector else {"FrameTime": 77.5}
    path = loop(tmp_path, **elements, CineRate=None)
    path.write_bytes(path.read_bytes().replace(b"77.5", text))
    stack = stack_of(path)
    if text.strip() or vector:
        assert [note.code for note in stack.notes] == ["frame-time"]
    assert stack.dims == ("frame", "y", "x")


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"FrameTime": 40, "FrameIncrementPointer": SLICE_VECTOR},
        {"FrameTime": 40, "NumberOfFrames": 1},
    ],
)
def test_frames_that_are_no_loop(tmp_path: Path, elements: Any) -> None:
    frames = LOOP[: elements.get("NumberOfFrames", 4)]
    stack = stack_of(loop(tmp_path, frames, **elements))
    assert stack.kind == "frames" and stack.dims == ("frame", "y", "x") and not stack.notes


def test_clips_are_never_behind_one_another(tmp_path: Path) -> None:
    for number in range(3):
        loop(tmp_path, noise(4, 6, 8, seed=number), str(number), FrameTime=40 + number)
    found = scan(tmp_path)[0].stacks
    assert [stack.shape for stack in found] == [(4, 6, 8)] * 3
    for number, stack in enumerate(found):
        v = stack.to_xarray()
        np.testing.assert_array_equal(v, noise(4, 6, 8, seed=number))
        np.testing.assert_allclose(v["t"], (40 + number) * np.arange(4))
    with pytest.raises(dcmdask.AmbiguousSourceError, match=r"file \(3\)"):
        scan(tmp_path)[0].to_xarray()


ROTATION = {"Modality": "XA", "FrameTime": 40, "PositionerPrimaryAngle": -30}
PRIMARY, SECONDARY = "positioner_primary_angle", "positioner_secondary_angle"


@pytest.mark.parametrize(
    "sop_class", [XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage]
)
def test_angles_of_a_rotation_are_coordinates(tmp_path: Path, sop_class: UID) -> None:
    """PS3.3 C.8.7.5.1.3: offsets from the angles of the first frame."""
    told = {
        "PositionerPrimaryAngleIncrement": [0, 1.5, 3, 4.5],
        "PositionerSecondaryAngle": 10,
        "PositionerSecondaryAngleIncrement": [0, 0, -1, -1],
    }
    stack = stack_of(loop(tmp_path, SOPClassUID=sop_class, **ROTATION, **told))
    v = stack.to_xarray()
    assert not stack.notes and v[PRIMARY].dims == ("t",) and v[PRIMARY].attrs["units"] == "deg"
    assert v[PRIMARY].values.tolist() == [-30, -28.5, -27, -25.5]
    assert v[f"{PRIMARY}_increment"].values.tolist() == [0, 1.5, 3, 4.5]
    assert v[SECONDARY].values.tolist() == [10, 10, 9, 9]
    np.testing.assert_array_equal(v[f"{SECONDARY}_increment"], [0, 0, -1, -1])


def test_a_single_increment_is_that_of_each_frame(tmp_path: Path) -> None:
    told = {"PositionerPrimaryAngleIncrement": 1.5, "PositionerSecondaryAngleIncrement": 0}
    v = stack_of(loop(tmp_path, **ROTATION, **told)).to_xarray()
    assert v[PRIMARY].values.tolist() == [-30, -28.5, -27, -25.5]
    # The angle that they are changes of is not known.
    assert SECONDARY not in v.coords and not v[f"{SECONDARY}_increment"].any()


def test_angles_of_frames_without_times(tmp_path: Path) -> None:
    told = {"PositionerPrimaryAngleIncrement": [0, 1, 2, 3], **ROTATION, "FrameTime": 0}
    with pytest.warns(DcmdaskWarning, match="frames have no times"):
        v = stack_of(loop(tmp_path, **told)).to_xarray()
    assert v[PRIMARY].dims == ("frame",) and v[PRIMARY].values.tolist() == [-30, -29, -28, -27]


@pytest.mark.parametrize("increments", [[0, 1.5, 3], [0, 1.5, 3, 4.5, 6]])
def test_angles_that_are_not_as_many_as_frames(tmp_path: Path, increments: list[float]) -> None:
    stack = stack_of(loop(tmp_path, PositionerPrimaryAngleIncrement=increments, **ROTATION))
    (note,) = stack.notes
    assert note.code == "positioner-angles"
    assert f"has {len(increments)} values for 4 frames" in note.text
    with pytest.warns(DcmdaskWarning, match="Positioner Primary Angle Increment"):
        v = stack.to_xarray()
    assert v.dims == ("t", "y", "x") and PRIMARY not in v.coords


def test_angles_that_cannot_be_read(tmp_path: Path) -> None:
    path = loop(tmp_path, PositionerPrimaryAngleIncrement=[0, 77.5, 3, 4], **ROTATION)
    path.write_bytes(path.read_bytes().replace(b"77.5", b"ab.c"))
    (note,) = stack_of(path).notes
    assert note.code == "positioner-angles" and "ab.c" not in note.text
    path = loop(tmp_path, PositionerPrimaryAngleIncrement=[0, 1, 3, 4], **ROTATION)
    path.write_bytes(path.read_bytes().replace(b"-30.0 ", b"abc.d "))
    v = stack_of(path).to_xarray()
    assert PRIMARY not in v.coords and f"{PRIMARY}_increment" in v.coords


def test_a_file_by_itself_keeps_its_frames(tmp_path: Path) -> None:
    path = loop(tmp_path, FrameTime=40)
    np.testing.assert_array_equal(dcmdask.from_dicom(path), LOOP)


@pytest.mark.parametrize("format_", ["zarr", "ome-zarr"])
def test_stores_verify(tmp_path: Path, format_: str) -> None:
    path = loop(tmp_path, FrameTime=40)
    dcmdask.to_zarr(scan(path)[0], tmp_path / "o.zarr", format=format_)
    assert verify(tmp_path / "o.zarr", scan(path)[0]).ok


def test_real_loops(corpus: Path) -> None:
    for name, step in (
        ("tensorflow-io/XA-MONO2-8-12x-catheter.dcm", 33),
        ("tensorflow-io/US-PAL-8-10x-echo.dcm", 76),
        ("tensorflow-io/US-MONO2-8-8x-execho.dcm", 100),
    ):
        stack = stack_of(corpus / name)
        v = stack.to_xarray()
        np.testing.assert_allclose(v["t"], step * np.arange(v.sizes["t"]))
        np.testing.assert_array_equal(v, dcmdask.pixel_array(corpus / name))
