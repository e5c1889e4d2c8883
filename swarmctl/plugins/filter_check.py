"""Conformance check for filters; plugin authors get it from :mod:`swarmctl.plugins.testing`.

A filter that breaks a law harms no node: its rooms only ever take away. But it can keep tasks
waiting for ever, or without a reason that anybody understands.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from ..core.scheduler.resources import NodeLoad, Place
from .conformance import require
from .scheduler_check import draw_nodes, draw_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.model.objects import TaskRow
    from ..core.scheduler.filters import Check, Filter

CLUSTERS = 50


def check_filter(make: Callable[[], Filter]) -> None:
    """Put a filter through the laws of :class:`swarmctl.core.scheduler.filters.Filter`.

    It has a name of one word; a check answers with a whole number, the same each time and from the
    next leader's filter as well; a static one never looks at the load; who refuses has a sentence
    for the task's status and says what is needed and what is there.

    Args:
        make: returns a fresh one; the same settings each time.

    Raises:
        ConformanceError: it breaks a law.
    """
    one = make()
    require(one.name and len(one.name.split()) == 1, f"its name is {one.name!r}, not one word")
    require(isinstance(one.static, bool), f"static is {one.static!r}, neither True nor False")
    for seed in range(CLUSTERS):
        random = Random(seed)  # noqa: S311 - the same clusters every time, and no secret
        task = draw_tasks(random)[0]
        check, again = one.check(task), make().check(task)
        require(
            (check is None) == (again is None),
            f"cluster {seed}: it has something to say about a task, and a fresh one has not",
        )
        if check is None or again is None:
            continue
        for candidate in draw_nodes(random):
            load = NodeLoad()
            load.tasks, load.cpu, load.memory = candidate.tasks, candidate.cpu, candidate.memory
            place = Place(candidate.node, load)
            _check_one(one, task, place, (check, again))


def _check_one(one: Filter, task: TaskRow, place: Place, checks: tuple[Check, Check]) -> None:
    rooms = [check(*place) for check in (*checks, checks[0])]
    where = f"on node {place.node.api.ID}"
    require(type(rooms[0]) is int, f"{where} it gave {rooms[0]!r} instead of a number of tasks")
    require(len(set(rooms)) == 1, f"{where} it gave {rooms} for the same question")
    if one.static:
        empty = checks[0](place.node, NodeLoad())
        seen = f"{rooms[0]} as it is, {empty} while it is empty"
        require(empty == rooms[0], f"{where} a static filter looked at the load: {seen}")
    if rooms[0] <= 0:
        for count in (1, 3):
            said = one.explain(count)
            require(isinstance(said, str) and said, f"explain({count}) gave {said!r}, no sentence")
        needs, has = one.why(task, place, ())
        require(needs and has, f"why() gave {needs!r} and {has!r}; both are words for a user")
