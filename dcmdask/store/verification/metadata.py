"""A store as it is: what of it can be opened, and what of it is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import zarr

from dcmdask.dicom.access import is_of_network
from dcmdask.store.completion import Layout, grid_of, key_of, lacking
from dcmdask.store.export import MASK, Prepared
from dcmdask.store.group import KEY, Place
from dcmdask.store.plan import Level, Plan
from dcmdask.store.verification.comparison import Difference, told
from dcmdask.store.verification.schema import check_told, level_names


class Stored(NamedTuple):
    """A store as it is.

    Attributes
    ----------
    group : zarr.Group
    told : dict
        Its attribute ``dcmdask``.
    names : tuple of str
        Of the levels that there should be.
    arrays : tuple of zarr.Array
        The levels, up to the first one that cannot be used.
    mask : zarr.Array or None
        Of which frames are missing.
    coordinates : dict
        Other arrays, by name.
    differences : list of Difference
        Faults of the metadata.
    """

    group: zarr.Group
    told: dict[str, Any]
    names: tuple[str, ...]
    arrays: tuple[zarr.Array[Any], ...]
    mask: zarr.Array[Any] | None
    coordinates: dict[str, zarr.Array[Any]]
    differences: list[Difference]

    @property
    def labels(self) -> bool:
        """Whether levels are made of labels."""
        try:
            told: Any = self.group.attrs["ome"]
            return bool(told["multiscales"][0]["type"] == "first")
        except (KeyError, IndexError, TypeError):
            return False

    @property
    def fill_value(self) -> float | None:
        """Value of missing frames."""
        filling = self.told["plan"]["fill_value"]
        return None if filling is None else float(filling)


def open_stored(place: Place) -> Stored:
    """Open what there is; what cannot be opened is a difference.

    Raises
    ------
    ValueError
        It is not a store that an export wrote.
    """
    try:
        group = zarr.open_group(place.store, mode="r", zarr_format=3)
    except FileNotFoundError:
        raise ValueError(f"{place.root} is not a Zarr 3 store") from None
    except PermissionError:
        raise
    except Exception as error:
        if is_of_network(error):
            raise
        raise ValueError(
            f"{place.root} cannot be opened as a Zarr 3 store: {told(error)}"
        ) from error
    described: Any = group.attrs.asdict().get(KEY)
    try:
        check_told(described)
    except ValueError as error:
        raise ValueError(f"{place.root} is not a store that dcmdask exported: {error}") from None
    plan, grids = described["plan"], described["arrays"]
    names = level_names(plan)
    differences: list[Difference] = []
    consolidated = group.metadata.consolidated_metadata
    members: dict[str, Any] = {} if consolidated is None else dict(consolidated.metadata)
    if consolidated is None and described.get("complete"):
        differences.append(Difference("zarr.json", "the consolidated metadata is missing"))
    for name in sorted(members.keys() - grids.keys()):
        differences.append(Difference(name, "dcmdask did not write this array"))
    arrays: list[zarr.Array[Any]] = []
    for level, name in enumerate(names):
        array = _array(group, name, grids[name], members, differences)
        if array is not None and len(arrays) == level:
            wrong = _misfit(array, plan, arrays)
            if wrong:
                differences.append(Difference(f"{name}/zarr.json", wrong))
            else:
                arrays.append(array)
    # Otherwise a coordinate of this name tells of places without a frame.
    masked = [MASK] if plan["on_error"] == "fill" else []
    found = {
        name: _array(group, name, grids.get(name), members, differences)
        for name in sorted({*grids, *masked} - {*names})
    }
    mask = found.pop(MASK, None) if masked else None
    return Stored(
        group,
        described,
        names,
        tuple(arrays),
        mask,
        {name: array for name, array in found.items() if array is not None},
        differences,
    )


def _array(
    group: zarr.Group,
    name: str,
    grid: Any,
    members: Mapping[str, Any],
    differences: list[Difference],
) -> zarr.Array[Any] | None:
    """Return an array of the group, unless its own metadata is not what the group says of it."""
    key = f"{name}/zarr.json"
    try:
        array = zarr.open_array(group.store, path=name, mode="r", zarr_format=3)
        # Zarr takes attributes that are no object, and fails later.
        dict(array.attrs)
    except FileNotFoundError:
        differences.append(Difference(key, "it is missing"))
        return None
    except Exception as error:
        differences.append(Difference(key, f"it is damaged: {told(error)}"))
        return None
    what = ""
    if members and (name not in members or array.metadata.to_dict() != members[name].to_dict()):
        what = "it does not say what the consolidated metadata of the group says of this array"
    elif grid_of(array.shape, array.shards or array.chunks) != grid:
        what = f"its shape and chunks are not those of {grid} objects, which the group lists"
    elif len({*(getattr(array.metadata, "dimension_names", None) or ())}) != array.ndim:
        what = "its dimensions have no names of their own"
    if what:
        differences.append(Difference(key, what))
        return None
    return array


def _misfit(
    array: zarr.Array[Any], plan: Mapping[str, Any], below: Sequence[zarr.Array[Any]]
) -> str:
    """Return what keeps an array from being the next level, in words."""
    if not below:
        own = [list(array.shape), array.dtype.str, list(array.chunks), array.shards]
        planned = [plan["shape"], plan["dtype"], plan["chunks"], plan["shards"]]
        if json.dumps(own) != json.dumps(planned):
            return f"shape, type, chunks and shards are {own}, and {planned} by the plan"
        return ""
    lower = below[-1]
    fits = len(array.shape) == len(lower.shape) and all(
        own in (one, -(-one // 2)) for own, one in zip(array.shape, lower.shape, strict=True)
    )
    if not fits or array.dtype != lower.dtype:
        return f"{array.shape} {array.dtype} is no level above {lower.shape} {lower.dtype}"
    return ""


def layout_of(there: Stored, prepared: Prepared | None) -> Layout:
    """Return which regions the arrays are checked in: with the axes that the source has."""
    arrays, mask = there.arrays, there.mask
    levels = tuple(Level(array.shape, array.chunks, array.shards) for array in arrays)
    names, masked = there.names[: len(arrays)], "" if mask is None else MASK
    if prepared is not None:
        return Layout(replace(prepared.plan, levels=levels), names, masked)
    own: Any = arrays[0].metadata
    dims = tuple(own.dimension_names)
    ndim = len(dims)
    samples = ndim - 1 if dims[-1] == "sample" else None
    axes = [axis for axis in range(ndim) if axis != samples][:-2]
    if "c" in dims and (_is_colour(there) if mask is None else mask.ndim < len(axes)):
        samples = dims.index("c")
        axes.remove(samples)
    halved = {
        axis
        for one, other in pairwise(arrays)
        for axis in range(ndim)
        if one.shape[axis] != other.shape[axis]
    }
    plan = Plan(dims, tuple(axes), samples, tuple(sorted(halved)), arrays[0].dtype, levels)
    return Layout(plan, names, masked)


def _is_colour(there: Stored) -> bool:
    """Return whether c is that of samples, which makes larger regions and nothing else."""
    interpretation = str(there.told.get("header", {}).get("PhotometricInterpretation", ""))
    return not interpretation.startswith(("MONOCHROME", "PALETTE", "None"))


def lost(there: Stored, layout: Layout, sizes: Mapping[str, int | None]) -> dict[str, str]:
    """Return what is wrong with objects of which the listing shows it, by key."""
    found = dict(lacking(layout, there.arrays, sizes))
    for name, array in there.coordinates.items():
        # Each is one chunk.
        key = key_of(name, [0] * array.ndim)
        if sizes.get(key, 0) == 0:
            found[key] = "it is empty" if key in sizes else "it is missing"
    return found
