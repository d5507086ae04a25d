"""An archive to OME-Zarr: one store for each stack of each series.

    dcmdask run pipelines/export_zarr.py SOURCE TARGET [OPTIONS]

Most series are one stack; a localizer in three directions is three, and its stores are
stack-0.zarr, stack-1.zarr and stack-2.zarr, the largest first.

**--format** ome-zarr (the default) is OME-Zarr 0.5 with a pyramid. It cannot hold every stack,
a colour cine of several echoes for example; such a stack becomes a plain Zarr group, and the
column `plain` of the results counts these. --format zarr writes plain groups only.

**--values** stored (the default) are the numbers in the files; modality are values in units,
such as Hounsfield units; display are the 8 bits that a viewer shows; philips-float, suv, suv-lbm,
suv-bsa, real-world and real-world:LABEL are those of `dcmdask.from_dicom`.

**--on-irregular** is for gaps and duplicate positions: error (the default) reports the series
as failed, keep takes the frames as they are (in plain groups, since OME-Zarr needs an even
grid), fill puts empty frames into gaps, and split makes one store of each regular part.

If a worker dies, the next try resumes the store that it has begun.
"""

from typing import Literal

import dcmdask
from dcmdask import batch


def process(
    series: dcmdask.Series,
    format: Literal["ome-zarr", "zarr"] = "ome-zarr",
    values: str = "stored",
    on_irregular: Literal["error", "keep", "fill", "split"] = "error",
) -> dict[str, int | None]:
    """Write the stacks of a series, and return their number and sizes."""
    stacks = list(series.stacks)
    if on_irregular == "split":
        stacks = [part for stack in stacks for part in stack.split()]
    reports, plain = [], 0
    for number, stack in enumerate(stacks):
        store = batch.output(f"stack-{number}.zarr")
        how = {
            "values": values,
            # The parts are regular.
            "on_irregular": "error" if on_irregular == "split" else on_irregular,
            "resume": True,
            "target_options": batch.target_options() or None,
        }
        try:
            report = dcmdask.to_zarr(stack, store, format=format, **how)
        except (dcmdask.LayoutError, dcmdask.IrregularSeriesError):
            # Refused before anything was written. An irregular stack is refused again, unless it
            # is to be kept.
            report = dcmdask.to_zarr(stack, store, format="zarr", **how)
            plain += 1
        reports.append(report)
    stored = [report.bytes_stored for report in reports]
    return {
        "stores": len(reports),
        "plain": plain,
        "bytes_decoded": sum(report.bytes_decoded for report in reports),
        # Unknown on an object store.
        "bytes_stored": None if None in stored else sum(stored),
    }


if __name__ == "__main__":
    batch.main(process, description=__doc__)
