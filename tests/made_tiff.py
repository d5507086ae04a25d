"""TIFF files that are DICOM files at the same time, made for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pydicom.dataset import Dataset

TRAILING_PADDING = 0xFFFCFFFC
Page = dict[int, list[int]]
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325


def page_of(dataset: Dataset, offsets: Sequence[int], lengths: Sequence[int]) -> Page:
    """The tags of a TIFF page whose tiles have these places in the file."""
    samples = dataset.SamplesPerPixel
    ycbcr = "YBR" in dataset.PhotometricInterpretation
    return {
        256: [dataset.TotalPixelMatrixColumns],
        257: [dataset.TotalPixelMatrixRows],
        258: [dataset.BitsStored] * samples,
        259: [7],
        262: [(6 if ycbcr else 2) if samples > 1 else 1],
        277: [samples],
        284: [1],
        322: [dataset.Columns],
        323: [dataset.Rows],
        TILE_OFFSETS: list(offsets),
        TILE_BYTE_COUNTS: list(lengths),
    }


def with_tiff(data: bytes, kind: str, pages: Sequence[Page]) -> bytes:
    """The file with a TIFF header in its preamble and pages behind its pixel data.

    `kind` is the byte order, II or MM, and ``*`` or ``+`` (BigTIFF).
    """
    order, big = "<" if kind.startswith("II") else ">", kind.endswith("+")
    number, count = ("Q", "Q") if big else ("L", "H")
    room = struct.calcsize(order + number)
    base = len(data) + 12
    body = bytearray()
    heads = []
    for page in pages:
        entries = []
        for tag, values in sorted(page.items()):
            form = number if tag in (TILE_OFFSETS, TILE_BYTE_COUNTS) else "H"
            # Types of TIFF 6.0: 3 SHORT, 4 LONG; of BigTIFF: 16 LONG8.
            code = {"H": 3, "L": 4, "Q": 16}[form]
            if form == "H" and max(values) > 0xFFFF:
                form, code = "L", 4
            packed = struct.pack(f"{order}{len(values)}{form}", *values)
            if len(packed) > room:
                place = struct.pack(f"{order}{number}", base + len(body))
                body += packed + bytes(len(packed) % 2)
                packed = place
            head = struct.pack(f"{order}HH{number}", tag, code, len(values))
            entries.append(head + packed.ljust(room, b"\0"))
        heads.append(struct.pack(f"{order}{count}", len(entries)) + b"".join(entries))
    at = [base + len(body)]
    for head in heads:
        at.append(at[-1] + len(head) + room)
    for head, following in zip(heads, [*at[1:-1], 0], strict=True):
        body += head + struct.pack(f"{order}{number}", following)
    first = struct.pack(f"{order}{number}", at[0])
    version = struct.pack(f"{order}3H", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    preamble = (kind[:2].encode() + version + first).ljust(128, b"\0")
    body += bytes(len(body) % 2)
    padding = struct.pack("<HH2sHL", TRAILING_PADDING >> 16, 0xFFFC, b"OB", 0, len(body))
    return preamble + data[128:] + padding + bytes(body)
