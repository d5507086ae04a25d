"""Enhanced ultrasound volumes (PS3.3 A.59): planes in axes of the volume, not of the patient."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dcmdask.geometry.dimensions import Arrangement
from dcmdask.images.meaning import Meaning

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout


class UltrasoundVolume(Meaning):
    """Planes whose positions are those of Plane Position (Volume) (PS3.3 C.7.6.16.2.21)."""

    separate_from = 1

    def arranged(self, layout: Layout) -> Arrangement:
        """Return an arrangement whose geometry is not in the patient."""
        arrangement = super().arranged(layout)
        geometry = arrangement.geometry
        return replace(arrangement, geometry=geometry and replace(geometry, in_patient=False))

    def summary(self, layout: Layout) -> str:
        """Return, say, ``ultrasound volume of 5 times x 120 planes``."""
        return f"ultrasound {super().summary(layout)}"
