"""Provenance of a store: the technical header, without personal data.

Stores are shared, so only listed elements are stored, and only values that cannot be a name:
numbers, UIDs and terms that the standard defines. Text, dates, private elements and source paths
are not listed.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import JPEG2000TransferSyntaxes

from dcmdask import __version__
from dcmdask.dicom.conversion import MODALITIES
from dcmdask.dicom.frame_facts import DAY
from dcmdask.dicom.image_pixel import YBR
from dcmdask.pixels.guard import SYNTAXES
from dcmdask.sources.files import INFLATE_LIMIT

Json: TypeAlias = "bool | int | float | str | list[Any] | dict[str, Any] | None"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _term(pattern: str) -> Callable[[str], str | None]:
    return lambda text: text if re.fullmatch(pattern, text) else None


_uid = _term(r"[0-9.]{1,64}")

# Keyword to a function from one value's text to JSON; it returns None for other text.
ELEMENTS: Mapping[str, Callable[[str], Json]] = {
    "SOPClassUID": _uid,
    "SOPInstanceUID": _uid,
    "StudyInstanceUID": _uid,
    "SeriesInstanceUID": _uid,
    "FrameOfReferenceUID": _uid,
    "Modality": _term(MODALITIES.replace(" ", "|")),
    "PixelSpacing": _number,
    "ImageOrientationPatient": _number,
    "SliceThickness": _number,
    "RescaleSlope": _number,
    "RescaleIntercept": _number,
    "WindowCenter": _number,
    "WindowWidth": _number,
    "FrameTime": _number,
    "CineRate": _number,
    "LossyImageCompression": _term("00|01"),
    "LossyImageCompressionRatio": _number,
    "LossyImageCompressionMethod": _term(r"ISO_\d+_\d+"),
}
# Keywords of elements that are stored only on request.
IDENTIFIERS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDateTime"),
    *("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName"),
    *("InstitutionName", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber"),
    *("BodyPartExamined", "SeriesNumber"),
)
# Sequences of shared functional groups that hold an element of multi-frame objects
# (PS3.3 C.7.6.16).
SHARED: Mapping[str, str] = {
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
}
# Whether they were named, by the command or by a caller, says nothing of a store.
_DEFAULTS: Mapping[str, Any] = {
    "allow_excess_frames": True,
    "decoding_plugin": "",
    "fill_value": None,
    "inflate_limit": INFLATE_LIMIT,
    "on_duplicate": "error",
    "raw": False,
    "tolerance": None,
}
_JPEG = frozenset(syntax for syntax, one in SYNTAXES.items() if one.kind == "jpeg")
_RESCALING = ("RescaleSlope", "RescaleIntercept", "BitsStored")
_WITH_WINDOW = (*_RESCALING, "WindowCenter", "WindowWidth")
# Elements that were applied to the stored values, or are not for what became of them.
# A window is for stored values that are rescaled (PS3.3 C.11.2.1.2).
_APPLIED: Mapping[str, tuple[str, ...]] = {"stored": (), "modality": _RESCALING}


def jsonable(value: Any) -> Json:
    """Return a value in types of JSON, with None for NaN and infinity."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [jsonable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an export that differ from their defaults.

    Examples
    --------
    >>> without_defaults({"raw": False, "fill_value": None, "bits_stored": 12})
    {'bits_stored': 12}
    """
    return {
        name: value
        for name, value in options.items()
        if name not in _DEFAULTS or value != _DEFAULTS[name]
    }


def decoding(how: Mapping[str, Any]) -> dict[str, Json]:
    """Return the decoding options that JSON has types for, and that differ from their defaults."""
    plain = bool | int | float | str
    return without_defaults({key: how[key] for key in how if isinstance(how[key], plain)})


def technical_header(
    dataset: Dataset, syntaxes: Sequence[str], how: Mapping[str, Any], values: str, given: bool
) -> dict[str, Json]:
    """Return the elements that describe the values that are stored, by DICOM keyword.

    Elements that were applied are left out: the rescaling of modality values, and also the window
    of all others. `how` are decoding options, and `given` says whether the Photometric
    Interpretation among them is the caller's.
    """
    header: dict[str, Json] = {
        "TransferSyntaxUID": syntaxes[0] if len(syntaxes) == 1 else list(syntaxes),
        "PhotometricInterpretation": _interpretation(syntaxes, how, given),
    }
    if "bits_stored" in how:
        header["BitsStored"] = int(how["bits_stored"])
    header |= elements(dataset)
    for keyword in _APPLIED.get(values, _WITH_WINDOW):
        header.pop(keyword, None)
    if values == "display" and header["PhotometricInterpretation"] != "RGB":
        grey = header["PhotometricInterpretation"] != "PALETTE COLOR"
        header["PhotometricInterpretation"] = "MONOCHROME2" if grey else "RGB"
    return header


def elements(dataset: Dataset) -> dict[str, Json]:
    """Return the valid values of `ELEMENTS` in a data set."""
    values: dict[str, Json] = {}
    for keyword, convert in ELEMENTS.items():
        found = [convert(text) for text in _texts(dataset, keyword)]
        if found and None not in found:
            values[keyword] = found[0] if len(found) == 1 else found
    return values


@cache
def versions() -> dict[str, Json]:
    """Return the versions of the packages that decode and write."""
    others = {
        name: version(name) for name in ("imagecodecs", "numpy", "pydicom", "simplejpeg", "zarr")
    }
    return {"dcmdask": __version__, **others}


def identifiers(
    dataset: Dataset, sources: Sequence[str], facts: npt.NDArray[Any]
) -> dict[str, Json]:
    """Return identifiers of a patient, an examination and the source.

    Also ``first_acquisition``, the date and time of the earliest of the frames that `facts` has,
    where all have a date; in UTC, and with ``+00:00`` at its end, where Timezone Offset From UTC
    (0008,0201) or Acquisition DateTime (0008,002A) in `dataset` has the offset, otherwise local.
    """
    named: dict[str, Json] = {}
    for keyword in IDENTIFIERS:
        # A value that pydicom cannot convert is left out.
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter("ignore")
            if keyword in dataset and str(dataset[keyword].value or ""):
                named[keyword] = str(dataset[keyword].value)
    times = facts["acquisition_time"]
    # Those of no day are counted from the first one.
    if len(times) and np.isfinite(times).all() and (first := float(times.min())) > 2 * DAY:
        zone = UTC if _has_offset(dataset) else None
        moment = datetime(1970, 1, 1, tzinfo=zone) + timedelta(milliseconds=first)
        named["first_acquisition"] = moment.isoformat()
    return {"identifiers": {**named, "sources": list(sources)}}


def _has_offset(dataset: Dataset) -> bool:
    """Return whether a header says the offset from UTC of its acquisition times (PS3.5 6.2)."""
    forms = {"TimezoneOffsetFromUTC": r"[+-]\d{4}"}
    if "PerFrameFunctionalGroupsSequence" not in dataset:  # where frames have their own times
        forms["AcquisitionDateTime"] = r"\d{10,14}(\.\d+)?[+-]\d{4}"
    return any(re.fullmatch(forms[one], text) for one in forms for text in _texts(dataset, one))


def _interpretation(syntaxes: Sequence[str], how: Mapping[str, Any], given: bool) -> str:
    """Return the photometric interpretation of the decoded frames."""
    coded = str(how["photometric_interpretation"])
    keeps_to_header = how["raw"] or how.get("decoding_plugin") or given
    if coded.startswith("YBR") and not keeps_to_header and _JPEG.issuperset(syntaxes):
        # The only YCbCr that a JPEG codestream can have, as dcmdask.pixels.colour reads it.
        coded = "YBR_FULL"
    if how.get("force_ybr"):
        return "YBR_FULL"
    codec_converts = coded in ("YBR_ICT", "YBR_RCT") and all(
        syntax in JPEG2000TransferSyntaxes for syntax in syntaxes
    )
    if codec_converts or how.get("force_rgb"):
        return "RGB"
    if coded not in YBR:
        return coded
    # Decoded frames are not sub-sampled.
    return "RGB" if how.get("as_rgb", not how["raw"]) else "YBR_FULL"


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of an element as text, from the top level or the shared groups."""
    if keyword not in dataset:
        try:
            dataset = dataset.SharedFunctionalGroupsSequence[0][SHARED[keyword]][0]
        except Exception:
            # Absent, or so damaged that pydicom raises anything.
            return []
        if keyword not in dataset:
            return []
    # Unconverted: pydicom warns or raises for invalid values, which are left out here.
    value = dataset.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    elif not isinstance(value, MultiValue | list | tuple):
        value = [value]
    texts = [str(one if one is not None else "").strip(" \0") for one in value]
    return [] if texts == [""] else texts
