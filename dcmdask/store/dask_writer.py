"""Any Dask array into a Zarr store, one task per block."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import compute
from zarr.abc.store import Store

from dcmdask.dicom.access import TARGET, reaching
from dcmdask.errors import StoreLostError
from dcmdask.store.blocks import zarr_chunks
from dcmdask.store.codecs import codecs
from dcmdask.store.completion import grid_of
from dcmdask.store.group import CONFIG, KEY, complete, located, replaced, with_options
from dcmdask.store.regions import write
from dcmdask.store.report import ExportReport, bytes_stored
from dcmdask.store.scheduler import Awaited


def write_array(
    x: da.Array,
    store: str | os.PathLike[str] | Store,
    *,
    name: str = "pixels",
    dimension_names: Sequence[str | None] | None = None,
    attributes: Mapping[str, Any] | None = None,
    chunks: Sequence[int] | None = None,
    compressors: Any = "auto",
    overwrite: bool = False,
    target_options: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write a Dask array to a Zarr 3 group with one array, aligned or not at all.

    One task writes the Zarr chunks of one Dask chunk, each whole. Nothing is rechunked:
    where two tasks would write the same Zarr chunk the array is refused.

    Parameters
    ----------
    x : dask.array.Array
        Of known shape. It is stored in native byte order.
    store : str, path-like or zarr.abc.store.Store
        A local path is written beside, as ``.NAME.partial-...``, and renamed into place:
        it is whole, or as it was before; a process that is killed leaves what it wrote.
        A URL for fsspec or a store of zarr's is written in place; the group's attribute
        ``dcmdask`` says ``"complete": false`` until all is there. With several processes
        it has to be one that all of them reach.
    name : str, optional
        Of the array in the group.
    dimension_names : sequence of str or None, optional
        One for each axis.
    attributes : mapping, optional
        Of the group, JSON values.
    chunks : sequence of int, optional
        The shape of a Zarr chunk, of which all Dask chunks are multiples. By default
        that of the Dask chunks, which have to be of one shape; the last along an axis
        may be smaller.
    compressors : optional
        As zarr takes them. ``"auto"`` is Blosc with Zstandard and bit shuffle and a checksum,
        None nothing.
    overwrite : bool, optional
        Replace the Zarr store that is there, if dcmdask wrote it and it holds nothing else.
        In place it is lost where writing fails.

    target_options : mapping, optional
        Keyword arguments for the fsspec file system of `store`, where that is a URL.

    Returns
    -------
    ExportReport

    Raises
    ------
    AlignmentError
        Chunks do not line up; nothing was written.
    StoreExistsError
        Something is there that is not to be replaced; nothing was computed.
    StoreLostError
        Objects that were written are not in the store.
    TypeError, ValueError
        `x` is no Dask array, or something that zarr does not take; nothing was computed.

    Examples
    --------
    >>> import tempfile, dask.array
    >>> folder = tempfile.TemporaryDirectory()
    >>> x = dask.array.ones((10, 64, 64), chunks=(4, 64, 64))
    >>> write_array(x, f"{folder.name}/ones.zarr", chunks=(2, 64, 64)).chunks
    (2, 64, 64)
    >>> write_array(x.rechunk((3, 64, 64)), f"{folder.name}/no.zarr", chunks=(2, 64, 64))
    Traceback (most recent call last):
    ...
    dcmdask.errors.AlignmentError: axis 0: Dask chunk 0 ends at 3, inside the Zarr chunk from ...
    >>> folder.cleanup()
    """
    started = time.perf_counter()
    if not isinstance(x, da.Array):
        raise TypeError(f"a Dask array is needed, not {type(x).__name__}; to_zarr takes DICOM")
    if not name or "/" in name or name.startswith((".", "__")):
        raise ValueError(f"{name!r} cannot be the name of an array: it is one part of a path")
    x = x.astype(x.dtype.newbyteorder("="))
    chunk = zarr_chunks(x.chunks, chunks)
    layout: dict[str, Any] = {
        "shape": x.shape,
        "chunks": chunk,
        "dtype": x.dtype,
        "dimension_names": dimension_names,
        "compressors": codecs(compressors, chunk, x.dtype),
    }
    # What zarr refuses it refuses here, before the target is touched.
    zarr.create_array({}, **layout)
    told = dict(attributes or {})
    told[KEY] = {
        **told.get(KEY, {}),
        "complete": False,
        "arrays": {name: grid_of(x.shape, chunk)},
    }
    target, store = store, with_options(store, target_options)
    with reaching(target, TARGET), replaced(store, told, overwrite=overwrite) as group:
        array = group.create_array(name, **layout, config=CONFIG)
        with closing(Awaited(partial(write, array))) as put:
            compute(written(x, put))
        if array.nchunks_initialized != array.nchunks:
            raise StoreLostError(
                f"{array.nchunks_initialized} of {array.nchunks} chunks are in the store: can all "
                "worker processes reach it?",
                source=str(store),
            )
        complete(group)
    return ExportReport(
        store=str(target),
        shape=x.shape,
        dtype=array.dtype,
        chunks=array.chunks,
        bytes_decoded=int(x.nbytes),
        bytes_stored=bytes_stored(located(store).store),
        seconds=time.perf_counter() - started,
        token=x.name,
    )


def written(x: da.Array, put: Awaited) -> da.Array:
    """Return a lazy array with an element for each block, of which computing writes it."""
    lazy: da.Array = da.map_blocks(
        _put,
        x,
        put,
        dtype=np.dtype(bool),
        chunks=tuple((1,) * count for count in x.numblocks),
        meta=np.empty((0,) * x.ndim, bool),
    )
    return lazy


def _put(block: npt.NDArray[Any], put: Awaited, block_info: Any = None) -> npt.NDArray[np.bool_]:
    put(tuple(slice(start, stop) for start, stop in block_info[0]["array-location"]), block)
    return np.ones((1,) * block.ndim, bool)
