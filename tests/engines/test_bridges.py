"""Networks of the swarm as bridges of a real engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from swarmctl.plugins import EngineUnavailable, ExecutorError
from swarmctl.plugins.engine.endpoints import connected_routes
from swarmctl.plugins.model import (
    AttachedNetwork,
    AttachedNetworkSpec,
    HostNetwork,
    NetworkAttachment,
    NetworkAttachmentConfig,
)

from .conftest import insist

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarmctl.plugins import TaskController

    from .conftest import Node
    from .private import PrivateEngine

pytestmark = pytest.mark.engine


def network(
    name: str = "net", third: int = 1, *, gateway: int = 1, ipv6: bool = False, **how: Any
) -> HostNetwork:
    subnets, gateways = (f"10.98.{third}.0/24",), (f"10.98.{third}.{gateway}/24",)
    if ipv6:
        subnets += (f"fd00:98:{third}::/64",)
        gateways += (f"fd00:98:{third}::{gateway}/64",)
    how.setdefault("id", f"id-of-{name}-0123456789")
    return HostNetwork(name=name, vni=4096 + third, subnets=subnets, gateways=gateways, **how)


def on(*networks: HostNetwork, last: int = 9, aliases: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the keywords of an assignment that put a task on networks, with .9 in each."""
    attachments = tuple(
        NetworkAttachment(
            Network=AttachedNetwork(ID=one.id, Spec=AttachedNetworkSpec(Name=one.name)),
            Addresses=tuple(
                f"{subnet.partition('0/')[0] if ':' not in subnet else subnet.partition('/')[0]}"
                f"{last}/{subnet.rpartition('/')[2]}"
                for subnet in one.subnets
            ),
        )
        for one in networks
    )
    wanted = tuple(NetworkAttachmentConfig(Target=one.id, Aliases=aliases) for one in networks)
    return {
        "task": {"NetworksAttachments": attachments},
        "task_spec": {"Networks": wanted},
        "assignment": {"networks": networks},
    }


def bridges(engine: PrivateEngine) -> dict[str, dict[str, Any]]:
    listed = engine.api("GET", "/networks")
    return {one["Name"]: one for one in listed if "swarmctl.network.id" in (one["Labels"] or {})}


def seen(engine: PrivateEngine, name: str = "web.1.t0") -> dict[str, Any]:
    found: dict[str, Any] = engine.api("GET", f"/containers/{name}/json")
    return found


async def remove(*tasks: TaskController) -> None:
    for task in tasks:
        await task.remove()


async def test_a_container_has_its_address(node: Node, engine: PrivateEngine) -> None:
    """On a bridge that is marked as ours, with this node's gateway, and gone with the task."""
    task = await node.running(**on(network(), aliases=("front",)))
    place = seen(engine)["NetworkSettings"]["Networks"]["net"]
    assert (place["IPAddress"], place["Gateway"]) == ("10.98.1.9", "10.98.1.1")
    assert not {"web", "tasks.web", "front"} & set(place["Aliases"] or ())
    bridge = bridges(engine)["net"]
    assert bridge["Labels"] == {
        "swarmctl.cluster.id": "cluster-1",
        "swarmctl.node.id": "node-a",
        "swarmctl.network.id": "id-of-net-0123456789",
    }
    (link,) = json.loads(engine.said_inside("ip", "-json", "link", "show", "sw-id-of-net-01"))
    assert link["mtu"] == 1450
    await remove(task)
    assert bridges(engine) == {}


async def test_several_networks_and_families(node: Node, engine: PrivateEngine) -> None:
    """All are joined before the container starts, with the addresses of each family."""
    networks = network("north", 1), network("south", 2, ipv6=True, internal=True)
    task = await node.running(**on(*networks))
    places = seen(engine)["NetworkSettings"]["Networks"]
    assert {name: place["IPAddress"] for name, place in places.items()} == {
        "north": "10.98.1.9",
        "south": "10.98.2.9",
    }
    assert places["south"]["GlobalIPv6Address"] == "fd00:98:2::9"
    assert bridges(engine)["south"]["Internal"] is True
    await remove(task)
    assert bridges(engine) == {}


async def test_the_last_task_takes_the_network_along(node: Node, engine: PrivateEngine) -> None:
    """Not the one before it; a task that is only prepared holds it too."""
    first = await node.running(task_id="t0", **on(network()))
    second = node.controller(task_id="t1", **on(network(), last=10))
    await second.prepare()
    await remove(first)
    assert list(bridges(engine)) == ["net"]
    await second.start()
    await remove(second)
    assert bridges(engine) == {}


async def test_a_network_is_not_taken_from_who_comes_meanwhile(
    node: Node, engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine is asked whether anybody is still on a network, a task may come that needs
    it: it waits, and has it made again."""
    networks = node.executor._running_host.networks
    ask = networks._ask
    gone = await node.running(**on(network()))
    with monkeypatch.context() as patched:
        async with trio.open_nursery() as nursery:

            async def ask_and_let_come(path: str, **query: str) -> list[dict[str, Any]]:
                found = await ask(path, **query)
                if path == "/containers/json":
                    nursery.start_soon(networks.join, "t1", [network()])
                    await trio.testing.wait_all_tasks_blocked()
                return found

            patched.setattr(networks, "_ask", ask_and_let_come)
            await gone.remove()
    assert list(bridges(engine)) == ["net"]
    await networks.leave("t1")
    assert bridges(engine) == {}


async def test_a_network_of_a_former_daemon(
    make_node: Callable[..., Awaitable[Node]], engine: PrivateEngine
) -> None:
    """A container keeps its network over restarts; one that nobody is on goes at the start."""
    former = await make_node()
    kept = await former.running(**on(network("kept", 1)))
    other = await former.running(task_id="t1", **on(network("left", 2)))
    with trio.move_on_after(0):
        await remove(other)
    engine.api("DELETE", "/containers/web.1.t1?force=1")
    assert set(bridges(engine)) == {"kept", "left"}
    node = await make_node()
    with trio.fail_after(20):
        while set(bridges(engine)) != {"kept"}:
            await trio.sleep(0.1)
    await insist(node.controller(**on(network("kept", 1))).remove)
    assert bridges(engine) == {}
    await kept.remove()


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (
            {"Name": "net"},
            (
                "this host's engine has a network called net that is not swarmctl's; rename or "
                "remove one of the two"
            ),
        ),
        (
            {"Name": "theirs", "IPAM": {"Config": [{"Subnet": "10.98.0.0/16"}]}},
            (
                "network net (10.98.1.0/24) overlaps with 10.98.0.0/16 of this engine's network "
                "theirs; remove that, or create the network with another --subnet"
            ),
        ),
    ],
)
async def test_what_stands_in_the_way_is_named(
    node: Node, engine: PrivateEngine, theirs: dict[str, Any], text: str
) -> None:
    """And left alone."""
    made = engine.api("POST", "/networks/create", theirs)["Id"]
    with pytest.raises(ExecutorError) as caught:
        await node.controller(**on(network())).prepare()
    assert str(caught.value) == text
    assert engine.api("GET", f"/networks/{made}")["Name"] == theirs["Name"]


async def test_a_network_that_was_made_anew(node: Node, engine: PrivateEngine) -> None:
    """A bridge of ours of an earlier network, or with another gateway, gives way to the new one;
    while containers run on it, the task waits."""
    old = await node.running(task_id="t0", **on(network(id="the-old-one-012345")))
    new = node.controller(task_id="t1", **on(network(gateway=5), last=10))
    with pytest.raises(EngineUnavailable, match="waits for containers that are still on net"):
        await new.prepare()
    await old.shutdown()
    await insist(new.prepare)
    await new.start()
    (config,) = bridges(engine)["net"]["IPAM"]["Config"]
    assert config["Gateway"] == "10.98.1.5"
    await remove(old, new)
    assert bridges(engine) == {}


async def test_a_network_that_was_removed_by_hand(node: Node, engine: PrivateEngine) -> None:
    """The next container finds out, and has it made again."""
    first = await node.running(task_id="t0", **on(network()))
    await first.shutdown()
    engine.remove_network("net")
    second = node.controller(task_id="t1", **on(network(), last=10))
    await insist(second.prepare)
    await insist(second.start)
    assert list(bridges(engine)) == ["net"]
    await remove(first, second)


async def test_the_ingress_network_is_one_like_the_others(
    node: Node, engine: PrivateEngine
) -> None:
    """Whoever publishes a port has its address there, and reaches the world through it."""
    task = await node.running(**on(network("ingress", ingress=True)))
    assert set(seen(engine)["NetworkSettings"]["Networks"]) == {"ingress"}
    assert set(bridges(engine)) == {"ingress"}
    await remove(task)
    assert bridges(engine) == {}


async def test_a_create_that_was_interrupted(node: Node, engine: PrivateEngine) -> None:
    """Cancelled anywhere, preparing again completes the container with all its networks."""
    networks = network("north", 1), network("south", 2)
    for delay_s in (0.01, 0.05, 0.1, 0.2, 0.4):
        task = node.controller(**on(*networks))
        with trio.move_on_after(delay_s):
            await insist(task.prepare)
        await insist(task.prepare)
        await task.start()
        assert set(seen(engine)["NetworkSettings"]["Networks"]) == {"north", "south"}
        await remove(task)
    assert bridges(engine) == {}


def test_routes_are_read() -> None:
    """Those of directly reached subnets; not the default, and none through a gateway."""
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "eth0\t0000A8C0\t0100000A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    assert connected_routes(table) == [("eth0", "10.77.0.0/24")]
