"""A whole node in this process: its API on a real socket, its tasks pretended.

The client is the standard library's, in threads, so that no bug of our codec can hide behind it.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from swarmctl.core.api.server import ApiServer
from swarmctl.core.ca.x509 import DAY_NS
from swarmctl.core.clock import SystemClock, new_id
from swarmctl.core.manager.pipeline import reconcilers
from swarmctl.core.model.loaded import LoadedPlugin
from swarmctl.core.node import LocalNode, NodeSettings
from swarmctl.core.wire.unix_listener import open_unix_listener
from swarmctl.plugins import http_metrics
from swarmctl.plugins.binpack import BinpackScheduler
from swarmctl.plugins.null_exec import NullExecutor
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.subnets import SubnetAllocator
from tests.clocks import time_held
from tests.e2e.lab.unix_http import Reply, UnixClient
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from swarmctl.core.agent.executor import Executor
    from swarmctl.core.agent.network import NetworkDriver
    from swarmctl.core.clock import Clock
    from swarmctl.core.manager.manager import Manager
    from swarmctl.core.manager.reconcile import Reconciler
    from swarmctl.core.model.change import Transaction

WAIT_S = 30.0


class RunningApi:
    """The node and how a test talks to it.

    Attributes:
        socket: path of the API's socket.
        port: where the node listens once it is in a swarm.
    """

    def __init__(self, socket_path: Path, port: int, node: LocalNode) -> None:
        self.socket = socket_path
        self.port = port
        self.node = node

    @property
    def manager(self) -> Manager:
        assert self.node.manager is not None
        return self.node.manager

    async def request(self, method: str, path: str, body: object = None, **more: Any) -> Reply:
        """Send one request on a connection of its own."""

        def send() -> Reply:
            with UnixClient(self.socket, timeout_s=WAIT_S) as client:
                return client.request(method, path, body, **more)

        with time_held():
            return await trio.to_thread.run_sync(send)

    async def get(self, path: str) -> Any:
        """Return what a GET gives; it has to be a 200."""
        reply = await self.request("GET", path)
        assert reply.status == 200, reply
        return reply.json

    async def refusal(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Return the status and the message of a request that is refused."""
        reply = await self.request(method, path, body)
        assert reply.headers.get("Content-Type") == "application/json", reply
        return reply.status, reply.json["message"]

    async def init(self) -> str:
        """Found a swarm; return the node's id."""
        address = f"127.0.0.1:{self.port}"
        body = {"ListenAddr": address, "AdvertiseAddr": address}
        reply = await self.request("POST", "/swarm/init", body)
        assert reply.status == 200, reply
        return str(reply.json)

    async def wait_ready(self) -> None:
        """Sleep until every node has registered: what it has is known then."""
        with trio.fail_after(WAIT_S):
            while True:
                nodes = await self.get("/nodes")
                if all(node["Status"]["State"] == "ready" for node in nodes):
                    return
                await trio.sleep(0.02)

    async def create(self, name: str, **spec: object) -> str:
        """Create a service; return its id."""
        reply = await self.request("POST", "/services/create", service_body(name, **spec))
        assert reply.status == 201, reply
        return str(reply.json["ID"])

    async def propose(self, transaction: Transaction) -> object:
        """Change the tables behind the API's back, as another component would."""
        return (await self.manager.propose([transaction]))[0]


def service_body(name: str, *, replicas: int = 1, **spec: object) -> dict[str, Any]:
    """Return a spec as a client sends it; ``spec`` are further fields of it."""
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "host", "Args": ["sleep", "60"]}},
        "Mode": {"Replicated": {"Replicas": replicas}},
        **spec,
    }


class _LoopClock:
    """Wall time that follows trio's clock, for threads as well.

    OpenSSL judges certificates by the true time, which ours must not run ahead of.
    """

    def __init__(self) -> None:
        self._clock = trio.lowlevel.current_clock()
        self._epoch_ns = time.time_ns() - DAY_NS

    def now(self) -> int:
        return self._epoch_ns + int(self._clock.current_time() * 1e9)


def hurried_api(
    folder: Path, *, executor: Executor | None = None
) -> AbstractAsyncContextManager[RunningApi]:
    """Run a node by a wall clock that follows trio's; for tests marked ``hurried``."""
    return running_api(folder, executor=executor, clock=_LoopClock())


@asynccontextmanager
async def running_api(
    folder: Path,
    *,
    executor: Executor | None = None,
    driver: NetworkDriver | None = None,
    work: Sequence[Reconciler] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[RunningApi]:
    """Run a node in no swarm and its API.

    Args:
        folder: for its state and its socket; a short path, as unix sockets want it.
        executor: runs its tasks; by default they are pretended.
        driver: carries their traffic; by default nothing does.
        work: what it does while it leads; by default everything.
        clock: its wall clock; by default the true one.
    """
    port = free_port()
    strategies = {"spread": SpreadScheduler(), "binpack": BinpackScheduler()}
    clock = clock or SystemClock()
    node = LocalNode(
        NodeSettings(state_dir=str(folder / "state"), hostname="here"),
        executor or NullExecutor(hostname="here"),
        reconcilers(SpreadScheduler(), SubnetAllocator(), strategies) if work is None else work,
        clock,
        new_id,
        http_metrics.swarmctl_metric_source,
        driver=driver,
    )
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    api = ApiServer(
        node, lambda: [LoadedPlugin(Name="spread")], "9.9", clock, new_id, strategies=strategies
    )
    async with (
        trio.open_nursery() as nursery,
        open_unix_listener(str(folder / "sock"), mode=0o600, gid=None) as listener,
    ):
        await nursery.start(node.run)
        await nursery.start(lambda task_status: api.run([listener], task_status=task_status))
        yield RunningApi(folder / "sock", port, node)
        nursery.cancel_scope.cancel()
