"""An archive to OME-Zarr: one store for each stack of each series.

    dcmdask run pipelines/export_zarr.py ARCHIVE TARGET [OPTIONS]

Most series are one stack; a localizer in three directions is three, and its stores are
stack-0.zarr, stack-1.zarr and stack-2.zarr, the largest first.

**--format** ome-zarr (the default) is OME-Zarr 0.5 with a pyramid. It has no place for
everything, such as a colour cine of several echoes; such a stack becomes a plain Zarr group,
which the column `plain` of the results counts. --format zarr is that for all.

**--values** stored (the default) are the numbers in the files; modality are those in units,
such as Hounsfield units; display is 8 bits as a viewer shows them.

**--on-irregular** says what becomes of gaps and doubles: error (the default) reports the
series as failed, keep takes the frames as they are (without an even grid, for which OME-Zarr
has no place either), fill puts empty frames into gaps, and split makes one store of each
regular part.

What a worker wrote of a store before it died is kept, and the next try writes the rest.
"""

from typing import Literal

import dcmdask
from dcmdask import batch


def process(
    series: dcmdask.Series,
    format: Literal["ome-zarr", "zarr"] = "ome-zarr",
    values: Literal["stored", "modality", "display"] = "stored",
    on_irregular: Literal["error", "keep", "fill", "split"] = "error",
) -> dict[str, int | None]:
    """Write the stacks of a series, and return how many there are and how large."""
    stacks = list(series.stacks)
    if on_irregular == "split":
        stacks = [part for stack in stacks for part in stack.split()]
    reports, plain = [], 0
    for number, stack in enumerate(stacks):
        store = batch.output(f"stack-{number}.zarr")
        how = {
            "values": values,
            # Its parts are regular.
            "on_irregular": "error" if on_irregular == "split" else on_irregular,
            "resume": True,
            "target_options": batch.target_options() or None,
        }
        try:
            report = dcmdask.to_zarr(stack, store, format=format, **how)
        except (dcmdask.LayoutError, dcmdask.IrregularSeriesError):
            # Refused before anything was written; what is irregular and not to be kept is
            # refused again.
            report = dcmdask.to_zarr(stack, store, format="zarr", **how)
            plain += 1
        reports.append(report)
    stored = [report.bytes_stored for report in reports]
    return {
        "stores": len(reports),
        "plain": plain,
        "bytes_decoded": sum(report.bytes_decoded for report in reports),
        # Of an object store nobody asks.
        "bytes_stored": None if None in stored else sum(stored),
    }


if __name__ == "__main__":
    batch.main(process, description=__doc__)
