"""The mark of a target: the file that lists what dcmdask wrote there beside the series."""

from __future__ import annotations

import json
import re

from dcmdask import __version__
from dcmdask.archive.marks import TARGET, is_mark
from dcmdask.batch.folder import Folder
from dcmdask.batch.records import RECORDS
from dcmdask.errors import StoreExistsError
from dcmdask.store.ownership import check_ours

# A mark that a process was killed at.
_BEGUN = re.compile(rf"\.{re.escape(TARGET)}\.[0-9a-f]{{32}}\.partial")


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
        A file with one of the names was not written by dcmdask, or is a link now; or the folder
        has no mark and is not empty.
    """
    folder.check_links([TARGET, RECORDS, *names])
    # Before the mark is read: another driver may be making this folder a target, too.
    there = sorted(folder.names(""))
    listed = _listed(folder)
    if listed is None:
        # All that is in there is left out by a scan from now on.
        for one in there:
            if not _BEGUN.fullmatch(one):
                raise StoreExistsError(
                    f"{folder.path(one)} stands in the way: a folder that dcmdask did not make "
                    "becomes a target only while it is empty; take a new or an empty folder"
                )
        listed = []
    elif set(names) <= set(listed):
        return
    check_ours(folder.url, (one for one in there if one in names), listed)
    files = sorted({*listed, *names})
    said = {"dcmdask": {"version": __version__, "files": files, "folders": [RECORDS]}}
    folder.write(TARGET, json.dumps(said, indent=1).encode())


def _listed(folder: Folder) -> list[str] | None:
    """Return the files that the mark of a folder lists; None where there is no mark."""
    data = folder.read([TARGET]).get(TARGET)
    if data is None:
        return None
    if not is_mark(TARGET, data):
        raise StoreExistsError(
            f"{folder.path(TARGET)} stands in the way: it is not the mark of a target of dcmdask"
        )
    told = json.loads(data)["dcmdask"].get("files")
    if not isinstance(told, list) or not all(isinstance(one, str) for one in told):
        raise StoreExistsError(f"{folder.path(TARGET)} is damaged: it lists no files")
    return told
