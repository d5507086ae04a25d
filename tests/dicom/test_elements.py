"""The walk agrees with pydicom, or says that it does not understand."""

from __future__ import annotations

import pickle
import random
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian
from real_files import corpus_root

from dcmdask.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    Filter,
    NotUnderstood,
    Truncated,
    Wanted,
    Window,
)
from dcmdask.dicom.walk import DEEPEST, read_elements, read_items

EVERYTHING = Filter(every=True)
ENCODINGS = [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG]
PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
CORPUS = corpus_root()


def dicom_files() -> list[Path]:
    """Every file that begins like DICOM, packaged with pydicom and in the corpus."""
    roots = [PACKAGED, *([CORPUS] if CORPUS else [])]
    found = []
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    if file.read(132)[128:] == b"DICM":
                        found.append(path)
    return found


def over(data: bytes) -> Window:
    return Window(lambda offset, length: data[offset : offset + length], len(data))


def elements(data: bytes, encoding: Encoding) -> list[Element]:
    return list(read_elements(over(data), 0, len(data), encoding, EVERYTHING).places.values())


def parsed(data: bytes, encoding: Encoding) -> Dataset:
    return read_dataset(BytesIO(data), encoding.implicit, encoding.little_endian)


def compare(ds: Dataset, found: dict[int, Element], window: Window, encoding: Encoding) -> int:
    """Hold the walk to a data set that pydicom read; the number of nested items compared."""
    found = {tag: element for tag, element in found.items() if tag not in PIXEL_DATA}
    raw = {tag: ds.get_item(tag) for tag in ds._dict if tag not in PIXEL_DATA}
    compared = 0
    assert sorted(found) == sorted(map(int, raw))
    for tag, element in found.items():
        theirs = raw[tag]
        if isinstance(theirs, RawDataElement):
            assert element.vr == theirs.VR or (element.undefined and element.vr is None)
            assert element.undefined == (theirs.length == UNDEFINED)
            if element.undefined:
                assert window.bytes_at(element.offset, len(theirs.value)) == theirs.value
                assert element.length == len(theirs.value) + 8
            else:
                assert element.length == theirs.length
                assert window.bytes_at(element.offset, element.length) == (theirs.value or b"")
        elif element.undefined:
            assert theirs.VR == "SQ" or element.vr == theirs.VR
        # What is inside UN is left to pydicom.
        if ds[tag].VR == "SQ" and element.length and element.vr != "UN":
            inside = list(read_items(window, element, encoding, EVERYTHING))
            assert len(inside) == len(ds[tag].value)
            for item, content in zip(inside, ds[tag].value, strict=True):
                compared += 1 + compare(content, item.places, window, encoding)
    return compared


def data_set(data: bytes, ds: pydicom.FileDataset) -> tuple[bytes, Encoding, int]:
    """The data to walk (inflated where it was deflated), its encoding and first byte."""
    begin = read_elements(over(data), 132, len(data), EXPLICIT_LITTLE, EVERYTHING, group=2).end
    if ds.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        data = zlib.decompress(data[begin:], -zlib.MAX_WBITS)
        begin = 0
    implicit, little = ds.original_encoding
    return data, Encoding(implicit, little), begin


# What the walk leaves to pydicom, with the reason.
LEFT_TO_PYDICOM = {
    "DICOMDIR-nooffset": "ends in a sequence without its delimitation item",
    "SC_rgb_jpeg.dcm": "implicit VR under an explicit transfer syntax",
    "meta_missing_tsyntax.dcm": "elements of group 0001",
    "nested_priv_SQ.dcm": "elements of group 0001",
    "rtplan_truncated.dcm": "cut short",
}


def test_corpus_is_there() -> None:
    if CORPUS is None:
        pytest.skip("no corpus here: only pydicom's packaged files are compared")


# A third of the files each time, and all of them before a release.
@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.rare) for n in (1, 2))])
def test_walk_equals_pydicom_on_real_files(part: int) -> None:
    left: dict[str, str] = {}
    compared = nested = 0
    for path in list(dicom_files())[part::3]:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ds = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
            except Exception:
                continue
            try:
                data, encoding, begin = data_set(data, ds)
                window = over(data)
                found = read_elements(window, begin, len(data), encoding, EVERYTHING).places
                nested += compare(ds, found, window, encoding)
            except NotUnderstood as error:
                left[path.name] = str(error)
            except AssertionError as error:
                raise AssertionError(f"{path}: {error}") from error
            compared += 1
    assert compared > 30
    assert nested > (300 if CORPUS else 100)
    assert set(left) <= set(LEFT_TO_PYDICOM), left


def short(encoding: Encoding, tag: int, vr: str, value: bytes) -> bytes:
    order = "<" if encoding.little_endian else ">"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if encoding.implicit:
        return head + struct.pack(order + "L", len(value)) + value
    return head + vr.encode() + struct.pack(order + "H", len(value)) + value


def long(encoding: Encoding, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    order = "<" if encoding.little_endian else ">"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    number = struct.pack(order + "L", len(value) if length is None else length)
    return head + (b"" if encoding.implicit else vr.encode() + b"\0\0") + number + value


def delimiter(encoding: Encoding, tag: int, length: int = 0) -> bytes:
    order = "<" if encoding.little_endian else ">"
    return struct.pack(order + "HHL", tag >> 16, tag & 0xFFFF, length)


def undefined(encoding: Encoding, tag: int, *contents: bytes, vr: str = "SQ") -> bytes:
    """A sequence of undefined length with items of undefined length."""
    inner = encoding if vr == "SQ" else IMPLICIT_LITTLE
    body = b"".join(
        delimiter(inner, 0xFFFEE000, UNDEFINED) + content + delimiter(inner, 0xFFFEE00D)
        for content in contents
    )
    return long(encoding, tag, vr, body + delimiter(encoding, 0xFFFEE0DD), UNDEFINED)


LEAVES = st.dictionaries(
    st.sampled_from(["PatientName", "Manufacturer", "Rows", "EchoTime", "ICCProfile", "Modality"]),
    st.integers(0, 60),
    max_size=4,
)
SEQUENCES = ["ReferencedImageSequence", "IconImageSequence", "PlanePositionSequence"]


def build(tree: dict[str, object]) -> Dataset:
    ds = Dataset()
    for keyword, content in tree.items():
        if isinstance(content, tuple):
            inner, closed, closed_items = content
            ds.add_new(keyword, "SQ", Sequence([build(item) for item in inner]))
            ds[keyword].is_undefined_length = not closed
            for item in ds[keyword].value:
                item.is_undefined_length_sequence_item = not closed_items
        elif keyword in ("PatientName", "Manufacturer", "Modality"):
            setattr(ds, keyword, "X" * content)
        elif keyword == "ICCProfile":
            ds.add_new(keyword, "OB", b"\xfe\xff\xdd\xe0\0\0\0\0" * content)
        else:
            setattr(ds, keyword, content)
    return ds


TREES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda leaves, nested: {**leaves, **nested},
        LEAVES,
        st.dictionaries(
            st.sampled_from(SEQUENCES),
            st.tuples(st.lists(inner, max_size=3), st.booleans(), st.booleans()),
            max_size=2,
        ),
    ),
    max_leaves=12,
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(tree=TREES, encoding=st.sampled_from(ENCODINGS), step=st.sampled_from([12, 13, 64, 1 << 14]))
def test_walk_equals_what_pydicom_wrote(
    tree: dict[str, object], encoding: Encoding, step: int
) -> None:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = encoding.implicit, encoding.little_endian
    write_dataset(file, build(tree))
    data = file.getvalue()
    window = Window(lambda offset, length: data[offset : offset + length], len(data), step=step)
    found = read_elements(window, 0, len(data), encoding, EVERYTHING).places
    compare(parsed(data, encoding), found, window, encoding)


def test_elements_follow_one_another_to_the_end() -> None:
    data = (PACKAGED / "MR_small.dcm").read_bytes()
    meta = read_elements(over(data), 132, len(data), EXPLICIT_LITTLE, EVERYTHING, group=2)
    begin = meta.end
    assert {tag >> 16 for tag in meta.places} == {2}
    ds = pydicom.dcmread(BytesIO(data))
    assert begin == 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
    places = read_elements(over(data), begin, len(data), EXPLICIT_LITTLE, EVERYTHING).places
    found = list(places.values())
    for before, after in pairwise(found):
        assert after.offset - before.offset - before.length in (8, 12)
    assert found[-1][:2] == (0x7FE00010, "OW")
    assert found[-1].length == len(ds.PixelData)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_walk_stops(encoding: Encoding) -> None:
    one = short(encoding, 0x00080060, "CS", b"MR")
    two = short(encoding, 0x00100010, "PN", b"A^BC")
    # Truncated pixel data is for the frame index to judge.
    pixels = long(encoding, 0x7FE00010, "OW", b"", 1000)
    data = one + two + pixels
    assert [e.tag for e in elements(data, encoding)] == [0x00080060, 0x00100010, 0x7FE00010]
    assert elements(data, encoding)[-1].length == 1000
    grouped = read_elements(over(data), 0, len(data), encoding, EVERYTHING, group=8)
    assert (list(grouped.places), grouped.end) == ([0x00080060], len(one))


def test_unknown_of_undefined_length_holds_implicit_little_endian() -> None:
    inside = short(IMPLICIT_LITTLE, 0x00080060, "CS", b"MR")
    data = undefined(EXPLICIT_LITTLE, 0x00091010, inside, inside, vr="UN")
    data += short(EXPLICIT_LITTLE, 0x00100010, "PN", b"A^BC")
    first, second = elements(data, EXPLICIT_LITTLE)
    assert (first.vr, first.undefined, second.tag) == ("UN", True, 0x00100010)
    assert first.length == len(data) - 12 - 12
    nested = undefined(EXPLICIT_LITTLE, 0x00081140, data)
    assert elements(nested, EXPLICIT_LITTLE)[0].length == len(nested) - 12
    explicit = short(EXPLICIT_LITTLE, 0x00080060, "CS", b"MR")
    with pytest.raises(NotUnderstood, match="found explicit VR"):
        elements(undefined(EXPLICIT_LITTLE, 0x00091010, explicit, vr="UN"), EXPLICIT_LITTLE)


def test_fragments_inside_an_item_are_skipped() -> None:
    little = EXPLICIT_LITTLE
    fragment = delimiter(little, 0xFFFEE000, 8) + delimiter(little, 0xFFFEE0DD)
    pixels = long(little, 0x7FE00010, "OB", fragment + delimiter(little, 0xFFFEE0DD), UNDEFINED)
    data = undefined(little, 0x00880200, pixels) + short(little, 0x00100010, "PN", b"A^")
    assert [e.tag for e in elements(data, little)] == [0x00880200, 0x00100010]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (short(EXPLICIT_LITTLE, 0x00080060, "CS", b"MR"), IMPLICIT_LITTLE),
        (short(IMPLICIT_LITTLE, 0x00080060, "CS", b"MR"), EXPLICIT_LITTLE),
        (short(EXPLICIT_LITTLE, 0x00080060, "QQ", b"MR"), EXPLICIT_LITTLE),
        (delimiter(IMPLICIT_LITTLE, 0xFFFEE00D), IMPLICIT_LITTLE),
        (delimiter(IMPLICIT_LITTLE, 0xFFFEE000), IMPLICIT_LITTLE),
        (bytes(4096), IMPLICIT_LITTLE),
        (long(EXPLICIT_LITTLE, 0x00080060, "UT", b"", UNDEFINED), EXPLICIT_LITTLE),
        (long(EXPLICIT_BIG, 0x00091010, "UN", b"", UNDEFINED), EXPLICIT_BIG),
    ],
)
def test_what_is_left_to_pydicom(data: bytes, encoding: Encoding) -> None:
    with pytest.raises(NotUnderstood):
        elements(data, encoding)


def test_errors_carry_the_numbers_through_pickle() -> None:
    data = short(EXPLICIT_LITTLE, 0x00080060, "CS", b"MR")[:-1]
    with pytest.raises(Truncated) as caught:
        elements(data, EXPLICIT_LITTLE)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.tag, error.offset, error.length, error.size) == (0x00080060, 8, 2, 9)
        assert str(error) == "at byte 8: (0008,0060) needs 2 bytes, the data end at byte 9"
    other = pickle.loads(pickle.dumps(NotUnderstood(5, "why")))
    assert (type(other), other.offset, str(other)) == (NotUnderstood, 5, "at byte 5: why")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_depth_is_bounded(encoding: Encoding) -> None:
    def nested(depth: int, bottom: bytes) -> bytes:
        for _ in range(depth):
            bottom = undefined(encoding, 0x00081140, bottom)
        return bottom

    deep = nested(DEEPEST + 1, short(encoding, 0x00080060, "CS", b"MR"))
    assert elements(deep, encoding)[0].undefined
    with pytest.raises(NotUnderstood, match="deep"):
        elements(nested(DEEPEST + 2, short(encoding, 0x00080060, "CS", b"CT")), encoding)
    bomb = (
        long(encoding, 0x00081140, "SQ", b"", UNDEFINED)
        + delimiter(encoding, 0xFFFEE000, UNDEFINED)
    ) * 100_000
    with pytest.raises(NotUnderstood, match="deep"):
        elements(bomb, encoding)


class Counted:
    """A source of which only the beginning and the end exist; the rest reads as zeros."""

    def __init__(self, head: bytes, gap: int, tail: bytes) -> None:
        self.head, self.tail, self.gap = head, tail, gap
        self.size = len(head) + gap + len(tail)
        self.read = 0
        self.calls = 0

    def __call__(self, offset: int, length: int) -> bytes:
        found = bytearray(max(0, min(length, self.size - offset)))
        for begin, part in ((0, self.head), (len(self.head) + self.gap, self.tail)):
            low, high = max(begin, offset), min(begin + len(part), offset + len(found))
            if low < high:
                found[low - offset : high - offset] = part[low - begin : high - begin]
        self.read += len(found)
        self.calls += 1
        return bytes(found)


@pytest.mark.parametrize("nested", [False, True])
def test_a_value_of_a_gigabyte_is_not_read(nested: bool) -> None:
    little, gap = EXPLICIT_LITTLE, 1 << 30
    head = long(little, 0x00091010, "OB", b"", gap)
    tail = b""
    if nested:
        around = undefined(little, 0x00081140, b"\0")
        head, tail = around[:20] + head, around[21:]
    source = Counted(head, gap, tail + short(little, 0x00100010, "PN", b"A^"))
    window = Window(source, source.size, step=4096)
    assert list(read_elements(window, 0, source.size, little, EVERYTHING).places) == [
        0x00081140 if nested else 0x00091010,
        0x00100010,
    ]
    assert source.read <= 2 * 4096
    assert source.calls <= 2


def test_no_byte_is_read_twice_and_at_most_one_step_too_many() -> None:
    header = b"".join(
        short(EXPLICIT_LITTLE, 0x00080000 + i, "LO", b"x" * (i % 64)) for i in range(5000)
    )
    source = Counted(header + long(EXPLICIT_LITTLE, 0x7FE00010, "OW", b"", 1 << 30), 1 << 30, b"")
    window = Window(source, source.size, step=4096)
    tags = [0x00080000 + i for i in range(5000)]
    wanted = Filter([Wanted((tag,), tag) for tag in tags])
    found = read_elements(window, 0, source.size, EXPLICIT_LITTLE, wanted)
    assert [found.values[tag].value for tag in tags] == [b"x" * (i % 64) for i in range(5000)]
    assert source.read <= len(source.head) + 2 * len(source.head)
    assert source.calls <= 10
    assert source.read == window.start + len(window.data)


def test_bytes_in_hand_are_not_read_again() -> None:
    data = short(EXPLICIT_LITTLE, 0x00080060, "CS", b"MR")
    source = Counted(data, 0, b"")
    window = Window(source, len(data))
    assert len(read_elements(window, 0, len(data), EXPLICIT_LITTLE, EVERYTHING).places) == 1
    assert window.bytes_at(8, 2) == b"MR"
    with pytest.raises(Truncated):
        window.bytes_at(8, 3)
    assert (source.calls, source.read) == (1, len(data))


def visit(window: Window, begin: int, end: int, encoding: Encoding) -> None:
    found = read_elements(window, begin, end, encoding, EVERYTHING)
    for element in found.places.values():
        assert begin <= element.offset <= end
        if element.tag not in PIXEL_DATA:
            visit_inside(window, element, encoding, end, 0)


def visit_inside(
    window: Window, element: Element, encoding: Encoding, end: int, depth: int
) -> None:
    assert element.offset + element.length <= end
    if depth == 3 or element.vr not in ("SQ", None) or not (element.vr or element.undefined):
        return
    for item in read_items(window, element, encoding, EVERYTHING):
        for inside in item.places.values():
            assert element.offset < inside.offset
            stop = element.offset + element.length
            visit_inside(window, inside, encoding, stop, depth + 1)


def undefine(at: int, broken: bytearray) -> None:
    """Write what says that a length is undefined."""
    broken[at : at + 4] = b"\xff" * 4


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "rtplan.dcm", "MR_small_bigendian.dcm", "liver_1frame.dcm", "DICOMDIR"]
)
def test_damage_is_understood_or_refused(name: str) -> None:
    path = next(PACKAGED.rglob(name))
    data = path.read_bytes()
    data, encoding, begin = data_set(data, pydicom.dcmread(BytesIO(data), stop_before_pixels=True))
    data = data[begin : begin + 20_000]
    rng = random.Random(name)

    def damaged(damage: Callable[[bytearray], None]) -> None:
        broken = bytearray(data)
        damage(broken)
        source = Counted(bytes(broken), 0, b"")
        began = time.perf_counter()
        try:
            window = Window(source, len(broken), step=512)
            read_elements(window, 0, len(broken), encoding, EVERYTHING)
            assert source.read <= len(broken)
            visit(over(bytes(broken)), 0, len(broken), encoding)
        except NotUnderstood:
            pass
        assert source.read <= len(broken)
        assert time.perf_counter() - began < 5

    for _ in range(150):
        damaged(lambda broken: broken.__delitem__(slice(rng.randrange(len(broken)), None)))
    for _ in range(400):
        damaged(lambda broken: broken.__setitem__(rng.randrange(len(broken)), rng.randrange(256)))
    for _ in range(100):
        at = rng.randrange(len(data) - 4)
        damaged(partial(undefine, at))


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.binary(max_size=400), encoding=st.sampled_from(ENCODINGS))
def test_any_bytes_are_understood_or_refused(data: bytes, encoding: Encoding) -> None:
    try:
        visit(over(data), 0, len(data), encoding)
    except NotUnderstood as error:
        assert error.offset >= 0
