"""The ``dcmdask`` command: one module for each subcommand, and how all of them end.

Exit codes: 0 done, 1 done with failures, 2 not done; 130 and 141 where the user or a
pipe broke it off, as a shell counts signals.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tarfile
import traceback
import warnings
import zipfile
from contextlib import suppress
from typing import Annotated, Any

import typer

from dcmdask import __version__
from dcmdask.cli.export import export
from dcmdask.cli.info import info
from dcmdask.cli.picture import picture
from dcmdask.cli.report import report
from dcmdask.cli.run import run
from dcmdask.cli.scan import scan
from dcmdask.cli.verify import verify
from dcmdask.console.output import NOT_DONE, say, show
from dcmdask.dicom.conversion import plain
from dcmdask.errors import DcmdaskError, DcmdaskWarning

# As a shell counts signals.
_SIGNALLED = frozenset(
    128 + number
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
)
# As fsspec leaves them.
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, EOFError)

app = typer.Typer(
    help="DICOM pixel data as arrays: find series, look at them, export to Zarr.",
    epilog="Exit codes: 0 done, 1 done with failures, 2 not done.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        show(f"dcmdask {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


# Each paragraph of an epilog becomes a line.
app.command(
    epilog="Examples:\n\n"
    "  dcmdask info cine.dcm\n\n"
    "  dcmdask info series/\n\n"
    "  dcmdask info --json s3://bucket/cine.dcm\n\n"
    "  dcmdask info --number-of-frames 12 truncated.dcm"
)(info)
app.command(
    epilog="Examples:\n\n"
    "  dcmdask scan archive/\n\n"
    "  dcmdask scan archive/ --select 'Modality == \"MR\"'\n\n"
    "  dcmdask scan --csv archive/ > series.csv\n\n"
    "  dcmdask scan 'zip://**::study.zip'\n\n"
    "  dcmdask scan s3://bucket/archive/ -o archive.catalog\n\n"
    "  dcmdask scan archive.catalog --select 'frames > 100'\n\n"
    "  dcmdask scan dicomweb+https://host/dicom-web/studies/1.2.3"
)(scan)
app.command(
    epilog="Examples:\n\n"
    "  dcmdask picture series/ planes.png --window 40,400\n\n"
    "  dcmdask picture archive/ front.png --series 3 --mip y\n\n"
    "  dcmdask picture ct/ liver.png --overlay seg.dcm\n\n"
    "  dcmdask picture cine.dcm frame.png --frame 5"
)(picture)
app.command(
    epilog="Examples:\n\n"
    "  dcmdask export cine.dcm cine.zarr\n\n"
    "  dcmdask export series/ ct.zarr --format ome-zarr --values modality\n\n"
    "  dcmdask export archive/ ct.zarr --series 3\n\n"
    "  dcmdask export series/ ct.zarr --chunks 1,512,512 --shards 64,512,512 --dry-run\n\n"
    "  dcmdask export s3://bucket/cine.dcm s3://bucket/cine.zarr --resume --verify 0.01"
)(export)
app.command(
    epilog="Examples:\n\n"
    "  dcmdask verify ct.zarr --source series/\n\n"
    "  dcmdask verify s3://bucket/ct.zarr --source series/ --fraction 0.05\n\n"
    "  dcmdask verify ct.zarr"
)(verify)
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
    epilog="Examples:\n\n"
    "  dcmdask run pipelines/quality.py archive/ quality/\n\n"
    "  dcmdask run pipelines/quality.py archive/ quality/ --scheduler tcp://host:8786 "
    "--only-failed\n\n"
    "  dcmdask run pipelines/quality.py --help",
)(run)
app.command(
    epilog="Examples:\n\n"
    "  dcmdask report quality/\n\n"
    "  dcmdask report quality/ --html\n\n"
    "  dcmdask report s3://bucket/quality --html report.html"
)(report)


# Advice for those who cannot index a scan.
_CHOICE = {
    "AmbiguousSourceError/series": ["--series takes one, by its number in dcmdask scan or its UID"],
    "AmbiguousSourceError/stacks": ["--stack takes one, by its number"],
}


def main() -> None:
    """Run the command and end the process with its exit code."""
    warnings.showwarning = _note
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that the terminal cannot show is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        # As Ctrl-C does, so that what was begun is cleared up.
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        app(prog_name="dcmdask")
    except SystemExit as ended:
        if ended.code in _SIGNALLED:
            # Threads that a signal left behind must not keep the process.
            _flush()
            os._exit(ended.code)
        raise
    except (DcmdaskError, OSError, ValueError, ImportError, Warning, *_DAMAGED_ARCHIVE) as error:
        _say(_reason(error))
        sys.exit(NOT_DONE)
    except Exception:
        # Not foreseen, so whoever mends it wants to see where; and not done all the same.
        say(traceback.format_exc().rstrip())
        sys.exit(NOT_DONE)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()


def _reason(error: BaseException) -> str:
    if isinstance(error, DcmdaskError) and error.advice:
        advice = [
            f"--{one.option.replace('_', '-')} {one.value} {one.effect}"
            for one in error.advice
            if one.option
        ]
        known = _options_of_command()
        taken = [one for one in (*_CHOICE.get(error.code, ()), *advice) if one.split()[0] in known]
        return "; ".join([error.text, *taken])
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if type(error) is FileNotFoundError:
        # Remote file systems give no more than the name.
        return f"{error}: there is no such file, or it cannot be reached"
    return str(error)


def _options_of_command() -> set[str]:
    """Return the options of the command that was called."""
    from typer.main import get_command

    commands = getattr(get_command(app), "commands", {})
    called = next((word for word in sys.argv[1:] if word in commands), "")
    return {name for one in getattr(commands.get(called), "params", ()) for name in one.opts}


def _note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    # Others' warnings may quote what the file says of a person.
    if issubclass(category, DcmdaskWarning):
        _say(f"note: {message}")


def _say(text: str) -> None:
    say(f"dcmdask: {plain(' '.join(text.split()))}")
