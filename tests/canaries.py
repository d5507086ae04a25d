"""Files with a canary in every element that could say something of a person."""

import struct
from io import BytesIO

import numpy as np
from make_dicom import native_value, part10, pixel_element
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

CANARY = "CANARY"
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
DATES = {"DA": "19420101", "TM": "194202.421942", "DT": "19420101194202", "AS": "042Y"}
NUMBERS = {"IS": "19421942", "DS": "1942.1942"}
# Numbers that outputs may tell.
TOLD = {
    "AcquisitionNumber", "CineRate", "EchoNumbers", "EchoTime", "FlipAngle", "FrameReferenceTime",
    "FrameTime", "ImageOrientationPatient", "ImagePositionPatient", "ImagerPixelSpacing",
    "InstanceNumber", "InversionTime", "LossyImageCompressionRatio", "MagneticFieldStrength",
    "NumberOfFrames", "PixelAspectRatio", "PixelSpacing", "RepetitionTime", "RescaleIntercept",
    "RescaleSlope", "SliceThickness", "TemporalPositionIdentifier", "TriggerTime", "WindowCenter",
    "WindowWidth",
}  # fmt: skip
_COMMAND, _META, _STRUCTURE = 0x0000, 0x0002, 0xFFFE


def fill(dataset: Dataset, *, uids: bool = False) -> Dataset:
    """Put a canary into every element of the dictionary that `dataset` has not got.

    Text is `CANARY`, dates and other numbers as text contain 1942; with `uids` what should be
    a UID is text as well. The same in a private block.
    """
    text = TEXT | {"UI"} if uids else TEXT
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if not keyword or tag in dataset or tag >> 16 in (_COMMAND, _META, _STRUCTURE):
            continue
        if vr in text and keyword != "SpecificCharacterSet":
            dataset.add_new(tag, vr, f"{CANARY}{vr}" if vr != "UR" else f"x:{CANARY}")
        elif vr in DATES:
            dataset.add_new(tag, vr, DATES[vr])
        elif vr in NUMBERS and keyword not in TOLD:
            dataset.add_new(tag, vr, NUMBERS[vr])
    block = dataset.private_block(0x0031, f"{CANARY} private", create=True)
    block.add_new(1, "LO", CANARY)
    return dataset


def file_of(dataset: Dataset, frames: np.ndarray) -> bytes:
    """A file of `frames`, with canaries also in the preamble and the file meta information."""
    syntax = ExplicitVRLittleEndian
    element = pixel_element(native_value(frames, syntax, "OW", dataset), syntax)
    body = part10(dataset, syntax, element, preamble=False, meta=False)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationVersionName = CANARY
    meta.SourceApplicationEntityTitle = CANARY
    meta.PrivateInformationCreatorUID = UID("1.2.826.0.1.3680043.8.498.4")
    meta.PrivateInformation = CANARY.encode()
    head = BytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    return struct.pack("128s4s", CANARY.encode() * 21, b"DICM") + head.getvalue() + body


def traces(text: str | bytes) -> list[str]:
    """What of the canaries is in an output: words, dates, times, numbers, times since 1970."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    # Digits are so many that no hash contains them by chance.
    words = (
        CANARY, CANARY.lower(), "042Y", "1942-01", "19420101", "19:42", "194202.42", "19421942",
        "1942.1942", "-88354187", "-8.835", "70922000", "70922421", "7.0922e+07", "7.092e+07",
    )  # fmt: skip
    return [word for word in words if word in text]
