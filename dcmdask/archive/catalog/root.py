"""The root of a catalog: the folder or URL that it is of, and the files below it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dcmdask.archive.catalog.parts import Mark, understood
from dcmdask.archive.catalog.rows import described
from dcmdask.archive.discovery import is_url, sources
from dcmdask.archive.remote import url_of
from dcmdask.dicom.description import Described
from dcmdask.errors import DcmdaskError
from dcmdask.sources import files
from dcmdask.sources.access import file_system, reaching
from dcmdask.sources.dicomweb import is_dicomweb
from dcmdask.sources.folder import Folder


def source_and_root(src: Any, storage_options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the absolute path or the URL of a folder, as it is listed and as names begin."""
    if not isinstance(src, str | os.PathLike):
        raise TypeError("a catalog is of one folder, or one URL")
    (root,) = sources(src)
    if not is_url(root) and not os.path.isdir(root):
        raise NotADirectoryError(f"{root} is no folder, and a catalog is of one")
    if "::" in root:
        raise ValueError(f"{root}: a catalog is of a folder, and not of an archive: unpack it")
    if is_dicomweb(root):
        raise ValueError(f"{root}: a DICOMweb server keeps a catalog itself, and answers a scan")
    if root.startswith(("http://", "https://")) and "?" in root:
        raise ValueError("a URL with a query may let everybody in, and a catalog would keep it")
    if not is_url(root):
        return root, root.rstrip("/")
    with reaching(root):
        _, path = file_system(root, storage_options)
    # The names that are listed may begin with a slash if paths do.
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


def instances_of(
    folder: Folder,
    mark: Mark,
    storage_options: Mapping[str, Any],
    table: pa.Table,
    *,
    with_index: bool = True,
) -> list[Described]:
    """Return what rows of a catalog describe.

    Raises
    ------
    CatalogError
        A row says what cannot be.
    """

    def source(row: Mapping[str, Any]) -> files.Stored:
        path, size = row["path"], row["bytes"]
        if leads_out(path):
            raise ValueError(f"the path {path!r} leads out of the root")
        name = absolute(mark.root, path)
        if "://" in mark.root:
            return files.RemoteFile(
                name, storage_options, size, row["key"] or "", row["etag"] or ""
            )
        return files.LocalFile(name, size, row["modified"])

    def read() -> list[Described]:
        try:
            options = tuple(sorted(mark.options.items()))
            return described(table, source, options, with_index=with_index)
        except DcmdaskError as error:
            raise ValueError(error.message) from error

    found: list[Described] = understood(folder.url, read)
    return found
