"""Texts of a header in its character set: descriptions, and elements that name a person."""

from __future__ import annotations

from typing import Final

from dcmdask.dicom.conversion import LONGEST, text
from dcmdask.dicom.header import Header

_CHARACTER_SET: Final = 0x00080005
# Elements that name a person, a study or a place: kept only where that is asked for.
IDENTIFIERS: Final = {
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "StudyDate": 0x00080020,
    "StudyTime": 0x00080030,
    "StudyID": 0x00200010,
    "StudyDescription": 0x00081030,
    "AccessionNumber": 0x00080050,
    "InstitutionName": 0x00080080,
}


def text_of(header: Header, tag: int) -> str:
    """Return the text of an element in the character set of its data set, in one line."""
    raw, charset = header.values.get(tag), header.values.get(_CHARACTER_SET)
    if raw is None or len(raw.value) > LONGEST:
        return ""
    return text(raw.value, charset.value if charset else b"")


def identifiers_of(header: Header) -> tuple[str, ...]:
    """Return the values of `IDENTIFIERS`, empty where one is absent."""
    found = {name: text_of(header, tag) for name, tag in IDENTIFIERS.items()}
    # Delimiters behind the last component group mean nothing (PS3.5 6.2.1.1).
    found["PatientName"] = found["PatientName"].rstrip("=")
    return tuple(found.values())
