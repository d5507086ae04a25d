"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give the name to write a file under, and put it in its place when the body ends.

    An earlier file stays where the body fails. Devices and pipes are written to, and of a link
    the target is replaced.

    Yields
    ------
    str
        It ends as `path` does, since the suffix tells some writers the format.
    """
    target = os.path.realpath(os.fsdecode(path))
    if os.path.exists(target) and not os.path.isfile(target):
        # To replace a device or a pipe would destroy it.
        yield target
        return
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
    beside = os.path.join(folder, f".partial-{uuid4().hex}-{name}")
    try:
        yield beside
        os.replace(beside, target)
    except BaseException as error:
        with suppress(OSError):
            os.remove(beside)
        if isinstance(error, OSError) and error.filename == beside:
            # Nobody knows the other name.
            error.filename = os.fsdecode(path)
        raise
