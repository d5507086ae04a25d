"""``dcmdask run``: a job's script, as ``python SCRIPT`` runs it."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer


def run(
    context: typer.Context,
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="A job: a Python file.")],
) -> None:
    """Run a job over all series of an archive: SCRIPT SOURCE TARGET [OPTIONS].

    The script defines the options; dcmdask run SCRIPT --help shows them. Series that are done
    are not done again, and a failure does not stop the others.
    """
    if not Path(script).is_file():
        raise FileNotFoundError(2, os.strerror(2), script)
    sys.argv = [script, *context.args]
    # As Python does, so that a script can import modules beside it.
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")
    # A job ends the process.
    raise ValueError(f"{script} has run, and has not called dcmdask.batch.main")
