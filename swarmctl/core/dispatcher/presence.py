"""Which nodes are there: hears them, judges their silence, gives up the tasks of the lost.

Heartbeats write nothing; a row changes only when a node's state does. What silence means is decided
in ``liveness.py``; this shell keeps the times and the clock, and takes our own stalls off them. It
must not know sessions, or what nodes run.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..model.base import Time
from ..model.change import Advance, Transaction
from ..model.task import TaskState, TaskStatus
from . import liveness

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..clock import Clock
    from ..store.view import View
    from .noderows import NodeRows

SETTLE_S = 0.1
"""Before a node is declared down, what has arrived and was not read yet gets this long."""
STALL_S = 0.05
GRACE_MAX_S = 60.0
ORPHAN_CHECK_S = 60.0
CHANGES_PER_TRANSACTION = 500

log = logging.getLogger(__name__)


class Presence:
    """Keeps track of nodes while this manager leads; :meth:`run` is that time.

    Args:
        on_down: told of each node that is declared down, before its row says so.

    Attributes:
        warning: a sentence for ``info`` while replacement waits, else empty.
    """

    def __init__(
        self, view: View, rows: NodeRows, clock: Clock, on_down: Callable[[str], None]
    ) -> None:
        self._view = view
        self._rows = rows
        self._clock = clock
        self._on_down = on_down
        self._heard: dict[str, liveness.Heard] = {}
        self._judge_again = trio.Event()
        self._silent_since = 0.0
        self._known_at_takeover = 0
        self.sessions = 0
        self.warning = ""

    async def run(self) -> None:
        """Judge until cancelled."""
        self._take_over()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mind_silence, name="dispatcher liveness")
            nursery.start_soon(self._orphan, name="dispatcher orphans")

    @property
    def period_s(self) -> float:
        """How often agents are told to send something, in seconds."""
        cluster = self._view.cluster()
        configured = cluster.api.Spec.Dispatcher.HeartbeatPeriod if cluster is not None else 0
        return liveness.period_s(configured, max(self.sessions, self._known_at_takeover))

    def hear(self, node_id: str, told_period_s: float) -> None:
        """Note a sign of life.

        Args:
            told_period_s: how often this node was told to send something.
        """
        before = self._heard.get(node_id)
        self._heard[node_id] = liveness.Heard(trio.current_time(), told_period_s)
        if before is None or before.period != told_period_s or self.warning:
            self._judge_again.set()

    def silence_s(self, node_id: str) -> float:
        """Return for how long nothing came from a node, in seconds."""
        heard = self._heard.get(node_id)
        return trio.current_time() - heard.at if heard is not None else float("inf")

    def forget(self, node_id: str) -> None:
        """Judge a node no longer."""
        self._heard.pop(node_id, None)

    async def bid_farewell(self, node_id: str, back_within_s: float) -> None:
        """Write that a node's daemon ended on purpose; 0 for "for good"."""
        if back_within_s <= 0:
            self.forget(node_id)
            await self._rows.set_state(node_id, "down", "the node's daemon was stopped")
            return
        grace_s = min(back_within_s, GRACE_MAX_S)
        now = trio.current_time()
        self._heard[node_id] = liveness.Heard(now, grace_until=now + grace_s)
        await self._rows.set_state(
            node_id,
            "disconnected",
            "the node's daemon is restarting",
            grace_until=self._clock.now() + int(grace_s * 1e9),
        )

    # --- silence ---

    def _take_over(self) -> None:
        nodes = [row for row in self._view.nodes() if row.api.Status.State != "down"]
        self._known_at_takeover = len(nodes)
        now, now_ns, period = trio.current_time(), self._clock.now(), self.period_s
        self._silent_since, self.warning = 0.0, ""
        self._heard = {
            row.api.ID: liveness.heard_at_takeover(
                now, period, min((row.private.grace_until - now_ns) / 1e9, GRACE_MAX_S)
            )
            for row in nodes
        }

    async def _mind_silence(self) -> None:
        while True:
            self._judge_again = trio.Event()
            verdict = self._judge()
            if verdict.down:
                await self._sleep_until(trio.current_time() + SETTLE_S, trio.Event())
                verdict = self._judge()
            self._warn(verdict.warning)
            async with trio.open_nursery() as nursery:
                for node_id in verdict.down:
                    nursery.start_soon(self._declare_down, node_id)
            await self._sleep_until(verdict.look_again, self._judge_again)

    def _judge(self) -> liveness.Verdict:
        return liveness.judge(self._heard, trio.current_time(), self.period_s, self._silent_since)

    async def _declare_down(self, node_id: str) -> None:
        log.warning("node %s is down: no heartbeat for three periods", node_id)
        self.forget(node_id)
        self._on_down(node_id)
        await self._rows.set_state(node_id, "down", "heartbeat failure")

    def _warn(self, warning: str) -> None:
        if warning and not self.warning:
            self._silent_since = trio.current_time()
            log.warning("%s", warning)
        elif not warning:
            self._silent_since = 0.0
        self.warning = warning

    async def _sleep_until(self, when: float | None, sooner: trio.Event) -> None:
        """Sleep until a time or an event, and take our own stalls off the others' silence."""
        if when is None:
            await sooner.wait()
            return
        with trio.move_on_at(when):
            await sooner.wait()
        stall_s = trio.current_time() - when
        if stall_s > STALL_S:
            log.warning("this manager stood still for %.2f s", stall_s)
            for node_id, entry in self._heard.items():
                self._heard[node_id] = entry._replace(at=entry.at + stall_s)

    # --- the tasks of the lost ---

    async def _orphan(self) -> None:
        """Give up the tasks of nodes that are down for a day."""
        while True:
            now_ns = self._clock.now()
            for row in list(self._view.nodes()):
                since_ns = now_ns - row.private.status_since
                if row.api.Status.State == "down" and since_ns > liveness.ORPHAN_AFTER_NS:
                    await self._orphan_tasks(row.api.ID, now_ns)
            await trio.sleep(ORPHAN_CHECK_S)

    async def _orphan_tasks(self, node_id: str, now_ns: int) -> None:
        orphaned = TaskStatus(
            Timestamp=Time(now_ns),
            State=TaskState.ORPHANED,
            Message="the task's node is down for a day",
        )
        advances = [
            Advance(task_id=row.api.ID, status=orphaned)
            for row in self._view.tasks_on(node_id)
            if TaskState.ASSIGNED <= row.api.Status.State <= TaskState.RUNNING
        ]
        if advances:
            changes = tuple(advances[:CHANGES_PER_TRANSACTION])  # the rest in a minute
            await self._rows.propose([Transaction(changes=changes)])
