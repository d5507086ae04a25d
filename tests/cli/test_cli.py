"""The command: what it prints where, its exit codes, and that it leaves nothing behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import commands
import dask.array as da
import numpy as np
import pytest
import zarr
from make_dicom import encapsulated, encoded, native, noise, saved
from pydicom.uid import JPEG2000Lossless
from real_files import packaged_file

import dcmdask

CINE = str(packaged_file("examples_ybr_color.dcm"))
# Where a test puts a path of its own.
STORE = "STORE"
# Frames that take their time, so that something can happen meanwhile.
SLOW = """
import sys, time
from dcmdask.cli import main
from dcmdask.console import progress
from dcmdask.pixels.frame_array import FrameArray
getitem = FrameArray.__getitem__
def slow(self, key):
    time.sleep(0.1)
    return getitem(self, key)
FrameArray.__getitem__ = slow
progress.PATIENCE = 0.3
sys.argv[0] = "dcmdask"
main()
"""


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    done = commands.run(*arguments)
    assert "Traceback" not in done.stderr
    return done


def refused(*arguments: Any) -> str:
    """The one line that a refusal consists of."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("dcmdask: ")
    return line


def test_info() -> None:
    done = run("info", CINE)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["what"] == (
        "Ultrasound Multi-frame Image Storage, US, ultrasound loop of 30 frames, 1 region"
    )
    assert lines["array"] == "(30, 240, 320, 3) uint8"
    assert lines["pixels"] == "RGB from YBR_FULL_422, 8 bits stored"
    assert lines["syntax"] == "JPEG Baseline (Process 1) (1.2.840.10008.1.2.4.50)"
    assert lines["index"]
    assert lines["decoder"].startswith("imagecodecs")
    assert lines["size"] == "6.59 MiB decoded, 219.63 kiB in the file (30.7 : 1)"
    assert lines["chunks"].endswith("each")
    assert "note" not in lines


def test_info_as_json() -> None:
    done = run("info", "--json", "--raw", CINE)
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["shape"] == [30, 240, 320, 3]
    assert facts["photometric_interpretation"] == "YBR_FULL"
    assert facts["bytes_file"] == Path(CINE).stat().st_size
    assert facts["decoders"][0] == "imagecodecs"
    assert facts["notes"] == []


@pytest.mark.slow
def test_info_tells_nothing_personal_and_decodes_nothing(tmp_path: Path) -> None:
    frames = noise(2)
    streams = [b"\xff\xd8 not a codestream", b"neither"]
    data = encapsulated(frames, JPEG2000Lossless, streams=streams, PatientID="CANARY")
    for form in ((), ("--json",)):
        done = run("info", saved(tmp_path, data), *form)
        assert done.returncode == 0
        assert "CANARY" not in done.stdout + done.stderr
        assert "Made" not in done.stdout + done.stderr


@pytest.mark.slow
def test_notes(tmp_path: Path) -> None:
    odd = saved(tmp_path, native(noise(1), NumberOfFrames=0))
    done = run("info", odd)
    assert (done.returncode, done.stderr) == (0, "")
    assert "note     (0028,0008) 'Number of Frames'" in done.stdout
    done = run("export", odd, tmp_path / "a.zarr")
    assert done.returncode == 0
    assert done.stderr.startswith("dcmdask: note: ")
    assert "'Number of Frames'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_export(tmp_path: Path) -> None:
    store = tmp_path / "cine.zarr"
    done = run("export", CINE, store, "--chunks", 7)
    # No progress where nobody watches.
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third, fourth = done.stdout.splitlines()
    assert first == str(store)
    assert second == "  (30, 240, 320, 3) uint8, chunks (7, 240, 320, 3)"
    assert third.startswith("  6.59 MiB decoded, ")
    assert fourth.endswith("/s")
    array = zarr.open_group(store, mode="r")["pixels"]
    np.testing.assert_array_equal(array[:], dcmdask.pixel_array(CINE))

    assert "exists" in refused("export", CINE, store)
    done = run("export", CINE, store, "--overwrite", "--json", "--compressor", "none")
    report = json.loads(done.stdout)
    assert (done.returncode, report["store"]) == (0, str(store))
    assert report["bytes_stored"] > report["bytes_decoded"]


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["zstd", "gzip"])
def test_compressors(tmp_path: Path, compressor: str) -> None:
    store = tmp_path / "a.zarr"
    assert run("export", CINE, store, "--compressor", compressor).returncode == 0
    array = zarr.open_group(store, mode="r")["pixels"]
    (used,) = array.compressors
    assert used.to_dict()["name"] == compressor
    assert array[:].any()


@pytest.mark.slow
@pytest.mark.parametrize("command", [("info",), ("export", STORE)])
def test_refusals(tmp_path: Path, command: tuple[str, ...]) -> None:
    name, *store = command
    target = [tmp_path / "a.zarr"] if store else []
    text = tmp_path / "text.txt"
    text.write_text("not DICOM " * 100)
    assert f"{text}: not a DICOM file" in refused(name, text, *target)
    assert "no DICOM images" in refused(name, tmp_path, *target)
    missing = tmp_path / "missing.dcm"
    assert refused(name, missing, *target) == f"dcmdask: {missing}: No such file or directory"
    assert "number_of_frames" in refused(name, truncated(tmp_path), *target)
    assert not (tmp_path / "a.zarr").exists()


def truncated(folder: Path) -> Path:
    return saved(folder, native(noise(4))[:-60], "truncated.dcm")


@pytest.mark.slow
def test_what_the_messages_offer(tmp_path: Path) -> None:
    done = run("info", truncated(tmp_path), "--number-of-frames", 2, "--json")
    assert json.loads(done.stdout)["shape"] == [2, 6, 8]
    bare = saved(tmp_path, native(noise(), preamble=False, meta=False), "bare.dcm")
    # It is guessed, and that is said.
    assert "transfer_syntax_uid" in run("info", bare).stdout
    done = run("info", bare, "--transfer-syntax-uid", "1.2.840.10008.1.2.1", "--json")
    assert json.loads(done.stdout)["shape"] == [3, 6, 8]


@pytest.mark.slow
def test_targets_that_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path, native(noise()))
    before = sorted(os.listdir(tmp_path))
    assert f"{source} is the source" in refused("export", source, source)
    assert "is a file" in refused("export", source, source / "a.zarr")
    assert f"holds the source {source}" in refused("export", source, tmp_path, "--overwrite")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_frame_that_does_not_decode(tmp_path: Path) -> None:
    frames = noise(3, 32, 32)
    streams = [encoded(frame, JPEG2000Lossless) for frame in frames]
    streams[1] = streams[1][: len(streams[1]) // 2]
    source = saved(tmp_path, encapsulated(frames, JPEG2000Lossless, streams=streams))
    store = tmp_path / "old.zarr"
    dcmdask.write_array(da.arange(3), store)
    done = run("export", source, store, "--overwrite")
    assert done.returncode == 2
    # The codecs have their own say on stderr; ours is the last word.
    assert done.stderr.splitlines()[-1].startswith(f"dcmdask: {source}, frame 1: ")
    assert zarr.open_group(store, mode="r")["pixels"][:].tolist() == [0, 1, 2]
    assert sorted(os.listdir(tmp_path)) == ["made.dcm", "old.zarr"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("export", CINE),
        ("export", CINE, STORE, "--chunks", "0"),
        ("export", CINE, STORE, "--compressor", "bogus"),
        ("info", CINE, "--bogus"),
    ],
)
def test_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*(tmp_path / "a.zarr" if word is STORE else word for word in arguments))
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert os.listdir(tmp_path) == []


def test_help() -> None:
    assert run("--version").stdout == f"dcmdask {dcmdask.__version__}\n"
    done = run("--help")
    assert done.returncode == 0
    assert "info" in done.stdout
    assert "export" in done.stdout
    for command in ("info", "scan", "export", "verify", "run", "report"):
        text = run(command, "--help").stdout
        assert f"dcmdask {command} " in text.partition("Examples:")[2]


def test_help_is_quick() -> None:
    """What takes long to import is not imported for a look at the help."""
    code = "import sys, dcmdask.cli; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"dask", "numpy", "pydicom", "zarr", "xarray"}


@pytest.mark.slow
def test_a_broken_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dcmdask", "info", CINE]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, "export", CINE, str(tmp_path / "a.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("a.zarr/pixels/c/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert "not finished (resume goes on with it)" in refused("export", CINE, tmp_path / "a.zarr")
    assert run("export", CINE, tmp_path / "a.zarr", "--resume").returncode == 0
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["pixels"]
    np.testing.assert_array_equal(array[:], dcmdask.pixel_array(CINE))


@pytest.mark.slow
def test_progress_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SLOW, "export", CINE, str(tmp_path / "a.zarr")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                # A terminal whose other end is closed ends with an error on Linux.
                shown += (data := os.read(ours, 4096))
            except OSError:
                break
            if not data:
                break
        out, _ = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 0
    assert b"regions" in shown
    assert b"15 of 15 regions" in shown
    assert out.startswith(str(tmp_path / "a.zarr").encode())


def test_sigterm_discards_what_was_to_replace_a_store(tmp_path: Path) -> None:
    dcmdask.to_zarr(CINE, tmp_path / "o.zarr", chunks=15)
    command = [sys.executable, "-c", SLOW, "export", CINE, str(tmp_path / "o.zarr"), "--overwrite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".o.zarr.partial-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert os.listdir(tmp_path) == ["o.zarr"]
    array = zarr.open_group(tmp_path / "o.zarr", mode="r")["pixels"]
    assert array.chunks[0] == 15


@pytest.mark.slow
def test_names_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "ünï.dcm"
    path.write_bytes(native(noise(2, 5, 6)))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "dcmdask", "info", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_closed_standard_error(tmp_path: Path) -> None:
    script = f'"{sys.executable}" -m dcmdask export "{CINE}" "{tmp_path / "o.zarr"}" 2>&-'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stdout
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m dcmdask info nothing.dcm 2>&-'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
def test_a_name_with_two_colons_is_a_path(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dcmdask", "export", CINE, "a::b"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(dcmdask.__file__).parents[1])},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a::b"]


@pytest.mark.slow
def test_pydicoms_warnings_are_not_shown(tmp_path: Path) -> None:
    path = saved(tmp_path, native(noise(2, 5, 6), SpecificCharacterSet="CANARY", PatientID="x"))
    done = run("export", path, tmp_path / "o.zarr")
    assert done.returncode == 0
    assert "CANARY" not in done.stdout + done.stderr
