"""Command line of a job's script."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias, get_origin

import typer

from dcmdask.batch.outcome import BatchReport, display
from dcmdask.batch.records import SCAN, Record
from dcmdask.batch.run import run
from dcmdask.batch.selection import selected
from dcmdask.console.options import (
    Exclude,
    FollowLinks,
    Scheduler,
    Set,
    StorageOption,
    TargetOption,
    Workers,
    overrides_of,
)
from dcmdask.console.output import (
    FAILURES,
    INTERRUPTED,
    NOT_DONE,
    is_terminal,
    say,
    show,
)
from dcmdask.dicom.conversion import plain
from dcmdask.errors import DcmdaskError
from dcmdask.sources.access import TARGET_OPTION, options_of, reaching
from dcmdask.sources.folder import Folder
from dcmdask.store.scheduler import cluster, half_of_this_machine

_CODES = "Exit codes: 0 all done, 1 some failed, 2 could not run, 130 interrupted."
# Failures that are printed at the end.
_PRINTED = 20

# Takes a DataFrame; pandas loads late.
Finish: TypeAlias = Callable[[Any, str], object]


class _Script(NamedTuple):
    """Arguments of `main`."""

    process: Callable[..., Any]
    columns: tuple[str, ...]
    finish: Finish | None


def main(
    process: Callable[..., Any],
    *,
    description: str | None = None,
    columns: Iterable[str] = (),
    finish: Finish | None = None,
) -> None:
    """Run a job from the command line, and end the process with its exit code.

    Parameters of `process` after the series become options: numbers, strings and booleans by
    their annotations.

    Parameters
    ----------
    process : callable
        Takes a `Series` and options; returns a dict of names and results, or None.
    description : str, optional
        Text of ``--help``; the docstring of the script, for example.
    columns : iterable of str, optional
        Names of numbers that `process` returns: columns of the table also while no series is done.
    finish : callable, optional
        Called once at the end with the table of results, a pandas DataFrame, and the target.

    Examples
    --------
    The end of a script ``job.py``, which ``python job.py SOURCE TARGET`` runs::

        if __name__ == "__main__":
            batch.main(process, description=__doc__)
    """
    if getattr(process, "__module__", "") == "__mp_main__":
        # The process of a worker imports the script; one without a `__main__` guard gets here.
        return
    name = Path(sys.argv[0]).name
    try:
        _command(_Script(process, tuple(columns), finish), description)(prog_name=name)
    except (DcmdaskError, OSError, ValueError, ImportError) as error:
        say(plain(f"{name}: {' '.join(str(error).split())}"))
        sys.exit(NOT_DONE)
    except Exception:
        # The exit code of Python would mean that some series failed.
        say(traceback.format_exc().rstrip())
        sys.exit(NOT_DONE)


def _command(script: _Script, description: str | None) -> typer.Typer:
    own = _own_parameters(script.process)
    standard = [
        one
        for one in inspect.signature(_run, eval_str=True).parameters.values()
        if one.kind is one.KEYWORD_ONLY
    ]
    if taken := {one.name for one in own} & {one.name for one in standard}:
        raise ValueError(f"process has a parameter that is an option of all jobs: {min(taken)}")

    def command(**given: Any) -> None:
        options = {one.name: given.pop(one.name) for one in own}
        _run(script, options, **given)

    # Source and target first.
    parameters = [*standard[:2], *map(_option, own), *standard[2:]]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # for typer
    command.__doc__ = description
    app = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
    )
    app.command(epilog=_CODES)(command)
    return app


def _own_parameters(process: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters after the series, with their annotations."""
    names = getattr(inspect.unwrap(process), "__globals__", {})
    found = []
    # The annotation of the series may exist for type checkers only.
    for one in list(inspect.signature(process).parameters.values())[1:]:
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise ValueError(f"process has a parameter {one}: options are parameters by name")
        annotation = one.annotation
        if isinstance(annotation, str):
            try:
                # As `inspect` does; it is the script's own text.
                annotation = eval(annotation, names)
            except NameError as error:
                raise ValueError(f"annotation of the parameter {one.name}: {error}") from None
        found.append(one.replace(annotation=annotation))
    return found


def _option(one: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter of `process` as typer makes an option of it."""
    kind = one.annotation
    if kind is one.empty:
        kind = str if one.default in (one.empty, None) else type(one.default)
    if one.default is one.empty and get_origin(kind) is not Annotated:
        # Without a default it would be an argument.
        kind = Annotated[kind, typer.Option()]
    return one.replace(annotation=kind, kind=one.KEYWORD_ONLY)


def _run(
    script: _Script,
    options: dict[str, Any],
    *,
    source: Annotated[str, typer.Argument(help="A folder, a pattern, or a URL.")],
    target: Annotated[str, typer.Argument(help="A folder, or a URL for fsspec.")],
    select: Annotated[
        str | None,
        typer.Option(metavar="QUERY", help="Series, as in 'Modality == \"CT\" and frames > 20'."),
    ] = None,
    exclude: Exclude = None,
    follow_links: FollowLinks = False,
    set: Set = None,
    storage_option: StorageOption = None,
    target_option: TargetOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Maximum number of series.")
    ] = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    threads_per_worker: Annotated[
        int | None, typer.Option(min=1, metavar="M", help="Threads of each of these processes.")
    ] = None,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard", help="Serve Dask's dashboard, readable for all users of this machine."
        ),
    ] = False,
    retries: Annotated[
        int,
        typer.Option(min=0, help="Further tries after an input/output error or a lost worker."),
    ] = 2,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Maximum time of one series.")
    ] = None,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Only series that have failed before.")
    ] = False,
    redo: Annotated[
        bool,
        typer.Option(
            "--redo",
            help="Do series again where the job, its options or the files have changed; needed "
            "where these are more than a tenth of those that are done.",
        ),
    ] = False,
    thumbnails: Annotated[
        bool,
        typer.Option(help="Pictures for the report: one frame of each series is decoded again."),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the series that would be processed.")
    ] = False,
) -> None:
    choice: dict[str, Any] = {
        "options": options,
        "select": select,
        "limit": limit,
        "only_failed": only_failed,
        "exclude": exclude or (),
        "follow_links": follow_links,
        "storage_options": options_of(storage_option or ()),
        **overrides_of(set),
    }
    target_options = options_of(target_option or ())
    if dry_run:
        _print_plan(script.process, source, target, target_options, choice)
        return
    if dashboard and scheduler is None and workers is None:
        workers, threads_per_worker = half_of_this_machine()
    broken: list[str] = []
    # A script is not asked, and has to give --redo.
    ask = is_terminal(sys.stdin) and is_terminal(sys.stderr)

    def finished(table: Any, target: str) -> None:
        try:
            if script.finish is not None:
                script.finish(table, target)
        except Exception:
            broken.append(traceback.format_exc())

    try:
        with (
            _interrupted_once(),
            cluster(scheduler, workers, threads_per_worker, dashboard=dashboard) as client,
            display() as (advance, confirmed),
        ):
            report = run(
                script.process,
                source,
                target,
                client=client,
                retries=retries,
                timeout=timeout,
                redo=redo or (ask and confirmed),
                thumbnails=thumbnails,
                target_options=target_options,
                columns=script.columns,
                finish=None if script.finish is None else finished,
                progress=advance,
                **choice,
            )
    except KeyboardInterrupt:
        say("interrupted; the same command goes on with the rest")
        sys.exit(INTERRUPTED)
    _print_report(report)
    if broken:
        say(f"{broken[0]}finish failed; all results above are kept")
        sys.exit(NOT_DONE)
    if not report.ok:
        sys.exit(FAILURES)


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Take the first Ctrl-C only: the end of the workers, after it, is not to be interrupted."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or before is not signal.default_int_handler:
        # Handled by the caller, or ignored as by nohup.
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# Printing


def _print_report(report: BatchReport) -> None:
    # Files that were left out come last.
    failures = sorted(report.failures, key=lambda one: one.stage == SCAN)
    for one in failures[:_PRINTED]:
        show(plain(_failure(one)))
    if more := len(failures[_PRINTED:]):
        show(f"and {more} more; dcmdask report lists all")
    show(plain(str(report)))


def _failure(one: Record) -> str:
    text = " ".join(one.message.split())
    if one.stage == SCAN:
        return f"left out: {one.file}: {text}"
    where = [one.file] * bool(one.file) + [f"frame {one.frame}"] * (one.frame is not None)
    return f"{one.name}: {one.stage}: {one.error}: {text}" + f" ({', '.join(where)})" * bool(where)


def _print_plan(
    process: Callable[..., Any],
    source: str,
    target: str,
    target_options: dict[str, Any] | None,
    choice: dict[str, Any],
) -> None:
    with reaching(target, TARGET_OPTION):
        folder = Folder.of(target, target_options)
    found = selected(process, source, folder, **choice)
    for work in found.works():
        frames = sum(map(len, work.series.instances))
        show(f"{work.name}  {len(work.series)} files, {frames} frames")
    for one in found.left_out.values():
        show(plain(_failure(one)))
    show(f"{found.total} series to process, {found.before['done']} done already")
