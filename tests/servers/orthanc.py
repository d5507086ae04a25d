"""Orthanc with its DICOMweb plugin, over files that are put into it."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PLUGINS = Path("/usr/share/orthanc/plugins")
_NEEDED = ("libOrthancDicomWeb.so", "libOrthancGdcm.so")
# Orthanc 1.10 has no setting for the address that it listens on, and takes all: this has it take
# that of this machine alone.
_LOOPBACK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

int bind(int socket, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_in own;
    if (address->sa_family == AF_INET) {
        own = *(const struct sockaddr_in *)address;
        own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address = (const struct sockaddr *)&own;
    }
    return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind"))(
        socket, address, length);
}
"""
# Seconds that a server may take to start; it takes less than one.
_PATIENCE = 30


class Orthanc:
    """A running server.

    Attributes
    ----------
    url : str
        Base URL of its DICOMweb service, as dcmdask takes it.
    port : int
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"dicomweb+http://127.0.0.1:{port}/dicom-web"

    def put(self, files: Iterable[bytes | Path]) -> list[str]:
        """Store files, and return why the server takes some of them not: their numbers."""
        refused = []
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        for number, one in enumerate(files):
            data = one if isinstance(one, bytes) else one.read_bytes()
            connection.request("POST", "/instances", data, {"Content-Type": "application/dicom"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                refused.append(f"{number}: {answer.status}")
        connection.close()
        return refused

    def forget(self, study: str) -> None:
        """Remove a study, by its Study Instance UID."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/tools/lookup", study)
        for one in json.loads(connection.getresponse().read()):
            if one["Type"] == "Study":
                connection.request("DELETE", one["Path"])
                connection.getresponse().read()
        connection.close()


def missing() -> str:
    """Return why the server cannot be started; empty if it can."""
    lacks = [one for one in _NEEDED if not (_PLUGINS / one).exists()]
    if shutil.which("Orthanc") is None or lacks:
        packages = "orthanc, orthanc-dicomweb and orthanc-gdcm"
        return f"no Orthanc with its DICOMweb plugins: they are in Debian's packages {packages}"
    if shutil.which("cc") is None:
        return "no C compiler, by which Orthanc is kept to the loopback address"
    return ""


@contextmanager
def serving(folder: Path, users: dict[str, str] | None = None) -> Iterator[Orthanc]:
    """Start a server that keeps its files in `folder`; with `users`, for nobody else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loopback.c").write_text(_LOOPBACK)
    only = folder / "loopback.so"
    compiler = ["cc", "-shared", "-fPIC", "-o", only, folder / "loopback.c", "-ldl"]
    subprocess.run(compiler, check=True)
    # It binds the port itself: another one is taken where somebody was faster.
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(_configuration(folder, port, users)))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["Orthanc", str(configuration)],
                stdout=log,
                stderr=log,
                env={**os.environ, "LD_PRELOAD": str(only)},
            )
        try:
            if _is_up(process, port):
                yield Orthanc(port)
                return
        finally:
            # To end as it should takes it seconds, and nobody needs its files again.
            process.kill()
            process.wait()
    raise RuntimeError((folder / "log").read_text()[-2000:])


def _configuration(folder: Path, port: int, users: dict[str, str] | None) -> dict[str, object]:
    return {
        "StorageDirectory": str(folder / "files"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": users is not None,
        "RegisteredUsers": users or {},
        "Plugins": [str(_PLUGINS / one) for one in _NEEDED],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "HttpThreadsCount": 8,
    }


def _is_up(process: subprocess.Popen[bytes], port: int) -> bool:
    """Return whether the server answers, and not an end of its process."""
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return True
        except OSError:
            time.sleep(0.02)
    return False
