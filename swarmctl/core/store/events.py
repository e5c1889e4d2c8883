"""What changes of rows are told to the world: Docker's events of the swarm, and a few of ours.

Laws:

- Every manager tells the same of the same entry of the log, times included.
- Attributes are Docker's: the name, and the old and new value of what changed
  (moby daemon/events.go: logServiceEvent, logNodeEvent).
- A change that the API does not show is no event: restart counters, certificates asked for.
- Nothing secret is told. Of the private halves only a node's role and whether it is reachable, a
  service's number and what scaling decided are read.

Tasks are told of on request only, since there are many; Docker has no events of them. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from ..model.base import NEVER, Version
from ..model.change import Kind
from ..model.event import CREATE, RECOMMEND, REMOVE, SCALE, TASK, UPDATE, Event
from ..model.network import is_predefined
from ..model.objects import ConfigRow, NetworkRow, NodeRow, SecretRow, ServiceRow, TaskRow
from ..model.scaling import replicas_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.objects import Row
    from ..model.service import ScaleDecision, Service
    from .store import RowChange

R = TypeVar("R", ServiceRow, NodeRow, TaskRow, SecretRow, ConfigRow, NetworkRow)

Attributes = dict[str, str]


def events_of(change: RowChange, *, tasks: bool) -> Iterator[Event]:
    """Return what one changed row has to tell; mostly one event, or none.

    Args:
        tasks: somebody asks about tasks.
    """
    row = change.after if change.after is not None else change.before
    if isinstance(row, TaskRow):
        if tasks:
            yield from _task_events(change, row)
    elif isinstance(row, ServiceRow):
        yield from _service_events(change, row)
    elif isinstance(row, NodeRow):
        yield from _node_events(change, row)
    elif isinstance(row, NetworkRow):
        if not is_predefined(row.api) and _is_news(change):
            yield _event(change, row, {"name": row.api.Name}, row.api.Labels)
    elif isinstance(row, (SecretRow, ConfigRow)) and _is_news(change):
        yield _event(change, row, {"name": row.api.Spec.Name}, row.api.Spec.Labels)


def leader_event(row: NodeRow, *, leads: bool, at: int) -> Event:
    """Return that a manager begins or ceases to lead; no row says so.

    Args:
        at: when this manager noticed, in nanoseconds.
    """
    attributes = {"name": _node_name(row)}
    _note(attributes, "leader", str(not leads).lower(), str(leads).lower())
    return Event(at, Kind.NODE.value, UPDATE, row.api.ID, attributes, row.api.Spec.Labels)


def _event(change: RowChange, row: Row, attributes: Attributes, labels: Attributes) -> Event:
    action = UPDATE
    if change.before is None:
        action = CREATE
    elif change.after is None:
        action = REMOVE
    return Event(change.at, change.ref.kind.value, action, row.api.ID, attributes, labels)


def _is_news(change: RowChange) -> bool:
    """Whether a client could see a difference, beyond that there was a write."""
    before, after = change.before, change.after
    if before is None or after is None:
        return True
    if isinstance(before, NetworkRow) or isinstance(after, NetworkRow):
        return before.api != after.api
    unstamped = {"Version": Version(), "UpdatedAt": NEVER}
    return bool(replace(before.api, **unstamped) != replace(after.api, **unstamped))


def _note(attributes: Attributes, what: str, old: str, new: str) -> None:
    if old != new:
        attributes[f"{what}.old"], attributes[f"{what}.new"] = old, new


def _pair(change: RowChange, kind: type[R]) -> tuple[R, R] | None:
    """Return an updated row as it was and as it is."""
    before, after = change.before, change.after
    if isinstance(before, kind) and isinstance(after, kind):
        return before, after
    return None


# --- services ------------------------------------------------------------------------------------


def _service_events(change: RowChange, row: ServiceRow) -> Iterator[Event]:
    attributes = {"name": row.api.Spec.Name}
    labels = row.api.Spec.Labels
    pair = _pair(change, ServiceRow)
    if pair is None:
        yield _event(change, row, attributes, labels)
        return
    before, after = pair
    _note(attributes, "image", _image(before.api), _image(after.api))
    _note(attributes, "replicas", _replicas(before), _replicas(after))
    _note(attributes, "updatestate", _update_state(before.api), _update_state(after.api))
    if len(attributes) > 1 or _is_news(change):
        yield _event(change, row, attributes, labels)
    for decision in _new_decisions(before, after):
        yield _scaled(change, after, decision)


def _image(service: Service) -> str:
    container = service.Spec.TaskTemplate.ContainerSpec
    return "" if container is None else container.Image


def _replicas(row: ServiceRow) -> str:
    """Return the number in effect, "" for a service that has none."""
    if row.api.Spec.Mode.Replicated is None:
        return ""
    return "0" if row.api.Stopped is not None else str(replicas_of(row))


def _update_state(service: Service) -> str:
    return "" if service.UpdateStatus is None else service.UpdateStatus.State


def _new_decisions(before: ServiceRow, after: ServiceRow) -> Iterator[ScaleDecision]:
    if after.private.scale is None or after.private.scale is before.private.scale:
        return
    known = () if before.private.scale is None else before.private.scale.decisions
    for decision in after.private.scale.decisions:
        if decision not in known:
            yield decision


def _scaled(change: RowChange, row: ServiceRow, decision: ScaleDecision) -> Event:
    """Return a decision of scaling: applied, or only recommended; with rule, reason and values."""
    attributes = {
        "name": row.api.Spec.Name,
        "rule": decision.rule,
        "reason": decision.reason,
        "replicas.old": str(decision.before),
        "replicas.new": str(decision.after),
    }
    for metric, value in decision.values.items():
        attributes[f"value.{metric}"] = f"{value:.6g}"
    recommended = not decision.applied and decision.before != decision.after
    action = RECOMMEND if recommended else SCALE
    return Event(change.at, Kind.SERVICE.value, action, row.api.ID, attributes, row.api.Spec.Labels)


# --- nodes ---------------------------------------------------------------------------------------


def _node_events(change: RowChange, row: NodeRow) -> Iterator[Event]:
    attributes = {"name": _node_name(row)}
    pair = _pair(change, NodeRow)
    if pair is not None:
        before, after = pair
        old, new = before.api, after.api
        _note(attributes, "availability", old.Spec.Availability, new.Spec.Availability)
        _note(attributes, "role", before.private.role, after.private.role)
        _note(attributes, "state", old.Status.State, new.Status.State)
        if before.private.raft_id and after.private.raft_id:
            _note(attributes, "reachability", _reachability(before), _reachability(after))
        if len(attributes) == 1 and not _is_news(change):
            return
    yield _event(change, row, attributes, row.api.Spec.Labels)


def _reachability(row: NodeRow) -> str:
    return "reachable" if row.private.reachable else "unreachable"


def _node_name(row: NodeRow) -> str:
    return row.api.Spec.Name or row.api.Description.Hostname


# --- tasks ---------------------------------------------------------------------------------------


def _task_events(change: RowChange, row: TaskRow) -> Iterator[Event]:
    attributes = {
        "name": row.name,
        "service": row.private.service_name,
        "service.id": row.api.ServiceID,
        "node.id": row.api.NodeID,
        "state": row.api.Status.State.value,
        "desiredstate": row.api.DesiredState.value,
    }
    pair = _pair(change, TaskRow)
    if pair is not None:
        old, new = pair[0].api, pair[1].api
        if (old.Status, old.DesiredState, old.NodeID) == (new.Status, new.DesiredState, new.NodeID):
            return
        _note(attributes, "state", old.Status.State.value, new.Status.State.value)
        _note(attributes, "desiredstate", old.DesiredState.value, new.DesiredState.value)
    status = row.api.Status
    if status.Err:
        attributes["err"] = status.Err
    if status.ContainerStatus is not None:
        attributes["container.id"] = status.ContainerStatus.ContainerID
        if status.ContainerStatus.ExitCode:
            attributes["exitCode"] = str(status.ContainerStatus.ExitCode)
    labels = row.private.service_labels
    found = _event(change, row, attributes, labels)
    yield found._replace(type=TASK)
