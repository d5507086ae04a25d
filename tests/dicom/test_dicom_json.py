"""DICOM JSON becomes the elements that pydicom makes of it."""

import warnings
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from real_files import packaged_files

from dcmdask.dicom.dicom_json import JsonError, encode


def none(tag: int, uri: str) -> bytes | None:
    return None


def elements(data: bytes, implicit: bool = False) -> Dataset:
    return read_dataset(BytesIO(data), implicit, True)


def header(path: Any) -> Dataset | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = dcmread(path, stop_before_pixels=True)
            found.remove_private_tags()
            found.to_json()
        except Exception:
            return None
    return found


def without_character_set(dataset: Dataset, element: DataElement) -> None:
    if element.keyword == "SpecificCharacterSet":
        del dataset[element.tag]


@pytest.mark.parametrize("implicit", [False, True])
def test_elements_are_those_of_pydicom(implicit: bool) -> None:
    compared = 0
    for path in packaged_files():
        if (stored := header(path)) is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = stored.to_json_dict(bulk_data_threshold=10**9)
            try:
                expected = Dataset.from_json(made)
            except Exception:
                continue
            found = elements(encode(made, implicit, none), implicit)
            # That of the file is none of the JSON, nor of an item in it.
            for one in (found, expected):
                one.walk(without_character_set)
            for tag in list(expected.keys()):
                if tag.element == 0:
                    del expected[tag]
            assert found.to_json_dict() == expected.to_json_dict(), path
        compared += 1
    assert compared > 30


def test_values() -> None:
    made = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Phonetic": "ü"}]},
        "00280030": {"vr": "DS", "Value": [0.5, None, "1.50"]},
        "00209165": {"vr": "AT", "Value": ["00180050"]},
        "00189087": {"vr": "FD", "Value": ["NaN", 1]},
        "00281201": {"vr": "OW", "InlineBinary": "AAE="},
        "00080018": {"vr": "UI", "Value": ["1.2.3"]},
        "00280010": {"vr": "US"},
        "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1"]}}, {}]},
        "00280000": {"vr": "UL", "Value": [4]},
    }
    found = elements(encode(made, False, none))
    assert str(found.PatientName) == "A^B==ü"
    assert found.get_item("PixelSpacing").value == b"0.5\\\\1.50 "
    assert found.DimensionIndexPointer == 0x00180050
    assert found[0x00281201].value == b"\0\1"
    assert found.SOPInstanceUID == "1.2.3" and found[0x00280010].value is None
    assert len(found.ReferencedImageSequence) == 2
    assert 0x00280000 not in found
    assert list(map(int, found.keys())) == sorted(map(int, found.keys()))


def test_long_values_of_a_short_vr() -> None:
    made = {"00283006": {"vr": "US", "Value": list(range(40_000))}}
    found = elements(encode(made, False, none))
    assert len(found.get_item(0x00283006).value) == 80_000


def test_bulk_data_is_asked_for_by_the_tag_at_the_top() -> None:
    link = {"vr": "OW", "BulkDataURI": "../bulk/1"}
    made = {"00281201": link, "00283010": {"vr": "SQ", "Value": [{"00283006": link}]}}
    asked = []

    def fetch(tag: int, uri: str) -> bytes | None:
        asked.append((tag, uri))
        return b"abc" if tag == 0x00281201 else None

    found = elements(encode(made, False, fetch))
    assert asked == [(0x00281201, "../bulk/1"), (0x00283010, "../bulk/1")]
    assert found[0x00281201].value == b"abc\0"
    assert 0x00283006 not in found[0x00283010][0]


@pytest.mark.parametrize(
    "made",
    [
        {"0028": {"vr": "US", "Value": [1]}},
        {"zzzzzzzz": {"vr": "US", "Value": [1]}},
        {"00280010": {"Value": [1]}},
        {"00280010": 1},
        {"00280010": {"vr": "XX", "Value": [1]}},
        {"00280010": {"vr": "US", "Value": 1}},
        {"00280010": {"vr": "US", "Value": [70_000]}},
        {"00280010": {"vr": "US", "Value": ["one"]}},
        {"00280010": {"vr": "US", "Value": [None]}},
        {"00280030": {"vr": "DS", "Value": [[1]]}},
        {"00209165": {"vr": "AT", "Value": [1]}},
        {"00281201": {"vr": "OW", "InlineBinary": "?"}},
        {"00281201": {"vr": "OB", "Value": [1]}},
        {"00081140": {"vr": "SQ", "Value": [1]}},
    ],
)
def test_json_that_is_wrong(made: dict[str, Any]) -> None:
    with pytest.raises(JsonError):
        encode(made, False, none)


def test_sequences_are_not_nested_without_end() -> None:
    made: dict[str, Any] = {}
    for _ in range(100):
        made = {"00081140": {"vr": "SQ", "Value": [made]}}
    with pytest.raises(JsonError, match="nested"):
        encode(made, False, none)
