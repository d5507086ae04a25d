"""Radiopharmaceutical of PET: the dose that is left at the time that values are corrected to.

That time is found as in the vendor-neutral pseudocode of QIBA (https://qibawiki.rsna.org,
"Standardized Uptake Value"). Times are milliseconds since 1970; none of them leaves this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import exp, inf, isfinite, isnan, log, nan
from typing import Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR, keyword_for_tag

from dcmdask.dicom.conversion import (
    code_string,
    days,
    milliseconds,
    minutes,
    moment,
    since_midnight,
)
from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import Filter, RawValue, Wanted
from dcmdask.dicom.frame_facts import DAY
from dcmdask.dicom.header import Header
from dcmdask.dicom.image_pixel import called
from dcmdask.dicom.instance import issue
from dcmdask.dicom.own_elements import OwnElements
from dcmdask.dicom.private.elements import (
    private_blocks,
    private_numbers,
    private_tags,
    private_value,
)
from dcmdask.errors import Advice, HeaderError, Note

__all__ = ["DOSE_ELEMENTS", "Dose", "PetHeader", "dose_of"]

_Floats = npt.NDArray[np.float64]
_ENHANCED: Final = "1.2.840.10008.5.1.4.1.1.130"  # Enhanced PET Image Storage
CORRECTED_IMAGE, _DECAY_CORRECTION = 0x00280051, 0x00541102
_DECAY_CORRECTED, _DECAY_CORRECTION_TIME = 0x00189758, 0x00189701
_SERIES, _ACQUISITION, _OFFSET = (0x00080021, 0x00080031), (0x00080022, 0x00080032), 0x00080201
_REFERENCE_TIME, _DURATION, _FRAME_ACQUISITION = 0x00541300, 0x00181242, 0x00189074
_RADIOPHARMACEUTICALS: Final = 0x00540016
_START_TIME, _DOSE, _HALF_LIFE, _START = 0x00181072, 0x00181074, 0x00181075, 0x00181078
_RADIOPHARMACEUTICAL: Final = Filter(
    Wanted((tag,), tag) for tag in (_START_TIME, _DOSE, _HALF_LIFE, _START)
)
_GE, _SCAN_TIME = (0x0009, b"GEMS_PETD_01"), 0x0D
DOSE_ELEMENTS: Final = frozenset(
    {
        *(CORRECTED_IMAGE, _DECAY_CORRECTION, _DECAY_CORRECTED, _DECAY_CORRECTION_TIME, _OFFSET),
        *(*_SERIES, *_ACQUISITION, _REFERENCE_TIME, _DURATION, _RADIOPHARMACEUTICALS),
        *private_tags(_GE[0], _SCAN_TIME),
    }
)
# After ten half-lives a thousandth is left, and nothing to see: a time is wrong then.
_MOST_HALF_LIVES: Final = 10
# A dynamic scan may begin some minutes before the injection.
_BEFORE: Final = 10 * 60 * 1000
# Of Series Time and Acquisition Time one may be written without fractions.
_SECOND: Final = 1000
_ADVICE: Final = Advice("values", "modality", "needs none")


class Dose(NamedTuple):
    """Dose of an injection.

    Attributes
    ----------
    left : ndarray
        Bq at the time that the values of each frame are corrected to.
    by_frame : bool
        Whether that time is each frame's own, since values are not corrected for decay.
    """

    left: _Floats
    by_frame: bool


class PetHeader:
    """Elements of an instance of PET: what cannot be used is refused, and not quoted.

    Parameters
    ----------
    one : Described
    header : Header
        With all elements that are asked for.
    warned : set of str
        Codes of notes that were issued; instances of one array share it.
    """

    def __init__(self, one: Described, header: Header, warned: set[str]) -> None:
        self.one, self.warned = one, warned
        self.is_enhanced = one.sop_class_uid == _ENHANCED
        self.own = OwnElements(tuple(header.values.items()), header.encoding)
        self.values = header.values
        self.blocks = private_blocks(header.values)

    def warn(self, note: Note) -> None:
        """Issue a note as a warning, one of each kind."""
        issue(note, self.one.source.name, self.warned)

    def refuse(self, message: str, code: int | str, raw: RawValue | None = None) -> NoReturn:
        """Raise an error; its code is the keyword of a tag, and its detail the bytes of a value."""
        if isinstance(code, int):
            code = re.sub("(?<=[a-z])(?=[A-Z])", "-", keyword_for_tag(code)).lower()
        raise HeaderError(
            message,
            source=self.one.source.name,
            detail=f"its value is {raw.value!r}" if raw and raw.value else "",
            code=code,
            advice=[_ADVICE],
        )

    def positive(self, tag: int, values: Mapping[int, RawValue] | None = None) -> float:
        """Return a number above 0 of the data set, or of a sequence item."""
        raw = (self.values if values is None else values).get(tag)
        found = private_numbers(raw, dictionary_VR(tag), self.own.encoding)
        number = found[0] if found else inf
        if raw is None or not raw.value.strip(b"\0 ") or number == 0:
            self.refuse(f"{called(tag)} is missing or 0", tag)
        if not 0 < number < inf:
            self.refuse(f"{called(tag)} is there and is no number above 0", "unreadable", raw)
        return number

    def positive_or_none(self, tag: int) -> float | None:
        """Return a number above 0, or None where there is none."""
        number = next(iter(self.own.numbers(tag, dictionary_VR(tag))), 0.0)
        return number if 0 < number < inf else None

    def private_number(self, place: tuple[int, bytes], number: int) -> float | None:
        """Return a private number of VR DS, or None where it is absent or 0."""
        raw = private_value(self.values, self.blocks, place, number)
        found = next(iter(private_numbers(raw, "DS", self.own.encoding)), 0.0)
        if not isfinite(found) or found < 0:
            name = f"({place[0]:04X},xx{number:02X}) of {place[1].decode()}"
            self.refuse(f"{name} is there and is no number above 0", "unreadable", raw)
        return found or None

    def words(self, tag: int) -> set[str]:
        """Return the terms of a CS with several values."""
        return {code_string(word) for word in self.own.raw(tag).split(b"\\")} - {""}

    def moment(self, name: str, code: int | str, raw: RawValue | None) -> float:
        """Return the time of a DT."""
        found = nan if raw is None else moment(self._local(raw.value), self.offset)
        if found == inf:
            self.refuse(f"{name} is there and cannot be read", "unreadable", raw)
        if isnan(found):
            self.refuse(f"{name} is missing, or is a date without a time", code, raw)
        return found

    def _local(self, value: bytes) -> bytes:
        # A DA and TM that tell no offset from UTC have that of the DT beside them.
        is_known = self.is_enhanced or _OFFSET in self.values
        return value if is_known else re.sub(rb"[+-]\d{4}[\0 ]*$", b"", value)

    @property
    def offset(self) -> int:
        """Minutes from UTC (0008,0201)."""
        return minutes(self.own.raw(_OFFSET))

    def date_and_time(self, tags: tuple[int, int]) -> float | None:
        """Return the time of a DA and a TM, or None where one of both is absent."""
        day, since = days(self.own.raw(tags[0])), since_midnight(self.own.raw(tags[1]))
        for tag, number in zip(tags, (day, since), strict=True):
            if number == inf:
                self.refuse(f"{called(tag)} cannot be read", "unreadable", self.values[tag])
        found = milliseconds(day, since, self.offset)
        return None if isnan(found) else found


def dose_of(pet: PetHeader) -> Dose:
    """Return the dose that is left of what was injected (PS3.3 C.8.9.2, C.8.22.5).

    Raises
    ------
    HeaderError
        Of several radiopharmaceuticals; or an element that it takes is missing or contradicts
        another one.

    Warns
    -----
    DcmdaskWarning
        The date of the injection is missing, and the half-life leaves several.
    """
    item = _radiopharmaceutical(pet)
    dose, half_life = pet.positive(_DOSE, item), 1000 * pet.positive(_HALF_LIFE, item)
    correction = _decay_correction(pet)
    if correction == "ADMIN":
        return Dose(np.full(len(pet.one), dose), False)
    if correction == "START":
        until = np.full(len(pet.one), _scan_start(pet, half_life))
    elif correction == "DATETIME":
        name, raw = called(_DECAY_CORRECTION_TIME), pet.values.get(_DECAY_CORRECTION_TIME)
        until = np.full(len(pet.one), pet.moment(name, _DECAY_CORRECTION_TIME, raw))
    else:
        until = _frame_times(pet, half_life)
    elapsed = _since_injection(pet, item, until, half_life)
    if elapsed.min() < -_BEFORE or elapsed.max() > _MOST_HALF_LIVES * half_life:
        pet.refuse(
            f"there are {elapsed[0] / 1000:.0f} s from the injection to the time that values are "
            f"corrected to, at a half-life of {half_life / 1000:g} s: one of both times is wrong",
            "injection-time",
        )
    return Dose(dose * 2.0 ** (-elapsed / half_life), correction == "NONE")


def _radiopharmaceutical(pet: PetHeader) -> Mapping[int, RawValue]:
    """Return the only item of Radiopharmaceutical Information Sequence."""
    name, raw = called(_RADIOPHARMACEUTICALS), pet.values.get(_RADIOPHARMACEUTICALS)
    items = pet.own.items(_RADIOPHARMACEUTICALS, _RADIOPHARMACEUTICAL)
    if len(items) == 1:
        return items[0]
    if items:
        pet.refuse(f"{name} has {len(items)} items: one dose is needed", _RADIOPHARMACEUTICALS)
    if raw is not None and raw.value:
        pet.refuse(f"{name} cannot be read", "unreadable")
    pet.refuse(f"{name} is missing", _RADIOPHARMACEUTICALS)


def _decay_correction(pet: PetHeader) -> str:
    """Return START, ADMIN or NONE; of Enhanced PET DATETIME or NONE."""
    tag, kinds = _DECAY_CORRECTION, {word: word for word in ("START", "ADMIN", "NONE")}
    if pet.is_enhanced:
        tag, kinds = _DECAY_CORRECTED, {"YES": "DATETIME", "NO": "NONE"}
    found = kinds.get(pet.own.word(tag))
    if found is None:
        pet.refuse(f"{called(tag)} must be {' or '.join(kinds)}", tag, pet.values.get(tag))
    corrections = pet.words(CORRECTED_IMAGE)
    if corrections and ("DECY" in corrections) is (found == "NONE"):
        pet.refuse(f"{called(tag)} is {found}, and {called(CORRECTED_IMAGE)} contradicts it", tag)
    return found


def _scan_start(pet: PetHeader, half_life: float) -> float:
    """Return when the scan began, to which START corrects."""
    series, acquired = pet.date_and_time(_SERIES), pet.date_and_time(_ACQUISITION)
    if series is not None and acquired is not None and series <= acquired + _SECOND:
        return series
    # Series Time may be that of later processing.
    raw = private_value(pet.values, pet.blocks, _GE, _SCAN_TIME)
    if raw is not None:
        return pet.moment("(0009,xx0D) of GEMS_PETD_01", "scan-time", raw)
    reference, duration = pet.positive_or_none(_REFERENCE_TIME), pet.positive_or_none(_DURATION)
    if acquired is not None and reference is not None and duration is not None:
        # From the start of the scan to the average count rate of the frame.
        return acquired + _to_average(duration, half_life) - reference
    for tags, found in ((_ACQUISITION, acquired), (_SERIES, series)):
        if found is None:
            pet.refuse(f"{called(tags[0])} or {called(tags[1])} is missing", tags[1])
    pet.refuse(
        f"{called(_SERIES[1])} is after {called(_ACQUISITION[1])}, as of a series that was "
        f"processed later, and neither (0009,xx0D) of GE nor {called(_REFERENCE_TIME)} with "
        f"{called(_DURATION)} tells when the scan began",
        "scan-time",
    )


def _frame_times(pet: PetHeader, half_life: float) -> _Floats:
    """Return the time that each frame stands for where decay is not corrected.

    It is that of the average count rate where the header tells how long the frame took, or else
    that of the acquisition.
    """
    if pet.is_enhanced:
        facts = pet.one.facts
        # Times that are relative, or of a day that is not known, are below two days.
        found = np.where(
            facts["reference_time"] > 2 * DAY, facts["reference_time"], facts["acquisition_time"]
        )
        if not (np.isfinite(found) & (found > 2 * DAY)).all():
            pet.refuse(f"{called(_FRAME_ACQUISITION)} is missing", _FRAME_ACQUISITION)
        return found
    acquired = pet.date_and_time(_ACQUISITION)
    if acquired is None:
        name = f"{called(_ACQUISITION[0])} or {called(_ACQUISITION[1])}"
        pet.refuse(f"{name} is missing", _ACQUISITION[1])
    duration = pet.positive_or_none(_DURATION)
    into = _to_average(duration, half_life) if duration is not None else 0.0
    return np.full(len(pet.one), acquired + into)


def _to_average(duration: float, half_life: float) -> float:
    """Return the time from the start of a frame to its average count rate."""
    decay = log(2) * duration / half_life
    return log(decay / (1 - exp(-decay))) * half_life / log(2)


def _since_injection(
    pet: PetHeader, item: Mapping[int, RawValue], until: _Floats, half_life: float
) -> _Floats:
    """Return the time from the injection until others."""
    raw, name = item.get(_START), called(_START)
    if raw is not None and raw.value.strip(b"\0 "):
        return until - pet.moment(name, _START, raw)
    of_day = item.get(_START_TIME, RawValue(None, b""))
    since = since_midnight(of_day.value)
    if not isfinite(since):
        missing = "is missing" if isnan(since) else "cannot be read"
        code = _START_TIME if isnan(since) else "unreadable"
        pet.refuse(f"{called(_START_TIME)} {missing}", code, of_day)
    # Of the day of the scan, or of the one before.
    elapsed = (until - milliseconds(0, since, pet.offset) + _BEFORE) % DAY - _BEFORE
    if elapsed.max() + DAY < _MOST_HALF_LIVES * half_life:
        text = (
            f"{name} is missing: the injection is taken for the last one at {called(_START_TIME)} "
            "before the scan, and this half-life would leave earlier days as well"
        )
        pet.warn(Note("injection-date", text))
    return elapsed
