"""Stacks in words, for tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

HEADS = ("kind", "array", "mm", "notes")


def cells(stack: Layout) -> tuple[str, ...]:
    """Return the kind, array, spacing and remarks of a stack, by `HEADS`."""
    lengths = " ".join(f"{d}:{n}" for d, n in zip(stack.dims, stack.shape, strict=True))
    spacing = stack.geometry.spacing if stack.geometry else ()
    return (
        stack.kind,
        f"{lengths} {stack.dtype}",
        " x ".join("?" if mm != mm else f"{mm:.4g}" for mm in spacing),
        "; ".join(map(str, [*stack.irregularities, *stack.notes])),
    )
