"""Placement constraints (core/model/constraint.py)."""

from __future__ import annotations

import pytest

from swarmctl.core.errors import InvalidConstraint
from swarmctl.core.model.base import Platform
from swarmctl.core.model.constraint import node_matches, parse_constraint, parse_constraints
from swarmctl.core.model.objects import (
    EngineDescription,
    Node,
    NodeDescription,
    NodePrivate,
    NodeRow,
    NodeSpec,
    NodeStatus,
)

NODE = NodeRow(
    api=Node(
        ID="abc123",
        Spec=NodeSpec(Labels={"zone": "East", "Mixed": "x"}, Role="worker"),
        Description=NodeDescription(
            Hostname="Host1",
            Platform=Platform(Architecture="x86_64", OS="linux"),
            Engine=EngineDescription(Labels={"disk": "ssd", "swarmctl.executor": "docker"}),
        ),
        Status=NodeStatus(Addr="10.1.2.3"),
    ),
    private=NodePrivate(role="manager"),
)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("node.id==abc123", True),
        ("node.id == ABC123", True),
        ("node.id!=abc123", False),
        ("node.hostname==host1", True),
        ("NODE.HOSTNAME!=host2", True),
        ("node.role==manager", True),  # the role it has, not the one it shall get
        ("node.role==worker", False),
        ("node.platform.os==linux", True),
        ("node.platform.arch==x86_64", True),
        ("node.platform.arch!=aarch64", True),
        ("node.labels.zone==east", True),
        ("node.labels.zone!=east", False),
        ("node.labels.Zone==east", False),
        ("Node.Labels.Mixed==x", True),
        ("node.labels.gone!=x", True),
        ("node.labels.gone==x", False),
        ("engine.labels.disk==ssd", True),
        ("engine.labels.swarmctl.executor==docker", True),
        ("node.ip==10.1.2.3", True),
        ("node.ip==10.1.2.0/24", True),
        ("node.ip!=10.1.2.0/24", False),
        ("node.ip!=10.9.0.0/16", True),
        ("node.ip==fd00::1", False),
        ("node.ip==nonsense", False),
        ("node.ip!=nonsense", False),
        ("node.planet==earth", False),
        ("node.planet!=earth", False),
        ("foo==bar", False),
    ],
)
def test_matching(text: str, matches: bool) -> None:
    """Each key matches as in Swarm; what makes no sense matches no node at all."""
    assert parse_constraint(text).matches(NODE) is matches


def test_a_node_without_an_address_has_none() -> None:
    """Before a node told its address, no address equals it."""
    bare = NodeRow(api=Node())
    assert not parse_constraint("node.ip==10.0.0.0/8").matches(bare)
    assert parse_constraint("node.ip!=10.0.0.0/8").matches(bare)


def test_all_constraints_must_hold() -> None:
    """Constraints are AND-ed; none at all match every node."""
    assert node_matches(parse_constraints(["node.role==manager", "node.labels.zone==east"]), NODE)
    assert not node_matches(parse_constraints(["node.role==manager", "node.id==x"]), NODE)
    assert node_matches((), NODE)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("node.role", "constraint expected one operator from ==, !="),
        ("", "constraint expected one operator from ==, !="),
        ("node.role=manager", "constraint expected one operator from ==, !="),
        ("1x==y", "key '1x' is invalid"),
        ("x==y", "key 'x' is invalid"),
        ("==y", "key '' is invalid"),
        ("a!=b==c", "key 'a!=b' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a;b", "value 'a;b' is invalid"),
        ("node.role==ä", "value 'ä' is invalid"),
    ],
)
def test_bad_constraints(text: str, error: str) -> None:
    """What cannot be parsed is refused with Docker's text, prefix and status."""
    with pytest.raises(InvalidConstraint) as caught:
        parse_constraint(text)
    assert caught.value.message == f"rpc error: code = Unknown desc = {error}"
    assert caught.value.status == 500


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("node.role==manager", None),
        ("node.ip==10.0.0.0/8", None),
        ("engine.labels.a==b", None),
        ("node.ip==x", "'x' is neither an IP address nor a subnet"),
        (
            "planet==earth",
            (
                "unknown key 'planet'; the keys are node.id, node.hostname, node.role, "
                "node.platform.os, node.platform.arch, node.ip, node.labels.<label>, "
                "engine.labels.<label>"
            ),
        ),
    ],
)
def test_what_can_never_match_says_why(text: str, reason: str | None) -> None:
    """A constraint that no node can meet is explained, since Swarm accepts it silently."""
    assert parse_constraint(text).why_never() == reason
