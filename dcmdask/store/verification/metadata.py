"""Metadata of a store, checked before anything in it is believed."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias, get_args

import zarr

from dcmdask.archive.discovery import ATTRIBUTES, GROUP, MARK_KEY
from dcmdask.arrays.transformation import are_values
from dcmdask.geometry.axes import ORDER_BY
from dcmdask.geometry.repair import OnIrregular
from dcmdask.store.export import Format, OnError, Prepared, mask_of
from dcmdask.store.ome.metadata import DEFAULT_VERSION, OmeVersion, told_in, zarr_format_of
from dcmdask.store.plan import Plan
from dcmdask.store.pyramid import Level
from dcmdask.store.regions import Layout, grid_of, lacking
from dcmdask.store.target.place import Place, check_reached
from dcmdask.store.verification.comparison import Difference, error_text
from dcmdask.store.verification.labels import check_group, is_of_labels
from dcmdask.store.zarr_format import (
    CONSOLIDATED_2,
    ZarrFormat,
    dimensions_of,
    document_of,
    key_of,
    metadata_key,
)

_Check: TypeAlias = "Callable[[Any], bool]"


class Stored(NamedTuple):
    """A store as it is, or the levels of it that are made of one image.

    Attributes
    ----------
    group : zarr.Group
    metadata : dict
        Attribute ``dcmdask`` of the group, with the plan of this image.
    names : tuple of str
        Levels that there should be.
    arrays : tuple of zarr.Array
        The levels, up to the first one that cannot be used.
    mask : zarr.Array or None
        Marks of the frames that are missing.
    coordinates : dict
        Other arrays, by name.
    labels : dict
        Arrays of images of labels, by path.
    differences : list of Difference
        Faults of the metadata.
    next : tuple of Stored
        The further levels that a whole slide has itself, each with those that are made of it; they
        have neither coordinates, labels nor differences of their own.
    """

    group: zarr.Group
    metadata: dict[str, Any]
    names: tuple[str, ...]
    arrays: tuple[zarr.Array[Any], ...]
    mask: zarr.Array[Any] | None
    coordinates: dict[str, zarr.Array[Any]]
    labels: dict[str, zarr.Array[Any]]
    differences: list[Difference]
    next: tuple[Stored, ...] = ()

    @property
    def images(self) -> tuple[Stored, ...]:
        """This one and the next ones."""
        return (self, *self.next)

    @property
    def is_label_map(self) -> bool:
        """Whether values are labels, of which no mean can be taken."""
        try:
            told = told_in(self.group.attrs.asdict())
            return bool(told["multiscales"][0]["type"] == "first")
        except (KeyError, IndexError, TypeError):
            return False

    @property
    def fill_value(self) -> float | list[float] | None:
        """Value of missing frames, or one for each sample."""
        filling = self.metadata["plan"]["fill_value"]
        if isinstance(filling, list):
            return list(map(float, filling))
        return None if filling is None else float(filling)


def open_stored(place: Place) -> Stored:
    """Open the arrays of an exported store; one that cannot be opened is a difference."""
    try:
        group = zarr.open_group(place.store, mode="r")
    except FileNotFoundError:
        raise ValueError(f"{place.root} is not a Zarr store") from None
    except Exception as error:
        check_reached(error)
        raise ValueError(
            f"{place.root} cannot be opened as a Zarr store: {error_text(error)}"
        ) from error
    described: Any = group.attrs.asdict().get(MARK_KEY)
    try:
        check_metadata(described, group.metadata.zarr_format)
    except ValueError as error:
        raise ValueError(f"{place.root} is not a store that dcmdask exported: {error}") from None
    plan, grids = described["plan"], described["arrays"]
    differences: list[Difference] = []
    zarr_format = group.metadata.zarr_format
    consolidated = group.metadata.consolidated_metadata
    members: dict[str, Any] = {} if consolidated is None else consolidated.flattened_metadata
    if consolidated is None and described.get("complete"):
        where = GROUP if zarr_format == 3 else CONSOLIDATED_2
        differences.append(Difference(where, "the consolidated metadata is missing"))
    elif zarr_format == 2 and not _is_copied(place, group):
        what = "the attributes of the group are others than in its own file"
        differences.append(Difference(CONSOLIDATED_2, what))
    for name in sorted(members.keys() - grids.keys()):
        differences.append(Difference(name, "dcmdask did not write this array"))
    plans = _plans(plan)
    owners = [one for one in plans for _ in range(one["levels"])]
    names = ("pixels",) if plan["format"] == "zarr" else tuple(map(str, range(len(owners))))
    # Otherwise a coordinate of this name marks places without a frame.
    masks = set()
    if plan["on_error"] == "fill":
        masks = {mask_of(str(owners.index(one))) for one in plans}
    arrays: list[zarr.Array[Any]] = []
    others: dict[str, zarr.Array[Any]] = {}
    labels: dict[str, zarr.Array[Any]] = {}
    for name in [*names, *sorted((grids.keys() | masks) - {*names})]:
        where = metadata_key(name, zarr_format)
        try:
            if is_of_labels(name) and not grids[name]:
                where = f"{name}/{document_of(zarr_format)}"
                check_group(group, name)
                continue
            array = _array(group, name, grids.get(name), members)
            if is_of_labels(name):
                labels[name] = array
            elif name not in names:
                if name not in masks and array.nchunks > 1:
                    raise ValueError("a coordinate has several objects")
                others[name] = array
            elif len(arrays) == names.index(name):
                owner = owners[len(arrays)]
                below = [one for one, of in zip(arrays, owners, strict=False) if of is owner]
                _check_level(array, owner, below)
                arrays.append(array)
        except ValueError as error:
            differences.append(Difference(where, str(error)))
    found = {name: others.pop(name, None) for name in masks}
    images = []
    for one in plans:
        first = owners.index(one)
        own = slice(first, first + one["levels"])
        mask = found.get(mask_of(str(first)))
        told = {**described, "plan": one}
        images.append(Stored(group, told, names[own], tuple(arrays[own]), mask, {}, {}, []))
    return images[0]._replace(
        coordinates=others, labels=labels, differences=differences, next=tuple(images[1:])
    )


def _plans(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plan of each image of a store: of a whole slide, of each of its own levels."""
    common = {name: plan[name] for name in plan if name not in ("next", "tile")}
    first = {name: plan[name] for name in plan if name != "next"}
    further = (
        {name: one[name] for name in one if name in _OF_IMAGE} for one in plan.get("next", [])
    )
    return [first, *({**common, **one} for one in further)]


def _is_copied(place: Place, group: zarr.Group) -> bool:
    """Return whether consolidated metadata of Zarr 2, if there is any, has the same attributes."""
    document = place.read(CONSOLIDATED_2)
    if document is None:
        return True
    told = json.loads(document)["metadata"].get(ATTRIBUTES)
    return bool(told == group.attrs.asdict())


def _array(group: zarr.Group, name: str, grid: Any, members: Mapping[str, Any]) -> zarr.Array[Any]:
    """Return an array of the group, of which its own metadata has to say the same."""
    try:
        zarr_format = group.metadata.zarr_format
        array = zarr.open_array(group.store, path=name, mode="r", zarr_format=zarr_format)
        # Zarr takes attributes that are no object, and fails later.
        dict(array.attrs)
    except FileNotFoundError:
        raise ValueError("it is missing") from None
    except Exception as error:
        check_reached(error)
        raise ValueError(f"it is damaged: {error_text(error)}") from error
    if members and (name not in members or array.metadata.to_dict() != members[name].to_dict()):
        raise ValueError("it is not what the consolidated metadata of the group says of this array")
    if grid_of(array.shape, array.shards or array.chunks) != grid:
        shown = reprlib.repr(grid)
        raise ValueError(f"its shape and chunks do not make {shown} objects, as the group lists")
    if len({*map(str, dimensions_of(array))}) != array.ndim:
        raise ValueError("its dimensions have no names of their own")
    return array


def _check_level(
    array: zarr.Array[Any], plan: Mapping[str, Any], below: list[zarr.Array[Any]]
) -> None:
    """Refuse an array that is not the next level of a store with a plan."""
    if not below:
        own = [list(array.shape), array.dtype.str, list(array.chunks), array.shards]
        planned = [plan.get(name) for name in ("shape", "dtype", "chunks", "shards")]
        if json.dumps(own) != json.dumps(planned):
            text = f"shape, type, chunks and shards are {own}, and {reprlib.repr(planned)}"
            raise ValueError(f"{text} by the plan")
        if array.ndim < (2 if "tile" in plan else 3) or array.dtype.kind not in "biuf":
            raise ValueError("it has no frames of numbers")
        return
    lower = below[-1]
    fits = array.ndim == lower.ndim and all(
        own in (one, -(-one // 2)) for own, one in zip(array.shape, lower.shape, strict=True)
    )
    if not fits or array.dtype != lower.dtype:
        raise ValueError(
            f"{array.shape} {array.dtype} is no level above {lower.shape} {lower.dtype}"
        )


def layout_of(there: Stored, prepared: Prepared | None) -> Layout:
    """Return the regions that the arrays are checked in, with the axes of the source."""
    arrays, mask = there.arrays, there.mask
    levels = tuple(Level(array.shape, array.chunks, array.shards) for array in arrays)
    names, masked = there.names[: len(arrays)], "" if mask is None else mask.basename
    zarr_format = there.group.metadata.zarr_format
    recorded = there.metadata["plan"].get("tile")
    tile = None if recorded is None else (recorded[0], recorded[1])
    if prepared is not None:
        return Layout(replace(prepared.plan, levels=levels, tile=tile), names, masked, zarr_format)
    dims = dimensions_of(arrays[0])
    samples = len(dims) - 1 if dims[-1] == "sample" else None
    axes = [axis for axis in range(len(dims)) if axis != samples]
    axes = axes[:-2] if tile is None else axes
    if "c" in dims and (_is_colour(there) if mask is None else mask.ndim < len(axes)):
        samples = dims.index("c")
        axes.remove(samples)
    halved = {
        axis
        for one, other in pairwise(arrays)
        for axis in range(len(dims))
        if one.shape[axis] != other.shape[axis]
    }
    plan = Plan(
        dims,
        tuple(axes),
        samples,
        tuple(sorted(halved)),
        tile,
        dtype=arrays[0].dtype,
        levels=levels,
    )
    return Layout(plan, names, masked, zarr_format)


def _is_colour(there: Stored) -> bool:
    """Return whether c is that of samples, which makes larger regions and nothing else."""
    interpretation = str(there.metadata["header"].get("PhotometricInterpretation", ""))
    return not interpretation.startswith(("MONOCHROME", "PALETTE", "None"))


def lost(there: Stored, layout: Layout, sizes: Mapping[str, int | None]) -> dict[str, str]:
    """Return by key what is wrong with objects, as far as the listing shows it."""
    found = dict(lacking(layout, there.arrays, sizes))
    for name, array in there.coordinates.items():
        key = key_of(name, [0] * array.ndim, layout.zarr_format)
        if sizes.get(key, 0) == 0:
            found[key] = "it is empty" if key in sizes else "it is missing"
    return found


# Schema of the attribute `dcmdask`. Shape, chunks and type are not in it: they have to be those
# of the arrays.


def _is(*kinds: type) -> _Check:
    # Not by isinstance, for which true is a number.
    return lambda value: type(value) in kinds


def _one_of(*words: str) -> _Check:
    return lambda value: isinstance(value, str) and value in words


def _is_number(value: Any) -> bool:
    try:
        return value is None or (isinstance(value, str) and float(value) is not None)
    except ValueError:
        return False


def _is_filling(value: Any) -> bool:
    # One for each sample of a colour.
    several = isinstance(value, list) and len(value) == 3 and None not in value
    return all(map(_is_number, value)) if several else _is_number(value)


def _are_options(value: Any) -> bool:
    plain = _is(bool, int, float, str, type(None))
    return (
        isinstance(value, dict)
        and _is_number(value.get("fill_value"))
        and all(map(plain, value.values()))
    )


_GROUP: Mapping[str, _Check] = dict.fromkeys(("arrays", "header", "plan", "source"), _is(dict))
_PLAN: Mapping[str, _Check] = {
    "fill_value": _is_filling,
    "format": _one_of(*get_args(Format)),
    "levels": lambda value: type(value) is int and value >= 1,
    "ome_version": _one_of(*get_args(OmeVersion)),
    "on_error": _one_of(*get_args(OnError)),
    "on_irregular": _one_of(*get_args(OnIrregular)),
    "options": _are_options,
    "order_by": lambda value: isinstance(value, list) and ORDER_BY.keys() >= set(map(str, value)),
    "source": _is(str),
    "values": are_values,
    "with_identifiers": _is(bool),
}
# Those of each further level of a whole slide, and all that a store says of one.
_OF_IMAGE = frozenset({"chunks", "codecs", "levels", "shape", "shards", "source", "tile"})
_NEXT = {name: _PLAN[name] for name in ("levels", "source")}


def _is_tile(value: Any) -> bool:
    lengths = value if isinstance(value, list) else []
    return len(lengths) == 2 and all(type(n) is int and 1 <= n < 2**31 for n in lengths)


def check_metadata(metadata: Any, zarr_format: ZarrFormat = 3) -> None:
    """Refuse an attribute ``dcmdask`` of a group that no export can have written."""
    if not isinstance(metadata, dict) or "plan" not in metadata:
        raise ValueError("it has no plan")
    _check(metadata, _GROUP)
    plan, most = metadata["plan"], len(metadata["arrays"])
    _check({"ome_version": DEFAULT_VERSION, **plan}, _PLAN)
    further = plan.get("next", [])
    if not isinstance(further, list) or not all(isinstance(one, dict) for one in further):
        raise ValueError(f"its next cannot be {reprlib.repr(further)}")
    for one in further:
        _check(one, _NEXT)
    for one in (plan, *further):
        _check({"tile": [1, 1], **one}, {"tile": _is_tile})
    version = plan.get("ome_version", DEFAULT_VERSION)
    if zarr_format_of(version) != zarr_format:
        raise ValueError(f"it is Zarr {zarr_format}, and its plan is of OME-Zarr {version}")
    # Before the names of levels are made.
    levels = plan["levels"] + sum(one["levels"] for one in further)
    if levels > (1 if plan["format"] == "zarr" else most):
        raise ValueError(f"it has {levels} levels, and {most} arrays")


def _check(values: Mapping[str, Any], checks: Mapping[str, _Check]) -> None:
    if absent := sorted(checks.keys() - values.keys()):
        raise ValueError(f"it has no {', '.join(absent)}")
    for name, check in checks.items():
        if not check(values[name]):
            raise ValueError(f"its {name} cannot be {reprlib.repr(values[name])}")
