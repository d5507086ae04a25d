"""Results of a job to Zarr: arrays as they are, and those of xarray with their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import zarr
from zarr.storage import MemoryStore

from dcmdask.archive.discovery import MARK_KEY
from dcmdask.store.dask_writer import written
from dcmdask.store.provenance import jsonable
from dcmdask.store.regions import grid_of
from dcmdask.store.target.group import overlaid
from dcmdask.store.target.place import with_options
from dcmdask.store.zarr_format import codecs

if TYPE_CHECKING:
    import xarray as xr

# Kinds of variables that are written block by block; others are small, such as labels.
_NUMBERS = "biufc"
# Kinds of strings, as one.
_TEXTS = {"U": "O", "T": "O"}


@contextmanager
def result(
    value: Any, store: str, target_options: Mapping[str, Any] | None = None
) -> Iterator[list[da.Array]]:
    """Give lazy arrays of which computing writes a result; after the body it is complete.

    A Dask or NumPy array becomes the array ``pixels`` of a group. A DataArray, Dataset, DataFrame
    or Series is given back by :func:`xarray.open_zarr` with coordinates, attributes and columns: a
    DataArray as the variable ``pixels``, the others as Datasets; a value that would not come back
    is a TypeError. Others may be writing the same content to `store`.
    """
    dataset = _as_dataset(value)
    documents, arrays = _plain(value) if dataset is None else _labelled(dataset)
    group = overlaid(with_options(store, target_options), documents)
    with written(group, arrays) as lazy:
        yield lazy


def _plain(value: Any) -> tuple[dict[str, bytes], dict[str, da.Array]]:
    x = _even(value if isinstance(value, da.Array) else np.asarray(value))
    documents: dict[str, Any] = {}
    group = zarr.create_group(documents)
    chunks = _chunk(x)
    group.create_array(
        "pixels",
        shape=x.shape,
        chunks=chunks,
        dtype=x.dtype,
        compressors=codecs("auto", chunks, x.dtype),
    )
    return _described(documents), {"pixels": x}


def _labelled(dataset: xr.Dataset) -> tuple[dict[str, bytes], dict[str, da.Array]]:
    """Return metadata and labels as xarray writes them, and the arrays that it leaves."""
    # The encoding of an earlier store is not that of this one.
    dataset = dataset.drop_encoding()
    arrays = {
        str(name): _even(one.data)
        for name, one in dataset.data_vars.items()
        if one.dtype.kind in _NUMBERS and one.ndim
    }
    lazy = dataset.assign({name: (dataset[name].dims, x) for name, x in arrays.items()})
    for name in lazy.variables:
        one = lazy[name]
        if str(name) in arrays:
            lazy[name].attrs = _jsonable(str(name), dataset[name].attrs)
        else:
            one = one.compute()
            # Zarr specifies strings of any length only.
            one = one.astype(object) if one.dtype.kind == "U" else one
            lazy[name] = one.assign_attrs(_jsonable(str(name), one.attrs))
    lazy.attrs = _jsonable("the data set", dataset.attrs)
    encoding = {
        name: {
            "chunks": _chunk(x),
            "compressors": codecs("auto", _chunk(x), x.dtype),
        }
        for name, x in arrays.items()
    }
    documents: dict[str, Any] = {}
    with zarr.config.set({"array.write_empty_chunks": True}):
        lazy.to_zarr(
            MemoryStore(documents),
            compute=False,
            consolidated=False,
            zarr_format=3,
            encoding=encoding,
        )
    _check_comes_back(lazy, documents)
    stored = dict(zarr.open_group(MemoryStore(documents), mode="r").arrays())
    # Some releases of xarray store booleans as integers, and say so in an attribute.
    arrays = {name: x.astype(stored[name].dtype) for name, x in arrays.items()}
    return _described(documents), arrays


def _check_comes_back(dataset: xr.Dataset, documents: dict[str, Any]) -> None:
    """Refuse what :func:`xarray.open_zarr` would give back as something else.

    An attribute such as ``scale_factor`` is an instruction there, a column of integers with
    missing values becomes floating point, and a name with a slash another group.
    """
    import xarray as xr

    try:
        found = xr.open_zarr(MemoryStore(documents), consolidated=False, chunks=None)
    except Exception as error:
        raise TypeError(f"it cannot be read back from a Zarr store: {error}") from error
    for name, one in dataset.variables.items():
        if name not in found.variables:
            raise TypeError(f"{name!r} is no name of an array in a Zarr store")
        other = found.variables[name]
        kinds = {_TEXTS.get(each.dtype.kind, each.dtype.kind) for each in (one, other)}
        same = len(kinds) == 1 and other.attrs == one.attrs
        # Arrays of Dask have not been written yet.
        if same and not isinstance(one.data, da.Array):
            # NumPy's strings compare equal to missing values.
            same = other.astype(one.dtype).equals(one)
        if not same:
            raise TypeError(
                f"{name!r} would not come back from a Zarr store as it is: missing values are for "
                "floating point, and an attribute like 'scale_factor' is an instruction to readers"
            )


def _as_dataset(value: Any) -> xr.Dataset | None:
    """Return what has labels as a data set of xarray's; None if it has none."""
    if hasattr(value, "data_vars"):
        found: xr.Dataset = value
    elif hasattr(value, "dims"):
        found = value.to_dataset(name="pixels")
    elif hasattr(value, "iloc"):
        import xarray as xr

        frame = value if value.ndim > 1 else value.to_frame(value.name or "values")
        frame = frame.rename(columns=str)
        names = [frame.index.name or "index", *frame.columns]
        if frame.index.nlevels > 1 or len({*names}) < len(names):
            raise TypeError(
                "a table with an index of several levels, or columns that share a name with each "
                "other or the index, has no place in a Zarr store: see reset_index of pandas"
            )
        for name, kind in frame.dtypes.items():
            # Numbers of pandas that may have missing values.
            if hasattr(kind, "numpy_dtype") and kind.kind in _NUMBERS:
                if frame[name].isna().any():
                    raise TypeError(f"{name!r} would not come back: fill its missing values")
                frame[name] = frame[name].astype(kind.numpy_dtype)
        found = xr.Dataset.from_dataframe(frame)
    else:
        return None
    return found


def _chunk(x: da.Array) -> tuple[int, ...]:
    """Return the shape of a Zarr chunk, which has no axis of length 0."""
    return tuple(max(1, int(length)) for length in x.chunksize)


def _even(x: Any) -> da.Array:
    """Return an array in chunks that are Zarr chunks, too, and in native byte order."""
    x = x if isinstance(x, da.Array) else da.from_array(np.asarray(x), chunks=-1)
    if not all(len({*one[:-1]}) <= 1 and one[-1] <= one[0] for one in x.chunks):
        x = x.rechunk(tuple(max(one) for one in x.chunks))
    even: da.Array = x.astype(x.dtype.newbyteorder("="))
    return even


def _jsonable(of: str, attributes: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        told = jsonable(value)
        try:
            json.dumps(told)
        except (TypeError, ValueError) as error:
            raise TypeError(f"attribute {key!r} of {of} has no place in JSON: {error}") from None
        found[str(key)] = told
    return found


def _described(documents: dict[str, Any]) -> dict[str, bytes]:
    """Return the content of a group, once it lists what is written to it."""
    group = zarr.open_group(MemoryStore(documents), mode="r+")
    grids = {name: grid_of(one.shape, one.shards or one.chunks) for name, one in group.arrays()}
    told = group.attrs.get(MARK_KEY)
    told = told if isinstance(told, dict) else {}
    group.update_attributes({MARK_KEY: {**told, "arrays": grids, "complete": False}})
    return {key: data.to_bytes() for key, data in documents.items()}
