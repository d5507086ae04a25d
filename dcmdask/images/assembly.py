"""Frames of a stack in its order, as an array-like: irregularities settled, values applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.arrays.transformation import check_values, fill_for, with_values
from dcmdask.dicom.instance import issue
from dcmdask.errors import Advice, IrregularSeriesError
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.repair import OnIrregular, check_on_irregular, filled
from dcmdask.images.irregularities import detail_of, named
from dcmdask.images.tiled import absent_colour, frames_of, may_lack_tiles

if TYPE_CHECKING:
    from dcmdask.images.volume import Stack

FILL = Advice("on_irregular", "fill", "puts empty frames into gaps")
SPLIT = Advice("", "", "scan(...)[0].stacks[0].split() gives the regular parts")
_ADVICE = (
    Advice("on_irregular", "keep", "takes the frames as they are, with their true positions"),
    FILL,
    Advice("tolerance", 0.5, "takes positions as even where they are off by up to 0.5 mm"),
    Advice("order_by", "TriggerTime", "or another keyword tells frames of one position apart"),
    SPLIT,
)


def assemble(
    stack: Stack,
    values: str,
    on_irregular: OnIrregular,
    *,
    order_by: str | Sequence[str] | None = None,
    tolerance: float | None = None,
    fill_value: float | None = None,
    **decoding_options: Any,
) -> tuple[Stack, ArrangedFrames, Arrangement]:
    """Return a stack in the order asked for, its frames as an array-like, and their places.

    Parameters and errors are those of :meth:`Stack.to_dask`.
    """
    stack = stack.ordered_by(order_by).within(tolerance)
    arrangement = settled(stack, on_irregular)
    return stack, array_of(stack, arrangement, values, fill_value, decoding_options), arrangement


def settled(stack: Stack, on_irregular: OnIrregular) -> Arrangement:
    """Return the arrangement of a stack, kept or filled where it is irregular.

    Raises
    ------
    IrregularSeriesError
        It is irregular, and `on_irregular` does not settle that.
    """
    check_on_irregular(on_irregular)
    for note in stack.notes:
        issue(note, stack.name)
    arrangement = stack.arrangement
    if on_irregular == "fill":
        arrangement = filled(arrangement, stack.facts)
    codes = {one.code for one in arrangement.irregularities}
    if codes and on_irregular != "keep":
        listed = "\n".join(f"- {one}" for one in named(arrangement.irregularities, stack))
        cannot = "cannot be filled" if on_irregular == "fill" else "is not regular"
        raise IrregularSeriesError(
            f"the stack of {len(stack.frame_numbers)} frames {cannot}:\n{listed}",
            source=stack.name,
            detail=detail_of(arrangement.irregularities, stack),
            code="+".join(sorted(codes)),
            advice=_ADVICE,
        )
    return arrangement


def array_of(
    stack: Stack,
    arrangement: Arrangement,
    values: str,
    fill_value: float | None,
    decoding_options: Mapping[str, Any],
) -> ArrangedFrames:
    """Return the frames of a stack in an arrangement as an array-like."""
    check_values(values, decoding_options)
    if fill_value is not None and values != "stored" and may_lack_tiles(stack.instances):
        raise ValueError(
            f"fill_value {fill_value!r} is for stored values where tiles may be missing, since "
            f"these become {values} values with the others: leave it out"
        )
    stored = frames_of(
        stack.instances, decoding_options, fill_value if values == "stored" else None
    )
    frames = with_values(stored, stack.instances, values, decoding_options)
    numbers = np.where(arrangement.numbers >= 0, stack.frame_numbers[arrangement.numbers], -1)
    if fill_value is None:
        fill_value = stack.meaning.empty
    if fill_value is not None or not (numbers < 0).any():
        return ArrangedFrames(frames, numbers, fill_value)
    # A plane without any tile has the colour of other places without one.
    absent = absent_colour(frames)
    if absent is None:
        absent = fill_for(frames, stack.instances, values)
    return ArrangedFrames(frames, numbers, absent)


def planned(stack: Stack, chunks: Any) -> Any:
    """Return chunks as asked for; planned ones have all of `Meaning.whole` together."""
    whole = stack.meaning.whole
    if chunks != "auto" or whole not in stack.dims:
        return chunks
    return {stack.dims.index(whole): -1}
