"""Contents of sources that are read as a whole: the last few, which this process holds."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

# Newest last. Few: they are whole files.
_HELD: OrderedDict[tuple[object, ...], bytes | bytearray] = OrderedDict()
_MOST = 4
_LOCK = threading.RLock()


def _renew_lock() -> None:
    """Make a new lock in a forked process: a thread of the parent may hold the old one."""
    global _LOCK  # noqa: PLW0603  readers look the name up
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def held(
    token: tuple[object, ...], make: Callable[[], bytes | bytearray], limit: int
) -> memoryview:
    """Return the content of a source, which is made if it is not there.

    Parameters
    ----------
    token : tuple
        Identity of the content.
    make : callable
        Called by one thread at a time; it may ask for another content.
    limit : int
        Bytes that all contents together may take, unless one has more.
    """
    # One lock for all: two threads must not inflate the same file twice.
    with _LOCK:
        if token in _HELD:
            _HELD.move_to_end(token)
            return memoryview(_HELD[token])
        return keep(token, make(), limit)


def keep(token: tuple[object, ...], data: bytes | bytearray, limit: int) -> memoryview:
    """Hold the content of a source, for who asks for it soon."""
    with _LOCK:
        _HELD[token] = data
        while len(_HELD) > 1 and (len(_HELD) > _MOST or sum(map(len, _HELD.values())) > limit):
            _HELD.popitem(last=False)
        return memoryview(data)
