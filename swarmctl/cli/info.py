"""``swarmctl info``: this node and its place in a swarm, told to a human or by a template."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from swarmctl.core.model.gofunctions import go_json
from swarmctl.core.model.gotemplate import Template

from .command import command
from .flags import TEXT, Flag
from .wording import bytes_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .api import Json
    from .command import Invocation


@command(
    "info [OPTIONS]",
    "Display information on this node and its swarm",
    Flag("format", TEXT, "json | Go TEMPLATE", short="f"),
)
def info(call: Invocation) -> None:
    """Print what the daemon says of itself; warnings go to standard error."""
    found = call.api.get("/info")
    form = call.given.text("format")
    if form == "json":
        click.echo(go_json(found))
    elif form:
        click.echo(Template(form).render(found))
    else:
        for line in _lines(call.socket, found):
            click.echo(line)
        for warning in [*(found.get("Warnings") or ()), *(found["Swarm"].get("Warnings") or ())]:
            click.echo(warning, err=True)


def _lines(socket: str, found: Json) -> Iterator[str]:
    executor = found.get("Executor") or {}
    version = executor.get("EngineVersion")
    yield f"Name: {found.get('Name', '')}"
    yield f"Server Version: {found.get('ServerVersion', '')}"
    yield f"Socket: {socket}"
    yield f"Executor: {executor.get('Name', '')}" + (f" ({version})" if version else "")
    yield from _swarm_lines(found["Swarm"])
    yield f"Operating System: {found.get('OperatingSystem', '')}"
    yield f"Kernel Version: {found.get('KernelVersion', '')}"
    yield f"Architecture: {found.get('Architecture', '')}"
    yield f"CPUs: {found.get('NCPU', 0)}"
    yield f"Total Memory: {bytes_size(found.get('MemTotal', 0))}"


def _swarm_lines(swarm: Json) -> Iterator[str]:
    yield f"Swarm: {swarm['LocalNodeState']}"
    if swarm.get("Error"):
        yield f" Error: {swarm['Error']}"
    if swarm["LocalNodeState"] == "inactive":
        return
    yield f" NodeID: {swarm.get('NodeID', '')}"
    yield f" Is Manager: {str(bool(swarm.get('ControlAvailable'))).lower()}"
    cluster = swarm.get("Cluster")
    if cluster:
        yield from _cluster_lines(swarm, cluster)
    yield f" Node Address: {swarm.get('NodeAddr', '')}"
    managers = sorted(one["Addr"] for one in swarm.get("RemoteManagers") or ())
    if managers:
        yield " Manager Addresses:"
        for address in managers:
            yield f"  {address}"


def _cluster_lines(swarm: Json, cluster: Json) -> Iterator[str]:
    from swarmctl.core.model.duration import format_duration

    spec = cluster["Spec"]
    yield f" ClusterID: {cluster['ID']}"
    yield f" Managers: {swarm.get('Managers', 0)}"
    yield f" Nodes: {swarm.get('Nodes', 0)}"
    yield f" Data Path Port: {cluster.get('DataPathPort', 0)}"
    yield " Orchestration:"
    yield f"  Task History Retention Limit: {spec['Orchestration']['TaskHistoryRetentionLimit']}"
    yield " Raft:"
    yield f"  Snapshot Interval: {spec['Raft'].get('SnapshotInterval', 0)}"
    yield " Dispatcher:"
    yield f"  Heartbeat Period: {format_duration(spec['Dispatcher'].get('HeartbeatPeriod', 0))}"
    yield " CA Configuration:"
    yield f"  Expiry Duration: {format_duration(spec['CAConfig'].get('NodeCertExpiry', 0))}"
    yield f"  Root Rotation In Progress: {str(cluster['RootRotationInProgress']).lower()}"
    locked = spec["EncryptionConfig"]["AutoLockManagers"]
    yield f" Autolock Managers: {str(locked).lower()}"
