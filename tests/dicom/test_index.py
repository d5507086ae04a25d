"""Where the frames are: spans that cover what was encoded, whatever the tables say."""

import io
import itertools
import pickle
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_checks import opened
from make_dicom import (
    LOSSLESS,
    by_pydicom,
    encapsulated,
    encoded,
    fragments_of,
    item,
    native,
    noise,
    patched,
    saved,
    tables_of,
)
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dcmdask import from_dicom
from dcmdask.dicom import frame_count
from dcmdask.dicom.description import describe
from dcmdask.dicom.instance import Instance, open_instance
from dcmdask.dicom.offsets import ItemSpans, walk_fragments
from dcmdask.errors import DcmdaskWarning, HeaderError, PixelDataError
from dcmdask.pixels.frame_array import FrameArray, open_frames
from dcmdask.sources.files import locate

NUMBER_OF_FRAMES = 0x00280008


def spans_of(frames: FrameArray) -> list[tuple[int, int]]:
    instance: Instance = frames._instance
    offsets, lengths = instance.spans.locate(np.arange(len(instance)))
    return list(zip(offsets, [o + n for o, n in zip(offsets, lengths, strict=True)], strict=True))


def items_in(span: bytes) -> list[bytes]:
    """The fragments of a span, by a reading of PS3.5 A.4 that shares no code with ours."""
    fragments, position = [], 0
    while position < len(span):
        tag, length = struct.unpack_from("<4sL", span, position)
        assert tag == b"\xfe\xff\x00\xe0"
        fragments.append(span[position + 8 : position + 8 + length])
        position += 8 + length
    assert position == len(span)
    return fragments


# Encapsulated: what was encoded is found.

SYNTAXES = st.sampled_from(LOSSLESS)
SHAPES = st.tuples(st.integers(1, 5), st.integers(8, 12), st.integers(8, 12))


@settings(max_examples=60)
@given(
    syntax=SYNTAXES,
    table=st.sampled_from(["basic", "extended", "none"]),
    per_frame=st.integers(1, 4),
    shape=SHAPES,
    samples=st.sampled_from([1, 3]),
    padded=st.booleans(),
    delimiter=st.booleans(),
    seed=st.integers(0, 9),
)
def test_encapsulated_spans_hold_what_was_encoded(
    syntax: str,
    table: str,
    per_frame: int,
    shape: tuple[int, int, int],
    samples: int,
    padded: bool,
    delimiter: bool,
    seed: int,
) -> None:
    if table == "extended" or syntax == RLELossless:
        per_frame = 1  # PS3.3 C.7.6.3.1.8, PS3.5 A.4.2
    frames = noise(*shape, samples, seed=seed)
    streams = [encoded(frame, syntax) for frame in frames]
    data = encapsulated(
        frames,
        syntax,
        table=table,
        fragments=per_frame,
        padded_lengths=padded,
        delimiter=delimiter,
        streams=streams,
    )
    notes = [] if delimiter else ["no Sequence Delimitation Item"]
    found = opened(data, *notes)
    kind = {"basic": "Basic Offset Table", "extended": "Extended Offset Table"}
    assert found.indexed_by == kind.get(table, "item headers")

    spans = spans_of(found)
    assert len(spans) == len(frames)
    assert all(start < stop for start, stop in spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert data.index(b"Made^For^Tests") < spans[0][0] and spans[-1][1] <= len(data)
    for frame, stream in enumerate(streams):
        assert items_in(found.encoded(frame)) == fragments_of(stream, per_frame)
    np.testing.assert_array_equal(found[:], frames)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    syntax=SYNTAXES, table=st.sampled_from(["basic", "extended", "none"]), count=st.integers(1, 80)
)
def test_a_remote_source_has_the_same_spans(syntax: str, table: str, count: int) -> None:
    frame = noise(1, 8, 8, seed=count)[0]
    frames = np.broadcast_to(frame, (count, 8, 8))
    data = encapsulated(frames, syntax, table=table, streams=[encoded(frame, syntax)] * count)
    fsspec.filesystem("memory").pipe("/index/a.dcm", data)
    remote = opened("memory://index/a.dcm")
    assert spans_of(remote) == spans_of(opened(data))
    np.testing.assert_array_equal(remote[-1], frame)


# Tables that are wrong give way to the items.


def test_a_wrong_table_gives_way_to_the_items() -> None:
    frames = noise(4, 10, 10)
    streams = [encoded(frame, JPEGLSLossless) for frame in frames]
    good, _ = tables_of([fragments_of(stream, 2) for stream in streams])
    a, b, c, d = good
    assert all(later - earlier > 20 for earlier, later in itertools.pairwise(good))
    for wrong in (
        [a, c, b, d],
        [a, b, b, d],
        [a, b, c, d + 10**6],
        [a, b, c, 0xFFFFFFFE],
        [a, b, c + 2, d],
        [a + 8, b, c, d],
        [0, 0, 0, 0],
        [a, b, c],
        [a],
        [b, c, d, d + 8],
    ):
        data = encapsulated(frames, JPEGLSLossless, table=wrong, fragments=2, streams=streams)
        found = opened(data, "Basic Offset Table is wrong")
        assert found.indexed_by == "item headers"
        np.testing.assert_array_equal(found[:], frames, err_msg=str(wrong))


def test_a_table_that_starts_frames_too_early_gives_way_to_the_items() -> None:
    # Each entry points at an item; only the ends of the codestreams tell.
    frames = noise(3, 10, 10)
    streams = [encoded(frame, JPEGLSLossless) for frame in frames]
    (_, b, c), _ = tables_of([fragments_of(stream, 2) for stream in streams])
    first = 8 + len(fragments_of(streams[0], 2)[0])
    data = encapsulated(frames, JPEGLSLossless, table=[0, first, c], fragments=2, streams=streams)
    assert first < b
    found = opened(data, "more than one frame")
    np.testing.assert_array_equal(found[:], frames)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_a_table_without_entries_for_the_last_frames(syntax: str) -> None:
    frames = noise(5, 10, 10)
    streams = [encoded(frame, syntax) for frame in frames]
    starts, _ = tables_of([[stream + bytes(len(stream) % 2)] for stream in streams])
    data = encapsulated(frames, syntax, table=starts[:3], streams=streams, NumberOfFrames=3)
    found = opened(data, "more than one frame", "there are 5 frames")
    np.testing.assert_array_equal(found[:], frames)


@pytest.mark.parametrize(
    "change", ["descending", "between", "outside", "short", "longer", "shorter", "odd"]
)
def test_a_wrong_extended_table_gives_way_to_the_items(change: str) -> None:
    frames = noise(4, 10, 10)
    streams = [encoded(frame, JPEGLSLossless) for frame in frames]
    offsets, lengths = tables_of([[stream + bytes(len(stream) % 2)] for stream in streams])
    if change == "descending":
        offsets[1], offsets[2] = offsets[2], offsets[1]
    elif change == "between":
        offsets[2] += 4
    elif change == "outside":
        offsets[3] = 2**63 + 8
    elif change == "longer":
        lengths[1] += 20
    elif change == "shorter":
        lengths[1] -= 2
    elif change == "short":
        offsets.pop()
    table = struct.pack(f"<{len(offsets)}Q", *offsets)
    if change == "odd":
        table = table[:-8] + b"\0\0\0\0\0\0"
    data = encapsulated(
        frames,
        JPEGLSLossless,
        table="none",
        streams=streams,
        ExtendedOffsetTable=table,
        ExtendedOffsetTableLengths=struct.pack("<4Q", *lengths),
    )
    found = opened(data, "Extended Offset Table is wrong")
    np.testing.assert_array_equal(found[:], frames)


@pytest.mark.parametrize("table", [([0], [1], [2]), ([0], ["one"]), ([0], [2**70]), 7])
def test_an_extended_table_that_is_none(table: Any) -> None:
    data = encapsulated(noise(1, 10, 10), JPEGLSLossless)
    with pytest.raises(HeaderError, match="offsets and lengths, both of integers") as caught:
        open_frames(data, extended_offsets=table)
    assert caught.value.source == "<bytes>"
    assert caught.value.code == "HeaderError/extended-offset-table"


def test_wrong_tables_of_a_remote_source_give_way_too() -> None:
    frames = noise(4, 10, 10)
    good = tables_of([[s + bytes(len(s) % 2)] for s in (encoded(f, RLELossless) for f in frames)])
    a, b, c, d = good[0]
    for wrong in ([a, c, b, d], [a, b, c + 2, d], [a, b, c, 2**31], [a, b, c]):
        data = encapsulated(frames, RLELossless, table=wrong)
        fsspec.filesystem("memory").pipe("/index/wrong.dcm", data)
        with pytest.warns(DcmdaskWarning, match="Basic Offset Table is wrong"):
            found = open_frames("memory://index/wrong.dcm")
        np.testing.assert_array_equal(found[:], frames)


# How many frames there are.


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_excess_encapsulated_frames(table: str) -> None:
    frames = noise(5, 8, 8)
    data = encapsulated(frames, RLELossless, table=table, NumberOfFrames=3)
    found = opened(data, "there are 5 frames, and (0028,0008) 'Number of Frames' says 3")
    np.testing.assert_array_equal(found[:], frames)
    kept = opened(data, allow_excess_frames=False)
    np.testing.assert_array_equal(kept[:], frames[:3])
    chosen = opened(data, number_of_frames=5)
    np.testing.assert_array_equal(chosen[:], frames)


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_fewer_encapsulated_frames(table: str) -> None:
    frames = noise(3, 8, 8)
    data = encapsulated(frames, RLELossless, table=table, NumberOfFrames=5)
    with pytest.raises(PixelDataError, match=r"3 whole frames, and .* says 5.*number_of_frames=3"):
        open_frames(data)
    np.testing.assert_array_equal(opened(data, number_of_frames=3)[:], frames)


@pytest.mark.parametrize("make", [native, lambda f, **kw: encapsulated(f, RLELossless, **kw)])
@pytest.mark.parametrize("value", ["missing", b"  ", b"0 "])
def test_no_number_of_frames_means_one(make: Any, value: str | bytes) -> None:
    frames = noise(1, 8, 8)
    data = make(frames, NumberOfFrames=None if value == "missing" else 1)
    if isinstance(value, bytes):
        data = patched(data, NUMBER_OF_FRAMES, "IS", value)
        found = opened(data, "1 is assumed")
    else:
        found = opened(data)
    np.testing.assert_array_equal(found[:], frames)


@pytest.mark.parametrize("value", [b"-1", b"1A", b"2.5 ", b"1e400 ", b"nan ", b"\xff\xfe"])
def test_a_number_of_frames_that_is_none(value: bytes) -> None:
    data = native(noise(1, 8, 8), NumberOfFrames=int("1" * len(value)))
    data = patched(data, NUMBER_OF_FRAMES, "IS", value)
    with pytest.raises(HeaderError, match="Number of Frames"):
        open_frames(data)
    assert len(opened(data, number_of_frames=1)) == 1


def test_the_number_of_a_caller_is_checked_like_the_one_of_a_file() -> None:
    data = native(noise(2, 8, 8))
    for wrong in (-1, "x", 1.5, float("inf")):
        with pytest.raises(HeaderError, match="Number of Frames"):
            open_frames(data, number_of_frames=wrong)


# Fragments without a table.


@settings(max_examples=40)
@given(
    syntax=st.sampled_from(LOSSLESS),
    per_frame=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    padding=st.integers(0, 40),
    filler=st.sampled_from([b"\0", b"\xff", b" "]),
    declared=st.booleans(),
)
def test_frames_are_told_apart_by_what_they_begin_with(
    syntax: str, per_frame: Sequence[int], padding: int, filler: bytes, declared: bool
) -> None:
    frames = noise(len(per_frame), 16, 16)
    streams = [encoded(frame, syntax) for frame in frames]
    if syntax != RLELossless:
        streams = [stream.rstrip(b"\0") + filler * padding for stream in streams]
    split = [fragments_of(s, n) for s, n in zip(streams, per_frame, strict=True)]
    flat = [fragment for fragments in split for fragment in fragments]
    count = len(frames) if declared else 1
    data = encapsulated(frames, syntax, table="none", streams=flat, NumberOfFrames=count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = open_frames(data)
        described = describe(locate(data))
    np.testing.assert_array_equal(found[:], frames)
    assert len(described) == len(frames)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("table", ["basic", "none"])
def test_an_rle_frame_in_two_fragments(table: str, count: int) -> None:
    """dcm4chee-arc-light issue 752, and the file D_CLUNIE_CT1_RLE_FRAGS of fo-dicom."""
    frames = noise(count, 16, 16, dtype="u2")
    data = encapsulated(frames, RLELossless, table=table, fragments=2)
    np.testing.assert_array_equal(opened(data)[:], frames)
    if table == "basic" or count == 1:
        np.testing.assert_array_equal(by_pydicom(data), frames)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless])
def test_an_end_marker_in_two_fragments(syntax: str) -> None:
    """dcm4che issue 1598, fo-dicom issue 992."""
    frames = noise(3, 16, 16)
    streams = [encoded(frame, syntax).rstrip(b"\0") for frame in frames]
    flat = []
    for stream in streams:
        # Fill bytes may be before a marker (ITU-T T.81 B.1.1.2), and fragments have even lengths.
        fill = b"\xff" * (len(stream) % 2 == 0)
        flat += [stream[:-2] + fill + b"\xff", b"\xd9\0"]
    data = encapsulated(frames, syntax, table="none", streams=flat)
    found = opened(data)
    assert len(found) == 3
    assert found.indexed_by == "item headers"
    whole = encapsulated(frames, syntax, streams=streams)
    np.testing.assert_array_equal(found[:], open_frames(whole)[:])


@pytest.mark.parametrize("table", ["none", "basic"])
def test_all_fragments_are_one_frame_where_one_begins(table: str) -> None:
    frames = noise(1, 16, 16)
    for syntax in LOSSLESS:
        data = encapsulated(frames, syntax, table=table, fragments=5)
        np.testing.assert_array_equal(opened(data)[:], frames)


@pytest.mark.filterwarnings("ignore:.*Basic Offset Table is wrong")
@pytest.mark.parametrize("number", [None, 1, 2, 29])
@pytest.mark.parametrize("kind", ["native", "basic", "extended", "none", "first"])
def test_a_file_and_a_folder_have_as_many_frames(
    kind: str, number: int | None, tmp_path: Path
) -> None:
    """fo-dicom issue 992: 30 frames, and Number of Frames is missing, 1 or another."""
    frames = noise(30, 16, 16)
    if kind == "native":
        data = native(frames, NumberOfFrames=number, SeriesInstanceUID="1.2.3")
    else:
        data = encapsulated(
            frames,
            JPEGLSLossless,
            table=[0] if kind == "first" else kind,
            NumberOfFrames=number,
            SeriesInstanceUID="1.2.3",
        )
    text = f"there are 30 frames, and (0028,0008) 'Number of Frames' says {number or 1}"
    wrong = ["the Basic Offset Table is wrong"] if kind == "first" else []
    np.testing.assert_array_equal(opened(data, *wrong, text)[:], frames)
    surplus = ["bytes of pixel data are left over"] if kind == "native" else wrong
    kept = opened(data, *surplus, allow_excess_frames=False)
    np.testing.assert_array_equal(kept[:], frames[: number or 1])
    path = saved(tmp_path, data)
    with pytest.warns(DcmdaskWarning, match="there are 30 frames"):
        one = from_dicom(path)
    with pytest.warns(DcmdaskWarning, match="there are 30 frames"):
        series = from_dicom(tmp_path)
    np.testing.assert_array_equal(one.compute(), frames)
    np.testing.assert_array_equal(series.compute(), frames)


def test_a_scan_does_not_look_through_many_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = noise(5, 8, 8)
    data = encapsulated(
        frames, RLELossless, table="none", NumberOfFrames=3, SeriesInstanceUID="1.2.3"
    )
    saved(tmp_path, data)
    monkeypatch.setattr(frame_count, "MOST_COUNTED", 2)
    with pytest.warns(DcmdaskWarning, match="there are 5 frames.*number_of_frames=5 reads all"):
        np.testing.assert_array_equal(from_dicom(tmp_path).compute(), frames[:3])
    np.testing.assert_array_equal(from_dicom(tmp_path, number_of_frames=5), frames)


@pytest.mark.parametrize(("length", "most"), [(100, 3), (100_000, 91)])
def test_short_items_are_read_by_the_run(length: int, most: int) -> None:
    counts = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            counts.append(size)
            return super().read(size)

    data = item(bytes(length)) * 90 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    items = walk_fragments(File(data), 0, len(data))
    assert items.ends.tolist() == [(length + 8) * (n + 1) for n in range(90)]
    assert items.fault is None and len(counts) <= most
    assert length < 1000 or set(counts) == {8}


# What is cut.


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_truncated_items(table: str, syntax: str) -> None:
    frames = noise(4, 16, 16)
    whole = encapsulated(frames, syntax, table=table)
    spans = spans_of(opened(whole))
    for cut in (spans[3][1] - 1, spans[3][0] + 10, spans[3][0] + 8, spans[3][0] + 5):
        data = whole[:cut]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(PixelDataError, match=r"hold 3 whole frames.* says 4"):
                open_frames(data)
            found = open_frames(data, number_of_frames=3)
        np.testing.assert_array_equal(found[:], frames[:3], err_msg=f"cut at {cut}")
    # Cut between two items nothing tells that the next one was there but the number.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PixelDataError, match="number_of_frames=3"):
            open_frames(whole[: spans[3][0]])


def test_a_missing_delimiter_is_told() -> None:
    frames = noise(3, 16, 16)
    data = encapsulated(frames, JPEGLSLossless, delimiter=False)
    found = opened(data, "no Sequence Delimitation Item")
    np.testing.assert_array_equal(found[:], frames)
    # Something else in its place as well.
    data = encapsulated(frames, JPEGLSLossless, gap=b"\x00\x01\x02\x03\x04\x05\x06\x07")
    with pytest.warns(DcmdaskWarning, match="no item tag but 00 01 02 03"):
        assert len(open_frames(data, number_of_frames=2)) >= 2


def test_an_encapsulated_syntax_with_native_data_and_the_reverse() -> None:
    with pytest.raises(PixelDataError, match="transfer syntax may be wrong"):
        open_frames(native(noise(2, 8, 8)), transfer_syntax_uid=str(JPEGBaseline8Bit))
    data = encapsulated(noise(2, 8, 8), RLELossless)
    with pytest.raises(PixelDataError, match="undefined length"):
        open_frames(data, transfer_syntax_uid=str(ExplicitVRLittleEndian))


# What an index weighs.


def test_the_index_of_a_million_frames_pickles_small() -> None:
    lengths = np.random.default_rng(0).integers(100, 60_000, 10**6) * 2
    offsets = np.cumsum(lengths) - lengths + 5_000
    packed = pickle.dumps(ItemSpans(offsets, lengths))
    assert len(packed) < 5_000_000
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.offsets, offsets)
    np.testing.assert_array_equal(again.lengths, lengths)
    assert again.offsets.dtype == offsets.dtype


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(8, 2**33)), max_size=8))
def test_spans_survive_pickling_with_gaps(parts: list[tuple[int, int]]) -> None:
    offsets, lengths, position = [], [], 1000
    for gap, length in parts:
        offsets.append(position + gap)
        lengths.append(length)
        position += gap + length
    spans = ItemSpans(np.array(offsets, np.int64), np.array(lengths, np.int64))
    again = pickle.loads(pickle.dumps(spans))
    assert again.offsets.tolist() == offsets
    assert again.lengths.tolist() == lengths


def test_an_opened_instance_pickles_and_reads(tmp_path: Any) -> None:
    frames = noise(6, 8, 8)
    path = tmp_path / "a.dcm"
    path.write_bytes(encapsulated(frames, JPEGLSLossless, fragments=2))
    instance = pickle.loads(pickle.dumps(open_instance(path, {})))
    assert instance.read([4, 0]) == open_instance(path, {}).read([4, 0])
    np.testing.assert_array_equal(open_frames(path)[:], frames)
