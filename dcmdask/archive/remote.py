"""Discovery of remote files, on any file system that fsspec reaches."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from dcmdask.archive.discovery import MARKS, MOST, Choice, Skipped, is_readable_mark, written_by_us
from dcmdask.sources import files
from dcmdask.sources.access import file_system, reaching
from dcmdask.sources.ranges import is_http


def discover(
    url: str, storage_options: Mapping[str, Any], chosen: Choice
) -> Iterator[str | files.RemoteFile | Skipped]:
    """Yield the files of a URL, each once; located, where the listing tells their size.

    Folders below it that dcmdask wrote are left out.

    Raises
    ------
    FileNotFoundError
        There is nothing under this name, or nothing that matches the pattern.
    """
    with reaching(url):
        fs, path = file_system(url, storage_options)
        # It may remember a listing of before.
        fs.invalidate_cache()
        found: dict[str, Mapping[str, Any]] = {}

        def find(fs: Any, path: str, is_pattern: bool) -> Iterable[str]:
            found.update(_find(fs, path, is_pattern))
            return found

        for one in members(fs, url, path, chosen, find):
            if isinstance(one, Skipped):
                yield one
                continue
            name, info = url_of(url, path, one), found[one]
            # A web server lists names only, and may not give ranges.
            is_located = info.get("size") is not None and not is_http(fs)
            yield files.remote_file(name, storage_options, fs, one, info) if is_located else name


def _find(fs: Any, path: str, is_pattern: bool) -> dict[str, Mapping[str, Any]]:
    """Return the files below a folder or those that match a pattern, with what is known of them."""
    found = fs.glob(path, detail=True) if is_pattern else {path: fs.info(path)}
    below: dict[str, Mapping[str, Any]] = {}
    for name, info in found.items():
        # A web server has pages of links, which are files.
        is_page = is_http(fs) and name.endswith("/")
        is_folder = is_page or info.get("type") == "directory"
        below.update(fs.find(name, detail=True) if is_folder else {name: info})
    # Consoles of object stores make folders of empty objects.
    return {
        name: info
        for name, info in below.items()
        if not (name.endswith("/") and info.get("size") == 0)
    }


def members(
    fs: Any,
    url: str,
    path: str,
    chosen: Choice,
    find: Callable[[Any, str, bool], Iterable[str]],
) -> Iterator[str | Skipped]:
    """Yield the paths of files in a file system.

    Parameters
    ----------
    fs : fsspec file system
    url, path : str
        Where to look, and its path in `fs`.
    chosen : Choice
    find : callable
        Takes `fs`, `path` and whether that is a pattern; gives the files.
    """
    is_pattern = glob.has_magic(path) and not fs.exists(path)
    paths = list(dict.fromkeys(find(fs, path, is_pattern)))
    root = path.rstrip("/")
    if is_pattern:
        if not paths:
            raise FileNotFoundError(f"nothing matches {url}")
        parts = path.split("/")
        root = "/".join(parts[: next(i for i, one in enumerate(parts) if glob.has_magic(one))])

    def is_left_out(path: str) -> bool:
        return bool(chosen.exclude) and any(map(chosen.leaves_out, _paths(root, path)))

    marks = (one for one in paths if one.rpartition("/")[2] in MARKS)
    marks = (one for one in marks if not is_left_out(one.rpartition("/")[0]))
    written = _written_below(fs, root, marks)
    yield from (written_by_us(url_of(url, path, folder)) for folder in written)
    for one in paths:
        if is_left_out(one) or not written.isdisjoint(_folders(one)):
            continue
        if "::" in one or ("://" in one and "://" not in path):
            # Inside an archive: as a URL it would lead out of it.
            yield Skipped(one, "a name that cannot be part of a URL", "doubtful", "name")
        else:
            yield one


def _written_below(fs: Any, root: str, marks: Iterable[str]) -> set[str]:
    """Return the folders below `root` that dcmdask wrote, without those inside one."""
    written: set[str] = set()
    for mark in sorted(marks, key=lambda one: one.count("/")):
        folder, _, name = mark.rpartition("/")
        if folder.strip("/") == root.strip("/") or not written.isdisjoint(_folders(mark)):
            continue
        if is_readable_mark(name, partial(fs.cat_file, mark, 0, MOST)):
            written.add(folder)
    return written


def _folders(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _paths(root: str, path: str) -> Iterator[str]:
    """Yield the path below `root`, and those of the folders that it lies in; none of `root`."""
    if below := path.strip("/").removeprefix(root.strip("/")).strip("/"):
        yield below
        yield from _folders(below)


def url_of(url: str, path: str, member: str) -> str:
    """Return the URL of `member`, which was found where `path` of `url` leads.

    Examples
    --------
    >>> url_of("zip://**::s3://bucket/a.zip", "**", "b/c.dcm")
    'zip://b/c.dcm::s3://bucket/a.zip'
    >>> url_of("sftp://host/data/", "/data", "/data/c.dcm")
    'sftp://host/data/c.dcm'
    """
    parts = url.split("::")
    # In "simplecache::s3://bucket" the path belongs to the second part.
    at = next(i for i, part in enumerate(parts) if "://" in part)
    protocol, _, rest = parts[at].partition("://")
    if "://" in path:
        parts[at] = member
    elif path and rest.rstrip("/").endswith(path):
        # Some file systems leave the host out of their paths.
        parts[at] = f"{protocol}://{rest.rstrip('/').removesuffix(path)}{member}"
    else:
        parts[at] = f"{protocol}://{member}"
    return "::".join(parts)
