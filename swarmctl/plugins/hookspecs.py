"""The hooks: every place where a plugin may add to swarmctl, as typed, documented signatures.

Laws for hooks and for those who implement them:

- Hooks are synchronous factories that return objects. They are called on the event loop, so they
  do no I/O and wait for nothing; what awaits is the returned object's Protocol. The loader refuses
  ``async def`` implementations.
- A hook that chooses one of many is ``firstresult`` and keyed by name: an implementation returns
  None for every name that is not its own.
- Hooks grow by new arguments (an implementation may take fewer); none is renamed in place.
- A new kind of object gets its hook here together with its Protocol, never before.

Only ``loader.py`` calls hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.agent.executor import Executor
    from ..core.agent.network import NetworkDriver
    from ..core.allocator.policy import Allocator
    from ..core.autoscaler.source import MetricSource
    from ..core.scheduler.decide import Scheduler
    from ..core.scheduler.filters import Filter

PROJECT = "swarmctl"
PLUGIN_API = 1
"""Level of this plugin surface; goes up when an implementation that was right may stop working."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class PluginInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin says of itself, shown by ``swarmctl plugin ls``.

    Attributes:
        name: what users call it, such as ``docker``.
        version: its own version.
        api: the :data:`PLUGIN_API` it was written for.
    """

    name: str
    version: str
    api: int = PLUGIN_API


class ExecutorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much an executor asks of its engine at a time.

    Attributes:
        pulls: image pulls; they take long and wait for registries.
        changes: calls that make, start or remove something; more of them only queue in the engine.
    """

    pulls: int = 3
    changes: int = 8


class ExecutorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's configuration says to its executor.

    Attributes:
        state_dir: absolute path of this node's state directory; what an executor keeps goes into a
            directory of its own in there.
        engine: endpoint such as ``unix:///var/run/docker.sock``; None for the executor's default.
        limits: how much to ask of the engine at a time.
        options: the executor's own section of the configuration, not interpreted by swarmctl.
    """

    state_dir: str
    engine: str | None = None
    limits: ExecutorLimits = msgspec.field(default_factory=ExecutorLimits)
    options: dict[str, str] = msgspec.field(default_factory=dict)


@hookspec
def swarmctl_plugin_info() -> PluginInfo:
    """Tell what this plugin is.

    Called by the node process, worker or manager, once, when the plugin is loaded. Every plugin
    answers for itself; one without this hook is listed under the name it was loaded by. A plugin
    written for a newer ``PluginInfo.api`` than :data:`PLUGIN_API` is refused.

    .. versionadded:: 0.1
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def swarmctl_executor(name: str, settings: ExecutorSettings) -> Executor | None:
    """Make the executor called ``name``, or return None when ``name`` is not yours.

    Called by the node process, worker or manager, when it starts: once with the configured name,
    or with one name after the other until an executor answers. The first plugin that does not
    return None wins. Returning an executor says nothing about its engine: one that is down is
    found out by :meth:`~swarmctl.plugins.Executor.describe`.

    Args:
        name: as given to ``--executor``, such as ``docker`` or ``process``.
        settings: of this node.

    Raises:
        SwarmError: the settings cannot be used; its text says which and what would be right.

    .. versionadded:: 0.1
    """
    raise NotImplementedError


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's configuration says to a scheduler.

    Attributes:
        options: the scheduler's own section of the configuration, not interpreted by swarmctl.
    """

    options: dict[str, str] = msgspec.field(default_factory=dict)


@hookspec(firstresult=True)
def swarmctl_scheduler(name: str, settings: SchedulerSettings) -> Scheduler | None:
    """Make the scheduler called ``name``, or return None when ``name`` is not yours.

    Called by the node process when it starts, on workers too, since any node may come to lead. The
    first plugin that does not return None wins. The object is used by the leader alone, in a
    process of the plugin's own (docs/plugins.md); its answers are checked against swarmctl's own
    filters before they count.

    Args:
        name: as configured, ``spread`` by default.
        settings: of this node.

    Raises:
        SwarmError: the settings cannot be used; its text says which and what would be right.

    .. versionadded:: 0.1
    """
    raise NotImplementedError


@hookspec
def swarmctl_scheduler_filters() -> Sequence[Filter]:
    """Make filters that say which nodes can run a task, besides swarmctl's own.

    Called in the plugin's own process on the manager that leads; every plugin answers for itself.
    All of them are run after swarmctl's, on the nodes that those let pass, for every task of every
    service: have a filter look for a label of yours first. Loading a plugin is enough to have its
    filters run, so have the same plugins on all managers. One that fails three times is switched
    off, and its filters refuse nothing any more.

    .. versionadded:: 0.1
    """
    raise NotImplementedError


class AllocatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's configuration says to an allocator.

    Attributes:
        options: the allocator's own section of the configuration, not interpreted by swarmctl.
    """

    options: dict[str, str] = msgspec.field(default_factory=dict)


@hookspec(firstresult=True)
def swarmctl_allocator(name: str, settings: AllocatorSettings) -> Allocator | None:
    """Make the allocator called ``name``, or return None when ``name`` is not yours.

    Called by the node process when it starts, on workers too, since any node may come to lead. The
    first plugin that does not return None wins. The object is used by the leader alone, in a
    process of the plugin's own (docs/plugins.md); it chooses among what is free, and what it chose
    is checked before it counts.

    Args:
        name: as configured, ``subnets`` by default.
        settings: of this node.

    Raises:
        SwarmError: the settings cannot be used; its text says which and what would be right.

    .. versionadded:: 0.1
    """
    raise NotImplementedError


class NetworkDriverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's configuration says to its network driver.

    Attributes:
        state_dir: absolute path of this node's state directory; what a driver keeps goes into a
            directory of its own in there.
        executor: name of the executor that runs this node's tasks.
        options: the driver's own section of the configuration, not interpreted by swarmctl.
    """

    state_dir: str
    executor: str = ""
    options: dict[str, str] = msgspec.field(default_factory=dict)


@hookspec(firstresult=True)
def swarmctl_network_driver(name: str, settings: NetworkDriverSettings) -> NetworkDriver | None:
    """Make the network driver called ``name``, or return None when ``name`` is not yours.

    Called by the node process, worker or manager, once when it starts; never for ``none``. The
    first plugin that does not return None wins. Whether it can work on this host is found out when
    it is run.

    Args:
        name: as configured, ``overlay`` by default.
        settings: of this node.

    Raises:
        SwarmError: the settings cannot be used; its text says which and what would be right.

    .. versionadded:: 0.1
    """
    raise NotImplementedError


@hookspec
def swarmctl_strategies() -> Sequence[str]:
    """Name the schedulers of yours that a service may choose by its label ``swarmctl.strategy``.

    Called by the node process when it starts; every plugin answers for itself. Each name is then
    made by ``swarmctl_scheduler``, with the settings of that name, and used for the services that
    ask for it; the configured scheduler places all others. A service that asks for a name that
    nobody gives is refused, so have the same plugins on all managers.

    .. versionadded:: 0.1
    """
    raise NotImplementedError


class MetricSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's configuration says to a metric source.

    Attributes:
        options: the source's own section of the configuration, not interpreted by swarmctl.
    """

    options: dict[str, str] = msgspec.field(default_factory=dict)


@hookspec(firstresult=True)
def swarmctl_metric_source(name: str, settings: MetricSettings) -> MetricSource | None:
    """Make the metric source called ``name``, or return None when ``name`` is not yours.

    Called on a manager when a service first asks for a metric of that kind: the part before ``+``
    of the scheme in ``swarmctl.scale.metric.<name>``. The first plugin that does not return None
    wins. The object is used by the leader alone, for every address of its kind; a service that asks
    for a kind that nobody makes is refused, so have the same plugins on all managers.

    Args:
        name: such as ``prometheus``.
        settings: of this node.

    Raises:
        SwarmError: the settings cannot be used; its text says which and what would be right.

    .. versionadded:: 0.1
    """
    raise NotImplementedError
