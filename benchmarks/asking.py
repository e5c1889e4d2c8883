"""Open-loop clients in any network namespace, and what they saw, whole or while something lasted.

The program that asks is :mod:`.open_loop`; it is a process of its own, so that what the benchmark
does meanwhile costs it nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

# The bare interpreter: the program needs the standard library alone.
PYTHON = (os.path.realpath(sys.executable), "-I", "-S")
_PROGRAM = Path(__file__).with_name("open_loop.py")
# Longer than a request may take.
_END_S = 30.0


@dataclass(frozen=True)
class Request:
    """One request, due at ``at`` seconds of the monotonic clock; ``error`` is empty if answered."""

    at: float
    took_s: float
    target: str
    answer: str
    error: str


@dataclass
class Asked:
    """What became of requests.

    Attributes:
        requests: in the order in which they ended.
    """

    requests: list[Request] = field(default_factory=list)

    def between(self, begin: float, end: float) -> Asked:
        """Those that were due from ``begin`` on and before ``end``."""
        return Asked([one for one in self.requests if begin <= one.at < end])

    @property
    def failures(self) -> list[str]:
        """Those that failed, in words."""
        return [
            f"{one.at:.3f} {one.target} after {one.took_s:.3f} s: {one.error}"
            for one in self.requests
            if one.error
        ]

    @property
    def answers(self) -> list[str]:
        """What the others were answered."""
        return [one.answer for one in self.requests if not one.error]

    def latency_ms(self, percent: float) -> float:
        """So many per cent took no longer, answered or not; 0 without requests."""
        taken = [one.took_s * 1e3 for one in self.requests]
        return percentile(taken, percent) if taken else 0.0


@contextmanager
def asking(
    pid: int,
    *targets: str,
    rate: float,
    path: str = "/",
    keep_alive: bool = False,
    resolver: str = "",
) -> Iterator[Asked]:
    """Let a client ask for as long as the block lasts; what it gives is filled at its end.

    Args:
        pid: a process in the network namespace in which the client shall be.
        targets: ``HOST:PORT``, asked in turn.
        rate: requests a second, over all targets.
        keep_alive: whether connections are used again.
        resolver: the address of who looks up the targets' names, each time.

    Raises:
        RuntimeError: the client ended by itself; holds its words.
    """
    command = ["nsenter", f"--target={pid}", "--net", "--", *PYTHON, str(_PROGRAM)]
    command += [f"--rate={rate}", f"--path={path}", *(["--keep-alive"] if keep_alive else [])]
    command += [*([f"--resolver={resolver}"] if resolver else []), *targets]
    asked = Asked()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        try:
            assert client.stdout is not None
            if client.stdout.readline() != "asking\n":
                raise RuntimeError(f"the client did not begin: {client.communicate()[1]}")
            yield asked
            out, err = client.communicate(timeout=_END_S)
            if client.returncode:
                raise RuntimeError(f"the client ended with {client.returncode}: {err}")
            asked.requests += [Request(*one) for one in json.loads(out)]
        finally:
            client.kill()


@contextmanager
def span() -> Iterator[list[float]]:
    """Note when a block began and, at its end, when it ended, for :meth:`Asked.between`."""
    noted = [time.monotonic()]
    yield noted
    noted.append(time.monotonic())
