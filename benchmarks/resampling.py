"""Resample a volume on another grid, and to isotropic voxels, with dcmdask and scipy.

    python benchmarks/resampling.py [--files 200] [--repeats 5]

The volume is a series of CT frames (512 x 512, 1.25 mm apart) in memory, as float32. The other grid
is turned by 20 degrees about the rows. scipy is one call of `scipy.ndimage.map_coordinates` with
the coordinates of all voxels, which are made before and not timed; dcmdask makes its own, block by
block, on all cores and on one. Rounds run everyone once, in this process, and alternate in
direction; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from inputs import FOLDER
from machine import describe_machine, table
from scipy import ndimage
from volumes import make

import dcmdask

BAR = 1.5
TURN = np.deg2rad(20)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--files", type=int, default=200, help="of the series (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)
    print(describe_machine(), end="\n\n")
    series = dcmdask.scan(make(options.folder, "native", options.files))[0]
    volume = series.to_xarray("modality").astype("f4").persist()
    rows = [
        ["isotropic(1.0)", *measure(volume, volume.dcm.isotropic(1.0), options.repeats)],
        ["like(turned)", *measure(volume, volume.dcm.like(turned(volume)), options.repeats)],
    ]
    heads = ["", "all cores, s", "one core, s", "scipy, s", "/ scipy", "one core", "bar", "reached"]
    print(f"{options.files} frames on another grid: median\n\n" + table(heads, rows))


def turned(volume: xr.DataArray) -> xr.DataArray:
    """Return an image of the same voxel counts on a grid that is turned about its rows."""
    orientation = [1.0, 0.0, 0.0, 0.0, float(np.cos(TURN)), float(np.sin(TURN))]
    patient = volume.coords["patient"].copy()
    patient.attrs["orientation"] = orientation
    return volume.assign_coords(patient=patient)


def measure(volume: xr.DataArray, lazy: xr.DataArray, repeats: int) -> list[str]:
    """Return medians of the times, the ratios, and whether they are within the bar."""
    values = volume.values
    there = np.linalg.inv(volume.dcm.affine) @ lazy.dcm.affine
    x, y, z = (np.arange(lazy.sizes[dim]) for dim in ("x", "y", "z"))
    points = np.stack(np.broadcast_arrays(*np.ix_(x, y, z)), -1)
    where = np.moveaxis(points @ there[:3, :3].T + there[:3, 3], -1, 0).astype("f4")
    # Axes of the result: z, y, x, as those of the values.
    where = np.ascontiguousarray(where[::-1].transpose(0, 3, 2, 1))

    def scipy() -> Any:
        return ndimage.map_coordinates(values, where, order=1, cval=np.nan, output="f4")

    calls: dict[str, Callable[[], Any]] = {
        "all": lambda: lazy.compute(scheduler="threads").values,
        "one": lambda: lazy.compute(scheduler="synchronous").values,
        "scipy": scipy,
    }
    both = np.stack([calls["all"](), scipy()])
    inside = np.isfinite(both).all(0)
    assert inside.mean() > 0.5, "the grids hardly overlap"
    assert np.abs(both[0] - both[1])[inside].max() < 1, "the volumes differ"
    del both
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats):
        for name in list(calls)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            calls[name]()
            taken[name].append(time.perf_counter() - started)
    ratios = [
        statistics.median(a / b for a, b in zip(taken[name], taken["scipy"], strict=True))
        for name in ("all", "one")
    ]
    row = [f"{statistics.median(times):.2f}" for times in taken.values()]
    row += [f"{ratio:.2f}" for ratio in ratios]
    return [*row, f"{BAR:g}", " / ".join("yes" if ratio <= BAR else "no" for ratio in ratios)]


if __name__ == "__main__":
    warnings.simplefilter("ignore", dcmdask.DcmdaskWarning)
    main(sys.argv[1:])
