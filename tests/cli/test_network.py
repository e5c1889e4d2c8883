"""``network``: docker's flags, columns and words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

CREATE = "POST /networks/create"


def network(name: str, subnet: str, in_use: int, left: int, **more: Any) -> dict[str, Any]:
    use = {"IPsInUse": in_use, "DynamicIPsAvailable": left}
    return {
        "Name": name,
        "Id": f"{name}0123456789abcdefghijkl",
        "Created": "2026-01-02T03:04:05Z",
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "Internal": False,
        "Ingress": False,
        "Labels": {},
        "Status": {"IPAM": {"Subnets": {subnet: use}}},
        **more,
    }


NETWORKS = [
    network("net10", "10.0.2.0/24", 3, 251, Labels={"b": "2", "a": "1"}),
    network("net2", "fd00::/64", 2, 2**64 - 3),
]


def test_networks_are_listed_with_their_use(stub: Stub, run: Callable[..., Ran]) -> None:
    """Docker's four columns, in natural order, and how many addresses are in use."""
    stub.answers["GET /networks"] = NETWORKS
    assert run("network", "ls").out.splitlines() == [
        "NETWORK ID     NAME      DRIVER    SCOPE     ADDRESSES",
        "net201234567   net2      overlay   swarm     2 of fd00::/64",
        "net100123456   net10     overlay   swarm     3/254",
    ]
    assert run("network", "ls", "-q", "--no-trunc").out.split() == [
        "net20123456789abcdefghijkl",
        "net100123456789abcdefghijkl",
    ]
    shown = run("network", "ls", "--format", "{{.Name}} {{.Labels}} {{.IPv6}} {{.Internal}}")
    assert shown.out.splitlines() == ["net2  false false", "net10 a=1,b=2 false false"]
    run("network", "ls", "-f", "driver=overlay", "--filter", "label=a=1")
    assert stub.asked[-1].query == {"filters": '{"driver":{"overlay":true},"label":{"a=1":true}}'}


def test_create_sends_what_docker_sends(stub: Stub, run: Callable[..., Ran]) -> None:
    """The driver is overlay unless told; nothing is asked of the subnets when none is given."""
    stub.answers[CREATE] = (201, {"Id": "n1", "Warning": "not yet"})
    ran = run("network", "create", "net")
    assert (ran.out, ran.err) == ("n1\n", "WARNING: not yet\n")
    assert stub.posted() == {
        "Name": "net",
        "Driver": "overlay",
        "Scope": "",
        "IPAM": {"Driver": "default", "Options": {}, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "Options": {},
        "Labels": {},
    }


def test_create_with_everything(stub: Stub, run: Callable[..., Ran]) -> None:
    """Each range, gateway and reserved address goes to the subnet that it lies in."""
    stub.answers[CREATE] = (201, {"Id": "n1", "Warning": ""})
    run(
        *("network", "create", "--attachable", "--internal", "--ipv6", "--ipv4=false"),
        *("--subnet", "10.5.0.0/16,fd00::/64", "--gateway", "10.5.0.1", "--gateway", "fd00::9"),
        *("--ip-range", "10.5.1.0/24", "--aux-address", "printer=10.5.0.7"),
        *("-o", "com.docker.network.driver.mtu=1400", "--label", "a=b", "--scope", "swarm", "net"),
    )
    body = stub.posted()
    assert body["IPAM"]["Config"] == [
        {
            "Subnet": "10.5.0.0/16",
            "IPRange": "10.5.1.0/24",
            "Gateway": "10.5.0.1",
            "AuxiliaryAddresses": {"printer": "10.5.0.7"},
        },
        {"Subnet": "fd00::/64", "Gateway": "fd00::9"},
    ]
    assert (body["EnableIPv4"], body["EnableIPv6"]) == (False, True)
    assert (body["Attachable"], body["Internal"], body["Scope"]) == (True, True, "swarm")
    assert body["Options"] == {"com.docker.network.driver.mtu": "1400"}
    assert body["Labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--gateway", "10.0.0.1"], "every ip-range or gateway must have a corresponding subnet"),
        (
            ["--subnet", "10.5.0.0/24", "--gateway", "10.6.0.1"],
            "no matching subnet for gateway 10.6.0.1",
        ),
        (
            ["--subnet", "10.5.0.0/24", "--ip-range", "10.6.0.0/25"],
            "no matching subnet for range 10.6.0.0/25",
        ),
        (
            ["--subnet", "10.5.0.0/24", "--subnet", "10.5.0.0/25"],
            "multiple overlapping subnet configuration is not supported",
        ),
        (
            ["--subnet", "10.5.0.0/24", "--gateway", "10.5.0.1,10.5.0.2"],
            (
                "cannot configure multiple gateways (10.5.0.2, 10.5.0.1) on the same subnet "
                "(10.5.0.0/24)"
            ),
        ),
        (["--subnet", "x", "--gateway", "y"], "invalid subnet or address: x, y"),
    ],
)
def test_addresses_that_do_not_fit(run: Callable[..., Ran], flags: list[str], text: str) -> None:
    """They are refused before anything is asked of the daemon."""
    ran = run("network", "create", *flags, "net")
    assert (ran.code, ran.err) == (1, f"{text}\n")


def test_inspect_and_rm(stub: Stub, run: Callable[..., Ran]) -> None:
    """Objects as they are; one that cannot be removed does not keep the others."""
    stub.answers["GET /networks/net10"] = NETWORKS[0]
    assert run("network", "inspect", "-f", "{{.Name}} {{.Driver}}", "net10").out == (
        "net10 overlay\n"
    )
    stub.answers["DELETE /networks/a"] = (400, {"message": "network a is in use by service s"})
    stub.answers["DELETE /networks/b"] = (204, None)
    ran = run("network", "rm", "a", "b")
    assert (ran.code, ran.out, ran.err) == (
        1,
        "b\n",
        "Error response from daemon: network a is in use by service s\n",
    )
    assert run("network", "rm", "-f", "gone").out == ""


def test_prune(stub: Stub, run: Callable[..., Ran]) -> None:
    """What was removed is named; nothing is said when nothing was."""
    stub.answers["POST /networks/prune"] = {"NetworksDeleted": ["a", "b"]}
    ran = run("network", "prune", "-f", "--filter", "until=24h")
    assert ran.out == "Deleted Networks:\na\nb\n\n"
    assert stub.asked[-1].query == {"filters": '{"until":{"24h":true}}'}
    stub.answers["POST /networks/prune"] = {"NetworksDeleted": None}
    assert run("network", "prune", "--force").out == ""
