"""The labels that mark what this node made on an engine, containers and networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarmctl.plugins import NodeIdentity

CLUSTER_LABEL = "swarmctl.cluster.id"
NODE_LABEL = "swarmctl.node.id"
NETWORK_LABEL = "swarmctl.network.id"
TASK_LABEL = "com.docker.swarm.task.id"


def owner_filter(identity: NodeIdentity) -> list[str]:
    """Return the ``label`` filter that finds what is this node's and nothing else."""
    return [f"{CLUSTER_LABEL}={identity.cluster_id}", f"{NODE_LABEL}={identity.node_id}"]
