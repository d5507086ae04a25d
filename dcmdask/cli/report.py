"""``dcmdask report``: a summary of a job, with failures by cause and times."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcmdask.console import options
from dcmdask.console.output import FAILURES, listing, show, table
from dcmdask.dicom.conversion import plain
from dcmdask.images.summary import counted
from dcmdask.sources.access import TARGET_OPTION, options_of, reaching

if TYPE_CHECKING:
    from dcmdask.report.summary import Cause, Summary

# Causes that are printed, and characters of a message; --json has all.
CAUSES = 20
LONGEST = 300


def report(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Target of a job: a folder or a URL.")
    ],
    page: Annotated[
        str | None,
        typer.Argument(
            metavar="PAGE", help="With --html: its path; by default TARGET/report.html."
        ),
    ] = None,
    html: Annotated[
        bool,
        typer.Option("--html", help="Write a page with plots and pictures: TARGET/report.html."),
    ] = False,
    target_option: options.TargetOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Summarise a job: series done, failures by cause, warnings, times.

    The summary is read from the records below TARGET, also while the job runs. Exit code 1:
    some series failed, or files were left out that may be part of one.
    """
    from dcmdask.batch.records import records
    from dcmdask.report.summary import summarise
    from dcmdask.sources.folder import Folder

    if page is not None and not html:
        raise ValueError(f"{page}: a second argument is the path of the page, with --html")
    with reaching(target, TARGET_OPTION):
        folder = Folder.of(target, options_of(target_option or ()))
        found = records(folder)
    if not found:
        raise ValueError(f"{target}: there are no records of a job")
    summary = summarise(found.values())
    written = None
    if html:
        from dcmdask.report.page import write_page

        with reaching(page or target, TARGET_OPTION):
            written = write_page(summary, folder, page)
    if as_json:
        facts = {**_facts(summary), **({"page": written} if written else {})}
        show(json.dumps(facts, indent=2))
    else:
        show(_for_people(summary) + (f"\n\nwritten: {plain(written)}" if written else ""))
    if summary.causes:
        raise typer.Exit(FAILURES)


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
                "code": cause.code,
                "message": cause.text,
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
        "notes": [
            {"code": one.code, "text": one.text, "series": [record.name for record in one.records]}
            for one in summary.notes
        ],
    }


def _for_people(summary: Summary) -> str:
    from dask.utils import format_bytes

    from dcmdask.report.summary import duration

    longest = f"{duration(summary.longest.seconds)} ({summary.longest.name})"
    left_out = f"{counted(summary.left_out, 'file')} that may be part of a series"
    lines = [
        ("done", f"{summary.done} of {summary.series} series"),
        ("failed", str(summary.failed)),
        *([("left out", left_out)] if summary.left_out else []),
        ("tried again", str(summary.retried)),
        ("data", f"{counted(summary.frames, 'frame')}, {format_bytes(summary.bytes)} decoded"),
        ("time", f"{duration(summary.seconds)} for all series, added up"),
        ("a series", f"{duration(summary.median)} (median), at most {longest}"),
    ]
    if summary.jobs > 1:
        lines.append(("jobs", f"{summary.jobs}: different functions, versions of one, or options"))
    text = listing(lines)
    if causes := summary.causes[:CAUSES]:
        rows = [(one.stage, str(len(one.records)), one.code or one.error) for one in causes]
        text += "\n\n" + table(("failed at", "series", "cause"), rows)
        if more := len(summary.causes[CAUSES:]):
            text += f"\nand {counted(more, 'cause')} more"
        text += "\n\nfor example (--json names all):\n"
        text += "\n".join(_example(cause) for cause in causes)
    if notes := summary.notes[:CAUSES]:
        rows = [(str(len(one.records)), _shortened(one.text), one.records[0].name) for one in notes]
        text += "\n\n" + table(("series", "warning", "for example"), rows)
        if more := len(summary.notes[CAUSES:]):
            text += f"\nand {counted(more, 'warning')} more"
    return text


def _example(cause: Cause) -> str:
    one = cause.records[0]
    text = " ".join(one.message.split())
    frame = "" if one.frame is None else f"frame {one.frame}"
    # Most messages begin with it.
    where = ", ".join(part for part in (one.file, frame) if part not in text)
    return plain(f"  {one.name}: {_shortened(text)}" + (f" ({where})" if where else ""))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
