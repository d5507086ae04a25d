"""Frames of one instance as an array-like that decodes the frames of an index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dcmdask.dicom.elements import PIXEL_DATA
from dcmdask.dicom.header import read_whole_header
from dcmdask.dicom.image_pixel import check_options
from dcmdask.dicom.instance import Instance, open_instance
from dcmdask.errors import Note
from dcmdask.pixels.array_like import (
    ArrayLike,
    InnerKey,
    frame_number,
    frame_numbers,
    inner_shape,
    split,
)
from dcmdask.pixels.bulk import decode_frames, decoded_frames
from dcmdask.pixels.decode import Decoding, check_plugin
from dcmdask.pixels.notebook import html_table
from dcmdask.pixels.reduced import decode_reduced
from dcmdask.sources import files


class FrameArray(ArrayLike):
    """Frames as an array (frames, rows, columns) or (frames, rows, columns, samples).

    Made by :func:`open_frames`. Holds the frame index and no open file, so it can be
    pickled, shared by threads and used after a fork. Indexing reads and decodes exactly the
    selected frames.

    Attributes
    ----------
    shape : tuple of int
        Three or four dimensions, also for a single frame.
    dtype : numpy.dtype
        As pydicom gives it, in the byte order of the data set.
    """

    def __init__(self, instance: Instance, how: Decoding, dataset: Dataset | None = None) -> None:
        self._instance = instance
        self._how = how
        self._dataset = dataset
        self.shape = (len(instance), *instance.pixels.frame_shape)
        self.dtype = instance.pixels.dtype

    def _repr_html_(self) -> str:
        lengths = " x ".join(map(str, self.shape))
        notes = "; ".join(map(str, self.notes))
        row = (f"{lengths} {self.dtype}", self.transfer_syntax.name, self.indexed_by, notes)
        return html_table(f"Frames of {self.name}", ("array", "syntax", "index", "notes"), [row])

    @property
    def instance(self) -> Instance:
        """The instance, opened: where each frame is."""
        return self._instance

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self._instance.name

    @property
    def transfer_syntax(self) -> UID:
        """Transfer syntax of the frames (PS3.5 section 10)."""
        return self._instance.pixels.transfer_syntax

    @property
    def decoding(self) -> Mapping[str, Any]:
        """Decoding options: `raw`, `decoding_plugin`, and pydicom's own.

        The options include the elements of group 0028 as they are used, overridden or not.
        """
        raw, plugin = self._how
        return {**self._instance.pixels.options, "raw": raw, "decoding_plugin": plugin}

    @property
    def interpretation_given(self) -> bool:
        """Whether Photometric Interpretation is the caller's."""
        return self._instance.pixels.interpretation_given

    @property
    def indexed_by(self) -> str:
        """Origin of the frame index, in words."""
        return self._instance.indexed_by

    @property
    def notes(self) -> tuple[Note, ...]:
        """Oddities of the data, as warned of when it was opened."""
        return self._instance.notes

    @property
    def token(self) -> str:
        """Hash of the source (path, size and modification time, or content) and all options."""
        pixels = self._instance.pixels
        parts = (
            self._instance.source.token,
            sorted((key, str(value)) for key, value in pixels.options.items()),
            str(pixels.transfer_syntax),
            pixels.interpretation_given,
            self._instance.spans.token,
            tuple(self._how),
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    @property
    def dataset(self) -> Dataset:
        """The data set without its pixel data, read when it is first asked for."""
        if self._dataset is None:
            self._dataset = read_whole_header(self._instance.source, self.transfer_syntax)
        return self._dataset

    def elements(self, tags: Iterable[int]) -> Dataset:
        """Return elements of the data set; no others are read into memory.

        Parameters
        ----------
        tags : iterable of int
        """
        if self._dataset is not None:
            return self._dataset
        return read_whole_header(self._instance.source, self.transfer_syntax, tags)

    def encoded(self, frame: int) -> bytes:
        """Return the span of `frame`: its items, or the bytes that cover a native frame.

        Parameters
        ----------
        frame : int
            From 0; negative numbers count from the end.
        """
        return self._instance.read([frame_number(frame, len(self), self.name)])[0]

    def decode_into(self, out: npt.NDArray[Any], frames: Sequence[int]) -> None:
        """Decode `frames` into `out`, without a copy where the byte orders are the same.

        Parameters
        ----------
        out : ndarray
            (len(frames), *frame shape), C-contiguous, of this dtype in any byte order.
        frames : sequence of int
            From 0.

        Raises
        ------
        DecodeError
            A frame does not decode; `out` holds those before it.
        """
        if out.dtype == self.dtype:
            decode_frames(self._instance, self._how, frames, out)
        else:
            out[...] = decode_frames(self._instance, self._how, frames)

    def reduced(self, frames: Sequence[int], factor: int) -> npt.NDArray[Any] | None:
        """Decode `frames` at 1 / `factor` of their rows and columns, in the codec.

        Parameters
        ----------
        frames : sequence of int
            From 0.
        factor : int
            A power of 2: 2, 4 or 8 for JPEG, and as many resolutions as there are for JPEG 2000.

        Returns
        -------
        ndarray or None
            (len(frames), ceil(rows / factor), ceil(columns / factor)[, samples]), of this dtype.
            Of JPEG it is close to the mean of blocks of pixels; two neighbours share the chroma
            of 4:2:2. Of JPEG 2000, sample (i, j) is
            centred on pixel (`factor` i, `factor` j): between 1/4 and 1/2 of a sample before
            the mean's. None where the codec cannot do it, or does not decode a frame: for
            other syntaxes, signed samples, palettes, `raw` YCbCr and a `decoding_plugin`.

        Raises
        ------
        DecodeError
            The items of a frame are not those that the frame index tells.
        """
        return decode_reduced(self._instance, self._how, frames, factor)

    def __repr__(self) -> str:
        return f"<FrameArray {self.shape} {self.dtype}, {self.transfer_syntax.name}, {self.name}>"

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if not isinstance(self._instance.source, files.Memory):
            # Read again when it is needed, as it may be larger than the index.
            state["_dataset"] = None
        return state

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Decode the frames that `key` selects, and return the selected pixels.

        Parameters
        ----------
        key : int, slice, Ellipsis, tuple of them, or one array or list for the frames
            The frame axis takes one array of integers or booleans; the others take
            integers and slices.

        Raises
        ------
        FrameNumberError
            An index is out of range; also an IndexError.
        IndexError
            An unsupported index.
        DecodeError
            A frame does not decode; the others stay readable.
        """
        (outer,), inner = split(key, self.ndim)
        frames = self._decode(frame_numbers(outer, len(self), self.name), inner)
        if not isinstance(outer, int):
            return frames
        frame: npt.NDArray[Any] = frames[0]
        return frame

    def _decode(self, frames: list[int], inner: InnerKey) -> npt.NDArray[Any]:
        instance, how = self._instance, self._how
        shape, whole = inner_shape(inner, self.shape[1:])
        if whole:
            return decode_frames(instance, how, frames)
        out = np.empty((0, *shape), self.dtype)
        for position, frame in enumerate(decoded_frames(instance, how, frames)):
            if not position:
                # Not before a frame came that the header's size was true of.
                out = np.empty((len(frames), *shape), self.dtype)
            out[position] = frame[inner]
        return out


def open_frames(
    src: Any,
    *,
    raw: bool = False,
    decoding_plugin: str = "",
    storage_options: Mapping[str, Any] | None = None,
    **decoding_options: Any,
) -> FrameArray:
    """Open one DICOM file as an array-like of its frames; nothing is decoded.

    Parameters
    ----------
    src : str, path-like, file-like, bytes or pydicom.Dataset
        A local path, an fsspec URL, the URL of an instance on a DICOMweb server, a binary
        file-like (reopened by its name where it is a plain file, otherwise read once into
        memory), the bytes of a file, or a data set.
    raw : bool, optional
        Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB. For 8-bit
        JPEG the conversion is done by the codec (ITU-T T.871), which differs from pydicom's
        by 1 in 0.03 % of samples; name any `decoding_plugin` for pydicom's.
    decoding_plugin : str, optional
        The only plugin to use: ``"imagecodecs"``, or one of pydicom's for the transfer
        syntax. By default imagecodecs is tried first, then pydicom's plugins.
    storage_options : mapping, optional
        For the fsspec file system of a URL.
    **decoding_options
        pydicom's decoding options; overrides of group 0028 by pydicom's keywords (`rows`,
        `bits_stored`, `photometric_interpretation`, `number_of_frames`, ...), and
        `transfer_syntax_uid`, needed for data sets without file meta information. And
        `inflate_limit`: bytes that a deflated data set, a file-like, or a URL whose server
        gives no parts may take in memory, by default 1 GiB.

    Returns
    -------
    FrameArray
        (frames, rows, columns), or (frames, rows, columns, samples) for 3 samples; also
        for a single frame.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        An option that does not exist or does not make sense here; a plugin that does not
        exist, or lacks what it depends on.
    FileNotFoundError, IsADirectoryError, OSError
        As :func:`open` raises them.
    NotDicomError, HeaderError, MissingElementError, NoPixelDataError
        The header cannot be read, or contradicts itself.
    PixelDataError
        There are fewer frames than declared, or more bytes than `inflate_limit`.
    UnsupportedSyntaxError
        Nothing decodes the transfer syntax.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> frames = open_frames(get_testdata_file("examples_ybr_color.dcm"))
    >>> frames.shape
    (30, 240, 320, 3)
    >>> frames[5, :, 10].shape
    (240, 3)
    """
    check_options(decoding_options, open_frames)
    instance = open_instance(src, decoding_options, storage_options)
    how = Decoding(bool(raw), decoding_plugin)
    check_plugin(instance, decoding_plugin)
    dataset = None
    if isinstance(src, Dataset):
        tags = src.keys() - PIXEL_DATA
        dataset = Dataset({tag: src.get_item(tag) for tag in sorted(tags)})
        if hasattr(src, "file_meta"):
            dataset.file_meta = src.file_meta
    return FrameArray(instance, how, dataset)
