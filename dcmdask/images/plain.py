"""Classes of objects whose positions do not order their frames."""

from __future__ import annotations

from dcmdask.dicom.description import Described

# Segmentation and its label map, Nuclear Medicine.
_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("66.4", "66.7", "20"))


def is_mosaic(one: Described) -> bool:
    """Return whether a frame holds the tiles of a volume, as Siemens MR stores them."""
    return "MOSAIC" in one.image_type


def is_plain(one: Described) -> bool:
    """Return whether the positions of frames do not say how they lie behind one another."""
    return is_mosaic(one) or one.sop_class_uid in _CLASSES
