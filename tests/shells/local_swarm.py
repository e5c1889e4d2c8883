"""Nodes on loopback with real disks, sockets and certificates, and engines that pretend."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from swarmctl.core.clock import SystemClock, new_id
from swarmctl.core.model.change import Applied, Change, Transaction
from swarmctl.core.model.cluster import SwarmSpec
from swarmctl.core.model.defaults import merge_init_spec
from swarmctl.core.model.request import InitRequest, JoinRequest
from swarmctl.core.node import LocalNode, NodeSettings
from swarmctl.plugins.null_driver import NullDriver, NullKernel
from swarmctl.plugins.null_exec import NullExecutor, NullWorld
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from swarmctl.core.clock import Clock
    from swarmctl.core.manager.reconcile import Reconciler
    from swarmctl.core.model.cluster import ClusterPrivate

PATIENCE_S = 60.0
SPEC = merge_init_spec(SwarmSpec(), autolock=False)


class Machine:
    """One host: a state directory, an engine, and at most one daemon at a time.

    Attributes:
        work: what its node does while it leads.
        flags: the listen and the advertise address that its daemon is started with.
        kernel: of its network driver; None for none.
    """

    work: Sequence[Reconciler] = ()
    kernel: NullKernel | None = None

    def __init__(self, state_dir: Path, port: int | None = None) -> None:
        self.state_dir = state_dir
        self.address = f"127.0.0.1:{port or free_port()}"
        self.advertised = "127.0.0.1"
        self.flags = ("", "")
        self.world = NullWorld(SystemClock())

    @asynccontextmanager
    async def daemon(self, *, clock: Clock | None = None) -> AsyncIterator[LocalNode]:
        """Run this host's node for the length of the block.

        Args:
            clock: its wall clock; by default the true one.
        """
        settings = NodeSettings(
            state_dir=str(self.state_dir),
            hostname=self.state_dir.name,
            listen_addr=self.flags[0],
            advertise_addr=self.flags[1],
        )
        executor = NullExecutor(self.world)
        driver = NullDriver(self.kernel) if self.kernel is not None else None
        node = LocalNode(
            settings, executor, self.work, clock or SystemClock(), new_id, driver=driver
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            yield node
            nursery.cancel_scope.cancel()

    async def init(self, node: LocalNode) -> str:
        return await node.init(
            InitRequest(ListenAddr=self.address, AdvertiseAddr=self.advertised), SPEC
        )

    async def join(self, node: LocalNode, manager: str, token: str) -> None:
        await node.join(
            JoinRequest(
                ListenAddr=self.address,
                AdvertiseAddr=self.advertised,
                RemoteAddrs=(manager,),
                JoinToken=token,
            )
        )


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other tasks and threads bring about."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - no one event stands for any condition
            await trio.sleep(0.01)


def private_of(node: LocalNode) -> ClusterPrivate:
    """Return the private half of the cluster's row, on a manager."""
    assert node.manager is not None
    cluster = node.manager.view.cluster()
    assert cluster is not None
    return cluster.private


def state_of(manager: LocalNode, node_id: str) -> str:
    """Return what the tables say of a node's state."""
    assert manager.manager is not None
    row = manager.manager.view.node(node_id)
    return row.api.Status.State if row is not None else "gone"


async def write(manager: LocalNode, *changes: Change) -> None:
    """Have changes applied."""
    assert manager.manager is not None
    (result,) = await manager.manager.propose([Transaction(changes=changes)])
    assert isinstance(result, Applied), result
