"""The house keeps its floors: who imports whom, how long modules are, what is public."""

import ast
import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

import dcmdask
import dcmdask.xarray
from dcmdask import errors

PACKAGE = Path(dcmdask.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lowest first; a floor knows only those before it.
FLOORS = [
    *("errors", "sources", "dicom", "pixels", "geometry", "arrays", "labelled", "images"),
    *("archive", "xarray", "store"),
    *("console", "batch", "report", "cli"),
]
# What must not be imported on a floor, not even late.
FORBIDDEN = {
    "errors": {"dask", "distributed", "numpy", "pandas", "pydicom", "xarray", "zarr"},
    "sources": {"dask", "distributed", "numpy", "pandas", "pydicom", "xarray", "zarr"},
    "dicom": {"dask", "distributed", "pandas", "xarray", "zarr"},
    "pixels": {"dask", "distributed", "pandas", "xarray", "zarr"},
    "geometry": {"dask", "distributed", "pandas", "xarray", "zarr"},
    "arrays": {"distributed", "zarr"},
    "labelled": {"distributed", "zarr"},
    "images": {"distributed", "zarr"},
    "archive": {"zarr"},
    "xarray": {"distributed", "zarr"},
    "store": set(),
    "console": {"dask", "distributed", "numpy", "pandas", "pydicom", "xarray", "zarr"},
    "batch": {"zarr"},
    "report": {"zarr"},
    "cli": {"zarr"},
}
# `import dcmdask` must stay fast, so these load when they are first needed.
LOADED_LATE = {"dask", "distributed", "imagecodecs", "pandas", "simplejpeg", "xarray", "zarr"}
# 400 is the aim; what is longer than this cannot be read in ten minutes.
LONGEST_MODULE = 450
# What users can install besides.
EXTRAS = ("xarray", "nifti", "itk", "table", "ome", "http", "s3", "dicomweb")
# Packages by the names of their modules, where these differ.
NAMES = {"PIL": "pillow", "dicomweb_client": "dicomweb-client"}
PUBLIC = {
    "Advice",
    "Catalog",
    "CatalogError",
    "ExportReport",
    "FrameArray",
    "Geometry",
    "Irregularity",
    "Level",
    "Note",
    "Scan",
    "Series",
    "Skipped",
    "Slide",
    "Stack",
    "VerifyReport",
    "__version__",
    "batch",
    "build_catalog",
    "from_dicom",
    "iter_pixels",
    "open_catalog",
    "open_frames",
    "open_slide",
    "pictures",
    "pixel_array",
    "scan",
    "to_zarr",
    "verify",
    "write_array",
    *errors.__all__,
}


def name_of(path: Path) -> str:
    parts = ("dcmdask", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> str | None:
    """The floor of a module of ours; None for the package itself, which has none."""
    room = module.split(".")[1:2]
    if not room:
        return None
    # `python -m dcmdask` is the command line by another name.
    return "cli" if room[0] == "__main__" else room[0]


def imports(source: str, name: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a module imports, anywhere in it.

    ``from package import name`` counts as ``package.name`` where that is a module
    of ours, so that ``from dcmdask import export`` is seen for what it is.
    """
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def offences(source: str, name: str, is_package: bool = False) -> list[str]:
    own = floor_of(name)
    if own is None:
        return []
    found = []
    for line, target in imports(source, name, is_package):
        top = target.split(".")[0]
        if top in FORBIDDEN[own]:
            found.append(f"{name}, line {line}: {top} is not for {own}/")
        if top != "dcmdask" or target == "dcmdask.__version__":
            continue
        floor = floor_of(target)
        if floor not in FLOORS:
            found.append(f"{name}, line {line}: {target} is the public surface, not a floor")
        elif FLOORS.index(floor) > FLOORS.index(own):
            found.append(f"{name}, line {line}: {own}/ must not know {floor}/")
    return found


def test_floors() -> None:
    assert len(MODULES) > len(FLOORS)
    found = []
    for path in MODULES:
        name = name_of(path)
        assert floor_of(name) in {None, *FLOORS}, f"{path} is on no floor"
        found += offences(path.read_text("utf-8"), name, path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import dask.array as da", "dcmdask.pixels.decode"),
        ("def f():\n    from zarr import open", "dcmdask.archive.scan"),
        ("import zarr", "dcmdask.cli.export"),
        ("from dcmdask.store import plan", "dcmdask.archive.scan"),
        ("from ..store.plan import regions", "dcmdask.archive.scan"),
        ("from dcmdask import store", "dcmdask.sources.files"),
        ("from .. import batch", "dcmdask.store.writer"),
        ("from dcmdask import from_dicom", "dcmdask.store.writer"),
        ("import dcmdask", "dcmdask.cli.export"),
        ("import numpy", "dcmdask.errors"),
    ],
)
def test_an_offence_is_seen(source: str, name: str) -> None:
    assert len(offences(source, name)) == 1


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from dcmdask.errors import DecodeError", "dcmdask.pixels.decode"),
        ("from .. import errors", "dcmdask.pixels.decode"),
        ("from . import files", "dcmdask.pixels.decode"),
        ("from dcmdask import __version__", "dcmdask.store.ome.metadata"),
        ("import zarr", "dcmdask.store.writer"),
        ("from dcmdask.dicom import instance", "dcmdask.store.writer"),
    ],
)
def test_no_offence_where_there_is_none(source: str, name: str) -> None:
    assert offences(source, name) == []


def test_the_architecture_lists_every_module() -> None:
    text = (Path(__file__).parents[1] / "docs/architecture.md").read_text("utf-8")
    listed = set()
    for part in text.partition("## Modules")[2].split("### ")[1:]:
        floor, _, table = part.partition("/\n")
        listed |= {f"{floor}/{name}" for name in re.findall(r"^\| `(\w+\.py)` \|", table, re.M)}
    modules = [path.relative_to(PACKAGE) for path in MODULES if path.stem != "__init__"]
    assert listed == {path.as_posix() for path in modules if len(path.parts) > 1}
    for named in re.findall(r"`([a-z/_]+\.py)`", text.partition("## Modules")[0]):
        assert (PACKAGE / named).is_file() or named.startswith("tests/"), named


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    too_long = {str(path): lines for path, lines in lengths.items() if lines > LONGEST_MODULE}
    assert not too_long


def test_no_module_for_odds_and_ends() -> None:
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "misc"}]


def test_import_is_light() -> None:
    code = "import sys, dcmdask; print(*{name.split('.')[0] for name in sys.modules})"
    # Isolated, so that neither this folder nor the environment adds to it.
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "dcmdask" in loaded
    assert not loaded & LOADED_LATE


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "pyproject.toml"
    return tomllib.loads(path.read_text("utf-8"))["project"]


def requirements(project: dict[str, Any]) -> dict[str, str]:
    """Names of what users install, and the lower bounds."""
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name in EXTRAS for one in extras[name])]
    found = [re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", one) for one in wanted]
    return {one[1]: one[2] for one in found if one}


def test_what_is_imported_is_declared(project: dict[str, Any]) -> None:
    imported = {
        target.split(".")[0]
        for path in MODULES
        for _, target in imports(path.read_text("utf-8"), name_of(path), path.stem == "__init__")
    }
    others = imported - sys.stdlib_module_names - {"dcmdask"}
    assert {NAMES.get(name, name) for name in others} <= requirements(project).keys()


def test_lower_bounds_are_those_that_are_tested(project: dict[str, Any]) -> None:
    lines = (Path(__file__).parents[1] / "constraints-minimum.txt").read_text("utf-8").split()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    for name, bound in requirements(project).items():
        assert Version(pinned[name.lower()]) == Version(bound), name


def test_public_names() -> None:
    assert set(dcmdask.__all__) == PUBLIC
    assert len(dcmdask.__all__) == len(PUBLIC)
    assert set(dir(dcmdask)) == PUBLIC
    for name in PUBLIC:
        getattr(dcmdask, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dcmdask.no_such_name


def public_functions() -> Iterator[tuple[str, Any]]:
    """Public functions, and public methods of public classes, by name."""
    for home in (dcmdask, dcmdask.batch, dcmdask.pictures, dcmdask.xarray):
        for name in home.__all__:
            value = getattr(home, name)
            if inspect.isfunction(value):
                yield name, value
            elif inspect.isclass(value):
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{name}.{method}", function


@pytest.mark.parametrize(("name", "function"), list(public_functions()))
def test_help_is_complete(name: str, function: Any) -> None:
    """Each parameter is described where it is used, and not by another function."""
    text = inspect.getdoc(function) or ""
    _, _, described = text.partition("Parameters\n----------\n")
    described = re.split(r"\n\w+\n-+\n", described)[0]
    named = re.findall(r"^(\*{0,2}\w[\w, *]*?)(?: : .*)?$", described, re.MULTILINE)
    there = {one.strip(" *") for several in named for one in several.split(",")}
    assert not inspect.signature(function).parameters.keys() - there - {"self"}
    assert not re.search(r"\b[Aa]s for\b|those of :|Likewise", text)


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Name to parent and built-in, as the docstring of the errors draws them."""
    # A branch that is drawn: indentation, name, the built-in if it has its own.
    branch = re.compile(r"^(    [\s│]*)([├└]── )?(\w+)(?:\s+\(([\w, ]+)\))?(?:\s+.*)?$")
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = branch.match(line)
        if match is None:
            continue
        indent, twig, name, builtin = match.groups()
        depth = len(indent) + len(twig or "")
        above = [(column, parent) for column, parent in above if column < depth]
        tree[name] = (above[-1][1] if above else None, builtin)
        above.append((depth, name))
    return tree


def test_errors_are_as_drawn() -> None:
    tree = drawn_tree()
    assert set(tree) == set(errors.__all__) - {"Advice", "Note"}
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert set(tree) == defined
    for name, (parent, builtin) in tree.items():
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        expected = [base for base in (parent, *(builtin or "").split(", ")) if base]
        assert bases == (expected or ["Exception"]), name


@pytest.mark.parametrize(
    "name",
    [name for name in errors.__all__ if issubclass(getattr(errors, name), errors.DcmdaskError)],
)
@pytest.mark.parametrize("where", [{}, {"source": "a b.dcm"}, {"source": "c.dcm", "frame": 0}])
def test_errors_survive_pickling(name: str, where: dict[str, object]) -> None:
    error = getattr(errors, name)("3 frames, not 4", **where)
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert str(copy).endswith("3 frames, not 4")
    assert (copy.source, copy.frame) == (where.get("source"), where.get("frame"))
    assert isinstance(copy, errors.DcmdaskError)
