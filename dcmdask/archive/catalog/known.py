"""What a catalog knows of an archive already: 25 bytes for each file, whatever its path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from dcmdask.archive.catalog.parts import INSTANCES, SKIPPED, read_part, read_skipped
from dcmdask.archive.discovery import Skipped
from dcmdask.sources.folder import Folder

Pair = tuple[int, int]


def fingerprint(path: str, size: int, state: object) -> Pair:
    """Return two 64-bit numbers that stand for a file as it is: path, size, and time or tag."""
    # A local name may be anything.
    told = f"{path}\0{size}\0{state}".encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(told, digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


class Known:
    """The files of a catalog, each of which is seen again or not.

    Parameters
    ----------
    folder : Folder
    instances, skipped : sequence of str
        Names of its parts.
    """

    def __init__(self, folder: Folder, instances: Iterable[str], skipped: Iterable[str]) -> None:
        pairs: list[Pair] = []
        # First row of each part, by kind and name.
        self._bounds: dict[tuple[str, str], tuple[int, int]] = {}
        self._entries: dict[Skipped, int] = {}
        for name in instances:
            start, table = len(pairs), read_part(folder, INSTANCES, name, _FILE)
            pairs += (fingerprint(*row) for row in zip(*_columns(table), strict=True))
            self._bounds[INSTANCES, name] = start, len(pairs)
        for name in skipped:
            start = len(pairs)
            for left in read_skipped(folder, name):
                # What may be otherwise next time has no fingerprint, but is told by its words.
                if left.size is None or left.one.kind == "doubtful":
                    self._entries[left.one] = len(pairs)
                    pairs.append((0, 0))
                else:
                    state = left.key if left.modified is None else left.modified
                    pairs.append(fingerprint(left.one.path, left.size, state))
            self._bounds[SKIPPED, name] = start, len(pairs)
        table = np.array(pairs, np.uint64).reshape(-1, 2)
        self._order = np.argsort(table[:, 0], kind="stable")
        self._high, self._low = table[self._order, 0], table[:, 1]
        self._seen = np.zeros(len(pairs), bool)

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


_FILE = ("path", "bytes", "modified", "key")


def _columns(table: object) -> Iterable[list[object]]:
    path, size, modified, key = (table[name].to_pylist() for name in _FILE)  # type: ignore[index]
    state = [b if a is None else a for a, b in zip(modified, key, strict=True)]
    return path, size, state
