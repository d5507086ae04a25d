"""DICOM frames into Zarr stores, one task per region."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import zarr
from pydicom.dataset import Dataset
from zarr.abc.store import Store

from dcmdask.archive.discovery import folder_of, sources
from dcmdask.archive.series import Series
from dcmdask.dicom.image_pixel import check_options
from dcmdask.errors import StoreExistsError, StoreLostError
from dcmdask.images.slides.level import Level
from dcmdask.images.slides.whole_slide import Slide
from dcmdask.images.volume import Stack
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.store.export import Prepared, prepare
from dcmdask.store.export_report import ExportReport, bytes_stored
from dcmdask.store.plan import check_fits
from dcmdask.store.regions import Failure, Job, cut_short, lacking, left, write_region
from dcmdask.store.scheduler import room, run_levels
from dcmdask.store.target.group import CONFIG, complete, opened
from dcmdask.store.target.ownership import check_apart
from dcmdask.store.target.place import Place, check_reached, located, with_options
from dcmdask.store.tiles.writer import write_kept
from dcmdask.store.zarr_format import array_parameters, small


def to_zarr(
    src: Any,
    store: str | os.PathLike[str] | Store,
    *,
    format: Literal["zarr", "ome-zarr"] = "zarr",
    ome_version: Literal["0.4", "0.5"] = "0.5",
    chunks: str | int | Sequence[int] | None = "auto",
    shards: str | int | Sequence[int] | None = "auto",
    compressors: Any = "auto",
    levels: int | str = "auto",
    values: str = "stored",
    on_irregular: Literal["error", "keep", "fill"] = "error",
    on_duplicate: Literal["error", "first"] = "error",
    order_by: str | Sequence[str] | None = None,
    tolerance: float | None = None,
    on_error: Literal["fail", "fill"] = "fail",
    fill_value: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    with_identifiers: bool = False,
    labels: Any = None,
    keep_codec: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    **decoding_options: Any,
) -> ExportReport:
    """Write DICOM frames to a Zarr group, whole or marked as incomplete.

    Each frame is decoded once (again if another one of its region is filled), and each object
    is written once, by the scheduler that Dask is set to. An export that ends early keeps what
    it has written, and `resume` writes the rest. The attribute ``dcmdask`` of the group holds
    the technical header, a hash of the source, and ``"complete"``, which is true once everything
    else is written. Names, dates and other personal data are not stored.

    Parameters
    ----------
    src : str, path-like, file-like, bytes, Dataset, FrameArray, or as follows
        One file, whose frames keep their order. Or a :class:`Series` or a :class:`Stack`, or a
        folder, a list, a glob pattern or a URL with one series of one stack: its frames are
        arranged in space. Or all of these with one whole slide, a :class:`Slide`, or a
        :class:`Level` of it: the total pixel matrices. Label, overview and thumbnail images of a
        slide are never exported, since they may show names.
    store : str, path-like or zarr.abc.store.Store
        A local path, a URL for fsspec, or a store of zarr's, which all worker processes
        reach.
    format : {"zarr", "ome-zarr"}
        One array, ``pixels``; or OME-Zarr: arrays ``0``, ``1``, ... of a pyramid with axes t, c,
        z, y, x. Levels that a whole slide has itself are kept, and optical paths are c.
    ome_version : {"0.5", "0.4"}
        Version of OME-Zarr: 0.5 is stored in Zarr 3; 0.4 in Zarr 2, without shards, for readers
        that know nothing else.
    chunks : "auto", int or sequence of int
        A number for each axis of the stored array but the samples; an int is a number of
        whole frames, and of a whole slide one of rows and of columns. By default about half a MiB;
        those of a volume span several frames, those of a slide several tiles.
    shards : "auto", int, sequence of int or None
        A number for each axis, multiples of `chunks`; None for no shards. By default up to
        64 MiB of whole frames, or of whole tiles, where there are more than 64 chunks.
    compressors : optional
        As zarr takes them. ``"auto"`` is Blosc with Zstandard and bit shuffle and a checksum,
        None for no compression. OME-Zarr 0.4 has no checksum behind Blosc, since readers in other
        languages know none: a chunk of another length is noticed, a changed one only by
        comparing levels or with the source. There ``"zstd"`` has a checksum of its own.
    levels : int or "auto"
        Number of levels of an OME-Zarr pyramid; by default until a frame fits in 256 x 256. Of a
        whole slide first those that it has itself, and then those made of the coarsest.
    values : str
        ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
        each frame's own slope and intercept; ``"display"``, 8-bit grey or RGB as a viewer shows
        them; or ``"philips-float"``, ``"suv"``, ``"suv-lbm"``, ``"suv-bsa"``, ``"real-world"``
        or ``"real-world:LABEL"``, for which see :func:`dcmdask.from_dicom`.
    on_irregular : {"error", "keep", "fill"}
        If positions are missing, double or uneven: raise; keep the frames in spatial order
        (holes in a grid of several dimensions hold `fill_value`); or put `fill_value` where
        positions and frames are missing.
        :meth:`Stack.split` gives the regular parts.
    on_duplicate : {"error", "first"}
        For a scan that is there in single-frame and in multi-frame files: raise, or take the first
        of both, by name.
    order_by : str or sequence of str, optional
        Keywords of attributes that tell frames of one position apart, one dimension each, such
        as ``"TriggerTime"``. By default the Dimension Index Sequence (PS3.3 C.7.6.17), or
        attributes that all positions share.
    tolerance : float, optional
        Largest distance of positions from an even grid, in mm. By default 3 % of its step, or
        less than the last digit that positions are written with.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file system of `src`, where that is a URL.
    target_options : mapping, optional
        Keyword arguments for the fsspec file system of `store`, where that is a URL.
    on_error : {"fail", "fill"}
        If a frame cannot be decoded, raise; or write `fill_value`, mark the frame in the
        coordinate ``missing`` and list it in the report. Of a whole slide that is a tile: its
        arrays ``missing``, ``missing-1``, ... of the levels that the slide has itself have an entry
        for each row and column of tiles.
    fill_value : number, optional
        Value of missing frames. By default NaN for floating point, otherwise Pixel Padding
        Value (0028,0120) in the same units, or 0. Of a whole slide also of pixels without a tile,
        by default as :meth:`Level.to_dask` has them; in colour, so do tiles that are filled.
    resume : bool
        Go on with an export of the same source and options that ended early, if there is one.
    overwrite : bool
        Replace an existing Zarr store, if dcmdask wrote everything in it. A local store is
        replaced once the new one is whole; elsewhere the old one is removed first.
    with_identifiers : bool
        Also store identifiers of the patient and the examination, and names of source files.
    labels : optional
        Segmentation of the image, in any form that `src` may have, which becomes images of labels
        in an OME-Zarr: ``labels/segments``, or one for each segment, such as
        ``labels/segment-1``, where they overlap. Its planes are put where they are in the
        image, and nothing is interpolated.
    keep_codec : bool
        Of a whole slide: store its tiles as they are encoded, as chunks of Zarr 2 arrays ``0``,
        ``1``, ... for its levels, (y, x[, sample]) with optical path and z in front, if there are
        several. Nothing is decoded; readers need ``imagecodecs.numcodecs.register_codecs()``.
        Chunks at the edges are whole tiles, and the shape of the array cuts them. As OME-Zarr
        0.4 for slides of one sample only: its axes have c in front of y and x, and a JPEG
        of three samples is no such chunk. Options of decoded exports are refused.
    progress : callable, optional
        Called with the number of regions written, and of all that are to be.
    raw : bool, optional
        Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB; for stored
        values only.
    decoding_plugin : str, optional
        The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
    **decoding_options
        pydicom's decoding options; overrides of group 0028 by pydicom's keywords (`rows`,
        `bits_stored`, `photometric_interpretation`, `number_of_frames`, ...), and
        `transfer_syntax_uid`. And `inflate_limit`: bytes that a deflated data set, a file-like,
        or a URL whose server gives no parts may take in memory, by default 1 GiB.

    Returns
    -------
    ExportReport

    Raises
    ------
    AlignmentError
        Chunks and shards do not go together, or a region of whole frames takes more than a
        sixth of a worker's memory, divided among its threads: a task takes up to four times its
        region. Nothing was written.
    StoreExistsError
        Something exists that is not to be replaced, is of another source or other options, or
        is being written by another export. Nothing was written. (On object stores two exports
        of one source are not noticed; they write the same.)
    StoreLostError
        Objects that were written are not in the store.
    LayoutError
        OME-Zarr has no axis for a dimension of the frames; or `labels` is no segmentation with the
        rows and columns of the image. Or the levels of a slide differ in samples, type, optical
        paths or focal planes. Nothing was written. Or tiles cannot be kept as they are: they
        overlap, are encoded in several ways, or no codec of Zarr 2 decodes them to the same.
    GeometryError
        `labels` and the image have not one frame of reference, or their grids do not coincide.
    ValueError
        `store` is the source, holds it, or lies in it where a scan would find it; or a parameter
        is out of its range. Nothing was written.
    TypeError
        There is no such parameter; or `src` cannot be stored with these parameters.
    ImportError
        OME-Zarr needs the extra ``ome``.
    UnreachableError
        The server of `src` or `store` does not answer, or lets nobody in without credentials.
    AmbiguousSourceError, IrregularSeriesError
        There is not exactly one series of one stack, or one whole slide; or it is irregular, and
        `on_irregular` is ``"error"``.
    DecodeError
        A frame does not decode. `resume` keeps the regions that were written.
    DcmdaskError
        The source cannot be opened.

    Examples
    --------
    >>> import tempfile, zarr
    >>> from pydicom.data import get_testdata_file
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = to_zarr(get_testdata_file("examples_ybr_color.dcm"), f"{folder.name}/cine.zarr")
    >>> report.shape, report.chunks
    ((30, 240, 320, 3), (2, 240, 320, 3))
    >>> group = zarr.open_group(report.store, mode="r")
    >>> group["pixels"].metadata.dimension_names
    ('frame', 'row', 'column', 'sample')
    >>> group.attrs["dcmdask"]["header"]["Modality"], group.attrs["dcmdask"]["complete"]
    ('US', True)
    >>> folder.cleanup()
    """
    started = time.perf_counter()
    check_options(decoding_options, to_zarr)
    if resume and overwrite:
        raise ValueError("resume keeps what was written and overwrite does not: not both")
    target, store = store, with_options(store, target_options)
    if isinstance(src, Iterator) and not hasattr(src, "read"):
        # It is iterated over twice.
        src = list(src)
    place = located(store)
    if place.fs is not None:
        check_apart(_names(src), place.url, target_options)
    if keep_codec:
        decoded = {
            "chunks": chunks != "auto",
            "shards": shards not in ("auto", None),
            "compressors": compressors != "auto",
            "levels": levels != "auto",
            "values": values != "stored",
            "on_irregular": on_irregular != "error",
            "on_duplicate": on_duplicate != "error",
            "order_by": bool(order_by),
            "tolerance": tolerance is not None,
            "on_error": on_error != "fail",
            "fill_value": fill_value is not None,
            "labels": labels is not None,
            "raw": bool(decoding_options.get("raw")),
            "decoding_plugin": bool(decoding_options.get("decoding_plugin")),
        }
        other = [name for name, is_given in decoded.items() if is_given]
        if other:
            raise ValueError(f"keep_codec decodes nothing, and {', '.join(other)} would")
        return write_kept(
            src,
            target,
            ome_version=ome_version if format == "ome-zarr" else "",
            overwrite=overwrite,
            resume=resume,
            with_identifiers=with_identifiers,
            progress=progress,
            storage_options=storage_options,
            target_options=target_options,
            **decoding_options,
        )
    prepared = prepare(
        src,
        format=format,
        ome_version=ome_version,
        chunks=chunks,
        shards=shards,
        compressors=compressors,
        levels=levels,
        values=values,
        on_irregular=on_irregular,
        on_duplicate=on_duplicate,
        order_by=order_by,
        tolerance=tolerance,
        on_error=on_error,
        fill_value=fill_value,
        with_identifiers=with_identifiers,
        labels=labels,
        storage_options=storage_options,
        **decoding_options,
    )
    for one in prepared.all:
        check_fits(one.plan, *room())
    begun = opened(
        store,
        prepared.attributes,
        overwrite=overwrite,
        resume=resume,
        zarr_format=prepared.layout.zarr_format,
    )
    with reaching(target, TARGET_OPTION), begun as (group, place, there):
        for name, attributes in prepared.groups().items():
            group.require_group(name).update_attributes(attributes)
        written, failures = _write(prepared.all, group, place, there, progress)
        complete(group)
        stored = bytes_stored(group.store)
    level, pyramid = prepared.plan.levels[0], prepared.pyramid
    return ExportReport(
        store=str(target),
        shape=level.shape,
        dtype=prepared.plan.dtype,
        chunks=level.chunks,
        bytes_decoded=sum(one.contents.frames.nbytes for one in pyramid),
        bytes_stored=stored,
        seconds=time.perf_counter() - started,
        token=prepared.contents.frames.token,
        shards=level.shards,
        levels=sum(len(one.plan.levels) for one in pyramid),
        regions=sum(one.layout.regions for one in prepared.all),
        written=written,
        failures=tuple(failures),
        tile=prepared.plan.tile,
    )


def _names(src: Any) -> list[str]:
    """Return the paths and URLs that a source is read from; none for data in memory."""
    if isinstance(src, Level):
        return _names(src.stack)
    if isinstance(src, Series | Stack | Slide):
        return sorted({folder_of(one.source.name) for one in src.instances})
    if isinstance(src, FrameArray) or hasattr(src, "read"):
        name = getattr(src, "name", "<")
        return [name] if isinstance(name, str) and not name.startswith("<") else []
    return [] if isinstance(src, Dataset | bytes | bytearray | memoryview) else sources(src)


class _Begun(NamedTuple):
    """An image of which the arrays exist, and the regions that are not written."""

    prepared: Prepared
    job: Job
    left: dict[int, list[int]]


def _write(
    images: Sequence[Prepared],
    group: zarr.Group,
    place: Place,
    there: Mapping[str, int | None],
    progress: Callable[[int, int | None], None] | None,
) -> tuple[int, list[Failure]]:
    """Write the missing regions; return their number and the frames that were filled."""
    begun = [_begun(one, group, place, there) for one in images]
    results = run_levels(write_region, [(one.job, one.left) for one in begun], progress)
    failures = [
        failure
        for one, found in zip(begun, results, strict=True)
        for failure in _filled(one, list(chain.from_iterable(found)))
    ]
    sizes = place.sizes()
    if lost := sum(1 for one in begun for _ in lacking(one.prepared.layout, one.job.arrays, sizes)):
        many = sum(1 for one in begun for _ in one.prepared.layout.all_keys())
        raise StoreLostError(
            f"{many - lost} of {many} objects are in the store, and whole: can all worker "
            "processes reach it?",
            source=place.root,
            code="objects-lost",
        )
    return sum(map(len, results)), failures


def _begun(
    prepared: Prepared, group: zarr.Group, place: Place, there: Mapping[str, int | None]
) -> _Begun:
    """Make the arrays of an image, unless they exist, and remove objects that are not whole."""
    layout, plan = prepared.layout, prepared.plan
    arrays = tuple(_array(group, name, **made) for name, made in prepared.arrays())
    mask = _array(group, layout.mask, **prepared.mask()) if layout.mask else None
    _write_coordinates(group, prepared)
    faults: dict[str, str] = {}
    if there:
        faults = {**cut_short(layout, arrays, there), **dict(lacking(layout, arrays, there))}
    regions, stale = left(layout, there, faults)
    place.remove(stale)
    absent = prepared.absent
    job = Job(
        prepared.contents.frames,
        plan,
        arrays,
        mask,
        absent if layout.mask else None,
        prepared.fill_value,
        prepared.contents.is_label_map,
    )
    return _Begun(prepared, job, regions)


def _array(group: zarr.Group, name: str, **made: Any) -> zarr.Array[Any]:
    """Return an array of the group, made unless it exists."""
    try:
        if name in group:
            zarr_format = group.metadata.zarr_format
            array = zarr.open_array(group.store, path=name, mode="r+", zarr_format=zarr_format)
            if zarr_format == 2 and not array.attrs:
                # A process was killed between the two files of its metadata.
                array = array.update_attributes(made["attributes"])
            wanted = zarr.create_array({}, **made, zarr_format=zarr_format)
            if array.metadata.to_dict() != wanted.metadata.to_dict():
                raise ValueError("it was changed")
            # Zarr up to 3.1.6 takes a `config` for opening, and ignores it.
            return array.with_config(CONFIG)
    except Exception as error:
        check_reached(error)
        # For damaged metadata zarr raises anything.
        raise StoreExistsError(
            f"{group.store} cannot be resumed: the metadata of array {name!r} is damaged",
            detail=str(error),
            code="damaged-metadata",
        ) from error
    return group.create_array(name, **made, config=CONFIG)


def _write_coordinates(group: zarr.Group, prepared: Prepared) -> None:
    # Always made anew: a process may have been killed between metadata and values.
    zarr_format = prepared.layout.zarr_format
    for name, (dims, values, attributes) in prepared.coordinates.items():
        made = array_parameters(
            zarr_format,
            data=values,
            chunks=values.shape,
            compressors=small(zarr_format),
            dimension_names=dims,
            attributes=attributes,
        )
        group.create_array(name, **made, overwrite=True, config=CONFIG)


def _filled(one: _Begun, failures: list[Failure]) -> list[Failure]:
    """Return all frames that were filled, by this export and the one that it resumes."""
    if one.job.missing is None:
        return failures
    known = dict(failures)
    missing = np.asarray(one.job.missing[...])
    if one.job.absent is not None:
        missing &= ~one.job.absent
    name = one.prepared.layout.names[0]
    # Of tiles there are those of several levels.
    above = () if one.job.plan.tile is None else (int(name) if name.isdecimal() else 0,)
    return [
        Failure((*above, *index), known.get(index, "filled before the export was resumed"))
        for index in map(tuple, np.argwhere(missing).tolist())
    ]
