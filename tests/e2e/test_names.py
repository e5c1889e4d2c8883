"""Containers of a real engine hear the responder, by the ways that decision 0013 names."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from swarmctl.core.agent.network import Sandbox
from swarmctl.core.model.endpoints import EndpointTable, NetworkTable, ServiceEndpoint
from swarmctl.core.model.task import HostNetwork
from swarmctl.plugins.overlay.dns.sockets import INSIDE_ADDRESS, INSIDE_PORT
from tests.e2e.lab import IMAGE
from tests.e2e.names_host import Said, Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Host, Lab

pytestmark = pytest.mark.engine

GATEWAY, VIP = "10.9.1.250", "10.9.1.2"
OWN_RESOLVER = "is about Docker's resolver in each container; Podman's containers ask the gateway"
RULES = f"""
table ip swarmctl {{
    chain names {{
        type nat hook output priority -110
        ip daddr {{ 127.0.0.11, {GATEWAY} }} udp dport 53 dnat to {INSIDE_ADDRESS}:{INSIDE_PORT}
        ip daddr {{ 127.0.0.11, {GATEWAY} }} tcp dport 53 dnat to {INSIDE_ADDRESS}:{INSIDE_PORT}
    }}
}}
"""


class Names:
    """One host with a network, its responder and its containers."""

    def __init__(self, host: Host, *, internal: bool) -> None:
        self.host = host
        self._state_dir = host.state_dir / "names"
        self._state_dir.mkdir(exist_ok=True)
        self._table = EndpointTable(
            networks=(
                NetworkTable(
                    network=HostNetwork(
                        id="back",
                        name="back",
                        subnets=("10.9.1.0/24",),
                        gateways=(f"{GATEWAY}/24",),
                        internal=internal,
                    ),
                    services=(ServiceEndpoint(service_id="s", names=("web",), vips=(VIP,)),),
                ),
            )
        )
        self._network = self._api(
            "POST",
            "/networks/create",
            {
                "Name": "back",
                "Driver": "bridge",
                "Internal": internal,
                "IPAM": {"Config": [{"Subnet": "10.9.1.0/24", "Gateway": GATEWAY}]},
                "Options": {"com.docker.network.bridge.name": "sw-back"},
            },
        )["Id"]
        self._containers: list[str] = []

    def run(self, **more: Any) -> str:
        """Start a container on the network."""
        body = {"Image": IMAGE, "Cmd": ["sleep", "1000"]}
        body["HostConfig"] = {"NetworkMode": "back", **more}  # type: ignore[assignment]
        created = self._engine().run_container(body)
        self._containers.append(created)
        return created

    def tell(self, *containers: str) -> Said:
        """Let a daemon tell the responder; containers named are listened for inside."""
        boxes = tuple(Sandbox(id=one, pid=self.pid(one), networks=("back",)) for one in containers)
        return self._tell(Told(self._table, boxes))

    def _tell(self, what: Told) -> Said:
        told = msgspec.json.encode(what).decode()
        command = [sys.executable, "-m", "tests.e2e.names_host", self._state_dir]
        done = self.host.run(command, input_text=told, env={"PYTHONPATH": ":".join(sys.path)})
        return msgspec.json.decode(done.stdout, type=Said)

    def lead(self, container: str) -> None:
        """Make the driver's rule in a container's namespace."""
        space = f"--net=/proc/{self.pid(container)}/ns/net"
        self.host.run(["nsenter", space, "nft", "-f", "-"], input_text=RULES)

    def look_up(self, container: str, name: str = "web") -> list[str]:
        """Return the addresses that a program in a container gets for a name."""
        engine = ["docker", "-H", self._engine().url]
        done = self.host.run([*engine, "exec", container, "nslookup", name], check=False)
        _, _, answer = done.stdout.partition("\n\n")
        return re.findall(r"^Address(?: \d+)?: (\S+)", answer, re.MULTILINE)

    def pid(self, container: str) -> int:
        return int(self._api("GET", f"/containers/{container}/json")["State"]["Pid"])

    def close(self) -> None:
        for container in self._containers:
            self._engine().remove_container(container)
        self._api("DELETE", f"/networks/{self._network}")
        self._tell(Told(EndpointTable()))

    def _engine(self) -> Any:
        assert self.host.engine is not None
        return self.host.engine

    def _api(self, *arguments: Any) -> Any:
        return self._engine().api(*arguments)


@pytest.fixture
def names(lab1: Lab, request: pytest.FixtureRequest) -> Iterator[Names]:
    """A network with a responder; internal where a test says so."""
    made = Names(lab1[0], internal=getattr(request, "param", False))
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("names", [False, True], indirect=True, ids=["open", "internal"])
def test_the_engines_resolver_passes_on_to_the_gateway(names: Names) -> None:
    """From a container's first question on, and without a daemon of ours: names are answered."""
    assert names.tell().problems == ()
    container = names.run(Dns=[GATEWAY])
    assert names.look_up(container) == [VIP]


@pytest.mark.docker_only(OWN_RESOLVER)
def test_a_container_that_a_user_puts_there_is_answered_inside(names: Names) -> None:
    """It names no DNS server of ours; the rule leads to us all the same."""
    container = names.run()
    assert names.tell(container) == Said((container,), ())
    assert names.look_up(container) == []
    names.lead(container)
    assert names.look_up(container) == [VIP]
    assert names.look_up(container, "tasks.web") == []


@pytest.mark.docker_only(OWN_RESOLVER)
def test_single_names_are_answered_inside_whatever_ndots_says(names: Names) -> None:
    """Docker's resolver keeps them to itself once a spec sets ndots."""
    container = names.run(Dns=[GATEWAY], DnsOptions=["ndots:1"])
    names.tell(container)
    assert names.look_up(container) == []
    names.lead(container)
    assert names.look_up(container) == [VIP]


def test_a_firewall_on_the_host_keeps_nobody_from_names(lab1: Lab, names: Names) -> None:
    """It stands between a container and the gateway, and not within the container."""
    container = names.run(Dns=[GATEWAY])
    names.tell(container)
    firewall = "table ip firewall {\n chain input {\n type filter hook input priority 0\n"
    firewall += ' iifname "sw-back" drop\n }\n}\n'
    lab1[0].run(["nft", "-f", "-"], input_text=firewall)
    try:
        assert names.look_up(container) == []
        names.lead(container)
        assert names.look_up(container) == [VIP]
    finally:
        lab1[0].run(["nft", "delete", "table", "ip", "firewall"])


def test_names_are_answered_while_the_engine_is_away(lab1: Lab, names: Names) -> None:
    """What is asked inside is answered by us alone."""
    container = names.run(Dns=[GATEWAY])
    names.tell(container)
    names.lead(container)
    space = f"--net=/proc/{names.pid(container)}/ns/net"
    engine = lab1[0].engine
    assert engine is not None
    engine.pause()
    try:
        done = lab1[0].run(["nsenter", space, "busybox", "nslookup", "web", INSIDE_ADDRESS])
        assert VIP in done.stdout
    finally:
        engine.resume()
