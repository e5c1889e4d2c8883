"""A node's attachable networks, and the containers that its users put on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from swarmctl.core.agent.disk import open_task_table
from swarmctl.core.agent.executor import EngineUnavailable, ExecutorError, NodeIdentity
from swarmctl.core.agent.networking import ADOPTED_S, Networking
from swarmctl.core.agent.visitors import RETRY_S
from swarmctl.core.model.endpoints import (
    EndpointChanges,
    EndpointTable,
    NetworkChange,
    NetworkTable,
)
from swarmctl.core.model.task import HostNetwork
from swarmctl.plugins import Sandbox
from swarmctl.plugins.null_driver import NullDriver, NullKernel
from swarmctl.plugins.null_exec import NullExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from swarmctl.core.agent.disk import TaskTable

IDENTITY = NodeIdentity(cluster_id="c", node_id="n", hostname="h", state_dir="/nowhere")
NET = HostNetwork(
    id="net",
    name="net",
    subnets=("10.0.1.0/24",),
    gateways=("10.0.1.1/24",),
    attachable=True,
    room=("10.0.1.240/29",),
)
PLAIN = HostNetwork(id="plain", name="plain", gateways=("10.0.2.1/24",))
GUEST = Sandbox(id="guest", pid=7, networks=("net",), names=("guest",))


class Engine(NullExecutor):
    """An executor whose users start containers by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Sequence[HostNetwork] | None = None
        self.refuses: Exception | None = None
        self.is_blind: Exception | None = None
        self.tell: Callable[[Sequence[Sandbox]], None] | None = None

    async def keep_networks(self, networks: Sequence[HostNetwork]) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuses is not None:
            raise self.refuses
        self.kept = networks

    async def watch_visitors(self, tell: Callable[[Sequence[Sandbox]], None]) -> None:
        if self.is_blind is not None:
            raise self.is_blind
        self.tell = tell
        await trio.sleep_forever()

    def visited_by(self, *sandboxes: Sandbox) -> None:
        assert self.tell is not None
        self.tell(sandboxes)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[TaskTable]:
    made, _ = open_task_table(tmp_path)
    yield made
    made.close()


@pytest.fixture
def engine() -> Engine:
    return Engine()


async def begin(
    nursery: trio.Nursery, table: TaskTable, engine: Engine
) -> tuple[Networking, NullKernel]:
    """Start a daemon's networking on a kernel of its own."""
    kernel = NullKernel()
    networking = Networking(NullDriver(kernel), table, engine)
    nursery.start_soon(networking.run, IDENTITY)
    await trio.testing.wait_all_tasks_blocked()
    return networking, kernel


def told(*networks: HostNetwork, version: int = 1) -> EndpointChanges:
    """What a manager sends to a node that is in these networks."""
    changes = tuple(NetworkChange(id=one.id, network=one, complete=True) for one in networks)
    return EndpointChanges(version=version, complete=True, networks=changes)


async def test_visitors_are_sandboxes_like_tasks(
    nursery: trio.Nursery, table: TaskTable, engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    """The driver is told of both; only attachable networks are kept for them."""
    networking, kernel = await begin(nursery, table, engine)
    networking.enter(Sandbox(id="task", pid=5, networks=("net",)))
    networking.apply(told(NET, PLAIN))
    engine.visited_by(GUEST)
    await trio.sleep(1)
    assert engine.kept == (NET,)
    assert set(kernel.sandboxes) == {"task", "guest"}
    engine.visited_by()
    await trio.sleep(1)
    assert set(kernel.sandboxes) == {"task"}
    networking.apply(told(PLAIN, version=2))
    await trio.sleep(1)
    assert engine.kept == ()
    assert autojump_clock.current_time() > 0


async def test_a_new_daemon_looks_for_visitors_first(
    nursery: trio.Nursery, table: TaskTable, engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    """The driver is told nothing before they are found, or for five seconds: they keep what they
    have; and their networks are kept by what is remembered."""
    table.endpoints = EndpointTable(version=1, networks=(NetworkTable(network=NET),))
    networking, kernel = await begin(nursery, table, engine)
    assert engine.kept == (NET,)
    networking.apply(told(NET, version=2))
    await trio.sleep(1)
    assert kernel.table.version == 0
    engine.visited_by(GUEST)
    await trio.sleep(1)
    assert (kernel.table.version, set(kernel.sandboxes)) == (2, {"guest"})

    other, slow = await begin(nursery, table, Engine())
    other.apply(told(NET, version=2))
    await trio.sleep(ADOPTED_S + 1)
    assert slow.table.version == 2
    assert autojump_clock.current_time() > ADOPTED_S


@pytest.mark.parametrize("error", [EngineUnavailable, ExecutorError])
async def test_a_network_that_cannot_be_kept_is_told(
    nursery: trio.Nursery,
    table: TaskTable,
    engine: Engine,
    autojump_clock: trio.testing.MockClock,
    error: type[Exception],
) -> None:
    """With the engine's words, and it is tried again; all else goes on."""
    engine.refuses = error("there is a net already")
    networking, kernel = await begin(nursery, table, engine)
    networking.apply(told(NET))
    engine.visited_by()
    await trio.sleep(1)
    assert networking.warning == "there is a net already"
    assert kernel.table.version == 1
    engine.refuses = None
    await trio.sleep(RETRY_S)
    assert networking.warning == ""
    assert engine.kept == (NET,)
    assert autojump_clock.current_time() > RETRY_S


async def test_an_executor_that_fails_costs_no_more_than_visitors(
    nursery: trio.Nursery, table: TaskTable, engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    """Whatever it raises is told and tried again; tasks and their networks go on."""
    engine.refuses = engine.is_blind = KeyError("Pid")
    networking, kernel = await begin(nursery, table, engine)
    networking.enter(Sandbox(id="task", pid=5, networks=("net",)))
    networking.apply(told(NET))
    await trio.sleep(ADOPTED_S + 1)
    assert set(kernel.sandboxes) == {"task"}
    assert "plain containers" in networking.warning
    assert "KeyError('Pid')" in networking.warning
    engine.refuses = engine.is_blind = None
    await trio.sleep(RETRY_S)
    engine.visited_by(GUEST)
    await trio.sleep(RETRY_S)
    assert networking.warning == ""
    assert set(kernel.sandboxes) == {"task", "guest"}
    assert autojump_clock.current_time() > RETRY_S


async def test_an_address_that_may_be_anothers_is_told(
    nursery: trio.Nursery, table: TaskTable, engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    """A user may ask an engine for any address; only those of the node's room are his to have."""
    networking, _ = await begin(nursery, table, engine)
    networking.apply(told(NET))
    engine.visited_by(replace(GUEST, addresses=("10.0.1.241", "172.17.0.2")))
    await trio.sleep(1)
    assert networking.warning == ""
    engine.visited_by(replace(GUEST, addresses=("10.0.1.9",)))
    await trio.sleep(1)
    assert "guest has the address 10.0.1.9 on network net" in networking.warning
    assert autojump_clock.current_time() > 0


async def test_a_node_that_leaves_keeps_none(
    nursery: trio.Nursery, table: TaskTable, engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever visits them keeps them by that."""
    networking, kernel = await begin(nursery, table, engine)
    networking.apply(told(NET))
    engine.visited_by(GUEST)
    await trio.sleep(1)
    await networking.remove_all()
    assert engine.kept == ()
    assert kernel.sandboxes == {}
    assert autojump_clock.current_time() > 0
