"""Files without pixel data: other objects than images, or damaged ones."""

from __future__ import annotations

from typing import Final

from pydicom.uid import UID

from dcmdask.dicom import files
from dcmdask.dicom.header import read_header

__all__ = ["lost_pixels"]

_SOP_CLASS, _ROWS, _FIRST_DIRECTORY_RECORD = 0x00080016, 0x00280010, 0x00041200
# SOP classes (PS3.4 B.5) of which instances have pixel data, besides those of images.
_OF_PIXELS: Final = (
    "Segmentation Storage",
    "Label Map Segmentation Storage",
    "Height Map Segmentation Storage",
    "Parametric Map Storage",
    "Enhanced US Volume Storage",
    "Ophthalmic Thickness Map Storage",
    "Corneal Topography Map Storage",
)
# Its pixel data may be left out, and Rows with it.
_RT_DOSE: Final = "RT Dose Storage"


def lost_pixels(source: files.Stored) -> str:
    """Return why a file without pixel data should have some; empty where it need not.

    Reports, plans, presentation states, directories of media and the like have none. A header
    that ends where an element ends looks whole.

    Parameters
    ----------
    source : Stored
        In which no pixel data was found.

    Raises
    ------
    OSError, DcmdaskError
        It cannot be read again.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> lost_pixels(files.locate(get_testdata_file("rtplan.dcm")))
    ''
    """
    values = read_header(source, (_SOP_CLASS, _ROWS, _FIRST_DIRECTORY_RECORD)).values
    if _FIRST_DIRECTORY_RECORD in values:
        return ""
    if _SOP_CLASS not in values:
        return "there is no (0008,0016) 'SOP Class UID' either"
    sop_class = UID(values[_SOP_CLASS].value.decode("ascii", "replace").rstrip("\0 "))
    name = sop_class.name
    if "Image" in name or name in _OF_PIXELS:
        return "the SOP class is one of images"
    # A class that the standard does not know is called by its UID.
    if name in (sop_class, _RT_DOSE) and _ROWS in values:
        return "(0028,0010) 'Rows' is there"
    return ""
