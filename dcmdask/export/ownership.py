"""Whether a file was written by dcmdask: the one rule for all that removes or replaces.

Nothing is removed that a mark or a record of the target does not list by name.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator

from dcmdask.errors import StoreExistsError


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the path of each file below a local folder, relative to it, with ``/`` between.

    Symbolic links are files here, whatever they lead to: none is followed.
    """
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(os.path.join(folder, above)) as entries:
            for entry in entries:
                path = f"{above}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                else:
                    yield path


def check_ours(where: str, there: Iterable[str], written: Container[str]) -> None:
    """Refuse to replace or remove files that were not written by dcmdask.

    Parameters
    ----------
    where : str
        The path or URL of the folder that they lie in.
    there : iterable of str
        Their paths relative to the folder.
    written : container of str
        Those that a mark or a record lists as written by dcmdask.

    Raises
    ------
    StoreExistsError
        One of them is not listed.
    """
    for path in there:
        if path not in written:
            raise StoreExistsError(
                f"{where.rstrip('/')}/{path} stands in the way: dcmdask did not write it, and "
                "replaces and removes only what it wrote; move it, or take another target"
            )
