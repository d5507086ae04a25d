"""Requests to DICOMweb servers (PS3.18): frames by number, metadata, bulk data, lists, files.

Nothing of DICOM is understood here but the names of transfer syntaxes, which the server says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

from dcmdask.errors import SourceChangedError, UnreachableError
from dcmdask.sources.dicomweb import (
    LEVELS,
    UID,
    Resource,
    ServedFile,
    ServedInstance,
    check_options,
    resource_of,
)
from dcmdask.sources.dicomweb_session import TIMEOUT, asking, client_of, session_with, shown
from dcmdask.sources.held import held, keep
from dcmdask.sources.multipart import MultipartError, Part, media_type, parts

_ANY_SYNTAX = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
_FILE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_BULK = 'multipart/related; type="application/octet-stream", application/octet-stream; q=0.5'
# Frames of one request, whose URL lists them, and requests that are under way at once. Servers
# may read the whole instance for each: 200 frames of 500 kB take Orthanc 2.4 s by 6 requests, two
# at a time, and 7 to 10 s by 26, four at a time.
_MOST_FRAMES, _REQUESTS = 64, 2
_BLOCK = 2**18
# End of a URL of one frame, which counts from 1.
_FRAME_PLACE = re.compile(r"/frames/([0-9]{1,10})/?$")
# Bytes of an answer to a request for bulk data or a file, and of a frame beyond what it takes
# decoded.
_MOST_BULK, _MOST_FILE, _BEYOND = 2**28, 2**30, 2**16
# Transfer syntaxes whose native frames are the same bytes, and those of a media type; the first
# is meant where none is said (PS3.18 8.7.3.3).
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_NATIVE = frozenset({IMPLICIT, EXPLICIT})
_JPEG = "1.2.840.10008.1.2.4."
_OF_MEDIA_TYPE: Mapping[str, Sequence[str]] = {
    "application/octet-stream": (EXPLICIT, IMPLICIT),
    "image/dicom-rle": ("1.2.840.10008.1.2.5",),
    "image/jpeg": tuple(_JPEG + one for one in ("70", "50", "51", "57")),
    "image/jls": tuple(_JPEG + one for one in ("80", "81")),
    "image/jp2": tuple(_JPEG + one for one in ("90", "91")),
    "image/jpx": tuple(_JPEG + one for one in ("92", "93")),
    "image/jphc": tuple(_JPEG + one for one in ("201", "202", "203")),
}


def metadata_of(resource: Resource, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the metadata of the instances of a series, or of one instance, as DICOM JSON.

    Raises
    ------
    FileNotFoundError, PermissionError, UnreachableError
        They are not there, or not for these credentials, or the server does not answer.
    """

    def ask() -> Any:
        with client_of(resource.root, options) as client:
            if len(resource.uids) == len(LEVELS):
                study, series, instance = resource.uids
                return client.retrieve_instance_metadata(study, series, instance)
            study, series = resource.uids
            return client.retrieve_series_metadata(study, series)

    found = _told(f"{resource.url}/metadata", ask)
    many = found if isinstance(found, list) else [found]
    if not all(isinstance(one, dict) and one for one in many):
        raise UnreachableError("the answer is no metadata", source=resource.name, code="metadata")
    return many


def _told(url: str, ask: Callable[[], Any]) -> Any:
    """Return what a server answers in JSON; None where the client cannot read it."""
    try:
        return asking(url, ask)
    except (ValueError, LookupError, TypeError, RecursionError):
        # It takes the first of an answer without looking whether it is a list, and the JSON may
        # be nested too deep, or have a number of too many digits.
        return None


def uids_below(resource: Resource, options: Mapping[str, Any]) -> list[str]:
    """Return the studies of a server, or the series of a study, as it lists them (QIDO-RS).

    Returns
    -------
    list of str
        UIDs, each once; empty ones stand for entries without one.
    """
    check_options(resource.name, options)
    key, url = "0020000D", f"{resource.root}/studies"
    if resource.uids:
        key, url = "0020000E", f"{resource.url}/series"

    def ask(offset: int | None) -> Any:
        with client_of(resource.root, options) as client:
            if resource.uids:
                return client.search_for_series(resource.uids[0], offset=offset)
            return client.search_for_studies(offset=offset)

    found: dict[str, None] = {}
    entries = 0
    # Servers give as many at a time as they like, and some give the same ones again.
    while True:
        page = _told(url, partial(ask, entries or None))
        if not isinstance(page, list):
            raise UnreachableError("the answer is no list", source=resource.name, code="list")
        before, entries = len(found), entries + len(page)
        found.update(dict.fromkeys(_uid(one, key) for one in page))
        if len(found) == before:
            return list(found)


def _uid(found: Any, key: str) -> str:
    try:
        value = str(found[key]["Value"][0])
    except (LookupError, TypeError):
        return ""
    return value if UID.fullmatch(value) else ""


def fetch_bulk(source: ServedInstance, uri: str) -> bytes:
    """Return the value of an element that the metadata only link to.

    Raises
    ------
    UnreachableError
        The link leads to another server, which is not followed.
    """
    resource = source.resource
    url = urljoin(f"{resource.url}/", uri)
    if urlsplit(url)[:2] != urlsplit(resource.root)[:2]:
        raise UnreachableError(
            "its metadata link to bulk data on another server, which is not asked",
            source=source.name,
            code="bulk-data",
        )
    (part,) = _get(resource.root, source.options, url, _BULK, 1, _MOST_BULK)
    return part.body


def whole_file(source: ServedInstance) -> ServedFile:
    """Return the file of an instance, which is fetched now, and again where it is read later.

    Raises
    ------
    FileNotFoundError, PermissionError, UnreachableError
        As for any request.
    """
    data = _fetch_file(source)
    found = ServedFile(source.name, source.options, len(data), _digest(data))
    keep(found.token, data, _MOST_FILE)
    return found


def file_content(source: ServedFile) -> memoryview:
    """Return the bytes of a file, which this process keeps for a while.

    Raises
    ------
    SourceChangedError
        They are others than before.
    """

    def fetch() -> bytes:
        data = _fetch_file(source)
        if (len(data), _digest(data)) != (source.size, source.key):
            raise SourceChangedError(
                "the instance has changed since it was opened; open it again",
                source=source.name,
                code="changed",
            )
        return data

    return held(source.token, fetch, _MOST_FILE)


def _fetch_file(source: ServedInstance | ServedFile) -> bytes:
    resource = resource_of(source.name)
    (part,) = _get(resource.root, source.options, resource.url, _FILE, 1, _MOST_FILE)
    return part.body


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def first_syntax(source: ServedInstance, longest: int) -> str:
    """Return the transfer syntax in which the server gives the first frame.

    Parameters
    ----------
    source : ServedInstance
    longest : int
        Bytes that the frame takes decoded.
    """
    (part,) = _frames(source, [0], longest)
    return _syntax_of(part, "")


def fetch_frames(
    source: ServedInstance, frames: Sequence[int], lengths: Sequence[int]
) -> list[bytes]:
    """Return frames as they are stored, with several requests at a time.

    Each is asked for once, and in ascending order, whatever the order here is: a list of frames
    has none twice (PS3.18), and that a server keeps another order is not relied on.

    Parameters
    ----------
    source : ServedInstance
    frames : sequence of int
        From 0.
    lengths : sequence of int
        Bytes of each native frame; of an encapsulated one, bytes that it takes decoded.

    Returns
    -------
    list of bytes
        A native frame without padding; an encapsulated one in an item (PS3.5 A.4).

    Raises
    ------
    SourceChangedError
        The server gives frames in another transfer syntax, of another length or number.
    FileNotFoundError, PermissionError, UnreachableError
        As for any request.
    """
    wanted = dict(sorted(zip(frames, lengths, strict=True)))
    numbers = list(wanted)
    size = min(_MOST_FRAMES, -(-len(numbers) // _REQUESTS))
    runs = [numbers[at : at + size] for at in range(0, len(numbers), max(1, size))]

    def fetch(run: list[int]) -> dict[int, bytes]:
        found = _frames(source, run, max(wanted[one] for one in run))
        return {
            one: _span(source, one, wanted[one], part) for one, part in zip(run, found, strict=True)
        }

    found: dict[int, bytes] = {}
    if len(runs) < 2:
        for run in runs:
            found.update(fetch(run))
    else:
        with ThreadPoolExecutor(min(_REQUESTS, len(runs)), thread_name_prefix="dcmdask") as pool:
            for some in pool.map(fetch, runs):
                found.update(some)
    return [found[one] for one in frames]


def _frames(source: ServedInstance, frames: Sequence[int], longest: int) -> list[Part]:
    resource = source.resource
    url = f"{resource.url}/frames/{','.join(str(one + 1) for one in frames)}"
    limit = 2 * longest + _BEYOND
    return _get(resource.root, source.options, url, _ANY_SYNTAX, len(frames), limit)


def _get(
    root: str, options: Mapping[str, Any], url: str, accept: str, count: int, longest: int
) -> list[Part]:
    """Return the parts of an answer, of which there are `count`; or all of it as the one part."""

    def ask() -> list[Part]:
        accepted = {"Accept": accept}
        with (
            session_with(root, options) as session,
            session.get(url, headers=accepted, stream=True, timeout=TIMEOUT) as answer,
        ):
            answer.raise_for_status()
            said = answer.headers.get("Content-Type", "")
            kind, parameters = media_type(said)
            if kind == "text/html":
                raise MultipartError("it is a page for a browser, maybe one to log in")
            blocks = answer.iter_content(_BLOCK)
            if not kind.startswith("multipart/"):
                return [Part({"content-type": said}, _whole(blocks, longest))]
            found: list[Part] = []
            for part in parts(blocks, parameters.get("boundary", ""), longest):
                headers = {**part.headers, "content-type": _content_type(part, parameters)}
                found.append(part._replace(headers=headers))
                if len(found) > count:
                    break
            return found

    try:
        found = asking(url, ask)
    except MultipartError as error:
        raise SourceChangedError(
            "the answer is not as it should be",
            source=shown(url),
            detail=str(error),
            code="multipart",
        ) from error
    if len(found) != count:
        more = "more" if len(found) > count else f"{len(found)}"
        raise SourceChangedError(
            f"{more} parts came for {count} that were asked for", source=shown(url), code="parts"
        )
    return found


def _content_type(part: Part, parameters: Mapping[str, str]) -> str:
    """Return the media type of a part: that of all parts where its own has no transfer syntax."""
    own = part.headers.get("content-type", "")
    name = "transfer-syntax"
    if name in own.lower():
        return own
    common = parameters.get("type", "")
    if name in parameters and name not in common.lower():
        common += f"; {name}={parameters[name]}"
    return common if name in common.lower() or not own else own


def _whole(blocks: Iterator[bytes], longest: int) -> bytes:
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > longest:
            raise MultipartError(f"it has more than {longest} bytes")
    return bytes(data)


def _syntax_of(part: Part, expected: str) -> str:
    """Return the transfer syntax of a part; the expected one if it says nothing against that."""
    kind, parameters = media_type(part.headers.get("content-type", ""))
    if said := parameters.get("transfer-syntax", ""):
        return said
    known = _OF_MEDIA_TYPE.get(kind, ())
    return expected if expected in known or not known else known[0]


def _span(source: ServedInstance, frame: int, length: int, part: Part) -> bytes:
    place = _FRAME_PLACE.search(part.headers.get("content-location", ""))
    if place is not None and int(place[1]) != frame + 1:
        raise SourceChangedError(
            f"the server gives frame {int(place[1]) - 1} where frame {frame} was asked for",
            source=source.name,
            code="order",
        )
    syntax = _syntax_of(part, source.syntax)
    if syntax != source.syntax and not {syntax, source.syntax} <= _NATIVE:
        raise SourceChangedError(
            f"the server gives frame {frame} in transfer syntax {syntax}, and {source.syntax} was "
            "told or found for the instance",
            source=source.name,
            code="transfer-syntax",
        )
    body = part.body
    if source.encapsulated:
        body += bytes(len(body) % 2)
        return b"\xfe\xff\x00\xe0" + len(body).to_bytes(4, "little") + body
    if len(body) != length + length % 2 and len(body) != length:
        raise SourceChangedError(
            f"{len(body)} bytes came for frame {frame}, which has {length}",
            source=source.name,
            code="length",
        )
    return body[:length]
