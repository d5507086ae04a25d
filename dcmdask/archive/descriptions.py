"""Descriptions of files by their headers: instances, and entries of what is none."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from pydicom.uid import UID

from dcmdask.archive.containers.media import medium_of
from dcmdask.archive.discovery import Skipped, empty, unreadable
from dcmdask.dicom.conversion import code_string
from dcmdask.dicom.description import Described, describe
from dcmdask.dicom.header import Header, read_header
from dcmdask.dicom.image_pixel import inflate_limit
from dcmdask.dicom.instance import Indexing
from dcmdask.dicom.without_pixels import without_pixels
from dcmdask.errors import DcmdaskError, NoPixelDataError, NotDicomError
from dcmdask.sources import files

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
    "own",
    "overrides",
)
_SOP_CLASS, _ROWS, _FIRST_DIRECTORY_RECORD = 0x00080016, 0x00280010, 0x00041200
# SOP classes (PS3.4 B.5) whose instances have pixel data, besides those of images.
_OF_PIXELS: Final = (
    "Segmentation Storage",
    "Label Map Segmentation Storage",
    "Height Map Segmentation Storage",
    "Parametric Map Storage",
    "Enhanced US Volume Storage",
    "Ophthalmic Thickness Map Storage",
    "Corneal Topography Map Storage",
)
# Code of a file whose pixel data should be there.
LOST: Final = "lost pixel data"
# Its pixel data may be left out, and Rows with it.
_RT_DOSE: Final = "RT Dose Storage"


def describe_files(
    paths: Iterable[str | files.RemoteFile],
    storage_options: Mapping[str, Any] | None = None,
    known: dict[Any, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    indexing: Indexing = "no",
    identifiers: bool = False,
) -> list[Outcome]:
    """Describe files, in their order.

    Parameters
    ----------
    paths : iterable of str or RemoteFile
    storage_options : mapping, optional
    known : dict, optional
        Values of earlier files, which equal ones are replaced by.
    options : mapping, optional
        Decoding options, as for :func:`dcmdask.scan`.
    indexing : {"no", "at hand", "walk"}, optional
        Which frame indices are made.
    identifiers : bool, optional
        Whether elements that name a person are kept.
    """
    known = {} if known is None else known
    options = {} if options is None else options
    limit = inflate_limit(options)
    return [
        describe_located(
            one if isinstance(one, str) else one.name,
            partial(files.locate, one, storage_options, limit),
            known,
            options,
            indexing,
            identifiers,
        )
        for one in paths
    ]


_PACKED = "a packed file or an archive, which is read where it is the source itself"


def describe_located(
    path: str,
    locate: Callable[[], files.Stored],
    known: dict[Any, Any],
    options: Mapping[str, Any],
    indexing: Indexing = "no",
    identifiers: bool = False,
) -> Outcome:
    """Describe one file.

    Parameters
    ----------
    path : str
    locate : callable
        Returns the place of its bytes.
    known, options, indexing, identifiers : dict, mapping, str, bool
        As for :func:`describe_files`.
    """
    kept: Any = {"indexing": indexing, "identifiers": identifiers}
    # Warnings about the header come when its frames are opened.
    with quiet():
        try:
            source = locate()
            if not source.size:
                return empty(path)
            try:
                return _sharing(describe(source, options, **kept), known)
            except NoPixelDataError:
                return _without_pixels(path, source, options)
        except NotDicomError:
            packed = "://" not in path and medium_of(path)
            if packed:
                return Skipped(path, _PACKED, "not DICOM", "packed")
            return Skipped(path, "not a DICOM file", "not DICOM", "not DICOM")
        except DcmdaskError as error:
            return Skipped(path, error.message, "doubtful", error.code)
        except OSError as error:
            return unreadable(path, error)
        except Exception as error:
            name = type(error).__name__
            return Skipped(path, f"it cannot be described: {name}", "doubtful", name)


def _without_pixels(path: str, source: files.Stored, options: Mapping[str, Any]) -> Skipped:
    """Return the entry of a file without pixel data, which may be lost.

    Reports, plans, presentation states and media directories have no pixel data. A file that
    is cut between two elements looks like one of these.
    """
    header = read_header(
        source,
        (_SOP_CLASS, _ROWS, _FIRST_DIRECTORY_RECORD),
        options.get("transfer_syntax_uid"),
        inflate_limit=inflate_limit(options),
    )
    why, stopped = _reason_for_pixels(header), header.stopped
    if not why:
        reason = without_pixels(_sop_class(header)) or "no pixel data"
        return Skipped(path, reason, "no pixel data", "no pixel data")
    cause = "it is probably truncated"
    if stopped is not None:
        cause = (
            f"its elements are not understood from byte {stopped.offset} on ({stopped.reason}), "
            "and it may be behind that"
        )
    return Skipped(path, f"no pixel data, and {why}: {cause}", "doubtful", LOST)


def _reason_for_pixels(header: Header) -> str:
    """Return the reason why there should be pixel data; empty if there is none."""
    values = header.values
    if _FIRST_DIRECTORY_RECORD in values:
        return ""
    if _SOP_CLASS not in values:
        return "there is no (0008,0016) 'SOP Class UID' either"
    sop_class = UID(_sop_class(header))
    name = sop_class.name
    if "Image" in name or name in _OF_PIXELS:
        return "the SOP class is one of images"
    # A class that the standard does not know is called by its UID.
    if name in (sop_class, _RT_DOSE) and _ROWS in values:
        return "(0028,0010) 'Rows' is there"
    return ""


def _sop_class(header: Header) -> str:
    raw = header.values.get(_SOP_CLASS)
    return code_string(raw.value) if raw else ""


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
