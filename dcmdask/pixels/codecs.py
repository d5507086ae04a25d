"""imagecodecs as the first codec, as a pydicom plugin and directly into an array.

:func:`own_decoder` gives a pydicom decoder that carries only this plugin.
:func:`decode_into` skips the decoder for one frame whose header is already known; what it
stores is what the plugin returns, before pydicom's corrections, which :func:`correct_bits`
repeats. :func:`dcmdask.pixels.guard.check` comes before either.

imagecodecs is imported when something is decoded, not with this module.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydicom.pixels.common import PhotometricInterpretation as PI
from pydicom.pixels.decoders.base import Decoder, DecodeRunner
from pydicom.uid import UID

from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.errors import Note
from dcmdask.pixels.codestream import Buffer, Codestream, CodestreamError, Damaged
from dcmdask.pixels.guard import SYNTAXES
from dcmdask.pixels.jpeg_lossless import verify

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DECODER_DEPENDENCIES",
    "clear_bits",
    "correct_bits",
    "decode_into",
    "interleave",
    "is_available",
    "own_decoder",
]

# 2024.1.1 is the first with libjpeg-turbo 3 in its wheels: 12-bit and lossless JPEG.
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = dict.fromkeys(
    SYNTAXES, ("numpy", "imagecodecs>=2024.1.1")
)

_CODECS = {
    "jpeg": "JPEG8",
    "jpeg-lossless": "JPEG8",
    "jpeg-ls": "JPEGLS",
    "jpeg2000": "JPEG2K",
    "rle": "DICOMRLE",
}
# A warning of libjpeg's, behind the last pixel. Nothing but the text tells it from the others,
# which simplejpeg raises by one type.
_SURPLUS = "extraneous bytes before marker 0xd9"
# The same text for all frames of a file, so that it is shown once.
_SURPLUS_BYTES = Note(
    "surplus-bytes",
    "8-bit JPEG frames have surplus bytes behind their coded data; their pixels are those that "
    "other software shows",
)
_decoders: dict[str, Decoder] = {}


def is_available(uid: str) -> bool:
    """Return whether imagecodecs is installed with the codec for transfer syntax `uid`."""
    if uid not in SYNTAXES:
        return False
    try:
        import imagecodecs
    except ImportError:
        return False
    name = _CODECS[SYNTAXES[uid].kind]
    codec = getattr(imagecodecs, name)
    if not codec.available:
        return False
    # Without libjpeg-turbo 3 there is only 8-bit DCT, and the mode is not told by `available`.
    return name != "JPEG8" or bool(getattr(codec, "all_precisions", False))


def own_decoder(uid: str) -> Decoder | None:
    """Return this process's decoder for `uid` with imagecodecs as its only plugin.

    pydicom's process-wide decoders stay as they are: a plugin added to them would be
    absent in worker processes, and `add_plugin` is not thread-safe.

    Parameters
    ----------
    uid : str
        The Transfer Syntax UID.

    Returns
    -------
    pydicom.pixels.decoders.base.Decoder or None
        None where imagecodecs does not decode the transfer syntax.
    """
    decoder = _decoders.get(uid)
    if decoder is None and is_available(uid):
        decoder = Decoder(UID(uid))
        decoder.add_plugin("imagecodecs", (__name__, "_decode_frame"))
        # Only a decoder that has its plugin is ever visible to another thread.
        decoder = _decoders.setdefault(str(uid), decoder)
    return decoder


def decode_into(
    data: Buffer,
    out: NDArray[Any],
    codestream: Codestream,
    notes: list[Note],
    *,
    rgb: bool = False,
) -> None:
    """Decode one frame into an array.

    The values are those of the codec, sign and unused bits uncorrected, colours as they are
    coded: YCbCr stays YCbCr, brought to full resolution, and the components that JPEG 2000
    itself transformed come back as RGB.

    Parameters
    ----------
    data : bytes, bytearray or memoryview
        The frame.
    out : numpy.ndarray
        Shape (rows, columns) for one sample, (rows, columns, samples) for more; writable,
        C-contiguous, native byte order, an integer type of Bits Allocated bits. Where its
        item size is that of the codestream nothing is copied.
    codestream : Codestream
        Parameters of `data`, from :func:`dcmdask.pixels.guard.check`.
    notes : list of Note
        Oddities of the frame are appended.
    rgb : bool, optional
        Convert YCbCr to RGB in the codec (ITU-T T.871, fixed point): 8-bit JPEG only,
        and only where :func:`dcmdask.pixels.colour.is_ycbcr` holds. Off by 1 from pydicom's
        floating point in 0.03 % of samples.

    Raises
    ------
    ValueError
        If `out` does not fit the codestream.
    RuntimeError
        If the codec fails.
    Damaged
        If libjpeg warns, where :func:`_decode_watched` asks it.
    """
    if codestream.kind == "rle":
        _decode_rle(data, out)
        return
    if out.itemsize == codestream.itemsize:
        _decode(data, out, codestream, notes, rgb)
    else:
        # As pydicom does it: the codec's bits are read with the header's sign, then widened.
        narrow = np.empty(out.shape, f"{out.dtype.kind}{codestream.itemsize}")
        _decode(data, narrow, codestream, notes, rgb)
        out[...] = narrow


def _decode(
    data: Buffer, out: NDArray[Any], codestream: Codestream, notes: list[Note], rgb: bool
) -> None:
    """Decode into `out`, whose shape and item size are those of the codestream.

    Every imagecodecs function compares both with what it is about to write; none minds
    the sign.
    """
    import imagecodecs

    # imagecodecs takes a memoryview; its annotations leave it out.
    data = cast(bytes, data)
    if codestream.kind == "jpeg2000":
        # OpenJPEG would apply what JP2 boxes say about colour; pydicom does not go by them.
        source = cast(bytes, memoryview(data)[codestream.offset :])
        imagecodecs.jpeg2k_decode(source, numthreads=1, out=out)
    elif codestream.kind == "jpeg-ls":
        if codestream.components > 1 and codestream.interleave == 0:
            planes = np.empty((codestream.components, *out.shape[:2]), out.dtype)
            imagecodecs.jpegls_decode(data, out=planes)
            interleave(planes, out)
        else:
            imagecodecs.jpegls_decode(data, out=out)
    else:
        _decode_jpeg(data, out, codestream, notes, rgb)
    if codestream.kind == "jpeg-lossless":
        verify(data, codestream, out)


def _decode_jpeg(
    data: Buffer, out: NDArray[Any], codestream: Codestream, notes: list[Note], rgb: bool
) -> None:
    """Decode JPEG, lossless or not, in the way that notices most damage."""
    if _decode_watched(data, out, codestream, notes, rgb):
        return
    import imagecodecs

    data = cast(bytes, data)
    if codestream.components == 1:
        imagecodecs.jpeg8_decode(data, out=out)
    else:
        # With YCbCr as input and output libjpeg converts nothing, whatever the components
        # are; by default it would turn components that it takes for YCbCr into RGB.
        imagecodecs.jpeg8_decode(
            data, colorspace="YCBCR", outcolorspace="RGB" if rgb else "YCBCR", out=out
        )


def _decode_watched(
    data: Buffer, out: NDArray[Any], codestream: Codestream, notes: list[Note], rgb: bool
) -> bool:
    """Decode 8-bit JPEG to grey or RGB; return whether that was possible.

    libjpeg warns of coded data that make no sense, and replaces them. imagecodecs does not pass
    on its warnings; simplejpeg raises for them. Surplus bytes are only noted.

    Raises
    ------
    Damaged
        libjpeg warns. It does so for most pieces that are cut out of the coded data, half of
        those that are zeroed and a third of the bits that are flipped; README has the figures.
    """
    if (codestream.kind, codestream.precision) != ("jpeg", 8) or not (
        rgb or codestream.components == 1
    ):
        return False
    import simplejpeg

    decode = partial(
        simplejpeg.decode_jpeg, data, "RGB" if rgb else "GRAY", buffer=out.view(np.uint8)
    )
    try:
        decode(strict=True)
    except ValueError as error:
        try:
            decode(strict=False)
        except ValueError:
            # A kind of JPEG that it does not support, or a frame that nothing decodes.
            return False
        if _SURPLUS in str(error):
            # Some encoders pad: this is no proof of damage.
            notes.append(_SURPLUS_BYTES)
            return True
        raise Damaged(
            f"the codestream is damaged: {error}; decoding_plugin names one of pydicom's to decode "
            "it all the same"
        ) from error
    return True


def _decode_rle(data: Buffer, out: NDArray[Any]) -> None:
    """Decode RLE segments, which hold one byte of one sample each (PS3.5 G.2)."""
    import imagecodecs

    # With a pixel of several samples as one item of as many bytes as there are segments, the
    # codec puts each byte in its place, and planes need not be interleaved.
    samples = out.shape[2] if out.ndim == 3 else 1
    dtype = f"V{samples * out.itemsize}" if samples > 1 else f"<u{out.itemsize}"
    target = memoryview(cast("Buffer", out)).cast("B")
    # imagecodecs returns a shorter view where the segments hold fewer bytes.
    done = imagecodecs.dicomrle_decode(cast(bytes, data), dtype, out=target)
    if len(done) != len(target):
        raise CodestreamError(
            f"the RLE segments hold {len(done)} bytes, the frame has {len(target)}"
        )
    if samples > 1 and out.itemsize > 1 and sys.byteorder == "little":
        # The segments of a sample begin with its most significant byte.
        out.byteswap(inplace=True)


def interleave(planes: NDArray[Any], out: NDArray[Any]) -> None:
    """Store planes (samples, rows, columns) by pixel; a copy of the transpose takes four times as
    long.
    """
    for sample, plane in enumerate(planes):
        out[..., sample] = plane


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """Return one decoded frame: pydicom's decoding plugin function.

    Parameters
    ----------
    src : bytes
        The frame.
    runner : pydicom.pixels.decoders.base.DecodeRunner
        Gives the header's values and the options `codestream` and `notes` of
        :func:`decode_into`; `bits_allocated`, `planar_configuration` and
        `photometric_interpretation` are set to those of the result.

    Returns
    -------
    bytearray
        The samples in native byte order, colour by pixel.
    """
    samples = runner.samples_per_pixel
    stream: Codestream = runner.get_option("codestream")
    itemsize = stream.itemsize or runner.bits_allocated // 8
    shape = (runner.rows, runner.columns, samples)[: 3 if samples > 1 else 2]
    frame = bytearray(itemsize * runner.rows * runner.columns * samples)
    out = np.frombuffer(frame, dtype=f"u{itemsize}").reshape(shape)
    decode_into(src, out, stream, runner.get_option("notes"))

    runner.set_option("bits_allocated", 8 * itemsize)
    runner.set_option("planar_configuration", 0)
    if stream.kind == "jpeg2000" and runner.photometric_interpretation in (
        PI.YBR_ICT,
        PI.YBR_RCT,
    ):
        runner.set_option("photometric_interpretation", PI.RGB)
    return frame


def correct_bits(out: NDArray[Any], codestream: Codestream, pixels: ImagePixel) -> None:
    """Make the sign and the unused bits of a decoded frame what pydicom makes them.

    pydicom shifts left, then right with the sign: for JPEG and RLE by the unused bits of
    the header, for signed JPEG-LS by those of the codestream, for monochrome JPEG 2000
    likewise where codestream and header disagree about the sign (PS3.5 8.1.1).

    Parameters
    ----------
    out : numpy.ndarray
        Frame from :func:`decode_into`, of Bits Allocated bits and the sign of Pixel
        Representation; changed in place.
    codestream : Codestream
    pixels : ImagePixel
    """
    bits, signed = 8 * out.itemsize, pixels.signed
    if codestream.kind == "jpeg2000":
        monochrome = pixels.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2")
        differs = codestream.signed != signed and monochrome
        shift = bits - codestream.precision if differs else 0
    elif codestream.kind == "jpeg-ls":
        shift = bits - codestream.precision if signed else 0
    elif signed or not 0 < codestream.precision <= pixels.bits_stored:
        shift = bits - pixels.bits_stored
    else:
        # No value of an unsigned codestream this narrow has a bit where the shift would
        # take one away.
        shift = 0
    clear_bits(out, shift, signed, out)


def clear_bits(stored: NDArray[Any], shift: int, signed: bool, out: NDArray[Any]) -> None:
    """Store samples in `out`, which may be `stored`, with the highest `shift` bits as pydicom
    makes them (PS3.5 8.1.1): zero, or copies of the sign.
    """
    if shift > 0 and signed:
        np.left_shift(stored, shift, out=out)
        np.right_shift(out, shift, out=out)
    elif shift > 0:
        # The same as two shifts of an unsigned value, in one pass.
        np.bitwise_and(stored, (1 << (8 * out.itemsize - shift)) - 1, out=out)
    elif stored is not out:
        out[...] = stored
