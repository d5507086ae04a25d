"""Folders that are written to, local or on an object store: whole objects, and leases on them."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import fsspec
from filelock import FileLock, Timeout

from dcmdask.sources import files
from dcmdask.sources.access import TARGET_OPTION, refuse_password

# Errors of a path at which no file can be.
NO_OBJECT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
# Requests to a server at once.
_REQUESTS = 16


class Folder(NamedTuple):
    """A folder of a file system of fsspec; picklable.

    `url` is an absolute local path, or a URL with `options` for its file system. The key of an
    object is its path below it.
    """

    url: str
    options: dict[str, Any] | None = None

    @classmethod
    def of(cls, target: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Folder:
        """Return the folder `target`, made absolute where it is a local path."""
        name = os.fspath(target)
        if not name:
            raise ValueError("the target has no name")
        if "://" in name:
            refuse_password(name, TARGET_OPTION)
            fs, root = fsspec.core.url_to_fs(name, **(options or {}))
            if not files.is_local(fs):
                return cls(name.rstrip("/"), dict(options) if options else None)
            name = root
        if options:
            raise ValueError(f"target_options are for URLs, and {name!r} is a local path")
        return cls(os.path.abspath(os.path.expanduser(name)))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.url

    def path(self, key: str) -> str:
        """Return the path or URL of an object."""
        return f"{self.url}/{key}"

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whole: a failure leaves the earlier one."""
        fs, root = self._open()
        if not self.is_local:
            fs.pipe_file(f"{root}/{key}", data)
            return
        path = Path(root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                # Otherwise a power cut may leave a name without the bytes.
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the objects of these keys that exist, read all at once where that is quicker.

        One that is there and cannot be read is an OSError.
        """
        fs, root = self._open()
        wanted = {f"{root}/{key}": key for key in keys}
        if self.is_local:
            found = {}
            for path, key in wanted.items():
                try:
                    # A pipe would block.
                    if stat.S_ISREG(os.stat(path).st_mode):
                        found[key] = Path(path).read_bytes()
                except OSError as error:
                    if error.errno not in NO_OBJECT:
                        raise
            return found
        # Not `cat`, which takes brackets for a pattern.
        contents = fs.cat_ranges(list(wanted), None, None, on_error="return")
        for content in contents:
            # Unreadable is not absent.
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        return {
            key: content
            for key, content in zip(wanted.values(), contents, strict=True)
            if isinstance(content, bytes)
        }

    def is_link(self, key: str) -> bool:
        """Return whether a path in the folder is a symbolic link."""
        return self.is_local and os.path.islink(self.path(key))

    def names(self, below: str) -> list[str]:
        """Return the names of files and folders in the folder `below`; none if it is absent."""
        fs, root = self._open()
        fs.invalidate_cache()
        try:
            if self.is_local:
                # Broken links are listed, too.
                return os.listdir(f"{root}/{below}")
            found = (path.rpartition("/")[2] for path in fs.ls(f"{root}/{below}", detail=False))
            # Without the object that some programs make for the folder itself.
            return [name for name in found if name]
        except FileNotFoundError:
            return []

    def files(self, below: str) -> set[str]:
        """Return the paths of all files below a folder, relative to it; links are files."""
        fs, root = self._open()
        if self.is_local:
            with suppress(FileNotFoundError, NotADirectoryError):
                return set(files_below(Path(root, below)))
            return set()
        fs.invalidate_cache()
        prefix = f"{root}/{below}/"
        return {path[len(prefix) :] for path in fs.find(prefix)}

    def make(self, below: str) -> None:
        """Make a folder; an object store has none."""
        if self.is_local:
            os.makedirs(self.path(below), exist_ok=True)

    def move(self, source: str, target: str, names: Iterable[str]) -> None:
        """Move files from one folder to another, each whole, replacing those that are there.

        A file that is no longer in the first and is in the second was moved before. On an object
        store they are copied, and stay in the first.
        """
        fs, root = self._open()

        def one(name: str) -> None:
            was, now = f"{root}/{source}/{name}", f"{root}/{target}/{name}"
            try:
                if self.is_local:
                    os.makedirs(os.path.dirname(now), exist_ok=True)
                    os.replace(was, now)
                else:
                    _copy(fs, was, now)
            except FileNotFoundError:
                # It was moved since the folder was listed.
                fs.invalidate_cache()
                if not fs.exists(now):
                    raise

        self._each(one, names)

    def prune(self, below: str) -> None:
        """Remove a folder without files, with the folders in it."""
        if self.is_local and not os.path.islink(self.path(below)):
            for above, _, _ in os.walk(self.path(below), topdown=False):
                with suppress(OSError):
                    os.rmdir(above)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files that are there, and the folders that this leaves empty.

        On an object store several at once, in no order.
        """
        fs, root = self._open()

        def one(key: str) -> None:
            if not self.is_local:
                with suppress(FileNotFoundError):
                    # Not `rm`, which takes brackets for a pattern.
                    fs.rm_file(f"{root}/{key}")
                return
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(f"{root}/{key}")
            with suppress(OSError):
                # Up to the first that is not empty, and never the target itself.
                for above in list(PurePath(key).parents)[:-1]:
                    os.rmdir(f"{root}/{above}")

        self._each(one, keys)

    @contextmanager
    def lease(self, key: str) -> Iterator[bool]:
        """Hold a key, such as that of a record, for this process alone; False where another has it.

        On a file system this is a lock on a file beside the key, which all machines see. It ends
        with the process that holds it, however that ends: a lease needs no expiry or renewal, and
        whoever comes next need not wait. An object store has no locks: everybody gets the lease.
        There, two workers with the same job and files write the same objects, in an order that is
        safe for both; two versions of a job are told apart only by the record, just before outputs
        are put in place.
        """
        if not self.is_local:
            yield True
            return
        path = Path(self.url, key)
        with locked(path.with_name(f".{path.stem}.lock")) as held:
            yield held

    def _each(self, call: Callable[[str], None], keys: Iterable[str]) -> None:
        """Call a function with each key: one by one, or as many at once as a server takes."""
        with ThreadPoolExecutor(1 if self.is_local else _REQUESTS) as pool:
            list(pool.map(call, keys))

    def _open(self) -> tuple[Any, str]:
        if self.is_local:
            # The name may hold characters of URLs.
            return fsspec.filesystem("file"), self.url
        fs, root = fsspec.core.url_to_fs(self.url, **(self.options or {}))
        return fs, str(root)


def _copy(fs: Any, was: str, now: str) -> None:
    try:
        fs.cp_file(was, now)
    except NotImplementedError:
        # FTP and SSH, for example, have no copy on the server.
        fs.pipe_file(now, fs.cat_file(was))


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock on a file, which ends with this process; False where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # While it is held, so that it is nobody else's. Windows removes no open file.
        with suppress(OSError):
            path.unlink()
        lock.release()


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the path of each file or symbolic link below a local folder, relative to it."""
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
