"""Read a series of 500 files into a volume with dcmdask and SimpleITK; draw it; assemble headers.

    python benchmarks/volumes.py [--files 500] [--frames 100000] [--repeats 5]

The files are 512 x 512 CT frames of 16 bits, native and RLE. Each pass starts with the folder
and ends with all voxels in memory, in Hounsfield units; files are in the page cache. Rounds run
everyone once, in this process, and alternate in direction; ratios are taken within a round.

`dcmdask picture` draws three planes of 300 such files. Its imports are those of the same command
for one small file.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from inputs import FOLDER, SEED, VERSION
from machine import describe_machine, table
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

BAR, ASSEMBLY_SECONDS = 2.0, 2.0
PICTURED, PICTURE_SECONDS = 300, 3.0
SYNTAXES = {"native": ExplicitVRLittleEndian, "RLE": RLELossless}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--files", type=int, default=500, help="of a series (%(default)s)")
    parser.add_argument("--frames", type=int, default=100_000, help="to assemble (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)
    print(describe_machine(), end="\n\n")
    rows = []
    for name in SYNTAXES:
        folder = make(options.folder, name, options.files)
        rows.append([name, *measure(folder, options.repeats)])
    heads = ["", "dcmdask, s", "without Dask, s", "SimpleITK, s"]
    heads += ["times as fast", "without Dask", "bar", "reached"]
    print(f"{options.files} files to a volume: median\n\n" + table(heads, rows), end="\n\n")
    print(assembly(make(options.folder, "native", options.files), options.frames), end="\n\n")
    print(pictures(options.folder, min(options.files, PICTURED), options.repeats))


def make(parent: Path, name: str, count: int) -> Path:
    """Return the folder of a series, made where it is not there yet."""
    folder = parent / f"volume-{name}-{count}-v{VERSION}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(SEED)
        names = rng.permutation(count)
        for number in range(count):
            _header(name, number, rng).save_as(part / f"IM{names[number]:05}", True)
        part.replace(folder)
    return folder


def _header(name: str, number: int, rng: np.random.Generator) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.Modality = CTImageStorage, "CT"
    root = "2.25.329800735698586629295641978511506172919"
    ds.SOPInstanceUID, ds.SeriesInstanceUID = f"{root}.2.{number + 1}", f"{root}.1"
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = f"{root}.3", f"{root}.4"
    ds.ImagePositionPatient = [-125, -125, 1.25 * number]
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.48828125, 0.48828125]
    ds.InstanceNumber, ds.SliceThickness = number + 1, 1.25
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 512
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = 1000 * (x**2 + y**2 < 0.6 + 0.2 * np.sin(number / 50)) + rng.normal(0, 12, x.shape)
    ds.PixelData = body.astype("<i2").tobytes()
    if SYNTAXES[name] == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
    return ds


def dcmdask_volume(folder: Path) -> np.ndarray:
    """Scan, assemble, decode and rescale."""
    import dcmdask

    return dcmdask.from_dicom(folder, values="modality").compute(scheduler="threads")


def dcmdask_without_dask(folder: Path) -> np.ndarray:
    """The same array-like, indexed by hand: one thread, no copy of the chunks."""
    import dcmdask

    (stack,) = dcmdask.scan(folder)[0].stacks
    return stack.flattened("modality", "error")[:]


def simpleitk_volume(folder: Path) -> np.ndarray:
    """SimpleITK's series reader, which rescales as well."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    global _image  # noqa: PLW0603  the view does not keep it
    _image = reader.Execute()
    return SimpleITK.GetArrayViewFromImage(_image)


_image: object = None


def measure(folder: Path, repeats: int) -> list[str]:
    """Return the medians, how many times as fast dcmdask is, and whether that is enough."""
    readers: list[Callable[[Path], np.ndarray]] = [
        dcmdask_volume,
        dcmdask_without_dask,
        simpleitk_volume,
    ]
    first = dcmdask_volume(folder)
    for reader in readers:
        assert np.array_equal(first, reader(folder)), "the volumes differ"
    del first
    taken: dict[str, list[float]] = {reader.__name__: [] for reader in readers}
    for number in range(repeats):
        for reader in readers[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            reader(folder)
            taken[reader.__name__].append(time.perf_counter() - started)
    peer = taken[simpleitk_volume.__name__]
    row = [f"{statistics.median(times):.3f}" for times in taken.values()]
    ratios = []
    for reader in readers[:2]:
        pairs = zip(taken[reader.__name__], peer, strict=True)
        ratios.append(statistics.median(theirs / ours for ours, theirs in pairs))
    row += [f"{ratio:.2f}" for ratio in ratios]
    return [*row, f"{BAR:g}", " / ".join("yes" if ratio >= BAR else "no" for ratio in ratios)]


def assembly(folder: Path, frames: int) -> str:
    """Return how long it takes from headers to lazy arrays, for many single frames."""
    import dask.array  # noqa: F401  imported here, so that it is not timed
    import xarray  # noqa: F401  likewise

    from dcmdask.archive.descriptions import describe_files
    from dcmdask.archive.series import Series

    (one,) = describe_files([str(min(folder.iterdir()))])
    rows = []
    for name, depth in (("positions", frames), ("1000 positions x times", 1000)):
        instances = []
        for number in np.random.default_rng(SEED).permutation(frames):
            facts = one.facts.copy()
            facts["position"][0, 2] = 0.5 * (number % depth)
            facts["temporal_position"] = number // depth
            facts["instance_number"] = number
            source = dataclasses.replace(one.source, path=f"{one.source.path}-{number}")
            uid = f"{one.series_uid}.{number + 1}"
            instances.append(
                dataclasses.replace(one, source=source, sop_instance_uid=uid, table=facts.tobytes())
            )
        started = time.perf_counter()
        series = Series(one.series_uid, instances)
        array = series.to_dask()
        taken = time.perf_counter() - started
        started = time.perf_counter()
        series.to_xarray(values="modality")
        labelled = time.perf_counter() - started
        reached = "yes" if max(taken, labelled) < ASSEMBLY_SECONDS else "no"
        rows.append([name, str(array.shape), f"{taken:.2f}", f"{labelled:.2f}", reached])
    heads = [f"{frames} frames", "shape", "to_dask, s", "to_xarray, s", f"< {ASSEMBLY_SECONDS:g} s"]
    return "Assembled once the headers are there\n\n" + table(heads, rows)


def pictures(parent: Path, count: int, repeats: int) -> str:
    """Return how long a picture of a series takes, beyond that of one file of it."""
    rows = []
    for name in SYNTAXES:
        folder = make(parent, name, count)
        one = next(folder.iterdir())
        times = [(_draw(folder), _draw(one)) for _ in range(repeats)]
        whole, imports = (statistics.median(each) for each in zip(*times, strict=True))
        beyond = statistics.median(a - b for a, b in times)
        reached = "yes" if beyond < PICTURE_SECONDS else "no"
        rows.append([name, f"{whole:.2f}", f"{imports:.2f}", f"{beyond:.2f}", reached])
    heads = [f"{count} files", "picture, s", "of one file, s", "beyond, s"]
    return "`dcmdask picture`: median\n\n" + table([*heads, f"< {PICTURE_SECONDS:g} s"], rows)


def _draw(source: Path) -> float:
    command = [sys.executable, "-m", "dcmdask", "picture", source]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([*command, f"{folder}/a.png", "--window", "40,400"], check=True)
        return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1:])
