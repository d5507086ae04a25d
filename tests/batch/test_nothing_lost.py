"""No command changes or removes a file that dcmdask did not write, or a result that is good."""

import hashlib
import io
import itertools
import json
import os
import pty
import random
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import batch_jobs
import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client
from distributed.protocol import pickle
from export_worker import Exporter
from made_series import AXIAL, SERIES, along, archive, classic
from make_dicom import noise

import dcmdask
from dcmdask import DcmdaskWarning, StoreExistsError, StoreLostError, batch
from dcmdask.batch.identity import source_of, times_of
from dcmdask.batch.outputs import claim
from dcmdask.batch.records import Record, records
from dcmdask.batch.staging import Staging, settled
from dcmdask.batch.work import Job, Work, process_series
from dcmdask.report.page import write_page
from dcmdask.report.summary import summarise
from dcmdask.sources.folder import Folder

# Workers of other processes know nothing of this folder.
pickle.cloudpickle.register_pickle_by_value(batch_jobs)
# Layouts of the property, each from its number; another beginning tries others.
LAYOUTS = 12
BEGIN = int(os.environ.get("DCMDASK_SEED", "0"))


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    forks = Exporter(tmp_path_factory.mktemp("counts"))
    yield forks
    forks.close()


def listing(folder: Path) -> dict[str, str]:
    """What each file is: a hash of its content, or where a link leads."""
    found = {}
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(above, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
            elif path.is_file():
                found[str(path.relative_to(folder))] = hashlib.sha1(path.read_bytes()).hexdigest()
    return found


def is_marked(target: Path) -> bool:
    try:
        return isinstance(json.loads((target / "dcmdask.json").read_bytes())["dcmdask"], dict)
    except (OSError, ValueError):
        return False


class Layout:
    """Somebody's folders: a source, foreign files and links, and where targets may be."""

    def __init__(self, place: Path, dice: random.Random) -> None:
        self.dice = dice
        self.place = place
        self.study = place / "study"
        # Where a job of this archive would put its outputs, or elsewhere.
        names = dice.choice(["series/{uid}", "{number:03}", "series/{number}/pixels/c"])
        self.uids = [f"{SERIES}.{number}" for number in range(2)]
        for number, uid in enumerate(self.uids):
            folder = self.study / names.format(uid=uid, number=number)
            paths = classic(folder, noise(3, 8, 8), along(AXIAL, [0, 1, 2]), series=uid, seed=None)
            if dice.random() < 0.3:
                # As chunks of an array are called.
                for index, path in enumerate(paths):
                    path.rename(path.with_name(str(index)))
        self.sources = [self.study]
        if (self.study / "series").exists():
            self.sources.append(self.study / "series")
        self.targets = [
            self.study,
            place,
            self.study / "series",
            self.study / "out",
            place / "out",
            place / "elsewhere" / "out",
        ]
        if dice.random() < 0.5:
            (place / "linked").symlink_to(dice.choice([self.study, place / "out"]))
            self.targets.append(place / "linked")
            self.sources.append(place / "linked")

    def plant(self, target: Path) -> None:
        """Put files where dcmdask writes to, and beside that."""
        for _ in range(self.dice.randrange(4)):
            uid = self.dice.choice(self.uids)
            name = self.dice.choice(
                [
                    "results.csv",
                    "results.parquet",
                    "report.html",
                    "dcmdask.json",
                    "page.html",
                    "ct.zarr",
                    "ct.zarr/notes.txt",
                    "ct.zarr/pixels/c/7/0/0",
                    "ct.zarr/other/zarr.json",
                    ".ct.zarr.lock",
                    f"records/{uid}.json",
                    "records/readme",
                    f"series/{uid}/annotation.json",
                    f"series/{uid}/mip.zarr",
                    f"series/{uid}/mip.zarr/notes.txt",
                    f"series/{uid}/view.png",
                    f"series/{uid}/extra.zarr/zarr.json",
                    f"series/{uid}/.new-0123/mine",
                ]
            )
            path = target / name
            if os.path.lexists(path) or (path.parent.name == "records" and is_marked(target)):
                # The mark lists that folder as a whole.
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if self.dice.random() < 0.3:
                    # To a folder with something in it, or to nowhere.
                    path.symlink_to(self.dice.choice([self.study, self.place / "nowhere"]))
                else:
                    path.write_text(f"foreign {self.dice.random()}")
            except OSError:
                # A file is where a folder would have to be.
                continue

    def order(self) -> dict[str, Any]:
        """Return a command with its source and target."""
        dice = self.dice
        target = dice.choice(self.targets)
        command = dice.choice(["run", "run", "run", "export", "export", "report"])
        order: dict[str, Any] = {
            "command": command,
            "src": dice.choice(self.sources),
            "store": target,
        }
        if command == "run":
            order["job"] = dice.choice(["first", "second", "third"])
        if command == "report":
            order["page"] = dice.choice([None, str(target / "page.html")])
        if command == "export":
            order["store"] = dice.choice([target, target / "ct.zarr"])
            how = dice.choice([{}, {"overwrite": True}, {"overwrite": True}, {"resume": True}])
            order["options"] = how
        if dice.random() < 0.3:
            order |= {"watched": str(self.place), "kill_at": dice.randrange(40)}
        return order


# Errors that a command in a layout may end with; "" where it does what it says.
EXPECTED = {
    "",
    "StoreExistsError",
    "AmbiguousSourceError",
    "FileExistsError",
    "FileNotFoundError",
    "IsADirectoryError",
    "NotADirectoryError",
    "StoreLostError",
    "ValueError",
}


def lost(
    forks: Exporter, place: Path, number: int, outcomes: Counter[str], **more: Any
) -> list[str]:
    """Try commands in a layout; return the foreign files that have changed or gone."""
    dice = random.Random(number)
    place.mkdir()
    layout = Layout(place, dice)
    foreign = listing(place)
    for _ in range(4):
        order = layout.order()
        before = listing(place)
        layout.plant(order["store"])
        planted = listing(place)
        foreign |= {name: planted[name] for name in planted.keys() - before.keys()}
        answer = forks.export(**order, **more)
        if answer is not None and "mutant" not in more:
            error = answer.get("error", [""])[0]
            assert error in EXPECTED, (number, order, answer)
            outcomes[error] += 1
        now = listing(place)
        if changed := [name for name, told in foreign.items() if now.get(name) != told]:
            return [f"layout {number}: {order}", *changed]
    return []


@pytest.mark.slow
def test_foreign_files_stay(forks: Exporter, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    for number in range(BEGIN, BEGIN + LAYOUTS):
        assert not lost(forks, tmp_path / str(number), number, outcomes)
    # Much is refused, and much is done.
    assert min(outcomes[""], outcomes["ValueError"], outcomes["StoreExistsError"]) > 1


@pytest.mark.slow
def test_the_layouts_catch_a_missing_check(forks: Exporter, tmp_path: Path) -> None:
    for number in range(LAYOUTS):
        if lost(forks, tmp_path / str(number), number, Counter(), mutant="check_ours"):
            return
    pytest.fail("without the check of what dcmdask wrote nothing was lost")


# Results


def results(target: Path) -> dict[str, str]:
    """The outputs of all series, and their folders."""
    folders = [path for path in (target / "series").rglob("*") if path.is_dir()]
    return listing(target / "series") | {str(path.relative_to(target)): "" for path in folders}


def readable(target: Path) -> dict[str, bytes]:
    """The content of each output of the series, as far as it can be read."""
    found = {}
    for path in sorted((target / f"series/{SERIES}").glob("[!.]*")):
        if path.is_file():
            found[path.name] = path.read_bytes()
        elif (path / "zarr.json").exists():
            values = zarr.open_group(path, mode="r")["pixels"][...]
            found[path.name] = str(values.shape).encode() + values.tobytes()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("after", [pytest.param("nothing", marks=pytest.mark.rare), "first"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(
    after: str, forks: Exporter, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    classic(source, noise(3, 8, 8), along(AXIAL, [0, 1, 2]), seed=None)
    old, new = tmp_path / "old", tmp_path / "new"

    def done(target: Path, job: str, **more: Any) -> dict[str, Any] | None:
        (target / "records").mkdir(parents=True, exist_ok=True)
        return forks.export(source, target, command="series", job=job, **more)

    if after == "first":
        assert done(old, "first") == {"done": [True], "changes": None}
        shutil.copytree(old, new)
    told = done(new, "second", watched=str(new))
    assert told is not None and told["done"] == [True]
    before = results(old) if after == "first" else {}
    expected, changes = results(new), told["changes"]
    assert changes > 10 and set(expected) != set(before)
    for kill_at in range(0, changes, 4):
        target = tmp_path / str(kill_at)
        if after == "first":
            shutil.copytree(old, target)
        assert done(target, "second", watched=str(target), kill_at=kill_at) is None
        # Each output that can be read is the old one or the new one, never a mixture.
        for name, content in readable(target).items():
            assert content in (readable(old).get(name), readable(new).get(name)), (kill_at, name)
        # The next run finishes it, whatever was left; nothing is left beside.
        again = done(target, "second")
        assert again is not None and again["done"] in ([True], [])
        assert results(target) == expected, kill_at


@pytest.mark.rare
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_no_part_of_a_store_is_a_mixture(
    zarr_format: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever folder it lies, and as whatever it is opened."""
    steps, stop_at = itertools.count(), -1

    def stopping(call: Any) -> Any:
        def told(*given: Any, **more: Any) -> Any:
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return call(*given, **more)

        return told

    def written(folder: Folder, version: int) -> tuple[Staging, Record]:
        staging = Staging(folder, "1.2", str(version))
        for name in ("flat.zarr", "nested.dir/a/b.zarr"):
            top, _, rest = name.partition("/")
            root = Path(staging.output(top), rest)
            group = zarr.create_group(root, zarr_format=zarr_format, attributes={"v": version})
            inner = group.create_group("inner", attributes={"v": version})
            for one in (group, inner):
                array = one.create_array("x", shape=(2,), chunks=(1,), dtype="i4")
                array.attrs["v"] = version
                array[:] = version
            if zarr_format == 2:
                zarr.consolidate_metadata(root, zarr_format=2)
        return staging, replace(recorded(str(version)), outputs=staging.given)

    def check(target: Path) -> None:
        for path in (target / "series/1.2").glob("[!.]*/**/"):
            try:
                node = zarr.open(path, mode="r")
            except FileNotFoundError:
                continue
            seen = {node.attrs["v"]}
            groups = [node] if isinstance(node, zarr.Group) else []
            while groups:
                group = groups.pop()
                assert {*group} >= {"x"}
                groups += [one for _, one in group.groups()]
                seen |= {group.attrs["v"], group["x"].attrs["v"], *map(int, group["x"][:])}
            if isinstance(node, zarr.Array):
                seen |= {*map(int, node[:])}
            assert seen in ({1}, {2}), path

    both = Folder.of(tmp_path / "both")
    staging, record = written(both, 1)
    earlier = staging.put_in_place(record, None)
    staging, record = written(both, 2)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, stopping(getattr(os, name)))
    for number in itertools.count():
        target = tmp_path / str(number)
        shutil.copytree(both.url, target)
        stop_at, steps = number, itertools.count()
        staging.folder = Folder.of(target)
        try:
            staging.put_in_place(record, earlier)
            break
        except KeyboardInterrupt:
            check(target)
    check(target)
    assert number > 20


def test_the_old_results_stay_where_the_new_ones_fail(forks: Exporter, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "out"
    classic(source, noise(3, 8, 8), along(AXIAL, [0, 1, 2]), seed=None)
    order = {"command": "run"}
    assert forks.export(source, target, job="first", **order)["failures"] == []
    before, table = results(target), (target / "results.csv").read_text()
    failed = forks.export(source, target, job="third", **order)
    assert failed["failures"] == ["'a typo'"]
    assert results(target) == before and (target / "results.csv").read_text() == table
    # The typo is mended: nothing has to be done again.
    again = forks.export(source, target, job="first", **order)
    assert (again["done"], again["failures"]) == (1, [])
    assert results(target) == before


# What counts as a change


JOB = """
import json
import helper
from dcmdask import batch

def process(series, scale: int = 1):
    with open({log!r}, "a") as file:
        file.write(series.uid + "\\n")
    return {{"n": len(series) * scale * helper.FACTOR}}

if __name__ == "__main__":
    batch.main(process)
"""


class Archive:
    """Twelve series, a script with a module beside it, and what has been processed."""

    def __init__(self, place: Path, client: Client) -> None:
        self.source, self.target = place / "source", place / "out"
        archive(self.source, 12)
        self.script, self.log = place / "job.py", place / "log"
        self.script.write_text(JOB.format(log=str(self.log)))
        (place / "helper.py").write_text("FACTOR = 1\n")
        self.address = client.scheduler.address

    def run(self, *more: str) -> tuple[int, str]:
        """Run the job; return the exit code and what it says."""
        # As a new process would, import what lies beside the script.
        sys.modules.pop("helper", None)
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patched, redirect_stdout(said), redirect_stderr(said):
            patched.setattr(sys, "argv", self.command(*more))
            patched.setattr(sys, "path", [str(self.script.parent), *sys.path])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(self.script), run_name="__main__")
        assert "Traceback" not in said.getvalue(), said.getvalue()
        return int(ended.value.code or 0), said.getvalue()

    def command(self, *more: str) -> list[str]:
        command = [self.script, self.source, self.target, *more]
        return [*map(str, command), "--scheduler", self.address, "--no-thumbnails"]

    @property
    def processed(self) -> int:
        """How many series since this was last asked."""
        told = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return len(told)


@pytest.fixture
def twelve(client: Client, tmp_path: Path) -> Archive:
    found = Archive(tmp_path, client)
    # Workers import what lies beside the script from where the driver does.
    client.run(batch_jobs.found_from, str(tmp_path))
    code, told = found.run()
    assert code == 0 and found.processed == 12, told
    return found


def redated(path: Path) -> None:
    os.utime(path, ns=(0, 1_000_000_000 + path.stat().st_mtime_ns))


@pytest.mark.slow
def test_what_is_no_change_and_what_is(twelve: Archive) -> None:
    text = twelve.script.read_text()
    twelve.script.write_text(f'"""Says what it does."""\n# A comment.\n{text}')
    moved = twelve.source.with_name("elsewhere")
    twelve.source.rename(moved)
    twelve.source = moved
    for path in moved.rglob("*"):
        if path.is_file():
            redated(path)
    code, told = twelve.run()
    assert code == 0 and "12 of 12 series done; 0 processed now" in told
    assert twelve.processed == 0

    # Workers that run already have imported the former module.
    twelve.script.with_name("helper.py").write_text("FACTOR = 2\n")
    refused(twelve, 12)
    code, told = twelve.run("--redo")
    assert code == 0 and "12 processed now" in told and twelve.processed == 12
    assert {*pd.read_csv(twelve.target / "results.csv")["n"]} == {4}

    # A quarter of the series, by one bit each; the size is the same.
    for number in range(3):
        path = moved / f"{number:03}/0000"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        redated(path)
    refused(twelve, 3)
    # A tenth is not asked for.
    code, told = twelve.run(
        "--select", f'series_uid != "{SERIES}.0" and series_uid != "{SERIES}.1"'
    )
    assert code == 0 and "1 processed now" in told and "(1 changed)" in told
    assert twelve.processed == 1


def refused(twelve: Archive, changed: int) -> None:
    before = (twelve.target / "results.csv").read_text()
    code, told = twelve.run()
    assert code == 2 and f"{changed} of 12 series that are done would be done again" in told
    assert "--redo" in told and twelve.processed == 0
    assert (twelve.target / "results.csv").read_text() == before


# Whose Ctrl-C is that of the terminal, as in a shell.
OF_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY)
os.execv(sys.argv[1], sys.argv[1:])
"""


def drain(terminal: int, said: bytearray) -> None:
    """Read from a terminal until nobody writes to it any more."""
    with suppress(OSError):
        while data := os.read(terminal, 1000):
            said += data


@pytest.mark.rare
def test_somebody_at_a_terminal_is_asked(twelve: Archive) -> None:
    """Of another option."""
    told = [sys.executable, *twelve.command("--scale", "3")]
    # No, the end of the input, Ctrl-C, and yes.
    answers = (("n\n", 2, 0), ("\x04", 2, 0), ("\x03", 130, 0), ("y\n", 0, 12))
    for answer, code, processed in answers:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-c", OF_A_TERMINAL, *told],
            stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, start_new_session=True,
        ) as job:  # fmt: skip
            os.close(theirs)
            said = bytearray()
            while b"[y/N]" not in said:
                said += os.read(ours, 1000)
            # A terminal that nobody reads from stops whoever writes to it.
            reader = threading.Thread(target=drain, args=(ours, said))
            reader.start()
            os.write(ours, answer.encode())
            try:
                job.communicate(timeout=120)
            finally:
                job.kill()
        reader.join()
        os.close(ours)
        assert b"12 of 12 series that are done would be done again" in said
        assert (job.returncode, twelve.processed) == (code, processed)
    assert {*pd.read_csv(twelve.target / "results.csv")["n"]} == {6}


# Targets


@pytest.mark.parametrize("target", [".", "series", "..", "series/1.2", "link"])
def test_a_target_that_is_or_holds_the_source(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with the layout of a target: `run job.py series/ .`"""
    study = tmp_path / "study"
    paths = classic(study / f"series/{SERIES}", noise(3, 8, 8), along(AXIAL, [0, 1, 2]), seed=None)
    (study / "series/1.2").mkdir()
    (study / "series/1.2/notes.txt").touch()
    (study / "link").symlink_to(study / "series")
    before = listing(tmp_path)
    monkeypatch.chdir(study)
    with pytest.raises(ValueError, match=r"the target .* (is|holds|lies in) the source .*series"):
        batch.run(len, "series/", target)
    with pytest.raises(ValueError, match=r"the target .* (is|holds) the source"):
        dcmdask.to_zarr(paths[0], "series" if target == "link" else ".", overwrite=True)
    assert listing(tmp_path) == before


def test_a_target_that_a_link_of_the_source_leads_to(tmp_path: Path) -> None:
    """Marked, it would vanish from later scans."""
    archive(tmp_path / "other", 2)
    archive(tmp_path / "study", 1)
    (tmp_path / "study/more").symlink_to(tmp_path / "other")
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=r"the target .*other (is|holds) the source"):
        batch.run(len, tmp_path / "study", tmp_path / "other", follow_links=True)
    assert listing(tmp_path) == before


@pytest.mark.rare
def test_a_target_inside_the_source_feeds_nothing(client: Client, tmp_path: Path) -> None:
    archive(tmp_path, 2)

    def process(series: Any) -> None:
        import shutil

        shutil.copy(series.instances[0].source.path, batch.output("copy.dcm"))

    for processed in (2, 0):
        report = batch.run(process, tmp_path, tmp_path / "out", client=client)
        assert (report.done, report.processed, report.ok) == (2, processed, True)
    assert len(dcmdask.scan(tmp_path)) == 2
    # What is asked for is scanned.
    assert len(dcmdask.scan(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "name", ["results.csv", "records/notes", "dcmdask.json", "notes.txt", ".hidden", "study/0001"]
)
def test_what_stands_in_the_way_of_a_target(name: str, tmp_path: Path) -> None:
    archive(tmp_path / "source", 1)
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("somebody's")
    before = listing(tmp_path)
    first = tmp_path / "out" / name.partition("/")[0]
    with pytest.raises(StoreExistsError, match=f"{first} stands in the way"):
        batch.run(len, tmp_path / "source", tmp_path / "out")
    assert listing(tmp_path) == before


def test_a_folder_with_files_of_somebody_becomes_no_target(folder: Folder) -> None:
    """Marked, it would vanish from later scans."""
    folder.write("siteB/1.dcm", b"somebody's")
    with pytest.raises(StoreExistsError, match=r"siteB stands .* take a new or an empty folder"):
        claim(folder, ["results.csv"])
    assert folder.names("") == ["siteB"]
    folder.remove(["siteB/1.dcm"])
    # A process that was killed while it wrote the mark.
    folder.write(f".dcmdask.json.{'0' * 32}.partial", b"{")
    claim(folder, ["results.csv"])
    # From now on somebody's files may lie beside.
    folder.write("notes.txt", b"somebody's")
    claim(folder, ["index.csv"])
    assert len(folder.names("")) == 3


@pytest.mark.rare
def test_what_stands_in_the_way_of_an_output(client: Client, tmp_path: Path) -> None:
    archive(tmp_path / "source", 2)
    out = tmp_path / "out"
    claim(Folder.of(out), [])
    note, picture = out / f"series/{SERIES}.0/note.txt", out / f"series/{SERIES}.1/view.png"
    for path in (note, picture):
        path.parent.mkdir(parents=True)
        path.write_text("somebody's")

    def process(series: Any) -> dict[str, Any]:
        return {"view": batch.Picture(np.eye(4))}

    report = batch.run(process, tmp_path / "source", out, client=client)
    (failure,) = report.failures
    assert (failure.name, failure.stage) == (f"{SERIES}.1", "write")
    assert f"{picture} stands in the way" in failure.message
    assert note.read_text() == picture.read_text() == "somebody's"
    picture.unlink()
    assert batch.run(process, tmp_path / "source", out, client=client).ok
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("columns", [(), ("peak",)])
def test_finish_with_nothing_done(columns: tuple[str, ...], client: Client, tmp_path: Path) -> None:
    archive(tmp_path / "source", 1)
    peaks = []

    def process(series: Any) -> dict[str, Any]:
        raise KeyError("nothing is done")

    def run() -> batch.BatchReport:
        return batch.run(
            process,
            tmp_path / "source",
            tmp_path / "out",
            client=client,
            columns=columns,
            finish=lambda table, _: peaks.append(table["peak"].max()),
        )

    if columns:
        assert run().done == 0
        assert len(peaks) == 1 and np.isnan(peaks[0])
    else:
        with pytest.warns(DcmdaskWarning, match="finish was not called: no series is done"):
            assert run().done == 0
        assert not peaks


# On an object store, where nothing can be locked


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder.of(tmp_path / "out" if request.param == "local" else f"memory://{tmp_path.name}")


def staged(folder: Folder, version: str, **files: bytes) -> Staging:
    staging = Staging(folder, "1.2", f"{version} files times")
    staging.clear()
    for name, data in files.items():
        staging.write(f"{name}.png", data)
    return staging


def recorded(version: str, *names: str) -> Record:
    outputs = {name: f"series/1.2/{name}.png" for name in names}
    made = {"made_by": version, "made_from": "files", "times": "times"}
    return Record("1.2", True, version, "files", outputs=outputs, **made)


def contents(folder: Folder) -> dict[str, bytes]:
    keys = folder.files("series/1.2")
    return {
        key: data[0] for key in keys for data in [[*folder.read([f"series/1.2/{key}"]).values()]]
    }


def test_a_late_worker_of_another_version_changes_nothing(folder: Folder) -> None:
    """Its driver was interrupted, and nobody has stopped its thread."""
    late = staged(folder, "old", a=b"old", b=b"old")
    new = staged(folder, "new", a=b"new")
    late.write("b.png", b"old")
    assert not new.put_in_place(recorded("new", "a"), None).pending
    late.write("a.png", b"old")
    with pytest.raises(StoreExistsError, match="another version of the job has put its results"):
        late.put_in_place(recorded("old", "a", "b"), None)
    late.discard()
    assert contents(folder) == {"a.png": b"new"}
    assert records(folder)["1.2"].made_by == "new"


def test_a_late_worker_writes_no_record_over_that_of_another_version(tmp_path: Path) -> None:
    archive(tmp_path / "source", 1)
    (series,) = dcmdask.scan(tmp_path / "source")
    folder = Folder.of(f"memory://{tmp_path.name}")
    source = source_of(series)

    def process(_: Any) -> dict[str, Any]:
        # Meanwhile the other one is through.
        made = {"made_by": "new", "made_from": source, "times": times_of(series)}
        Record("1.2", True, "new", source, numbers={"n": 2}, **made).write(folder)
        return {"n": 1}

    Record("1.2", False, "old", source, "process").write(folder)
    job = Job(pickle.dumps(process), {}, folder, "old", thumbnails=False)
    done = process_series(job, Work("1.2", series, source, times_of(series)))
    assert done.record is not None
    assert (done.record.done, done.record.error) == (False, "StoreExistsError")
    there = records(folder)["1.2"]
    assert (there.done, there.job, there.numbers) == (True, "new", {"n": 2})


def test_an_output_that_was_not_written(folder: Folder) -> None:
    staging = staged(folder, "job", a=b"a")
    staging.output("b.png")
    with pytest.raises(StoreLostError, match=r"the output b\.png was not written"):
        staging.put_in_place(recorded("job", "a", "b"), None)
    assert not records(folder)


@pytest.mark.parametrize("damage", ["gone", "foreign path", "no JSON"])
def test_a_list_that_cannot_be_believed(damage: str, folder: Folder) -> None:
    """Nothing is put in place or removed by it, and the record does not call the series done."""
    staged(folder, "job", a=b"a")
    record = replace(recorded("job", "a"), pending=True)
    record.write(folder)
    if damage != "gone":
        told = {"written": ["../../results.csv"], "new": [], "from": "records/1.2.new/00"}
        text = json.dumps(told) if damage == "foreign path" else "{"
        folder.write("records/1.2.files", text.encode())
    folder.write("results.csv", b"somebody's")
    with pytest.raises(StoreLostError, match=r"are lost; remove records/1\.2\.files and the"):
        settled(folder, record)
    assert records(folder)["1.2"].pending
    assert folder.read(["results.csv"]) == {"results.csv": b"somebody's"}


@pytest.mark.parametrize("name", ["..", ".", "a", "1..2", "series-x"])
def test_a_record_of_a_name_that_dcmdask_does_not_give(name: str, folder: Folder) -> None:
    """It would lead elsewhere."""
    folder.write("precious.txt", b"somebody's")
    Record(name, True, "job", "files", pending=True, made_by="job").write(folder)
    told = {"written": ["precious.txt"], "new": [], "from": f"records/{name}.new/00"}
    folder.write(f"records/{name}.files", json.dumps(told).encode())
    assert records(folder) == {}


def test_objects_are_removed_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.of("memory://several")
    staging = staged(folder, "job", **{f"a{number}": b"" for number in range(8)})
    removed: list[str] = []
    fs, _ = folder._open()
    remove, together = fs.rm_file, threading.Barrier(4, timeout=20)

    def waiting(path: str) -> None:
        if path.endswith(".png"):
            together.wait()
        removed.append(path)
        remove(path)

    monkeypatch.setattr(fs, "rm_file", waiting)
    staging.discard()
    assert len(removed) == 8 and not folder.files("records")


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A store that was moved to another disk, with a link in its place."""
    folder = Folder.of(tmp_path / "out")
    first = Staging(folder, "1.2", "first")
    Path(first.output("big.zarr")).mkdir()
    Path(first.output("big.zarr"), "data").write_text("much")
    done = first.put_in_place(replace(recorded("first"), outputs=first.given), None)
    (tmp_path / "out/series/1.2/big.zarr").rename(tmp_path / "elsewhere")
    (tmp_path / "out/series/1.2/big.zarr").symlink_to(tmp_path / "elsewhere")
    staged(folder, "second", a=b"a").put_in_place(recorded("second", "a"), done)
    assert (tmp_path / "elsewhere/data").read_text() == "much"
    assert (tmp_path / "out/series/1.2/big.zarr").is_symlink()


@pytest.mark.parametrize("name", ["series", "series/1.2"])
def test_no_series_behind_a_link(name: str, tmp_path: Path) -> None:
    archive(tmp_path / "archive/1.2", 1)
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "archive" / name.partition("/")[2])
    (series,) = dcmdask.scan(tmp_path / "archive")
    before = listing(tmp_path / "archive")

    def process(_: Any) -> None:
        Path(batch.output("copy.dcm")).write_text("made by a job")

    folder, times = Folder.of(tmp_path / "out"), times_of(series)
    job = Job(pickle.dumps(process), {}, folder, "job", thumbnails=False)
    done = process_series(job, Work("1.2", series, source_of(series), times))
    assert done.record is not None and not done.record.done
    assert f"{link} (a link) stands in the way" in done.record.message
    with pytest.raises(StoreExistsError, match=r"\(a link\) stands in the way"):
        settled(folder, replace(recorded("job", "a"), pending=True))
    assert listing(tmp_path / "archive") == before


@pytest.mark.parametrize("name", ["records", "index.csv", "results.csv", "dcmdask.json"])
def test_nothing_beside_the_series_is_written_through_a_link(name: str, tmp_path: Path) -> None:
    """Somebody keeps it elsewhere, with notes."""
    folder = Folder.of(tmp_path / "out")
    claim(folder, ["results.csv", "index.csv"])
    (tmp_path / "elsewhere").write_text("with notes")
    (tmp_path / "out" / name).unlink(missing_ok=True)
    (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    before = listing(tmp_path)
    with pytest.raises(StoreExistsError, match=rf"{name} \(a link\) stands in the way"):
        claim(folder, ["results.csv", "index.csv"])
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["report.html", "page.html", "run.sh"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_report_replaces_only_a_report(name: str, kind: str, tmp_path: Path) -> None:
    folder = Folder.of(tmp_path / "out")
    recorded("job").write(folder)
    path = tmp_path / "out" / name
    if kind == "file":
        path.write_text("dcmdask report out/ --html")
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = listing(tmp_path)
    summary = summarise(records(folder).values())
    with pytest.raises(StoreExistsError, match=f"{path} stands in the way"):
        write_page(summary, folder, str(path))
    assert listing(tmp_path) == before
    path.unlink()
    for _ in range(2):
        assert write_page(summary, folder, str(path)) == str(path)
    # Somebody has made notes in it.
    path.write_text(path.read_text() + "<p>my notes</p>")
    with pytest.raises(StoreExistsError, match=f"{path} stands in the way"):
        write_page(summary, folder, str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreExistsError, match=f"{path} stands in the way"):
        write_page(summary, folder, str(path))


def test_each_sentence_of_the_contract_has_its_test() -> None:
    here = Path(__file__).parents[1]
    text = (here.parent / "pipelines/README.md").read_text()
    named = set(re.findall(r"\| `(test_\w+)` \|", text))
    defined = set(
        re.findall(r"^def (test_\w+)", "".join(map(Path.read_text, here.rglob("*.py"))), re.M)
    )
    assert len(named) > 10 and named <= defined
