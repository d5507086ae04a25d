"""A job over all series ends, says what failed and why, and goes on with the rest."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import batch_jobs
import numpy as np
import pandas as pd
import pytest
import zarr
from batch_jobs import processed
from distributed import Client, LocalCluster
from distributed.protocol import pickle
from made_series import SERIES, archive
from pydicom import dcmread
from pydicom.data import get_testdata_file

import dcmdask
from dcmdask import ClusterError, batch
from dcmdask.archive.scanned import key_of
from dcmdask.batch.records import Record, names_of, records
from dcmdask.batch.selection import selected
from dcmdask.sources.folder import Folder

# Workers of other processes know nothing of this folder.
pickle.cloudpickle.register_pickle_by_value(batch_jobs)
# Series of the archive.
SIZE = 10


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    archive(folder, SIZE, frames=3)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> str:
    (tmp_path / "log").touch()
    return str(tmp_path / "log")


def outputs(target: Path) -> dict[str, bytes]:
    """Everything but what says when, how often and with which options."""
    found = {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and "records" not in path.parts
    }
    del found["results.parquet"]
    return {**found, "results.csv": batch_jobs.without_job(found["results.csv"])}


def test_all_of_it(client: Client, series: Path, tmp_path: Path, log: str) -> None:
    target, told = tmp_path / "out", []
    report = batch.run(
        batch_jobs.good, series, target, client=client, options={"log": log}, progress=told.append
    )
    assert report.ok and report.processed == SIZE
    assert processed(log) == Counter(range(SIZE))
    table = pd.read_csv(target / "results.csv").set_index("series")
    for one in dcmdask.scan(series):
        pixels = one.to_dask().compute()
        assert table.loc[one.uid, "peak"] == pixels.max()
        assert table.loc[one.uid, "sum"] == pixels.sum()
        stored = zarr.open_group(target / f"series/{one.uid}/mip.zarr", mode="r")
        assert stored.attrs["dcmdask"]["complete"] is True
        np.testing.assert_array_equal(stored["pixels"][...], pixels.max(axis=0))
    pd.testing.assert_frame_equal(
        pd.read_parquet(target / "results.parquet"), pd.read_csv(target / "results.csv")
    )
    record = json.loads((target / f"records/{SERIES}.7.json").read_text())
    assert record["files"] == ["007/0000", "007/0002"]
    assert str(series) not in json.dumps(record)
    assert told[-1].done == told[-1].total == SIZE and told[-1].frames == 3 * SIZE

    # Again: nothing is done. With other files: what that is about.
    again = batch.run(batch_jobs.good, series, target, client=client, options={"log": log})
    assert (again.ok, again.processed, len(again.records)) == (True, 0, SIZE)
    path = series / "004/0001"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    again = batch.run(batch_jobs.good, series, target, client=client, options={"log": log})
    assert again.processed == 1 and processed(log)[4] == 2


@pytest.mark.slow
def test_what_goes_wrong_is_said_once_each(
    client: Client, series: Path, tmp_path: Path, log: str
) -> None:
    target, told_of = tmp_path / "out", []
    report = batch.run(
        batch_jobs.hostile,
        series,
        target,
        client=client,
        options={"log": log},
        retries=1,
        timeout=10,
        progress=told_of.append,
    )
    assert max(one.waiting for one in told_of) > 0 == told_of[-1].waiting
    assert len(report.records) == SIZE
    failures = {int(one.name.rpartition(".")[2]): one for one in report.failures}
    expected = {
        1: ("process", "KeyError", 1),
        2: ("poison", "ClusterError", 2),
        3: ("timeout", "ClusterError", 1),
        4: ("process", "OSError", 2),
        6: ("process", "TypeError", 1),
    }
    told = {number: (one.stage, one.error, one.attempts) for number, one in failures.items()}
    assert told == expected
    assert "the job's own mistake" in failures[1].message
    assert "batch_jobs" in failures[1].traceback
    assert re.fullmatch(r"KeyError at batch_jobs\.py:\d+", failures[1].code)
    assert [failures[n].code for n in (2, 3)] == [
        "ClusterError/worker-died",
        "ClusterError/timeout",
    ]
    good = set(range(SIZE)) - failures.keys()
    table = pd.read_csv(target / "results.csv")
    assert set(table.series) == {f"{SERIES}.{number}" for number in good}
    assert processed(log)[5] == 2
    assert {processed(log)[number] for number in good - {5}} == {1}

    # Only what failed, and by now some of it would pass.
    again = batch.run(
        batch_jobs.hostile,
        series,
        target,
        client=client,
        options={"log": log},
        retries=0,
        only_failed=True,
        select=f'series_uid != "{SERIES}.3"',
    )
    assert again.processed == len(failures) - 1
    assert set(pd.read_csv(target / "results.csv").series) == set(table.series)


@pytest.mark.slow
def test_a_job_that_takes_all_memory(
    client: Client, series: Path, tmp_path: Path, log: str
) -> None:
    report = batch.run(
        batch_jobs.greedy, series, tmp_path / "out", client=client, options={"log": log}, retries=0
    )
    (failure,) = report.failures
    assert (failure.stage, failure.name) == ("poison", f"{SERIES}.1")
    assert processed(log)[1] == 1


def file_of(folder: Path, position: int) -> Path:
    """The file of a series that is at a place along z."""
    at = [(dcmread(path).ImagePositionPatient[2], path) for path in folder.iterdir()]
    return sorted(at)[position][1]


def test_broken_files_stop_nothing(client: Client, tmp_path: Path, log: str) -> None:
    folder = tmp_path / "archive"
    archive(folder, 8, frames=5)
    file_of(folder / "001", 2).unlink()
    (folder / "002" / "notes.txt").write_text("no DICOM")
    cut = (file_of(folder / "000", 2), file_of(folder / "003", 4))
    whole = {path: path.read_bytes() for path in cut}
    for path, data in whole.items():
        path.write_bytes(data[:-40])
    report = batch.run(
        batch_jobs.good, folder, tmp_path / "out", client=client, options={"log": log}
    )
    told = {one.name.rpartition(".")[2]: one.stage for one in report.failures if one.frames}
    # A file that is cut short is left out of its series, which then has a gap.
    assert told == {"0": "assemble", "1": "assemble"}
    left_out = {one.file: one.message for one in report.failures if one.stage == "scan"}
    assert left_out.keys() == {str(path.relative_to(folder)) for path in whole}
    assert all("the file is truncated" in why for why in left_out.values())
    assert "6 of 8 series done" in str(report) and "files left out: 2" in str(report)
    # That the last file of a series is missing cannot be told from positions.
    (noted,) = [one for one in report.records if one.done and one.notes]
    assert noted.name == f"{SERIES}.3" and "left out" in noted.notes[0].text
    assert len(report.records) == 8 + 2

    # What is whole again is one that had failed.
    for path, data in whole.items():
        path.write_bytes(data)
    archive(tmp_path / "new", 1, frames=2)
    shutil.move(tmp_path / "new" / "000", folder / "020")
    for path in (folder / "020").iterdir():
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = f"{SERIES}.20"
        dataset.save_as(path)
    again = batch.run(
        batch_jobs.good,
        folder,
        tmp_path / "out",
        client=client,
        options={"log": log},
        only_failed=True,
    )
    # 0 and 1 had failed, a file of 3 as well, and 20 is new.
    assert [one.name for one in again.failures] == [f"{SERIES}.1"]
    assert (again.processed, len(again.records)) == (3, 8)
    assert not [one for one in again.records if one.stage == "scan"]


@pytest.fixture(scope="module")
def calm(client: Client, series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target of a run in which nothing goes wrong."""
    target = tmp_path_factory.mktemp("calm")
    batch.run(batch_jobs.good, series, target, client=client, options={"log": os.devnull})
    return target


@pytest.mark.slow
def test_workers_that_are_killed(
    client: Client, series: Path, calm: Path, tmp_path: Path, log: str
) -> None:
    report = batch.run(
        batch_jobs.killed_once, series, tmp_path / "out", client=client, options={"log": log}
    )
    assert report.ok
    assert outputs(tmp_path / "out") == outputs(calm)
    # Only the series of a killed worker is processed twice.
    assert processed(log) == Counter([*range(SIZE), *batch_jobs.KILLED])


@pytest.mark.rare
def test_a_driver_that_is_killed(series: Path, calm: Path, tmp_path: Path, log: str) -> None:
    """With its workers, by the job itself: at a series, while others are being processed."""
    script = tmp_path / "job.py"
    script.write_text(
        "from dcmdask import batch\n"
        "def process(series, log: str = ''):\n"
        "    import sys\n"
        f"    sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "    from batch_jobs import all_killed_once\n"
        "    return all_killed_once(series, log)\n"
        "if __name__ == '__main__':\n"
        "    batch.main(process)\n"
    )
    target = tmp_path / "out"
    command = [sys.executable, str(script), str(series), str(target), "--log", log, "--workers=2"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as driver:
        assert driver.wait(timeout=120) == -signal.SIGKILL
    assert 0 < len(records(Folder.of(target))) < SIZE
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{SIZE} of {SIZE} series done" in done.stdout
    # At most the two that were under way are processed a second time.
    assert sum(processed(log).values()) <= SIZE + 2
    assert outputs(target) == outputs(calm)


def test_what_workers_cannot_do_is_said_first(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(ClusterError, match="a timeout needs workers with a nanny"):
            batch.run(len, series, tmp_path / "out", client=client, timeout=3)
        monkeypatch.setattr(dcmdask, "__version__", "0.0.1")
        with pytest.raises(ClusterError, match=r"has dcmdask 0\.0\.1, and here is"):
            batch.run(len, series, tmp_path / "out", client=client)
    assert [path.name for path in (tmp_path / "out").rglob("*.json")] == ["dcmdask.json"]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ('Modality == "CT" and frames > 2', SIZE),
        (f'series_uid == "{SERIES}.7"', 1),
        ("instances < 4", SIZE),
    ],
)
def test_select(
    select: str, expected: int, client: Client, series: Path, tmp_path: Path, log: str
) -> None:
    report = batch.run(
        batch_jobs.good,
        series,
        tmp_path / "out",
        client=client,
        options={"log": log},
        select=select,
        limit=3,
    )
    assert report.processed == min(expected, 3)


def test_a_query_that_nothing_matches(series: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"matches none of 10 series: modality is CT \(10\)"):
        batch.run(len, series, tmp_path / "out", select="modality == 'MR'")
    assert not (tmp_path / "out").exists()


def test_a_query_that_makes_no_sense(series: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns are number, series_uid, "):
        batch.run(len, series, tmp_path / "out", select="Modalty == 'CT'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("uid", ["..", "1..2", "../../etc", "1.2.3/4", "", "1" * 65, "."])
def test_names_never_lead_elsewhere(uid: str, series: Path) -> None:
    one, other = dcmdask.scan(series)[:2]
    odd = dcmdask.Series(uid, one.instances)
    names = names_of([*map(key_of, [odd, other, dcmdask.Series(uid, other.instances)])])
    assert len(set(names)) == 3
    assert all(name.replace("-", "").replace(".", "").isalnum() for name in names)
    assert not any(".." in name or name.startswith(".") for name in names)


def test_the_name_of_a_series_without_uid(tmp_path: Path) -> None:
    """It stays, where a file comes that is sorted before the others, and in another place."""
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    del dataset.SeriesInstanceUID
    for folder in ("a", "b"):
        (tmp_path / "old" / folder).mkdir(parents=True)

    def names(root: Path, number: int) -> list[str]:
        dataset.SOPInstanceUID = f"1.2.{number}"
        for folder in ("a", "b"):
            dataset.save_as(root / folder / f"{number}.dcm")
        return names_of(dcmdask.scan(root).keys(), str(root))

    first = names(tmp_path / "old", 2)
    assert len({*first}) == 2
    (tmp_path / "old").rename(tmp_path / "new")
    assert names(tmp_path / "new", 1) == first


def test_series_without_a_uid_never_take_the_name_of_another(tmp_path: Path) -> None:
    """The results of one that is gone stay under its name."""
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    del dataset.SeriesInstanceUID
    for study in ("1", "2", "3"):
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = f"1.2.{study}", f"1.2.3.{study}"
        (tmp_path / study).mkdir()
        dataset.save_as(tmp_path / study / "0.dcm")
    every = names_of(dcmdask.scan(tmp_path).keys(), str(tmp_path))
    assert len({*every}) == 3 and all(name.startswith("series-") for name in every)
    shutil.rmtree(tmp_path / "1")
    assert names_of(dcmdask.scan(tmp_path).keys(), str(tmp_path)) == every[1:]
    shutil.rmtree(tmp_path / "2")
    assert names_of(dcmdask.scan(tmp_path).keys(), str(tmp_path)) == every[2:]


def test_the_record_of_a_file_that_is_gone_goes(tmp_path: Path) -> None:
    """Also where the source is a pattern or a list, and more is found than before."""
    whole = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    (tmp_path / "in/one").mkdir(parents=True)
    (tmp_path / "in/two").mkdir()
    (tmp_path / "in/one/whole").write_bytes(whole)
    damaged = tmp_path / "in/one/damaged"
    folders = [f"{tmp_path}/in/{name}" for name in ("one", "two")]
    for number, source in enumerate([f"{tmp_path}/in/*", folders, f"file://{tmp_path}/in"]):
        damaged.write_bytes(whole[:900])
        folder = Folder.of(tmp_path / f"out{number}")
        found = selected(len, source, folder)
        (record,) = found.left_out.values()
        assert record.file == "one/damaged"
        record.write(folder)
        damaged.unlink()
        (tmp_path / f"in/two/{number}").write_bytes(whole)
        assert selected(len, source, folder).gone == [record.name]


def test_finish_gets_the_table(client: Client, series: Path, tmp_path: Path, log: str) -> None:
    given: list[Any] = []
    batch.run(
        batch_jobs.good,
        series,
        tmp_path / "out",
        client=client,
        options={"log": log},
        limit=4,
        finish=lambda table, target: given.append((len(table), target)),
    )
    assert given == [(4, str(tmp_path / "out"))]


@pytest.mark.parametrize(
    "change", [{"seconds": "x"}, {"numbers": []}, {"name": 3}, {"files": "a"}, {"frame": "2"}]
)
def test_records_that_were_tampered_with(change: dict[str, Any], tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    good = Record("1.2.3", True, "job", "source", seconds=1.5, numbers={"a": 1})
    good.write(folder)
    assert records(folder) == {"1.2.3": good}
    path = tmp_path / "records/1.2.3.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert records(folder) == {}
