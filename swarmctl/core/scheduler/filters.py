"""Filters: which nodes can run a task, and why the others cannot, in words.

A filter looks at the task once and gives back a check for nodes, or None when it has nothing to
say about such a task. A check answers with *room*: how many tasks of this kind the node takes, as
far as this filter is concerned. 0 refuses; most filters know only 0 and :data:`NO_LIMIT`. So one
round over the nodes is enough for a whole group of tasks.

Filters run in the order of :data:`BUILT_IN`, those of plugins after them, and the first that
refuses is the one that is blamed; those that look at the node alone (``static``) go first, since
their answers can be kept while nodes stand still. The sentences are Docker's where Docker has one
(docker-api.md section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..errors import InvalidConstraint
from ..model.constraint import Constraint, node_matches, parse_constraints
from ..model.objects import NodeRow, TaskRow
from ..model.suits import (
    HOST_IMAGES,
    PlatformKey,
    has_platform,
    platform_keys,
    runs_containers,
    runs_processes,
)
from .resources import NodeLoad, demand_of, generic_free

if TYPE_CHECKING:
    from ..model.objects import PluginDescription
    from ..model.spec import ContainerSpec

NO_LIMIT = 1 << 31

Check = Callable[[NodeRow, NodeLoad], int]


class Filter(Protocol):
    """One reason why a node may not run a task. Pure: it answers from its arguments alone.

    Attributes:
        static: True when checks look at the node and never at its load. Equal checks of a static
            filter must answer alike; their answers are kept until a node changes.
    """

    static: bool

    def check(self, task: TaskRow) -> Check | None:
        """Return the check for tasks like ``task``; None when every node will do."""
        ...

    def explain(self, nodes: int) -> str:
        """Return what to tell a user about ``nodes`` nodes that this filter refused."""
        ...


class ReadyFilter:
    """The node answers, takes tasks, and its executor's engine works."""

    static = True

    def check(self, task: TaskRow) -> Check:
        return _is_ready

    def explain(self, nodes: int) -> str:
        return f"{_nodes(nodes)} not available for new tasks"


def _is_ready(node: NodeRow, _load: NodeLoad) -> int:
    ready = (
        node.api.Status.State == "ready"
        and node.api.Spec.Availability == "active"
        and node.private.can_run
    )
    return NO_LIMIT if ready else 0


class ResourceFilter:
    """What the task reserves is free: CPU, memory, generic resources."""

    static = False

    def check(self, task: TaskRow) -> Check | None:
        demand = demand_of(task)
        cpu, memory, generic = demand.cpu, demand.memory, demand.generic
        if not (cpu or memory or generic):
            return None

        def room(node: NodeRow, load: NodeLoad) -> int:
            offered = node.api.Description.Resources
            fits = (offered.NanoCPUs - load.cpu) // cpu if cpu else NO_LIMIT
            if memory:
                fits = min(fits, (offered.MemoryBytes - load.memory) // memory)
            for kind, count in generic:
                if count:
                    fits = min(fits, generic_free(node, load, kind) // count)
            return fits

        return room

    def explain(self, nodes: int) -> str:
        return f"insufficient resources on {_nodes(nodes)}"


class PluginFilter:
    """The node's engine has the volume and log drivers that the task names.

    A node that tells nothing of its plugins passes, and one that names no log plugin at all is
    not judged by those: engines have log drivers that they do not list.
    """

    static = True

    def check(self, task: TaskRow) -> Check | None:
        volumes = _volume_drivers(task.api.Spec.ContainerSpec)
        driver = task.api.Spec.LogDriver or task.private.log_driver
        log_driver = driver.Name if driver is not None and driver.Name != "none" else ""
        return _HasPlugins(volumes, log_driver) if volumes or log_driver else None

    def explain(self, nodes: int) -> str:
        return f"missing plugin on {_nodes(nodes)}"


class _HasPlugins(msgspec.Struct, frozen=True):
    # A value, as the other static checks are: equal demands share one round over the nodes.
    volumes: tuple[str, ...]
    log_driver: str

    def __call__(self, node: NodeRow, _load: NodeLoad) -> int:
        plugins = node.api.Description.Engine.Plugins
        if not plugins:
            return NO_LIMIT
        has_all = all(_has(plugins, "Volume", name) for name in self.volumes)
        if has_all and self.log_driver and any(plugin.Type == "Log" for plugin in plugins):
            has_all = _has(plugins, "Log", self.log_driver)
        return NO_LIMIT if has_all else 0


def _volume_drivers(container: ContainerSpec | None) -> tuple[str, ...]:
    drivers: list[str] = []
    for mount in container.Mounts if container is not None else ():
        options = mount.VolumeOptions
        if mount.Type == "volume" and options is not None and options.DriverConfig is not None:
            name = options.DriverConfig.Name
            if name and name != "local":
                drivers.append(name)
    return tuple(drivers)


def _has(plugins: tuple[PluginDescription, ...], kind: str, name: str) -> bool:
    names = (name, f"{name}:latest")
    return any(plugin.Type == kind and plugin.Name in names for plugin in plugins)


class ConstraintFilter:
    """The node meets the placement constraints."""

    static = True

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.Constraints:
            return None
        try:
            return _Meets(parse_constraints(placement.Constraints))
        except InvalidConstraint:  # no API accepts one; a node that might be wrong is no node
            return _refused

    def explain(self, nodes: int) -> str:
        return f"scheduling constraints not satisfied on {_nodes(nodes)}"


class _Meets(msgspec.Struct, frozen=True):
    constraints: tuple[Constraint, ...]

    def __call__(self, node: NodeRow, _load: NodeLoad) -> int:
        return NO_LIMIT if node_matches(self.constraints, node) else 0


def _refused(_node: NodeRow, _load: NodeLoad) -> int:
    return 0


class PlatformFilter:
    """The node's architecture and system are among those the image has."""

    static = True

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.Platforms:
            return None
        return _IsPlatform(platform_keys(placement.Platforms))

    def explain(self, nodes: int) -> str:
        return f"unsupported platform on {_nodes(nodes)}"


class _IsPlatform(msgspec.Struct, frozen=True):
    wanted: frozenset[PlatformKey]

    def __call__(self, node: NodeRow, _load: NodeLoad) -> int:
        return NO_LIMIT if has_platform(self.wanted, node) else 0


class ExecutorFilter:
    """The node's executor runs that kind of image: plain processes, or containers."""

    static = True

    def check(self, task: TaskRow) -> Check | None:
        container = task.api.Spec.ContainerSpec
        if container is None:
            return None
        return _runs_processes if container.Image in HOST_IMAGES else _runs_containers

    def explain(self, nodes: int) -> str:
        return f"executor cannot run this image on {_nodes(nodes)}"


def _runs_processes(node: NodeRow, _load: NodeLoad) -> int:
    return NO_LIMIT if runs_processes(node) else 0


def _runs_containers(node: NodeRow, _load: NodeLoad) -> int:
    return NO_LIMIT if runs_containers(node) else 0


class HostPortFilter:
    """Nobody on the node has the ports that the task binds there."""

    static = False

    def check(self, task: TaskRow) -> Check | None:
        ports = demand_of(task).ports
        if not ports:
            return None
        return lambda _node, load: 0 if any(port in load.ports for port in ports) else 1

    def explain(self, nodes: int) -> str:
        return f"host-mode port already in use on {_nodes(nodes)}"


class MaxReplicasFilter:
    """The service has not as many tasks on the node as it allows."""

    static = False

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.MaxReplicas:
            return None
        most, service_id = placement.MaxReplicas, task.api.ServiceID
        return lambda _node, load: max(0, most - load.services.get(service_id, 0))

    def explain(self, nodes: int) -> str:
        return "max replicas per node limit exceed"


BUILT_IN: tuple[Filter, ...] = (
    ReadyFilter(),
    ResourceFilter(),
    PluginFilter(),
    ConstraintFilter(),
    PlatformFilter(),
    ExecutorFilter(),
    HostPortFilter(),
    MaxReplicasFilter(),
)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
