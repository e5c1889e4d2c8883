"""Why a task has no node: the sentence in its status, and node by node, filter by filter.

Pure functions of the tables, by the same filters that place tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.explain import NodeVerdict, Refusal
from ..model.task import TaskState
from .filters import BUILT_IN, NO_LIMIT
from .resources import NodeLoad, Place, holding_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.objects import NodeRow, TaskRow
    from ..store.view import View
    from .filters import Filter
    from .outside import Blame


def no_suitable_node(
    filters: Sequence[Filter], refused: Sequence[int], blamed: Sequence[Blame] = ()
) -> str:
    """Return Docker's sentence for tasks that no node can run.

    Args:
        refused: for each filter the number of nodes it was the first to refuse; what refused most
            is named first.
        blamed: the same of filters outside this process.
    """
    all_of_them = [(count, filters[at].explain(count)) for at, count in enumerate(refused) if count]
    all_of_them += blamed
    all_of_them.sort(key=lambda one: -one[0])
    if not all_of_them:
        return "no suitable node"
    return f"no suitable node ({'; '.join(sentence for _, sentence in all_of_them)})"


def room_on(view: View, task: TaskRow, node: NodeRow, filters: Sequence[Filter] = BUILT_IN) -> int:
    """Return how many tasks like this one a node could take now."""
    load = NodeLoad()
    for other in _holders(view, node):
        load.add(holding_of(other))
    checks = (one.check(task) for one in filters)
    return max(0, min((check(node, load) for check in checks if check), default=NO_LIMIT))


def _holders(view: View, node: NodeRow) -> list[TaskRow]:
    """Return the tasks that hold something on a node."""
    return [
        other
        for other in view.tasks_on(node.api.ID)
        if TaskState.ASSIGNED <= other.api.Status.State <= TaskState.RUNNING
    ]


def judge_node(
    view: View, task: TaskRow, node: NodeRow, filters: Sequence[Filter] = BUILT_IN
) -> NodeVerdict:
    """Return whether a node could take a task now, and all that speaks against it.

    The scheduler stops at the first filter that refuses; a user wants to know what comes next.
    """
    others = _holders(view, node)
    load = NodeLoad()
    for other in others:
        load.add(holding_of(other))
    place = Place(node, load)
    refusals: list[Refusal] = []
    for one in filters:
        check = one.check(task)
        if check is not None and check(node, load) <= 0:
            needs, has = one.why(task, place, others)
            refusals.append(Refusal(Filter=one.name, Needs=needs, Has=has))
    return NodeVerdict(
        ID=node.api.ID,
        Name=node.api.Spec.Name or node.api.Description.Hostname,
        Fits=not refusals,
        Refusals=tuple(refusals),
    )
