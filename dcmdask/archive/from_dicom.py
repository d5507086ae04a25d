"""`from_dicom`: one file, or the one series in a folder, as a lazy Dask array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import dask.array as da
from pydicom.dataset import Dataset

from dcmdask.archive.collection import one_file, only_stack
from dcmdask.archive.copies import check_on_duplicate
from dcmdask.archive.scan import scan
from dcmdask.arrays.chunks import to_dask
from dcmdask.arrays.transformation import check_values, with_values
from dcmdask.dicom import description, instance
from dcmdask.dicom.description import Described
from dcmdask.dicom.header import read_header
from dcmdask.dicom.image_pixel import check_options, header_options, inflate_limit
from dcmdask.errors import DcmdaskError
from dcmdask.geometry.repair import check_on_irregular
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.pixels.frame_array import FrameArray, open_frames
from dcmdask.sources import files


def from_dicom(
    src: Any,
    *,
    values: str = "stored",
    on_irregular: Literal["error", "keep", "fill"] = "error",
    on_duplicate: Literal["error", "first"] = "error",
    order_by: str | Sequence[str] | None = None,
    tolerance: float | None = None,
    fill_value: float | None = None,
    chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
    raw: bool = False,
    decoding_plugin: str = "",
    storage_options: Mapping[str, Any] | None = None,
    **decoding_options: Any,
) -> da.Array:
    """Open a DICOM file, or the one series in a folder, as a lazy Dask array of frames.

    Nothing is decoded. A slice of the array decodes only the frames that it names: ``x[5]``,
    ``x[::50]`` and ``x[10:20, :64, :64]`` are handed down to the frames. A list or mask of
    frames and a negative step are not: whole chunks are decoded; index what
    :func:`open_frames` gives for that. The multiprocessing scheduler sends the frame index
    with every task, the distributed one once to each worker.

    Parameters
    ----------
    src : str, path-like, file-like, bytes, pydicom.Dataset, FrameArray, or iterable of paths
        One file: a local path, an fsspec URL, a binary file-like, the bytes of a file, or a
        data set; its frames in the order that they are stored in. Bytes and data sets become
        part of the graph, and so do those in a gzipped file. Or a folder, a list, a glob pattern,
        a ZIP or TAR file, a DICOMDIR, or a URL of these, also inside an archive such as
        ``"zip://a/**::archive.zip"`` or of a series on a DICOMweb server, such as
        ``"dicomweb+https://host/root/studies/UID/series/UID"``, with one series of one stack in it:
        its frames in spatial order.
    values : str
        ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
        each frame's own slope and intercept; or ``"display"``, 8-bit grey or RGB as a viewer
        shows them.

        ``"philips-float"`` are the precise values of Philips, (stored * Rescale Slope +
        Rescale Intercept) / (Rescale Slope * Scale Slope (2005,100E)), which can be compared
        between series; those of the modality are as the console displays them.

        ``"suv"``, ``"suv-lbm"`` and ``"suv-bsa"`` are the standardized uptake values of PET, by
        body weight in g/ml, by lean body mass (James, with 120 for men) in g/ml, and by body
        surface area (Du Bois) in cm2/ml. The dose is what was injected, less its decay until the
        time that the values are corrected to by Decay Correction (0054,1102): for START the
        Series Time, where it is not after the Acquisition Time, and otherwise as in the
        pseudocode of QIBA; for NONE the time of each frame; for ADMIN there is no decay.

        ``"real-world"`` are those of the Real World Value Mapping (0040,9096) of each frame or of
        the data set, and NaN where it does not map a stored value. Where a frame has several,
        ``"real-world:LABEL"`` takes the one with this LUT Label (0040,9210).
    on_irregular : {"error", "keep", "fill"}
        For positions of a series that are missing, double or uneven: raise; keep the frames
        that there are, in spatial order; or put `fill_value` where frames are missing. Not for
        one file, whose frames stay in the order that they are stored in: ``scan(path)[0]``
        arranges those.
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
    fill_value : number, optional
        For missing frames. By default NaN for floating point, otherwise Pixel Padding Value
        (0028,0120) in the same units, or 0 where there is none.
    chunks : int, str, tuple or dict, optional
        Frames per chunk; a chunk is made of whole frames. ``"auto"`` plans by the cost
        of decoding: at most 0.2 s and a quarter of Dask's ``array.chunk-size`` a chunk,
        and at least 32 chunks, unless there are fewer frames or a chunk would take less
        than 3 ms. A size such as ``"64 MiB"``, ``-1`` for all frames, a tuple for all axes
        or a dict by axis work as in Dask, as long as rows, columns and samples stay whole.
    raw : bool, optional
        Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB; for stored
        values only.
    decoding_plugin : str, optional
        The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file system of a URL; for a DICOMweb server
        ``{"headers": {...}}``.
    **decoding_options
        pydicom's decoding options; overrides of group 0028 by pydicom's keywords (`rows`,
        `bits_stored`, `photometric_interpretation`, `number_of_frames`, ...), and
        `transfer_syntax_uid`. And `inflate_limit`: bytes that a deflated data set, a file-like,
        or a URL whose server gives no parts may take in memory, by default 1 GiB.

    Returns
    -------
    dask.array.Array
        (frames, rows, columns), or (frames, rows, columns, samples) for 3 samples; also
        for a single frame. Of a series of several dimensions the frames follow each
        other with z fastest; :meth:`Series.to_dask` keeps the dimensions. The name is a
        hash of the source (path, size and modification time, or content) and all options.

    Raises
    ------
    ValueError
        `chunks` would split rows, columns or samples; or an option for series is given with one
        file or a FrameArray.
    TypeError
        There is no such option; or one of opening is given with a FrameArray, which is open.
    AmbiguousSourceError
        There are several series or stacks, or none; the message lists them.
    IrregularSeriesError
        A series is not regular, and `on_irregular` does not settle it; the message says
        where, in mm.
    FileNotFoundError, IsADirectoryError, OSError
        The exceptions of :func:`open`; as `UnreachableError` where a server does not answer.
    NotDicomError, HeaderError, MissingElementError, NoPixelDataError
        The header cannot be read, or contradicts itself.
    PixelDataError
        There are fewer frames than declared, or more bytes than `inflate_limit`.
    UnsupportedSyntaxError
        Nothing decodes the transfer syntax.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> x = from_dicom(get_testdata_file("examples_ybr_color.dcm"), chunks=10)
    >>> x
    dask.array<from_dicom, shape=(30, 240, 320, 3), dtype=uint8, chunksize=(10, 240, 320, 3), \
chunktype=numpy.ndarray>
    >>> int(x[5].max().compute())
    220
    """
    check_options(decoding_options, from_dicom)
    opening = {"raw": raw, "decoding_plugin": decoding_plugin, **decoding_options}
    check_values(values, opening)
    check_on_irregular(on_irregular)
    check_on_duplicate(on_duplicate)
    is_open = isinstance(src, FrameArray)
    one = src if is_open else one_file(src, storage_options, inflate_limit(opening))
    if one is None:
        found = scan(src, storage_options=storage_options, **header_options(opening))
        stack = only_stack(found, on_duplicate)
        frames: ArrayLike = stack.flattened(
            values,
            on_irregular,
            order_by=order_by,
            tolerance=tolerance,
            fill_value=fill_value,
            **opening,
        )
        return to_dask(frames, chunks)
    asked = on_irregular != "error" or on_duplicate != "error" or tolerance is not None
    if asked or order_by or fill_value is not None:
        raise ValueError(
            "on_irregular, on_duplicate, order_by, tolerance and fill_value are for series: the "
            "frames of one file stay in the order that they are stored in; scan(path)[0] arranges "
            "them"
        )
    if is_open:
        if raw or decoding_plugin or storage_options or decoding_options or values != "stored":
            raise TypeError("a FrameArray has its options already; open it with others")
        return to_dask(src, chunks)
    if values == "stored":
        return to_dask(open_frames(one, **opening), chunks)
    stored, described = open_described(one, values, **opening)
    return to_dask(with_values(stored, described, values, opening), chunks)


def open_described(
    src: Any,
    values: str,
    storage_options: Mapping[str, Any] | None = None,
    **opening: Any,
) -> tuple[FrameArray, list[Described]]:
    """Open the frames of one file and describe it, by one walk over its header.

    Parameters
    ----------
    src : str, path-like, file-like, bytes or pydicom.Dataset
    values : str
        Those that the frames are to have, as for :func:`from_dicom`; stored values need no
        description.
    storage_options : mapping, optional
    **opening
        As for :func:`open_frames`.

    Returns
    -------
    FrameArray
        Of stored values.
    list of Described
        One; none of a data set in memory, or where stored values are all that can be had.

    Raises
    ------
    TypeError
        A data set in memory, and values that depend on a description.
    DcmdaskError
        The file cannot be opened, or not be described as `values` need it.
    """
    if isinstance(src, Dataset):
        if values != "stored":
            raise TypeError(f"{values} values are for files; pass the path or the bytes")
        return open_frames(src, **opening), []
    limit = inflate_limit(opening)
    source = files.locate(src, storage_options, limit)
    header = read_header(
        source,
        instance.WANTED | description.WANTED,
        opening.get("transfer_syntax_uid"),
        description.SEQUENCES,
        limit,
    )
    stored = open_frames(header, **opening)
    try:
        return stored, [description.describe(source, opening, header=header)]
    except DcmdaskError:
        if values != "stored":
            raise
        return stored, []
