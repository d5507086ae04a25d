"""Access to remote file systems: credentials, options, errors of one line, identity of content."""

from __future__ import annotations

import json
import re
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
# Protocols in whose URLs there may be a user and a password (RFC 3986 3.2.1).
_WEB = frozenset({"http", "https"})
_WITH_PASSWORD = _WEB | {"ftp", "s3", "sftp", "smb", "ssh", "webdav", "webhdfs"}
# User, password and query of the URL of a web server: a signed one lets everybody in.
_SECRETS = re.compile(r"(https?://)(?:[^/\s'\"@]*@)?([^\s'\"?#]*)(?:[?#][^\s'\"]*)?")
SOURCE_OPTION = "storage_options (--storage-option)"
TARGET_OPTION = "target_options (--target-option)"


def is_of_network(error: BaseException) -> bool:
    """Return whether an error was raised by a library that speaks to servers."""
    return type(error).__module__.partition(".")[0] in _NETWORK


def file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the file system of a URL, and its path there.

    Parameters
    ----------
    url : str
    options : mapping
        Keyword arguments of the file system, or of each part of a chained URL.
    """
    import fsspec

    is_chained = "::" in url
    protocol = url.rpartition("::")[2].partition("://")[0]
    own = options.get(protocol, {}) if is_chained else options
    session = own.get("client_kwargs") or {}
    if protocol in _WEB and "auth" in session:
        # aiohttp sends those of a session to any server that it is redirected to, and a header of
        # this name to the one that was asked.
        headers = {"Authorization": session["auth"].encode(), **own.get("headers", {})}
        rest = {key: value for key, value in session.items() if key != "auth"}
        own = {**own, "client_kwargs": rest, "headers": headers}
        options = {**options, protocol: own} if is_chained else own
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, str(path)


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
        The file system takes no such option; or there is a password in the URL.
    FileNotFoundError, PermissionError
        The bucket or object is not there, or not for these credentials.
    """
    if not isinstance(url, str) or "://" not in url:
        yield
        return
    refuse_password(url, option)
    try:
        yield
    except DcmdaskError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        cause = error.__cause__
        is_of_web = type(cause).__module__.startswith("aiohttp.")
        if cause and is_of_web and getattr(cause, "status", None) not in (404, 410):
            # fsspec calls a file absent whatever a web server answers, and where none does.
            raise UnreachableError(_line(cause), source=url, code="server") from _safe(error)
        _safe(error)
        if error.filename is not None or url in str(error):
            raise
        hint = _CREDENTIALS if isinstance(error, PermissionError) else _ENDPOINT
        raise type(error)(f"{url}: {_line(error)}{_advice(url, hint, option)}") from _safe(error)
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
        ) from _safe(error)


def refuse_password(url: str, option: str) -> None:
    """Raise where there is a password in a URL, which is a name that is shown and recorded."""
    protocol, _, rest = url.rpartition("::")[2].partition("://")
    user, at, host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    # A user of a web server without a password is mostly a token.
    if at and protocol in _WITH_PASSWORD and (protocol in _WEB or ":" in user):
        how = "username=... and password=..."
        if protocol in _WEB:
            how = "headers={'Authorization': 'Basic ...'}"
        elif protocol == "s3":
            how = "key=... and secret=..."
        raise ValueError(
            f"a user or a password in the URL of {protocol}://{host} would get into names, records "
            f"and messages; they belong into {option}, such as {how}"
        )


def _advice(url: str, hint: str, option: str) -> str:
    """Return a hint about an object store; none of a web server."""
    return "" if url.startswith("http") else f": {hint.format(option=option)}"


def _line(error: BaseException) -> str:
    return " ".join(_without_secrets(error).split()).rstrip(".") or type(error).__name__


def _without_secrets(error: BaseException) -> str:
    return _SECRETS.sub(r"\1\2", str(error))


def _safe(error: BaseException) -> BaseException | None:
    """Return an error as the cause of another; None if its text has secrets.

    Those behind it are cut off where one has some: tracebacks are recorded.
    """
    behind = error.__cause__ or error.__context__
    if behind is not None and _safe(behind) is None:
        error.__cause__ = None
    return error if _without_secrets(error) == str(error) else None


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
