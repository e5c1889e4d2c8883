"""A client process of a throughput benchmark: some clients, each asking again when answered.

The part that is alike for every rival: when to measure, and how to say what was seen. Standard
library only, because a rival's client may run under an interpreter that has nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from benchmarks.figures import percentile

KEY_BYTES = 16
VALUE_BYTES = 1024
MEASURING = "measuring"


class Meter:
    """Knows when it is time to measure, and when all is over.

    Args:
        warm_s: seconds that do not count.
        run_s: seconds after these that do.
    """

    def __init__(self, warm_s: float, run_s: float) -> None:
        self._begin = time.perf_counter() + warm_s
        self._end = self._begin + run_s
        self._took: list[float] = []
        self._cpu = 0.0
        self._measuring = False

    @property
    def running(self) -> bool:
        """False when the clients should stop asking."""
        return time.perf_counter() < self._end

    def note(self, started: float) -> None:
        """Note an answer to what was asked at ``started``."""
        now = time.perf_counter()
        if not self._measuring and now >= self._begin:
            # The driver, on reading this, begins to count the servers' CPU.
            self._measuring = True
            self._cpu = time.process_time()
            print(MEASURING, flush=True)
        if self._begin <= now < self._end:
            self._took.append(now - started)

    def report(self) -> None:
        """Say what was measured, in one line of JSON."""
        cpu = time.process_time() - self._cpu
        seconds = self._end - self._begin
        count = len(self._took)
        print(
            json.dumps(
                {
                    "per_s": count / seconds,
                    "p50_ms": percentile(self._took, 50) * 1e3,
                    "p99_ms": percentile(self._took, 99) * 1e3,
                    "client_us": cpu / count * 1e6,
                    "count": count,
                }
            ),
            flush=True,
        )


def key_of(client: int, turn: int) -> bytes:
    """A key of 16 bytes; a client goes round a thousand of its own."""
    return b"%06d%010d" % (client, turn % 1000)


def value() -> bytes:
    """1 KiB that does not compress."""
    return os.urandom(VALUE_BYTES)


def options(what: str) -> argparse.Namespace:
    """The command line of every such client."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{what}")
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    return parser.parse_args()
