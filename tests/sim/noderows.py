"""The rows that founding, joining, promoting and demoting leave in the tables."""

from __future__ import annotations

from msgspec.structs import replace

from swarmctl.core.model.base import Platform
from swarmctl.core.model.cluster import (
    ClusterInfo,
    DispatcherConfig,
    OrchestrationConfig,
    SwarmSpec,
)
from swarmctl.core.model.objects import (
    ClusterRow,
    EngineDescription,
    Node,
    NodeDescription,
    NodePrivate,
    NodeRow,
    NodeSpec,
    NodeStatus,
)
from swarmctl.core.model.spec import Resources

CPUS = 3


def cluster_row(heartbeat_ns: int, history: int) -> ClusterRow:
    spec = SwarmSpec(
        Name="default",
        Dispatcher=DispatcherConfig(HeartbeatPeriod=heartbeat_ns),
        Orchestration=OrchestrationConfig(TaskHistoryRetentionLimit=history),
    )
    return ClusterRow(api=ClusterInfo(ID="cluster", Spec=spec))


def node_row(name: str, raft_id: int) -> NodeRow:
    """Return a node as it is once its certificate is issued."""
    role = "manager" if raft_id else "worker"
    return NodeRow(
        api=Node(
            ID=name,
            Spec=NodeSpec(Role=role, Labels={"zone": "a" if name in ("h0", "h3") else "b"}),
            Description=describe(name),
            Status=NodeStatus(State="unknown"),
        ),
        private=NodePrivate(role=role, raft_id=raft_id, manager_addr=name if raft_id else ""),
    )


def as_manager(row: NodeRow, raft_id: int) -> NodeRow:
    """Return a node's row as of its promotion (0: demotion)."""
    role = "manager" if raft_id else "worker"
    api = replace(row.api, Spec=replace(row.api.Spec, Role=role))
    addr = row.api.ID if raft_id else ""
    private = replace(row.private, role=role, raft_id=raft_id, manager_addr=addr)
    return replace(row, api=api, private=private)


def describe(name: str) -> NodeDescription:
    return NodeDescription(
        Hostname=name,
        Platform=Platform(Architecture="x86_64", OS="linux"),
        Resources=Resources(NanoCPUs=CPUS * 10**9, MemoryBytes=16 << 30),
        Engine=EngineDescription(Labels={"swarmctl.executor": "docker"}),
    )
