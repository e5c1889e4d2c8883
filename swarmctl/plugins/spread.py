"""The built-in scheduler: spread a service's tasks evenly over the nodes.

Best is the node where this spec did not keep failing, then the one with the fewest tasks of the
service, then with the fewest tasks at all; equal ones go in the order of their ids, so the choice
is repeatable. Placement preferences come first: each names a label, its values divide the nodes
into branches, and the branches of a level are kept level (swarm-behaviour.md sections 7.3, 7.4).

It uses what any scheduler plugin may use and nothing else.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from .. import __version__
from .hookspecs import PluginInfo, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..core.model.objects import NodeRow, TaskRow
    from ..core.scheduler.decide import Candidate
    from ..core.store.view import View

NAME = "spread"
FAULTY_FAILURES = 5
"""So many failures of one spec on one node make the node the last choice for it."""

_NODE_LABEL = "node.labels."
_ENGINE_LABEL = "engine.labels."


class SpreadScheduler:
    """Evenly over branches, then over nodes."""

    def place(
        self,
        view: View,
        tasks: Sequence[TaskRow],
        nodes: Sequence[Candidate],
    ) -> Mapping[str, str]:
        """Return a node id for each task while there is room."""
        chosen = _distribute(_descriptors(tasks[0]), nodes, len(tasks))
        return {task.api.ID: node_id for task, node_id in zip(tasks, chosen, strict=False)}


def _descriptors(task: TaskRow) -> tuple[str, ...]:
    """Return the labels to spread over, outermost first; unknown descriptors are skipped."""
    placement = task.api.Spec.Placement
    found = (
        preference.Spread.SpreadDescriptor
        for preference in (placement.Preferences if placement is not None else ())
        if preference.Spread is not None
    )
    return tuple(one for one in found if one.startswith((_NODE_LABEL, _ENGINE_LABEL)))


def _label(node: NodeRow, descriptor: str) -> str:
    if descriptor.startswith(_NODE_LABEL):
        return node.api.Spec.Labels.get(descriptor[len(_NODE_LABEL) :], "")
    return node.api.Description.Engine.Labels.get(descriptor[len(_ENGINE_LABEL) :], "")


def _distribute(descriptors: tuple[str, ...], nodes: Sequence[Candidate], wanted: int) -> list[str]:
    """Return the ids of the nodes that get the first, second, ... task; fewer when it gets full."""
    if not descriptors:
        return _fill(nodes, wanted)
    branches: dict[str, list[Candidate]] = {}
    for candidate in nodes:
        branches.setdefault(_label(candidate.node, descriptors[0]), []).append(candidate)
    room = {value: sum(one.room for one in members) for value, members in branches.items()}
    # The branch with the fewest tasks of the service is next; among equals the one whose best
    # node is the least loaded, so single tasks of many services do not all go to one branch.
    heap = [
        (sum(one.service_tasks for one in members), _best_load(members), value)
        for value, members in branches.items()
        if room[value]
    ]
    heapq.heapify(heap)
    turns: list[str] = []
    while heap and len(turns) < wanted:
        level, load, value = heap[0]
        turns.append(value)
        room[value] -= 1
        if room[value]:
            heapq.heapreplace(heap, (level + 1, load, value))
        else:
            heapq.heappop(heap)
    shares = {
        value: iter(_distribute(descriptors[1:], branches[value], turns.count(value)))
        for value in dict.fromkeys(turns)
    }
    return [next(shares[value]) for value in turns]


def _best_load(nodes: Sequence[Candidate]) -> tuple[int, int]:
    return min((_faults(one.failures), one.tasks) for one in nodes if one.room)


def _fill(nodes: Sequence[Candidate], wanted: int) -> list[str]:
    """Give tasks to the best node, again and again."""
    heap = [
        (_faults(failures), service_tasks, tasks, place, room)
        for place, (_, room, service_tasks, tasks, failures) in enumerate(nodes)
        if room
    ]
    if wanted == 1:  # the usual case by far
        return [nodes[min(heap)[3]].node.api.ID] if heap else []
    heapq.heapify(heap)
    chosen: list[str] = []
    while heap and len(chosen) < wanted:
        faults, service_tasks, tasks, place, room = heap[0]
        chosen.append(nodes[place].node.api.ID)
        if room > 1:
            heapq.heapreplace(heap, (faults, service_tasks + 1, tasks + 1, place, room - 1))
        else:
            heapq.heappop(heap)
    return chosen


def _faults(failures: int) -> int:
    return failures if failures >= FAULTY_FAILURES else 0


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Tell what this plugin is."""
    return PluginInfo(name=NAME, version=__version__)


@hookimpl
def swarmctl_scheduler(name: str) -> SpreadScheduler | None:
    """Make the scheduler called ``spread``."""
    return SpreadScheduler() if name == NAME else None
