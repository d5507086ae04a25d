"""The table of a scan: technical facts of each series, nothing personal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dcmdask.archive.series import Series
from dcmdask.dicom.conversion import MODALITIES, term, uid
from dcmdask.dicom.description import Described

__all__ = ["COLUMNS", "row"]

COLUMNS = (
    "series_uid",
    "study_uid",
    "modality",
    "instances",
    "frames",
    "rows",
    "columns",
    "samples",
    "dtype",
    "transfer_syntaxes",
    "stacks",
    "kinds",
    "dims",
    "shape",
    "spacing",
    "regular",
    "irregularities",
)


def row(series: Series) -> dict[str, Any]:
    """Return one row of the table, by `COLUMNS`, as JSON has types for it."""
    instances, stacks = series.instances, series.stacks
    stack = stacks[0] if len(stacks) == 1 else None
    geometry = stack.geometry if stack else None
    irregularities = [one.message for s in stacks for one in s.arrangement.irregularities]
    if series.conflicts:
        irregularities.append(f"{len(series.conflicts)} SOP Instance UIDs of different files")
    values = (
        uid(series.uid),
        uid(_common(one.study_uid for one in instances)),
        term(_common(one.modality for one in instances), MODALITIES),
        len(instances),
        sum(map(len, instances)),
        _common(one.rows for one in instances),
        _common(one.columns for one in instances),
        _common(one.samples for one in instances),
        _common(map(_dtype, instances)),
        sorted({one.transfer_syntax for one in instances}),
        len(stacks),
        [one.kind for one in stacks],
        list(stack.dims) if stack else None,
        list(stack.shape) if stack else None,
        [float(mm) if mm == mm else None for mm in geometry.spacing] if geometry else None,
        not irregularities,
        irregularities,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _common(values: Iterable[Any]) -> Any:
    """Return the value that all share, otherwise None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _dtype(one: Described) -> str:
    if one.pixel_keyword != "PixelData":
        return f"float{one.bits_allocated}"
    return f"{'' if one.signed else 'u'}int{max(8, one.bits_allocated)}"
