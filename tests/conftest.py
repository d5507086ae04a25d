"""Fixtures and reports that every test module shares."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from distributed import Client, LocalCluster
from make_dicom import encapsulated, encoded, noise, saved
from pydicom.uid import JPEG2000Lossless
from real_files import CORPUS_MINIMUM, corpus_files, corpus_id, corpus_root
from servers import orthanc

# A machine with other work to do is no reason for a property test to fail. The same examples
# are drawn each time, but in scripts/test-newest, which prints how to draw those that fail again.
hypothesis.settings.register_profile("dcmdask", deadline=None, derandomize=True)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("DCMDASK_EXAMPLES", "dcmdask"))

_COMPARED = "corpus file compared"


def pytest_configure(config: pytest.Config) -> None:
    root = corpus_root()
    if root is not None and len(corpus_files()) < CORPUS_MINIMUM:
        raise pytest.UsageError(
            f"the corpus {root} holds {len(corpus_files())} DICOM files, at least "
            f"{CORPUS_MINIMUM} were expected: is DCMDASK_CORPUS right?"
        )


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of the corpus; the test is skipped where there is none."""
    root = corpus_root()
    if root is None:
        pytest.skip("no corpus of real files: set DCMDASK_CORPUS")
    return root


@pytest.fixture
def compared(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Call it with a corpus file when its comparison has been made.

    The files are counted at the end of the run, so that a test which quietly
    compares fewer of them shows.
    """

    def record(path: Path) -> None:
        # Properties of a test travel with its report, also from worker processes.
        request.node.user_properties.append((_COMPARED, corpus_id(path)))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    files = corpus_files()
    if not files:
        terminalreporter.write_line("corpus: none here, so no real file of it was compared")
        return
    seen = {
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in getattr(report, "user_properties", [])
        if name == _COMPARED
    }
    terminalreporter.write_line(f"corpus: {len(seen)} of {len(files)} files compared")


@pytest.fixture
def corrupt(tmp_path: Path) -> Path:
    """Four JPEG 2000 frames, of which the third ends early."""
    frames = noise(4, 32, 32)
    streams = [encoded(frame, JPEG2000Lossless) for frame in frames]
    streams[2] = streams[2][: len(streams[2]) // 2]
    return saved(tmp_path, encapsulated(frames, JPEG2000Lossless, streams=streams))


@pytest.fixture(scope="session")
def dicomweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc.Orthanc]:
    """A DICOMweb server without files; the test is skipped where there is none."""
    if orthanc.missing():
        pytest.skip(orthanc.missing())
    with orthanc.serving(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes of one thread each, with little memory."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit="400 MiB",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
