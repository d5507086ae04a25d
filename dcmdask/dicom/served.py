"""Headers of instances on a DICOMweb server, made of their metadata (PS3.18 10.4.1.1.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dcmdask.dicom.dicom_json import JsonError, element_header, encode, tag_of
from dcmdask.dicom.elements import LONG_VRS, PIXEL_DATA, UNDEFINED
from dcmdask.dicom.image_pixel import ELEMENTS
from dcmdask.errors import HeaderError, SourceChangedError, UnreachableError
from dcmdask.sources import dicomweb_requests, files
from dcmdask.sources.dicomweb import ServedFile, ServedInstance
from dcmdask.sources.dicomweb_requests import EXPLICIT, IMPLICIT
from dcmdask.sources.dicomweb_session import REFUSED

_SOP_CLASS, _SOP_INSTANCE, _IMAGE_TYPE = "00080016", "00080018", "00080008"
_FRAMES, _ROWS, _COLUMNS = "00280008", "00280010", "00280011"
_SAMPLES, _BITS, _PIXEL_DATA = "00280002", "00280100", 0x7FE00010
# Of the server's and not of the instance: Available Transfer Syntax UID, Retrieve URL.
_AVAILABLE, _OF_SERVER = "00083002", frozenset({0x00083002, 0x00081190})
# The elements by which frames are decoded.
_BRIEF = frozenset(ELEMENTS) | {tag_of(_SOP_CLASS), tag_of(_SOP_INSTANCE)}
# Elements that are alike in instances of one transfer syntax, besides those of _BRIEF:
# SOP Class UID, Image Type, Lossy Image Compression, its ratio and method.
_LOOK = (_SOP_CLASS, _IMAGE_TYPE, "00282110", "00282112", "00282114")
# Frames are not sent in these: native ones are in Explicit VR Little Endian (PS3.18 8.7.3.3).
_CHANGED = frozenset({DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian})
# Bytes of a frame where the metadata do not tell.
_MOST_FRAME = 2**28
_ALL = None


def with_metadata(
    source: ServedInstance,
    metadata: Mapping[str, Any],
    wanted: Container[int] | None = _ALL,
    known: dict[Any, str] | None = None,
) -> ServedInstance | ServedFile:
    """Return an instance with a header made of its metadata.

    Where the metadata have no Available Transfer Syntax UID (0008,3002), the server is asked for
    the first frame: of one instance for all of a series that have one frame and look alike. Any
    other answer is noticed when frames are read. If it refuses that, the file is fetched whole:
    some servers do not give frames in every transfer syntax.

    Parameters
    ----------
    source : ServedInstance
    metadata : mapping
        DICOM JSON of the instance.
    wanted : container of int, optional
        Tags at the top level of which bulk data is fetched; by default all.
    known : dict, optional
        Transfer syntaxes of other instances of its series, to which its own is added.

    Raises
    ------
    HeaderError
        The metadata are not as PS3.18 F says.
    SourceChangedError
        They are those of another instance.
    FileNotFoundError, PermissionError, UnreachableError
        The server does not give bulk data, or the first frame.
    """
    try:
        return _with_metadata(source, metadata, wanted, {} if known is None else known)
    except JsonError as error:
        raise HeaderError(
            "the metadata are not as they should be",
            source=source.name,
            detail=str(error),
            code="json",
        ) from error


def with_header(source: files.Stored, wanted: Container[int] | None = _ALL) -> files.Stored:
    """Return an instance on a server with its header, which is fetched; others as they are.

    Parameters
    ----------
    source : Source
    wanted : container of int, optional
        As for :func:`with_metadata`.

    Raises
    ------
    HeaderError, SourceChangedError, FileNotFoundError, PermissionError, UnreachableError
        As :func:`with_metadata` does.
    """
    if not isinstance(source, ServedInstance) or source.start:
        return source
    (metadata,) = dicomweb_requests.metadata_of(source.resource, source.options)
    return with_metadata(source, metadata, wanted)


@contextmanager
def opened(
    source: files.Stored, wanted: Container[int] | None = _ALL
) -> Iterator[tuple[BinaryIO, files.Stored]]:
    """Open a source, :func:`with_header`, for one reader, and give both."""
    source = with_header(source, wanted)
    with files.opened(source) as file:
        yield file, source


def briefly(source: files.Stored) -> files.Stored:
    """Return an instance on a server with a header of the elements that decoding needs."""
    if not isinstance(source, ServedInstance) or not source.brief or source.start:
        return source
    return replace(source, start=source.brief)


def _with_metadata(
    source: ServedInstance,
    metadata: Mapping[str, Any],
    wanted: Container[int] | None,
    known: dict[Any, str],
) -> ServedInstance | ServedFile:
    expected = source.resource.uids[-1]
    if (uid := str(_first(metadata, _SOP_INSTANCE))) != expected:
        raise SourceChangedError(
            f"the metadata are of instance {uid[:64]!r}",
            source=source.name,
            code="sop-instance-uid",
        )
    tags = {tag_of(key): key for key in metadata}
    pixels = next((tag for tag in sorted(PIXEL_DATA, reverse=True) if tag in tags), None)
    if pixels is None and _first(metadata, _ROWS):
        # Some servers leave encapsulated pixel data out.
        pixels = _PIXEL_DATA
    syntax = source.syntax or EXPLICIT
    if pixels is not None and not source.syntax:
        syntax = _syntax(source, metadata, known, pixels in tags)
        if not syntax:
            return dicomweb_requests.whole_file(source)

    def fetch(tag: int, uri: str) -> bytes | None:
        is_needed = wanted is _ALL or tag in wanted
        return dicomweb_requests.fetch_bulk(source, uri) if is_needed else None

    def header(kept: Mapping[str, Any]) -> bytes:
        body = encode(kept, syntax == IMPLICIT, fetch)
        return _file_meta(syntax) + body + _pixel_element(metadata, pixels, tags, syntax)

    kept = {key: metadata[key] for tag, key in tags.items() if _is_kept(tag)}
    return replace(
        source,
        syntax=syntax,
        encapsulated=pixels is not None and _is_encapsulated(syntax),
        key=source.key or _hash(kept),
        brief=header({key: value for key, value in kept.items() if tag_of(key) in _BRIEF}),
        start=header(kept),
    )


def _is_kept(tag: int) -> bool:
    return 0x0002FFFF < tag < 0x7FE00000 and tag not in _OF_SERVER


def values_of(metadata: Mapping[str, Any], key: str) -> list[Any]:
    """Return the values of an element; none where it is not there, or not as it should be."""
    element = metadata.get(key)
    found = element.get("Value") if isinstance(element, Mapping) else None
    return found if isinstance(found, list) else []


def _first(metadata: Mapping[str, Any], key: str) -> Any:
    return next(iter(values_of(metadata, key)), "")


def _syntax(
    source: ServedInstance, metadata: Mapping[str, Any], known: dict[Any, str], is_linked: bool
) -> str:
    """Return the transfer syntax of the frames, by the metadata or by the first frame.

    Empty where the server gives no frames.
    """
    told = values_of(metadata, _AVAILABLE)
    if len(told) == 1 and told[0]:
        found = str(told[0]).strip("\0 ")
    else:
        elements = (*(f"{tag:08X}" for tag in ELEMENTS), *_LOOK)
        several = str(_first(metadata, _FRAMES)) not in ("", "1")
        look = (is_linked, several and source.name, str([values_of(metadata, k) for k in elements]))
        if look not in known:
            known[look] = _first_syntax(source, metadata)
        found = known[look]
    found = EXPLICIT if found in _CHANGED else found
    # A hostile one must not reach the header: anything else is named where it is decoded.
    return found if found.isprintable() and len(found) <= 64 else "1"


def _first_syntax(source: ServedInstance, metadata: Mapping[str, Any]) -> str:
    try:
        return dicomweb_requests.first_syntax(source, _frame_bytes(metadata))
    except FileNotFoundError:
        return ""
    except UnreachableError as error:
        if error.code.rpartition("/")[2] == REFUSED:
            return ""
        raise


def _frame_bytes(metadata: Mapping[str, Any]) -> int:
    sizes = [_first(metadata, key) for key in (_ROWS, _COLUMNS, _SAMPLES, _BITS)]
    if not all(isinstance(one, int) and one > 0 for one in sizes):
        return _MOST_FRAME
    rows, columns, samples, bits = map(int, sizes)
    return min(rows * columns * samples * bits // 8 + 1, _MOST_FRAME)


def _file_meta(syntax: str) -> bytes:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = element_header(0x00020010, "UI", len(value), implicit=False) + value
    length = len(element).to_bytes(4, "little")
    head = element_header(0x00020000, "UL", len(length), implicit=False) + length
    return bytes(128) + b"DICM" + head + element


def _pixel_element(
    metadata: Mapping[str, Any], tag: int | None, tags: Mapping[int, str], syntax: str
) -> bytes:
    """Return the header of the pixel data element, whose value is on the server."""
    if tag is None:
        return b""
    element = metadata[tags[tag]] if tag in tags else None
    vr = element.get("vr") if isinstance(element, Mapping) else None
    is_encapsulated = _is_encapsulated(syntax)
    if is_encapsulated or vr not in LONG_VRS.values():
        vr = "OB" if is_encapsulated else "OW"
    return element_header(tag, str(vr), UNDEFINED if is_encapsulated else 0, syntax == IMPLICIT)


def _is_encapsulated(syntax: str) -> bool:
    # One that pydicom does not know is (PS3.5 A.4).
    return not UID(syntax).is_transfer_syntax or UID(syntax).is_encapsulated


def _hash(metadata: Mapping[str, Any]) -> str:
    text = json.dumps(metadata, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
