"""Schema of the attribute ``dcmdask`` of a store, checked before anything in it is believed."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

import numpy as np

from dcmdask.arrays.transformation import Values
from dcmdask.geometry.axes import ORDER_BY
from dcmdask.geometry.repair import OnIrregular
from dcmdask.store.completion import grid_of
from dcmdask.store.export import MASK

Check: TypeAlias = "Callable[[Any], bool]"

# Numpy counts the elements of an array no further.
_MOST = 2**63 - 1


def _is(*kinds: type) -> Check:
    # Not by isinstance, for which true is a number.
    return lambda value: type(value) in kinds


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _lengths(least: int) -> Check:
    def check(value: Any) -> bool:
        whole = isinstance(value, list) and all(type(n) is int and n >= least for n in value)
        return whole and math.prod(value) <= _MOST

    return check


def _is_dtype(value: Any) -> bool:
    try:
        return isinstance(value, str) and np.dtype(value).kind in "biuf"
    except TypeError:
        return False


def _is_number(value: Any) -> bool:
    try:
        return value is None or (isinstance(value, str) and float(value) is not None)
    except ValueError:
        return False


def _are_options(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_number(value.get("fill_value"))
        and all(map(_is(bool, int, float, str, type(None)), value.values()))
    )


def _are_grids(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_lengths(0), value.values()))


_TOLD: Mapping[str, Check] = {
    "arrays": _are_grids,
    "header": _is(dict),
    "plan": _is(dict),
    "source": _is(dict),
}
_PLAN: Mapping[str, Check] = {
    "chunks": _lengths(1),
    "dtype": _is_dtype,
    "fill_value": _is_number,
    "format": _one_of("zarr", "ome-zarr"),
    "levels": lambda value: type(value) is int and value >= 1,
    "on_error": _one_of("fail", "fill"),
    "on_irregular": _one_of(*get_args(OnIrregular)),
    "options": _are_options,
    "order_by": lambda value: isinstance(value, list) and ORDER_BY.keys() >= set(map(str, value)),
    "shape": _lengths(0),
    "shards": lambda value: value is None or _lengths(1)(value),
    "source": _is(str),
    "values": _one_of(*get_args(Values)),
    "with_identifiers": _is(bool),
}


def check_told(told: Any) -> None:
    """Refuse an attribute ``dcmdask`` of a group that no export can have written.

    Raises
    ------
    ValueError
        Something is absent, of another type or out of its range, or does not go with the rest.
    """
    if not isinstance(told, dict) or "plan" not in told:
        raise ValueError("it has no plan")
    _check(told, _TOLD)
    plan, arrays = told["plan"], told["arrays"]
    _check(plan, _PLAN)
    shape, chunks, shards = plan["shape"], plan["chunks"], plan["shards"] or plan["chunks"]
    if len(shape) < 3 or not len(shape) == len(chunks) == len(shards):
        raise ValueError("its shape, chunks and shards are not of one number of axes")
    if any(shard % chunk for shard, chunk in zip(shards, chunks, strict=True)):
        raise ValueError("its shards are not made of whole chunks")
    # Before the names of levels are made.
    if plan["levels"] > (1 if plan["format"] == "zarr" else len(arrays)):
        raise ValueError(f"it has {plan['levels']} levels, and {len(arrays)} arrays")
    names = level_names(plan)
    if absent := sorted({*names} - arrays.keys()):
        raise ValueError(f"there is no array {reprlib.repr(absent)}")
    several = {*names, MASK} if plan["on_error"] == "fill" else {*names}
    if any(n > 1 for name in arrays.keys() - several for n in arrays[name]):
        raise ValueError("a coordinate has several objects")
    if arrays[names[0]] != grid_of(shape, shards):
        raise ValueError(f"its shape does not make {reprlib.repr(arrays[names[0]])} objects")


def level_names(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the arrays that are levels, by a plan that is valid."""
    return ("pixels",) if plan["format"] == "zarr" else tuple(map(str, range(plan["levels"])))


def _check(values: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    if absent := sorted(checks.keys() - values.keys()):
        raise ValueError(f"it has no {', '.join(absent)}")
    for name, check in checks.items():
        if not check(values[name]):
            raise ValueError(f"its {name} cannot be {reprlib.repr(values[name])}")
