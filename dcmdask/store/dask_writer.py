"""Any Dask array into a Zarr store, one task per block."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import compute
from zarr.abc.store import Store

from dcmdask.archive.discovery import MARK_KEY
from dcmdask.errors import AlignmentError, StoreLostError
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.store.export_report import ExportReport, bytes_stored
from dcmdask.store.regions import grid_of, write
from dcmdask.store.scheduler import Awaited
from dcmdask.store.target.group import CONFIG, complete, replaced
from dcmdask.store.target.place import located, with_options
from dcmdask.store.zarr_format import codecs


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
    """Write a Dask array to a Zarr 3 group with one array.

    One task writes the Zarr chunks of one Dask chunk, each whole. Nothing is rechunked: an
    array of which two tasks would write the same Zarr chunk is refused.

    Parameters
    ----------
    x : dask.array.Array
        An array of known shape; it is stored in native byte order.
    store : str, path-like or zarr.abc.store.Store
        A local path is written beside, as ``.NAME.partial-...``, and renamed into place, so
        that it is whole or unchanged; a process that is killed leaves the partial folder. A
        URL for fsspec or a store of zarr's is written in place; the group's attribute
        ``dcmdask`` says ``"complete": false`` until everything is written. All worker processes
        have to reach it.
    name : str, optional
        Name of the array in the group.
    dimension_names : sequence of str or None, optional
        One for each axis.
    attributes : mapping, optional
        Attributes of the group, in JSON values.
    chunks : sequence of int, optional
        The shape of a Zarr chunk; Dask chunks have to be multiples of it. By default that of
        the Dask chunks, which have to be of one shape; the last along an axis may be smaller.
    compressors : optional
        As zarr takes them. ``"auto"`` is Blosc with Zstandard and bit shuffle and a checksum,
        None for no compression.
    overwrite : bool, optional
        Replace an existing Zarr store, if dcmdask wrote everything in it. Where the new one is
        written in place, the old one is lost even if writing fails.
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
        Something exists that is not to be replaced; nothing was computed.
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
    # Zarr refuses parameters here, before the target is touched.
    zarr.create_array({}, **layout)
    described = dict(attributes or {})
    described[MARK_KEY] = {
        **described.get(MARK_KEY, {}),
        "complete": False,
        "arrays": {name: grid_of(x.shape, chunk)},
    }
    target, store = store, with_options(store, target_options)
    with reaching(target, TARGET_OPTION), replaced(store, described, overwrite=overwrite) as group:
        array = group.create_array(name, **layout)
        with written(group, {name: x}) as lazy:
            compute(lazy)
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


@contextmanager
def written(group: zarr.Group, arrays: Mapping[str, da.Array]) -> Iterator[list[da.Array]]:
    """Give lazy arrays with an element for each block, of which computing writes the block.

    After the body all chunks of the `arrays` of the group are there, and it is complete.
    """
    # Zarr up to 3.1.6 takes a `config` for opening, and ignores it.
    opened: list[Any] = [group[name].with_config(CONFIG) for name in arrays]  # type: ignore[union-attr]  # no groups
    with ExitStack() as stack:
        puts = [stack.enter_context(closing(Awaited(partial(write, one)))) for one in opened]
        yield [
            da.map_blocks(
                _put,
                x,
                put,
                dtype=np.dtype(bool),
                chunks=tuple((1,) * count for count in x.numblocks),
                meta=np.empty((0,) * x.ndim, bool),
            )
            for x, put in zip(arrays.values(), puts, strict=True)
        ]
    for array in opened:
        if array.nchunks_initialized != array.nchunks:
            raise StoreLostError(
                f"{array.nchunks_initialized} of {array.nchunks} chunks of {array.basename} are in "
                "the store: can all worker processes reach it?",
                source=str(group.store),
                code="objects-lost",
            )
    complete(group)


def _put(block: npt.NDArray[Any], put: Awaited, block_info: Any = None) -> npt.NDArray[np.bool_]:
    put(tuple(slice(start, stop) for start, stop in block_info[0]["array-location"]), block)
    return np.ones((1,) * block.ndim, bool)


# Chunks

Blocks = Sequence[Sequence[int]]


def zarr_chunks(blocks: Blocks, wanted: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the shape of the Zarr chunks for an array in Dask `blocks`.

    Every boundary between two blocks is a boundary between two Zarr chunks, so each
    chunk is written whole by one task, and by no other.

    `blocks` are the lengths of the Dask chunks along each axis, which by default have to be of one
    length; the last may be shorter.

    Examples
    --------
    >>> zarr_chunks([(10, 10, 5), (512,), (512,)])
    (10, 512, 512)
    >>> zarr_chunks([(10, 10, 5), (512,), (512,)], wanted=(5, 256, 256))
    (5, 256, 256)
    """
    if wanted is not None and (len(wanted) != len(blocks) or min(wanted, default=1) < 1):
        raise ValueError(
            f"chunks {tuple(wanted)!r} are not one positive integer for each of the "
            f"{len(blocks)} axes"
        )
    found = []
    for axis, lengths in enumerate(blocks):
        if any(math.isnan(length) for length in lengths):
            raise AlignmentError(
                f"axis {axis} has Dask chunks of unknown length, and a store needs its shape "
                "first: call compute_chunk_sizes()",
                code="unknown-chunks",
            )
        # Zarr has no chunks of length 0, not even for an empty axis.
        chunk = max(1, *lengths) if wanted is None else wanted[axis]
        _check(axis, lengths, chunk)
        found.append(chunk)
    return tuple(found)


def _check(axis: int, lengths: Sequence[int], chunk: int) -> None:
    for position, end in enumerate(accumulate(lengths[:-1])):
        if end % chunk == 0:
            continue
        start = end - end % chunk
        fit = math.gcd(*lengths[:-1])
        chunks = f"chunks of {fit}" if fit == 1 else f"chunks of {fit} or a divisor of it"
        raise AlignmentError(
            f"axis {axis}: Dask chunk {position} ends at {end}, inside the Zarr chunk from {start} "
            f"to {start + chunk}, which two tasks would write; {chunks} would fit, or "
            f".rechunk({{{axis}: {chunk}}}) first",
            code="unaligned",
        )
