"""Identity of a job: the code of its function, and its options."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import os
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from distributed.protocol import pickle

from dcmdask.batch.code import code_of, normalised

_PLAIN = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset)


def identity(process: Callable[..., Any], options: Mapping[str, Any]) -> str:
    """Return a hash of what a function does, and of the options that it is called with.

    Of a function, all that its module's file holds, and the modules beside it that this imports;
    in a notebook its source and that of the functions that it names. Comments, docstrings and
    layout do not count. What it holds besides does: arguments of a partial, variables of the
    function around it, attributes of an object.

    Parameters
    ----------
    process : callable
    options : mapping
        Name to value.

    Raises
    ------
    ValueError
        An option is no value that JSON has, nor a path or a choice of an Enum.
    """
    told = json.dumps(
        {name: _plain(name, value) for name, value in options.items()}, sort_keys=True
    )
    return digest(b"\0".join([*_code(process, set()), told.encode()]))


def script_of(process: Callable[..., Any]) -> str:
    """Return what a job is called: its script, or the name of its function."""
    function = _function(process)
    module = getattr(function, "__module__", None) or ""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if module == "__main__" and main:
        return Path(main).name
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}.{name}" if module else name


def digest(data: bytes) -> str:
    """Return a hash."""
    return hashlib.blake2b(data, digest_size=10).hexdigest()


def _function(process: Any) -> Any:
    """Return what is behind partials, decorators and methods."""
    while isinstance(process, functools.partial):
        process = process.func
    return inspect.unwrap(getattr(process, "__func__", process))


def _code(process: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield what says what a function does."""
    if id(process) in seen:
        return
    seen.add(id(process))
    if isinstance(process, functools.partial):
        yield from _code(process.func, seen)
        yield from _held(process.args, seen)
        yield from _held(process.keywords, seen)
        return
    if isinstance(process, types.MethodType):
        yield from _held(getattr(process.__self__, "__dict__", ()), seen)
        yield from _code(process.__func__, seen)
        return
    if not isinstance(process, types.FunctionType):
        # An object that can be called, or a function that is not written in Python.
        yield from _text(
            process if isinstance(process, types.BuiltinFunctionType) else type(process)
        )
        # One with slots is what it is pickled as.
        yield from _held(getattr(process, "__dict__", None) or pickle.dumps(process), seen)
        return
    yield from _text(process)
    filled = (cell for cell in process.__closure__ or () if cell != types.CellType())
    yield from _held([cell.cell_contents for cell in filled], seen)
    yield from _held(getattr(process, "__wrapped__", ()), seen)
    if not _file(process):
        # What other cells of a notebook hold; of a module the file has it.
        for name in sorted(_names(process.__code__)):
            other = process.__globals__.get(name)
            if getattr(other, "__module__", None) == process.__module__:
                # A class, or something that can be called.
                yield from _text(other) if isinstance(other, type) else _code(other, seen)
            elif other is None or isinstance(other, _PLAIN):
                yield from _held({name: other}, seen)


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function uses, also in functions and comprehensions inside it."""
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _held(value: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield what says what a value is."""
    if isinstance(value, Mapping):
        for name in sorted(value, key=str):
            yield str(name).encode()
            yield from _held(value[name], seen)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _held(one, seen)
    elif isinstance(value, set | frozenset):
        # They come in another order in each process.
        yield from sorted(b"".join(_held(one, seen)) for one in value)
    elif isinstance(value, bytes):
        yield value
    elif callable(value) and not isinstance(value, type):
        yield from _code(value, seen)
    else:
        try:
            yield json.dumps(value, sort_keys=True).encode()
        except (TypeError, ValueError):
            yield pickle.dumps(value)


def module_name(module: types.ModuleType) -> str:
    """Return the name of a module, also of one that is run."""
    if module.__name__ != "__main__":
        return module.__name__
    package = getattr(module, "__package__", None) or ""
    return f"{package}.__main__".lstrip(".")


def _file(of: Any) -> str:
    file = getattr(sys.modules.get(of.__module__), "__file__", None)
    return file if file and os.path.isfile(file) else ""


def _text(of: Any) -> Iterator[bytes]:
    """Yield the code of the file that a function or class is written in, and its name; else its
    own.
    """
    if file := _file(of):
        name = module_name(sys.modules[of.__module__])
        yield from (code for _, code in code_of(Path(file), name))
        yield str(of.__qualname__).encode()
        return
    try:
        source = textwrap.dedent(inspect.getsource(of))
    except (OSError, TypeError):
        yield bytes(pickle.dumps(of))
        return
    try:
        yield normalised(ast.parse(source))
    except SyntaxError:
        # A lambda in the middle of something.
        yield source.encode()


def _plain(name: str, value: Any) -> Any:
    """Return the value of an option as JSON has it."""
    if isinstance(value, Enum):
        return _plain(name, value.value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, one) for key, one in value.items()}
    raise ValueError(
        f"option {name} is {type(value).__name__}: an option is a number, a text, a truth, a path, "
        "None, or a list or mapping of these, so that a later run can tell whether it has changed"
    )
