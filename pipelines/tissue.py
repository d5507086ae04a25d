"""Tissue of whole slides: where it is, and patches of it.

    dcmdask run pipelines/tissue.py SLIDES TARGET [OPTIONS]

Each series of one slide is looked at in a picture of about **--mask-size** (1024) pixels. Tissue
is what is more saturated there than the glass, or of grey slides what is brighter, by Otsu's
threshold. Patches of **--size** (256) pixels lie side by side on the coarsest level that has at
most **--mpp** (0) micrometres a pixel; 0 is for the finest. A patch is kept where at least
**--tissue** (0.5) of it is tissue, and at most **--most** (0: all) of a slide are, spread evenly.

**--form** zarr, the default, stores series/UID/patches.zarr: (patch, row, column, sample), with the
place of each; png a folder series/UID/patches.d with a picture of each, named after its row and
column. patches.csv lists the patches of all slides, a row each: `series`, `patch`, `level`, `left`
and `top` in pixels of that level, `x` and `y` in those of the finest, `mpp` and the share of
`tissue`. series/UID/picture.png shows them on the slide.

The label of a slide is never looked at.
"""

from typing import Any, Literal

import dask.array as da
import fsspec
import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image, ImageDraw

import dcmdask
from dcmdask import batch, pictures

COLUMNS = ["series", "patch", "level", "left", "top", "x", "y", "mpp", "tissue"]
# Patches that a task reads.
TOGETHER = 32


def process(
    series: dcmdask.Series,
    size: int = 256,
    mpp: float = 0.0,
    tissue: float = 0.5,
    mask_size: int = 1024,
    most: int = 0,
    form: Literal["zarr", "png"] = "zarr",
) -> dict[str, Any]:
    """Return the share of tissue of a slide, a picture of its patches, and the patches."""
    if size < 1 or mask_size < 1 or not 0 <= tissue <= 1 or mpp < 0 or most < 0:
        raise ValueError("sizes are at least 1, tissue is from 0 to 1, mpp and most not negative")
    slide = dcmdask.open_slide(series)
    number = level_of(slide, mpp)
    level = slide.levels[number]
    shown = slide.thumbnail(mask_size)
    mask = mask_of(np.asarray(shown))
    corners, shares = patches_of(mask, level.size, size, tissue)
    if most and len(corners) > most:
        kept = np.linspace(0, len(corners) - 1, most).round().astype(int)
        corners, shares = corners[kept], shares[kept]
    rows = pd.DataFrame(
        {
            "series": series.uid,
            "patch": np.arange(len(corners)),
            "level": number,
            "left": corners[:, 1],
            "top": corners[:, 0],
            "x": np.rint(corners[:, 1] * level.downsample).astype(int),
            "y": np.rint(corners[:, 0] * level.downsample).astype(int),
            "mpp": level.mpp[0],
            "tissue": shares.round(4),
        }
    )
    rows.to_csv(batch.output("patches.csv"), index=False, storage_options=options())
    results: dict[str, Any] = {
        "level": number,
        "tissue": float(mask.mean()),
        "count": len(corners),
        "picture": batch.Picture(outlined(shown, corners, size, level.size)),
    }
    if len(corners) and form == "zarr":
        results["patches"] = stacked(level, corners, size, rows)
    elif len(corners):
        draw(level, corners, size)
    return results


def level_of(slide: dcmdask.Slide, mpp: float) -> int:
    """Return the coarsest level with at most so many micrometres a pixel; 0 for none."""
    fine = [n for n, one in enumerate(slide.levels) if one.mpp[0] <= mpp * 1.01]
    return max(fine, default=0)


def mask_of(picture: np.ndarray) -> np.ndarray:
    """Return where tissue is in a picture of a slide."""
    # The picture is of 8 bits.
    values = np.ptp(picture, axis=-1) if picture.ndim == 3 else picture
    return values > otsu(values)


def otsu(values: np.ndarray) -> int:
    """Return the value that parts values of 8 bits into the two most different groups."""
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    below = np.cumsum(counts)
    sums = np.cumsum(counts * np.arange(256))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = sums / below - (sums[-1] - sums) / (below[-1] - below)
    between = below * (below[-1] - below) * apart**2
    return int(np.nan_to_num(between).argmax())


def patches_of(
    mask: np.ndarray, shape: tuple[int, int], size: int, tissue: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row and column of each patch with enough tissue, and its share."""
    down, across = shape[0] // size, shape[1] // size
    # The sum of the mask up to each row and column.
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows = np.linspace(0, mask.shape[0] * (down * size / shape[0]), down + 1).round().astype(int)
    columns = np.linspace(0, mask.shape[1] * (across * size / shape[1]), across + 1)
    columns = columns.round().astype(int)
    of_all = np.diff(np.diff(sums[np.ix_(rows, columns)], axis=0), axis=1)
    areas = np.outer(np.diff(rows), np.diff(columns))
    shares = of_all / np.maximum(areas, 1)
    found = np.argwhere((shares >= tissue) & (of_all > 0))
    return found * size, shares[tuple(found.T)]


def stacked(level: dcmdask.Level, corners: np.ndarray, size: int, rows: pd.DataFrame) -> Any:
    """Return the patches as one lazy array with the place of each."""
    frames = level.frames()
    lazy = da.from_array(corners, chunks=(TOGETHER, 2))
    shape = patch_shape(level, size)

    def read(places: np.ndarray) -> np.ndarray:
        return np.stack([patch(frames, corner, size) for corner in places.tolist()])

    patches = lazy.map_blocks(
        read,
        drop_axis=1,
        new_axis=list(range(1, 1 + len(shape))),
        chunks=(lazy.chunks[0], *((length,) for length in shape)),
        meta=np.empty((0,) * (1 + len(shape)), frames.dtype),
    )
    places = {
        name: ("patch", rows[name].to_numpy()) for name in ("left", "top", "x", "y", "tissue")
    }
    attributes = {"mpp": list(level.mpp), "level": int(rows["level"].iloc[0])}
    # Rows and columns of a patch are no places on the slide.
    dims = ["patch", *({"y": "row", "x": "column"}.get(dim, dim) for dim in level.dims)]
    return xr.DataArray(patches, places, dims, attrs=attributes)


def patch_shape(level: dcmdask.Level, size: int) -> tuple[int, ...]:
    """Return the lengths of the axes of a patch."""
    lengths = {"y": size, "x": size}
    return tuple(lengths.get(dim, n) for dim, n in zip(level.dims, level.shape, strict=True))


def patch(frames: Any, corner: list[int], size: int) -> np.ndarray:
    """Return one patch of an array-like (..., rows, columns[, samples])."""
    top, left = corner
    at = (slice(None),) * frames.frame_axes
    found: np.ndarray = frames[(*at, slice(top, top + size), slice(left, left + size))]
    return found


def draw(level: dcmdask.Level, corners: np.ndarray, size: int) -> None:
    """Write a picture of each patch; of the first optical path and focal plane."""
    frames = level.frames()
    folder = batch.output("patches.d")
    fs, path = fsspec.core.url_to_fs(folder, **(options() or {}))
    fs.makedirs(path, exist_ok=True)
    for corner in corners.tolist():
        values = patch(frames, corner, size)
        with fs.open(f"{path}/{corner[0]:06d}_{corner[1]:06d}.png", "wb") as file:
            pictures.frame(values[(0,) * frames.frame_axes], file)


def outlined(shown: Image.Image, corners: np.ndarray, size: int, shape: tuple[int, int]) -> Any:
    """Return the picture of a slide with the outline of each patch."""
    picture = shown.convert("RGB")
    pen = ImageDraw.Draw(picture)
    scale = picture.height / shape[0], picture.width / shape[1]
    for top, left in corners.tolist():
        ends = (left * scale[1], top * scale[0], (left + size) * scale[1], (top + size) * scale[0])
        pen.rectangle(ends, outline=(0, 90, 220))
    return np.asarray(picture)


def options() -> dict[str, Any] | None:
    """Return the options of the file system of the target; None for a folder here."""
    return batch.target_options() or None


def finish(table: pd.DataFrame, target: str) -> None:
    """List the patches of all slides."""
    listed = [
        pd.read_csv(f"{target}/series/{name}/patches.csv", storage_options=options())
        for name, count in zip(table["series"], table["count"], strict=True)
        if count
    ]
    index = pd.concat(listed) if listed else pd.DataFrame(columns=COLUMNS)
    index.to_csv(batch.output("patches.csv"), index=False, storage_options=options())
    print(f"patches.csv: {len(index)} patches of {len(listed)} slides")


if __name__ == "__main__":
    batch.main(process, columns=["level", "tissue", "count"], finish=finish, description=__doc__)
