"""Colours of JPEG codestreams: YCbCr or RGB, by the header and by the codestream itself."""

from __future__ import annotations

from dcmdask.dicom.image_pixel import YBR, ImagePixel
from dcmdask.errors import Note
from dcmdask.pixels.codestream import Codestream

__all__ = ["RGB_IDS", "coded_interpretation", "is_rgb", "is_ycbcr", "unlike_header"]

RGB_IDS = ((82, 71, 66), (114, 103, 98))  # "RGB" and "rgb" in ASCII


def is_ycbcr(codestream: Codestream, photometric_interpretation: str) -> bool:
    """Return whether pydicom and libjpeg both take a JPEG frame for YCbCr.

    pydicom goes by Photometric Interpretation and by component identifiers that spell RGB
    (PS3.5 8.2.1, PS3.3 C.7.6.3.1.2). libjpeg goes by a JFIF marker, then by the transform
    of an Adobe marker, then by the identifiers.
    """
    return (
        codestream.kind == "jpeg"
        and codestream.components == 3
        and photometric_interpretation in YBR
        and codestream.component_ids not in RGB_IDS
        and (codestream.jfif or codestream.adobe_transform != 0)
    )


def is_rgb(codestream: Codestream) -> bool:
    """Return whether libjpeg takes a JPEG frame of three components for RGB."""
    if codestream.jfif or codestream.adobe_transform is not None:
        return not codestream.jfif and codestream.adobe_transform == 0
    return codestream.component_ids == RGB_IDS[0]


def coded_interpretation(codestream: Codestream, pixels: ImagePixel) -> str:
    """Return the Photometric Interpretation of a frame, as pydicom's decoders are to use it.

    That of the header, unless it cannot be true of a JPEG codestream (PS3.5 8.2.1): RGB where
    a JFIF or Adobe marker says that the components were transformed, or where they are
    subsampled; and any YCbCr but that of ITU-T T.871, which is the only one that JPEG has. One
    that the caller gave is used as it is.
    """
    said = pixels.photometric_interpretation
    is_jpeg = codestream.kind == "jpeg" and codestream.components == 3
    if not is_jpeg or said in YBR or pixels.interpretation_given:
        return said
    if codestream.component_ids in RGB_IDS:
        return said
    transform, subsampled = codestream.adobe_transform, len(set(codestream.sampling)) > 1
    if codestream.jfif:
        return "YBR_FULL"
    if said == "RGB":
        return "YBR_FULL" if transform == 1 or (transform is None and subsampled) else said
    if said.startswith("YBR"):
        return "RGB" if transform == 0 else "YBR_FULL"
    return said


def unlike_header(pixels: ImagePixel, coded: str) -> Note:
    """Return the note on a frame whose codestream is coded as the header does not say."""
    said = pixels.photometric_interpretation
    return Note(
        "photometric-interpretation",
        f"(0028,0004) 'Photometric Interpretation' is {said}, and the JPEG codestream is coded as "
        f"{coded}: the codestream decides; photometric_interpretation={said} "
        "(--set on the command line) keeps to the header",
    )
