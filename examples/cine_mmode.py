"""A cine loop as an array: its mean frame, and one column of it over time.

    python examples/cine_mmode.py [FILE] [FOLDER]

Without FILE an ultrasound loop is used that comes with pydicom.
"""

import sys
from pathlib import Path

import pydicom

import dcmdask

LOOP = Path(pydicom.__file__).parent / "data" / "test_files" / "examples_ybr_color.dcm"


def main(path: Path = LOOP, folder: Path = Path()) -> None:
    # Only the header and the frame index are read here, whatever the size of the file.
    x = dcmdask.from_dicom(path)
    print(f"{path.name}: {x.shape} {x.dtype}, {x.numblocks[0]} chunks, nothing decoded yet")

    # An operation gives another lazy array. compute() decodes chunk after chunk on all
    # cores and forgets each when its sum is known: the loop need not fit in memory.
    mean = x.mean(axis=0).compute().round().astype("uint8")
    dcmdask.pictures.contact_sheet([mean], folder / "mean.png")
    print(f"mean of {len(x)} frames: {folder / 'mean.png'}")

    # M-mode: a single line of the picture, here the middle column, drawn against time.
    # The slices reach the decoder, which drops the rest of each frame as soon as it is decoded.
    column = x.shape[2] // 2
    line = x[:, :, column].compute()
    # (frames, rows[, samples]) to (rows, frames[, samples]): time runs to the right. Each
    # moment is drawn eight pixels wide, or thirty frames would be a thin strip.
    mmode = line.swapaxes(0, 1).repeat(8, axis=1)
    dcmdask.pictures.contact_sheet([mmode], folder / "mmode.png")
    print(f"column {column} over time: {folder / 'mmode.png'}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
