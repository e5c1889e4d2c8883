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
from ..core.model.spreading import descriptors_of
from .branches import distribute, faults
from .hookspecs import PluginInfo, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..core.model.objects import TaskRow
    from ..core.scheduler.decide import Candidate
    from ..core.store.view import View

NAME = "spread"


class SpreadScheduler:
    """Evenly over branches, then over nodes."""

    def place(
        self,
        view: View,
        tasks: Sequence[TaskRow],
        nodes: Sequence[Candidate],
    ) -> Mapping[str, str]:
        """Return a node id for each task while there is room."""
        levels = descriptors_of(tasks[0].api.Spec.Placement)
        chosen = distribute(self, levels, nodes, len(tasks))
        return {task.api.ID: node_id for task, node_id in zip(tasks, chosen, strict=False)}

    def rank(self, node: Candidate) -> tuple[int, ...]:
        """The least loaded node is the best."""
        return faults(node.failures), node.tasks

    def fill(self, nodes: Sequence[Candidate], wanted: int) -> list[str]:
        """Give tasks to the best node, again and again."""
        heap = [
            (faults(failures), service_tasks, tasks, place, room)
            for place, (_, room, service_tasks, tasks, failures, _, _) in enumerate(nodes)
            if room
        ]
        if wanted == 1:  # the usual case by far
            return [nodes[min(heap)[3]].node.api.ID] if heap else []
        heapq.heapify(heap)
        chosen: list[str] = []
        while heap and len(chosen) < wanted:
            failed, service_tasks, tasks, place, room = heap[0]
            chosen.append(nodes[place].node.api.ID)
            if room > 1:
                heapq.heapreplace(heap, (failed, service_tasks + 1, tasks + 1, place, room - 1))
            else:
                heapq.heappop(heap)
        return chosen


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Tell what this plugin is."""
    return PluginInfo(name=NAME, version=__version__)


@hookimpl
def swarmctl_scheduler(name: str) -> SpreadScheduler | None:
    """Make the scheduler called ``spread``."""
    return SpreadScheduler() if name == NAME else None


@hookimpl
def swarmctl_strategies() -> tuple[str, ...]:
    """Let services choose it by name."""
    return (NAME,)
