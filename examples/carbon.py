"""A scheduler that runs services where the power is clean: swarmctl plugin ``carbon``.

Something of yours (a cron job that asks a grid operator, say) keeps a label on every node:

    swarmctl node update --label-add carbon=210 node1        # grams of CO2 for a kilowatt-hour

and a service asks for this scheduler with ``--strategy carbon`` (or all do, with
``scheduler = "carbon"`` in the configuration of the managers). Its tasks go to the cleanest nodes
that have room; nodes that differ by less than ``step`` grams count as equal, and among those the
one with the fewest tasks of the service wins, so that a service does not stand on one node alone.

    [settings.carbon]
    step = "50"

A scheduler is pure: the figures come in labels, not over the network from here, so every manager
decides alike and a slow web service holds up nobody.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from swarmctl.plugins import InvalidArgument, PluginInfo, SchedulerSettings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swarmctl.plugins import Candidate, View
    from swarmctl.plugins.model import TaskRow

NAME = "carbon"
LABEL = "carbon"
UNKNOWN = 10_000
"""Grams of a node that says nothing: it is the last choice, and still one."""


class CarbonScheduler:
    """Cleanest first, then the fewest tasks of the service."""

    def __init__(self, step: int) -> None:
        self._step = step

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        """Return a node id for each task while there is room."""
        heap = [
            (self._grams(n) // self._step, n.service_tasks, n.tasks, n.node.api.ID, n.room)
            for n in nodes
            if n.room
        ]
        heapq.heapify(heap)
        chosen: dict[str, str] = {}
        for task in tasks:
            if not heap:
                break
            grams, own, all_tasks, node_id, room = heap[0]
            chosen[task.api.ID] = node_id
            if room > 1:
                heapq.heapreplace(heap, (grams, own + 1, all_tasks + 1, node_id, room - 1))
            else:
                heapq.heappop(heap)
        return chosen

    def _grams(self, one: Candidate) -> int:
        try:
            return int(one.node.api.Spec.Labels.get(LABEL, UNKNOWN))
        except ValueError:  # a typo in a label must not stop the whole cluster
            return UNKNOWN


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    return PluginInfo(name=NAME, version="1.0")


@hookimpl
def swarmctl_scheduler(name: str, settings: SchedulerSettings) -> CarbonScheduler | None:
    if name != NAME:
        return None
    step = settings.options.get("step", "50")
    if not step.isdecimal() or int(step) == 0:
        raise InvalidArgument(f"carbon: step is a number of grams above 0, not {step!r}")
    return CarbonScheduler(int(step))


@hookimpl
def swarmctl_strategies() -> tuple[str, ...]:
    return (NAME,)
