"""Labels that pin addresses and ports: what they mean, and which cannot be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.errors import InvalidArgument
from swarmctl.core.model.labels import SERVICES, check_labels
from swarmctl.core.model.network import make_network
from swarmctl.core.model.objects import IPAM, IPAMConfig, Network, NetworkSpec
from swarmctl.core.model.pinned import (
    all_addresses,
    check_pinned,
    check_pinned_networks,
    pinned_warnings,
    service_addresses,
    task_addresses,
)
from swarmctl.core.model.spec import PortConfig, ServiceSpec
from tests.core.allocator.joined import on_networks
from tests.core.pipeline.world import everywhere

NET = Network(Name="net", Id="n1")
BOTH = "10.0.1.10,fd00::a,10.0.1.11,fd00::b"


def test_slots_count_within_each_family() -> None:
    """In the order in which they stand; by the network's name or by its id."""
    for name in ("net", "n1"):
        labels = {f"swarmctl.ip.{name}": BOTH}
        assert task_addresses(labels, NET, 1) == ((False, "10.0.1.10"), (True, "fd00::a"))
        assert task_addresses(labels, NET, 2) == ((False, "10.0.1.11"), (True, "fd00::b"))
        assert task_addresses(labels, NET, 3) == ()
        assert task_addresses(labels, NET, 0) == ()
    assert task_addresses({"swarmctl.ip.other": BOTH}, NET, 1) == ()


def test_a_service_has_one_of_each_family() -> None:
    """And everything that it pins down is known."""
    labels = {"swarmctl.vip.net": "10.0.1.5,fd00::5", "swarmctl.ip.net": "fd00:0::a"}
    assert service_addresses(labels, NET) == ((False, "10.0.1.5"), (True, "fd00::5"))
    assert sorted(all_addresses(labels, NET)) == ["10.0.1.5", "fd00::5", "fd00::a"]


def labelled(spec: ServiceSpec, **labels: str) -> ServiceSpec:
    return replace(spec, Labels={f"swarmctl.{name}": text for name, text in labels.items()})


WEB = on_networks("web", "n1", replicas=2, ports=(PortConfig(TargetPort=80, PublishedPort=8080),))
HOST = on_networks(ports=(PortConfig(TargetPort=80, PublishedPort=8080, PublishMode="host"),))


@pytest.mark.parametrize(
    ("spec", "label", "text", "why"),
    [
        (WEB, "ip.net", "10.0.1", "'10.0.1' is no IP address"),
        (WEB, "ip.net", "10.0.1.1,10.0.1.1", "10.0.1.1 stands there twice"),
        (everywhere(), "ip.net", "10.0.1.1", "addresses are given by slot, which only"),
        (WEB, "vip.net", "10.0.1.1,10.0.1.2", "a service has one address of each family"),
        (on_networks(mode="dnsrr"), "vip.net", "10.0.1.1", "in mode dnsrr has no address"),
        (WEB, "publish.8081.ip", "10.0.0.1", "the service publishes no port 8081"),
        (WEB, "publish.8080/udp.ip", "10.0.0.1", "the service publishes no port 8080/udp"),
        (HOST, "publish.8080.source", "keep", "always sees its clients' addresses"),
        (HOST, "publish.8080.ip", "eth0", "is bound to an IP address, which 'eth0' is not"),
    ],
)
def test_what_cannot_be_is_refused(spec: ServiceSpec, label: str, text: str, why: str) -> None:
    """With the label and the reason."""
    check_labels({f"swarmctl.{label}": text}, on=SERVICES)
    with pytest.raises(InvalidArgument, match=why) as caught:
        check_pinned(labelled(spec, **{label: text}))
    assert f"swarmctl.{label}" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "label", "text"),
    [
        (WEB, "ip.net", BOTH),
        (WEB, "vip.net", "10.0.1.5"),
        (everywhere(), "vip.net", "10.0.1.5"),
        (WEB, "publish.8080.ip", "eth0"),
        (WEB, "publish.8080/tcp.source", "keep"),
        (HOST, "publish.8080.ip", "10.0.0.1"),
    ],
)
def test_what_can_be_is_not(spec: ServiceSpec, label: str, text: str) -> None:
    """And the registry of labels knows it."""
    check_labels({f"swarmctl.{label}": text}, on=SERVICES)
    check_pinned(labelled(spec, **{label: text}))


def test_the_network_has_to_be_joined_and_to_have_the_address() -> None:
    """Where it has subnets; one that has none yet is judged by the allocator."""
    row = make_network("n1", NetworkSpec(Name="net", Driver="overlay"))
    bare = (row, make_network("n2", NetworkSpec(Name="other", Driver="overlay")))
    check_pinned_networks(labelled(WEB, **{"ip.net": "10.0.1.10"}), bare)
    with pytest.raises(InvalidArgument, match="the service does not join that network"):
        check_pinned_networks(labelled(WEB, **{"ip.other": "10.0.1.10"}), bare)
    api = replace(row.api, IPAM=IPAM(Config=(IPAMConfig(Subnet="10.0.1.0/24"),)))
    rows = (replace(row, api=api, private=replace(row.private, vni=4097)),)
    check_pinned_networks(labelled(WEB, **{"vip.n1": "10.0.1.10"}), rows)
    for text in ("10.0.2.1", "fd00::1"):
        with pytest.raises(InvalidArgument, match=rf"{text} is not in the network's subnet"):
            check_pinned_networks(labelled(WEB, **{"vip.net": text}), rows)


def test_replicas_without_a_pinned_address_are_told() -> None:
    """Fewer addresses than replicas, in the family that has the fewest."""
    assert list(pinned_warnings(labelled(WEB, **{"ip.net": BOTH}))) == []
    assert list(pinned_warnings(labelled(WEB, **{"ip.net": "10.0.1.10"}))) == [
        "label 'swarmctl.ip.net' has 1 addresses for 2 replicas: the rest get any"
    ]
