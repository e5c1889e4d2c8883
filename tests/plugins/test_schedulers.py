"""The conformance check for schedulers: built-ins pass, broken ones are told what they break."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from swarmctl.plugins.binpack import BinpackScheduler
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.testing import ConformanceError, check_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from swarmctl.core.model.objects import TaskRow
    from swarmctl.core.scheduler.decide import Candidate, Scheduler
    from swarmctl.core.store.view import View


@pytest.mark.parametrize("make", [SpreadScheduler, BinpackScheduler])
def test_the_built_in_schedulers_conform(make: Callable[[], Scheduler]) -> None:
    """They keep the laws that a stranger's scheduler has to keep."""
    check_scheduler(make)


class Greedy:
    """Everything onto the first node, room or not."""

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        return {task.api.ID: nodes[0].node.api.ID for task in tasks} if nodes else {}


class Idle:
    """Nothing anywhere."""

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        return {}


class Moody:
    """Another node each time it is asked."""

    def __init__(self) -> None:
        self._turn = count()

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        free = [one.node.api.ID for one in nodes if one.room]
        return {tasks[0].api.ID: free[next(self._turn) % len(free)]} if free else {}


class Meddler(SpreadScheduler):
    """Places a task that nobody asked for."""

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        return {**super().place(view, tasks, nodes), "mine": "node000"}


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (Greedy, "has room for"),
        (Idle, "no task got any of it"),
        (Moody, "got another answer"),
        (Meddler, "nobody asked for"),
    ],
)
def test_a_broken_scheduler_is_told_which_law_it_breaks(
    make: Callable[[], Scheduler], law: str
) -> None:
    """The error names the law and what was seen."""
    with pytest.raises(ConformanceError, match=law):
        check_scheduler(make)
