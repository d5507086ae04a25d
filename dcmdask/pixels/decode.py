"""From the bytes of one span to one frame.

:func:`general` is pydicom's decoder on one frame: it is what a frame's values mean.
:func:`decode_into` does the same into an array that is there already, and skips what is
known to change nothing.
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
from dcmdask.errors import DecodeError
from dcmdask.pixels import codecs, guard, shortcut
from dcmdask.pixels.codestream import CodestreamError, Contradiction, Unsuited

Frame: TypeAlias = npt.NDArray[Any]
Span: TypeAlias = bytes | memoryview

# An empty Basic Offset Table: with a span behind it, encapsulated pixel data of one frame.
_EMPTY_TABLE = offsets.ITEM + bytes(4)
# PackBits makes at most 128 bytes of 2 (PS3.5 G.3.1).
RLE_RATIO = 64
# What a frame may take of which the codestream does not tell its size.
UNVOUCHED_BYTES = 2**28


class Decoding(NamedTuple):
    """Options of decoding, beside pydicom's.

    Attributes
    ----------
    raw : bool
        Leave YCbCr as it is.
    plugin : str
        Of pydicom's decoders, or ``"imagecodecs"``; used alone. Empty: whatever decodes.
    """

    raw: bool = False
    plugin: str = ""


def check_plugin(instance: Instance, plugin: str) -> None:
    """Refuse a plugin that is not there, before anything is decoded.

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


def allocate(instance: Instance, how: Decoding, frames: Sequence[int], encoded: Span) -> Frame:
    """Return an array for `frames`, once the span of the first says it is that large.

    Nothing is allocated because a header says so: native bytes are there, and a
    codestream's own size is compared first.
    """
    count, frame = len(frames), frames[0]
    _vouch(instance, how, frame, encoded)
    if instance.pixels.transfer_syntax == RLELossless:
        _vouch_for_rle(instance, frames)
    shape, dtype = (count, *instance.pixels.frame_shape), instance.pixels.dtype
    # libjpeg-turbo writes past the cache into rows that start at a multiple of 32 bytes,
    # which takes a fifth longer; these start in the middle between two.
    size = math.prod(shape) * dtype.itemsize
    try:
        room = np.empty(size + 32, np.uint8)
    except MemoryError as error:
        raise _failed(instance, frame, f"{count} frames from here on take {size} bytes") from error
    start = (16 - room.ctypes.data) % 32
    return room[start : start + size].view(dtype).reshape(shape)


def _vouch(instance: Instance, how: Decoding, frame: int, encoded: Span) -> None:
    pixels, syntax = instance.pixels, instance.pixels.transfer_syntax
    if syntax not in guard.SYNTAXES:
        return
    try:
        guard.check_frame(offsets.payload(encoded), pixels)
    except Unsuited:
        pass  # its size is that of the header
    except ValueError as error:
        if not how.plugin or isinstance(error, Contradiction):
            raise _failed(instance, frame, str(error)) from error
        size = math.prod(pixels.frame_shape) * pixels.dtype.itemsize
        if size > UNVOUCHED_BYTES:
            reason = f"the header asks for {size} bytes, and {error}"
            raise _failed(instance, frame, reason) from error


def _vouch_for_rle(instance: Instance, frames: Sequence[int]) -> None:
    """RLE tells no size, so each span has to be long enough for the header's."""
    size = math.prod(instance.pixels.frame_shape) * instance.pixels.dtype.itemsize
    _, lengths = instance.spans.locate(np.asarray(frames, np.int64))
    for frame, length in zip(frames, lengths, strict=True):
        if size > RLE_RATIO * length:
            reason = f"the header asks for {size} bytes, and {length} bytes of RLE cannot hold them"
            raise _failed(instance, frame, reason)


def decode_into(instance: Instance, how: Decoding, frame: int, encoded: Span, out: Frame) -> None:
    """Decode one frame into `out`, an array of the frame's shape and dtype.

    Raises
    ------
    DecodeError
        The bytes do not decode, or contradict the header.
    """
    if how.plugin or not _shortcut(instance, how.raw, frame, encoded, out):
        out[...] = general(instance, how, frame, encoded)


def _shortcut(instance: Instance, raw: bool, frame: int, encoded: Span, out: Frame) -> bool:
    pixels, spans = instance.pixels, instance.spans
    if not shortcut.applies(pixels):
        return False
    if isinstance(spans, offsets.NativeSpans):
        return shortcut.decode_native(pixels, spans, raw, frame, encoded, out)
    try:
        payload = offsets.payload(encoded)
        return shortcut.decode_encapsulated(pixels, raw, payload, out)
    except ValueError as error:
        raise _failed(instance, frame, str(error)) from error


def general(instance: Instance, how: Decoding, frame: int, encoded: Span, **options: Any) -> Frame:
    """Decode one frame with pydicom's decoder.

    Parameters
    ----------
    instance : Instance
    how : Decoding
    frame : int
        Counted from 0.
    encoded : bytes
        Its span.
    **options
        More of pydicom's decoding options, such as `view_only`.

    Returns
    -------
    ndarray
        Of the frame's shape and dtype.
    """
    if instance.pixels.transfer_syntax.is_encapsulated:
        return _general_encapsulated(instance, how, frame, encoded, options)
    return _general_native(instance, how, frame, encoded, options)


def _general_native(
    instance: Instance, how: Decoding, frame: int, encoded: Span, options: dict[str, Any]
) -> Frame:
    pixels, spans = instance.pixels, instance.spans
    assert isinstance(spans, offsets.NativeSpans)
    # What pydicom returns may be a view, and the memory of a span is used again.
    encoded = bytes(encoded)
    if pixels.swaps_words:
        encoded = np.frombuffer(encoded, "u2").byteswap().tobytes()
        options = {**options, "be_swap_ow": False, "pixel_vr": "OB"}
    skipped = spans.skip_bits(frame)
    if skipped % 8:
        bits = np.unpackbits(np.frombuffer(encoded, "u1"), bitorder="little")
        bits = bits[skipped : skipped + spans.frame_bits]
        encoded = np.packbits(bits, bitorder="little").tobytes()
    elif pixels.swaps_words:
        encoded = encoded[skipped // 8 :][: -(-spans.frame_bits // 8)]
    try:
        return _run(get_decoder(pixels.transfer_syntax), pixels, how.raw, "", encoded, options)
    except Exception as error:
        raise _failed(instance, frame, str(error)) from error


def _general_encapsulated(
    instance: Instance, how: Decoding, frame: int, encoded: Span, options: dict[str, Any]
) -> Frame:
    pixels = instance.pixels
    try:
        decoder, plugin, reason = _choose(pixels, how.plugin, offsets.payload(encoded))
    except ValueError as error:
        raise _failed(instance, frame, str(error)) from error
    try:
        return _run(decoder, pixels, how.raw, plugin, _EMPTY_TABLE + encoded, options)
    except Exception as error:
        raise _failed(instance, frame, f"{reason}{error}") from error


def _choose(
    pixels: ImagePixel, plugin: str, payload: bytes | memoryview
) -> tuple[Decoder, str, str]:
    """Return the decoder for a frame, its plugin, and why it is not imagecodecs.

    A frame that imagecodecs is made for and fails to decode is damaged, and is not handed
    on: of 270 real encapsulated frames that rescued none, and damaged ones made other
    plugins allocate gigabytes or end the process.
    """
    syntax = pixels.transfer_syntax
    if syntax not in guard.SYNTAXES:
        return get_decoder(syntax), plugin, ""
    own = codecs.own_decoder(syntax)
    reason = ""
    try:
        stream = guard.check_frame(payload, pixels)
    except (Contradiction, Unsuited) as error:
        if isinstance(error, Contradiction) or plugin == "imagecodecs":
            raise
        reason = f"{error}; "
    except CodestreamError:
        if plugin in ("", "imagecodecs"):
            raise
    else:
        if own is not None and (
            plugin == "imagecodecs" or (not plugin and guard.notices_damage(stream))
        ):
            return own, "imagecodecs", ""
        if not plugin and own is not None:
            reason = (
                "imagecodecs does not notice damage in 12-bit lossy JPEG, so it is used only where "
                "decoding_plugin='imagecodecs' asks for it; "
            )
    return get_decoder(syntax), plugin, reason


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


def _failed(instance: Instance, frame: int, reason: str) -> DecodeError:
    return DecodeError(reason, source=instance.name, frame=frame)
