"""Classes of objects by what their frames are: one module each, found by the SOP class."""

from __future__ import annotations

from typing import Final

from dcmdask.dicom.description import Described
from dcmdask.dicom.own_elements import RT_DOSE
from dcmdask.images.dose import Dose
from dcmdask.images.meaning import Meaning

_PLANES: Final = Meaning()
_BY_SOP_CLASS: Final = {RT_DOSE: Dose()}


def meaning_of(one: Described) -> Meaning:
    """Return what the class of an instance means."""
    return _BY_SOP_CLASS.get(one.sop_class_uid, _PLANES)


def meant(one: Described) -> Described:
    """Return a description as its class means it."""
    return meaning_of(one).meant(one)
