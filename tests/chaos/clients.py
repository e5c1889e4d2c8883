"""Clients that read and compare-and-set hot objects, and write down what they were told.

An object is a service of no replicas; its content is a number in a label, and no two writers ever
put in the same one. A read is ``GET``; a compare-and-set is an update with the version of an
earlier read, so what it replaces is what was read then.

Laws:

- When in doubt, unknown. Only the API's own "out of sequence" says that a swap was not done; only a
  connection that could not be made says that it was never asked for. Whatever else goes wrong, the
  swap may have happened or may happen yet.
- A call's time is taken before it is sent, an end's after its answer was read.
- Nothing is retried: what a client library does is no business of a judge.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.managers import NO_ANSWER
from tests.e2e.lab import ApiError, UnixClient
from tests.linearizability.monotonic import Sighting
from tests.linearizability.register import Action, Read, Swap
from tests.linearizability.wgl import Operation

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LABEL = "chaos"
# Longer than an election, much shorter than a stopped process: a client that hangs is worth little.
PATIENCE_S = 3.0
# How long a client leaves a manager alone that did not answer.
SHUN_S = 1.0
_HOME_SHARE = 0.6
_SWAP_SHARE = 0.7
_NEVER_CONNECTED = (ConnectionRefusedError, FileNotFoundError)


@dataclass
class Record:
    """What all clients were told. Appending is safe from several threads.

    Attributes:
        operations: by object.
        versions: by object, each with the content that was read under it.
        writes: when swaps were acknowledged, seconds of the monotonic clock.
        answers: how often each kind of answer came; ``surprise: ...`` are those that may not come.
    """

    operations: dict[str, list[Operation[Action]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    versions: dict[str, list[Sighting]] = field(default_factory=lambda: defaultdict(list))
    writes: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Seen:
    """An object as it was read last."""

    version: int
    spec: dict[str, Any]

    @property
    def content(self) -> str:
        return str(self.spec.get("Labels", {}).get(LABEL, ""))


class Client:
    """One client; :meth:`run` it in a thread of its own.

    Args:
        number: its name, and what makes its numbers unique.
        sockets: of all managers.
        objects: ids, by the names under which they are recorded.
        think_s: seconds between two operations.
    """

    def __init__(
        self,
        number: int,
        sockets: Sequence[Path],
        objects: Mapping[str, str],
        record: Record,
        rng: random.Random,
        *,
        think_s: float,
    ) -> None:
        self._number = number
        self._connections = [UnixClient(socket, timeout_s=PATIENCE_S) for socket in sockets]
        self._objects = objects
        self._record = record
        self._rng = rng
        self._think_s = think_s
        self._written = 0
        self._shunned = [0.0] * len(sockets)
        self._seen: dict[str, _Seen] = {}

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        try:
            while not stop.is_set():
                name = self._rng.choice(list(self._objects))
                manager = self._choose()
                if name in self._seen and self._rng.random() < _SWAP_SHARE:
                    self._swap(manager, name)
                else:
                    self.read(manager, name)
                stop.wait(self._rng.uniform(0, 2 * self._think_s))
        finally:
            self.close()

    def close(self) -> None:
        """Close its connections."""
        for connection in self._connections:
            connection.close()

    def read(self, manager: int, name: str) -> str | None:
        """Read an object through a manager; its content, or None without an answer."""
        call = time.monotonic()
        try:
            found = self._connections[manager].call("GET", f"/services/{self._objects[name]}")
        except NO_ANSWER:
            self._shun(manager, "read: no answer")
            return None
        except ApiError as error:
            self._refused(manager, error, "read")
            return None
        end = time.monotonic()
        seen = self._seen[name] = _Seen(found["Version"]["Index"], found["Spec"])
        self._note(name, call, end, Read(seen.content))
        self._record.versions[name].append(Sighting(call, end, seen.version, seen.content))
        self._record.answers["read"] += 1
        return seen.content

    def _swap(self, manager: int, name: str) -> None:
        seen = self._seen.pop(name)
        self._written += 1
        new = f"{self._number}.{self._written}"
        spec = {**seen.spec, "Labels": {LABEL: new}}
        query = {"version": str(seen.version)}
        path = f"/services/{self._objects[name]}/update"
        call = time.monotonic()
        try:
            self._connections[manager].call("POST", path, spec, query=query)
        except _NEVER_CONNECTED:
            self._shun(manager, "swap: not connected")
        except NO_ANSWER:
            self._note(name, call, None, Swap(seen.content, new, None))
            self._shun(manager, "swap: no answer")
        except ApiError as error:
            end = time.monotonic()
            if "out of sequence" in error.text:
                self._note(name, call, end, Swap(seen.content, new, done=False))
                self._record.answers["swap: out of sequence"] += 1
                return
            self._note(name, call, None, Swap(seen.content, new, None))
            self._refused(manager, error, "swap")
        else:
            end = time.monotonic()
            self._note(name, call, end, Swap(seen.content, new, done=True))
            self._record.writes.append(end)
            self._record.answers["swap"] += 1

    def _note(self, name: str, call: float, end: float | None, action: Action) -> None:
        self._record.operations[name].append(Operation(self._number, call, end, action))

    def _refused(self, manager: int, error: ApiError, what: str) -> None:
        # Nobody leads, or the process has just been started: that is a 500 or a 503. Nothing else
        # may be said about an object that is there and a request that is in order.
        if error.status in (500, 503):
            self._shun(manager, f"{what}: refused for now")
        else:
            self._record.answers[f"surprise: {what}: {error}"] += 1

    def _shun(self, manager: int, why: str) -> None:
        self._record.answers[why] += 1
        self._shunned[manager] = time.monotonic() + SHUN_S

    def _choose(self) -> int:
        """Mostly the same manager, as a real client; any that answered lately, if some did."""
        now = time.monotonic()
        open_ = [n for n, until in enumerate(self._shunned) if until <= now]
        home = self._number % len(self._shunned)
        if home in open_ and self._rng.random() < _HOME_SHARE:
            return home
        return self._rng.choice(open_ or range(len(self._shunned)))
