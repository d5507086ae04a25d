"""Remote files as their servers describe them now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcmdask.sources import files
from dcmdask.sources.access import content_key, file_system, reaching
from dcmdask.sources.ranges import information


def listed(url: str, options: Mapping[str, Any]) -> files.RemoteFile | None:
    """Return a file as its server describes it, unread; None where it tells no size."""
    with reaching(url):
        fs, path = file_system(url, options)
        info = information(fs, path)
        return None if info.get("size") is None else files.remote_file(url, options, fs, path, info)


def check_unchanged(source: files.Source) -> None:
    """Check that a remote file is still the one that was located; local ones are when read.

    Raises
    ------
    SourceChangedError
        Its size, or its entity tag, checksum or modification time is another one.
    """
    # With an entity tag of a web server's, each read is conditional.
    if not isinstance(source, files.RemoteFile) or source.etag:
        return
    with reaching(source.name):
        fs, path = file_system(source.name, source.options)
        fs.invalidate_cache(path)
        info = information(fs, path)
        found = (info.get("size"), content_key(fs, path, info))
    if found != (source.size, source.key):
        raise files.changed(source, found[0])
