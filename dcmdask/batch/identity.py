"""Identity of a job (code and options) and of the files of a series, as hashes."""

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
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

from distributed.protocol import pickle

from dcmdask.archive.series import Series
from dcmdask.batch.code import code_of, module_name, normalised
from dcmdask.dicom.description import Described
from dcmdask.sources.files import LocalFile, opened

_PLAIN = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset)
# Bytes that are read at once for a checksum.
_BLOCK = 2**20


def digest(data: bytes) -> str:
    """Return a hash."""
    return hashlib.blake2b(data, digest_size=10).hexdigest()


# The job


def identity(process: Callable[..., Any], options: Mapping[str, Any]) -> str:
    """Return a hash of the code of a function, and of the options that it is called with.

    The code is that of its module's file and of the modules beside it that this imports; in a
    notebook, its source and that of the functions that it names. Comments, docstrings and layout
    do not count; arguments of a partial, variables of the enclosing function and attributes of an
    object do. :func:`dask.base.tokenize` cannot replace this: a function of a module has its token
    by name, whatever its code is, and a comment changes the token of any other. Options are values
    that JSON has, paths, or choices of an Enum.
    """
    parameters = json.dumps(
        {name: _plain(name, value) for name, value in options.items()}, sort_keys=True
    )
    return digest(b"\0".join([*_code(process, set()), parameters.encode()]))


def script_of(process: Callable[..., Any]) -> str:
    """Return the name of a job: its script, or the name of its function."""
    function = _function(process)
    module = getattr(function, "__module__", None) or ""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if module == "__main__" and main:
        return Path(main).name
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}.{name}" if module else name


def file_of(process: Callable[..., Any]) -> str:
    """Return the path of the file of a function as tracebacks show it; empty if it has none."""
    function = _function(process)
    called = function if isinstance(function, types.FunctionType) else type(function).__call__
    code = getattr(called, "__code__", None)
    return str(code.co_filename) if code else ""


def _function(process: Any) -> Any:
    """Return the function inside partials, decorators and methods."""
    while isinstance(process, functools.partial):
        process = process.func
    return inspect.unwrap(getattr(process, "__func__", process))


def _code(process: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield the code of something callable, and the values that it holds."""
    if id(process) in seen:
        return
    seen.add(id(process))
    if isinstance(process, functools.partial):
        yield from _held([process.func, process.args, process.keywords], seen)
    elif isinstance(process, types.MethodType):
        yield from _held([getattr(process.__self__, "__dict__", ()), process.__func__], seen)
    elif isinstance(process, types.FunctionType):
        yield from _text(process)
        filled = [cell for cell in process.__closure__ or () if cell != types.CellType()]
        yield from _held([cell.cell_contents for cell in filled], seen)
        yield from _held(getattr(process, "__wrapped__", ()), seen)
        if not _file(process):
            yield from _cells(process, seen)
    else:
        # An object that can be called, or a function that is not written in Python.
        if not isinstance(process, types.BuiltinFunctionType):
            yield from _text(type(process))
        # An object with slots counts as it is pickled.
        yield from _held(getattr(process, "__dict__", None) or pickle.dumps(process), seen)


def _cells(process: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    """Yield what other cells of a notebook define and a function uses."""
    for name in sorted(_names(process.__code__)):
        other = process.__globals__.get(name)
        if getattr(other, "__module__", None) == process.__module__:
            yield from _text(other) if isinstance(other, type) else _code(other, seen)
        elif other is None or isinstance(other, _PLAIN):
            yield from _held({name: other}, seen)


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function uses, also in functions and comprehensions inside it."""
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _held(value: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield a value as bytes, the same in each process."""
    if isinstance(value, Mapping):
        for name in sorted(value, key=str):
            yield str(name).encode()
            yield from _held(value[name], seen)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _held(one, seen)
    elif isinstance(value, set | frozenset):
        # Their order differs between processes.
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


def _file(of: Any) -> str:
    file = getattr(sys.modules.get(of.__module__), "__file__", None)
    return file if file and os.path.isfile(file) else ""


def _text(of: Any) -> Iterator[bytes]:
    """Yield the code of the file of a function or class and its name, or else its own code."""
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
        # A lambda in the middle of an expression.
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
        f"option {name} is {type(value).__name__}: an option is a number, a string, a boolean, a "
        "path, None, or a list or mapping of these, so that a later run can tell whether it has "
        "changed"
    )


# The files of a series


def source_of(series: Series) -> str:
    """Return a hash of the files of a series: SOP Instance UID and size of each.

    Paths do not count, so that an archive can be moved; decoding options of the scan do, but for
    the one that changes no values.
    """
    return _hashed(
        " ".join(map(str, (_instance(one), one.source.size, *_changing(one))))
        for one in series.instances
    )


def times_of(series: Series) -> str:
    """Return a hash of the modification times; of URLs, of their entity tags or the like."""
    return _hashed(f"{_instance(one)} {_changed(one)}" for one in series.instances)


def checksum_of(series: Series, threads: int) -> str:
    """Return a hash of the contents of local files; empty where a file is not local.

    A file that has changed since it was scanned is an OSError.
    """
    if not all(isinstance(one.source, LocalFile) for one in series.instances):
        # To read them again costs as much as to process them again.
        return ""
    with ThreadPoolExecutor(threads) as pool:
        return _hashed(pool.map(_content, series.instances))


def source_of_files(root: str) -> str:
    """Return a hash for the files that a scan of this folder left out."""
    return digest(os.fsencode(root))


def _instance(one: Described) -> str:
    return one.sop_instance_uid or os.path.basename(one.source.name)


def _changing(one: Described) -> list[tuple[str, Any]]:
    return [option for option in one.overrides if option[0] != "inflate_limit"]


def _changed(one: Described) -> object:
    source = one.source
    return source.modified if isinstance(source, LocalFile) else getattr(source, "key", "")


def _content(one: Described) -> str:
    checksum = 0
    with opened(one.source) as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return f"{_instance(one)} {checksum}"


def _hashed(each: Iterable[str]) -> str:
    return digest("\n".join(sorted(each)).encode())
