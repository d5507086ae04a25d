"""`ModalityFrames` and `DisplayFrames`, held to pydicom's functions."""

import functools
import pickle
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from instances import Held, instance, keys, number
from make_dicom import native, noise
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    apply_windowing,
)
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian
from real_files import corpus_files, corpus_id, packaged_file

from dcmdask import from_dicom
from dcmdask.arrays import transformation as transformations
from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.arrays.display import DisplayFrames
from dcmdask.arrays.lookup_tables import Lut, Luts, luts
from dcmdask.arrays.modality import BLOCK, ModalityFrames, Transformation
from dcmdask.arrays.real_world import RealWorldFrames
from dcmdask.arrays.transformation import fill_for, with_values
from dcmdask.dicom.description import describe
from dcmdask.dicom.header import read_whole_header
from dcmdask.dicom.quantities.real_world import RealWorldMapping
from dcmdask.errors import DecodeError, HeaderError, MissingElementError
from dcmdask.pixels.frame_array import FrameArray, open_frames
from dcmdask.sources import files

TYPES = {
    "u1": (1, 8),
    "i1": (1, 8),
    "u2": (1, 16),
    "i2": (1, 16),
    "u4": (17, 32),
    "i4": (17, 32),
    "u8": (33, 52),
}


def header(**elements: Any) -> Dataset:
    """What pydicom's functions look at."""
    given = {"PhotometricInterpretation": "MONOCHROME2", "BitsStored": 16, "PixelRepresentation": 0}
    dataset = Dataset()
    for keyword, value in {**given, **elements}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def lut_sequence(first: int, bits: int, entries: Any) -> Sequence:
    item = Dataset()
    item.add(DataElement(0x00283002, "SS" if first < 0 else "US", [len(entries), first, bits]))
    item.add(DataElement(0x00283006, "US", list(entries)))
    return Sequence([item])


def transformation(dataset: Dataset, **replaced: Any) -> Transformation:
    """That of frames of which `dataset` is the header."""
    return Transformation(
        **{
            "bits_stored": dataset.get("BitsStored", dataset.get("BitsAllocated")),
            "slope": number(dataset, "RescaleSlope"),
            "intercept": number(dataset, "RescaleIntercept"),
            "center": number(dataset, "WindowCenter"),
            "width": number(dataset, "WindowWidth"),
            "function": dataset.get("VOILUTFunction", ""),
            "interpretation": dataset.PhotometricInterpretation,
            **replaced,
        }
    )


def with_luts(dataset: Dataset, count: int) -> Transformation:
    return transformation(dataset, luts=[luts(dataset)] * count)


# Modality values.


@settings(max_examples=150)
@given(
    data=st.data(),
    dtype=st.sampled_from(sorted(TYPES)),
    slope=st.sampled_from([1.0, 0.1, 2.0, -0.375, 1.37e-3, 54321.5]),
    step=st.sampled_from([0.0, 0.25]),
    intercept=st.sampled_from([0.0, -1024.0, 0.5, -7.7, 1e5]),
)
@example(data=None, dtype="u2", slope=0.1, step=0.0, intercept=-7.7)
def test_modality_values_are_pydicoms(
    data: Any, dtype: str, slope: float, step: float, intercept: float
) -> None:
    low, high = TYPES[dtype]
    bits = 12 if data is None else data.draw(st.integers(low, high))
    stored = noise(3, 4, 5, dtype=dtype, bits=bits, seed=bits)
    slopes, intercepts = slope + step * np.arange(3), intercept + step * np.arange(3)
    frames = ModalityFrames(Held(stored), Transformation(bits, slopes, intercepts))
    got = frames[:]
    assert got.dtype == frames.dtype
    for frame, one in enumerate(got):
        dataset = header(RescaleSlope=slopes[frame], RescaleIntercept=intercepts[frame])
        expected = apply_modality_lut(stored[frame], dataset)
        np.testing.assert_array_equal(one, expected.astype(frames.dtype))
        if frames.dtype.kind == "i":
            np.testing.assert_array_equal(one, expected)
    exact = slope == 1 and step == 0 and intercept != 0.5 and intercept != -7.7
    assert (frames.dtype.kind == "i") == exact
    if not exact:
        assert frames.dtype == ("f8" if bits > 24 else "f4")


INTEGERS = [
    ("u2", 12, -1024, "i2"),
    ("u2", 16, 0, "i4"),
    ("u2", 16, -32768, "i2"),
    ("u2", 15, 0, "i2"),
    ("u2", 15, 1, "i4"),
    ("i2", 16, 0, "i2"),
    ("i2", 16, -1, "i4"),
    ("i2", 12, 100_000, "i4"),
    ("u1", 8, 0, "i2"),
    ("u1", 8, -128, "i1"),
    ("u1", 7, 0, "i1"),
    ("u1", 1, 0, "i1"),
    ("u1", 8, -200_000, "i4"),
    ("i1", 8, 0, "i1"),
    ("u4", 32, 0, "i8"),
    ("u4", 24, 0, "i4"),
    ("i4", 32, 0, "i4"),
    ("i8", 64, 0, "i8"),
    ("u8", 64, 0, "f8"),
    ("u2", 12, 1e30, "f4"),
    ("f4", 32, -1024, "f4"),
    ("f8", 64, 0, "f8"),
]


@pytest.mark.parametrize(("stored", "bits", "intercept", "expected"), INTEGERS)
def test_the_smallest_integer(stored: str, bits: int, intercept: float, expected: str) -> None:
    if stored[0] == "f":
        frames = noise(2, 3, 4, dtype=stored)
    else:
        frames = noise(2, 3, 4, dtype=stored, bits=bits)
        if stored[0] == "i":
            frames[0, 0, 0], frames[1, 2, 3] = -(1 << bits - 1), (1 << bits - 1) - 1
        else:
            frames[0, 0, 0], frames[1, 2, 3] = 0, (1 << bits) - 1
    values = ModalityFrames(Held(frames), Transformation(bits, 1, intercept))
    assert values.dtype == expected
    got = values[:]
    assert got.dtype == expected
    if bits <= 32 and intercept < 1e9:
        np.testing.assert_array_equal(got, (frames.astype("f8") + intercept).astype(expected))
    elif not intercept:
        np.testing.assert_array_equal(got, frames.astype(expected))


def test_absent_is_one_and_zero() -> None:
    frames = noise(3, 4, 5, dtype="u2", bits=12)
    values = ModalityFrames(
        Held(frames), Transformation(12, [np.nan, 2, np.nan], [np.nan, np.nan, -4])
    )
    expected = frames.astype("f4")
    expected[1] *= 2
    expected[2] -= 4
    np.testing.assert_array_equal(values, expected)
    assert ModalityFrames(Held(frames), Transformation(12)).dtype == "i2"


def test_float_pixel_data_stays_what_it_is() -> None:
    for dtype in ("f4", "f8", ">f4"):
        frames = noise(2, 4, 5, dtype="f8").astype(dtype)
        frames[0, 0, 0] = np.nan
        plain = ModalityFrames(Held(frames), Transformation(32))
        assert plain.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(plain, frames)
        scaled = ModalityFrames(Held(frames), Transformation(32, 0.1, -3))[:]
        expected = apply_modality_lut(frames, header(RescaleSlope=0.1, RescaleIntercept=-3))
        np.testing.assert_array_equal(scaled, expected.astype(plain.dtype))
        assert scaled.dtype == plain.dtype


def test_a_slope_for_each_of_the_frames_of_a_positron_scan(tmp_path: Path) -> None:
    stored = noise(20, 16, 16, dtype="i2", seed=5)
    slopes = np.round(np.random.default_rng(1).uniform(0.01, 9, 20), 6)
    paths = []
    for frame, slope in enumerate(slopes.tolist()):
        paths.append(tmp_path / f"{frame}.dcm")
        one = native(stored[frame : frame + 1], RescaleSlope=slope, RescaleIntercept=0)
        paths[-1].write_bytes(one)
    described = [instance(path) for path in paths]
    facts = np.concatenate([one.facts for one in described])
    values = ModalityFrames(
        JoinedFrames(described), Transformation(16, facts["slope"], facts["intercept"])
    )
    assert values.dtype == "f4"
    got = values[:]
    for frame, path in enumerate(paths):
        dataset = dcmread(path)
        expected = apply_modality_lut(dataset.pixel_array, dataset).astype("f4")
        np.testing.assert_array_equal(got[frame], expected)
    again = pickle.loads(pickle.dumps(values))
    np.testing.assert_array_equal(again[[3, 17], 2:4], got[[3, 17], 2:4])
    assert again.token == values.token


def test_values_beyond_bits_stored_never_wrap_round() -> None:
    frames = np.array([[[0, 4095]], [[0, 40_000]]], "u2")
    values = ModalityFrames(Held(frames), Transformation(12, 1, -1024))
    np.testing.assert_array_equal(values[0], [[-1024, 3071]])
    with pytest.raises(DecodeError, match=r"held: stored values reach from 0 to 40000.*12 bits"):
        values[1]
    # Those that fit are as right as pydicom's.
    frames[1, 0, 1] = 20_000
    np.testing.assert_array_equal(values[:], frames.astype("i4") - 1024)


@pytest.mark.parametrize("large", [False, True], ids=["few pixels", "many pixels"])
@pytest.mark.parametrize(("first", "bits"), [(0, 8), (-2048, 16), (100, 16)])
@pytest.mark.parametrize("dtype", ["u2", "i2", "u1", "i4"])
def test_a_modality_lut(dtype: str, first: int, bits: int, large: bool) -> None:
    size = 300 if large else 4
    frames = noise(2, size, size, dtype=dtype, bits=8 if dtype == "u1" else 12)
    entries = noise(1, 1, 500, dtype="u2", bits=bits)[0, 0]
    dataset = header(
        ModalityLUTSequence=lut_sequence(first, bits, entries.tolist()), RescaleSlope=3
    )
    dataset.set_original_encoding(False, True)
    values = ModalityFrames(Held(frames), with_luts(dataset, 2))
    got = values[:]
    # pydicom takes the difference in the type of the frame, where it may wrap round.
    expected = apply_modality_lut(frames.astype("i4"), dataset)
    assert got.dtype == values.dtype == expected.dtype == f"u{bits // 8}"
    np.testing.assert_array_equal(got, expected)


def test_some_frames_with_a_modality_lut() -> None:
    lut = Lut(0, 10, np.arange(1000, 0, -1, dtype="u2"))
    frames = noise(2, 4, 5, dtype="u2", bits=10)
    both = [Luts(modality=lut), None]
    values = ModalityFrames(Held(frames), Transformation(10, luts=both))
    assert values.dtype == "i2"
    np.testing.assert_array_equal(values, [lut(frames[0]), frames[1]])
    scaled = ModalityFrames(Held(frames), Transformation(10, slope=0.5, luts=both))
    assert scaled.dtype == "f4"
    np.testing.assert_array_equal(scaled, [lut(frames[0]), frames[1] / 2])
    with pytest.raises(HeaderError, match="Modality LUT"):
        ModalityFrames(Held(noise(2, 4, 5, dtype="f4")), Transformation(32, luts=both))
    with pytest.raises(ValueError, match="for 1 frames of 2"):
        ModalityFrames(Held(frames), Transformation(10, luts=both[:1]))


# Display values.


def displayed(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """What pydicom's windowing gives, on a scale from 0 to 255."""
    signed = dataset.PixelRepresentation
    ends = np.array([-(2.0**15), 2.0**15 - 1] if signed else [0, 2.0**16 - 1])
    ends = ends * dataset.get("RescaleSlope", 1) + dataset.get("RescaleIntercept", 0)
    return (values - ends[0]) / (ends[1] - ends[0]) * 255


@settings(max_examples=100)
@given(
    dtype=st.sampled_from(["u2", "i2"]),
    center=st.sampled_from([40, 300.5, -20000, 0, 30000]),
    width=st.sampled_from([1, 2, 400, 1500.25, 65536]),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", " linear_exact ", ""]),
    slope=st.sampled_from([1, 0.25, -2]),
    large=st.booleans(),
)
def test_windows_are_pydicoms(
    dtype: str, center: float, width: float, function: str, slope: float, large: bool
) -> None:
    size = 300 if large else 8
    stored = noise(1, size, size, dtype=dtype)
    dataset = header(
        WindowCenter=center,
        WindowWidth=width,
        VOILUTFunction=function.strip().upper() or "LINEAR",
        RescaleSlope=slope,
        RescaleIntercept=-10,
        PixelRepresentation=int(dtype == "i2"),
    )
    shown = DisplayFrames(Held(stored), transformation(dataset, function=function))
    got = shown[:]
    assert got.dtype == shown.dtype == np.uint8
    with np.errstate(over="ignore"):
        exact = displayed(apply_windowing(apply_modality_lut(stored, dataset), dataset), dataset)
    # Rounded, not cut off.
    assert np.abs(got - exact).max() <= 0.5 + 1e-6
    inverted = DisplayFrames(
        Held(stored), transformation(dataset, function=function, interpretation="MONOCHROME1")
    )
    np.testing.assert_array_equal(inverted[:], 255 - got)


def test_a_window_for_each_frame() -> None:
    stored = np.broadcast_to(np.arange(256, dtype="u2").reshape(16, 16), (3, 16, 16))
    frames = DisplayFrames(
        Held(stored),
        Transformation(8, center=[50.5, 100, np.nan], width=[100, 30, 30], function="LINEAR"),
    )
    got = frames[:]
    np.testing.assert_array_equal(
        got[0].ravel()[[0, 1, 50, 99, 100, 255]], [0, 1, 128, 254, 255, 255]
    )
    assert (got[1].ravel() == 0).sum() == 86
    # Without a window all that 8 bits allow is shown.
    np.testing.assert_array_equal(got[2], stored[2])
    np.testing.assert_array_equal(frames[1], got[1])
    np.testing.assert_array_equal(frames[[2, 0], 3:, 4], got[[2, 0], 3:, 4])


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [
        (np.nan, np.nan, "LINEAR"),
        (40, np.nan, "SIGMOID"),
        (np.nan, 40, "LINEAR"),
        (40, 0, "SIGMOID"),
        (40, 0.5, "LINEAR"),
        (40, -3, "LINEAR_EXACT"),
        (np.inf, 4, "LINEAR_EXACT"),
    ],
)
@pytest.mark.parametrize(("dtype", "bits"), [("u2", 12), ("i2", 10), ("u1", 8), ("u4", 32)])
@pytest.mark.parametrize("slope", [1, -0.5])
def test_without_a_window_all_that_bits_stored_allow_is_shown(
    dtype: str, bits: int, slope: float, center: float, width: float, function: str
) -> None:
    signed = dtype[0] == "i"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    stored = np.linspace(low, high, 11).astype(dtype).reshape(1, 1, 11)
    frames = DisplayFrames(
        Held(stored), Transformation(bits, slope, 7, center, width, function=function)
    )
    share = (stored.astype("f8") - low) / (high - low)
    expected = (share if slope > 0 else 1 - share) * 255
    assert np.abs(frames[:] - expected).max() <= 0.5 + 1e-6
    # One chunk says nothing about another: a part is shown as it is in the whole.
    np.testing.assert_array_equal(frames[:, :, 3:5], frames[:][:, :, 3:5])


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(("slope", "first"), [(None, 0), (1, -1024), (0.5, 100)])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.filterwarnings("ignore:Applying a VOI LUT on a float:UserWarning")
def test_a_voi_lut(bits: int, slope: float | None, first: int, window: int | None) -> None:
    stored = noise(1, 9, 9, dtype="u2", bits=12)
    # pydicom's positions in a table of 8-bit entries have 8 bits themselves.
    entries = noise(1, 1, 250, dtype="u2", bits=bits)[0, 0]
    stored = stored % 250 if bits == 8 else stored
    dataset = header(
        BitsStored=12,
        VOILUTSequence=lut_sequence(first, bits, entries.tolist()),
        RescaleSlope=slope,
        RescaleIntercept=None if slope is None else first,
        WindowCenter=window,
        WindowWidth=window,
    )
    dataset.set_original_encoding(False, True)
    frames = DisplayFrames(Held(stored), with_luts(dataset, 1))
    expected = apply_voi_lut(apply_modality_lut(stored, dataset), dataset) / (2**bits - 1) * 255
    assert np.abs(frames[:] - expected).max() <= 0.5 + 1e-6


def test_a_voi_lut_behind_a_modality_lut() -> None:
    stored = noise(1, 9, 9, dtype="u2", bits=10)
    modality, voi = noise(2, 1, 1024, dtype="u2", bits=10)[:, 0]
    dataset = header(
        BitsStored=10,
        ModalityLUTSequence=lut_sequence(0, 16, modality.tolist()),
        VOILUTSequence=lut_sequence(3, 10, voi.tolist()),
    )
    dataset.set_original_encoding(False, True)
    expected = apply_voi_lut(apply_modality_lut(stored, dataset), dataset) / 1023 * 255
    got = DisplayFrames(Held(stored), with_luts(dataset, 1))[:]
    assert np.abs(got - expected).max() <= 0.5 + 1e-6
    del dataset.VOILUTSequence
    expected = apply_modality_lut(stored, dataset) / 65535 * 255
    got = DisplayFrames(Held(stored), with_luts(dataset, 1))[:]
    assert np.abs(got - expected).max() <= 0.5 + 1e-6


def test_what_cannot_be_shown() -> None:
    grey, floats = Held(noise(2, 4, 5, dtype="u2")), Held(noise(2, 4, 5, dtype="f4"))
    with pytest.raises(HeaderError, match="VOI LUT Function' must be one of"):
        DisplayFrames(grey, Transformation(16, function=["LINEAR", "CUBIC"]))
    with pytest.raises(HeaderError, match=r"frame 1: float pixel data.*Window"):
        DisplayFrames(floats, Transformation(32, center=[0, np.nan], width=1))
    with pytest.raises(MissingElementError, match=r"frame 0: .*Palette"):
        DisplayFrames(grey, Transformation(16, interpretation="PALETTE COLOR"))
    lut = Luts(palette=Lut(0, 8, np.zeros((256, 3), "u1")))
    with pytest.raises(MissingElementError, match=r"frame 1: .*Palette"):
        DisplayFrames(grey, Transformation(16, interpretation="PALETTE COLOR", luts=[lut, None]))


def test_floats_are_windowed() -> None:
    stored = np.array([[[np.nan, -np.inf, -1, 0, 0.5, 1, np.inf]]], "f4")
    frames = DisplayFrames(
        Held(stored), Transformation(32, center=0.5, width=1, function="LINEAR_EXACT")
    )
    np.testing.assert_array_equal(frames[0, 0], [0, 0, 0, 0, 128, 255, 255])


@pytest.mark.parametrize(
    ("dtype", "bits"), [("u1", 8), ("u1", 5), ("u2", 16), ("u2", 10), ("u2", 8), ("i2", 16)]
)
def test_colours_of_other_than_eight_bits(dtype: str, bits: int) -> None:
    stored = noise(2, 5, 6, 3, dtype=dtype, bits=bits)
    frames = DisplayFrames(Held(stored), Transformation(bits, interpretation="RGB"))
    got = frames[:]
    assert got.shape == frames.shape == stored.shape
    assert got.dtype == frames.dtype == np.uint8
    low = -(1 << bits - 1) if dtype[0] == "i" else 0
    expected = (stored.astype("f8") - low) / ((1 << bits) - 1) * 255
    assert np.abs(got - expected).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(frames[1, 2:, ..., 0], got[1, 2:, ..., 0])


# Indices, work, names.

FRAMES = noise(7, 5, 6, dtype="u2", bits=12)
PALETTE = Luts(palette=Lut(100, 16, noise(1, 4000, 3, dtype="u2")[0]))
VALUES: dict[str, Callable[[], Any]] = {
    "modality": lambda: ModalityFrames(
        Held(FRAMES), Transformation(12, slope=np.linspace(0.5, 2, 7), intercept=-3.5)
    ),
    "integers": lambda: ModalityFrames(Held(FRAMES), Transformation(12, intercept=-np.arange(7.0))),
    "display": lambda: DisplayFrames(
        Held(FRAMES), Transformation(12, center=np.linspace(40, 4000, 7), width=900)
    ),
    "palette": lambda: DisplayFrames(
        Held(FRAMES), Transformation(12, interpretation="PALETTE COLOR", luts=[PALETTE] * 7)
    ),
    "real world": lambda: RealWorldFrames(
        Held(FRAMES), [RealWorldMapping("A", "", 9, 4000 - n, 0.5, n) for n in range(7)], 12
    ),
    "mapped by a table": lambda: RealWorldFrames(
        Held(FRAMES), [RealWorldMapping("A", "", 0, 99, table=np.linspace(0, 1, 100))] * 7, 12
    ),
    "big endian": lambda: ModalityFrames(Held(FRAMES.astype(">u2")), Transformation(12, 0.5)),
}


@settings(max_examples=300)
@given(data=st.data(), kind=st.sampled_from(sorted(VALUES)))
def test_an_index_is_numpys_and_is_handed_down(data: st.DataObject, kind: str) -> None:
    frames = VALUES[kind]()
    whole = frames[:]
    assert (whole.shape, whole.dtype) == (frames.shape, frames.dtype)
    assert frames.shape == FRAMES.shape + (3,) * (kind == "palette")
    frames.frames.keys.clear()
    key = data.draw(keys(frames.shape))
    got, expected = frames[key], whole[key]
    np.testing.assert_array_equal(got, expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    (asked,) = frames.frames.keys
    numbers = np.arange(7).reshape(7, *(1,) * (frames.ndim - 1))
    wanted = np.broadcast_to(numbers, frames.shape)[key]
    if wanted.size:
        assert set(np.arange(7)[asked[0]]) == set(np.ravel(wanted))
    # Rows and columns are handed down as well; all that a palette adds is behind them.
    assert FRAMES[asked].size == (expected.size if kind != "palette" else frames[*asked, 0].size)


@pytest.mark.parametrize("kind", VALUES)
def test_pickled_and_used(kind: str) -> None:
    frames = VALUES[kind]()
    again = pickle.loads(pickle.dumps(frames))
    np.testing.assert_array_equal(again[2:5], frames[2:5])
    assert (again.token, repr(again), again.name) == (frames.token, repr(frames), "held")


def test_tokens_tell_parameters_apart() -> None:
    held = Held(FRAMES)
    lut = [Lut(0, 8, noise(1, 1, 9, seed=seed)[0, 0]) for seed in range(2)]
    transformations = [
        Transformation(12),
        Transformation(11),
        Transformation(12, 2),
        Transformation(12, np.full(7, 2.0)),
        Transformation(12, 1, 2),
        Transformation(12, luts=[Luts(modality=lut[0])] * 7),
        Transformation(12, luts=[Luts(modality=lut[1])] * 7),
        Transformation(12, luts=[Luts(voi=lut[1])] * 7),
        Transformation(12, luts=[Luts(modality=lut[0])] + [Luts(modality=lut[1])] * 6),
    ]
    tokens = {ModalityFrames(held, one).token for one in transformations}
    tokens |= {DisplayFrames(held, one).token for one in transformations}
    tokens |= {
        DisplayFrames(held, one).token
        for one in (
            Transformation(12, center=4, width=5),
            Transformation(12, center=5, width=4),
            Transformation(12, center=5, width=4, function="SIGMOID"),
            Transformation(12, interpretation="MONOCHROME1"),
        )
    }
    mappings = [
        RealWorldMapping("A", "", 0, 9, 1, 0),
        RealWorldMapping("A", "", 0, 8, 1, 0),
        RealWorldMapping("A", "", 0, 9, 2, 0),
        RealWorldMapping("A", "", 0, 9, table=np.arange(10.0)),
    ]
    tokens |= {RealWorldFrames(held, [one] * 7, 12).token for one in mappings}
    assert len(tokens) == 2 * 9 + 4 + 4


def test_large_frames_are_done_block_by_block() -> None:
    stored = noise(1, 3, BLOCK, dtype="i4", bits=20)
    frames = ModalityFrames(Held(stored), Transformation(20, 0.3, 1))
    expected = (stored * 0.3 + 1).astype("f4")
    np.testing.assert_array_equal(frames[:], expected)
    np.testing.assert_array_equal(frames[:, 1:, 7:], expected[:, 1:, 7:])


# Lookup tables as headers have them.


def test_tables_that_contradict_their_descriptor() -> None:
    for wrong in (
        {"ModalityLUTSequence": lut_sequence(0, 17, [1, 2])},
        {"VOILUTSequence": lut_sequence(0, 0, [1, 2])},
    ):
        with pytest.raises(HeaderError, match=r"a\.dcm: .*bits for each entry") as caught:
            luts(header(**wrong), "a.dcm")
        assert caught.value.code == "HeaderError/lookup-table"
    named = lut_sequence(0, 16, [1, 2])
    named[0].add(DataElement(0x00283002, "LO", ["Doe^John", "0", "16"]))
    with pytest.raises(HeaderError, match=r"Doe\^John") as caught:
        luts(header(VOILUTSequence=named))
    assert "Doe" not in caught.value.message
    short = lut_sequence(0, 16, [1, 2, 3])
    short[0].LUTDescriptor = [9, 0, 16]
    with pytest.raises(HeaderError, match="3 entries, and the LUT Descriptor says 9"):
        luts(header(VOILUTSequence=short))
    assert luts(header(VOILUTSequence=Sequence([Dataset()]))).voi is None
    # More bits than the descriptor says are there all the same.
    found = luts(header(VOILUTSequence=lut_sequence(0, 8, [0, 4095]))).voi
    assert found is not None and (found.bits, found.entries.tolist()) == (12, [0, 4095])
    assert luts(header(PhotometricInterpretation="PALETTE COLOR")).palette is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_tables_in_bytes(order: str) -> None:
    entries = noise(1, 1, 300, dtype="u2")[0, 0]
    item = Dataset()
    item.add(DataElement(0x00283002, "US", [300, 5, 16]))
    item.add(DataElement(0x00283006, "OW", entries.astype(f"{order}u2").tobytes()))
    dataset = header(VOILUTSequence=Sequence([item]))
    dataset.set_original_encoding(False, order == "<")
    found = luts(dataset).voi
    assert found is not None and (found.first, found.bits) == (5, 16)
    np.testing.assert_array_equal(found.entries, entries)
    np.testing.assert_array_equal(found(np.array([0, 6, 9000])), entries[[0, 1, 299]])


# Real files.


@functools.cache
def headers() -> dict[Path, Dataset]:
    """Those of the corpus that say how values are meant; few of those that say the same."""
    found: dict[Path, Dataset] = {}
    seen = set()
    for path in corpus_files():
        try:
            dataset = dcmread(path, stop_before_pixels=True)
        except Exception:
            continue
        if "Rows" not in dataset or "BitsStored" not in dataset:
            continue
        grey = dataset.get("PhotometricInterpretation", "").startswith("MONOCHROME")
        look = (path.parent, dataset.get("VOILUTFunction"), dataset.BitsStored)
        own = "RescaleSlope" in dataset or any(
            keyword in dataset
            for keyword in (
                "ModalityLUTSequence",
                "VOILUTSequence",
                "RedPaletteColorLookupTableDescriptor",
            )
        )
        if own or (grey and "WindowWidth" in dataset and look not in seen):
            seen.add(look)
            found[path] = dataset
    return found


# Half of the real files each time, and all before a release.
in_halves = pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.rare)])


def real_frames(
    corpus: Path, wanted: Callable[[Dataset], bool], part: int = 0, parts: int = 1
) -> Iterator[tuple[Any, ...]]:
    """Path, header, and some frames of the corpus files that are wanted, or of a part of these."""
    chosen = [(path, dataset) for path, dataset in headers().items() if wanted(dataset)]
    for path, dataset in chosen[part::parts]:
        try:
            frames = open_frames(path)
            some = np.unique([0, len(frames) // 2, len(frames) - 1])
            stored = frames[some]
        except Exception:
            # Others test what is damaged on purpose.
            continue
        yield path, dataset, frames, some, stored


def is_grey(dataset: Dataset) -> bool:
    # An item without descriptor says nothing, and pydicom does not get along with it.
    empty = dataset.get("ModalityLUTSequence") and not has_entries(dataset, "Modality")
    return str(dataset.PhotometricInterpretation).startswith("MONOCHROME") and not empty


def has_modality(dataset: Dataset) -> bool:
    return is_grey(dataset) and ("RescaleSlope" in dataset or has_entries(dataset, "Modality"))


def has_entries(dataset: Dataset, kind: str) -> bool:
    items = dataset.get(f"{kind}LUTSequence")
    return bool(items) and items[0].get("LUTDescriptor") is not None


@in_halves
@pytest.mark.filterwarnings("ignore::dcmdask.errors.DcmdaskWarning")
def test_modality_values_of_real_files(
    part: int, corpus: Path, compared: Callable[[Path], None]
) -> None:
    types = set()
    for path, dataset, frames, some, stored in real_frames(corpus, has_modality, part, 2):
        values = ModalityFrames(frames, with_luts(dataset, len(frames)))
        got = values[some]
        expected = apply_modality_lut(stored, dataset)
        assert got.dtype == values.dtype, corpus_id(path)
        np.testing.assert_array_equal(got, expected.astype(got.dtype), corpus_id(path))
        if got.dtype.kind in "iu":
            np.testing.assert_array_equal(got, expected, corpus_id(path))
        types.add(got.dtype)
        compared(path)
    # uint16 is in one of the halves.
    assert types >= {np.dtype("i2"), np.dtype("f4")}


@in_halves
@pytest.mark.filterwarnings("ignore::dcmdask.errors.DcmdaskWarning")
@pytest.mark.filterwarnings("ignore:Applying a VOI LUT on a float:UserWarning")
def test_display_values_of_real_files(
    part: int, corpus: Path, compared: Callable[[Path], None]
) -> None:
    count = 0
    for path, dataset, frames, some, stored in real_frames(corpus, is_grey, part, 2):
        if "WindowWidth" not in dataset and not has_entries(dataset, "VOI"):
            continue
        got = DisplayFrames(frames, with_luts(dataset, len(frames)))[some]
        values = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
        if has_entries(dataset, "VOI"):
            low, high = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
        else:
            low, high = apply_voi_lut(np.array([-1e9, 1e9]), dataset)
        exact = (values - low) / (high - low) * 255
        exact = 255 - exact if dataset.PhotometricInterpretation == "MONOCHROME1" else exact
        assert np.abs(got - exact).max() <= 0.5 + 1e-6, corpus_id(path)
        compared(path)
        count += 1
    assert count > 50


def palette_files() -> list[Path]:
    return [packaged_file("examples_palette.dcm"), *corpus_files()]


@pytest.mark.filterwarnings("ignore::dcmdask.errors.DcmdaskWarning")
def test_palettes_of_real_files(corpus: Path, compared: Callable[[Path], None]) -> None:
    shown: dict[str, np.ndarray] = {}
    for path, dataset, frames, some, stored in real_frames(
        corpus, lambda dataset: dataset.PhotometricInterpretation == "PALETTE COLOR"
    ):
        values = DisplayFrames(frames, with_luts(dataset, len(frames)))
        assert values.shape == (*frames.shape, 3)
        got = values[some]
        if dataset.original_encoding[1]:
            expected = apply_color_lut(stored, dataset)
            expected = expected >> (8 * expected.itemsize - 8)
            np.testing.assert_array_equal(got, expected[..., :3], corpus_id(path))
        shown[path.stem] = got
        compared(path)
    # The same frame, its palette in the other byte order.
    np.testing.assert_array_equal(shown["OBXXXX1A_expb"], shown["OBXXXX1A"])
    np.testing.assert_array_equal(shown["gdcm-US-ALOKA-16_big"], shown["gdcm-US-ALOKA-16"])


def test_a_palette_of_either_byte_order() -> None:
    frames = noise(2, 5, 6)
    for syntax in ("1.2.840.10008.1.2.1", ExplicitVRBigEndian):
        order = "<u2" if syntax != ExplicitVRBigEndian else ">u2"
        entries, elements = palette(order, PhotometricInterpretation="PALETTE COLOR")
        data = native(frames, type(ExplicitVRBigEndian)(syntax), vr="OB", **elements)
        opened: FrameArray = open_frames(data)
        tables = luts(opened.dataset)
        shown = DisplayFrames(
            opened, Transformation(8, interpretation="PALETTE COLOR", luts=[tables] * 2)
        )
        expected = (entries >> 8).astype("u1").T[frames]
        np.testing.assert_array_equal(shown[:], expected)
        dataset = dcmread(BytesIO(data))
        assert dataset.RedPaletteColorLookupTableDescriptor == [256, 0, 16]


def palette(order: str = "<u2", **elements: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Entries (3, 256) of a palette, and elements that hold it."""
    entries = noise(1, 3, 256, dtype="u2")[0]
    for colour, table in zip(("Red", "Green", "Blue"), entries, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = table.astype(order).tobytes()
    return entries, elements


def test_the_interpretation_that_is_given_decides_about_a_palette(tmp_path: Path) -> None:
    """Against what the header says, either way."""
    entries, elements = palette()
    frames, path = noise(1, 5, 6), tmp_path / "a.dcm"
    path.write_bytes(native(frames, PhotometricInterpretation="MONOCHROME2", **elements))
    coloured = from_dicom(path, values="display", photometric_interpretation="PALETTE COLOR")
    np.testing.assert_array_equal(coloured, (entries >> 8).astype("u1").T[frames])
    elements["PhotometricInterpretation"] = "PALETTE COLOR"
    path.write_bytes(native(frames, **elements))
    grey = from_dicom(path, values="display", photometric_interpretation="MONOCHROME2")
    np.testing.assert_array_equal(grey, frames)


@pytest.mark.parametrize(
    ("keyword", "known"), [("VOILUTSequence", True), ("ModalityLUTSequence", False)]
)
def test_padding_has_modality_values_but_for_a_modality_lut(keyword: str, known: bool) -> None:
    elements = {keyword: lut_sequence(0, 16, range(1, 17)), "PixelPaddingValue": 3}
    frames = noise(1, 5, 6, dtype="u2", bits=4)
    one = describe(files.locate(native(frames, RescaleIntercept=-2, RescaleSlope=1, **elements)))
    values = with_values(JoinedFrames([one]), [one], "modality", {})
    if known:
        assert fill_for(values, [one], "modality") == 1
    else:
        with pytest.raises(ValueError, match="pass fill_value"):
            fill_for(values, [one], "modality")


def test_no_more_of_a_header_is_read_than_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[int]] = []

    def read(source: Any, syntax: Any, tags: Any = None) -> Dataset:
        found = read_whole_header(source, syntax, tags)
        asked.append(set(map(int, found.keys())))
        return found

    monkeypatch.setattr(transformations, "read_whole_header", read)
    table = lut_sequence(0, 16, range(1, 17))
    data = native(
        noise(1, 5, 6, dtype="u2", bits=4), VOILUTSequence=table, PatientComments="x" * 999
    )
    one = describe(files.locate(data))
    with_values(JoinedFrames([one]), [one], "display", {})
    (tags,) = asked
    assert 0x00283010 in tags and 0x00104000 not in tags
