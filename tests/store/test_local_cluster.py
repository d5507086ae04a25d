"""Clusters that dcmdask starts: nobody else gets in, nothing is told to strangers."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from distributed import Client
from made_series import archive

from dcmdask.store.scheduler import cluster, run_levels

# What any process of this machine can try at an address: to be let in as a client, without
# and with a certificate of its own.
STRANGER = """
import asyncio, json, sys, warnings
warnings.simplefilter("ignore")
from distributed import Client
from distributed.security import Security

def tried(address, security):
    try:
        with Client(address, security=security, timeout=2) as client:
            return client.submit(lambda: "in").result(timeout=2)
    except (OSError, TypeError, ValueError) as error:
        return type(error).__name__

found = []
for port in json.loads(sys.argv[1]):
    found.append(tried(f"tcp://127.0.0.1:{port}", None))
    found.append(tried(f"tls://127.0.0.1:{port}", Security.temporary()))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with cluster(None, 1, 1) as client:
        assert client is not None
        yield client


def listening() -> set[tuple[str, int]]:
    """Where this process and those that it started listen."""
    own = psutil.Process()
    found = set()
    for process in [own, *own.children(recursive=True)]:
        for one in process.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN:
                found.add((one.laddr.ip, one.laddr.port))
    return found


def test_it_listens_on_the_loopback_address_only(client: Client) -> None:
    addresses = listening()
    assert {ip for ip, _ in addresses} == {"127.0.0.1"}
    assert client.scheduler.address.startswith("tls://127.0.0.1:")
    assert all(one.startswith("tls://127.0.0.1:") for one in client.scheduler_info()["workers"])


@pytest.mark.slow
def test_a_stranger_gets_nowhere(client: Client) -> None:
    scheduler = urlsplit(client.scheduler.address).port
    (worker,) = (urlsplit(one).port for one in client.scheduler_info()["workers"])
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps([scheduler, worker])],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = json.loads(done.stdout)
    assert len(told) == 4 and all("Error" in one for one in told)
    # The cluster is as it was.
    assert client.submit(os.getpid).result() != os.getpid()


def test_no_page_is_served(client: Client) -> None:
    answers = []
    for _, port in listening():
        for path in ("/status", "/info/main/workers.html", "/json/counts.json", "/metrics"):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)
            except urllib.error.HTTPError as error:
                answers.append(error.code)
            except OSError:
                # It speaks TLS.
                continue
            else:
                pytest.fail(f"{path} is served at port {port}")
    # Those of the scheduler and of the worker.
    assert set(answers) == {404}


@pytest.mark.rare
def test_control_c_while_workers_start(tmp_path: Path) -> None:
    archive(tmp_path / "source", 1)
    script = tmp_path / "job.py"
    script.write_text(
        "import os, signal, sys\n"
        "import distributed\n"
        "from dcmdask import batch\n"
        "start = distributed.LocalCluster.__init__\n"
        "def interrupted(self, *args, **more):\n"
        # As a terminal does, once a worker's process is there to hear it.
        "    import threading\n"
        "    threading.Timer(0.7, os.killpg, [0, signal.SIGINT]).start()\n"
        "    start(self, *args, **more)\n"
        "distributed.LocalCluster.__init__ = interrupted\n"
        "def process(series): return {'n': 1}\n"
        "if __name__ == '__main__': batch.main(process)\n"
    )
    command = [sys.executable, script, tmp_path / "source", tmp_path / "out", "--workers", "2"]
    done = subprocess.run(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        check=False,
        # Whoever runs the tests may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 130
    # On a busy machine Dask says that it had to kill a worker.
    *others, last = done.stderr.splitlines()
    assert last == "interrupted; the same command goes on with the rest"
    assert [line for line in others if "still alive" not in line] == []


def test_the_error_of_a_task_outlives_its_worker(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the others are waited for, a worker may have just died."""

    def lost(*_: object, on_error: str = "raise") -> dict[str, int]:
        if on_error == "raise":
            raise OSError("a worker has died")
        return {}

    monkeypatch.setattr(client, "run", lost)
    with pytest.raises(ZeroDivisionError):
        run_levels(lambda job, number, level: 1 // number, [(None, {0: [0, 1, 2]})], None)
