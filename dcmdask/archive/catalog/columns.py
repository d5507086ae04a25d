"""Lists and structs of Arrow as arrays and bytes of NumPy, and back, a column at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def _starts(counts: Iterable[int | None]) -> tuple[pa.Array, list[bool]]:
    """Return the offsets of lists of so many values, and which of them are there."""
    there = [count is not None for count in counts]
    ends = np.cumsum([0, *(count or 0 for count in counts)])
    return pa.array(ends, pa.int32()), there


def _listed(counts: Sequence[int | None], values: pa.Array) -> pa.Array:
    ends, there = _starts(counts)
    missing = None if all(there) else pa.array([not one for one in there])
    return pa.ListArray.from_arrays(ends, values, mask=missing)


def lists(each: Sequence[npt.NDArray[Any] | None]) -> pa.Array:
    """Return lists of integers, which come as arrays."""
    values = [one for one in each if one is not None]
    dtype = values[0].dtype if values else np.dtype(np.int64)
    joined = np.concatenate([np.empty(0, dtype), *values])
    kind = pa.uint32() if dtype == np.uint32 else pa.int64()
    return _listed([None if one is None else len(one) for one in each], pa.array(joined, kind))


def structs(each: Sequence[bytes | None], dtype: np.dtype[Any], kind: pa.StructType) -> pa.Array:
    """Return lists of structs, which come as the bytes of a structured type."""
    rows = np.frombuffer(b"".join(one or b"" for one in each), dtype)
    columns = [_column(np.ascontiguousarray(rows[name])) for name in dtype.names or ()]
    flat = pa.StructArray.from_arrays(columns, fields=list(kind))
    counts = [None if one is None else len(one) // dtype.itemsize for one in each]
    return _listed(counts, flat)


def _column(values: npt.NDArray[Any]) -> pa.Array:
    if values.ndim == 2:
        count, length = values.shape
        return _listed([length] * count, pa.array(values.ravel()))
    # NaN stands for an element that is absent.
    return pa.array(values, from_pandas=values.dtype.kind == "f")


def _bounds(column: pa.ListArray) -> tuple[list[tuple[int, int]], list[bool], pa.Array]:
    """Return begin and end of each list in the flat values, which are there, and the values."""
    ends = column.offsets.to_numpy()
    there = column.is_valid().to_pylist()
    return list(pairwise((ends - ends[:1]).tolist())), there, column.flatten()


def arrays_of(table: pa.Table, name: str) -> list[npt.NDArray[Any] | None]:
    """Return the lists of a column of integers as arrays; None of one that is not there."""
    bounds, there, values = _bounds(_chunk(table, name))
    flat = _whole(values).to_numpy(zero_copy_only=False)
    return [flat[i:j] if yes else None for (i, j), yes in zip(bounds, there, strict=True)]


def bytes_of(table: pa.Table, name: str, dtype: np.dtype[Any]) -> list[bytes | None]:
    """Return the lists of a column of structs as the bytes of a structured type."""
    bounds, there, structs = _bounds(_chunk(table, name))
    rows = np.empty(len(_whole(structs)), dtype)
    for field in dtype.names or ():
        rows[field] = _numbers(structs.field(field), dtype[field])
    return [rows[i:j].tobytes() if yes else None for (i, j), yes in zip(bounds, there, strict=True)]


def _chunk(table: pa.Table, name: str) -> pa.ListArray:
    column = table[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _numbers(values: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if dtype.shape:
        if pc.any(pc.not_equal(pc.list_value_length(_whole(values)), dtype.shape[0])).as_py():
            raise ValueError(f"lists of other than {dtype.shape[0]} numbers")
        flat = values.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(values), *dtype.shape)
    if dtype.kind == "S":
        return np.array(_whole(values).to_pylist(), dtype)
    # An absent number is NaN, which integers do not have.
    there = values if dtype.kind == "f" else _whole(values)
    return np.asarray(there.to_numpy(zero_copy_only=False))


def _whole(values: pa.Array) -> pa.Array:
    if values.null_count:
        raise ValueError(f"{values.null_count} of {len(values)} values are absent")
    return values
