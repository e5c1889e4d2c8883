"""The rules of the host: published ports."""

from __future__ import annotations

from swarmctl.plugins.overlay.mesh import host_rules
from swarmctl.plugins.overlay.rules import BRIEF
from tests.plugins.overlay.tables import ingress, member, published, table

HOST = {"eth0": ["10.77.0.1"], "eth1": ["10.88.0.1", "fd88::1"]}


def _texts(*ports, not_ours=frozenset(), family="ip", six=False):
    rules = host_rules(
        table(ingress(six=six), ports=ports), node_id="node1", interfaces=HOST, not_ours=not_ours
    )
    return {
        name: [rule.text for rule in chain.rules] for name, chain in rules.get(family, {}).items()
    }


def _in_ingress(number, node="node2", **parts):
    return member(number, node, subnet="10.0.0", **parts)


def test_a_published_port_leads_to_ready_members() -> None:
    """Whoever reaches the port on an address of the host comes to a member's target port."""
    texts = _texts(published(_in_ingress(7), _in_ingress(8, ready=False)))
    assert texts["prerouting"] == [
        "ip daddr 10.0.0.250 return",
        "fib daddr type local jump mesh",
    ]
    assert texts["output"] == texts["prerouting"]
    assert texts["mesh"] == ["meta l4proto . th dport vmap { tcp . 8080 : goto port-tcp-8080 }"]
    assert texts["port-tcp-8080"] == [f"meta l4proto tcp {BRIEF} dnat to 10.0.0.7 : 80"]
    assert texts["postrouting"] == [
        'oifname != "lo" ct status dnat meta l4proto tcp ct original proto-dst { 8080 } masquerade'
    ]


def test_a_port_without_ready_members_refuses() -> None:
    """Nobody there: the client is told at once, as by a closed port."""
    texts = _texts(published(_in_ingress(7, ready=False)), published(port=53, protocol="udp"))
    assert texts["refuse"] == [
        "fib daddr type local udp dport 53 reject",
        "fib daddr type local tcp dport 8080 reject with tcp reset",
    ]
    assert "postrouting" not in texts


def test_what_no_rule_led_to_a_member_is_dropped() -> None:
    """It came while rules were replaced, and finds them when it comes again."""
    texts = _texts(published(_in_ingress(7)), published(_in_ingress(7), ip="eth0", port=53))
    assert texts["refuse"] == [
        "fib daddr type local tcp dport 8080 drop",
        "ip daddr { 10.77.0.1 } fib daddr type local tcp dport 53 drop",
    ]
    assert (
        texts["input"]
        == texts["sent"]
        == [
            "ct state != new return",
            "ct status & dnat == dnat return",
            "ip daddr 10.0.0.250 return",
            "jump refuse",
        ]
    )


def test_keeping_the_source_means_members_here_and_no_masquerade() -> None:
    """Only this host's members answer, and see the client's own address."""
    port = published(_in_ingress(7, "node1"), _in_ingress(8, "node2"), keep_source=True)
    texts = _texts(port)
    assert texts["port-tcp-8080"] == [f"meta l4proto tcp {BRIEF} dnat to 10.0.0.7 : 80"]
    assert "postrouting" not in texts
    assert "port-tcp-8080" not in _texts(published(_in_ingress(8), keep_source=True))


def test_a_port_bound_to_an_address_is_offered_there_alone() -> None:
    """Other addresses of the host are nobody's business."""
    texts = _texts(published(_in_ingress(7), ip="10.77.0.1"))
    (rule,) = texts["mesh"]
    assert rule.startswith("ip daddr . meta l4proto . th dport vmap")
    assert rule.endswith("{ 10.77.0.1 . tcp . 8080 : goto port-tcp-8080-10.77.0.1 }")


def test_a_port_bound_to_an_interface_is_offered_on_its_addresses() -> None:
    """An interface stands for the addresses that it has now, of either family."""
    port = published(_in_ingress(7, six=True), ip="eth1")
    assert "10.88.0.1 . tcp . 8080" in _texts(port)["mesh"][0]
    assert "fd88::1 . tcp . 8080" in _texts(port, family="ip6", six=True)["mesh"][0]


def test_a_port_bound_to_what_this_host_lacks_is_not_offered() -> None:
    """An interface that is not here asks for nothing."""
    assert _texts(published(_in_ingress(7), ip="eth7")) == {}


def test_a_port_that_another_process_has_is_left_to_it() -> None:
    """What is taken is not fought over."""
    assert _texts(published(_in_ingress(7)), not_ours=frozenset({"8080/tcp"})) == {}


def test_a_member_with_its_hosts_network_is_reached_over_ingress() -> None:
    """Its host is addressed where no mesh applies, so that nobody is passed on twice."""
    texts = _texts(published(member(7, "node2", on_host=True), member(8, "node1", on_host=True)))
    (rule,) = texts["port-tcp-8080"]
    assert "10.0.0.251" in rule
    assert "10.0.0.250" in rule
    assert "10.77." not in rule


def test_a_member_that_has_the_port_itself_is_alone_on_its_loopback() -> None:
    """Elsewhere, and for another port than its own, loopback leads to whoever is ready."""
    within = "ip daddr 127.0.0.0/8 meta l4proto . th dport { tcp . 80 } return"
    same = published(member(8, "node1", on_host=True, ready=False), port=80)
    texts = _texts(same)
    assert texts["output"] == [
        "ip daddr 10.0.0.250 return",
        within,
        "fib daddr type local jump mesh",
    ]
    assert texts["sent"][-2:] == [within, "jump refuse"]
    elsewhere = published(member(8, "node2", on_host=True), port=80)
    mapped = published(member(8, "node1", on_host=True))
    for other in (elsewhere, mapped):
        assert all("127.0.0.0/8" not in text for text in _texts(other)["output"])


def test_without_ipv6_in_ingress_the_hosts_ipv6_ports_are_left_alone() -> None:
    """A port without members of a family that ingress does not have refuses nobody."""
    assert _texts(published(), family="ip6") == {}
    assert "refuse" in _texts(published(), family="ip6", six=True)


def test_the_hosts_loopback_is_out_of_reach_from_the_bridge() -> None:
    """Routing loopback addresses for the host's own clients opens nothing to containers."""
    assert _texts(published(_in_ingress(7)))["guard"] == [
        'iifname "sw-ingressaaaaa" ip daddr 127.0.0.0/8 drop'
    ]
