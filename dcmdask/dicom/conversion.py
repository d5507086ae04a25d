"""Element values as numbers, times and terms.

Every number, also of a date or time, is NaN where the value is absent, and infinity where it is
there and cannot be read, such as a NaN that is stored. pydicom's converters take longer than the
walk over a whole header; numbers are those of pydicom, and a decimal comma is read as well. Text
that is not a term of the standard may be a name, and is left out where results are shared.
"""

from __future__ import annotations

import re
import warnings
from datetime import date
from functools import lru_cache
from math import inf, isfinite, nan
from struct import calcsize, iter_unpack
from typing import Final

__all__ = [
    "LONGEST",
    "MODALITIES",
    "NUMBERS",
    "UNITS",
    "UNREADABLE",
    "code_string",
    "days",
    "first_number",
    "first_read",
    "milliseconds",
    "minutes",
    "moment",
    "numbers",
    "plain",
    "since_midnight",
    "term",
    "text",
    "uid",
]

LONGEST: Final = 1 << 10
"""Bytes of a value that are looked at; no valid one comes near."""

UNREADABLE: Final = b"?"
"""Value of any VR of numbers or times that cannot be read."""

NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
"""The VRs of binary numbers (PS3.5 6.2), with their format characters of :mod:`struct`."""

# PS3.3 C.7.3.1.1.1, the retired terms included.
MODALITIES = (
    "ANN AR ASMT AU BDUS BI BMD CD CF CFM CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DS DX EC "
    "ECG EEG EMG EOG EPS ES FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS "
    "NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF "
    "RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF ST "
    "STAIN TEXTUREMAP TG US VA VF VIDD VL XA XAPROTOCOL XC"
)
# PS3.3 C.8.9.1.1.3, the Rescale Types of PS3.3 C.11.1.1.2, and the dose of C.8.8.3; "US" is
# unspecified.
UNITS = (
    "CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS PROPCPS "
    "MLMINML MLML GML STDDEV OD HU MGML Z_EFF ED EDW HU_MOD PCT GY"
)

_DAY: Final = 24 * 60 * 60 * 10**6  # microseconds
_EPOCH: Final = date(1970, 1, 1).toordinal()
_TIME: Final = rb"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?"
_TM: Final = re.compile(_TIME)
_DT: Final = re.compile(rb"(\d{8})" + _TIME + rb"([+-]\d{4})?")
_DATE: Final = re.compile(rb"\d{4}((0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])?)?([+-]\d{4})?")
_OFFSET: Final = re.compile(rb"([+-])(\d\d)(\d\d)")


def numbers(value: bytes, vr: str, little_endian: bool) -> tuple[float, ...]:
    """Return the numbers of a DS, an IS, or one of `NUMBERS`; none of an empty binary value.

    A comma is taken for a decimal point: a DS has no separator of thousands, and some
    software writes numbers as its user's language has them.

    Examples
    --------
    >>> numbers(rb"0.5\\0,75 ", "DS", True)
    (0.5, 0.75)
    >>> numbers(rb"1\\\\1.5", "IS", True)
    (1.0, nan, inf)
    >>> numbers(b"\\x01\\x00\\x02\\x00", "US", True)
    (1.0, 2.0)
    >>> numbers(b"\\x00\\x00\\xc0\\x7f", "FL", True)  # a NaN that is stored
    (inf,)
    """
    if vr not in NUMBERS:
        found = tuple(map(_parsed, value.rstrip(b"\0").split(b"\\")))
        return found if vr == "DS" else tuple(map(_whole, found))
    code = ("<" if little_endian else ">") + NUMBERS[vr]
    if len(value) % calcsize(code):
        return (inf,)
    return tuple(float(n) if isfinite(n) else inf for (n,) in iter_unpack(code, value))


def first_number(value: bytes, vr: str, little_endian: bool) -> float:
    """Return the first number of a value."""
    return next(iter(numbers(value, vr, little_endian)), nan)


def first_read(*found: float) -> float:
    """Return the first number that was read; if there is none, infinity before NaN."""
    return next(filter(isfinite, found), inf if inf in found else nan)


def _parsed(text: bytes) -> float:
    try:
        number = float(text)
    except ValueError:
        text = _stripped(text)
        if text.count(b",") == 1:
            return _parsed(text.replace(b",", b"."))
        return inf if text else nan
    # Python takes underscores and words, PS3.5 6.2 does not.
    return number if isfinite(number) and b"_" not in text else inf


def _whole(number: float) -> float:
    return inf if isfinite(number) and not number.is_integer() else number


def _stripped(value: bytes) -> bytes:
    """Return a value without its padding (PS3.5 6.2)."""
    return value.strip(b"\0 ")


def code_string(value: bytes) -> str:
    """Return the text of a CS, or of a UI, without its padding (PS3.5 6.2)."""
    return _stripped(value).decode("ascii", "replace")


def days(value: bytes) -> float:
    """Return the days of a DA since 1970."""
    digits = _stripped(value).replace(b".", b"")  # dotted before 1993 (PS3.5 6.2)
    if not digits:
        return nan
    if len(digits) != 8 or not digits.isdigit():
        return inf
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).toordinal() - _EPOCH
    except ValueError:
        return inf


def since_midnight(value: bytes) -> float:
    """Return the microseconds of a TM since midnight."""
    digits = _stripped(value).replace(b":", b"")
    if not digits:
        return nan
    match = _TM.fullmatch(digits)
    return _microseconds(*match.groups()) if match else inf


def _microseconds(
    hours: bytes, minutes: bytes | None, seconds: bytes | None, fraction: bytes | None
) -> float:
    h, m, s = int(hours), int(minutes or 0), int(seconds or 0)
    if h > 23 or m > 59 or s > 60:  # 60 is a leap second
        return inf
    return ((h * 60 + m) * 60 + s) * 10**6 + int((fraction or b"").ljust(6, b"0"))


def minutes(value: bytes) -> int:
    """Return the minutes of an offset from UTC, 0 where there is none (PS3.5 6.2 DT)."""
    match = _OFFSET.fullmatch(_stripped(value))
    if not match:
        return 0
    sign, hours, rest = match.groups()
    return (60 * int(hours) + int(rest)) * (-1 if sign == b"-" else 1)


def milliseconds(day: float, time: float, offset: int) -> float:
    """Return days and microseconds, less an offset in minutes, as milliseconds."""
    return (day * _DAY + time - offset * 60 * 10**6) / 1000


def moment(value: bytes, offset: int) -> float:
    """Return the milliseconds of a DT since 1970, in UTC.

    `offset` are the minutes from UTC that hold where the value has none of its own. A date
    without a time tells no moment.

    Examples
    --------
    >>> moment(b"19700101010000.5+0100", 0)
    500.0
    """
    text = _stripped(value)
    match = _DT.fullmatch(text)
    if not match:
        return nan if not text or _DATE.fullmatch(text) else inf
    day, *time, own = match.groups()
    return milliseconds(days(day), _microseconds(*time), minutes(own) if own else offset)


def uid(text: str | None) -> str | None:
    """Return `text` if it has the form of a UID (PS3.5 section 9), otherwise None."""
    return text if text and re.fullmatch(r"[0-9.]{1,64}", text) else None


def term(text: str | None, terms: str) -> str | None:
    """Return `text` if it is one of `terms`, otherwise None."""
    return text if text in terms.split() else None


def plain(text: str) -> str:
    """Return text of one line with what would steer a terminal written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@lru_cache(maxsize=1024)  # so that the files of a series share one string
def text(value: bytes, charset: bytes) -> str:
    """Return the text of a value in the character sets of (0008,0005), in one line."""
    # The commands need this module for their help, and pydicom takes long to import.
    from pydicom.charset import convert_encodings, decode_bytes

    names = [name.strip() for name in charset.decode("ascii", "replace").split("\\")]
    with warnings.catch_warnings():
        # Of unknown character sets and bytes; what can be read is shown.
        warnings.simplefilter("ignore", UserWarning)
        found = decode_bytes(value, convert_encodings(names), set(b"\\\r\n\t\f"))
    return plain(found.strip("\0 "))
