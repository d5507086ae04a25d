"""nginx over a folder, and what it was asked for."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors;
events {{}}
http {{
    log_format asked "$request_method|$uri|$status|$body_bytes_sent|$http_range";
    access_log {folder}/asked asked;
    {temporary}
    server {{
        listen 127.0.0.1:{port};
        root {root};
        {more}
    }}
}}
"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Request(NamedTuple):
    """One line of the log."""

    method: str
    path: str
    status: int
    sent: int
    range: str


class Nginx:
    """A running server.

    Attributes
    ----------
    url : str
        Of the folder.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "asked"
        self._read = 0

    def asked(self) -> list[Request]:
        """Return the requests since this was called before."""
        # A line is written behind the answer.
        lines, before = self._lines(), -1
        while len(lines) != before:
            before = len(lines)
            time.sleep(0.1)
            lines = self._lines()
        new, self._read = lines[self._read :], len(lines)
        found = []
        for line in new:
            method, path, status, sent, asked = line.split("|")
            found.append(Request(method, path, int(status), int(sent), asked))
        return found

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines()


def missing() -> str:
    """Return why the server cannot be started; empty if it can."""
    return "" if shutil.which("nginx") else "no nginx: it is in Debian's package nginx-light"


@contextmanager
def serving(root: Path, folder: Path, more: str = "") -> Iterator[Nginx]:
    """Serve the files of `root`; `folder` is for the server's own, `more` for its configuration."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "asked").touch()
    temporary = " ".join(f"{one}_temp_path {folder}/{one};" for one in _TEMPORARY)
    configuration = folder / "nginx.conf"
    # Started by root, workers would be of another user, who may not read the folder.
    user = "user root;" if os.getuid() == 0 else ""
    configuration.write_text(
        _CONFIGURATION.format(
            user=user, folder=folder, port=port, root=root, temporary=temporary, more=more
        )
    )
    process = subprocess.Popen(
        ["nginx", "-c", str(configuration), "-p", str(folder), "-e", str(folder / "errors")]
    )
    try:
        _wait(port, process, folder)
        yield Nginx(port, folder)
    finally:
        process.terminate()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError(f"nginx ended: {(folder / 'errors').read_text()}")
