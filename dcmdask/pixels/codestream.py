"""Parameters in the headers of compressed frames.

Pure functions over the bytes of one frame: its fragments joined, item headers
removed. Nothing is decoded and nothing is copied except headers, so the size a
decoder would allocate is known before it allocates anything.

Offsets count from the first byte of the frame.
"""

from __future__ import annotations

from struct import error as StructError
from struct import unpack_from
from typing import NamedTuple

from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

__all__ = [
    "Buffer",
    "Codestream",
    "CodestreamError",
    "Contradiction",
    "Unsuited",
    "parse",
    "repeats",
]

Buffer = bytes | bytearray | memoryview

# ITU-T T.81 Table B.1 and ITU-T T.87 Table C.1 (SOF55)
_SOF55 = 0xF7
_SOF = {
    0xC0: "jpeg",
    0xC1: "jpeg",
    0xC2: "jpeg",
    0xC3: "jpeg-lossless",
    _SOF55: "jpeg-ls",
    # Hierarchical and arithmetic processes, which PS3.5 8.2.1 does not list.
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), ""),
}
_SOS, _TEM = 0xDA, 0x01
# A stuffed zero, restarts, SOI and EOI: none can stand in front of the first scan.
_NOT_IN_HEADER = frozenset({0x00, *range(0xD0, 0xDA)})
_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
# The end marker is mostly the last thing, or has a few bytes of padding behind it.
_TAIL = 64
# Markers that start more coded data: of a scan; of a tile-part and its data.
_OPENING = {
    **dict.fromkeys(("jpeg", "jpeg-lossless", "jpeg-ls"), (b"\xff\xda",)),
    "jpeg2000": (b"\xff\x90", b"\xff\x93"),
}


class CodestreamError(ValueError):
    """A frame's codestream cannot be understood, is cut short, or contradicts the header.

    `code` is that of the :exc:`DecodeError` which is made from it.
    """

    code = "codestream"


class Incomplete(CodestreamError):
    """A codestream without its end."""

    code = "codestream-short"


class Contradiction(CodestreamError):
    """A codestream is not of the frame that the header describes; no decoder mends that."""

    code = "codestream-differs"


class Damaged(CodestreamError):
    """A codestream is damaged: its decoder goes on all the same, and warns."""

    code = "codestream-damaged"


class Unsuited(CodestreamError):
    """A codestream of a form that imagecodecs does not support; pydicom's plugins may."""

    code = "codestream-unsupported"


class Codestream(NamedTuple):
    """The parameters of one compressed frame.

    Attributes
    ----------
    kind : str
        ``"jpeg"`` (sequential or progressive DCT), ``"jpeg-lossless"``, ``"jpeg-ls"``,
        ``"jpeg2000"`` (High-Throughput included) or ``"rle"``.
    rows, columns : int
        The size in pixels; 0 for RLE, whose header does not tell.
    components : int
        The number of components; for RLE the number of segments.
    precision : int
        Bits per sample of the first component; 0 for RLE.
    signed : bool
        Whether JPEG 2000 samples are signed; no other kind can say so.
    process : int
        The marker of the frame header (``0xC0`` for SOF0), 0 for JPEG 2000 and RLE.
    component_ids : tuple of int
        JPEG and JPEG-LS component identifiers.
    sampling : tuple of (int, int)
        Horizontal and vertical factor of each component: for JPEG and JPEG-LS the
        sampling factor, for JPEG 2000 the separation (XRsiz, YRsiz).
    uniform : bool
        Whether all components have one precision and signedness.
    jfif : bool
        Whether a JFIF marker is there.
    adobe_transform : int or None
        The colour transform of an Adobe marker, None without one.
    interleave : int
        JPEG-LS interleave mode of the first scan.
    offset : int
        Start of the codestream: behind a JP2 header, otherwise 0.
    tiles : int
        The number of JPEG 2000 tiles; 1 for every other kind.
    decompositions : int
        JPEG 2000 decomposition levels of the main header.
    scan : int
        Offset of the first scan's data, for JPEG 2000 of its first tile-part.
    end : int
        Offset of the end marker behind the last start of scan (SOS) or of data (SOD), -1
        if there is none; for RLE the frame's length if every segment starts in it.
    header : bytes
        All bytes in front of the scan's data, of ``"jpeg"`` alone.
    """

    kind: str
    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    process: int = 0
    component_ids: tuple[int, ...] = ()
    sampling: tuple[tuple[int, int], ...] = ()
    uniform: bool = True
    jfif: bool = False
    adobe_transform: int | None = None
    interleave: int = 0
    offset: int = 0
    tiles: int = 1
    decompositions: int = 0
    scan: int = 0
    end: int = -1
    header: bytes = b""

    @property
    def complete(self) -> bool:
        """Whether the end marker is where it should be."""
        return self.end >= 0

    @property
    def itemsize(self) -> int:
        """Bytes of the smallest integer that holds a sample: 1, 2, 4 or 8; 0 for RLE."""
        return (0, 1, 2, 4, 4, 8)[(self.precision + 7) // 8]


def repeats(data: Buffer, other: Codestream) -> bool:
    """Return whether a frame has the header of another one, and its own end marker.

    Tiles of a slide mostly do. All but `end` is then the same, and holds for both.
    """
    header = other.header
    return (
        bool(header)
        and bytes(data[: len(header)]) == header
        and _end_behind(data, other.scan, _OPENING[other.kind]) >= 0
    )


def parse(data: Buffer, uid: str) -> Codestream:
    """Return the parameters of one compressed frame.

    Parameters
    ----------
    data : bytes, bytearray or memoryview
        The frame. A memoryview must be one of bytes.
    uid : str
        The Transfer Syntax UID, which decides what the bytes are taken for.

    Returns
    -------
    Codestream
        Valid as far as it goes: the size, component count and precision are in the
        range that their standard allows.

    Raises
    ------
    CodestreamError
        If the headers are not those of the transfer syntax, or end early.
    """
    try:
        if uid == RLELossless:
            return _parse_rle(data)
        if uid in JPEG2000TransferSyntaxes:
            stream = _parse_j2k(data)
        elif uid in JPEGTransferSyntaxes or uid in JPEGLSTransferSyntaxes:
            stream = _parse_jpeg(data)
        else:
            raise CodestreamError(f"no codestream is defined for transfer syntax {uid}")
    except (IndexError, StructError) as exc:
        raise CodestreamError(
            f"the codestream's header does not fit in the frame's {len(data)} bytes: the frame "
            "is cut short or damaged"
        ) from exc
    return stream._replace(end=_end_behind(data, stream.scan, _OPENING[stream.kind]))


def _end_behind(data: Buffer, start: int, opening: tuple[bytes, ...]) -> int:
    """Return where the end marker is, or -1 where none is or something opens behind it.

    Entropy-coded bytes cannot imitate either: FF is followed by a stuffed zero, a stuffed
    bit or, in JPEG 2000, a byte of at most 8F (ITU-T T.81 B.1.1.5, T.87 A.1, T.800 B.10.1).
    A later scan that is cut short thus shows as a start without an end.
    """
    for first in (max(start, len(data) - _TAIL), start):
        tail = bytes(data[first:])
        end = tail.rfind(_END)
        if end >= 0:
            opens = any(tail.find(marker, end + 2) >= 0 for marker in opening)
            return -1 if opens else first + end
    return -1


def _parse_rle(data: Buffer) -> Codestream:
    """Parse the RLE header: a segment count and 15 offsets (PS3.5 G.5)."""
    if len(data) < 64:
        raise CodestreamError(f"an RLE header has 64 bytes, the frame has {len(data)}")
    count, *offsets = unpack_from("<16L", data)
    if not 1 <= count <= 15:
        raise CodestreamError(f"the RLE header counts {count} segments, 1 to 15 are possible")
    used = offsets[:count]
    if used[0] != 64 or used != sorted(set(used)):
        # pydicom's own decoder goes by the offsets, whatever they are.
        raise Unsuited(
            f"RLE segment offsets must start at 64 and ascend, not be {', '.join(map(str, used))}"
        )
    # The header tells where the last segment starts, not where it ends.
    return Codestream("rle", 0, 0, count, 0, end=len(data) if used[-1] < len(data) else -1)


def _parse_jpeg(data: Buffer) -> Codestream:
    """Walk the marker segments up to the first scan (ITU-T T.81 Annex B, T.87 Annex C)."""
    if bytes(data[:2]) != b"\xff\xd8":
        raise CodestreamError(f"JPEG starts with FF D8, the frame with {_hex(data[:2])}")
    position = 2
    frame: Codestream | None = None
    jfif = False
    adobe: int | None = None
    while True:
        marker = data[position + 1]
        if data[position] != 0xFF or marker in _NOT_IN_HEADER:
            raise CodestreamError(
                f"expected a JPEG segment at byte {position}, "
                f"found {_hex(data[position : position + 2])}"
            )
        if marker in (0xFF, _TEM):  # fill byte (T.81 B.1.1.2); marker without a segment
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = unpack_from(">H", data, position + 2)
        if length < 2 or position + 2 + length > len(data):
            raise CodestreamError(
                f"the JPEG segment FF {marker:02X} at byte {position} claims {length} bytes, "
                f"{len(data) - position - 2} are left"
            )
        body = position + 4
        position += 2 + length
        if marker == _SOS:
            break
        if marker in _SOF:
            if frame is not None:
                raise CodestreamError("the JPEG codestream has two frame headers")
            frame = _jpeg_frame_header(data, body, marker, length)
        # The lengths are those from which libjpeg accepts the two markers.
        elif marker == 0xE0 and length >= 16 and bytes(data[body : body + 5]) == b"JFIF\0":
            jfif = True
        elif marker == 0xEE and length >= 14 and bytes(data[body : body + 5]) == b"Adobe":
            adobe = data[body + 11]

    if frame is None:
        raise CodestreamError("the JPEG codestream has a scan but no frame header")
    in_scan = data[body]
    if length != 6 + 2 * in_scan:
        raise CodestreamError(
            f"the JPEG scan header claims {length} bytes, its {in_scan} components need "
            f"{6 + 2 * in_scan}"
        )
    tail = bytes(data[body + 1 + 2 * in_scan : body + 4 + 2 * in_scan])
    if frame.process in (0xC0, 0xC1) and tail != b"\x00\x3f\x00":
        # T.81 Table B.3. libjpeg only warns of it; pylibjpeg refuses such a frame.
        raise CodestreamError(
            f"a sequential JPEG scan codes 00 3F 00, this one claims {_hex(tail)}"
        )
    return frame._replace(
        jfif=jfif,
        adobe_transform=adobe,
        interleave=tail[1] if frame.process == _SOF55 else 0,
        scan=position,
        header=bytes(data[:position]) if frame.kind == "jpeg" else b"",
    )


def _jpeg_frame_header(data: Buffer, body: int, marker: int, length: int) -> Codestream:
    """Parse the frame header whose parameters start at `body` (T.81 B.2.2)."""
    kind = _SOF[marker]
    if not kind:
        raise CodestreamError(f"the JPEG process of frame header FF {marker:02X} is not in DICOM")
    precision, rows, columns, components = unpack_from(">BHHB", data, body)
    if components < 1 or length != 8 + 3 * components:
        raise CodestreamError(
            f"the JPEG frame header claims {length} bytes, its {components} components need "
            f"{8 + 3 * components}"
        )
    if not (precision in (8, 12) if kind == "jpeg" else 2 <= precision <= 16):
        raise CodestreamError(f"a JPEG precision of {precision} bits is not possible")
    fields = [data[at : at + 2] for at in range(body + 6, body + 6 + 3 * components, 3)]
    return Codestream(
        kind,
        rows,
        columns,
        components,
        precision,
        process=marker,
        component_ids=tuple(field[0] for field in fields),
        sampling=tuple((field[1] >> 4, field[1] & 15) for field in fields),
    )


def _parse_j2k(data: Buffer) -> Codestream:
    """Parse the main header of a JPEG 2000 codestream (ITU-T T.800 Annex A)."""
    start = _j2k_offset(data)
    if bytes(data[start : start + 4]) != b"\xff\x4f\xff\x51":
        raise CodestreamError(
            "JPEG 2000 starts with FF 4F FF 51, the codestream with "
            f"{_hex(data[start : start + 4])}"
        )
    length, _, x1, y1, x0, y0 = unpack_from(">HHIIII", data, start + 4)
    tile_x, tile_y, tile_x0, tile_y0, components = unpack_from(">IIIIH", data, start + 24)
    if not 1 <= components <= 16384 or length != 38 + 3 * components:
        raise CodestreamError(
            f"the JPEG 2000 size header claims {length} bytes, its {components} components need "
            f"{38 + 3 * components}"
        )
    if not (x0 < x1 and y0 < y1 and tile_x and tile_y):
        raise CodestreamError(
            f"the JPEG 2000 image area {x0}..{x1} by {y0}..{y1} with tiles of {tile_x} by "
            f"{tile_y} is empty"
        )
    depths = set()
    sampling = []
    for at in range(start + 42, start + 42 + 3 * components, 3):
        depths.add(data[at])
        sampling.append((data[at + 1], data[at + 2]))
    depth = data[start + 42]
    precision = (depth & 0x7F) + 1
    if precision > 38:
        raise CodestreamError(f"a JPEG 2000 precision of {precision} bits is not possible")

    decompositions = 0
    position = start + 4 + length
    while True:
        (marker, length) = unpack_from(">HH", data, position)
        if marker >> 8 != 0xFF or length < 2:
            raise CodestreamError(
                f"expected a JPEG 2000 segment at byte {position}, "
                f"found {_hex(data[position : position + 2])}"
            )
        if marker == 0xFF90:  # SOT: the main header is over
            break
        if marker == 0xFF52:  # COD (A.6.1)
            (decompositions,) = unpack_from(">B", data, position + 9)
        position += 2 + length
    return Codestream(
        "jpeg2000",
        y1 - y0,
        x1 - x0,
        components,
        precision,
        signed=bool(depth & 0x80),
        sampling=tuple(sampling),
        uniform=len(depths) == 1,
        offset=start,
        tiles=-(-(x1 - tile_x0) // tile_x) * -(-(y1 - tile_y0) // tile_y),
        decompositions=decompositions,
        scan=position,
    )


def _j2k_offset(data: Buffer) -> int:
    """Return where the codestream starts: 0, or behind the JP2 boxes in front of it.

    PS3.5 A.4.4 forbids the JP2 file format, and it is found all the same.
    """
    if bytes(data[:8]) != _JP2_SIGNATURE:
        return 0
    position = 12
    while position < len(data):
        (length,) = unpack_from(">I", data, position)
        if bytes(data[position + 4 : position + 8]) == b"jp2c":
            return position + 8
        if length < 8:
            break
        position += length
    raise CodestreamError("the JP2 boxes hold no codestream")


def _hex(data: Buffer) -> str:
    """Return bytes as an error message shows them."""
    return bytes(data).hex(" ").upper() or "nothing"
