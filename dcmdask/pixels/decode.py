"""Decoding of one frame from the bytes of its span.

:func:`general` is pydicom's decoder on one frame, which defines the values of a frame.
:func:`decode_into` gives the same in an existing array, by a shortcut where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import RLELossless

from dcmdask.dicom import offsets
from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.dicom.instance import Instance
from dcmdask.errors import DecodeError, Note
from dcmdask.pixels import codecs, colour, guard, shortcut
from dcmdask.pixels.codestream import (
    Codestream,
    CodestreamError,
    Contradiction,
    Damaged,
    Unsuited,
)

Frame: TypeAlias = npt.NDArray[Any]
Span: TypeAlias = bytes | memoryview

# An empty Basic Offset Table: with a span behind it, encapsulated pixel data of one frame.
_EMPTY_TABLE = offsets.ITEM + bytes(4)
# PackBits makes at most 128 bytes of 2 (PS3.5 G.3.1).
RLE_RATIO = 64
# The same text for all frames of a file, so that it is shown once.
_SURPLUS = Note(
    "surplus-bytes",
    "RLE segments hold more bytes than the frame has pixels: padding or damage, which is left out",
)
# Bytes that a frame may take if its codestream is not understood.
UNVOUCHED_BYTES = 2**28


class Decoding(NamedTuple):
    """Options of decoding, beside pydicom's.

    Attributes
    ----------
    raw : bool
        Leave YCbCr as it is.
    plugin : str
        The only plugin to use: of pydicom's decoders, or ``"imagecodecs"``; empty selects one.
    """

    raw: bool = False
    plugin: str = ""


def check_plugin(instance: Instance, plugin: str) -> None:
    """Raise for a plugin that is not there, before anything is decoded.

    Raises
    ------
    ValueError, RuntimeError
        As pydicom's decoders do: no such plugin, or its dependencies are missing.
    """
    syntax = instance.pixels.transfer_syntax
    if not plugin or not syntax.is_encapsulated:
        return
    if plugin == "imagecodecs" and codecs.own_decoder(syntax) is not None:
        return
    decoder = get_decoder(syntax)
    if plugin not in decoder.available_plugins:
        # pydicom words what is missing; asking costs a look at no pixel.
        decoder.as_array(b"", decoding_plugin=plugin, validate=False)


class Encoded(NamedTuple):
    """One encoded frame, and what its codestream says of itself.

    Attributes
    ----------
    frame : int
        Counted from 0.
    span, payload : bytes or memoryview
        The payload is the codestream; of native pixel data the span.
    codestream : Codestream or None
        None where there is a fault, for native pixel data, and for transfer syntaxes that
        imagecodecs does not decode.
    fault : CodestreamError or None
        Reason why imagecodecs is not to decode it.
    """

    frame: int
    span: Span
    payload: Span
    codestream: Codestream | None = None
    fault: CodestreamError | None = None


def examine(instance: Instance, frame: int, span: Span, before: Encoded | None = None) -> Encoded:
    """Parse the codestream of a frame and compare it with the header.

    It takes less time where the codestream of the frame `before` begins with the same bytes.

    Raises
    ------
    DecodeError
        The span does not hold the items of one frame, or they contradict the header.
    """
    pixels = instance.pixels
    if not pixels.transfer_syntax.is_encapsulated:
        return Encoded(frame, span, span)
    try:
        payload = offsets.payload(span)
    except ValueError as error:
        raise _failed(instance, frame, str(error), "items") from error
    if pixels.transfer_syntax not in guard.SYNTAXES:
        return Encoded(frame, span, payload)
    like = None if before is None else before.codestream
    try:
        return Encoded(frame, span, payload, guard.check(payload, pixels, like))
    except Contradiction as error:
        raise _failed(instance, frame, error) from error
    except CodestreamError as error:
        return Encoded(frame, span, payload, fault=error)


def allocate(instance: Instance, how: Decoding, frames: Sequence[int], first: Encoded) -> Frame:
    """Return an array for `frames`, whose size the first of them confirms.

    The header alone is not enough to allocate memory: native bytes are present, and the size
    of a codestream has been compared.
    """
    _vouch(instance, how, first)
    if instance.pixels.transfer_syntax == RLELossless:
        _vouch_for_rle(instance, frames, first)
    shape, dtype = (len(frames), *instance.pixels.frame_shape), instance.pixels.dtype
    # libjpeg-turbo writes past the cache into rows that start at a multiple of 32 bytes,
    # which takes a fifth longer; these start in the middle between two.
    size = math.prod(shape) * dtype.itemsize
    try:
        room = np.empty(size + 32, np.uint8)
    except MemoryError as error:
        reason = f"{len(frames)} frames from here on take {size} bytes"
        raise _failed(instance, first.frame, reason, "memory") from error
    start = (16 - room.ctypes.data) % 32
    return room[start : start + size].view(dtype).reshape(shape)


def _vouch(instance: Instance, how: Decoding, encoded: Encoded) -> None:
    pixels, fault = instance.pixels, encoded.fault
    # The size of an unsuited one has been compared as well.
    if fault is None or isinstance(fault, Unsuited):
        return
    if not how.plugin:
        raise _failed(instance, encoded.frame, fault) from fault
    size = math.prod(pixels.frame_shape) * pixels.dtype.itemsize
    if size > UNVOUCHED_BYTES:
        reason = f"the header asks for {size} bytes, and {fault}"
        raise _failed(instance, encoded.frame, reason, "size") from fault


def _vouch_for_rle(instance: Instance, frames: Sequence[int], first: Encoded) -> None:
    """Check that each span of RLE, which has no size, is long enough for that of the header.

    Of frames on a server, the length of the first is known.
    """
    size = math.prod(instance.pixels.frame_shape) * instance.pixels.dtype.itemsize
    _, lengths = instance.spans.locate(np.asarray(frames, np.int64))
    if isinstance(instance.spans, offsets.NumberedItems):
        frames, lengths = [first.frame], [len(first.span)]
    for frame, length in zip(frames, lengths, strict=True):
        if size > RLE_RATIO * length:
            reason = f"the header asks for {size} bytes, and {length} bytes of RLE cannot hold them"
            raise _failed(instance, frame, reason, "size")


def decode_into(instance: Instance, how: Decoding, encoded: Encoded, out: Frame) -> None:
    """Decode one frame into `out`, an array of the frame's shape and dtype.

    Raises
    ------
    DecodeError
        The bytes do not decode.
    """
    if how.plugin or not _shortcut(instance, how.raw, encoded, out):
        out[...] = general(instance, how, encoded)


def _shortcut(instance: Instance, raw: bool, encoded: Encoded, out: Frame) -> bool:
    pixels, spans = instance.pixels, instance.spans
    if not shortcut.applies(pixels):
        return False
    if isinstance(spans, offsets.NativeSpans):
        return shortcut.decode_native(pixels, spans, raw, encoded.frame, encoded.payload, out)
    if encoded.codestream is None:
        return False
    notes: list[Note] = []
    try:
        decoded = shortcut.decode_encapsulated(
            pixels, raw, encoded.payload, encoded.codestream, out, notes
        )
    except Damaged as error:
        raise _failed(instance, encoded.frame, error) from error
    for note in notes:
        instance.warn(note)
    return decoded


def general(instance: Instance, how: Decoding, encoded: Encoded, **options: Any) -> Frame:
    """Decode one frame with pydicom's decoder.

    Parameters
    ----------
    instance : Instance
    how : Decoding
    encoded : Encoded
    **options
        More of pydicom's decoding options, such as `view_only`.

    Returns
    -------
    ndarray
        Frame of the shape and dtype that the header describes.
    """
    pixels, notes, reason = instance.pixels, list[Note](), ""
    try:
        if pixels.transfer_syntax.is_encapsulated:
            decoder, plugin, reason = _choose(pixels, how.plugin, encoded)
            if not how.raw and not how.plugin:
                options |= _colours(pixels, encoded.codestream, notes)
            data: Span = _EMPTY_TABLE + encoded.span
            if plugin == "imagecodecs":
                decoded = _by_imagecodecs(decoder, pixels, how, encoded, data, options, notes)
            else:
                decoded = _run(decoder, pixels, how.raw, plugin, data, options)
        else:
            data, changed = _native_frame(instance, encoded)
            decoder = get_decoder(pixels.transfer_syntax)
            decoded = _run(decoder, pixels, how.raw, "", data, options | changed)
    except Exception as error:
        raise _failed(instance, encoded.frame, error, before=reason) from error
    for note in notes:
        instance.warn(note)
    return decoded


def _colours(pixels: ImagePixel, stream: Codestream | None, notes: list[Note]) -> dict[str, Any]:
    """Return the option that corrects the header's colours, and note it; or nothing."""
    if stream is None:
        return {}
    coded = colour.coded_interpretation(stream, pixels)
    if coded == pixels.photometric_interpretation:
        return {}
    notes.append(colour.unlike_header(pixels, coded))
    return {"photometric_interpretation": coded}


def _by_imagecodecs(
    decoder: Decoder,
    pixels: ImagePixel,
    how: Decoding,
    encoded: Encoded,
    data: Span,
    options: dict[str, Any],
    notes: list[Note],
) -> Frame:
    """Decode a frame by imagecodecs, or one of RLE that it refuses by pydicom's own plugin.

    Others are not handed on. Of 60 damaged frames of each syntax, the other plugins decoded all
    56 of JPEG-LS that imagecodecs refused, to wrong values, and none of the 73 of JPEG 2000,
    HTJ2K and lossless JPEG.
    """
    own = {"codestream": encoded.codestream, "notes": notes}
    try:
        return _run(decoder, pixels, how.raw, "imagecodecs", data, options | own)
    except Exception:
        if how.plugin or pixels.transfer_syntax != RLELossless:
            raise
    general = get_decoder(pixels.transfer_syntax)
    decoded = _run(general, pixels, how.raw, _general_plugin(pixels), data, options)
    notes.append(_SURPLUS)
    return decoded


def _general_plugin(pixels: ImagePixel) -> str:
    """Return the plugin of pydicom's for odd frames; empty selects one.

    pylibjpeg-rle panics on some that pydicom's own decodes, which no caller survives.
    """
    return "pydicom" if pixels.transfer_syntax == RLELossless else ""


def _native_frame(instance: Instance, encoded: Encoded) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a native frame alone, and options that change with that."""
    pixels, spans = instance.pixels, instance.spans
    assert isinstance(spans, offsets.NativeSpans)
    options: dict[str, Any] = {}
    # pydicom may return a view, and the memory of a span is used again.
    data = bytes(encoded.span)
    if pixels.swaps_words:
        data = np.frombuffer(data, "u2").byteswap().tobytes()
        options = {"be_swap_ow": False, "pixel_vr": "OB"}
    skipped = spans.skip_bits(encoded.frame)
    if skipped % 8:
        bits = np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")
        bits = bits[skipped : skipped + spans.frame_bits]
        data = np.packbits(bits, bitorder="little").tobytes()
    elif pixels.swaps_words:
        data = data[skipped // 8 :][: -(-spans.frame_bits // 8)]
    return data, options


def _choose(pixels: ImagePixel, plugin: str, encoded: Encoded) -> tuple[Decoder, str, str]:
    """Return the decoder for a frame, its plugin, and why it is not imagecodecs.

    A codestream without an end, or of another kind or size than the header's, is not handed on:
    damaged ones made other plugins allocate gigabytes or end the process.
    """
    syntax, stream, fault = pixels.transfer_syntax, encoded.codestream, encoded.fault
    if fault is not None:
        if plugin == "imagecodecs" or not (plugin or isinstance(fault, Unsuited)):
            raise fault
        return get_decoder(syntax), plugin or _general_plugin(pixels), f"{fault}; "
    own = None if stream is None else codecs.own_decoder(syntax)
    if stream is None or own is None or plugin not in ("", "imagecodecs"):
        return get_decoder(syntax), plugin, ""
    if plugin or guard.notices_damage(stream):
        return own, "imagecodecs", ""
    return (
        get_decoder(syntax),
        "",
        "imagecodecs does not notice damage in 12-bit lossy JPEG, so it is used only where "
        "decoding_plugin='imagecodecs' asks for it; ",
    )


def _run(
    decoder: Decoder,
    pixels: ImagePixel,
    raw: bool,
    plugin: str,
    encoded: Span,
    options: dict[str, Any],
) -> Frame:
    everything = {**pixels.options, **options, "number_of_frames": 1}
    array, _ = decoder.as_array(
        encoded, index=0, validate=False, raw=raw, decoding_plugin=plugin, **everything
    )
    return array


def _failed(
    instance: Instance, frame: int, reason: Exception | str, code: str = "", before: str = ""
) -> DecodeError:
    message, detail = f"{before}{reason}", ""
    if not isinstance(reason, str | CodestreamError):
        # The words of a decoder may hold text of the file.
        message, detail, code = f"{before}the frame does not decode", str(reason), "decoder"
    code = code or getattr(reason, "code", "")
    return DecodeError(message, source=instance.name, frame=frame, detail=detail, code=code)
