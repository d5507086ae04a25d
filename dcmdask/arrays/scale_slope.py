"""Scale Slope of Philips (2005,100E), which makes values of several series comparable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dcmdask.dicom.conversion import first_number
from dcmdask.dicom.description import Described
from dcmdask.dicom.header import read_header, read_whole_header
from dcmdask.dicom.private_diffusion import private_blocks
from dcmdask.errors import HeaderError

_GROUP, _CREATOR, _ELEMENT = 0x2005, "Philips MR Imaging DD 001", 0x0E
_WANTED: Final = frozenset(
    _GROUP << 16 | element
    for block in range(0x10, 0x100)
    for element in (block, block << 8 | _ELEMENT)
)


def scale_slopes(instances: Sequence[Described]) -> npt.NDArray[np.float64]:
    """Return the Scale Slope of each frame, from the headers.

    Raises
    ------
    HeaderError
        A frame has none, or 0.
    """
    found: list[float] = []
    for one in instances:
        slopes = list(_slopes(one))
        if len(slopes) != len(one) or not all(np.isfinite(slopes)) or 0 in slopes:
            raise HeaderError(
                "there is no Scale Slope (2005,100E) of Philips for each frame, which "
                "values='philips-float' needs; values='modality' does not",
                source=one.source.name,
                code="scale-slope",
            )
        found += slopes
    return np.array(found)


def _slopes(one: Described) -> Iterator[float]:
    header = read_header(one.source, _WANTED, one.transfer_syntax)
    block = private_blocks(header.values).get((_GROUP, _CREATOR.encode()))
    raw = None if block is None else header.values.get(block | _ELEMENT)
    if raw is not None:
        slope = first_number(raw.value, "FL", header.encoding.little_endian)
        yield from [slope] * len(one)
    else:
        dataset = read_whole_header(one.source, UID(one.transfer_syntax))
        for group in dataset.get("PerFrameFunctionalGroupsSequence") or []:
            yield from _inside(group)


def _inside(item: Dataset) -> Iterator[float]:
    """Yield the value in an item of a functional group, or in a private sequence of it."""
    with suppress(KeyError):
        yield float(item.private_block(_GROUP, _CREATOR)[_ELEMENT].value)
        return
    for element in item:
        if element.tag.group == _GROUP and element.VR == "SQ" and element.value:
            yield from _inside(element.value[0])
