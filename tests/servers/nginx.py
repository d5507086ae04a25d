"""nginx over a folder, and what it was asked for."""

import http.client
import itertools
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
        self._port = port
        self._log = folder / "asked"
        self._marks = itertools.count()
        self._read = 0

    def asked(self) -> list[Request]:
        """Return the requests since this was called before."""
        # A line is written behind its answer, and by one worker: those before this one are there.
        mark = f"/mark-{next(self._marks)}"
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request("HEAD", mark)
        connection.getresponse()
        connection.close()
        while f"|{mark}|" not in (text := self._log.read_text()):
            time.sleep(0.01)
        lines = text[: text.index(f"HEAD|{mark}|")].splitlines()[self._read :]
        self._read += len(lines) + 1
        found = []
        for line in lines:
            method, path, status, sent, asked = line.split("|")
            found.append(Request(method, path, int(status), int(sent), asked))
        return found


def missing() -> str:
    """Return why the server cannot be started; empty if it can."""
    return "" if shutil.which("nginx") else "no nginx: it is in Debian's package nginx-light"


@contextmanager
def serving(root: Path, folder: Path, more: str = "") -> Iterator[Nginx]:
    """Serve the files of `root`; `folder` is for the server's own, `more` for its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "asked").touch()
    temporary = " ".join(f"{one}_temp_path {folder}/{one};" for one in _TEMPORARY)
    configuration = folder / "nginx.conf"
    # Started by root, workers would be of another user, who may not read the folder.
    user = "user root;" if os.getuid() == 0 else ""
    # nginx takes over a socket that listens, as from an older one that it replaces: nobody else can
    # take the port meanwhile, and whoever connects waits until it accepts.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, number = listening.getsockname()[1], listening.fileno()
        configuration.write_text(
            _CONFIGURATION.format(
                user=user, folder=folder, port=port, root=root, temporary=temporary, more=more
            )
        )
        process = subprocess.Popen(
            ["nginx", "-c", str(configuration), "-p", str(folder), "-e", str(folder / "errors")],
            env={**os.environ, "NGINX": f"{number};"},
            pass_fds=[number],
        )
    try:
        yield Nginx(port, folder)
    finally:
        process.terminate()
        process.wait()
