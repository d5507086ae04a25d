"""Catalogs: what a scan found, kept, brought up to date, and read without a header."""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import made_series
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
import s3_here
import xarray as xr
from make_dicom import encapsulated, native, noise, saved
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit
from real_files import corpus_root
from servers import nginx

import dcmdask
from dcmdask.archive import listing
from dcmdask.archive.catalog import build_catalog as building
from dcmdask.archive.catalog import parts, series_table
from dcmdask.archive.catalog.catalog import Changes
from dcmdask.archive.catalog.rows import SCHEMA
from dcmdask.errors import CatalogError, SourceChangedError, StoreExistsError
from dcmdask.sources import files
from dcmdask.sources.folder import Folder
from dcmdask.store.scheduler import cluster

UIDS = [f"{made_series.SERIES}.{number}" for number in range(3)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three series of four planes, a file that is not DICOM, and one that is cut."""
    root = tmp_path / "archive"
    for number, uid in enumerate(UIDS):
        made(root / f"series {number}", uid, seed=number)
    (root / "notes.txt").write_text("not DICOM")
    data = next((root / "series 0").iterdir()).read_bytes()
    (root / "series 0" / "cut.dcm").write_bytes(data[: len(data) // 2])
    return root


def made(folder: Path, uid: str, *, count: int = 4, seed: int = 0) -> list[Path]:
    frames = noise(count, 16, 12, dtype="<i2", seed=seed)
    positions = made_series.along(made_series.AXIAL, np.arange(count) * 2.5)
    return made_series.classic(folder, frames, positions, series=uid)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "archive.catalog"


def same(one: dcmdask.Scan, other: dcmdask.Scan) -> None:
    """Both have the same series, files and reasons."""
    assert one.rows() == other.rows()
    assert one.skipped == other.skipped and one.doubtful == other.doubtful
    assert one.files == other.files
    for ours, theirs in zip(one, other, strict=True):
        assert ours.instances == theirs.instances
        assert ours.left_out == theirs.left_out


def instances_below(root: Path) -> list[Path]:
    others = ("notes.txt", "cut.dcm")
    return [one for one in root.rglob("*") if one.is_file() and one.name not in others]


def without_headers(root: Path) -> None:
    """Overwrite the first bytes of each file, which has the size and the time that it had."""
    for path in instances_below(root):
        status = path.stat()
        with open(path, "r+b") as file:
            file.write(b"\xff" * 512)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_parity_with_a_scan_of_real_files(target: Path) -> None:
    root = corpus_root() or Path(get_testdata_file("CT_small.dcm")).parent
    plain = dcmdask.scan(root)
    dcmdask.build_catalog(root, target)
    catalog = dcmdask.open_catalog(target)
    same_but_names(plain, catalog)
    assert catalog.changes is None and catalog.name == str(root)
    again = dcmdask.build_catalog(root, target)
    assert again.changes == Changes(0, 0, 0, plain.files)
    compared = 0
    for ours, theirs in zip(plain, catalog, strict=True):
        assert [len(one.stacks) for one in (ours, theirs)] == [len(ours.stacks)] * 2
        for left, right in zip(ours.stacks, theirs.stacks, strict=True):
            compared += compare(left, right)
    assert compared > 50


def same_but_names(plain: dcmdask.Scan, catalog: dcmdask.Scan) -> None:
    assert plain.rows() == catalog.rows()
    assert plain.skipped == catalog.skipped
    for ours, theirs in zip(plain, catalog, strict=True):
        # As text, in which NaN is equal to itself.
        assert repr(ours.instances) == repr(theirs.instances)
        assert ours.left_out == theirs.left_out
        assert len(ours.conflicts) == len(theirs.conflicts)


def compare(left: dcmdask.Stack, right: dcmdask.Stack) -> bool:
    """Both give the same array, or the same error."""
    results: list[Any] = []
    said: list[list[str]] = []
    for one in (left, right):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = one.to_xarray(on_irregular="keep")
                results.append((found, found[(0,) * max(0, found.ndim - 3)].values))
            except dcmdask.DcmdaskError as error:
                results.append(error)
        ours = (one for one in caught if issubclass(one.category, dcmdask.DcmdaskWarning))
        said.append(sorted(str(one.message) for one in ours))
    assert said[0] == said[1]
    if isinstance(results[0], Exception):
        assert type(results[0]) is type(results[1])
        return False
    (found, values), (other, others) = results
    assert found.dtype == other.dtype and found.dims == other.dims
    xr.testing.assert_identical(found.coords.to_dataset(), other.coords.to_dataset())
    assert repr(found.attrs) == repr(other.attrs)
    np.testing.assert_array_equal(values, others)
    return True


def test_no_header_is_read_again(archive: Path, target: Path) -> None:
    (archive / "series 0" / "cut.dcm").unlink()
    expected = [one.to_xarray().compute() for one in dcmdask.scan(archive)]
    dcmdask.build_catalog(archive, target)
    without_headers(archive)
    catalog = dcmdask.open_catalog(target)
    for one, values in zip(catalog, expected, strict=True):
        xr.testing.assert_identical(one.to_xarray().compute(), values)
    # The headers are gone indeed.
    assert not len(dcmdask.scan(archive))
    # With options of its own the header counts.
    with pytest.raises(dcmdask.NotDicomError):
        catalog[1].to_dask(photometric_interpretation="MONOCHROME1").compute()


def test_a_scan_of_a_catalog_is_the_catalog(archive: Path, target: Path) -> None:
    dcmdask.build_catalog(archive, target)
    without_headers(archive)
    found = dcmdask.scan(target)
    assert isinstance(found, dcmdask.Catalog)
    chosen = found.select(SeriesInstanceUID=UIDS[1])
    assert len(chosen) == 1 and chosen[0].uid == UIDS[1] and len(chosen[UIDS[1]]) == 4
    assert chosen.rows()[0]["number"] == 0
    assert [one.uid for one in found.select("frames > 3 and Modality == 'CT'")] == UIDS
    assert len(found.select(Modality="MR")) == 0
    assert repr(found) == "<Catalog: 3 series, 12 instances of 14 files, 2 skipped>"
    assert "3 series" in found._repr_html_()
    frame = found.to_frame()
    assert frame.shape == (3, 22) and list(frame.series_uid) == UIDS
    with pytest.raises(ValueError, match="chosen already"):
        dcmdask.scan(target, exclude="*.txt")
    with pytest.raises(CatalogError, match="decoding options"):
        dcmdask.scan(target, rows=12)


def test_what_is_new_changed_and_gone(archive: Path, target: Path) -> None:
    assert dcmdask.build_catalog(archive, target).changes == Changes(14, 0, 0, 0)
    assert dcmdask.build_catalog(archive, target).changes == Changes(0, 0, 0, 14)
    before = {one.name: one.read_bytes() for one in target.rglob("*") if one.is_file()}
    assert dcmdask.build_catalog(archive, target).changes == Changes(0, 0, 0, 14)
    # Nothing was written.
    assert before == {one.name: one.read_bytes() for one in target.rglob("*") if one.is_file()}
    made(archive / "later", f"{made_series.SERIES}.9")
    gone, changed, *_ = sorted((archive / "series 1").iterdir())
    gone.unlink()
    os.utime(changed, ns=(0, 0))
    (archive / "notes.txt").write_text("other text")
    found = dcmdask.build_catalog(archive, target)
    assert found.changes == Changes(4, 2, 1, 11)
    same(found, dcmdask.scan(archive))
    assert [len(one) for one in found] == [4, 3, 4, 4]
    # What was replaced is not left behind.
    for kind in ("instances", "skipped", "series"):
        listed = json.loads((target / "catalog.json").read_bytes())["dcmdask"][kind]
        assert sorted(listed) == sorted(os.listdir(target / kind))
    shutil.rmtree(archive / "series 0")
    found = dcmdask.build_catalog(archive, target)
    assert found.changes is not None and found.changes.gone == 5
    same(found, dcmdask.scan(archive))


def test_a_damaged_file_is_looked_at_again(archive: Path, target: Path) -> None:
    """What may pass is tried at each scan, and written down where it has changed."""
    assert len(dcmdask.build_catalog(archive, target).doubtful) == 1
    whole = next(one for one in (archive / "series 0").iterdir() if one.name != "cut.dcm")
    status = (archive / "series 0" / "cut.dcm").stat()
    data = whole.read_bytes()
    (archive / "series 0" / "cut.dcm").write_bytes(data)
    os.utime(archive / "series 0" / "cut.dcm", ns=(status.st_atime_ns, status.st_mtime_ns))
    found = dcmdask.build_catalog(archive, target)
    assert not found.doubtful and [one.kind for one in found.skipped] == ["not DICOM", "copy"]
    same(found, dcmdask.scan(archive))


def test_what_another_version_left_out_is_looked_at_again(
    archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dcmdask.build_catalog(archive, target)
    assert before.skipped
    monkeypatch.setattr(building, "__version__", "99")
    found = dcmdask.build_catalog(archive, target)
    assert found.changes == Changes(2, 0, 0, 12)
    same(found, before)


def test_a_file_that_could_not_be_read_is_tried_again(
    archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = files.locate

    def failing(src: Any, *how: Any) -> Any:
        if str(src).endswith("cut.dcm"):
            raise OSError(5, "Input/output error", src)
        return located(src, *how)

    monkeypatch.setattr(files, "locate", failing)
    found = dcmdask.build_catalog(archive, target)
    assert [one.code for one in found.doubtful] == ["unreadable"]
    monkeypatch.undo()
    found = dcmdask.build_catalog(archive, target)
    assert [one.code for one in found.doubtful] != ["unreadable"]
    same(found, dcmdask.scan(archive))


def test_an_open_catalog_that_is_brought_up_to_date(archive: Path, target: Path) -> None:
    """A job that takes hours goes on."""
    found = dcmdask.build_catalog(archive, target)
    made(archive / "later", f"{made_series.SERIES}.00")
    min((archive / "series 1").iterdir()).unlink()
    shutil.rmtree(archive / "series 2")
    dcmdask.build_catalog(archive, target)
    assert [len(found[number]) for number in (0, 1)] == [4, 3]
    assert found[1].uid == UIDS[1]
    with pytest.raises(CatalogError, match="open it again"):
        _ = found[2]


def test_a_moved_archive(archive: Path, target: Path) -> None:
    dcmdask.build_catalog(archive, target)
    moved = archive.with_name("moved")
    archive.rename(moved)
    found = dcmdask.open_catalog(target, root=moved)
    same(found, dcmdask.scan(moved))
    assert found[1].to_dask().compute().shape == (4, 16, 12)
    same(dcmdask.open_catalog(target, root=f"file://{moved}"), found)
    with pytest.raises(FileNotFoundError):
        dcmdask.open_catalog(target)[1].to_dask().compute()
    # To scan it writes its root down, and reads nothing.
    without_headers(moved)
    assert dcmdask.build_catalog(moved, target).changes == Changes(0, 0, 0, 14)
    assert dcmdask.open_catalog(target).name == str(moved)


def test_another_archive_is_refused(archive: Path, target: Path, tmp_path: Path) -> None:
    before = dcmdask.build_catalog(archive, target).rows()
    for other in ("empty", "other"):
        (tmp_path / other).mkdir()
    made(tmp_path / "other", f"{made_series.SERIES}.7")
    for other, text in (("empty", "nothing is"), ("other", "4 other files are")):
        with pytest.raises(StoreExistsError, match=f"none of the 14 files.*{text}"):
            dcmdask.build_catalog(tmp_path / other, target)
        assert dcmdask.open_catalog(target).rows() == before


def test_a_folder_that_cannot_be_read_keeps_its_files(
    archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dcmdask.build_catalog(archive, target)
    listed = os.scandir

    def refusing(path: Any = ".") -> Any:
        if str(path).endswith("series 1"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = dcmdask.build_catalog(archive, target)
    assert found.changes is not None and found.changes.gone == 0
    assert [len(one) for one in found] == [4, 4, 4] and len(found.doubtful) == 2
    monkeypatch.undo()
    same(dcmdask.build_catalog(archive, target), dcmdask.scan(archive))


def test_a_catalog_in_its_archive(archive: Path) -> None:
    dcmdask.build_catalog(archive, archive / "kept")
    found = dcmdask.build_catalog(archive, archive / "kept")
    assert len(found) == 3 and found.changes is not None and found.changes.new == 0
    assert [one.code for one in found.skipped if one.path.endswith("kept")] == ["written"]
    assert len(dcmdask.scan(archive)) == 3


def test_an_archive_that_is_empty_at_first(tmp_path: Path) -> None:
    assert not dcmdask.build_catalog(tmp_path, tmp_path / "kept")
    made(tmp_path / "series", UIDS[0])
    same(dcmdask.build_catalog(tmp_path, tmp_path / "kept"), dcmdask.scan(tmp_path))


def test_a_catalog_that_holds_its_archive(tmp_path: Path) -> None:
    """A scan leaves catalogs out, and the archive with it."""
    made(tmp_path / "archive" / "series", UIDS[0])
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for source, target in (("empty", "empty"), ("empty", "link"), ("archive/series", "archive")):
        with pytest.raises(ValueError, match="is or holds"):
            dcmdask.build_catalog(tmp_path / source, tmp_path / target)


def test_files_beside_the_only_series(tmp_path: Path, target: Path) -> None:
    root = tmp_path / "archive"
    data = made(root / "a", UIDS[0])[0].read_bytes()
    for name in ("a", "a-b", "b"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "cut").write_bytes(data[:400])
    found = dcmdask.build_catalog(root, target)
    same(found, dcmdask.scan(root))
    assert len(found[0].left_out) == 3


def test_instances_of_different_sizes(tmp_path: Path, target: Path) -> None:
    """The first counts, by its name, for every way to select."""
    root = tmp_path / "archive"
    for number, size in enumerate((8, 12)):
        frames = noise(1, size, 16, dtype="<i2")
        folder = root / str(number)
        (path,) = made_series.classic(folder, frames, [(0.0, 0.0, 0.0)], series=UIDS[0])
        ds = pydicom.dcmread(path)
        ds.SOPInstanceUID += f".{number}"
        ds.PatientID = f"id {number}"
        ds.save_as(path)
    plain = dcmdask.scan(root)
    assert plain.rows()[0]["rows"] is None
    # Parts have random names.
    for walk in range(3):
        found = dcmdask.build_catalog(root, target.with_suffix(f".{walk}"), identifiers=True)
        for how in ({"Rows": 8}, {"Rows": 12}, {"PatientID": "id 0"}, {"PatientID": "id 1"}):
            assert len(found.select(**how)) == len(plain.select(**how)), how


def test_options_of_numpy(archive: Path, target: Path) -> None:
    dcmdask.build_catalog(archive, target, rows=np.int64(16))
    assert dcmdask.build_catalog(archive, target, rows=16).changes == Changes(0, 0, 0, 14)


def test_names_in_a_file_system_whose_paths_begin_with_a_slash(archive: Path, target: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in archive.rglob("*"):
        if path.is_file():
            memory.pipe(f"/there/{path.relative_to(archive)}", path.read_bytes())
    dcmdask.build_catalog("memory://there", target)
    found = dcmdask.open_catalog(target)
    same(found, dcmdask.scan("memory://there"))
    assert found[1].to_dask().compute().shape == (4, 16, 12)


def test_sources_and_targets_that_are_none(archive: Path, target: Path, tmp_path: Path) -> None:
    file = next((archive / "series 0").iterdir())
    with pytest.raises(NotADirectoryError):
        dcmdask.build_catalog(file, target)
    with pytest.raises(FileNotFoundError):
        dcmdask.build_catalog(tmp_path / "nowhere", target)
    with pytest.raises(TypeError, match="one folder"):
        dcmdask.build_catalog([archive], target)
    with pytest.raises(ValueError, match="unpack it"):
        dcmdask.build_catalog(f"zip://**::{tmp_path}/a.zip", target)
    with pytest.raises(StoreExistsError, match="is no catalog"):
        dcmdask.build_catalog(archive, archive / "series 0")
    with pytest.raises(FileNotFoundError, match="is no catalog"):
        dcmdask.open_catalog(archive)
    dcmdask.build_catalog(archive, target)
    with pytest.raises(CatalogError, match="decoding options"):
        dcmdask.build_catalog(archive, target, rows=12)


def test_decoding_options_are_kept(archive: Path, target: Path) -> None:
    dcmdask.build_catalog(archive, target, photometric_interpretation="MONOCHROME1")
    plain = dcmdask.scan(archive, photometric_interpretation="MONOCHROME1")
    found = dcmdask.open_catalog(target)
    same(found, plain)
    np.testing.assert_array_equal(
        found[1].to_dask("display").compute(), plain[1].to_dask("display").compute()
    )


def test_odd_names(tmp_path: Path, target: Path) -> None:
    root = tmp_path / "a b%20 [x] # é 'q' \"r\" 日本"
    paths = made(root / "+?*&=;", UIDS[0])
    odd = os.fsdecode(os.fsencode(paths[0].parent) + b"/\xff\xfe.dcm")
    paths[0].rename(odd)
    found = dcmdask.build_catalog(root, target)
    assert len(found[0]) == 3
    assert [one.code for one in found.doubtful] == ["name"]
    assert found.doubtful[0].path.endswith("/\\udcff\\udcfe.dcm")
    # Neither it nor other files with such names are taken for new ones.
    with open(os.fsencode(odd) + b".txt", "wb") as file:
        file.write(b"not DICOM")
    assert dcmdask.build_catalog(root, target).changes == Changes(1, 0, 0, 4)
    assert dcmdask.build_catalog(root, target).changes == Changes(0, 0, 0, 5)
    with pytest.warns(match="left out"):
        assert found[0].to_dask().compute().shape == (3, 16, 12)


# Interruptions

KILLED = """
import os, sys
from dcmdask.archive import listing
from dcmdask.archive.catalog import build_catalog
from dcmdask.sources.folder import Folder
from dcmdask.store.scheduler import cluster
build_catalog._ROWS, listing.BATCH = 3, 2
root, target, at, after = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "after"
count, write, remove = 0, Folder.write, Folder.remove
def killing(self, *given, call=None):
    global count
    count += 1
    if count == at and not after:
        os._exit(9)
    call(self, *given)
    if count == at:
        os._exit(9)
Folder.write = lambda self, *given: killing(self, *given, call=write)
Folder.remove = lambda self, *given: killing(self, *given, call=remove)
build_catalog.build_catalog(root, target)
"""


def killed(root: Path, target: Path, at: int, when: str) -> bool:
    """Run a scan that dies at one of its writes; return whether it did."""
    done = subprocess.run([sys.executable, "-c", KILLED, root, target, str(at), when], check=False)
    assert done.returncode in (0, 9)
    return done.returncode == 9


def test_a_scan_that_dies_at_any_write_goes_on(archive: Path, target: Path, tmp_path: Path) -> None:
    plain = dcmdask.scan(archive)
    at = 0
    while True:
        at += 1
        shutil.rmtree(target, ignore_errors=True)
        when = ("before", "after")[at % 2]
        if not killed(archive, target, at, when):
            break
        try:
            there = dcmdask.open_catalog(target)
        except (CatalogError, FileNotFoundError) as error:
            assert isinstance(error, FileNotFoundError) or error.code.endswith(
                "/catalog-unfinished"
            )
        else:
            same(there, plain)
        kept = sum(len(pq.read_table(one)) for one in target.glob("instances/*.parquet"))
        found = dcmdask.build_catalog(archive, target)
        assert found.changes is not None and found.changes.known >= kept
        same(found, plain)
        names = json.loads((target / "catalog.json").read_bytes())["dcmdask"]["instances"]
        assert sorted(names) == sorted(os.listdir(target / "instances"))
    assert at > 8


def test_a_file_of_an_interrupted_scan_that_is_gone(
    archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rows that it has left are new to their series, too."""
    dcmdask.build_catalog(archive, target)
    for number in range(2):
        fresh = made(archive / f"later {number}", UIDS[number], count=5, seed=7)

    def dying(self: Any, *given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building._Scan, "committed", dying)
    with pytest.raises(KeyboardInterrupt):
        dcmdask.build_catalog(archive, target)
    monkeypatch.undo()
    fresh[4].unlink()
    same(dcmdask.build_catalog(archive, target), dcmdask.scan(archive))


def test_a_part_that_is_gone_is_read_again(archive: Path, target: Path) -> None:
    before = dcmdask.build_catalog(archive, target)
    for part in target.glob("instances/*.parquet"):
        part.unlink()
    found = dcmdask.build_catalog(archive, target)
    assert found.changes == Changes(12, 0, 0, 2)
    same(found, before)


def test_an_update_that_dies_leaves_what_was(archive: Path, target: Path, tmp_path: Path) -> None:
    before = dcmdask.build_catalog(archive, target)
    shutil.copytree(target, tmp_path / "kept")
    made(archive / "later", f"{made_series.SERIES}.9")
    gone, changed, *_ = sorted((archive / "series 1").iterdir())
    gone.unlink()
    os.utime(changed, ns=(0, 0))
    plain = dcmdask.scan(archive)
    at = 0
    while True:
        at += 1
        shutil.rmtree(target)
        shutil.copytree(tmp_path / "kept", target)
        if not killed(archive, target, at, ("after", "before")[at % 2]):
            break
        there = dcmdask.open_catalog(target).rows()
        assert there in (before.rows(), plain.rows())
        same(dcmdask.build_catalog(archive, target), plain)
    assert at > 6


def test_a_disk_that_is_full(archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file that could not be written, and the next scan goes on."""
    before = dcmdask.build_catalog(archive, target)
    made(archive / "later", f"{made_series.SERIES}.9")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left.*{target}/instances/part-"):
        dcmdask.build_catalog(archive, target)
    monkeypatch.undo()
    same(dcmdask.open_catalog(target), before)
    assert not list(target.rglob("*.partial"))
    same(dcmdask.build_catalog(archive, target), dcmdask.scan(archive))


def test_one_scan_at_a_time(archive: Path, target: Path) -> None:
    with Folder.of(target).lease("catalog.json") as held:
        assert held
        with pytest.raises(StoreExistsError, match="another process") as raised:
            dcmdask.build_catalog(archive, target)
        assert raised.value.code.endswith("/catalog-busy")
    assert len(dcmdask.build_catalog(archive, target)) == 3


def test_workers_of_a_cluster(archive: Path, target: Path) -> None:
    with cluster(None, 1) as client:
        found = dcmdask.build_catalog(archive, target, client=client)
    same(found, dcmdask.scan(archive))
    found[1].to_dask().compute()


# Hostile catalogs


def changed_rows(target: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write the part of instances again, otherwise."""
    (part,) = target.glob("instances/*.parquet")
    pq.write_table(change(pq.read_table(part)), part)


def put(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = SCHEMA.get_field_index(name)
    return table.set_column(at, SCHEMA.field(at), pa.array(values, SCHEMA.field(at).type))


def each(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: put(table, name, [value] * len(table))


TILING = json.dumps(
    {
        **{"frames": 9, "tile": [8, 8], "matrix": [24, 24], "first": 0, "concatenation": ""},
        **{"pyramid": "", "paths": [], "absent": [], "fault": "", "notes": []},
    }
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (each("path", "../../etc/passwd"), "leads out of the root"),
        (each("path", "/etc/passwd"), "leads out of the root"),
        (each("first", 2**40), "of .* is no part|frames from byte"),
        (each("first", -1), "frames from byte"),
        (each("native_frames", 2**40), "frames from byte"),
        (each("Rows", 70000), "Rows"),
        (each("frames", 7), "7 frames"),
        (each("facts", []), "0"),
        (each("indexed_by", None), None),
        (each("tiling", "{}"), "KeyError"),
        (each("tiling", "[" * 100_000), "RecursionError|JSON|Expecting"),
        (each("mosaic", "[1]"), "ValueError"),
        (each("mosaic", "[-1, [], [], [], true]"), "a mosaic of -1"),
        (each("mosaic", "[4, [1, 2], [], [], true]"), "a mosaic of 4"),
        (each("own", [{"tag": 0x00620002, "vr": "SQ", "value": None}]), "an element that is"),
        (each("tiling", TILING), "9 tiles behind 0 others, without a plane"),
        (each("facts", [{"position": [0.0] * size} for size in (2, 4, 3, 3)]), "other than 3"),
        (each("facts", [None]), "absent"),
        (each("places", [{"plane": 0, "top": None, "left": 0}]), "absent"),
        (each("lengths", [300]), "frame index that is none of"),
        (each("native_unit", 0), "words of 0 bytes"),
        (lambda table: table.drop_columns(["path"]), "columns.*path"),
        (lambda table: table.append_column("more", [[1] * len(table)]), "columns.*more"),
        (lambda table: table.slice(0, 5), "instances, and"),
        (each("SeriesInstanceUID", "1" * 10_000_000), "instances, and 0"),
    ],
)
def test_a_hostile_part(
    change: Callable[[pa.Table], pa.Table], text: str | None, archive: Path, target: Path
) -> None:
    dcmdask.build_catalog(archive, target)
    changed_rows(target, change)
    found = dcmdask.open_catalog(target)
    if text is None:
        assert len(found[1]) == 4
        return
    with pytest.raises(CatalogError, match=text) as raised:
        _ = found[1]
    assert str(target) in str(raised.value)


def test_a_row_group_that_would_fill_the_memory(
    archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few bytes of Parquet may stand for gigabytes."""
    found = dcmdask.build_catalog(archive, target)
    changed_rows(target, each("index_values", [0] * 100_000))
    monkeypatch.setattr(parts, "_MOST_VALUES", 1_000_000)
    with pytest.raises(CatalogError, match=r"damaged.*a row group of 1\d{6} values"):
        _ = found[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("instances", None),
        ("notes", [None]),
        ("key", ["", UIDS[0], ""]),
        ("shape", [4, 16]),
        ("copies", [{"path": "a", "original": None}]),
        ("places", []),
        ("places", [{"part": "../../other.parquet", "groups": [0]}]),
        ("places", [{"part": None, "groups": None}]),
    ],
)
def test_a_hostile_series(name: str, value: Any, archive: Path, target: Path) -> None:
    dcmdask.build_catalog(archive, target)
    (part,) = target.glob("series/*.parquet")
    table = pq.read_table(part)
    field = table.schema.field(name)
    at = table.schema.get_field_index(name)
    column = pa.array([value] * len(table), field.type)
    pq.write_table(table.set_column(at, field, column), part)
    with pytest.raises(CatalogError, match="is damaged"):
        dcmdask.open_catalog(target)
    # To bring it up to date reads it, too.
    made(archive / "later", f"{made_series.SERIES}.9")
    with pytest.raises(CatalogError, match="is damaged"):
        dcmdask.build_catalog(archive, target)


@pytest.mark.parametrize("kind", ["instances", "series", "skipped"])
@pytest.mark.parametrize("left", [0, 3, 1000, -1])
def test_a_part_that_is_cut(kind: str, left: int, archive: Path, target: Path) -> None:
    dcmdask.build_catalog(archive, target)
    (part,) = target.glob(f"{kind}/*.parquet")
    part.write_bytes(part.read_bytes()[:left])
    with pytest.raises(CatalogError, match="damaged") as raised:
        found = dcmdask.open_catalog(target)
        _ = found[0], found.skipped
    assert raised.value.source == str(part)
    part.unlink()
    with pytest.raises(CatalogError, match="not there"):
        found = dcmdask.open_catalog(target)
        _ = found[0], found.skipped
    # As the message says.
    same(dcmdask.build_catalog(archive, target), dcmdask.scan(archive))


@pytest.mark.parametrize(
    "mark",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"dcmdask": {"catalog": 1}}',
        b'{"dcmdask": {"catalog": 1, "root": "/x", "options": {}, "files": 1, "series": [],'
        b' "instances": ["../../other.parquet"], "skipped": []}}',
        b'{"dcmdask": {"catalog": 99}}',
        b'{"dcmdask": {"catalog": 1, "root": "/\\u0000", "options": {}, "files": 1, "version": "",'
        b' "identifiers": false, "instances": [], "skipped": [], "series": []}}',
        b'{"dcmdask": {"catalog": 1, "root": "/x", "options": {"rows": {}}, "files": 1,'
        b' "version": "", "identifiers": false, "instances": [], "skipped": [], "series": []}}',
    ],
)
def test_a_mark_that_is_none(mark: bytes, archive: Path, target: Path) -> None:
    dcmdask.build_catalog(archive, target)
    (target / "catalog.json").write_bytes(mark)
    with pytest.raises(CatalogError, match=r"cannot be read|version"):
        dcmdask.open_catalog(target)


def test_a_file_that_changes_is_noticed(archive: Path, target: Path) -> None:
    found = dcmdask.build_catalog(archive, target)[1].to_dask()
    path = sorted((archive / "series 1").iterdir())[2]
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceChangedError, match="scan again"):
        found.compute()


# Readers without dcmdask


def test_other_readers(archive: Path, target: Path) -> None:
    import duckdb
    import polars

    dcmdask.build_catalog(archive, target)
    rows = duckdb.sql(
        f"select Modality, count(*), sum(bytes) from '{target}/instances/*.parquet' "
        "group by Modality"
    ).fetchall()
    size = sum(one.stat().st_size for one in instances_below(archive))
    assert rows == [("CT", 12, size)]
    heights = duckdb.sql(
        f"select SOPInstanceUID, facts[1].position[3] from '{target}/instances/*.parquet' "
        f"where SeriesInstanceUID = '{UIDS[1]}' order by 2"
    ).fetchall()
    assert np.allclose(np.diff([height for _, height in heights]), 2.5)
    frame = polars.read_parquet(f"{target}/instances/*.parquet")
    assert frame.shape == (12, len(SCHEMA.names))
    series = polars.read_parquet(f"{target}/series/*.parquet")
    assert series["instances"].to_list() == [4, 4, 4]
    assert series["shape"].to_list() == [[4, 16, 12]] * 3


def test_nothing_personal_is_kept(tmp_path: Path, target: Path) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    path = saved(root, native(noise(1, 8, 8, dtype="<u2")))
    ds = pydicom.dcmread(path)
    ds.PatientName, ds.PatientID, ds.StudyDate = "Canary^Name", "canary-id", "19990909"
    ds.InstitutionName, ds.StudyDescription = "Canary Hospital", "canary study"
    ds.save_as(path)
    dcmdask.build_catalog(root, target)
    for one in target.rglob("*.parquet"):
        text = repr(pq.read_table(one).to_pylist()).lower()
        assert "canary" not in text and "19990909" not in text
    # It is read from the header then.
    found = dcmdask.open_catalog(target)
    assert len(found.select(PatientID="canary*")) == 1 and not found.select(PatientID="other")
    with pytest.raises(CatalogError, match="made without identifiers"):
        dcmdask.build_catalog(root, target, identifiers=True)


def test_identifiers_that_are_asked_for(tmp_path: Path, target: Path) -> None:
    root = tmp_path / "archive"
    for number in range(2):
        (path,) = made(root / str(number), UIDS[number], count=1)
        ds = pydicom.dcmread(path)
        ds.PatientName, ds.PatientID, ds.SpecificCharacterSet = (
            "Müller^Zoë==",
            f" id {number}",
            "ISO_IR 192",
        )
        ds.save_as(path)
    plain = dcmdask.scan(root)
    for how in ({"PatientName": "müller^zoë"}, {"PatientID": "id 0"}, {"PatientID": " id 0"}):
        found = dcmdask.build_catalog(root, target, identifiers=True).select(**how)
        assert [one.uid for one in found] == [one.uid for one in plain.select(**how)], how
    without_headers(root)
    found = dcmdask.open_catalog(target)
    assert [one.uid for one in found.select(PatientID="ID 1")] == [UIDS[1]]
    assert len(found.select(PatientName="m?ller*", Modality="CT")) == 2
    assert not found.select(PatientID="")
    with pytest.raises(CatalogError, match="made with identifiers"):
        dcmdask.build_catalog(root, target)


# Servers


def objects(server: s3_here.Server, root: Path, prefix: str) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            server.put(f"{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes())


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_here.Server]:
    with s3_here.serving() as server:
        yield server


def test_an_object_store(
    s3: s3_here.Server, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    objects(s3, archive, "archive")
    root = f"s3://{s3_here.BUCKET}/archive"
    target = f"s3://{s3_here.BUCKET}/kept.catalog"
    plain = dcmdask.scan(root, storage_options=s3.options)
    how = {"storage_options": s3.options, "target_options": s3.options}
    first = dcmdask.build_catalog(root, target, **how)
    same(first, plain)
    asked = len(s3.asked)
    again = dcmdask.build_catalog(root, target, **how)
    assert again.changes == Changes(0, 0, 0, 14)
    assert not [path for path in s3.paths[asked:] if "/archive/series" in path]
    found = dcmdask.scan(target, storage_options=s3.options)
    series = found[2]
    asked = len(s3.asked)
    array = series.to_dask()
    assert len(s3.asked) == asked
    np.testing.assert_array_equal(array.compute(), plain[2].to_dask().compute())
    before = s3.asked[asked : asked + 8]
    # What it is now, and the pixels: no header.
    assert sorted(method for method, *_ in before) == ["GET"] * 4 + ["HEAD"] * 4
    assert not any((span or "").startswith("bytes=0-") for _, span, _ in before)
    objects(s3, archive / "series 0", "archive/series 2")
    changed = archive / "series 2"
    for path in changed.iterdir():
        s3.put(f"archive/series 2/{path.name}", path.read_bytes() + b"\0")
    with pytest.raises(SourceChangedError, match="scan again"):
        array.compute()
    for secret in ("secret", s3.options["endpoint_url"]):
        assert not any(secret.encode() in one for one in s3.objects("kept.catalog").values())


def test_odd_keys_of_an_object_store(s3: s3_here.Server, archive: Path, target: Path) -> None:
    names = ("a/x", "a//x", "a/./x", "a/x?y#%20")
    for name, path in zip(names, sorted((archive / "series 0").iterdir()), strict=False):
        s3.put(f"odd/{name}", path.read_bytes())
    root, how = f"s3://{s3_here.BUCKET}/odd", {"storage_options": s3.options}
    dcmdask.build_catalog(root, target, **how)
    same(dcmdask.open_catalog(target, **how), dcmdask.scan(root, **how))
    # They are listed, and of the same folder, but lead out of the root.
    for name in ("a/../x", "/x"):
        s3.put(f"odd/{name}", path.read_bytes())
    found = dcmdask.build_catalog(root, target, **how)
    assert [one.path for one in found.doubtful] == [f"{root}//x", f"{root}/a/../x"]
    assert len(found[0]) == 4
    assert dcmdask.build_catalog(root, target, **how).changes == Changes(0, 0, 0, 6)


def test_two_scans_of_an_object_store_at_once(s3: s3_here.Server, archive: Path) -> None:
    """It has no locks: the one that is late says so, and breaks nothing."""
    objects(s3, archive, "both")
    root, target = f"s3://{s3_here.BUCKET}/both", f"s3://{s3_here.BUCKET}/both.catalog"
    how = {"storage_options": s3.options, "target_options": s3.options}
    dcmdask.build_catalog(root, target, **how)
    s3.put("both/later.dcm", next((archive / "series 0").iterdir()).read_bytes() + b"\0")

    def meanwhile(done: int, total: int | None) -> None:
        if total is not None and not other:
            other.append(dcmdask.build_catalog(root, target, **how))

    other: list[dcmdask.Catalog] = []
    with pytest.raises(StoreExistsError, match="another process"):
        dcmdask.build_catalog(root, target, progress=meanwhile, **how)
    same(dcmdask.open_catalog(target, storage_options=s3.options), other[0])
    same(dcmdask.build_catalog(root, target, **how), dcmdask.scan(root, storage_options=s3.options))


def test_a_walk_is_kept(s3: s3_here.Server, target: Path) -> None:
    """Of a remote file without an offset table, once it is asked for."""
    frames = noise(40, 64, 64, dtype="u2")
    data = encapsulated(frames, JPEG2000Lossless, table="none")
    s3.put("slides/a", data)
    root, how = f"s3://{s3_here.BUCKET}/slides", {"storage_options": s3.options}
    assert dcmdask.build_catalog(root, target, **how)[0].instances[0].index is None
    found = dcmdask.build_catalog(root, target, walk=True, **how)
    assert found.changes == Changes(0, 1, 0, 0)
    assert dcmdask.build_catalog(root, target, walk=True, **how).changes == Changes(0, 0, 0, 1)
    asked = len(s3.asked)
    array = found[0].to_dask()
    np.testing.assert_array_equal(array[3].compute(), frames[3])
    # What it is now, and the bytes of one frame.
    assert [method for method, *_ in s3.asked[asked:]] == ["HEAD", "GET"]


@pytest.mark.skipif(bool(nginx.missing()), reason=nginx.missing())
def test_a_web_server(archive: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "nginx").mkdir()
    with nginx.serving(archive, tmp_path / "nginx", "autoindex on;") as server:
        url = f"{server.url}/"
        plain = dcmdask.scan(url)
        assert len(plain) == 3
        first = dcmdask.build_catalog(url, target)
        assert first.rows() == plain.rows()
        server.asked()
        again = dcmdask.build_catalog(url, target)
        assert again.changes is not None and again.changes.new == again.changes.gone == 0
        whole = [one for one in server.asked() if one.method == "GET" and one.path.endswith(".dcm")]
        assert not whole
        array = dcmdask.open_catalog(target)[2].to_dask()
        np.testing.assert_array_equal(array.compute(), plain[2].to_dask().compute())
        asked = [
            one for one in server.asked() if "series%202" in one.path or "series 2" in one.path
        ]
        assert not [one for one in asked[:4] if one.range.startswith("bytes=0-")]
        for path in (archive / "series 2").iterdir():
            path.write_bytes(path.read_bytes())
            os.utime(path, ns=(0, 0))
        with pytest.raises(SourceChangedError):
            array.compute()


# Parts


def test_many_parts_and_row_groups(
    archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_ROWS", 3)
    monkeypatch.setattr(listing, "BATCH", 2)
    monkeypatch.setattr(parts, "_GROUP_ROWS", 2)
    monkeypatch.setattr(series_table, "_BLOCK", 5)
    monkeypatch.setattr(series_table, "_GROUP", 2)
    found = dcmdask.build_catalog(archive, target)
    assert len(list(target.glob("instances/*.parquet"))) > 3
    same(found, dcmdask.scan(archive))
    monkeypatch.setattr(series_table, "_BLOCK", 8)
    found = dcmdask.build_catalog(archive, target, compact=True)
    assert len(list(target.glob("instances/*.parquet"))) == 2
    same(found, dcmdask.scan(archive))
    order = found.reading_order(range(3))
    assert sorted(order) == [0, 1, 2]
    (archive / "series 2").rename(archive / "renamed")
    found = dcmdask.build_catalog(archive, target)
    assert found.changes == Changes(4, 0, 4, 10)
    same(found, dcmdask.scan(archive))


def test_frames_take_few_bytes(tmp_path: Path, target: Path) -> None:
    """The index of a file of 10^5 frames takes at most 3 bytes for each."""

    count, random = 100_000, np.random.default_rng(7)
    streams = [b"\xff\xd8\xff\xd9" + bytes(2 * int(n)) for n in random.integers(1, 100, count)]
    root = tmp_path / "archive"
    root.mkdir()
    data = encapsulated(noise(1), JPEGBaseline8Bit, streams=streams, NumberOfFrames=count)
    saved(root, data)
    dcmdask.build_catalog(root, target)
    (part,) = target.glob("instances/*.parquet")
    group = pq.ParquetFile(part).metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    size = sum(
        one.total_compressed_size
        for one in columns
        if one.path_in_schema.split(".")[0] in ("lengths", "gaps", "first")
    )
    assert size <= 3 * count
    source = files.locate(str(root / "made.dcm"))
    assert isinstance(source, files.LocalFile)
    index = dcmdask.open_catalog(target)[0].instances[0].index
    opened = dcmdask.open_frames(root / "made.dcm").instance
    assert index is not None and index.spans.token == opened.spans.token
