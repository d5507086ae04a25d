"""``dcmdask scan``: which series there are under a folder, and whether each is regular."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcmdask.console import options
from dcmdask.console.output import FAILURES, say, show, skipped_files, table
from dcmdask.images.summary import counted
from dcmdask.sources.access import options_of

if TYPE_CHECKING:
    from dcmdask.archive.scan import Scan


def scan(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, files, glob patterns, URLs for fsspec, or dicomweb+https://HOST/ROOT of "
            "a DICOMweb server, also with /studies/UID/series/UID behind it.",
        ),
    ],
    select: Annotated[
        str | None,
        typer.Option(
            metavar="QUERY",
            help="Series for which a query of pandas over the columns of --csv is true, such as "
            "'Modality == \"MR\" and frames > 20'.",
        ),
    ] = None,
    exclude: options.Exclude = None,
    follow_links: options.FollowLinks = False,
    set: options.Set = None,
    storage_option: options.StorageOption = None,
    as_json: options.AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a table as comma-separated values.")
    ] = False,
) -> None:
    """Find the DICOM series under a folder; only headers are read.

    Names, suffixes and nesting do not matter. Files that are not DICOM or hold no pixels are
    counted and named. The number of a series, its UID or the end of that is what other commands
    take as --series. Descriptions are free text, and may name a person. Exit code 1: some files
    are damaged or unreadable, and may be part of a series.
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
            **options.overrides_of(set),
        )
    rows = found.rows()
    if select is not None:
        from dcmdask.archive.table import matching

        rows = [rows[place] for place in matching(rows, select)]
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
    from dcmdask.archive.discovery import common_folder
    from dcmdask.archive.table import HEADS, cells

    selected = "" if len(rows) == len(found) else f", {len(rows)} selected"
    lines = [f"{counted(found.files, 'file')}, {len(found)} series{selected}"]
    if rows:
        root = common_folder(row["folder"] for row in rows)
        lines[0] += f" in {root}" if root else ""
        shown = [cells(row, root) for row in rows]
        lines.append(
            table(
                HEADS,
                shown,
                shortened=("what", "description", "folder", "notes"),
                dropped=("files", "mm", "folder"),
            )
        )
    if found.skipped:
        lines.append(skipped_files(found))
    return "\n".join(lines)
