"""What nodes have, what tasks hold of it, and what is left.

:class:`Ledger` keeps per-node sums, so that placing a task does not mean adding up all others. It
is a cache and nothing more: everything in it follows from the rows of one view, rows that changed
are exchanged one by one, and a ledger that is not exactly as new as the view is built again.

A task holds resources and host ports from its assignment until it has stopped, whatever is wished
of it; it counts for the spread only while it should run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..model.change import Kind, Ref
from ..model.spec import DiscreteResourceSpec, GenericResource, NamedResourceSpec
from ..model.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..model.objects import NodeRow, TaskRow
    from ..model.task import TaskFailure
    from ..store.view import View

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class Demand(NamedTuple):
    """What one task needs: CPU in 1e-9 cores, memory in bytes, counts by kind, host ports."""

    cpu: int = 0
    memory: int = 0
    generic: tuple[tuple[str, int], ...] = ()
    ports: tuple[str, ...] = ()


class Holding(NamedTuple):
    """What one assigned task takes from its node."""

    node_id: str
    service_id: str
    demand: Demand
    claims: tuple[GenericResource, ...]
    counted: bool


class GroupKey(NamedTuple):
    """Pending tasks that are alike: one service, one spec, and the node if that is preset."""

    service_id: str
    spec_version: int
    node_id: str
    task_id: str  # only for tasks of no service, which are alike to nobody


class NodeLoad:
    """The sums of what is held on one node."""

    __slots__ = ("cpu", "discrete", "memory", "named", "ports", "services", "tasks")

    def __init__(self) -> None:
        self.cpu = 0
        self.memory = 0
        self.tasks = 0
        self.services: dict[str, int] = {}
        self.ports: dict[str, int] = {}
        self.discrete: dict[str, int] = {}
        self.named: dict[tuple[str, str], int] = {}

    def add(self, holding: Holding, sign: int = 1) -> None:
        """Book a holding, or take it back with ``sign`` -1."""
        demand = holding.demand
        self.cpu += sign * demand.cpu
        self.memory += sign * demand.memory
        if holding.counted:
            self.tasks += sign
            _count(self.services, holding.service_id, sign)
        for port in demand.ports:
            _count(self.ports, port, sign)
        for claim in holding.claims:
            if claim.DiscreteResourceSpec is not None:
                discrete = claim.DiscreteResourceSpec
                _count(self.discrete, discrete.Kind, sign * discrete.Value)
            if claim.NamedResourceSpec is not None:
                named = claim.NamedResourceSpec
                _count(self.named, (named.Kind, named.Value), sign)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeLoad) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]  # sums change


class Place(NamedTuple):
    """A node and what is held on it; the load changes in place."""

    node: NodeRow
    load: NodeLoad


class Ledger:
    """All holdings, pending tasks and recent failures of one view.

    Attributes:
        generation: goes up whenever anything changed; what was judged in an older one may be
            judged differently now.
        node_generation: goes up whenever a node came, changed or went.
        nodes: every node, by id.
        pending: ids of the tasks to place, by group, in the order in which they came.
        failures: of the tasks to be placed or running, by service and spec version, then task.
    """

    def __init__(self) -> None:
        self.index = -1
        self.generation = 0
        self.node_generation = 0
        self._reset()

    def _reset(self) -> None:
        self.nodes: dict[str, NodeRow] = {}
        self.pending: dict[GroupKey, dict[str, None]] = {}
        self.failures: dict[tuple[str, int], dict[str, tuple[TaskFailure, ...]]] = {}
        self._loads: dict[str, NodeLoad] = {}
        self._holdings: dict[str, Holding] = {}
        self._groups: dict[str, GroupKey] = {}
        self._failed: dict[str, tuple[str, int]] = {}
        self._places: dict[str, Place] | None = None

    def refresh(self, view: View, touched: set[Ref] | None) -> None:
        """Take in the rows that changed since the last call (None: all there are)."""
        if touched is None:
            self.rebuild(view)
            return
        for ref in sorted(touched, key=lambda ref: ref.id):
            if ref.kind is Kind.TASK:
                self._take_task(ref.id, view.task(ref.id))
            elif ref.kind is Kind.NODE:
                self._take_node(ref.id, view.node(ref.id))
        if touched:
            self.generation += 1
        self.index = view.index

    def rebuild(self, view: View) -> None:
        """Forget everything and read the view."""
        self._reset()
        for node in view.nodes():
            self._take_node(node.api.ID, node)
        for task in view.tasks():
            self._take_task(task.api.ID, task)
        self.generation += 1
        self.index = view.index

    def places(self) -> Mapping[str, Place]:
        """Return all nodes with their loads, in the order of their ids."""
        if self._places is None:
            self._places = {
                node_id: Place(self.nodes[node_id], self._loads.setdefault(node_id, NodeLoad()))
                for node_id in sorted(self.nodes)
            }
        return self._places

    def book(self, holding: Holding, sign: int = 1) -> None:
        """Add a holding that is only planned, or take it back with ``sign`` -1."""
        self._loads.setdefault(holding.node_id, NodeLoad()).add(holding, sign)

    def _take_node(self, node_id: str, row: NodeRow | None) -> None:
        self._places = None
        self.node_generation += 1
        if row is None:
            self.nodes.pop(node_id, None)
        else:
            self.nodes[node_id] = row

    def _take_task(self, task_id: str, row: TaskRow | None) -> None:
        before = self._holdings.pop(task_id, None)
        if before is not None:
            self.book(before, -1)
        group = self._groups.pop(task_id, None)
        if group is not None:
            _discard(self.pending, group, task_id)
        failed = self._failed.pop(task_id, None)
        if failed is not None:
            _discard(self.failures, failed, task_id)
        if row is not None:
            self._add_task(task_id, row)

    def _add_task(self, task_id: str, row: TaskRow) -> None:
        state, wanted = row.api.Status.State, row.api.DesiredState
        if TaskState.ASSIGNED <= state <= TaskState.RUNNING and row.api.NodeID:
            holding = self._holdings[task_id] = holding_of(row)
            self.book(holding)
        elif state is TaskState.PENDING and wanted <= TaskState.COMPLETE:
            group = self._groups[task_id] = group_of(row)
            self.pending.setdefault(group, {})[task_id] = None
        if row.private.failures and wanted <= TaskState.COMPLETE:
            key = self._failed[task_id] = (row.api.ServiceID, row.private.spec_version)
            self.failures.setdefault(key, {})[task_id] = row.private.failures


# --- of one task ---------------------------------------------------------------------------------


def group_of(task: TaskRow) -> GroupKey:
    """Return which pending tasks a pending task is alike to."""
    own = task.api.ID if not task.api.ServiceID else ""
    return GroupKey(task.api.ServiceID, task.private.spec_version, task.api.NodeID, own)


def holding_of(task: TaskRow) -> Holding:
    """Return what an assigned task takes from its node."""
    return Holding(
        node_id=task.api.NodeID,
        service_id=task.api.ServiceID,
        demand=demand_of(task),
        claims=task.api.GenericResources,
        counted=task.api.DesiredState <= TaskState.COMPLETE,
    )


def demand_of(task: TaskRow) -> Demand:
    """Return what a task needs of whichever node it runs on."""
    ports = host_ports(task)
    resources = task.api.Spec.Resources
    reserved = resources.Reservations if resources is not None else None
    if reserved is None:
        return Demand(ports=ports) if ports else _NO_DEMAND
    generic: dict[str, int] = {}
    for wish in reserved.GenericResources:
        if wish.DiscreteResourceSpec is not None:
            discrete = wish.DiscreteResourceSpec
            _count(generic, discrete.Kind, discrete.Value)
    return Demand(reserved.NanoCPUs, reserved.MemoryBytes, tuple(sorted(generic.items())), ports)


_NO_DEMAND = Demand()


def host_ports(task: TaskRow) -> tuple[str, ...]:
    """Return the ports that a task binds on its node, as ``protocol/number``; 0 binds any."""
    endpoint = task.private.endpoint
    if endpoint is None:
        return ()
    return tuple(
        f"{port.Protocol or 'tcp'}/{port.PublishedPort}"
        for port in endpoint.Ports
        if port.PublishMode == "host" and port.PublishedPort
    )


# --- generic resources ---------------------------------------------------------------------------


def generic_free(node: NodeRow, load: NodeLoad, kind: str) -> int:
    """Return how many of a generic resource a node has left, named ones and counted ones."""
    names, count = _offer(node, load, kind)
    return len(names) + max(0, count)


def claim(
    node: NodeRow, load: NodeLoad, wanted: Iterable[tuple[str, int]]
) -> tuple[GenericResource, ...]:
    """Return the generic resources that a task gets; names first, in order.

    The caller has made sure that there are enough.
    """
    claims: list[GenericResource] = []
    for kind, count in wanted:
        names, _ = _offer(node, load, kind)
        for name in names[:count]:
            named = NamedResourceSpec(Kind=kind, Value=name)
            claims.append(GenericResource(NamedResourceSpec=named))
        rest = count - len(names[:count])
        if rest > 0:
            discrete = DiscreteResourceSpec(Kind=kind, Value=rest)
            claims.append(GenericResource(DiscreteResourceSpec=discrete))
    return tuple(claims)


def _offer(node: NodeRow, load: NodeLoad, kind: str) -> tuple[list[str], int]:
    names: list[str] = []
    count = -load.discrete.get(kind, 0)
    for offer in node.api.Description.Resources.GenericResources:
        named, discrete = offer.NamedResourceSpec, offer.DiscreteResourceSpec
        if named is not None and named.Kind == kind and (kind, named.Value) not in load.named:
            names.append(named.Value)
        if discrete is not None and discrete.Kind == kind:
            count += discrete.Value
    return sorted(names), count


def _count(counts: dict[KeyT, int], key: KeyT, number: int) -> None:
    total = counts.get(key, 0) + number
    if total:
        counts[key] = total
    else:
        counts.pop(key, None)


def _discard(groups: dict[KeyT, dict[str, ValueT]], key: KeyT, task_id: str) -> None:
    members = groups[key]
    del members[task_id]
    if not members:
        del groups[key]
