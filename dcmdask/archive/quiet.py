"""No warnings from threads that look into files; those of all others stay as they are."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


class _WhereQuiet(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        return getattr(_here, "quiet", False)


class _AnyWarning(Warning, metaclass=_WhereQuiet):
    """Return the base of any warning for a filter, in a thread that is quiet."""


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of this thread.

    :func:`warnings.catch_warnings` is for the whole process: it would take those of other
    threads as well, for as long as a scan takes. A filter that says nothing about them stays
    behind.
    """
    before = getattr(_here, "quiet", False)
    # Each change of the filters brings warnings back that are to be shown once.
    if not warnings.filters or warnings.filters[0][2] is not _AnyWarning:
        warnings.simplefilter("ignore", _AnyWarning)
    _here.quiet = True
    try:
        yield
    finally:
        _here.quiet = before
