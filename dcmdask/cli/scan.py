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
    from dcmdask.archive.catalog.catalog import Catalog
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
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="CATALOG",
            help="Keep what is found in this catalog, a folder or URL, or bring it up to date: "
            "files that it knows and that have not changed are not read again.",
        ),
    ] = None,
    walk: Annotated[
        bool,
        typer.Option(
            "--walk",
            help="Of remote files without an offset table, keep where each frame is: moves all "
            "their bytes, once.",
        ),
    ] = False,
    with_identifiers: Annotated[
        bool,
        typer.Option(
            "--with-identifiers",
            help="Keep Patient ID, Study Date and the like in the catalog as well.",
        ),
    ] = False,
    compact: Annotated[
        bool,
        typer.Option("--compact", help="Write the parts of the catalog again, few and sorted."),
    ] = False,
    target_option: options.TargetOption = None,
    scheduler: options.Scheduler = None,
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

    With --output, what is found is kept in a catalog, a folder of Parquet files. The next time only
    new and changed files are read, and a scan that was interrupted goes on. Every command takes
    the catalog as its source, and reads no header again. It holds descriptions and paths, so it
    stays with its archive.
    """
    from dcmdask.archive import scan as scanning
    from dcmdask.archive.table import COLUMNS, frame_of, matching
    from dcmdask.console.progress import counting

    if as_json and as_csv:
        raise ValueError("--json and --csv: one of them at a time")
    how = {
        "exclude": exclude or (),
        "follow_links": follow_links,
        "storage_options": options_of(storage_option or ()),
        **options.overrides_of(set),
    }
    if output is not None:
        how |= {
            "walk": walk,
            "compact": compact,
            "identifiers": with_identifiers,
            "target_options": options_of(target_option or ()),
        }
        found: Scan = _kept(sources, output, scheduler, how)
    elif target_option or scheduler or walk or compact or with_identifiers:
        raise ValueError(
            "--walk, --with-identifiers, --compact, --target-option and --scheduler go with "
            "--output"
        )
    else:
        with counting("files") as advance:
            found = scanning.scan(sources, progress=advance, **how)
    rows = found.rows()
    if select is not None:
        rows = [rows[place] for place in matching(frame_of(rows), select)]
    if as_json:
        skipped = [one._asdict() for one in found.skipped]
        show(json.dumps({"files": found.files, "series": rows, "skipped": skipped}, indent=2))
    elif as_csv:
        show(_csv(COLUMNS, rows))
    else:
        show(_for_people(found, rows))
    if found.doubtful:
        if as_csv:
            say(f"dcmdask: {skipped_files(found)}")
        raise typer.Exit(FAILURES)


def _kept(
    sources: Sequence[str],
    output: str,
    scheduler: str | None,
    how: Mapping[str, Any],
) -> Catalog:
    """Scan into a catalog, and say what was new."""
    from dcmdask.archive.catalog.build_catalog import build_catalog
    from dcmdask.console.progress import counting
    from dcmdask.store.scheduler import cluster

    if len(sources) != 1:
        raise ValueError("--output: a catalog is of one folder, or one URL")
    with cluster(scheduler, None) as client, counting("files") as advance:
        found = build_catalog(sources[0], output, client=client, progress=advance, **how)
    changes = found.changes
    assert changes is not None, "it was built now"
    say(
        f"dcmdask: {output}: {changes.new} new, {changes.changed} changed, {changes.gone} gone, "
        f"{changes.known} as before"
    )
    return found


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
