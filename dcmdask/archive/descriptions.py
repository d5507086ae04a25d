"""Descriptions of files by their headers: instances, and entries of what is none."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from dcmdask.archive.discovery import Skipped, empty, unreadable
from dcmdask.dicom import files
from dcmdask.dicom.description import Described, describe, lost_pixels
from dcmdask.errors import DcmdaskError, NoPixelDataError, NotDicomError

Outcome: TypeAlias = "Described | Skipped"

# Attributes of which an archive has few values.
_REPEATED = (
    "sop_class_uid",
    "study_uid",
    "series_uid",
    "frame_of_reference_uid",
    "modality",
    "image_type",
    "transfer_syntax",
    "photometric_interpretation",
    "pixel_keyword",
    "units",
    "overrides",
)


def describe_files(
    paths: Iterable[str],
    storage_options: Mapping[str, Any] | None = None,
    known: dict[Any, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Outcome]:
    """Describe files, in their order.

    Parameters
    ----------
    paths : iterable of str
    storage_options : mapping, optional
    known : dict, optional
        Values of earlier files, which equal ones are replaced by.
    options : mapping, optional
        Decoding options, as for :func:`dcmdask.scan`.
    """
    known = {} if known is None else known
    options = {} if options is None else options
    limit = options.get("inflate_limit", files.INFLATE_LIMIT)
    return [
        describe_located(path, partial(files.locate, path, storage_options, limit), known, options)
        for path in paths
    ]


def describe_located(
    path: str,
    locate: Callable[[], files.Stored],
    known: dict[Any, Any],
    options: Mapping[str, Any],
) -> Outcome:
    """Describe one file.

    Parameters
    ----------
    path : str
    locate : callable
        Returns the place of its bytes.
    known, options : dict, mapping
        As for :func:`describe_files`.
    """
    # Warnings about the header come when its frames are opened.
    with quiet():
        try:
            source = locate()
            if not source.size:
                return empty(path)
            try:
                return _sharing(describe(source, options), known)
            except NoPixelDataError:
                return _without_pixels(path, lost_pixels(source, options))
        except NotDicomError:
            return Skipped(path, "not a DICOM file", "not DICOM", "not DICOM")
        except DcmdaskError as error:
            return Skipped(path, error.message, "doubtful", error.code)
        except OSError as error:
            return unreadable(path, error)
        except Exception as error:
            name = type(error).__name__
            return Skipped(path, f"it cannot be described: {name}", "doubtful", name)


def _without_pixels(path: str, lost: str) -> Skipped:
    if not lost:
        return Skipped(path, "no pixel data", "no pixel data", "no pixel data")
    reason = f"no pixel data, and {lost}: it is probably truncated"
    return Skipped(path, reason, "doubtful", "lost pixel data")


def _sharing(one: Described, known: dict[Any, Any]) -> Described:
    """Replace values by equal ones in memory; pickled together they stay so."""
    values = {name: getattr(one, name) for name in _REPEATED}
    return replace(one, **{k: known.setdefault(value, value) for k, value in values.items()})


# Warnings

_here = threading.local()


class _WhereQuiet(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        return getattr(_here, "quiet", False)


class _AnyWarning(Warning, metaclass=_WhereQuiet):
    """Base of any warning, for a filter, in a thread that is quiet."""


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of this thread.

    :func:`warnings.catch_warnings` is for the whole process: it would take those of other
    threads as well, for as long as a scan takes. A filter that says nothing about them stays
    behind.
    """
    before = getattr(_here, "quiet", False)
    # Each change of the filters brings warnings back that are to be shown once.
    if not warnings.filters or warnings.filters[0][2] is not _AnyWarning:
        warnings.simplefilter("ignore", _AnyWarning)
    _here.quiet = True
    try:
        yield
    finally:
        _here.quiet = before
