"""Standardized uptake values (SUV) of PET: the factors that make them of modality values.

SUV is the activity in a ml of tissue per activity that was injected and is left, times the body
weight in g, the lean body mass in g, or the body surface area in cm2. Lean body mass is by the
formula of James with the multiplier 120 for men (Morgan 1994), as QIBA and "LBM" of SUV Type
(0054,1006) have it: 1.10 w - 120 (w/h)^2 kg of men and 1.07 w - 148 (w/h)^2 kg of women, of a
weight w in kg and a height h in cm; James (1976) himself had 128. Body surface is that of Du Bois
(1916): 71.84 w^0.425 h^0.725 cm2.

Weight, height, sex and times become part of the factor, and appear nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.conversion import UNITS, term
from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import RawValue
from dcmdask.dicom.header import read_header
from dcmdask.dicom.image_pixel import called
from dcmdask.dicom.private.elements import private_tags
from dcmdask.dicom.quantities.radiopharmaceutical import (
    CORRECTED_IMAGE,
    DOSE_ELEMENTS,
    PetHeader,
    dose_of,
)
from dcmdask.errors import Advice, HeaderError, Note

SUV_UNITS: Final[Mapping[str, str]] = {"suv": "g/ml", "suv-lbm": "g/ml", "suv-bsa": "cm2/ml"}
"""Units as PS3.16 CID 85 has them, without the annotation of the kind."""

# In the terms of SUV Type (0054,1006).
_TYPES: Final[Mapping[str, str]] = {"suv": "BW", "suv-lbm": "LBM", "suv-bsa": "BSA"}
_BODIES: Final = frozenset({"BW", "LBM", "LBMJAMES128", "LBMJANMA", "BSA"})
# The SUV Type of Units (0054,1001) that are SUV, where it is absent.
_USUAL: Final = {"GML": "BW", "CM2ML": "BSA"}
_MODALITY, _UNITS, _SUV_TYPE = 0x00080060, 0x00541001, 0x00541006
_SEX, _SIZE, _WEIGHT = 0x00100040, 0x00101020, 0x00101030
_PHILIPS: Final = (0x7053, b"Philips PET Private Group")
_SUV_FACTOR, _ACTIVITY_FACTOR = 0x00, 0x09
_WANTED: Final = frozenset(
    {
        *(_SUV_TYPE, _SEX, _SIZE, _WEIGHT, *DOSE_ELEMENTS),
        *private_tags(_PHILIPS[0], _SUV_FACTOR, _ACTIVITY_FACTOR),
    }
)
# Nobody is taller, in m: a larger number is in cm.
_TALLEST: Final = 3.0
# Part that the dose may differ by between the files of a series: more than the decay in the half
# second that times are rounded by, of the shortest half-life in use (82 Rb, 75 s).
_ROUNDING: Final = 0.01
_NO_ATTENUATION: Final = Note(
    "corrected-image",
    "(0028,0051) 'Corrected Image' has no ATTN: without correction of attenuation SUV are too low",
)


def suv_factors(instances: Sequence[Described], values: str) -> npt.NDArray[np.float64]:
    """Return the factor of each frame, from the headers, which are read one after the other.

    Parameters
    ----------
    instances : sequence of Described
    values : {"suv", "suv-lbm", "suv-bsa"}
        Of body weight, lean body mass or body surface area.

    Raises
    ------
    HeaderError
        An element is missing, 0, or not one that SUV can be made of; its name is the code. Or
        it is there and cannot be read (``unreadable``).

    Warns
    -----
    DcmdaskWarning
        Values are not corrected for attenuation (``corrected-image``); or the date of the
        injection is missing, and the half-life leaves several (``injection-date``).
    """
    found: list[npt.NDArray[np.float64]] = []
    doses: list[float] = []
    warned: set[str] = set()
    for one in instances:
        pet = PetHeader(one, read_header(one.source, _WANTED, one.transfer_syntax), warned)
        activity, stored = _stored(pet)
        wanted = _TYPES[values]
        if stored is not None:
            found.append(np.full(len(one), activity * _ratio(pet, wanted, stored)))
            continue
        body, dose = _body(pet, wanted), dose_of(pet)
        found.append(activity * body / dose.left)
        if not dose.by_frame:
            doses.append(float(dose.left[0]))
    if doses and max(doses) > (1 + _ROUNDING) * min(doses):
        raise HeaderError(
            "the files of the series have doses that differ by "
            f"{100 * (max(doses) / min(doses) - 1):.3g} % at the time that values are corrected to",
            source=instances[0].source.name,
            code="scan-time",
            advice=[Advice("values", "modality", "needs none")],
        )
    return np.concatenate(found)


def _stored(pet: PetHeader) -> tuple[float, str | None]:
    """Return what makes activities in Bq/ml of modality values, or SUV of a type."""
    if pet.one.modality != "PT":
        raw = RawValue(None, pet.one.modality.encode())
        pet.refuse(f"{called(_MODALITY)} is not PT: SUV are of PET", "modality", raw)
    corrections = pet.words(CORRECTED_IMAGE)
    if corrections and "ATTN" not in corrections:
        pet.warn(_NO_ATTENUATION)
    units = _units(pet.one)
    if units == "BQML":
        return 1.0, None
    if units in _USUAL:
        stored = pet.own.word(_SUV_TYPE) or _USUAL[units]
        if (stored == "BSA") is not (units == "CM2ML"):
            raw = pet.values[_SUV_TYPE]
            pet.refuse(f"{called(_UNITS)} is {units}, contrary to {called(_SUV_TYPE)}", _UNITS, raw)
        return 1.0, stored
    if units == "CNTS":
        if (factor := pet.private_number(_PHILIPS, _SUV_FACTOR)) is not None:
            return factor, "BW"
        if (factor := pet.private_number(_PHILIPS, _ACTIVITY_FACTOR)) is not None:
            return factor, None
        pet.refuse(
            f"{called(_UNITS)} is CNTS, and the factors of Philips, (7053,xx00) for SUV and "
            "(7053,xx09) for activities, are missing or 0",
            _UNITS,
        )
    known = term(units, UNITS)
    found = f"is {known}" if known else "is another one" if units else "is missing"
    raw = RawValue(None, b"" if known else units.encode())
    pet.refuse(f"{called(_UNITS)} must be BQML, GML, CM2ML or CNTS, and {found}", _UNITS, raw)


def _units(one: Described) -> str:
    """Return Units, or what Enhanced PET has instead: the Rescale Type of all frames."""
    types = {word.decode("ascii", "replace") for word in np.unique(one.facts["rescale_type"])}
    return one.units or (types.pop() if len(types) == 1 else "")


def _ratio(pet: PetHeader, wanted: str, stored: str) -> float:
    """Return what makes SUV of a type of those that are stored."""
    if wanted == stored:
        return 1.0
    if stored not in _BODIES:
        raw = RawValue(None, stored.encode())
        pet.refuse(f"{called(_SUV_TYPE)} must be {', '.join(sorted(_BODIES))}", _SUV_TYPE, raw)
    return _body(pet, wanted) / _body(pet, stored)


def _body(pet: PetHeader, kind: str) -> float:
    """Return the weight or the lean body mass in g, or the body surface area in cm2."""
    weight = pet.positive(_WEIGHT)
    if kind == "BW":
        return 1000 * weight
    height = pet.positive(_SIZE)
    if height > _TALLEST:
        pet.refuse(f"{called(_SIZE)} must be in m", _SIZE, pet.values[_SIZE])
    if kind == "BSA":
        return float(71.84 * weight**0.425 * (100 * height) ** 0.725)
    sex = pet.own.word(_SEX)
    if sex not in ("M", "F"):
        raw = pet.values.get(_SEX)
        pet.refuse(f"{called(_SEX)} must be M or F for a lean body mass", _SEX, raw)
    if kind == "LBMJANMA":
        # Janmahasatian (2005), of the body mass index.
        least, slope = (6680, 216) if sex == "M" else (8780, 244)
        return 1000 * 9270 * weight / (least + slope * weight / height**2)
    part, square = (1.10, 128 if kind == "LBMJAMES128" else 120) if sex == "M" else (1.07, 148)
    lean = 1000 * (part * weight - square * (weight / (100 * height)) ** 2)
    if lean <= 0:
        names = f"{called(_WEIGHT)} and {called(_SIZE)}"
        pet.refuse(f"there is no lean body mass above 0 for {names}", "lean-body-mass")
    return lean
