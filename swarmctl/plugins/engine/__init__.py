"""What executors for container engines share; public, for authors of others.

An engine that has Docker's model of containers needs a :class:`Dialect` and no more:
``EngineExecutor(settings, dialect)`` is then a whole :class:`swarmctl.plugins.Executor`. The
Docker and the Podman executor are made so.

    calls      threads, limits, errors            task       one task, from pull to removal
    line       one connection that can be cut     container  one container
    changes    creates and starts, seen through   observe    events, bells
    pull       images                             networks   bridges, made and removed
    files      secrets on a tmpfs                 visitors   users' containers on them
    executor   puts them together

    pure: spec, inspection, endpoints, output, labels

What is here knows no engine; what only one engine needs stays in its own distribution.
"""

from __future__ import annotations

from .calls import Engine, NotAnEngine, Refused, quoted
from .container import Container, ContainerGone
from .dialect import Body, Dialect, Json, NetworkWords, PullRequest, SeenNetwork
from .endpoints import (
    MTU,
    Endpoint,
    driver_options,
    endpoints,
    ipam_configs,
    joined,
    nameservers,
    network_labels,
    own_choice,
    predefined,
)
from .executor import EngineExecutor
from .files import TaskFiles
from .inspection import Inspection, Listed
from .labels import NETWORK_LABEL, TASK_LABEL
from .line import CONNECT_TIMEOUT_S, Answer, Line, Transport, open_wire
from .output import LogParser
from .spec import (
    CPU_PERIOD_US,
    FileBind,
    container_labels,
    container_spec,
    cpu_quota_us,
    host_address,
    host_entries,
    host_ports,
    log_driver,
    resource_env,
    stop_timeout_s,
)

__all__ = [
    "CONNECT_TIMEOUT_S",
    "CPU_PERIOD_US",
    "MTU",
    "NETWORK_LABEL",
    "TASK_LABEL",
    "Answer",
    "Body",
    "Container",
    "ContainerGone",
    "Dialect",
    "Endpoint",
    "Engine",
    "EngineExecutor",
    "FileBind",
    "Inspection",
    "Json",
    "Line",
    "Listed",
    "LogParser",
    "NetworkWords",
    "NotAnEngine",
    "PullRequest",
    "Refused",
    "SeenNetwork",
    "TaskFiles",
    "Transport",
    "container_labels",
    "container_spec",
    "cpu_quota_us",
    "driver_options",
    "endpoints",
    "host_address",
    "host_entries",
    "host_ports",
    "ipam_configs",
    "joined",
    "log_driver",
    "nameservers",
    "network_labels",
    "open_wire",
    "own_choice",
    "predefined",
    "quoted",
    "resource_env",
    "stop_timeout_s",
]
