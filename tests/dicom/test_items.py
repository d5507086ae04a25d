"""Values of many items at once are those of one item after the other."""

from __future__ import annotations

import random
import struct
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_groups import (
    ENCODINGS,
    EVERYTHING,
    GROUPS,
    TREES,
    WANTED,
    build,
    counted,
    every_way,
    explicit,
    positions,
    written,
)
from real_files import corpus_files, packaged_files

from dcmdask.dicom.elements import (
    EXPLICIT_LITTLE,
    Element,
    Encoding,
    Filter,
    NotUnderstood,
    window_over,
)
from dcmdask.dicom.groups import functional_groups, items
from dcmdask.dicom.groups.items import batches, rows
from dcmdask.dicom.header import read_header
from dcmdask.dicom.tiles import positions as tile_positions
from dcmdask.dicom.walk import read_elements
from dcmdask.errors import DcmdaskError
from dcmdask.sources import files

Rows = list[dict[int, bytes]] | None


def one_by_one(
    data: bytes, place: Element, encoding: Encoding, most: int, wanted: Filter = WANTED
) -> Rows:
    """The values of each item; None where they are not understood."""
    try:
        return list(islice(rows(counted(data), place, encoding, wanted), most))
    except NotUnderstood:
        return None


def at_once(
    data: bytes, place: Element, encoding: Encoding, most: int, wanted: Filter = WANTED
) -> Rows:
    """The same from batches."""
    found: dict[int, dict[int, bytes]] = {}
    try:
        for numbers, values in batches(counted(data), place, encoding, wanted, most):
            assert all(len(one) == len(numbers) and one.shape[1] for one in values.values())
            for at, number in enumerate(numbers.tolist()):
                assert number not in found
                found[number] = {key: one[at].tobytes() for key, one in values.items()}
    except NotUnderstood:
        return None
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in range(len(found))]


def sequence_in(data: bytes, encoding: Encoding) -> Element:
    (place,) = read_elements(counted(data), 0, len(data), encoding, EVERYTHING).places.values()
    return place


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of few items, of which two are enough to learn from one."""
    monkeypatch.setattr(items, "PIECE_BYTES", 700)
    monkeypatch.setattr(items, "_WORTH", 2)


@pytest.mark.usefixtures("small")
@settings(
    max_examples=80,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    trees=st.lists(st.tuples(TREES, st.sampled_from([True, True, True, False])), max_size=4),
    with_length=st.booleans(),
    encoding=st.sampled_from(ENCODINGS),
    most=st.sampled_from([0, 5, 39, 40, 100]),
    damage=st.integers(0, 30),
    choose=st.randoms(use_true_random=False),
)
def test_batches_are_rows(
    trees: list[tuple[dict[str, object], bool]],
    with_length: bool,
    encoding: Encoding,
    most: int,
    damage: int,
    choose: random.Random,
) -> None:
    kinds = [build(tree, with_length=closed) for tree, closed in trees]
    # Values, lengths, tags and VRs differ here and there.
    data = bytearray(
        written(
            [choose.choice(kinds) for _ in range(40 if kinds else 0)],
            encoding,
            with_length=with_length,
        )
    )
    place = sequence_in(bytes(data), encoding)
    for _ in range(damage if len(data) > place.offset else 0):
        data[choose.randrange(place.offset, len(data))] = choose.randrange(256)
    expected = one_by_one(bytes(data), place, encoding, most)
    assert at_once(bytes(data), place, encoding, most) == expected
    cut = place._replace(length=place.length - choose.randrange(place.length + 1))
    expected = one_by_one(bytes(data), cut, encoding, most)
    assert at_once(bytes(data), cut, encoding, most) == expected


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_values_alone_differ(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    """One item of each length is walked over, and no other."""
    data = written(positions(2000), encoding)
    place = sequence_in(data, encoding)
    walked = 0
    really = items.rows

    def counting(*args: object) -> object:
        nonlocal walked
        walked += 1
        return really(*args)

    expected = one_by_one(data, place, encoding, 2000)
    assert expected is not None and len({row[0] for row in expected}) == 2000
    monkeypatch.setattr(items, "rows", counting)
    assert at_once(data, place, encoding, 2000) == expected
    assert walked < 20


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_damage_is_the_same_to_both(encoding: Encoding, small: None) -> None:
    whole = every_way(encoding)
    header = 8 if encoding.implicit else 12
    choose = random.Random(str(encoding))
    for i in range(300):
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
        place = Element(GROUPS, vr, header, len(data) - header, bool(i % 2))
        expected = one_by_one(bytes(data), place, encoding, 100)
        assert at_once(bytes(data), place, encoding, 100) == expected


def closed(*elements: bytes) -> bytes:
    """Items of explicit length."""
    return b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(one)) + one for one in elements)


def test_of_several_elements_for_one_key_the_last_counts(small: None) -> None:
    one, other = (
        explicit(0x00209171, b"SQ", closed(explicit(0x00189087, b"FD", bytes(8)))),
        explicit(0x00189117, b"SQ", closed(explicit(0x00189087, b"FD", b"\1" * 8))),
    )
    empty = explicit(0x00189117, b"SQ", closed(explicit(0x00189087, b"FD", b"")))
    for group in (one + other, other + one, one + empty, empty + one, other + other, one + one):
        data = closed(*[group] * 9)
        place = Element(GROUPS, "SQ", 0, len(data), False)
        expected = one_by_one(data, place, EXPLICIT_LITTLE, 9)
        assert expected is not None and len(expected) == 9
        assert at_once(data, place, EXPLICIT_LITTLE, 9) == expected


def test_a_long_value_is_cut_and_too_many_forms_are_walked_over(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "_MOST_TEMPLATES", 3)
    inner = [explicit(0x00209056, b"SH", b"x" * (1020 + 2 * (n % 7))) for n in range(60)]
    data = closed(*(explicit(0x00209111, b"SQ", closed(one)) for one in inner))
    monkeypatch.setattr(items, "PIECE_BYTES", 1 << 15)
    place = Element(GROUPS, "SQ", 0, len(data), False)
    expected = one_by_one(data, place, EXPLICIT_LITTLE, 60)
    assert expected is not None and max(len(row[2]) for row in expected) == 1024
    assert at_once(data, place, EXPLICIT_LITTLE, 60) == expected


def test_an_item_that_is_larger_than_a_piece(small: None) -> None:
    big = explicit(0x00091001, b"OB", bytes(900))
    data = closed(
        *[explicit(0x00200013, b"IS", b"1 ")] * 5, big, explicit(0x00200013, b"IS", b"2 ")
    )
    place = Element(GROUPS, "SQ", 0, len(data), False)
    expected = [{6: b"1 "}] * 5 + [{}, {6: b"2 "}]
    assert at_once(data, place, EXPLICIT_LITTLE, 9) == expected


def test_a_sequence_is_never_held_whole() -> None:
    data = written(positions(60), EXPLICIT_LITTLE)[12:] * 4000
    place = Element(GROUPS, "SQ", 0, len(data), False)
    window = counted(data)
    assert len(data) > 2 * items.PIECE_BYTES
    count = 0
    for numbers, _ in batches(window, place, EXPLICIT_LITTLE, WANTED, 240_000):
        assert len(window.data) < 1.5 * items.PIECE_BYTES
        count += len(numbers)
    assert count == 240_000


PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_groups_of_real_files(part: int, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "PIECE_BYTES", 1 << 14)
    tags = functional_groups.SEQUENCES
    seen = 0
    for path in [*corpus_files(), *packaged_files()][part::PARTS]:
        source = files.locate(path)
        try:
            header = read_header(source, (), "", tags)
        except (DcmdaskError, OSError):
            continue
        place = header.sequences.get(functional_groups.PER_FRAME)
        if place is None:
            continue
        for wanted in (tile_positions._FRAME, functional_groups._GROUPS):
            with files.opened(header.source) as file:
                data = window_over(file, header.source.size).bytes_at(place.offset, place.length)
            inside = place._replace(offset=0)
            expected = one_by_one(data, inside, header.encoding, 5000, wanted)
            assert at_once(data, inside, header.encoding, 5000, wanted) == expected
        seen += 1
    assert seen > (2 if corpus_files() else 0)
