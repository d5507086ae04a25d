"""Parts of a catalog: Parquet files that are written whole, and read by row groups."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dcmdask.archive.catalog.rows import SCHEMA, table_of
from dcmdask.archive.discovery import CATALOG_MARK, MARK_KEY, Skipped
from dcmdask.dicom.description import Described
from dcmdask.dicom.image_pixel import HEADER_OPTIONS
from dcmdask.errors import CatalogError
from dcmdask.sources import files
from dcmdask.sources.access import file_system, reaching
from dcmdask.sources.folder import Folder

INSTANCES, SKIPPED, SERIES = "instances", "skipped", "series"
KINDS = (INSTANCES, SKIPPED, SERIES)
VERSION = 1
# Instances of a row group, which is what is read for a series, and their frames: slides have 10^5.
_GROUP_ROWS, _GROUP_FRAMES = 1000, 200_000
# Values of a row group: an instance with as many frames as facts are kept of has half as many.
_MOST_VALUES = 2**28
_SKIPPED = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("reason", "kind", "code")),
        pa.field("bytes", pa.int64()),
        pa.field("modified", pa.int64()),
        pa.field("key", pa.string()),
    ],
    metadata={"dcmdask.catalog": str(VERSION)},
)
_COPY = pa.struct([("path", pa.string()), ("original", pa.string())])
_PLACE = pa.struct([("part", pa.string()), ("groups", pa.list_(pa.int32()))])
_TEXTS = pa.list_(pa.string())
SERIES_SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.string())
            for name in ("series_uid", "study_uid", "modality", "description", "folder")
        ),
        *(pa.field(name, pa.int64()) for name in ("instances", "frames", "bytes")),
        *(pa.field(name, pa.int32()) for name in ("rows", "columns", "samples")),
        pa.field("dtype", pa.string()),
        pa.field("transfer_syntaxes", _TEXTS),
        pa.field("stacks", pa.int32()),
        pa.field("kinds", _TEXTS),
        pa.field("summary", pa.string()),
        pa.field("dims", _TEXTS),
        pa.field("shape", pa.list_(pa.int64())),
        pa.field("spacing", pa.list_(pa.float64())),
        pa.field("regular", pa.bool_()),
        pa.field("irregularities", _TEXTS),
        pa.field("notes", _TEXTS),
        # Study, series, modality and folder, of which only the series where it has a UID.
        pa.field("key", _TEXTS),
        # The first study, by which series are sorted.
        pa.field("study", pa.string()),
        pa.field("conflicts", _TEXTS),
        pa.field("copies", pa.list_(_COPY)),
        # Row groups that hold its instances.
        pa.field("places", pa.list_(_PLACE)),
    ],
    metadata={"dcmdask.catalog": str(VERSION)},
)
"""Schema of the files under ``series/``."""
_SCHEMAS = {INSTANCES: SCHEMA, SKIPPED: _SKIPPED, SERIES: SERIES_SCHEMA}
# Columns whose neighbours begin alike, or are numbers near each other.
_ENCODINGS = {
    "path": "DELTA_BYTE_ARRAY",
    "SOPInstanceUID": "DELTA_BYTE_ARRAY",
    "lengths.list.element": "DELTA_BINARY_PACKED",
    "gaps.list.element": "DELTA_BINARY_PACKED",
}


class Left(NamedTuple):
    """A file or folder that is no instance, with what tells whether it has changed."""

    one: Skipped
    size: int | None = None
    modified: int | None = None
    key: str | None = None


class Mark(NamedTuple):
    """Description of a catalog by itself, in ``catalog.json``.

    Attributes
    ----------
    root : str
        Folder or URL that paths are relative to.
    options : dict
        Decoding options of the scan, which its instances are opened with.
    files : int
        Number of files that were looked into.
    identifiers : bool
        Whether elements that name a person are kept.
    version : str
        The dcmdask that has looked at the files that are no instances.
    instances, skipped, series : tuple of str
        Names of the parts that count, in the folders of these names: others are of a scan that was
        not finished, and the next one goes on with them.
    """

    root: str
    options: dict[str, Any]
    files: int = 0
    identifiers: bool = False
    version: str = ""
    instances: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    series: tuple[str, ...] = ()


def read_mark(folder: Folder) -> Mark | None:
    """Return the mark of a catalog; None where there is none.

    Raises
    ------
    CatalogError
        It is damaged, or of another version.
    """
    found = folder.read([CATALOG_MARK])
    if CATALOG_MARK not in found:
        return None
    try:
        said = json.loads(found[CATALOG_MARK])[MARK_KEY]
        version = int(said["catalog"])
        if version == VERSION:
            parts = [tuple(map(_name, said[kind])) for kind in KINDS]
            files, identifiers = int(said["files"]), bool(said["identifiers"])
            root, options = str(said["root"]), dict(said["options"])
            known = all(
                name in HEADER_OPTIONS and isinstance(value, str | int | float | None)
                for name, value in options.items()
            )
            if not known or "\0" in root:
                raise ValueError(f"the root {root!r} with decoding options {options}")
            return Mark(root, options, files, identifiers, str(said["version"]), *parts)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CatalogError(
            f"its {CATALOG_MARK} cannot be read: {type(error).__name__}: {error}",
            source=folder.url,
            code="catalog-mark",
        ) from error
    raise CatalogError(
        f"it is of version {version}, and this dcmdask reads version {VERSION}: scan again into a "
        "new folder",
        source=folder.url,
        code="catalog-version",
    )


def _name(part: object) -> str:
    """Return the name of a part, which leads to no other folder."""
    if not isinstance(part, str) or "/" in part or "\\" in part or not part.endswith(".parquet"):
        raise ValueError(f"{part!r} is no name of a part")
    return part


def write_mark(folder: Folder, mark: Mark) -> None:
    """Write the mark of a catalog."""
    said = {"catalog": VERSION, **mark._asdict()}
    # Options may be integers of NumPy.
    text = json.dumps({MARK_KEY: said}, indent=1, default=int)
    _write(folder, CATALOG_MARK, text.encode())


# Writing


def new_name() -> str:
    """Return a name for a part that no other has."""
    return f"part-{uuid.uuid4().hex}.parquet"


def write_instances(folder: Folder, rows: Sequence[tuple[str, Described]]) -> str:
    """Write a part of instances, each with its path, and return its name."""
    ordered = sorted(rows, key=lambda row: (row[1].series_uid, row[0]))
    table = table_of([one for _, one in ordered], [path for path, _ in ordered])
    return write_tables(folder, INSTANCES, row_groups(table))


def row_groups(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of instances in groups."""
    start = frames = 0
    for at, count in enumerate(table["frames"].to_pylist()):
        if at > start and (at - start == _GROUP_ROWS or frames + count > _GROUP_FRAMES):
            yield table.slice(start, at - start)
            start, frames = at, 0
        frames += count
    yield table.slice(start)


def write_skipped(folder: Folder, rows: Sequence[Left]) -> str:
    """Write a part of what is no instance, and return its name."""
    columns = [*zip(*((*left.one, *left[1:]) for left in rows), strict=True)]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _SKIPPED, strict=True)]
    return write_tables(folder, SKIPPED, [pa.Table.from_arrays(arrays, schema=_SKIPPED)])


def write_tables(folder: Folder, kind: str, groups: Iterable[pa.Table]) -> str:
    """Write tables as the row groups of a new part, and return its name."""
    name = new_name()
    _write(folder, f"{kind}/{name}", packed(groups, kind))
    return name


def _write(folder: Folder, key: str, data: bytes) -> None:
    try:
        folder.write(key, data)
    except OSError as error:
        # The error of a write to a full disk has no name.
        if not folder.is_local or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, folder.path(key)) from error


def packed(groups: Iterable[pa.Table], kind: str) -> bytes:
    """Return tables as the row groups of a Parquet file."""
    buffer, names = io.BytesIO(), _leaves(kind)
    encodings = {name: _ENCODINGS[name] for name in names if name in _ENCODINGS}
    plain = [name for name in names if name not in encodings]
    with pq.ParquetWriter(
        buffer, _SCHEMAS[kind], compression="zstd", use_dictionary=plain, column_encoding=encodings
    ) as writer:
        for one in groups:
            writer.write_table(one, row_group_size=max(1, one.num_rows))
    return buffer.getvalue()


@lru_cache
def _leaves(kind: str) -> list[str]:
    """Return the paths of the columns that a Parquet file has."""
    empty = io.BytesIO()
    pq.write_table(_SCHEMAS[kind].empty_table(), empty)
    columns = pq.ParquetFile(empty).schema
    return [columns.column(at).path for at in range(len(columns))]


# Reading


def opened(folder: Folder, key: str, schema: pa.Schema) -> pq.ParquetFile:
    """Open a file of a catalog.

    Raises
    ------
    CatalogError
        It is not there, damaged, or has other columns.
    """
    url = folder.path(key)
    try:
        with reaching(url):
            if folder.is_local:
                file = pq.ParquetFile(url)
            else:
                fs, path = file_system(url, folder.options or {})
                # It may remember a listing of before.
                fs.invalidate_cache()
                file = pq.ParquetFile(fs.open(path, "rb"), pre_buffer=True)
    except FileNotFoundError as error:
        raise CatalogError(
            "it is not there; if the catalog was brought up to date since, open it again",
            source=url,
            code="catalog-part",
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(url, error) from error
    if not file.schema_arrow.equals(schema):
        raise CatalogError(
            f"its columns are not those of version {VERSION}: "
            f"{', '.join(sorted(set(file.schema_arrow.names) ^ set(schema.names))) or 'types'}",
            source=url,
            code="catalog-schema",
        )
    return file


def damaged(url: str, error: Exception) -> CatalogError:
    """Return the error for a file of a catalog that cannot be understood."""
    line = " ".join(str(error).split())[:200]
    return CatalogError(
        f"it is damaged, or no file of a catalog: {type(error).__name__}: {line}; once it is "
        "removed, a scan into the catalog reads its files again",
        source=url,
        code="catalog-damaged",
    )


def read_part(
    folder: Folder,
    kind: str,
    name: str,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> pa.Table:
    """Return rows of a part: all, or those of some row groups.

    Raises
    ------
    CatalogError
    """
    key = f"{kind}/{name}"
    file = opened(folder, key, _SCHEMAS[kind])

    def read() -> pa.Table:
        wanted = None if columns is None else list(columns)
        chosen = range(file.num_row_groups) if groups is None else list(groups)
        if any(not 0 <= one < file.num_row_groups for one in chosen):
            raise ValueError(f"there are {file.num_row_groups} row groups, and not {groups}")
        for one in chosen:
            _check_size(file.metadata.row_group(one))
        return file.read_row_groups(list(chosen), wanted)

    return understood(folder.path(key), read)


def _check_size(group: pq.RowGroupMetaData) -> None:
    """Refuse a row group that takes much more memory than any that was written by us."""
    values = sum(group.column(at).num_values for at in range(group.num_columns))
    if values > _MOST_VALUES or group.total_byte_size > files.INFLATE_LIMIT:
        raise ValueError(f"a row group of {values} values, {group.total_byte_size} bytes")


def understood(url: str, read: Callable[[], Any]) -> Any:
    """Return what `read` returns; what it raises is damage of a file."""
    try:
        return read()
    except CatalogError:
        raise
    except (
        pa.ArrowException,
        ValueError,
        TypeError,
        LookupError,
        OSError,
        RecursionError,
    ) as error:
        raise damaged(url, error) from error


def group_sizes(folder: Folder, name: str) -> list[int]:
    """Return the number of rows of each row group of a part of instances."""
    metadata = opened(folder, f"{INSTANCES}/{name}", SCHEMA).metadata
    return [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]


def read_skipped(folder: Folder, name: str) -> list[Left]:
    """Return what a part of them says."""
    rows = read_part(folder, SKIPPED, name).to_pylist()
    return [
        Left(
            Skipped(row["path"], row["reason"], row["kind"], row["code"]),
            row["bytes"],
            row["modified"],
            row["key"],
        )
        for row in rows
    ]
