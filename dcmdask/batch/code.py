"""Code of a script and of the modules beside it: compared by syntax trees, pickled by value."""

from __future__ import annotations

import ast
import io
import sys
import sysconfig
import types
from collections import ChainMap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle

# Folders of installed packages: a script there has no modules of its own beside it.
_INSTALLED = tuple(
    Path(path).resolve() for key, path in sysconfig.get_paths().items() if key.endswith("lib")
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_of(file: Path, module: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the path and the code of a script and of the modules beside it that it imports.

    `module` is its full name: the part before the last dot is its package, of which all modules
    count.
    """
    # A package counts as its own module.
    parts = module.split(".") if file.stem == "__init__" else module.split(".")[:-1]
    above = file.resolve().parents[len(parts)]
    seen: set[Path] = set()
    waiting = [(file.resolve(), parts)]
    while waiting:
        path, package = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        source = path.read_bytes()
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            # A compiled module.
            yield path, source
            continue
        yield path, normalised(tree)
        for name in sorted(_imported(tree, package)):
            # Among installed modules, only those of the package of the script.
            if above in _INSTALLED and name.split(".")[0] != module.split(".", maxsplit=1)[0]:
                continue
            found = above.joinpath(*name.split("."))
            if (one := found.with_suffix(".py")).is_file():
                waiting.append((one, name.split(".")[:-1]))
            elif (one := found / "__init__.py").is_file():
                waiting.append((one, name.split(".")))


def normalised(tree: ast.Module) -> bytes:
    """Return code in a canonical form, without comments and docstrings.

    Examples
    --------
    >>> one = ast.parse('def f(x):\\n    "Doubles."\\n    return (x * 2)  # twice')
    >>> other = ast.parse("def f( x ): return x*2")
    >>> normalised(one) == normalised(other)
    True
    """
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return repr(_canonical(tree)).encode()


def _canonical(node: Any) -> Any:
    """Return a syntax tree as names and strings, the same in each version of Python.

    `ast.unparse` and `ast.dump` change: quotes in f-strings have, and nodes get new fields.
    """
    if isinstance(node, list):
        return [*map(_canonical, node)]
    if not isinstance(node, ast.AST):
        # The letters that `repr` escapes depend on the version as well.
        return ascii(node)
    fields = []
    # In the order of their names.
    for name, value in sorted(ast.iter_fields(node)):
        if isinstance(node, ast.JoinedStr):
            # Python 3.12.1 has empty texts between the parts of a format.
            value = [one for one in value if getattr(one, "value", None) != ""]
        # New fields are empty in code of earlier versions; `kind` is the u of u"".
        if value not in (None, []) and name != "kind":
            fields.append((name, _canonical(value)))
    return type(node).__name__, fields


def _imported(tree: ast.Module, package: list[str]) -> set[str]:
    """Return the absolute names of the modules that a module imports, or may import."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            found.add(".".join(base))
            # The imported name may be a module.
            found.update(".".join([*base, alias.name]) for alias in node.names)
    # Importing a.b runs a as well.
    for name in list(found):
        found.update(".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1))
    return found - {""}


def module_name(module: types.ModuleType) -> str:
    """Return the name of a module, also of one that is run."""
    if module.__name__ != "__main__":
        return module.__name__
    package = getattr(module, "__package__", None) or ""
    return f"{package}.__main__".lstrip(".")


# Pickling


def pickled(process: Callable[..., Any]) -> bytes:
    """Return a pickled function: of a script by value, of an installed module by name.

    The modules beside a script that it has imported go by value as well, also where the function
    is one of theirs: workers that run already may have imported an earlier version of them.
    """
    to = io.BytesIO()
    beside = _beside()
    for module in beside:
        cloudpickle.register_pickle_by_value(module)
    try:
        # Dask's own function prints errors.
        _Pickler(to).dump(process)
    except Exception as error:
        # Pickling raises whatever the objects raise.
        raise ValueError(
            f"process cannot be sent to the workers ({type(error).__name__}: {error}): something "
            "that it or its script holds belongs to this process, such as a lock or an open file; "
            "make it inside of process"
        ) from error
    finally:
        for module in beside:
            cloudpickle.unregister_pickle_by_value(module)
    return to.getvalue()


def _beside() -> list[types.ModuleType]:
    """Return the imported modules that lie beside the script that is run."""
    script = sys.modules["__main__"]
    file = getattr(script, "__file__", None)
    if not file or not Path(file).is_file():
        return []
    paths = {path for path, _ in code_of(Path(file), module_name(script))}
    known = cloudpickle.list_registry_pickle_by_value()
    return [
        module
        for name, module in [*sys.modules.items()]
        if module is not script
        and name not in known
        and (own := getattr(module, "__file__", None))
        and Path(own).resolve() in paths
    ]


def _reduced(code: types.CodeType) -> tuple[Any, ...]:
    make, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)[:2]
    return _restored, (make, arguments, code.co_filename)


def _restored(make: Callable[..., Any], arguments: tuple[Any, ...], filename: str) -> Any:
    return make(*arguments).replace(co_filename=filename)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no annotations
    """Keeps the file names of code, which cloudpickle replaces from 3.1.3 on."""

    dispatch_table: ClassVar = ChainMap(
        {types.CodeType: _reduced}, cloudpickle.Pickler.dispatch_table
    )
