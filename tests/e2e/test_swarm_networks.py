"""Networks on real engines: a bridge for each, addresses really in the containers, and no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Engine, Lab
    from tests.e2e.swarm import Swarm

pytestmark = [pytest.mark.lab, pytest.mark.engine, pytest.mark.every_engine]

_SERVE = ["sh", "-c", "while :; do echo served by $HOSTNAME | nc -l -p 80; done"]


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """A manager and two workers."""
    with swarm_on(lab3.hosts) as swarm:
        yield swarm


def _engine(swarm: Swarm, index: int) -> Engine:
    engine = swarm.hosts[index].engine
    assert engine is not None
    return engine


def _make(swarm: Swarm, name: str, **more: Any) -> str:
    body = {"Name": name, "Driver": "overlay", **more}
    return str(swarm.api("POST", "/networks/create", body)["Id"])


def _on(*networks: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
    """The parts of a spec that put a service on networks."""
    joined = [one if isinstance(one, dict) else {"Target": one} for one in networks]
    return {"task": {"Networks": joined, **more}}


def _only_on(swarm: Swarm, index: int) -> dict[str, Any]:
    return {"Placement": {"Constraints": [f"node.hostname=={swarm.hosts[index].name}"]}}


def _bridges(swarm: Swarm, index: int) -> dict[str, dict[str, Any]]:
    """The networks of swarmctl on one host's engine, by name."""
    listed = _engine(swarm, index).api("GET", "/networks")
    return {one["Name"]: one for one in listed if "swarmctl.network.id" in (one["Labels"] or {})}


def _inspect(swarm: Swarm, task: dict[str, Any]) -> tuple[Engine, dict[str, Any]]:
    engine, container = swarm.container_of(task["ID"])
    return engine, engine.api("GET", f"/containers/{container['Id']}/json")


def _addresses(task: dict[str, Any]) -> dict[str, str]:
    """A task's addresses by network name."""
    return {
        one["Network"]["Spec"]["Name"]: one["Addresses"][0] for one in task["NetworksAttachments"]
    }


def _exec(engine: Engine, seen: dict[str, Any], *words: str) -> str:
    """What a command prints that runs in a container, with the container's files and network."""
    enter = ["nsenter", "-t", str(seen["State"]["Pid"]), "-m", "-n", "-u", "--"]
    return engine.host.run([*enter, *words]).stdout


def test_two_services_on_one_network(swarm: Swarm) -> None:
    """Containers have the addresses that the swarm says, and reach each other by them and by name
    on one host; each host with tasks has a bridge with a gateway of its own, the last task takes
    it along."""
    _make(swarm, "net")
    db = swarm.create_spec(
        "db", 1, container={"Command": _SERVE}, **_on("net", **_only_on(swarm, 0))
    )
    web = swarm.create_spec("web", 3, **_on({"Target": "net", "Aliases": ["front"]}))
    swarm.wait_running(db, 1)
    swarm.wait_running(web, 3)
    gateways = set()
    for index in range(3):
        bridge = _bridges(swarm, index)["net"]
        (config,) = bridge["IPAM"]["Config"]
        assert config["Subnet"] == "10.0.1.0/24"
        gateways.add(config["Gateway"])
    assert len(gateways) == 3
    for task in [*swarm.running(web), *swarm.running(db)]:
        engine, seen = _inspect(swarm, task)
        address = _addresses(task)["net"]
        assert seen["NetworkSettings"]["Networks"]["net"]["IPAddress"] == address.partition("/")[0]
        assert f"inet {address}" in _exec(engine, seen, "ip", "-4", "addr")
    (near,) = (task for task in swarm.running(web) if swarm.nodes_of([task]) == [0])
    (target,) = swarm.running(db)
    engine, seen = _inspect(swarm, near)
    for name in (_addresses(target)["net"].partition("/")[0], "db", "tasks.db"):
        assert "served by" in _exec(engine, seen, "nc", "-w", "5", name, "80")
    assert _exec(engine, seen, "nslookup", "front")
    for service in (db, web):
        swarm.api("DELETE", f"/services/{service}")
    swarm.api("DELETE", "/networks/net")
    eventually(
        lambda: not any(_bridges(swarm, index) for index in range(3)), 30, what="bridges to go"
    )
    links = ["ip", "-br", "link"]
    for host in swarm.hosts:
        eventually(lambda on=host: "sw-" not in on.run(links).stdout, 10, what="links to go")


def test_several_networks_on_one_container(swarm: Swarm) -> None:
    """Each with its address and aliases; an internal one and one of two families among them."""
    _make(swarm, "front")
    subnets = [{"Subnet": "10.90.0.0/24"}, {"Subnet": "fd00:90::/64"}]
    _make(swarm, "back", EnableIPv6=True, Internal=True, IPAM={"Config": subnets})
    web = swarm.create_spec(
        "web", 1, **_on({"Target": "front", "Aliases": ["a", "b"]}, {"Target": "back"})
    )
    swarm.wait_running(web, 1)
    (task,) = swarm.running(web)
    engine, seen = _inspect(swarm, task)
    networks = seen["NetworkSettings"]["Networks"]
    assert set(networks) == {"front", "back"}
    given = {
        one["Network"]["Spec"]["Name"]: one["Addresses"] for one in task["NetworksAttachments"]
    }
    assert networks["front"]["IPAddress"] == given["front"][0].partition("/")[0]
    for name in ("web", "tasks.web", "a", "b"):
        assert _exec(engine, seen, "nslookup", name)
    assert networks["back"]["IPAddress"] == given["back"][0].partition("/")[0]
    assert networks["back"]["GlobalIPv6Address"] == given["back"][1].partition("/")[0]
    shown = _exec(engine, seen, "ip", "addr")
    assert all(f"{address}" in shown for texts in given.values() for address in texts)
    (index,) = swarm.nodes_of([task])
    assert _bridges(swarm, index)["back"]["Internal"] is True


def test_a_network_that_clashes_with_the_engines_own(swarm: Swarm) -> None:
    """By name or by subnet: the task says what stands in the way, and starts once it is gone."""
    engine = _engine(swarm, 1)
    config = {"Driver": "default", "Config": [{"Subnet": "10.91.0.0/24"}]}
    engine.api("POST", "/networks/create", {"Name": "theirs", "IPAM": config})
    _make(swarm, "mine", IPAM={"Config": [{"Subnet": "10.91.0.0/25"}]})
    web = swarm.create_spec("web", 1, **_on("mine", **_only_on(swarm, 1)))
    errors = eventually(
        lambda: {
            task["Status"]["Err"]
            for task in swarm.tasks(web)
            if task["Status"]["State"] == "rejected"
        },
        30,
        what="a rejected task",
    )
    (error,) = errors
    assert error == (
        "network mine (10.91.0.0/25) overlaps with 10.91.0.0/24 of this engine's network theirs; "
        "remove that, or create the network with another --subnet"
    )
    engine.api("DELETE", "/networks/theirs")
    swarm.wait_running(web, 1)


def test_a_network_that_the_host_itself_uses(swarm: Swarm) -> None:
    """A bridge in the host's own subnet would cut it off, so it is refused."""
    _make(swarm, "lan", IPAM={"Config": [{"Subnet": "10.77.0.0/16"}]})
    web = swarm.create_spec("web", 1, **_on("lan"))
    errors = eventually(
        lambda: {
            task["Status"]["Err"]
            for task in swarm.tasks(web)
            if task["Status"]["State"] == "rejected"
        },
        30,
        what="a rejected task",
    )
    assert all("which this host reaches through eth0" in error for error in errors)


def test_tasks_move_and_the_daemon_restarts(swarm: Swarm) -> None:
    """A drained host loses its bridge; a daemon that comes back keeps what its containers use and
    removes it with the last of them."""
    _make(swarm, "net")
    web = swarm.create_spec("web", 3, **_on("net"))
    swarm.wait_running(web, 3)
    nodes = swarm.nodes_of(swarm.running(web))
    assert nodes == [0, 1, 2], [task["Status"] for task in swarm.tasks(web)]
    before = _bridges(swarm, 1)["net"]["Id"]
    swarm.daemons[1].kill()
    swarm.daemons[1].start()
    swarm.assert_exactly(web, 3)
    assert _bridges(swarm, 1)["net"]["Id"] == before
    swarm.update_node(1, Availability="drain")
    eventually(lambda: 1 not in swarm.nodes_of(swarm.running(web)), 30, what="tasks to move")
    swarm.assert_exactly(web, 3)
    swarm.api("DELETE", f"/services/{web}")
    eventually(
        lambda: not any(_bridges(swarm, index) for index in range(3)), 30, what="bridges to go"
    )


def test_the_host_network(swarm: Swarm) -> None:
    """A service on ``host`` runs in its host's own network."""
    swarm_host = swarm.api("GET", "/networks/host", query={"scope": "swarm"})
    web = swarm.create_spec("web", 1, **_on(swarm_host["Id"]))
    swarm.wait_running(web, 1)
    (task,) = swarm.running(web)
    _, seen = _inspect(swarm, task)
    assert seen["HostConfig"]["NetworkMode"] == "host"
