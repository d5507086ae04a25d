"""Frame index by the tags of a TIFF file that is the same file, right or wrong."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_checks import opened
from made_slides import made_slide
from made_tiff import TILE_BYTE_COUNTS, TILE_OFFSETS, Page, page_of, with_tiff
from pydicom import dcmread

from dcmdask import DecodeError
from dcmdask.dicom import frame_index, offsets
from dcmdask.dicom.tiles import tiff
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.sources import ranges

URL = "memory://tiff/a.dcm"
BY_TAGS, BY_ITEMS = "TIFF tag TileOffsets", "item headers"
WRONG = "the TIFF tag TileOffsets is wrong"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """12 tiles without an offset table."""
    return made_slide(tmp_path_factory.mktemp("plain"), table="none").levels[0].path.read_bytes()


def page_for(data: bytes) -> Page:
    """The page whose tiles are the items of `data`."""
    frames = opened(data)
    starts, lengths = frames._instance.spans.locate(np.arange(len(frames)))
    header = dcmread(BytesIO(data), stop_before_pixels=True)
    return page_of(header, [at + 8 for at in starts], [length - 8 for length in lengths])


def remote(data: bytes, *notes: str) -> FrameArray:
    with fsspec.open(URL, "wb") as file:
        file.write(data)
    return opened(URL, *notes)


def same(found: FrameArray, expected: FrameArray) -> None:
    everything = np.arange(len(expected))
    assert found._instance.spans.locate(everything) == expected._instance.spans.locate(everything)
    np.testing.assert_array_equal(found[:], expected[:])


@pytest.mark.parametrize("kind", ["II*", "MM*", "II+", "MM+"])
def test_tags_are_the_index_of_a_remote_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[int] = []

    def walk(*arguments: Any) -> offsets.Fragments:
        found = offsets_walk(*arguments)
        walked.append(len(found.offsets))
        return found

    offsets_walk = offsets.walk_fragments
    made = made_slide(tmp_path, table="none", dual=kind).levels[0]
    monkeypatch.setattr(offsets, "walk_fragments", walk)
    found = remote(made.path.read_bytes())
    assert (found.indexed_by, walked) == (BY_TAGS, [1])
    local = opened(made.path)
    assert local.indexed_by == BY_ITEMS
    same(found, local)


def test_tags_are_the_index_of_a_local_file_of_many_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_slide(tmp_path, table="none", dual="II+").levels[0]
    by_items = opened(made.path)
    monkeypatch.setattr(frame_index, "MANY", 12)
    by_tags = opened(made.path)
    assert (by_items.indexed_by, by_tags.indexed_by) == (BY_ITEMS, BY_TAGS)
    same(by_tags, by_items)
    monkeypatch.setattr(frame_index, "MANY", 13)
    assert opened(made.path).indexed_by == BY_ITEMS


def test_an_offset_table_comes_before_tags(tmp_path: Path) -> None:
    made = made_slide(tmp_path, table="basic", dual="II*").levels[0]
    assert remote(made.path.read_bytes()).indexed_by == "Basic Offset Table"


def test_lengths_may_leave_out_the_padding(plain: bytes) -> None:
    page = page_for(plain)
    ends = [plain[at + length - 1] for at, length in zip(*(page[tag] for tag in TAGS), strict=True)]
    assert 0 in ends
    page[TILE_BYTE_COUNTS] = [
        length - (end == 0) for length, end in zip(page[TILE_BYTE_COUNTS], ends, strict=True)
    ]
    assert remote(with_tiff(plain, "II*", [page])).indexed_by == BY_TAGS


TAGS = (TILE_OFFSETS, TILE_BYTE_COUNTS)


def test_the_page_that_fits_among_others(plain: bytes) -> None:
    page = page_for(plain)
    places, lengths = (page[tag] for tag in TAGS)
    label = {256: [40], 257: [50], 273: [900], 279: [2000]}
    level = {**page, TILE_OFFSETS: places[:3], TILE_BYTE_COUNTS: lengths[:3]}
    elsewhere = {**page, TILE_OFFSETS: [at + 100_000 for at in places]}
    for order in ([label, level, elsewhere, page], [page, label], [elsewhere, page, level]):
        found = remote(with_tiff(plain, "MM+", order))
        assert found.indexed_by == BY_TAGS
        same(found, opened(plain))
    assert remote(with_tiff(plain, "II*", [label, level, elsewhere])).indexed_by == BY_ITEMS


def moved(values: list[int], first: int, by: int) -> list[int]:
    return [*values[:first], *(value + by for value in values[first:])]


def exchanged(values: list[int]) -> list[int]:
    return [*values[:4], values[5], values[4], *values[6:]]


LIES: dict[str, tuple[Callable[[list[int], list[int]], tuple[list[int], list[int]]], str]] = {
    "all tiles moved": (lambda places, lengths: (moved(places, 0, 8), lengths), ""),
    "places of the item headers": (lambda places, lengths: (moved(places, 0, -8), lengths), ""),
    "some tiles moved": (lambda places, lengths: (moved(places, 3, 2), lengths), WRONG),
    "tiles exchanged": (lambda places, lengths: (exchanged(places), exchanged(lengths)), WRONG),
    "lengths exchanged": (lambda places, lengths: (places, exchanged(lengths)), WRONG),
    "the same tile again": (lambda places, lengths: ([places[0]] * 12, [lengths[0]] * 12), WRONG),
    "too few": (lambda places, lengths: (places[:-1], lengths[:-1]), ""),
    "too many": (lambda places, lengths: ([*places, places[-1] + 8], [*lengths, 8]), ""),
    "outside of the file": (lambda places, lengths: (moved(places, 6, 10**8), lengths), WRONG),
    "beyond 64 bits": (lambda places, lengths: (moved(places, 6, 2**63), lengths), WRONG),
}


@pytest.mark.parametrize("lie", LIES)
def test_tags_that_lie_give_way_to_the_items(lie: str, plain: bytes) -> None:
    page = page_for(plain)
    change, note = LIES[lie]
    page[TILE_OFFSETS], page[TILE_BYTE_COUNTS] = change(*(page[tag] for tag in TAGS))
    found = remote(with_tiff(plain, "II+", [page]), *[note] * bool(note))
    assert found.indexed_by == BY_ITEMS
    same(found, opened(plain))


@pytest.mark.parametrize("split", [4, 9])
def test_lies_that_are_consistent_are_noticed_by_the_frames(
    split: int, plain: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two items as one tile, and another as two: not by the frames between them.

    The items that are compared are those in the bytes at hand when a file is opened.
    """
    monkeypatch.setattr(ranges, "FIRST", 1500)
    page = page_for(plain)
    places, lengths = (page[tag] for tag in TAGS)
    places = [*places[:2], *places[3 : split + 1], places[split] + 108, *places[split + 1 :]]
    lengths = [*np.diff(np.array(places) - 8) - 8, lengths[-1]]
    page[TILE_OFFSETS], page[TILE_BYTE_COUNTS] = places, list(map(int, lengths))
    found = remote(with_tiff(plain, "II+", [page]))
    assert found.indexed_by == BY_TAGS
    for frame in (1, split - 1, split):
        with pytest.raises(DecodeError) as caught:
            found[frame]
        assert caught.value.code.endswith("items")


def test_an_offset_table_of_many_entries_is_believed_and_each_item_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_index, "LOOKS", 2)
    made = made_slide(tmp_path, table="basic").levels[0]
    frames = opened(made.path)
    starts, _ = frames._instance.spans.locate(np.arange(12))
    data = bytearray(made.path.read_bytes())
    entry = starts[0] - 4 * 12 + 4 * 5
    data[entry : entry + 4] = (int.from_bytes(data[entry : entry + 4], "little") + 2).to_bytes(
        4, "little"
    )
    made.path.write_bytes(data)
    walked = opened(made.path, "the Basic Offset Table is wrong")
    assert walked.indexed_by == BY_ITEMS
    monkeypatch.setattr(frame_index, "MANY", 12)
    believed = opened(made.path)
    assert believed.indexed_by == "Basic Offset Table"
    for frame in range(12):
        if frame in (4, 5):
            with pytest.raises(DecodeError, match="offset table is wrong"):
                believed[frame]
        else:
            np.testing.assert_array_equal(believed[frame], walked[frame])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["II*", "MM*", "II+", "MM+"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), max_size=4),
    cut=st.integers(0, 400),
)
def test_damaged_tags_never_raise(
    kind: str, changes: list[tuple[int, bytes]], cut: int, plain: bytes
) -> None:
    page = page_for(plain)
    data = bytearray(with_tiff(plain, kind, [page])[: 0 - cut or None])
    for at, value in changes:
        # In the header, or from the end.
        place = at if at < 16 else len(data) - at
        data[place : place + len(value)] = value
    found = tiff.find_tiles(BytesIO(data), page[TILE_OFFSETS][0], 12)
    assert found is None or len(found.offsets) == len(found.lengths) == 12


@pytest.mark.parametrize("kind", ["II*", "MM+"])
def test_pages_in_a_loop(kind: str, plain: bytes) -> None:
    """The last page is followed by the first again."""
    data = bytearray(with_tiff(plain, kind, [{256: [1]}]))
    order, width, at = ("little", 4, 4) if kind == "II*" else ("big", 8, 8)
    first = data[at : at + width]
    entry = int.from_bytes(first, order)
    end = entry + (2 + 12 if kind == "II*" else 8 + 20)
    assert data[end : end + width] == bytes(width)
    data[end : end + width] = first
    assert tiff.find_tiles(BytesIO(data), 1000, 12) is None
