"""Segmentations are what highdicom reads and writes: its values, positions and segments."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pytest
import xarray as xr
from counting import count_decodings
from made_segmentations import (
    COLOURS,
    COLUMNS,
    KINDS,
    PLANES,
    ROWS,
    changed,
    masks,
    read,
    source,
    written,
)
from made_series import AXIAL, OBLIQUE
from PIL import Image, ImageCms
from real_files import corpus_files, corpus_id

import dcmdask
from dcmdask import scan
from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.errors import GeometryError, HeaderError, IrregularSeriesError
from dcmdask.labelled.labelmap import _frames_of


def by_highdicom(path: Path) -> np.ndarray:
    """(segment, z, y, x), with z ascending along the normal."""
    segmentation = hd.seg.segread(path)
    volume = segmentation.get_volume(combine_segments=False)
    array = np.moveaxis(volume.array, -1, 0)
    # Its planes are in either order.
    first, last = (np.asarray(volume.affine)[:3, :3] @ [k, 0, 0] for k in (0, 1))
    row, column = np.asarray(volume.affine)[:3, 2], np.asarray(volume.affine)[:3, 1]
    return array if (last - first) @ np.cross(row, column) > 0 else array[:, ::-1]


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("overlapping", [False, True], ids=["apart", "overlapping"])
def test_binary_segments(overlapping: bool, orientation: tuple[float, ...], tmp_path: Path) -> None:
    images = source(tmp_path / "ct", orientation)
    pixels = masks(overlapping=overlapping)
    path = written(tmp_path / "seg.dcm", images, pixels)
    v = read(path)
    assert (v.dims, v.dtype) == (("segment", "z", "y", "x"), np.uint8)
    there = np.flatnonzero(pixels.any(axis=(1, 2, 3)))
    np.testing.assert_array_equal(v, np.moveaxis(pixels[there[0] : there[-1] + 1], -1, 0))
    np.testing.assert_array_equal(v, by_highdicom(path))
    ct = read(tmp_path / "ct")
    np.testing.assert_allclose(v.z, ct.z[there[0] : there[-1] + 1], atol=1e-6)
    np.testing.assert_allclose(v.x, ct.x, atol=1e-6)
    assert v.patient.item() == ct.patient.item()
    assert v.segment.values.tolist() == ["Liver", "Kidney", "Spleen"]
    assert v.segment_number.values.tolist() == [1, 2, 3]
    assert v.segment_type.values.tolist() == ["Liver", "Kidney", "Liver"]
    assert v.segment_algorithm.values.tolist() == ["MANUAL"] * 3
    assert v.attrs["segmentation_type"] == "BINARY"
    assert int(v.sel(segment="Kidney").sum()) == pixels[..., 1].sum()
    assert scan(path)[0].stacks[0].kind == "segmentation"


def test_colours_are_those_of_a_colour_management(tmp_path: Path) -> None:
    v = read(written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks()))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB", 5000)
    convert = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    for text, (light, a, b) in zip(v.segment_colour.values[:2], COLOURS[::-1], strict=True):
        one = Image.new("LAB", (1, 1), (round(light * 2.55), int(a) + 128, int(b) + 128))
        theirs = np.asarray(ImageCms.applyTransform(one, convert)).reshape(3).astype(int)
        ours = np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)])
        assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
def test_fractions(kind: str, tmp_path: Path) -> None:
    images = source(tmp_path / "ct")
    pixels = np.zeros((PLANES, ROWS, COLUMNS, 1), np.float32)
    pixels[1:4] = np.random.default_rng(1).random((3, ROWS, COLUMNS, 1))
    path = written(
        tmp_path / "seg.dcm",
        images,
        pixels,
        "FRACTIONAL",
        ("Liver",),
        fractional_type=kind,
        max_fractional_value=200,
    )
    v = read(path, values="modality")
    assert v.dtype == np.float32 and v.attrs["segmentation_type"] == "FRACTIONAL"
    np.testing.assert_array_equal(v, by_highdicom(path))
    assert np.abs(v[0].values - pixels[1:4, ..., 0]).max() <= 0.5 / 200 + 1e-6
    # A file and a folder do not disagree: it has its frames in the order that they are stored in.
    stored = np.asarray(dcmdask.from_dicom(path, values="modality"))
    np.testing.assert_array_equal(np.sort(stored, axis=0), np.sort(v[0], axis=0))
    with pytest.raises(ValueError, match="compare them first"):
        v.dcm.labelmap()
    assert (v > 0.5).dcm.labelmap().max() == 1


def test_a_label_map(tmp_path: Path) -> None:
    images = source(tmp_path / "ct")
    pixels = masks()
    labels = (pixels * np.array([1, 2, 3], np.uint8)).max(axis=-1)
    path = written(tmp_path / "seg.dcm", images, labels, "LABELMAP")
    v = read(path)
    assert v.dims == ("z", "y", "x") and v.attrs["segmentation_type"] == "LABELMAP"
    names = dict(zip(v.attrs["label_numbers"], v.attrs["labels"], strict=True))
    assert {names[n] for n in (1, 2, 3)} == {"Liver", "Kidney", "Spleen"}
    full = read(tmp_path / "ct").z.values
    place = np.searchsorted(full, v.z.values - 1e-6)
    np.testing.assert_array_equal(v, labels[place])
    segments = read(written(tmp_path / "other.dcm", images, pixels))
    made = segments.dcm.labelmap()
    np.testing.assert_array_equal(made, labels[np.searchsorted(full, made.z.values - 1e-6)])
    assert made.dtype == np.uint8 and made.attrs["labels"] == ["Liver", "Kidney", "Spleen"]
    np.testing.assert_array_equal(segments.compute().dcm.labelmap(), made)
    # Of the frames themselves, and of what was done to them.
    assert isinstance(_frames_of(segments.data), ArrangedFrames)
    changed_ones = segments + np.uint8(0)
    assert _frames_of(changed_ones.data) is None and _frames_of(segments[:2].data) is None
    np.testing.assert_array_equal(changed_ones.dcm.labelmap(), made)
    np.testing.assert_array_equal(segments[:2].dcm.labelmap(), made.where(made < 3, 0))
    np.testing.assert_array_equal(segments[::-1, 1:].dcm.labelmap(), made[1:])
    on_image = read(tmp_path / "other.dcm", like=read(tmp_path / "ct"))
    np.testing.assert_array_equal(on_image.dcm.labelmap(), labels)


def test_segments_that_overlap_are_no_label_map(tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks(overlapping=True))
    v = read(path)
    made = v.dcm.labelmap()
    with pytest.raises(ValueError, match=r"segments 1 and [23] overlap"):
        made.compute()
    one = v.sel(segment=["Kidney"]).dcm.labelmap()
    np.testing.assert_array_equal(one, 2 * v.sel(segment="Kidney"))


def test_only_planes_with_a_frame_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.zeros((PLANES, ROWS, COLUMNS, 3), np.uint8)
    pixels[0, ..., 0] = pixels[5, ..., 1] = 1
    path = written(tmp_path / "seg.dcm", source(tmp_path / "ct"), pixels)
    v = read(path)
    # Planes between those of the segments are there, too, and so is a segment without frames.
    assert v.shape == (3, PLANES, ROWS, COLUMNS)
    decoded: list[int] = []
    count_decodings(monkeypatch, decoded.append)
    assert not v[:, 1:5].any() and not v[2].any()
    assert decoded == []
    assert v[0, 0].all() and len(decoded) == 1


def test_labels_that_occur_twice_get_their_number(tmp_path: Path) -> None:
    labels = ("Rib", "Liver", "Rib")
    v = read(written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks(), labels=labels))
    assert v.segment.values.tolist() == ["Rib 1", "Liver", "Rib 3"]


def test_files_of_one_frame_keep_their_own_segments(tmp_path: Path) -> None:
    images = source(tmp_path / "ct")
    (tmp_path / "seg").mkdir()
    for place, label in ((1, "Liver"), (4, "Kidney")):
        pixels = np.zeros((PLANES, ROWS, COLUMNS, 1), np.uint8)
        pixels[place] = 1
        path = written(tmp_path / "seg" / label, images, pixels, labels=(label,))
        changed(path, lambda one, place=place: setattr(one, "SOPInstanceUID", f"1.2.{place}"))
    (found,) = scan(tmp_path / "seg")
    assert [len(one.frame_numbers) for one in found.stacks] == [1, 1]
    labels = [stack.to_xarray().segment.item() for stack in found.stacks]
    assert sorted(labels) == ["Kidney", "Liver"]


def test_frames_and_descriptions_that_do_not_go_together(tmp_path: Path) -> None:
    made = written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks())
    data = made.read_bytes()

    def lost(dataset: Any) -> None:
        del dataset.SegmentSequence[1]

    changed(made, lost)
    notes = [str(note) for note in scan(made)[0].notes]
    assert any("segments 2 have frames and no description" in note for note in notes)
    assert read(made).segment.values.tolist() == ["Liver", "segment 2", "Spleen"]

    made.write_bytes(data)

    def unsaid(dataset: Any) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence

    changed(made, unsaid)
    assert any("do not say of which segment" in str(note) for note in scan(made)[0].notes)

    made.write_bytes(data)

    def twice(dataset: Any) -> None:
        first, second = dataset.PerFrameFunctionalGroupsSequence[:2]
        second.PlanePositionSequence = first.PlanePositionSequence

    changed(made, twice)
    with pytest.raises(IrregularSeriesError, match="have the segment, z of others"):
        read(made)


def test_a_maximum_of_0_is_an_error(tmp_path: Path) -> None:
    pixels = np.full((PLANES, ROWS, COLUMNS, 1), 0.5, np.float32)
    options = {"fractional_type": "OCCUPANCY", "max_fractional_value": 200}
    path = written(
        tmp_path / "seg.dcm", source(tmp_path / "ct"), pixels, "FRACTIONAL", ("A",), **options
    )
    changed(path, lambda dataset: setattr(dataset, "MaximumFractionalValue", 0))
    for open_ in (read, dcmdask.from_dicom):
        with pytest.raises(HeaderError, match="Maximum Fractional Value"):
            open_(path, values="modality")
    assert read(path).max() == 100


def test_stores_files_and_pickles(tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks())
    one = scan(path)[0]
    v = read(path)
    stack = pickle.loads(pickle.dumps(one.stacks[0]))
    np.testing.assert_array_equal(stack.to_xarray(), v)
    dcmdask.to_zarr(one, tmp_path / "a.zarr")
    assert dcmdask.verify(tmp_path / "a.zarr", one).ok
    stored = xr.open_zarr(tmp_path / "a.zarr").pixels
    np.testing.assert_array_equal(stored, v)
    assert stored.segment.values.tolist() == v.segment.values.tolist()
    for made in (v, v.dcm.labelmap()):
        made.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
        with xr.open_dataarray(tmp_path / "a.nc", engine="h5netcdf") as again:
            np.testing.assert_array_equal(again, made)
    nearest = v.dcm.like(read(tmp_path / "ct"), method="nearest", fill_value=0)
    assert nearest.shape == (3, PLANES, ROWS, COLUMNS)
    np.testing.assert_array_equal(nearest, np.moveaxis(masks(), -1, 0))
    with pytest.raises(GeometryError):
        v.isel(z=0, drop=True).dcm.affine  # noqa: B018  it raises


def test_segments_of_real_files_are_highdicoms(corpus: Path) -> None:
    """Of all that are volumes and that highdicom reads: it takes neither big endian nor all RLE."""
    compared = 0
    for path in corpus_files():
        if "seg" not in str(path).lower() and "liver" not in path.name:
            continue
        found = scan(path)
        if not len(found) or found[0].metadata.get("SOPClassUID") not in KINDS:
            continue
        v = read(path)
        if not {"segment", "z"} <= {*v.dims}:
            continue
        try:
            theirs = by_highdicom(path)
        except (ValueError, RuntimeError):
            continue
        is_fractional = v.attrs["segmentation_type"] == "FRACTIONAL"
        ours = read(path, values="modality") if is_fractional else v
        np.testing.assert_array_equal(ours, theirs, corpus_id(path))
        compared += 1
    assert compared >= 11


def by_dcmqi(path: Path, folder: Path) -> dict[int, int] | None:
    """Voxels of each segment, by number; None where dcmqi does not read the file."""
    folder.mkdir()
    program = Path(sys.executable).with_name("segimage2itkimage")
    options = ["--outputDirectory", folder, "--outputType", "nifti", "--prefix", "s"]
    done = subprocess.run(
        [program, "--inputDICOM", path, *options], check=False, capture_output=True
    )
    if done.returncode:
        return None
    found: dict[int, int] = {}
    # Segments that do not overlap share a file, in which they have their numbers.
    for one in folder.glob("*.nii.gz"):
        image: Any = nibabel.load(one)
        values, counts = np.unique(np.asarray(image.dataobj), return_counts=True)
        found |= {int(n): int(c) for n, c in zip(values, counts, strict=True) if n}
    return found


@pytest.mark.parametrize("overlapping", [False, True], ids=["apart", "overlapping"])
def test_segments_have_as_many_voxels_as_in_dcmqi(overlapping: bool, tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", source(tmp_path / "ct", OBLIQUE), masks(0, 3, overlapping))
    assert by_dcmqi(path, tmp_path / "out") == voxels(read(path))


def voxels(v: xr.DataArray) -> dict[int, int]:
    counts = v.sum([dim for dim in v.dims if dim != "segment"]).values.tolist()
    return {int(n): int(c) for n, c in zip(v.segment_number.values, counts, strict=True) if c}


def test_real_segments_have_as_many_voxels_as_in_dcmqi(corpus: Path, tmp_path: Path) -> None:
    compared = 0
    for number, path in enumerate(corpus_files()):
        if b"1.2.840.10008.5.1.4.1.1.66.4" not in path.read_bytes()[:1024]:
            continue
        if not len(scan(path)):
            continue
        v = read(path)
        if "segment" not in v.dims or v.attrs["segmentation_type"] != "BINARY":
            continue
        if (found := by_dcmqi(path, tmp_path / f"{number}")) is not None:
            assert found == voxels(v), path
            compared += 1
    assert compared > 5


def test_chunks_hold_all_segments_of_a_plane(tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks())
    (stack,) = scan(path)[0].stacks
    opened = xr.open_dataset(path, engine="dcmdask", chunks={}).pixels
    for array in (stack.to_xarray(), stack.to_xarray(like=read(tmp_path / "ct")), opened):
        assert array.chunksizes["segment"] == (3,)
    assert stack.to_dask().chunks[0] == (3,)
    assert stack.to_dask(chunks={0: 1}).chunks[0] == (1, 1, 1)
