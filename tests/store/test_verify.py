"""Verification: an intact store passes, and nothing that is damaged or changed does."""

import itertools
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import commands
import dask
import numpy as np
import pytest
import zarr
from botocore.exceptions import EndpointConnectionError
from distributed import Client, LocalCluster
from highdicom.pm import RealWorldValueMapping
from made_images import parametric_map
from made_images import pet as activity_series
from made_series import AXIAL, SERIES, along, classic
from make_dicom import encapsulated, encoded, native, noise, saved
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SegmentationStorage,
)
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from dcmdask import StoreExistsError, UnreachableError, open_frames, scan, to_zarr
from dcmdask.errors import DcmdaskError
from dcmdask.store.pyramid import halve
from dcmdask.store.verification.comparison import Difference
from dcmdask.store.verification.verify import VerifyReport, verify

GREY = noise(6, 9, 7, dtype="i2", bits=12)
COLOUR = noise(4, 16, 24, samples=3)
REAL = (
    "pydicom/src/pydicom/data/test_files/dicomdirtests/98892001/CT5N",
    "pylibjpeg-data/ljdata/ds/JPEGBaseline/SC_rgb_jpeg_lossy_gdcm.dcm",
)
OME: dict[str, Any] = {"format": "ome-zarr", "levels": 3, "chunks": (2, 4, 4), "shards": (4, 12, 8)}


@pytest.fixture(autouse=True)
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


def series(folder: Path, distances: Any = (0, 2.5, 5, 7.5, 10, 12.5), **more: Any) -> Path:
    classic(folder / "series", GREY[: len(distances)], along(AXIAL, distances), **more)
    return folder / "series"


def pet(folder: Path) -> Path:
    slopes = {"RescaleSlope": [0.5, 1.5, 2, 3.25, 4, 5], "RescaleIntercept": [-3] * 6}
    return series(folder, each=slopes, WindowCenter=40, WindowWidth=400)


def activities(folder: Path) -> Path:
    activity_series(folder / "series")
    return folder / "series"


def quantities(folder: Path) -> Path:
    """Two mappings, of which one has values for some stored values only."""
    whole = RealWorldValueMapping("ADC", "", codes.UCUM.NoUnits, (0, 65535), slope=2.0)
    part = RealWorldValueMapping("T1", "", codes.UCUM.Millisecond, (99, 20000), slope=0.1)
    return parametric_map(folder, noise(4, 9, 7, dtype="u2"), [whole, part])


def jpeg(folder: Path) -> Path:
    made = encapsulated(COLOUR, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    return saved(folder, made)


def corrupt(folder: Path) -> Path:
    """Four JPEG 2000 frames, of which the third ends early."""
    frames = noise(4, 32, 32)
    streams = [encoded(frame, JPEG2000Lossless) for frame in frames]
    streams[2] = streams[2][: len(streams[2]) // 2]
    return saved(folder, encapsulated(frames, JPEG2000Lossless, streams=streams))


def labels(folder: Path) -> Path:
    uids = {"SOPClassUID": SegmentationStorage, "SeriesInstanceUID": SERIES}
    return saved(folder, native(noise(4, 9, 7), StudyInstanceUID=SERIES, **uids))


KINDS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "native": (lambda folder: saved(folder, native(GREY, BitsStored=12, HighBit=11)), {}),
    "bytes": (lambda folder: native(GREY, ExplicitVRBigEndian), {"chunks": 4}),
    "jpeg2000": (
        lambda folder: saved(folder, encapsulated(noise(5, 32, 32), JPEG2000Lossless)),
        {"chunks": (2, 16, 32), "shards": (4, 32, 32), "compressors": None},
    ),
    "rle colour": (
        lambda folder: saved(folder, encapsulated(COLOUR, RLELossless)),
        {"chunks": 1},
    ),
    "overridden": (
        lambda folder: saved(folder, native(GREY)),
        {"bits_stored": 10, "allow_excess_frames": False, "raw": True},
    ),
    "plugin": (
        lambda folder: saved(folder, encapsulated(noise(2, 32, 32), JPEG2000Lossless)),
        {"decoding_plugin": "pylibjpeg"},
    ),
    "jpeg raw": (jpeg, {"raw": True}),
    "jpeg plugin": (jpeg, {"decoding_plugin": "imagecodecs"}),
    "modality": (pet, {"values": "modality", **OME}),
    "suv": (activities, {"values": "suv-lbm", **OME}),
    "real-world": (quantities, {"values": "real-world:T1"}),
    "display": (pet, {"values": "display", "chunks": (2, 9, 7)}),
    "identifiers": (series, {"with_identifiers": True}),
    "gap": (
        lambda folder: series(folder, [0, 2.5, 7.5, 10], PixelPaddingValue=-2000),
        {"on_irregular": "fill", "on_error": "fill", **OME},
    ),
    "gap filled": (
        lambda folder: series(folder, [0, 2.5, 7.5, 10]),
        {"on_irregular": "fill", "on_error": "fill", "fill_value": -7},
    ),
    "pyramid": (series, OME),
    "labels": (labels, {"format": "ome-zarr", "levels": 4}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_intact_store(kind: str, tmp_path: Path) -> None:
    make, options = KINDS[kind]
    source, store = make(tmp_path), tmp_path / "a.zarr"
    exported = to_zarr(source, store, **options)
    report = verify(store, source)
    assert report == VerifyReport(
        str(store), True, (exported.regions,) * 2, exported.levels, True, (), (), report.seconds
    )
    assert report.ok and str(report).startswith(f"{store}: the same as the source; ")
    assert pickle.loads(pickle.dumps(report)) == report
    alone = verify(store)
    assert alone.ok and alone.source_token_same is None and alone.notes == ()
    assert alone.regions == report.regions
    assert str(alone).startswith(f"{store}: whole; ")


def test_every_form_of_a_source(tmp_path: Path) -> None:
    folder, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(folder, store, **OME)
    for source in (str(folder), scan(folder)[0], scan(folder)[0].stacks[0]):
        assert verify(store, source).source_token_same
        assert verify(store, source).ok
    path = jpeg(tmp_path)
    for number, option in enumerate(({}, {"raw": True})):
        frames = open_frames(path, **option)
        to_zarr(frames, tmp_path / f"{number}.zarr")
        found = verify(tmp_path / f"{number}.zarr", frames)
        assert found.ok and found.source_token_same
        assert [note.code for note in found.notes] == ["frame-array"]
        assert verify(tmp_path / f"{number}.zarr", path).ok


# Colours that a JPEG codec converts


def test_jpeg_colours_may_differ_by_one(tmp_path: Path) -> None:
    source, store = jpeg(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, chunks=2, compressors=None)
    general = open_frames(source, decoding_plugin="imagecodecs")[:]
    off = np.abs(general.astype(int) - open_frames(source)[:])
    assert off.max() == 1
    found = verify(store, source)
    assert found.ok and found.source_token_same
    (note,) = found.notes
    frames = int((off > 0).any(axis=(1, 2, 3)).sum())
    assert note.code == "converted-by-codec"
    assert note.text.startswith(
        f"{int(off.sum())} values of {frames} frames differ by 1, as colours do"
    )
    # Off by one in some other place is not that.
    array = zarr.open_group(store)["pixels"]
    place = tuple(np.argwhere((off == 0) & (general < 255))[0])
    array[place] = general[place] + 1
    (difference,) = verify(store, source).differences
    assert difference.what.startswith("1 value differs from the source by 1 at most: frame ")


# Frames that were filled


def test_filled_frames(tmp_path: Path) -> None:
    source, store = corrupt(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, on_error="fill", fill_value=7, chunks=2)
    found = verify(store, source)
    assert found.ok and found.notes == () and found.source_token_same
    # The file is mended: what was filled decodes.
    frames = noise(4, 32, 32)
    saved(tmp_path, encapsulated(frames, JPEG2000Lossless))
    found = verify(store, source)
    assert found.ok and found.source_token_same is False
    changed, decodes = found.notes
    assert (changed.code, decodes.code) == ("other-source", "missing-decodes")
    assert decodes.text == "1 frames that are marked as missing decode now, the first of them 2"
    group = zarr.open_group(store)
    group["pixels"][2, 3, 4] = 8
    for report in (verify(store), verify(store, source)):
        (difference,) = report.differences
        assert difference == Difference(
            "pixels[2:4]",
            "1 value differs from the fill value, though marked as missing, by 1 at most: frame 2",
        )
    group["pixels"][2] = 7
    group["missing"].with_config({"write_empty_chunks": True})[2] = False
    (difference,) = verify(store, source).differences
    assert "differ from the source" in difference.what and "frame 2" in difference.what


def test_a_frame_that_decoded_once(tmp_path: Path) -> None:
    source = saved(tmp_path, encapsulated(noise(4, 32, 32), JPEG2000Lossless))
    store = tmp_path / "a.zarr"
    to_zarr(source, store, chunks=4)
    corrupt(tmp_path)
    (difference,) = verify(store, source).differences
    assert difference.where == "pixels[2]"
    assert difference.what.startswith("the source does not decode: ")
    assert "frame 2" in difference.what


# Damage


def objects(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def content(store: Path) -> str:
    """All values by zarr, without a look at consolidated metadata; empty if one is unreadable."""
    try:
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        return repr(sorted((name, array[...].tolist()) for name, array in group.arrays()))
    except Exception:
        return ""


def flipped(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    bit = int(random.integers(8 * len(data)))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes | None]] = {
    "deleted": lambda data, random: None,
    "emptied": lambda data, random: b"",
    "shortened": lambda data, random: data[:-1],
    "flipped": flipped,
}
DAMAGED = {
    "sharded": OME,
    "filled": {"on_irregular": "fill", "on_error": "fill", "chunks": (2, 9, 7)},
    "uncompressed": {**OME, "compressors": None, "shards": None, "levels": 2, "chunks": (3, 9, 7)},
}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *itertools.product(("sharded",), DAMAGES),
        *(
            pytest.param(kind, how, marks=[pytest.mark.rare] if how != "flipped" else [])
            for kind, how in itertools.product(("filled", "uncompressed"), DAMAGES)
        ),
    ],
)
def test_each_damaged_object_is_found(kind: str, how: str, tmp_path: Path) -> None:
    # The hash of the source stands twice, and one of them is compared.
    random = np.random.default_rng(9)
    source, store = series(tmp_path, [0, 2.5, 7.5, 10]), tmp_path / "a.zarr"
    to_zarr(source, store, **{"on_irregular": "fill", **DAMAGED[kind]})
    before = content(store)
    assert before and verify(store, source).ok
    for path in objects(store):
        key = path.relative_to(store).as_posix()
        of_region = key[0].isdecimal() or (kind == "filled" and key[:6] in ("pixels", "missin"))
        if kind != "filled" and not of_region:
            continue
        data = path.read_bytes()
        damaged = DAMAGES[how](data, random)
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        try:
            report = verify(store, source)
        except (ValueError, DcmdaskError):
            # It is no store any more, or one that says it is of another source.
            assert key == "zarr.json", key
        else:
            names = {one.where.split("/")[0].split("[")[0] for one in report.differences}
            if key == "zarr.json":
                assert not report.ok or report.notes
            elif key.endswith("zarr.json") or (of_region and how != "flipped"):
                assert key in {one.where for one in report.differences}
            elif content(store) != before:
                # Blosc's header has bits that say nothing, and a chunk values beyond the edge.
                assert key.split("/")[0] in names, key
            # Level arrays have checksums, so no source is needed to find a bit.
            summed = kind != "uncompressed" and not key.startswith("missing")
            if of_region and (how != "flipped" or (summed and not key.endswith("zarr.json"))):
                assert [one.where for one in verify(store).differences] == [key]
        path.write_bytes(data)
    assert verify(store, source).ok


def test_the_words_for_damage(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, chunks=(1, 9, 7))
    chunk = store / "pixels/c"
    (chunk / "0/0/0").unlink()
    (chunk / "1/0/0").write_bytes(b"")
    data = (chunk / "2/0/0").read_bytes()
    (chunk / "2/0/0").write_bytes(data[:20])
    report = verify(store)
    assert report.differences[:2] == (
        Difference("pixels/c/0/0/0", "it is missing"),
        Difference("pixels/c/1/0/0", "it is empty"),
    )
    where, what = report.differences[2]
    assert where == "pixels/c/2/0/0"
    assert what.startswith("it is damaged: ValueError: Stored and computed checksum do not match")
    assert len(report.differences) == 3
    assert str(report).splitlines()[0].startswith(f"{store}: 3 differences; 6 of 6 regions, ")
    assert str(report).splitlines()[1] == "  pixels/c/0/0/0: it is missing"


def test_a_changed_value(tmp_path: Path) -> None:
    """Where nothing has a checksum and there is no level above, only the source tells."""
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, compressors=None, chunks=(2, 9, 7))
    path = store / "pixels/c/1/0/0"
    data = bytearray(path.read_bytes())
    data[0] ^= 4
    path.write_bytes(data)
    assert verify(store).ok
    (difference,) = verify(store, source).differences
    what = "1 value differs from the source by 4 at most: frame 2"
    assert difference == Difference("pixels[2:4]", what)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_changed_value_in_a_pyramid(tmp_path: Path, level: int) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, **OME)
    array = zarr.open_group(store)[str(level)]
    array[3, 1, 1] = array[3, 1, 1] ^ 1024
    assert not verify(store, source).ok
    differences = verify(store).differences
    # It does not fit the level below it, and the level above does not fit it.
    assert {one.where[0] for one in differences} == {str(one) for one in (level, level + 1)} & {
        "1",
        "2",
    }
    assert all(f"from level {int(one.where[0]) - 1}, halved, by" in one.what for one in differences)


def test_labels_are_not_means(tmp_path: Path) -> None:
    source, store = labels(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, format="ome-zarr", levels=2)
    group = zarr.open_group(store)
    axes = [i for i in range(3) if group["0"].shape[i] != group["1"].shape[i]]
    group["1"][...] = halve(group["0"][...], axes)
    assert not verify(store).ok and not verify(store, source).ok


def test_a_store_of_another_version(tmp_path: Path) -> None:
    """Its pixels are those of the source, and what is said of them may be put in another way."""
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store)
    group = zarr.open_group(store)
    metadata: Any = group.attrs["dcmdask"]
    group.attrs["dcmdask"] = {**metadata, "version": "0.1.0", "modality": "MR"}
    group["z"][1] = 3.5
    report = verify(store, source)
    assert report.ok and [note.code for note in report.notes] == ["other-version"]
    pixels: Any = group["pixels"]
    pixels[0, 0, 0] = pixels[0, 0, 0] + 1
    (difference,) = verify(store, source).differences
    assert difference.what == "1 value differs from the source by 1 at most: frame 0"


def test_coordinates_and_attributes_are_compared(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store)
    group = zarr.open_group(store)
    true: Any = group["z"][1]
    group["z"][1] = 3.5
    (difference,) = verify(store, source).differences
    assert difference == Difference("z", "1 of 6 values differ from the source")
    assert verify(store).ok
    group["z"][1] = true
    told: Any = group.attrs["dcmdask"]
    told["header"]["Modality"] = "MR"
    group.attrs["dcmdask"] = told
    (difference,) = verify(store, source).differences
    assert difference == Difference("dcmdask.header", "this attribute differs from the source's")


# Another source


def test_a_source_that_moved(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, with_identifiers=True)
    os.rename(source, tmp_path / "moved")
    found = verify(store, tmp_path / "moved")
    assert found.ok and found.source_token_same is False
    (note,) = found.notes
    assert note.code == "other-source"
    assert "is not the one that was exported, by path, size and time" in note.text
    assert f"  note: {note}" in str(found)


def test_a_source_that_moved_and_was_opened_otherwise(tmp_path: Path) -> None:
    source, store = saved(tmp_path, native(GREY)), tmp_path / "a.zarr"
    to_zarr(source, store, bits_stored=10)
    shutil.copy(source, tmp_path / "copy")
    found = verify(store, tmp_path / "copy")
    assert found.ok and len(found.notes) == 1
    assert not verify(store, tmp_path / "copy", bits_stored=12).ok


def test_a_source_that_only_opens_with_options(tmp_path: Path) -> None:
    data = native(GREY)
    source, store = saved(tmp_path, data[: -GREY[0].nbytes]), tmp_path / "a.zarr"
    to_zarr(source, store, number_of_frames=5)
    assert verify(store, source).ok
    shutil.copy(source, tmp_path / "copy")
    found = verify(store, tmp_path / "copy")
    assert found.ok and found.source_token_same is False


def test_a_source_that_changed(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, chunks=(2, 9, 7))
    changed = GREY.copy()
    changed[3, 4, 5] ^= 2
    changed[3, 4, 6] ^= 8
    shutil.rmtree(source)
    classic(source, changed, along(AXIAL, 2.5 * np.arange(6)))
    found = verify(store, source)
    assert found.source_token_same is False
    what = "2 values differ from the source by 8 at most: frame 3"
    assert found.differences == (Difference("pixels[2:4]", what),)


def test_a_source_of_another_shape(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store)
    os.remove(next(path for path in source.iterdir() if b"-7" in path.read_bytes()))
    shutil.rmtree(source)
    classic(source, GREY[:5], along(AXIAL, 2.5 * np.arange(5)))
    (difference,) = verify(store, source).differences
    assert difference.where == "source"
    assert difference.what == "it is [5, 9, 7] <i2, and the store [6, 9, 7] <i2"


# What is chosen


def test_a_fraction(tmp_path: Path) -> None:
    source, store = saved(tmp_path, native(noise(40, 4, 4))), tmp_path / "a.zarr"
    to_zarr(source, store, chunks=1)
    seen: list[tuple[int, int | None]] = []
    found = verify(store, source, fraction=0.25, progress=lambda *done: seen.append(done))
    assert found.regions == (10, 40)
    assert seen == [(n, 10) for n in range(1, 11)]
    assert verify(store, fraction=0).regions == (1, 40)
    array = zarr.open_group(store)["pixels"]
    array[...] = 255 - array[...]
    again = verify(store, source, fraction=0.25).differences
    assert len(again) == 10 and again == verify(store, source, fraction=0.25).differences
    for wrong in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match="fraction is from 0 to 1"):
            verify(store, fraction=wrong)


def test_every_scheduler(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, **OME)
    zarr.open_group(store)["1"][2, 2, 2] = 0
    expected = verify(store, source).differences
    assert expected
    with dask.config.set(scheduler="threads"):
        assert verify(store, source).differences == expected
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
        # The client takes over from what the configuration names.
        dask.config.set(scheduler=None),
    ):
        assert verify(store, source).differences == expected


def test_memory_store(tmp_path: Path) -> None:
    store = MemoryStore()
    to_zarr(series(tmp_path), store, chunks=(2, 9, 7))
    assert verify(store, tmp_path / "series").ok
    del store._store_dict["pixels/c/1/0/0"]
    (first, *_) = verify(store).differences
    assert first == Difference("pixels/c/1/0/0", "it is missing")


# What is not whole, or no store


def test_an_incomplete_store(tmp_path: Path) -> None:
    source, store = corrupt(tmp_path), tmp_path / "a.zarr"
    with pytest.raises(DcmdaskError):
        to_zarr(source, store, chunks=1)
    report = verify(store, source)
    assert not report.complete and not report.ok
    assert report.differences[0].where == "complete" and "resume" in report.differences[0].what
    assert Difference("pixels/c/2/0/0", "it is missing") in report.differences


def test_a_resumed_store(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, **OME)
    os.remove(store / "1/c/0/0/0")
    assert not verify(store).ok
    to_zarr(source, store, **OME, resume=True)
    assert verify(store, source).ok


def test_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.zarr is not a Zarr store"):
        verify(tmp_path / "nothing.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="not a store that dcmdask exported: it has no plan"):
        verify(tmp_path / "other.zarr")
    with pytest.raises(TypeError, match="no source"):
        verify(tmp_path / "other.zarr", raw=True)


# The command


def run(*arguments: Any, code: int) -> subprocess.CompletedProcess[str]:
    done = commands.run("verify", *arguments)
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, chunks=(1, 9, 7))
    done = run(store, "--source", source, code=0)
    assert done.stdout.startswith(f"{store}: the same as the source; 6 of 6 regions, ")
    os.remove(store / "pixels/c/1/0/0")
    told = json.loads(run(store, "--fraction", 0.5, "--json", code=1).stdout)
    assert told["ok"] is False and told["regions"] == [3, 6]
    missing = {"where": "pixels/c/1/0/0", "what": "it is missing"}
    assert told["differences"] == [missing]
    assert "no.zarr is not a Zarr store" in run(tmp_path / "no.zarr", code=2).stderr


# Real files


# The colours of the second are those of its codestream, and not of its header.
@pytest.mark.filterwarnings("ignore:.*the codestream decides:dcmdask.DcmdaskWarning")
@pytest.mark.parametrize("options", [{}, {"format": "ome-zarr", "levels": 3}], ids=["zarr", "ome"])
@pytest.mark.parametrize("name", REAL)
def test_real_files(
    name: str, options: dict[str, Any], corpus: Path, tmp_path: Path, compared: Any
) -> None:
    source, store = corpus / name, tmp_path / "a.zarr"
    to_zarr(source, store, **options)
    found = verify(store, source)
    assert found.ok and found.source_token_same
    array = zarr.open_group(store)["0" if options else "pixels"]
    array[..., 5, 2] = array[..., 5, 2] ^ 8
    assert any(
        "from the source by 8 at most" in one.what for one in verify(store, source).differences
    )
    for path in [source] if source.is_file() else source.iterdir():
        compared(path)


@pytest.mark.parametrize(
    ("path", "change", "where"),
    [
        ("pixels", {"dimension_names": ["x", "y", "z"]}, "pixels.dimension_names"),
        ("pixels", {"attributes": {"units": "BQML"}}, "pixels.attributes"),
        ("z", {"attributes": {"units": "m"}}, "z"),
    ],
)
def test_labels_that_were_changed(
    path: str, change: dict[str, Any], where: str, tmp_path: Path
) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store, on_error="fill", fill_value=0)
    assert verify(store, source).ok
    root = json.loads((store / "zarr.json").read_text())
    own = json.loads((store / path / "zarr.json").read_text())
    (store / path / "zarr.json").write_text(json.dumps({**own, **change}))
    consolidated = root["consolidated_metadata"]["metadata"]
    consolidated[path] = {**consolidated[path], **change}
    (store / "zarr.json").write_text(json.dumps(root))
    assert where in [one.where for one in verify(store, source).differences]


def refusing(monkeypatch: pytest.MonkeyPatch, kind: type[Any], part: str, error: Exception) -> None:
    """Let reading of the keys with this part fail."""
    get = kind.get

    async def refused(self: Any, key: str, *arguments: Any, **more: Any) -> Any:
        if part in key:
            raise error
        return await get(self, key, *arguments, **more)

    monkeypatch.setattr(kind, "get", refused)


@pytest.mark.parametrize("part", ["pixels/c/", "pixels/zarr.json", "z/c/", "missing/c/"])
@pytest.mark.parametrize("error", [PermissionError(13, "no"), OSError(5, "the disk")])
def test_a_store_that_cannot_be_read_is_not_damaged(
    part: str, error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = series(tmp_path)
    to_zarr(source, tmp_path / "a.zarr", on_error="fill")
    refusing(monkeypatch, LocalStore, part, error)
    with pytest.raises(type(error), match=error.strerror):
        verify(tmp_path / "a.zarr", source)


@pytest.mark.parametrize("part", ["pixels/c/", "pixels/zarr.json", "z/c/"])
def test_a_server_that_does_not_answer_is_no_damage(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = series(tmp_path), f"memory://{tmp_path.name}/a.zarr"
    to_zarr(source, store)
    refusing(monkeypatch, FsspecStore, part, EndpointConnectionError(endpoint_url="http://s3"))
    with pytest.raises(UnreachableError, match=rf"{store}: Could not connect .*--target-option"):
        verify(store, source)


@pytest.mark.parametrize("part", ["zarr.json", "pixels/zarr.json"])
def test_a_server_that_does_not_answer_is_no_other_store(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = series(tmp_path), f"memory://{tmp_path.name}/a.zarr"
    to_zarr(source, store)
    with monkeypatch.context() as patch:
        refusing(patch, FsspecStore, part, EndpointConnectionError(endpoint_url="http://s3"))
        with pytest.raises(UnreachableError):
            to_zarr(source, store, resume=True)
    with pytest.raises(StoreExistsError):
        to_zarr(source, store)
    assert to_zarr(source, store, resume=True).written == 0


def test_an_option_that_verify_does_not_have(tmp_path: Path) -> None:
    source, store = series(tmp_path), tmp_path / "a.zarr"
    to_zarr(source, store)
    with pytest.raises(TypeError, match=r"verify\(\) has no parameter 'chunks'"):
        verify(store, source, chunks=2)
    assert verify(store, source, fill_value=3).ok
