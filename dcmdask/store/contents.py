"""Contents of a store: frames, dimensions, coordinates, attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, SegmentationStorage

from dcmdask.archive.from_dicom import open_described
from dcmdask.archive.stacks import stacks_of
from dcmdask.arrays.chunks import matrix_of
from dcmdask.arrays.concatenation import opening_of
from dcmdask.arrays.transformation import fill_for, with_values
from dcmdask.dicom.description import Described, facts_of
from dcmdask.dicom.header import read_whole_header
from dcmdask.dicom.image_pixel import DECODING_OPTIONS
from dcmdask.geometry.coordinates import varying_coordinates
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.grid import is_tilted
from dcmdask.geometry.repair import OnIrregular
from dcmdask.images.assembly import assemble
from dcmdask.images.objects.slide import flavour_of, no_slide
from dcmdask.images.tiled import absent_colour
from dcmdask.images.volume import Stack
from dcmdask.labelled.labels import (
    Labels,
    coordinates,
    physical,
    with_units,
)
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.store.provenance import (
    Json,
    decoding,
    elements,
    identifiers,
    jsonable,
    technical_header,
)

# Options of a FrameArray besides pydicom's.
_HOW = ("raw", "decoding_plugin")
DIMENSION_NAMES = ("frame", "row", "column", "sample")
# SOP classes of which values are labels: the mean of two labels is a third one, or none.
_LABELS = frozenset({SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7"})


@dataclass(frozen=True)
class Contents:
    """Contents of a store.

    Attributes
    ----------
    frames : array-like
        (..., rows, columns[, samples]), with the values to store.
    dims : tuple of str
        Names of the axes of `frames`.
    coordinates : dict
        Name to (dims, values, attributes).
    attributes : dict
        JSON values without personal data.
    dataset : Dataset
        Header of the first instance, without pixel data.
    values : str
    instances : sequence of Described
        Descriptions of the instances; empty for a data set or an array of frames.
    opening : mapping
        Decoding options that the source was opened with, whoever gave them.
    arrangement : Arrangement or None
        Arrangement of a stack; None for the frames of one file.
    """

    frames: ArrayLike
    dims: tuple[str, ...]
    coordinates: dict[str, Labels]
    attributes: dict[str, Json]
    dataset: Dataset = field(repr=False)
    values: str
    instances: Sequence[Described]
    opening: Mapping[str, Any]
    arrangement: Arrangement | None = None

    @property
    def colour(self) -> bool:
        """Whether there are samples."""
        return self.dims[-1] == "sample"

    @property
    def tile(self) -> tuple[int, int] | None:
        """Rows and columns of the tiles that frames are put together of; None for others."""
        matrix = matrix_of(self.frames)
        return None if matrix is None else matrix.tile

    @property
    def is_label_map(self) -> bool:
        """Whether values are labels or indices of a palette, of which no mean can be taken."""
        return any(
            one.sop_class_uid in _LABELS
            or (self.values != "display" and one.photometric_interpretation == "PALETTE COLOR")
            for one in self.instances
        )

    def fill_value(self, wanted: float | None) -> float | list[float]:
        """Return the value of frames or tiles that cannot be decoded, or one for each sample.

        By default that of missing tiles in colour, and otherwise Pixel Padding Value.
        """
        if wanted is not None:
            return wanted
        absent = absent_colour(self.frames)
        if absent is None:
            return fill_for(self.frames, self.instances, self.values)
        found: float | list[float] = absent.tolist()
        return found


def contents(
    src: Any,
    *,
    values: str,
    on_irregular: OnIrregular,
    order_by: str | Sequence[str] | None = None,
    tolerance: float | None = None,
    fill_value: float | None,
    with_identifiers: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **opening: Any,
) -> Contents:
    """Return the contents of a store made of `src`; nothing is decoded.

    `src` is a stack, or the file or frames that :func:`dcmdask.store.source.source_of` returns;
    the label, the overview or the thumbnail of a slide is refused. Other parameters are those of
    :func:`dcmdask.to_zarr`.
    """
    if isinstance(src, Stack):
        _check_shown(src.instances)
        stack = src.ordered_by(order_by).within(tolerance)
        opening = opening_of(stack.instances, opening)
        return _of_stack(stack, values, on_irregular, fill_value, opening, with_identifiers)
    if on_irregular != "error" or order_by or tolerance is not None:
        raise ValueError(
            "on_irregular, order_by and tolerance are for series: the frames of one file stay in "
            "the order that they are stored in; pass scan(path)[0] to arrange them"
        )
    if isinstance(src, FrameArray):
        if values != "stored":
            raise TypeError(f"a FrameArray holds stored values, not {values}: pass the path")
        how = src.decoding
        opening = {name: how[name] for name in how.keys() & {*_HOW, *DECODING_OPTIONS}}
        return _of_frames(src, src, [], values, opening, with_identifiers)
    stored, described = open_described(src, values, storage_options, **opening)
    _check_shown(described)
    frames = with_values(stored, described, values, opening)
    return _of_frames(stored, frames, described, values, opening, with_identifiers)


def _check_shown(described: Sequence[Described]) -> None:
    """Refuse what may show names."""
    if any(flavour_of(image) not in ("", "VOLUME") for image in described):
        raise no_slide(described)


def _of_frames(
    stored: FrameArray,
    frames: ArrayLike,
    described: Sequence[Described],
    values: str,
    opening: Mapping[str, Any],
    with_identifiers: bool,
) -> Contents:
    found: dict[str, Labels] = {}
    told: dict[str, Any] = {}
    for one in described:
        if len(one) == len(frames):
            found = with_units(varying_coordinates(one.facts, ("frame",), np.arange(len(one))))
            told = physical(described, one.facts, values)
            found |= _in_plane(one, frames)
    how = stored.decoding
    syntaxes = [str(stored.transfer_syntax)]
    facts = facts_of(described)
    named = identifiers(stored.dataset, [stored.name], facts) if with_identifiers else {}
    return Contents(
        frames,
        DIMENSION_NAMES[: frames.ndim],
        found,
        {
            "values": values,
            **{name: jsonable(value) for name, value in told.items()},
            "source": {"token": frames.token, "decoding": decoding(how)},
            "header": technical_header(
                stored.dataset, syntaxes, how, values, stored.interpretation_given
            ),
            **named,
        },
        stored.dataset,
        values,
        described,
        opening,
    )


def _in_plane(one: Described, frames: ArrayLike) -> dict[str, Labels]:
    """Return x and y of the frames of a file, as they are where they are arranged.

    Not of frames that begin beside one another, such as tiles: x and y would be those of the first.
    """
    stacks = stacks_of(one.series_uid, (one,))
    if len(stacks) > 1 or stacks[0].instances[0].tiles > 1 or stacks[0].instances[0].stored:
        return {}
    (stack,) = stacks
    geometry = stack.geometry
    if geometry is not None and (
        is_tilted(geometry.shear) or "position" in {found.code for found in geometry.irregularities}
    ):
        return {}
    along = {"y": "row", "x": "column"}
    dims = (*stack.arrangement.dims, "y", "x")
    shape = (*stack.arrangement.numbers.shape, *frames.shape[1:3])
    found = coordinates(shape, dims, stack.arrangement, (one,), stack.facts)
    return {
        name: (tuple(along[dim] for dim in of), values, attributes)
        for name, (of, values, attributes) in found.items()
        if name in (*along, "patient")
    }


def _of_stack(
    stack: Stack,
    values: str,
    on_irregular: OnIrregular,
    fill_value: float | None,
    opening: Mapping[str, Any],
    with_identifiers: bool,
) -> Contents:
    stack, frames, arrangement = assemble(
        stack, values, on_irregular, fill_value=fill_value, **opening
    )
    dims = (*arrangement.dims, "y", "x", "sample")[: frames.ndim]
    first = stack.instances[0]
    syntaxes = sorted({one.transfer_syntax for one in stack.instances})
    how = {
        "photometric_interpretation": first.photometric_interpretation,
        # Floating point has no Bits Stored.
        **({"bits_stored": first.bits_stored} if first.pixel_keyword == "PixelData" else {}),
        "raw": False,
        **opening,
    }
    dataset = read_whole_header(first.source, UID(first.transfer_syntax))
    given = "photometric_interpretation" in opening
    header = technical_header(dataset, syntaxes, how, values, given)
    for keyword in _differing(stack):
        header.pop(keyword, None)
    if len(stack.instances) > 1:
        _only_of_all(header)
    if any(one.lossy for one in stack.instances):
        header["LossyImageCompression"] = "01"
        if len(stack.instances) > 1:
            header |= _lossy_history(stack)
    sources = [one.source.name for one in stack.instances]
    named = identifiers(dataset, sources, stack.facts) if with_identifiers else {}
    told = stack.attributes(values)
    return Contents(
        frames,
        dims,
        coordinates(frames.shape, dims, arrangement, stack.instances, stack.facts),
        {
            **{name: jsonable(value) for name, value in told.items()},
            "source": {"token": frames.token, "decoding": decoding(how)},
            "header": header,
            **named,
        },
        dataset,
        values,
        stack.instances,
        opening,
        arrangement,
    )


def _only_of_all(header: dict[str, Json]) -> None:
    """Remove elements of a header that are not known to be the same in all instances."""
    for keyword in ("FrameTime", "CineRate"):
        header.pop(keyword, None)
    for keyword in ("WindowCenter", "WindowWidth"):
        if isinstance(told := header.get(keyword), list):
            header[keyword] = told[0]


def _lossy_history(stack: Stack) -> dict[str, Json]:
    """Return ratios and methods of lossy compression of all instances."""
    found: dict[str, list[Json]] = {}
    for one in stack.instances:
        if one.lossy:
            told = elements(read_whole_header(one.source, UID(one.transfer_syntax)))
            for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
                values = found.setdefault(keyword, [])
                if keyword in told and told[keyword] not in values:
                    values.append(told[keyword])
    return {keyword: values[0] if len(values) == 1 else values for keyword, values in found.items()}


def _differing(stack: Stack) -> list[str]:
    """Return the keywords of elements that are not the same for all frames."""
    columns = {
        "WindowCenter": "window_center",
        "WindowWidth": "window_width",
        "RescaleSlope": "slope",
        "RescaleIntercept": "intercept",
        "SliceThickness": "thickness",
    }
    # Compared as bytes, since an absent number is not equal to itself.
    found = [
        keyword
        for keyword, column in columns.items()
        if len({value.tobytes() for value in stack.facts[column]}) > 1
    ]
    for keyword, attribute in (
        ("SOPInstanceUID", "sop_instance_uid"),
        ("SOPClassUID", "sop_class_uid"),
        ("StudyInstanceUID", "study_uid"),
        ("BitsStored", "bits_stored"),
        ("Modality", "modality"),
    ):
        if len({getattr(one, attribute) for one in stack.instances}) > 1:
            found.append(keyword)
    return found
