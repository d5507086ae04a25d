"""Ranges of bytes that are fetched with few requests."""

from __future__ import annotations

from collections.abc import Sequence

# Neighbouring ranges of a remote source are fetched together: a request costs
# about as much as a few hundred kilobytes.
COALESCE_GAP = 256 * 1024
COALESCE_LENGTH = 32 * 1024 * 1024


def coalesce(offsets: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int, list[int]]]:
    """Join neighbouring ranges into requests.

    Returns
    -------
    list of (start, end, members)
        `members` are positions in `offsets`; each is in exactly one request,
        which covers its range whole.

    Examples
    --------
    >>> coalesce([0, 10, 9_000_000], [10, 10, 5])
    [(0, 20, [0, 1]), (9000000, 9000005, [2])]
    """
    requests: list[tuple[int, int, list[int]]] = []
    for member in sorted(range(len(offsets)), key=lambda i: offsets[i]):
        start, end = offsets[member], offsets[member] + lengths[member]
        if requests:
            first, last, members = requests[-1]
            if start - last <= COALESCE_GAP and end - first <= COALESCE_LENGTH:
                members.append(member)
                requests[-1] = (first, max(last, end), members)
                continue
        requests.append((start, end, [member]))
    return requests
