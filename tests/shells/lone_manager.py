"""A manager of a swarm of one, whole but for its disk and its network, and nodes to join it.

Time stands still (``pytest.mark.still``): ``until`` and ``elapse`` move it while everybody is
blocked, so no load of the machine can make a heartbeat late.
"""

from __future__ import annotations

import random
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import trio
import trio.testing

from swarmctl.core.agent.agent import Agent
from swarmctl.core.agent.executor import NodeIdentity
from swarmctl.core.autoscaler.source import no_source
from swarmctl.core.ca.credentials import Credentials, Material
from swarmctl.core.ca.keyfiles import KeyPair
from swarmctl.core.ca.server import new_node_row
from swarmctl.core.ca.x509 import (
    DAY_NS,
    Role,
    Signer,
    identity_of,
    new_key_and_csr,
    sign_node_certificate,
)
from swarmctl.core.clock import TrioClock
from swarmctl.core.founding import make_cluster
from swarmctl.core.manager.manager import Manager
from swarmctl.core.manager.state import OpenState
from swarmctl.core.membership import Membership
from swarmctl.core.model.base import Time
from swarmctl.core.model.change import (
    Advance,
    Applied,
    Change,
    ConflictKind,
    Create,
    Entry,
    Transaction,
    Update,
)
from swarmctl.core.model.cluster import SwarmSpec
from swarmctl.core.model.objects import ServiceRow, TaskRow
from swarmctl.core.model.request import InitRequest
from swarmctl.core.model.revision import updated
from swarmctl.core.model.service import Service, ServicePrivate
from swarmctl.core.model.spec import ContainerSpec, ServiceSpec, TaskSpec
from swarmctl.core.model.task import Task, TaskPrivate, TaskState, TaskStatus
from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.message import ConfState, Snapshot
from swarmctl.core.raft.raft import Raft
from swarmctl.core.store.store import Store
from swarmctl.core.wire.connect import serve_links
from swarmctl.plugins.null_driver import NullDriver, NullKernel
from swarmctl.plugins.null_exec import NullExecutor, NullWorld
from tests.clocks import all_blocked

from .memory_disk import MemoryDisk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from swarmctl.core.autoscaler.source import SourceOf
    from swarmctl.core.manager.reconcile import Reconciler
    from swarmctl.core.model.cluster import ClusterPrivate
    from swarmctl.core.model.objects import NodeRow
    from swarmctl.core.model.session import NodeNews

    from .memory_network import MemoryNetwork

ADDRESS = "10.0.0.1:2377"
STEP_S = 0.05


async def until(condition: Callable[[], object], within_s: float = 120.0) -> None:
    """Move time until something is so; an AssertionError when it is not so for too long."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock), "mark the module still"
    for _ in range(int(within_s / STEP_S) + 1):
        await all_blocked()
        if condition():
            return
        clock.jump(STEP_S)
    raise AssertionError(f"not so after {within_s:g} s")


async def elapse(seconds: float) -> None:
    """Let time pass."""
    end = trio.current_time() + seconds
    await until(lambda: trio.current_time() >= end - 1e-9, seconds + 1)


async def _let_time_pass() -> None:
    """Move time, slowly enough for the task table's thread to do what it is at."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    while True:
        await all_blocked(cushion_s=0.05)
        clock.jump(STEP_S)


class WallClock(TrioClock):
    """Wall time that somebody sets.

    Attributes:
        ahead_ns: by how much it was set forward, backward when negative.
    """

    ahead_ns = 0

    def now(self) -> int:
        return super().now() + self.ahead_ns


class LoneManager:
    """A founded cluster and its only manager, not yet running."""

    def __init__(
        self,
        network: MemoryNetwork,
        reconcilers: Sequence[Reconciler] = (),
        metric_source: SourceOf = no_source,
    ) -> None:
        self.network = network
        # OpenSSL judges certificates by the real time, which ours must not run ahead of.
        self.clock = WallClock(time.time_ns() - 20 * DAY_NS)
        self._ids = count(1)
        membership = Membership(listen_addr=ADDRESS, advertise_addr=ADDRESS, raft_id=7)
        founded = make_cluster(
            InitRequest(),
            SwarmSpec(Name="default"),
            membership,
            cluster_id="cluster",
            node_id="manager",
            now_ns=self.clock.now(),
        )
        store = Store()
        store.apply(1, Entry(transactions=(founded.founding,)))
        self.disk = MemoryDisk(Snapshot(index=1, term=1, conf_state=ConfState(voters=(7,))))
        raft = Raft(7, self.disk.log, RaftConfig(applied=1), random.Random(1))
        self.credentials = Credentials(founded.material, self.clock.now())
        self.manager = Manager(
            OpenState(raft, self.disk, store),  # type: ignore[arg-type] # a stand-in of the disk
            self.credentials,
            reconcilers,
            self.clock,
            self.new_id,
            metric_source=metric_source,
        )
        self.view = self.manager.view

    def new_id(self) -> str:
        return f"id{next(self._ids)}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the manager for the length of the block."""
        async with trio.open_nursery() as nursery:
            await nursery.start(
                serve_links,
                [self.network.listen(ADDRESS)],
                self.credentials.server_context,
                self.manager.welcome,
            )
            await nursery.start(self.manager.run)
            await self.until(lambda: self.manager.leading)
            yield
            nursery.cancel_scope.cancel()

    # --- time ---

    async def until(self, condition: Callable[[], object], within_s: float = 120.0) -> None:
        """Move time until something is so; see the function."""
        await until(condition, within_s)

    async def elapse(self, seconds: float) -> None:
        """Let time pass."""
        await elapse(seconds)

    # --- tables ---

    async def service(self, service_id: str, spec: ServiceSpec) -> None:
        """Create a service."""
        await self.write(Create(row=ServiceRow(api=Service(ID=service_id, Spec=spec))))

    async def update(self, service_id: str, spec: ServiceSpec) -> None:
        """Give a service another spec."""
        row = self.view.service(service_id)
        assert row is not None
        await self.write(Update(row=updated(row, spec, self.clock.now(), registry_auth="")))

    def that_run(self, service_id: str) -> list[TaskRow]:
        """Return a service's tasks that run and shall."""
        return [
            row
            for row in self.view.tasks_of(service_id)
            if row.api.Status.State is TaskState.RUNNING
            and row.api.DesiredState is TaskState.RUNNING
        ]

    async def write(self, *changes: Change) -> None:
        """Have changes applied."""
        (result,) = await self.manager.propose([Transaction(changes=changes)])
        assert isinstance(result, Applied), result

    async def admit(self, node_id: str, *, days: int = 90) -> Credentials:
        """Make a node's row and its certificate."""
        credentials = self.certify(node_id, days=days)
        row = new_node_row(
            node_id,
            Role.WORKER,
            availability="active",
            public_key=identity_of(credentials.material.pair.cert_pem).key_fingerprint,
        )
        await self.write(Create(row=row))
        return credentials

    def certify(self, node_id: str, *, days: int = 90) -> Credentials:
        """Sign a certificate, whether there is such a node or not."""
        private = self.cluster_private()
        key_pem, csr_pem = new_key_and_csr()
        chain = sign_node_certificate(
            Signer.from_pem(private.ca_cert.encode(), private.ca_key.encode()),
            csr_pem,
            node_id=node_id,
            role=Role.WORKER,
            cluster_id="cluster",
            expiry_ns=days * DAY_NS,
            now_ns=self.clock.now(),
        )
        material = Material(private.ca_cert.encode(), KeyPair(chain, key_pem))
        return Credentials(material, self.clock.now())

    def cluster_private(self) -> ClusterPrivate:
        cluster = self.view.cluster()
        assert cluster is not None
        return cluster.private

    def node(self, node_id: str) -> NodeRow:
        row = self.view.node(node_id)
        assert row is not None
        return row

    def state_of(self, node_id: str) -> str:
        row = self.view.node(node_id)
        return row.api.Status.State if row is not None else "gone"

    def task(self, task_id: str) -> Task:
        row = self.view.task(task_id)
        assert row is not None
        return row.api

    def task_state(self, task_id: str) -> TaskState:
        return self.task(task_id).Status.State

    async def assign(
        self, task_id: str, node_id: str, *, private: TaskPrivate | None = None, **spec: object
    ) -> None:
        """Make a task and assign it to a node. ``spec``: fields of its ContainerSpec."""
        await self.write(Create(row=task_row(task_id, node_id, private=private, **spec)))

    async def want(self, task_id: str, state: TaskState) -> None:
        """Raise a task's desired state."""
        await self.write(Advance(task_id=task_id, desired=state))

    async def change_node(self, node_id: str, change: Callable[[NodeRow], NodeRow]) -> None:
        """Update a node, again if somebody else of the manager's changed it meanwhile."""
        for _ in range(10):
            update = Update(row=change(self.node(node_id)))
            (result,) = await self.manager.propose([Transaction(changes=(update,))])
            if isinstance(result, Applied):
                return
            assert result.kind is ConflictKind.VERSION, result
        raise AssertionError(f"{node_id} was changed by somebody else each time")


def task_row(
    task_id: str, node_id: str, *, private: TaskPrivate | None = None, **spec: object
) -> TaskRow:
    """Return the row of an assigned task that shall run."""
    container = ContainerSpec(**{"Image": "null", **spec})  # type: ignore[arg-type]
    return TaskRow(
        api=Task(
            ID=task_id,
            ServiceID="service",
            Slot=1,
            NodeID=node_id,
            Spec=TaskSpec(ContainerSpec=container),
            Status=TaskStatus(Timestamp=Time(1), State=TaskState.ASSIGNED),
            DesiredState=TaskState.RUNNING,
        ),
        private=private or TaskPrivate(service_name="web"),
    )


def service_row(service_id: str, name: str) -> ServiceRow:
    return ServiceRow(
        api=Service(ID=service_id, Spec=ServiceSpec(Name=name)), private=ServicePrivate()
    )


class Host:
    """A node's host: its state directory, and an engine that outlives the daemons on it."""

    def __init__(
        self, cluster: LoneManager, node_id: str, credentials: Credentials, state_dir: Path
    ) -> None:
        self._cluster = cluster
        self.node_id = node_id
        self.credentials = credentials
        self.state_dir = state_dir
        self.world = NullWorld(cluster.clock)
        self.kernel: NullKernel | None = None  # of its network driver, if it is to have one
        self.news: list[NodeNews] = []
        self.agent: Agent | None = None

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Agent]:
        """Run an agent for the length of the block; it ends like a daemon that restarts."""
        executor = NullExecutor(self.world)
        agent = self.make_agent(executor)
        async with trio.open_nursery() as pump:
            async with trio.open_nursery() as nursery:
                await nursery.start(executor.run, self._identity)
                await nursery.start(agent.run)
                self.agent = agent
                try:
                    yield agent
                finally:
                    pump.start_soon(_let_time_pass)  # or a farewell would wait for ever
                    nursery.cancel_scope.cancel()
            pump.cancel_scope.cancel()

    def make_agent(self, executor: NullExecutor) -> Agent:
        """Return the agent of a daemon on this host, which somebody has to run."""
        return Agent(
            credentials=self.credentials,
            executor=executor,
            driver=NullDriver(self.kernel) if self.kernel is not None else None,
            identity=self._identity,
            advertise_addr=_nowhere,
            managers=lambda: (ADDRESS,),
            on_news=self._take_news,
            clock=self._cluster.clock,
        )

    @property
    def _identity(self) -> NodeIdentity:
        return NodeIdentity(
            cluster_id="cluster",
            node_id=self.node_id,
            hostname=f"host-{self.node_id}",
            state_dir=str(self.state_dir),
        )

    async def _take_news(self, news: NodeNews) -> None:
        self.news.append(news)


async def _nowhere() -> str:
    """Where a node says it is that leaves it to its manager."""
    await trio.lowlevel.checkpoint()
    return ""
