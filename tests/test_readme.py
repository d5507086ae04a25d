"""What README.md and examples/ show is run, so that it stays true."""

import doctest
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import run
from made_slides import made_slide
from pydicom import dcmread
from real_files import ROOT, packaged_file

README = ROOT / "README.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# 30 colour frames of an ultrasound cine, JPEG baseline.
CINE = "examples_ybr_color.dcm"

# Five CT files of 16 x 16 pixels.
SERIES = "98892001/CT5N"

_BLOCK = re.compile(
    r"^(?P<skip><!-- not run: .+? -->\s*\n)?"
    r"```(?P<language>python|pycon|console)[ ]*\n(?P<code>.*?)^```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    line: int
    language: str
    code: str


def sections() -> list[tuple[str, list[Block]]]:
    """Title and blocks of every section (up to the next ``##``) that has blocks to run."""
    if not README.exists():
        return []
    text = README.read_text("utf-8")
    starts = [0, *(match.start() for match in re.finditer(r"^## ", text, re.MULTILINE)), len(text)]
    found = []
    for start, end in itertools.pairwise(starts):
        title = text[start:end].lstrip("# ").partition("\n")[0].strip()
        blocks = [
            Block(
                text.count("\n", 0, start + match.start("code")), match["language"], match["code"]
            )
            for match in _BLOCK.finditer(text[start:end])
            if match["skip"] is None
        ]
        if blocks:
            found.append((title, blocks))
    return found


SECTIONS = sections()


def run_python(block: Block, namespace: dict[str, object]) -> None:
    """Run a block; one that shows a session has its output compared."""
    if ">>> " not in block.code:
        # Blank lines in front make a traceback show the line of the README.
        exec(compile("\n" * block.line + block.code, str(README), "exec"), namespace)
        return
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(block.code, {}, "README.md", str(README), block.line)
    test.globs = namespace
    report: list[str] = []
    doctest.DocTestRunner(optionflags=flags).run(test, out=report.append, clear_globs=False)
    assert not report, "".join(report)


def run_commands(block: Block) -> None:
    # The command of the environment that runs the tests, not another on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for line in block.code.replace("\\\n", "").splitlines():
        if not line.startswith("$ dcmdask"):
            continue
        if not set(line[1:]) & set("|<>*&;$'\""):
            # Without a shell, and without the seconds that each start of Python takes.
            told = run(*line.split()[2:], timeout=300)
            assert told.returncode == 0, f"{line}\n{told.stdout}\n{told.stderr}"
            continue
        done = subprocess.run(
            line.removeprefix("$ "),
            shell=True,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def a_liver(path: Path, image: Path) -> None:
    """Write a segmentation of a liver in one plane of a CT."""
    liver, plane = dcmread(packaged_file("liver_1frame.dcm")), dcmread(image)
    liver.Rows, liver.Columns, liver.PixelData = plane.Rows, plane.Columns, b"\1" * 32
    liver.FrameOfReferenceUID = plane.FrameOfReferenceUID
    shared = liver.SharedFunctionalGroupsSequence[0]
    of_frame = liver.PerFrameFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence[0].PixelSpacing = plane.PixelSpacing
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = plane.ImageOrientationPatient
    of_frame.PlanePositionSequence[0].ImagePositionPatient = plane.ImagePositionPatient
    liver.save_as(path)


def test_there_is_something_to_run() -> None:
    assert SECTIONS
    assert EXAMPLES


@pytest.mark.parametrize("blocks", [pytest.param(blocks, id=title) for title, blocks in SECTIONS])
def test_readme(blocks: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each section runs on its own: one folder, one namespace, blocks in their order."""
    shutil.copy(packaged_file(CINE), tmp_path / "cine.dcm")
    shutil.copytree(packaged_file("DICOMDIR-nopatient").parent / SERIES, tmp_path / "series")
    a_liver(tmp_path / "seg.dcm", min((tmp_path / "series").iterdir()))
    made_slide(tmp_path / "slide", (600, 900), downsamples=(1, 4), associated=("LABEL",))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        if block.language == "console":
            run_commands(block)
        else:
            run_python(block, namespace)


def test_the_notebook(tmp_path: Path) -> None:
    """Each cell runs, and those that end with a picture or a table show one."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(ROOT / "examples" / "study.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "outputs are not kept"
    NotebookClient(book, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [out.get("data", {}) for cell in book.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in one for one in shown) == 2
    tables = [one["text/html"] for one in shown if "text/html" in one]
    assert len(tables) == 3 and "Routine Brain" in tables[0]
    assert (tmp_path / "crop.nii.gz").is_file()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
