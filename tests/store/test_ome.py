"""OME-Zarr stores open elsewhere, say where the pixels are, and levels are what they claim."""

import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import yaozarrs
import zarr
from counting import count_decodings
from hypothesis import given, settings
from hypothesis import strategies as st
from made_series import AXIAL, OBLIQUE, along, classic, direction, enhanced
from make_dicom import encapsulated, native, noise, saved
from ome_zarr.io import parse_url
from ome_zarr.reader import Multiscales, Reader
from ome_zarr_models.v05 import Image
from pydicom.uid import JPEG2000Lossless, SegmentationStorage
from real_files import packaged_file

import dcmdask
import dcmdask.xarray
from dcmdask import DcmdaskWarning, IrregularSeriesError, LayoutError, scan, to_zarr
from dcmdask.store.export import Prepared, prepare

CINE = packaged_file("examples_ybr_color.dcm")
MM = {"type": "space", "unit": "millimeter"}
MS = {"type": "time", "unit": "millisecond"}


def volume(folder: Path, *shape: int, gap: float = 1.0, **elements: Any) -> Path:
    """A stack of `shape` (z, y, x), `gap` mm between frames, pixels of 0.5 mm x 0.75 mm."""
    at = elements.get("orientation", AXIAL)
    frames = noise(*shape, dtype="u2", bits=12)
    classic(folder, frames, along(at, gap * np.arange(shape[0])), BitsStored=12, **elements)
    return folder


def exported(src: Any, store: Path, **options: Any) -> zarr.Group:
    report = to_zarr(src, store, format="ome-zarr", **options)
    assert not report.failures
    return zarr.open_group(store, mode="r")


def prepared(src: Any, **options: Any) -> Prepared:
    """What would be written, without writing it."""
    standard: dict[str, Any] = {
        "format": "ome-zarr",
        "chunks": "auto",
        "shards": "auto",
        "compressors": "auto",
        "levels": "auto",
        "values": "stored",
        "on_irregular": "error",
        "on_error": "fail",
        "fill_value": None,
        "with_identifiers": False,
    }
    return prepare(src, **standard | options)


def told(src: Any, **options: Any) -> tuple[dict[str, Any], list[tuple[Any, Any]], Any]:
    """Axes by name, scale and translation of each level, and the channels."""
    made = src if isinstance(src, Prepared) else prepared(src, **options)
    ome = made.attributes["ome"]
    (image,) = ome["multiscales"]
    axes = {axis.pop("name"): axis for axis in image["axes"]}
    assert tuple(axes) == made.plan.dims
    levels = []
    for number, dataset in enumerate(image["datasets"]):
        assert dataset["path"] == str(number)
        scale, translation = dataset["coordinateTransformations"]
        levels.append((scale["scale"], translation["translation"]))
    return axes, levels, ome.get("omero", {}).get("channels")


def check_opens(store: Path, expected: np.ndarray) -> None:
    """Other readers find the whole data, and the metadata valid."""
    yaozarrs.validate_zarr_store(str(store))
    group = zarr.open_group(store, mode="r")
    image = Image.from_zarr(group)
    assert image.ome_attributes.version == "0.5"
    axes = group.attrs["ome"]["multiscales"][0]["axes"]
    (node,) = Reader(parse_url(str(store)))()
    assert any(isinstance(spec, Multiscales) for spec in node.specs)
    assert node.metadata["axes"] == axes
    assert len(node.data) == len(node.metadata["coordinateTransformations"])
    np.testing.assert_array_equal(node.data[0].compute(), expected)
    for name, level in enumerate(node.data):
        array: Any = group[str(name)]
        assert array.metadata.dimension_names == tuple(axis["name"] for axis in axes)
        assert level.shape == array.shape


# Opened by others


def test_a_volume_opens_in_other_readers(tmp_path: Path) -> None:
    src = volume(tmp_path / "src", 5, 300, 40)
    exported(src, tmp_path / "v.zarr")
    check_opens(tmp_path / "v.zarr", scan(src)[0].stacks[0].to_dask().compute())


def test_colour_is_a_channel_in_front_of_the_plane(tmp_path: Path) -> None:
    group = exported(CINE, tmp_path / "cine.zarr", levels=3)
    expected = np.moveaxis(dcmdask.pixel_array(CINE), -1, 1)
    check_opens(tmp_path / "cine.zarr", expected)
    assert [group[str(n)].shape for n in range(3)] == [
        (30, 3, 240, 320),
        (30, 3, 120, 160),
        (30, 3, 60, 80),
    ]
    axes, levels, channels = told(CINE)
    assert axes == {
        "t": MS,
        "c": {"type": "channel"},
        "y": MM,
        "x": MM,
    }
    # Of the region of ultrasound.
    assert levels[0][0] == pytest.approx([33.333, 1, 0.510497058, 0.510497058])
    assert [(c["label"], c["color"], c["active"]) for c in channels] == [
        ("red", "FF0000", True),
        ("green", "00FF00", True),
        ("blue", "0000FF", True),
    ]
    assert channels[0]["window"] == {"start": 0, "end": 255, "min": 0, "max": 255}


@pytest.mark.filterwarnings("ignore")  # it warns of its own dependencies when it is imported
def test_napari_makes_layers(tmp_path: Path) -> None:
    plugin = pytest.importorskip("napari_ome_zarr", reason="napari's reader is not installed")
    exported(CINE, tmp_path / "cine.zarr", levels=2)
    store = str(tmp_path / "cine.zarr")
    ((data, about, kind),) = plugin.napari_get_reader(store)(store)
    assert kind == "image" and len(data) == 2 and about["channel_axis"] == 1
    assert about["axis_labels"] == ("t", "y", "x")
    assert about["name"] == ["US: red", "US: green", "US: blue"]
    np.testing.assert_allclose(about["scale"], [33.333, 1, 1])


@pytest.mark.parametrize(
    ("source", "dims"),
    [
        ("dcmqi/data/segmentations/ct-3slice", ("z", "y", "x")),
        ("dcm_qa_agfa/Siemens", ("t", "z", "y", "x")),
        ("dcm_qa_pdt2/In/Siemens/VE11", ("c", "z", "y", "x")),
        ("pydicom-data/data_store/data/liver.dcm", ("c", "z", "y", "x")),
        ("pydicom-data/data_store/data/693_J2KR.dcm", ("z", "y", "x")),
    ],
)
def test_real_series(corpus: Path, source: str, dims: tuple[str, ...], tmp_path: Path) -> None:
    made = exported(corpus / source, tmp_path / "real.zarr")
    array: Any = made["0"]
    assert array.metadata.dimension_names == dims
    check_opens(tmp_path / "real.zarr", scan(corpus / source)[0].stacks[0].to_dask().compute())


def test_xarray_shows_labelled_dimensions(tmp_path: Path) -> None:
    where = list(product((10.0, 30.0), range(3)))
    frames = noise(len(where), 9, 11)
    positions = along(AXIAL, [2.5 * z for _, z in where])
    each = {
        "EchoTime": [echo for echo, _ in where],
        "EchoNumbers": [1 + (e > 10) for e, _ in where],
    }
    classic(tmp_path / "src", frames, positions, modality="MR", each=each)
    exported(tmp_path / "src", tmp_path / "e.zarr", levels=2)
    check_opens(tmp_path / "e.zarr", frames.reshape(2, 3, 9, 11))
    opened = xarray.open_zarr(tmp_path / "e.zarr", drop_variables=["1"])
    array = opened["0"]
    assert array.dims == ("c", "z", "y", "x")
    assert array.coords["c"].values.tolist() == ["echo 10 ms", "echo 30 ms"]
    assert array.coords["echo"].dims == ("c",) and array.coords["echo"].attrs["units"] == "ms"
    np.testing.assert_array_equal(array.coords["z"], [-7, -4.5, -2])
    np.testing.assert_allclose(array.dcm.affine[:3, 3], [-12.5, 30.25, -7])
    np.testing.assert_array_equal(
        array.sel(c="echo 30 ms", z=-4.5), frames.reshape(2, 3, 9, 11)[1, 1]
    )
    _, _, channels = told(tmp_path / "src")
    assert [(c["label"], c["active"]) for c in channels] == [
        ("echo 10 ms", True),
        ("echo 30 ms", False),
    ]


# Where the pixels are


def test_an_axial_volume_by_hand(tmp_path: Path) -> None:
    axes, levels, _ = told(volume(tmp_path / "src", 4, 20, 30, gap=1.0), levels=3)
    assert axes == {"z": MM, "y": MM, "x": MM}
    # Rows are 0.5 mm apart and columns 0.75; the first pixel is at (-12.5, 30.25, -7).
    expected = [
        ([1, 0.5, 0.75], [-7, 30.25, -12.5]),
        ([2, 1, 1.5], [-6.5, 30.5, -12.125]),
        ([4, 2, 3], [-5.5, 31, -11.375]),
    ]
    for found, wanted in zip(levels, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_an_oblique_volume_by_hand(tmp_path: Path) -> None:
    src = volume(tmp_path / "src", 4, 20, 30, gap=2.0, orientation=OBLIQUE)
    made = prepared(src, levels=2)
    _, levels, _ = told(made)
    # Along the normal (0.48, -0.64, 0.6), columns (-0.36, 0.48, 0.8) and rows (0.8, 0.6, 0).
    first = [
        0.48 * -12.5 + -0.64 * 30.25 + 0.6 * -7,
        -0.36 * -12.5 + 0.48 * 30.25 + 0.8 * -7,
        0.8 * -12.5 + 0.6 * 30.25,
    ]
    np.testing.assert_allclose(levels[0], ([2, 0.5, 0.75], first), atol=1e-6)
    # z is too thick to be halved.
    second = [first[0], first[1] + 0.25, first[2] + 0.375]
    np.testing.assert_allclose(levels[1], ([2, 1, 1.5], second), atol=1e-6)
    _, _, attributes = made.coordinates["patient"]
    np.testing.assert_allclose(attributes["orientation"], OBLIQUE, atol=1e-9)


def test_two_stacks_of_one_orientation_are_registered(tmp_path: Path) -> None:
    """The translations differ by where one begins in the other."""
    whole = volume(tmp_path / "whole", 6, 8, 8, gap=2.0, orientation=OBLIQUE)
    positions = along(OBLIQUE, 2.0 * np.arange(6))
    part = tmp_path / "part"
    classic(part, noise(2, 8, 8), positions[3:5], orientation=OBLIQUE)
    (_, of_whole), *_ = told(whole)[1]
    (_, of_part), *_ = told(part)[1]
    np.testing.assert_allclose(np.subtract(of_part, of_whole), [6, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("gap", "spacing", "halved"),
    [
        (1.125, (0.5, 0.75), (0, 1, 2)),
        (1.2, (0.5, 0.75), (1, 2)),
        (1.125, (0.75, 0.5), (0, 1, 2)),
        (0.1, (0.5, 0.5), (0, 1, 2)),
    ],
)
def test_z_is_halved_up_to_half_as_much_again(
    gap: float, spacing: tuple[float, float], halved: tuple[int, ...], tmp_path: Path
) -> None:
    classic(tmp_path, noise(3, 4, 4), along(AXIAL, gap * np.arange(3)), spacing=spacing)
    assert prepared(tmp_path).plan.halved == halved


def test_what_is_not_known_has_no_unit(tmp_path: Path) -> None:
    """Neither a thickness of the only frame nor, in another stack, a pixel spacing."""
    one = volume(tmp_path / "one", 1, 4, 4)
    axes, levels, _ = told(one, levels=2)
    assert axes == {"z": {"type": "space"}, "y": MM, "x": MM}
    assert levels[0][0] == [1, 0.5, 0.75] and levels[1][0] == [1, 1, 1.5]
    blank = volume(tmp_path / "blank", 3, 4, 4, each={"PixelSpacing": [None] * 3})
    axes, levels, _ = told(blank, on_irregular="keep")
    assert axes == {"z": MM, "y": {"type": "space"}, "x": {"type": "space"}}
    assert levels[0] == ([1, 1, 1], [0, 0, 0])


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    gap=st.sampled_from([0.3, 1.0, 1.1, 3.0]),
    orientation=st.sampled_from([AXIAL, OBLIQUE]),
)
def test_a_voxel_is_amid_those_that_it_is_made_of(
    shape: tuple[int, int, int],
    gap: float,
    orientation: Sequence[float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    src = volume(
        tmp_path_factory.mktemp("v"), *shape, gap=gap, orientation=orientation, SliceThickness=gap
    )
    most = 1 + math.ceil(math.log2(max(shape[1:])))
    made = prepared(src, levels=most)
    _, levels, _ = told(made)
    (scale, first), *_ = levels
    for number, (steps, origin) in enumerate(levels):
        # Along each axis, the first voxels that are made of whole blocks.
        for axis, length in enumerate(shape):
            size = 2**number if axis in made.plan.halved else 1
            for place in range(min(3, length // size)):
                below = np.arange(place * size, (place + 1) * size)
                centre = (first[axis] + scale[axis] * below).mean()
                assert origin[axis] + steps[axis] * place == pytest.approx(centre, abs=1e-6)


# Levels


def mean(values: list[int]) -> int:
    """Half is rounded up, exactly."""
    return math.floor(Fraction(sum(values), len(values)) + Fraction(1, 2))


def check_levels(
    group: zarr.Group, level: np.ndarray, halved: Sequence[int], labels: bool = False
) -> None:
    for number in range(len(group.attrs["ome"]["multiscales"][0]["datasets"])):
        np.testing.assert_array_equal(group[str(number)][...], level)
        level = naive(level, halved, labels)


def naive(array: np.ndarray, halved: Sequence[int], labels: bool) -> np.ndarray:
    """The level above: the last of an odd axis counts twice where there is no other."""
    shape = [-(-n // 2) if axis in halved else n for axis, n in enumerate(array.shape)]
    out = np.empty(shape, array.dtype)
    for index in np.ndindex(*shape):
        along_each = [
            [min(2 * i + step, array.shape[axis] - 1) for step in (0, 1)] if axis in halved else [i]
            for axis, i in enumerate(index)
        ]
        values = [int(array[one]) for one in product(*along_each)]
        out[index] = values[0] if labels else mean(values)
    return out


@pytest.mark.parametrize("gap", [1.0, 4.0], ids=["thin", "thick"])
def test_levels_are_those_of_the_definition(gap: float, tmp_path: Path) -> None:
    frames = noise(5, 21, 14, dtype="i2")
    classic(tmp_path / "src", frames, along(AXIAL, gap * np.arange(5)))
    shards: Any = {"chunks": (1, 8, 8), "shards": (2, 24, 16)}
    group = exported(tmp_path / "src", tmp_path / "v.zarr", levels=4, **shards)
    check_levels(group, frames, (0, 1, 2) if gap == 1.0 else (1, 2))
    check_opens(tmp_path / "v.zarr", frames)


def test_levels_of_labels_are_labels(tmp_path: Path) -> None:
    frames = noise(5, 21, 14)
    src = saved(tmp_path, native(frames, SOPClassUID=SegmentationStorage, PixelSpacing=[1, 2]))
    group = exported(src, tmp_path / "v.zarr", levels=4)
    check_levels(group, frames, (1, 2), labels=True)
    check_opens(tmp_path / "v.zarr", frames)
    _, levels, channels = told(src, levels=4)
    assert channels is None
    # The first of a block stays where it was.
    assert levels == [([1, 2**n, 2 * 2**n], [0, 0, 0]) for n in range(4)]


def test_each_frame_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(6, 40, 36, dtype="u2", bits=12)
    elements = {"BitsStored": 12, "HighBit": 11, "FrameTime": 40}
    src = saved(tmp_path, encapsulated(frames, JPEG2000Lossless, **elements))
    seen: list[int] = []
    count_decodings(monkeypatch, seen.append)
    group = exported(src, tmp_path / "c.zarr", levels=5, chunks=(1, 40, 36))
    assert sorted(seen) == list(range(6))
    assert [group[str(n)].shape for n in range(5)] == [
        (6, 40, 36),
        (6, 20, 18),
        (6, 10, 9),
        (6, 5, 5),
        (6, 3, 3),
    ]
    np.testing.assert_array_equal(group["0"][...], frames)


# Time, and frames that have no position


def test_even_times_are_a_scale(tmp_path: Path) -> None:
    times, lengths = {"even": [0, 40, 80], "uneven": [0, 40, 90]}, (3, 2)
    where = list(np.ndindex(*lengths))
    for name, each in times.items():
        positions = along(AXIAL, [z for _, z in where])
        told_each = {
            "TriggerTime": [each[t] for t, _ in where],
            "TemporalPositionIdentifier": [t + 1 for t, _ in where],
        }
        folder = tmp_path / name
        classic(folder, noise(6, 4, 4), positions, modality="MR", each=told_each)
        made = prepared(folder)
        axes, levels, _ = told(made)
        np.testing.assert_array_equal(made.coordinates["t"][1], each)
        assert axes["t"] == (MS if name == "even" else {"type": "time"})
        assert levels[0][0] == [40 if name == "even" else 1, 1, 0.5, 0.75]


FRAME_TIME, FRAME_TIME_VECTOR, SLICE_VECTOR = 0x00181063, 0x00181065, 0x00182005


@pytest.mark.parametrize(
    ("elements", "times", "scale"),
    [
        ({"FrameTime": 40.5}, [0, 40.5, 81], 40.5),
        ({"FrameIncrementPointer": FRAME_TIME, "FrameTime": 40}, [0, 40, 80], 40),
        ({"FrameTimeVector": [0, 30, 30]}, [0, 30, 60], 30),
        ({"FrameTimeVector": [0, 30, 50], "FrameTime": 40}, [0, 30, 80], None),
        (
            {
                "FrameTimeVector": [0, 30],
                "FrameTime": 40,
                "FrameIncrementPointer": FRAME_TIME,
            },
            [0, 40, 80],
            40,
        ),
        ({"CineRate": 20}, [0, 50, 100], 50),
    ],
)
def test_a_cine_has_times(
    elements: dict[str, Any], times: list[float], scale: float | None, tmp_path: Path
) -> None:
    src = saved(tmp_path, native(noise(3, 5, 6, samples=3), **elements))
    made = prepared(src)
    axes, levels, _ = told(made)
    assert made.plan.dims == ("t", "c", "y", "x")
    dims, values, about = made.coordinates["t"]
    assert dims == ("t",) and about == {"units": "ms"}
    np.testing.assert_allclose(values, times)
    assert axes["t"] == ({"type": "time"} if scale is None else MS)
    assert levels[0][0][0] == (scale or 1)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"FrameIncrementPointer": SLICE_VECTOR, "FrameTime": 40},
    ],
)
def test_frames_that_are_neither_places_nor_times(elements: Any, tmp_path: Path) -> None:
    """They get an axis of their own, which other readers open."""
    frames = noise(3, 5, 6)
    src = saved(tmp_path, native(frames, PixelSpacing=[0.2, 0.3], **elements))
    exported(src, tmp_path / "f.zarr")
    check_opens(tmp_path / "f.zarr", frames)
    axes, levels, _ = told(src)
    assert axes == {"frame": {}, "y": MM, "x": MM}
    assert levels[0] == ([1, 0.2, 0.3], [0, 0, 0])


def test_a_cine_without_times_is_frames(tmp_path: Path) -> None:
    src = saved(tmp_path, native(noise(3, 5, 6), FrameTime=0))
    with pytest.warns(DcmdaskWarning, match="frames have no times"):
        assert prepared(src).plan.dims == ("frame", "y", "x")


def test_frames_of_several_instances_are_no_cine(tmp_path: Path) -> None:
    for number in range(2):
        data = native(
            noise(2, 5, 6, seed=number),
            FrameTime=40,
            SOPInstanceUID=f"1.2.3.{number + 1}",
            SeriesInstanceUID="1.2.3",
            InstanceNumber=number + 1,
        )
        saved(tmp_path, data, f"{number}.dcm")
    with pytest.raises(dcmdask.AmbiguousSourceError, match="2 stacks"):
        prepared(tmp_path)
    assert prepared(scan(tmp_path)[0].stacks[1]).plan.dims == ("t", "y", "x")


@pytest.mark.parametrize("samples", [1, 3])
def test_a_single_frame_has_one_time(samples: int, tmp_path: Path) -> None:
    src = saved(tmp_path, native(noise(1, 5, 6, samples=samples)))
    axes, _, _ = told(src)
    assert tuple(axes) == (("t", "c", "y", "x") if samples == 3 else ("t", "y", "x"))
    assert axes["t"] == {"type": "time"}


# One dimension beyond t, z, y and x


def test_diffusion_and_components_are_channels(tmp_path: Path) -> None:
    weighted = [(0.0, (0, 0, 0)), (700.0, (1, 0, 0)), (700.0, (0, 0.6, 0.8))]
    where = list(product(range(3), range(2)))
    positions = along(AXIAL, [2.0 * z for _, z in where])
    macros = [
        {
            "MRDiffusionSequence": {
                "DiffusionBValue": weighted[d][0],
                "DiffusionGradientDirectionSequence": [direction(weighted[d][1])],
            }
        }
        for d, _ in where
    ]
    enhanced(tmp_path / "d", noise(6, 4, 4), positions, macros=macros)
    made = prepared(tmp_path / "d")
    labels = ["b 0 s/mm2", "b 700 s/mm2 (0, 0.6, 0.8)", "b 700 s/mm2 (1, 0, 0)"]
    assert [channel["label"] for channel in told(made)[2]] == labels
    found = made.coordinates
    assert found["c"][1].tolist() == labels
    assert found["b_value"][0] == ("c",) and found["direction_x"][0] == ("c",)
    assert "diffusion" not in found

    kinds = ["MAGNITUDE", "PHASE"]
    each = {"ComplexImageComponent": [kinds[d % 2] for d, _ in where[:4]]}
    classic(tmp_path / "p", noise(4, 4, 4), positions[:4], modality="MR", each=each)
    assert [channel["label"] for channel in told(tmp_path / "p")[2]] == ["magnitude", "phase"]


def test_two_dimensions_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    where = list(product((10.0, 30.0), ("MAGNITUDE", "PHASE"), range(2)))
    positions = along(AXIAL, [z for *_, z in where])
    each = {
        "EchoTime": [echo for echo, *_ in where],
        "ComplexImageComponent": [kind for _, kind, _ in where],
    }
    classic(tmp_path / "src", noise(8, 4, 4), positions, modality="MR", each=each)
    with pytest.raises(LayoutError, match="echo and component") as caught:
        exported(tmp_path / "src", tmp_path / "v.zarr")
    assert "format='zarr' stores it as it is" in str(caught.value)
    assert [one.name for one in tmp_path.iterdir()] == ["src"]
    assert to_zarr(tmp_path / "src", tmp_path / "v.zarr").shape == (2, 2, 2, 4, 4)


def test_colours_that_are_neither_places_nor_times_are_refused(tmp_path: Path) -> None:
    src = saved(tmp_path, native(noise(3, 5, 6, samples=3)))
    with pytest.raises(LayoutError, match=r"frame and sample \(3 and 3 long\)"):
        prepared(src)


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    positions = along(AXIAL, [0, 2.5, 5]) + np.outer([0, 0.5, 1], [0, 1, 0])
    classic(tmp_path / "dicom", noise(3, 5, 6), positions)
    with (
        pytest.warns(DcmdaskWarning, match="tilted"),
        pytest.raises(IrregularSeriesError, match="untilted") as caught,
    ):
        to_zarr(tmp_path / "dicom", tmp_path / "a.zarr", format="ome-zarr")
    assert caught.value.code == "IrregularSeriesError/tilt"
    with pytest.warns(DcmdaskWarning, match="tilted"):
        to_zarr(tmp_path / "dicom", tmp_path / "b.zarr", format="zarr")


@pytest.mark.parametrize(
    ("distances", "kept", "filled"),
    [
        ([0, 2.5, 5, 10], "1 of 5 positions", True),
        ([0, 2.5, 5.9, 7.5], "gaps are uneven", False),
        ([0, 2.5, 2.5, 5], "share a position", False),
    ],
    ids=["missing", "uneven", "duplicate"],
)
def test_what_is_no_even_grid_is_refused(
    distances: list[float], kept: str, filled: bool, tmp_path: Path
) -> None:
    classic(tmp_path, noise(4, 5, 6), along(AXIAL, distances))
    with pytest.raises(IrregularSeriesError, match=kept) as caught:
        prepared(tmp_path, on_irregular="keep")
    for advice in ("on_irregular='fill'", "split()", "format='zarr'"):
        assert advice in str(caught.value)
    if filled:
        made = prepared(tmp_path, on_irregular="fill", fill_value=0)
        assert told(made)[1][0][0] == [2.5, 0.5, 0.75] and made.plan.levels[0].shape == (5, 5, 6)


# Windows


@pytest.mark.parametrize(
    ("elements", "values", "start", "end", "least", "greatest"),
    [
        # (-160, 239) HU, and less 1024.
        ({"RescaleIntercept": -1024, "RescaleSlope": 1}, "stored", 864, 1263, 0, 4095),
        ({"RescaleIntercept": -1024, "RescaleSlope": 1}, "modality", -160, 239, -1024, 3071),
        ({"RescaleIntercept": 8, "RescaleSlope": 2}, "stored", -84, 115.5, 0, 4095),
        ({}, "stored", -160, 239, 0, 4095),
        ({"VOILUTFunction": "LINEAR_EXACT"}, "stored", -160, 240, 0, 4095),
        ({"RescaleIntercept": 0, "RescaleSlope": -1}, "stored", -239, 160, 0, 4095),
        ({}, "display", 0, 255, 0, 255),
    ],
)
def test_the_window_is_in_the_values_that_are_stored(
    elements: Any,
    values: Any,
    start: float,
    end: float,
    least: float,
    greatest: float,
    tmp_path: Path,
) -> None:
    volume(tmp_path, 2, 5, 6, WindowCenter=40, WindowWidth=400, **elements)
    (channel,) = told(tmp_path, values=values)[2]
    assert channel["window"] == {"start": start, "end": end, "min": least, "max": greatest}
    assert channel["inverted"] is (elements.get("RescaleSlope") == -1)


def test_a_window_that_not_all_frames_share_is_not_told(tmp_path: Path) -> None:
    volume(tmp_path / "a", 2, 5, 6, each={"WindowCenter": [40, 50]}, WindowWidth=400)
    assert told(tmp_path / "a")[2] is None
    slopes = {"RescaleSlope": [1, 2], "RescaleIntercept": [0, 0]}
    volume(tmp_path / "b", 2, 5, 6, each=slopes, WindowCenter=40, WindowWidth=400)
    assert told(tmp_path / "b")[2] is None
    (channel,) = told(tmp_path / "b", values="modality")[2]
    assert channel["window"] == {"start": -160, "end": 239, "min": 0, "max": 8190}


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    volume(
        tmp_path, 2, 5, 6, WindowCenter=40, WindowWidth=9, PhotometricInterpretation="MONOCHROME1"
    )
    assert told(tmp_path)[2][0]["inverted"] is True
    assert told(tmp_path, values="display")[2][0]["inverted"] is False


def test_ome_needs_yaozarrs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaozarrs", None)
    with pytest.raises(ImportError, match=r"pip install 'dcmdask\[ome\]'"):
        exported(CINE, tmp_path / "cine.zarr")
    assert not list(tmp_path.iterdir())
