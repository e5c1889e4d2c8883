"""What the tasks of this node use: measured every five seconds, kept for ten minutes.

The leader is told, and keeps windows for the services that it scales, in memory only. A new one
reads them back from the nodes (:func:`read_window`) instead of starting blind, so a change of
leaders costs scaling nothing. What cannot be measured is left out: it is missing, never nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import trio

from ..errors import SwarmError
from ..model.base import PrivateStruct
from ..model.codec import pack, unpack
from ..model.session import Samples, TaskSample

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from ..wire.link import Link
    from ..wire.stream import LinkStream
    from .executor import Executor, TaskStats

SAMPLES_METHOD = "samples"
PERIOD_S = 5.0
KEPT = 120
"""Rounds that are kept: ten minutes."""
NO_PSI = "its kernel does not tell it, which takes cgroup v2"

log = logging.getLogger(__name__)


class WindowRequest(PrivateStruct, frozen=True, kw_only=True):
    """A new leader asks what these tasks used."""

    task_ids: tuple[str, ...]


class Sampler:
    """Measures this node's tasks.

    Args:
        running: names the tasks that run.
    """

    def __init__(self, executor: Executor, running: Callable[[], list[str]]) -> None:
        self._executor = executor
        self._running = running
        self._before: Mapping[str, TaskStats] = {}
        self._rounds: deque[tuple[float, tuple[TaskSample, ...]]] = deque(maxlen=KEPT)
        self._no_psi = ""
        self._fresh = trio.Event()

    async def run(self) -> None:
        """Measure until cancelled. An engine that does not answer leaves a gap."""
        due = trio.current_time()
        while True:
            due = max(due + PERIOD_S, trio.current_time())
            await trio.sleep_until(due)
            task_ids = self._running()
            if not task_ids:
                self._before = {}
                continue
            with trio.move_on_after(PERIOD_S):
                await self.measure(task_ids)

    async def feed(self, send: Callable[[Samples], Awaitable[None]]) -> None:
        """Send each round as it is measured, for as long as a session lasts.

        Those that are measured while one goes out too slowly are passed over.
        """
        while True:
            await self._fresh.wait()
            at, rows = self._rounds[-1]
            await send(self._message(at, rows))

    async def serve_window(self, _link: Link, stream: LinkStream) -> None:
        """Send what is kept of some tasks, oldest first. A stream method."""
        wanted = set(unpack(stream.body, WindowRequest).task_ids)
        for at, rows in list(self._rounds):
            mine = tuple(row for row in rows if row.task_id in wanted)
            if mine:
                await stream.send(pack(self._message(at, mine)))

    def _message(self, at: float, rows: tuple[TaskSample, ...]) -> Samples:
        age_s = max(0.0, trio.current_time() - at)
        return Samples(rows=rows, age_ns=int(age_s * 1e9), no_psi=self._no_psi)

    async def measure(self, task_ids: Sequence[str]) -> None:
        """Measure some tasks once: one round. An engine that fails leaves a gap."""
        try:
            stats = await self._executor.stats(task_ids)
        except SwarmError as error:
            log.debug("tasks are not measured: %s", error)
            return
        except Exception:  # of the executor: a bad sample may not end the agent
            log.exception("the executor failed to measure tasks")
            return
        rows = [
            row
            for task_id, now in stats.items()
            if (row := sample_of(task_id, self._before.get(task_id), now)) is not None
        ]
        self._before = stats
        if stats:
            told = any(one.psi_cpu_ns is not None for one in stats.values())
            self._no_psi = "" if told else NO_PSI
        if rows:
            self._rounds.append((trio.current_time(), tuple(rows)))
            self._fresh.set()
            self._fresh = trio.Event()


def sample_of(task_id: str, before: TaskStats | None, now: TaskStats) -> TaskSample | None:
    """Return what a task used between two looks; None for one that was looked at once."""
    if before is None or now.at <= before.at or now.cpu_ns < before.cpu_ns:
        return None  # it is new, or another run under the same id
    elapsed = now.at - before.at

    def rate(past: int | None, present: int | None, scale: float = 1.0) -> float | None:
        if past is None or present is None or present < past:
            return None
        return (present - past) / elapsed * scale

    return TaskSample(
        task_id=task_id,
        cpu=rate(before.cpu_ns, now.cpu_ns) if now.cpu_ns else None,
        mem=float(now.memory_bytes) if now.memory_bytes else None,
        pids=float(now.pids) if now.pids else None,
        net_rx=rate(before.net_rx_bytes, now.net_rx_bytes, 1e9) if now.net_rx_bytes else None,
        net_tx=rate(before.net_tx_bytes, now.net_tx_bytes, 1e9) if now.net_tx_bytes else None,
        psi_cpu=rate(before.psi_cpu_ns, now.psi_cpu_ns),
        psi_mem=rate(before.psi_mem_ns, now.psi_mem_ns),
        psi_io=rate(before.psi_io_ns, now.psi_io_ns),
    )


async def read_window(link: Link, task_ids: Sequence[str]) -> AsyncGenerator[Samples, None]:
    """Yield what a node keeps of some tasks; close it (``aclosing``) when done early.

    Raises:
        LinkClosed: the node went away.
    """
    request = WindowRequest(task_ids=tuple(task_ids))
    async with link.open_stream(SAMPLES_METHOD, pack(request)) as stream:
        stream.end()
        async for chunk in stream:
            yield unpack(chunk, Samples)
