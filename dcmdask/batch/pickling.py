"""The function of a job as bytes, by value, with the file names that tracebacks show."""

from __future__ import annotations

import io
import types
from collections import ChainMap
from collections.abc import Callable
from typing import Any, ClassVar

import cloudpickle


def pickled(process: Callable[..., Any]) -> bytes:
    """Return a function as bytes: one of a script by value, one of a module by name.

    Raises
    ------
    ValueError
        Something that it holds cannot be pickled.
    """
    to = io.BytesIO()
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
    return to.getvalue()


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
