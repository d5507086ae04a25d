"""The series and the stack that ``--series`` and ``--stack`` name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dcmdask.console.output import say

if TYPE_CHECKING:
    from dcmdask.archive.scan import Scan
    from dcmdask.archive.series import Series
    from dcmdask.images.volume import Stack


def chosen(
    src: str,
    series: str | None,
    stack: int | None,
    storage_options: Mapping[str, Any],
    **overrides: Any,
) -> Series | Stack:
    """Scan `src`, and return the series that is named, or a stack of it.

    Without a name there has to be one series. Its UID is printed, since numbers shift when files
    arrive.
    """
    from dcmdask.archive.collection import only_series
    from dcmdask.archive.scan import scan
    from dcmdask.console.progress import counting

    with counting("files") as advance:
        found = scan(src, progress=advance, storage_options=storage_options, **overrides)
    one = only_series(found) if series is None else named(found, series)
    if stack is None:
        return one
    if stack >= len(one.stacks):
        raise ValueError(f"--stack {stack}: the series has {len(one.stacks)}, from 0 on")
    one.warn_left_out()
    return one.stacks[stack]


def named(found: Scan, series: str) -> Series:
    """Return the series of a scan that a number, a UID or the end of one names."""
    try:
        # No end of a UID: those of other series have the same digits.
        one = found[int(series) if series.isdecimal() else series]
    except IndexError:
        raise ValueError(
            f"--series {series}: dcmdask scan lists {len(found)} series, with numbers from 0 on"
        ) from None
    except KeyError as error:
        raise ValueError(f"--series {series}: {error.args[0]}; dcmdask scan lists them") from None
    say(f"dcmdask: series {one.uid or 'without a UID'}")
    return one
