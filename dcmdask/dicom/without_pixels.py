"""SOP classes whose objects have no pixels, and the software that reads them."""

from __future__ import annotations

from typing import Final

from pydicom.uid import UID

__all__ = ["without_pixels"]

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
# By what comes behind that root; an entry with a dot at its end is for all classes below.
_READERS: Final = {
    "4.2": "spectra are read by spec2nii or pydicom",
    "9.": "waveforms are read by pydicom (Dataset.waveform_array)",
    "11.": "presentation states are read by pydicom",
    "66": "raw data are in a form of their maker's",
    "66.1": "registrations are read by pydicom",
    "66.2": "fiducials are read by pydicom",
    "66.3": "registrations are read by pydicom",
    "66.5": "surfaces are read by pydicom",
    "66.6": "tracts are read by pydicom",
    "67": "mappings of values are read by pydicom",
    "68.": "surfaces are read by pydicom",
    "77.1.5.3": "relations of images are read by pydicom",
    "78.": "measurements are read by pydicom",
    "79.1": "measurements are read by pydicom",
    "80.1": "measurements are read by pydicom",
    "88.": "structured reports are read by highdicom or pydicom",
    "91.1": "annotations are read by highdicom",
    "104.": "the document is the value of (0042,0011) 'Encapsulated Document', as pydicom reads it",
    "131": "layouts of images are read by pydicom",
    "200.": "protocols are read by pydicom",
    "481.3": "contours are read by rt-utils or pydicom",
    "481.4": "treatment records are read by pydicom",
    "481.5": "plans are read by pydicom",
    "481.6": "treatment records are read by pydicom",
    "481.7": "treatment records are read by pydicom",
    "481.8": "plans are read by pydicom",
    "481.9": "treatment records are read by pydicom",
}
_OTHERS: Final = {
    "1.2.840.10008.5.1.4.38.1": "hanging protocols are read by pydicom",
    "1.2.840.10008.5.1.4.39.1": "palettes are read by pydicom (apply_color_lut)",
}


def without_pixels(sop_class_uid: str) -> str:
    """Return that objects of a SOP class have no pixels, and what reads them; else nothing.

    Examples
    --------
    >>> without_pixels("1.2.840.10008.5.1.4.1.1.481.3")
    'RT Structure Set Storage has no pixels: contours are read by rt-utils or pydicom'
    """
    ending = sop_class_uid.removeprefix(_STORAGE)
    readers = _OTHERS if ending == sop_class_uid else _READERS
    for one, reader in readers.items():
        if ending == one or (one.endswith(".") and ending.startswith(one)):
            return f"{UID(sop_class_uid).name} has no pixels: {reader}"
    return ""
