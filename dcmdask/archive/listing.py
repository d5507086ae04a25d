"""Listing of the files of a scan, and what each of them is."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from dcmdask.archive.containers.media import medium_of, unzipped
from dcmdask.archive.containers.members import Archive, archive_of
from dcmdask.archive.descriptions import Outcome, describe_files, describe_located
from dcmdask.archive.discovery import Choice, Skipped, discover, discover_listed, is_url
from dcmdask.archive.processes import describe_in_processes, in_threads, on_cluster
from dcmdask.archive.remote import discover as discover_url
from dcmdask.archive.served import describe_series, served_outcomes
from dcmdask.archive.served import discover as discover_served
from dcmdask.dicom.image_pixel import inflate_limit
from dcmdask.dicom.instance import Indexing
from dcmdask.errors import HeaderError
from dcmdask.sources.access import reaching
from dcmdask.sources.dicomweb import Resource, is_dicomweb

if TYPE_CHECKING:
    from distributed import Client

# Files that are described together: the answer of a worker process is worth its trip.
BATCH = 64
# Seconds after which it pays to start processes, which takes about as long: some thousand
# files on a disk that is quick, a hundred on one that is not.
PATIENCE = 0.25
# Requests to a server that are under way at once.
REMOTE_THREADS = 64


@dataclass
class Listing:
    """Sources, and the state of listing them.

    Attributes
    ----------
    sources : sequence of str
    storage_options : mapping
    chosen : Choice
    decoding_options : mapping
    indexing : {"no", "at hand", "walk"}
        Which frame indices are made.
    identifiers : bool
        Whether elements that name a person are kept.
    is_known : callable, optional
        Takes what :func:`dcmdask.archive.discovery.discover` or that of remote files yields;
        returns whether the file need not be read.
    skipped : list of Skipped
        Folders and files that are not looked into.
    files, listed : int
        Number of files that were found, and of sources that were listed to their end.
    """

    sources: Sequence[str]
    storage_options: Mapping[str, Any]
    chosen: Choice
    decoding_options: Mapping[str, Any]
    indexing: Indexing = "no"
    identifiers: bool = False
    is_known: Callable[[Any], bool] | None = None
    skipped: list[Skipped] = field(default_factory=list)
    files: int = 0
    listed: int = 0

    @property
    def complete(self) -> bool:
        return self.listed == len(self.sources)

    def batches(self, remote: bool, size: int) -> Iterator[list[Any]]:
        """Yield the files of local or remote sources, `size` at a time, while listing them.

        Local ones are paths, remote ones what :func:`dcmdask.archive.remote.discover` yields.
        """
        found = self._paths(remote)
        # Folders and patterns that overlap lead to the same file.
        paths = found if len(self.sources) == 1 else _once(found)
        while batch := list(islice(paths, size)):
            self.files += len(batch)
            yield batch

    def unknown(self, batches: Iterable[list[Any]]) -> Iterator[list[Any]]:
        """Yield what of batches has to be read."""
        for batch in batches:
            yield batch if self.is_known is None else [b for b in batch if not self.is_known(b)]

    def archives(self) -> dict[str, list[str]]:
        """Return the archives among the sources, and what of each is to be scanned."""
        found: dict[str, list[str]] = {}
        for source in self.sources:
            if is_url(source) and not is_dicomweb(source) and (archive := archive_of(source)):
                found.setdefault(archive, []).append(source)
        return found

    @cached_property
    def gzipped(self) -> frozenset[str]:
        """Gzipped files among the sources, which are not those of an archive."""
        local = (one for one in self.sources if not is_url(one))
        return frozenset(one for one in local if medium_of(one) == "gzip")

    def served(self) -> Iterator[Resource]:
        """Yield what sources on DICOMweb servers are: series, and single instances."""

        def found() -> Iterator[Resource]:
            for source in filter(is_dicomweb, self.sources):
                yield from self._kept(discover_served(source, self.storage_options, self.chosen))
                self.listed += 1

        return _once(found())

    def opened(self, found: Iterable[str | Skipped], sources: int) -> list[str]:
        """Return the members of an archive that so many of the sources lead to."""
        members = list(self._kept(found))
        self.files += len(members)
        self.listed += sources
        return members

    def _paths(self, remote: bool) -> Iterator[Any]:
        for source in self.sources:
            if is_url(source) is not remote or is_dicomweb(source):
                continue
            if remote and archive_of(source):
                continue
            if source in self.gzipped:
                continue
            if remote:
                found = discover_url(source, self.storage_options, self.chosen)
            elif len(self.sources) == 1 and medium_of(source) == "directory":
                # Among other files it is one of them, as where all files of a disc are listed.
                found = discover_listed(source)
            else:
                found = discover(source, self.chosen)
            yield from self._kept(found)
            self.listed += 1

    def _kept(self, found: Iterable[Any]) -> Iterator[Any]:
        for one in found:
            if isinstance(one, Skipped):
                self.skipped.append(one)
            else:
                yield one


def _once(paths: Iterable[Any]) -> Iterator[Any]:
    seen: set[Any] = set()
    for path in paths:
        if path not in seen:
            seen.add(path)
            yield path


def outcomes(listing: Listing, client: Client | None = None) -> Generator[list[Outcome]]:
    """Yield what each file is, some at a time, in any order.

    Parameters
    ----------
    listing : Listing
    client : distributed.Client, optional
        Its workers read the headers; otherwise threads, and processes of this machine.
    """
    known: dict[Any, Any] = {}
    how: dict[str, Any] = {
        "options": listing.decoding_options,
        "indexing": listing.indexing,
        "identifiers": listing.identifiers,
    }
    remote = {"storage_options": listing.storage_options, **how}
    if client is not None:
        for is_remote in (False, True):
            batches = listing.unknown(listing.batches(remote=is_remote, size=BATCH))
            yield from on_cluster(client, partial(describe_files, **remote), batches)
        return
    yield from _of_local_files(listing, known, how)
    yield from _of_containers(listing, known)

    def describe(batch: list[Any]) -> list[Outcome]:
        # A web server is asked for what is known of a file, so not while listing.
        (unknown,) = listing.unknown([batch])
        return describe_files(unknown, known=known, **remote)

    yield from in_threads(describe, listing.batches(remote=True, size=1), REMOTE_THREADS)
    of_series = partial(
        describe_series,
        storage_options=listing.storage_options,
        known=known,
        options=listing.decoding_options,
        chosen=listing.chosen,
    )
    for some in served_outcomes(listing.sources, listing.served(), of_series, REMOTE_THREADS):
        listing.files += len(some)
        yield some


def _of_local_files(
    listing: Listing, known: dict[Any, Any], how: Mapping[str, Any]
) -> Iterator[list[Outcome]]:
    batches = listing.unknown(listing.batches(remote=False, size=BATCH))
    started = time.monotonic()
    for batch in batches:
        if time.monotonic() - started > PATIENCE:
            # A scan that ends before need not wait for dask to be imported.
            from dask.system import CPU_COUNT

            yield from describe_in_processes(chain([batch], batches), CPU_COUNT, **how)
        else:
            yield describe_files(batch, known=known, **how)


def _of_containers(listing: Listing, known: dict[Any, Any]) -> Iterator[list[Outcome]]:
    options = listing.decoding_options
    for path in listing.opened(sorted(listing.gzipped), len(listing.gzipped)):
        limit = inflate_limit(options)
        yield [describe_located(path, partial(unzipped, path, limit), known, options)]
    for name, urls in listing.archives().items():
        try:
            with reaching(urls[0]):
                archive = Archive(name, listing.storage_options)
        except HeaderError as error:
            if len(urls) == len(listing.sources):
                raise
            listing.skipped.append(Skipped(urls[0], error.message, "doubtful", error.code))
            continue
        for url in listing.opened(archive.discover(urls, listing.chosen), len(urls)):
            yield [archive.describe(url, known, options)]
