"""What jobs, workers, targets and records do that nobody should, and what becomes of a run."""

import gc
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import batch_jobs
import dask
import dask.array as da
import fsspec
import made_series
import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client, LocalCluster
from distributed.protocol import pickle
from make_dicom import noise

import dcmdask
from dcmdask import ClusterError, DcmdaskWarning, Series, StoreExistsError, StoreLostError, batch
from dcmdask.batch import outcome, workers
from dcmdask.batch.outcome import Progress, frame_of
from dcmdask.batch.records import Record, records
from dcmdask.batch.results import keep
from dcmdask.batch.selection import selected
from dcmdask.batch.staging import Staging
from dcmdask.batch.work import may_pass
from dcmdask.cli.report import report as report_command
from dcmdask.console import progress
from dcmdask.sources.folder import Folder
from dcmdask.store.result_writer import result

pickle.cloudpickle.register_pickle_by_value(batch_jobs)
LOOPBACK = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    made_series.archive(folder, 6)
    return folder


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.py"
    path.write_text(text)
    return path


def started(*command: Any, **env: str) -> subprocess.CompletedProcess[str]:
    told = [str(one) for one in command]
    env = {**os.environ, **env}
    return subprocess.run(told, capture_output=True, text=True, check=False, env=env)


# Jobs


def test_jobs_that_would_end_their_process(client: Client, archive: Path, tmp_path: Path) -> None:
    report = batch.run(batch_jobs.ending, archive, tmp_path / "out", client=client, retries=0)
    told = {int(one.name.rpartition(".")[2]): one for one in report.failures}
    kinds = ["SystemExit", "KeyboardInterrupt", "Unusual", "GeneratorExit", "Mute"]
    assert [told[number].error for number in range(5)] == kinds
    assert {one.stage for one in told.values()} == {"process"}
    assert "the job's own words" in told[0].message and "ending" in told[0].traceback
    assert (report.done, len(told)) == (1, 5)


SENT = """
import functools
import helper
from dcmdask.batch.code import pickled

def process(series, scale=1):
    return {"n": helper.factor() * scale}

for one in (process, functools.partial(process, scale=2), helper.process):
    print(b"of the module" in pickled(one))
"""
BESIDE = """
def factor():
    return len("of the module")

def process(series):
    return {"n": factor()}
"""


def test_what_lies_beside_a_script_is_sent_by_value(tmp_path: Path) -> None:
    """All that counts for the identity, whichever way the function is given."""
    (tmp_path / "helper.py").write_text(BESIDE)
    # The safe path of scripts/test would leave out what lies beside the script.
    done = started(sys.executable, script(tmp_path, SENT), PYTHONSAFEPATH="")
    assert done.stdout.split() == ["True"] * 3, done.stderr


@pytest.mark.rare
def test_workers_that_die_behind_their_series(
    client: Client, archive: Path, tmp_path: Path
) -> None:
    job = {"client": client, "retries": 1, "limit": 3}
    report = batch.run(batch_jobs.dying, archive, tmp_path / "out", **job)
    # What was done before is done, and nothing waits for a word of the dead.
    assert report.done + len(report.failures) == 3
    assert {one.stage for one in report.failures} <= {"poison"}
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert len(table) == report.done


@pytest.mark.rare
@pytest.mark.parametrize("own", [False, True], ids=["client", "embedded"])
def test_no_worker_is_dismissed_for_its_death(
    own: bool, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask looks once whether one that has died is back, here before it can be."""
    monkeypatch.setattr(workers, "PATIENCE", 30.0)
    job = {"process": batch_jobs.dying_once, "src": archive, "target": tmp_path / "out"}
    job["options"] = {"mark": str(tmp_path / "mark")}
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1 ms"}):
        if own:
            # Of one worker, however many cores there are.
            monkeypatch.setattr(
                sys.modules["dcmdask.batch.run"], "half_of_this_machine", lambda: (1, 2)
            )
            report = batch.run(**job)
        else:
            with (
                LocalCluster(n_workers=1, threads_per_worker=1, **LOOPBACK) as cluster,
                Client(cluster) as client,
            ):
                report = batch.run(**job, client=client)
    assert report.done == 6 and (tmp_path / "mark").exists(), report


@pytest.mark.rare
def test_a_worker_that_is_paused_for_its_memory(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_GRACE", 2.0)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="400 MiB", **LOOPBACK) as one,
        Client(one) as client,
    ):
        (before,) = client.run(os.getpid).values()
        report = batch.run(batch_jobs.leaking, archive, tmp_path / "out", client=client)
        (after,) = client.run(os.getpid).values()
    # What it left behind went with its process.
    assert report.done == 6 and before != after, report


@pytest.mark.rare
def test_a_cluster_that_is_restarted(client: Client, archive: Path, tmp_path: Path) -> None:
    restarted: list[int] = []

    def restart(now: Progress) -> None:
        if now.done == 2 and not restarted:
            restarted.append(now.done)
            client.restart()

    report = batch.run(
        batch_jobs.napping, archive, tmp_path / "out", client=client, progress=restart, retries=1
    )
    assert restarted and report.done == 6, report


@pytest.mark.slow
def test_a_worker_that_comes_late_and_is_not_fit(
    client: Client, archive: Path, tmp_path: Path
) -> None:
    """It has no nanny, and a timeout needs one."""
    log, ways, until = (tmp_path / name for name in ("log", "ways", "until"))
    # All but two series wait until the new worker has answered.
    waiting = {str(number): "wait" for number in range(2, 6)}
    ways.write_text(json.dumps({**waiting, "until": str(until)}))
    late: list[subprocess.Popen[bytes]] = []

    def start(now: Progress) -> None:
        if caught:
            until.touch()
        elif now.done == 2 and not late:
            address = client.scheduler.address
            options = ["--no-nanny", "--no-dashboard", "--nthreads", "1", "--host", "127.0.0.1"]
            command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
            place = ["--local-directory", str(tmp_path)]
            late.append(subprocess.Popen([*command, *place], stderr=subprocess.DEVNULL))
            client.wait_for_workers(3)

    try:
        with pytest.warns(DcmdaskWarning, match=r"left out: worker .* has no nanny") as caught:
            report = batch.run(
                batch_jobs.spoiled,
                archive,
                tmp_path / "out",
                client=client,
                options={"log": str(log), "ways": str(ways)},
                timeout=60,
                progress=start,
            )
    finally:
        for one in late:
            one.terminate()
            one.wait()
    assert report.done == 6, report


@pytest.mark.slow
def test_workers_that_go_away(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 1.0)
    monkeypatch.setattr(workers, "_FIRST", 1.0)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **LOOPBACK) as cluster,
        Client(cluster) as client,
    ):
        (nanny,) = cluster.workers.values()

        def stop(now: Progress) -> None:
            if now.done == 1:
                client.sync(nanny.close)

        with pytest.raises(ClusterError, match="has had no workers for 1 s; what is done is kept"):
            batch.run(batch_jobs.napping, archive, tmp_path / "out", client=client, progress=stop)
        with pytest.raises(ClusterError, match="has no workers, not even after 1 s"):
            batch.run(batch_jobs.napping, archive, tmp_path / "out", client=client)
    with pytest.raises(ClusterError, match="the client is closed"):
        batch.run(batch_jobs.napping, archive, tmp_path / "out", client=client)
    assert records(Folder.of(tmp_path / "out"))


@pytest.mark.rare
def test_a_scheduler_that_goes_away(archive: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    file = tmp_path / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    scheduler = subprocess.Popen([*command, *map(str, options)], stderr=subprocess.DEVNULL)
    try:
        while not file.exists() or not file.read_text():
            time.sleep(0.05)
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
            Client(scheduler_file=str(file), set_as_default=False) as client,
            Client(scheduler_file=str(file), set_as_default=False) as other,
        ):
            worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--host", "127.0.0.1"]
            more = ["--scheduler-file", str(file), "--no-dashboard", "--nthreads", "1"]
            place = ["--local-directory", str(tmp_path)]
            one = subprocess.Popen([*worker, *more, *place], stderr=subprocess.DEVNULL)
            try:
                other.wait_for_workers(1)

                def stop(now: Progress) -> None:
                    if now.done == 1:
                        scheduler.kill()

                with pytest.raises(ClusterError, match="the scheduler is gone"):
                    batch.run(
                        batch_jobs.napping, archive, tmp_path / "o", client=client, progress=stop
                    )
            finally:
                one.terminate()
                one.wait()
    finally:
        scheduler.kill()
        scheduler.wait()
    assert records(Folder.of(tmp_path / "o"))


def test_workers_in_one_process(archive: Path, tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        pytest.raises(ClusterError, match="is in one process with another"),
    ):
        batch.run(batch_jobs.napping, archive, tmp_path / "out", client=client)
    assert os.listdir(tmp_path / "out") == ["dcmdask.json"]


# Runs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": -1}, "limit is -1"),
        ({"retries": -1}, "retries is -1"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"options": {"log": np.zeros(3)}}, "option log is ndarray"),
        ({"options": {"other": 3}}, "cannot be called with a series and the options"),
        ({"select": "frames"}, "gives no boolean for each series"),
        ({"select": "frames - frames"}, "gives no boolean for each series"),
        ({"select": "[0, 0, 0]"}, "gives no boolean for each series"),
        ({"select": "@os.getpid() > 0"}, "select '@os"),
    ],
)
def test_what_cannot_be_asked(
    options: dict[str, Any], message: str, archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        batch.run(batch_jobs.good, archive, tmp_path / "out", **{"options": {"log": ""}, **options})
    assert not (tmp_path / "out").exists()


def test_nothing_to_do(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("no DICOM")
    with pytest.raises(ValueError, match="no series in the source; files looked into: 1"):
        batch.run(batch_jobs.napping, tmp_path / "text", tmp_path / "out")
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be sent to the workers .*_thread.lock"):
        batch.run(lambda series: lock, archive, tmp_path / "out")


def test_a_mended_script_keeps_what_was_done(client: Client, archive: Path, tmp_path: Path) -> None:
    given: list[int] = []

    def go(options: dict[str, Any], **more: Any) -> batch.BatchReport:
        return batch.run(
            batch_jobs.breaking,
            archive,
            tmp_path / "out",
            client=client,
            options=options,
            finish=lambda table, _: given.append(len(table)),
            **more,
        )

    first = go({"broken": True})
    assert (first.done, len(first.failures)) == (5, 1)
    # Another option is another version of the job.
    second = go({"broken": False}, only_failed=True)
    assert (second.done, second.other, second.ok) == (1, 5, True)
    assert "of another version or other options: 5" in str(second)
    # They are told apart in the table, and done again when that is asked for.
    with pytest.raises(StoreExistsError, match=r"2 of 2 series that are done would be done again"):
        go({"broken": False}, limit=2)
    third = go({"broken": False}, limit=2, redo=True)
    assert given == [5, 6, 6] and third.other == 3


def test_a_target_of_another_job(client: Client, archive: Path, tmp_path: Path) -> None:
    batch.run(batch_jobs.napping, archive, tmp_path / "out", client=client)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        StoreExistsError, match=r"of another job, 'batch_jobs.napping', and 'batch_jobs.good'"
    ):
        batch.run(batch_jobs.good, archive, tmp_path / "out", client=client, options={"log": ""})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a::b", "q[1]", "x?*", "ü %41 'q'"])
def test_names_of_targets(name: str, client: Client, archive: Path, tmp_path: Path) -> None:
    for processed in (6, 0):
        report = batch.run(
            batch_jobs.good, archive, tmp_path / name, client=client, options={"log": os.devnull}
        )
        assert (report.ok, report.processed) == (True, processed)
    assert sorted(os.listdir(tmp_path / name)) == [
        "dcmdask.json",
        "records",
        "results.csv",
        "results.parquet",
        "series",
    ]
    assert os.listdir(tmp_path) == [name]


def test_a_target_that_is_not_shared(client: Client, archive: Path) -> None:
    with pytest.raises(ClusterError, match="does not see the target memory://somewhere"):
        batch.run(batch_jobs.napping, archive, "memory://somewhere", client=client)


def test_files_that_workers_do_not_see(client: Client, archive: Path, tmp_path: Path) -> None:
    found = dcmdask.scan(archive)
    moved = archive.with_name("moved")
    archive.rename(moved)
    try:
        with pytest.raises(ClusterError, match=r"does not see .*the same path from all workers"):
            batch.run(batch_jobs.napping, found, tmp_path / "out", client=client)
    finally:
        moved.rename(archive)


# Results


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([1, 2, 3], [0, 1, 0]),
        da.ma.masked_equal(da.arange(4), 2),
        batch.Picture(np.ma.masked_array(np.eye(3), np.eye(3))),
    ],
    ids=["numpy", "dask", "picture"],
)
def test_masks_are_not_lost(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a is masked"):
        keep({"a": value}, Staging(Folder.of(tmp_path), "x", "job"))


def test_two_that_write_the_same(tmp_path: Path) -> None:
    x = da.from_array(np.arange(24).reshape(4, 6), chunks=(2, 6))
    store = "memory://two/a.zarr"
    fs = fsspec.filesystem("memory")
    # The client of other tests would have it done elsewhere.
    with dask.config.set(scheduler="threads"), result(x, store) as lazy:
        dask.compute(lazy)
    documents = {name: fs.cat_file(name) for name in fs.find("/two") if name.endswith(".json")}
    complete: list[bool] = []

    def looking(block: np.ndarray) -> np.ndarray:
        complete.append(zarr.open_group(store, mode="r").attrs["dcmdask"]["complete"])
        return block

    again = x.map_blocks(looking, meta=np.empty((0, 0), x.dtype))
    with dask.config.set(scheduler="threads"), result(again, store) as lazy:
        dask.compute(lazy)
    # The other one was through, and what is there is never said not to be.
    assert complete == [True, True]
    assert {name: fs.cat_file(name) for name in documents} == documents
    np.testing.assert_array_equal(zarr.open_group(store, mode="r")["pixels"][...], x.compute())


def test_what_results_have_in_common_is_done_once(tmp_path: Path) -> None:
    reads: list[int] = []

    def read(block: np.ndarray) -> np.ndarray:
        reads.append(1)
        return block

    x = da.ones((8, 4), chunks=(2, 4)).map_blocks(read, meta=np.empty((0, 0)))
    returned = {"a": x.max(axis=0), "b": x + 1, "mean": x.mean(), "text": "as it is"}
    with dask.config.set(scheduler="threads"):
        numbers, outputs = keep(returned, Staging(Folder.of(tmp_path), "x", "job"))
    assert len(reads) == 4
    assert numbers == {"mean": 1.0, "text": "as it is"}
    assert outputs == {"a": "series/x/a.zarr", "b": "series/x/b.zarr"}
    (path,) = tmp_path.glob("records/x.new/*/b.zarr")
    stored = zarr.open_group(path, mode="r")
    assert float(stored["pixels"][...].sum()) == 64


def test_odd_numbers_and_texts(tmp_path: Path) -> None:
    given = {"a": np.ma.masked, "b": "a\ud800b", "c": np.float32("nan"), "d": np.int64(2**53 + 1)}
    told, _ = keep(given, Staging(Folder.of(tmp_path), "x", "job"))
    assert told == {"a": None, "b": "a\\ud800b", "c": None, "d": 2**53 + 1}
    with pytest.raises(ValueError, match="the table has a column of that name"):
        keep({"series": 3}, Staging(Folder.of(tmp_path), "x", "job"))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([2**53 + 1, None], "Int64"),
        ([2**64 - 1, None], "UInt64"),
        ([1.5, None], "float64"),
        ([2**70, None], "object"),
        ([1, 2], "int64"),
    ],
)
def test_whole_numbers_stay_whole(cells: list[Any], kind: str) -> None:
    frame = frame_of({"series": ["a", "b"], "n": cells})
    assert str(frame["n"].dtype) == kind
    assert frame["n"][0] == cells[0]


# Records


ODD_RECORDS = {
    "deep": "[" * 200_000,
    "no object": "[1, 2]",
    "cut": '{"name": "deep"',
    "output": {"outputs": {"a": 5}},
    "series": {"numbers": {"series": "x", "a": [1]}},
    "endless": {"seconds": float("inf")},
    "large": {"seconds": 10**400},
    "file": {"files": [1]},
    "frames": {"frames": -1},
    "other": {"name": "1.2.4"},
}


@pytest.mark.parametrize("kind", ODD_RECORDS)
def test_what_is_no_record(kind: str, tmp_path: Path) -> None:
    folder, good = Folder.of(tmp_path), Record("1.2.3", True, "job", "source")
    good.write(folder)
    path = tmp_path / "records/1.2.3.json"
    change = ODD_RECORDS[kind]
    told = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps({**told, **change}))
    assert records(folder) == {}
    with pytest.raises(ValueError, match="there are no records of a job"):
        report_command(str(tmp_path), html=True)


def test_what_is_no_file_of_a_record(tmp_path: Path) -> None:
    (tmp_path / "records/1.2.3.json").mkdir(parents=True)
    (tmp_path / "records/1.2.4.json").symlink_to("1.2.4.json")
    assert records(Folder.of(tmp_path)) == {}


# Scripts


@pytest.mark.rare
def test_a_run_that_is_interrupted(archive: Path, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import time\n"
        "from dcmdask import batch\n"
        "def process(series):\n"
        "    time.sleep(0.4)\n"
        "    return {'n': len(series)}\n"
        "if __name__ == '__main__': batch.main(process)\n",
    )
    command = [sys.executable, "-m", "dcmdask", "run", path, archive, tmp_path / "out"]
    told = [*map(str, command), "--workers", "1"]
    # A terminal sends Ctrl-C to the workers as well.
    running = subprocess.Popen(told, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while running.poll() is None and not list(tmp_path.glob("out/records/*.json")):
            time.sleep(0.05)
        # Twice, as by somebody in a hurry.
        os.killpg(running.pid, signal.SIGINT)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "interrupted; the same command goes on with the rest" in said
    # Nothing of Dask's own.
    assert len(said.splitlines()) == 1
    before = len(records(Folder.of(tmp_path / "out")))
    assert 0 < before < 6
    planned = run_script(path, archive, tmp_path, "--dry-run")
    assert f"{6 - before} series to process, {before} done already" in planned.stdout
    done = started(*told)
    assert done.returncode == 0
    assert f"6 of 6 series done; {6 - before} processed now" in done.stdout
    assert f"({6 - before} new)" in done.stdout


@pytest.mark.parametrize("kind", ["pattern", "list"])
def test_sources(kind: str, client: Client, archive: Path, tmp_path: Path) -> None:
    some = [archive / "000", archive / "001"]
    source = str(archive / "00[01]") if kind == "pattern" else some
    report = batch.run(batch_jobs.napping, source, tmp_path / "out", client=client)
    assert report.done == 2
    # Paths are told from what all files share.
    assert {one.files[0].partition("/")[0] for one in report.records} == {"000", "001"}
    assert str(archive) not in "".join(p.read_text() for p in tmp_path.rglob("*.json"))


def test_lines_of_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with outcome.display() as (show, _):
        show(Progress(files=12))
        show(Progress(files=20, total=4, dashboard="http://127.0.0.1:1/status"))
        there = "http://127.0.0.1:1/status"
        show(Progress(20, 4, 2, 1, frames=6, bytes=10**6, waiting=1, dashboard=there))
    scanning, dashboard, begun, going = capsys.readouterr().err.splitlines()
    assert scanning == "12 files looked into"
    assert dashboard == "dashboard: http://127.0.0.1:1/status"
    assert begun.startswith("0 of 4 series, 0 frames, 0.0 MB/s, 0 failed")
    assert going.startswith("2 of 4 series, 6 frames, ") and going.endswith("s left")
    assert "1 failed, 1 to be tried again, about" in going


def test_nobody_reads_what_a_run_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of a pipe has gone, or the standard error was closed."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        for stream in (gone, None):
            monkeypatch.setattr(sys, "stderr", stream)
            with outcome.display() as (show, _):
                show(Progress(files=12))
                show(Progress(files=20, total=4, dashboard="http://127.0.0.1:1/status"))


def test_a_store_that_is_lost_is_not_tried_again() -> None:
    assert may_pass(OSError(5, "the disk")) and not may_pass(StoreLostError("not written"))


def test_workers_are_given_series_once_they_are_checked(client: Client, tmp_path: Path) -> None:
    needed = workers.Requirements(Folder.of(tmp_path), [], False)
    assert workers.Workers(client, needed, []).ready == []
    checked = workers.check_workers(client, needed)
    assert sorted(workers.Workers(client, needed, checked).ready) == sorted(checked) != []


def run_script(path: Path, archive: Path, tmp_path: Path, *more: Any) -> Any:
    way = [sys.executable, "-m", "dcmdask", "run", path, archive, tmp_path / "out"]
    return started(*way, "--workers", "1", *more)


@pytest.mark.slow
@pytest.mark.rare
def test_a_script_without_a_guard(archive: Path, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "from dcmdask import batch\n"
        "if TYPE_CHECKING:\n"
        "    import dcmdask\n"
        "def process(series: dcmdask.Series, k: int):\n"
        "    return {'n': k}\n"
        "def finish(table, target):\n"
        "    raise ValueError('the table is wrong')\n"
        "batch.main(process, finish=finish)\n",
    )
    ended = run_script(path, archive, tmp_path, "--k", "3")
    # What finish does wrong keeps nothing from being told.
    assert "6 of 6 series done" in ended.stdout
    assert ended.returncode == 2 and "the table is wrong" in ended.stderr
    assert set(pd.read_csv(tmp_path / "out/results.csv")["n"]) == {3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def process(series, *more): pass\n", "process has a parameter \\*more"),
        ("def process(series, /, x, *, y: Nowhere = 1): pass\n", "annotation of the parameter y"),
        ("def process(): pass\n", "cannot be called with a series"),
        (
            "import threading\nlock = threading.Lock()\ndef process(series): lock\n",
            "such as a lock",
        ),
        ("def process(series, limit: int = 3): pass\n", "that is an option of all jobs: limit"),
    ],
    ids=["any", "annotation", "nothing", "lock", "taken"],
)
def test_scripts_that_are_no_jobs(
    text: str,
    message: str,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = "from __future__ import annotations\nfrom dcmdask import batch\n"
    call = "if __name__ == '__main__': batch.main(process)\n"
    path = script(tmp_path, before + text + call)
    monkeypatch.setattr(sys, "argv", [str(path), str(archive), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_a_script_that_does_not_call_main(archive: Path, tmp_path: Path) -> None:
    ended = run_script(script(tmp_path, "pass"), archive, tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "has not called dcmdask.batch.main" in line


def test_what_was_handed_out_is_not_held(archive: Path, tmp_path: Path) -> None:
    def held() -> int:
        gc.collect()
        known = (one for one in gc.get_objects() if isinstance(one, Series))
        return sum(one.instances[0].source.name.startswith(str(archive)) for one in known)

    before = held()
    found = selected(batch_jobs.napping, archive, Folder.of(tmp_path))
    assert held() == before + 6
    names = [work.name for work in found.works()]
    assert names == [f"{made_series.SERIES}.{number}" for number in range(6)]
    assert held() == before and found.total == 6 and not list(found.works())
    # What is the caller's own is left alone.
    own = dcmdask.scan(archive)
    assert len(list(selected(batch_jobs.napping, own, Folder.of(tmp_path)).works())) == 6
    assert held() == before + 6 == before + len(own)


def test_workers_open_series_as_they_were_scanned(client: Client, tmp_path: Path) -> None:
    """fo-dicom issue 340: files that lack Bits Stored."""
    source, target, log = tmp_path / "in", tmp_path / "out", str(tmp_path / "log")
    frames = noise(3, 8, 8, dtype="u2", bits=12)
    positions = made_series.along(made_series.AXIAL, 2.5 * np.arange(3))
    uid = f"{made_series.SERIES}.0"
    made_series.classic(source, frames, positions, series=uid, BitsStored=None)
    given: dict[str, Any] = {"client": client, "options": {"log": log}}
    report = batch.run(batch_jobs.good, source, target, bits_stored=12, **given)
    assert report.ok and report.processed == 1
    assert pd.read_csv(target / "results.csv")["peak"].item() == frames.max()
    assert not batch.run(batch_jobs.good, source, target, bits_stored=12, **given).processed
    again = batch.run(batch_jobs.good, source, target, bits_stored=13, redo=True, **given)
    assert again.processed == 1
    with pytest.raises(TypeError, match=r"run\(\) .* did you mean 'retries'"):
        batch.run(batch_jobs.good, source, target, retrys=3, **given)
