"""Transformation of stored values that the headers ask for: modality or display values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isnan
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from dcmdask.arrays.display import DisplayFrames
from dcmdask.arrays.lookup_tables import ELEMENTS, Luts, luts
from dcmdask.arrays.modality import ModalityFrames, Transformation, slope_and_intercept
from dcmdask.arrays.real_world import RealWorldFrames
from dcmdask.dicom.description import Described, facts_of
from dcmdask.dicom.header import read_whole_header
from dcmdask.dicom.instance import issue
from dcmdask.dicom.own_elements import RT_DOSE, SEGMENTATIONS
from dcmdask.dicom.quantities.real_world import REAL_WORLD, is_real_world, real_world_mappings
from dcmdask.dicom.quantities.scale_slope import scale_slopes
from dcmdask.dicom.quantities.suv import SUV_UNITS, suv_factors
from dcmdask.dicom.unreadable import check_readable
from dcmdask.errors import Advice, HeaderError, MissingElementError, Note
from dcmdask.pixels.array_like import ArrayLike

_RESCALING = ("slope", "intercept")
# Kinds of values, and the columns of the facts that each is made of.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "stored": (),
    "modality": _RESCALING,
    "philips-float": _RESCALING,
    **dict.fromkeys(SUV_UNITS, _RESCALING),
    REAL_WORLD: (),
    "display": (*_RESCALING, "window_center", "window_width"),
}
# Elements besides Rescale Slope that values are scaled by, and what they become.
_SCALES = {
    RT_DOSE: ("(3004,000E) 'Dose Grid Scaling'", "doses"),
    **dict.fromkeys(SEGMENTATIONS, ("(0062,000E) 'Maximum Fractional Value'", "fractions")),
}
_AS_IT_IS = Advice("values", "modality", "takes it as it is")
_NO_SLOPE = Note(
    "rescale-slope",
    "(0028,1053) 'Rescale Slope' is 0: all values of such a frame are its Rescale Intercept",
)


def are_values(values: Any) -> bool:
    """Return whether there are such values; a label is for real world values only.

    Examples
    --------
    >>> are_values("real-world:ADC"), are_values("modality:ADC")
    (True, False)
    """
    if not isinstance(values, str):
        return False
    kind, colon, label = values.partition(":")
    return kind in _NEEDED and (not colon or (kind == REAL_WORLD and label != ""))


def check_values(values: str, opening: Mapping[str, Any]) -> None:
    """Refuse values that do not exist, and those of which the colours are not known."""
    if not are_values(values):
        known = ", ".join(_NEEDED)
        raise ValueError(f"values is one of {known} and real-world:LABEL, not {values!r}")
    coded = opening.get("raw") or opening.get("force_ybr") or opening.get("as_rgb") is False
    if coded and values != "stored":
        raise ValueError(
            f"raw=True, as_rgb=False and force_ybr=True leave YCbCr, and {values} values do not"
        )


def with_values(
    frames: ArrayLike,
    instances: Sequence[Described],
    values: str,
    overrides: Mapping[str, Any],
) -> ArrayLike:
    """Return `frames` with the values that are asked for.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns[, samples]) of stored values: all frames of `instances`.
    instances : sequence of Described
    values : str
        As for :func:`dcmdask.from_dicom`.
    overrides : mapping
        Options that replaced elements of the headers when the frames were opened.

    Raises
    ------
    HeaderError
        There are more or fewer frames than the headers describe, or a header's lookup tables,
        slope, intercept or window cannot be used. Or it has no Scale Slope of Philips, no
        Real World Value Mapping, not what SUV are made of, or a Modality LUT in its place.

    Warns
    -----
    DcmdaskWarning
        A Rescale Slope is 0, or an oddity of the elements that SUV are made of.
    """
    if values == "stored":
        return frames
    facts = facts_of(instances)
    if len(facts) != len(frames):
        raise HeaderError(
            f"the headers describe {len(facts)} frames and there are {len(frames)}: whose values "
            "are whose is not known",
            source=frames.name,
            advice=[Advice("values", "stored", "needs none")],
        )
    counts = [len(one) for one in instances]
    bits = overrides.get("bits_stored", np.repeat([one.bits_stored for one in instances], counts))
    if is_real_world(values):
        mappings = real_world_mappings(instances, values)
        return RealWorldFrames(frames, mappings, bits)
    for one in instances:
        if one.sop_class_uid in _SCALES:
            _check_scaling(one)
    check_readable(instances, facts, _NEEDED[values])
    for one in instances:
        if values == "display" and one.has_frame_lut:
            raise HeaderError(
                "its functional groups hold a VOI LUT Sequence (0028,3010), which is not applied",
                source=one.source.name,
                advice=[Advice("values", "modality", "leaves it out")],
            )
    slope, intercept = facts["slope"], facts["intercept"]
    if values == "philips-float":
        slope, intercept = _precise(instances, slope, intercept)
    elif values in SUV_UNITS:
        _check_linear(instances, "SUV")
        factors = suv_factors(instances, values)
        slope, intercept = (part * factors for part in slope_and_intercept(slope, intercept))
    if (facts["slope"] == 0).any():
        issue(_NO_SLOPE, frames.name)
    first = instances[0]
    interpretation = overrides.get("photometric_interpretation", first.photometric_interpretation)
    transformation = Transformation(
        bits_stored=bits,
        slope=slope,
        intercept=intercept,
        center=facts["window_center"],
        width=facts["window_width"],
        function=np.char.decode(facts["window_function"], "ascii", "replace"),
        interpretation=interpretation if first.samples == 1 else "RGB",
        floating=values not in ("modality", "display"),
        luts=_luts(instances, overrides.get("photometric_interpretation")),
        signed=overrides.get(
            "pixel_representation", np.repeat([one.signed for one in instances], counts)
        ),
    )
    return (DisplayFrames if values == "display" else ModalityFrames)(frames, transformation)


def _check_scaling(one: Described) -> None:
    """Raise where the values of an RT Dose or a segmentation have no scale."""
    scaling = float(one.facts["slope"][0])
    element, what = _SCALES[one.sop_class_uid]
    is_missing = isnan(scaling) and one.sop_class_uid == RT_DOSE
    if is_missing or scaling == inf:
        kind = MissingElementError if is_missing else HeaderError
        found = "is missing" if is_missing else "is 0 or no number"
        raise kind(
            f"{element} {found}: stored values are no {what} without it",
            source=one.source.name,
            code="scaling",
            advice=[Advice("values", "stored", "needs none")],
        )


def _check_linear(instances: Sequence[Described], what: str) -> None:
    """Raise where modality values are not made by slope and intercept."""
    for one in instances:
        if one.has_modality_lut:
            raise HeaderError(
                f"it has a Modality LUT Sequence (0028,3000), and {what} need a slope",
                source=one.source.name,
                code="modality-lut",
                advice=[_AS_IT_IS],
            )


def _precise(
    instances: Sequence[Described], slope: npt.NDArray[Any], intercept: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return slope and intercept of Philips's precise values."""
    _check_linear(instances, "precise values")
    for one in instances:
        if (one.facts["slope"] == 0).any():
            raise HeaderError(
                "(0028,1053) 'Rescale Slope' is 0, and precise values are divided by it",
                source=one.source.name,
                code="rescale-slope",
                advice=[_AS_IT_IS],
            )
    scale = scale_slopes(instances)
    slope, intercept = slope_and_intercept(slope, intercept)
    return 1 / scale, intercept / (slope * scale)


def _luts(instances: Sequence[Described], override: str | None) -> list[Luts | None]:
    """Return the lookup tables of each frame; nothing where no instance has any.

    `override` is the Photometric Interpretation that replaces those of the headers.
    """
    found: list[Luts | None] = []
    for one in instances:
        tables = None
        interpretation = override or one.photometric_interpretation
        if one.has_lut or interpretation == "PALETTE COLOR":
            dataset = read_whole_header(one.source, UID(one.transfer_syntax), ELEMENTS)
            dataset.PhotometricInterpretation = interpretation
            tables = luts(dataset, one.source.name)
        found += [tables] * len(one)
    return found if any(found) else []


def fill_for(frames: ArrayLike, instances: Sequence[Described], values: str) -> float:
    """Return what stands for a missing frame: NaN, Pixel Padding Value in these units, or 0.

    Raises
    ------
    ValueError
        Pixel Padding Value is not the same for all, or has no place among the values.
    """
    if frames.dtype.kind == "f":
        return np.nan
    paddings: set[float] = {one.padding for one in instances if one.padding is not None}
    if values == "display" or not paddings:
        return 0
    if values == "modality":
        # Of integers the slope is 1.
        intercepts = np.unique(np.nan_to_num(facts_of(instances)["intercept"]))
        paddings = {padding + added for padding in paddings for added in intercepts.tolist()}
        if any(one.has_modality_lut for one in instances):
            paddings = {np.nan}
    limits = np.iinfo(frames.dtype)
    if len(paddings) == 1 and limits.min <= min(paddings) <= limits.max:
        return paddings.pop()
    raise ValueError(
        "frames are missing, and Pixel Padding Value (0028,0120) is not one and the same "
        f"{frames.dtype} among {values} values: pass fill_value"
    )
