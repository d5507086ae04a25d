"""Verification of a store: objects, levels, coordinates and attributes, also by its source."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store

from dcmdask import __version__
from dcmdask.archive.discovery import ATTRIBUTES, MARK_KEY
from dcmdask.dicom.image_pixel import check_options
from dcmdask.errors import Note
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.store.export import MASK, Prepared
from dcmdask.store.ome import metadata as ome
from dcmdask.store.regions import Layout, grid_of, lacking
from dcmdask.store.scheduler import room, run_levels
from dcmdask.store.target.place import Place, check_reached, located, with_options
from dcmdask.store.tiles.verification import compare_kept
from dcmdask.store.verification.comparison import (
    NOT_ENDED,
    Check,
    Compared,
    Difference,
    Found,
    check_region,
    error_text,
    sample,
    unequal,
)
from dcmdask.store.verification.labels import label_differences
from dcmdask.store.verification.metadata import Stored, layout_of, lost, open_stored
from dcmdask.store.verification.source import Reopened, reopen
from dcmdask.store.zarr_format import attributes_in, attributes_of, dimensions_of, key_of

# Number of differences in the text of a report.
_LISTED = 20
# Missing objects are looked for unless there should be `_MANY` times the existing ones and
# `_FEW` more.
_MANY = 4
_FEW = 1000
# Entries of the attribute `dcmdask` that are about the export, and not about the source.
_OF_EXPORT = frozenset({"complete", "plan", "versions", "arrays"})


@dataclass(frozen=True)
class VerifyReport:
    """Report of a verification.

    Attributes
    ----------
    store : str
        The path or URL of the store.
    complete : bool
        Whether the export is marked as complete.
    regions : tuple of int
        Numbers of regions that were checked, and of all.
    levels : int
        Number of levels of a pyramid, or 1.
    source_token_same : bool or None
        Whether the source is the one that was exported, by path, size and time; None without
        a source.
    notes : tuple of Note
        Remarks that are no difference.
    differences : tuple of Difference
        ``(where, what)`` of each fault.
    seconds : float
        Duration of the call.
    """

    store: str
    complete: bool
    regions: tuple[int, int]
    levels: int
    source_token_same: bool | None
    notes: tuple[Note, ...]
    differences: tuple[Difference, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return not self.differences

    def __str__(self) -> str:
        count = len(self.differences)
        if count:
            found = f"{count} difference{'s' if count > 1 else ''}"
        else:
            found = "whole" if self.source_token_same is None else "the same as the source"
        checked, of = self.regions
        levels = f", {self.levels} levels" if self.levels > 1 else ""
        lines = [f"{self.store}: {found}; {checked} of {of} regions{levels}, {self.seconds:.1f} s"]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {where}: {what}" for where, what in self.differences[:_LISTED]]
        if count > _LISTED:
            lines.append(f"  and {count - _LISTED} more")
        return "\n".join(lines)


def verify(
    store: str | os.PathLike[str] | Store,
    src: Any = None,
    *,
    fraction: float = 1.0,
    progress: Callable[[int, int | None], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    **decoding_options: Any,
) -> VerifyReport:
    """Check that a store of :func:`to_zarr` is whole, and compare it with its source.

    Each object has to exist and decode, and each level of a pyramid has to be made of the one
    below, but for those that a whole slide has itself. With `src`, frames are decoded again, by
    pydicom's decoders, and compared value by value (of a slide those of each of its levels), and
    so are coordinates and attributes. Without it a changed value is found only where an object has
    a checksum, or where a level does not fit another.

    Parameters
    ----------
    store : str, path-like or zarr.abc.store.Store
    src : optional
        The source that :func:`to_zarr` was given, which may have moved.
    fraction : float
        Part of the regions to check, from 0 to 1, the same each time; at least one region of
        each level.
    progress : callable, optional
        Called with the number of regions checked, and of all that will be.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file system of `src`.
    target_options : mapping, optional
        Keyword arguments for the fsspec file system of `store`.
    **decoding_options
        Decoding options and `fill_value` of :func:`to_zarr`, in place of those that the store was
        exported with.

    Returns
    -------
    VerifyReport
        Damage and differences are reported, and not raised. Colours of 8-bit JPEG that a codec
        converted may differ by 1 (see `raw` of :func:`open_frames`), which is a note.

    Raises
    ------
    ValueError
        `store` is not a store that :func:`to_zarr` wrote, or `fraction` is out of its range.
    TypeError
        Options for opening a source without `src`, or one that there is not.
    UnreachableError, OSError
        The server of the store does not answer, or the store cannot be read.
    DcmdaskError
        The source cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask import to_zarr
    >>> source = get_testdata_file("CT_small.dcm")
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = to_zarr(source, f"{folder.name}/ct.zarr")
    >>> found = verify(report.store, source)
    >>> found.ok, found.complete, found.source_token_same, found.regions
    (True, True, True, (1, 1))
    >>> folder.cleanup()
    """
    started = time.perf_counter()
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is from 0 to 1, not {fraction!r}")
    if src is None and (decoding_options or storage_options):
        raise TypeError("options for opening a source, and no source")
    check_options({name: None for name in decoding_options if name != "fill_value"}, verify)
    with reaching(store, TARGET_OPTION):
        place = located(with_options(store, target_options))
        mark = _kept_mark(place)
        if mark is not None:
            opening = {key: value for key, value in decoding_options.items() if key != "fill_value"}
            found = compare_kept(place, mark, src, fraction, progress, storage_options, opening)
        else:
            there = open_stored(place)
    if mark is None:
        source: Reopened | None = None
        if src is not None:
            plans = [one.metadata["plan"] for one in there.images]
            source = reopen(src, plans, storage_options, decoding_options)
        with reaching(store, TARGET_OPTION):
            found = _compared(place, there, source, fraction, progress)
    seconds = time.perf_counter() - started
    return VerifyReport(store=str(store), **found._asdict(), seconds=seconds)


def _kept_mark(place: Place) -> dict[str, Any] | None:
    """Return the mark of a store of encoded tiles; None of other ones."""
    document = place.read(ATTRIBUTES)
    mark = attributes_in(document)[0].get(MARK_KEY) if document is not None else None
    plan = mark.get("plan") if isinstance(mark, dict) else None
    return mark if isinstance(plan, dict) and plan.get("keep_codec") is True else None


def _compared(
    place: Place,
    there: Stored,
    found: Reopened | None,
    fraction: float,
    progress: Callable[[int, int | None], None] | None,
) -> Compared:
    differences, notes = [*there.differences], list[Note]()
    is_complete = there.metadata.get("complete") is True
    if not is_complete:
        differences.append(NOT_ENDED)
    if found is not None:
        notes += found.notes
        differences += found.differences
    # A source of another shape is not compared further.
    prepared = found.prepared if found is not None and found.expected else None
    version = there.metadata.get("version")
    same_version = prepared if version == __version__ else None
    regions, of_regions = (0, 0), list[Difference]()
    faults = _too_large({name: (one, one.shape) for name, one in there.coordinates.items()})
    checks: list[tuple[Check, dict[int, list[int]]]] = []
    for number, image in enumerate(one for one in there.images if one.arrays):
        layout = layout_of(image, None if prepared is None else prepared.pyramid[number])
        of_levels, chosen = _to_check(place, image, layout, fraction)
        faults |= of_levels
        check = Check(
            place,
            layout,
            image.arrays,
            image.mask,
            frozenset(faults),
            image.is_label_map,
            image.fill_value,
            None if found is None or not found.expected else found.expected[number],
        )
        checks.append((check, chosen))
    if checks:
        results: list[Found] = list(chain(*run_levels(check_region, checks, progress)))
        layouts = [check.layout for check, _ in checks]
        of_regions = [one for result in results for one in result.differences]
        notes += _noted(results, "frames" if layouts[0].plan.tile is None else "tiles")
        regions = (len(results), sum(layout.regions for layout in layouts))
        if same_version is not None:
            of_regions += _attributes(there, same_version, layouts)
        elif prepared is not None:
            text = (
                f"the store was written by dcmdask {version}, and this is {__version__}: its "
                "attributes and coordinates are not compared"
            )
            notes.append(Note("other-version", text))
    differences += [Difference(name, what) for name, what in faults.items()] + of_regions
    if there.labels:
        large = _too_large({name: (one, one.chunks) for name, one in there.labels.items()})
        differences += [Difference(name, what) for name, what in large.items()]
        differences += label_differences(place, there.labels, large)
        if found is not None:
            text = "images of labels were read, and not compared with a segmentation"
            notes.append(Note("labels", text))
    if not regions[0] and not differences:
        differences.append(Difference("regions", "none was checked"))
    differences += _coordinates(there, same_version, faults)
    return Compared(
        is_complete,
        regions,
        sum(len(one.names) for one in there.images),
        None if found is None else found.token_same,
        tuple(notes),
        # Two levels may both name an object that they need.
        tuple(dict.fromkeys(differences)),
    )


def _to_check(
    place: Place, there: Stored, layout: Layout, fraction: float
) -> tuple[dict[str, str], dict[int, list[int]]]:
    """Return faults that are known without reading, and the regions of each level to read."""
    sizes = place.sizes()
    many = sum(math.prod(grid_of(one.shape, one.shards or one.chunks)) for one in there.arrays)
    if many > _MANY * len(sizes) + _FEW:
        # Looking for each of them would take too long.
        text = f"at least {many - len(sizes)} of {many} objects are missing"
        return {"objects": text, **dict(islice(lacking(layout, there.arrays, sizes), _LISTED))}, {}
    read: dict[str, tuple[zarr.Array[Any], Sequence[int]]] = {
        name: (array, layout.plan.unit(level))
        for level, (name, array) in enumerate(zip(layout.names, there.arrays, strict=True))
    }
    if there.mask is not None:
        read[layout.mask] = (there.mask, there.mask.chunks)
    if large := _too_large(read):
        return large, {}
    counts = {level: layout.plan.count(level) for level in layout.tasks}
    chosen = sample(counts, fraction, str(there.metadata["plan"]["source"]))
    return lost(there, layout, sizes), chosen


def _too_large(read: Mapping[str, tuple[zarr.Array[Any], Sequence[int]]]) -> dict[str, str]:
    """Return the arrays that take more memory than a task may, which to_zarr refuses, too.

    `read` has, by name, an array and the lengths of it that are read at a time.
    """
    most, why = room()
    found = {}
    for name, (array, lengths) in read.items():
        # A chunk is decoded as a whole, however little of it is in the array.
        size = math.prod(map(max, array.chunks, lengths)) * array.dtype.itemsize
        if size > most:
            found[name] = f"not read: {size} bytes at a time, and a task may take {most} ({why})"
    return found


def _noted(results: Sequence[Found], what: str) -> Iterator[Note]:
    rounded = [count for result in results for count in result.rounded]
    if rounded:
        text = (
            f"{sum(rounded)} values of {len(rounded)} {what} differ by 1, as colours do that a "
            "JPEG codec converts (see raw of open_frames)"
        )
        yield Note("converted-by-codec", text)
    decodable = [frame for result in results for frame in result.decodable]
    if decodable:
        first = decodable[0] if len(decodable[0]) > 1 else decodable[0][0]
        text = f"{len(decodable)} {what} that are marked as missing decode now, the first of them "
        yield Note("missing-decodes", f"{text}{first}")


def _coordinates(
    there: Stored, prepared: Prepared | None, faults: Container[str]
) -> Iterator[Difference]:
    """Read each coordinate without faults, and compare it with that of the source."""
    for name, array in there.coordinates.items():
        if name in faults or key_of(name, [0] * array.ndim, array.metadata.zarr_format) in faults:
            continue
        try:
            values = np.asarray(array[...])
        except Exception as error:
            check_reached(error)
            yield Difference(name, f"it is damaged: {error_text(error)}")
            continue
        if prepared is None:
            continue
        if name not in prepared.coordinates:
            yield Difference(name, "the source gives no such coordinate")
            continue
        dims, source, attributes = prepared.coordinates[name]
        if attributes_of(array) != attributes:
            yield Difference(name, f"its attributes are not {attributes}")
        own = dimensions_of(array)
        if own != dims or values.shape != source.shape:
            along = f"{values.shape} along {own}"
            yield Difference(name, f"it is {along}, and {source.shape} along {dims} of the source")
        elif (count := int(unequal(values, source).sum())) > 0:
            yield Difference(name, f"{count} of {values.size} values differ from the source")


def _attributes(
    there: Stored, prepared: Prepared, layouts: Sequence[Layout]
) -> Iterator[Difference]:
    """Compare what group and arrays say with what the source gives."""
    own, source = (_comparable(one) for one in (there.metadata, prepared.attributes[MARK_KEY]))
    names = [f"{MARK_KEY}.{name}" for name in own | source if own.get(name) != source.get(name)]
    stored = [pair for one in there.images for pair in zip(one.names, one.arrays, strict=False)]
    for name, array in stored:
        if dimensions_of(array) != tuple(prepared.plan.dims):
            names.append(f"{name}.dimension_names")
    _, made = next(prepared.arrays())
    if _named(there.arrays[0].attrs.asdict()) != _named(made.get("attributes", {})):
        names.append(f"{there.names[0]}.attributes")
    if there.metadata["plan"]["format"] != "zarr":
        version = there.metadata["plan"].get("ome_version", ome.DEFAULT_VERSION)
        pairs = zip(prepared.pyramid, layouts, strict=False)
        parts = [ome.Part(one.contents, layout.plan, layout.names) for one, layout in pairs]
        expected = ome.metadata(parts, version)
        expected, told = json.loads(json.dumps(expected)), there.group.attrs.asdict()
        names += [name for name in ome.KEYS[version] if told.get(name) != expected.get(name)]
    for name in sorted(names):
        yield Difference(name, "this attribute differs from the source's")
    # A coordinate of which the metadata are damaged is a difference already.
    known = {one.where.rpartition("/")[0] for one in there.differences}
    if there.mask is not None:
        known.add(MASK)
    for name in sorted(prepared.coordinates.keys() - there.coordinates.keys() - known):
        yield Difference(name, "this coordinate is missing")


def _comparable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that depend on the content of the source only."""
    kept = {name: value for name, value in attributes.items() if name not in _OF_EXPORT}
    for name, where in (("source", "token"), ("identifiers", "sources")):
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key != where}
    return kept


def _named(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes of an array, without the coordinate that marks missing frames."""
    names = set(str(attributes.get("coordinates", "")).split()) - {MASK}
    return {**attributes, "coordinates": names}
