"""Discovery of series and instances on DICOMweb servers, and their descriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from dcmdask.archive.descriptions import Outcome, describe_located
from dcmdask.archive.discovery import Choice, Skipped
from dcmdask.archive.processes import in_threads
from dcmdask.dicom.description import SEQUENCES, WANTED
from dcmdask.dicom.private.mosaic import MOSAIC_ELEMENTS, is_mosaic
from dcmdask.dicom.served import values_of, with_metadata
from dcmdask.errors import UnreachableError
from dcmdask.sources import dicomweb_requests
from dcmdask.sources.dicomweb import (
    Resource,
    ServedInstance,
    check_options,
    is_dicomweb,
    resource_of,
)

_SOP_INSTANCE, _IMAGE_TYPE = "00080018", "00080008"
_WANTED = WANTED | SEQUENCES
# The long private header of each instance is a request more.
_OF_NO_MOSAIC = _WANTED - MOSAIC_ELEMENTS


def discover(
    url: str, storage_options: Mapping[str, Any], chosen: Choice
) -> Iterator[Resource | Skipped]:
    """Yield the series of a server or a study; a series or an instance, if the URL names one.

    Of the studies of a server, one whose series are not listed is named and stops nothing.

    Raises
    ------
    FileNotFoundError, PermissionError, UnreachableError
        The study is not there, or not for these credentials, or the server does not answer.
    ValueError
        It is not a URL of a DICOMweb server, or there is an unknown option.
    """
    resource = resource_of(url)
    check_options(url, storage_options)
    if len(resource.uids) > 1:
        yield resource
        return
    is_study = bool(resource.uids)
    for study in [resource] if is_study else _below(resource, storage_options):
        if isinstance(study, Skipped):
            yield study
            continue
        try:
            found = list(_below(study, storage_options))
        except OSError as error:
            if is_study:
                raise
            yield _failed(study, error)
            continue
        if is_study and not found:
            raise FileNotFoundError(f"{study.name}: the server has no series of this study")
        for one in found:
            if isinstance(one, Skipped) or not chosen.leaves_out(_path_below(resource, one)):
                yield one


def _below(resource: Resource, options: Mapping[str, Any]) -> Iterator[Resource | Skipped]:
    """Yield the studies of a server, or the series of a study."""
    for uid in dicomweb_requests.uids_below(resource, options):
        if uid:
            yield Resource(resource.root, (*resource.uids, uid))
        else:
            reason = "an entry of what the server lists has no UID"
            yield Skipped(resource.name, reason, "doubtful", "uid")


def _failed(resource: Resource, error: OSError) -> Skipped:
    if isinstance(error, UnreachableError):
        return Skipped(resource.name, error.message, "doubtful", error.code)
    reason = f"it cannot be read: {type(error).__name__}"
    return Skipped(resource.name, reason, "doubtful", "unreadable")


def describe_series(
    series: Resource,
    storage_options: Mapping[str, Any],
    known: dict[Any, Any],
    options: Mapping[str, Any],
    chosen: Choice,
) -> list[Outcome]:
    """Describe the instances of a series, whose metadata is fetched by one request.

    Parameters
    ----------
    series : Resource
        Also one instance.
    storage_options : mapping
    known, options : dict, mapping
        As for :func:`dcmdask.archive.descriptions.describe_files`.
    chosen : Choice

    Raises
    ------
    FileNotFoundError, PermissionError, UnreachableError
        The series is not there, or not for these credentials, or the server does not answer.
    """
    outcomes: list[Outcome] = []
    names: set[str] = set()
    syntaxes: dict[Any, str] = {}
    for metadata in dicomweb_requests.metadata_of(series, storage_options):
        try:
            uid = str(metadata[_SOP_INSTANCE]["Value"][0])
            instance = resource_of(Resource(series.root, (*series.uids[:2], uid)).name)
        except (KeyError, IndexError, TypeError, ValueError):
            reason = "its metadata have no SOP Instance UID"
            outcomes.append(Skipped(series.name, reason, "doubtful", "sop-instance-uid"))
            continue
        # Some servers tell an instance twice.
        if instance.name in names or chosen.leaves_out(_path_below(series, instance)):
            continue
        names.add(instance.name)
        source = ServedInstance(instance.name, dict(storage_options))
        image_type = "\\".join(map(str, values_of(metadata, _IMAGE_TYPE)))
        wanted = _WANTED if is_mosaic(image_type.encode()) else _OF_NO_MOSAIC
        locate = partial(with_metadata, source, metadata, wanted, syntaxes)
        outcomes.append(describe_located(source.name, locate, known, options))
    return outcomes


def served_outcomes(
    sources: Sequence[str],
    found: Iterable[Resource],
    describe: Callable[[Resource], list[Outcome]],
    threads: int,
) -> Iterator[list[Outcome]]:
    """Yield what instances are, those of a series at a time, each once.

    A series that fails is named and stops nothing, unless it is all that was asked for.

    Parameters
    ----------
    sources : sequence of str
        All that was asked for.
    found : iterable of Resource
        Series and instances.
    describe : callable
        Describes those of one, as :func:`describe_series` does.
    threads : int
    """
    only = sources[0] if len(sources) == 1 else ""
    is_one = is_dicomweb(only) and len(resource_of(only).uids) > 1
    ask = describe if is_one else partial(_described_or_reason, describe)
    seen: set[str] = set()
    for outcomes in in_threads(ask, found, threads):
        fresh = [one for one in outcomes if _name(one) not in seen]
        if not only:
            # An instance and its series may both be sources.
            seen.update(map(_name, fresh))
        yield fresh


def _described_or_reason(
    describe: Callable[[Resource], list[Outcome]], series: Resource
) -> list[Outcome]:
    try:
        return describe(series)
    except OSError as error:
        return [_failed(series, error)]


def _name(one: Outcome) -> str:
    return one.path if isinstance(one, Skipped) else one.source.name


def _path_below(resource: Resource, one: Resource) -> str:
    return one.url.removeprefix(resource.url).strip("/")
