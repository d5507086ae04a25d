"""``dcmdask report``: what a job did, what failed and why, and how long it took."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcmdask.cli import options
from dcmdask.cli.output import counted, listing, show, table
from dcmdask.dicom.access import TARGET, options_of, reaching
from dcmdask.dicom.conversion import plain

if TYPE_CHECKING:
    from dcmdask.report.summary import Cause, Summary

# How many causes people are told of, and how much of a message; --json has all.
CAUSES = 20
LONGEST = 300


def report(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Target of a job: a folder or a URL.")
    ],
    page: Annotated[
        str | None,
        typer.Argument(metavar="PAGE", help="With --html: where to, instead of the target."),
    ] = None,
    html: Annotated[
        bool,
        typer.Option("--html", help="Write a page with plots and pictures: TARGET/report.html."),
    ] = False,
    target_option: options.TargetOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what a job did, what failed and why, and how long it took.

    All of it is read from the records below TARGET, also while the job runs. Exit code 1:
    some series failed, or files were left out that may be part of one.
    """
    from dcmdask.batch.folder import Folder
    from dcmdask.batch.records import records
    from dcmdask.report.summary import summarise

    if page is not None and not html:
        raise ValueError(f"{page}: a second argument is where --html writes to")
    with reaching(target, TARGET):
        folder = Folder.of(target, options_of(target_option or ()))
        found = records(folder)
    if not found:
        raise ValueError(f"{target}: no records of a job are there")
    summary = summarise(found.values())
    written = None
    if html:
        from dcmdask.report.page import write_page

        with reaching(page, TARGET):
            written = write_page(summary, folder, page)
    if as_json:
        told = {**_facts(summary), **({"page": written} if written else {})}
        show(json.dumps(told, indent=2))
    else:
        show(_for_people(summary) + (f"\n\nwritten: {plain(written)}" if written else ""))
    if summary.causes:
        raise typer.Exit(1)


def _facts(summary: Summary) -> dict[str, Any]:
    return {
        "series": summary.series,
        "done": summary.done,
        "failed": summary.failed,
        "files_left_out": summary.left_out,
        "retried": summary.retried,
        "jobs": summary.jobs,
        "frames": summary.frames,
        "bytes": summary.bytes,
        "seconds": {
            "all": summary.seconds,
            "median": summary.median,
            "longest": summary.longest.seconds,
            "longest_series": summary.longest.name,
        },
        "causes": [
            {
                "stage": cause.stage,
                "error": cause.error,
                "message": cause.message,
                "failures": [
                    {
                        "series": one.name,
                        "message": one.message,
                        "file": one.file,
                        "frame": one.frame,
                        "attempts": one.attempts,
                        "seconds": one.seconds,
                    }
                    for one in cause.records
                ],
            }
            for cause in summary.causes
        ],
        "odd": [
            {"message": one.message, "series": [record.name for record in one.records]}
            for one in summary.odd
        ],
    }


def _for_people(summary: Summary) -> str:
    from dask.utils import format_bytes

    from dcmdask.report.summary import duration

    longest = f"{duration(summary.longest.seconds)} ({summary.longest.name})"
    lines = [
        ("done", f"{summary.done} of {summary.series} series"),
        ("failed", str(summary.failed)),
        *([("left out", _left_out(summary))] if summary.left_out else []),
        ("tried again", str(summary.retried)),
        ("data", f"{counted(summary.frames, 'frame')}, {format_bytes(summary.bytes)} decoded"),
        ("time", f"{duration(summary.seconds)} for all series, one by one"),
        ("a series", f"{duration(summary.median)} (median), at most {longest}"),
    ]
    if summary.jobs > 1:
        lines.append(("jobs", f"{summary.jobs}: different functions, versions of one, or options"))
    text = listing(lines)
    if causes := summary.causes[:CAUSES]:
        heads = ("failed at", "how many", "why")
        text += "\n\n" + table(heads, [_row(cause) for cause in causes])
        if more := len(summary.causes[CAUSES:]):
            text += f"\nand {counted(more, 'cause')} more"
        text += "\n\nfor example (--json names all):\n"
        text += "\n".join(_example(cause) for cause in causes)
    if odd := summary.odd[:CAUSES]:
        rows = [(str(len(one.records)), one.message, one.records[0].name) for one in odd]
        text += "\n\n" + table(("with warnings", "warning", "for example"), rows)
        if more := len(summary.odd[CAUSES:]):
            text += f"\nand {counted(more, 'note')} more"
    return text


def _left_out(summary: Summary) -> str:
    return f"{counted(summary.left_out, 'file')} that may be part of a series"


def _row(cause: Cause) -> tuple[str, ...]:
    return cause.stage, str(len(cause.records)), f"{cause.error}: {cause.message}"


def _example(cause: Cause) -> str:
    one = cause.records[0]
    text = " ".join(one.message.split())
    frame = "" if one.frame is None else f"frame {one.frame}"
    # Most messages begin with it.
    where = ", ".join(part for part in (one.file, frame) if part not in text)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return plain(f"  {one.name}: {text}" + (f" ({where})" if where else ""))
