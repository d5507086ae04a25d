"""Metadata that nobody wrote: no store of them is called whole, and none takes for ever."""

import copy
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import commands
import dask
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from made_series import AXIAL, along, classic
from make_dicom import noise

from dcmdask import DcmdaskError, to_zarr, verify
from dcmdask.store import regions
from dcmdask.store.verification.metadata import check_metadata

OPTIONS: dict[str, Any] = {
    "format": "ome-zarr",
    "levels": 2,
    "chunks": (2, 9, 7),
    "shards": None,
    "on_error": "fill",
    "fill_value": 0,
}
# What of the group decides nothing that can be checked: what wrote it, where the source was,
# and how a later version is to go on.
FREE = {
    ("dcmdask", "version"),
    ("dcmdask", "versions"),
    ("dcmdask", "source"),
    ("dcmdask", "plan", "source"),
    ("dcmdask", "plan", "codecs"),
    ("dcmdask", "plan", "options"),
    ("dcmdask", "plan", "on_irregular"),
    ("dcmdask", "plan", "fill_value"),
}
REMOVED = object()
VALUES = (None, -1, -(10**9), 10**9, 10**30, 0, 0.5, "x", "", [], {}, True, REMOVED)


@pytest.fixture(autouse=True, scope="module")
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "in"
    folder.mkdir()
    classic(folder, noise(4, 9, 7, dtype="i2", bits=12), along(AXIAL, [0, 2.5, 5, 7.5]))
    return folder


@pytest.fixture(scope="module", params=["complete", "incomplete"])
def made(request: Any, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("made") / "out.zarr"
    to_zarr(source, store, **OPTIONS)
    if request.param == "incomplete":
        # As a process leaves it that is killed behind its last chunk.
        root = json.loads((store / "zarr.json").read_text())
        root["attributes"]["dcmdask"]["complete"] = False
        del root["consolidated_metadata"]
        (store / "zarr.json").write_text(json.dumps(root))
    return store


def paths_of(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of a document is."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*above, key)
            yield from paths_of(one, (*above, key))


def mutated(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count what there may be no end of: keys that are made."""
    made: list[int] = []
    key_of = regions.key_of

    def counted(*args: Any) -> str:
        made.append(1)
        assert len(made) < 20_000
        return key_of(*args)

    monkeypatch.setattr(regions, "key_of", counted)
    return made


def is_free(path: tuple[Any, ...]) -> bool:
    return path[0] == "attributes" and any(path[1 : 1 + len(free)] == free for free in FREE)


def understood(store: Path) -> Any:
    """What zarr makes of the metadata; None where it fails."""
    try:
        group = zarr.open_group(store, mode="r")
        names = [path.parent.name for path in store.glob("*/zarr.json")]
        own = [zarr.open_array(store, path=name, mode="r").metadata.to_dict() for name in names]
        return json.dumps([group.metadata.to_dict(), own], default=str)
    except Exception:
        return None


@pytest.mark.slow
@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate),
)
@given(data=st.data())
def test_any_value_of_the_metadata(
    made: Path, source: Path, data: st.DataObject, tmp_path: Path, monkeypatch: Any
) -> None:
    """Verify, resume and overwrite end; what they then call whole is."""
    store = tmp_path / "out.zarr"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(made, store)
    keys = sorted(path.relative_to(made).as_posix() for path in made.rglob("zarr.json"))
    key = data.draw(st.sampled_from(["zarr.json", *keys]), "document")
    document = json.loads((made / key).read_text())
    path = data.draw(st.sampled_from(list(paths_of(document))), "value")
    value = data.draw(st.sampled_from(VALUES), "instead")
    (store / key).write_text(json.dumps(mutated(document, path, value)))
    # Null may stand for a default, and an option of a codec for what it was.
    same = understood(store) == understood(made)
    with monkeypatch.context() as patch:
        counting(patch)
        for compared in (None, source):
            with suppress(ValueError, DcmdaskError):
                report = verify(store, compared)
                assert str(report)
                assert not (compared and report.ok) or same or is_free(path), report
        for how in ({"resume": True}, {"overwrite": True}):
            with suppress(ValueError, DcmdaskError):
                to_zarr(source, store, **OPTIONS, **how)
                report = verify(store, source)
                assert report.ok, report


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("plan", "levels"), -5, "its levels cannot be -5"),
        (("plan", "levels"), 10**9, "it has 1000000000 levels, and 8 arrays"),
        (("plan", "levels"), None, "its levels cannot be None"),
        (("plan", "levels"), True, "its levels cannot be True"),
        (("plan", "format"), "zarr", "it has 2 levels, and 8 arrays"),
        (("plan", "options"), {"fill_value": "many"}, "its options cannot be"),
        (("plan",), None, "its plan cannot be None"),
        (("plan",), REMOVED, "it has no plan"),
        (("header",), [], r"its header cannot be \[\]"),
    ],
)
def test_the_schema(made: Path, path: tuple[Any, ...], value: Any, message: str) -> None:
    told = json.loads((made / "zarr.json").read_text())["attributes"]["dcmdask"]
    check_metadata(told)
    with pytest.raises(ValueError, match=message):
        check_metadata(mutated(told, path, value))


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        (("plan", "shape"), [10**9, 9, 7], "0", r"by the plan"),
        (("plan", "shape"), [10**9] * 3, "0", r"by the plan"),
        (("plan", "shape"), None, "0", r"by the plan"),
        (("plan", "chunks"), [4, 9], "0", r"by the plan"),
        (("plan", "shards"), [3, 9, 7], "0", r"by the plan"),
        (("plan", "dtype"), "O", "0", r"by the plan"),
        (("arrays", "0"), REMOVED, "0", "do not make None objects"),
        (("arrays", "0"), [2, 1, -1], "0", r"do not make \[2, 1, -1\] objects"),
        (("arrays", "z"), [10**9], "z", r"do not make \[1000000000\] objects"),
        (("arrays", "missing"), {}, "missing", r"do not make \{\} objects"),
    ],
)
def test_a_group_that_does_not_describe_its_arrays(
    made: Path, tmp_path: Path, path: tuple[Any, ...], value: Any, where: str, what: str
) -> None:
    """Shapes, types and numbers of objects are believed only where the arrays say the same."""
    shutil.copytree(made, store := tmp_path / "out.zarr")
    root = json.loads((store / "zarr.json").read_text())
    root = mutated(root, ("attributes", "dcmdask", *path), value)
    (store / "zarr.json").write_text(json.dumps(root))
    found = dict(verify(store).differences)
    assert re.search(what, found[f"{where}/zarr.json"])


def exported_as(source: Path, store: Path, frames: int) -> None:
    """A store of three frames that says in all places that it has another number."""
    to_zarr(source, store, chunks=(2, 9, 7), shards=None)
    root = json.loads((store / "zarr.json").read_text())
    own = json.loads((store / "pixels/zarr.json").read_text())
    told, shape = root["attributes"]["dcmdask"], [frames, 9, 7]
    told["plan"]["shape"] = own["shape"] = shape
    told["arrays"] = {"pixels": [-(-frames // 2), 1, 1]}
    root["consolidated_metadata"]["metadata"] = {"pixels": own}
    (store / "zarr.json").write_text(json.dumps(root))
    (store / "pixels/zarr.json").write_text(json.dumps(own))


def test_a_huge_grid_is_not_gone_through(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    exported_as(source, store := tmp_path / "out.zarr", 10**9)
    made = counting(monkeypatch)
    report = verify(store)
    assert report.regions == (0, 5 * 10**8) and len(made) < 1000
    found = dict(report.differences)
    assert re.fullmatch("at least 49999[0-9]+ of 500000000 objects are missing", found["objects"])
    assert found["pixels/c/2/0/0"] == "it is missing"


def test_a_region_that_takes_all_memory_is_not_read(source: Path, tmp_path: Path) -> None:
    """24 kB may be a chunk of a gigabyte; a coordinate too."""
    exported_as(source, store := tmp_path / "out.zarr", 3)
    large = [3, 10**6, 10**6]
    root = json.loads((store / "zarr.json").read_text())
    told, members = root["attributes"]["dcmdask"], root["consolidated_metadata"]["metadata"]
    told["plan"]["shape"] = told["plan"]["chunks"] = members["pixels"]["shape"] = large
    told["arrays"] = {"pixels": [1, 1, 1], "z": [1]}
    members["pixels"]["chunk_grid"]["configuration"]["chunk_shape"] = large
    members["z"] = {**members["pixels"], "shape": [3], "dimension_names": ["frame"]}
    members["z"]["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": [10**12]}}
    (store / "z/c").mkdir(parents=True, exist_ok=True)
    (store / "z/c/0").write_bytes(b"x")
    for name, own in members.items():
        (store / name / "zarr.json").write_text(json.dumps(own))
    (store / "zarr.json").write_text(json.dumps(root))
    report = verify(store)
    found = dict(report.differences)
    size = np.dtype(told["plan"]["dtype"]).itemsize
    for name, count in (("pixels", 3 * 10**12), ("z", 10**12)):
        assert f"{count * size} bytes at a time, and a task may take" in found[name]
    assert report.regions == (0, 1)


def test_nothing_checked_is_not_whole(source: Path, tmp_path: Path) -> None:
    exported_as(source, store := tmp_path / "out.zarr", 0)
    report = verify(store)
    assert report.differences == (("regions", "none was checked"),)
    assert not report.ok and "whole" not in str(report)


@pytest.mark.slow
def test_the_command_ends(made: Path, tmp_path: Path) -> None:
    """1 for differences, 2 where it is no store, and a report of each."""
    store = tmp_path / "out.zarr"
    shutil.copytree(made, store)
    document = json.loads((store / "zarr.json").read_text())
    for path, value, code in (
        (("attributes", "dcmdask", "plan", "levels"), -5, 2),
        (("attributes", "dcmdask", "plan", "levels"), 10**9, 2),
        (("attributes", "dcmdask", "plan", "shape"), None, 1),
        (("attributes", "dcmdask", "complete"), None, 1),
    ):
        (store / "zarr.json").write_text(json.dumps(mutated(document, path, value)))
        done = commands.run("verify", store)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr and "whole" not in done.stdout
