"""OME-Zarr 0.4, in Zarr 2: others open it, and it is resumed, replaced and verified as 0.5 is."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from made_segmentations import masks, read, source, written
from made_series import AXIAL, along, classic
from made_slides import made_slide
from make_dicom import noise
from ome_zarr.io import parse_url
from ome_zarr.reader import Multiscales, Reader
from ome_zarr_models.v04 import Image, ImageLabel
from real_files import packaged_file
from yaozarrs import validate_zarr_store
from zarr.storage import MemoryStore

import dcmdask
from dcmdask import StoreExistsError, scan, to_zarr, write_array
from dcmdask.store.target.ownership import StoreKeys
from dcmdask.store.verification.verify import verify

CINE = packaged_file("examples_ybr_color.dcm")
FORM: dict[str, Any] = {"format": "ome-zarr", "ome_version": "0.4"}
TILED: dict[str, Any] = {**FORM, "levels": 3, "chunks": (2, 16, 16)}


def series(folder: Path, distances: Any = (0, 1, 2, 3, 4, 5)) -> Path:
    pixels = noise(len(distances), 40, 24, dtype="u2", bits=12)
    # Blank chunks are written, too.
    pixels[:2] = 0
    classic(folder / "series", pixels, along(AXIAL, distances), BitsStored=12)
    return folder / "series"


def listing(store: Path) -> dict[str, bytes]:
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


def about(store: Any) -> Any:
    return zarr.open_group(store, mode="r").attrs["dcmdask"]


# Opened by others


@pytest.mark.parametrize("kind", ["volume", "cine"])
def test_other_readers_open_it(kind: str, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    if kind == "cine":
        report = to_zarr(CINE, store, **FORM, levels=3)
        expected = np.moveaxis(dcmdask.pixel_array(CINE), -1, 1)
    else:
        src = series(tmp_path)
        report = to_zarr(src, store, **TILED)
        expected = scan(src)[0].stacks[0].to_dask().compute()
    assert report.shards is None
    validate_zarr_store(str(store))
    group = zarr.open_group(store, mode="r")
    assert group.metadata.zarr_format == 2
    image = Image.from_zarr(group)
    assert image.attributes.multiscales[0].version == "0.4"
    (node,) = Reader(parse_url(str(store), mode="r"))()
    assert any(isinstance(spec, Multiscales) for spec in node.specs)
    assert [level.shape for level in node.data] == [group[str(n)].shape for n in range(3)]
    np.testing.assert_array_equal(node.data[0].compute(), expected)
    # The same scales, translations and channels as in 0.5.
    to_zarr(CINE if kind == "cine" else src, tmp_path / "b.zarr", format="ome-zarr", levels=3)
    told: Any = zarr.open_group(tmp_path / "b.zarr", mode="r").attrs["ome"]
    assert group.attrs.get("omero") == told.get("omero")
    own: Any = group.attrs["multiscales"]
    assert own == [{**told["multiscales"][0], "version": "0.4"}]
    assert {*group.attrs} - {"omero"} == {"dcmdask", "multiscales"}


def test_the_files(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    to_zarr(series(tmp_path), store, **TILED)
    keys = listing(store).keys()
    assert {".zgroup", ".zattrs", ".zmetadata", "0/.zarray", "0/.zattrs", "0/2/2/1"} <= keys
    assert not [key for key in keys if key.endswith("zarr.json") or "/c/" in key]
    array = json.loads((store / "0/.zarray").read_text())
    assert array["dimension_separator"] == "/" and array["filters"] is None
    blosc = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 0}
    assert array["compressor"] == blosc
    # Otherwise xarray takes values that are equal to it for missing ones.
    assert array["fill_value"] is None
    documents = [key for key in keys if key.rpartition("/")[2] in (".zarray", ".zgroup", ".zattrs")]
    assert json.loads((store / ".zmetadata").read_text())["metadata"].keys() == {*documents}
    assert all(key in StoreKeys((store / ".zattrs").read_bytes()) for key in keys)


def test_xarray_opens_a_level(tmp_path: Path) -> None:
    src, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(src, store, **TILED)
    found = xr.open_zarr(store, drop_variables=["1", "2"])
    expected = scan(src)[0].stacks[0].to_xarray()
    assert found["0"].dims == ("z", "y", "x") and found["0"].dtype == np.uint16
    np.testing.assert_array_equal(found["0"], expected)
    for name in "zyx":
        np.testing.assert_array_equal(found[name], expected[name])
    assert "_ARRAY_DIMENSIONS" not in found["0"].attrs


SCRIPT = """
import * as zarr from "zarrita";
import FileSystemStore from "@zarrita/storage/fs";
const store = await zarr.withConsolidatedMetadata(new FileSystemStore(process.argv[2]));
const group = await zarr.open(store, { kind: "group" });
const told = [];
for (const { path } of group.attrs.multiscales[0].datasets) {
  const { data, shape } = await zarr.get(await zarr.open(group.resolve(path), { kind: "array" }));
  told.push({ shape, data: Array.from(data) });
}
console.log(JSON.stringify(told));
"""


@pytest.mark.rare
@pytest.mark.parametrize(
    ("kind", "compressors"),
    [*(("volume", one) for one in ("auto", "zstd", "gzip", "none")), ("slide", "auto")],
)
def test_a_browser_reader_opens_it(kind: str, compressors: str, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node and npm, with which zarrita runs")
    install = ["npm", "install", "--silent", "--no-save", "zarrita@0.7.5", "@zarrita/storage@0.2.0"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip("npm cannot install zarrita")
    store = tmp_path / "a.zarr"
    if kind == "slide":
        made_slide(tmp_path / "slide", downsamples=(1, 2))
        to_zarr(tmp_path / "slide", store, **FORM, levels=3, chunks=64)
    else:
        to_zarr(series(tmp_path), store, **TILED, compressors=compressors)
    (tmp_path / "read.mjs").write_text(SCRIPT)
    command = ["node", "read.mjs", str(store)]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert not answer.returncode, answer.stderr
    levels = json.loads(answer.stdout)
    assert len(levels) == 3
    for number, level in enumerate(levels):
        expected: Any = zarr.open_array(store, path=str(number), mode="r")[...]
        np.testing.assert_array_equal(np.reshape(level["data"], level["shape"]), expected)


# Refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({**FORM, "shards": (6, 40, 24)}, "OME-Zarr 0.4 is stored in Zarr 2, which has no shards"),
        ({"ome_version": "0.4"}, "ome_version is for OME-Zarr: format='ome-zarr'"),
        ({**FORM, "ome_version": "0.3"}, "ome_version is one of 0.4, 0.5, not '0.3'"),
        ({**FORM, "compressors": [zarr.codecs.ZstdCodec()]}, "Invalid compressor"),
        ({**FORM, "compressors": "lz4"}, "auto, zstd, gzip, none"),
    ],
)
def test_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        to_zarr(series(tmp_path), tmp_path / "a.zarr", **options)
    assert not (tmp_path / "a.zarr").exists()


def test_a_plan_of_the_other_format(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    to_zarr(series(tmp_path), store, **FORM)
    root = json.loads((store / ".zattrs").read_text())
    del root["dcmdask"]["plan"]["ome_version"]
    (store / ".zattrs").write_text(json.dumps(root))
    with pytest.raises(ValueError, match=r"it is Zarr 2, and its plan is of OME-Zarr 0\.5"):
        verify(store)


# Resumed, replaced, left out of a scan


@pytest.mark.parametrize("where", ["local", "memory"])
def test_resumed(where: str, tmp_path: Path) -> None:
    src, store = series(tmp_path), tmp_path / "a.zarr"
    target = str(store) if where == "local" else f"memory://{tmp_path}/a.zarr"
    fs, root = fsspec.core.url_to_fs(target)
    to_zarr(src, target, **TILED)
    whole = {key: fs.cat_file(key) for key in fs.find(root)}
    for key in ("0/2/1/0", "2/0/0/0"):
        fs.rm_file(f"{root}/{key}")
    report = to_zarr(src, target, **TILED, resume=True)
    assert report.written == 2
    assert {key: fs.cat_file(key) for key in fs.find(root)} == whole
    assert verify(target, src).ok
    for other in ({"ome_version": "0.5"}, {"chunks": (2, 8, 16)}):
        with pytest.raises(StoreExistsError, match="was begun with another"):
            to_zarr(src, target, **{**TILED, **other}, resume=True)
    # A process that was killed between the two files of an array, and of a group.
    for key in ("0/.zattrs", "1/.zarray"):
        fs.rm_file(f"{root}/{key}")
        assert to_zarr(src, target, **TILED, resume=True).written == 0
        assert {key: fs.cat_file(key) for key in fs.find(root)} == whole
    for key in whole.keys() - {f"{root}/.zattrs"}:
        fs.rm_file(key)
    told = json.loads(whole[f"{root}/.zattrs"])
    told["dcmdask"]["complete"] = False
    fs.pipe_file(f"{root}/.zattrs", json.dumps(told).encode())
    with pytest.raises(StoreExistsError, match=r"not finished \(resume|not complete"):
        to_zarr(src, target, **TILED)
    assert to_zarr(src, target, **TILED, resume=True).written == report.regions
    assert {key: fs.cat_file(key) for key in fs.find(root)} == whole


@pytest.mark.parametrize("where", ["local", "memory", "zarr"])
@pytest.mark.parametrize("versions", [("0.4", "0.5"), ("0.5", "0.4"), ("0.4", "0.4")])
def test_replaced(versions: tuple[str, str], where: str, tmp_path: Path) -> None:
    src, store = series(tmp_path), tmp_path / "a.zarr"
    url = f"memory://{tmp_path}/a.zarr"
    target: Any = {"local": store, "memory": url, "zarr": MemoryStore()}[where]
    before, after = ({**FORM, "ome_version": version} for version in versions)
    to_zarr(src, target, **before)
    with pytest.raises(StoreExistsError, match="nothing is replaced without overwrite"):
        to_zarr(src, target, **after)
    to_zarr(src, target, **after, overwrite=True)
    assert verify(target, src).ok
    group = zarr.open_group(target, mode="r")
    assert group.metadata.zarr_format == (2 if versions[1] == "0.4" else 3)
    if where == "local":
        to_zarr(src, tmp_path / "b.zarr", **after)
        assert listing(store).keys() == listing(tmp_path / "b.zarr").keys()
        (store / "0" / "thesis.txt").write_text("mine")
        with pytest.raises(StoreExistsError, match=r"0/thesis\.txt stands in the way"):
            to_zarr(src, target, **after, overwrite=True)


def test_an_array_takes_its_place(tmp_path: Path) -> None:
    import dask.array

    store = tmp_path / "a.zarr"
    to_zarr(series(tmp_path), store, **FORM)
    write_array(dask.array.ones(6, chunks=2), store, overwrite=True)
    assert not list(store.glob(".z*"))


def test_a_group_of_others_is_kept(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"mine": 1})
    for how in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(StoreExistsError):
            to_zarr(series(tmp_path), tmp_path / "a.zarr", **FORM, **how)
    assert zarr.open_group(tmp_path / "a.zarr", mode="r").attrs.asdict() == {"mine": 1}


def test_a_scan_leaves_it_out(tmp_path: Path) -> None:
    src = series(tmp_path)
    to_zarr(src, tmp_path / "a.zarr", **FORM)
    assert len(scan(tmp_path)) == 1
    (skipped,) = scan(tmp_path).skipped
    assert (skipped.path, skipped.code) == (str(tmp_path / "a.zarr"), "written")


def test_frames_that_are_filled(tmp_path: Path) -> None:
    src, store = series(tmp_path, [0, 1, 2, 4, 5]), tmp_path / "a.zarr"
    options = {**TILED, "on_irregular": "fill", "on_error": "fill", "fill_value": 7}
    to_zarr(src, store, **options)
    found = xr.open_zarr(store, drop_variables=["1", "2"])
    assert found["missing"].values.tolist() == [False, False, False, True, False, False]
    assert (found["0"][3] == 7).all() and verify(store, src).ok
    assert to_zarr(src, store, **options, resume=True).written == 0
    (store / "missing" / "1").unlink()
    assert [one.where for one in verify(store).differences] == ["missing/1"]
    assert to_zarr(src, store, **options, resume=True).written == 1


# Labels


def test_labels(tmp_path: Path) -> None:
    written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks())
    store = tmp_path / "a.zarr"
    options = {**FORM, "levels": 2, "labels": tmp_path / "seg.dcm"}
    to_zarr(tmp_path / "ct", store, **options)
    validate_zarr_store(str(store))
    group: Any = zarr.open_group(store, mode="r")
    assert group["labels"].attrs.asdict() == {"labels": ["segments"]}
    label = ImageLabel.from_zarr(group["labels/segments"])
    assert label.attributes.image_label.version == "0.4"
    expected = read(tmp_path / "seg.dcm", like=read(tmp_path / "ct")).dcm.labelmap().values
    np.testing.assert_array_equal(group["labels/segments/0"][:], expected)
    np.testing.assert_array_equal(group["labels/segments/1"][:], expected[:, ::2, ::2])
    assert verify(store, tmp_path / "ct").ok
    chunk = store / "labels/segments/0/0/0/0"
    whole = chunk.read_bytes()
    # Blosc would read beyond the end.
    chunk.write_bytes(whole[:-9])
    (difference,) = verify(store).differences
    assert difference.where == "labels/segments/0/0/0/0"
    assert difference.what.endswith(
        f"it has {len(whole) - 9} bytes, and {len(whole)} by its header"
    )
    assert to_zarr(tmp_path / "ct", store, **options, resume=True).written == 1
    assert verify(store).ok and chunk.read_bytes() == whole
    (store / "labels" / ".zattrs").write_text("{}")
    assert [one.where for one in verify(store).differences] == ["labels/.zattrs"]


# Damage


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) * 3 // 4] ^= 16
    return bytes(changed)


@pytest.mark.parametrize("how", ["deleted", "emptied", "shortened", "flipped"])
@pytest.mark.parametrize(
    "compressors",
    ["auto", *(pytest.param(name, marks=pytest.mark.rare) for name in ("zstd", "gzip", "none"))],
)
def test_each_damaged_object_is_found(compressors: str, how: str, tmp_path: Path) -> None:
    """Blosc and no compression have no checksum: there a level or the source finds a change."""
    src, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(src, store, **{**TILED, "chunks": (6, 40, 16)}, compressors=compressors)
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        key, data = path.relative_to(store).as_posix(), path.read_bytes()
        if how == "deleted":
            path.unlink()
        else:
            path.write_bytes({"emptied": b"", "shortened": data[:-1]}.get(how, flipped(data)))
        of_region = key[0].isdecimal() and "/.z" not in key
        if of_region and (how != "flipped" or compressors in ("zstd", "gzip")):
            # Without the source, too.
            assert [one.where for one in verify(store).differences] == [key]
        elif of_region:
            level = key[0]
            found = {one.where[:1] for one in verify(store, src).differences}
            assert level in found or same_values(store, level, path, data), key
        else:
            try:
                assert not verify(store, src).ok, key
            except ValueError:
                # It is no store any more, or none of dcmdask's.
                assert key in (".zattrs", ".zgroup", ".zmetadata"), key
        path.write_bytes(data)
    assert verify(store, src).ok


def same_values(store: Path, name: str, path: Path, whole: bytes) -> bool:
    """Whether a changed object has the same values: some bits say nothing."""
    now: Any = zarr.open_array(store, path=name, mode="r")[...]
    path.write_bytes(whole)
    return bool((now == zarr.open_array(store, path=name, mode="r")[...]).all())


@pytest.mark.parametrize("key", ["0/1/0/0", "1/0/0/0", "2/0/0/0"])
@pytest.mark.parametrize("length", [0, 10, 40])
def test_what_a_power_failure_cut_is_written_again(key: str, length: int, tmp_path: Path) -> None:
    src, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(src, store, **TILED)
    whole = listing(store)
    os.truncate(store / key, length)
    assert [one.where for one in verify(store).differences] == [key]
    assert to_zarr(src, store, **TILED, resume=True).written == 1
    assert listing(store) == whole


def test_the_copy_of_the_metadata_does_not_call_a_resumed_store_complete(tmp_path: Path) -> None:
    src, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(src, store, **TILED)
    (store / "0/0/0/0").unlink()

    def look(done: int, of: int | None) -> None:
        assert not (store / ".zmetadata").exists() and about(store)["complete"] is False

    to_zarr(src, store, **TILED, resume=True, progress=look)
    told = json.loads((store / ".zmetadata").read_text())["metadata"]
    assert told[".zattrs"]["dcmdask"]["complete"] is True
    told[".zattrs"]["dcmdask"]["values"] = "modality"
    (store / ".zmetadata").write_text(json.dumps({"metadata": told, "zarr_consolidated_format": 1}))
    assert [one.where for one in verify(store).differences] == [".zmetadata"]
