"""Scanning: which files are found, what each is, and which series they make."""

import contextlib
import glob
import io
import json
import math
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
from canaries import CANARY, file_of, fill, traces
from hypothesis import given, settings
from hypothesis import strategies as st
from make_dicom import described, encapsulated, native, noise, part10
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from real_files import corpus_files, packaged_files

import dcmdask
import dcmdask.archive.listing as listing
from dcmdask.archive import descriptions, discovery, grouping, processes
from dcmdask.archive.descriptions import describe_files
from dcmdask.archive.scan import Scan, Skipped, scan
from dcmdask.errors import DcmdaskWarning
from dcmdask.sources import files

FRAME = noise(1, 4, 6, dtype="u2")
SERIES, OTHER_SERIES, STUDY = "1.2.4.10", "1.2.4.11", "1.2.5"
IDS = {"SOPInstanceUID": "1.2.3.00000", "SeriesInstanceUID": SERIES, "StudyInstanceUID": STUDY}
TEMPLATE = native(FRAME, Modality="MR", **IDS)


def instance(number: int, series: str = SERIES) -> bytes:
    """A file like the others, with a UID of its own."""
    data = TEMPLATE.replace(b"1.2.3.00000", b"1.2.3.%05d" % number)
    return data.replace(SERIES.encode(), series.encode())


def saved(folder: Path, numbers: Iterable[int], series: str = SERIES) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        path.write_bytes(instance(number, series))
    return paths


def names(found: Scan) -> list[str]:
    return [one.source.name for series in found for one in series.instances]


def reasons(found: Scan) -> dict[str, str]:
    return {os.path.basename(one.path): one.reason for one in found.skipped}


def workers() -> list[psutil.Process]:
    """The processes that describe files for this one."""
    mine = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if processes.PROGRAM in child.cmdline():
                mine.append(child)
    return mine


# Which files.


def test_a_tree_with_whatever_names(tmp_path: Path) -> None:
    parts = [
        "plain.dcm",
        "no suffix",
        "text.txt",
        ".hidden",
        "new\nline",
        "glob[1]*?.dcm",
        "ünïcödé",
        "folder.dcm/inside",
        os.path.join(*["deep"] * 40, "x"),
    ]
    for number, part in enumerate(parts):
        path = tmp_path / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(instance(number))
    found = scan(tmp_path)
    assert names(found) == sorted(str(tmp_path / part) for part in parts)
    assert (len(found), found.files, found.skipped) == (1, len(parts), ())
    assert scan(tmp_path / "glob[1]*?.dcm").files == 1
    assert repr(found) == "<Scan: 1 series, 9 instances of 9 files>"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    raw = os.path.join(os.fsencode(tmp_path), b"\xff\xfe.dcm")
    try:
        with open(raw, "wb") as file:
            file.write(instance(1))
        with open(raw + b"2", "wb") as file:
            file.write(b"no DICOM")
    except OSError:
        pytest.skip("this file system takes no such names")
    found = scan(tmp_path)
    assert names(found) == [os.fsdecode(raw)]
    assert [os.fsencode(one.path) for one in found.skipped] == [raw + b"2"]
    assert pickle.loads(pickle.dumps(found)).skipped == found.skipped
    json.dumps(found.skipped)
    assert names(scan(raw.decode("utf-8", "surrogateescape"))) == names(found)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (good,) = saved(tmp_path / "a", [1])
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket must be short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        found = scan(tmp_path)
    assert names(found) == [str(good)]
    assert reasons(found) == {
        "fifo": "a named pipe that is not a file",
        "socket": "a socket that is not a file",
        "loop": "a link to a folder, which is not followed",
        "nowhere": "a symbolic link that leads nowhere",
        "round": "a symbolic link that leads nowhere",
    }
    kinds = {os.path.basename(one.path): one.kind for one in found.skipped}
    assert {name for name, kind in kinds.items() if kind == "doubtful"} == {"nowhere", "round"}
    assert {kinds[name] for name in ("fifo", "socket", "loop")} == {"not DICOM"}
    assert found.files == 1
    # Named by itself, a link to a folder is what is meant.
    assert scan(tmp_path / "loop").files == 1
    assert reasons(scan(tmp_path / "fifo")) == {"fifo": "a named pipe that is not a file"}


def test_what_cannot_be_described_is_named(tmp_path: Path) -> None:
    (good,) = saved(tmp_path, [1])
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("A text that is no image.\n" * 40)
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    (tmp_path / "cut").write_bytes(TEMPLATE[: TEMPLATE.index(b"\x28\x00\x10\x00US") + 9])
    (tmp_path / "report").write_bytes(part10(described(FRAME), ExplicitVRLittleEndian, b""))
    (dicomdir,) = (p for p in packaged_files() if p.match("dicomdirtests/DICOMDIR"))
    shutil.copy(dicomdir, tmp_path)
    found = scan(tmp_path)
    assert names(found) == [str(good)]
    told = reasons(found)
    assert told.pop("cut").startswith("the header ends early: ")
    assert told == {
        "empty": "an empty file",
        "text": "not a DICOM file",
        "picture": "not a DICOM file",
        "report": "no pixel data, and the SOP class is one of images: it is probably truncated",
        "DICOMDIR": "no pixel data",
    }
    kinds = {os.path.basename(one.path): one.kind for one in found.skipped}
    assert kinds == {
        "empty": "not DICOM",
        "text": "not DICOM",
        "picture": "not DICOM",
        "cut": "doubtful",
        "report": "doubtful",
        "DICOMDIR": "no pixel data",
    }
    assert [os.path.basename(one.path) for one in found.doubtful] == ["cut", "report"]
    # A copy that failed leaves an empty file, so the series that lies beside it says so.
    assert any("an empty file" in text for text in found[0].left_out)
    with pytest.warns(DcmdaskWarning, match="an empty file"):
        dcmdask.from_dicom(tmp_path)
    assert found.files == 7
    assert repr(found) == "<Scan: 1 series, 1 instances of 7 files, 6 skipped>"


def test_wherever_a_file_ends_it_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        data = native(FRAME, syntax, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", **IDS)
        for end in range(132, len(data) - FRAME.nbytes):
            path.write_bytes(data[:end])
            (outcome,) = describe_files([str(path)])
            assert isinstance(outcome, Skipped), end
            assert outcome.kind == "doubtful", (end, outcome)


PRIVATE_CLASS = "1.2.826.0.1.3680043.8.498.7"


@pytest.mark.parametrize(
    ("kind", "sop_class", "rows"),
    [
        ("doubtful", "1.2.840.10008.5.1.4.1.1.2", None),  # CT
        ("doubtful", "1.2.840.10008.5.1.4.1.1.66.4", None),  # segmentation
        ("no pixel data", "1.2.840.10008.5.1.4.1.1.4.2", 4),  # MR spectroscopy
        ("no pixel data", "1.2.840.10008.5.1.4.1.1.88.11", None),  # report
        ("no pixel data", "1.2.840.10008.5.1.4.1.1.481.3", None),  # structures
        ("no pixel data", "1.2.840.10008.5.1.4.1.1.11.1", None),  # presentation state
        ("no pixel data", "1.2.840.10008.5.1.4.1.1.481.2", None),  # dose, as histograms only
        ("doubtful", "1.2.840.10008.5.1.4.1.1.481.2", 4),
        ("no pixel data", PRIVATE_CLASS, None),
        ("doubtful", PRIVATE_CLASS, 4),
        ("doubtful", "CANARY", 4),
        ("doubtful", None, None),
    ],
)
def test_what_should_have_pixels_is_doubtful_without(
    kind: str, sop_class: str | None, rows: int | None, tmp_path: Path
) -> None:
    with descriptions.quiet():
        dataset = described(FRAME, SOPClassUID=sop_class or PRIVATE_CLASS, Rows=rows)
        data = part10(dataset, ExplicitVRLittleEndian, b"")
    if not sop_class:
        data = data.replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x17\x00UI")
    (tmp_path / "a").write_bytes(data)
    (one,) = scan(tmp_path).skipped
    assert one.kind == kind
    assert "no pixel" in one.reason
    assert "CANARY" not in one.reason
    saved(tmp_path, [1])
    if kind == "doubtful":
        with pytest.warns(DcmdaskWarning, match=r"were left out \(1\): "):
            dcmdask.from_dicom(tmp_path)
    else:
        assert dcmdask.from_dicom(tmp_path).shape == FRAME.shape


def test_real_files_without_pixels_are_harmless() -> None:
    for name in ("rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm", "dicomdirtests/DICOMDIR"):
        path = next(path for path in packaged_files() if path.match(name))
        (one,) = describe_files([str(path)])
        assert isinstance(one, Skipped), name
        assert one.kind == "no pixel data", name


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (good,) = saved(tmp_path / "open", [1])
    saved(tmp_path / "closed", [2])
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if path == str(tmp_path / "closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = scan(tmp_path)
    assert names(found) == [str(good)]
    assert reasons(found) == {"closed": "a folder that cannot be read: Permission denied"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_permissions(tmp_path: Path) -> None:
    (good,) = saved(tmp_path, [1])
    (closed,) = saved(tmp_path, [2])
    saved(tmp_path / "folder", [3])
    closed.chmod(0)
    (tmp_path / "folder").chmod(0)
    found = scan(tmp_path)
    (tmp_path / "folder").chmod(0o700)
    assert names(found) == [str(good)]
    assert reasons(found) == {
        "2": "it cannot be read: Permission denied",
        "folder": "a folder that cannot be read: Permission denied",
    }


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, [1])

    def refusing(source: Any, options: Any, **how: Any) -> None:
        raise PermissionError(13, "Permission denied", source.name)

    monkeypatch.setattr(descriptions, "describe", refusing)
    assert reasons(scan(tmp_path)) == {"1": "it cannot be read: Permission denied"}


def test_files_that_vanish_or_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, gone, changed = saved(tmp_path, [1, 2, 3])
    locate = files.locate

    def late(path: str, *how: Any) -> files.Stored:
        if path == str(gone):
            gone.unlink()
        source = locate(path, *how)
        if path == str(changed):
            changed.write_bytes(TEMPLATE + b"more")
        return source

    monkeypatch.setattr(files, "locate", late)
    found = scan(tmp_path)
    assert names(found) == [str(good)]
    told = reasons(found)
    assert told["2"] == "it vanished after it was listed"
    assert told["3"].startswith("the file has changed since it was opened")


# Sources.


class PathLike:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_every_kind_of_local_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(path) for path in saved(tmp_path / "a", [1, 2]) + saved(tmp_path / "b", [3])]
    monkeypatch.chdir(tmp_path)
    kinds: list[Any] = [
        tmp_path,
        str(tmp_path),
        f"{tmp_path}{os.sep}",
        PathLike(tmp_path),
        ".",
        tmp_path.as_uri(),
        paths,
        set(map(Path, paths)),
        iter(paths),
        ["a", PathLike(tmp_path / "b")],
        ["a", "b/3", paths[0], "a/*"],
        "*",
        "**",
        "**/?",
        "./*/[0-9]",
        (tmp_path / "*" / "?").as_uri().replace("%3F", "?").replace("%2A", "*"),
    ]
    for kind in kinds:
        found = scan(kind)
        assert names(found) == paths, kind
        assert (found.files, found.skipped) == (3, ()), kind
    for path in paths:
        assert names(scan(path)) == [path]


PATTERNS = ["*", "**", "a*", "*/*", "**/*.dcm", "a/**/*.dcm", "**/a/**", "*/a", "**/**/b", "?/??/*"]
PATTERNS += ["**/.*", "[ab]/**", "a/*/../*", "a**/*", "**/a", "a/b/**/b.dcm"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_those_of_glob(pattern: str, tmp_path: Path) -> None:
    for part in ("a", "b.dcm", "a/b/b.dcm", "c/a/b", "c/.h/x.dcm", "a/b/c/b.dcm", "aa/bb/c"):
        path = tmp_path / part
        if part != "a":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    expected = set()
    for match in glob.iglob(f"{tmp_path}/{pattern}", recursive=True, include_hidden=True):
        inside = Path(match).rglob("*") if os.path.isdir(match) else [Path(match)]
        expected |= {os.path.normpath(path) for path in inside if path.is_file()}
    (source,) = discovery.sources(tmp_path / pattern)
    found = list(discovery.discover(source, discovery.Choice()))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_a_pattern_looks_only_where_it_can_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "a" / "b", [1])
    saved(tmp_path / "c" / "b", [2])
    looked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(str(path)) or scandir(path))
    assert scan(f"{tmp_path}/a/*/?").files == 1
    assert {os.path.relpath(path, tmp_path) for path in looked} == {"a", "a/b"}


def test_links_that_go_round_cost_nothing(tmp_path: Path) -> None:
    # Followed, two links at each level would be 2**40 folders.
    saved(tmp_path / "a", [1])
    for name in ("x", "y"):
        (tmp_path / "a" / name).symlink_to(tmp_path / "a", target_is_directory=True)
    found = scan(f"{tmp_path}/**")
    assert found.files == 1
    assert len(found.skipped) == 2


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    fsspec.filesystem("memory").pipe("/there/1", TEMPLATE)
    absent: list[Any] = [
        tmp_path / "absent",
        [tmp_path, tmp_path / "absent"],
        f"{tmp_path}/*.dcm",
        f"{tmp_path}/*/x",
        f"{tmp_path}/absent/**",
        "memory://nowhere",
        "memory://there/*.dcm",
    ]
    for src in absent:
        with pytest.raises(FileNotFoundError):
            scan(src)
        with pytest.raises(FileNotFoundError):
            scan(src, exclude="*.png")
    assert scan(f"{tmp_path}/*", exclude="*").files == 0
    for src in (b"bytes", [TEMPLATE]):
        with pytest.raises(TypeError, match="paths, patterns and URLs"):
            scan(src)
    with pytest.raises(ValueError, match="storage_options are for URLs"):
        scan(["memory://there", tmp_path], storage_options={"a": 1})


def test_nothing_found_is_an_empty_scan(tmp_path: Path) -> None:
    for src in (tmp_path, []):
        found = scan(src)
        assert (len(found), found.files, found.skipped, found.rows()) == (0, 0, (), [])
        assert list(found) == []
        assert repr(found) == "<Scan: 0 series, 0 instances of 0 files>"
        assert len(found.to_frame()) == 0
        assert "series_uid" in found.to_frame()


MEMBERS = {"a/1": instance(1), "a/b/2.dcm": instance(2), "c.txt": b"no DICOM", "a/0": b""}


def zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def tarred(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("pattern", ["**", "", "a*", "*", "a/**"])
@pytest.mark.parametrize("kind", ["zip", "tar", "memory"])
def test_what_fsspec_reaches(kind: str, pattern: str, tmp_path: Path) -> None:
    if kind == "memory":
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        for name, data in MEMBERS.items():
            memory.pipe(f"/study/{name}", data)
        end, begin = "", "memory://study/"
    else:
        path = tmp_path / f"archive.{kind}"
        {"zip": zipped, "tar": tarred}[kind](path, MEMBERS)
        end, begin = f"::{path}", f"{kind}://"
    found = scan(f"{begin}{pattern}{end}")
    urls = [f"{begin.replace('memory://', 'memory:///')}{name}{end}" for name in MEMBERS]
    # All file systems but memory find what is in a folder without a slash in front.
    assert [name.replace("memory:///", "memory://") for name in names(found)] == [
        url.replace("memory:///", "memory://") for url in urls[:2]
    ]
    told = {one.path.replace("memory:///", "memory://"): one.reason for one in found.skipped}
    expected = {urls[3]: "an empty file", urls[2]: "not a DICOM file"}
    if pattern.startswith("a"):
        del expected[urls[2]]
    assert told == {url.replace("memory:///", "memory://"): r for url, r in expected.items()}
    again = scan(names(found))
    assert names(again) == names(found)


def test_local_and_remote_sources_together(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"1": instance(1), "2": instance(2)})
    (local,) = saved(tmp_path / "a", [2])
    calls: list[tuple[int, int | None]] = []
    found = scan(
        [f"zip://*::{tmp_path}/a.zip", local.parent], progress=lambda *call: calls.append(call)
    )
    assert len(found[0]) == 2
    # The copy in the archive is one of the same instance.
    assert [one.reason for one in found.skipped] == [f"the same instance as {local}"]
    assert (calls[0], calls[-1]) == ((1, None), (3, 3))


def test_names_in_an_archive_lead_nowhere_else(tmp_path: Path) -> None:
    (outside,) = saved(tmp_path / "outside", [9])
    members = {
        "good": instance(1),
        "../outside/9": instance(2),
        f"{outside}": instance(3),
        f"file://{outside}": instance(4),
        f"x::{outside}": instance(5),
    }
    zipped(tmp_path / "a.zip", members)
    found = scan(f"zip://**::{tmp_path}/a.zip")
    uids = {one.sop_instance_uid for series in found for one in series.instances}
    assert "1.2.3.00001" in uids
    assert "1.2.3.00009" not in uids
    assert "a name that cannot be part of a URL" in set(reasons(found).values())


# Series.


def test_series_are_sorted_whatever_the_files_are_called(tmp_path: Path) -> None:
    saved(tmp_path, [5, 3], OTHER_SERIES)
    saved(tmp_path, [4, 1])
    found = scan(tmp_path)
    assert [series.uid for series in found] == [SERIES, OTHER_SERIES]
    assert [os.path.basename(name) for name in names(found)] == ["1", "4", "3", "5"]
    assert found[OTHER_SERIES] is found[1] is found[-1]
    assert found[:1] == (found[0],)
    assert list(found) == [found[0], found[1]]
    with pytest.raises(KeyError, match=r"of 0 of 2 series are '1\.2' or end like this"):
        found["1.2"]
    with pytest.raises(IndexError):
        found[2]


def test_instances_without_a_series(tmp_path: Path) -> None:
    data = native(FRAME, Modality="MR", StudyInstanceUID=STUDY, SOPInstanceUID="1.2.3.00000")
    other = native(FRAME, Modality="CT", StudyInstanceUID=STUDY, SOPInstanceUID="1.2.3.00000")
    for part in ("a/1", "a/2", "b/1", "b/c/1"):
        path = tmp_path / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.replace(b"1.2.3.00000", b"1.2.3.%05d" % len(names(scan(tmp_path)))))
    (tmp_path / "a/3").write_bytes(other.replace(b"1.2.3.00000", b"1.2.3.00007"))
    found = scan(tmp_path)
    grouped = [[os.path.relpath(one.source.name, tmp_path) for one in s.instances] for s in found]
    assert grouped == [["a/3"], ["a/1", "a/2"], ["b/1"], ["b/c/1"]]
    assert [row["series_uid"] for row in found.rows()] == [None] * 4
    with pytest.raises(KeyError, match="4 of 4 series"):
        found[""]


def test_one_series_uid_in_two_studies(tmp_path: Path) -> None:
    """medInria-public issue 156."""
    (tmp_path / "1").write_bytes(instance(1))
    (tmp_path / "2").write_bytes(instance(2).replace(STUDY.encode() + b"\0", b"1.2.6\0"))
    found = scan(tmp_path)
    assert [row["study_uid"] for row in found.rows()] == [None]
    (stack,) = found[SERIES].stacks
    assert len(found[SERIES]) == 2 and stack.notes[0].code == "study-uids"


@given(order=st.permutations(range(12)))
@settings(max_examples=25)
def test_the_order_of_sources_does_not_matter(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "order"
    if not folder.exists():
        saved(folder, range(4))
        saved(folder, range(4, 8), OTHER_SERIES)
        for number in range(8, 11):
            shutil.copy(folder / f"{number - 8}", folder / f"{number}")
        (folder / "11").write_bytes(b"no DICOM")
    expected = scan(folder)
    found = scan([folder / str(number) for number in order])
    assert names(found) == names(expected)
    assert found.skipped == expected.skipped
    assert len(found.skipped) == 4


# Duplicates.


def of_one_uid(**elements: Any) -> bytes:
    return native(elements.pop("frames", FRAME), **{**IDS, "Modality": "MR", **elements})


def parts_of(folder: Path) -> list[list[str]]:
    same = [one for one in describe_files(sorted(map(str, folder.iterdir())))]
    assert not any(isinstance(one, Skipped) for one in same)
    return [
        [os.path.basename(one.source.name) for one in part] for part in grouping._versions(same)
    ]


def test_copies_are_skipped(tmp_path: Path) -> None:
    for name, data in {
        "a": of_one_uid(),
        "b": of_one_uid(),
        # What a scan does not ask about may differ.
        "c": of_one_uid(PatientName="Somebody^Else", AccessionNumber="17"),
    }.items():
        (tmp_path / name).write_bytes(data)
    found = scan(tmp_path)
    assert len(found[0]) == 1
    assert reasons(found) == {name: f"the same instance as {tmp_path / 'a'}" for name in "bc"}
    assert found[0].conflicts == ()
    assert found.files == 3


def test_a_copy_that_cannot_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries of servers raise errors of any class; such a file is the copy of none."""

    def refused(*_: object) -> None:
        raise type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})

    for name in "ab":
        (tmp_path / name).write_bytes(of_one_uid())
    monkeypatch.setattr(grouping, "read_header", refused)
    found = scan(tmp_path)
    assert len(found[0]) == 2 and len(found[0].conflicts) == 1 and found.skipped == ()


def test_different_instances_of_one_uid_are_a_conflict(tmp_path: Path) -> None:
    last = FRAME.copy()
    last[-1, -1, -1] ^= 1
    data = {
        "a": of_one_uid(),
        "b": of_one_uid(frames=last),
        "c": of_one_uid(),
        "d": of_one_uid(ImagePositionPatient=[0, 0, 1]),
        "e": of_one_uid(frames=noise(2, 4, 6, dtype="u2")),
        "f": native(FRAME, ImplicitVRLittleEndian, **IDS, Modality="MR"),
        "g": of_one_uid(frames=last),
    }
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    parts = parts_of(tmp_path)
    assert sorted(parts) == [["a", "c"], ["b", "g"], ["d"], ["e"], ["f"]]
    found = scan(tmp_path)
    assert [os.path.basename(name) for name in names(found)] == ["a", "b", "d", "e", "f"]
    assert reasons(found) == {
        "c": f"the same instance as {tmp_path / 'a'}",
        "g": f"the same instance as {tmp_path / 'b'}",
    }
    conflict = str(*found[0].conflicts)
    assert conflict.startswith("5 different files have the SOP Instance UID 1.2.3.00000: ")
    assert all(str(tmp_path / name) in conflict for name in "abdef")
    (row,) = found.rows()
    assert row["regular"] is False
    assert "1 SOP Instance UIDs of different files" in row["irregularities"]
    assert "different files have" not in json.dumps(row["irregularities"])
    assert row.pop("folder") == str(tmp_path) and str(tmp_path) not in json.dumps(row)


def test_instances_with_other_lookup_tables_are_no_copies(tmp_path: Path) -> None:
    def with_table(keyword: str, entries: bytes, **elements: Any) -> bytes:
        table = Dataset()
        table.LUTDescriptor, table.LUTData = [2, 0, 8], np.frombuffer(entries, "u1").tolist()
        table["LUTData"].VR = "US"
        if keyword == "FrameVOILUTSequence":
            window, item = Dataset(), Dataset()
            window.VOILUTSequence = Sequence([table])
            item.FrameVOILUTSequence = Sequence([window])
            keyword, table = "SharedFunctionalGroupsSequence", item
        return of_one_uid(**{keyword: Sequence([table])}, **elements)

    def coloured(blue: int, **elements: Any) -> bytes:
        colours = {
            f"{name}PaletteColorLookupTableDescriptor": [4, 0, 16]
            for name in ("Red", "Green", "Blue")
        } | {
            f"{name}PaletteColorLookupTableData": bytes([0, 1, 2, 3, 4, 5, 6, value])
            for name, value in (("Red", 7), ("Green", 7), ("Blue", blue))
        }
        return of_one_uid(PhotometricInterpretation="PALETTE COLOR", **colours, **elements)

    for keyword in ("ModalityLUTSequence", "VOILUTSequence", "FrameVOILUTSequence"):
        for name, data in {
            "a": with_table(keyword, b"\0\1"),
            "b": with_table(keyword, b"\0\2"),
            "c": with_table(keyword, b"\0\1", PatientName="Somebody^Else"),
            "d": of_one_uid(),
        }.items():
            (tmp_path / name).write_bytes(data)
        assert sorted(parts_of(tmp_path)) == [["a", "c"], ["b"], ["d"]], keyword
    for name, data in {
        "a": coloured(7),
        "b": coloured(8),
        "c": coloured(7, PatientName="Somebody^Else"),
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "d").unlink()
    assert sorted(parts_of(tmp_path)) == [["a", "c"], ["b"]]


def test_lookup_tables_in_headers_that_only_pydicom_reads(tmp_path: Path) -> None:
    def strange(data: bytes) -> bytes:
        (length,) = struct.unpack_from("<L", data, 140)
        element = struct.pack("<HH2sH", 1, 1, b"LO", 2) + b"no"
        return data[: 144 + length] + element + data[144 + length :]

    table = Dataset()
    table.add_new("LUTDescriptor", "US", [2, 0, 8])
    for name, last in {"a": 1, "b": 1, "c": 2}.items():
        table.add_new("LUTData", "US", [0, last])
        (tmp_path / name).write_bytes(strange(of_one_uid(VOILUTSequence=Sequence([table]))))
    assert sorted(parts_of(tmp_path)) == [["a", "b"], ["c"]]


def test_a_conflict_names_no_text(tmp_path: Path) -> None:
    data = of_one_uid(ImageComments="x").replace(b"1.2.3.00000", b"Smith^Jo.12")
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    conflict = str(*scan(tmp_path)[0].conflicts)
    assert "Smith" not in conflict
    assert conflict.startswith("2 different files have the SOP Instance UID …: ")


def test_encapsulated_copies(tmp_path: Path) -> None:
    frames = noise(2, 8, 8)
    for name, data in {
        "a": encapsulated(frames, RLELossless, **IDS),
        "b": encapsulated(frames, RLELossless, PatientName="Else", **IDS),
        "c": encapsulated(frames[::-1], RLELossless, **IDS),
    }.items():
        (tmp_path / name).write_bytes(data)
    assert parts_of(tmp_path) == [["a", "b"], ["c"]]


def test_without_a_uid_nothing_is_a_copy(tmp_path: Path) -> None:
    data = of_one_uid().replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x19\x00UI")
    for name in "ab":
        (tmp_path / name).write_bytes(data)
    found = scan(tmp_path)
    assert [one.sop_instance_uid for one in found[0].instances] == ["", ""]
    assert found.skipped == ()


def test_one_uid_in_two_series(tmp_path: Path) -> None:
    saved(tmp_path / "a", [1])
    saved(tmp_path / "b", [1], OTHER_SERIES)
    found = scan(tmp_path)
    assert [len(series) for series in found] == [1, 1]
    assert [series.conflicts for series in found] == [(), ()]


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what is read, headers apart."""
    lengths: list[int] = []
    hashed = grouping._hash

    def counting(source: Any, begin: int, end: int) -> bytes:
        lengths.append(end - begin)
        return hashed(source, begin, end)

    monkeypatch.setattr(grouping, "_hash", counting)
    return lengths


def test_pixel_data_is_read_only_where_it_decides(tmp_path: Path, bytes_read: list[int]) -> None:
    (original,) = saved(tmp_path, [1])
    (tmp_path / "link").symlink_to(original)
    os.link(original, tmp_path / "hard link")
    longer = instance(1)
    at = longer.index(b"\xe0\x7f\x10\x00OW") + 8
    longer = longer[:at] + (FRAME.nbytes + 2).to_bytes(4, "little") + longer[at + 4 :] + b"\0\0"
    (tmp_path / "longer").write_bytes(longer)
    moved = of_one_uid(SOPInstanceUID="1.2.3.00001", InstanceNumber=7)
    (tmp_path / "moved").write_bytes(moved)
    saved(tmp_path / "others", [2, 3, 4])
    found = scan(tmp_path)
    assert reasons(found) == dict.fromkeys(
        ("link", "hard link"), f"the same instance as {original}"
    )
    assert len(found[0]) == 6
    assert bytes_read == []
    shutil.copy(original, tmp_path / "copy")
    scan(tmp_path)
    assert set(bytes_read) == {FRAME.nbytes}


def test_a_copy_that_vanishes_is_kept(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(of_one_uid())
    same = describe_files([str(tmp_path / name) for name in "ab"])
    (tmp_path / "b").unlink()
    assert [len(part) for part in grouping._versions(same)] == [1, 1]


def test_one_uid_for_everything(tmp_path: Path) -> None:
    # A writer that never changes the UID must not make this quadratic.
    for number in range(300):
        (tmp_path / f"{number:03}").write_bytes(of_one_uid() + bytes(number % 3))
    found = scan(tmp_path)
    assert len(found[0]) == 1
    assert len(found.skipped) == 299


# Worker processes.

MANY = 450


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More files than are described in this process, a few of them no instances."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(10):
        saved(folder / f"{number}", range(number, MANY, 10), f"1.2.4.{10 + number % 3}")
    (folder / "text").write_bytes(b"no DICOM")
    return folder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are described in two other processes, however few they are."""
    monkeypatch.setattr(listing, "PATIENCE", 0)
    monkeypatch.setattr("dask.system.CPU_COUNT", 2)
    monkeypatch.setattr(processes, "_FEW", 0)


@pytest.fixture(scope="module")
def expected(many: Path) -> list[bytes]:
    """What this process makes of `many`."""
    found = describe_files(sorted(str(path) for path in many.rglob("*") if path.is_file()))
    return sorted(map(pickled, found))


def pickled(one: Any) -> bytes:
    # Without the traces of which strings are the same object.
    return repr(one).encode()


def outcome(found: Scan) -> list[bytes]:
    instances = [one for series in found for one in series.instances]
    return sorted(map(pickled, [*instances, *found.skipped]))


@pytest.mark.usefixtures("impatient")
def test_processes_give_the_same(
    many: Path, expected: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[int, int | None]] = []
    here = threading.get_ident()

    def told(done: int, known: int | None) -> None:
        assert threading.get_ident() == here
        assert workers()
        calls.append((done, known))

    found = scan(many, progress=told)
    assert outcome(found) == expected
    assert found.files == MANY + 1
    assert [len(series) for series in found] == [180, 135, 135]
    done = [call[0] for call in calls]
    assert done == sorted(set(done))
    assert calls[0][1] is None
    assert calls[-1] == (MANY + 1, MANY + 1)
    assert not workers()
    assert capfd.readouterr() == ("", "")
    # What is the same in all files is in memory a few times only.
    one = [one for series in found for one in series.instances]
    assert len({id(instance.study_uid) for instance in one}) <= math.ceil(MANY / 64)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_this_process_describes_as_well(
    count: int, many: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    started, here = [], []

    class Counted(processes._Worker):
        def __init__(self) -> None:
            started.append(self)
            super().__init__()

    def counting(paths: Iterable[str], **how: Any) -> list[Any]:
        here.append(threading.current_thread())
        return describe_files(paths, **how)

    monkeypatch.setattr(processes, "_Worker", Counted)
    monkeypatch.setattr(processes, "describe_files", counting)
    monkeypatch.setattr(processes, "_FEW", 4)
    monkeypatch.setattr(listing, "BATCH", 16)
    monkeypatch.setattr("dask.system.CPU_COUNT", count)
    assert outcome(scan(many)) == expected
    # While the others start there is time enough.
    assert set(here) == {threading.main_thread()}
    assert len(started) == count - 1
    assert not workers()


def test_who_is_quick_starts_no_process(
    many: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PATIENCE", math.inf)
    monkeypatch.setattr(processes, "_Worker", None)
    assert outcome(scan(many)) == expected


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_worker_that_is_killed_loses_nothing(many: Path, expected: list[bytes]) -> None:
    killed = []

    def kill(done: int, known: int | None) -> None:
        # Once only: a file that was being read at two killings would be taken for the cause.
        if not killed:
            killed.extend(workers())
            for worker in killed:
                worker.kill()

    assert outcome(scan(many, progress=kill)) == expected
    assert killed
    assert not workers()


def with_a_worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let workers run `code` before they begin."""
    before, begin = processes.PROGRAM.split("from dcmdask", 1)
    program = before + "exec(" + repr(textwrap.dedent(code)) + "); from dcmdask" + begin
    monkeypatch.setattr(processes, "PROGRAM", program)


DEADLY = """
import os, dcmdask.dicom.description as facts
describe = facts.describe
def deadly(source, options, **how):
    if os.path.basename(source.name) in ("33", "300"):
        os.abort() if source.name.endswith("00") else os._exit(7)
    return describe(source, options, **how)
facts.describe = deadly
"""


@pytest.mark.usefixtures("impatient")
def test_a_file_that_ends_its_process_is_skipped(
    many: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_worker(monkeypatch, DEADLY)
    found = scan(many)
    told = reasons(found)
    assert told.pop("300") == "reading it ended the process (Aborted)"
    assert told.pop("33") == "reading it ended the process (exit code 7)"
    assert len(outcome(found)) == len(expected) == len({*expected} & {*outcome(found)}) + 2
    assert not workers()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import os; os.abort()"])
def test_workers_that_do_not_start(
    code: str, many: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_worker(monkeypatch, code)
    assert outcome(scan(many)) == expected
    assert not workers()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("executable", ["", None, os.devnull])
def test_a_program_without_an_interpreter(
    executable: str | None, many: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert outcome(scan(many)) == expected


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whoever_interrupts_leaves_no_process(many: Path, error: type[BaseException]) -> None:
    def interrupt(done: int, known: int | None) -> None:
        assert workers()
        raise error

    with pytest.raises(error):
        scan(many, progress=interrupt)
    assert not workers()
    assert not [thread for thread in threading.enumerate() if "dcmdask-scan" in thread.name]


SCRIPT = """
import sys
import dcmdask.archive.listing, dcmdask.archive.scan
print("no guard around what follows")
dcmdask.archive.listing.PATIENCE = 0
dcmdask.archive.processes._FEW = 0
print(dcmdask.archive.scan.scan(sys.argv[1], progress={progress}))
"""


def script(folder: Path, progress: str = "None") -> Path:
    path = folder / "script" / "run.py"
    path.parent.mkdir()
    path.write_text(SCRIPT.format(progress=progress))
    return path


@pytest.mark.parametrize("safe", ["", "1"])
def test_a_script_without_a_guard_in_a_hostile_folder(
    safe: str, many: Path, tmp_path: Path
) -> None:
    where = tmp_path / "working directory"
    where.mkdir()
    for name in ("numpy", "pydicom", "pickle", "dcmdask"):
        (where / f"{name}.py").write_text("raise SystemExit('imported from here')")
    # Whatever runs at the start of an interpreter may print.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("print('hello'); print('no end of line', end='')")
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONWARNINGS": "always"}
    environment.pop("PYTHONSAFEPATH", None)
    if safe:
        environment["PYTHONSAFEPATH"] = safe
    done = subprocess.run(
        [sys.executable, script(tmp_path), many],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    begin = "hello\nno end of lineno guard around what follows\n"
    assert done.stdout == begin + (
        f"<Scan: 3 series, {MANY} instances of {MANY + 1} files, 1 skipped>\n"
    )
    assert done.stderr == ""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_processes_end_with_their_parent(name: str, many: Path, tmp_path: Path) -> None:
    # Its children are told by the progress, which then waits for the signal.
    progress = (
        "lambda done, known: print(*[child.pid for child in "
        "__import__('psutil').Process().children()], flush=True) or __import__('time').sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, script(tmp_path, progress), many],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert children
        parent.send_signal(getattr(signal, name))
        for _ in range(600):
            if not any(map(is_running, children)):
                break
            time.sleep(0.1)
        else:
            pytest.fail("a process goes on without its parent")
        parent.kill()


def is_running(process: psutil.Process) -> bool:
    """Whether it is; one that has ended may wait for its new parent to take note of it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Warnings.


def test_other_threads_keep_their_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, [1, 2])
    really = descriptions.describe

    def warning(source: Any, options: Any, **how: Any) -> Any:
        warnings.warn("of a header", UserWarning, stacklevel=1)
        other = threading.Thread(target=warnings.warn, args=("of another thread",))
        other.start()
        other.join()
        return really(source, options, **how)

    monkeypatch.setattr(descriptions, "describe", warning)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = scan(
            tmp_path, progress=lambda done, known: warnings.warn("of the caller", stacklevel=1)
        )
        warnings.warn("afterwards", UserWarning, stacklevel=1)
    assert found.files == len(found[0]) == 2
    assert {str(one.message) for one in told} == {
        "of another thread",
        "of the caller",
        "afterwards",
    }
    with descriptions.quiet():
        with descriptions.quiet():
            pass
        warnings.warn("still nothing", UserWarning, stacklevel=1)


# The table.


def test_the_table(tmp_path: Path) -> None:
    saved(tmp_path, range(3))
    (tmp_path / "odd").write_bytes(
        native(
            noise(2, 8, 8, 3),
            ImplicitVRLittleEndian,
            **{**IDS, "SeriesInstanceUID": OTHER_SERIES},
        )
    )
    (tmp_path / "float").write_bytes(
        native(noise(1, 5, 5, dtype="f4"), SOPInstanceUID="1.2.3.7", SeriesInstanceUID="1.2.4.12")
    )
    found = scan(tmp_path)
    float_row, first, second = found.rows()
    assert float_row["dtype"] == "float32"
    assert float_row["study_uid"] is None
    assert {key: first[key] for key in list(first)[:13]} == {
        "number": 1,
        "series_uid": SERIES,
        "study_uid": STUDY,
        "modality": "MR",
        "description": "",
        "folder": str(tmp_path),
        "instances": 3,
        "frames": 3,
        "rows": 4,
        "columns": 6,
        "samples": 1,
        "dtype": "uint16",
        "transfer_syntaxes": [str(ExplicitVRLittleEndian)],
    }
    assert first["stacks"] == 1
    assert first["dims"] == ["frame", "y", "x"]
    assert first["shape"] == [3, 4, 6]
    assert (second["frames"], second["samples"], second["dtype"]) == (2, 3, "uint8")
    assert json.loads(json.dumps(found.rows())) == found.rows()


def test_series_of_different_instances(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(instance(1))
    (tmp_path / "2").write_bytes(
        native(
            noise(1, 8, 8, dtype="i2"),
            UID("1.2.840.10008.1.2.2"),
            **{**IDS, "SOPInstanceUID": "1.2.3.2"},
        )
    )
    (row,) = scan(tmp_path).rows()
    assert (row["rows"], row["columns"], row["dtype"], row["modality"]) == (None,) * 4
    assert row["transfer_syntaxes"] == ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"]
    assert (row["stacks"], row["dims"], row["shape"], row["spacing"]) == (2, None, None, None)


def test_a_data_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    saved(tmp_path, [1])
    saved(tmp_path, [2], OTHER_SERIES)
    found = scan(tmp_path)
    frame = found.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.series_uid) == [SERIES, OTHER_SERIES]
    assert list(frame.columns) == list(found.rows()[0])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'dcmdask\[table\]'"):
        found.to_frame()


def test_a_scan_survives_pickling(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2])
    (tmp_path / "text").write_bytes(b"no DICOM")
    found = scan(tmp_path)
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again, Scan)
    assert repr(again) == repr(found)
    assert again.rows() == found.rows()
    assert again.skipped == found.skipped
    assert outcome(again) == outcome(found)
    assert again.skipped[0].reason == "not a DICOM file"


@pytest.fixture(scope="module")
def canaries() -> bytes:
    """A file with a canary in every text element of the dictionary, nested as well."""
    dataset = described(FRAME, PatientName=None, SOPClassUID=None, SOPInstanceUID=None)
    with disable_value_validation():
        dataset.SharedFunctionalGroupsSequence = [fill(Dataset(), uids=True)]
        data = file_of(fill(dataset, uids=True), FRAME)
    assert data.count(CANARY.encode()) > 1000
    return data


def test_nothing_personal_in_the_table(canaries: bytes, tmp_path: Path) -> None:
    (tmp_path / CANARY).write_bytes(canaries)
    found = scan(tmp_path)
    assert len(found) == 1, found.skipped
    # But for what is shown to whoever scans.
    table = found.to_frame().drop(columns=["description", "folder"])
    for told in (table.to_json(), repr(found), table.to_string()):
        assert traces(told) == []


@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        ("PhotometricInterpretation", "(0028,0004) 'Photometric Interpretation' is none of PS3.3"),
        ("NumberOfFrames", "(0028,0008) 'Number of Frames' is not a number"),
        ("TransferSyntaxUID", "the transfer syntax is no UID"),
    ],
)
def test_a_reason_has_no_values(keyword: str, words: str, tmp_path: Path) -> None:
    data = native(FRAME, PhotometricInterpretation="MONOCHROME2 ", NumberOfFrames=b"1" * 12)
    value = {
        "PhotometricInterpretation": b"MONOCHROME2 ",
        "NumberOfFrames": b"1" * 12,
        "TransferSyntaxUID": b"1.2.840.10008.1.2.1\0",
    }[keyword]
    assert data.count(value) == 1
    canary = b"CANARY'\"O\x1b[1m"[: len(value)]
    (tmp_path / "a").write_bytes(data.replace(value, canary.ljust(len(value))))
    ((_, reason, _, _),) = scan(tmp_path).skipped
    assert reason.startswith(words)
    assert "CANARY" not in reason
    assert reason.isprintable()


@given(data=st.data())
@settings(max_examples=150)
def test_nothing_personal_in_a_reason(
    data: st.DataObject, canaries: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(canaries)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(132, len(damaged) - 1) | st.integers(132, 2000))
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    found = scan(path)
    assert all(found)
    for one in found.skipped:
        assert "CANA" not in one.reason


# Real files.


def test_the_corpus(corpus: Path) -> None:
    found = scan(corpus)
    listed = {str(path) for path in corpus_files()}
    kept, left = set(names(found)), {one.path for one in found.skipped}
    assert len(kept) + len(left) == found.files
    assert not kept & left
    assert listed <= kept | left
    assert Counter(one.reason for one in found.skipped)["not a DICOM file"] >= 20
    assert not [one for one in found.skipped if "cannot be described" in one.reason]
    # Every file that has pixels is there, but for copies and damaged ones.
    assert len(kept) > 0.8 * len(listed)
    assert sum(len(series) for series in found) == len(kept)
    rows = found.rows()
    assert len(rows) == len(found) > 50
    assert all(row["stacks"] >= 1 and row["frames"] >= row["instances"] for row in rows)
    assert json.dumps(rows)
    assert all(row.pop("folder").startswith(str(corpus)) for row in rows)
    assert str(corpus) not in json.dumps(rows)


def test_packaged_files_are_what_they_are_one_by_one() -> None:
    paths = [str(path) for path in packaged_files()]
    found = scan(paths)
    assert found.files == len(paths)
    single: Iterator[Any] = (describe_files([path])[0] for path in paths)
    described = {one.source.name: repr(one) for one in single if not isinstance(one, Skipped)}
    assert set(names(found)) <= set(described)
    for series in found:
        for one in series.instances:
            assert repr(one) == described[one.source.name]
            np.testing.assert_array_equal(one.facts.shape, (len(one),))
