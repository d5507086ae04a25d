"""The Image Pixel Module (PS3.3 C.7.6.3), and options of opening and decoding: checked once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from inspect import signature
from math import isfinite
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_description
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.utils import as_pixel_options
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import IS

from dcmdask.dicom.conversion import NUMBERS, code_string, first_number
from dcmdask.errors import HeaderError, MissingElementError, Note, how_to_pass
from dcmdask.sources import files

NUMBER_OF_FRAMES = 0x00280008
ELEMENTS: Mapping[int, str] = {
    0x00280002: "samples_per_pixel",
    0x00280004: "photometric_interpretation",
    0x00280006: "planar_configuration",
    NUMBER_OF_FRAMES: "number_of_frames",
    0x00280010: "rows",
    0x00280011: "columns",
    0x00280100: "bits_allocated",
    0x00280101: "bits_stored",
    0x00280103: "pixel_representation",
}
_TAGS = {keyword: tag for tag, keyword in ELEMENTS.items()}
OVERRIDES = frozenset(ELEMENTS.values())
# pydicom's decoding options but `view_only`, which `pixel_array` takes; and `inflate_limit`.
DECODING_OPTIONS = frozenset(
    {
        "transfer_syntax_uid",
        "inflate_limit",
        "pixel_keyword",
        "pixel_vr",
        "extended_offsets",
        "allow_excess_frames",
        "correct_unused_bits",
        "be_swap_ow",
        "rle_segment_order",
        "byteorder",
        "apply_jls_sign_correction",
        "apply_j2k_sign_correction",
        "as_rgb",
        "force_rgb",
        "force_ybr",
    }
)
NOT_FOR_DECODERS = frozenset({"transfer_syntax_uid", "inflate_limit", "extended_offsets"})
_ALL_OPTIONS = frozenset({"raw", "decoding_plugin"}) | OVERRIDES | DECODING_OPTIONS
# Options by which an instance is described, and so opened.
HEADER_OPTIONS = OVERRIDES | {"transfer_syntax_uid", "inflate_limit", "allow_excess_frames"}
_INTERPRETATIONS = {"PALETTE COLOR", *PhotometricInterpretation.__members__}
# Photometric Interpretations that pydicom converts to RGB, unless it is told not to.
YBR = ("YBR_FULL", "YBR_FULL_422")
_FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}


@dataclass(frozen=True)
class ImagePixel:
    """Shape and type of the frames of one instance, decoded.

    Attributes
    ----------
    options : mapping
        Options for pydicom's decoders: the elements of group 0028 by pydicom's
        keywords, `pixel_keyword`, and the caller's overrides and decoding options.
    transfer_syntax : UID
    interpretation_given : bool
        Whether Photometric Interpretation is the caller's.
    """

    options: Mapping[str, Any]
    transfer_syntax: UID
    interpretation_given: bool = False

    @cached_property
    def rows(self) -> int:
        """Rows of a frame."""
        return int(self.options["rows"])

    @cached_property
    def columns(self) -> int:
        """Columns of a frame."""
        return int(self.options["columns"])

    @cached_property
    def samples(self) -> int:
        """Samples of a pixel: 1 or 3."""
        return int(self.options["samples_per_pixel"])

    @cached_property
    def bits_allocated(self) -> int:
        """Bits that a sample takes: 1 or a multiple of 8."""
        return int(self.options["bits_allocated"])

    @cached_property
    def bits_stored(self) -> int:
        """Bits Stored; all bits for float pixel data."""
        return int(self.options.get("bits_stored", self.bits_allocated))

    @cached_property
    def signed(self) -> bool:
        """Whether samples are in two's complement."""
        return bool(self.options.get("pixel_representation"))

    @cached_property
    def photometric_interpretation(self) -> str:
        """Photometric Interpretation of the encoded frame; decoding may change it."""
        return str(self.options["photometric_interpretation"])

    @cached_property
    def keyword(self) -> str:
        """``"PixelData"``, ``"FloatPixelData"`` or ``"DoubleFloatPixelData"``."""
        return str(self.options["pixel_keyword"])

    @cached_property
    def number_of_frames(self) -> int:
        """Number of Frames as declared; the frame index has the number of those found."""
        return int(self.options["number_of_frames"])

    @cached_property
    def frame_shape(self) -> tuple[int, ...]:
        """(rows, columns), or (rows, columns, samples) where samples is not 1."""
        shape = (self.rows, self.columns)
        return shape if self.samples == 1 else (*shape, self.samples)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded frames, in the byte order of the data set, as pydicom has it."""
        if self.keyword in _FLOAT_BITS:
            kind = f"f{_FLOAT_BITS[self.keyword] // 8}"
        elif self.bits_allocated == 1:
            kind = "u1"
        else:
            kind = f"{'ui'[self.signed]}{self.bits_allocated // 8}"
        dtype = np.dtype(kind)
        if self.transfer_syntax.is_little_endian != (sys.byteorder == "little"):
            dtype = dtype.newbyteorder("S")
        return dtype

    @cached_property
    def frame_bits(self) -> int:
        """Bits of one frame of native pixel data (PS3.5 8.1.1, PS3.3 C.7.6.3.1.2)."""
        samples = self.rows * self.columns * self.samples
        if self.bits_allocated == 1:
            return samples
        length = samples * (self.bits_allocated // 8)
        if self.photometric_interpretation == "YBR_FULL_422":
            length = length // 3 * 2
        return 8 * length

    @cached_property
    def swaps_words(self) -> bool:
        """Whether 8-bit samples come in big endian words of two (PS3.5 8.1.2)."""
        if self.transfer_syntax.is_encapsulated:
            return False
        return bool(self.options.get("be_swap_ow")) or (
            not self.transfer_syntax.is_little_endian
            and self.bits_allocated // 8 == 1
            and self.keyword == "PixelData"
            and self.options.get("pixel_vr") == "OW"
        )


def header_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some options by which an instance is described, sorted by name."""
    return {name: options[name] for name in sorted(HEADER_OPTIONS & options.keys())}


def inflate_limit(options: Mapping[str, Any]) -> int:
    """Return how many bytes a source may take that is read as a whole, by these options."""
    limit: Any = options.get("inflate_limit", files.INFLATE_LIMIT)
    if not isinstance(limit, int) or limit < 1:
        raise ValueError(f"inflate_limit is a number of bytes, not {limit!r}")
    return limit


def check_options(
    options: Mapping[str, Any], function: Callable[..., Any], among: Iterable[str] = _ALL_OPTIONS
) -> None:
    """Refuse keywords that are neither decoding options nor overrides of group 0028.

    Parameters
    ----------
    options : mapping
    function : callable
        Its own parameters are the first that a misspelt keyword is compared with.
    among : iterable of str, optional
        The options that it takes; by default all of :func:`dcmdask.open_frames`.

    Raises
    ------
    TypeError
    """
    inflate_limit(options)
    known = sorted(among)
    for name in options.keys() - known:
        parameters = signature(function).parameters.values()
        own = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
        near = get_close_matches(name, own, 1) or get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"decoding options are {', '.join(known)}"
        raise TypeError(f"{function.__name__}() has no parameter {name!r}: {hint}")


def image_pixel(
    dataset: Dataset, syntax: UID, overrides: Mapping[str, Any], name: str
) -> tuple[ImagePixel, list[Note]]:
    """Return the checked description, and its oddities.

    Parameters
    ----------
    dataset : Dataset
        The elements of group 0028 that are there.
    syntax : UID
    overrides : mapping
        `pixel_keyword`, and values of the caller's instead of the elements.
    name : str
        Display name of the source.

    Raises
    ------
    MissingElementError
        A required element is absent and not overridden.
    HeaderError
        A value is outside what PS3.3 C.7.6.3 allows and NumPy can hold.
    """
    # Number of Frames has rules of its own for invalid values.
    changes = {k: v for k, v in overrides.items() if k not in NOT_FOR_DECODERS}
    frames, notes = _number_of_frames(
        changes.pop("number_of_frames", _declared_frames(dataset)), name
    )
    tags = [tag for tag in ELEMENTS if tag in dataset and tag != NUMBER_OF_FRAMES]
    others = Dataset({BaseTag(tag): dataset.get_item(tag) for tag in tags})
    try:
        options = as_pixel_options(others, **changes)
    except Exception as error:
        raise HeaderError(
            "an element of group 0028 is invalid",
            source=name,
            detail=str(error),
            code="image-pixel",
        ) from error
    options["number_of_frames"] = frames
    interpretation = options.get("photometric_interpretation")
    if isinstance(interpretation, str):
        # pydicom leaves leading blanks, which a CS may have (PS3.5 6.2).
        options["photometric_interpretation"] = interpretation.strip()
    if syntax.is_encapsulated:
        # Codecs have orders of their own, and the element has no meaning.
        options.setdefault("planar_configuration", 0)
    _check(options, name)
    return ImagePixel(options, syntax, "photometric_interpretation" in overrides), notes


def _declared_frames(dataset: Dataset) -> Any:
    if NUMBER_OF_FRAMES not in dataset:
        return 1
    element: Any = dataset.get_item(NUMBER_OF_FRAMES)
    if not isinstance(element, RawDataElement):
        return element.value
    value = element.value or b""
    if element.VR not in NUMBERS:
        return code_string(value)
    number = first_number(value, element.VR, element.is_little_endian)
    return int(number) if isfinite(number) else value


def _number_of_frames(value: Any, name: str) -> tuple[int, list[Note]]:
    if value in (None, "", 0) or str(value).strip("0") == "":
        text = f"(0028,0008) 'Number of Frames' is {value!r}, which is not valid: 1 is assumed"
        return 1, [Note("number-of-frames", text)]
    try:
        number = IS(value)
        frames = int(number)
        if frames != number:  # pydicom takes "2.5" with a warning
            raise ValueError("it has a fraction")
    except (TypeError, ValueError, OverflowError) as error:
        raise HeaderError(
            "(0028,0008) 'Number of Frames' is not a number; pass number_of_frames to read "
            "the frames that are there",
            source=name,
            detail=f"its value is {value!r}",
            code="number-of-frames",
        ) from error
    if frames < 1:
        raise HeaderError(
            f"(0028,0008) 'Number of Frames' is {frames}; it must be at least 1",
            source=name,
            code="number-of-frames",
        )
    return frames, []


def _check(options: Mapping[str, Any], name: str) -> None:
    """Check the values against PS3.3 C.7.6.3."""
    keyword = options.get("pixel_keyword")
    if keyword not in ("PixelData", *_FLOAT_BITS):
        raise HeaderError(f"pixel_keyword is {keyword!r}", source=name, code="pixel-keyword")
    is_float = keyword in _FLOAT_BITS
    allowed: dict[str, range | tuple[int, ...]] = {
        "samples_per_pixel": (1, 3),
        "rows": range(1, 2**16),
        "columns": range(1, 2**16),
        "bits_allocated": (_FLOAT_BITS[keyword],) if is_float else (1, 8, 16, 32, 64),
    }
    _check_integers(options, allowed, name)
    if not is_float:
        _check_integers(
            options,
            {
                "bits_stored": range(1, options["bits_allocated"] + 1),
                "pixel_representation": (0, 1),
            },
            name,
        )
    if options["samples_per_pixel"] == 3:
        _check_integers(options, {"planar_configuration": (0, 1)}, name)
    interpretation = options.get("photometric_interpretation")
    if interpretation is None:
        raise _missing("photometric_interpretation", name)
    if str(interpretation) not in _INTERPRETATIONS:
        raise HeaderError(
            "(0028,0004) 'Photometric Interpretation' is none of PS3.3 C.7.6.3.1.2",
            source=name,
            detail=f"its value is {str(interpretation)!r}",
            code="photometric-interpretation",
        )


def _check_integers(
    options: Mapping[str, Any], allowed: Mapping[str, range | tuple[int, ...]], name: str
) -> None:
    for keyword, values in allowed.items():
        value = options.get(keyword)
        if value is None or value == "":
            raise _missing(keyword, name)
        if not isinstance(value, int | np.integer) or value not in values:
            bounds = (
                f"from {values.start} to {values.stop - 1}"
                if isinstance(values, range)
                else " or ".join(str(v) for v in values)
            )
            raise HeaderError(
                f"{called(_TAGS[keyword])} must be {bounds}",
                source=name,
                detail=f"its value is {value!r}",
                code=keyword.replace("_", "-"),
            )


def called(tag: int) -> str:
    """Return tag and name of an element of the standard, for a message."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) '{dictionary_description(tag)}'"


def _missing(keyword: str, name: str) -> MissingElementError:
    return MissingElementError(
        f"{called(_TAGS[keyword])} is missing; {how_to_pass(keyword)}",
        source=name,
        code=keyword.replace("_", "-"),
    )
