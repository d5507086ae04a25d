"""One line says what an object is: in tables, in answers of commands and of a scan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from made_images import detector, dose, loop, mosaic, nuclear, run_of, vectors
from made_series import AXIAL, SERIES, along, classic
from make_dicom import native, noise, saved
from pydicom.dataset import Dataset
from pydicom.uid import (
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from dcmdask import scan


def referenced(*uids: str) -> list[Dataset]:
    found = []
    for uid in uids:
        instance, series = Dataset(), Dataset()
        instance.ReferencedSOPInstanceUID = "1.2.3.4"
        series.SeriesInstanceUID = uid
        series.ReferencedInstanceSequence = [instance] * 3
        found.append(series)
    return found


def planes(folder: Path) -> None:
    classic(folder, noise(5, 6, 8, dtype="u2"), along(AXIAL, 2.5 * np.arange(5)))


def localizer(folder: Path) -> None:
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    classic(folder, noise(1, 6, 8, dtype="u2"), along(AXIAL, [0]), ImageType=kind)


def times(folder: Path) -> None:
    positions = np.repeat(along(AXIAL, 2.5 * np.arange(3)), 2, axis=0)
    each = {"TemporalPositionIdentifier": [1, 2] * 3, "AcquisitionTime": ["100000", "100002"] * 3}
    classic(folder, noise(6, 6, 8, dtype="u2"), positions, modality="MR", each=each)


def segments(*uids: str, placed: bool = True) -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        folder.mkdir()
        described, groups = [], []
        for number in (1, 2):
            segment, identification, group = Dataset(), Dataset(), Dataset()
            segment.SegmentNumber = identification.ReferencedSegmentNumber = number
            segment.SegmentLabel = f"label {number}"
            group.SegmentIdentificationSequence = [identification]
            if placed:
                plane, orientation = Dataset(), Dataset()
                plane.ImagePositionPatient = [0, 0, 2.5 * number]
                orientation.ImageOrientationPatient = list(AXIAL)
                group.PlanePositionSequence = [plane]
                group.PlaneOrientationSequence = [orientation]
            described.append(segment)
            groups.append(group)
        uids_of = {"SOPClassUID": SegmentationStorage, "SeriesInstanceUID": SERIES}
        sequences = {
            "SegmentSequence": described,
            "PerFrameFunctionalGroupsSequence": groups,
            "ReferencedSeriesSequence": referenced(*uids),
        }
        saved(folder, native(noise(2, 6, 8), Modality="SEG", **uids_of, **sequences))

    return make


def slide(folder: Path) -> None:
    folder.mkdir()
    kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    uids = {"SOPClassUID": VLWholeSlideMicroscopyImageStorage, "SeriesInstanceUID": SERIES}
    saved(folder, native(noise(4, 6, 8, 3), Modality="SM", ImageType=kind, **uids))


def screened(folder: Path) -> None:
    loop(folder, FrameTime=40, SOPClassUID=XRayRadiofluoroscopicImageStorage, Modality="RF")


def views(folder: Path) -> None:
    told = vectors({"detector": 2, "angular_view": 3})
    nuclear(folder, noise(6, 6, 8, dtype="u2"), told)


def slices(folder: Path) -> None:
    place = {"DetectorInformationSequence": [detector()], "SpacingBetweenSlices": 2.5}
    nuclear(folder, noise(3, 6, 8, dtype="u2"), vectors({"z": 3}), **place)


TILES = noise(15, 6, 8, dtype="u2", bits=12).reshape(3, 5, 6, 8)
SAID: dict[str, tuple[Callable[[Path], Any], str]] = {
    "volume": (planes, "volume of 5 planes"),
    "localizer": (localizer, "localizer of 1 plane"),
    "times": (times, "volume of 2 times x 3 planes"),
    "frames": (loop, "4 frames"),
    "dose": (dose, "dose in GY, PHYSICAL, of PLAN, on 4 planes"),
    "relative dose": (
        lambda folder: dose(folder, DoseUnits="RELATIVE", DoseSummationType=None),
        "dose, PHYSICAL, on 4 planes",
    ),
    "mosaic": (lambda folder: run_of(folder, TILES), "mosaic: 3 volumes of 5 slices"),
    "one mosaic": (lambda folder: mosaic(folder, TILES[0]), "mosaic: 1 volume of 5 slices"),
    "whole mosaic": (
        lambda folder: mosaic(folder, TILES[0], private=b""),
        "mosaic: 1 frame as stored",
    ),
    "ultrasound": (lambda folder: loop(folder, FrameTime=40), "ultrasound loop of 4 frames"),
    "X-rays": (screened, "X-ray loop of 4 frames"),
    "other loop": (lambda folder: loop(folder, FrameTime=4, Modality="OT"), "loop of 4 frames"),
    "views": (views, "nuclear medicine: 2 detectors x 3 angular views"),
    "slices": (slices, "nuclear medicine: 3 planes"),
    "slide": (slide, "whole slide, VOLUME: 4 tiles of 6 x 8 pixels"),
    "segments": (segments(placed=False), "segmentation of 2 segments"),
    "segments of a series": (
        segments("1.2.840.9256"),
        "segmentation of 2 segments on 2 planes of series ...9256",
    ),
    "segments of two series": (
        segments("1.2.3", "1.2.4"),
        "segmentation of 2 segments on 2 planes of 2 series",
    ),
    "segments of what is no UID": (
        segments("Doe^John"),
        "segmentation of 2 segments on 2 planes",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_a_line_says_what_an_object_is(tmp_path: Path, name: str) -> None:
    make, said = SAID[name]
    make(tmp_path / "in")
    found = scan(tmp_path / "in")
    (stack,) = found[0].stacks
    assert stack.summary == found.rows()[0]["summary"] == said
    for shown in (stack, found[0], found):
        assert said in shown._repr_html_()


def test_commands_say_it(tmp_path: Path) -> None:
    path = dose(tmp_path)
    said = "dose in GY, PHYSICAL, of PLAN, on 4 planes"
    for source in (path, tmp_path):
        for command in ("scan", "info"):
            assert said in commands.run(command, source).stdout
    assert json.loads(commands.run("info", "--json", path).stdout)["summary"] == said
    answer = json.loads(commands.run("info", "--json", tmp_path).stdout)
    assert answer["series"][0]["stacks"][0]["summary"] == said


def test_of_several_stacks_each_has_its_own(tmp_path: Path) -> None:
    times(tmp_path)
    classic(tmp_path / "other", noise(3, 4, 4, dtype="u2"), along(AXIAL, 2.5 * np.arange(3)))
    found = scan(tmp_path)
    assert found.rows()[0]["summary"] is None
    assert [stack.summary for stack in found[0].stacks] == [
        "volume of 2 times x 3 planes",
        "volume of 3 planes",
    ]


def test_info_of_a_file_with_damaged_functional_groups(tmp_path: Path) -> None:
    group = Dataset()
    group.add_new(0x00209113, "OB", b"\1\2\3\4" * 8)
    path = saved(tmp_path, native(noise(2, 6, 8), PerFrameFunctionalGroupsSequence=[group]))
    done = commands.run("info", path)
    assert not done.returncode and "(2, 6, 8) uint8" in done.stdout


def test_a_reference_keeps_the_uid_alone(tmp_path: Path) -> None:
    segments("1.2.840.9256")(tmp_path / "in")
    (one,) = scan(tmp_path / "in")[0].instances
    assert dict(one.own.values)[0x00081115].value == b"1.2.840.9256"
