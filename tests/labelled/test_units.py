"""Units of modality values: what the headers say of all frames, or nothing."""

from typing import Any

import pytest
from make_dicom import native, noise
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dcmdask.dicom.description import describe, facts_of
from dcmdask.geometry.axes import TIMES
from dcmdask.labelled.labels import UNITS, units
from dcmdask.sources import files

FRAME = noise(1, 2, 4, dtype="u2")
CT, PT, MR = ({"Modality": modality} for modality in ("CT", "PT", "MR"))
RESCALED = {"RescaleSlope": "2", "RescaleIntercept": "-1024"}
TABLE = {"LUTDescriptor": [2, 0, 8], "ModalityLUTType": "OD", "LUTData": [0, 1]}


def unit(*headers: dict[str, Any], values: str = "modality") -> str | None:
    instances = [describe(files.locate(native(FRAME, **elements))) for elements in headers]
    return units(instances, facts_of(instances), values)


def items(**elements: Any) -> Sequence:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    item["LUTData"].VR = "US"
    return Sequence([item])


@pytest.mark.parametrize(
    ("expected", "elements"),
    [
        ("HU", {**CT, **RESCALED}),
        ("HU", {**CT, "RescaleSlope": "1"}),
        ("HU", {**CT, **RESCALED, "RescaleType": "HU"}),
        ("HU", {**CT, "RescaleType": "HU"}),
        ("HU", {**MR, **RESCALED, "RescaleType": "HU"}),
        (None, CT),
        (None, {**MR, **RESCALED}),
        (None, {**CT, **RESCALED, "RescaleType": "US"}),
        ("Z_EFF", {**CT, **RESCALED, "RescaleType": "Z_EFF"}),
        (None, {**CT, **RESCALED, "RescaleType": "SMITH^JOHN"}),
        ("BQML", {**PT, **RESCALED, "Units": "BQML"}),
        ("BQML", {**PT, **RESCALED, "Units": "BQML", "RescaleType": "US"}),
        ("BQML", {**PT, **RESCALED, "Units": "BQML", "RescaleType": "BQML"}),
        (None, {**PT, **RESCALED, "Units": "BQML", "RescaleType": "HU"}),
        (None, {**PT, **RESCALED, "Units": "SMITH^JOHN"}),
        # A table's entries are in what it says itself, and that is not looked at.
        (None, {**CT, "ModalityLUTSequence": items(**TABLE)}),
        (None, {**CT, **RESCALED, "ModalityLUTSequence": items(**TABLE)}),
        (None, {**CT, "RescaleType": "HU", "ModalityLUTSequence": items(**TABLE)}),
        ("HU", {**CT, **RESCALED, "VOILUTSequence": items(**TABLE)}),
    ],
)
def test_units(expected: str | None, elements: dict[str, Any]) -> None:
    assert unit(elements) == unit(elements, elements) == expected
    assert unit(elements, values="stored") is None
    assert unit(elements, values="display") is None


def test_frames_that_differ_have_no_unit() -> None:
    ct, typed = {**CT, **RESCALED}, {**CT, **RESCALED, "RescaleType": "HU"}
    assert unit(ct, typed) == "HU"
    assert unit(ct, CT) is None
    assert unit(typed, {**ct, "RescaleType": "US"}) is None
    assert unit(typed, {**MR, **RESCALED}) is None
    pet = {**PT, **RESCALED, "Units": "BQML"}
    assert unit(pet, {**pet, "RescaleType": "US"}) == "BQML"
    assert unit(pet, {**pet, "Units": "CNTS"}) is None
    assert unit(pet, {**PT, **RESCALED}) is None


def test_all_times_have_a_unit() -> None:
    assert {UNITS[name] for name in TIMES if name != "temporal_position"} == {"ms"}
