"""Discovery of local files: folders and patterns, listed while they are read."""

from __future__ import annotations

import glob
import heapq
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from functools import partial
from itertools import takewhile
from typing import Any, Literal, NamedTuple, TypeAlias

from dcmdask.archive.containers.media import listed_in, medium_of
from dcmdask.errors import DcmdaskError

# Rests of a pattern below a folder, one for each way that leads there.
Tails: TypeAlias = "frozenset[tuple[str, ...]]"

_EVERYTHING: Tails = frozenset({("**",)})
_OTHER_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# The key of what dcmdask says of a folder: in the mark of a job's target, and among the
# attributes of a Zarr group.
MARK_KEY = "dcmdask"
# The first file of the target of a job.
JOB_MARK = "dcmdask.json"
# The first file of a Zarr 3 group or array.
GROUP = "zarr.json"
# The first file of a Zarr 2 group.
ATTRIBUTES = ".zattrs"
# The file of a catalog that says which of its parts count.
CATALOG_MARK = "catalog.json"
MARKS = frozenset({JOB_MARK, GROUP, ATTRIBUTES, CATALOG_MARK})
# Bytes of such a file that are read; dcmdask writes none that is longer.
MOST = 2**24

Kind: TypeAlias = Literal["not DICOM", "no pixel data", "copy", "doubtful"]


class Skipped(NamedTuple):
    """A file or folder that a scan left out.

    Attributes
    ----------
    path : str
    reason : str
        Reason in words, without values of the file's text elements.
    kind : {"not DICOM", "no pixel data", "copy", "doubtful"}
        ``"not DICOM"`` is also given for what cannot be a DICOM file: empty files, pipes,
        sockets, devices, links to folders, folders that dcmdask wrote. ``"no pixel data"``
        stands for reports, plans and the like, ``"copy"`` for another file of an instance.
        Entries that are ``"doubtful"`` may be part of a series: files that are damaged,
        unreadable or gone, and links that lead nowhere.
    code : str
        Stable name of the reason: that of an error has its :attr:`DcmdaskError.code`.
    """

    path: str
    reason: str
    kind: Kind
    code: str


def empty(path: str) -> Skipped:
    """Return the entry of an empty file."""
    return Skipped(path, "an empty file", "not DICOM", "empty")


def folder_of(source: str) -> str:
    """Return the folder of a file, by its path or URL."""
    return source.replace(os.sep, "/").rpartition("/")[0]


def common_folder(folders: Iterable[str]) -> str:
    """Return the folder that holds all of some folders; empty if there is none."""
    parts = sorted(folder.split("/") for folder in {*folders}) or [[]]
    both = zip(parts[0], parts[-1], strict=False)
    return "/".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both))


def may_be_lost(one: Skipped) -> bool:
    """Return whether a series may lack it; an empty file may be a copy that failed."""
    return one.kind == "doubtful" or one.code == "empty"


def sources(src: Any) -> list[str]:
    """Return absolute local paths and patterns, and URLs; of archives those of all their members.

    Parameters
    ----------
    src : str, path-like, or iterable of these

    Raises
    ------
    FileNotFoundError
        A local path is not there, nor a pattern.
    """
    many = [src] if isinstance(src, str | bytes | os.PathLike) else src
    found = [absolute_source(one) for one in many]
    for one in found:
        if not is_url(one) and not _is_pattern(one):
            os.stat(one)
    return list(map(_of_archive, found))


def _of_archive(source: str) -> str:
    if is_url(source) or (kind := medium_of(source)) not in ("zip", "tar"):
        return source
    if "::" in source:
        raise ValueError(f"{source}: the name of an archive cannot have '::' in it")
    return f"{kind}://**::{source}"


def is_url(source: str) -> bool:
    """Return whether fsspec is to reach it; an absolute path has no two slashes in a row."""
    return "://" in source


def is_catalog(source: str) -> bool:
    """Return whether a source is a catalog, one behind a URL by its name."""
    if is_url(source):
        return source.rstrip("/").endswith(".catalog")
    return os.path.isfile(os.path.join(source, CATALOG_MARK))


def local_path(one: str | os.PathLike[str]) -> str:
    """Return the absolute path of a local file or pattern; ``~`` is the home of the user."""
    return os.path.abspath(os.path.expanduser(os.fsdecode(one)))


def absolute_source(one: Any) -> str:
    """Return a URL as it is, and anything else as an absolute local path."""
    if isinstance(one, bytes):
        raise TypeError("a scan takes paths, patterns and URLs, and not the bytes of a file")
    if one == "":
        # Often a variable of a shell that is not set; it would stand for the current folder.
        raise ValueError("a source is an empty string; '.' is the current folder")
    if not isinstance(one, str) or "://" not in one:
        return local_path(one)
    if one.startswith(("file://", "local://")) and "::" not in one:
        import fsspec

        return os.path.abspath(str(fsspec.core.url_to_fs(one)[1]))
    return one


class Choice(NamedTuple):
    """Choice of what is scanned.

    Attributes
    ----------
    exclude : tuple of str
        Patterns of :mod:`fnmatch` for what is left out: with a slash of the path below the
        source, otherwise of the name of a file or folder.
    follow_links : bool
        Whether links to folders are followed; local ones only.
    """

    exclude: tuple[str, ...] = ()
    follow_links: bool = False

    def leaves_out(self, path: str) -> bool:
        """Return whether a file or folder is left out, by its path below the source."""
        if not self.exclude:
            return False
        path = path.replace(os.sep, "/")
        name = path.rpartition("/")[2]
        return any(fnmatch(path if "/" in one else name, one) for one in self.exclude)


def choice(exclude: Iterable[str] | str, follow_links: bool) -> Choice:
    """Return what :func:`dcmdask.scan` was asked for."""
    patterns = (exclude,) if isinstance(exclude, str) else exclude
    return Choice(tuple(one.rstrip("/") for one in patterns), follow_links)


def discover(source: str, chosen: Choice) -> Iterator[str | Skipped]:
    """Yield the files of a local source, each once, in no order that means anything.

    Folders below the source that dcmdask wrote are left out.

    Raises
    ------
    FileNotFoundError
        There is nothing under this name, or nothing that matches the pattern.
    """
    if _is_pattern(source):
        yield from _matching(source, chosen)
    elif os.path.isdir(source):
        yield from _walk(source, _EVERYTHING, chosen)
    else:
        yield _file_or_reason(source)


def discover_listed(directory: str) -> Iterator[str | Skipped]:
    """Yield the files that a DICOMDIR lists."""
    try:
        yield from map(_listed_or_reason, listed_in(directory))
    except DcmdaskError as error:
        yield Skipped(directory, error.message, "doubtful", error.code)


def is_readable_mark(name: str, read: Callable[[], bytes]) -> bool:
    """Return whether `read` gives a mark of dcmdask's, and does not fail."""
    try:
        return is_mark(name, read())
    except Exception:
        # A damaged archive raises more than OSError; whatever it is, it is no mark.
        return False


def written_by_us(folder: str) -> Skipped:
    """Return what is said of a folder that dcmdask wrote."""
    return Skipped(folder, "written by dcmdask, and not scanned", "not DICOM", "written")


# Local files


def _is_pattern(path: str) -> bool:
    # A file may be called "a[1].dcm".
    return glob.has_magic(path) and not os.path.lexists(path)


def _matching(pattern: str, chosen: Choice) -> Iterator[str | Skipped]:
    """Yield what a pattern names, and all that is below the folders that it names.

    ``**`` stands for any number of folders. Unlike :func:`glob.iglob` this follows no
    symbolic links unless asked to, includes hidden files and does not hide what cannot be
    read.
    """
    parts = pattern.split(os.sep)
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    folder = os.sep.join(parts[:fixed]) + os.sep
    tails: Tails = frozenset({tuple(parts[fixed:])})

    def found(chosen: Choice) -> Iterator[str | Skipped]:
        return _walk(folder, tails, chosen) if os.path.isdir(folder) else iter(())

    is_empty = True
    for one in found(chosen):
        is_empty = False
        yield one
    # A file that is excluded matches, too.
    if is_empty and next(found(chosen._replace(exclude=())), None) is None:
        raise FileNotFoundError(f"nothing matches {pattern}")


def _walk(root: str, tails: Tails, chosen: Choice) -> Iterator[str | Skipped]:
    """Yield the files below a folder that match; links that are not followed are named."""
    waiting, links = [(root, tails)], list[tuple[str, Tails]]()
    reached = set[tuple[int, int, Tails]]()
    start = len(os.path.join(root, ""))
    while waiting or links:
        # Links come last, by name: what can be reached without one keeps its own path.
        folder, tails = waiting.pop() if waiting else heapq.heappop(links)
        try:
            if chosen.follow_links:
                status = os.stat(folder)
                if (place := (status.st_dev, status.st_ino, tails)) in reached:
                    yield Skipped(
                        folder, "a folder that is scanned by another path", "not DICOM", "scanned"
                    )
                    continue
                reached.add(place)
            with os.scandir(folder) as listing:
                entries = list(listing)
            if folder != root and any(map(_is_marked, entries)):
                yield written_by_us(folder)
                continue
            for entry in entries:
                if not (below := _step(tails, entry.name)):
                    continue
                if chosen.leaves_out(entry.path[start:]):
                    continue
                under = entry.path, _EVERYTHING if () in below else below
                if _is_folder(entry):
                    waiting.append(under)
                elif chosen.follow_links and _is_odd(entry) and os.path.isdir(entry.path):
                    heapq.heappush(links, under)
                elif () in below:
                    yield _file_or_reason(entry.path) if _is_odd(entry) else entry.path
        except OSError as error:
            yield Skipped(
                folder,
                f"a folder that cannot be read: {error.strerror or error}",
                "doubtful",
                "folder",
            )


def _is_marked(entry: os.DirEntry[str]) -> bool:
    return (
        entry.name in MARKS
        and entry.is_file()
        and is_readable_mark(entry.name, partial(_beginning, entry.path))
    )


def _beginning(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MOST)


def _step(tails: Tails, name: str) -> Tails:
    """Return what of the pattern is left below `name`; with () among it, `name` matches."""
    if tails is _EVERYTHING:
        return _ANYTHING
    return frozenset(left for tail in tails for left in _left(tail, name))


_ANYTHING: Tails = frozenset({("**",), ()})


def matches(pattern: str, path: str) -> bool:
    """Return whether a pattern names a path with slashes, or a folder that it lies in.

    Examples
    --------
    >>> matches("a*/b", "a1/b/c"), matches("**/c", "c"), matches("*/*.dcm", "a.dcm")
    (True, True, False)
    """
    tails: Tails = frozenset({tuple(pattern.split("/"))})
    for part in path.split("/"):
        tails = _step(tails, part)
        if () in tails:
            return True
    return False


def _left(tail: tuple[str, ...], name: str) -> Iterator[tuple[str, ...]]:
    if tail[0] == "**":
        yield tail
        if len(tail) == 1:
            yield ()
        else:
            yield from _left(tail[1:], name)
    elif fnmatch(name, tail[0]):
        yield tail[1:]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A junction of Windows leads elsewhere, like a link; Python tells from 3.12 on.
    junction = getattr(entry, "is_junction", bool)
    return entry.is_dir(follow_symlinks=False) and not junction()


def _is_odd(entry: os.DirEntry[str]) -> bool:
    """Return whether it has to be looked at closely; a plain file costs no system call."""
    return not entry.is_file(follow_symlinks=False)


def _file_or_reason(path: str) -> str | Skipped:
    """Return `path` if it is a file, also behind a link, otherwise why it is skipped."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            return Skipped(path, "a symbolic link that leads nowhere", "doubtful", "link")
        return unreadable(path, error)
    if stat.S_ISREG(mode):
        return path
    if stat.S_ISDIR(mode):
        return Skipped(path, "a link to a folder, which is not followed", "not DICOM", "link")
    what = _OTHER_FILES.get(stat.S_IFMT(mode), "something")
    return Skipped(path, f"{what} that is not a file", "not DICOM", "no file")


def _listed_or_reason(path: str) -> str | Skipped:
    if os.path.lexists(path):
        return _file_or_reason(path)
    return Skipped(path, "the DICOMDIR lists it, and it is not there", "doubtful", "vanished")


def unreadable(path: str, error: OSError) -> Skipped:
    """Return the entry of a file that cannot be read; the reason does not repeat its name."""
    if isinstance(error, FileNotFoundError):
        return Skipped(path, "it vanished after it was listed", "doubtful", "vanished")
    words = error.strerror or type(error).__name__
    return Skipped(path, f"it cannot be read: {words}", "doubtful", "unreadable")


# Folders that dcmdask wrote


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
        if name == GROUP:
            said = said["attributes"]
        return isinstance(said[MARK_KEY], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
