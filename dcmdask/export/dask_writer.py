"""Any Dask array into a Zarr store, one task per block."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import compute

from dcmdask.errors import StoreLostError
from dcmdask.export.blocks import zarr_chunks
from dcmdask.export.codecs import codecs
from dcmdask.export.completion import grid_of
from dcmdask.export.regions import write
from dcmdask.export.report import ExportReport, bytes_stored
from dcmdask.export.running import Awaited
from dcmdask.export.store import CONFIG, KEY, Target, complete, located, overlaid, replaced


def write_array(
    x: da.Array,
    store: Target,
    *,
    name: str = "pixels",
    dimension_names: Sequence[str | None] | None = None,
    attributes: Mapping[str, Any] | None = None,
    chunks: Sequence[int] | None = None,
    compressors: Any = "auto",
    overwrite: bool = False,
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
        What zarr takes. ``"auto"`` is Blosc with Zstandard and bit shuffle and a checksum,
        None nothing.
    overwrite : bool, optional
        Replace the Zarr store that is there, if dcmdask wrote it and it holds nothing else.
        In place it is lost where writing fails.

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
        What was written is not in the store.
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
    wanted = ToWrite(x, store, name, dimension_names, attributes, chunks, compressors, overwrite)
    (report,), _ = write_together([wanted])
    return report


class ToWrite(NamedTuple):
    """An array and where it goes: the arguments of :func:`write_array`.

    Attributes
    ----------
    shared : bool
        Whether somebody else may write the same there at the same time: on an object store,
        instead of `overwrite`.
    """

    x: da.Array
    store: Target
    name: str = "pixels"
    dimension_names: Sequence[str | None] | None = None
    attributes: Mapping[str, Any] | None = None
    chunks: Sequence[int] | None = None
    compressors: Any = "auto"
    overwrite: bool = False
    shared: bool = False


def write_together(
    wanted: Sequence[ToWrite], others: Sequence[Any] = ()
) -> tuple[list[ExportReport], list[Any]]:
    """Write arrays and compute others at once, so that what they have in common is done once.

    Parameters
    ----------
    wanted : sequence of ToWrite
    others : sequence
        What Dask can compute; anything else stays as it is.

    Returns
    -------
    list of ExportReport
    list
        The values of `others`.

    Raises
    ------
    AlignmentError, StoreExistsError, StoreLostError, TypeError, ValueError
        As :func:`write_array` does, for any of the arrays; then none of them is complete.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        begun = [stack.enter_context(_begun(one)) for one in wanted]
        computed = compute(*(lazy for _, lazy in begun), *others)
    seconds = time.perf_counter() - started
    reports = [
        ExportReport(
            store=str(one.store),
            shape=one.x.shape,
            dtype=array.dtype,
            chunks=array.chunks,
            bytes_decoded=int(one.x.nbytes),
            bytes_stored=bytes_stored(located(one.store).store),
            seconds=seconds,
            token=one.x.name,
        )
        for one, (array, _) in zip(wanted, begun, strict=True)
    ]
    return reports, list(computed[len(wanted) :])


@contextmanager
def _begun(one: ToWrite) -> Iterator[tuple[zarr.Array[Any], da.Array]]:
    """Give an array of a new store, and what writes it when it is computed."""
    if not isinstance(one.x, da.Array):
        raise TypeError(f"a Dask array is needed, not {type(one.x).__name__}; to_zarr takes DICOM")
    name = one.name
    if not name or "/" in name or name.startswith((".", "__")):
        raise ValueError(f"{name!r} cannot be the name of an array: it is one part of a path")
    x = one.x.astype(one.x.dtype.newbyteorder("="))
    chunk = zarr_chunks(x.chunks, one.chunks)
    layout: dict[str, Any] = {
        "shape": x.shape,
        "chunks": chunk,
        "dtype": x.dtype,
        "dimension_names": one.dimension_names,
        "compressors": codecs(one.compressors, chunk, x.dtype),
    }
    # What zarr refuses it refuses here, before the target is touched.
    zarr.create_array({}, **layout)
    told = dict(one.attributes or {})
    told[KEY] = {
        **told.get(KEY, {}),
        "complete": False,
        "arrays": {name: grid_of(x.shape, chunk)},
    }
    with _made(one, told, layout) as (group, array):
        with closing(Awaited(partial(write, array))) as put:
            yield array, _written(x, put)
        if array.nchunks_initialized != array.nchunks:
            raise StoreLostError(
                f"{array.nchunks_initialized} of {array.nchunks} chunks are in the store: can all "
                "worker processes reach it?",
                source=str(one.store),
            )
        complete(group)


@contextmanager
def _made(
    one: ToWrite, told: Mapping[str, Any], layout: Mapping[str, Any]
) -> Iterator[tuple[zarr.Group, zarr.Array[Any]]]:
    """Give a group and its array, which are what is asked for but for the chunks."""
    if not one.shared:
        with replaced(one.store, told, overwrite=one.overwrite) as group:
            yield group, group.create_array(one.name, **layout, config=CONFIG)
        return
    documents: dict[str, Any] = {}
    zarr.create_group(documents, attributes=dict(told)).create_array(one.name, **layout)
    group = overlaid(one.store, {key: data.to_bytes() for key, data in documents.items()})
    # Zarr up to 3.1.6 takes a `config` for opening, and ignores it.
    array = zarr.open_array(group.store, path=f"{group.path}/{one.name}".lstrip("/"), mode="r+")
    yield group, array.with_config(CONFIG)


def _written(x: da.Array, put: Awaited) -> da.Array:
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
