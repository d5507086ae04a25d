"""Servers that cannot be reached: errors of one line, and the options that help."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from dcmdask.errors import DcmdaskError, UnreachableError

# Not all of those that speak to servers raise what Python has for it.
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
SOURCE, TARGET = "storage_options (--storage-option)", "target_options (--target-option)"


def is_of_network(error: BaseException) -> bool:
    """Return whether an error was raised by a library that speaks to servers."""
    return type(error).__module__.partition(".")[0] in _NETWORK


@contextmanager
def reaching(url: Any, option: str = SOURCE) -> Iterator[None]:
    """Raise what a server refuses in the body as an error that names the URL and what may help.

    Parameters
    ----------
    url
        Nothing is changed where it is no URL.
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
        if error.filename is not None or url in str(error):
            raise
        hint = _CREDENTIALS if isinstance(error, PermissionError) else _ENDPOINT
        raise type(error)(f"{url}: {_line(error)}: {hint.format(option=option)}") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"{url}: {_line(error)}: is that one of {option}?") from error
    except Exception as error:
        if not is_of_network(error):
            raise
        hint = _CREDENTIALS if "Credential" in type(error).__name__ else _ENDPOINT
        raise UnreachableError(
            f"{_line(error)}: {hint.format(option=option)}",
            source=url,
            code="credentials" if hint is _CREDENTIALS else "server",
        ) from error


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
