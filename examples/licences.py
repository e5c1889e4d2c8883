"""A filter that keeps licensed software on licensed nodes: swarmctl plugin ``licences``.

    swarmctl node update --label-add licences=oracle,matlab node1
    swarmctl service create --label swarmctl.x.licences.needs=oracle ...

Unlike a constraint it counts: a node's label ``licences.seats=2`` lets at most two tasks of the
service run there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins import NO_LIMIT, Needed, PluginInfo, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.plugins import Check, NodeLoad, Place
    from swarmctl.plugins.model import NodeRow, TaskRow

NEEDS = "swarmctl.x.licences.needs"
HAS = "licences"
SEATS = "licences.seats"


def needed_by(task: TaskRow) -> set[str]:
    """Return the licences that a task's service asks for."""
    return set(task.private.service_labels.get(NEEDS, "").split(",")) - {""}


def found_on(node: NodeRow) -> set[str]:
    """Return the licences of a node."""
    return set(node.api.Spec.Labels.get(HAS, "").split(",")) - {""}


class LicenceFilter:
    """Asks for all licences, and for a free seat."""

    name = "licences"
    static = False  # it looks at how many tasks of the service there are

    def check(self, task: TaskRow) -> Check | None:
        """Return how to judge nodes for a task; None for a service that needs no licence."""
        needed, service_id = needed_by(task), task.api.ServiceID
        if not needed:
            return None

        def room(node: NodeRow, load: NodeLoad) -> int:
            if not needed <= found_on(node):
                return 0
            seats = node.api.Spec.Labels.get(SEATS, "")
            if not seats.isdecimal():
                return NO_LIMIT
            return max(0, int(seats) - load.services.get(service_id, 0))

        return room

    def explain(self, nodes: int) -> str:
        """Return the sentence for ``service ps``."""
        return f"no licence left on {nodes} node{'s' if nodes != 1 else ''}"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        """Return what a task needs and what a node has."""
        has = ", ".join(sorted(found_on(place.node))) or "none"
        return Needed(f"licences {', '.join(sorted(needed_by(task)))}", f"licences {has}")


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    return PluginInfo(name="licences", version="1.0")


@hookimpl
def swarmctl_scheduler_filters() -> list[LicenceFilter]:
    return [LicenceFilter()]
