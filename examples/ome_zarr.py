"""A folder of DICOM files as OME-Zarr, opened again with labels and drawn.

    python examples/ome_zarr.py [FOLDER] [OUTPUT]

Without FOLDER a very small series is used that comes with pydicom. Needs the extras ``ome``
and ``xarray``.
"""

import sys
from pathlib import Path

import pydicom
import xarray

import dcmdask

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests/98892001/CT5N"


def main(folder: Path = FOLDER, output: Path = Path()) -> None:
    store = output / "ct.ome.zarr"
    # Each frame is decoded once, and the levels of the pyramid are made from what was decoded.
    # With resume=True the same call goes on where one that was killed ended.
    report = dcmdask.to_zarr(
        folder, store, format="ome-zarr", values="modality", levels=3, resume=True
    )
    print(report)
    # Everything decoded a second time, in another way, and each level held against the one below.
    print(dcmdask.verify(store, folder))

    # Each level is an array of its own, so xarray opens one at a time.
    group = xarray.open_zarr(store, drop_variables=["1", "2"])
    volume = group["0"]
    about = group.attrs["dcmdask"]
    print(f"{dict(volume.sizes)} {volume.dtype} {about['units']}, z = {volume.z.values} mm")
    dcmdask.pictures.planes(volume, output / "planes.png", window=(40, 400))
    print(f"planes.png is in {output.resolve().name}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
