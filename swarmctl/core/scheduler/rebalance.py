"""Where a running task would better be: moves to nodes that joined or came back.

Opt-in, by the label ``swarmctl.rebalance=on-join`` of a replicated service. The scheduler places a
task once; a node that comes later stays empty until something fails. This reconciler looks at one
service and names, on one of its tasks, the node that it should move to; the orchestrator carries
that out start-first (orchestrator/relief.py). Where the move stands is read off the tasks.

Laws:

- A task moves only to a node that came after the task was made, so it moves at most once for each
  time a node comes, and never back.
- Only what makes the spread better counts: of the levels of placement preferences, and the nodes
  below them, the first that a move changes has at least two tasks fewer on the other side. So it
  ends, and never makes the spread worse.
- One move of a service at a time, only while all its replicas run and none is outdated, with a
  pause in between; and a node has to have been there for a while before it gets any.
- A node where a moved task did not come to run gets no more of them until it comes anew.
- Only nodes that all filters accept now; where these refuse, and while the service is not at
  rest, it looks again every minute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..errors import AnswerAwaited
from ..model.base import MINUTE, SECOND
from ..model.change import NOTHING, At, Decision, Kind, Ref, SpecAt, Transaction, Update
from ..model.dirty import is_dirty
from ..model.labels import ON_JOIN, REBALANCE
from ..model.pinned import pins_tasks
from ..model.scaling import replicas_of
from ..model.spreading import branch_of, descriptors_of
from ..model.task import MOVE_OFFER_NS, TaskState
from .filters import BUILT_IN
from .outside import AWAIT_NS, ask_all
from .resources import NodeLoad, Place, holding_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..ids import NewId
    from ..model.objects import NodeRow, ServiceRow, TaskRow
    from ..store.view import View
    from .filters import Filter
    from .outside import Judge

NAME = "rebalancer"

SETTLED_NS = 10 * SECOND
"""How long a node has to be there before tasks move to it; one that comes and goes gets none."""
PAUSE_NS = 5 * SECOND
"""How long a moved task runs before the next is moved."""
RETRY_NS = MINUTE
TARGETS_MAX = 20
"""Nodes that are tried in one decision, those with the fewest tasks of the service first."""


class Rebalancing:
    """The rebalancer's reconciler: hand ``keys`` and ``decide`` to the loop.

    Args:
        filters: of plugins; run after ours.
        judges: filters of plugins outside this process; they run after all others.
    """

    def __init__(self, filters: Iterable[Filter] = (), judges: Sequence[Judge] = ()) -> None:
        self._filters: tuple[Filter, ...] = (*BUILT_IN, *filters)
        self._judges = tuple(judges)

    def keys(self, view: View, touched: set[Ref] | None) -> Iterable[str]:
        """Return the services that ask for it and that touched rows concern (None: all rows)."""
        for judge in self._judges:
            judge.note(touched)
        asking = view.labelled(REBALANCE)
        if not asking or touched is None or any(ref.kind is Kind.NODE for ref in touched):
            return asking
        found: dict[str, None] = {}
        for ref in touched:
            if ref.kind is Kind.SERVICE:
                found[ref.id] = None
            elif ref.kind is Kind.TASK:
                task = view.task(ref.id)
                if task is not None:
                    found[task.api.ServiceID] = None
        return [service_id for service_id in asking if service_id in found]

    def decide(self, view: View, key: str, now: int, new_id: NewId) -> Decision:
        """Return the next move of one service."""
        service = view.service(key)
        if service is None or not _asks(service):
            return NOTHING
        tasks = _settled(view, service)
        if not tasks:
            # A task that is deleted says no more whose it was, so what it held up is not asked.
            return Decision(wake_at=now + RETRY_NS)
        wait_until = _busy_until(view, service, tasks, now)
        if wait_until > now:
            return Decision(wake_at=wait_until)
        waits = False
        try:
            decision = _Look(view, service, tasks, (self._filters, self._judges), now).decide()
        except AnswerAwaited:
            decision, waits = Decision(wake_at=now + AWAIT_NS), True
        for judge in self._judges:
            judge.send(view, waits=waits)
        return decision


# --- whether it is time --------------------------------------------------------------------------


def _asks(service: ServiceRow) -> bool:
    spec = service.api.Spec
    is_replicated = spec.Mode.Replicated is not None and service.api.Stopped is None
    asks = is_replicated and spec.Labels.get(REBALANCE) == ON_JOIN
    return asks and not pins_tasks(spec)  # two tasks cannot both have a slot's address


def _settled(view: View, service: ServiceRow) -> list[TaskRow]:
    """Return a service's tasks if all of them run as they should, else none."""
    tasks: list[TaskRow] = []
    for task in view.tasks_of(service.api.ID):
        state, node = task.api.Status.State, view.node(task.api.NodeID)
        if task.api.DesiredState > TaskState.RUNNING:
            if TaskState.ASSIGNED <= state <= TaskState.RUNNING and _answers(node):
                return []  # it is being stopped
            continue
        if state is not TaskState.RUNNING or node is None or is_dirty(service, task, node):
            return []
        tasks.append(task)
    wanted = replicas_of(service)
    slots = {task.api.Slot for task in tasks}
    return tasks if len(tasks) == len(slots) == wanted else []


def _answers(node: NodeRow | None) -> bool:
    return node is not None and node.api.Status.State != "down"


def _busy_until(view: View, service: ServiceRow, tasks: Sequence[TaskRow], now: int) -> int:
    """Return until when the last move, or one that was asked for, holds up the next."""
    until = 0
    for task in tasks:
        private = task.private
        if private.relieves:
            until = max(until, min(private.started_at, now) + PAUSE_NS)
        if private.move_to and not _was_tried(view, service, task):
            until = max(until, min(private.move_at, now) + MOVE_OFFER_NS)
    return until


def _was_tried(view: View, service: ServiceRow, task: TaskRow) -> bool:
    return any(
        other.private.relieves == task.api.ID and other.api.CreatedAt >= task.private.move_at
        for other in view.tasks_in(service.api.ID, str(task.api.Slot))
    )


# --- which move ----------------------------------------------------------------------------------


class _Target(NamedTuple):
    """A node that came, since when it is there, and the log index at which it was last asked to."""

    node: NodeRow
    since: int
    changed: int


class _Look:
    """One decision in the making; lives for one call."""

    def __init__(
        self,
        view: View,
        service: ServiceRow,
        tasks: list[TaskRow],
        filters: tuple[tuple[Filter, ...], tuple[Judge, ...]],
        now: int,
    ) -> None:
        self._view = view
        self._service = service
        self._tasks = sorted(tasks, key=lambda task: -task.api.Slot)
        self._filters, self._judges = filters
        self._now = now
        self._levels = descriptors_of(service.api.Spec.TaskTemplate.Placement)
        self._counts: dict[tuple[str, ...], int] = {}
        for task in tasks:
            for path in self._paths(view.node(task.api.NodeID)):
                self._counts[path] = self._counts.get(path, 0) + 1

    def decide(self) -> Decision:
        wake_at: int | None = None
        for target in self._targets():
            task = self._best_task(target)
            if task is None:
                continue
            at = target.since + SETTLED_NS
            if at > self._now:
                wake_at = at if wake_at is None else min(wake_at, at)
            elif self._fits(task, target.node):
                return Decision(transactions=(self._move(task, target.node),))
            elif wake_at is None:
                wake_at = self._now + RETRY_NS
        return Decision(wake_at=wake_at)

    def _targets(self) -> list[_Target]:
        """Return the nodes that came after some task was made, the emptiest first."""
        oldest = min(task.api.CreatedAt for task in self._tasks)
        oldest_index = min(task.private.spec_index for task in self._tasks)
        found: list[_Target] = []
        for node in self._view.nodes():
            if node.api.Status.State != "ready" or node.api.Spec.Availability != "active":
                continue
            since = min(max(node.private.status_since, node.api.CreatedAt), self._now)
            target = _Target(node, since, node.private.spec_index)
            if (since > oldest or target.changed > oldest_index) and not self._failed_on(target):
                found.append(target)
        found.sort(key=lambda one: (self._count(one.node), one.node.api.ID))
        return found[:TARGETS_MAX]

    def _failed_on(self, target: _Target) -> bool:
        """Return whether a task that moved there since it came did not stay."""
        version = self._service.private.spec_index
        return any(
            task.api.ServiceID == self._service.api.ID
            and task.private.relieves
            and task.private.spec_version == version
            and task.api.CreatedAt >= target.since
            and max(task.api.DesiredState, task.api.Status.State) > TaskState.RUNNING
            for task in self._view.tasks_on(target.node.api.ID)
        )

    def _best_task(self, target: _Target) -> TaskRow | None:
        """Return the task whose move to the target betters the spread most, or None."""
        best: tuple[tuple[int, int, int, str], TaskRow] | None = None
        gains: dict[str, tuple[int, int] | None] = {}
        for task in self._tasks:
            came_after = (
                target.since > task.api.CreatedAt or target.changed > task.private.spec_index
            )
            node_id = task.api.NodeID
            if node_id not in gains:
                gains[node_id] = self._gain(self._view.node(node_id), target.node)
            gain = gains[node_id]
            if gain is None or not came_after:
                continue
            level, fewer = gain
            rank = (level, -fewer, -len(self._view.tasks_on(node_id)), node_id)
            if best is None or rank < best[0]:
                best = (rank, task)
        return best[1] if best is not None else None

    def _gain(self, source: NodeRow | None, target: NodeRow) -> tuple[int, int] | None:
        """Return the level that a move makes better and by how much it is uneven there, or None.

        A level whose two sides are one task apart only trades them; the next one decides.
        """
        pairs = zip(self._paths(source), self._paths(target), strict=True)
        for level, (here, there) in enumerate(pairs):
            if here == there:
                continue
            apart = self._counts.get(here, 0) - self._counts.get(there, 0)
            if apart >= 2:
                return level, apart
            if apart < 1:
                return None
        return None

    def _paths(self, node: NodeRow | None) -> list[tuple[str, ...]]:
        """Return where a node stands: its branch on every level, and itself."""
        if node is None:
            return []
        values = tuple(branch_of(node, level) for level in self._levels)
        branches = [("branch", *values[: at + 1]) for at in range(len(values))]
        return [*branches, ("node", node.api.ID)]

    def _count(self, node: NodeRow) -> int:
        return self._counts.get(("node", node.api.ID), 0)

    def _fits(self, task: TaskRow, node: NodeRow) -> bool:
        load = NodeLoad()
        for other in self._view.tasks_on(node.api.ID):
            if TaskState.ASSIGNED <= other.api.Status.State <= TaskState.RUNNING:
                load.add(holding_of(other))
        checks = (one.check(task) for one in self._filters)
        if not all(check is None or check(node, load) > 0 for check in checks):
            return False
        places = [Place(node, load)]
        verdicts = ask_all(self._judges, task, places)
        return all(verdict.rooms.get(node.api.ID, 0) > 0 for verdict in verdicts)

    def _move(self, task: TaskRow, node: NodeRow) -> Transaction:
        node_id = node.api.ID
        private = replace(task.private, move_to=node_id, move_at=self._now)
        service = self._service
        return Transaction(
            changes=(Update(row=replace(task, private=private)),),
            requires=(
                At(ref=Ref(Kind.NODE, node_id), version=node.api.Version.Index),
                SpecAt(ref=Ref(Kind.SERVICE, service.api.ID), index=service.private.spec_index),
            ),
        )
