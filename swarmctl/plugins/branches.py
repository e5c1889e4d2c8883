"""What the built-in schedulers share: branches of placement preferences, and faulty nodes.

Preferences come first: each names a label, its values divide the nodes into branches, and the
branches of a level are kept level (swarm-behaviour.md section 7.4). How nodes are filled within the
innermost branches is each scheduler's own.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Protocol

from ..core.model.spreading import branch_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.scheduler.decide import Candidate

FAULTY_FAILURES = 5
"""So many failures of one spec on one node make the node the last choice for it."""


class Layout(Protocol):
    """How a scheduler fills nodes."""

    def rank(self, node: Candidate) -> tuple[int, ...]:
        """Return how good a node is for the next task; the least is the best."""
        ...

    def fill(self, nodes: Sequence[Candidate], wanted: int) -> list[str]:
        """Return the ids of the nodes that get the first, second, ... task."""
        ...


def distribute(
    layout: Layout, descriptors: tuple[str, ...], nodes: Sequence[Candidate], wanted: int
) -> list[str]:
    """Return the ids of the nodes that get the first, second, ... task; fewer when it gets full."""
    if not descriptors:
        return layout.fill(nodes, wanted)
    branches: dict[str, list[Candidate]] = {}
    for candidate in nodes:
        branches.setdefault(branch_of(candidate.node, descriptors[0]), []).append(candidate)
    room = {value: sum(one.room for one in members) for value, members in branches.items()}
    # The branch with the fewest tasks of the service is next; among equals the one that has the
    # best node, so single tasks of many services do not all go to one branch.
    heap = [
        (
            sum(one.service_tasks for one in members),
            min(layout.rank(one) for one in members if one.room),
            value,
        )
        for value, members in branches.items()
        if room[value]
    ]
    heapq.heapify(heap)
    turns: list[str] = []
    while heap and len(turns) < wanted:
        level, best, value = heap[0]
        turns.append(value)
        room[value] -= 1
        if room[value]:
            heapq.heapreplace(heap, (level + 1, best, value))
        else:
            heapq.heappop(heap)
    shares = {
        value: iter(distribute(layout, descriptors[1:], branches[value], turns.count(value)))
        for value in dict.fromkeys(turns)
    }
    return [next(shares[value]) for value in turns]


def faults(failures: int) -> int:
    """Return how much failures count against a node: nothing while they are few."""
    return failures if failures >= FAULTY_FAILURES else 0
