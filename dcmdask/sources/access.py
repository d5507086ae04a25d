"""Access to remote file systems: errors of one line, storage options, identity of content."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dcmdask.errors import DcmdaskError, UnreachableError

# Packages that speak to servers; not all raise the exceptions that Python has for it.
_NETWORK = frozenset(
    {
        "adlfs",
        "aiobotocore",
        "aiohttp",
        "azure",
        "botocore",
        "gcsfs",
        "google",
        "requests",
        "urllib3",
    }
)
_CREDENTIALS = (
    "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile that "
    "AWS_PROFILE names; {option} anon=true reads what is public"
)
_ENDPOINT = "{option} endpoint_url=http://host:port or AWS_ENDPOINT_URL names another server"
# Names of an entity tag or a checksum in the information of a file system; and, where there is
# none, of the last change.
_OF_CONTENT = frozenset({"etag", "md5", "md5hash", "content_md5", "crc", "crc32c"})
_OF_CHANGE = frozenset(
    {"mtime", "modified", "last_modified", "lastmodified", "updated", "generation", "date_time"}
)
SOURCE_OPTION = "storage_options (--storage-option)"
TARGET_OPTION = "target_options (--target-option)"


def is_of_network(error: BaseException) -> bool:
    """Return whether an error was raised by a library that speaks to servers."""
    return type(error).__module__.partition(".")[0] in _NETWORK


@contextmanager
def reaching(url: Any, option: str = SOURCE_OPTION) -> Iterator[None]:
    """Turn errors of servers in the body into errors of one line with the URL and advice.

    Parameters
    ----------
    url
        Errors are left as they are for anything but a URL.
    option : str
        The parameter that takes options for its file system.

    Raises
    ------
    UnreachableError
        The server does not answer, or lets nobody in without credentials.
    ValueError
        The file system takes no such option.
    FileNotFoundError, PermissionError
        The bucket or object is not there, or not for these credentials.
    """
    if not isinstance(url, str) or "://" not in url:
        yield
        return
    try:
        yield
    except DcmdaskError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        cause = error.__cause__
        is_of_web = type(cause).__module__.startswith("aiohttp.")
        if cause and is_of_web and getattr(cause, "status", None) not in (404, 410):
            # fsspec calls a file absent whatever a web server answers, and where none does.
            raise UnreachableError(_line(cause), source=url, code="server") from error
        if error.filename is not None or url in str(error):
            raise
        hint = _CREDENTIALS if isinstance(error, PermissionError) else _ENDPOINT
        raise type(error)(f"{url}: {_line(error)}{_advice(url, hint, option)}") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"{url}: {_line(error)}: is that one of {option}?") from error
    except Exception as error:
        if not is_of_network(error):
            raise
        hint = _CREDENTIALS if "Credential" in type(error).__name__ else _ENDPOINT
        raise UnreachableError(
            f"{_line(error)}{_advice(url, hint, option)}",
            source=url,
            code="credentials" if hint is _CREDENTIALS else "server",
        ) from error


def _advice(url: str, hint: str, option: str) -> str:
    """Return a hint about an object store; none of a web server."""
    return "" if url.startswith("http") else f": {hint.format(option=option)}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def options_of(pairs: Iterable[str]) -> dict[str, Any]:
    """Return options of the command line, ``key=value`` each, as a file system takes them.

    Values are JSON where they can be, and strings otherwise.

    Raises
    ------
    ValueError
        There is no ``=``.

    Examples
    --------
    >>> options_of(["anon=true", "endpoint_url=http://localhost:9000"])
    {'anon': True, 'endpoint_url': 'http://localhost:9000'}
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"{pair!r} is no option of a file system: key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def content_key(fs: Any, path: str, info: Mapping[str, Any]) -> str:
    """Return the entity tag, checksum or modification time that fsspec gives of a file."""
    # Not all file systems put these into their own key, and that of an archive is another one
    # each time it is opened.
    return str(_named(info, _OF_CONTENT) or _named(info, _OF_CHANGE) or fs.ukey(path))


def _named(info: Mapping[str, Any], names: Collection[str]) -> list[tuple[str, str]]:
    return sorted((key, str(value)) for key, value in info.items() if key.lower() in names)
