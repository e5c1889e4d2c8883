"""Assignments for tests: one container task, made from what the test is about."""

from __future__ import annotations

from typing import Any

from swarmctl.plugins import NodeIdentity
from swarmctl.plugins.model import ContainerSpec, Task, TaskAssignment, TaskSpec

IMAGE = "alpine:latest"


def identity(name: str = "node-a", *, state_dir: str = "/nowhere") -> NodeIdentity:
    return NodeIdentity(
        cluster_id="cluster-1", node_id=name, hostname=f"host-of-{name}", state_dir=state_dir
    )


def assign(
    *,
    task_id: str = "t0",
    service: str = "web",
    slot: int = 1,
    task_spec: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    assignment: dict[str, Any] | None = None,
    **container: Any,
) -> TaskAssignment:
    """A task of ``service``; keywords that are not named here are fields of its ContainerSpec."""
    spec = ContainerSpec(**{"Image": IMAGE, **container})
    made = Task(
        ID=task_id,
        ServiceID=f"id-of-{service}",
        Slot=slot,
        NodeID="node-a",
        Spec=TaskSpec(ContainerSpec=spec, **(task_spec or {})),
        **(task or {}),
    )
    return TaskAssignment(
        task=made, service_name=service, cluster_id="cluster-1", **(assignment or {})
    )
