"""Scan a folder of many small files with dcmdask and its peers, side by side, and print tables.

    python benchmarks/scanning.py [--files 20000] [--repeats 5]

Half of the files are like those of an MR scanner, half like those of a CT: 100 files a series,
each series in a folder, 130 elements a header with private ones and sequences, 64 x 64 pixels.
Each competitor has its own process, which has imported what it needs and passed once over one
folder. Rounds run everyone once and alternate in direction; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from inputs import FOLDER, SEED, VERSION
from machine import describe_machine, table
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

A_SERIES = 100
SIZE = 64
PYDICOM_BAR, GDCM_BAR = 2.0, 1.0
# Elements that make a volume of a series: those of the facts that single frames have.
TAGS = (  # noqa: SIM905  words are easier to read
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality "
    "ImageType Rows Columns SamplesPerPixel BitsAllocated BitsStored PixelRepresentation "
    "PhotometricInterpretation NumberOfFrames PixelPaddingValue ImagePositionPatient "
    "ImageOrientationPatient PixelSpacing SliceThickness InstanceNumber AcquisitionNumber "
    "TemporalPositionIdentifier TriggerTime AcquisitionDateTime AcquisitionDate AcquisitionTime "
    "FrameReferenceTime EchoTime EchoNumbers DiffusionBValue DiffusionGradientOrientation "
    "RescaleSlope RescaleIntercept RescaleType WindowCenter WindowWidth Units"
).split()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--files", type=int, default=20_000, help="how many (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)
    names = [name for name, needed in COMPETITORS.items() if importlib.util.find_spec(needed)]
    if missing := COMPETITORS.keys() - names:
        print("not installed, left out:", ", ".join(sorted(missing)), file=sys.stderr)
    folder = make(options.folder, options.files)
    print(describe_machine(), end="\n\n")
    taken = measure(str(folder), names, options.repeats)
    print(speeds(taken, options.files), end="\n\n")
    print(bars(taken), end="\n\n")
    print(scaling(str(folder), options.files), end="\n\n")
    print(memory(str(folder), options.files))


# Files


def make(parent: Path, count: int) -> Path:
    """Return the folder of the files, made where it is not there yet."""
    folder = parent / f"scanning-{count}-v{VERSION}"
    if not folder.exists():
        part = folder.with_suffix(f".{os.getpid()}.part")
        for number in range(-(-count // A_SERIES)):
            _write_series(part / f"{number:04}", number, min(A_SERIES, count - number * A_SERIES))
        part.replace(folder)
    return folder


def _write_series(folder: Path, number: int, count: int) -> None:
    """Write a header once, and change what differs between the files in its bytes."""
    folder.mkdir(parents=True)
    header = (_mr if number % 2 else _ct)(number)
    buffer = DicomBytesIO()
    dcmwrite(buffer, header, enforce_file_format=True)
    template = buffer.getvalue()
    for instance in range(count):
        data = template
        for old, new in (
            (b".999999", b".%06d" % (number * A_SERIES + instance)),
            (b"-888.00", b"%+07.2f" % (instance * 2.5 - 100)),
            (b"7777", b"%-4d" % (instance + 1)),
        ):
            assert old in data
            data = data.replace(old, new)
        (folder / f"IM{instance:04}").write_bytes(data)


def _uid(*numbers: int | str) -> str:
    return ".".join(map(str, ("2.25.329800735698586629295641978511506172918", *numbers)))


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99BENCH", meaning
    return item


def _reference(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = MRImageStorage
    item.ReferencedSOPInstanceUID = _uid(9, number)
    return item


def _common(series: int) -> Dataset:
    """Return what headers of both modalities have, a secondary capture's pixels included."""
    rng = np.random.default_rng(SEED + series)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.InstanceCreationDate, ds.InstanceCreationTime = "20200102", "101112.131415"
    ds.SOPInstanceUID = _uid(3, series) + ".999999"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20200102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101112.131415"
    ds.AccessionNumber, ds.InstitutionName = "A0000017", "A hospital for benchmarks"
    ds.InstitutionAddress = "A street\r\nA town"
    ds.ReferringPhysicianName = ds.PerformingPhysicianName = "Phys^Ician"
    ds.OperatorsName, ds.StationName = "Oper^Ator", "STATION17"
    ds.StudyDescription, ds.SeriesDescription = "Benchmarks", f"Series {series}"
    ds.InstitutionalDepartmentName, ds.ManufacturerModelName = "Radiology", "Model 3000"
    ds.ProcedureCodeSequence = Items([_code("17", "A study of how long things take")])
    ds.ReferencedStudySequence = Items([_reference(1)])
    ds.ReferencedPerformedProcedureStepSequence = Items([_reference(2)])
    ds.ReferencedImageSequence = Items([_reference(number) for number in range(3, 6)])
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Bench^Mark", "17", "19700101"
    ds.PatientSex, ds.PatientAge, ds.PatientWeight, ds.PatientSize = "O", "050Y", "70", "1.75"
    ds.PatientComments, ds.BodyPartExamined = "None", "HEAD"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0017", ["release 17", "patch 4"]
    ds.ProtocolName, ds.PatientPosition = "protocol", "HFS"
    ds.DateOfLastCalibration, ds.TimeOfLastCalibration = "20191231", "000000"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(1, series // 10), _uid(2, series)
    ds.StudyID, ds.SeriesNumber = "17", str(series + 1)
    ds.AcquisitionNumber, ds.InstanceNumber = "1", "7777"
    ds.ImagePositionPatient = ["-120.5", "-130.25", "-888.00"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(4, series // 10), ""
    ds.SliceLocation, ds.ImageComments = "-888.00", "Made for a benchmark"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = SIZE
    ds.PixelSpacing = ["0.9765625", "0.9765625"]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = ["40", "300"], ["400", "2000"]
    ds.WindowCenterWidthExplanation = ["SOFT", "BONE"]
    ds.RequestingPhysician, ds.RequestedProcedureDescription = "Phys^Ician", "Benchmarks"
    ds.PerformedProcedureStepStartDate = ds.PerformedProcedureStepEndDate = "20200102"
    ds.PerformedProcedureStepStartTime = ds.PerformedProcedureStepEndTime = "101112"
    ds.PerformedProcedureStepID, ds.PerformedProcedureStepDescription = "P17", "Benchmarks"
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "R17", "S17"
    request.ScheduledProtocolCodeSequence = Items([_code("18", "A protocol")])
    ds.RequestAttributesSequence = Items([request])
    ds.PixelData = rng.integers(0, 4096, (SIZE, SIZE), np.uint16).tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _mr(series: int) -> Dataset:
    ds = _common(series)
    ds.SOPClassUID, ds.Modality, ds.Manufacturer = MRImageStorage, "MR", "Magnets"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "GR", ["SP", "OSP"], "IR"
    ds.MRAcquisitionType, ds.SequenceName, ds.AngioFlag = "3D", "*tfl3d1_16ns", "N"
    ds.SliceThickness, ds.SpacingBetweenSlices = "2.5", "2.5"
    ds.RepetitionTime, ds.EchoTime, ds.InversionTime = "2300", "2.98", "900"
    ds.NumberOfAverages, ds.ImagingFrequency, ds.ImagedNucleus = "1", "123.249", "1H"
    ds.EchoNumbers, ds.MagneticFieldStrength, ds.EchoTrainLength = "1", "3", "1"
    ds.NumberOfPhaseEncodingSteps, ds.PercentSampling = "240", "100"
    ds.PercentPhaseFieldOfView, ds.PixelBandwidth, ds.FlipAngle = "100", "240", "9"
    ds.TransmitCoilName, ds.AcquisitionMatrix = "Body", [0, 256, 240, 0]
    ds.InPlanePhaseEncodingDirection, ds.VariableFlipAngleFlag, ds.SAR = "ROW", "N", "0.08"
    ds.dBdt, ds.PixelRepresentation = "0", 0
    ds.SmallestImagePixelValue, ds.LargestImagePixelValue = 0, 4095
    # Two blocks of vendors' own headers, and what stands beside them.
    block = ds.private_block(0x0019, "BENCH MR HEADER", create=True)
    for number in range(8, 20):
        block.add_new(number, "IS", str(number))
    block = ds.private_block(0x0029, "BENCH CSA HEADER", create=True)
    for number, length in ((0x10, 8_192), (0x20, 12_288)):
        block.add_new(number - 2, "CS", "IMAGE NUM 4")
        block.add_new(number - 1, "LO", "20200102")
        block.add_new(number, "OB", bytes(range(256)) * (length // 256))
    block = ds.private_block(0x0051, "BENCH MR HEADER", create=True)
    for number in range(8, 20):
        block.add_new(number, "LO", f"value {number}")
    return ds


def _ct(series: int) -> Dataset:
    ds = _common(series)
    ds.SOPClassUID, ds.Modality, ds.Manufacturer = CTImageStorage, "CT", "Tubes"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SliceThickness, ds.KVP, ds.DataCollectionDiameter = "2.5", "120", "500"
    ds.ReconstructionDiameter, ds.GantryDetectorTilt, ds.TableHeight = "250", "0", "150"
    ds.DistanceSourceToDetector, ds.DistanceSourceToPatient = "949", "541"
    ds.RotationDirection, ds.ExposureTime, ds.XRayTubeCurrent = "CW", "1000", "200"
    ds.Exposure, ds.FilterType, ds.GeneratorPower = "200", "BODY FILTER", "24000"
    ds.FocalSpots, ds.ConvolutionKernel, ds.ScanOptions = "1.2", "STANDARD", "HELICAL MODE"
    ds.CTDIvol, ds.SpiralPitchFactor, ds.SingleCollimationWidth = 11.5, 0.98, 0.625
    ds.RevolutionTime, ds.TotalCollimationWidth, ds.TableSpeed = 1.0, 40.0, 39.37
    ds.PixelRepresentation, ds.PixelPaddingValue = 1, -2000
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    for group, name, count in (
        (0x0009, "BENCH IDEN", 6),
        (0x0019, "BENCH ACQU", 24),
        (0x0021, "BENCH RELA", 6),
        (0x0043, "BENCH PARM", 16),
    ):
        block = ds.private_block(group, name, create=True)
        for number in range(count):
            vr, value = (("DS", "1.5"), ("SS", number), ("LO", "text"), ("FL", 0.5))[number % 4]
            block.add_new(number, vr, value)
    return ds


# Competitors: functions of a folder. Imports are inside, so that each competitor's process
# holds what it needs and nothing else.


def _paths(folder: str) -> list[str]:
    return [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]


def dcmdask_scan(folder: str) -> int:
    """The call that users make: a process for each core, duplicates looked for, series made."""
    from dcmdask.archive.scan import scan

    return sum(map(len, scan(folder)))


def dcmdask_one_process(folder: str) -> int:
    """The same facts of every file, one after the other."""
    from dcmdask.archive.descriptions import describe_files

    return len(describe_files(_paths(folder)))


def pydicom_loop(folder: str) -> int:
    """No value is converted, which would take longer."""
    return len([dcmread(path, stop_before_pixels=True) for path in _paths(folder)])


def pydicom_specific_tags(folder: str) -> int:
    """The same with nothing kept but what a series needs."""
    read = functools.partial(dcmread, stop_before_pixels=True, specific_tags=list(TAGS))
    return len(list(map(read, _paths(folder))))


def gdcm_scanner(folder: str) -> int:
    """GDCM's scanner, which is C++, with the same tags."""
    return _gdcm(folder, "Scanner")


def gdcm_strict_scanner(folder: str) -> int:
    """Its sister, which takes no file that breaks rules."""
    return _gdcm(folder, "StrictScanner")


def _gdcm(folder: str, kind: str) -> int:
    import gdcm
    from pydicom.datadict import tag_for_keyword

    listing = gdcm.Directory()
    listing.Load(folder, True)
    scanner = getattr(gdcm, kind)()
    for keyword in TAGS:
        tag = tag_for_keyword(keyword)
        scanner.AddTag(gdcm.Tag(tag >> 16, tag & 0xFFFF))
    assert scanner.Scan(listing.GetFilenames())
    return sum(map(scanner.IsKey, listing.GetFilenames()))


def simpleitk_series(folder: str) -> int:
    """Series IDs of each folder, and the sorted names of each series."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader
    count = 0
    for where, _, names in os.walk(folder):
        for series in reader.GetGDCMSeriesIDs(where) if names else ():
            count += len(reader.GetGDCMSeriesFileNames(where, series))
    return count


# Names to the module that each needs.
COMPETITORS = {
    "dcmdask, one process": "dcmdask",
    "dcmdask.scan": "dcmdask",
    "pydicom": "pydicom",
    "pydicom, specific_tags": "pydicom",
    "GDCM Scanner": "gdcm",
    "GDCM StrictScanner": "gdcm",
    "SimpleITK": "SimpleITK",
}
_FUNCTIONS: Mapping[str, Callable[[str], int]] = dict(
    zip(
        COMPETITORS,
        (
            dcmdask_one_process,
            dcmdask_scan,
            pydicom_loop,
            pydicom_specific_tags,
            gdcm_scanner,
            gdcm_strict_scanner,
            simpleitk_series,
        ),
        strict=True,
    )
)


def time_once(name: str, folder: str) -> tuple[float, int]:
    """Return the seconds that a competitor takes, and how many files it has found."""
    started = time.perf_counter()
    count = _FUNCTIONS[name](folder)
    return time.perf_counter() - started, count


# Measuring


def measure(folder: str, names: Sequence[str], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each competitor in each round."""
    paths = _paths(folder)
    for path in paths:
        Path(path).read_bytes()  # so that all of them are in the page cache
    context = multiprocessing.get_context("spawn")
    workers = {name: ProcessPoolExecutor(1, mp_context=context) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in names}
    try:
        for name in names:
            workers[name].submit(time_once, name, os.path.dirname(paths[0])).result()
        for number in range(repeats):
            for name in names[:: 1 if number % 2 else -1]:
                seconds, count = workers[name].submit(time_once, name, folder).result()
                assert count == len(paths), f"{name} found {count} of {len(paths)} files"
                taken[name].append(seconds)
    finally:
        for worker in workers.values():
            worker.shutdown()
    return taken


def speeds(taken: Mapping[str, Sequence[float]], files: int) -> str:
    """Return how long each took: the median of the rounds, and the whole range."""
    rows = []
    for name, times in taken.items():
        each = [1e6 * seconds / files for seconds in times]
        middle = statistics.median(each)
        spread = f"{middle:.0f} ({min(each):.0f}–{max(each):.0f})"
        rows.append([name, spread, f"{1e6 / middle:.0f}", f"{files * middle / 1e6:.1f}"])
    heads = ["", "microseconds a file", "files a second", f"seconds for {files}"]
    return "Median (fastest–slowest round)\n\n" + table(heads, rows)


def bars(taken: Mapping[str, Sequence[float]]) -> str:
    """Return how many times as fast dcmdask is, and whether that is enough."""
    asked = [
        ("dcmdask, one process", "pydicom", PYDICOM_BAR),
        ("dcmdask, one process", "pydicom, specific_tags", None),
        ("dcmdask, one process", "GDCM Scanner", GDCM_BAR),
        ("dcmdask, one process", "GDCM StrictScanner", None),
        ("dcmdask, one process", "SimpleITK", None),
        ("dcmdask.scan", "dcmdask, one process", None),
    ]
    rows = []
    for fast, slow, bar in asked:
        if slow in taken:
            ratio = statistics.median(s / f for s, f in zip(taken[slow], taken[fast], strict=True))
            reached = "" if bar is None else "yes" if ratio >= bar else "no"
            rows.append([f"{fast} against {slow}", f"{ratio:.2f}", f"{bar or ''}", reached])
    return f"Times as fast; {_cores()} cores\n\n" + table(["", "ratio", "bar", "reached"], rows)


def scaling(folder: str, files: int) -> str:
    """Return how long describing takes by number of processes, their start included."""
    from dcmdask.archive.listing import BATCH
    from dcmdask.archive.processes import describe_in_processes

    paths = _paths(folder)
    batches = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]
    counts = [1]
    while 2 * counts[-1] <= _cores():
        counts.append(2 * counts[-1])
    taken = {}
    for count in counts:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            assert sum(map(len, describe_in_processes(batches, count))) == files
            times.append(time.perf_counter() - started)
        taken[count] = statistics.median(times)
    rows = [[str(n), f"{s:.2f}", f"{taken[1] / s:.2f}"] for n, s in taken.items()]
    return table(["processes", f"seconds for {files}", "times as fast as one"], rows)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(folder: str, files: int) -> str:
    """Return what the process that scans has at most, above what it needs for one file."""
    code = (
        "import resource, sys; from dcmdask.archive.scan import scan; found = scan(sys.argv[1]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def most(source: str) -> float:
        command = [sys.executable, "-c", code, source]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

    one, all_of_them = most(_paths(folder)[0]), most(folder)
    return (
        f"Memory of the process that scans: {all_of_them:.0f} MiB for {files} files, "
        f"{one:.0f} MiB for one; {1024 * (all_of_them - one) / files:.2f} KiB a file"
    )


if __name__ == "__main__":
    main()
