"""A whole slide: its thumbnail, a region at full resolution with a scale bar, and its levels.

    python examples/slide.py [SLIDE] [OUTPUT]

SLIDE is a folder with the files of one slide, or one of them. Without it a very small one is made
of a picture that comes with pydicom. Needs the extra ``xarray``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

import dcmdask

TILE = 64


def main(source: Path | None = None, output: Path = Path()) -> None:
    if source is None:
        source = Path(tempfile.mkdtemp(prefix="slide-"))
        make_slide(source)
    slide = dcmdask.open_slide(source)
    print(slide, *slide.levels, sep="\n")
    slide.thumbnail(1024).save(output / "thumbnail.png")

    # Of the finest level only the tiles that the region touches are read.
    level = slide.levels[0]
    rows, columns = level.size
    width, height = min(1024, columns // 2), min(768, rows // 2)
    corner = (columns - width) // 2, (rows - height) // 2
    region = Image.fromarray(slide.read_region(corner, 0, (width, height)))
    with_scale_bar(region, level.mpp[1]).save(output / "region.png")

    # Each level as a node of xarray's, with x and y in millimetres on the slide.
    tree = slide.to_datatree()
    pixels = tree["0/pixels"]
    print(f"{dict(pixels.sizes)}, {float(abs(pixels.x[-1] - pixels.x[0])):.3f} mm wide")
    mean = pixels[: rows // 4, : columns // 4].mean(("y", "x")).compute()
    print(f"mean colour of a corner: {mean.values.round(1)}")
    print(f"thumbnail.png and region.png are in {output.resolve().name}")


def with_scale_bar(picture: Image.Image, mpp: float) -> Image.Image:
    """Return a picture with a bar of about a fifth of its width, and its length."""
    picture = picture.convert("RGB")
    wanted = picture.width * mpp / 5
    step = 10 ** np.floor(np.log10(wanted))
    length = max(n * step for n in (1, 2, 5) if n * step <= wanted)
    pen = ImageDraw.Draw(picture)
    left, bottom = picture.width // 20, picture.height * 19 // 20
    pen.rectangle((left, bottom - 4, left + length / mpp, bottom), fill="black")
    pen.text((left, bottom - 18), f"{length:g} um", fill="black")
    return picture


def make_slide(folder: Path) -> None:
    """Write two levels of a slide that is made of a picture."""
    picture = Image.fromarray(pydicom.examples.rgb_color.pixel_array)
    for number, factor in enumerate((1, 2)):
        level = picture.resize((picture.width // factor, picture.height // factor))
        write_level(np.asarray(level), 0.0005 * factor, folder / f"{number}.dcm")


def write_level(pixels: np.ndarray, spacing: float, path: Path) -> None:
    """Write a picture as tiles, with `spacing` mm from pixel to pixel."""
    rows, columns = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -rows % TILE), (0, -columns % TILE), (0, 0)), constant_values=255)
    down, across = (length // TILE for length in padded.shape[:2])
    tiles = padded.reshape(down, TILE, across, TILE, 3).swapaxes(1, 2)
    image = Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = UID(f"1.2.3.{rows}")
    image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.3", "1.2.4"
    image.Modality, image.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    image.Rows = image.Columns = TILE
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.NumberOfFrames, image.DimensionOrganizationType = down * across, "TILED_FULL"
    image.TotalPixelMatrixRows, image.TotalPixelMatrixColumns = rows, columns
    image.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin, measures, groups = Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    measures.PixelSpacing = [spacing, spacing]
    groups.PixelMeasuresSequence = [measures]
    image.TotalPixelMatrixOriginSequence = [origin]
    image.SharedFunctionalGroupsSequence = [groups]
    image.PixelData = tiles.tobytes()
    image.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
