"""The root of a catalog: the folder or URL that it is of, and the paths of files below it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dcmdask.archive.discovery import is_url, sources
from dcmdask.archive.remote import url_of
from dcmdask.sources.access import file_system, reaching


def source_and_root(src: Any, storage_options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the absolute path or the URL of a folder, as it is listed and as names begin."""
    if not isinstance(src, str | os.PathLike):
        raise TypeError("a catalog is of one folder, or one URL")
    (root,) = sources(src)
    if not is_url(root) and not os.path.isdir(root):
        raise NotADirectoryError(f"{root} is no folder, and a catalog is of one")
    if "::" in root:
        raise ValueError(f"{root}: a catalog is of a folder, and not of an archive: unpack it")
    if root.startswith(("http://", "https://")) and "?" in root:
        raise ValueError("a URL with a query may let everybody in, and a catalog would keep it")
    if not is_url(root):
        return root, root.rstrip("/")
    with reaching(root):
        _, path = file_system(root, storage_options)
    # Where paths begin with a slash, the names that are listed may do so as well.
    return root, without_slash(url_of(root, path, path))


def check_apart(catalog: str, source: str) -> None:
    """Refuse a catalog that scans of any folder above would leave out with its archive."""
    inner, outer = (
        one.rstrip("/") if is_url(one) else os.path.realpath(one) for one in (source, catalog)
    )
    if is_below(inner, outer):
        raise ValueError(
            f"the catalog {catalog} is or holds the folder {source} that it is of, and a scan "
            "leaves catalogs out: take another folder for it, which may lie in the source"
        )


def without_slash(root: str) -> str:
    """Return a root without the slash at its end; empty for that of all local files."""
    return root if root.endswith("://") else root.rstrip("/")


def absolute(root: str, path: str) -> str:
    """Return the name of a file by its path in a catalog; of no path, the root."""
    return f"{root}/{path}" if path else root


def without_root(text: str, root: str) -> str:
    """Return a text in which files have their paths in the catalog."""
    return text.replace(f"{root}/", "") if root else text


def leads_out(path: str) -> bool:
    """Return whether a path is none of a file below the root, or may be none."""
    return not path or path.startswith("/") or "\0" in path or ".." in path.split("/")


def is_below(path: str, folder: str) -> bool:
    """Return whether a path is a folder, or below it; all are below none."""
    return not folder or path == folder or path.startswith(f"{folder}/")
