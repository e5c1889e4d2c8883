"""The tables as the log has made them, and what must hold in them after every entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.model.change import Kind, Ref
from swarmctl.core.model.objects import NodeRow, ServiceRow, TaskRow
from swarmctl.core.model.rolling import START_FIRST, settings_of, why_stop_first
from swarmctl.core.model.task import TaskState
from swarmctl.core.orchestrator.enforcer import REASON
from swarmctl.core.orchestrator.restart import STOP_TIMEOUT_NS
from swarmctl.core.scheduler.resources import demand_of
from swarmctl.core.store.indexes import version_of
from tests.sim.queue import S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarmctl.core.model.objects import Row
    from swarmctl.core.model.spec import UpdateConfig
    from swarmctl.core.store.store import RowChange

Key = tuple[str, ...]
_NODE = Kind.NODE
LOST_LATELY_NS = 3 * S
OVERLAPPING = ("web", "log", "each")
"""Services that are sometimes updated start-first: two tasks of a slot may be runnable then."""


class Wrong(AssertionError):
    """The tables say what they may never say."""


class Tables:
    """Rows, and who holds what.

    Attributes:
        rows: every row by table and id.
        now: the onlooker's time, in nanoseconds.
        evictions: tasks that had to leave a node that no longer suited them.
        floors: ready tasks that an update took, with none in their place.
        clocks_agree: what leaders' stamps say of durations is true.
    """

    def __init__(self) -> None:
        self.rows: dict[Ref, Row] = {}
        self.now = 0
        self.clocks_agree = True
        self.evictions = 0
        self.floors = 0
        self._made: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._dead: set[Ref] = set()
        self._holders: dict[Key, set[str]] = {}
        self._cpu: dict[str, int] = {}
        self._missing: dict[str, dict[str, TaskRow]] = {}

    def found(self, rows: Iterable[Row], refs: Iterable[Ref]) -> None:
        """Take the founding rows."""
        self.rows = dict(zip(refs, rows, strict=True))

    def take(self, index: int, changes: tuple[RowChange, ...]) -> None:
        """Take one entry's changes, and see that all is well after the last of them.

        Raises:
            Wrong: what is not.
        """
        touched: dict[Key, None] = {}
        nodes: dict[str, None] = {}
        taken: list[TaskRow] = []
        for ref, before, after, _ in changes:
            if before != self.rows.get(ref):
                raise Wrong(f"entry {index} changes a {ref} that nobody had written")
            if ref.kind is _NODE:
                self._see_node(before, after)
            if after is None:
                self._see_deletion(index, before)
                del self.rows[ref]
                self._dead.add(ref)
            else:
                _see_forward(index, ref, before, after)
                if before is None and ref in self._dead:
                    raise Wrong(f"{ref} comes back at {index}")
                if before is None:
                    self._made[ref.id] = self.now
                self.rows[ref] = after
            if _is_evicted(before, after):
                self.evictions += 1
            if _is_taken(before, after):
                taken.append(after)  # type: ignore[arg-type] # a task
            for row, sign in ((before, -1), (after, 1)):
                if row is not None:
                    self._book(row, sign, touched, nodes)
        for key in touched:
            holders = self._holders.get(key, ())
            if len(holders) > self._most(key):
                raise Wrong(f"entry {index}: {' '.join(key)} is held by {sorted(holders)}")
        for node in nodes:
            self._see_room(index, node)
        for change in changes:
            for row in (change.before, change.after):
                if isinstance(row, TaskRow):
                    self._come_back(row)
        for task in taken:
            self._see_floor(index, task)

    def _most(self, key: Key) -> int:
        """Return how many may hold a key."""
        service = self.rows.get(Ref(Kind.SERVICE, key[1])) if key[0] == "slot" else None
        if isinstance(service, ServiceRow):
            return 2 if service.api.Spec.Name in OVERLAPPING else 1
        return 2 if key[0] == "slot" else 1  # of a service that is gone

    def _see_floor(self, index: int, task: TaskRow) -> None:
        """See that an update takes no ready task that its floor needs.

        Start-first takes none before another one of its place is ready, stop-first none while so
        many that it took have not come back as it may replace at a time.
        """
        service = self.rows.get(Ref(Kind.SERVICE, task.api.ServiceID))
        if not isinstance(service, ServiceRow) or self._has_to_leave(task.api.NodeID):
            return
        if any(_is_ready(other) for other in self._wanted_at(task)):
            return
        self.floors += 1
        config = settings_of(service.api)
        if config.Order == START_FIRST and not why_stop_first(service.api.Spec):
            raise Wrong(
                f"entry {index}: ready task {task.api.ID} is taken, and none is in its place"
            )
        missing = self._missing.setdefault(task.api.ServiceID, {})
        missing[task.place] = task
        for place, taken in list(missing.items()):
            if not self._is_missing(taken, config):
                del missing[place]
        if config.Parallelism and len(missing) > config.Parallelism:
            raise Wrong(
                f"entry {index}: task {task.api.ID} is taken, {sorted(missing)} are missing"
            )

    def _is_missing(self, taken: TaskRow, config: UpdateConfig) -> bool:
        """Return whether the place of a task that an update took still lacks a ready one for it.

        Not where its next one was lost with its node, or failed and that is tolerated: no update
        waits for these.
        """
        wanted = self._wanted_at(taken)
        if not wanted or any(_is_ready(task) for task in wanted):
            return False
        if any(self._has_to_leave(task.api.NodeID) for task in wanted):
            return False
        return not (config.FailureAction == "continue" and any(map(_has_failed, wanted)))

    def _come_back(self, task: TaskRow) -> None:
        """Forget that a task is missing where that is over, by whatever happened."""
        missing = self._missing.get(task.api.ServiceID, {})
        service = self.rows.get(Ref(Kind.SERVICE, task.api.ServiceID))
        if not isinstance(service, ServiceRow):
            self._missing.pop(task.api.ServiceID, None)
        elif task.place in missing and (
            self._has_to_leave(task.api.NodeID)
            or task.api.Status.Err == REASON
            or not self._is_missing(missing[task.place], settings_of(service.api))
        ):
            del missing[task.place]

    def _wanted_at(self, task: TaskRow) -> list[TaskRow]:
        """Return the tasks that shall run in a task's place."""
        ids = self._holders.get(("slot", task.api.ServiceID, task.place), ())
        rows = (self.rows[Ref(Kind.TASK, each)] for each in sorted(ids))
        return [row for row in rows if isinstance(row, TaskRow)]

    def _has_to_leave(self, node_id: str) -> bool:
        """Return whether tasks have to leave a node, or had to a moment ago."""
        if not node_id:
            return False
        left_at = max(self._left.get(node_id, -S), self._lost.get(node_id, -S))
        if left_at >= 0 and left_at >= self.now - LOST_LATELY_NS:
            return True
        row = self.rows.get(Ref(_NODE, node_id))
        drained = isinstance(row, NodeRow) and row.api.Spec.Availability == "drain"
        return drained or self._is_lost(node_id)

    def see_overlap(self, task: TaskRow, other: TaskRow) -> None:
        """Two containers of one slot run at the same time; see that it had to be.

        It has to when the elder is known to have ended or is on a node that was taken for lost when
        its successor was made, or when it did not stop in time.

        Raises:
            Wrong: it had not.
        """
        service = self.rows.get(Ref(Kind.SERVICE, task.api.ServiceID))
        if isinstance(service, ServiceRow) and service.api.Spec.Name in OVERLAPPING:
            return
        if other.private.spec_index > task.private.spec_index:
            task, other = other, task
        if other.api.Status.State > TaskState.RUNNING or not self.clocks_agree:
            return
        made_at = self._made.get(task.api.ID, 0)
        lost_at = self._lost.get(other.api.NodeID, -LOST_LATELY_NS)
        if self._is_lost(other.api.NodeID) or lost_at >= made_at - LOST_LATELY_NS:
            return
        if self.now - made_at < STOP_TIMEOUT_NS - S:
            raise Wrong(f"task {task.api.ID} starts beside {other.api.ID} of its slot")

    def _is_lost(self, node_id: str) -> bool:
        node = self.rows.get(Ref(_NODE, node_id))
        return not isinstance(node, NodeRow) or node.api.Status.State == "down"

    def _see_node(self, before: Row | None, after: Row | None) -> None:
        """Note when a node was down last; see that no grace is cut short."""
        if not isinstance(before, NodeRow):
            return
        was, private = before.api.Status, before.private
        for row in (before, after):
            if isinstance(row, NodeRow) and row.api.Spec.Availability == "drain":
                self._left[before.api.ID] = self.now
        if was.State == "down" or (isinstance(after, NodeRow) and after.api.Status.State == "down"):
            self._lost[before.api.ID] = self.now
        if not isinstance(after, NodeRow) or not self.clocks_agree:
            return
        status = after.api.Status
        judged = status.State == "down" and status.Message == "heartbeat failure"
        excused = was.State == "disconnected" and after.api.UpdatedAt < private.grace_until - S
        if judged and excused:
            raise Wrong(f"node {before.api.ID} is down within the grace that it has")

    def _see_deletion(self, index: int, before: Row | None) -> None:
        """See that no task is forgotten that may still run."""
        lives = isinstance(before, TaskRow) and _holds_place(before)
        if lives and Ref(_NODE, before.api.NodeID) in self.rows:
            raise Wrong(f"task {before.api.ID} is deleted at {index} and may still run")

    def _book(self, row: Row, sign: int, touched: dict[Key, None], nodes: dict[str, None]) -> None:
        for key in _exclusive(row):
            touched[key] = None
            holders = self._holders.setdefault(key, set())
            if sign > 0:
                holders.add(row.api.ID)
            else:
                holders.discard(row.api.ID)
        if isinstance(row, TaskRow) and _holds_place(row):
            nodes[row.api.NodeID] = None
            demand = demand_of(row).cpu
            self._cpu[row.api.NodeID] = self._cpu.get(row.api.NodeID, 0) + sign * demand

    def _see_room(self, index: int, node_id: str) -> None:
        node = self.rows.get(Ref(_NODE, node_id))
        if isinstance(node, NodeRow):
            offered = node.api.Description.Resources.NanoCPUs
            if self._cpu.get(node_id, 0) > offered:
                raise Wrong(f"entry {index}: node {node_id} is given more than it has")


def _see_forward(index: int, ref: Ref, before: Row | None, after: Row) -> None:
    if version_of(after) != index:
        raise Wrong(f"{ref} is written at {index} with version {version_of(after)}")
    if before is None:
        return
    if version_of(before) > index:  # one entry may write a row several times
        raise Wrong(f"{ref} had version {version_of(before)} before {index}")
    if isinstance(before, TaskRow) and isinstance(after, TaskRow):
        one, other = before.api, after.api
        if other.Status.State < one.Status.State or other.DesiredState < one.DesiredState:
            raise Wrong(f"task {ref.id} goes back at {index}")
        if one.NodeID and other.NodeID != one.NodeID:
            raise Wrong(f"task {ref.id} moves from {one.NodeID} to {other.NodeID} at {index}")


def _is_evicted(before: Row | None, after: Row | None) -> bool:
    if not isinstance(before, TaskRow) or not isinstance(after, TaskRow):
        return False
    return after.api.Status.Err == REASON and before.api.Status.Err != REASON


def _is_taken(before: Row | None, after: Row | None) -> bool:
    """Return whether a task that runs on is no longer to: not for good, as by a scale."""
    if not isinstance(before, TaskRow) or not isinstance(after, TaskRow):
        return False
    return (
        before.api.Status.State is TaskState.RUNNING
        and after.api.Status.State is TaskState.RUNNING
        and before.api.DesiredState <= TaskState.RUNNING
        and after.api.DesiredState is TaskState.SHUTDOWN
    )


def _is_ready(task: TaskRow) -> bool:
    return task.api.Status.State is TaskState.RUNNING


def _has_failed(task: TaskRow) -> bool:
    return bool(task.private.failures) or task.api.Status.State > TaskState.RUNNING


def _holds_place(task: TaskRow) -> bool:
    return TaskState.ASSIGNED <= task.api.Status.State <= TaskState.RUNNING


def _may_be_placed(task: TaskRow) -> bool:
    wanted = task.api.DesiredState <= TaskState.COMPLETE
    return wanted and task.api.Status.State < TaskState.ASSIGNED


def _exclusive(row: Row) -> Iterable[Key]:
    """Return what only one row may hold at a time."""
    if isinstance(row, TaskRow):
        task = row.api
        if task.ServiceID and task.JobIteration is not None:
            if task.DesiredState <= TaskState.COMPLETE:
                yield ("slot", task.ServiceID, row.place, str(task.JobIteration.Index))
        elif task.ServiceID and task.DesiredState <= TaskState.RUNNING:
            yield ("slot", task.ServiceID, row.place)
        if _holds_place(row):
            for port in demand_of(row).ports:
                yield ("host port", task.NodeID, port)
        if _holds_place(row) or _may_be_placed(row):
            for attachment in task.NetworksAttachments:
                for address in attachment.Addresses:
                    yield ("address", attachment.Network.ID, address)
    elif isinstance(row, ServiceRow):
        for published in row.api.Endpoint.Ports:
            if published.PublishedPort and published.PublishMode == "ingress":
                yield ("port", published.Protocol, str(published.PublishedPort))
        for vip in row.api.Endpoint.VirtualIPs:
            yield ("address", vip.NetworkID, vip.Addr)
        yield ("name", row.api.Spec.Name)
