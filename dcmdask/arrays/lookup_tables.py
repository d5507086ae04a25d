"""Lookup tables of a data set: Modality LUT, VOI LUT, palette; read once, plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.tag import Tag

from dcmdask.dicom.conversion import first_number
from dcmdask.errors import HeaderError

_COLOURS = ("Red", "Green", "Blue")
_KEYWORDS = [
    "PhotometricInterpretation",
    "PixelRepresentation",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
]
_INTERCEPT = Tag("RescaleIntercept")
# The elements that lookup tables are read from.
ELEMENTS = tuple(map(Tag, _KEYWORDS))


@dataclass(frozen=True, eq=False)
class Lut:
    """One lookup table (PS3.3 C.11.1.1.1, C.11.2.1.1, C.7.6.3.1.5).

    Attributes
    ----------
    first : int
        The value that the first entry is for. Smaller ones get the first entry too, and
        values behind the last entry get the last.
    bits : int
        Of an entry, as the descriptor says, or as the largest entry needs.
    entries : ndarray
        (entries,) of uint8 or uint16; of a palette (entries, 3): red, green, blue.
    """

    first: int
    bits: int
    entries: npt.NDArray[Any]

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the entries for `values`; a fraction counts as the integer below, NaN as first."""
        # As floats, so that no value wraps round; none is so large that its neighbour counts.
        position = np.fmin(np.fmax(values - float(self.first), 0), len(self.entries) - 1)
        found: npt.NDArray[Any] = self.entries[position.astype(np.intp)]
        return found


@dataclass(frozen=True, eq=False)
class Luts:
    """The lookup tables of one data set; each None where there is none.

    Attributes
    ----------
    modality, voi : Lut or None
        Of the first item of Modality LUT Sequence (0028,3000) and of VOI LUT Sequence
        (0028,3010).
    palette : Lut or None
        Palette Color Lookup Table, where Photometric Interpretation asks for it.
    """

    modality: Lut | None = None
    voi: Lut | None = None
    palette: Lut | None = None


def luts(dataset: Dataset, name: str = "<Dataset>") -> Luts:
    """Read the lookup tables of a data set.

    Parameters
    ----------
    dataset : pydicom.Dataset
        Such as :attr:`FrameArray.dataset`.
    name : str, optional
        Of its source, for messages.

    Raises
    ------
    HeaderError
        A table contradicts its descriptor, or pydicom cannot read it.

    Examples
    --------
    >>> from pydicom import dcmread
    >>> from pydicom.data import get_testdata_file
    >>> palette = luts(dcmread(get_testdata_file("examples_palette.dcm"))).palette
    >>> palette.first, palette.bits, palette.entries.shape
    (0, 16, (256, 3))
    """
    try:
        modality = _in_sequence(dataset, "ModalityLUTSequence")
        voi = _in_sequence(dataset, "VOILUTSequence")
        if voi is not None and modality is None and _may_be_negative(dataset):
            # In implicit VR pydicom takes the first value for unsigned, as the pixels are;
            # what counts is what goes in (PS3.3 C.11.2.1.1).
            voi = replace(voi, first=(voi.first + 2**15) % 2**16 - 2**15)
        return Luts(modality, voi, _palette(dataset))
    except Exception as error:
        raise HeaderError(
            "a lookup table cannot be read", source=name, detail=str(error), code="lookup-table"
        ) from error


def _may_be_negative(dataset: Dataset) -> bool:
    if dataset.get("PixelRepresentation") == 1:
        return True
    intercept = dataset.get_item(_INTERCEPT).value if _INTERCEPT in dataset else None
    if isinstance(intercept, bytes):
        return first_number(intercept, "DS", True) < 0
    return float(intercept or 0) < 0


def _in_sequence(dataset: Dataset, keyword: str) -> Lut | None:
    items = dataset.get(keyword)
    if not items or items[0].get("LUTDescriptor") is None or items[0].get("LUTData") is None:
        return None
    count, first, bits = _descriptor(items[0].LUTDescriptor)
    entries = _numbers(items[0].LUTData, count, _is_little_endian(dataset))
    return _checked(first, bits, entries)


def _palette(dataset: Dataset) -> Lut | None:
    if dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
        return None
    descriptor = dataset.get("RedPaletteColorLookupTableDescriptor")
    if descriptor is None:
        return None
    count, first, bits = _descriptor(descriptor)
    if "RedPaletteColorLookupTableData" in dataset:
        # pydicom takes the bytes for little endian whatever the transfer syntax is.
        order = _is_little_endian(dataset)
        data = [dataset[f"{colour}PaletteColorLookupTableData"].value for colour in _COLOURS]
        return _checked(first, bits, np.stack([_numbers(d, count, order) for d in data], axis=-1))
    if bits == 8 and count > 256:
        # pydicom's positions in a table of 8-bit entries have 8 bits themselves.
        raise ValueError(f"{count} segmented entries of 8 bits are more than 256")
    # The table, segments expanded, is what a ramp of all values becomes.
    ramp = np.arange(first, first + count, dtype=np.int32)
    return _checked(first, bits, apply_color_lut(ramp, dataset)[:, :3])


def _descriptor(descriptor: Any) -> tuple[int, int, int]:
    """Return number of entries, first value mapped, and bits of an entry."""
    count, first, bits = (int(number) for number in descriptor)
    if not 1 <= bits <= 16:
        raise ValueError(f"a LUT Descriptor says {bits} bits for each entry; it must be 1 to 16")
    # 0 stands for 65536, which has no place in 16 bits; others may have been taken for signed.
    return count % 2**16 or 2**16, first, bits


def _numbers(data: Any, count: int, little_endian: bool) -> npt.NDArray[Any]:
    """Return `count` entries of LUT data, that comes as bytes or as integers."""
    if not isinstance(data, bytes):
        numbers = np.atleast_1d(np.asarray(data, np.int64))
    elif len(data) >= 2 * count:
        numbers = np.frombuffer(data, "<u2" if little_endian else ">u2", len(data) // 2)
    else:
        numbers = np.frombuffer(data, "u1")
    if len(numbers) < count:
        raise ValueError(f"there are {len(numbers)} entries, and the LUT Descriptor says {count}")
    return numbers[:count]


def _checked(first: int, bits: int, entries: npt.NDArray[Any]) -> Lut:
    if entries.min() < 0 or entries.max() >= 2**16:
        raise ValueError(
            f"entries are from {entries.min()} to {entries.max()}; they must be 0 to 65535"
        )
    if entries.dtype == np.uint8:
        bits = min(bits, 8)
    bits = max(bits, int(entries.max()).bit_length())
    return Lut(first, bits, entries.astype(np.uint8 if bits <= 8 else np.uint16))


def _is_little_endian(dataset: Dataset) -> bool:
    little_endian = dataset.original_encoding[1]
    if little_endian is None:
        meta = getattr(dataset, "file_meta", None) or {}
        syntax = meta.get("TransferSyntaxUID")
        return syntax is None or bool(syntax.is_little_endian)
    return little_endian
