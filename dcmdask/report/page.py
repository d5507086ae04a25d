"""Report of a job as one page, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from dask.utils import format_bytes
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from dcmdask.batch.identity import digest
from dcmdask.batch.records import RECORDS, SCAN, Record, key_of, thumbnail_key
from dcmdask.batch.staging import OUTPUTS
from dcmdask.report.distribution import distribution
from dcmdask.report.summary import Cause, Summary, duration, last_part, without_folders
from dcmdask.sources.folder import Folder
from dcmdask.store.target.ownership import check_ours

NAME = "report.html"
# The hash of a page with zeros in its place: a page that nobody has changed may be replaced.
_GENERATOR = "dcmdask report "
_HASH = re.compile(rf'(?<=<meta name="generator" content="{_GENERATOR})[0-9a-f]{{20}}(?=">)')
_ZEROS = "0" * 20
# Limits of a page that a browser opens quickly; it names the rest by numbers.
_PICTURES = 500
_PICTURE_CHARACTERS = 5_000_000
_CAUSES = 100
_PLOTS = 60
_COLUMNS = 12
_CELL = 80
# Longer side of a picture, in pixels.
_SIDE = 160
_THUMBNAIL = "thumbnail"
# Pictures that are in memory at once.
_BATCH = 16


def write_page(summary: Summary, folder: Folder, path: str | None = None) -> str:
    """Write the page of a target, whole, and return its path: by default ``report.html`` there.

    Another file, or a page that somebody has changed, is not replaced.
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
    """Return the page, with pictures from the target.

    Links begin with `way`, the path from the page to the target; None for no links.
    """
    columns = list(dict.fromkeys(key for one in summary.records for key in one.numbers))
    done = [one for one in summary.records if one.done]
    seconds = [float(one.seconds) for one in summary.records if one.stage != SCAN]
    plots = [("seconds", distribution(seconds))]
    plots += [
        (key, distribution([one.numbers.get(key) for one in done])) for key in columns[:_PLOTS]
    ]
    pictures, picture_notes = _pictures(done, folder)
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
        anchors={one.name: f"s{number}" for number, one in enumerate(summary.records)},
        causes=summary.causes[:_CAUSES],
        notes=summary.notes[:_CAUSES],
        plots=plots,
        pictures=pictures,
        picture_notes=picture_notes,
        columns=columns[:_COLUMNS],
        results=len(columns),
        # Ours, and without characters that would end their elements.
        style=Markup(style),
        script=Markup(script),
        scan=SCAN,
        # Functions of the template.
        cell=_cell,
        cut=lambda text, record: without_folders(text, record, folder),
        duration=duration,
        example=_example,
        hash_of=_hash_of,
        key_of=key_of,
        last_part=last_part,
        link=partial(_link, way),
        short=_short,
        shortened=_shortened,
        size=format_bytes,
    )


def _example(cause: Cause) -> Record:
    """Return a record with a traceback, if there is one."""
    return next((one for one in cause.records if one.traceback), cause.records[0])


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


def _shortened(text: str, longest: int = _CELL) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _is_ours(path: str) -> bool:
    """Return whether a path is one of outputs; a record may have been tampered with."""
    parts = path.split("/")
    return parts[0] in (OUTPUTS, RECORDS) and not {"", ".", ".."} & set(parts)


def _link(way: str | None, path: str) -> str | None:
    return quote(f"{way}{path}", errors="replace") if way is not None and _is_ours(path) else None


def _way(page_folder: Folder, folder: Folder) -> str | None:
    """Return the path from the folder of the page to the target; None where there is none."""
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
    """A picture of a series, scaled down, as a data URI."""

    name: str
    key: str
    path: str
    uri: str
    width: int
    height: int


def _pictures(done: Sequence[Record], folder: Folder) -> tuple[list[_Picture], list[str]]:
    """Return the pictures of a page, and notes about those that are not on it."""
    shown: list[_Picture] = []
    held, tried, missing = 0, 0, 0
    for (name, key, path), data in _read(list(map(_picture_of, done[:_PICTURES])), folder):
        tried += 1
        small = _small(data)
        if small is None:
            missing += bool(data) or key != _THUMBNAIL
            continue
        shown.append(_Picture(name, key, path, *small))
        held += len(small[0])
        if held > _PICTURE_CHARACTERS:
            break
    notes = []
    if len(done) > tried:
        notes.append(f"These are of the first {tried} of {len(done)} series that are done.")
    if missing:
        notes.append(f"Pictures that are missing or cannot be read: {missing}.")
    if without := tried - missing - len(shown):
        notes.append(f"Series without a picture: {without}; their records may say why.")
    return shown, notes


def _picture_of(record: Record) -> tuple[str, str, str]:
    """Return the name of a series, and the name and the path of its picture, empty if none."""
    paths = {**record.outputs, _THUMBNAIL: thumbnail_key(record.name)}
    found = ((key, path) for key, path in paths.items() if path.endswith(".png") and _is_ours(path))
    return (record.name, *next(found, (_THUMBNAIL, "")))


def _read(
    pictures: Sequence[tuple[str, str, str]], folder: Folder
) -> Iterator[tuple[tuple[str, str, str], bytes]]:
    """Yield pictures with the bytes of their files; none where a file cannot be read."""
    for start in range(0, len(pictures), _BATCH):
        some = pictures[start : start + _BATCH]
        try:
            found = folder.read(path for _, _, path in some if path)
        except (OSError, ValueError):
            # No file system has a file of such a name.
            found = {}
        for one in some:
            yield one, found.get(one[2], b"")


def _small(data: bytes) -> tuple[str, int, int] | None:
    """Return a picture scaled down, as URI, width and height; None if it cannot be read."""
    held = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # A decompression bomb is none of our pictures.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                small = image.convert("L" if image.mode == "L" else "RGB")
        small.thumbnail((_SIDE, _SIDE))
        small.save(held, format="JPEG", quality=80)
    except (
        OSError,
        ValueError,
        # Raised by Pillow for some damaged PNG files.
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}", *small.size


# The text of the page


def _visible(value: Any) -> Any:
    """Return text with characters that are invisible or misleading written as escapes."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)


def _hash_of(text: str) -> str:
    """Return the hash by which a Content Security Policy allows a style or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
