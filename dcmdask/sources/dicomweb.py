"""Instances on a DICOMweb server (PS3.18) as sources, and the URLs that name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SCHEMES = ("dicomweb+https://", "dicomweb+http://")
PREFIX = "dicomweb+"
LEVELS = ("studies", "series", "instances")
UID = re.compile(r"[0-9.]{1,64}")
# Of a header, name or value, as it is sent: in ISO 8859-1.
HEADER = re.compile(r"[^\0\r\n\u0100-\U0010ffff]*")


class Resource(NamedTuple):
    """Server, study, series or instance that a URL names.

    Attributes
    ----------
    root : str
        Base URL of the service, with ``https://`` or ``http://``.
    uids : tuple of str
        Of study, series and instance, as far as they are given.
    """

    root: str
    uids: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """URL of it on the server."""
        pairs = zip(LEVELS, self.uids, strict=False)
        return "/".join([self.root, *(part for pair in pairs for part in pair)])

    @property
    def name(self) -> str:
        """URL as it is given to dcmdask."""
        return PREFIX + self.url


@dataclass(frozen=True)
class ServedInstance:
    """Instance on a DICOMweb server, whose frames are fetched by number.

    Its bytes are a header that is made of its metadata, and no file. The frames are fetched by
    :func:`dcmdask.sources.dicomweb_requests.fetch_frames`. The options, which may have
    credentials, are part of neither name, nor repr, nor token.

    Attributes
    ----------
    name : str
        URL, with its prefix.
    syntax : str
        UID of the transfer syntax of the frames; empty as long as the server was not asked.
    encapsulated : bool
        Whether that is an encapsulated one.
    key : str
        Hash of the metadata.
    brief : bytes
        Header with the elements alone by which the frames are decoded.
    start : bytes
        Header with all elements, where it is there: for opening it, not to be kept.
    """

    name: str
    options: Mapping[str, Any] = field(compare=False, repr=False)
    syntax: str = ""
    encapsulated: bool = False
    key: str = ""
    brief: bytes = field(default=b"", compare=False, repr=False)
    start: bytes = field(default=b"", compare=False, repr=False)

    @property
    def size(self) -> int:
        """Number of bytes of the header, as long as it is there."""
        return len(self.start)

    @property
    def token(self) -> tuple[object, ...]:
        """Identity of the content."""
        return ("dicomweb", self.name, self.syntax, self.key)

    @property
    def resource(self) -> Resource:
        """The instance, as the server knows it."""
        return resource_of(self.name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "start": b""}


@dataclass(frozen=True)
class ServedFile:
    """File of an instance on a DICOMweb server, which is fetched whole.

    For instances whose frames the server does not give. The options are as those of a
    :class:`ServedInstance`.

    Attributes
    ----------
    name : str
        URL, with its prefix.
    size : int
    key : str
        Hash of the content.
    """

    name: str
    options: Mapping[str, Any] = field(compare=False, repr=False)
    size: int
    key: str

    @property
    def token(self) -> tuple[object, ...]:
        """Identity of the content."""
        return ("dicomweb file", self.name, self.size, self.key)


def is_dicomweb(url: Any) -> bool:
    """Return whether a URL is of a DICOMweb server.

    Examples
    --------
    >>> is_dicomweb("dicomweb+https://host/dicom-web"), is_dicomweb("https://host/a.dcm")
    (True, False)
    """
    return isinstance(url, str) and url.startswith(SCHEMES)


def resource_of(url: str) -> Resource:
    """Return what a URL names.

    Raises
    ------
    ValueError
        It has a user name or a password, or does not end as those of DICOMweb do.

    Examples
    --------
    >>> resource_of("dicomweb+https://host/dicom-web/studies/1.2/series/1.3")
    Resource(root='https://host/dicom-web', uids=('1.2', '1.3'))
    """
    plain = url.removeprefix(PREFIX)
    try:
        split = urlsplit(plain)
        _ = split.port
    except ValueError:
        # Anything but a port may be a password with a slash.
        raise _no_resource(url.rpartition("@")[2]) from None
    if "@" in split.netloc:
        raise ValueError(
            f"{PREFIX}{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}: a URL with "
            "a user name or a password is not taken, as URLs are shown and stored; storage_options="
            '{"headers": {"Authorization": ...}} or a .netrc file has them'
        )
    path, uids = plain.rstrip("/"), list[str]()
    if split.query or split.fragment or not split.hostname:
        raise _no_resource(url)
    # The root may have a folder that is called like a level.
    while (found := re.fullmatch(r"(.*)/(studies|series|instances)/([^/]+)", path)) is not None:
        path, level, uid = found.groups()
        uids.insert(0, uid)
        if level == LEVELS[0]:
            break
    else:
        uids = []
    resource = Resource(path if uids else plain.rstrip("/").removesuffix("/studies"), tuple(uids))
    if (uids and resource.url != plain.rstrip("/")) or not all(map(UID.fullmatch, uids)):
        raise _no_resource(url)
    if not uids and re.search(r"/(studies|series|instances)/", urlsplit(resource.root).path + "/"):
        raise _no_resource(url)
    return resource


def _no_resource(url: str) -> ValueError:
    # A query may have a token, which is not repeated.
    return ValueError(
        f"{re.split('[?#]', url)[0]}: not a URL of a DICOMweb server: dicomweb+https://HOST/ROOT, "
        "and behind it /studies/UID, /studies/UID/series/UID or "
        "/studies/UID/series/UID/instances/UID"
    )


def locate(url: str, options: Mapping[str, Any]) -> ServedInstance:
    """Return the instance that a URL names; the server is not asked.

    Raises
    ------
    IsADirectoryError
        The URL names a series, a study or a server.
    ValueError
        It is not a URL of a DICOMweb server, or there is an unknown option.
    """
    resource = resource_of(url)
    check_options(url, options)
    if len(resource.uids) < len(LEVELS):
        raise IsADirectoryError(f"{url} is no instance, and one is meant")
    return ServedInstance(resource.name, dict(options))


def check_options(url: str, options: Mapping[str, Any]) -> None:
    """Refuse storage options that DICOMweb does not have."""
    headers = options.get("headers", {})
    if options.keys() - {"headers"} or not isinstance(headers, Mapping):
        names = ", ".join(sorted(options))
        raise ValueError(
            f"{url}: storage_options of DICOMweb are {{'headers': {{...}}}}, not {names}"
        )
    # Errors of the encoding, later, would have the value.
    texts = [one for pair in headers.items() for one in pair]
    if not all(isinstance(one, str) and HEADER.fullmatch(one) for one in texts):
        raise ValueError(
            f"{url}: a header is no string, or has letters or line ends that HTTP does not have"
        )
