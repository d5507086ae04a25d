"""Files that a catalog knows already: 25 bytes for each, whatever its path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydicom.uid import UID

from dcmdask.archive.catalog.parts import INSTANCES, SKIPPED, Left, read_part, read_skipped
from dcmdask.archive.descriptions import LOST
from dcmdask.archive.discovery import Skipped
from dcmdask.errors import (
    HeaderError,
    MissingElementError,
    NoPixelDataError,
    PixelDataError,
    UnsupportedSyntaxError,
)
from dcmdask.sources.folder import Folder

Pair: TypeAlias = tuple[int, int]
NONE: Pair = (0, 0)
# Exceptions that name what is in a file.
_OF_CONTENT = frozenset(
    one.__name__
    for one in (
        HeaderError,
        MissingElementError,
        NoPixelDataError,
        PixelDataError,
        UnsupportedSyntaxError,
    )
)


def fingerprint(path: str, size: int, state: object) -> Pair:
    """Return two 64-bit numbers that stand for a file as it is: path, size, and time or tag."""
    digest = hashlib.blake2b(f"{path}\0{size}\0{state}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def is_lasting(one: Skipped) -> bool:
    """Return whether the reason is in the content of the file, and no failure of reading it."""
    if one.kind != "doubtful" or one.code == LOST:
        return True
    return one.code.partition("/")[0] in _OF_CONTENT


class Known:
    """The files of a catalog, each of which is seen again or not.

    Parameters
    ----------
    folder : Folder
    instances, skipped : sequence of str
        Names of its parts.
    indexed : bool
        Whether only encapsulated instances with a frame index count.
    """

    def __init__(
        self,
        folder: Folder,
        instances: Iterable[str],
        skipped: Iterable[str],
        *,
        indexed: bool = False,
    ) -> None:
        # First and last row of each part, by kind and name.
        self._bounds: dict[tuple[str, str], tuple[int, int]] = {}
        self._entries: dict[Skipped, int] = {}
        parts = [np.empty((0, 2), np.uint64)]
        for name in instances:
            table = read_part(folder, INSTANCES, name, _FILE)
            self._add(parts, (INSTANCES, name), list(_of_instances(table, indexed)))
        for name in skipped:
            self._add(parts, (SKIPPED, name), list(self._of_others(read_skipped(folder, name))))
        table = np.concatenate(parts)
        self._order = np.argsort(table[:, 0], kind="stable")
        # A view would keep both columns.
        self._high, self._low = table[self._order, 0], table[:, 1].copy()
        self._seen = np.zeros(len(table), bool)

    def _add(
        self, parts: list[npt.NDArray[np.uint64]], key: tuple[str, str], pairs: list[Pair]
    ) -> None:
        self._bounds[key] = self._next, self._next + len(pairs)
        parts.append(np.array(pairs, np.uint64).reshape(-1, 2))

    @property
    def _next(self) -> int:
        return max((stop for _, stop in self._bounds.values()), default=0)

    def _of_others(self, left: Iterable[Left]) -> Iterator[Pair]:
        for row, one in enumerate(left, self._next):
            # A reason that may pass has no fingerprint, but is told by its words.
            if one.size is None or not is_lasting(one.one):
                self._entries[one.one] = row
                yield NONE
            else:
                state = one.key if one.modified is None else one.modified
                yield fingerprint(one.one.path, one.size, state)

    def __len__(self) -> int:
        return len(self._seen)

    def sees(self, path: str, size: int, state: object) -> bool:
        """Return whether a file is known as it is now, and remember that it is there."""
        high, low = fingerprint(path, size, state)
        at = int(np.searchsorted(self._high, np.uint64(high)))
        if at == len(self._high) or int(self._high[at]) != high:
            return False
        row = int(self._order[at])
        if int(self._low[row]) != low:
            return False
        self._seen[row] = True
        return True

    def sees_entry(self, one: Skipped) -> bool:
        """Return whether a file or folder was left out for the same reason before."""
        row = self._entries.get(one)
        if row is None:
            return False
        self._seen[row] = True
        return True

    @property
    def seen(self) -> int:
        """Number of files that are there as they were."""
        return int(self._seen.sum())

    def kept(self) -> Mapping[tuple[str, str], npt.NDArray[np.bool_]]:
        """Return for each part, by kind and name, which of its rows were seen."""
        return {key: self._seen[start:stop] for key, (start, stop) in self._bounds.items()}


_FILE = ("path", "bytes", "modified", "key", "TransferSyntaxUID", "indexed_by")


def _of_instances(table: pa.Table, indexed: bool) -> Iterator[Pair]:
    rows = zip(*(table[name].to_pylist() for name in _FILE), strict=True)
    for path, size, modified, key, syntax, indexed_by in rows:
        if indexed and indexed_by is None and UID(syntax).is_encapsulated:
            yield NONE
        else:
            yield fingerprint(path, size, key if modified is None else modified)
