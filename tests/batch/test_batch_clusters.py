"""Batch jobs where it is rough: clusters of separate processes, with TLS and without, two
drivers on one target, an archive with broken input of every kind."""

import csv
import ipaddress
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import batch_jobs
import fsspec
import numpy as np
import pydicom
import pytest
import zarr
from batch_jobs import processed
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Client
from distributed.protocol import pickle
from made_series import SERIES, archive
from make_dicom import encapsulated, encoded, noise
from pydicom.uid import JPEGLSLossless, RLELossless
from real_files import ROOT, packaged_file
from s3_here import BUCKET, serving

import dcmdask
from dcmdask import batch
from dcmdask.batch import staging as outputs_of_series
from dcmdask.batch.records import Record, records
from dcmdask.batch.staging import Staging, settled
from dcmdask.sources.folder import Folder

# Workers of other processes know nothing of this folder.
pickle.cloudpickle.register_pickle_by_value(batch_jobs)

# Seconds for what takes a moment on a machine that has nothing else to do.
PATIENCE = 120

JOB = f"""
import sys
from dcmdask import batch

def process(series, log: str = "", job: str = "good"):
    sys.path.insert(0, {str(Path(__file__).parents[1])!r})
    import batch_jobs
    return getattr(batch_jobs, job)(series, log)

if __name__ == "__main__":
    batch.main(process)
"""


# Processes


@contextmanager
def started(*command: Any, log: Path | None = None, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process; in the end it and all that it has started are gone."""
    with ExitStack() as stack:
        out = subprocess.PIPE if log is None else stack.enter_context(log.open("w"))
        process = stack.enter_context(
            subprocess.Popen(
                [str(part) for part in command],
                stdout=out,
                stderr=out,
                text=True,
                env={**os.environ, **env},
                start_new_session=True,
            )
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run_job(*arguments: Any, **env: str) -> tuple[int, str, str]:
    """Return the exit code, output and errors of `dcmdask run`."""
    with started(sys.executable, "-m", "dcmdask", "run", *arguments, **env) as process:
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err


def waited_for(what: Callable[[], Any]) -> Any:
    """Return what a function returns, once that is something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@contextmanager
def scheduler(folder: Path, *options: Any) -> Iterator[str]:
    """Start a scheduler, and give its address."""
    told = folder / "scheduler.json"

    def address() -> str:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(told.read_text())["address"])
        return ""

    command = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *options]
    command += ["--scheduler-file", told]
    with started(sys.executable, "-m", "dask", *command, log=folder / "scheduler.log"):
        yield waited_for(address)


@contextmanager
def workers(folder: Path, address: str, count: int, *options: Any) -> Iterator[None]:
    """Start workers of one thread each."""
    command = ["worker", address, "--host", "127.0.0.1", "--nworkers", count, "--nthreads", 1]
    command += ["--no-dashboard", "--local-directory", folder, *options]
    with started(sys.executable, "-m", "dask", *command, log=folder / "workers.log"):
        yield


# Archives


@pytest.fixture(scope="module")
def dozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dozen")
    archive(folder, 12)
    return folder


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(JOB)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def rows(target: Path) -> dict[int, dict[str, str]]:
    with (target / "results.csv").open(newline="") as lines:
        return {int(row["series"].rpartition(".")[2]): row for row in csv.DictReader(lines)}


def check(target: Path, expected: Mapping[int, np.ndarray]) -> None:
    """Check the numbers and arrays of all series that are done."""
    found = rows(target)
    assert found.keys() == expected.keys()
    for number, frames in expected.items():
        assert int(found[number]["peak"]) == frames.max()
        assert int(found[number]["sum"]) == frames.sum()
        store = target / f"series/{SERIES}.{number}/mip.zarr"
        np.testing.assert_array_equal(zarr.open_array(store, path="pixels")[...], frames.max(0))


# Clusters of separate processes


def certificates(folder: Path) -> dict[str, str]:
    """Make an authority and a certificate of it, and return files by the names of Dask."""
    folder.mkdir()
    names = {who: f"{who} of {folder.name}" for who in ("authority", "member")}
    keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in names}
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    files = {"ca-file": folder / "ca.pem", "cert": folder / "cert.pem", "key": folder / "key.pem"}
    for who, file in zip(names, ("ca-file", "cert"), strict=True):
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[one])])
            for one in (who, "authority")
        )
        constraints = x509.BasicConstraints(ca=who == "authority", path_length=None)
        certificate = (
            x509.CertificateBuilder(issuer, subject, keys[who].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectAlternativeName([here]), critical=False)
            .sign(keys["authority"], hashes.SHA256())
        )
        files[file].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files["key"].write_bytes(
        keys["member"].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return {name: str(path) for name, path in files.items()}


def options_of(files: Mapping[str, str]) -> list[str]:
    """What scheduler and workers are given."""
    return [part for name, path in files.items() for part in (f"--tls-{name}", path)]


def environment_of(files: Mapping[str, str]) -> dict[str, str]:
    """What a client is given: Dask's configuration."""
    keys = {"ca-file": "CA_FILE", "cert": "CLIENT__CERT", "key": "CLIENT__KEY"}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{keys[name]}": path for name, path in files.items()}


@pytest.mark.rare
def test_a_cluster_with_tls(dozen: Path, script: Path, tmp_path: Path, log: Path) -> None:
    files = certificates(tmp_path / "certificates")
    target = tmp_path / "out"
    with (
        scheduler(tmp_path, *options_of(files)) as address,
        workers(tmp_path, address, 2, *options_of(files)),
    ):
        assert address.startswith("tls://")
        code, out, err = run_job(
            script, dozen, target, "--log", log, "--scheduler", address, **environment_of(files)
        )
    assert code == 0, err
    assert "12 of 12 series done; 12 processed now" in out
    assert processed(log) == Counter(range(12))
    check(target, archive(tmp_path / "again", 12))


@pytest.mark.rare
def test_a_timeout_needs_a_nanny(dozen: Path, script: Path, tmp_path: Path, log: Path) -> None:
    target = tmp_path / "out"
    command = [script, dozen, target, "--log", log, "--timeout", "60"]
    with scheduler(tmp_path) as address:
        assert address.startswith("tcp://")
        command += ["--scheduler", address]
        with workers(tmp_path, address, 1, "--no-nanny"):
            code, _, err = run_job(*command)
        assert code == 2
        assert "a timeout needs workers with a nanny" in err
        assert "Traceback" not in err and err.count("\n") == 1
        assert not processed(log) and not list(target.glob("records/*"))
        with Client(address) as client:
            waited_for(
                lambda: client.run_on_scheduler(lambda dask_scheduler: not dask_scheduler.workers)
            )
        with workers(tmp_path, address, 1):
            code, out, err = run_job(*command)
    assert code == 0, err
    assert "12 of 12 series done; 12 processed now" in out
    assert processed(log) == Counter(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("known", ["nothing", "another-authority"])
def test_a_client_that_is_not_let_in(
    known: str, dozen: Path, script: Path, tmp_path: Path, log: Path
) -> None:
    files = certificates(tmp_path / "certificates")
    env = environment_of(certificates(tmp_path / "other")) if known != "nothing" else {}
    with scheduler(tmp_path, *options_of(files)) as address:
        code, _, err = run_job(
            script, dozen, tmp_path / "out", "--log", log, "--scheduler", address, **env
        )
    assert code == 2
    assert "TLS" in err and "Traceback" not in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# Two drivers


@pytest.fixture(scope="module")
def calm(client: Client, dozen: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one driver makes of it."""
    target = tmp_path_factory.mktemp("calm")
    report = batch.run(batch_jobs.good, dozen, target, client=client, options={"log": os.devnull})
    assert report.ok and report.processed == 12
    return outputs(files_of(target))


def files_of(target: Path) -> dict[str, bytes]:
    found = (path for path in target.rglob("*") if path.is_file())
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in found}


def is_record(name: str) -> bool:
    return name.startswith("records/") and name.endswith(".json")


def outputs(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Everything but what says when, how often and by whom."""
    found = {
        name: data
        for name, data in files.items()
        if not is_record(name) and not name.endswith(".files")
    }
    del found["results.parquet"]
    return {**found, "results.csv": batch_jobs.without_job(found["results.csv"])}


def check_records(files: Mapping[str, bytes]) -> None:
    records = [json.loads(data) for name, data in files.items() if is_record(name)]
    assert len(records) == 12 and all(one["done"] for one in records)


def two_drivers(script: Path, source: Path, target: Any, log: Path, **env: str) -> None:
    """Run a job twice at once; it waits until both are at it."""
    Path(f"{log}.drivers").mkdir()
    command = [sys.executable, "-m", "dcmdask", "run", script, source, target, "--log", log]
    command += ["--job", "met", "--workers", "1", "--threads-per-worker", "1"]
    with started(*command, DRIVER="a", **env) as a, started(*command, DRIVER="b", **env) as b:
        # One that fails leaves the other waiting.
        waited_for(lambda: a.poll() or b.poll() or a.poll() == b.poll() == 0)
        for ended in [one for one in (a, b) if one.poll() is not None]:
            out, err = ended.communicate()
            assert ended.returncode == 0, f"{out}\n{err}"
            assert "12 of 12 series done" in out


@pytest.mark.rare
def test_two_drivers(
    calm: dict[str, bytes], dozen: Path, script: Path, tmp_path: Path, log: Path
) -> None:
    two_drivers(script, dozen, tmp_path / "out", log)
    files = files_of(tmp_path / "out")
    assert outputs(files) == calm
    check_records(files)
    assert processed(log) == Counter(range(12))


# Steps of two drivers are told one by one above and below; this one takes most of a minute.
@pytest.mark.rare
def test_two_drivers_on_an_object_store(
    calm: dict[str, bytes], dozen: Path, script: Path, log: Path
) -> None:
    with serving() as server:
        two_drivers(script, dozen, f"s3://{BUCKET}/out", log, **server.env)
        objects = server.objects("out/")
    assert outputs(objects) == calm
    check_records(objects)
    # Both may do a series, and neither does one twice.
    counts = processed(log)
    assert counts.keys() == set(range(12)) and set(counts.values()) <= {1, 2}


@pytest.mark.parametrize("at", ["begin", "end"])
def test_another_driver_is_through_first(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts its outputs in place and removes what is staged while this one writes the same."""
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        # Of this server alone.
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        monkeypatch.setattr(Folder, "_open", lambda _: (fs, f"{BUCKET}/first/{at}"))
        folder = Folder(f"s3://{BUCKET}/first/{at}")
        names = {name: f"series/1.2/{name}" for name in ("a.png", "b.png")}
        record = Record(
            "1.2", True, "job", "files", outputs=names, made_by="job", made_from="files"
        )

        def written() -> Staging:
            staging = Staging(folder, "1.2", "job files")
            staging.clear()
            staging.write("a.png", b"a")
            staging.write("b.png", b"b")
            return staging

        mine, other = written(), written()
        if at == "begin":
            other.put_in_place(record, None)
            fs.pipe_file(f"{BUCKET}/first/{at}/{mine.aside}/a.png", b"a")
        else:
            # Between the listing of what is staged and the look whether it is still wanted.
            files = Folder.files

            def late(of: Folder, below: str) -> set[str]:
                found = files(of, below)
                monkeypatch.setattr(Folder, "files", files)
                other.put_in_place(record, None)
                return found

            monkeypatch.setattr(Folder, "files", late)
        mine.put_in_place(record, None)
        assert server.objects(f"first/{at}/series/1.2/") == {"a.png": b"a", "b.png": b"b"}


@pytest.mark.rare
def test_two_workers_put_one_series_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other is through just before the n-th thing that this one does."""
    calls = {name: getattr(Folder, name) for name in ("files", "read", "remove", "move", "write")}
    with serving() as server:
        # Each keeps listings of its own.
        mine, others = (
            fsspec.filesystem("s3", skip_instance_cache=True, **server.options) for _ in range(2)
        )

        def through_at(number: int) -> int:
            folder = Folder(f"s3://{BUCKET}/both/{number}")
            monkeypatch.setattr(Folder, "_open", lambda _: (mine, f"{BUCKET}/both/{number}"))
            pending: list[Record] = []
            done: Record | None = None
            for version, chunks in (("v1", ["0"]), ("v2", ["0", "1"])):
                staging = Staging(folder, "1.2", f"{version} files")
                staging.path("a.zarr")
                for key in ("zarr.json", "pixels/zarr.json", *(f"pixels/c/{n}" for n in chunks)):
                    folder.write(f"{staging.aside}/a.zarr/{key}", version.encode())
                made = {"made_by": version, "made_from": "files"}
                outputs = {"a": "series/1.2/a.zarr"}
                record = Record("1.2", True, version, "files", outputs=outputs, **made)
                with monkeypatch.context() as patched:
                    if version == "v2":
                        # It ends where the record says that the rest is pending.
                        patched.setattr(
                            outputs_of_series, "settled", lambda _, one: pending.append(one) or one
                        )
                    done = staging.put_in_place(record, done)
            counted = itertools.count()
            with monkeypatch.context() as patched:

                def watched(call: Callable[..., Any]) -> Callable[..., Any]:
                    def told(*given: Any) -> Any:
                        if next(counted) == number:
                            patched.undo()
                            with monkeypatch.context() as other:
                                theirs = (others, f"{BUCKET}/both/{number}")
                                other.setattr(Folder, "_open", lambda _: theirs)
                                settled(folder, pending[0])
                        return call(*given)

                    return told

                for name, call in calls.items():
                    patched.setattr(Folder, name, watched(call))
                assert not settled(folder, pending[0]).pending
            assert not records(folder)["1.2"].pending
            expected = {"zarr.json", "pixels/zarr.json", "pixels/c/0", "pixels/c/1"}
            assert server.objects(f"both/{number}/series/1.2/") == {
                f"a.zarr/{key}": b"v2" for key in expected
            }, number
            return next(counted)

        number = 0
        while through_at(number) > number:
            number += 1
        assert number > 10


# Broken input


class Damage(NamedTuple):
    """What becomes of the four files of a series.

    Attributes
    ----------
    what : str
    done : callable
        Takes the files, by position, and damages them.
    left_out : sequence of int
        Which of them the scan leaves out.
    stage : str or None
        Where the series fails; empty if it does not, None where nothing is left of it.
    """

    what: str
    done: Callable[[list[Path]], object]
    left_out: Sequence[int] = ()
    stage: str | None = ""


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def changed(path: Path, like: Path, keyword: str) -> None:
    """Let a file have a value of another one."""
    dataset = pydicom.dcmread(path)
    dataset[keyword].value = pydicom.dcmread(like)[keyword].value
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)


def of_unknown_syntax(path: Path) -> None:
    known, unknown = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"
    data = path.read_bytes()
    assert data.count(known) == 1
    path.write_bytes(data.replace(known, unknown))


def with_a_damaged_scan(path: Path) -> None:
    """Encode the frame, and overwrite the header of its scan."""
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array[np.newaxis]
    stream = encoded(frames[0], JPEGLSLossless)
    behind = stream.index(b"\xff\xda") + 2
    stream = stream[:behind] + bytes(8) + stream[behind + 8 :]
    elements = {one.keyword: one.value for one in dataset if one.keyword != "PixelData"}
    path.write_bytes(encapsulated(frames, JPEGLSLossless, streams=[stream], **elements))


def with_a_damaged_frame(files: list[Path]) -> None:
    """Put four encoded frames in place of the files; the third has zeros for its pixels."""
    uid = pydicom.dcmread(files[0]).SeriesInstanceUID
    frames = noise(4, 8, 8)
    streams = [encoded(frame, RLELossless) for frame in frames]
    streams[2] = streams[2][:64] + bytes(len(streams[2]) - 64)
    elements = {"SeriesInstanceUID": uid, "SOPInstanceUID": f"{uid}.1"}
    files[0].write_bytes(encapsulated(frames, RLELossless, streams=streams, **elements))
    for path in files[1:]:
        path.unlink()


def linked_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone"))


DAMAGES = [
    # The last frame is lost, which positions do not tell.
    Damage("a header that is cut", lambda files: cut(files[3], 400), [3]),
    Damage("pixel data that are cut", lambda files: cut(files[1], -30), [1], "assemble"),
    # No DICOM, so that only the gap tells.
    Damage("an empty file", lambda files: cut(files[1], 0), stage="assemble"),
    Damage("zeros", lambda files: files[1].write_bytes(bytes(900)), stage="assemble"),
    Damage("a text", lambda files: files[0].with_name("notes.dcm").write_text("Seen. " * 99)),
    Damage("no such syntax", lambda files: [*map(of_unknown_syntax, files)], [0, 1, 2, 3], None),
    Damage("a damaged JPEG frame", lambda files: with_a_damaged_scan(files[1]), stage="decode"),
    Damage("a damaged RLE frame", with_a_damaged_frame, stage="decode"),
    Damage("a lost frame", lambda files: files[1].unlink(), stage="assemble"),
    Damage(
        "a position twice",
        lambda files: changed(files[2], files[1], "ImagePositionPatient"),
        stage="assemble",
    ),
    Damage(
        "an instance twice",
        lambda files: changed(files[2], files[1], "SOPInstanceUID"),
        stage="assemble",
    ),
    Damage("a link to nowhere", lambda files: linked_to_nowhere(files[3]), [3]),
    Damage("a file that is denied", lambda files: files[1].chmod(0), [1], "assemble"),
]
# Ways to go wrong of a job that are not to blame on its input, and the stage of each. Series are
# processed in this order, by their UIDs; one waits for the first one to be given up, so that more
# are left then.
WAYS = {
    0: ("hang", "timeout"),
    1: ("end", "poison"),
    10: ("hoard", "poison"),
    11: ("raise", "process"),
    12: ("leave", "process"),
    13: ("wait", ""),
}


@pytest.mark.rare
def test_broken_input_of_every_kind(client: Client, tmp_path: Path, log: Path) -> None:
    root, target, ways = tmp_path / "archive", tmp_path / "out", tmp_path / "ways"
    good = archive(root, 40, frames=4)
    unusable: dict[int | str, str] = {}
    noted = {}
    damages = dict(zip(range(14, 40, 2), DAMAGES, strict=True))
    for number, damage in damages.items():
        files = sorted((root / f"{number:03}").iterdir())
        damage.done(files)
        if damage.what == "a file that is denied" and os.access(files[1], os.R_OK):
            # Nothing is denied to root.
            continue
        left_out = [f"{number:03}/{files[place].name}" for place in damage.left_out]
        unusable |= dict.fromkeys(left_out, "scan")
        if damage.stage:
            unusable[number] = damage.stage
        elif damage.stage == "" and left_out:
            noted[number] = left_out[0]
            good[number] = np.delete(good[number], damage.left_out, axis=0)
        if damage.stage != "":
            del good[number]
    misled = {number: stage for number, (_, stage) in WAYS.items() if stage}
    told = {str(number): way for number, (way, _) in WAYS.items()}
    given_up = target / f"records/{SERIES}.0.json"
    ways.write_text(json.dumps({**told, "until": str(given_up)}))
    failed = {number for number in {**unusable, **misled} if isinstance(number, int)}
    present = good.keys() | failed

    def run(**more: Any) -> batch.BatchReport:
        options = {"log": str(log), "ways": str(ways)}
        return batch.run(
            batch_jobs.spoiled, root, target, client=client, options=options, retries=0, **more
        )

    report = run(timeout=12)
    assert stages(report.failures) == {**unusable, **misled}
    assert report.processed == len(present) and processed(log) == Counter(present)
    check(target, {number: good[number] for number in good.keys() - misled.keys()})
    records = {number_of(one): one for one in report.records if one.stage != "scan"}
    assert records.keys() == present
    assert {n for n, one in records.items() if one.done and one.notes} == noted.keys()
    for number, name in noted.items():
        assert f"{name}: " in records[number].notes[0].text
    by_kind = {damage.what: records[n] for n, damage in damages.items() if n in records}
    jpeg, rle = by_kind["a damaged JPEG frame"], by_kind["a damaged RLE frame"]
    assert jpeg.file.endswith("/0001") and (rle.file[-5:], rle.frame) == ("/0000", 2)
    # What is no DICOM is named by the scan.
    others = {one.path for one in dcmdask.scan(root).skipped if one.kind == "not DICOM"}
    assert {Path(path).name for path in others} == {"0001", "notes.dcm"}

    # The job has been mended, and what is left is the input.
    ways.write_text("{}")
    log.write_text("")
    again = run(only_failed=True)
    assert stages(again.failures) == unusable
    assert again.processed == len(failed) and processed(log) == Counter(failed)
    check(target, good)


def number_of(record: Record) -> int:
    return int(record.name.rpartition(".")[2])


def stages(failures: Sequence[Record]) -> dict[int | str, str]:
    """Stage of each failure, by the number of its series or the name of its file."""
    found = {one.file if one.stage == "scan" else number_of(one): one.stage for one in failures}
    # Each is told of once.
    assert len(found) == len(failures)
    return found


# Both commands


# Not slow, so that it runs with the wheel that was built as well.
def test_both_commands_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ROOT / "pipelines" / "projections.py"
    source = packaged_file("DICOMDIR-nopatient").parent / "98892001/CT5N"
    files = [pydicom.dcmread(path) for path in source.iterdir()]
    frames = np.stack([one.pixel_array * one.RescaleSlope + one.RescaleIntercept for one in files])
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    where = [sys.executable, "-c", "import dcmdask; print(dcmdask.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True).stdout
    assert found.strip() == dcmdask.__file__
    command = shutil.which("dcmdask", path=str(Path(sys.executable).parent))
    assert command
    for name, start in {"run": [command, "run"], "python": [sys.executable]}.items():
        target = tmp_path / name
        with started(*start, script, source, target, "--workers", "1") as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert "1 of 1 series done; 1 processed now" in out
        (store,) = target.glob("series/*/max-z-0.zarr")
        projection = zarr.open_array(store, path="pixels")[...]
        np.testing.assert_array_equal(projection, frames.max(0))
    assert not list((tmp_path / "empty").iterdir())
