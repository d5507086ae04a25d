"""Random patches for training, read from a Zarr store that was exported once.

    python examples/random_patches.py [FOLDER] [OUTPUT]

Without FOLDER a very small series is used that comes with pydicom.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import zarr

import dcmdask

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests/98892001/CT5N"
PATCH = (4, 8, 8)


def patches(store: Path, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield patches at random places; each reads only the chunks that it touches."""
    group = zarr.open_group(store, mode="r")
    if not group.attrs["dcmdask"]["complete"]:
        raise SystemExit(f"{store} is not complete: export it again with --resume")
    volume = group["pixels"]
    rng = np.random.default_rng(seed)
    for _ in range(count):
        corner = [int(rng.integers(0, n - p + 1)) for n, p in zip(volume.shape, PATCH, strict=True)]
        place = tuple(slice(c, c + p) for c, p in zip(corner, PATCH, strict=True))
        # Hounsfield units to about -1 to 1.
        yield (np.asarray(volume[place], np.float32) / 1000).clip(-1, 1)


def main(folder: Path = FOLDER, output: Path = Path()) -> None:
    store = output / "ct.zarr"
    # Chunks as thick as a patch: small reads for training, whole shards for the file system.
    dcmdask.to_zarr(
        folder, store, values="modality", chunks=(4, 8, 8), shards=(4, 16, 16), resume=True
    )
    mean = 0.0
    for step, patch in enumerate(patches(store, 64), 1):
        # Here a model would learn; this one learns the mean.
        mean += (float(patch.mean()) - mean) / step
    print(f"64 patches of {PATCH}, mean {mean:.3f}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
