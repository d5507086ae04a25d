"""What is wrong with an archive: a row of numbers for every series, and a list of duplicates.

    dcmdask run pipelines/quality.py ARCHIVE TARGET [--share 0.01]

Columns of the results, over all frames of a series, in the units of the modality:

- `low`, `high`, `mean`, `deviation`: of all samples that are finite.
- `blank`: frames of one value. `saturated`: frames of which more than **--share** of the
  samples have the frame's largest value, as where a detector or a window clipped them; masks
  and drawings are meant to be so, and count as well.
- `snr`: an estimate, the median over frames: what lies between the 5th and the 95th percentile
  over the noise, which is what second differences along rows and columns leave (J. Immerkaer,
  Computer Vision and Image Understanding 64, 1996; their median, so that edges count little).
  It is too high where frames were smoothed, as lossy compression does.
- `geometry`: regular, or what is not: missing, duplicate, uneven, tilt, ...; "no position".
- `pixels`: a hash of all frames, in any order. Series that have it in common have the same.

duplicates.csv lists each frame that a series before it has as well: `series`, `frame`, and
where it is there, `of_series`, `of_frame`. Blank frames are all alike and are not listed.
Frames count from 0 through the stacks of a series, as `Series.stacks` has them.
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
# Half of what is normally distributed is within so many standard deviations; and a second
# difference along both axes has so many times the deviation of a sample.
HALF, WEIGHT = 0.6745, 6
DIGESTS = "digests.npy"
# What a thread holds of the frames.
CHUNK = "32 MiB"


def process(series: dcmdask.Series, share: float = 0.01) -> dict[str, Any]:
    """Return the numbers of a series; the hashes of its frames are written beside them."""
    lazy = []
    for stack in series.stacks:
        # All frames that there are, in one row, also where some are missing.
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
    """Return a row for each of some frames (frames, rows, columns[, samples])."""
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
    """Return what the headers say of where the frames are, in a few words without names."""
    found = {one.code for stack in series.stacks for one in stack.arrangement.irregularities}
    if any(stack.geometry is None for stack in series.stacks):
        found.add("no position")
    return ", ".join(sorted(found)) or "regular"


def hashed(data: bytes) -> bytes:
    """Return eight bytes that are those of other data by chance only."""
    return hashlib.blake2b(data, digest_size=8).digest()


def finish(table: pd.DataFrame, target: str) -> None:
    """Find the frames that several series have, and list them."""
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
    # The index of the first of its kind, for each frame.
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
