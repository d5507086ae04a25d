"""The function of a job as bytes, by value, with the file names that tracebacks show."""

from __future__ import annotations

import io
import sys
import types
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle

from dcmdask.batch.code import code_of
from dcmdask.batch.identity import module_name


def pickled(process: Callable[..., Any]) -> bytes:
    """Return a function as bytes: one of a script by value, one of an installed module by name.

    The modules beside a script that it has imported go by value as well, also where the function
    is one of theirs: workers that run already may have imported an earlier version of them.

    Raises
    ------
    ValueError
        Something that it holds cannot be pickled.
    """
    to = io.BytesIO()
    beside = _beside()
    for module in beside:
        cloudpickle.register_pickle_by_value(module)
    try:
        # Not with Dask's function, which prints its errors.
        _Pickler(to).dump(process)
    except Exception as error:
        # Pickling raises whatever the things raise that it comes across.
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
    """Return the modules beside the script that is run that were imported."""
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
