"""An S3-compatible store on this machine, which can kill whoever writes to it."""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import boto3
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"


class _Quiet(MotoRequestHandler):
    def log(self, *_: Any) -> None:
        """Say nothing of each request."""


class Request(NamedTuple):
    """One that was answered, with the bytes that were sent."""

    method: str
    range: str | None
    sent: int


class Server:
    """A store, and what it does at a change: a request that puts or deletes.

    Attributes
    ----------
    asked : list of Request
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._watched, threaded=True, request_handler=_Quiet
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._counted = itertools.count()
        self._at: tuple[int | None, int, int] = (None, 0, 0)
        self.asked: list[Request] = []
        self.paths: list[str] = []
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._client = boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        self._client.create_bucket(Bucket=BUCKET)

    @property
    def options(self) -> dict[str, str]:
        """For fsspec: unlike the environment they lead to no client of an earlier server."""
        return {
            "endpoint_url": self.env["AWS_ENDPOINT_URL"],
            "key": self.env["AWS_ACCESS_KEY_ID"],
            "secret": self.env["AWS_SECRET_ACCESS_KEY"],
        }

    def close(self) -> None:
        self._client.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, at: int | None = None, group: int = 0, number: int = signal.SIGKILL) -> None:
        """Count changes from 0, and signal a process group just before one of them."""
        self._at = at, group, number
        self._counted = itertools.count()

    @property
    def changes(self) -> int:
        return next(self._counted)

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return the content of each object, by what follows the prefix in its key."""
        found = {}
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", []):
                body = self._client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"]
                found[entry["Key"][len(prefix) :]] = body.read()
        return found

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=key)

    def _watched(self, environ: Any, start_response: Any) -> Any:
        self.paths.append(environ["PATH_INFO"])
        method = environ["REQUEST_METHOD"]

        def counted(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            length = next((n for key, n in headers if key.lower() == "content-length"), "0")
            sent = 0 if method == "HEAD" else int(length)
            self.asked.append(Request(method, environ.get("HTTP_RANGE"), sent))
            return start_response(status, headers, *rest)

        if method not in ("GET", "HEAD"):
            at, group, number = self._at
            if next(self._counted) == at:
                os.killpg(group, number)
                if number == signal.SIGKILL:
                    # Nobody waits for an answer, and nothing is done.
                    start_response("503 Killed", [])
                    return []
        return self._app(environ, counted)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()
