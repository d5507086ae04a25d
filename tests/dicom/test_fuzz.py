"""Damaged at random: only errors of ours, no hang, no crash, no large allocation."""

import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from make_dicom import (
    LOSSLESS,
    NATIVE,
    described,
    encapsulated,
    encoded,
    native,
    noise,
    part10,
    pixel_element,
)
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

import dcmdask

GREY = noise(3, 16, 16)


def with_sequences(frames: np.ndarray) -> Dataset:
    dataset = described(frames)
    items = []
    for i in range(4):
        item = Dataset()
        item.RescaleSlope, item.RescaleIntercept = "1", str(i)
        item.ReferencedSOPSequence = Sequence([Dataset()])
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(items)
    dataset["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    items[0].is_undefined_length_sequence_item = True
    return dataset


def bases() -> dict[str, bytes]:
    """Good files, one for each way through the code."""
    colour = noise(3, 8, 8, 3)
    sequences = part10(
        with_sequences(GREY),
        ExplicitVRLittleEndian,
        pixel_element(GREY.tobytes(), ExplicitVRLittleEndian),
    )
    made = {
        "sequences": sequences,
        **{f"native {UID(s).name}": native(noise(3, 8, 8, dtype="u2"), s) for s in NATIVE},
        "bits": native(noise(3, 5, 7, dtype="?"), BitsAllocated=1, BitsStored=1, HighBit=0),
        "subsampled": native(colour, PhotometricInterpretation="YBR_FULL_422"),
        "words": native(noise(3, 5, 7), NATIVE[2]),
        "baseline": encapsulated(colour, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL"),
        "fragments": encapsulated(GREY, JPEGLSLossless, table="none", fragments=3),
        "extended": encapsulated(GREY, JPEG2000Lossless, table="extended"),
        "lossless colour": encapsulated(colour, JPEGLosslessSV1),
        "rle colour": encapsulated(colour, RLELossless),
    }
    for syntax in LOSSLESS:
        made[UID(syntax).name] = encapsulated(noise(3, 16, 16, dtype="u2"), syntax)
    return made


EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xfe\xff\xff\xff", b"\1\0\0\0"]


def mutation(data: bytes, choose: random.Random) -> bytes:
    """One damaged copy; half of the damage is to the header and the offset tables."""
    pixels = max(data.rfind(b"\xe0\x7f\x10\x00"), data.rfind(b"\x7f\xe0\x00\x10"), 140)
    low, high = (128, pixels + 40) if choose.random() < 0.5 else (pixels, len(data))
    at = choose.randrange(low, min(high, len(data)))
    kind = choose.randrange(7)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + choose.randrange(1, 40) :]
    if kind == 2:
        return data[:at] + data[at - choose.randrange(1, 60) :]
    if kind == 3:
        return data[:at] + choose.choice(EXTREMES) + data[at + 4 :]
    damaged = bytearray(data)
    for _ in range(1 if kind == 4 else choose.randrange(2, 9)):
        damaged[choose.randrange(low, min(high, len(data)))] ^= 1 << choose.randrange(8)
    return bytes(damaged)


def deflated_mutation(data: bytes, choose: random.Random) -> bytes:
    """Damage below the compression, which would otherwise notice every change."""
    start = data.index(b"1.2.840.10008.1.2.1.99") + 22
    (length,) = struct.unpack_from("<L", data, 140)
    start = 144 + length
    inside = zlib.decompress(data[start:].rstrip(b"\0") + b"\0", -zlib.MAX_WBITS)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (
        data[:start] + packer.compress(mutation(bytes(200) + inside, choose)[200:]) + packer.flush()
    )


MUTATIONS = 20
ONLY_LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is limited and measured as on Linux"
)


def decode_all(folder: Path, timeout: int) -> None:
    """Use every file of `folder` in a process of its own that must come to its end."""
    worker = Path(__file__).parents[1] / "fuzz_worker.py"
    root = str(Path(dcmdask.__file__).parents[1])
    ended = subprocess.run(
        [sys.executable, worker, folder],
        # Each arena of the C library reserves addresses, which count against the limit.
        env={**os.environ, "PYTHONPATH": root, "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert told and told[-1] == "done", (
        f"exit code {ended.returncode} after {told[-1:]}: {ended.stderr[-800:]}"
    )
    assert len(told) - 1 == 4 * len(list(folder.glob("*.dcm")))
    bad = [line for line in told[:-1] if line[2]]
    assert not bad, f"{len(bad)} of {len(told)}, such as {bad[:8]}"


@ONLY_LINUX
def test_fuzz(tmp_path: Path) -> None:
    # More of it: DCMDASK_FUZZ_ROUNDS=1000 DCMDASK_FUZZ_SEED=1 pytest tests/dicom/test_fuzz.py
    seed = int(os.environ.get("DCMDASK_FUZZ_SEED", "0"))
    rounds = int(os.environ.get("DCMDASK_FUZZ_ROUNDS", MUTATIONS))
    made = bases()
    for number, (name, data) in enumerate(made.items()):
        (tmp_path / f"{number}.good").write_bytes(data)
        choose = random.Random(f"{seed} {name}")
        mutate: Callable[[bytes, random.Random], bytes] = (
            deflated_mutation if "Deflated" in name else mutation
        )
        for i in range(rounds):
            (tmp_path / f"{number}-{i}.dcm").write_bytes(mutate(data, choose))
    assert len(list(tmp_path.glob("*.dcm"))) == rounds * len(made) >= 300 * rounds // MUTATIONS
    decode_all(tmp_path, timeout=120 + rounds)


@ONLY_LINUX
def test_what_once_ended_a_process(tmp_path: Path) -> None:
    colour = noise(3, 8, 8, 3)
    data = encapsulated(colour, JPEGLosslessSV1)
    # A colour transform that does not exist makes gdcm end the process (std::terminate).
    transform = data.index(b"Adobe") + 11
    for value in (3, 8, 16, 255):
        damaged = data[:transform] + bytes([value]) + data[transform + 1 :]
        (tmp_path / f"adobe-{value}.dcm").write_bytes(damaged)
    for value in (3, 8, 255):
        marker = b"\xff\xee\0\x0eAdobe\0d\0\0\0\0" + bytes([value])
        streams = [encoded(frame, JPEGBaseline8Bit) for frame in colour]
        streams = [stream[:2] + marker + stream[2:] for stream in streams]
        (tmp_path / f"baseline-{value}.dcm").write_bytes(
            encapsulated(colour, JPEGBaseline8Bit, streams=streams)
        )
    # RLE segments that hold too much make pylibjpeg-rle panic, which is no Exception.
    long = [encoded(frame, RLELossless) for frame in noise(1, 64, 64, dtype="u2")]
    (tmp_path / "rle.dcm").write_bytes(
        encapsulated(noise(1, 16, 16, dtype="u2"), RLELossless, streams=long)
    )
    (tmp_path / "0.good").write_bytes(data)
    decode_all(tmp_path, timeout=60)
