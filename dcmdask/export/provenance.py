"""What a store says about where its frames come from, and nothing about whom they show.

A store is meant to be shared. So this is a list of what goes in, and even of the listed
elements only values that cannot be a name: numbers, UIDs and the terms that the standard
defines. Text, dates, private elements and source paths are not on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import JPEG2000TransferSyntaxes

from dcmdask import __version__
from dcmdask.frames.frame_array import FrameArray
from dcmdask.frames.terms import MODALITIES

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

# Keyword to what makes a JSON value of one value's text, or None of what must not go in.
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
# Where a multi-frame object says for all frames what others say at the top (PS3.3 C.7.6.16).
SHARED: Mapping[str, str] = {
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
}
_YBR = ("YBR_FULL", "YBR_FULL_422")


def provenance(frames: FrameArray) -> dict[str, Json]:
    """Return what the attributes of a store say about the source of `frames`.

    Returns
    -------
    dict
        ``header``: the technical header, by DICOM keyword. ``source``: the token of the
        source, and the options that its frames were decoded with. ``version``: of this
        package.
    """
    decoding = {
        key: value
        for key, value in frames.decoding.items()
        if isinstance(value, bool | int | float | str)
    }
    return {
        "version": __version__,
        "source": {"token": frames.token, "decoding": decoding},
        "header": technical_header(frames),
    }


def technical_header(frames: FrameArray) -> dict[str, Json]:
    """Return the elements that describe the frames as they are decoded, by DICOM keyword."""
    header: dict[str, Json] = {
        "TransferSyntaxUID": str(frames.transfer_syntax),
        "PhotometricInterpretation": _interpretation(frames),
    }
    if "bits_stored" in frames.decoding:
        header["BitsStored"] = int(frames.decoding["bits_stored"])
    for keyword, convert in ELEMENTS.items():
        values = [convert(text) for text in _texts(frames.dataset, keyword)]
        if values and None not in values:
            header[keyword] = values[0] if len(values) == 1 else values
    return header


def _interpretation(frames: FrameArray) -> str:
    """Return the photometric interpretation of the decoded frames."""
    how = frames.decoding
    coded = str(how["photometric_interpretation"])
    if how.get("force_ybr"):
        return "YBR_FULL"
    codec_converts = (
        coded in ("YBR_ICT", "YBR_RCT") and frames.transfer_syntax in JPEG2000TransferSyntaxes
    )
    if codec_converts or how.get("force_rgb"):
        return "RGB"
    if coded not in _YBR:
        return coded
    # Decoded, no sub-sampling is left.
    return "RGB" if how.get("as_rgb", not how["raw"]) else "YBR_FULL"


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of an element as text, from the top or what all frames share."""
    if keyword not in dataset:
        try:
            dataset = dataset.SharedFunctionalGroupsSequence[0][SHARED[keyword]][0]
        except Exception:
            # Not there, or so damaged that pydicom fails in one of its many ways.
            return []
        if keyword not in dataset:
            return []
    # As it stands in the file: converting a value that is not valid warns or raises, and
    # such a value is left out here.
    value = dataset.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    elif not isinstance(value, MultiValue | list | tuple):
        value = [value]
    texts = [str(one if one is not None else "").strip(" \0") for one in value]
    return [] if texts == [""] else texts
