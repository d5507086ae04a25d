"""Scale Slope of Philips (2005,100E), which makes values of several series comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan, nan
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import Encoding, RawValue
from dcmdask.dicom.groups.functional_groups import PER_FRAME, SHARED, value_bytes
from dcmdask.dicom.header import read_header, read_whole_header
from dcmdask.dicom.private.elements import (
    private_blocks,
    private_numbers,
    private_tags,
    private_value,
)
from dcmdask.errors import Advice, HeaderError

_GROUP, _CREATOR, _ELEMENT = 0x2005, b"Philips MR Imaging DD 001", 0x0E
_WANTED: Final = private_tags(_GROUP, _ELEMENT)
_ADVICE: Final = Advice("values", "modality", "needs none")


def scale_slopes(instances: Sequence[Described]) -> npt.NDArray[np.float64]:
    """Return the Scale Slope of each frame, from the headers, which are read one after the other.

    Raises
    ------
    HeaderError
        A frame has none (``scale-slope``), or one that is 0 or no number (``unreadable``).
    """
    found: list[float] = []
    for one in instances:
        values, encoding = _values(one)
        for number, raw in enumerate(values):
            slope = next(iter(private_numbers(raw, "FL", encoding)), nan)
            if isfinite(slope) and slope:
                found.append(slope)
                continue
            raise HeaderError(
                "there is no Scale Slope (2005,100E) of Philips for each frame"
                if isnan(slope)
                else "Scale Slope (2005,100E) of Philips is there, and is 0 or no number",
                source=one.source.name,
                frame=number if len(one) > 1 else None,
                detail="" if raw is None or isnan(slope) else f"its value is {raw.value!r}",
                code="scale-slope" if isnan(slope) else "unreadable",
                advice=[_ADVICE],
            )
    return np.array(found)


def _values(one: Described) -> tuple[list[RawValue | None], Encoding]:
    """Return the element for each frame of an instance: its own, or what all share."""
    header = read_header(one.source, _WANTED, one.transfer_syntax)
    shared = _value(header.values)
    if shared is not None:
        return [shared] * len(one), header.encoding
    dataset = read_whole_header(one.source, UID(one.transfer_syntax), {SHARED, PER_FRAME})
    try:
        items = {tag: dataset[tag].value for tag in (SHARED, PER_FRAME) if tag in dataset}
        for group in items.get(SHARED, ())[:1]:
            shared = _inside(group, header.encoding)
        groups = items.get(PER_FRAME, ())[: len(one)]
        own = [_inside(group, header.encoding) or shared for group in groups]
    except Exception as error:
        # pydicom raises anything where private sequences are damaged.
        raise HeaderError(
            "the functional groups are damaged",
            source=one.source.name,
            detail=f"pydicom says: {error}",
            code="functional-groups",
        ) from error
    return own + [shared] * (len(one) - len(own)), header.encoding


def _inside(item: Dataset, encoding: Encoding) -> RawValue | None:
    """Return the element in an item of a functional group, or in a private sequence of it."""
    private = item.group_dataset(_GROUP)
    # As text, which has all digits whatever the VR is.
    tags = sorted(private.keys() & _WANTED)
    found = _value({tag: RawValue("DS", value_bytes(private, tag, "DS", encoding)) for tag in tags})
    sequences = (one.value for one in private if one.VR == "SQ" and one.value)
    inner = (_inside(sequence[0], encoding) for sequence in sequences)
    return found or next(filter(None, inner), None)


def _value(values: Mapping[int, RawValue]) -> RawValue | None:
    return private_value(values, private_blocks(values), (_GROUP, _CREATOR), _ELEMENT)
