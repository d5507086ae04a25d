"""What of a source is scanned: exclusions, links to folders, folders that dcmdask wrote."""

import itertools
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import fsspec
import pytest
from make_dicom import native, noise

import dcmdask
from dcmdask.archive import discovery, remote
from dcmdask.archive.scan import Scan, scan

FRAME = noise(1, 4, 6, dtype="u2")
TEMPLATE = native(FRAME, Modality="MR", SeriesInstanceUID="1.2.4", SOPInstanceUID="1.2.3.00000")
NUMBERS = itertools.count(1)
WRITTEN = "written by dcmdask, and not scanned"


def image() -> bytes:
    """A file of an instance that is not there yet."""
    return TEMPLATE.replace(b"1.2.3.00000", b"1.2.3.%05d" % next(NUMBERS))


def saved(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image())


def found_in(found: Scan, folder: Path | str) -> set[str]:
    names = (one.source.name for series in found for one in series.instances)
    return {name.removeprefix("memory:///").removeprefix(f"{folder}/") for name in names}


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


TREE = ("1.dcm", "old/2.dcm", "a/old/3.dcm", "a/b/4.dcm", "a/b/5.txt", "old.dcm/6")
EXCLUDED = [
    ("old", {"1.dcm", "a/b/4.dcm", "a/b/5.txt", "old.dcm/6"}),
    ("old/", {"1.dcm", "a/b/4.dcm", "a/b/5.txt", "old.dcm/6"}),
    ("old*", {"1.dcm", "a/b/4.dcm", "a/b/5.txt"}),
    ("*.dcm", {"a/b/5.txt"}),
    (["*.txt", "a/old"], {"1.dcm", "old/2.dcm", "a/b/4.dcm", "old.dcm/6"}),
    ("old/*", {"1.dcm", "a/old/3.dcm", "a/b/4.dcm", "a/b/5.txt", "old.dcm/6"}),
    ("*/old", {"1.dcm", "old/2.dcm", "a/b/4.dcm", "a/b/5.txt", "old.dcm/6"}),
    ([], set(TREE)),
    ("b/*", set(TREE)),
    ("*", set()),
]


@pytest.mark.parametrize(("exclude", "left"), EXCLUDED)
def test_exclude(exclude: Any, left: set[str], tmp_path: Path, memory: Any) -> None:
    saved(tmp_path / "old", *TREE)
    for name in TREE:
        memory.pipe(f"/old/{name}", image())
    local = tmp_path / "old"
    for source in (local, [local], f"{local}/**", "memory://old", "memory://old/**"):
        found = scan(source, exclude=exclude)
        base = "old" if "memory" in str(source) else local
        assert found_in(found, base) == left, source
        assert not found.skipped


def test_an_excluded_folder_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "a/1", "old/2")
    looked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(str(path)) or scandir(path))
    scan(tmp_path, exclude=["old"])
    assert {os.path.relpath(path, tmp_path) for path in looked} == {".", "a"}


def test_a_source_itself_is_not_excluded(tmp_path: Path) -> None:
    saved(tmp_path, "old/1")
    assert scan(tmp_path / "old" / "1", exclude="1").files == 1
    assert scan(tmp_path / "old", exclude="old").files == 1


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in TREE:
            archive.writestr(name, image())
        archive.writestr("out/dcmdask.json", b'{"dcmdask": {}}')
        archive.writestr("out/1", image())
        archive.writestr("a/zarr.json", b"a mark that is damaged")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"that is damaged", b"that was damage"))
    for pattern in ("**", ""):
        # A mark counts, whether or not its name is excluded.
        found = scan(f"zip://{pattern}::{path}", exclude=["a/old", "*.json"])
        assert len(found_in(found, "")) == len(TREE) - 1
        assert [one.reason for one in found.skipped] == [WRITTEN]
        assert not scan(f"zip://{pattern}::{path}", exclude=["a", "out"]).skipped
        found = scan(f"zip://{pattern}::{path}", exclude=["a/old"])
        assert len(found_in(found, "")) == len(TREE) - 1
        told = {one.path: (one.reason, one.kind) for one in found.skipped}
        assert told.pop(f"zip://out::{path}") == (WRITTEN, "not DICOM")
        assert [kind for _, kind in told.values()] == ["doubtful"]


# Links


def test_links_to_folders_are_followed_where_asked(tmp_path: Path) -> None:
    saved(tmp_path, "study/1", "elsewhere/a/2")
    (tmp_path / "study" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for source in (tmp_path / "study", [tmp_path / "study"], f"{tmp_path}/study/**"):
        assert found_in(scan(source), tmp_path / "study") == {"1"}
        found = scan(source, follow_links=True)
        assert found_in(found, tmp_path / "study") == {"1", "link/a/2"}
        assert not found.skipped


def test_a_folder_that_links_reach_again_is_scanned_once(tmp_path: Path) -> None:
    # Followed each time, two links at each level would be 2**40 folders.
    saved(tmp_path, "z/b/1")
    for name in ("x", "y"):
        (tmp_path / "z" / name).symlink_to(tmp_path / "z", target_is_directory=True)
    # What can be reached without a link keeps its own path.
    (tmp_path / "a").symlink_to(tmp_path / "z" / "b", target_is_directory=True)
    found = scan(tmp_path, follow_links=True)
    assert found_in(found, tmp_path) == {"z/b/1"}
    assert found.files == 1
    assert [(os.path.relpath(one.path, tmp_path), one.kind) for one in found.skipped] == [
        ("a", "not DICOM"),
        ("z/x", "not DICOM"),
        ("z/y", "not DICOM"),
    ]
    assert {one.reason for one in found.skipped} == {"a folder that is scanned by another path"}


def test_links_that_lead_nowhere_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    found = scan(tmp_path, follow_links=True)
    assert {one.reason for one in found.doubtful} == {"a symbolic link that leads nowhere"}
    assert len(found.skipped) == 2


# Folders that dcmdask wrote


def store(path: Path) -> dict[str, bytes]:
    """A store that dcmdask wrote, with a DICOM file in it; its files."""
    dcmdask.to_zarr(image(), path)
    saved(path, "deep/9")
    files = (one for one in path.rglob("*") if one.is_file())
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in files}


def test_what_dcmdask_wrote_is_left_out(tmp_path: Path, memory: Any) -> None:
    saved(tmp_path, "study/1", "study/a/2")
    files = store(tmp_path / "study" / "a" / "out.zarr")
    inner = tmp_path / "study" / "a" / "out.zarr" / "deep" / "job"
    inner.mkdir()
    files["deep/job/dcmdask.json"] = b'{"dcmdask": {}}'
    (inner / "dcmdask.json").write_bytes(files["deep/job/dcmdask.json"])
    memory.pipe({"/study/1": image(), "/study/a/2": image()})
    memory.pipe({f"/study/a/out.zarr/{name}": data for name, data in files.items()})
    for source in (tmp_path / "study", f"{tmp_path}/study/**"):
        found = scan(source)
        assert found.files == 2
        written = str(tmp_path / "study/a/out.zarr")
        assert found.skipped == ((written, WRITTEN, "not DICOM", "written"),)
    for source in ("memory://study", "memory://study/**"):
        found = scan(source)
        assert found.files == 2
        assert found.skipped == (("memory:///study/a/out.zarr", WRITTEN, "not DICOM", "written"),)
    # Named itself it is scanned, but for the folders below that have a mark of their own.
    for source in (tmp_path / "study/a/out.zarr", "memory://study/a/out.zarr"):
        found = scan(source)
        assert len(found_in(found, "")) == 1
        (deep,) = (one for one in found.skipped if one.reason == WRITTEN)
        assert deep.path.endswith("out.zarr/deep/job")


FOREIGN = {
    "zarr.json": json.dumps({"node_type": "group", "attributes": {"other": {}}}).encode(),
    "dcmdask.json": b"[1, 2]",
    "other.json": b'{"dcmdask": {}}',
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_wrote_is_scanned(name: str, tmp_path: Path, memory: Any) -> None:
    saved(tmp_path, "a/1")
    (tmp_path / "a" / name).write_bytes(FOREIGN[name])
    memory.pipe({"/here/a/1": image(), f"/here/a/{name}": FOREIGN[name]})
    for source in (tmp_path, "memory://here"):
        found = scan(source)
        assert (len(found), found.files) == (1, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_mark_is_read_as_far_as_it_may_go(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, "a/1", "b/2")
    os.mkfifo(tmp_path / "a" / "zarr.json")
    monkeypatch.setattr(discovery, "MOST", 20)
    monkeypatch.setattr(remote, "MOST", 20)
    mark = b" " * 20 + b'{"dcmdask": {}}'
    (tmp_path / "b" / "dcmdask.json").write_bytes(mark)
    memory.pipe({"/here/b/2": image(), "/here/b/dcmdask.json": mark})
    assert found_in(scan(tmp_path), tmp_path) == {"a/1", "b/2"}
    assert found_in(scan("memory://here"), "here") == {"b/2"}


def test_ordinary_folders_cost_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, "a/1", "a/b/2")
    looked: list[Any] = []
    monkeypatch.setattr(os, "stat", lambda *args, **more: looked.append(args))
    list(discovery._walk(str(tmp_path), discovery._EVERYTHING, discovery.choice((), False)))
    assert not looked


# The command


def test_the_command(tmp_path: Path) -> None:
    saved(tmp_path, "study/1", "study/old/2", "elsewhere/3")
    (tmp_path / "study" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for command in ("scan", "info"):
        options = ["--json", "--exclude", "old", "--exclude", "*.txt", "--follow-links"]
        done = commands.run(command, *options, tmp_path / "study")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["files"], told["skipped"]) == (2, [])
    done = commands.run("info", *options, tmp_path / "study" / "1")
    assert done.returncode == 2
    assert "--exclude, --follow-links and --series are for folders" in done.stderr
