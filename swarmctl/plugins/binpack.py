"""The strategy ``binpack``: fill one node before the next is touched.

Best is the node where this spec did not keep failing, then the one whose reservations take the
largest part of what it has, then the one with the most tasks; equal ones go in the order of their
ids. So nodes stay free for what is large, or can be switched off. What makes a node full is what
services reserve (CPU, memory, generic resources), their host ports and their limit of replicas per
node: services that say none of it all go to one node, and packing is for those that do.

Placement preferences come first all the same: they ask for level branches, and the tasks of a
branch are packed within it.
"""

from __future__ import annotations

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

NAME = "binpack"
_WHOLE = 1_000_000
"""Parts of a node's capacity that shares are counted in: whole numbers order the same anywhere."""


class BinpackScheduler:
    """Evenly over branches, then onto as few nodes as will do."""

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
        """The fullest node is the best."""
        return faults(node.failures), -_fullness(node), -node.tasks

    def fill(self, nodes: Sequence[Candidate], wanted: int) -> list[str]:
        """Fill the best node, then the next: what is put on a node only makes it better."""
        chosen: list[str] = []
        for node in sorted((one for one in nodes if one.room), key=self.rank):
            chosen += [node.node.api.ID] * min(node.room, wanted - len(chosen))
            if len(chosen) == wanted:
                break
        return chosen


def _fullness(node: Candidate) -> int:
    """Return how much of a node is reserved, CPU and memory alike."""
    offered = node.node.api.Description.Resources
    return _share(node.cpu, offered.NanoCPUs) + _share(node.memory, offered.MemoryBytes)


def _share(part: int, whole: int) -> int:
    return part * _WHOLE // whole if whole > 0 else 0


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Tell what this plugin is."""
    return PluginInfo(name=NAME, version=__version__)


@hookimpl
def swarmctl_scheduler(name: str) -> BinpackScheduler | None:
    """Make the scheduler called ``binpack``."""
    return BinpackScheduler() if name == NAME else None


@hookimpl
def swarmctl_strategies() -> tuple[str, ...]:
    """Let services choose it by name."""
    return (NAME,)
