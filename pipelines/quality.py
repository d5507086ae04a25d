"""Quality of an archive: a row of numbers for every series, and a list of duplicate frames.

    dcmdask run pipelines/quality.py SOURCE TARGET [--share 0.01]

Columns of the results, over all frames of a series, in the units of the modality:

- `low`, `high`, `mean`, `deviation`: of all finite samples.
- `blank`: number of frames of one value. `saturated`: number of frames of which more than
  **--share** of the samples have the frame's largest value, because a detector or a window
  clipped them; masks and drawings count as well.
- `snr`: an estimate, the median over frames: the range from the 5th to the 95th percentile,
  divided by the noise, which is the median of second differences along rows and columns
  (J. Immerkaer, Computer Vision and Image Understanding 64, 1996; the median, so that edges
  count little). It is too high for smoothed frames, also those of lossy compression.
- `geometry`: regular, or its irregularities: missing, duplicate, uneven, ...; "no position".
- `pixels`: a hash of all frames, in any order. Series with equal hashes have equal frames.

duplicates.csv lists each frame that an earlier series has as well: `series`, `frame`, and its
place in the other, `of_series`, `of_frame`. Blank frames are not listed, since they are all equal.
Frames count from 0 through the stacks of a series, in the order of `Series.stacks`.
"""

import hashlib
import io
from typing import Any

import dask
import dask.array as da
import fsspec
import numpy as np
import pandas as pd
from dask.array.core import normalize_chunks

import dcmdask
from dcmdask import batch

MEASURES = ("count", "low", "high", "mean", "variance", "saturated", "snr")
ROW = np.dtype([*((name, "f8") for name in MEASURES), ("digest", "<u8")])
# Median of the absolute value of a normal distribution, in standard deviations; and deviation of
# a second difference along both axes, in those of a sample.
HALF, WEIGHT = 0.6745, 6
DIGESTS = "digests.npy"
# Frames that a thread holds.
CHUNK = "32 MiB"


def process(series: dcmdask.Series, share: float = 0.01) -> dict[str, Any]:
    """Return the numbers of a series, and write the hashes of its frames."""
    lazy = []
    for stack in series.stacks:
        # All existing frames along one axis, also where some are missing.
        flat = stack.flattened("modality", "keep")
        chunks = normalize_chunks(("auto", *flat.shape[1:]), flat.shape, CHUNK, dtype=flat.dtype)
        x = da.from_array(flat, chunks, asarray=False)
        lazy.append(x.map_blocks(measured, share, dtype=ROW, drop_axis=list(range(1, x.ndim))))
    frames = np.concatenate(dask.compute(*lazy))
    digests = io.BytesIO()
    np.save(digests, frames["digest"])
    with fsspec.open(batch.output(DIGESTS), "wb", **batch.target_options()) as file:
        file.write(digests.getvalue())
    some = frames[frames["count"] > 0]
    total = some["count"].sum() or np.nan
    mean = (some["count"] * some["mean"]).sum() / total
    variance = (some["count"] * (some["variance"] + (some["mean"] - mean) ** 2)).sum() / total
    told = frames["snr"][np.isfinite(frames["snr"])]
    return {
        "frames": len(frames),
        "low": some["low"].min(initial=np.inf),
        "high": some["high"].max(initial=-np.inf),
        "mean": mean,
        "deviation": np.sqrt(variance),
        "blank": (frames["digest"] == 0).sum(),
        "saturated": frames["saturated"].sum(dtype=int),
        "snr": np.median(told) if len(told) else None,
        "geometry": geometry(series),
        "pixels": hashed(np.sort(frames["digest"]).tobytes()).hex(),
    }


def measured(frames: np.ndarray, share: float) -> np.ndarray:
    """Return a row for each frame of an array (frames, rows, columns[, samples])."""
    return np.array([of_frame(frame, share) for frame in frames], ROW)


def of_frame(frame: np.ndarray, share: float) -> tuple[float, ...]:
    """Return the row of a frame; the digest of a blank one is 0."""
    values = frame[np.isfinite(frame)].astype("f8")
    if not values.size:
        return (0, np.nan, np.nan, np.nan, np.nan, 0, np.nan, 0)
    low, high = values.min(), values.max()
    if low == high:
        return (values.size, low, high, low, 0, 0, np.nan, 0)
    digest = hashed(f"{frame.shape} {frame.dtype.str}".encode() + frame.tobytes())
    saturated = (values == high).mean() > share
    snr = signal_to_noise(frame.astype("f8") if frame.ndim == 2 else frame.mean(-1))
    told = (values.size, low, high, values.mean(), values.var(), saturated, snr)
    return (*told, int.from_bytes(digest, "little"))


def signal_to_noise(grey: np.ndarray) -> float:
    """Return the estimate for a frame (rows, columns); NaN where there is no noise."""
    left = np.diff(grey, 2, axis=0)
    left = np.diff(left, 2, axis=1)
    noise = np.median(np.abs(left)) / (HALF * WEIGHT) if left.size else np.nan
    low, high = np.percentile(grey, (5, 95))
    return float((high - low) / noise) if noise > 0 else np.nan


def geometry(series: dcmdask.Series) -> str:
    """Return the irregularities of the geometry, without names of files."""
    found = {one.code for stack in series.stacks for one in stack.arrangement.irregularities}
    if any(stack.geometry is None for stack in series.stacks):
        found.add("no position")
    return ", ".join(sorted(found)) or "regular"


def hashed(data: bytes) -> bytes:
    """Return a hash of eight bytes."""
    return hashlib.blake2b(data, digest_size=8).digest()


def finish(table: pd.DataFrame, target: str) -> None:
    """List the frames that several series have."""
    options = batch.target_options()
    fs, root = fsspec.core.url_to_fs(target, **options)
    names = list(table.get("series", ()))
    paths = [f"{root}/series/{name}/{DIGESTS}" for name in names]
    # Not `cat`, which takes brackets for a pattern.
    read = fs.cat_ranges(paths, None, None, on_error="raise")
    each = [np.load(io.BytesIO(data)) for data in read]
    digests = np.concatenate([*each, np.empty(0, "<u8")])
    series = np.repeat(np.arange(len(each)), [len(one) for one in each])
    frame = np.concatenate([*(np.arange(len(one)) for one in each), np.empty(0, int)])
    # For each frame, the index of the first one that is equal.
    _, firsts, which = np.unique(digests, return_index=True, return_inverse=True)
    first = firsts[which] if len(firsts) else which
    again = (series != series[first]) & (digests != 0)
    duplicates = pd.DataFrame(
        {
            "series": np.array(names, object)[series[again]],
            "frame": frame[again],
            "of_series": np.array(names, object)[series[first][again]],
            "of_frame": frame[first][again],
        }
    )
    duplicates.to_csv(batch.output("duplicates.csv"), index=False, storage_options=options or None)
    print(f"duplicates.csv: {len(duplicates)} frames that another series has")


if __name__ == "__main__":
    batch.main(process, columns=["pixels"], finish=finish, description=__doc__)
