"""Outputs that a job writes itself, and the mark of a target, which lists those of `finish`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from dcmdask import __version__
from dcmdask.archive.discovery import JOB_MARK, MARK_KEY, is_mark
from dcmdask.batch.records import RECORDS
from dcmdask.batch.staging import Staging
from dcmdask.errors import StoreExistsError
from dcmdask.sources.folder import Folder
from dcmdask.store.target.ownership import check_links, check_ours

# The extension tells files that are written from results that are returned.
_FILE = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
# A mark that was not finished when its process was killed.
_BEGUN = re.compile(rf"\.{re.escape(JOB_MARK)}\.[0-9a-f]{{32}}\.partial")


def claim(folder: Folder, names: list[str]) -> None:
    """Make a folder a target, or add files that are going to be written to those of its mark.

    A folder without a mark has to be empty, and a file to be one that dcmdask wrote, and no link.
    """
    check_links(folder, [JOB_MARK, RECORDS, *names])
    # Before the mark is read: another driver may be making this folder a target, too.
    there = sorted(folder.names(""))
    listed = _listed(folder)
    if listed is None:
        # From now on a scan leaves the whole folder out.
        for one in there:
            if not _BEGUN.fullmatch(one):
                raise StoreExistsError(
                    f"{folder.path(one)} stands in the way: a folder that dcmdask did not make "
                    "becomes a target only while it is empty; take a new or an empty folder",
                    code="not-empty",
                )
        listed = []
    elif set(names) <= set(listed):
        return
    check_ours(folder.url, (one for one in there if one in names), listed)
    files = sorted({*listed, *names})
    said = {MARK_KEY: {"version": __version__, "files": files, "folders": [RECORDS]}}
    folder.write(JOB_MARK, json.dumps(said, indent=1).encode())


def _listed(folder: Folder) -> list[str] | None:
    """Return the files that the mark of a folder lists; None where there is no mark."""
    data = folder.read([JOB_MARK]).get(JOB_MARK)
    if data is None:
        return None
    if not is_mark(JOB_MARK, data):
        raise StoreExistsError(
            f"{folder.path(JOB_MARK)} stands in the way: it is not the mark of a target of dcmdask",
            code="no-mark",
        )
    names = json.loads(data)[MARK_KEY].get("files")
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise StoreExistsError(
            f"{folder.path(JOB_MARK)} is damaged: it lists no files", code="damaged-mark"
        )
    return names


@dataclass
class Shared:
    """Outputs of `finish`: files beside the table of results, listed in the mark."""

    folder: Folder

    def output(self, name: str) -> str:
        """Return the path or URL for a file of `finish`."""
        claim(self.folder, [name])
        return self.folder.path(name)


_in_use: ContextVar[Staging | Shared] = ContextVar("outputs_in_use")


@contextmanager
def in_use(outputs: Staging | Shared) -> Iterator[None]:
    """Let `output` name files of these in the body."""
    token = _in_use.set(outputs)
    try:
        yield
    finally:
        _in_use.reset(token)


def output(name: str) -> str:
    """Return the path or URL for an output that `process` writes itself, below the target.

    For results that are better not returned, such as a store that another function writes or
    resumes. They go into the record of the series, and are put in place with the other results,
    once all of them are whole. Files that an earlier try began are still there, if it was one of
    the same job with the same options and files. In `finish`, the path of a file beside the table
    of results, which the next run writes again.

    Parameters
    ----------
    name : str
        Name of a file or a folder, with an extension; letters, digits, ``_`` and ``-``.

    Raises
    ------
    RuntimeError
        No series is being processed here; neither is one inside a task of Dask.
    StoreExistsError
        In `finish`: the file was not written by dcmdask.
    ValueError
        The name is not valid.

    Examples
    --------
    >>> def process(series):
    ...     dcmdask.to_zarr(series, batch.output("pixels.zarr"), resume=True)
    """
    if not _FILE.fullmatch(name):
        raise ValueError(f"{name!r} cannot name an output: letters, digits, _ and -, and a '.ext'")
    return _outputs().output(name)


def target_options() -> dict[str, Any]:
    """Return the options of the file system of paths from :func:`output`.

    Keyword arguments for fsspec, where the target is a URL and options were given for it.

    Raises
    ------
    RuntimeError
        As :func:`output` does.

    Examples
    --------
    >>> def process(series):
    ...     with fsspec.open(batch.output("a.bin"), "wb", **batch.target_options()) as file:
    ...         file.write(b"...")
    """
    return dict(_outputs().folder.options or {})


def _outputs() -> Staging | Shared:
    outputs = _in_use.get(None)
    if outputs is None:
        raise RuntimeError(
            "batch.output is for the function that batch.run calls with a series, and for finish; "
            "not for tasks of its arrays"
        )
    return outputs
