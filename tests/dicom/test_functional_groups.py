"""The pass over functional groups gives what pydicom reads, or says that it does not understand."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_groups import (
    COLUMNS,
    CONTENT,
    ECHO,
    ENCODINGS,
    EVERYTHING,
    GROUPS,
    LEAVES,
    POSITION,
    TREES,
    WANTED,
    as_item,
    build,
    counted,
    every_way,
    explicit,
    open_ended,
    positions,
    written,
)
from make_dicom import described, part10, pixel_element
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from dcmdask.dicom.conversion import LONGEST, UNREADABLE
from dcmdask.dicom.description import describe
from dcmdask.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Element,
    Encoding,
    NotUnderstood,
    Window,
)
from dcmdask.dicom.groups.functional_groups import rows_of_dataset, value_bytes
from dcmdask.dicom.groups.items import rows
from dcmdask.dicom.walk import read_elements
from dcmdask.sources import files


def found(data: bytes, encoding: Encoding, step: int = 1 << 14) -> list[list[bytes]]:
    window = counted(data, step)
    (sequence,) = read_elements(window, 0, len(data), encoding, EVERYTHING).places.values()
    return [filled(row) for row in rows(window, sequence, encoding, WANTED)]


def filled(row: dict[int, bytes]) -> list[bytes]:
    return [row.get(column, b"") for column in range(COLUMNS)]


def raw_values(items: Iterator[Dataset] | Sequence) -> list[list[bytes]]:
    """The same from data sets that pydicom read and did not convert."""
    expected = []
    for item in items:
        row = [b""] * COLUMNS
        for leaf in LEAVES:
            inside = item
            for tag in leaf.path[:-1]:
                items_there = inside[tag].value if tag in inside else []
                inside = items_there[0] if len(items_there) else Dataset()
            if leaf.path[-1] in inside:
                raw = inside.get_item(leaf.path[-1])
                assert isinstance(raw, RawDataElement)
                row[leaf.key] = raw.value or row[leaf.key]
        expected.append(row)
    return expected


def by_pydicom(data: bytes, encoding: Encoding) -> Dataset:
    return read_dataset(DicomBytesIO(data), encoding.implicit, encoding.little_endian)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(
    trees=st.lists(st.tuples(TREES, st.booleans()), max_size=6),
    with_length=st.booleans(),
    encoding=st.sampled_from(ENCODINGS),
    step=st.sampled_from([12, 13, 64, 1 << 14]),
)
def test_rows_are_those_of_pydicom(
    trees: list[tuple[dict[str, object], bool]], with_length: bool, encoding: Encoding, step: int
) -> None:
    items = [build(tree, with_length=closed) for tree, closed in trees]
    data = written(items, encoding, with_length=with_length)
    read = by_pydicom(data, encoding)[GROUPS].value
    expected = raw_values(read)
    assert found(data, encoding, step=step) == expected
    # The second time every header is known.
    assert found(data, encoding, step=step) == expected
    assert [filled(row) for row in rows_of_dataset(read, encoding, WANTED)] == [
        [value.rstrip(b" \0") if i in (0, 2, 6) else value for i, value in enumerate(row)]
        for row in expected
    ]


def column(data: bytes, encoding: Encoding, number: int = 0) -> list[bytes]:
    return [row[number].rstrip() for row in found(data, encoding)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_sequence_is_never_held_whole(encoding: Encoding) -> None:
    data = written(positions(60), encoding)
    header = 8 if encoding.implicit else 12
    order = "<L" if encoding.little_endian else ">L"
    body = data[header:] * 1500
    data = data[: header - 4] + struct.pack(order, len(body)) + body
    assert len(data) > 3 << 20
    window = counted(data)
    (sequence,) = read_elements(window, 0, len(data), encoding, EVERYTHING).places.values()
    count = 0
    for i, row in enumerate(rows(window, sequence, encoding, WANTED)):
        assert row[0].rstrip() == b"0\\0\\%d" % (i % 60)
        assert len(window.data) < 1.5 * (1 << 20)
        count += 1
    assert count == 90_000


def test_the_window_may_be_used_between_two_rows() -> None:
    data = written(positions(500), EXPLICIT_LITTLE)
    window = counted(data, step=64)
    (sequence,) = read_elements(window, 0, len(data), EXPLICIT_LITTLE, EVERYTHING).places.values()
    for i, row in enumerate(rows(window, sequence, EXPLICIT_LITTLE, WANTED)):
        assert row[0].rstrip() == b"0\\0\\%d" % i
        window.bytes_at(0 if i % 2 else len(data) - 9, 9)


def test_an_item_larger_than_the_window() -> None:
    items = positions(3)
    for item in items:
        item.add_new(0x00091001, "OB", bytes(300_000))
        item.is_undefined_length_sequence_item = True
    data = written(items, EXPLICIT_LITTLE, with_length=False)
    assert column(data, EXPLICIT_LITTLE) == [b"0\\0\\0", b"0\\0\\1", b"0\\0\\2"]


def test_a_length_that_looks_like_a_vr_is_a_length() -> None:
    # 0x4F42 is "BO", as if the header were one of explicit VR.
    items = positions(2)
    for item in items:
        item.add_new(0x00211010, "OB", bytes(0x4F42))
        item.add_new(0x00541300, "DS", "3")
    data = written(items, IMPLICIT_LITTLE)
    assert column(data, IMPLICIT_LITTLE) == [b"0\\0\\0", b"0\\0\\1"]


def test_of_too_long_a_value_the_beginning_counts() -> None:
    begin = b"1\\" * (LONGEST // 2)
    for encoding in ENCODINGS:
        long, short = build({}), build({"InstanceNumber": 7})
        long.add_new(0x00200013, "IS", ["1"] * LONGEST)
        data = written([long, short, long, long], encoding)
        assert column(data, encoding, 6) == [begin, b"7", begin, begin]
        read = by_pydicom(data, encoding)[GROUPS].value
        by_dataset = rows_of_dataset(read, encoding, WANTED)
        assert [row.get(6, b"") for row in by_dataset] == [begin, b"7", begin, begin]


def nested(depth: int) -> Dataset:
    item = build({"TriggerTime": depth})
    for _ in range(depth):
        item.is_undefined_length_sequence_item = True
        outer = Dataset()
        outer.add_new(0x00082112, "SQ", Sequence([item]))
        outer[0x00082112].is_undefined_length = True
        item = outer
    return item


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_depth_is_bounded(encoding: Encoding) -> None:
    assert found(written([nested(40)], encoding), encoding) == [[b""] * COLUMNS]
    data = written([nested(90)], encoding)
    sequence = Element(GROUPS, None if encoding.implicit else "SQ", 12, len(data) - 12, False)
    if encoding.implicit:
        sequence = sequence._replace(offset=8, length=len(data) - 8)
    with pytest.raises(NotUnderstood, match="deep"):
        list(rows(counted(data), sequence, encoding, WANTED))


LEFT_TO_PYDICOM = {
    "a sequence as UN": explicit(GROUPS, b"UN", as_item(b"")),
    "a macro as UN": explicit(GROUPS, b"SQ", as_item(explicit(POSITION, b"UN", as_item(b"")))),
    "another VR": explicit(GROUPS, b"SQ", as_item(explicit(0x00200013, b"LO", b"1 "))),
    "no VR": explicit(GROUPS, b"SQ", as_item(explicit(0x00200014, b"??", b"1 "))),
    "not an item": explicit(GROUPS, b"SQ", explicit(0x00200013, b"IS", b"1 ")),
    "an element past its item": explicit(
        GROUPS, b"SQ", as_item(explicit(0x00200014, b"IS", b"1 ", 6)) + as_item(b"")
    ),
    "an item past its sequence": explicit(
        GROUPS,
        b"SQ",
        as_item(explicit(POSITION, b"SQ", as_item(b"", 8)) + explicit(8 << 16, b"UL", b"")),
    ),
    "a stray delimiter": explicit(
        GROUPS, b"SQ", as_item(struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + bytes(8))
    ),
    "encapsulated pixel data": explicit(
        GROUPS, b"SQ", as_item(explicit(0x7FE00010, b"OB", b"", 0xFFFFFFFF))
    ),
}


@pytest.mark.parametrize("name", LEFT_TO_PYDICOM)
def test_left_to_pydicom(name: str) -> None:
    with pytest.raises(NotUnderstood):
        found(LEFT_TO_PYDICOM[name], EXPLICIT_LITTLE)


def test_an_element_that_takes_the_next_item_along() -> None:
    # Its header is known from another item, in which it fits.
    long = explicit(0x00200014, b"LO", b"1234567890")
    good = explicit(GROUPS, b"SQ", as_item(long) + as_item(explicit(0x00200013, b"IS", b"3 ")))
    assert column(good, EXPLICIT_LITTLE, 6) == [b"", b"3"]
    cut = as_item(long[:10]) + as_item(b"")
    with pytest.raises(NotUnderstood, match="past the end"):
        found(explicit(GROUPS, b"SQ", cut + as_item(b"")), EXPLICIT_LITTLE)


def test_a_leaf_as_un_is_what_its_tag_says() -> None:
    data = explicit(GROUPS, b"SQ", as_item(explicit(0x00200013, b"UN", b"12")))
    assert column(data, EXPLICIT_LITTLE, 6) == [b"12"]


def test_value_bytes_have_the_vr_that_is_wanted() -> None:
    dataset = Dataset()
    dataset.add_new(0x00189087, "DS", "1000")
    dataset.add_new(0x00209165, "AT", 0x00200032)
    dataset.add_new(0x00200032, "DS", ["1.50", "2", "3"])
    dataset.add_new(0x00200013, "LO", "seven")
    assert value_bytes(dataset, 0x00189087, "FD", EXPLICIT_LITTLE) == struct.pack("<d", 1000)
    assert value_bytes(dataset, 0x00189087, "FD", EXPLICIT_BIG) == struct.pack(">d", 1000)
    assert value_bytes(dataset, 0x00209165, "AT", EXPLICIT_LITTLE) == b"\x20\0\x32\0"
    assert value_bytes(dataset, 0x00200032, "DS", EXPLICIT_LITTLE) == b"1.50\\2\\3"
    assert value_bytes(dataset, 0x00200013, "US", EXPLICIT_LITTLE) == UNREADABLE
    assert value_bytes(dataset, 0x00200012, "US", EXPLICIT_LITTLE) == b""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_damage_is_understood_or_refused(encoding: Encoding) -> None:
    whole = every_way(encoding)
    header = 8 if encoding.implicit else 12
    choose = random.Random(str(encoding))
    reads = 0

    def read(data: bytes, offset: int, length: int) -> bytes:
        nonlocal reads
        reads += length
        return data[offset : offset + length]

    for i in range(600):
        data = bytearray(whole)
        for _ in range(choose.randrange(1, 4)):
            at = choose.randrange(header, len(data) - 4)
            if i % 3 == 0:
                data[at] ^= 1 << choose.randrange(8)
            elif i % 3 == 1:
                data[at : at + 4] = choose.choice([b"\xff" * 4, bytes(4), b"\xff\xff\0\0"])
            else:
                del data[at : at + choose.randrange(1, 30)]
        vr = None if encoding.implicit else "SQ"
        sequence = Element(GROUPS, vr, header, len(data) - header, bool(i % 2))
        window = Window(partial(read, bytes(data)), len(data), step=256)
        reads, count = 0, 0
        try:
            for row in rows(window, sequence, encoding, WANTED):
                count += 1
                assert row.keys() <= set(range(COLUMNS))
        except NotUnderstood as error:
            assert error.offset >= 0
        assert count <= len(data) // 8
        assert reads <= 4 * len(data)


@settings(max_examples=200, database=None)
@given(data=st.binary(max_size=300), encoding=st.sampled_from(ENCODINGS), undefined=st.booleans())
def test_any_bytes_are_understood_or_refused(
    data: bytes, encoding: Encoding, undefined: bool
) -> None:
    vr = None if encoding.implicit else "SQ"
    start = struct.pack("<HHL" if encoding.little_endian else ">HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    for content in (data, start + data):
        sequence = Element(GROUPS, vr, 0, len(content), undefined)
        try:
            for row in rows(counted(content), sequence, encoding, WANTED):
                assert row.keys() <= set(range(COLUMNS))
        except NotUnderstood as error:
            assert error.offset >= 0


def with_columns(template: bytes, columns: dict[bytes, np.ndarray]) -> bytes:
    """`template` for each row of the columns, which stand where their marks are."""
    count = len(next(iter(columns.values())))
    table = np.tile(np.frombuffer(template, "u1"), (count, 1))
    for mark, values in columns.items():
        assert template.count(mark) == 1 and values.itemsize == len(mark)
        at = template.index(mark)
        table[:, at : at + len(mark)] = values.view("u1").reshape(count, -1)
    return table.tobytes()


@pytest.mark.slow
def test_many_thousand_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of undefined lengths, as the slowest files have them; read once, into the right rows."""
    count, slices = 20_000, 250
    numbers = np.arange(count)
    z, t = numbers % slices, numbers // slices
    y = numbers % 7 - 3.25
    times = t + z / 512
    echo_times = np.where(numbers % 2, 30.5, 60.25)
    slopes = 1 + numbers % 13 / 8
    group = (
        open_ended(
            CONTENT,
            explicit(0x00209056, b"SH", b"1 ")
            + explicit(0x00209057, b"UL", b"zzzz")
            + explicit(0x00209128, b"UL", b"tttt"),
        )
        + open_ended(POSITION, explicit(0x00200032, b"DS", b"-12.25\\ppppppp\\dddddddd "))
        + open_ended(0x00209310, explicit(0x0020930D, b"FD", b"TTTTTTTT"))
        + open_ended(ECHO, explicit(0x00189082, b"FD", b"eeeeeeee"))
        + open_ended(0x00289145, explicit(0x00281053, b"DS", b"ssssssss"))
    )
    sequence = open_ended(GROUPS, group)
    head, one, end = sequence[:12], sequence[12:-8], sequence[-8:]
    items = with_columns(
        one,
        {
            b"zzzz": (z + 1).astype("<u4"),
            b"tttt": (t + 1).astype("<u4"),
            b"ppppppp": np.array([b"%7.2f" % value for value in y]),
            b"dddddddd": np.array([b"%8.2f" % value for value in 2.5 * z]),
            b"TTTTTTTT": times.astype("<f8"),
            b"eeeeeeee": echo_times.astype("<f8"),
            b"ssssssss": np.array([b"%8.3f" % value for value in slopes]),
        },
    )
    pixels = np.zeros((count, 1, 1), "u1")
    dataset = described(pixels, SOPClassUID=EnhancedMRImageStorage)
    element = pixel_element(pixels.tobytes(), ExplicitVRLittleEndian)
    path = tmp_path / "many"
    path.write_bytes(part10(dataset, ExplicitVRLittleEndian, head + items + end + element))
    reads = counted_reads(monkeypatch)

    facts = describe(files.locate(path)).facts

    # Once over the elements, and once over the functional groups; never held whole.
    assert sum(reads) < 2.1 * path.stat().st_size
    assert max(reads) < 2 << 20
    positions = np.column_stack([np.full(count, -12.25), y, 2.5 * z])
    np.testing.assert_array_equal(facts["position"], positions)
    np.testing.assert_array_equal(facts["position_index"], z + 1)
    np.testing.assert_array_equal(facts["temporal_position"], t + 1)
    np.testing.assert_array_equal(facts["reference_time"], 1000 * times)
    np.testing.assert_array_equal(facts["echo_time"], echo_times)
    np.testing.assert_array_equal(facts["slope"], slopes)
    assert (facts["stack_id"] == b"1").all()
    assert np.isnan(facts["trigger_time"]).all()


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of an open file gave from here on."""
    reads: list[int] = []
    really = files.opened

    class Counting:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file

        def read(self, length: int) -> bytes:
            data = self.file.read(length)
            reads.append(len(data))
            return data

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    @contextlib.contextmanager
    def counting(source: files.Source) -> Iterator[Any]:
        with really(source) as file:
            yield Counting(file)

    monkeypatch.setattr(files, "opened", counting)
    return reads
