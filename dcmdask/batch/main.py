"""The command line of a job's script."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer

from dcmdask.batch.folder import Folder
from dcmdask.batch.outcome import BatchReport
from dcmdask.batch.records import SCAN, Record
from dcmdask.batch.run import run
from dcmdask.batch.selection import selected
from dcmdask.batch.shown import shown
from dcmdask.dicom.access import TARGET, options_of, reaching
from dcmdask.dicom.terms import plain
from dcmdask.errors import DcmdaskError
from dcmdask.store.scheduler import cluster, half_of_this_machine

if TYPE_CHECKING:
    import pandas as pd

NOT_DONE, FAILURES, INTERRUPTED = 2, 1, 130
_CODES = "Exit codes: 0 all done, 1 some failed, 2 could not run, 130 interrupted."
# Failures that are told of in the end.
_SHOWN = 20

_STANDARD = {
    "select": Annotated[
        str | None,
        typer.Option(metavar="QUERY", help="Series: 'Modality == \"CT\" and frames > 20'"),
    ],
    "exclude": Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave out files and folders of this name, or of this path below the source. Can "
            "be given several times.",
        ),
    ],
    "follow_links": Annotated[
        bool, typer.Option("--follow-links", help="Follow links to folders; each is scanned once.")
    ],
    "storage_option": Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="For the file system of ARCHIVE where it is a URL: anon=true, "
            "endpoint_url=http://host:9000. Can be given several times.",
        ),
    ],
    "target_option": Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Likewise, for the file system of TARGET."),
    ],
    "limit": Annotated[int | None, typer.Option(min=1, metavar="N", help="So many at most.")],
    "scheduler": Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask cluster: tcp://host:8786")
    ],
    "workers": Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes of this machine.")
    ],
    "threads_per_worker": Annotated[
        int | None, typer.Option(min=1, metavar="M", help="Of each of these processes.")
    ],
    "dashboard": Annotated[
        bool,
        typer.Option(
            "--dashboard", help="Serve Dask's dashboard, readable for all users of this machine."
        ),
    ],
    "retries": Annotated[
        int, typer.Option(min=0, help="After errors of input and output and lost workers.")
    ],
    "timeout": Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="For one series.")
    ],
    "only_failed": Annotated[
        bool, typer.Option("--only-failed", help="Only what has failed before.")
    ],
    "redo": Annotated[
        bool,
        typer.Option(
            "--redo",
            help="Do again what is done where the job, its options or the files have changed; "
            "needed where that is more than a tenth of what is done.",
        ),
    ],
    "thumbnails": Annotated[
        bool,
        typer.Option(help="Pictures for the report: one frame of each series is decoded again."),
    ],
    "dry_run": Annotated[
        bool, typer.Option("--dry-run", help="Only say which series would be processed.")
    ],
}
_DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "only_failed": False,
    "follow_links": False,
    "dashboard": False,
    "redo": False,
    "thumbnails": True,
    "dry_run": False,
}


def main(
    process: Callable[..., Any],
    *,
    description: str | None = None,
    columns: Iterable[str] = (),
    finish: Callable[[pd.DataFrame, str], object] | None = None,
) -> None:
    """Run a job from the command line, and end the process with its exit code.

    Keyword parameters of `process` behind the series become options: numbers, texts and
    truths by their annotations.

    Parameters
    ----------
    process, columns, finish
        As for :func:`dcmdask.batch.run`.
    description : str, optional
        What ``--help`` says; the docstring of the script, for example.
    """
    if getattr(process, "__module__", "") == "__mp_main__":
        # A worker's process imports the script; one that asks for no `__main__` gets here.
        return
    name = Path(sys.argv[0]).name
    try:
        _command(process, description, tuple(columns), finish)(prog_name=name)
    except (DcmdaskError, OSError, ValueError, ImportError) as error:
        print(plain(f"{name}: {' '.join(str(error).split())}"), file=sys.stderr)
        sys.exit(NOT_DONE)
    except Exception:
        # Python's own exit code would say that some series failed.
        traceback.print_exc()
        sys.exit(NOT_DONE)


def _command(
    process: Callable[..., Any],
    description: str | None,
    columns: tuple[str, ...],
    finish: Callable[[pd.DataFrame, str], object] | None,
) -> typer.Typer:
    own = _own_parameters(process)
    if taken := [one.name for one in own if one.name in {*_STANDARD, "source", "target"}]:
        raise ValueError(f"process has a parameter that is an option of all jobs: {taken[0]}")
    app = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
    )

    def command(**given: Any) -> None:
        options = {one.name: given.pop(one.name) for one in own}
        _run(process, finish, options, columns=columns, **given)

    command.__signature__ = _signature(own)  # type: ignore[attr-defined]  # typer reads it
    command.__doc__ = description
    app.command(epilog=_CODES)(command)
    return app


def _own_parameters(process: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters behind the series, with their annotations."""
    names = getattr(inspect.unwrap(process), "__globals__", {})
    found = []
    # That of the series may be known to type checkers only.
    for one in list(inspect.signature(process).parameters.values())[1:]:
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise ValueError(f"process has a parameter {one}: options are parameters by name")
        annotation = one.annotation
        if isinstance(annotation, str):
            try:
                # As Python does for a signature; it is the script's own text.
                annotation = eval(annotation, names)
            except NameError as error:
                raise ValueError(f"annotation of the parameter {one.name}: {error}") from None
        found.append(one.replace(annotation=annotation))
    return found


def _signature(own: list[inspect.Parameter]) -> inspect.Signature:
    """Return the parameters of the command: those of all jobs, and those of this one."""
    keyword = inspect.Parameter.KEYWORD_ONLY

    def parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, keyword, annotation=annotation, default=default)

    required = inspect.Parameter.empty
    source = Annotated[str, typer.Argument(help="A folder, a pattern, or a URL.")]
    target = Annotated[str, typer.Argument(help="A folder, or a URL for fsspec.")]
    annotated = []
    for one in own:
        kind = one.annotation
        if kind is required:
            kind = str if one.default in (required, None) else type(one.default)
        if one.default is required and get_origin(kind) is not Annotated:
            # Otherwise it would be an argument, and its place would count.
            kind = Annotated[kind, typer.Option()]
        annotated.append(parameter(one.name, kind, one.default))
    return inspect.Signature(
        [
            parameter("source", source, required),
            parameter("target", target, required),
            *annotated,
            *(parameter(name, kind, _DEFAULTS.get(name)) for name, kind in _STANDARD.items()),
        ]
    )


def _run(
    process: Callable[..., Any],
    finish: Callable[[pd.DataFrame, str], object] | None,
    options: dict[str, Any],
    *,
    source: str,
    target: str,
    scheduler: str | None,
    workers: int | None,
    threads_per_worker: int | None,
    dashboard: bool,
    dry_run: bool,
    redo: bool,
    storage_option: list[str] | None,
    target_option: list[str] | None,
    exclude: list[str] | None,
    **more: Any,
) -> None:
    more["exclude"] = exclude or ()
    more["storage_options"] = options_of(storage_option or ())
    more["target_options"] = options_of(target_option or ())
    if dry_run:
        _show_plan(process, source, target, options, more)
        return
    if dashboard and scheduler is None and workers is None:
        workers, threads_per_worker = half_of_this_machine()
    broken: list[str] = []
    # Somebody at a terminal is asked; a script has to say it.
    ask = sys.stdin.isatty() and sys.stderr.isatty()

    def finished(table: pd.DataFrame, target: str) -> None:
        try:
            if finish is not None:
                finish(table, target)
        except Exception:
            broken.append(traceback.format_exc())

    try:
        with (
            _interrupted_once(),
            cluster(scheduler, workers, threads_per_worker, dashboard=dashboard) as client,
            shown() as (progress, confirmed),
        ):
            report = run(
                process,
                source,
                target,
                client=client,
                options=options,
                redo=redo or (ask and confirmed),
                finish=finished if finish is not None else None,
                progress=progress,
                **more,
            )
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the rest", file=sys.stderr)
        sys.exit(INTERRUPTED)
    _tell(report)
    if broken:
        print(f"{broken[0]}finish failed; all that is above is kept", file=sys.stderr)
        sys.exit(NOT_DONE)
    if not report.ok:
        sys.exit(FAILURES)


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Take the first Ctrl-C only: what ends the workers and keeps the rest is not to be broken."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread()
    if not ours or before is not signal.default_int_handler:
        # Somebody else's, or ignored as by nohup.
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(report: BatchReport) -> None:
    # What was left out comes last.
    failures = sorted(report.failures, key=lambda one: one.stage == SCAN)
    for one in failures[:_SHOWN]:
        print(plain(_failure(one)))
    if more := len(failures[_SHOWN:]):
        print(f"and {more} more; dcmdask report tells of all")
    print(plain(str(report)))


def _failure(one: Record) -> str:
    text = " ".join(one.message.split())
    if one.stage == SCAN:
        return f"left out: {one.file}: {text}"
    where = ", ".join(part for part in (one.file, _frame(one.frame)) if part)
    return f"{one.name}: {one.stage}: {one.error}: {text}" + (f" ({where})" if where else "")


def _frame(number: int | None) -> str:
    return "" if number is None else f"frame {number}"


def _show_plan(
    process: Callable[..., Any],
    source: str,
    target: str,
    options: dict[str, Any],
    more: dict[str, Any],
) -> None:
    names = ("select", "limit", "only_failed", "exclude", "follow_links", "storage_options")
    chosen = {name: more[name] for name in names}
    with reaching(target, TARGET):
        folder = Folder.of(target, more["target_options"])
    found = selected(process, source, folder, options=options, **chosen)
    for work in found.works():
        frames = sum(map(len, work.series.instances))
        print(f"{work.name}  {len(work.series)} files, {frames} frames")
    for one in found.left_out.values():
        print(plain(_failure(one)))
    print(f"{found.total} series to process, {found.before['done']} done already")
