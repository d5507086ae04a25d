"""One rule of what dcmdask wrote: nothing else is removed, and no source is a target."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import dask.array
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_series import AXIAL, along, classic
from make_dicom import native, noise, saved
from s3_here import BUCKET, Server, serving

from dcmdask import StoreExistsError, open_frames, scan, to_zarr, write_array
from dcmdask.store.target.ownership import StoreKeys, check_apart, check_store, recover

TEMPORARY = f".{'0' * 32}.partial"


@pytest.fixture(autouse=True)
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server


def document(arrays: Any) -> bytes:
    return json.dumps({"attributes": {"dcmdask": {"arrays": arrays}}}).encode()


def series(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    classic(folder, noise(4, 9, 7, dtype="i2", bits=12), along(AXIAL, [0, 2.5, 5, 7.5]))
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# The keys of a store


def test_keys_of_a_store() -> None:
    keys = StoreKeys(document({"0": [10, 1], "time": [1], "scalar": []}))
    for ours in (
        *("zarr.json", "0/zarr.json", "0/c/0/0", "0/c/9/0", "time/c/0", "scalar/c"),
        *(f"zarr{TEMPORARY}", f"0/zarr{TEMPORARY}", f"0/c/9/0{TEMPORARY}"),
    ):
        assert ours in keys, ours
    for other in (
        *("0", "0/c", "0/c/0", "0/c/10/0", "0/c/0/1", "0/c/0/0/0", "0/c/00/0", "0/c/-1/0"),
        *("0/c/\N{ARABIC-INDIC DIGIT ONE}/0", "1/zarr.json", "c/0/0", "0/notes", "thesis.txt"),
        *(f"0/c/10/0{TEMPORARY}", f"thesis.txt{TEMPORARY}", f"0/c/9/0{TEMPORARY}\n", ""),
        *("0/c/1e0/0", f"0/c/{'9' * 1000}/0", "zarr", "0/zarr"),
    ):
        assert other not in keys, other
    assert 3 not in keys


@pytest.mark.parametrize(
    "said",
    [
        *(b"", b"\0", b"null", b"[]", b'{"attributes": null}', b"[" * 10**5),
        *(document(arrays) for arrays in (None, ["0"], "0", 10**9, -1)),
        *(document({"0": grid}) for grid in (None, 1, "1", [None, 1], [-1, 1], ["1", 1], {})),
        document({"0": [0, 1]}),
    ],
)
def test_damaged_metadata_list_no_chunk(said: bytes) -> None:
    assert "0/c/0/0" not in StoreKeys(said)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists), st.text())
def test_whatever_is_said_is_answered(arrays: Any, key: str) -> None:
    assert (key in StoreKeys(document(arrays))) in (True, False)
    assert (f"0/c/{key}" in StoreKeys(document({"0": [arrays]}))) in (True, False)


def test_a_huge_grid_costs_nothing() -> None:
    keys = StoreKeys(document({"0": [10**9, 10**9]}))
    assert "0/c/5/7" in keys and f"0/c/{10**9}/0" not in keys


def test_what_is_listed_is_what_is_written(tmp_path: Path) -> None:
    """Of every kind of array: levels, coordinates, the mask; and no key more."""
    to_zarr(
        series(tmp_path / "in"),
        tmp_path / "a.zarr",
        format="ome-zarr",
        levels=3,
        chunks=(1, 4, 4),
        shards=None,
        on_error="fill",
        fill_value=0,
    )
    arrays = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["attributes"]["dcmdask"][
        "arrays"
    ]
    assert {"0", "1", "2", "missing", "z"} <= arrays.keys()
    for name, grid in arrays.items():
        written = [path for path in (tmp_path / "a.zarr" / name).rglob("*") if path.is_file()]
        chunks = [path for path in written if path.name != "zarr.json"]
        listed = 1
        for count in grid:
            listed *= count
        assert len(chunks) == listed
    check_store(tmp_path / "a.zarr")


# Leftovers beside a target


@pytest.mark.parametrize("purpose", ["partial", "old"])
@pytest.mark.parametrize("kind", ["mine", "mixed", "file", "link"])
def test_leftovers_of_others_stay(tmp_path: Path, purpose: str, kind: str) -> None:
    store, left = tmp_path / "out.zarr", tmp_path / f".out.zarr.{purpose}-0123456789ab"
    if kind == "file":
        left.write_text("mine")
    elif kind == "link":
        write_array(dask.array.ones(3), tmp_path / "elsewhere")
        left.symlink_to(tmp_path / "elsewhere")
    else:
        if kind == "mixed":
            write_array(dask.array.ones(3), left)
        (left / "pixels").mkdir(parents=True, exist_ok=True)
        (left / "pixels/thesis.txt").write_text("years of work")
    before = hashes(tmp_path)
    for overwrite in (False, True):
        write_array(dask.array.ones(2), store, overwrite=overwrite)
        assert before.items() <= hashes(tmp_path).items()
        assert os.path.lexists(left)


def test_leftovers_of_ours_go(tmp_path: Path) -> None:
    """Also of a store that was being discarded, or of which the first write was not done."""
    for number in range(3):
        left = tmp_path / f".out.zarr.partial-{number:012x}"
        write_array(dask.array.ones(3), left)
        if number:
            os.rename(left / "zarr.json", left / f"zarr{TEMPORARY}")
        if number == 2:
            (left / "pixels/c/0").unlink()
    begun = tmp_path / ".out.zarr.partial-00000000000a"
    begun.mkdir()
    (begun / f"zarr.{'1' * 32}.partial").write_bytes(b"{")
    recover(tmp_path / "out.zarr")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_lock_that_is_not_ours(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".out.zarr.lock"
    if kind == "file":
        lock.write_text("mine")
    elif kind == "folder":
        lock.mkdir()
    else:
        (tmp_path / "mine").write_text("mine")
        lock.symlink_to(tmp_path / "mine")
    before = hashes(tmp_path)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(StoreExistsError, match=r"\.out\.zarr\.lock stands in the way"):
            write_array(dask.array.ones(2), tmp_path / "out.zarr", **options)
    assert hashes(tmp_path) == before


def test_a_lock_that_was_left(tmp_path: Path) -> None:
    (tmp_path / ".out.zarr.lock").touch()
    write_array(dask.array.ones(2), tmp_path / "out.zarr")
    assert os.listdir(tmp_path) == ["out.zarr"]


# Resume


@pytest.mark.parametrize("stranger", ["thesis.txt", "z/thesis.txt", "pixels/c/9/0/0"])
def test_resume_removes_nothing_else(tmp_path: Path, stranger: str) -> None:
    """A coordinate is made anew with all that is in its folder."""
    source, store = series(tmp_path / "in"), tmp_path / "out.zarr"
    to_zarr(source, store)
    (store / stranger).parent.mkdir(parents=True, exist_ok=True)
    (store / stranger).write_text("years of work")
    before = hashes(tmp_path)
    with pytest.raises(StoreExistsError, match=f"{stranger} stands in the way"):
        to_zarr(source, store, resume=True)
    assert hashes(tmp_path) == before


def test_on_s3(server: Server, tmp_path: Path) -> None:
    source, url = saved(tmp_path, native(noise(6))), f"s3://{BUCKET}/own/out.zarr"
    to_zarr(source, url, target_options=server.options, chunks=1)
    for stranger in ("thesis.txt", "pixels/c/6/0/0", "pixels/c/0/0", "other/zarr.json"):
        server.put(f"own/out.zarr/{stranger}", b"keep")
        before = server.objects("own/")
        for how in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(StoreExistsError, match=f"{url}/{stranger} stands in the way"):
                to_zarr(source, url, target_options=server.options, chunks=1, **how)
        assert server.objects("own/") == before
        server.delete(f"own/out.zarr/{stranger}")
    to_zarr(source, url, target_options=server.options, chunks=1, overwrite=True)


# Sources and targets


def refused(sources: list[Any], target: Any, options: Any = None) -> str:
    try:
        check_apart(map(str, sources), str(target), options)
    except ValueError as error:
        return str(error)
    return ""


def test_a_target_that_is_or_holds_the_source(tmp_path: Path) -> None:
    source = series(tmp_path / "a/in")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    first = next(source.iterdir())
    for one in (source, link / "in", f"{source}/*.dcm", f"file://{source}", link / "in/*"):
        for target in (source, link / "in", f"file://{link}/in", f"{source}/../in/"):
            assert " is the source " in refused([one], target), (one, target)
        for target in (tmp_path / "a", link, f"local://{tmp_path}/a", tmp_path, "/"):
            message = refused([one], target)
            assert f"the target {target} holds the source {one}" in message
        for target in (tmp_path / "a/in2", tmp_path / "b", tmp_path / "a/i"):
            assert not refused([one], target)
    assert " is the source " in refused([tmp_path / "x", first], first)
    assert " holds " in refused([f"zip://**::{first}"], source)
    assert " holds " in refused([f"zip://**::file://{first}"], source)
    assert not refused([], source)


def test_a_target_in_the_source(tmp_path: Path) -> None:
    source = series(tmp_path / "in")
    assert not refused([source], source / "new/out.zarr")
    (source / "empty").mkdir()
    assert not refused([source], source / "empty")
    write_array(dask.array.ones(2), source / "marked.zarr")
    assert not refused([source], source / "marked.zarr")
    (source / "deep").mkdir()
    (source / "deep/notes.txt").touch()
    for target in (source / "deep", min(path for path in source.iterdir() if path.is_file())):
        assert f"the target {target} lies in the source {source}" in refused([source], target)
    (tmp_path / "link").symlink_to(source)
    assert " lies in " in refused([source], tmp_path / "link/deep")


def test_urls_of_one_bucket(server: Server) -> None:
    server.put("apart/in/a.dcm", b"a")
    server.put("apart/in/old/notes.txt", b"a")
    server.put("apart/in/out.zarr/zarr.json", b'{"attributes": {"dcmdask": {}}}')
    url = f"s3://{BUCKET}/apart"
    for source in (f"{url}/in", f"s3a://{BUCKET}/apart/in/", f"{url}/in/*.dcm"):
        assert " is the source " in refused([source], f"{url}/in")
        assert " holds " in refused([source], f"s3a://{BUCKET}")
        assert " lies in " in refused([source], f"{url}/in/old", server.options)
        for target in ("in/new.zarr", "in/out.zarr", "in2", "out.zarr"):
            assert not refused([source], f"{url}/{target}", server.options)
        assert not refused([source], f"/{BUCKET}/apart/in")
        assert not refused([source], f"memory://{BUCKET}/apart/in")
    assert " holds " in refused([f"zip://**::simplecache::{url}/in/a.zip"], f"{url}/in")
    assert " is the source " in refused(["memory://in"], "memory:///in/")


def test_every_form_of_a_source(tmp_path: Path) -> None:
    """Refused before anything is opened, whatever stands for the files."""
    folder = series(tmp_path / "a/in")
    before = hashes(tmp_path)
    first = min(folder.iterdir())
    found = scan(folder)[0]
    with open(first, "rb") as file:
        for source in (
            *(folder, str(folder), [folder], f"{folder}/*", found, found.stacks[0]),
            *(open_frames(first), first, file),
        ):
            for target in (tmp_path / "a", f"file://{tmp_path}/a/"):
                for how in ({}, {"resume": True}, {"overwrite": True}):
                    with pytest.raises(ValueError, match="holds the source"):
                        to_zarr(source, target, **how)
    with pytest.raises(ValueError, match="is the source"):
        to_zarr(folder, folder, overwrite=True)
    assert hashes(tmp_path) == before
    assert to_zarr(first.read_bytes(), tmp_path / "b.zarr").written
    assert to_zarr(iter([folder]), tmp_path / "c.zarr").written
    assert to_zarr(folder, folder / "b.zarr").written
    assert to_zarr(folder, folder / "b.zarr", overwrite=True).written


# Whatever lies around

NAMES = st.sampled_from(
    [
        *("out.zarr/thesis.txt", "out.zarr/pixels/c/0/0/0", "out.zarr/pixels/c/7/0/0"),
        *("out.zarr/zarr.json", "out.zarr/x/zarr.json", "out.zarr/pixels/zarr.json"),
        *("out.zarr/pixels/c/0", f"out.zarr/notes{TEMPORARY}", "out.zarr", ".out.zarr.lock"),
        *(".out.zarr.old-0123456789ab/a", ".out.zarr.partial-0123456789ab/zarr.json"),
        *(".out.zarr.partial-0123456789ab/pixels/c/0/0/0", ".out.zarr.old-0123456789ab"),
    ]
)


@settings(max_examples=60, print_blob=True)
@given(st.lists(NAMES, unique=True, max_size=3), st.data())
def test_nothing_of_others_is_lost(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("around")
    source, store = folder / "made.dcm", folder / "out.zarr"
    saved(folder, native(noise(3)))
    if data.draw(st.booleans(), "a store is there"):
        to_zarr(source, store, chunks=1)
    foreign = {}
    for name in names:
        if os.path.lexists(folder / name):
            # What lies there then is somebody else's only if its name says so.
            continue
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            continue
        (folder / name).write_bytes(content := b"not of dcmdask: " + name.encode())
        foreign[name] = hashlib.sha256(content).hexdigest()
    for _ in range(data.draw(st.integers(1, 3), "exports")):
        how = data.draw(st.sampled_from([{}, {"overwrite": True}, {"resume": True}]))
        kept = foreign.items() <= hashes(folder).items()
        assert kept
        with suppress(StoreExistsError, NotADirectoryError):
            to_zarr(source, store, chunks=data.draw(st.sampled_from([1, 3])), **how)
    assert foreign.items() <= hashes(folder).items()


def test_a_target_is_no_pattern(tmp_path: Path) -> None:
    """Also one that is not there yet, beside its source."""
    (tmp_path / "archive").mkdir()
    source = str(tmp_path / "archive")
    for name in ("out [1].zarr", "out*", "a?/b"):
        check_apart([source], str(tmp_path / name))
    (tmp_path / "archive/out [1]").mkdir()
    (tmp_path / "archive/out [1]/notes.txt").touch()
    with pytest.raises(ValueError, match="lies in"):
        check_apart([source], str(tmp_path / "archive/out [1]"))
