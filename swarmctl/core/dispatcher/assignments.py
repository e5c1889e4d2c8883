"""What a node shall hold, and what to send so that it does.

Pure. A node gets every task that was ever assigned to it and still has a row: live ones to run,
ended ones so that their containers stay until the history drops them. The agent's own reports are
never echoed: a change of status alone sends nothing. An order to stop may have to wait until nobody
sends the task anything new (``drain.py``); it goes out as it was for so long. Secrets, configs and
networks go to a node with the first live task that uses them and are dropped with the last. A new
task is held back until this node has its gateways in the task's networks, which the allocator gives
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from ..model.codec import pack
from ..model.network import is_predefined, subnets_of
from ..model.session import AssignedTask, Assignments, Dependency
from ..model.task import HostNetwork, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..model.objects import NetworkRow, TaskRow
    from ..model.task import Task
    from ..store.view import View


class NodeSet(NamedTuple):
    """Everything one node shall hold, by id. The data of secrets and configs is in there."""

    tasks: Mapping[str, AssignedTask]
    secrets: Mapping[str, Dependency]
    configs: Mapping[str, Dependency]
    networks: Mapping[str, HostNetwork]


EMPTY = NodeSet({}, {}, {}, {})
PART_BYTES_MAX = 4 * 1024 * 1024
_LISTS = ("put", "removed", "secrets", "configs", "networks", "dropped")


def assignments_for(
    view: View, node_id: str, holds: Callable[[TaskRow], bool] = lambda _: False
) -> NodeSet:
    """Return what a node shall hold as the tables stand.

    Args:
        holds: whether a task that shall stop goes on for the time being.
    """
    tasks: dict[str, AssignedTask] = {}
    secrets: dict[str, Dependency] = {}
    configs: dict[str, Dependency] = {}
    networks: dict[str, HostNetwork] = {}
    for row in view.tasks_on(node_id):
        state = row.api.Status.State
        if state < TaskState.ASSIGNED:
            continue
        if state <= TaskState.RUNNING and row.api.NetworksAttachments:
            if is_held_back(view, row):
                continue
            networks.update((one.id, one) for one in _networks(view, row.api))
        tasks[row.api.ID] = _assigned(view, _still_wanted(row) if holds(row) else row)
        if state <= TaskState.RUNNING:
            _add_dependencies(view, row.api, secrets, configs)
    return NodeSet(tasks, secrets, configs, networks)


def _still_wanted(row: TaskRow) -> TaskRow:
    goal = TaskState.RUNNING if row.api.JobIteration is None else TaskState.COMPLETE
    return replace(row, api=replace(row.api, DesiredState=goal))


def is_held_back(view: View, row: TaskRow) -> bool:
    """Return whether a new task's node still lacks a gateway in one of the task's networks.

    One that is to end goes out all the same: only its node can say that it has.
    """
    if row.api.Status.State is not TaskState.ASSIGNED or row.api.DesiredState > TaskState.COMPLETE:
        return False
    return any(not network.gateways for network in _networks(view, row.api))


def _networks(view: View, task: Task) -> list[HostNetwork]:
    """Return what a task's node has in the task's networks, those of the engine left out."""
    found: list[HostNetwork] = []
    for attachment in task.NetworksAttachments:
        row = view.network(attachment.Network.ID)
        if row is not None and not is_predefined(row.api):
            found.append(host_network(row, task.NodeID))
    return found


def host_network(row: NetworkRow, node_id: str) -> HostNetwork:
    """Return what a node has in a network; no gateways while it takes no part."""
    return HostNetwork(
        id=row.api.ID,
        name=row.api.Name,
        vni=row.private.vni,
        subnets=subnets_of(row),
        gateways=row.private.gateways.get(node_id, ()),
        internal=row.api.Internal,
        ingress=row.api.Ingress,
        attachable=row.api.Attachable,
        room=row.private.rooms.get(node_id, ()),
        options=row.api.Options,
    )


def diff(wanted: NodeSet, sent: NodeSet, number: int) -> Assignments | None:
    """Return the message that turns what was sent into what is wanted; None when nothing would.

    Args:
        number: the message's place in the session, from 1; the first is a complete set.
    """
    complete = number == 1
    put = tuple(
        task
        for task_id, task in wanted.tasks.items()
        if task_id not in sent.tasks or not _same(task, sent.tasks[task_id])
    )
    removed = tuple(task_id for task_id in sent.tasks if task_id not in wanted.tasks)
    secrets = tuple(_new(wanted.secrets, sent.secrets))
    configs = tuple(_new(wanted.configs, sent.configs))
    networks = tuple(
        network
        for network_id, network in wanted.networks.items()
        if sent.networks.get(network_id) != network
    )
    dropped = tuple(
        dependency_id
        for before, now in (
            (sent.secrets, wanted.secrets),
            (sent.configs, wanted.configs),
            (sent.networks, wanted.networks),
        )
        for dependency_id in before
        if dependency_id not in now
    )
    if not (complete or put or removed or secrets or configs or networks or dropped):
        return None
    return Assignments(
        number=number,
        complete=complete,
        put=put,
        removed=removed,
        secrets=secrets,
        configs=configs,
        networks=networks,
        dropped=dropped,
    )


def parts_of(message: Assignments, limit_bytes: int = PART_BYTES_MAX) -> list[Assignments]:
    """Return a message in parts that each fit a frame; mostly it is the message alone.

    Parts count up from the message's own number, and all but the last say that there is ``more``.
    """
    whole = _split(message, limit_bytes)
    last = len(whole) - 1
    return [
        replace(
            part,
            number=message.number + place,
            more=place < last,
            complete=message.complete and place == 0,
        )
        for place, part in enumerate(whole)
    ]


def _split(message: Assignments, limit_bytes: int) -> list[Assignments]:
    """Halve until all fit; a single task or secret fits, since it came through a log entry."""
    items = sum(len(getattr(message, name)) for name in _LISTS)
    if items <= 1 or len(pack(message)) <= limit_bytes:
        return [message]
    first: dict[str, tuple[object, ...]] = {}
    second: dict[str, tuple[object, ...]] = {}
    room = items // 2
    for name in _LISTS:
        values = getattr(message, name)
        first[name], second[name] = values[:room], values[room:]
        room = max(0, room - len(values))
    return [
        *_split(replace(message, **first), limit_bytes),
        *_split(replace(message, **second), limit_bytes),
    ]


def _assigned(view: View, row: TaskRow) -> AssignedTask:
    private = row.private
    service = view.service(row.api.ServiceID)
    return AssignedTask(
        task=row.api,
        service_name=private.service_name,
        service_labels=private.service_labels,
        registry_auth=private.registry_auth,
        log_driver=private.log_driver,
        by_node=private.by_node,
        ports=service.api.Endpoint.Ports if service is not None else (),
    )


def _add_dependencies(
    view: View, task: Task, secrets: dict[str, Dependency], configs: dict[str, Dependency]
) -> None:
    container = task.Spec.ContainerSpec
    if container is None:
        return
    for secret_use in container.Secrets:
        secret = view.secret(secret_use.SecretID)
        if secret is not None:
            templating = secret.api.Spec.Templating
            secrets[secret.api.ID] = Dependency(
                id=secret.api.ID,
                data=secret.private.data,
                templating=templating.Name if templating is not None else "",
            )
    for config_use in container.Configs:
        config = view.config(config_use.ConfigID)
        if config is not None:
            templating = config.api.Spec.Templating
            configs[config.api.ID] = Dependency(
                id=config.api.ID,
                data=config.api.Spec.Data,
                templating=templating.Name if templating is not None else "",
            )


def _same(wanted: AssignedTask, sent: AssignedTask) -> bool:
    """True when a node that was sent one need not be sent the other."""
    a, b = wanted.task, sent.task
    if a is b:
        return True
    return (
        a.DesiredState == b.DesiredState
        and (a.Spec is b.Spec or a.Spec == b.Spec)
        and a.NetworksAttachments == b.NetworksAttachments
        and a.GenericResources == b.GenericResources
        and _beside_task(wanted) == _beside_task(sent)
    )


def _beside_task(assigned: AssignedTask) -> tuple[object, ...]:
    return tuple(getattr(assigned, name) for name in _BESIDE_TASK)


_BESIDE_TASK = tuple(
    field.name
    for field in msgspec.structs.fields(AssignedTask)
    if field.name not in {"task", "ports"}
)


def _new(wanted: Mapping[str, Dependency], sent: Mapping[str, Dependency]) -> Iterable[Dependency]:
    return (item for item_id, item in wanted.items() if item_id not in sent)
