"""The rules of a task's namespace."""

from __future__ import annotations

from swarmctl.plugins.overlay.balance import in_turn, sandbox_rules
from tests.plugins.overlay.tables import member, network, service


def _texts(*services, has_resolver=False):
    rules = sandbox_rules([network(*services)], seed="t", has_resolver=has_resolver)
    return {
        name: [rule.text for rule in chain.rules] for name, chain in rules.get("ip", {}).items()
    }


def test_new_connections_go_to_ready_members_only() -> None:
    """A member that is not ready is no target."""
    texts = _texts(service(member(7), member(8, ready=False), member(9)))
    assert texts["output"] == ["ip daddr vmap { 10.0.1.2 : goto vip-10.0.1.2 }"]
    (rule,) = texts["vip-10.0.1.2"]
    assert "mod 2" in rule
    assert "10.0.1.7" in rule
    assert "10.0.1.8" not in rule


def test_one_member_needs_no_turn() -> None:
    """A single member gets everything."""
    assert _texts(service(member(7)))["vip-10.0.1.2"] == ["dnat to 10.0.1.7"]


def test_without_ready_members_the_caller_is_told() -> None:
    """A virtual address that leads nowhere refuses at once."""
    texts = _texts(service(member(7, ready=False)))
    assert texts == {
        "refuse": [
            "ct state != new return",
            "ip daddr { 10.0.1.2 } meta l4proto tcp reject with tcp reset",
            "ip daddr { 10.0.1.2 } reject",
        ]
    }


def test_what_no_rule_led_to_a_member_is_dropped() -> None:
    """It came while rules were replaced, and finds them when it comes again."""
    texts = _texts(service(member(7)))
    assert texts["refuse"] == ["ct state != new return", "ip daddr { 10.0.1.2 } drop"]


def test_a_service_without_a_virtual_address_has_no_rules() -> None:
    """dnsrr is the resolver's business alone."""
    assert _texts(service(member(7), vip="")) == {}


def test_each_family_leads_to_its_own_addresses() -> None:
    """An IPv6 virtual address leads to members' IPv6 addresses."""
    rules = sandbox_rules([network(service(member(7, six=True), vip="fd00:1::2"))], seed="t")
    assert rules["ip6"]["vip-fd00_1__2"].rules[0].text == "dnat to fd00:1::7"
    assert "ip" not in rules


def test_clients_begin_at_different_members() -> None:
    """Many clients with one connection each are spread as well as one with many."""
    firsts = {in_turn(["a", "b", "c"], seed=str(n)).split("0 : ")[1][0] for n in range(50)}
    assert firsts == {"a", "b", "c"}


def test_our_resolver_takes_the_engines_questions_where_it_listens() -> None:
    """Questions to the engine's resolver or a gateway are sent on, before the engine's own rule."""
    rules = sandbox_rules([network()], seed="t", has_resolver=True)
    assert rules["ip"]["output"].hook == "type nat hook output priority -110"
    assert [rule.text for rule in rules["ip"]["output"].rules] == [
        "ip daddr { 127.0.0.11, 10.0.1.250 } udp dport 53 dnat to 127.0.0.11:61053",
        "ip daddr { 127.0.0.11, 10.0.1.250 } tcp dport 53 dnat to 127.0.0.11:61053",
    ]
    asked = ("127.0.0.11", "192.0.2.53", "fd00::53")
    rules = sandbox_rules([network()], seed="t", has_resolver=True, resolvers=asked)
    assert rules["ip"]["output"].rules[0].text == (
        "ip daddr { 127.0.0.11, 10.0.1.250, 192.0.2.53 } udp dport 53 dnat to 127.0.0.11:61053"
    )
