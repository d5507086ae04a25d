"""A real cine loop to Zarr and back, compared with pydicom, and a picture of it.

    python examples/demo.py [FOLDER]

Nothing is downloaded: the loop comes with pydicom. Results go to ./demo-output.
"""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
import zarr

import dcmdask

LOOP = Path(pydicom.__file__).parent / "data" / "test_files" / "examples_ybr_color.dcm"


def main(folder: Path = Path("demo-output")) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    loop, store, sheet = folder / "cine.dcm", folder / "cine.zarr", folder / "cine.png"
    shutil.copyfile(LOOP, loop)

    x = dcmdask.from_dicom(loop)
    print(f"Opened {loop}: {x.shape} {x.dtype}, lazily, in {x.numblocks[0]} chunks.")

    report = dcmdask.to_zarr(loop, store, overwrite=True)
    print(f"Exported {report}.")

    pixels = zarr.open_group(store, mode="r")["pixels"][:]
    expected = pydicom.pixels.pixel_array(loop)
    # 8-bit JPEG is decoded straight to RGB: at most 1 from pydicom's conversion.
    difference = int(np.abs(pixels.astype(int) - expected).max())
    same = pixels.shape == expected.shape and difference <= 1
    print(f"Read it back: {len(pixels)} frames, at most {difference} from what pydicom decodes.")

    dcmdask.pictures.contact_sheet(pixels, sheet)
    print(f"Drew all frames: {sheet}")
    python = os.path.relpath(sys.executable)
    mmode = os.path.relpath(Path(__file__).with_name("cine_mmode.py"))
    print("\nTry next:")
    print(f"  {python} -m dcmdask info {loop}")
    print(f"  {python} -m dcmdask export --help")
    print(f"  {python} {mmode} {loop} {folder}")
    if not same:
        print("What was read back is not what pydicom decodes.", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
