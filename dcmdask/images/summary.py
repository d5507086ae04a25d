"""Stacks in words, for tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

HEADS = ("what", "array", "mm", "notes")
# One of the places along a dimension, as a word.
_NOUNS: Final = {
    "z": "plane",
    "t": "time",
    "echo": "echo",
    "diffusion": "diffusion weighting",
    "segment": "segment",
    "stack": "stack",
    "frame": "frame",
    "component": "component",
    "energy_window": "energy window",
    "detector": "detector",
    "phase": "phase",
    "rotation": "rotation",
    "rr_interval": "R-R interval",
    "time_slot": "time slot",
    "angular_view": "angular view",
    "time_slice": "time slice",
}


def counted(number: int, noun: str) -> str:
    """Return, say, ``1 plane`` or ``3 echoes``."""
    ending = "" if number == 1 else "es" if noun.endswith("o") else "s"
    return f"{number} {noun}{ending}"


def places(lengths: Mapping[str, int]) -> str:
    """Return the lengths of dimensions in words, such as ``2 detectors x 60 angular views``."""
    return " x ".join(
        counted(length, _NOUNS[dim]) if dim in _NOUNS else f"{length} along {dim}"
        for dim, length in lengths.items()
    )


def cells(stack: Layout) -> tuple[str, ...]:
    """Return the summary, array, spacing and remarks of a stack, by `HEADS`."""
    spacing = stack.geometry.spacing if stack.geometry else ()
    return (
        stack.summary,
        array_text(stack.dims, stack.shape, stack.dtype),
        millimetres(spacing),
        "; ".join(map(str, [*stack.irregularities, *stack.notes])),
    )


def array_text(dims: Iterable[str], shape: Iterable[int], dtype: object) -> str:
    """Return axes, lengths and type, such as ``z:5 y:16 x:16 int16``."""
    lengths = " ".join(f"{dim}:{length}" for dim, length in zip(dims, shape, strict=True))
    return f"{lengths} {dtype}"


def millimetres(spacing: Iterable[float | None]) -> str:
    """Return distances in mm, with a question mark for those that are not known."""
    return " x ".join("?" if mm is None or mm != mm else f"{mm:.4g}" for mm in spacing)
