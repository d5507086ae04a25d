"""Whole slides (PS3.3 A.32.8): tiles of one picture, which are opened as they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dcmdask.dicom.conversion import term
from dcmdask.images.meaning import Unplaced
from dcmdask.images.summary import counted

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

# Terms of the third value of Image Type (PS3.3 C.8.12.4.1.1).
_FLAVOURS: Final = "VOLUME LABEL OVERVIEW THUMBNAIL LOCALIZER"


class Slide(Unplaced):
    """Tiles of a total pixel matrix."""

    def summary(self, layout: Layout) -> str:
        """Return, say, ``whole slide, VOLUME: 120 tiles of 256 x 256 pixels``."""
        one = layout.instances[0]
        flavour = term((*one.image_type, "", "", "")[2], _FLAVOURS)
        found = f"whole slide, {flavour}" if flavour else "whole slide"
        tiles = counted(layout.frame_numbers.size, "tile")
        return f"{found}: {tiles} of {one.rows} x {one.columns} pixels"
