"""Real World Value Mappings (PS3.3 C.7.6.16.2.11): of the data set, or of the functional groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dcmdask.dicom.description import Described
from dcmdask.dicom.groups.functional_groups import PER_FRAME, SHARED
from dcmdask.dicom.header import read_header, read_whole_header
from dcmdask.errors import Advice, HeaderError

REAL_WORLD: Final = "real-world"
_MAPPINGS, _CHARACTER_SET = 0x00409096, 0x00080005
_WANTED: Final = frozenset({_CHARACTER_SET, _MAPPINGS})
_GROUPS: Final = frozenset({SHARED, PER_FRAME})
_NAME: Final = "Real World Value Mapping Sequence (0040,9096)"
_ATOMS: Final = (
    "%|1|10\\*|\\[hnsf'U\\]|\\[ppm\\]|deg|min|h|d|u|"
    "([EPTGMkhdcmunpf]|da)?(m|g|s|K|mol|cd|rad|l|L|Bq|Ci|Gy|Sv|eV|Hz|N|Pa|J|W|C|V|F|Ohm|S|T|Wb|H|Cel)"
)
_ANNOTATIONS: Final = (
    r"\{(SUV(bw|lbm|bsa|ibw|lbm\(James128\)|lbm\(Janma\))|(prop)?counts|ratio|fraction|score)\}"
)
# Of a form that no name has, since units are stored.
_UNIT: Final = re.compile(
    rf"({_ANNOTATIONS})?(/?\(?\d*({_ATOMS})[-+]?\d*\)?({_ANNOTATIONS})?"
    rf"([./]\(?\d*({_ATOMS})[-+]?\d*\)?({_ANNOTATIONS})?)*)?"
)


@dataclass(frozen=True, eq=False)
class RealWorldMapping:
    """One mapping of stored values to real world values.

    Attributes
    ----------
    label : str
        LUT Label (0040,9210).
    units : str
        Code value of the measurement units in UCUM; empty where they are not in UCUM.
    first, last : float
        The stored values between which it is valid; infinity where there is no end.
    slope, intercept : float
        Of a linear mapping.
    table : ndarray or None
        Values from `first` to `last`, of one that is not linear.
    """

    label: str
    units: str
    first: float
    last: float
    slope: float = 1.0
    intercept: float = 0.0
    table: npt.NDArray[np.float64] | None = None


def is_real_world(values: str) -> bool:
    """Return whether values are real world values, of the only mapping or of one with a label."""
    return values.partition(":")[0] == REAL_WORLD


def real_world_mappings(instances: Sequence[Described], values: str) -> list[RealWorldMapping]:
    """Return the mapping of each frame, from the headers, which are read one after the other.

    Those of a frame come before those that all frames share, and these before those at the top
    level of the data set.

    Parameters
    ----------
    instances : sequence of Described
    values : str
        ``"real-world"``; or ``"real-world:LABEL"``, with the LUT Label of the mapping to take
        where a frame has several.

    Raises
    ------
    HeaderError
        A frame has no mapping (``real-world-value-mapping``), or not one and only one with this
        label (``real-world-label``), which the error lists; or it cannot be read
        (``unreadable``).
    """
    _, _, label = values.partition(":")
    return [mapping for one in instances for mapping in _of_instance(one, label)]


def real_world_units(instances: Sequence[Described], values: str) -> str | None:
    """Return the units of all frames, or None where they differ or are not in UCUM."""
    found = {mapping.units for mapping in real_world_mappings(instances, values)}
    return (found.pop() or None) if len(found) == 1 else None


def _of_instance(one: Described, label: str) -> list[RealWorldMapping]:
    """Return the mapping of each frame of an instance."""
    header = read_header(one.source, _WANTED, one.transfer_syntax, _GROUPS)
    dataset = header.dataset()
    if header.sequences or header.stopped is not None:
        dataset = read_whole_header(one.source, UID(one.transfer_syntax), _WANTED | _GROUPS)
    try:
        shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
        common = _mappings(shared[0], one) or _mappings(dataset, one)
        groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
        every = [_mappings(group, one) or common for group in groups[: len(one)]]
    except HeaderError:
        raise
    except Exception as error:
        # pydicom raises anything where sequences are damaged.
        raise _error(one, "cannot be read", "unreadable", f"pydicom says: {error}") from error
    every += [common] * (len(one) - len(every))
    return [_chosen(mappings, label, one, number) for number, mappings in enumerate(every)]


def _error(one: Described, message: str, code: str, detail: str = "", **more: Any) -> HeaderError:
    name = one.source.name
    return HeaderError(f"{_NAME} {message}", source=name, code=code, detail=detail, **more)


def _chosen(
    mappings: Sequence[RealWorldMapping], label: str, one: Described, number: int
) -> RealWorldMapping:
    """Return the mapping of a frame that has this label, or the only one."""
    found = [mapping for mapping in mappings if label in ("", mapping.label)]
    if len(found) == 1:
        return found[0]
    frame = number if len(one) > 1 else None
    if not mappings:
        advice = [Advice("values", "modality", "needs none")]
        message, code = "is missing", "real-world-value-mapping"
        raise _error(one, message, code, frame=frame, advice=advice)
    raise _error(
        one,
        f"has {len(found)} of {len(mappings)} mappings with this label"
        if label
        else f"has {len(mappings)} mappings",
        "real-world-label",
        "their labels are " + ", ".join(repr(mapping.label) for mapping in mappings),
        frame=frame,
        advice=[Advice("values", "real-world:LABEL", "takes the one of a LUT Label (0040,9210)")],
    )


def _mappings(item: Dataset, one: Described) -> list[RealWorldMapping]:
    """Return the mappings of a data set or a functional group."""
    return [_mapping(each, one) for each in item.get("RealWorldValueMappingSequence") or ()]


def _mapping(item: Dataset, one: Described) -> RealWorldMapping:
    first, last = (_limit(item, which, one) for which in ("First", "Last"))
    if first is not None and last is not None and first > last:
        raise _error(one, "maps values from a first one that is above the last one", "unreadable")
    label = str(item.get("LUTLabel") or "").strip()
    if (entries := item.get("RealWorldValueLUTData")) is None:
        numbers = [item.get(f"RealWorldValue{name}") for name in ("Slope", "Intercept")]
        if None in numbers:
            raise _error(one, "has neither slope and intercept nor a table", "unreadable")
        slope, intercept = map(float, numbers)
        if not isfinite(slope) or not isfinite(intercept):
            raise _error(one, "has a slope or an intercept that is no number", "unreadable")
        limits = (-inf if first is None else first, inf if last is None else last)
        return RealWorldMapping(label, _units(item), *limits, slope, intercept)
    if isinstance(entries, bytes):
        # UN, as of tables that are too long for a VR of FD (PS3.5 6.2.2).
        entries = np.frombuffer(entries, "<f8" if _is_little_endian(one) else ">f8")
    table = np.atleast_1d(np.asarray(entries, np.float64))
    if first is None or last is None or len(table) != last - first + 1:
        raise _error(
            one,
            f"has a table of {len(table)} values, and not one for each of those between the first "
            "and the last value that are mapped",
            "unreadable",
        )
    return RealWorldMapping(label, _units(item), first, last, table=table)


def _limit(item: Dataset, which: str, one: Described) -> float | None:
    """Return the first or the last value that is mapped, or None."""
    name = f"RealWorldValue{which}ValueMapped"
    if (exact := item.get(f"DoubleFloat{name}")) is not None:
        return float(exact)
    value = item.get(name)
    if value is None or one.pixel_keyword != "PixelData":
        return None if value is None else float(value)
    # 16 bits, with the sign that Pixel Representation gives them whatever their VR says.
    if isinstance(value, bytes):
        value = int.from_bytes(value, "little" if _is_little_endian(one) else "big")
    number = int(value)
    if one.signed and 2**15 <= number < 2**16:
        return float(number - 2**16)
    return float(number % 2**16 if not one.signed and -(2**15) <= number < 0 else number)


def _is_little_endian(one: Described) -> bool:
    return UID(one.transfer_syntax).is_little_endian


def _units(item: Dataset) -> str:
    """Return the measurement units in UCUM."""
    code = next(iter(item.get("MeasurementUnitsCodeSequence") or ()), Dataset())
    found = str(code.get("CodeValue") or "").strip()
    scheme = str(code.get("CodingSchemeDesignator") or "").strip()
    return found if scheme == "UCUM" and _UNIT.fullmatch(found) else ""
