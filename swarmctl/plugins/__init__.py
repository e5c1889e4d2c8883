"""The public plugin surface: what a plugin imports, and nothing else of swarmctl.

A plugin is a module (or package) with functions marked ``hookimpl`` that implement hooks of
:mod:`swarmctl.plugins.hookspecs`. This package gives the marker, the Protocols that the objects
made by hooks implement, and their errors; :mod:`swarmctl.plugins.model` gives the nouns. The
built-ins come in through the same door and use nothing that a plugin cannot.

Law: nothing here starts anything. Finding and loading plugins is ``loader.py``'s, and only the
daemon imports that.
"""

from __future__ import annotations

from ..core.agent.executor import (
    EngineHost,
    EngineUnavailable,
    Executor,
    ExecutorDescription,
    ExecutorError,
    ExitStatus,
    LogLine,
    LogOptions,
    NetworkHost,
    NodeIdentity,
    TaskController,
    TaskObservation,
    TaskStats,
)
from ..core.agent.network import (
    Finding,
    NetworkDriver,
    NetworkState,
    NodeReport,
    Probe,
    Sandbox,
    bridge_name,
    mac_address,
)
from ..core.agent.presence import is_at_work
from ..core.allocator.policy import AddressSpace, AddressUser, Allocator, SubnetWish
from ..core.autoscaler.source import MetricSource, MetricUnavailable
from ..core.clock import SystemClock
from ..core.errors import InvalidArgument, SwarmError
from ..core.scheduler.decide import Candidate, Scheduler
from ..core.scheduler.filters import NO_LIMIT, Check, Filter, Needed
from ..core.scheduler.resources import NodeLoad, Place
from ..core.store.view import View
from .hookspecs import (
    PLUGIN_API,
    AllocatorSettings,
    ExecutorLimits,
    ExecutorSettings,
    MetricSettings,
    NetworkDriverSettings,
    PluginInfo,
    SchedulerSettings,
    hookimpl,
)

__all__ = [
    "NO_LIMIT",
    "PLUGIN_API",
    "AddressSpace",
    "AddressUser",
    "Allocator",
    "AllocatorSettings",
    "Candidate",
    "Check",
    "EngineHost",
    "EngineUnavailable",
    "Executor",
    "ExecutorDescription",
    "ExecutorError",
    "ExecutorLimits",
    "ExecutorSettings",
    "ExitStatus",
    "Filter",
    "Finding",
    "InvalidArgument",
    "LogLine",
    "LogOptions",
    "MetricSettings",
    "MetricSource",
    "MetricUnavailable",
    "Needed",
    "NetworkDriver",
    "NetworkDriverSettings",
    "NetworkHost",
    "NetworkState",
    "NodeIdentity",
    "NodeLoad",
    "NodeReport",
    "Place",
    "PluginInfo",
    "Probe",
    "Sandbox",
    "Scheduler",
    "SchedulerSettings",
    "SubnetWish",
    "SwarmError",
    "SystemClock",
    "TaskController",
    "TaskObservation",
    "TaskStats",
    "View",
    "bridge_name",
    "hookimpl",
    "is_at_work",
    "mac_address",
]
