"""Marks by which a scan knows the folders that dcmdask wrote, and leaves them out."""

from __future__ import annotations

import json

# The file that the target of a job begins with.
TARGET = "dcmdask.json"
# The file that a Zarr store begins with.
STORE = "zarr.json"
MARKS = frozenset({TARGET, STORE})
# Bytes of such a file that are read; dcmdask writes none that is longer.
MOST = 2**24


def is_mark(name: str, data: bytes) -> bool:
    """Return whether a file says that its folder was written by dcmdask.

    Parameters
    ----------
    name : str
        One of `MARKS`.
    data : bytes
        The content of the file.

    Examples
    --------
    >>> is_mark("zarr.json", b'{"node_type": "group", "attributes": {"dcmdask": {}}}')
    True
    >>> is_mark("zarr.json", b'{"node_type": "group", "attributes": {}}')
    False
    """
    try:
        said = json.loads(data)
        if name == STORE:
            said = said["attributes"]
        return isinstance(said["dcmdask"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
