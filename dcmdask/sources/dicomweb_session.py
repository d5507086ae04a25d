"""Sessions with DICOMweb servers: headers that stay with their host, and errors of one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from dcmdask.errors import UnreachableError
from dcmdask.sources.dicomweb import PREFIX
from dcmdask.sources.ranges import patiently

if TYPE_CHECKING:
    import requests
    from dicomweb_client import DICOMwebClient

Result = TypeVar("Result")

# Code of the error where a server answers, and does not do what it is asked for.
REFUSED = "refused"
_NEEDED = "URLs of DICOMweb need dicomweb-client: pip install 'dcmdask[dicomweb]'"
# Seconds to connect, and between bytes of an answer.
TIMEOUT = (20.0, 120.0)
# Sessions that nobody uses now, by process, server and headers, with their open connections; and
# the number of servers and headers, which may be renewed every hour, that they are kept of.
_IDLE: dict[tuple[Any, ...], list[requests.Session]] = {}
_MOST_IDLE = 16
# Bytes, decompressed, of an answer that requests reads whole: JSON, and what a redirect says.
_MOST_ANSWER = 2**30


class _TooLongError(ValueError):
    """Answer of more than ``_MOST_ANSWER`` bytes."""


@contextmanager
def session_with(root: str, options: Mapping[str, Any]) -> Iterator[requests.Session]:
    """Give a session with a server to one thread; none is used by two, or behind a fork."""
    headers = dict(options.get("headers", {}))
    key = os.getpid(), root, *sorted(headers.items())
    if key not in _IDLE and len(_IDLE) >= _MOST_IDLE:
        _IDLE.clear()
    idle = _IDLE.setdefault(key, [])
    try:
        session = idle.pop()
    except IndexError:
        session = _new_session(headers)
    try:
        yield session
    finally:
        idle.append(session)


def _new_session(headers: Mapping[str, str]) -> requests.Session:
    import requests

    class Session(requests.Session):
        """Session that gives no header of the user to another host, whatever its name is."""

        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            super().rebuild_auth(prepared_request, response)
            prepared_request.headers.pop("Host", None)
            if self.should_strip_auth(response.request.url, prepared_request.url):
                for name in headers:
                    prepared_request.headers.pop(name, None)

    session = Session()
    session.hooks["response"].append(_bound)
    session.headers.update(headers)
    if "authorization" in map(str.lower, headers):
        # Otherwise a .netrc file would come before it.
        session.auth = lambda request: request
    return session


def _bound(answer: Any, **how: Any) -> None:
    """Bound an answer that is read whole: by compression, a few kilobytes could fill the memory."""
    if how.get("stream") and not answer.is_redirect:
        return
    all_blocks = answer.iter_content

    def iter_content(*args: Any, **options: Any) -> Iterator[bytes]:
        size = 0
        for block in all_blocks(*args, **options):
            size += len(block)
            if size > _MOST_ANSWER:
                answer.close()
                raise _TooLongError
            yield block
        # Otherwise a cycle would keep the answer, which may be long.
        del answer.iter_content

    answer.iter_content = iter_content


@contextmanager
def client_of(root: str, options: Mapping[str, Any]) -> Iterator[DICOMwebClient]:
    """Give a client of a server to one thread."""
    try:
        from dicomweb_client import DICOMwebClient
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    with session_with(root, options) as session:
        # UIDs of real files break rules; those of URLs have been looked at.
        client = DICOMwebClient(root, session=session, timeout=TIMEOUT, permissive_uid=True)
        # It leaves the port out of the header Host, of which servers make the links of metadata.
        client.host = urlsplit(root).netloc
        # Requests are repeated here, for the reasons for which those for ranges are.
        client.set_http_retry_params(retry=False)
        yield client


def shown(url: str) -> str:
    """Return a URL for a message: without a query, as that of a link may be a key to it."""
    return PREFIX + url.partition("?")[0]


@contextmanager
def _telling(url: str) -> Iterator[None]:
    """Turn errors of the client in the body into errors of one line with the URL."""
    name = shown(url)
    try:
        import requests
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    try:
        yield
    except requests.HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        said = f"{name}: the server answers {status} {phrase}".rstrip()
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise FileNotFoundError(said) from None
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise PermissionError(
                f'{said}: storage_options={{"headers": {{"Authorization": ...}}}} or a .netrc file '
                "says who asks"
            ) from None
        raise UnreachableError(
            f"the server answers {status} {phrase}".rstrip(), source=name, code=REFUSED
        ) from None
    except _TooLongError:
        raise UnreachableError(
            f"the answer has more than {_MOST_ANSWER} bytes", source=name, code="length"
        ) from None
    except requests.JSONDecodeError:
        raise UnreachableError("the answer is no JSON", source=name, code="json") from None
    except requests.RequestException as error:
        # Of its text, which may have the headers of a proxy, the cause is enough.
        cause = error.args[0] if error.args else error
        cause = getattr(cause, "reason", None) or cause
        kind = type(cause) if isinstance(cause, BaseException) else type(error)
        raise UnreachableError(
            "the server does not answer, or not to the end",
            source=name,
            detail=kind.__name__,
            code="server",
        ) from None


def asking(url: str, ask: Callable[[], Result]) -> Result:
    """Ask a server, and again where it fails for now.

    Raises
    ------
    FileNotFoundError, PermissionError, UnreachableError
        In one line with the URL, and without what the headers say.
    """
    with _telling(url):
        return patiently(ask)
