"""The worker processes of a cluster: which can be given a series, and how one is restarted."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from distributed import Client

from dcmdask.errors import ClusterError, DcmdaskWarning
from dcmdask.store.scheduler import known_workers

# Seconds for a worker to end by itself, or to find memory again.
_GRACE = 10.0
# Seconds without a worker before a run gives up.
PATIENCE = 300.0
# Seconds that a new worker has for its answer, before it is asked again.
_ANSWER = 60.0


Answer = TypeVar("Answer")


class Workers:
    """The workers of a cluster, as they were when last looked at.

    Parameters
    ----------
    client : distributed.Client
    lacking : callable
        Takes addresses and seconds, and returns what workers lack by address, empty where
        nothing, of those that answer within that time.

    Attributes
    ----------
    there : set of str
        Their addresses.
    ready : list of str
        Of those that can be given a series: not those that go away, and not those that Dask has
        paused for their memory.
    """

    def __init__(
        self, client: Client, lacking: Callable[[list[str], float], dict[str, str]]
    ) -> None:
        self._client = client
        self._ask = lacking
        # The answers of those that are being asked; the others do not wait for them.
        self._asked: Future[dict[str, str]] | None = None
        # Those that have answered, and what they lack, if anything.
        self._lacking: dict[str, str] = {}
        # Since when they are to go away, and since when Dask has paused them.
        self._ending: dict[str, float] = {}
        self._paused: dict[str, float] = {}
        self._looked = self._seen = time.monotonic()
        self.there: set[str] = set()
        self.ready: list[str] = []
        self._lacking = dict.fromkeys(known_workers(client), "")
        self.look()

    @property
    def seconds(self) -> float:
        """Since the last look."""
        return time.monotonic() - self._looked

    def has(self, address: str) -> bool:
        """Look at them, and return whether a worker is there."""
        self.look()
        return address in self.there

    def look(self) -> None:
        """Look at them; those that are paused while nothing runs there are restarted.

        Raises
        ------
        ClusterError
            The scheduler is gone, or there has been no worker for long.
        """
        info = _told(self._client)
        self._looked = time.monotonic()
        self.there = set(info)
        self._ending = {one: since for one, since in self._ending.items() if one in self.there}
        for address, since in self._ending.items():
            if self._looked - since > _GRACE:
                self._ending[address] = self._looked
                self._have_restarted(address)
        paused = {one for one, told in info.items() if told["status"] == "paused"}
        self._paused = {one: self._paused.get(one, self._looked) for one in paused}
        for address in paused - self._ending.keys():
            # What a series has left behind does not go away by itself, and what is given to it
            # now does not begin.
            stuck = not _executing(info[address])
            if stuck and self._looked - self._paused[address] > _GRACE and info[address]["nanny"]:
                self.end(address)
        running = [one for one, told in info.items() if told["status"] == "running"]
        if self._asked is not None and self._asked.done():
            found, self._asked = self._asked.result(), None
            self._lacking |= found
            for what in filter(None, found.values()):
                warnings.warn(f"left out: {what}", DcmdaskWarning, stacklevel=2)
        new = [one for one in running if one not in self._lacking]
        if new and self._asked is None:
            self._asked = _in_background(self._ask, new, _ANSWER)
        fit = {one for one, what in self._lacking.items() if not what}
        self.ready = [one for one in running if one in fit and one not in self._ending]
        if self.there & fit:
            self._seen = self._looked
        elif self._looked - self._seen > PATIENCE:
            raise ClusterError(
                f"the cluster has had no workers for {PATIENCE:g} s; what is done is done, and the "
                "same call goes on with the rest"
            )

    def end(self, address: str) -> None:
        """End a worker's process, whatever its thread does; its nanny starts another one."""
        self._ending[address] = time.monotonic()
        self.ready = [one for one in self.ready if one != address]
        self._client.run(_exit, workers=[address], wait=False)

    def _have_restarted(self, address: str) -> None:
        """Leave one that hears nothing to its nanny."""
        threading.Thread(
            target=self._client.restart_workers,
            args=([address],),
            kwargs={"timeout": _GRACE, "raise_for_error": False},
            daemon=True,
        ).start()


def _in_background(function: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
    """Call a function in a thread that keeps no process from ending."""
    future: Future[Answer] = Future()

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _executing(told: dict[str, Any]) -> int:
    """Return how many tasks run on a worker, as it last said."""
    return int(told["metrics"].get("task_counts", {}).get("executing", 0))


async def _exit() -> None:
    os._exit(1)


def _told(client: Client) -> dict[str, Any]:
    try:
        return known_workers(client)
    except (AttributeError, OSError, RuntimeError) as error:
        # Without a connection the client has no scheduler.
        raise ClusterError(
            "the scheduler is gone, or its client was closed; what is done is done, and the same "
            "call goes on with the rest on another cluster"
        ) from error
