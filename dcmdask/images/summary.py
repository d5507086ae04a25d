"""Stacks in words, for tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

HEADS = ("kind", "array", "mm", "notes")


def cells(stack: Layout) -> tuple[str, ...]:
    """Return the kind, array, spacing and remarks of a stack, by `HEADS`."""
    spacing = stack.geometry.spacing if stack.geometry else ()
    return (
        stack.kind,
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
