"""Whole slides whose tiles become chunks of Zarr 2 as they are encoded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs.numcodecs
import numpy as np
import pytest
import zarr
from commands import run
from made_slides import made_slide
from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from s3_here import BUCKET, serving

import dcmdask
from dcmdask import open_slide, to_zarr, verify
from dcmdask.errors import LayoutError, StoreExistsError

NATIVE = ExplicitVRLittleEndian
KINDS: dict[str, dict[str, Any]] = {
    "422": {},
    "420": {"sampling": "420", "table": "none"},
    "444": {"sampling": "444"},
    "rgb": {"sampling": "RGB"},
    "grey": {"samples": 1},
    "jpeg2000": {"syntax": JPEG2000Lossless},
    "jpeg2000-16": {"syntax": JPEG2000Lossless, "samples": 1, "bits": 16},
    "jpeg-ls": {"syntax": JPEGLSLossless, "samples": 1},
    "native": {"syntax": NATIVE},
    "planes": {
        "syntax": NATIVE,
        "samples": 1,
        "bits": 16,
        "optical_paths": 3,
        "focal_planes": 2,
        "organisation": "TILED_SPARSE",
        "shuffled": True,
        "holes": [(1, 1, 0, 0), (2, 0, 1, 1)],
    },
    "holes": {"organisation": "TILED_SPARSE", "shuffled": True, "holes": [(0, 0, 1, 1)]},
    "parts": {"parts": 3},
    "large-tile": {"tile": (256, 512)},
}
# With zarr and imagecodecs alone.
READER = """
import sys
import imagecodecs.numcodecs, numpy, zarr
imagecodecs.numcodecs.register_codecs(verbose=False)
group = zarr.open_group(sys.argv[1], mode="r")
numpy.savez(sys.argv[2], **{name: array[...] for name, array in group.arrays()})
assert not any(name.startswith("dcmdask") for name in sys.modules)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_decode_to_the_tiles(kind: str, tmp_path: Path) -> None:
    """Zarr and imagecodecs read what dcmdask decodes, without a difference."""
    made_slide(tmp_path / "slide", downsamples=(1, 2), **KINDS[kind])
    slide = open_slide(tmp_path / "slide")
    report = to_zarr(tmp_path / "slide", tmp_path / "kept.zarr", keep_codec=True)
    assert (report.levels, report.shape) == (2, slide.levels[0].shape)
    imagecodecs.numcodecs.register_codecs(verbose=False)
    group = zarr.open_group(tmp_path / "kept.zarr", mode="r")
    for number, level in enumerate(slide.levels):
        array: Any = group[str(number)]
        np.testing.assert_array_equal(array[...], level.to_dask())
        assert array.dtype == level.dtype and array.metadata.zarr_format == 2
        assert array.chunks[-3 if level.dims[-1] == "sample" else -2 :][:2] == level.tile
        assert tuple(array.attrs["_ARRAY_DIMENSIONS"]) == level.dims
    for src in (None, tmp_path / "slide", slide):
        found = verify(tmp_path / "kept.zarr", src)
        assert found.ok, str(found)
        assert found.source_token_same in (None, True)


def test_nothing_of_ours_is_needed(tmp_path: Path) -> None:
    made_slide(tmp_path / "slide", downsamples=(1, 2))
    to_zarr(tmp_path / "slide", tmp_path / "kept.zarr", keep_codec=True)
    values = tmp_path / "values.npz"
    subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path / "kept.zarr"), str(values)], check=True
    )
    with np.load(values) as found:
        for number, level in enumerate(open_slide(tmp_path / "slide").levels):
            np.testing.assert_array_equal(found[str(number)], level.to_dask())


def test_chunks_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    made = made_slide(tmp_path / "slide", table="none")
    to_zarr(tmp_path / "slide", tmp_path / "kept.zarr", keep_codec=True)
    frames = dcmdask.open_frames(made.levels[0].path)
    for number in range(len(frames)):
        row, column = divmod(number, 4)
        chunk = (tmp_path / "kept.zarr" / "0" / f"{row}.{column}.0").read_bytes()
        assert frames.encoded(number)[8:] == chunk


def test_it_goes_on_and_is_replaced(tmp_path: Path) -> None:
    made_slide(tmp_path / "slide", downsamples=(1, 2))
    store = tmp_path / "kept.zarr"
    to_zarr(tmp_path / "slide", store, keep_codec=True)
    with pytest.raises(StoreExistsError):
        to_zarr(tmp_path / "slide", store, keep_codec=True)
    whole = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    cut, gone = store / "0/1.1.0", store / "1/0.0.0"
    # By as much as the headers of other items would take.
    cut.write_bytes(cut.read_bytes()[:-24])
    gone.unlink()
    texts = {where: what for where, what in verify(store, tmp_path / "slide").differences}
    assert texts == {"0/1.1.0": "it is not the tile of the source", "1/0.0.0": "it is missing"}
    assert {where for where, _ in verify(store).differences} == {"0/1.1.0", "1"}
    report = to_zarr(tmp_path / "slide", store, keep_codec=True, resume=True)
    assert report.written == 2
    assert verify(store, tmp_path / "slide").ok
    for path, content in whole.items():
        if path.name[0] != ".":
            assert path.read_bytes() == content
    to_zarr(tmp_path / "slide", store, keep_codec=True, overwrite=True)
    assert verify(store, tmp_path / "slide").ok
    # An export that decodes is another one.
    with pytest.raises(StoreExistsError, match="another"):
        made_slide(tmp_path / "other", (100, 90))
        to_zarr(tmp_path / "other", store, keep_codec=True, resume=True)


def test_a_source_that_changed_is_noticed(tmp_path: Path) -> None:
    made = made_slide(tmp_path / "slide")
    store = tmp_path / "kept.zarr"
    to_zarr(tmp_path / "slide", store, keep_codec=True)
    path = made.levels[0].path
    data = bytearray(path.read_bytes())
    stream = dcmdask.open_frames(path).encoded(5)[8:]
    data[data.index(stream) + len(stream) // 2] ^= 1
    path.write_bytes(data)
    found = verify(store, tmp_path / "slide")
    assert not found.source_token_same
    assert [where for where, _ in found.differences] == ["0/1.1.0"]


def test_tiles_that_are_no_chunks_are_refused(tmp_path: Path) -> None:
    made_slide(tmp_path / "rle", syntax=RLELossless)
    made_slide(
        tmp_path / "coloured",
        organisation="TILED_SPARSE",
        holes=[(0, 0, 0, 0)],
        RecommendedAbsentPixelCIELabValue=[32768, 40000, 32896],
    )
    made = made_slide(tmp_path / "off", organisation="TILED_SPARSE", syntax=NATIVE)
    dataset = dcmread(made.levels[0].path)
    position = dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSlideSequence[0]
    position.RowPositionInTotalImagePixelMatrix = 3
    dataset.save_as(made.levels[0].path)
    for name, text in (
        ("rle", "rle"),
        ("coloured", "no grey"),
        ("off", "on a grid"),
    ):
        with pytest.raises(LayoutError, match=text):
            to_zarr(tmp_path / name, tmp_path / "no.zarr", keep_codec=True)
        assert not (tmp_path / "no.zarr").exists()


def test_tiles_that_are_encoded_in_several_ways_are_refused(tmp_path: Path) -> None:
    """One RGB tile among YCbCr ones would decode to other colours."""
    a = made_slide(tmp_path / "a", table="none").levels[0].path
    b = made_slide(tmp_path / "b", table="none", sampling="RGB").levels[0].path
    one, other = (dcmdask.open_frames(path) for path in (a, b))
    first, stream = one.encoded(7), other.encoded(7)
    data = a.read_bytes()
    assert data.count(first) == 1
    a.write_bytes(data.replace(first, stream))
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(LayoutError, match="frame 7 "):
        to_zarr(tmp_path / "a", tmp_path / "kept.zarr", keep_codec=True)


def test_other_images_are_refused(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    with pytest.raises(LayoutError, match="this is none"):
        to_zarr(get_testdata_file("CT_small.dcm"), tmp_path / "a.zarr", keep_codec=True)
    assert not (tmp_path / "a.zarr").exists()


def test_options_of_decoded_exports_are_refused(tmp_path: Path) -> None:
    made_slide(tmp_path / "slide")
    with pytest.raises(ValueError, match="keep_codec decodes nothing"):
        to_zarr(
            tmp_path / "slide", tmp_path / "a.zarr", keep_codec=True, chunks=3, values="modality"
        )
    for version, text in (("0.5", "no codecs"), ("0.4", "three samples")):
        with pytest.raises(LayoutError, match=text):
            how: Any = {"format": "ome-zarr", "ome_version": version}
            to_zarr(tmp_path / "slide", tmp_path / "a.zarr", keep_codec=True, **how)


def test_grey_slides_are_ome_zarr_as_well(tmp_path: Path) -> None:
    from ome_zarr_models.v04 import Image
    from yaozarrs import v04

    made_slide(tmp_path / "slide", samples=1, downsamples=(1, 2, 4), optical_paths=2)
    store = tmp_path / "kept.ome.zarr"
    to_zarr(tmp_path / "slide", store, keep_codec=True, format="ome-zarr", ome_version="0.4")
    imagecodecs.numcodecs.register_codecs(verbose=False)
    group = zarr.open_group(store, mode="r")
    told = Image.from_zarr(group).ome_attributes.multiscales[0]
    assert [axis.name for axis in told.axes] == ["c", "y", "x"]
    v04.Image.model_validate({k: v for k, v in group.attrs.asdict().items() if k != "dcmdask"})
    slide = open_slide(tmp_path / "slide")
    for level, dataset in zip(slide.levels, told.datasets, strict=True):
        np.testing.assert_array_equal(group[dataset.path], level.to_dask())
        scale = dataset.coordinateTransformations[0].scale
        assert scale[1:] == pytest.approx([mpp / 1000 for mpp in level.mpp])
    assert verify(store, tmp_path / "slide").ok


def test_on_the_command_line(tmp_path: Path) -> None:
    made_slide(tmp_path / "slide", associated=("LABEL",))
    store = tmp_path / "kept.zarr"
    planned = run("export", tmp_path / "slide", store, "--keep-codec", "--dry-run")
    assert (
        planned.returncode == 0 and "12 chunks of 64 x 64 x 3, imagecodecs_jpeg" in planned.stdout
    )
    assert not store.exists()
    assert run("export", tmp_path / "slide", store, "--keep-codec").returncode == 0
    assert run("verify", store, "--source", tmp_path / "slide").returncode == 0
    (store / "0" / "2.0.0").unlink()
    assert run("verify", store).returncode == 1


def test_tiles_that_are_written_in_part_are_an_error(tmp_path: Path) -> None:
    """Such as on a full disk: a limit of the size of files stands for it."""
    made_slide(tmp_path / "slide", tile=(128, 128), syntax=NATIVE)
    code = (
        "import resource, signal, sys, dcmdask; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15)); "
        "dcmdask.to_zarr(sys.argv[1], sys.argv[2], keep_codec=True)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "slide"), str(tmp_path / "kept.zarr")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode
    assert "File too large" in ended.stderr
    to_zarr(tmp_path / "slide", tmp_path / "kept.zarr", keep_codec=True, resume=True)
    assert verify(tmp_path / "kept.zarr", tmp_path / "slide").ok


def test_options_of_the_target(tmp_path: Path) -> None:
    made_slide(tmp_path / "slide", downsamples=(1, 2))
    url = f"s3://{BUCKET}/kept.zarr"
    with serving() as server:
        report = to_zarr(tmp_path / "slide", url, keep_codec=True, target_options=server.options)
        assert report.store == url
        assert verify(url, tmp_path / "slide", target_options=server.options).ok
