"""Tables of endpoints down to the nodes' kernels, and tasks that stop only when all know it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.agent.executor import ExitStatus
from swarmctl.core.agent.networking import REMEMBERED_S
from swarmctl.core.dispatcher.drain import DRAIN_S
from swarmctl.core.model.change import Create, Delete, Kind, Ref
from swarmctl.core.model.network import make_network
from swarmctl.core.model.objects import NetworkSpec
from swarmctl.core.model.spec import PortConfig, UpdateConfig
from swarmctl.core.model.task import TaskState
from swarmctl.plugins import Sandbox
from swarmctl.plugins.null_driver import AUDIT_S, NullKernel
from tests.core.allocator.joined import on_networks
from tests.core.pipeline.world import the_reconcilers

from .lone_manager import Host, LoneManager
from .memory_network import MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from swarmctl.core.model.endpoints import EndpointTable, Member
    from swarmctl.core.model.objects import NodeRow
    from swarmctl.core.model.spec import ServiceSpec

pytestmark = pytest.mark.still

NODES = ("w1", "w2", "w3")


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LoneManager]:
    manager = LoneManager(MemoryNetwork(monkeypatch), the_reconcilers())
    async with manager.running():
        for name, how in (("net", {}), ("ingress", {"Ingress": True})):
            wanted = NetworkSpec(Name=name, Driver="overlay", **how)  # type: ignore[arg-type]
            if manager.view.by_name(Kind.NETWORK, name) is None:
                await manager.write(Create(row=make_network(name, wanted)))
        yield manager


@pytest.fixture
async def hosts(cluster: LoneManager, tmp_path: Path) -> dict[str, Host]:
    """Three hosts with a network driver each; the manager itself runs nothing."""
    found = {}
    for node_id in NODES:
        host = Host(cluster, node_id, await cluster.admit(node_id), tmp_path / node_id)
        host.kernel = NullKernel()
        found[node_id] = host
    return found


@asynccontextmanager
async def daemons(cluster: LoneManager, *hosts: Host) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for host in hosts:
            await stack.enter_async_context(host.daemon())
        await cluster.until(
            lambda: all(cluster.state_of(host.node_id) == "ready" for host in hosts), 10
        )
        yield


def kernel(host: Host) -> NullKernel:
    assert host.kernel is not None
    return host.kernel


def members(table: EndpointTable, service_id: str = "web") -> list[Member]:
    """Return a service's members in a table, in the network "net"."""
    return [
        member
        for network in table.networks
        if network.network.name == "net"
        for service in network.services
        if service.service_id == service_id
        for member in service.members
    ]


def ready(host: Host) -> set[str]:
    return {one.task_id for one in members(kernel(host).table) if one.ready}


def nodes_of(cluster: LoneManager) -> set[str]:
    return {row.api.NodeID for row in cluster.that_run("web")}


def web(replicas: int = 3, **how: object) -> ServiceSpec:
    return on_networks("web", "net", replicas=replicas, **how)  # type: ignore[arg-type]


async def test_every_kernel_learns_who_is_where(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Tasks that run are ready members on every node of their network, sandboxes connected."""
    async with daemons(cluster, *hosts.values()):
        await cluster.service("web", web())
        await cluster.until(lambda: all(len(ready(host)) == 3 for host in hosts.values()), 10)
        for node_id, host in hosts.items():
            (own,) = (one for one in cluster.that_run("web") if one.api.NodeID == node_id)
            sandbox = kernel(host).sandboxes[own.api.ID]
            address = own.api.NetworksAttachments[0].Addresses[0].partition("/")[0]
            assert sandbox == Sandbox(
                id=own.api.ID,
                pid=host.world.tasks[own.api.ID].pid,
                networks=("net",),
                addresses=(address,),
            )


async def test_every_node_offers_published_ports(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Also those on which no task of the service runs; when it goes, so do they."""
    async with daemons(cluster, *hosts.values()):
        port = PortConfig(TargetPort=80, PublishedPort=8080)
        await cluster.service("web", on_networks("web", replicas=1, ports=(port,)))

        def offered() -> list[tuple[int, int]]:
            return [
                (port.published, sum(one.ready for one in port.members))
                for host in hosts.values()
                for port in kernel(host).table.published
            ]

        await cluster.until(lambda: offered() == [(8080, 1)] * 3, 10)
        await cluster.update("web", on_networks("web", replicas=1))
        await cluster.until(lambda: offered() == [], 10)


async def test_a_task_runs_once_its_network_does(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """It is not reported before; when its node's kernel does not come round, it is all the same."""
    host = hosts["w1"]
    async with daemons(cluster, host):
        kernel(host).stuck = True
        await cluster.service("web", web(1))
        await cluster.until(lambda: any(task.runs for task in host.world.tasks.values()), 5)
        await cluster.elapse(2)
        assert cluster.that_run("web") == []
        kernel(host).stuck = False
        await cluster.until(lambda: len(cluster.that_run("web")) == 1, 0.5)
        kernel(host).stuck = True
        await cluster.update("web", web(2))
        await cluster.elapse(2)
        assert len(cluster.that_run("web")) == 1
        await cluster.until(lambda: len(cluster.that_run("web")) == 2, 2)


async def test_a_health_check_has_its_network(cluster: LoneManager, hosts: dict[str, Host]) -> None:
    """A task that is not healthy yet is connected: what it waits for may be on the network."""
    host = hosts["w1"]
    async with daemons(cluster, host):
        wanted = web(1)
        container = replace(
            wanted.TaskTemplate.ContainerSpec,  # type: ignore[type-var]
            Env=("SWARMCTL_NULL_HEALTHY_AFTER=1h",),
        )
        wanted = replace(wanted, TaskTemplate=replace(wanted.TaskTemplate, ContainerSpec=container))
        await cluster.service("web", wanted)
        await cluster.until(lambda: kernel(host).sandboxes, 5)
        assert ready(host) == set()
        assert len(members(kernel(host).table)) == 1


# --- tasks that shall stop -----------------------------------------------------------------------


def alive(hosts: dict[str, Host]) -> set[str]:
    return {one for host in hosts.values() for one, task in host.world.tasks.items() if task.runs}


async def test_a_task_stops_when_all_kernels_know(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Its node is told to stop it only after the last node said that it sends it nothing new."""
    async with daemons(cluster, *hosts.values()):
        await cluster.service("web", web())
        await cluster.until(lambda: all(len(ready(host)) == 3 for host in hosts.values()), 10)
        for host in hosts.values():
            kernel(host).stuck = True
        await cluster.update("web", web(1))
        await cluster.elapse(DRAIN_S - 0.3)
        assert len(alive(hosts)) == 3
        for host in hosts.values():
            kernel(host).stuck = False
        await cluster.until(lambda: len(alive(hosts)) == 1, 0.5)


async def test_nobody_waits_for_ever(cluster: LoneManager, hosts: dict[str, Host]) -> None:
    """A kernel that does not come round delays one stop and no more, until it does come round."""
    async with daemons(cluster, *hosts.values()):
        await cluster.service("web", web(6))
        await cluster.until(lambda: all(len(ready(host)) == 6 for host in hosts.values()), 10)
        kernel(hosts["w2"]).stuck = True
        for replicas, least, most in ((5, DRAIN_S, DRAIN_S + 0.3), (4, 0.0, 0.5)):
            began = trio.current_time()
            await cluster.update("web", web(replicas))
            await cluster.until(lambda: len(alive(hosts)) == replicas, 2 * DRAIN_S)  # noqa: B023
            assert least <= trio.current_time() - began <= most
        kernel(hosts["w2"]).stuck = False
        await cluster.elapse(1)
        kernel(hosts["w2"]).stuck = True
        await cluster.update("web", web(3))
        await cluster.elapse(DRAIN_S - 0.3)
        assert len(alive(hosts)) == 4


async def test_a_daemon_that_restarts_is_waited_for(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Its kernel sends as before until the next daemon has heard of it."""
    async with daemons(cluster, hosts["w1"], hosts["w3"]):
        async with hosts["w2"].daemon():
            await cluster.until(lambda: cluster.state_of("w2") == "ready", 10)
            await cluster.service("web", web())
            await cluster.until(lambda: all(len(ready(host)) == 3 for host in hosts.values()), 10)
        await cluster.update("web", web(1))
        await cluster.elapse(DRAIN_S / 2)
        assert len(alive(hosts)) == 3
        async with hosts["w2"].daemon():

            def is_over() -> bool:
                assert all(ready(host) <= alive(hosts) for host in hosts.values())
                return len(alive(hosts)) == 1

            await cluster.until(is_over, 2)


def is_down(row: NodeRow) -> NodeRow:
    return replace(row, api=replace(row.api, Status=replace(row.api.Status, State="down")))


async def test_a_lost_node_is_waited_for_once(cluster: LoneManager, hosts: dict[str, Host]) -> None:
    """Ten seconds from its last word on, also when it is down; then no order waits for it."""
    async with daemons(cluster, hosts["w1"], hosts["w3"]):
        async with hosts["w2"].daemon():
            await cluster.until(lambda: cluster.state_of("w2") == "ready", 10)
            await cluster.service("web", web(6))
            await cluster.until(lambda: all(len(ready(host)) == 6 for host in hosts.values()), 10)
        before = alive(hosts)
        await cluster.change_node("w2", is_down)
        await cluster.update("web", web(1))
        await cluster.elapse(DRAIN_S - 0.3)
        assert alive(hosts) >= before
        on_w2 = {one for one, task in hosts["w2"].world.tasks.items() if task.runs}
        await cluster.until(lambda: len(alive(hosts) - on_w2) == 1, 1)
        await cluster.update("web", web(0))
        await cluster.until(lambda: alive(hosts) == on_w2, 1)


async def test_who_left_or_carries_nothing_is_not_waited_for(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Of three nodes one has left and one has no driver; the third's word is enough."""
    hosts["w3"].kernel = None
    async with daemons(cluster, *hosts.values()):
        await cluster.service("web", web())
        await cluster.until(lambda: len(cluster.that_run("web")) == 3, 10)
        assert cluster.node("w3").private.network_driver == ""
        async with hosts["w2"].daemon() as second:
            await cluster.until(lambda: cluster.state_of("w2") == "ready", 10)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second.leave)
                await cluster.until(lambda: cluster.state_of("w2") == "down", 10)
                await cluster.elapse(1)
        await cluster.elapse(5)
        began = trio.current_time()
        await cluster.update("web", web(1))
        await cluster.until(lambda: len(alive(hosts)) == 1, 5)
        assert trio.current_time() - began < 1


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
async def test_an_update_never_sends_anybody_to_a_task_that_does_not_run(
    cluster: LoneManager, hosts: dict[str, Host], order: str
) -> None:
    """At no moment of a rolling update, scale or drain has a kernel an empty list, or a dead task.

    A slow kernel on each node, tasks that take a while to start, and one replica down at most.
    """

    def sound() -> bool:
        running = alive(hosts)
        for host in hosts.values():
            if all(one.network.name != "net" for one in kernel(host).table.networks):
                continue  # drained: nobody there is left to send anything
            assert ready(host), f"{host.node_id} has nobody at {trio.current_time()}"
            assert ready(host) <= running, f"{host.node_id} sends to {ready(host) - running}"
        return True

    def finished(image: str, count: int) -> bool:
        rows = cluster.that_run("web")
        images = {row.api.Spec.ContainerSpec.Image for row in rows}  # type: ignore[union-attr]
        gone = len(alive(hosts)) == count
        return sound() and gone and len(rows) == count and images == {image}

    def wanted(image: str, replicas: int) -> ServiceSpec:
        config = UpdateConfig(Parallelism=1, Order=order, Monitor=10**9)
        made = replace(web(replicas, image=image), UpdateConfig=config)
        container = replace(
            made.TaskTemplate.ContainerSpec,  # type: ignore[type-var]
            Env=("SWARMCTL_NULL_START_AFTER=300ms", "SWARMCTL_NULL_STOP_AFTER=100ms"),
        )
        return replace(made, TaskTemplate=replace(made.TaskTemplate, ContainerSpec=container))

    async with daemons(cluster, *hosts.values()):
        await cluster.service("web", wanted("one", 6))
        await cluster.until(lambda: all(len(ready(host)) == 6 for host in hosts.values()), 20)
        for number, host in enumerate(hosts.values()):
            kernel(host).delay_s = 0.2 * number
        await cluster.update("web", wanted("two", 6))
        await cluster.until(lambda: finished("two", 6), 60)
        await cluster.update("web", wanted("two", 3))
        await cluster.until(lambda: finished("two", 3), 60)
        await cluster.update("web", wanted("two", 6))
        await cluster.until(lambda: finished("two", 6), 60)
        await cluster.change_node(
            "w1",
            lambda row: replace(
                row, api=replace(row.api, Spec=replace(row.api.Spec, Availability="drain"))
            ),
        )
        await cluster.until(
            lambda: (
                finished("two", 6)
                and all(row.api.NodeID != "w1" for row in cluster.that_run("web"))
            ),
            60,
        )


async def test_a_removed_services_tasks_leave_first(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Removal takes them out of all tables, then stops them."""
    async with daemons(cluster, *hosts.values()):
        await cluster.service("web", web())
        await cluster.until(lambda: all(len(ready(host)) == 3 for host in hosts.values()), 10)
        for host in hosts.values():
            kernel(host).delay_s = 0.5
        row = cluster.view.service("web")
        assert row is not None
        await cluster.write(Delete(ref=Ref(Kind.SERVICE, "web"), version=row.api.Version.Index))

        def left() -> bool:
            for host in hosts.values():
                assert ready(host) <= alive(hosts)
            return not alive(hosts)

        await cluster.until(left, 5)
        assert all(ready(host) == set() for host in hosts.values())


# --- daemons that come and go --------------------------------------------------------------------


async def test_a_restarted_daemon_carries_on_without_a_manager(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """It leaves the kernel as it is at first, then goes by the table of before, and mends by it."""
    host = hosts["w1"]
    async with daemons(cluster, host):
        await cluster.service("web", web(2))
        await cluster.until(lambda: len(ready(host)) == 2, 10)
    before, sandboxes = kernel(host).table, kernel(host).sandboxes
    cluster.network.reachable = False
    damaged = kernel(host).table = replace(before, networks=())
    async with host.daemon():
        await cluster.elapse(REMEMBERED_S - 1)
        assert kernel(host).table == damaged
        await cluster.elapse(2)
        assert (kernel(host).table, kernel(host).sandboxes) == (before, sandboxes)
        kernel(host).table = damaged
        await cluster.elapse(AUDIT_S + 1)
        assert kernel(host).table == before
        cluster.network.reachable = True
        await cluster.until(lambda: cluster.state_of("w1") == "ready", 20)


async def test_a_restarted_daemon_takes_the_kernel_no_step_back(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """What it remembers may be older than what the kernel has; a manager's word comes first."""
    host = hosts["w1"]
    async with daemons(cluster, host):
        await cluster.service("web", web(1))
        await cluster.until(lambda: len(ready(host)) == 1, 10)
        row = cluster.that_run("web")[0]
    remembered = kernel(host).table
    newer = kernel(host).table = replace(remembered, version=10**6)
    seen: list[int] = []

    def is_told() -> bool:
        seen.append(kernel(host).table.version)
        return seen[-1] != newer.version

    cluster.network.reachable = False
    await cluster.want(row.api.ID, TaskState.SHUTDOWN)
    async with host.daemon():
        await cluster.elapse(2)
        assert kernel(host).table == newer
        cluster.network.reachable = True
        await cluster.until(is_told, 5)
    assert remembered.version < seen[-1] < newer.version


class Recording(NullKernel):
    """Remembers whom it ever was told to connect."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[set[str]] = []

    async def change(self, table: EndpointTable, sandboxes: Sequence[Sandbox]) -> None:
        self.told.append({one.id for one in sandboxes})
        await super().change(table, sandboxes)


async def test_adopted_tasks_are_never_without_their_place(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """The next daemon finds them before it tells its driver anything; what ended is left out."""
    host = hosts["w1"]
    host.kernel = recording = Recording()
    async with daemons(cluster, host):
        await cluster.service("web", web(3))
        await cluster.until(lambda: len(cluster.that_run("web")) == 3, 10)
        before = set(recording.sandboxes)
    gone = before.pop()
    host.world.tasks[gone].end_at(trio.current_time(), ExitStatus(code=1))
    recording.told.clear()
    host.world.available = False  # the manager is faster than the engine
    async with daemons(cluster, host):
        await cluster.elapse(1)
        host.world.available = True
        await cluster.until(lambda: recording.told, 10)
        await cluster.elapse(1)
    assert all(before <= each and gone not in each for each in recording.told)


async def test_a_task_that_ended_has_no_sandbox(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Its process number may be somebody else's next."""
    host = hosts["w1"]
    async with daemons(cluster, host):
        await cluster.service("web", web(1))
        await cluster.until(lambda: len(cluster.that_run("web")) == 1, 10)
        await cluster.update("web", web(0))
        await cluster.until(lambda: not alive(hosts) and kernel(host).sandboxes == {}, 10)


async def test_a_node_that_leaves_removes_what_it_made(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Nothing of its networks is left in the kernel."""
    host = hosts["w1"]
    async with host.daemon() as agent:
        await cluster.until(lambda: cluster.state_of("w1") == "ready", 10)
        await cluster.service("web", web(1))
        await cluster.until(lambda: len(ready(host)) == 1, 10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.leave)
            await cluster.until(lambda: kernel(host).table.networks == (), 10)
        assert kernel(host).sandboxes == {}


async def test_a_node_that_leaves_is_out_of_all_kernels_first(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """Its tasks run on until the others send them nothing new, however slow their kernels are."""
    async with daemons(cluster, hosts["w2"], hosts["w3"]), hosts["w1"].daemon() as agent:
        await cluster.until(lambda: cluster.state_of("w1") == "ready", 10)
        await cluster.service("web", web())
        await cluster.until(lambda: all(len(ready(host)) == 3 for host in hosts.values()), 10)
        (own,) = (row.api.ID for row in cluster.that_run("web") if row.api.NodeID == "w1")
        kernel(hosts["w2"]).delay_s = 0.7
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.leave)

            def is_over() -> bool:
                others = ready(hosts["w2"]) | ready(hosts["w3"])
                assert own not in others or hosts["w1"].world.tasks[own].runs
                return own not in hosts["w1"].world.tasks

            await cluster.until(is_over, 2)


async def test_problems_are_shown_with_the_node(
    cluster: LoneManager, hosts: dict[str, Host]
) -> None:
    """What the driver cannot do on a host stands in the node's message until it can."""
    host = hosts["w1"]
    async with daemons(cluster, host):
        assert cluster.node("w1").private.network_driver == "null"
        kernel(host).problems = ("port 80/tcp is taken by nginx",)
        await cluster.until(
            lambda: cluster.node("w1").api.Status.Message == "port 80/tcp is taken by nginx", 10
        )
        assert (agent := host.agent) is not None
        assert agent.network_warning == "port 80/tcp is taken by nginx"
        kernel(host).problems = ()
        await cluster.until(lambda: cluster.node("w1").api.Status.Message == "", 10)
