"""Records: causes of failures and notes as values, by which reports group."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_series import archive

import dcmdask
from dcmdask import DcmdaskWarning, DecodeError
from dcmdask.batch.code import pickled
from dcmdask.batch.identity import source_of, times_of
from dcmdask.batch.records import Record, cause_of, records
from dcmdask.batch.work import Job, Work, process_series
from dcmdask.errors import Note
from dcmdask.sources.folder import Folder


def processed(process: Any, folder: Folder, source: Path) -> Record:
    (series,) = dcmdask.scan(source)
    job = Job(pickled(process), {}, folder, "job", thumbnails=False)
    done = process_series(job, Work("1.2", series, source_of(series), times_of(series)))
    assert done.record is not None and records(folder) == {"1.2": done.record}
    return done.record


def line_of(function: Any, after: int) -> int:
    return int(function.__code__.co_firstlineno) + after


def test_the_cause_is_a_place_in_the_script(tmp_path: Path) -> None:
    """The innermost one there, however deep in other code the error was raised."""
    archive(tmp_path / "source", 1)

    def inner(text: str) -> np.ndarray:
        return np.loadtxt([text])

    def process(series: Any) -> None:
        inner(series.uid)

    record = processed(process, Folder.of(tmp_path / "out"), tmp_path / "source")
    assert record.stage == "process" and "could not convert" in record.message
    assert record.code == f"ValueError at test_records.py:{line_of(inner, 1)}"


def test_the_cause_outside_of_the_script() -> None:
    try:
        np.loadtxt(["a"])
    except ValueError as error:
        name, _, line = cause_of(error, "job.py").rpartition(":")
    assert name.startswith("ValueError at ") and name.endswith(".py") and line.isdigit()
    assert cause_of(KeyError("never raised")) == "KeyError"


def test_the_cause_is_the_code_of_our_errors() -> None:
    error = DecodeError("10 bytes, not 2.5e3", source="/a/b.dcm", frame=3, code="truncated")
    assert cause_of(error, __file__) == "DecodeError/truncated"


def test_notes_have_codes(tmp_path: Path) -> None:
    archive(tmp_path / "source", 1)

    def process(series: Any) -> None:
        for number in range(2):
            warnings.warn(DcmdaskWarning(f"{number} is odd", "odd"), stacklevel=1)
        warnings.warn("blurred", DcmdaskWarning, stacklevel=1)
        warnings.warn("of somebody else", UserWarning, stacklevel=1)

    record = processed(process, Folder.of(tmp_path / "out"), tmp_path / "source")
    place = f"DcmdaskWarning at test_records.py:{line_of(process, 3)}"
    odd = [Note("odd", f"{number} is odd") for number in range(2)]
    assert record.notes == [*odd, Note(place, "blurred")]


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_lease(where: str, tmp_path: Path) -> None:
    """One holder at a time on a file system; an object store has no locks."""
    folder = Folder.of(tmp_path if where == "local" else f"memory://{tmp_path.name}")
    with folder.lease("records/1.2.json") as held, folder.lease("records/1.2.json") as other:
        assert held and other == (where == "memory")
        with folder.lease("records/1.3.json") as another:
            assert another
    with pytest.raises(OSError, match="full"), folder.lease("records/1.2.json"):
        raise OSError("the disk is full")
    assert not folder.names("records")
    with folder.lease("records/1.2.json") as held:
        assert held
    assert not folder.names("records")


def test_a_lease_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from dcmdask.sources.folder import Folder\n"
        "with Folder(sys.argv[1]).lease('records/1.2.json') as held:\n"
        "    os._exit(3 if held else 4)\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
        assert done.returncode == 3
    with Folder.of(tmp_path).lease("records/1.2.json") as held:
        assert held


def test_a_worker_ends_at_its_timeout_whatever_it_does() -> None:
    """Also in code that never lets another thread run."""
    script = (
        "import re\n"
        "from dcmdask.batch.work import _ended_after\n"
        "with _ended_after(30): pass\n"
        "with _ended_after(0.1): re.match('(a+)+$', 'a' * 50 + 'b')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=100, check=False)
    assert done.returncode == 1
