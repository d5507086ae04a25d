"""Values that are there and cannot be read, where they are needed: errors with their text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR

from dcmdask.dicom.description import Described
from dcmdask.dicom.frame_facts import TAGS
from dcmdask.dicom.header import read_header
from dcmdask.dicom.image_pixel import called
from dcmdask.errors import HeaderError

__all__ = ["check_readable", "text_of"]


def check_readable(
    instances: Sequence[Described], facts: npt.NDArray[Any], columns: Iterable[str]
) -> None:
    """Check that no number in these columns of the facts is one that cannot be read.

    Raises
    ------
    HeaderError
        One is there and is no number. Its text is in `detail`, unless it is inside a
        functional group.
    """
    for column in columns:
        rows = np.flatnonzero(np.isinf(facts[column].reshape(len(facts), -1)).any(axis=1))
        if not len(rows):
            continue
        stops = np.cumsum([len(one) for one in instances])
        number = int(np.searchsorted(stops, rows[0], "right"))
        one, tag = instances[number], TAGS[column]
        raise HeaderError(
            f"{called(tag)} is there and is no number",
            source=one.source.name,
            frame=int(rows[0] - stops[number] + len(one)) if len(one) > 1 else None,
            detail=text_of(one, tag),
            code="unreadable",
        )


def text_of(one: Described, tag: int) -> str:
    """Return the text of an element, for the detail of an error.

    Empty for a sequence, and if the element is not at the top level of the data set.
    """
    if dictionary_VR(tag) == "SQ":
        return ""
    raw = read_header(one.source, (tag,), one.transfer_syntax).values.get(tag)
    return f"its value is {raw.value!r}" if raw else ""
