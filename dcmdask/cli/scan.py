"""``dcmdask scan``: which series there are under a folder, and whether each is regular."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcmdask.console import options
from dcmdask.console.output import FAILURES, counted, say, show, skipped_files, table
from dcmdask.dicom.access import options_of

if TYPE_CHECKING:
    from dcmdask.archive.scan import Scan


def scan(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Folders, files, glob patterns, or URLs for fsspec."
        ),
    ],
    exclude: options.Exclude = None,
    follow_links: options.FollowLinks = False,
    storage_option: options.StorageOption = None,
    as_json: options.AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a table as comma-separated values.")
    ] = False,
) -> None:
    """Find the DICOM series under a folder; only headers are read.

    Names, suffixes and nesting do not matter. Files that are not DICOM or hold no pixels are
    counted and named. Nothing that is printed names a person; UIDs are. Exit code 1: some
    files are damaged or unreadable, and may be part of a series.
    """
    import dcmdask.archive.scan as scanning
    from dcmdask.console.progress import counting

    if as_json and as_csv:
        raise ValueError("--json and --csv: one of them at a time")
    with counting("files") as advance:
        found = scanning.scan(
            sources,
            exclude=exclude or (),
            follow_links=follow_links,
            progress=advance,
            storage_options=options_of(storage_option or ()),
        )
    rows = found.rows()
    if as_json:
        skipped = [one._asdict() for one in found.skipped]
        show(json.dumps({"files": found.files, "series": rows, "skipped": skipped}, indent=2))
    elif as_csv:
        show(_csv(scanning.COLUMNS, rows))
    else:
        show(_for_people(found, rows))
    if found.doubtful:
        if as_csv:
            say(f"dcmdask: {skipped_files(found)}")
        raise typer.Exit(FAILURES)


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join("" if one is None else str(one) for one in value)
    return value


def _for_people(found: Scan, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{counted(found.files, 'file')}, {len(found)} series"]
    if rows:
        heads = ("", "kind", "files", "frames", "array", "mm", "notes")
        lines.append(table(heads, [_row(number, row) for number, row in enumerate(rows)]))
    if found.skipped:
        lines.append(skipped_files(found))
    return "\n".join(lines)


def _row(number: int, row: Mapping[str, Any]) -> tuple[str, ...]:
    odd = sorted({kind for kind in row["kinds"] if kind != "volume"})
    return (
        f"[{number}]",
        " ".join(filter(None, [row["modality"], *(odd if row["stacks"] == 1 else [])])),
        str(row["instances"]),
        str(row["frames"]),
        _array(row),
        _millimetres(row["spacing"]),
        _remarks(row),
    )


def _array(row: Mapping[str, Any]) -> str:
    if row["stacks"] != 1:
        kinds = Counter(row["kinds"]).items()
        return f"{row['stacks']} stacks: " + ", ".join(f"{n} × {kind}" for kind, n in kinds)
    lengths = zip(row["dims"], row["shape"], strict=True)
    return " ".join(f"{dim}:{length}" for dim, length in lengths) + f" {row['dtype']}"


def _millimetres(spacing: Sequence[float | None] | None) -> str:
    return (
        "" if not spacing else " x ".join("?" if one is None else f"{one:.4g}" for one in spacing)
    )


def _remarks(row: Mapping[str, Any]) -> str:
    remarks = list(row["irregularities"])
    more = f" (and {len(remarks) - 1} more)" if len(remarks) > 1 else ""
    return remarks[0] + more if remarks else ""
