"""The series that ``--series`` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dcmdask.console.output import say

if TYPE_CHECKING:
    from dcmdask.archive.scan import Scan
    from dcmdask.archive.series import Series


def chosen(src: str, series: str, storage_options: Mapping[str, Any], **how: Any) -> Series:
    """Scan `src`, and return the series that a number, a UID or the end of one names.

    The UID is printed, since numbers shift when files arrive.
    """
    from dcmdask.archive.scan import scan
    from dcmdask.console.progress import counting

    with counting("files") as advance:
        found = scan(src, progress=advance, storage_options=storage_options, **how)
    return named(found, series)


def named(found: Scan, series: str) -> Series:
    """Return the series of a scan that a number, a UID or the end of one names.

    Raises
    ------
    ValueError
        There is none, or several.
    """
    one = _found(found, series)
    say(f"dcmdask: series {one.uid or 'without a UID'}")
    return one


def _found(found: Scan, series: str) -> Series:
    try:
        # No end of a UID: those of other series have the same digits.
        return found[int(series) if series.isdecimal() else series]
    except IndexError:
        raise ValueError(
            f"--series {series}: dcmdask scan lists {len(found)} series, with numbers from 0 on"
        ) from None
    except KeyError as error:
        raise ValueError(f"--series {series}: {error.args[0]}; dcmdask scan lists them") from None
