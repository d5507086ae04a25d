"""A folder of CT files as a volume in Hounsfield units, and pictures of it.

    python examples/ct_volume.py [FOLDER] [OUTPUT]

Without FOLDER a very small series is used that comes with pydicom. Needs the extra ``xarray``.
"""

import sys
from pathlib import Path

import numpy as np
import pydicom

import dcmdask

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests/98892001/CT5N"


def main(folder: Path = FOLDER, output: Path = Path()) -> None:
    # One pass over the headers. What is missing, double or uneven would be an error that
    # says where, in millimetres.
    series = dcmdask.scan(folder)[0]
    volume = series.to_xarray(values="modality")
    print(f"{dict(volume.sizes)} {volume.dtype} {volume.attrs['units']}, nothing decoded yet")

    # One frame, in a window for soft tissue.
    dcmdask.pictures.frame(volume.isel(z=0), output / "frame.png", window=(40, 400))
    # Three planes through the middle; the pixels of the picture are square whatever the
    # distance between frames.
    dcmdask.pictures.planes(volume, output / "planes.png", window=(40, 400))
    # The largest value along the patient's front to back. Each frame is decoded once, on
    # all cores, and forgotten when its share is known.
    projection = volume.max("y", keep_attrs=True).compute()
    dcmdask.pictures.frame(projection[::-1], output / "projection.png", window=(300, 1200))
    print(f"frame.png, planes.png and projection.png are in {output.resolve().name}")

    # For other tools: the affine takes voxel indices (x, y, z) to the patient's axes, in mm.
    # DICOM's point to the left, the back and the head (LPS); nibabel's to the right, the
    # front and the head (RAS).
    affine = volume.dcm.affine
    ras = np.diag([-1, -1, 1, 1]) @ affine
    print("to nibabel:   nibabel.Nifti1Image(volume.values.transpose(2, 1, 0), ras)")
    print(f"              where ras takes voxel (0, 0, 0) to {ras[:3, 3].round(3).tolist()}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
