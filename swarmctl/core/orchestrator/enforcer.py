"""Evicting tasks whose node no longer suits them: labels, role or resources changed.

One key is one node. A violator's observed state becomes REJECTED, so the ordinary restart rules
replace it; the agent stops what ran. Drained, paused and lost nodes are not judged here.

The constraints that count are the service's present ones. Where an update has just *added* a
constraint, its outdated tasks are the rollout's to replace at its own pace: they are evicted only
when they break the constraints that they were made with, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import InvalidConstraint
from ..model.base import Time
from ..model.change import NOTHING, Advance, At, Decision, Kind, Ref, Transaction
from ..model.constraint import node_matches, parse_constraints
from ..model.spec import Resources
from ..model.task import TaskState
from .restart import EVICTED
from .slots import creation_order, spec_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Requirement
    from ..model.objects import NodeRow, ServiceRow, TaskRow
    from ..model.spec import GenericResource, TaskSpec
    from ..store.view import View

NAME = "enforcer"
REASON = EVICTED

_NOTHING_TOLD = Resources()


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    """Return the nodes that changed or that services ask something else of (None: every node)."""
    if touched is None:
        return [node.api.ID for node in view.nodes()]
    found = dict.fromkeys(ref.id for ref in touched if ref.kind is Kind.NODE)
    for ref in touched:
        service = view.service(ref.id) if ref.kind is Kind.SERVICE else None
        if service is not None and _constraints(service.api.Spec.TaskTemplate):
            found.update(dict.fromkeys(_homes_of_outdated(view, service)))
    return found


def _homes_of_outdated(view: View, service: ServiceRow) -> Iterable[str]:
    """Return the nodes with tasks that were not placed by the service's present constraints."""
    for task in view.tasks_of(service.api.ID):
        if task.private.spec_version != service.private.spec_index and _is_live(task):
            yield task.api.NodeID


def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:  # noqa: ARG001
    """Return the evictions from the node with id ``key``."""
    node = view.node(key)
    if node is None or node.api.Spec.Availability != "active" or node.api.Status.State == "down":
        return NOTHING
    tasks = sorted(filter(_is_live, view.tasks_on(key)), key=creation_order)
    rest = _Rest(node)
    evicted = [
        task for task in tasks if not _meets_constraints(view, task, node) or not rest.take(task)
    ]
    # A node, or a service, that changes once more meanwhile may suit; then it is judged again.
    as_seen = At(ref=Ref(Kind.NODE, key), version=node.api.Version.Index)
    return Decision(
        transactions=tuple(
            Transaction(changes=(_eviction(task, now),), requires=(as_seen, *_as_asked(view, task)))
            for task in evicted
        )
    )


def _as_asked(view: View, task: TaskRow) -> Iterable[Requirement]:
    service = view.service(task.api.ServiceID) if task.api.ServiceID else None
    return () if service is None else (spec_unchanged(service),)


def _is_live(task: TaskRow) -> bool:
    """A finished task, or one that is being stopped, holds nothing worth judging."""
    wanted = TaskState.ASSIGNED <= task.api.DesiredState <= TaskState.COMPLETE
    return wanted and TaskState.ASSIGNED <= task.api.Status.State < TaskState.COMPLETE


def _eviction(task: TaskRow, now: int) -> Advance:
    status = replace(
        task.api.Status,
        Timestamp=Time(now),
        State=TaskState.REJECTED,
        Message="rejected",
        Err=REASON,
    )
    return Advance(task_id=task.api.ID, status=status, node_id=task.api.NodeID)


def _meets_constraints(view: View, task: TaskRow, node: NodeRow) -> bool:
    service = view.service(task.api.ServiceID) if task.api.ServiceID else None
    if service is None:
        return _allows(task.api.Spec, node)
    if _allows(service.api.Spec.TaskTemplate, node):
        return True
    is_outdated = task.private.spec_version != service.private.spec_index
    return is_outdated and _allows(task.api.Spec, node)


def _constraints(spec: TaskSpec) -> tuple[str, ...]:
    return spec.Placement.Constraints if spec.Placement is not None else ()


def _allows(spec: TaskSpec, node: NodeRow) -> bool:
    constraints = _constraints(spec)
    if not constraints:
        return True
    try:
        return node_matches(parse_constraints(constraints), node)
    except InvalidConstraint:  # no API accepts one; nothing to hold a running task to
        return True


class _Rest:
    """What a node has left for its tasks, taken from in their order; oldest tasks stay longest."""

    def __init__(self, node: NodeRow) -> None:
        offered = node.api.Description.Resources
        self._unknown = offered == _NOTHING_TOLD
        self._cpu = offered.NanoCPUs
        self._memory = offered.MemoryBytes
        self._named: set[tuple[str, str]] = set()
        self._discrete: dict[str, int] = {}
        for resource in offered.GenericResources:
            named, discrete = resource.NamedResourceSpec, resource.DiscreteResourceSpec
            if named is not None:
                self._named.add((named.Kind, named.Value))
            if discrete is not None:
                before = self._discrete.get(discrete.Kind, 0)
                self._discrete[discrete.Kind] = before + discrete.Value

    def take(self, task: TaskRow) -> bool:
        """Take what a task holds; return False, and take nothing, when it is not there."""
        if self._unknown:
            return True
        resources = task.api.Spec.Resources
        reserved = resources.Reservations if resources is not None else None
        cpu = reserved.NanoCPUs if reserved is not None else 0
        memory = reserved.MemoryBytes if reserved is not None else 0
        too_much = (cpu and cpu > self._cpu) or (memory and memory > self._memory)
        if too_much or not all(map(self._has, task.api.GenericResources)):
            return False
        self._cpu -= cpu
        self._memory -= memory
        for claim in task.api.GenericResources:
            if claim.DiscreteResourceSpec is not None:
                self._discrete[claim.DiscreteResourceSpec.Kind] -= claim.DiscreteResourceSpec.Value
        return True

    def _has(self, claim: GenericResource) -> bool:
        named, discrete = claim.NamedResourceSpec, claim.DiscreteResourceSpec
        if named is not None and (named.Kind, named.Value) not in self._named:
            return False
        return discrete is None or self._discrete.get(discrete.Kind, 0) >= discrete.Value
