"""What tells one job from another: all that it does, and nothing that changes by itself."""

import ast
import functools
import importlib.util
import linecache
import os
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dcmdask.batch.code import normalised
from dcmdask.batch.identity import digest, identity, script_of

HERE = Path(__file__).parent

# A module of somebody's, with all kinds of things to call.
JOBS = """
import functools
FACTOR = {factor}

def plain(series, k=1):
    return helper(series) * FACTOR

def helper(series):
    return {{"n": {number}}}

def make(n):
    def process(series):
        return {{"n": n}}
    return process

class Job:
    def __init__(self, n):
        self.n = n

    def __call__(self, series):
        return {{"n": self.n}}

    def method(self, series):
        return {{"n": self.n}}

class Slotted:
    __slots__ = ("n",)

    def __init__(self, n):
        self.n = n

    def __call__(self, series):
        return {{"n": self.n}}

def around(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
"""


def module(path: Path, number: int = 1, factor: int = 2) -> Any:
    """A fresh module of the same name, whatever was imported before."""
    path.write_text(JOBS.format(number=number, factor=factor))
    spec = importlib.util.spec_from_file_location("somebodys_jobs", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["somebodys_jobs"] = found
    spec.loader.exec_module(found)
    return found


KINDS: dict[str, Callable[[Any, int], Any]] = {
    "function": lambda jobs, n: jobs.plain,
    "closure": lambda jobs, n: jobs.make(n),
    "object": lambda jobs, n: jobs.Job(n),
    "method": lambda jobs, n: jobs.Job(n).method,
    "partial": lambda jobs, n: functools.partial(jobs.plain, k=n),
    "decorated": lambda jobs, n: jobs.around(jobs.make(n)),
    "slots": lambda jobs, n: jobs.Slotted(n),
    "set": lambda jobs, n: functools.partial(jobs.plain, k={"a", "b", "c", str(n)}),
    "nested": lambda jobs, n: functools.partial(jobs.around(jobs.Job(n).method)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_is_the_same_and_what_changes_is_not(kind: str, tmp_path: Path) -> None:
    of = KINDS[kind]
    path = tmp_path / "jobs.py"
    first = identity(of(module(path), 3), {})
    assert identity(of(module(path), 3), {}) == first
    # Somewhere in the file, also in what it only calls.
    assert identity(of(module(path, number=2), 3), {}) != first
    assert identity(of(module(path, factor=3), 3), {}) != first
    if kind != "function":
        assert identity(of(module(path), 4), {}) != first


def test_the_same_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "jobs.py"
    jobs = module(path)
    here = [identity(of(jobs, 3), {"a": 1, "b": {"x": [1, 2]}}) for of in KINDS.values()]
    script = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "from test_identity import KINDS, identity, module\n"
        f"jobs = module(Path({str(path)!r}))\n"
        "for of in KINDS.values():\n"
        "    print(identity(of(jobs, 3), {'b': {'x': [1, 2]}, 'a': 1}))"
    )
    # Sets and hashes of texts come in another order there.
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == here


# What versions of Python have parsed or printed in several ways.
EVERYWHERE = """
def f(x: int = 1, *, k=None, **more) -> str:
    "Not counted."
    return f"{x['a']}\\n" + f"it's {k!r:>{x}.{k}}" f"{x = }" "\\u1c89" u"z"
class C: pass
async def g(*a):
    async with a as b, (yield): return [y async for y in b if y], {**b}, b[1, *a], 1e400j, ...
match a:
    case [1, *_, {"k": C(x=None)}] | None: lambda *, k=1: (k := 2)
"""


def test_the_same_in_each_version_of_python() -> None:
    assert digest(normalised(ast.parse(EVERYWHERE))) == "e294967da129fe53d79d"


@pytest.mark.parametrize("with_source", [True, False])
def test_a_notebook_has_no_file(with_source: bool) -> None:
    def cells(number: int, factor: int, constant: int) -> Any:
        space: dict[str, Any] = {"__name__": "a notebook"}
        for place, cell in enumerate(
            [
                f"CONSTANT = {constant}",
                f"def helper(series): return {number}",
                "def process(series):\n"
                f"    return {{'n': [helper(one) * CONSTANT for one in series] * {factor}}}",
            ]
        ):
            # As a notebook does, so that what is typed can be shown again.
            name = f"<cell {place} {number} {factor} {constant}>"
            if with_source:
                lines = cell.splitlines(keepends=True)
                linecache.cache[name] = (len(cell), None, lines, name)
            exec(compile(cell, name, "exec"), space)
        return space["process"]

    first = identity(cells(1, 2, 3), {})
    assert identity(cells(1, 2, 3), {}) == first
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)]:
        assert identity(cells(*other), {}) != first


class Choice(Enum):
    A = "a"
    B = "b"


def test_options_count_by_value() -> None:
    options = {"path": Path("x"), "choice": Choice.A, "many": (1, 2.5, None, True)}
    first = identity(len, options)
    assert identity(len, dict(reversed(options.items()))) == first
    for name, other in {"path": Path("y"), "choice": Choice.B, "many": (1, 2.5)}.items():
        assert identity(len, {**options, name: other}) != first


@pytest.mark.parametrize("value", [np.zeros(3), {1: 2}, object(), {1, 2}, b"x"], ids=range(5))
def test_options_that_cannot_be_told_apart(value: Any) -> None:
    with pytest.raises(ValueError, match=r"option of is .*: an option is a number"):
        identity(len, {"of": value})


def test_names(tmp_path: Path) -> None:
    jobs = module(tmp_path / "jobs.py")
    assert script_of(jobs.plain) == script_of(functools.partial(jobs.plain, k=3))
    assert script_of(jobs.plain) == "somebodys_jobs.plain"
    assert script_of(jobs.around(jobs.plain)) == "somebodys_jobs.plain"
    assert script_of(jobs.Job(3)) == "somebodys_jobs.Job"
    assert script_of(jobs.Job(3).method) == "somebodys_jobs.Job.method"
