"""``dcmdask picture``: a series or a file as a PNG picture."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dcmdask.cli.choice import chosen
from dcmdask.console import options
from dcmdask.console.output import say
from dcmdask.errors import GeometryError
from dcmdask.sources.access import options_of

if TYPE_CHECKING:
    import xarray as xr

# Longer side of the picture of a slide.
_SIDE = 1024


def picture(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A DICOM file, or a folder or archive of files.")
    ],
    target: Annotated[str, typer.Argument(metavar="PNG", help="Picture to write.")],
    window: Annotated[
        str | None,
        typer.Option(
            metavar="CENTER,WIDTH",
            help="Values from black to white, in the units of the modality; by default the "
            "window of the header.",
        ),
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="All frames side by side.")] = False,
    mip: Annotated[
        Literal["z", "y", "x"] | None,
        typer.Option(help="Largest values from the feet, the front or the right."),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="One frame, counted from 0.")
    ] = None,
    overlay: Annotated[
        str | None,
        typer.Option(
            metavar="SRC", help="A segmentation or a dose, drawn in colours over the image."
        ),
    ] = None,
    series: options.Series = None,
    stack: options.Stack = None,
    set: options.Set = None,
    storage_option: options.StorageOption = None,
) -> None:
    """Draw a series or a file: three planes of a volume, a whole slide, otherwise all frames.

    Planes and projections show the head or the front on top, and pixels have the right aspect.
    """
    from dcmdask.archive.open_slide import open_slide
    from dcmdask.archive.series import Series
    from dcmdask.images.objects.slide import is_slide
    from dcmdask.images.slides.whole_slide import Slide

    if sum((sheet, mip is not None, frame is not None)) > 1:
        raise ValueError("--sheet, --mip and --frame: one of them at a time")
    if overlay is not None and mip is not None:
        raise ValueError("--mip is of one image: without it planes show the overlay")
    shown = None if window is None else _window(window)
    storage = options_of(storage_option or ())
    src = chosen(source, series, stack, storage, **options.overrides_of(set))
    over = None if overlay is None else chosen(overlay, None, None, storage)
    for one in (*src.instances, *(() if over is None else over.instances)):
        if os.path.realpath(target) == os.path.realpath(one.source.name):
            raise ValueError(f"the target {target} is a file of the source: take another target")
    stacks = src.stacks if isinstance(src, Series) else (src,)
    if is_slide(stacks[0]):
        if shown or sheet or mip or frame is not None or over is not None:
            raise ValueError("a whole slide is drawn as it is: no options of volumes and frames")
        slide = open_slide(src) if isinstance(src, Series) else Slide(stacks)
        slide.thumbnail(_SIDE).save(target, "PNG")
        return
    if isinstance(src, Series):
        src.warn_left_out()
        src = src.only_stack("first")
    in_units = window is not None
    array = src.to_xarray("modality" if in_units else "display", on_irregular="keep")
    at = None
    if over is not None:
        coloured = over.to_xarray("modality")
        array = coloured.dcm.over(_first(array), window=shown)
        at, shown = _middle(coloured), None
    if frame is not None:
        _draw_frame(array, target, frame, shown)
    elif mip is not None:
        if not _is_placed(array) or "sample" in array.dims:
            raise ValueError(
                "--mip: frames in colour, or without a common place in the patient, are no volume; "
                "without --mip all are shown"
            )
        _first(array).dcm.projection(target, mip, window=shown)
    elif sheet or array.sizes.get("z", 1) == 1 or not _is_placed(array):
        array.dcm.contact_sheet(target, window=shown)
    else:
        _first(array).dcm.planes(target, at=at, window=shown)


def _window(text: str) -> tuple[float, float]:
    try:
        center, width = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: a center and a width, such as 40,400", param_hint="--window"
        ) from None
    return center, width


def _is_placed(array: xr.DataArray) -> bool:
    try:
        _ = array.dcm.affine
    except GeometryError:
        return False
    return True


def _middle(array: xr.DataArray) -> dict[str, float]:
    """Return the coordinates of the centre of what is in the middle plane of an overlay."""
    plane = array.isel(z=array.sizes["z"] // 2)
    weights = plane.max("segment") if "segment" in plane.dims else plane
    weights = weights.astype("f8").compute()
    found = {"z": float(plane.coords["z"])}
    if weights.any():
        found |= {dim: float((weights * plane[dim]).sum() / weights.sum()) for dim in ("y", "x")}
    return found


def _first(array: xr.DataArray) -> xr.DataArray:
    """Return the first volume of several, and say so."""
    others = [dim for dim in array.dims if dim not in ("z", "y", "x", "sample")]
    for dim in others:
        say(f"dcmdask: the first of {array.sizes[dim]} along {dim}")
    return array.isel(dict.fromkeys(others, 0))


def _draw_frame(
    array: xr.DataArray, target: str, number: int, window: tuple[float, float] | None
) -> None:
    import numpy as np

    leading = [dim for dim in array.dims if dim not in ("y", "x", "sample")]
    shape = [array.sizes[dim] for dim in leading]
    if number >= math.prod(shape):
        raise ValueError(f"--frame {number}: there are {math.prod(shape)} frames, from 0 on")
    place = dict(zip(leading, np.unravel_index(number, shape), strict=True))
    array.isel(place).dcm.contact_sheet(target, window=window)
