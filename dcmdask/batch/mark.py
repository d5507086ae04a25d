"""The mark of a target: the file that lists what dcmdask wrote there beside the series."""

from __future__ import annotations

import json
from typing import Any

from dcmdask import __version__
from dcmdask.arrays.marks import TARGET, is_mark
from dcmdask.batch.folder import Folder
from dcmdask.batch.records import RECORDS
from dcmdask.errors import StoreExistsError
from dcmdask.export.ownership import check_ours


def claim(folder: Folder, names: list[str]) -> None:
    """Make a folder a target, or add files to what its mark lists.

    Parameters
    ----------
    folder : Folder
    names : list of str
        Of files in the folder that are going to be written.

    Raises
    ------
    StoreExistsError
        A file with one of the names was not written by dcmdask; or the folder has no mark, and
        records.
    """
    told = _read(folder)
    listed = [] if told is None else list(told.get("files", ()))
    if told is not None and set(names) <= set(listed):
        return
    there = sorted(folder.names(""))
    check_ours(folder.url, (one for one in there if one in names), listed)
    if told is None:
        # All that is in there is ours from now on.
        check_ours(folder.path(RECORDS), sorted(folder.names(RECORDS)), ())
    files = sorted({*listed, *names})
    said = {"dcmdask": {"version": __version__, "files": files, "folders": [RECORDS]}}
    folder.write(TARGET, json.dumps(said, indent=1).encode())


def _read(folder: Folder) -> dict[str, Any] | None:
    data = folder.read([TARGET]).get(TARGET)
    if data is None:
        return None
    if not is_mark(TARGET, data):
        raise StoreExistsError(
            f"{folder.path(TARGET)} stands in the way: it is not the mark of a target of dcmdask"
        )
    told: dict[str, Any] = json.loads(data)["dcmdask"]
    return told
