"""``dcmdask verify``: whether a store is whole, and equal to its source."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcmdask.console import options
from dcmdask.console.output import FAILURES, show
from dcmdask.dicom.conversion import plain
from dcmdask.sources.access import options_of

if TYPE_CHECKING:
    from dcmdask.store.verification.verify import VerifyReport


def json_of(report: VerifyReport) -> dict[str, Any]:
    """Return a report in types of JSON."""
    return {
        "ok": report.ok,
        **dataclasses.asdict(report),
        "notes": [one._asdict() for one in report.notes],
        "differences": [one._asdict() for one in report.differences],
    }


def verify(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="An exported store: a path or a URL.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Decode it again and compare: a file, a folder, or a URL."
        ),
    ] = None,
    fraction: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="FRACTION",
            help="Part of the regions to check, the same each time; at least one of each level.",
        ),
    ] = 1.0,
    series: options.Series = None,
    stack: options.Stack = None,
    set: options.Set = None,
    storage_option: options.StorageOption = None,
    target_option: options.TargetOption = None,
    as_json: options.AsJson = False,
) -> None:
    """Check that an exported store is whole, and compare it with its source.

    Every object is read, and every level of a pyramid compared with the one below. A changed
    value without a checksum is found with --source only. Exit code 1: there are differences.
    """
    from dcmdask.console.progress import counting
    from dcmdask.store.verification.source import recorded
    from dcmdask.store.verification.verify import verify as check

    storage_options = options_of(storage_option or ())
    target_options = options_of(target_option or ())
    overrides = options.overrides_of(set)
    src: Any = source
    if series is not None or stack is not None:
        if source is None:
            raise ValueError("--series and --stack are of --source, and there is none")
        from dcmdask.cli.choice import chosen

        how = {**recorded(store, target_options), **overrides}
        src, storage_options = chosen(source, series, stack, storage_options, **how), {}
    with counting("regions") as advance:
        report = check(
            store,
            src,
            fraction=fraction,
            progress=advance,
            storage_options=storage_options,
            target_options=target_options,
            **overrides,
        )
    if as_json:
        show(json.dumps(json_of(report), indent=2))
    else:
        show("\n".join(map(plain, str(report).splitlines())))
    if not report.ok:
        raise typer.Exit(FAILURES)
