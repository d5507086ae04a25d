"""No command changes or removes a file that dcmdask did not write, or a result that is good."""

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from export_worker import Exporter
from made_series import AXIAL, SERIES, along, classic
from make_dicom import noise

# Layouts of the property, each from its number; another beginning tries others.
LAYOUTS = 24
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
                    f"series/{uid}/.new/mine",
                ]
            )
            path = target / name
            if os.path.lexists(path):
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if self.dice.random() < 0.2:
                    path.symlink_to(self.place / "anywhere")
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


def lost(forks: Exporter, place: Path, number: int, **more: Any) -> list[str]:
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
        forks.export(**order, **more)
        now = listing(place)
        if changed := [name for name, told in foreign.items() if now.get(name) != told]:
            return [f"layout {number}: {order}", *changed]
    return []


@pytest.mark.slow
def test_foreign_files_stay(forks: Exporter, tmp_path: Path) -> None:
    for number in range(BEGIN, BEGIN + LAYOUTS):
        assert not lost(forks, tmp_path / str(number), number)


@pytest.mark.slow
def test_the_layouts_catch_a_missing_check(forks: Exporter, tmp_path: Path) -> None:
    numbers = range(BEGIN, BEGIN + LAYOUTS)
    assert any(lost(forks, tmp_path / str(number), number, mutant=True) for number in numbers)


# Results


def results(target: Path) -> dict[str, str]:
    """The outputs of all series."""
    return listing(target / "series")


@pytest.mark.slow
@pytest.mark.parametrize("after", ["nothing", "first"])
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
    for kill_at in range(0, changes, 2):
        target = tmp_path / str(kill_at)
        if after == "first":
            shutil.copytree(old, target)
        assert done(target, "second", watched=str(target), kill_at=kill_at) is None
        # The next run finishes it, whatever was left; nothing is left beside.
        again = done(target, "second")
        assert again is not None and again["done"] in ([True], [])
        assert results(target) == expected, kill_at


def test_the_old_results_stay_where_the_new_ones_fail(forks: Exporter, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "out"
    classic(source, noise(3, 8, 8), along(AXIAL, [0, 1, 2]), seed=None)
    order = {"command": "run"}
    assert forks.export(source, target, job="first", **order)["failures"] == []
    before, table = results(target), (target / "results.csv").read_text()
    failed = forks.export(source, target, job="third", **order)
    assert failed["failures"] == ["'a typo'"]
    now = {name: told for name, told in results(target).items() if "/.new/" not in name}
    assert now == before and (target / "results.csv").read_text() == table
    # The typo is mended: nothing has to be done again.
    again = forks.export(source, target, job="first", **order)
    assert (again["done"], again["failures"]) == (1, [])
    assert results(target) == before
