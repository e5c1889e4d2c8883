"""The licence filter: licensed nodes only, and no more tasks than seats."""

from __future__ import annotations

from examples.licences import LicenceFilter
from swarmctl.core.model.task import Task, TaskPrivate
from swarmctl.plugins import NodeLoad, Place
from swarmctl.plugins.model import Node, NodeRow, NodeSpec, TaskRow
from swarmctl.plugins.testing import check_filter


def task(needs: str = "") -> TaskRow:
    labels = {"swarmctl.x.licences.needs": needs} if needs else {}
    return TaskRow(api=Task(ServiceID="service"), private=TaskPrivate(service_labels=labels))


def room(needs: str, labels: dict[str, str], running: int = 0) -> int:
    check = LicenceFilter().check(task(needs))
    assert check is not None
    load = NodeLoad()
    load.services["service"] = running
    return check(NodeRow(api=Node(ID="node", Spec=NodeSpec(Labels=labels))), load)


def test_it_keeps_the_laws() -> None:
    """As every filter has to."""
    check_filter(LicenceFilter)


def test_services_that_need_none_are_not_its_business() -> None:
    """Without the label every node will do."""
    assert LicenceFilter().check(task()) is None


def test_all_licences_and_a_free_seat_are_needed() -> None:
    """A node without one of them refuses, one with seats takes so many."""
    assert room("oracle", {}) == 0
    assert room("oracle,matlab", {"licences": "oracle"}) == 0
    assert room("oracle", {"licences": "matlab,oracle"}) > 100
    seats = {"licences": "oracle", "licences.seats": "2"}
    assert [room("oracle", seats, running) for running in (0, 1, 2, 3)] == [2, 1, 0, 0]


def test_a_refusal_is_told_in_words() -> None:
    """What is needed and what is there, for ``service explain`` and ``service ps``."""
    node = NodeRow(api=Node(ID="node", Spec=NodeSpec(Labels={"licences": "matlab"})))
    told = LicenceFilter().why(task("oracle"), Place(node, NodeLoad()), ())
    assert told == ("licences oracle", "licences matlab")
    assert LicenceFilter().explain(1) == "no licence left on 1 node"
