"""Clients that create services as fast as they are answered, and note when each was accepted.

A service here has no replicas: what is measured is the write, not what follows from it.
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.managers import NO_ANSWER
from tests.e2e.lab import IMAGE, ApiError, UnixClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.managers import ManagerHost

_PATIENCE_S = 20.0
# How long to leave a manager alone that has just refused; as short as a client may be impatient.
_PAUSE_S = 0.01
_names = (f"w{number}" for number in itertools.count(1))


class Writers:
    """Some clients at work, see :func:`writing`.

    Attributes:
        accepted: when each write was acknowledged, seconds of the performance counter.
        took: how long each of these took, in seconds.
        refused: answers that were errors, in words, the last one last.
    """

    def __init__(self) -> None:
        self.accepted: list[float] = []
        self.took: list[float] = []
        self.refused: list[str] = []

    def longest_gap(self, since: float, until: float) -> float:
        """The longest time within these two in which no write was acknowledged."""
        inside = sorted(at for at in self.accepted if since <= at <= until)
        return max(b - a for a, b in itertools.pairwise([since, *inside, until]))

    def work(self, host: ManagerHost, stop: threading.Event) -> None:
        """Create services through one manager until told to stop."""
        with host.client(timeout_s=_PATIENCE_S) as client:
            while not stop.is_set():
                started = time.perf_counter()
                try:
                    create_service(client)
                except (ApiError, *NO_ANSWER) as error:
                    self.refused.append(f"{host.host.name}: {error}")
                    time.sleep(_PAUSE_S)
                else:
                    ended = time.perf_counter()
                    self.took.append(ended - started)
                    self.accepted.append(ended)


@contextmanager
def writing(through: Sequence[ManagerHost], clients: int) -> Iterator[Writers]:
    """Let so many clients write for as long as the block lasts, spread over these managers."""
    stop = threading.Event()
    writers = Writers()
    with ThreadPoolExecutor(clients) as pool:
        running = [
            pool.submit(writers.work, through[number % len(through)], stop)
            for number in range(clients)
        ]
        try:
            yield writers
        finally:
            stop.set()
    for done in running:
        done.result()


def create_service(client: UnixClient, name: str = "") -> str:
    """Create a service without replicas; returns its id."""
    spec = {
        "Name": name or next(_names),
        "TaskTemplate": {"ContainerSpec": {"Image": IMAGE, "Command": ["sleep", "3600"]}},
        "Mode": {"Replicated": {"Replicas": 0}},
    }
    created: Any = client.call("POST", "/services/create", spec)
    return str(created["ID"])


def first_accepted(through: Sequence[ManagerHost]) -> float:
    """When the first write through any of these managers was acknowledged; tries until one is."""
    with writing(through, len(through)) as writers:
        while not writers.accepted:
            time.sleep(0.001)
    return min(writers.accepted)
