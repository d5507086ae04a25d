"""Classes of objects by what their frames are: one module each, found by the SOP class."""

from __future__ import annotations

from typing import Final

from dcmdask.dicom.description import Described
from dcmdask.dicom.own_elements import (
    NUCLEAR_MEDICINE,
    PARAMETRIC_MAP,
    RT_DOSE,
    SEGMENTATIONS,
    ULTRASOUND_VOLUME,
    WHOLE_SLIDES,
)
from dcmdask.images.meaning import Meaning
from dcmdask.images.objects.cine import Cine, is_cine
from dcmdask.images.objects.dose import Dose
from dcmdask.images.objects.mosaic import Mosaic, is_mosaic
from dcmdask.images.objects.nuclear import Nuclear
from dcmdask.images.objects.parametric_map import ParametricMap
from dcmdask.images.objects.segmentation import Segmentation
from dcmdask.images.objects.slide import SlideMeaning
from dcmdask.images.objects.ultrasound_volume import UltrasoundVolume

_PLANES, _CINE, _MOSAIC = Meaning(), Cine(), Mosaic()
_BY_SOP_CLASS: Final[dict[str, Meaning]] = {
    RT_DOSE: Dose(),
    NUCLEAR_MEDICINE: Nuclear(),
    PARAMETRIC_MAP: ParametricMap(),
    ULTRASOUND_VOLUME: UltrasoundVolume(),
    WHOLE_SLIDES: SlideMeaning(),
    **dict.fromkeys(SEGMENTATIONS, Segmentation()),
}


def meaning_of(one: Described) -> Meaning:
    """Return what the class of an instance means."""
    if is_mosaic(one):
        return _MOSAIC
    found = _BY_SOP_CLASS.get(one.sop_class_uid)
    return found or (_CINE if is_cine(one) else _PLANES)


def meant(one: Described) -> Described:
    """Return a description as its class means it."""
    return meaning_of(one).meant(one)
