"""Containers that users put on networks of the swarm by the engine's own commands."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarmctl.core.agent.presence import at_work
from swarmctl.plugins import ExecutorError, Sandbox
from tests.e2e.lab.unix_http import ApiError

from .conftest import insist
from .test_bridges import bridges, network, on, seen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from swarmctl.plugins.model import HostNetwork

    from .conftest import Node
    from .private import PrivateEngine

pytestmark = pytest.mark.engine
ROOM = "10.98.1.240/29"


def attachable(**how: Any) -> HostNetwork:
    """A network with room for eight containers of users."""
    return network(attachable=True, room=(ROOM,), **how)


class Told:
    """What an executor tells of visitors, as it is now."""

    def __init__(self, node: Node, nursery: trio.Nursery) -> None:
        self.now: Sequence[Sandbox] | None = None
        self._news = trio.Event()
        nursery.start_soon(node.executor.watch_visitors, self._take)

    def _take(self, sandboxes: Sequence[Sandbox]) -> None:
        self.now = sandboxes
        self._news.set()

    async def wait(self, count: int) -> Sequence[Sandbox]:
        """Wait until so many are there."""
        with trio.fail_after(10):
            while self.now is None or len(self.now) != count:
                self._news = trio.Event()
                await self._news.wait()
        return self.now


async def test_a_network_is_kept_without_tasks(node: Node, engine: PrivateEngine) -> None:
    """Until it is not asked for any more; a task on it that goes does not take it along."""
    await insist(lambda: node.executor.keep_networks([attachable()]))
    assert set(bridges(engine)) == {"net"}
    task = await node.running(**on(attachable()))
    await task.remove()
    assert set(bridges(engine)) == {"net"}
    await insist(lambda: node.executor.keep_networks([]))
    assert bridges(engine) == {}


async def test_visitors_get_addresses_of_the_nodes_room(
    node: Node, engine: PrivateEngine, nursery: trio.Nursery
) -> None:
    """They are told of with all that is to be known, tasks are not; a full room refuses more."""
    await insist(lambda: node.executor.keep_networks([attachable()]))
    told = Told(node, nursery)
    assert await told.wait(0) == []
    task = await node.running(**on(attachable()))
    first = engine.run_foreign("guest", network="net")
    (found,) = await told.wait(1)
    inspected = engine.api("GET", f"/containers/{first}/json")
    (address,) = found.addresses
    assert ipaddress.ip_address(address) in ipaddress.ip_network(ROOM)
    assert (found.id, found.pid) == (first, inspected["State"]["Pid"])
    assert found.networks == (attachable().id,)
    assert found.names[0] == "guest"
    places = [inspected["NetworkSettings"]["Networks"]["net"]["IPAddress"]]
    for number in range(7):
        more = engine.run_foreign(f"guest{number}", network="net")
        where = engine.api("GET", f"/containers/{more}/json")["NetworkSettings"]["Networks"]
        places.append(where["net"]["IPAddress"])
    assert len(set(places)) == 8
    assert seen(engine)["NetworkSettings"]["Networks"]["net"]["IPAddress"] not in places
    await told.wait(8)
    with pytest.raises(ApiError):
        engine.run_foreign("one-too-many", network="net")
    engine.api("DELETE", f"/containers/{first}", force=1)
    assert {one.names[0] for one in await told.wait(7)} == {f"guest{n}" for n in range(7)}
    await task.remove()


async def test_a_network_with_a_visitor_stays_until_it_goes(
    node: Node, engine: PrivateEngine, nursery: trio.Nursery
) -> None:
    """Though the swarm has removed it: the container is its user's, also when it has ended."""
    await insist(lambda: node.executor.keep_networks([attachable()]))
    told = Told(node, nursery)
    guest = engine.run_foreign("guest", network="net")
    await told.wait(1)
    await insist(lambda: node.executor.keep_networks([]))
    await told.wait(0)
    engine.api("POST", f"/containers/{guest}/kill")
    with trio.fail_after(10):
        while engine.api("GET", f"/containers/{guest}/json")["State"]["Running"]:
            await trio.sleep(0.05)
    await trio.sleep(1)  # whoever looks at its end has looked
    assert set(bridges(engine)) == {"net"}
    engine.api("DELETE", f"/containers/{guest}", force=1)
    with trio.fail_after(10):
        while bridges(engine):
            await trio.sleep(0.05)


async def test_other_networks_take_no_visitors(node: Node, engine: PrivateEngine) -> None:
    """The engine has no address to choose, so nobody's is given twice. Podman has one that is of
    no use to whoever gets it."""
    # Of a name that it had before, Podman remembers which address came last.
    task = await node.running(**on(network("shut", 7)))
    if engine.kind == "podman":
        useless = engine.run_foreign("useless", network="shut")
        found = engine.api("GET", f"/containers/{useless}/json")["NetworkSettings"]["Networks"]
        assert found["shut"]["IPAddress"] == "10.98.7.255"
    with pytest.raises(ApiError):
        engine.run_foreign("guest", network="shut")
    await task.remove()


async def test_what_a_former_node_left(
    make_node: Callable[..., Awaitable[Node]], engine: PrivateEngine
) -> None:
    """A network of a node that this host was goes when nobody is on it; else it is named, as it
    is when that node is at work here."""
    former = await make_node("former")
    left = network(id="of-another-swarm-0")
    old = await former.running(**on(left))
    node = await make_node("node-b")
    new = node.controller(task_id="t1", **on(network(), last=10))
    with pytest.raises(ExecutorError, match=r"which node former left .* \(web\.1\.t0\)"):
        await new.prepare()
    engine.api("DELETE", "/containers/web.1.t0", force=1)
    with at_work("former"), pytest.raises(ExecutorError, match=r"not swarmctl's"):
        await new.prepare()
    await insist(new.prepare)
    await new.start()
    assert bridges(engine)["net"]["Labels"]["swarmctl.node.id"] == "node-b"
    await new.remove()
    await old.remove()
