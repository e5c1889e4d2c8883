"""The carbon scheduler: clean nodes first, and in order."""

from __future__ import annotations

from random import Random

import pytest

from examples.carbon import CarbonScheduler, swarmctl_scheduler
from swarmctl.core.store.view import Tables
from swarmctl.plugins import Candidate, InvalidArgument, SchedulerSettings
from swarmctl.plugins.model import Node, NodeRow, NodeSpec
from swarmctl.plugins.scheduler_check import draw_tasks
from swarmctl.plugins.testing import check_scheduler


def node(name: str, grams: str, room: int = 9) -> Candidate:
    labels = {"carbon": grams} if grams else {}
    row = NodeRow(api=Node(ID=name, Spec=NodeSpec(Labels=labels)))
    return Candidate(row, room, service_tasks=0, tasks=0, failures=0)


def place(count: int, *nodes: Candidate) -> list[str]:
    tasks = draw_tasks(Random(0), count)
    return sorted(CarbonScheduler(50).place(Tables(), tasks, nodes).values())


def test_it_keeps_the_laws() -> None:
    """As every scheduler has to."""
    check_scheduler(lambda: CarbonScheduler(50))


def test_the_cleanest_node_is_filled_first() -> None:
    """Tasks go where the power is clean while there is room, then to the next; unknown is last."""
    nodes = (node("coal", "820"), node("hydro", "24", room=2), node("dark", ""), node("typo", "x"))
    assert place(4, *nodes) == ["coal", "coal", "hydro", "hydro"]
    assert place(1, node("dark", ""), node("coal", "820", room=0)) == ["dark"]


def test_nodes_that_are_about_as_clean_share() -> None:
    """Within the step it spreads, so that a service does not stand on one node alone."""
    assert place(4, node("a", "210"), node("b", "249")) == ["a", "a", "b", "b"]


def test_settings_are_checked() -> None:
    """A step that is no number is refused in words; another name is somebody else's."""
    assert swarmctl_scheduler("spread", SchedulerSettings()) is None
    assert isinstance(swarmctl_scheduler("carbon", SchedulerSettings()), CarbonScheduler)
    with pytest.raises(InvalidArgument, match="a number of grams above 0, not 'much'"):
        swarmctl_scheduler("carbon", SchedulerSettings(options={"step": "much"}))
