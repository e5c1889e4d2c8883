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
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from ..errors import InvalidConstraint
from ..model.constraint import Constraint, node_matches, parse_constraints
from ..model.objects import NodeRow, TaskRow
from ..model.suits import (
    EXECUTOR_LABEL,
    HOST_IMAGES,
    NETWORKS,
    PlatformKey,
    has_platform,
    lack_of,
    limits_needed,
    platform_key,
    platform_keys,
    runs_containers,
    runs_processes,
)
from ..model.validate_cluster import PREDEFINED_LABEL
from .quantities import cpus, memory
from .resources import NodeLoad, demand_of, generic_free

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.objects import PluginDescription
    from ..model.spec import ContainerSpec
    from .resources import Place

NO_LIMIT = 1 << 31

Check = Callable[[NodeRow, NodeLoad], int]


class Needed(NamedTuple):
    """What a task needs, and what a node has instead, in words."""

    needs: str
    has: str


class Filter(Protocol):
    """One reason why a node may not run a task. Pure: it answers from its arguments alone.

    Attributes:
        static: True when checks look at the node and never at its load. Equal checks of a static
            filter must answer alike; their answers are kept until a node changes.
        name: one word, for tables.
    """

    static: bool
    name: str

    def check(self, task: TaskRow) -> Check | None:
        """Return the check for tasks like ``task``; None when every node will do."""
        ...

    def explain(self, nodes: int) -> str:
        """Return what to tell a user about ``nodes`` nodes that this filter refused."""
        ...

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        """Return what the task needs and what a node has, with units; for one that it refuses.

        Args:
            others: the tasks that hold something on the node.
        """
        ...


class ReadyFilter:
    """The node answers, takes tasks, and its executor's engine works."""

    static = True
    name = "ready"

    def check(self, task: TaskRow) -> Check:
        return _is_ready

    def explain(self, nodes: int) -> str:
        return f"{_nodes(nodes)} not available for new tasks"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        node = place.node.api
        if node.Status.State != "ready":
            has = f"the node is {node.Status.State or 'unknown'}"
        elif node.Spec.Availability != "active":
            has = f"its availability is {node.Spec.Availability}"
        else:
            has = "its engine does not answer"
        return Needed("a node that is ready and active", has)


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
    name = "resources"

    def check(self, task: TaskRow) -> Check | None:
        demand = demand_of(task)
        cpu, size, generic = demand.cpu, demand.memory, demand.generic
        if not (cpu or size or generic):
            return None

        def room(node: NodeRow, load: NodeLoad) -> int:
            offered = node.api.Description.Resources
            fits = (offered.NanoCPUs - load.cpu) // cpu if cpu else NO_LIMIT
            if size:
                fits = min(fits, (offered.MemoryBytes - load.memory) // size)
            for kind, count in generic:
                if count:
                    fits = min(fits, generic_free(node, load, kind) // count)
            return fits

        return room

    def explain(self, nodes: int) -> str:
        return f"insufficient resources on {_nodes(nodes)}"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        demand, (node, load) = demand_of(task), place
        offered = node.api.Description.Resources
        lacking: list[Needed] = []
        for words, wanted, whole, taken in (
            (cpus, demand.cpu, offered.NanoCPUs, load.cpu),
            (memory, demand.memory, offered.MemoryBytes, load.memory),
        ):
            free = max(0, whole - taken)
            if wanted > free:
                lacking.append(Needed(words(wanted), f"{words(free)} free of {words(whole)}"))
        for kind, count in demand.generic:
            free = generic_free(node, load, kind)
            if count > free:
                whole = generic_free(node, NodeLoad(), kind)
                lacking.append(Needed(f"{count} {kind}", f"{free} {kind} free of {whole}"))
        return Needed(*(", ".join(words) for words in zip(*lacking, strict=True)))


class PluginFilter:
    """The node's engine has the volume and log drivers that the task names.

    A node that tells nothing of its plugins passes, and one that names no log plugin at all is
    not judged by those: engines have log drivers that they do not list.
    """

    static = True
    name = "plugins"

    def check(self, task: TaskRow) -> Check | None:
        wanted = _drivers(task)
        return wanted if wanted.volumes or wanted.log_driver else None

    def explain(self, nodes: int) -> str:
        return f"missing plugin on {_nodes(nodes)}"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        wanted = _drivers(task)
        plugins = place.node.api.Description.Engine.Plugins
        kinds = [("Volume", name) for name in wanted.volumes]
        kinds += [("Log", wanted.log_driver)] if wanted.log_driver else []
        missing = [(kind, name) for kind, name in kinds if not _has(plugins, kind, name)]
        there = ", ".join(sorted(plugin.Name for plugin in plugins)) or "none"
        needs = ", ".join(f"{kind.lower()} driver {name}" for kind, name in missing)
        return Needed(needs, f"drivers {there}")


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


def _drivers(task: TaskRow) -> _HasPlugins:
    driver = task.api.Spec.LogDriver or task.private.log_driver
    log_driver = driver.Name if driver is not None and driver.Name != "none" else ""
    return _HasPlugins(_volume_drivers(task.api.Spec.ContainerSpec), log_driver)


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
    name = "constraints"

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

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        placement = task.api.Spec.Placement
        texts = placement.Constraints if placement is not None else ()
        try:
            unmet = [one for one in parse_constraints(texts) if not one.matches(place.node)]
        except InvalidConstraint as error:
            return Needed(", ".join(texts), f"nothing: {error}")
        return Needed(
            ", ".join(one.text for one in unmet),
            ", ".join(f"{one.key} is {one.actual(place.node)!r}" for one in unmet),
        )


class _Meets(msgspec.Struct, frozen=True):
    constraints: tuple[Constraint, ...]

    def __call__(self, node: NodeRow, _load: NodeLoad) -> int:
        return NO_LIMIT if node_matches(self.constraints, node) else 0


def _refused(_node: NodeRow, _load: NodeLoad) -> int:
    return 0


class PlatformFilter:
    """The node's architecture and system are among those the image has."""

    static = True
    name = "platform"

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.Platforms:
            return None
        return _IsPlatform(platform_keys(placement.Platforms))

    def explain(self, nodes: int) -> str:
        return f"unsupported platform on {_nodes(nodes)}"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        placement = task.api.Spec.Placement
        wanted = sorted(platform_keys(placement.Platforms if placement is not None else ()))
        has = platform_key(place.node.api.Description.Platform)
        return Needed(" or ".join(map(_platform_text, wanted)), _platform_text(has))


class _IsPlatform(msgspec.Struct, frozen=True):
    wanted: frozenset[PlatformKey]

    def __call__(self, node: NodeRow, _load: NodeLoad) -> int:
        return NO_LIMIT if has_platform(self.wanted, node) else 0


def _platform_text(platform: tuple[str, str]) -> str:
    arch, system = platform
    return f"{system or 'any'}/{arch or 'any'}" if arch or system else "unknown"


class ExecutorFilter:
    """The node's executor runs that kind of image: plain processes, or containers."""

    static = True
    name = "executor"

    def check(self, task: TaskRow) -> Check | None:
        container = task.api.Spec.ContainerSpec
        if container is None:
            return None
        return _runs_processes if container.Image in HOST_IMAGES else _runs_containers

    def explain(self, nodes: int) -> str:
        return f"executor cannot run this image on {_nodes(nodes)}"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        container = task.api.Spec.ContainerSpec
        image = container.Image if container is not None else ""
        kind = place.node.api.Description.Engine.Labels.get(EXECUTOR_LABEL, "unknown")
        what = "plain processes" if image in HOST_IMAGES else "containers"
        return Needed(f"an executor that runs {what}", f"executor {kind}")


def _runs_processes(node: NodeRow, _load: NodeLoad) -> int:
    return NO_LIMIT if runs_processes(node) else 0


def _runs_containers(node: NodeRow, _load: NodeLoad) -> int:
    return NO_LIMIT if runs_containers(node) else 0


class AbilityFilter:
    """The node's executor can give what the task needs beyond being run: limits, overlays.

    Most can; one that cannot, such as Podman without root, says so in labels with the reason.
    """

    static = True
    name = "abilities"

    def check(self, task: TaskRow) -> Check | None:
        needed = _abilities(task)
        return _HasAbilities(needed) if needed else None

    def explain(self, nodes: int) -> str:
        return f"executor cannot give the limits or networks asked for on {_nodes(nodes)}"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        lacking = {one: reason for one in _abilities(task) if (reason := lack_of(one, place.node))}
        return Needed(
            ", ".join(_ABILITY_WORDS[one] for one in lacking),
            "; ".join(dict.fromkeys(lacking.values())),
        )


_ABILITY_WORDS = {
    "cpu-limit": "a CPU limit",
    "memory-limit": "a memory limit",
    "pids-limit": "a limit of processes",
    NETWORKS: "an overlay network",
}


class _HasAbilities(msgspec.Struct, frozen=True):
    needed: tuple[str, ...]

    def __call__(self, node: NodeRow, _load: NodeLoad) -> int:
        return 0 if any(lack_of(one, node) for one in self.needed) else NO_LIMIT


def _abilities(task: TaskRow) -> tuple[str, ...]:
    overlays = any(
        not attachment.Network.Spec.Ingress
        and attachment.Network.Spec.Labels.get(PREDEFINED_LABEL) != "true"
        for attachment in task.api.NetworksAttachments
    )
    return (*limits_needed(task.api.Spec), *((NETWORKS,) if overlays else ()))


class HostPortFilter:
    """Nobody on the node has the ports that the task binds there."""

    static = False
    name = "ports"

    def check(self, task: TaskRow) -> Check | None:
        ports = demand_of(task).ports
        if not ports:
            return None
        return lambda _node, load: 0 if any(port in load.ports for port in ports) else 1

    def explain(self, nodes: int) -> str:
        return f"host-mode port already in use on {_nodes(nodes)}"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        taken = [port for port in demand_of(task).ports if port in place.load.ports]
        holders = [
            f"{port} held by {other.name}"
            for port in taken
            for other in others
            if port in demand_of(other).ports
        ]
        return Needed(", ".join(f"host port {port}" for port in taken), ", ".join(holders))


class MaxReplicasFilter:
    """The service has not as many tasks on the node as it allows."""

    static = False
    name = "replicas"

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.MaxReplicas:
            return None
        most, service_id = placement.MaxReplicas, task.api.ServiceID
        return lambda _node, load: max(0, most - load.services.get(service_id, 0))

    def explain(self, nodes: int) -> str:
        return "max replicas per node limit exceed"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        placement = task.api.Spec.Placement
        most = placement.MaxReplicas if placement is not None else 0
        there = place.load.services.get(task.api.ServiceID, 0)
        return Needed(f"at most {most} of its tasks on a node", f"{there} there")


BUILT_IN: tuple[Filter, ...] = (
    ReadyFilter(),
    ResourceFilter(),
    PluginFilter(),
    ConstraintFilter(),
    PlatformFilter(),
    ExecutorFilter(),
    AbilityFilter(),
    HostPortFilter(),
    MaxReplicasFilter(),
)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
