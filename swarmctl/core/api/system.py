"""Routes of the node itself: ping, version, info, registry look-up."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import trio

from ..errors import NoLeader, NotFound, SwarmError
from ..model.base import Time
from ..model.duration import format_time
from ..model.objects import NodeDescription
from ..model.task import TaskState
from ..node import LocalState
from ..wire.http1 import Response
from .call import json_reply
from .present import present_cluster
from .route import API_VERSION, MIN_API_VERSION

if TYPE_CHECKING:
    from ..manager.manager import Manager
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

DESCRIBE_S = 3.0
TWO_MANAGERS = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides no fault "
    "tolerance, and poses a high risk to lose control over the cluster. Refer to "
    "https://docs.docker.com/engine/swarm/admin_guide/ to configure the Swarm for fault-tolerance."
)


async def ping(server: ApiServer, call: Call) -> Reply:
    """``HEAD`` and ``GET /_ping``: negotiation facts in the headers."""
    body = b"OK" if call.request.method == "GET" else b""
    return Response(
        200,
        (
            ("Builder-Version", "2"),
            ("Swarm", _swarm_header(server)),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ),
        body,
    )


def _swarm_header(server: ApiServer) -> str:
    state = server.node.state
    if state is not LocalState.ACTIVE:
        return str(state.value)
    return "active/manager" if server.node.is_manager else "active/worker"


async def version(server: ApiServer, _call: Call) -> Reply:
    """``GET /version``"""
    system = platform.uname()
    details = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Arch": _go_arch(system.machine),
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": system.release,
        "Os": "linux",
    }
    engine = {"Name": "Engine", "Version": server.product_version, "Details": details}
    return json_reply(
        {
            "Platform": {"Name": "swarmctl"},
            "Components": [engine],
            "Version": server.product_version,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": _go_arch(system.machine),
            "KernelVersion": system.release,
            "BuildTime": "",
        }
    )


async def info(server: ApiServer, _call: Call) -> Reply:
    """``GET /info``"""
    described, warnings = await _describe(server)
    plugins_here = server.plugins()
    warnings += [f"WARNING: {each.Why}" for each in plugins_here if each.State in ("off", "failed")]
    engine = described.Engine
    running = _running_tasks(server)
    plugins: dict[str, list[str] | None] = {
        kind: [each.Name for each in engine.Plugins if each.Type == kind] or None
        for kind in ("Volume", "Network", "Authorization", "Log")
    }
    system = platform.uname()
    return json_reply(
        {
            "ID": server.node.node_id,
            "Name": server.node.hostname,
            "Containers": running,
            "ContainersRunning": running,
            "ContainersPaused": 0,
            "ContainersStopped": 0,
            "Images": 0,
            "SystemTime": format_time(Time(server.clock.now())),
            "ServerVersion": server.product_version,
            "DockerRootDir": server.node.state_dir,
            "OSType": "linux",
            "OperatingSystem": await trio.to_thread.run_sync(_operating_system),
            "Architecture": system.machine,
            "KernelVersion": system.release,
            "NCPU": described.Resources.NanoCPUs // 1_000_000_000 or os.cpu_count() or 1,
            "MemTotal": described.Resources.MemoryBytes,
            "Plugins": plugins,
            "Labels": [f"{key}={value}" for key, value in sorted(engine.Labels.items())],
            "Executor": {"Name": server.node.executor.name, "EngineVersion": engine.EngineVersion},
            "LoadedPlugins": plugins_here,
            "ExperimentalBuild": False,
            "LiveRestoreEnabled": True,
            "Warnings": warnings or None,
            "Swarm": _swarm_info(server),
        }
    )


def _running_tasks(server: ApiServer) -> int:
    """Return how many tasks run here, as far as the tables tell; a worker has no tables."""
    manager, node_id = server.node.manager, server.node.node_id
    if manager is None:
        return 0
    tasks = manager.view.tasks_on(node_id)
    return sum(1 for row in tasks if row.api.Status.State is TaskState.RUNNING)


def _operating_system() -> str:
    """Return the distribution's name for itself, read from a file once."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]  # has a default by its standard
    except OSError:
        return platform.system()


def _swarm_info(server: ApiServer) -> dict[str, object]:
    node = server.node
    managers = [{"NodeID": "", "Addr": address} for address in node.managers] or None
    shown: dict[str, object] = {
        "NodeID": node.node_id,
        "NodeAddr": node.advertise_addr.rpartition(":")[0].strip("[]"),
        "LocalNodeState": node.state.value,
        "ControlAvailable": node.manager is not None,
        "Error": node.error,
        "RemoteManagers": managers,
    }
    manager = node.manager
    if manager is None:
        return shown
    rows = list(manager.view.nodes())
    count = sum(1 for row in rows if row.private.raft_id)
    peers = [
        {"NodeID": row.api.ID, "Addr": row.private.manager_addr}
        for row in rows
        if row.private.manager_addr
    ]
    cluster = manager.view.cluster()
    if not manager.leading and not manager.leader.is_elsewhere():
        shown["Error"] = node.error or NoLeader().message
    warnings = _manager_warnings(manager, count)
    shown.update(
        RemoteManagers=peers or managers,
        Nodes=len(rows),
        Managers=count,
        Cluster=present_cluster(cluster.api) if cluster is not None else None,
        FormatLevel=cluster.private.format_level if cluster is not None else 0,
    )
    if warnings:
        shown["Warnings"] = warnings
    return shown


def _manager_warnings(manager: Manager, managers: int) -> list[str]:
    """Return what an administrator should know. What a leader found counts while it leads."""
    warnings: list[str] = []
    told = [manager.disk_complaint]
    if manager.leading:
        warnings += manager.alarms.texts.values()
        told += [manager.dispatcher.warning, *manager.membership.waiting]
    if managers == 2:
        warnings.append(TWO_MANAGERS)
    return warnings + [f"WARNING: {text}" for text in told if text]


async def _describe(server: ApiServer) -> tuple[NodeDescription, list[str]]:
    """Ask the executor what this host offers; an engine that is down is a warning.

    So is what its network driver cannot do.
    """
    agent = server.node.agent
    trouble = (agent.network_warning,) if agent is not None and agent.network_warning else ()
    try:
        with trio.fail_after(DESCRIBE_S):
            described = await server.node.executor.describe()
    except (SwarmError, trio.TooSlowError) as error:
        name = server.node.executor.name
        return NodeDescription(), [f"WARNING: the {name} engine does not answer: {error}"]
    return described.node, [f"WARNING: {text}" for text in (*described.warnings, *trouble)]


async def distribution(_server: ApiServer, call: Call) -> Reply:
    """``GET /distribution/{name}/json``: answered quickly, since clients wait for it on create.

    Raises:
        NotFound: always, in this release; clients then keep the tag as it is.
    """
    raise NotFound(f"no registry is asked for {call.params['name']} in this release of swarmctl")


def _go_arch(machine: str) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


HANDLERS = {"ping": ping, "version": version, "info": info, "distribution": distribution}
