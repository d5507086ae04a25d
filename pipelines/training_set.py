"""A training set: volumes of one spacing and window, split by patient, without identities.

    dcmdask run pipelines/training_set.py SOURCE TARGET [OPTIONS]

Each series of one regular grey volume becomes a Zarr group, series/UID/volume.zarr: float16
from 0 to 1, the **--center** (40) and **--width** (400) of a window in the units of the
modality, voxels of **--spacing** mm (1) along all axes. index.csv lists them: `series`,
`split`, `path`, `modality` and the shape. Other series are reported as failed, and --only-failed
tries them again; --select 'Modality == "CT" and frames > 20' leaves them out.

The split is made by patient: all series of a patient are in the same part, on any machine and in
any order, also those that come later. The part follows from a hash of Patient ID (0010,0020) with
**--seed** as the key; neither is stored. Series Instance UIDs are, so that owners of the source
can find it again. **--split-by** names another element if Patient ID is empty, such as
StudyInstanceUID. **--train** (0.8) and **--validation** (0.1) are the shares of the parts; the
rest is for testing.

Resampling is linear between voxels and does not average: smooth first if voxels become more than
about twice as large.
"""

import hashlib
from typing import Any

import pandas as pd

import dcmdask
from dcmdask import batch


def process(
    series: dcmdask.Series,
    spacing: float = 1.0,
    center: float = 40.0,
    width: float = 400.0,
    train: float = 0.8,
    validation: float = 0.1,
    split_by: str = "PatientID",
    seed: str = "0",
) -> dict[str, Any]:
    """Return the volume of a series, resampled and windowed, and its part of the split."""
    if min(spacing, width) <= 0 or min(train, validation) < 0 or train + validation > 1:
        raise ValueError("spacing and width are more than 0, train and validation at most 1")
    volume = series.to_xarray(values="modality", chunks="8 MiB")
    if volume.dims != ("z", "y", "x"):
        raise ValueError(f"no grey volume, but {dict(volume.sizes)}")
    # Voxel (0, 0, 0) stays where it is.
    resampled = volume.dcm.isotropic(spacing)
    x = ((resampled - (center - width / 2)) / width).clip(0, 1).astype("float16")
    x.attrs = {**volume.attrs}
    x.attrs.pop("units", None)
    return {
        "volume": x,
        "split": part(series, split_by, seed, train, validation),
        "modality": volume.attrs.get("modality"),
        **dict(zip(volume.dims, x.shape, strict=True)),
    }


def part(series: dcmdask.Series, split_by: str, seed: str, train: float, validation: float) -> str:
    """Return the part of the split for the patient of a series, the same on each machine."""
    source = series.instances[0].source
    told = str(dcmdask.open_frames(source).dataset.get(split_by, "")).strip()
    if not told:
        raise ValueError(f"{split_by} is empty, by which the split is made: see --split-by")
    digest = hashlib.blake2b(told.encode(), key=seed.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return "train" if place < train else "validation" if place < train + validation else "test"


def finish(table: pd.DataFrame, target: str) -> None:
    """Write the index of the training set."""
    index = pd.DataFrame(table, columns=["series", "split", "path", "modality", "z", "y", "x"])
    index["path"] = [f"series/{name}/volume.zarr" for name in index["series"]]
    options = batch.target_options() or None
    index.to_csv(batch.output("index.csv"), index=False, storage_options=options)
    counts = ", ".join(f"{count} {name}" for name, count in index["split"].value_counts().items())
    print(f"index.csv: {counts or 'nothing'}")


if __name__ == "__main__":
    batch.main(process, columns=["split"], finish=finish, description=__doc__)
