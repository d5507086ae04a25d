"""A server that passes requests on to another one, counts them, and changes answers as told."""

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

# Headers that are of one connection alone.
_OF_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length")


class Answer(NamedTuple):
    """Answer of the server behind."""

    status: int
    headers: dict[str, str]
    body: bytes


class Relay:
    """A server on loopback in front of another one.

    Attributes
    ----------
    asked : list of str
        Paths of requests, without queries.
    headers : list of dict
        Headers of the same requests.
    change : callable or None
        Takes path and answer, and returns what is answered instead.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.change: Callable[[str, Answer], Answer] | None = None
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                relay.asked.append(path)
                relay.headers.append(dict(self.headers))
                behind = http.client.HTTPConnection("127.0.0.1", port)
                sent = {**dict(self.headers), "Accept-Encoding": "identity"}
                behind.request("GET", self.path, headers=sent)
                found = behind.getresponse()
                answer = Answer(found.status, dict(found.getheaders()), found.read())
                behind.close()
                if relay.change is not None:
                    answer = relay.change(path, answer)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in _OF_CONNECTION:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Base URL of the DICOMweb service, as dcmdask takes it."""
        return f"dicomweb+http://{self.host}/dicom-web"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def passing_on(port: int) -> Iterator[Relay]:
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.close()
