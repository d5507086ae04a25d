"""Lazy arrays into Zarr stores, one task per block."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import dask.array as da
import fsspec
import numpy as np
import numpy.typing as npt
import zarr
from dask.utils import format_bytes
from zarr.abc.store import Store
from zarr.codecs import BloscCodec
from zarr.storage import FsspecStore, LocalStore

from dcmdask.arrays.chunks import Chunks
from dcmdask.arrays.dask_array import from_dicom
from dcmdask.errors import AlignmentError, StoreExistsError, StoreLostError
from dcmdask.export import plan
from dcmdask.export.provenance import provenance
from dcmdask.export.target import NODE, discard, replacing
from dcmdask.frames.frame_array import FrameArray, open_frames

DIMENSION_NAMES = ("frame", "row", "column", "sample")
# The one attribute of a group that this package writes.
KEY = "dcmdask"
BLOSC_BYTES = 2**31 - 1


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes
    ----------
    store : str
        The path or URL of the store.
    shape : tuple of int
    dtype : numpy.dtype
        In native byte order.
    chunks : tuple of int
        The shape of a Zarr chunk.
    bytes_decoded : int
        Of the array.
    bytes_stored : int or None
        Of the store with all its metadata; None where it is not a local folder.
    seconds : float
        From the call to the end.
    token : str
        Of the source; of an array of one's own, its name.
    """

    store: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    bytes_decoded: int
    bytes_stored: int | None
    seconds: float
    token: str

    def __str__(self) -> str:
        size = format_bytes(self.bytes_decoded)
        if self.bytes_stored:
            ratio = self.bytes_decoded / self.bytes_stored
            size += f" in {format_bytes(self.bytes_stored)} ({ratio:.1f} : 1)"
        return (
            f"{self.store}: {self.shape} {self.dtype}, chunks {self.chunks}, {size}, "
            f"{self.seconds:.1f} s"
        )


def to_zarr(
    src: Any,
    store: str | os.PathLike[str] | Store,
    *,
    chunks: Chunks = "auto",
    compressors: Any = "auto",
    overwrite: bool = False,
    **from_dicom_options: Any,
) -> ExportReport:
    """Write the frames of one DICOM file to a Zarr 3 group with one array, ``pixels``.

    Each chunk is decoded once and written once, by whatever scheduler Dask is set to. The
    dimensions are named frame, row, column and, for colour, sample. The attribute
    ``dcmdask`` of the group holds the technical header and where the frames come from;
    names, dates and other personal data never go in.

    Parameters
    ----------
    src : str, path-like, file-like, bytes, pydicom.Dataset or FrameArray
        As for :func:`from_dicom`.
    store, compressors, overwrite
        As for :func:`write_array`.
    chunks : int, str, tuple or dict, optional
        As for :func:`from_dicom`; a Dask chunk becomes a Zarr chunk.
    **from_dicom_options
        As for :func:`from_dicom`.

    Returns
    -------
    ExportReport

    Raises
    ------
    StoreExistsError
        Something is there that is not to be replaced.
    AlignmentError
        `chunks` are not all of one length.
    DcmdaskError
        Others, as for :func:`from_dicom`; :exc:`DecodeError` for a frame that does not
        decode. The target then is what it was before.

    Examples
    --------
    >>> import tempfile, zarr
    >>> from pydicom.data import get_testdata_file
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = to_zarr(get_testdata_file("examples_ybr_color.dcm"), f"{folder.name}/cine.zarr")
    >>> report.shape, report.chunks
    ((30, 240, 320, 3), (5, 240, 320, 3))
    >>> group = zarr.open_group(report.store, mode="r")
    >>> group["pixels"].metadata.dimension_names
    ('frame', 'row', 'column', 'sample')
    >>> group.attrs["dcmdask"]["header"]["Modality"]
    'US'
    >>> folder.cleanup()
    """
    started = time.perf_counter()
    if not isinstance(src, FrameArray):
        src, from_dicom_options = open_frames(src, **from_dicom_options), {}
    x = from_dicom(src, chunks=chunks, **from_dicom_options)
    report = write_array(
        x,
        store,
        dimension_names=DIMENSION_NAMES[: x.ndim],
        attributes={KEY: provenance(src)},
        compressors=compressors,
        overwrite=overwrite,
    )
    return replace(report, seconds=time.perf_counter() - started, token=src.token)


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
        What zarr takes. ``"auto"`` is Blosc with Zstandard and bit shuffle, None nothing.
    overwrite : bool, optional
        Replace the Zarr 3 store that is there; never anything else. In place it has to
        be one that this package wrote, and is lost where writing fails.

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
    started = time.perf_counter()
    if not isinstance(x, da.Array):
        raise TypeError(f"a Dask array is needed, not {type(x).__name__}; to_zarr takes DICOM")
    if not name or "/" in name or name.startswith((".", "__")):
        raise ValueError(f"{name!r} cannot be the name of an array: it is one part of a path")
    x = x.astype(x.dtype.newbyteorder("="))
    layout: dict[str, Any] = {
        "shape": x.shape,
        "chunks": plan.zarr_chunks(x.chunks, chunks),
        "dtype": x.dtype,
        "dimension_names": dimension_names,
        "compressors": _compressors(compressors),
    }
    if compressors == "auto" and math.prod(layout["chunks"]) * x.dtype.itemsize > BLOSC_BYTES:
        raise AlignmentError(
            f"a chunk of {layout['chunks']} {x.dtype} is larger than the {BLOSC_BYTES} bytes that "
            "Blosc takes: use smaller chunks"
        )
    # What zarr refuses it refuses here, before the target is touched.
    zarr.create_array({}, **layout)
    told = dict(attributes or {})
    told[KEY] = {**told.get(KEY, {}), "complete": False}
    with _group(store, told, overwrite) as group:
        array = group.create_array(name, **layout, config={"write_empty_chunks": True})
        with closing(_Sink(array)) as sink:
            da.store(x, cast(Any, sink), lock=False)
        if array.nchunks_initialized != array.nchunks:
            raise StoreLostError(
                f"{array.nchunks_initialized} of {array.nchunks} chunks are in the store: can all "
                "worker processes reach it?",
                source=str(store),
            )
        _complete(group, told)
        stored = _bytes_stored(group.store)
    return ExportReport(
        store=str(store),
        shape=x.shape,
        dtype=x.dtype,
        chunks=array.chunks,
        bytes_decoded=int(x.nbytes),
        bytes_stored=stored,
        seconds=time.perf_counter() - started,
        token=x.name,
    )


def _compressors(wanted: Any) -> Any:
    return BloscCodec(cname="zstd", shuffle="bitshuffle") if wanted == "auto" else wanted


class _Sink:
    """What tasks write their blocks to; pickles with the array's metadata."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self._state = threading.Condition()
        self._writing = 0
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.array,)

    def __setitem__(self, region: tuple[slice, ...], block: npt.NDArray[Any]) -> None:
        # Zarr would stretch and convert what does not fit, without a word.
        room = tuple(part.stop - part.start for part in region)
        if block.shape != room or block.dtype != self.array.dtype:
            raise AlignmentError(
                f"a task gave {block.shape} {block.dtype} where the Dask array says {room} "
                f"{self.array.dtype}"
            )
        with self._state:
            if self._closed:
                raise self._lost()
            self._writing += 1
        try:
            self.array[region] = block
        finally:
            with self._state:
                self._writing -= 1
                self._state.notify_all()
        store = self.array.store
        # In another process a task may run on when the export has failed, and make folders
        # anew: it clears them up. On another machine the folder may never have been there.
        if isinstance(store, LocalStore) and not (store.root / NODE).exists():
            discard(store.root)
            raise self._lost()

    def close(self) -> None:
        """Let no thread of this process write any more, and wait for those that do."""
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: not self._writing)

    def _lost(self) -> StoreLostError:
        return StoreLostError(
            "the store is gone: the export has ended, or this worker does not share the file "
            "system",
            source=str(self.array.store),
        )


@contextmanager
def _group(
    store: str | os.PathLike[str] | Store, attributes: dict[str, Any], overwrite: bool
) -> Iterator[zarr.Group]:
    """Give a new group that becomes `store`."""
    if isinstance(store, Store):
        yield _in_place(store, attributes, overwrite)
        return
    path = os.fspath(store)
    if not path:
        raise ValueError("the store has no name")
    if isinstance(store, str) and "://" in path:
        fs, local = fsspec.core.url_to_fs(path)
        if type(fs).__name__ != "LocalFileSystem":
            yield _in_place(FsspecStore.from_url(path), attributes, overwrite)
            return
        path = local
    with replacing(path, overwrite=overwrite) as folder:
        yield zarr.create_group(LocalStore(folder), attributes=attributes)


def _in_place(store: Store, attributes: dict[str, Any], overwrite: bool) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="w-", zarr_format=3, attributes=attributes)
    except FileExistsError as error:
        found = _found(store)
        if not overwrite or found is None:
            state = (
                "holds something else than a store of dcmdask's, which is never replaced"
                if found is None
                else f"holds a store {'already' if found else 'that is not complete'}, and "
                "nothing is replaced without overwrite"
            )
            raise StoreExistsError(f"{store} {state}") from error
    return zarr.open_group(store, mode="w", zarr_format=3, attributes=attributes)


def _found(store: Store) -> bool | None:
    """Return whether the group that is there is complete; None if it is not one of ours."""
    try:
        told = zarr.open_group(store, mode="r", zarr_format=3).attrs[KEY]
    except (KeyError, ValueError, FileNotFoundError):
        return None
    return bool(told.get("complete")) if isinstance(told, dict) else None


def _complete(group: zarr.Group, told: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        # Zarr 3 does not specify it yet and allows readers to ignore it; xarray warns
        # about stores without it.
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        group = zarr.consolidate_metadata(group.store)
    # Last of all, so that a reader can trust it.
    group.update_attributes({KEY: {**told[KEY], "complete": True}})


def _bytes_stored(store: Store) -> int | None:
    if not isinstance(store, LocalStore):
        return None
    folders = os.walk(Path(store.root))
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in folders
        for name in names
    )
