"""Irregularities of a stack, and values that cannot be read, with the names of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydicom.tag import Tag

from dcmdask.dicom.conversion import uid
from dcmdask.dicom.description import Described
from dcmdask.dicom.frame_facts import TAGS
from dcmdask.dicom.image_pixel import called
from dcmdask.dicom.unreadable import text_of
from dcmdask.errors import Note
from dcmdask.geometry.axes import plausible
from dcmdask.geometry.grid import Irregularity
from dcmdask.geometry.planes import Integers, is_out_of_reach

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

# Number of files that a message names.
_NAMED = 3


def named(irregularities: Iterable[Irregularity], stack: Layout) -> tuple[Irregularity, ...]:
    """Return irregularities of a stack with the files of a few of their frames in the texts.

    Those of spacings have the element, too.
    """
    found = []
    for one in irregularities:
        names = []
        for row in one.frames[:_NAMED]:
            instance = stack.instances[stack.owner[row]]
            which = f", frame {stack.stored[row]}" if len(instance) > 1 else ""
            names.append(instance.source.name + which)
        more = len(one.frames) - len(names)
        near = "near " if one.code == "missing" else ""
        listed = "; ".join(names) + (f" and {more} more" if more > 0 else "")
        text = f"{one.text} ({near}{listed})" if names else one.text
        if one.code == "spacing" and names:
            text = f"{called(_spacing_tag(stack, one.frames[0]))}: {text}"
        found.append(one._replace(text=text))
    return tuple(found)


def detail_of(irregularities: Iterable[Irregularity], stack: Layout) -> str:
    """Return the text of the first value that could not be read, for the detail of an error."""
    for one in irregularities:
        for column in ("position", "orientation", "spacing"):
            if one.frames and is_out_of_reach(stack.facts[column][one.frames[0]]):
                row = one.frames[0]
                tag = _spacing_tag(stack, row) if column == "spacing" else TAGS[column]
                return text_of(stack.instances[stack.owner[row]], tag)
    return ""


def _spacing_tag(stack: Layout, row: int) -> int:
    """Return the tag of the element that the spacing of a frame is from."""
    source = stack.instances[stack.owner[row]].spacing_source
    return Tag(source) if source else TAGS["spacing"]


def conflicts(instances: Sequence[Described], owner: Integers) -> list[Irregularity]:
    """Name instances that have the same UID and, as they are all here, not the same pixels."""
    counts = Counter(one.sop_instance_uid for one in instances if one.sop_instance_uid)
    if len(counts) == len(instances):
        return []
    found = []
    for shared, count in counts.items():
        if count > 1:
            same = [i for i, one in enumerate(instances) if one.sop_instance_uid == shared]
            rows = np.flatnonzero(np.isin(owner, same))
            message = f"{count} different files have the SOP Instance UID {uid(shared) or '…'}"
            found.append(Irregularity("conflict", message, tuple(rows.tolist())))
    return found


def unreadable_weightings(stack: Layout) -> Iterator[Note]:
    """Yield notes on diffusion b-values and directions that are there and cannot be read.

    The direction of an unweighted frame says nothing.
    """
    facts = plausible(stack.facts)
    weighted = facts["b_value"] > 0
    for column, fails in (
        ("b_value", "cannot be read, or is negative"),
        ("direction", "cannot be read, or cannot be turned to the patient's axes"),
    ):
        values = facts[column].reshape(len(facts), -1)
        unreadable = np.isinf(values).any(axis=1)
        rows = np.flatnonzero(unreadable & weighted if column == "direction" else unreadable)
        if len(rows):
            text = (
                f"{called(TAGS[column])}, or the private element for it, of {len(rows)} of "
                f"{len(values)} frames is there and {fails}"
            )
            (one,) = named([Irregularity("unreadable", text, tuple(rows.tolist()))], stack)
            yield Note("unreadable-weighting", one.text)
