"""Where the real DICOM files are that tests read.

Two collections: the *corpus*, a folder outside the repository (the environment
variable ``DCMDASK_CORPUS``, or ``../shared/corpus`` beside the repository), and
the files that pydicom brings along inside its own package.
"""

import csv
import functools
import os
import shutil
import sys
from pathlib import Path

import pydicom

__all__ = [
    "CORPUS_MINIMUM",
    "DCM2NIIX",
    "corpus_files",
    "corpus_id",
    "corpus_root",
    "packaged_file",
    "packaged_files",
]

ROOT = Path(__file__).resolve().parent.parent

# A corpus that is there but nearly empty (a wrong folder, a checkout without its
# large files) would make every comparison pass by comparing nothing.
CORPUS_MINIMUM = 900

# Installed with the tests' requirements, or elsewhere.
DCM2NIIX = shutil.which("dcm2niix") or shutil.which(str(Path(sys.executable).parent / "dcm2niix"))

_NOT_DICOM = {
    ".bval", ".bvec", ".csv", ".dump", ".gz", ".icc", ".json", ".md", ".nii", ".py", ".pyc", ".txt",
}  # fmt: skip


def corpus_root() -> Path | None:
    """The folder of the corpus, or None if there is none and none was named."""
    named = os.environ.get("DCMDASK_CORPUS")
    if named:
        return Path(named).expanduser().resolve()
    default = (ROOT / ".." / "shared" / "corpus").resolve()
    return default if default.is_dir() else None


@functools.cache
def _walk(root: Path) -> tuple[Path, ...]:
    return tuple(
        sorted(
            path
            for path in root.rglob("*")
            if path.is_file()
            and path.suffix.lower() not in _NOT_DICOM
            and not path.name.startswith(("LICENSE", "README"))
        )
    )


@functools.cache
def _corpus(root: Path) -> tuple[Path, ...]:
    catalog = root / "CATALOG.csv"
    if not catalog.is_file():
        return _walk(root)
    with catalog.open(newline="") as lines:
        listed = sorted(root / row["path"] for row in csv.DictReader(lines))
    return tuple(path for path in listed if path.is_file())


def corpus_files() -> list[Path]:
    """The DICOM files of the corpus, sorted; empty where there is no corpus.

    It is cheap and always in the same order, so it can be used while tests are
    collected, also by several workers at once.
    """
    root = corpus_root()
    return [] if root is None else list(_corpus(root))


def corpus_id(path: Path) -> str:
    """The path inside the corpus, as the name of a test."""
    root = corpus_root()
    return path.name if root is None else path.relative_to(root).as_posix()


def packaged_files() -> list[Path]:
    """The DICOM files that are installed with pydicom, sorted.

    pydicom's own functions for this also offer files that they would download.
    """
    return list(_walk(Path(pydicom.__file__).parent / "data" / "test_files"))


def packaged_file(name: str) -> Path:
    """The one of :func:`packaged_files` with this file name."""
    (found,) = (path for path in packaged_files() if path.name == name)
    return found
