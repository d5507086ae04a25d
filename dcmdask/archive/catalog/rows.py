"""Rows of a catalog: what describes an instance as columns of Arrow, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dcmdask.archive.catalog.columns import arrays_of, bytes_of, lists, structs
from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, RawValue
from dcmdask.dicom.frame_facts import FACTS
from dcmdask.dicom.frame_index import FrameIndex
from dcmdask.dicom.image_pixel import image_pixel
from dcmdask.dicom.offsets import ItemSpans, NativeSpans, Spans, spans_from_lengths
from dcmdask.dicom.own_elements import NONE, OwnElements
from dcmdask.dicom.private.mosaic import NO_MOSAIC, Mosaic
from dcmdask.dicom.texts import IDENTIFIERS
from dcmdask.dicom.tiles.positions import PLACE
from dcmdask.dicom.tiles.tiling import MOST_PLACES, OpticalPath, Tiling
from dcmdask.errors import Note
from dcmdask.sources.files import LocalFile, Stored

__all__ = ["SCHEMA", "described", "table_of"]

# Columns that are one attribute of a `Described`: elements by their keywords, facts by ours.
_TEXTS = {
    "SOPClassUID": "sop_class_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "StudyInstanceUID": "study_uid",
    "SeriesInstanceUID": "series_uid",
    "FrameOfReferenceUID": "frame_of_reference_uid",
    "Modality": "modality",
    "SeriesDescription": "series_description",
    "TransferSyntaxUID": "transfer_syntax",
    "PhotometricInterpretation": "photometric_interpretation",
    "Units": "units",
    "pixel_keyword": "pixel_keyword",
    "spacing_source": "spacing_source",
}
_INTEGERS = {
    "Rows": "rows",
    "Columns": "columns",
    "SamplesPerPixel": "samples",
    "BitsAllocated": "bits_allocated",
    "BitsStored": "bits_stored",
}
_BOOLS = {
    "signed": "signed",
    "has_lut": "has_lut",
    "has_modality_lut": "has_modality_lut",
    "has_frame_lut": "has_frame_lut",
    "lossy": "lossy",
}
_LISTS = {"ImageType": "image_type", "dimensions": "dimensions"}

# Columns that a source, and a frame index, is made of.
_LOCATED = ("path", "bytes", "modified", "key", "etag")
_INDEXED = (
    *_LOCATED,
    *("indexed_by", "pixel_vr", "PlanarConfiguration", "NumberOfFrames"),
    *("first", "native_frames", "native_unit", "notes"),
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"),
    *("pixel_keyword", "BitsStored", "signed", "TransferSyntaxUID"),
)

_ENCODINGS = {
    "implicit little endian": IMPLICIT_LITTLE,
    "explicit little endian": EXPLICIT_LITTLE,
    "explicit big endian": EXPLICIT_BIG,
}
_CALLED = {encoding: name for name, encoding in _ENCODINGS.items()}


def _type_of(dtype: np.dtype[Any]) -> pa.DataType:
    if dtype.shape:
        return pa.list_(pa.float64())
    return pa.binary() if dtype.kind == "S" else pa.float64()


_FACTS = pa.struct([(name, _type_of(FACTS[name])) for name in FACTS.names or ()])
_PLACE = pa.struct([("plane", pa.uint32()), ("top", pa.int32()), ("left", pa.int32())])
_OWN = pa.struct([("tag", pa.uint32()), ("vr", pa.string()), ("value", pa.binary())])
_NOTE = pa.struct([("code", pa.string()), ("text", pa.string())])

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        # Nanoseconds since 1970, of local files; of others a checksum, an entity tag or the like.
        pa.field("modified", pa.int64()),
        pa.field("key", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("frames", pa.int64(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
        *(pa.field(name, pa.int32(), nullable=False) for name in _INTEGERS),
        *(pa.field(name, pa.bool_(), nullable=False) for name in _BOOLS),
        *(pa.field(name, pa.list_(pa.string()), nullable=False) for name in _LISTS),
        pa.field("PixelPaddingValue", pa.float64()),
        pa.field("facts", pa.list_(_FACTS), nullable=False),
        pa.field("index_values", pa.list_(pa.uint32()), nullable=False),
        pa.field("own", pa.list_(_OWN), nullable=False),
        pa.field("own_encoding", pa.string(), nullable=False),
        # JSON, of those that have one.
        pa.field("mosaic", pa.string()),
        pa.field("tiling", pa.string()),
        pa.field("planes", pa.list_(_FACTS)),
        pa.field("places", pa.list_(_PLACE)),
        # The frame index, of those that have one.
        pa.field("indexed_by", pa.string()),
        pa.field("pixel_vr", pa.string()),
        pa.field("PlanarConfiguration", pa.int8()),
        pa.field("NumberOfFrames", pa.int64()),
        pa.field("first", pa.int64()),
        pa.field("native_frames", pa.int64()),
        pa.field("native_unit", pa.int8()),
        pa.field("lengths", pa.list_(pa.int64())),
        pa.field("gaps", pa.list_(pa.int64())),
        pa.field("notes", pa.list_(_NOTE)),
        # Of catalogs that were asked to keep them.
        pa.field("identifiers", pa.struct([(name, pa.string()) for name in IDENTIFIERS])),
    ],
    metadata={"dcmdask.catalog": "1"},
)
"""Schema of the files under ``instances/``; the value of its metadata is its version."""


# To columns


def table_of(instances: Sequence[Described], paths: Sequence[str]) -> pa.Table:
    """Return the rows of instances.

    Parameters
    ----------
    instances : sequence of Described
        Of local or remote files, described without overrides or all with the same.
    paths : sequence of str
        Of each, relative to the root of the catalog.
    """
    tilings = [one.tiling for one in instances]
    local = [isinstance(one.source, LocalFile) for one in instances]
    found: dict[str, Any] = {
        "path": list(paths),
        "bytes": [one.source.size for one in instances],
        "modified": [getattr(one.source, "modified", None) for one in instances],
        "key": [getattr(one.source, "key", None) for one in instances],
        "etag": [None if near else _etag(one) for one, near in zip(instances, local, strict=True)],
        "frames": [len(one) for one in instances],
        "PixelPaddingValue": [one.padding for one in instances],
        "index_values": lists([np.frombuffer(one.index_values, "<u4") for one in instances]),
        "facts": structs([one.table for one in instances], FACTS, _FACTS),
        "own": [_own_rows(one.own) for one in instances],
        "identifiers": [
            dict(zip(IDENTIFIERS, one.identifiers, strict=True)) if one.identifiers else None
            for one in instances
        ],
        "own_encoding": [_CALLED[one.own.encoding] for one in instances],
        "mosaic": [
            None if one.mosaic == NO_MOSAIC else json.dumps(one.mosaic) for one in instances
        ],
        "tiling": [one and _tiling_text(one) for one in tilings],
        "planes": structs(
            [one.tiling.table if one.tiling else None for one in instances], FACTS, _FACTS
        ),
        "places": structs(
            [one.tiling.places if one.tiling else None for one in instances], PLACE, _PLACE
        ),
    }
    for names in (_TEXTS, _INTEGERS, _BOOLS, _LISTS):
        for name, attribute in names.items():
            found[name] = [getattr(one, attribute) for one in instances]
    found.update(_index_columns([one.index for one in instances]))
    arrays = [
        given if isinstance(given, pa.Array) else pa.array(given, field.type)
        for field in SCHEMA
        for given in [found[field.name]]
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _etag(one: Described) -> str | None:
    return getattr(one.source, "etag", "") or None


def _own_rows(own: OwnElements) -> list[dict[str, Any]]:
    return [{"tag": tag, "vr": raw.vr, "value": raw.value} for tag, raw in own.values]


def _tiling_text(tiling: Tiling) -> str:
    kept = {**tiling.__dict__}
    for name in ("table", "places", "_by_row"):
        kept.pop(name, None)
    return json.dumps(kept)


def _first(spans: Spans) -> int:
    if isinstance(spans, ItemSpans):
        return spans.packed[0]
    assert isinstance(spans, NativeSpans), "frames by number are in no catalog"
    return spans.start


def _index_columns(indices: Sequence[FrameIndex | None]) -> dict[str, Any]:
    def each(value: Callable[[FrameIndex], Any]) -> list[Any]:
        return [None if one is None else value(one) for one in indices]

    def of_options(name: str) -> list[Any]:
        return each(lambda one: one.pixels.options.get(name))

    def of_native(attribute: str) -> list[Any]:
        return each(lambda one: getattr(one.spans, attribute, None))

    packed = each(lambda one: one.spans.packed if isinstance(one.spans, ItemSpans) else None)
    return {
        "indexed_by": each(lambda one: one.indexed_by),
        "pixel_vr": of_options("pixel_vr"),
        "PlanarConfiguration": of_options("planar_configuration"),
        "NumberOfFrames": of_options("number_of_frames"),
        "first": each(lambda one: _first(one.spans)),
        "native_frames": of_native("count"),
        "native_unit": of_native("unit"),
        "lengths": lists([None if one is None else one[1] for one in packed]),
        "gaps": lists([None if one is None else one[2] for one in packed]),
        "notes": each(lambda one: [note._asdict() for note in one.notes]),
    }


# From columns


def described(
    table: pa.Table,
    source: Callable[[Mapping[str, Any]], Stored],
    overrides: tuple[tuple[str, Any], ...] = (),
    *,
    with_index: bool = True,
) -> list[Described]:
    """Return what rows describe.

    Parameters
    ----------
    table : pyarrow.Table
        Of `SCHEMA`.
    source : callable
        Takes `path`, `bytes`, `modified`, `key` and `etag` of a row; returns its source.
    overrides : tuple, optional
        Options that all were described with.
    with_index : bool
        Whether frame indices are made.

    Raises
    ------
    ValueError, TypeError, KeyError, DcmdaskError
        A row says what cannot be.
    """
    table = table.combine_chunks()
    plain = {
        field.name: table[field.name].to_pylist()
        for field in SCHEMA
        if not pa.types.is_nested(field.type) or field.name in ("own", "notes", *_LISTS)
    }
    facts, planes = (bytes_of(table, name, FACTS) for name in ("facts", "planes"))
    places, numbers = bytes_of(table, "places", PLACE), arrays_of(table, "index_values")
    lengths, gaps = arrays_of(table, "lengths"), arrays_of(table, "gaps")
    attributes = {**_TEXTS, **_INTEGERS, **_BOOLS}
    columns = zip(*(plain[name] for name in attributes), strict=True)
    known: dict[Any, Any] = {}
    found = []
    for at, values in enumerate(columns):
        row = {name: plain[name][at] for name in (_INDEXED if with_index else _LOCATED)}
        own = tuple(map(_element, plain["own"][at]))
        mosaic, tiling = plain["mosaic"][at], plain["tiling"][at]
        one = Described(
            source=source(row),
            **dict(zip(attributes.values(), values, strict=True)),
            image_type=tuple(plain["ImageType"][at]),
            dimensions=tuple(plain["dimensions"][at]),
            padding=plain["PixelPaddingValue"][at],
            table=facts[at] or b"",
            index_values=_joined(numbers[at]),
            own=OwnElements(own, _ENCODINGS[plain["own_encoding"][at]]) if own else NONE,
            mosaic=_mosaic(json.loads(mosaic)) if mosaic else NO_MOSAIC,
            tiling=_tiling(tiling, planes[at], places[at]) if tiling else None,
            overrides=overrides,
            index=(
                _index(row, lengths[at], gaps[at], known)
                if row.get("indexed_by") is not None
                else None
            ),
        )
        frames = plain["frames"][at]
        if len(one) != frames or (
            one.dimensions and len(one.index_values) != 4 * len(one) * len(one.dimensions)
        ):
            raise ValueError(f"row {at} has {frames} frames, and facts of {len(one)}")
        found.append(one)
    return found


def _joined(numbers: npt.NDArray[Any] | None) -> bytes:
    return b"" if numbers is None else numbers.tobytes()


def _element(row: Mapping[str, Any]) -> tuple[int, RawValue]:
    # Without a VR where it is implicit.
    if row["tag"] is None or row["value"] is None:
        raise ValueError(f"an element that is {row}")
    return row["tag"], RawValue(row["vr"], row["value"])


def _mosaic(said: Sequence[Any]) -> Mosaic:
    tiles, normal, times, positions, is_square = said
    at = None if positions is None else tuple(map(_floats, positions))
    if not 0 <= int(tiles) <= MOST_PLACES or {len(normal), *map(len, at or ())} - {0, 3}:
        raise ValueError(f"a mosaic of {tiles} tiles along {normal}")
    return Mosaic(int(tiles), _floats(normal), _floats(times), at, bool(is_square))


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _tiling(said: str, planes: bytes | None, places: bytes | None) -> Tiling:
    kept = json.loads(said)
    tile, matrix = ((int(a), int(b)) for a, b in (kept["tile"], kept["matrix"]))
    if min(*tile, *matrix) < 1 or -(-matrix[0] // tile[0]) * -(-matrix[1] // tile[1]) > MOST_PLACES:
        raise ValueError(f"tiles of {tile} in a matrix of {matrix}")
    frames, first = int(kept["frames"]), int(kept["first"])
    if not (0 <= frames < 2**31 and 0 <= first < 2**31 and (planes or kept["fault"])):
        raise ValueError(f"{frames} tiles behind {first} others, without a plane")
    if places and len(places) != frames * PLACE.itemsize:
        raise ValueError(f"{frames} tiles, and places of {len(places) // PLACE.itemsize}")
    return Tiling(
        frames,
        tile,
        matrix,
        planes or b"",
        places or b"",
        first,
        str(kept["concatenation"]),
        str(kept["pyramid"]),
        tuple(OpticalPath(str(a), str(b), float(c)) for a, b, c in kept["paths"]),
        _floats(kept["absent"]),
        str(kept["fault"]),
        tuple(Note(str(code), str(text)) for code, text in kept["notes"]),
    )


def _index(
    row: Mapping[str, Any],
    lengths: npt.NDArray[Any] | None,
    gaps: npt.NDArray[Any] | None,
    known: dict[Any, Any],
) -> FrameIndex:
    elements = {
        "samples_per_pixel": row["SamplesPerPixel"],
        "photometric_interpretation": row["PhotometricInterpretation"],
        "rows": row["Rows"],
        "columns": row["Columns"],
        "bits_allocated": row["BitsAllocated"],
        "pixel_keyword": row["pixel_keyword"],
        "pixel_vr": row["pixel_vr"],
        "planar_configuration": row["PlanarConfiguration"],
        "number_of_frames": row["NumberOfFrames"],
    }
    if row["pixel_keyword"] == "PixelData":
        elements["bits_stored"] = row["BitsStored"]
        elements["pixel_representation"] = int(row["signed"])
    syntax = row["TransferSyntaxUID"]
    key = (syntax, *elements.values())
    if key not in known:
        there = {name: value for name, value in elements.items() if value is not None}
        pixels, _ = image_pixel(Dataset(), UID(syntax), there, row["path"])
        # They are the header's own.
        known[key] = replace(pixels, interpretation_given=False)
    pixels = known[key]
    if pixels.transfer_syntax.is_encapsulated is (lengths is None):
        raise ValueError(f"a frame index that is none of {syntax}")
    spans = _spans(pixels.frame_bits, row, lengths, gaps)
    notes = tuple(Note(str(note["code"]), str(note["text"])) for note in row["notes"] or ())
    return FrameIndex(pixels, spans, row["indexed_by"], notes)


def _spans(
    frame_bits: int,
    row: Mapping[str, Any],
    lengths: npt.NDArray[Any] | None,
    gaps: npt.NDArray[Any] | None,
) -> NativeSpans | ItemSpans:
    first, end = row["first"], row["bytes"]
    spans: NativeSpans | ItemSpans
    if lengths is None:
        if row["native_unit"] not in (1, 2):
            raise ValueError(f"words of {row['native_unit']} bytes")
        spans = NativeSpans(first, frame_bits, row["native_frames"], row["native_unit"])
        last = first + -(-spans.count * frame_bits // 8)
    else:
        gaps = None if gaps is None or not len(gaps) else gaps
        for some in (lengths, *(() if gaps is None else (gaps,))):
            # As floats: the sum of integers may pass their range.
            if (some < 0).any() or some.sum(dtype=np.float64) > end:
                raise ValueError(f"frames whose lengths are below 0, or beyond {end} bytes")
        items = spans_from_lengths(first, lengths, gaps)
        spans, last = items, int(items.offsets[-1] + items.lengths[-1]) if len(items) else first
    if not 0 <= first <= last <= end:
        raise ValueError(f"frames from byte {first} to {last} of {end}")
    return spans
