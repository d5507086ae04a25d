"""Whole slides (PS3.3 A.32.8): planes of a total pixel matrix, by optical path and focal plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dcmdask.dicom.conversion import term
from dcmdask.dicom.description import Described
from dcmdask.dicom.own_elements import EXTENDED_DEPTH, SPECIMEN_LABEL, WHOLE_SLIDES
from dcmdask.errors import Advice, HeaderError
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.sparse import Places, arrange_sparse
from dcmdask.images.meaning import Unplaced
from dcmdask.images.summary import counted

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

# Terms of the third value of Image Type (PS3.3 C.8.12.4.1.1).
_FLAVOURS: Final = "VOLUME LABEL OVERVIEW THUMBNAIL LOCALIZER"


class SlideMeaning(Unplaced):
    """Planes of a slide: one, or one for each optical path and focal plane."""

    kind = "slide"

    def meant(self, one: Described) -> Described:
        """Return a description of planes as it is, and of tiles as frames without any place."""
        return one if one.stored else super().meant(one)

    def arranged(self, layout: Layout) -> Arrangement:
        """Return planes along ``optical_path`` and ``z``, where there are several of them."""
        facts = layout.facts
        if not layout.instances[0].stored:
            # Tiles whose places are not known.
            return super().arranged(layout)
        names, first, which = np.unique(
            facts["optical_path"], return_index=True, return_inverse=True
        )
        # In the order of the files, which is that of (0048,0105) Optical Path Sequence.
        order = np.argsort(first)
        places = Places(np.argsort(order)[which.reshape(-1)], len(names))
        found = arrange_sparse(facts, {"optical_path": places}, {}, layout.tolerance)
        if found is None:
            return super().arranged(layout)
        labels = np.char.decode(names[order], "ascii", "replace")
        coordinates = {**found.coordinates, "optical_path": (("optical_path",), labels)}
        return _squeezed(replace(found, coordinates=coordinates))

    def summary(self, layout: Layout) -> str:
        """Return, say, ``whole slide, VOLUME: 30000 x 40000 pixels, 3 optical paths``."""
        one = layout.instances[0]
        flavour = flavour_of(one)
        found = f"whole slide, {flavour}" if flavour else "whole slide"
        if not one.stored:
            tiles = counted(layout.frame_numbers.size, "tile")
            return f"{found}: {tiles} of {one.rows} x {one.columns} pixels"
        names = {"optical_path": "optical path", "z": "focal plane"}
        more = [counted(n, names.get(dim, dim)) for dim, n in layout.lengths.items()]
        return ", ".join([f"{found}: {one.rows} x {one.columns} pixels", *more])


def is_slide(stack: Layout) -> bool:
    """Return whether a stack is an image of a whole slide, or of its label or overview."""
    return stack.instances[0].sop_class_uid == WHOLE_SLIDES


def flavour_of(one: Described) -> str:
    """Return VOLUME, LABEL, OVERVIEW, THUMBNAIL or LOCALIZER, by Image Type; empty for none."""
    if one.sop_class_uid != WHOLE_SLIDES:
        return ""
    return term((*one.image_type, "", "", "")[2], _FLAVOURS) or ""


def no_slide(images: Sequence[Described]) -> HeaderError:
    """Return the error of pictures that belong to a slide, where the slide itself is meant."""
    flavours = ", ".join(sorted({flavour_of(one) for one in images}))
    return HeaderError(
        f"there is no image of the slide itself (VOLUME in Image Type), only {flavours}, which may "
        "show names",
        source=images[0].source.name,
        code="slide",
        advice=[Advice("", "", "open_slide(folder) has label and overview as pictures")],
    )


def has_extended_depth(one: Described) -> bool:
    """Return whether an image is made of several focal planes, by (0048,0012)."""
    return one.own.word(EXTENDED_DEPTH) == "YES"


def shows_label(one: Described) -> bool:
    """Return whether the label of the slide, which may show names, is in the picture."""
    return one.own.word(SPECIMEN_LABEL) == "YES"


def _squeezed(arrangement: Arrangement) -> Arrangement:
    """Return an arrangement without the dimensions of one place."""
    lengths = zip(arrangement.dims, arrangement.numbers.shape, strict=True)
    single = {dim for dim, length in lengths if length == 1}
    return replace(
        arrangement,
        dims=tuple(dim for dim in arrangement.dims if dim not in single),
        numbers=arrangement.numbers.squeeze(),
        coordinates={
            name: (
                tuple(dim for dim in along if dim not in single),
                values.squeeze(tuple(i for i, dim in enumerate(along) if dim in single)),
            )
            for name, (along, values) in arrangement.coordinates.items()
        },
    )
