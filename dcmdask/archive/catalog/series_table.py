"""Series of a catalog: which rows are of each, and a row for each with what a scan shows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from dcmdask.archive.catalog.parts import (
    INSTANCES,
    SERIES,
    SERIES_SCHEMA,
    group_sizes,
    read_part,
    row_groups,
    understood,
    write_tables,
)
from dcmdask.archive.catalog.root import without_root
from dcmdask.archive.discovery import folder_of
from dcmdask.archive.grouping import series_of
from dcmdask.archive.series import Series
from dcmdask.archive.table import row
from dcmdask.dicom.description import Described
from dcmdask.sources.folder import Folder

Key: TypeAlias = tuple[str, str, str, str]
"""Study, series, modality and folder, as :func:`dcmdask.archive.grouping.by_series` has them."""
KEY_COLUMNS = ("SeriesInstanceUID", "StudyInstanceUID", "Modality", "path")
# Instances that are in memory to make rows of series; more where one series has more.
_BLOCK = 10_000
# Series of a row group.
_GROUP = 10_000
# Columns that are absent if instances differ, or if there is not one stack.
_OPTIONAL = frozenset(
    {
        *("series_uid", "study_uid", "modality", "rows", "columns", "samples", "dtype"),
        *("summary", "dims", "shape", "spacing"),
    }
)


@dataclass
class Rows:
    """Rows of one series: how many, and the row groups that hold them, by part."""

    count: int = 0
    groups: dict[str, list[int]] = field(default_factory=dict)


def keys_of(table: pa.Table) -> Iterator[Key]:
    """Yield the key of the series of each row."""
    for uid, study, modality, path in zip(
        *(table[name].to_pylist() for name in KEY_COLUMNS), strict=True
    ):
        yield ("", uid, "", "") if uid else (study, "", modality, folder_of(path))


def rows_by_series(folder: Folder, parts: Iterable[str]) -> dict[Key, Rows]:
    """Return the rows of each series, in the order of the parts."""
    found: dict[Key, Rows] = {}
    for part in parts:
        keys = keys_of(read_part(folder, INSTANCES, part, KEY_COLUMNS))
        for group, size in enumerate(group_sizes(folder, part)):
            for key in (next(keys) for _ in range(size)):
                rows = found.setdefault(key, Rows())
                rows.count += 1
                groups = rows.groups.setdefault(part, [])
                if not groups or groups[-1] != group:
                    groups.append(group)
    return found


def read_series(folder: Folder, part: str, instances: Collection[str]) -> pa.Table:
    """Return the series of a part.

    Parameters
    ----------
    folder : Folder
    part : str
    instances : collection of str
        Parts of instances, which hold the rows of the series.

    Raises
    ------
    CatalogError
        A row says what cannot be.
    """
    table = read_part(folder, SERIES, part)

    def check() -> None:
        for name in SERIES_SCHEMA.names:
            column = columns[name]
            if column.null_count and name not in _OPTIONAL:
                raise ValueError(f"{name} is absent")
            if pa.types.is_list(column.type) and name != "spacing" and column.flatten().null_count:
                raise ValueError(f"a value of {name} is absent")
        if not _all_are(_lengths(columns["key"]), 4):
            raise ValueError("a key of other than 4 texts")
        if not _all_are(_lengths(columns["dims"]), _lengths(columns["shape"])):
            raise ValueError("dims and shape of different lengths")
        names, groups = columns["places"].flatten().flatten()
        if not {*pc.unique(names).to_pylist()} <= {*instances} or groups.flatten().null_count:
            raise ValueError("a series whose rows are in no part of the catalog")
        if any(pc.any(pc.equal(_lengths(one), 0)).as_py() for one in (columns["places"], groups)):
            raise ValueError("a series without rows")
        if any(field.null_count for field in columns["copies"].flatten().flatten()):
            raise ValueError("a copy without a path, or of nothing")

    columns = {name: table[name].combine_chunks() for name in SERIES_SCHEMA.names}
    understood(folder.path(f"{SERIES}/{part}"), check)
    return table


def _lengths(lists: pa.ListArray) -> pa.Array:
    return pc.fill_null(pc.list_value_length(lists), 0)


def _all_are(numbers: pa.Array, wanted: Any) -> bool:
    return not pc.any(pc.not_equal(numbers, wanted)).as_py()


def write_series(
    folder: Folder,
    parts: Sequence[str],
    changed: Collection[Key],
    before: Iterable[pa.Table],
    described: Callable[[pa.Table], list[Described]],
    root: str,
) -> str:
    """Write the series of all instances, and return the name of the part.

    Parameters
    ----------
    folder : Folder
    parts : sequence of str
        Of instances.
    changed : collection of tuple
        Series whose instances are not those of before.
    before : iterable of pyarrow.Table
        Series, of which the others are taken.
    described : callable
        Takes rows; returns what they describe.
    root : str
        Of the catalog.
    """
    found = rows_by_series(folder, parts)
    tables = [SERIES_SCHEMA.empty_table()]
    for table in before:
        same, places = [], []
        for number, key in enumerate(map(tuple, table["key"].to_pylist())):
            if key not in changed and (rows := found.pop(key, None)) is not None:
                same.append(number)
                places.append(_places(rows))
        at = SERIES_SCHEMA.get_field_index("places")
        column = pa.array(places, SERIES_SCHEMA.field(at).type)
        tables.append(
            table.take(pa.array(same, pa.int64())).set_column(at, SERIES_SCHEMA.field(at), column)
        )
    for block in _blocks(found):
        made = [*_rows_of(folder, block, described, root)]
        tables.append(pa.Table.from_pylist(made, SERIES_SCHEMA))
    joined = pa.concat_tables(tables)
    uids = [(key[1], *key) for key in joined["key"].to_pylist()]
    order = sorted(zip(joined["study"].to_pylist(), uids, range(len(joined)), strict=True))
    joined = joined.take(pa.array([at for _, _, at in order], pa.int64()))
    groups = (joined.slice(at, _GROUP) for at in range(0, max(1, len(joined)), _GROUP))
    return write_tables(folder, SERIES, groups)


def _blocks(found: Mapping[Key, Rows]) -> Iterator[dict[Key, Rows]]:
    block: dict[Key, Rows] = {}
    count = 0
    for key, rows in found.items():
        block[key] = rows
        count += rows.count
        if count >= _BLOCK:
            yield block
            block, count = {}, 0
    if block:
        yield block


def _tables(folder: Folder, block: Mapping[Key, Rows]) -> Iterator[pa.Table]:
    """Yield the rows of some series, those of one part at a time."""
    groups: dict[str, set[int]] = {}
    for rows in block.values():
        for part, numbers in rows.groups.items():
            groups.setdefault(part, set()).update(numbers)
    for part, some in groups.items():
        table = read_part(folder, INSTANCES, part, groups=sorted(some))
        yield table.filter(pa.array([key in block for key in keys_of(table)], pa.bool_()))


def compacted(folder: Folder, parts: Sequence[str]) -> list[str]:
    """Write all instances again, by series, and return the names of the parts."""
    found = rows_by_series(folder, parts)
    names = []
    for block in _blocks({key: found[key] for key in sorted(found)}):
        table = pa.concat_tables(_tables(folder, block))
        order = [("SeriesInstanceUID", "ascending"), ("path", "ascending")]
        names.append(write_tables(folder, INSTANCES, row_groups(table.sort_by(order))))
    return names


def _rows_of(
    folder: Folder,
    block: Mapping[Key, Rows],
    described: Callable[[pa.Table], list[Described]],
    root: str,
) -> Iterator[dict[str, Any]]:
    instances = [one for table in _tables(folder, block) for one in described(table)]
    series, copies = series_of(instances)
    keys = {_key_of(one, root): one for one in series}
    by_key = _paths_by_key(copies, instances, root)
    for key, rows in block.items():
        one = keys[key]
        told = row(0, one)
        yield {
            **told,
            "folder": _relative(told["folder"], root),
            "bytes": sum(instance.source.size for instance in one.instances),
            "key": list(key),
            "study": min(instance.study_uid for instance in one.instances),
            "conflicts": [without_root(text.text, root) for text in one.conflicts],
            "copies": [
                {"path": _relative(path, root), "original": _relative(copies[path], root)}
                for path in by_key.get(key, ())
            ],
            "places": _places(rows),
        }


def _key_of(series: Series, root: str) -> Key:
    return _key_of_instance(series.instances[0], root)


def _key_of_instance(one: Described, root: str) -> Key:
    if one.series_uid:
        return "", one.series_uid, "", ""
    return one.study_uid, "", one.modality, _relative(folder_of(one.source.name), root)


def _paths_by_key(
    copies: Mapping[str, str], instances: Iterable[Described], root: str
) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for one in instances:
        if one.source.name in copies:
            found.setdefault(_key_of_instance(one, root), []).append(one.source.name)
    return found


def _relative(path: str, root: str) -> str:
    return path.removeprefix(root).strip("/")


def _places(rows: Rows) -> list[dict[str, Any]]:
    return [{"part": part, "groups": groups} for part, groups in rows.groups.items()]


def of_series(table: pa.Table, key: Key, copies: Collection[str]) -> pa.Table:
    """Return the rows of one series, without copies."""
    paths = table["path"].to_pylist()
    rows = [at for at, one in enumerate(keys_of(table)) if one == key and paths[at] not in copies]
    if rows and rows[-1] - rows[0] + 1 == len(rows):
        # Mostly they are together, and nothing is copied.
        return table.slice(rows[0], len(rows))
    return table.take(pa.array(rows, pa.int64()))
