"""What a scan keeps of an instance: equal to what pydicom gives, or an error of ours."""

from __future__ import annotations

import pickle
import random
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts_oracle import facts_by_pydicom, indices_by_pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_dicom import (
    NATIVE,
    described,
    encapsulated,
    encoded,
    native,
    noise,
    part10,
    patched,
    pixel_element,
    saved,
)
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from real_files import corpus_files, packaged_file, packaged_files

from dcmdask.dicom import header, instance
from dcmdask.dicom.description import FACTS, Described, describe, facts_of
from dcmdask.dicom.groups import functional_groups
from dcmdask.errors import (
    DcmdaskError,
    HeaderError,
    MissingElementError,
    NoPixelDataError,
    NotDicomError,
    PixelDataError,
    UnsupportedSyntaxError,
)
from dcmdask.pixels.frame_array import open_frames
from dcmdask.sources import files

NAN, INF = float("nan"), float("inf")
SYNTAXES = [*NATIVE, RLELossless]
PARTS = 8


def described_bytes(data: bytes, syntax: str | None = None) -> Described:
    return describe(files.locate(data), {"transfer_syntax_uid": syntax})


def made(
    syntax: UID = ExplicitVRLittleEndian,
    frames: int = 1,
    sequences: dict[str, list[Dataset]] | None = None,
    *,
    undefined: bool = False,
    **elements: Any,
) -> bytes:
    """A file of small frames with these elements and top-level sequences."""
    pixels = noise(frames, 2, 4)
    dataset = described(pixels, **{"Modality": "MR", **elements})
    for keyword, items in (sequences or {}).items():
        dataset.add_new(keyword, "SQ", Sequence(items))
        dataset[keyword].is_undefined_length = undefined
    if syntax == RLELossless:
        whole = encapsulated(pixels, syntax)
        element = whole[whole.index(b"\xe0\x7f\x10\x00") :]
    else:
        element = pixel_element(pixels.tobytes(), syntax)
    return part10(dataset, syntax, element)


def with_first_element(data: bytes, element: bytes) -> bytes:
    """`data` in explicit VR little endian with an element in front of the data set's."""
    (length,) = struct.unpack_from("<L", data, 140)
    return data[: 144 + length] + element + data[144 + length :]


def group(*, undefined: bool = False, **contents: Any) -> Dataset:
    """An item; of contents that are data sets, a sequence of one item."""
    dataset = Dataset()
    dataset.is_undefined_length_sequence_item = undefined
    for keyword, content in contents.items():
        if isinstance(content, Dataset):
            dataset.add_new(keyword, "SQ", Sequence([content]))
            dataset[keyword].is_undefined_length = undefined
        else:
            setattr(dataset, keyword, content)
    return dataset


def assert_same_facts(found: Described, dataset: Dataset) -> None:
    expected = facts_by_pydicom(dataset)
    assert len(found) == len(expected)
    for name in FACTS.names or ():
        if name == "direction":  # sums of products, in one order or another
            np.testing.assert_allclose(found.facts[name], expected[name], atol=1e-12)
        else:
            np.testing.assert_array_equal(found.facts[name], expected[name], name, strict=True)
    names, values = indices_by_pydicom(dataset)
    assert found.dimensions == tuple(names)
    indices = np.frombuffer(found.index_values, "u4").reshape(values.shape)
    np.testing.assert_array_equal(indices, values)


def assert_same(found: Described, dataset: Dataset) -> None:
    assert_same_facts(found, dataset)
    text = {
        "sop_class_uid": "SOPClassUID",
        "sop_instance_uid": "SOPInstanceUID",
        "study_uid": "StudyInstanceUID",
        "series_uid": "SeriesInstanceUID",
        "frame_of_reference_uid": "FrameOfReferenceUID",
        "modality": "Modality",
        "units": "DoseUnits" if "DoseUnits" in dataset else "Units",
        "photometric_interpretation": "PhotometricInterpretation",
    }
    for attribute, keyword in text.items():
        assert getattr(found, attribute) == str(dataset.get(keyword) or "").strip("\0 "), keyword
    kind = dataset.get("ImageType") or ()
    kind = [kind] if isinstance(kind, str) else kind
    assert found.image_type == tuple(word.strip() for word in kind)
    whole = {"rows": "Rows", "columns": "Columns", "samples": "SamplesPerPixel"}
    whole |= {"bits_allocated": "BitsAllocated"}
    for attribute, keyword in whole.items():
        assert getattr(found, attribute) == dataset[keyword].value
    assert found.bits_stored == dataset.get("BitsStored", dataset.BitsAllocated)
    assert found.signed == bool(dataset.get("PixelRepresentation"))
    luts = ("ModalityLUTSequence", "VOILUTSequence")
    assert found.has_lut == any(dataset.get(keyword) for keyword in luts)
    assert found.has_modality_lut == bool(dataset.get("ModalityLUTSequence"))
    groups = [
        *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1],
        *(dataset.get("PerFrameFunctionalGroupsSequence") or [])[: len(found)],
    ]
    windows = [macro for one in groups for macro in (one.get("FrameVOILUTSequence") or [])[:1]]
    assert found.has_frame_lut == any(macro.get("VOILUTSequence") for macro in windows)
    assert found.lossy == (dataset.get("LossyImageCompression") == "01")
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        padding = (int(padding) + (1 << 15 if found.signed else 0)) % (1 << 16)
        padding -= 1 << 15 if found.signed else 0
    assert found.padding == padding


@contextmanager
def quiet() -> Any:
    """Real files break rules; what pydicom warns of is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compare_file(path: Path) -> bool:
    """Hold one real file to pydicom; or its error to that of opening it."""
    with quiet():
        try:
            found = describe(files.locate(path))
        except DcmdaskError as error:
            with pytest.raises(type(error)):
                open_frames(path)
            return False
        dataset = dcmread(path, force=True, stop_before_pixels=True)
        assert found.source == files.locate(path)
        if "TransferSyntaxUID" in dataset.file_meta:
            assert found.transfer_syntax == dataset.file_meta.TransferSyntaxUID
        try:
            assert_same(found, dataset)
        except AssertionError as error:
            raise AssertionError(f"{path}: {error}") from error
    return True


# Half of the files each time, and all of them before a release.
@pytest.mark.parametrize(
    "part", [pytest.param(n, marks=[pytest.mark.rare] * (n % 2)) for n in range(PARTS)]
)
def test_equals_pydicom_on_the_corpus(
    part: int, corpus: Path, compared: Callable[[Path], None]
) -> None:
    count = 0
    for path in corpus_files()[part::PARTS]:
        count += compare_file(path)
        compared(path)
    assert count > 60


def test_equals_pydicom_on_its_own_files() -> None:
    assert sum(map(compare_file, packaged_files())) > 40


CLASSIC: dict[str, Any] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"],
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.4",
    "FrameOfReferenceUID": "1.2.5",
    "ImagePositionPatient": ["-120.5", "33.125", "1e-3"],
    "ImageOrientationPatient": ["1", "0", "0", "0", "0.8", "-0.6"],
    "PixelSpacing": ["0.75", "0.5"],
    "SliceThickness": "3",
    "InstanceNumber": "17",
    "AcquisitionNumber": "2",
    "TemporalPositionIdentifier": "4",
    "TriggerTime": "12.5",
    "AcquisitionDate": "20200229",
    "AcquisitionTime": "235959.25",
    "ContentDate": "20200301",
    "ContentTime": "000001",
    "FrameReferenceTime": "1500.5",
    "EchoTime": "30.1",
    "EchoNumbers": "2",
    "DiffusionBValue": 1000.0,
    "DiffusionGradientOrientation": [0.0, 0.6, 0.8],
    "RescaleSlope": "2.5",
    "RescaleIntercept": "-1024",
    "RescaleType": "HU",
    "WindowCenter": ["40", "50"],
    "WindowWidth": ["400", "500"],
    "VOILUTFunction": "SIGMOID",
    "RepetitionTime": "2000",
    "FlipAngle": "77",
    "InversionTime": "900",
    "MagneticFieldStrength": "1.5",
    "PositionerPrimaryAngle": "-30.5",
    "PositionerSecondaryAngle": "12",
    "SpacingBetweenSlices": "2.5",
}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_classic(syntax: UID) -> None:
    data = made(syntax, PixelPaddingValue=7, Units="BQML", **CLASSIC)
    found = described_bytes(data)
    assert_same(found, dcmread(BytesIO(data)))
    assert found.transfer_syntax == syntax
    assert (found.padding, found.pixel_keyword, found.units) == (7, "PixelData", "BQML")
    (row,) = found.facts
    assert row["position"].tolist() == [-120.5, 33.125, 0.001]
    assert row["component"] == b"PHASE"
    assert row["acquisition_time"] == 1_583_020_799_250
    assert row["content_time"] == 1_583_020_801_000
    assert (row["window_center"], row["window_width"]) == (40, 400)
    assert (row["b_value"], row["direction"].tolist()) == (1000, [0, 0.6, 0.8])
    of_groups = {"position_index", "segment"}
    assert all(np.all(row[name] == row[name]) for name in {*FACTS.names} - of_groups)


def test_what_is_absent_is_not_a_number() -> None:
    (row,) = described_bytes(made()).facts
    for name in FACTS.names or ():
        if FACTS[name].kind == "S":
            assert row[name] == b""
        else:
            assert np.isnan(row[name]).all(), name


def test_facts_are_immutable_and_small() -> None:
    found = described_bytes(made(**CLASSIC))
    with pytest.raises(ValueError, match="read-only"):
        found.facts["slope"] = 1
    again = pickle.loads(pickle.dumps(found))
    assert len(pickle.dumps(found)) < 4096
    assert again.facts.dtype == FACTS
    assert again.facts.tobytes() == found.facts.tobytes()
    assert (again.source, again.image_type) == (found.source, found.image_type)


def test_no_syntax_in_the_file() -> None:
    data = native(noise(1, 2, 4), ImplicitVRLittleEndian, preamble=False, meta=False, Modality="CT")
    for syntax in (None, ImplicitVRLittleEndian):
        found = described_bytes(data, syntax)
        assert (found.modality, found.transfer_syntax) == ("CT", ImplicitVRLittleEndian)


# Keyword: the fact that is made of it, and values that are there and cannot be read.
UNREADABLE: dict[str, tuple[str, list[Any]]] = {
    "ImagePositionPatient": (
        "position",
        [["1", "2"], ["1", "2", "x"], ["1", "2", "3", "4"], ["1", "", "3"], "1,2,3"],
    ),
    "ImageOrientationPatient": ("orientation", [["1", "0", "0"], ["1"] * 7]),
    "PixelSpacing": ("spacing", [["0.5"], ["inf", "1"], ["nan", "1"], ["1_0", "1"], "0,5,0,75"]),
    "SliceThickness": ("thickness", ["five", "1e999", "1,000.5", "1 5"]),
    "InstanceNumber": ("instance_number", ["1.5", "--2", "1,5"]),
    "AcquisitionTime": ("acquisition_time", ["24", "1260", "12:61", "noon", "1"]),
    "AcquisitionDateTime": (
        "acquisition_time",
        ["20201301", "2020010125", "20200101120000.1234567"],
    ),
    "RescaleSlope": ("slope", ["1.000,5", "x" * 2000]),
    "RescaleIntercept": ("intercept", ["-1024 HU"]),
    "WindowCenter": ("window_center", ["forty"]),
}
ABSENT: dict[str, list[Any]] = {
    "ImagePositionPatient": ["", ["", "", ""]],
    "PixelSpacing": [" "],
    "AcquisitionTime": ["", " "],
    "AcquisitionDateTime": ["2020", "202001", "20200101"],  # of a day, and no moment
    "RescaleSlope": ["", "  "],
}


def with_text(keyword: str, value: Any) -> bytes:
    pixels = noise(1, 2, 4)
    dataset = described(pixels)
    with quiet():
        dataset.add_new(keyword, "LO", value)
        return part10(dataset, ImplicitVRLittleEndian, pixel_element(pixels.tobytes(), NATIVE[1]))


@pytest.mark.parametrize("keyword", UNREADABLE)
def test_what_cannot_be_read_is_infinite(keyword: str) -> None:
    fact, values = UNREADABLE[keyword]
    for value in values:
        (row,) = described_bytes(with_text(keyword, value)).facts
        for name in FACTS.names or ():
            if FACTS[name].base.kind == "f":
                mark = np.isposinf if name == fact else np.isnan
                assert mark(row[name]).all(), (value, name, row[name])


@pytest.mark.parametrize("keyword", ABSENT)
def test_what_is_empty_is_absent(keyword: str) -> None:
    for value in ABSENT[keyword]:
        (row,) = described_bytes(with_text(keyword, value)).facts
        for name in FACTS.names or ():
            if FACTS[name].base.kind == "f":
                assert np.isnan(row[name]).all(), (value, name, row[name])


@pytest.mark.parametrize(
    ("keyword", "value", "fact", "expected"),
    [
        ("RescaleIntercept", "-1024,0", "intercept", -1024),  # fo-dicom issues 1915 and 1296
        ("WindowCenter", "40,0", "window_center", 40),  # fo-dicom issue 1891
        ("PixelSpacing", ["0,5", "0,75"], "spacing", [0.5, 0.75]),  # dcmjs issue 287
        ("SliceThickness", " 2,5 ", "thickness", 2.5),  # pydicom issue 173
        ("ImagePositionPatient", ["-1,5", "2", "1,25e1"], "position", [-1.5, 2, 12.5]),
    ],
)
def test_a_decimal_comma_is_read(keyword: str, value: Any, fact: str, expected: Any) -> None:
    (row,) = described_bytes(with_text(keyword, value)).facts
    np.testing.assert_array_equal(row[fact], expected)


def test_the_next_element_is_taken_where_one_cannot_be_read() -> None:
    elements = {"AcquisitionDate": "19700102", "AcquisitionTime": "000000"}
    pixels = noise(1, 2, 4)
    dataset = described(pixels, **elements)
    dataset.add_new("AcquisitionDateTime", "LO", "yesterday")
    data = part10(dataset, ImplicitVRLittleEndian, pixel_element(pixels.tobytes(), NATIVE[1]))
    assert described_bytes(data).facts["acquisition_time"].tolist() == [86_400_000]


def test_another_vr_than_the_standards() -> None:
    pixels = noise(1, 2, 4)
    dataset = described(pixels, Modality="MR")
    dataset.add_new("DiffusionBValue", "DS", "700")
    dataset.add_new("EchoTime", "FD", 30.25)
    dataset.add_new("InstanceNumber", "US", 9)
    dataset.add_new("PixelSpacing", "LO", ["2", "3"])
    data = part10(dataset, ExplicitVRLittleEndian, pixel_element(pixels.tobytes(), NATIVE[0]))
    unknown = struct.pack("<HH2sHL3d", 0x0018, 0x9089, b"UN", 0, 24, 0, 0, 1)
    data = with_first_element(data, unknown)
    (row,) = described_bytes(data).facts
    assert (row["b_value"], row["echo_time"], row["instance_number"]) == (700, 30.25, 9)
    assert (row["spacing"].tolist(), row["direction"].tolist()) == ([2, 3], [0, 0, 1])


@pytest.mark.parametrize(
    ("expected", "elements"),
    [
        (86_400_500, {"AcquisitionDateTime": "19700102000000.5"}),
        (-3_600_000, {"AcquisitionDateTime": "19700101000000+0100"}),
        (5_400_000, {"AcquisitionDateTime": "19700101000000.000-0130"}),
        (3_600_000, {"AcquisitionDateTime": "19700101000000", "TimezoneOffsetFromUTC": "-0100"}),
        (0, {"AcquisitionDateTime": "197001010000+0000", "TimezoneOffsetFromUTC": "-0100"}),
        (7_200_000, {"AcquisitionDate": "19700101", "AcquisitionTime": "01",
                     "TimezoneOffsetFromUTC": "-0100"}),
        (3_723_004.005, {"AcquisitionTime": "010203.004005"}),
        (3_723_000, {"AcquisitionTime": "01:02:03"}),
        (86_400_000, {"AcquisitionDate": "1970.01.02", "AcquisitionTime": "000000"}),
        (86_399_999.999, {"AcquisitionDate": "19700101", "AcquisitionTime": "235959.999999"}),
        (60_000, {"AcquisitionTime": "000060"}),
        (NAN, {"AcquisitionDate": "20200101"}),
        # Of no day: neither the zone nor the dates of other events say which.
        (60_000, {"AcquisitionTime": "000100", "TimezoneOffsetFromUTC": "+0100"}),
        (60_000, {"AcquisitionTime": "000100", "ContentDate": "20200101", "SeriesDate": "20200101",
                  "StudyDate": "20200101"}),
        (1000, {"AcquisitionDateTime": "bad", "AcquisitionTime": "000001"}),
    ],
)  # fmt: skip
def test_acquisition_time(expected: float, elements: dict[str, str]) -> None:
    with quiet():
        data = made(ImplicitVRLittleEndian, **elements)
    np.testing.assert_equal(described_bytes(data).facts["acquisition_time"][0], expected)


def at(*times: str, **elements: str) -> list[Described]:
    return [described_bytes(made(AcquisitionTime=time, **elements)) for time in times]


def times_of(instances: list[Described]) -> list[float]:
    """Seconds."""
    return (facts_of(instances)["acquisition_time"] / 1000).tolist()


def test_times_of_unknown_days_go_on_behind_midnight() -> None:
    day = 86_400
    for order in (1, -1):
        found = times_of(at("235950", "235955", "000000", "000005")[::order])[::order]
        assert found == [day - 10, day - 5, day, day + 5]
    # Within a day they are of that day.
    assert times_of(at("000005", "115950")) == [5, day / 2 - 10]
    assert times_of(at("235950")) == [day - 10]
    assert times_of(at("030000", "210001")) == [day + 3 * 3600, 21 * 3600 + 1]
    # The instances stay as they are.
    one, other = at("235950", "000005")
    assert times_of([one, other]) == times_of([one, other]) == [day - 10, day + 5]


def test_times_of_which_nobody_knows_the_day() -> None:
    assert np.isnan(times_of(at("030001", "210000"))).all()
    assert np.isnan(times_of(at("000000", "080000", "160000"))).all()
    dated = at("000005", AcquisitionDate="20200102")
    found = times_of([*at("235950"), *dated])
    assert np.isnan(found[0])
    assert found[1] == dated[0].facts["acquisition_time"][0] / 1000
    # Of two days, they are that far apart.
    early, late = times_of([*at("080000", AcquisitionDate="20200101"),
                            *at("220000", AcquisitionDate="20200102")])  # fmt: skip
    assert late - early == 38 * 3600
    # A time that is missing changes nothing for the others.
    found = times_of([*at("235950", "000005"), described_bytes(made())])
    np.testing.assert_equal(found, [86_390, 86_405, NAN])


def test_facts_of_many_instances() -> None:
    some = at("000005", "000006", AcquisitionDate="20200101")
    several = described_bytes(enhanced())
    facts = facts_of([*some, several])
    assert facts.dtype == FACTS
    assert facts.tobytes()[: 2 * FACTS.itemsize] == b"".join(one.facts.tobytes() for one in some)
    assert facts_of(iter([several])).tobytes() == several.facts.tobytes()
    facts["position"] = 0  # what is joined may be written to, and nothing else changes
    assert np.isnan(some[0].facts["position"]).all()


@pytest.mark.parametrize(
    ("expected", "elements"),
    [
        ("MAGNITUDE", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}),
        ("REAL", {"ImageType": ["ORIGINAL", "PRIMARY", "REAL"]}),
        ("IMAGINARY", {"ImageType": ["DERIVED", "PRIMARY", "I"]}),
        ("MAGNITUDE", {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "M", "SE"]}),
        ("MAGNITUDE", {"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]}),
        ("MAGNITUDE", {"ImageType": ["ORIGINAL", "PRIMARY", "M_SE"]}),
        ("PHASE", {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]}),
        ("PHASE", {"ImageType": ["DERIVED", "PRIMARY", "VELOCITY MAP"]}),
        ("PHASE", {"ImageType": ["DERIVED", "PRIMARY", "PHASE SUBTRACT"]}),
        ("PHASE", {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE CONTRAST M", "P", "PCA"]}),
        ("REAL", {"ImageType": ["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"]}),
        ("IMAGINARY", {"ImageType": ["ORIGINAL", "PRIMARY", "I_FFE"]}),
        # The third value comes first, and a fourth one that is more than a letter says nothing.
        ("REAL", {"ImageType": ["ORIGINAL", "PRIMARY", "R", "M"]}),
        ("", {"ImageType": ["ORIGINAL", "PRIMARY", "T1 MAP", "PHASE"]}),
        ("", {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "MEAN"]}),
        ("", {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "ND", "M"]}),
        ("", {"ImageType": ["ORIGINAL", "PRIMARY", "M_TSE"]}),
        ("", {"ImageType": ["ORIGINAL", "PRIMARY"]}),
        ("PHASE", {"ImageType": ["A", "B", "M"], "ComplexImageComponent": "PHASE"}),
        ("", {"ImageType": ["A", "B", "M"], "ComplexImageComponent": "MIXED"}),
        ("", {"ImageType": ["ORIGINAL", "PRIMARY", "M"], "Modality": "CT"}),
    ],
)
def test_component(expected: str, elements: dict[str, Any]) -> None:
    assert described_bytes(made(**elements)).facts["component"][0].decode() == expected


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("block", [0x10, 0x11, 0xE0])
def test_private_diffusion(syntax: UID, block: int) -> None:
    def diffusion(group: int, creator: str, *elements: tuple[int, str, Any], **more: Any) -> Any:
        lent, again = more.pop("lent", None), more.pop("again", None)
        pixels = noise(1, 2, 4)
        dataset = described(pixels, **{"Modality": "MR", **more})
        for other in range(0x10, block):
            dataset.add_new(group << 16 | other, "LO", "ANOTHER ONE")
            for element, _, _ in elements:
                dataset.add_new(group << 16 | other << 8 | element, "LO", "not this")
        dataset.add_new(group << 16 | block, "LO", creator)
        for element, vr, value in elements:
            dataset.add_new((lent or group) << 16 | block << 8 | element, vr, value)
        if again:
            dataset.add_new(group << 16 | again, "LO", creator)
        data = part10(dataset, syntax, pixel_element(pixels.tobytes(), syntax))
        (row,) = described_bytes(data).facts
        return row["b_value"], row["direction"].tolist()

    none = [NAN] * 3
    along, b_value = [0.0, 0.6, 0.8], (0x0C, "IS", "1000")
    cases = [
        (diffusion(0x19, "SIEMENS MR HEADER", b_value, (0x0E, "FD", along)), 1000, along),
        (diffusion(0x19, "SIEMENS MR HEADER", (0x0C, "IS", "0")), 0, none),
        (diffusion(0x43, "GEMS_PARM_01", (0x39, "IS", [10**9 + 750, 8, 0, 0])), 750, none),
        (diffusion(0x43, "GEMS_PARM_01", (0x39, "IS", [500, 8, 0, 0])), 500, none),
        (diffusion(0x2001, "Philips Imaging DD 001", (0x03, "FL", 800.0)), 800, none),
        (diffusion(0x65, "Image Private Header", (0x09, "FD", 900.0)), 900, none),
        (diffusion(0x19, "SIEMENS MEDCOM", b_value), NAN, none),
        (diffusion(0x21, "SIEMENS MR HEADER", b_value), NAN, none),
        (diffusion(0x43, "SIEMENS MR HEADER", b_value, lent=0x19), NAN, none),
        (diffusion(0x19, "SIEMENS MR HEADER", b_value, Modality="CT"), NAN, none),
        (diffusion(0x19, "SIEMENS MR HEADER", b_value, DiffusionBValue=5.0), 5, none),
        # PS3.5 7.8.1: a creator may reserve several blocks.
        (diffusion(0x19, "SIEMENS MR HEADER", b_value, again=block + 1), 1000, none),
        (diffusion(0x19, "SIEMENS MR HEADER", (0x0C, "LO", "1000.0")), 1000, none),
        # There, and not readable.
        (diffusion(0x19, "SIEMENS MR HEADER", (0x0C, "LO", "abc")), INF, none),
        (diffusion(0x43, "GEMS_PARM_01", (0x39, "LO", ["abc", "8"])), INF, none),
        (diffusion(0x43, "GEMS_PARM_01", (0x39, "IS", [-5, 8, 0, 0])), INF, none),
        (diffusion(0x65, "Image Private Header", (0x37, "FD", [0.6, 0.8])), NAN, [INF] * 3),
    ]  # fmt: skip
    for found, expected, direction in cases:
        np.testing.assert_equal(found, (expected, direction))
    if not syntax.is_implicit_VR and syntax.is_little_endian:
        # Elements that went through a system that did not know them.
        raw = struct.pack("<3d", *along)
        found = diffusion(0x19, "SIEMENS MR HEADER", (0x0C, "UN", b"90"), (0x0E, "UN", raw))
        assert found == (90, along)
        assert diffusion(0x43, "GEMS_PARM_01", (0x39, "UN", b"500\\8\\0\\0 "))[0] == 500


# Macro by macro, what may be in it; `twice` has another value for the shared one.
MACROS: dict[str, dict[str, tuple[Any, Any]]] = {
    "PlanePositionSequence": {"ImagePositionPatient": (["0", "0", "1.5"], ["0", "0", "-2"])},
    "PlaneOrientationSequence": {
        "ImageOrientationPatient": (["1", "0", "0", "0", "1", "0"], ["0", "1", "0", "0", "0", "-1"])
    },
    "PixelMeasuresSequence": {
        "PixelSpacing": (["0.5", "0.25"], ["1", "1"]),
        "SliceThickness": ("3", "4.5"),
    },
    "FrameContentSequence": {
        "FrameAcquisitionNumber": (3, 4),
        "StackID": ("1", "left"),
        "InStackPositionNumber": (7, 8),
        "TemporalPositionIndex": (5, 6),
        "DimensionIndexValues": ([1, 11, 21], [2, 12, 22]),
        "FrameAcquisitionDateTime": ("20200101120000.5", "20200101130000+0100"),
        "FrameReferenceDateTime": ("20200101120001", "20200101120002.25"),
    },
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": (12.5, 0.0)},
    "TemporalPositionSequence": {"TemporalPositionTimeOffset": (1.25, 0.5)},
    "MREchoSequence": {"EffectiveEchoTime": (30.0, 60.125)},
    "MRTimingAndRelatedParametersSequence": {
        "RepetitionTime": ("2000", "35.5"),
        "FlipAngle": ("90", "8"),
    },
    "MRModifierSequence": {"InversionTimes": (900.0, [30.5, 1200.0])},
    "MRDiffusionSequence": {"DiffusionBValue": (0.0, 1000.0)},
    "MRImageFrameTypeSequence": {
        "FrameType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "T1", "NONE"]),
        "ComplexImageComponent": ("PHASE", "REAL"),
    },
    "PixelValueTransformationSequence": {
        "RescaleSlope": ("1.5", "2"),
        "RescaleIntercept": ("0", "-1000"),
        "RescaleType": ("HU", "US"),
    },
    "FrameVOILUTSequence": {
        "WindowCenter": (["40", "1"], "50"),
        "WindowWidth": ("400", "350"),
        "VOILUTFunction": ("SIGMOID", "LINEAR"),
    },
    "UnassignedPerFrameConvertedAttributesSequence": {
        "TriggerTime": ("33.5", "44"),
        "AcquisitionTime": ("101112", "101113.5"),
        "InstanceNumber": ("8", "9"),
        "EchoNumbers": ("1", "2"),
    },
}
LEAVES = [(macro, leaf) for macro, leaves in MACROS.items() for leaf in leaves]
CHOICES = st.dictionaries(st.sampled_from(LEAVES), st.booleans(), max_size=14)


def groups(choices: dict[tuple[str, str], bool], undefined: bool) -> Dataset:
    contents: dict[str, dict[str, Any]] = {}
    for (macro, leaf), second in choices.items():
        contents.setdefault(macro, {})[leaf] = MACROS[macro][leaf][second]
    return group(
        undefined=undefined,
        **{macro: group(undefined=undefined, **leaves) for macro, leaves in contents.items()},
    )


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(
    frames=st.lists(CHOICES, min_size=1, max_size=4),
    shared=CHOICES,
    top=st.dictionaries(st.sampled_from(sorted(CLASSIC)), st.none(), max_size=8),
    pointers=st.permutations([0x00209056, 0x00200032, 0x00209128]),
    surplus=st.integers(-1, 1),
    undefined=st.booleans(),
    syntax=st.sampled_from(NATIVE),
)
def test_functional_groups_are_those_of_pydicom(
    frames: list[dict[tuple[str, str], bool]],
    shared: dict[tuple[str, str], bool],
    top: dict[str, None],
    pointers: list[int],
    surplus: int,
    undefined: bool,
    syntax: UID,
) -> None:
    data = made(
        syntax,
        max(1, len(frames) + surplus),
        {
            "SharedFunctionalGroupsSequence": [groups(shared, undefined)],
            "PerFrameFunctionalGroupsSequence": [groups(each, undefined) for each in frames],
            "DimensionIndexSequence": [group(DimensionIndexPointer=tag) for tag in pointers],
        },
        undefined=undefined,
        **{keyword: CLASSIC[keyword] for keyword in top},
    )
    assert_same(described_bytes(data), dcmread(BytesIO(data)))


def enhanced(
    syntax: UID = ExplicitVRLittleEndian, *, undefined: bool = False, **elements: Any
) -> bytes:
    """Three frames with every macro, two of them with the same one."""
    shared = groups({LEAVES[0]: True, LEAVES[2]: True}, undefined)
    return made(
        syntax,
        3,
        {
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": [
                groups(dict.fromkeys(LEAVES, second), undefined) for second in (False, False, True)
            ],
            "DimensionIndexSequence": [
                group(DimensionIndexPointer=tag) for tag in (0x00209056, 0x00209057, 0x00209128)
            ],
        },
        undefined=undefined,
        **elements,
    )


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_enhanced(syntax: UID, undefined: bool) -> None:
    data = enhanced(syntax, undefined=undefined, ImageType=["A", "B", "I"])
    found = described_bytes(data)
    assert_same(found, dcmread(BytesIO(data)))
    assert found.facts["position"][:, 2].tolist() == [1.5, 1.5, -2]
    assert found.facts["component"].tolist() == [b"PHASE", b"PHASE", b"REAL"]
    assert found.facts["trigger_time"].tolist() == [12.5, 12.5, 0]
    assert found.facts["acquisition_time"][2] - found.facts["acquisition_time"][0] == -500


def test_legacy_converted() -> None:
    shared = group(
        UnassignedSharedConvertedAttributesSequence=group(
            AcquisitionDate="19700102", EchoTime="12", ComplexImageComponent="MAGNITUDE"
        )
    )
    frames = [
        group(
            PlanePositionSequence=group(ImagePositionPatient=["0", "0", str(i)]),
            ConversionSourceAttributesSequence=group(
                ReferencedSOPInstanceUID=f"1.2.{i}", InstanceNumber="99"
            ),
            UnassignedPerFrameConvertedAttributesSequence=group(
                TriggerTime=str(10 * i),
                AcquisitionTime=f"00000{i}",
                InstanceNumber=str(i + 1),
                DiffusionBValue=500.0 * i,
                ImagePositionPatient=["9", "9", "9"],
            ),
        )
        for i in range(3)
    ]
    data = made(
        frames=3,
        sequences={
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
        },
        TriggerTime="5",
    )
    found = described_bytes(data)
    assert_same(found, dcmread(BytesIO(data)))
    assert found.facts["trigger_time"].tolist() == [0, 10, 20]
    assert found.facts["acquisition_time"].tolist() == [86_400_000, 86_401_000, 86_402_000]
    assert found.facts["instance_number"].tolist() == [1, 2, 3]
    assert found.facts["b_value"].tolist() == [0, 500, 1000]
    assert found.facts["echo_time"].tolist() == [12] * 3
    assert found.facts["position"][:, 2].tolist() == [0, 1, 2]


@pytest.mark.parametrize("undefined", [False, True])
def test_only_the_macro_itself_counts(undefined: bool) -> None:
    def item(**contents: Any) -> Dataset:
        return group(undefined=undefined, **contents)

    lookalike = item(
        ImagePositionPatient=["9", "9", "9"],
        PlanePositionSequence=item(ImagePositionPatient=["8", "8", "8"]),
        DiffusionGradientOrientation=[9.0, 9.0, 9.0],
        RescaleSlope="9",
    )
    one = item(
        ImagePositionPatient=["7", "7", "7"],
        ReferencedImageSequence=lookalike,
        DerivationImageSequence=item(SourceImageSequence=lookalike),
        MRDiffusionSequence=item(DiffusionGradientOrientation=[7.0, 7.0, 7.0]),
        PlanePositionSequence=item(ReferencedImageSequence=lookalike),
    )
    two = item(PlanePositionSequence=item(ImagePositionPatient=["1", "2", "3"]))
    # Of several items only the first counts.
    second = item(ImagePositionPatient=["6", "6", "6"])
    two.PlanePositionSequence.append(second)
    data = made(
        frames=2,
        sequences={
            "ReferencedImageSequence": [lookalike],
            "SharedFunctionalGroupsSequence": [item(), lookalike],
            "PerFrameFunctionalGroupsSequence": [one, two],
        },
        undefined=undefined,
    )
    facts = described_bytes(data).facts
    np.testing.assert_equal(facts["position"].tolist(), [[NAN] * 3, [1, 2, 3]])
    assert np.isnan(facts["direction"]).all()
    assert np.isnan(facts["slope"]).all()


def test_a_position_at_the_top_is_not_that_of_many_frames() -> None:
    # As of an RT Dose, whose other frames are elsewhere.
    data = made(frames=3, **CLASSIC)
    facts = described_bytes(data).facts
    assert np.isnan(facts["position"]).all()
    assert facts["orientation"].tolist() == [[1, 0, 0, 0, 0.8, -0.6]] * 3


@pytest.mark.parametrize(
    ("dimensions", "names"),
    [
        ([(0x00209056, ""), (0x00200032, ""), (0x00209128, "")], ("stack", "z", "t")),
        ([(0x00189087, "b"), (0x00189089, ""), (0x00189082, "")],
         ("diffusion", "diffusion", "echo")),
        ([(0x00209057, ""), (0x20051429, "Label Type"), (0x20051430, "")],
         ("z", "label_type", "dimension_2")),
        ([(0x20051429, "T"), (0x20051430, "x"), (0x20051431, "...")],
         ("dimension_0", "dimension_1", "dimension_2")),
        ([(0x00209056, "")], ()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_dimension_indices(
    dimensions: list[tuple[int, str]], names: tuple[str, ...], syntax: UID
) -> None:
    """Of known pointers, of labels, and of neither; values have to be as many."""
    frame = groups({("FrameContentSequence", "DimensionIndexValues"): False}, False)
    items = [
        group(DimensionIndexPointer=tag, DimensionDescriptionLabel=label)
        for tag, label in dimensions
    ]
    data = made(
        syntax,
        sequences={
            "PerFrameFunctionalGroupsSequence": [frame],
            "DimensionIndexSequence": items,
        },
    )
    found = described_bytes(data)
    assert found.dimensions == names
    assert np.frombuffer(found.index_values, "u4").tolist() == ([1, 11, 21] if names else [])
    assert_same_facts(found, dcmread(BytesIO(data)))


def test_what_only_pydicom_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = enhanced()
    expected = described_bytes(data).facts.tobytes()
    # Elements of group 0001 are no standard; the walk refuses them.
    strange = struct.pack("<HH2sH", 1, 1, b"LO", 2) + b"no"
    asked: list[set[int]] = []
    really = functional_groups.read_whole_header

    def reading(source: Any, syntax: Any, tags: Any = None) -> Dataset:
        found = really(source, syntax, tags)
        asked.append(set(map(int, found.keys())))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(functional_groups, "read_whole_header", reading)
        assert described_bytes(with_first_element(data, strange)).facts.tobytes() == expected
    # None but the groups are read into memory.
    (tags,) = asked
    assert 0x52009230 in tags and tags <= {*functional_groups.SEQUENCES, 0x00080005}
    # Macros that went through a system that did not know them. Inside UN everything is
    # implicit VR (PS3.5 6.2.2, note 2): the leaf's length has 4 bytes.
    known = struct.pack("<HH2s", 0x0020, 0x9113, b"SQ")
    assert data.count(known) == 4
    at = data.find(known)
    while at >= 0:
        leaf = at + 20
        (length,) = struct.unpack_from("<H", data, leaf + 6)
        header = data[leaf : leaf + 4] + struct.pack("<L", length)
        data = data[: at + 4] + b"UN" + data[at + 6 : leaf] + header + data[leaf + 8 :]
        at = data.find(known)
    assert described_bytes(data).facts.tobytes() == expected


def test_pydicom_may_come_to_an_end_before_the_pixel_data() -> None:
    strange = struct.pack("<HH2sH", 1, 1, b"LO", 2) + b"no"
    delimiter = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    with quiet():
        refused(with_first_element(made(), strange + delimiter), NoPixelDataError)


def test_groups_that_nobody_reads() -> None:
    data = enhanced()
    macro = struct.pack("<HH2s", 0x0020, 0x9113, b"SQ")
    assert macro in data
    with pytest.raises(HeaderError, match="functional groups are damaged"), quiet():
        described_bytes(data.replace(macro, macro[:4] + b"AQ"))


def test_padding_has_the_sign_of_the_pixels() -> None:
    pixels = noise(1, 2, 4, dtype="i2")
    for syntax in NATIVE:
        for vr, value in (("SS", -2000), ("US", 63536)):
            dataset = described(pixels)
            dataset.add_new("PixelPaddingValue", vr, value)
            element = pixel_element(pixels.tobytes(), syntax)
            assert described_bytes(part10(dataset, syntax, element)).padding == -2000
            dataset.PixelRepresentation = 0
            assert described_bytes(part10(dataset, syntax, element)).padding == 63536
    assert described_bytes(native(pixels)).padding is None


def test_lookup_tables_are_noticed() -> None:
    for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
        for undefined in (False, True):
            there = made(sequences={keyword: [group(LUTExplanation="x")]}, undefined=undefined)
            assert described_bytes(there).has_lut
            assert not described_bytes(made(sequences={keyword: []}, undefined=undefined)).has_lut


LUT = {"LUTDescriptor": [2, 0, 16], "LUTExplanation": "x"}


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_lookup_tables_of_frames_are_noticed(syntax: UID, undefined: bool) -> None:
    def windowed(descriptor: list[int] | None = None, signed: bool = False) -> Dataset:
        item = group(undefined=undefined, WindowCenter="5", WindowWidth="9")
        if descriptor:
            table = Dataset()
            table.is_undefined_length_sequence_item = undefined
            table.add_new("LUTDescriptor", "SS" if signed else "US", descriptor)
            table.add_new("LUTData", "OW", bytes(2 * 4096))
            item.add_new("VOILUTSequence", "SQ", Sequence([table]))
            item["VOILUTSequence"].is_undefined_length = undefined
        return group(undefined=undefined, FrameVOILUTSequence=item)

    plain, tables = windowed(), windowed([4096, 0, 16])
    negative = windowed([4096, -2000, 16], signed=True)
    for shared, frames, expected in (
        (plain, [plain, plain], False),
        (tables, [plain, plain], True),
        (plain, [plain, tables], True),
        (plain, [negative, plain], True),
        # Of an item that no frame has.
        (plain, [plain, plain, tables], False),
        (group(VOILUTSequence=group(**LUT)), [plain], False),
    ):
        data = made(
            syntax,
            2,
            {
                "SharedFunctionalGroupsSequence": [shared],
                "PerFrameFunctionalGroupsSequence": frames,
            },
            undefined=undefined,
        )
        found = described_bytes(data)
        assert (found.has_frame_lut, found.has_lut) == (expected, False)
        assert_same(found, dcmread(BytesIO(data)))
        if syntax == ExplicitVRLittleEndian:
            # What only pydicom reads.
            strange = struct.pack("<HH2sH", 1, 1, b"LO", 2) + b"no"
            with quiet():
                found = described_bytes(with_first_element(data, strange))
            assert found.has_frame_lut == expected


def test_float_pixels() -> None:
    found = described_bytes(native(noise(2, 2, 4, dtype="f4")))
    assert (found.pixel_keyword, found.bits_allocated, found.bits_stored) == (
        "FloatPixelData",
        32,
        32,
    )


def refused(data: bytes, error: type[DcmdaskError], *words: str) -> None:
    """The error has the words, and opening raises one of the same kind."""
    with pytest.raises(error) as caught:
        described_bytes(data)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(error):
        open_frames(data)


def test_number_of_frames() -> None:
    for value in (None, "", "0"):
        with quiet():
            assert len(described_bytes(made(NumberOfFrames=value))) == 1
    whole = made(ImplicitVRLittleEndian, frames=3)
    tag = struct.pack("<HHL", 0x0028, 0x0008, 2)
    for invalid in (b"-1", b"x ", b"1\\"):
        refused(whole.replace(tag + b"3 ", tag + invalid), HeaderError, "(0028,0008)")


def test_options_instead_of_elements() -> None:
    """fo-dicom issue 340: files that lack Bits Stored, or the transfer syntax."""
    lacking = native(noise(3, 2, 4, dtype="u2"), BitsStored=None)
    refused(lacking, MissingElementError, "pass bits_stored")
    options = {"photometric_interpretation": "MONOCHROME1", "bits_stored": 12, "raw": True}
    found = describe(files.locate(lacking), options)
    assert (found.bits_stored, found.photometric_interpretation) == (12, "MONOCHROME1")
    assert found.overrides == tuple(sorted(options.items()))[:2]
    assert dict(pickle.loads(pickle.dumps(found)).overrides) == dict(found.overrides)
    bare = encapsulated(noise(1, 8, 8), RLELossless, preamble=False, meta=False)
    refused(bare, MissingElementError, "transfer_syntax_uid")
    found = describe(files.locate(bare), {"transfer_syntax_uid": RLELossless})
    assert found.overrides == (("transfer_syntax_uid", RLELossless),)
    np.testing.assert_array_equal(open_frames(bare, **dict(found.overrides))[:], noise(1, 8, 8))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_more_frames_than_there_can_be(syntax: UID) -> None:
    data = made(syntax, NumberOfFrames="2000000000")
    tracemalloc.start()
    try:
        refused(data, PixelDataError, "2000000000", "(0028,0008)")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20


def test_files_without_frames() -> None:
    refused(b"no DICOM" * 100, NotDicomError)
    refused(part10(described(noise(1)), ExplicitVRLittleEndian, b""), NoPixelDataError)
    path = packaged_file("rtplan.dcm")
    with pytest.raises(NoPixelDataError, match=r"rtplan\.dcm: RT Plan Storage has no pixels"):
        describe(files.locate(path))


@pytest.mark.parametrize("syntax", [MPEG2MPML, "1.2.3.4", "not a UID at all"])
def test_a_syntax_that_is_not_decoded(syntax: str) -> None:
    data = encapsulated(noise(2, 16, 16), RLELossless, table="none")
    for use in (described_bytes, lambda data, uid: open_frames(data, transfer_syntax_uid=uid)):
        with pytest.raises(UnsupportedSyntaxError):
            use(data, syntax)


@pytest.mark.parametrize(
    ("elements", "error"),
    [
        ({"Rows": None}, MissingElementError),
        ({"Rows": 0}, HeaderError),
        ({"BitsAllocated": 12}, HeaderError),
        ({"BitsStored": 20}, HeaderError),
        ({"PhotometricInterpretation": "ODD"}, HeaderError),
        ({"SamplesPerPixel": 2}, HeaderError),
        ({"PixelRepresentation": None}, MissingElementError),
    ],
)
def test_image_pixel_is_checked_as_when_it_is_opened(
    elements: dict[str, Any], error: type[DcmdaskError]
) -> None:
    data = made(**elements)
    messages = []
    for use in (described_bytes, open_frames):
        for _ in range(2):  # an error is not remembered
            with pytest.raises(error) as caught:
                use(data)
            messages.append(str(caught.value))
    assert len(set(messages)) == 1


def test_the_source_is_opened_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[files.Source] = []
    really = files.opened

    def counting(source: files.Source) -> Any:
        opened.append(source)
        return really(source)

    monkeypatch.setattr(files, "opened", counting)
    classic = saved(tmp_path, made(**CLASSIC), "classic.dcm")
    describe(files.locate(classic))
    assert len(opened) == 1
    describe(files.locate(saved(tmp_path, enhanced(), "enhanced.dcm")))
    assert len(opened) == 3  # once more for all its functional groups


# Longer than what a short string may have, so that no part of it is a valid one.
CANARY = "KANARIE-MUST-NOT-APPEAR"
KEPT = {"ImageType", "Modality", "Units", "PhotometricInterpretation", "TransferSyntaxUID"}


def test_no_text_leaks() -> None:
    pixels = noise(2, 2, 4)
    dataset = described(pixels)
    texts = [
        "AccessionNumber", "AdditionalPatientHistory", "AcquisitionComments", "ContentLabel",
        "DeviceSerialNumber", "FrameComments", "ImageComments", "InstitutionAddress",
        "InstitutionName", "Manufacturer", "OperatorsName", "PatientAddress", "PatientComments",
        "PatientID", "PatientName", "PerformedProcedureStepDescription", "ProtocolName",
        "PerformingPhysicianName", "ReferringPhysicianName", "RescaleType", "SequenceName",
        "SeriesDescription", "StackID", "StationName", "StudyDescription", "StudyID",
        "TextComments", "TextString", "TimezoneOffsetFromUTC", "VOILUTFunction",
        "WindowCenterWidthExplanation",
    ]  # fmt: skip

    def fill(target: Dataset) -> Dataset:
        for keyword in texts:
            target.add_new(keyword, dictionary_VR(keyword), CANARY)
        for place, group in enumerate((0x0009, 0x0019, 0x0043, 0x2001)):
            target.add_new(group << 16 | 0x10, "LO", f"{CANARY} {place}")
            target.add_new(group << 16 | 0x100C, "LO", CANARY)
        return target

    with quiet():
        fill(dataset)
        per_frame = [group(FrameContentSequence=fill(Dataset())) for _ in range(2)]
        dataset.PerFrameFunctionalGroupsSequence = Sequence(per_frame)
        data = part10(dataset, ExplicitVRLittleEndian, pixel_element(pixels.tobytes(), NATIVE[0]))
    assert data.count(CANARY.encode()) > 60
    path_only = files.LocalFile("/nowhere", 0, 0)
    found = described_bytes(data)
    assert len(found) == 2
    fields = {name: getattr(found, name) for name in Described.__slots__ if name != "source"}
    # The one text that a scan keeps, to show it to whoever scans.
    assert fields.pop("series_description") == CANARY
    fields["series_description"] = ""
    shown = repr(fields) + repr(pickle.dumps(Described(source=path_only, **fields)))
    assert "KANARIE" not in shown
    # Two stacks stay two.
    other = data.replace(CANARY.encode(), CANARY.lower().encode())
    assert described_bytes(other).facts["stack_id"][0] != found.facts["stack_id"][0] != b""


def test_damaged_headers() -> None:
    choose = random.Random("facts")
    bases = [
        made(PixelPaddingValue=1, **CLASSIC),
        made(ImplicitVRLittleEndian, **CLASSIC),
        enhanced(),
        enhanced(undefined=True),
        enhanced(ImplicitVRLittleEndian, undefined=True),
        enhanced(ExplicitVRBigEndian),
        enhanced(DeflatedExplicitVRLittleEndian),
    ]
    outcomes: dict[str, int] = {}
    for data in bases:
        for i in range(100):
            damaged = bytearray(data)
            if i % 5 == 0:
                del damaged[choose.randrange(132, len(damaged)) :]
            elif i % 5 == 1:
                at = choose.randrange(132, len(damaged) - 4)
                damaged[at : at + 4] = choose.choice([b"\xff" * 4, bytes(4), b"\xff\xff\0\0"])
            else:
                for _ in range(i % 5):
                    damaged[choose.randrange(132, len(damaged))] ^= 1 << choose.randrange(8)
            with quiet():
                try:
                    found = described_bytes(bytes(damaged))
                    assert found.facts.dtype == FACTS
                    outcome = "described"
                except DcmdaskError as error:
                    outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["described"] > 130, outcomes
    assert outcomes["HeaderError"] > 30, outcomes


def test_what_was_learnt_from_one_file_is_right_for_the_next() -> None:
    # The same elements with other lengths, and other elements, in other orders of files.
    files_made = [
        made(syntax, **{keyword: CLASSIC[keyword] for keyword in sorted(CLASSIC)[start::step]})
        for syntax in NATIVE
        for start, step in ((0, 1), (1, 2), (0, 3), (2, 3))
    ]
    expected = [described_bytes(data).facts.tobytes() for data in files_made]
    order = list(range(len(files_made)))
    random.Random(1).shuffle(order)
    for i in order:
        assert described_bytes(files_made[i]).facts.tobytes() == expected[i]
        assert_same_facts(described_bytes(files_made[i]), dcmread(BytesIO(files_made[i])))


def test_what_is_checked_once_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    really = instance.image_pixel

    def counting(*arguments: Any) -> Any:
        checked.append(arguments)
        return really(*arguments)

    monkeypatch.setattr(instance, "image_pixel", counting)
    for number in range(5):
        data = native(noise(1, 3, 11), InstanceNumber=number)
        assert described_bytes(data).columns == 11
    assert len(checked) == 1
    assert described_bytes(native(noise(1, 3, 13))).columns == 13
    assert len(checked) == 2


def test_offset_tables_are_not_kept_with_what_was_checked() -> None:
    instance._KNOWN.clear()
    data = encapsulated(noise(1, 3, 11), JPEGLSLossless)
    length = len(encoded(noise(1, 3, 11)[0], JPEGLSLossless))
    table = struct.pack("<Q", 0), struct.pack("<Q", length)
    for options in ({"extended_offsets": table}, {}):
        assert len(instance.open_instance(data, options)) == 1
    assert len(instance._KNOWN) == 1


def test_lengths_that_look_like_a_vr(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0x4242 is "BB", also as the length of the pixel data.
    data = native(noise(1, 66, 257), ImplicitVRLittleEndian, ImageComments="x" * 0x4242)
    with monkeypatch.context() as patch:
        patch.setattr(header, "read_dataset", None)
        assert described_bytes(data).rows == 66
    # What is learnt from it does not hide that another file is explicit VR.
    long = struct.pack("<HHLHHL", 8, 1, 0, 8, 5, 0x000A5343) + bytes(0x000A5343)
    described_bytes(with_first_element(data, long))
    strange = native(noise(1, 1200, 1300), SpecificCharacterSet="ISO_IR 100", **CLASSIC)
    with quiet():
        found = described_bytes(strange, ImplicitVRLittleEndian)
    assert found.facts.tobytes() == described_bytes(strange).facts.tobytes()


def test_patched_values_are_seen() -> None:
    data = made(Rows=2, InstanceNumber="17")
    assert described_bytes(data).facts["instance_number"] == 17
    other = patched(data, 0x00200013, "IS", b"18")
    assert described_bytes(other).facts["instance_number"] == 18
