"""The table of a scan: a row for each series, queries of it, and its cells for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from dcmdask.archive.copies import irregularities
from dcmdask.archive.series import Series, without_conflicts
from dcmdask.dicom.conversion import MODALITIES, term, uid
from dcmdask.dicom.description import Described
from dcmdask.images.summary import array_text, millimetres

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = (
    "number",
    "series_uid",
    "study_uid",
    "modality",
    "description",
    "folder",
    "instances",
    "frames",
    "rows",
    "columns",
    "samples",
    "dtype",
    "transfer_syntaxes",
    "stacks",
    "kinds",
    "summary",
    "dims",
    "shape",
    "spacing",
    "regular",
    "irregularities",
    "notes",
)


def row(number: int, series: Series) -> dict[str, Any]:
    """Return the row of a series, by `COLUMNS`, in types of JSON."""
    instances, stacks = series.instances, series.stacks
    stack = stacks[0] if len(stacks) == 1 else None
    geometry = stack.geometry if stack else None
    # Without the names of files.
    found = (one for stack in stacks for one in stack.arrangement.irregularities)
    texts = [one.text for one in (*irregularities(series.copies), *without_conflicts(found))]
    if series.conflicts:
        texts.append(f"{len(series.conflicts)} SOP Instance UIDs of different files")
    values = (
        number,
        uid(series.uid),
        uid(_common(one.study_uid for one in instances)),
        term(_common(one.modality for one in instances), MODALITIES),
        series.description,
        series.folder,
        len(instances),
        sum(map(len, instances)),
        _common(one.rows for one in instances),
        _common(one.columns for one in instances),
        _common(one.samples for one in instances),
        _common(map(_dtype, instances)) or (str(stack.dtype) if stack else None),
        sorted({one.transfer_syntax for one in instances}),
        len(stacks),
        [one.kind for one in stacks],
        stack.summary if stack else None,
        list(stack.dims) if stack else None,
        list(stack.shape) if stack else None,
        [float(mm) if mm == mm else None for mm in geometry.spacing] if geometry else None,
        not texts,
        texts,
        [note.text for note in series.notes],
    )
    return dict(zip(COLUMNS, values, strict=True))


def _common(values: Iterable[Any]) -> Any:
    """Return the value that all share, otherwise None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _dtype(one: Described) -> str:
    if one.pixel_keyword != "PixelData":
        return f"float{one.bits_allocated}"
    return f"{'' if one.signed else 'u'}int{max(8, one.bits_allocated)}"


# Queries

# Columns that can also be given by their DICOM keyword.
_KEYWORDS = {
    "modality": "Modality",
    "description": "SeriesDescription",
    "series_uid": "SeriesInstanceUID",
    "study_uid": "StudyInstanceUID",
    "rows": "Rows",
    "columns": "Columns",
}
_BOOLS = ("bool", "boolean", "bool[pyarrow]")
# Values of a column that are named where a query matches nothing.
_NAMED = 10


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a data frame.

    Raises
    ------
    ImportError
        pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("a data frame needs pandas: pip install 'dcmdask[table]'") from error
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def has_value(series: Series, keyword: str, wanted: Any) -> bool:
    """Return whether an element of a series has a value, or one that text with wildcards names."""
    known = {**series.metadata, "SeriesDescription": series.description}
    value = known[keyword] if keyword in known else series.header.get(keyword)
    if isinstance(wanted, str):
        text = "" if value is None else str(value)
        return fnmatchcase(text.lower(), wanted.lower())
    return bool(value == wanted)


def matching(rows: Sequence[Mapping[str, Any]], query: str) -> list[int]:
    """Return the places of the rows that a query of pandas is true for.

    Raises
    ------
    ValueError
        It is no query, or it matches nothing; the message says what there is.
    """
    frame = frame_of(rows)
    for column, keyword in _KEYWORDS.items():
        frame[keyword] = frame[column]
    try:
        # Without the names of Python.
        values = frame.eval(query, local_dict={}, global_dict={})
    except Exception as error:
        # pandas raises errors of any class.
        raise ValueError(
            f"select {query!r}: {error}; columns are {', '.join(map(str, frame.columns))}"
        ) from error
    if getattr(values, "shape", None) != (len(frame),) or str(values.dtype).lower() not in _BOOLS:
        raise ValueError(f"select {query!r} gives no boolean for each series")
    chosen = [number for number, yes in enumerate(values.fillna(False)) if yes]
    if not chosen:
        there = "; ".join(_values(frame, name) for name in frame.columns if name in query)
        raise ValueError(f"select {query!r} matches none of {len(frame)} series: {there}")
    return chosen


def _values(frame: pd.DataFrame, column: str) -> str:
    """Return the values of a column as text, the most frequent first."""
    counts = frame[column].map(str).value_counts()
    named = ", ".join(f"{value} ({count})" for value, count in counts.head(_NAMED).items())
    return f"{column} is {named}" + (", ..." if len(counts) > _NAMED else "")


# Text

HEADS = ("", "what", "description", "files", "array", "mm", "folder", "notes")


def cells(row: Mapping[str, Any], root: str) -> tuple[str, ...]:
    """Return what people read of a row, by `HEADS`; its folder as it is called from a root."""
    remarks = [*row["irregularities"], *row["notes"]]
    more = f" (and {len(remarks) - 1} more)" if len(remarks) > 1 else ""
    return (
        str(row["number"]),
        " ".join(filter(None, [row["modality"], row["summary"]])),
        row["description"] or "",
        str(row["instances"]),
        _array(row),
        millimetres(row["spacing"] or ()),
        row["folder"].removeprefix(root).strip("/") or ".",
        remarks[0] + more if remarks else "",
    )


def _array(row: Mapping[str, Any]) -> str:
    if row["stacks"] != 1:
        counts = {kind: row["kinds"].count(kind) for kind in dict.fromkeys(row["kinds"])}
        return f"{row['stacks']} stacks: " + ", ".join(f"{n} × {k}" for k, n in counts.items())
    return array_text(row["dims"], row["shape"], row["dtype"])
