"""The Protocol of a network driver: it makes this node's kernel agree with the endpoint table.

There is one driver per node process, made by the ``swarmctl_network_driver`` hook. It is told what
shall be, never what to do: the table of endpoints and the tasks whose network namespaces it may
enter. Laws, checked by ``swarmctl.plugins.testing.check_network_driver``:

- What it made outlives the daemon, and the daemon after adopts it without a dropped packet.
- It finds and repairs drift by comparing kernel and table, and touches nothing that is not its own.
- It knows no engine: an engine's executor makes the bridge of a network (named by
  :func:`bridge_name`) and puts the task on it; the driver does everything beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.endpoints import EndpointTable
    from .executor import NodeIdentity


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A network namespace that is on networks of ours.

    Attributes:
        id: the task's id; for a container that a user put on an attachable network, its own.
        pid: a process in it.
        networks: ids of the networks that it is on.
    """

    id: str
    pid: int
    networks: tuple[str, ...] = ()


class NetworkState(msgspec.Struct, frozen=True, kw_only=True):
    """How well kernel and table agree.

    Attributes:
        version: of the newest table that the kernel agreed with, whole.
        problems: sentences, such as a published port that another process has.
        repaired: how often something was found that was not as it should be, and mended, by what
            it was; since the daemon's start.
    """

    version: int = 0
    problems: tuple[str, ...] = ()
    repaired: dict[str, int] = msgspec.field(default_factory=dict)


class NetworkDriver(Protocol):
    """Carries the traffic of this node's tasks."""

    name: str

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Reconcile and audit until cancelled, which takes nothing down."""
        ...

    def want(self, table: EndpointTable, sandboxes: Sequence[Sandbox]) -> None:
        """Say what shall be from now on. Returns at once; :meth:`wait_version` tells when it is."""
        ...

    async def wait_version(self, version: int) -> NetworkState:
        """Sleep until the kernel agreed with a table at least this new."""
        ...

    async def wait_sandbox(self, sandbox_id: str) -> None:
        """Sleep until a sandbox that was wanted can reach what it may reach."""
        ...

    def state(self) -> NetworkState:
        """Tell how kernel and table agree now."""
        ...

    async def remove_all(self) -> None:
        """Remove every trace of this node's networks, as when it leaves the swarm."""
        ...
