"""The report of a job as one page that a browser shows: nothing in it is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from dask.utils import format_bytes
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from dcmdask.batch.folder import Folder
from dcmdask.batch.identity import digest
from dcmdask.batch.records import RECORDS, SCAN, Record, key_of
from dcmdask.batch.staging import OUTPUTS
from dcmdask.batch.thumbnail import thumbnail_key
from dcmdask.report.distribution import distribution
from dcmdask.report.summary import Cause, Summary, duration, last_part, without_folders
from dcmdask.store.ownership import check_ours

NAME = "report.html"
# By which a page is known that may be replaced, one that nobody has changed since: a hash of the
# page with zeros in its place.
_GENERATOR = "dcmdask report "
_HASH = re.compile(rf'(?<=<meta name="generator" content="{_GENERATOR})[0-9a-f]{{20}}(?=">)')
_ZEROS = "0" * 20
# What a page holds at most, so that a browser opens it: what is left out is told on it.
_PICTURES = 500
_PICTURE_BYTES = 4_000_000
_CAUSES = 100
_NAMES = 50
_PLOTS = 60
_COLUMNS = 12
_TEXT = 80
# Of the longer side of a picture, in pixels.
_SIDE = 160
_THUMBNAIL = "thumbnail"
# Pictures that are in memory at a time.
_AT_A_TIME = 16


def write_page(summary: Summary, folder: Folder, path: str | None = None) -> str:
    """Write the page, whole.

    Parameters
    ----------
    summary : Summary
        Of the records of a target.
    folder : Folder
        The target.
    path : str, optional
        Path of the page; by default ``report.html`` in the target.

    Returns
    -------
    str
        Path of the page.

    Raises
    ------
    StoreExistsError
        Something is there that is not such a page.
    OSError
        It cannot be written.
    """
    where, name = folder, NAME
    if path is not None:
        name = last_part(path)
        options = folder.options if "://" in path else None
        where = Folder.of(path.rstrip("/\\").removesuffix(name) or ".", options)
    is_ours = _is_page(where.read([name]).get(name, b"")) and not where.is_link(name)
    check_ours(where.url, [one for one in where.names("") if one == name], [name] * is_ours)
    text = page(summary, folder, _way(where, folder))
    text = _HASH.sub(digest(text.encode()), text, count=1)
    where.write(name, text.encode())
    return where.path(name)


def _is_page(data: bytes) -> bool:
    """Return whether it is a page as it was written."""
    text = data.decode(errors="replace")
    found = _HASH.search(text)
    return found is not None and digest(_HASH.sub(_ZEROS, text, count=1).encode()) == found[0]


def page(summary: Summary, folder: Folder, way: str | None = "") -> str:
    """Return the page.

    Parameters
    ----------
    summary : Summary
    folder : Folder
        The target: pictures are read from there.
    way : str or None
        From the page to the target, as the beginning of a link; None for no links.
    """
    named = {one.name: f"s{number}" for number, one in enumerate(summary.records)}
    columns = list(dict.fromkeys(key for one in summary.records for key in one.numbers))
    done = [one for one in summary.records if one.done]
    seconds = [float(one.seconds) for one in summary.records if one.stage != SCAN]
    plots = [("seconds", distribution(seconds))]
    plots += [
        (key, distribution([one.numbers.get(key) for one in done])) for key in columns[:_PLOTS]
    ]
    ours = resources.files("dcmdask.report")
    template, style, script = (
        ours.joinpath(f"page.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js")
    )
    environment = Environment(
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(template).render(
        generator=_GENERATOR + _ZEROS,
        title=last_part(folder.url) or folder.url,
        summary=summary,
        longest=named[summary.longest.name],
        causes=[_told(cause, folder, named) for cause in summary.causes[:_CAUSES]],
        odd=[_told(one, folder, named) for one in summary.odd[:_CAUSES]],
        more_odd=len(summary.odd[_CAUSES:]),
        more_causes=len(summary.causes[_CAUSES:]),
        plots=plots,
        more_plots=len(columns[_PLOTS:]),
        pictures=_pictures(summary.records, folder, way, named),
        heads=("series", "state", "frames", "seconds", "attempts", *columns[:_COLUMNS], "outputs"),
        rows=[_row(one, columns[:_COLUMNS], way, named) for one in summary.records],
        more_columns=len(columns[_COLUMNS:]),
        # Ours, and without a character that would end their elements.
        style=Markup(style),
        script=Markup(script),
        hash_of=_hash_of,
        duration=duration,
        size=format_bytes,
        short=_short,
        shortened=_shortened,
    )


# Failures


class _Told(NamedTuple):
    """A cause as the page tells it; `names` with the anchors of their rows."""

    stage: str
    error: str
    message: str
    number: int
    noun: str
    example: str
    text: str
    traceback: str
    names: Sequence[tuple[str, str]]
    more: int


def _told(cause: Cause, folder: Folder, named: dict[str, str]) -> _Told:
    # One that has a traceback, if there is one.
    example = next((one for one in cause.records if one.traceback), cause.records[0])
    where = [example.name]
    if example.file:
        where.append(last_part(example.file))
    if example.frame is not None:
        where.append(f"frame {example.frame}")
    return _Told(
        cause.stage,
        cause.error,
        cause.message,
        len(cause.records),
        "file" if cause.stage == SCAN else "series",
        ", ".join(where),
        without_folders(example.message, example, folder),
        without_folders(example.traceback, example, folder),
        [(one.name, named[one.name]) for one in cause.records[:_NAMES]],
        len(cause.records[_NAMES:]),
    )


# The table


class _Row(NamedTuple):
    """A row of the table of series."""

    anchor: str
    name: str
    link: str | None
    done: bool
    state: str
    frames: int
    seconds: str
    attempts: int
    cells: Sequence[str]
    outputs: Sequence[tuple[str, str | None]]


def _row(record: Record, columns: Sequence[str], way: str | None, named: dict[str, str]) -> _Row:
    return _Row(
        named[record.name],
        record.name,
        _link(way, key_of(record.name)),
        record.done,
        "done" if record.done else f"failed: {record.stage}",
        record.frames,
        f"{record.seconds:.2f}",
        record.attempts,
        [_cell(record.numbers.get(key)) for key in columns],
        [
            (key, _link(way, path) if _is_ours(path) else None)
            for key, path in record.outputs.items()
        ],
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _short(value)
    return _shortened(value if isinstance(value, str) else json.dumps(value))


def _short(value: float) -> str:
    return f"{value:.6g}"


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}..."


def _is_ours(path: str) -> bool:
    """Return whether a path is one of outputs; a record may have been tampered with."""
    parts = path.split("/")
    return parts[0] in (OUTPUTS, RECORDS) and not {"", ".", ".."} & set(parts)


def _link(way: str | None, path: str) -> str | None:
    return None if way is None else quote(f"{way}{path}", errors="replace")


def _way(page_folder: Folder, folder: Folder) -> str | None:
    """Return the way from the folder of the page to the target; None where there is none."""
    if page_folder.url == folder.url:
        return ""
    if not (page_folder.is_local and folder.is_local):
        return None
    try:
        return os.path.relpath(folder.url, page_folder.url).replace(os.sep, "/") + "/"
    except ValueError:
        # On another drive.
        return None


# Pictures


class _Picture(NamedTuple):
    """A picture as small as the page shows it, as a data URI."""

    name: str
    key: str
    row: str
    link: str | None
    data: str
    width: int
    height: int


class _Pictures(NamedTuple):
    """The pictures of a page, and what is to be said of those that are not on it."""

    shown: Sequence[_Picture]
    notes: Sequence[str]


def _pictures(
    records: Sequence[Record], folder: Folder, way: str | None, named: dict[str, str]
) -> _Pictures:
    having = [_picture_of(one) for one in records if one.done]
    shown, held, tried, missing = [], 0, 0, 0
    for (name, key, path), data in _read(having[:_PICTURES], folder):
        tried += 1
        small = _small(data)
        if small is None:
            missing += bool(data) or key != _THUMBNAIL
            continue
        held += len(small.data)
        row, link = named[name], _link(way, path)
        shown.append(_Picture(name, key, row, link, small.uri, small.width, small.height))
        if held > _PICTURE_BYTES:
            break
    notes = []
    if len(having) > tried:
        notes.append(f"These are of the first {tried} of {len(having)} series that are done.")
    if missing:
        notes.append(f"Pictures that are missing or cannot be read: {missing}.")
    if without := tried - missing - len(shown):
        notes.append(f"Series without a picture: {without}; their records may say why.")
    return _Pictures(shown, notes)


def _picture_of(record: Record) -> tuple[str, str, str]:
    """Return the name of a series, and the name and the path of what is to be shown of it."""
    paths = ((key, path) for key, path in record.outputs.items() if _is_picture(path))
    own = thumbnail_key(record.name)
    return (record.name, *next(paths, (_THUMBNAIL, own if _is_picture(own) else "")))


def _is_picture(path: str) -> bool:
    return _is_ours(path) and path.endswith(".png")


def _read(
    having: Sequence[tuple[str, str, str]], folder: Folder
) -> Iterator[tuple[tuple[str, str, str], bytes]]:
    """Yield pictures with what is in their files; nothing for one that cannot be read."""
    for start in range(0, len(having), _AT_A_TIME):
        some = having[start : start + _AT_A_TIME]
        try:
            found = folder.read(path for _, _, path in some if path)
        except (OSError, ValueError):
            # No file system has a file of such a name.
            found = {}
        for one in some:
            yield one, found.get(one[2], b"")


class _Small(NamedTuple):
    """A JPEG, small."""

    data: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(self.data).decode()}"


def _small(data: bytes) -> _Small | None:
    """Return a picture scaled down; None if it cannot be read."""
    held = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # What may be a bomb is none of our pictures.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                small = image.convert("L" if image.mode == "L" else "RGB")
        small.thumbnail((_SIDE, _SIDE))
        small.save(held, format="JPEG", quality=80)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):
        # Pillow's word for a damaged PNG may be SyntaxError.
        return None
    return _Small(held.getvalue(), *small.size)


# The text of the page


def _visible(value: Any) -> Any:
    """Return text with what no reader would see, or be misled by, written out."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)


def _hash_of(text: str) -> str:
    """Return what a Content Security Policy lets pass: these characters and no others."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
