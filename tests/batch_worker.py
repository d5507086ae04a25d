"""Commands in forks of the process of `export_worker`, which may be killed at any moment."""

from typing import Any

import numpy as np
import pytest


def first(series: Any) -> dict[str, Any]:
    """An array, a picture and a file that it writes itself."""
    from dcmdask import batch

    with open(batch.output("notes.txt"), "w") as file:
        file.write("first")
    v = series.to_dask()
    return {"mip": v.max(axis=0), "view": batch.Picture(v[0]), "peak": v.max()}


def second(series: Any) -> dict[str, Any]:
    """Another array of the same name, one more, and no picture."""
    v = series.to_dask()
    return {"mip": v.mean(axis=0)[::2, ::2], "extra": v.min(axis=0), "peak": -v.max()}


def third(series: Any) -> dict[str, Any]:
    """Fail, behind what it writes itself."""
    from dcmdask import batch

    with open(batch.output("notes.txt"), "w") as file:
        file.write("third")
    raise KeyError("a typo")


JOBS = {one.__name__: one for one in (first, second, third)}


def done(order: dict[str, Any]) -> dict[str, Any]:
    """Do what an order says, and return how it ended."""
    import dcmdask.batch.selection

    # One script that changes.
    pytest.MonkeyPatch().setattr(dcmdask.batch.selection, "script_of", lambda _: "job.py")
    if mutant := order.get("mutant"):
        _without(mutant)
    with np.errstate(all="ignore"):
        return {"run": _run, "series": _series, "export": _export, "report": _report}[
            order["command"]
        ](order)


def _without(check: str) -> None:
    """Take away a check of what dcmdask may replace."""
    import sys

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("dcmdask") and hasattr(module, check):
            setattr(module, check, lambda *_: None)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    from distributed import Client, LocalCluster

    from dcmdask import batch

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        report = batch.run(
            JOBS[order["job"]],
            order["src"],
            order["store"],
            client=client,
            retries=0,
            redo=True,
        )
    return {"done": report.done, "failures": [one.message for one in report.failures]}


def _series(order: dict[str, Any]) -> dict[str, Any]:
    """Do what the worker does, without a cluster around it."""
    from dcmdask.batch.selection import selected
    from dcmdask.batch.work import process_series
    from dcmdask.sources.folder import Folder

    folder = Folder.of(order["store"])
    chosen = selected(JOBS[order["job"]], order["src"], folder)
    records = [process_series(chosen.job, work).record for work in chosen.works()]
    return {"done": [one.done for one in records if one is not None]}


def _export(order: dict[str, Any]) -> dict[str, Any]:
    import dcmdask

    how = order["options"]
    found = dcmdask.scan(order["src"])
    if not found:
        raise ValueError("there is no series")
    report = dcmdask.to_zarr(found[0], order["store"], chunks=1, **how)
    return {"written": report.written}


def _report(order: dict[str, Any]) -> dict[str, Any]:
    from dcmdask.batch.records import records
    from dcmdask.report.page import write_page
    from dcmdask.report.summary import summarise
    from dcmdask.sources.folder import Folder

    folder = Folder.of(order["store"])
    page = write_page(summarise(records(folder).values()), folder, order.get("page"))
    return {"page": page}
