"""The facts of a data set as pydicom gives them, straight from its attributes.

Slow and simple, so that :func:`dcmdask.dicom.description.describe` can be held against it.
Numbers are NaN where they are absent, and infinity where they are there and cannot be read.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf, isfinite, nan
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import RTDoseStorage
from pydicom.valuerep import DA, DT, TM

from dcmdask.dicom.description import FACTS

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")

__all__ = ["facts_by_pydicom", "indices_by_pydicom"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COMPONENTS = {
    "M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY",
    "MAGNITUDE": "MAGNITUDE", "PHASE": "PHASE", "REAL": "REAL", "IMAGINARY": "IMAGINARY",
}  # fmt: skip
UNREADABLE = "unreadable"
UNASSIGNED = "UnassignedSharedConvertedAttributesSequence"
UNASSIGNED_PER_FRAME = "UnassignedPerFrameConvertedAttributesSequence"


def value_in(dataset: Dataset, path: str) -> Any:
    """The value at ``"Sequence.Sequence.Keyword"``, first items, None where there is none.

    `UNREADABLE` where pydicom raises.
    """
    *sequences, keyword = path.split(".")
    for sequence in sequences:
        if not dataset.get(sequence):
            return None
        dataset = dataset[sequence][0]
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, OverflowError):
        return UNREADABLE
    return None if value is None or value == "" or value == [] else value


class Levels:
    """A frame's own functional groups, the shared ones, and the top level of the data set."""

    def __init__(self, dataset: Dataset, frame: int, several: bool) -> None:
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
        self.groups = [*per_frame[frame : frame + 1], *shared[:1]]
        self.top, self.several = dataset, several

    def find(self, keyword: str, macro: str = "") -> Any:
        either = keyword in ("DiffusionBValue", "DiffusionGradientOrientation") or (
            keyword == "ComplexImageComponent"
        )
        for group in self.groups:
            paths = [f"{macro}.{keyword}"] if macro else []
            if not macro or either:
                paths = [f"{UNASSIGNED_PER_FRAME}.{keyword}", f"{UNASSIGNED}.{keyword}", *paths]
            for path in paths:
                if (value := value_in(group, path)) is not None:
                    return value
        if keyword == "ImagePositionPatient" and self.several:
            return None
        return value_in(self.top, keyword)

    def numbers(self, count: int, keyword: str, macro: str = "") -> list[float]:
        value = self.find(keyword, macro)
        if value is None:
            return [nan] * count
        parts = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        try:
            found = [float(part) for part in parts]
        except (ValueError, TypeError):
            return [inf] * count
        return found if len(found) == count and all(map(isfinite, found)) else [inf] * count

    def first(self, keyword: str, macro: str = "") -> float:
        value = self.find(keyword, macro)
        if isinstance(value, Iterable) and not isinstance(value, str):
            value = next(iter(value))
        if value is None or value == "":
            return nan
        try:
            number = float(value)
        except (ValueError, TypeError):
            return inf
        return number if isfinite(number) else inf

    def word(self, keyword: str, macro: str = "") -> bytes:
        value = self.find(keyword, macro)
        return b"" if value is None else str(value).strip("\0 ").encode()

    def moment(self, keyword: str, macro: str = "") -> float:
        value = self.find(keyword, macro)
        if value is None:
            return nan
        try:
            return self.milliseconds(DT(str(value)))
        except (ValueError, TypeError):
            return inf

    def milliseconds(self, when: datetime) -> float:
        if when.tzinfo is None:
            offset = str(value_in(self.top, "TimezoneOffsetFromUTC") or "+0000")
            when = datetime.strptime(f"{when.isoformat('T', 'microseconds')} {offset}",
                                     "%Y-%m-%dT%H:%M:%S.%f %z")  # fmt: skip
        since = when - EPOCH
        return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) / 1000

    def date_and_time(self, event: str) -> float:
        day, time = self.find(f"{event}Date"), self.find(f"{event}Time")
        if time is None:
            return nan
        try:
            day = DA(str(day))
        except ValueError:
            day = None
        try:
            # With colons as ACR-NEMA has it (PS3.5 6.2), which pydicom does not read.
            of_day = TM(str(time).replace(":", ""))
            if day is None:
                # Of no day, so of no zone either.
                return self.milliseconds(datetime.combine(EPOCH.date(), of_day, UTC))
            return self.milliseconds(datetime.combine(day, of_day))
        except (ValueError, TypeError):
            return inf

    def component(self) -> bytes:
        if self.top.get("Modality") != "MR":
            return b""
        word = self.find("ComplexImageComponent", "MRImageFrameTypeSequence")
        if not word:
            kinds = [
                value_in(group, "MRImageFrameTypeSequence.FrameType") for group in self.groups
            ] + [value_in(self.top, "FrameType"), value_in(self.top, "ImageType")]
            kind = next((kind for kind in kinds if kind), [])
            third, fourth = [*([] if isinstance(kind, str) else kind), "", "", "", ""][2:4]
            word = third.strip()
            if word in ("PHASE MAP", "PHASE SUBTRACT", "VELOCITY MAP"):
                word = "P"
            elif word[1:] in ("_FFE", "_SE", "_IR", "_PCA"):
                word = word[0]
            if word not in COMPONENTS and fourth.strip() in set("MPRI"):
                word = fourth
        return COMPONENTS.get(str(word).strip(), "").encode()


def given(*numbers: float) -> float:
    return next((number for number in numbers if isfinite(number)), inf if inf in numbers else nan)


def other_spacing(at: Levels) -> list[float]:
    """Of a detector, or of the regions of ultrasound in two dimensions, where it is one."""
    if at.find("ImagerPixelSpacing"):
        return at.numbers(2, "ImagerPixelSpacing")
    found = {
        (abs(10 * region.PhysicalDeltaY), abs(10 * region.PhysicalDeltaX))
        for region in at.top.get("SequenceOfUltrasoundRegions") or []
        if region.get("RegionSpatialFormat") == 1
        and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == 3
        and region.get("PhysicalDeltaX") is not None
        and region.get("PhysicalDeltaY") is not None
    }
    if any(0 in one for one in found):
        return [inf, inf]
    return [round(one, 6) for one in found.pop()] if len(found) == 1 else [nan, nan]


def private(dataset: Dataset, group: int, creator: str, element: int) -> Any:
    try:
        return dataset.private_block(group, creator)[element].value
    except KeyError:
        return None


def vendor_diffusion(dataset: Dataset) -> tuple[float, list[float]]:
    """As the vendors' conformance statements and dcm2niix have it."""
    none = [nan] * 3
    if dataset.get("Modality") != "MR":
        return nan, none
    value = private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0C)
    if value is not None:
        direction = private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0E)
        return float(value), none if direction is None else [float(part) for part in direction]
    value = private(dataset, 0x0043, "GEMS_PARM_01", 0x39)
    if value is not None:
        value = value.decode().split("\\") if isinstance(value, bytes) else value
        return float(int(value[0]) % 10**9), ge_direction(dataset)
    value = private(dataset, 0x2001, "Philips Imaging DD 001", 0x03)
    if value is not None:
        found = [private(dataset, 0x2005, "Philips MR Imaging DD 001", 0xB0 + n) for n in range(3)]
        return float(value), none if None in found or not any(found) else found
    return nan, none


def ge_direction(dataset: Dataset) -> list[float]:
    """Of an axial series with phase encoding along columns, which the real files here are."""
    found = [private(dataset, 0x0019, "GEMS_ACQU_01", 0xBB + n) for n in range(3)]
    if None in found or not any(map(float, found)):
        return [nan] * 3
    assert dataset.InPlanePhaseEncodingDirection == "COL"
    row, column = np.reshape(np.array(dataset.ImageOrientationPatient, float), (2, 3))
    normal = np.cross(row, column)
    assert abs(normal[2]) > 0.8
    x, y, z = map(float, found)
    return list(-x * row - y * column + z * normal)


def facts_by_pydicom(dataset: Dataset) -> np.ndarray:
    """A row of `FACTS` for each frame of `dataset`."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    dataset = _shared_of_tiles(dataset)
    facts = np.empty(frames, FACTS)
    b_value, direction = vendor_diffusion(dataset)
    content, measures = "FrameContentSequence", "PixelMeasuresSequence"
    transformation, window = "PixelValueTransformationSequence", "FrameVOILUTSequence"
    for frame in range(frames):
        at = Levels(dataset, frame, frames > 1)
        row = facts[frame]
        row["position"] = at.numbers(3, "ImagePositionPatient", "PlanePositionSequence")
        row["orientation"] = at.numbers(6, "ImageOrientationPatient", "PlaneOrientationSequence")
        if not at.find("ImagePositionPatient", "PlanePositionSequence"):
            row["position"] = at.numbers(3, "ImagePositionVolume", "PlanePositionVolumeSequence")
        if not at.find("ImageOrientationPatient", "PlaneOrientationSequence"):
            turned = at.numbers(6, "ImageOrientationVolume", "PlaneOrientationVolumeSequence")
            row["orientation"] = turned
        row["spacing"] = at.numbers(2, "PixelSpacing", measures)
        if not at.find("PixelSpacing", measures) and not at.groups:
            row["spacing"] = other_spacing(at)
        row["thickness"] = at.first("SliceThickness", measures)
        row["instance_number"] = at.first("InstanceNumber")
        row["acquisition_number"] = given(
            at.first("FrameAcquisitionNumber", content), at.first("AcquisitionNumber")
        )
        row["mapping"] = at.word("LUTLabel", "RealWorldValueMappingSequence")
        row["stack_id"] = at.word("StackID", content)
        row["position_index"] = at.first("InStackPositionNumber", content)
        row["temporal_position"] = given(
            at.first("TemporalPositionIndex", content),
            at.first("TemporalPositionIdentifier"),
        )
        row["trigger_time"] = given(
            at.first("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
            at.first("TriggerTime"),
        )
        row["acquisition_time"] = given(
            at.moment("FrameAcquisitionDateTime", content),
            at.moment("AcquisitionDateTime"),
            at.date_and_time("Acquisition"),
        )
        row["content_time"] = at.date_and_time("Content")
        row["reference_time"] = given(
            at.moment("FrameReferenceDateTime", content),
            at.first("FrameReferenceTime"),
            1000 * at.first("TemporalPositionTimeOffset", "TemporalPositionSequence"),
        )
        row["echo_time"] = given(
            at.first("EffectiveEchoTime", "MREchoSequence"), at.first("EchoTime")
        )
        row["echo_number"] = at.first("EchoNumbers")
        row["b_value"] = given(at.first("DiffusionBValue", "MRDiffusionSequence"), b_value)
        own = at.numbers(
            3,
            "DiffusionGradientOrientation",
            "MRDiffusionSequence.DiffusionGradientDirectionSequence",
        )
        row["direction"] = own if own[0] == own[0] else direction
        row["component"] = at.component()
        row["slope"] = at.first("RescaleSlope", transformation)
        row["intercept"] = at.first("RescaleIntercept", transformation)
        if dataset.get("SOPClassUID") == RTDoseStorage:
            row["slope"], row["intercept"] = at.first("DoseGridScaling"), nan
        maximum = dataset.get("MaximumFractionalValue")
        if dataset.get("SOPClassUID") in SEGMENTATIONS and maximum:
            row["slope"] = 1 / maximum
        word = at.word("RescaleType", transformation)
        row["rescale_type"] = word if len(word) <= 16 else b""
        row["window_center"] = at.first("WindowCenter", window)
        row["window_width"] = at.first("WindowWidth", window)
        word = at.word("VOILUTFunction", window)
        row["window_function"] = word if len(word) <= 16 else b""
        timing = "MRTimingAndRelatedParametersSequence"
        row["repetition_time"] = at.first("RepetitionTime", timing)
        row["flip_angle"] = at.first("FlipAngle", timing)
        row["inversion_time"] = given(
            at.first("InversionTimes", "MRModifierSequence"), at.first("InversionTime")
        )
        for name, keyword in (
            ("positioner_primary_angle", "PositionerPrimaryAngle"),
            ("positioner_secondary_angle", "PositionerSecondaryAngle"),
        ):
            row[name] = at.first(keyword, "PositionerPositionSequence")
        row["field_strength"] = at.first("MagneticFieldStrength")
        row["between"] = at.first("SpacingBetweenSlices", measures)
        row["segment"] = at.first("ReferencedSegmentNumber", "SegmentIdentificationSequence")
        row["optical_path"] = at.word("OpticalPathIdentifier", "OpticalPathIdentificationSequence")
    return facts


def _shared_of_tiles(dataset: Dataset) -> Dataset:
    """The data set without what tells tiles apart, which is kept elsewhere."""
    if "TotalPixelMatrixRows" not in dataset or "TotalPixelMatrixColumns" not in dataset:
        return dataset
    per_frame = ("PerFrameFunctionalGroupsSequence", "DimensionIndexSequence")
    left = {tag: dataset.get_item(tag) for tag in dataset.keys()}  # noqa: SIM118  a data set iterates over its elements
    shared = Dataset({tag: left[tag] for tag in left if keyword_for_tag(tag) not in per_frame})
    shared.is_implicit_VR = dataset.is_implicit_VR
    shared.is_little_endian = dataset.is_little_endian
    return shared


DIMENSIONS = {
    "stack": ["StackID"],
    "segment": ["ReferencedSegmentNumber"],
    "z": ["InStackPositionNumber", "ImagePositionPatient"],
    "t": [
        "TemporalPositionIndex", "TemporalPositionTimeOffset", "NominalCardiacTriggerDelayTime",
    ],
    "echo": ["EffectiveEchoTime"],
    "diffusion": ["DiffusionBValue", "DiffusionGradientOrientation"],
    "component": ["ComplexImageComponent"],
}  # fmt: skip


def indices_by_pydicom(dataset: Dataset) -> tuple[list[str], np.ndarray]:
    """Names of the dimensions, and the index values of all frames; none where one has none."""
    named = {keyword: name for name, keywords in DIMENSIONS.items() for keyword in keywords}
    dataset = _shared_of_tiles(dataset)
    names: list[str] = []
    for number, one in enumerate(dataset.get("DimensionIndexSequence") or []):
        pointer = one.get("DimensionIndexPointer")
        name = None if pointer is None else named.get(keyword_for_tag(pointer))
        label = "_".join(
            re.findall("[a-z0-9]+", str(one.get("DimensionDescriptionLabel", "")).lower())
        )
        if label in {"", "x", "y", "sample", "frame", "patient", "missing", *DIMENSIONS, *names}:
            label = f"dimension_{number}"
        names.append(name or label)
    frames = int(dataset.get("NumberOfFrames") or 1)
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[:frames]
    found = [value_in(group, "FrameContentSequence.DimensionIndexValues") for group in groups]
    values = [[] if one is None else np.atleast_1d(one).tolist() for one in found]
    if not names or len(values) < frames or any(len(one) != len(names) for one in values):
        return [], np.empty((frames, 0))
    return names, np.array(values)
