"""A web server that gives ranges, and fails as it is told to."""

import gzip
import http.server
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break, as they are told to."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Faults:
    """A server of bytes by path.

    Attributes
    ----------
    files : dict of str to bytes
    faults : list of int or str
        What the next requests for a range meet, one after the other: a status; ``"reset"``;
        ``"cut"``, an answer that ends early; ``"long"``, more bytes than were asked for.
    encoded : bool
        Whether files are gzipped for a client that accepts it; ranges are then of what is gzipped.
    content_type : str
    status : int
        Of answers to all requests but those for ranges.
    failing : int
        Number of such requests that are still answered by 503.
    surplus : int
        Bytes that a file is said to have beyond those that it has.
    asked : int
        Number of requests for ranges.
    headers : list of dict
        Of each request, by names in lower case.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.encoded, self.content_type = False, "application/dicom"
        self.status, self.failing, self.asked = 200, 0, 0
        self.surplus, self.headers = 0, list[dict[str, str]]()
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def parse_request(self) -> bool:
                is_whole = super().parse_request()
                if is_whole:
                    served.headers.append({key.lower(): one for key, one in self.headers.items()})
                return is_whole

            def _status(self) -> int:
                served.failing -= 1
                return 503 if served.failing >= 0 else served.status

            def do_HEAD(self) -> None:
                data = served.files.get(self.path)
                self._answer(404 if data is None else self._status(), data or b"", with_body=False)

            def do_GET(self) -> None:
                data = served.files.get(self.path)
                if data is None:
                    return self._answer(404, b"")
                if self._is_encoded():
                    data = gzip.compress(data)
                found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
                if found is None and self.headers["Range"]:
                    return self._answer(416, b"")
                if found is None:
                    return self._answer(self._status(), data)
                served.asked += 1
                first, last = map(int, found.groups())
                part = data[first : last + 1]
                fault = served.faults.pop(0) if served.faults else 206
                if fault == "reset":
                    # Zero seconds to linger: the connection is reset and not closed.
                    self.connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    self.connection.close()
                    self.close_connection = True
                elif fault == "cut":
                    self._answer(206, part, cut=len(part) // 2)
                    self.close_connection = True
                elif fault == "long":
                    self._answer(206, data[first : last + 2])
                else:
                    assert isinstance(fault, int)
                    self._answer(fault, part if fault == 206 else b"")
                return None

            def _is_encoded(self) -> bool:
                return served.encoded and "gzip" in self.headers["Accept-Encoding"]

            def _answer(
                self, status: int, body: bytes, *, with_body: bool = True, cut: int | None = None
            ) -> None:
                self.send_response(status)
                length = len(body) if with_body else len(body) + served.surplus
                self.send_header("Content-Length", str(length))
                self.send_header("Content-Type", served.content_type)
                self.send_header("Accept-Ranges", "bytes")
                if self._is_encoded():
                    self.send_header("Content-Encoding", "gzip")
                self.end_headers()
                if with_body:
                    self.wfile.write(body[:cut])

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Beginning of the URLs of all files."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving() -> Iterator[Faults]:
    server = Faults()
    try:
        yield server
    finally:
        server.close()
