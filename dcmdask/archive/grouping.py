"""Described instances become series; copies of one instance count once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from dcmdask.archive.discovery import Skipped
from dcmdask.archive.duplicates import versions
from dcmdask.archive.scan_worker import in_threads
from dcmdask.archive.series import Series
from dcmdask.dicom.conversion import uid
from dcmdask.dicom.description import Described

__all__ = ["by_series", "series_of"]

# Threads that compare files; they wait for the disk.
_READERS = 4


def series_of(
    described: Sequence[Described], lost: Iterable[Skipped] = ()
) -> tuple[list[Series], list[Skipped]]:
    """Return series without copies, and the copies.

    Parameters
    ----------
    described : sequence of Described
        In any order.
    lost : iterable of Skipped, optional
        Files that may be part of a series: each is left out of those that it lies beside.

    Returns
    -------
    series : list of Series
        By Study and Series Instance UID.
    copies : list of Skipped
        Of each instance, all files but the first by name.
    """
    ordered = sorted(described, key=_by_series_and_name)
    copies: dict[str, Skipped] = {}
    conflicts: dict[tuple[str, ...], list[str]] = {}
    for different in in_threads(versions, _sharing_uid(ordered), _READERS):
        for original, *others in different:
            reason = f"the same instance as {original.source.name}"
            copies.update(
                (one.source.name, Skipped(one.source.name, reason, "copy")) for one in others
            )
        if len(different) > 1:
            first = different[0][0]
            conflicts.setdefault(by_series(first), []).append(
                f"{len(different)} different files have the SOP Instance UID "
                f"{uid(first.sop_instance_uid) or '…'}: "
                + "; ".join(one[0].source.name for one in different)
            )
    beside: dict[str, list[str]] = {}
    for one in lost:
        beside.setdefault(_folder(one.path), []).append(f"{one.path}: {one.reason}")
    kept = (one for one in ordered if one.source.name not in copies)
    series = []
    for key, group in groupby(kept, by_series):
        instances = list(group)
        folders = sorted({_folder(one.source.name) for one in instances} & beside.keys())
        left_out = [text for folder in folders for text in beside[folder]]
        series.append(Series(key[1], instances, sorted(conflicts.get(key, ())), left_out))
    return series, list(copies.values())


def _folder(name: str) -> str:
    return name.replace(os.sep, "/").rpartition("/")[0]


def by_series(one: Described) -> tuple[str, ...]:
    """Return what the instances of a series have in common, and those of no other."""
    if one.series_uid:
        return one.study_uid, one.series_uid, "", ""
    return one.study_uid, "", one.modality, _folder(one.source.name)


def _by_series_and_name(one: Described) -> tuple[str, ...]:
    return *by_series(one), one.source.name


def _sharing_uid(ordered: Iterable[Described]) -> Iterator[list[Described]]:
    """Yield the instances of a series that have the same SOP Instance UID."""
    for _, series in groupby(ordered, by_series):
        same: dict[str, list[Described]] = {}
        for one in series:
            if one.sop_instance_uid:
                same.setdefault(one.sop_instance_uid, []).append(one)
        yield from (group for group in same.values() if len(group) > 1)
