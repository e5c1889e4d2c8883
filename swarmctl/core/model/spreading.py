"""Placement preferences as labels to spread over, and what nodes have there.

One reading for all who spread: the schedulers when they place a task, the rebalancer when it asks
whether a task would be better elsewhere (swarm-behaviour.md section 7.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .objects import NodeRow
    from .spec import Placement

_NODE_LABEL = "node.labels."
_ENGINE_LABEL = "engine.labels."


def descriptors_of(placement: Placement | None) -> tuple[str, ...]:
    """Return the labels to spread over, outermost first; unknown descriptors are skipped."""
    found = (
        preference.Spread.SpreadDescriptor
        for preference in (placement.Preferences if placement is not None else ())
        if preference.Spread is not None
    )
    return tuple(one for one in found if one.startswith((_NODE_LABEL, _ENGINE_LABEL)))


def branch_of(node: NodeRow, descriptor: str) -> str:
    """Return a node's value of a label; a missing one is ""."""
    if descriptor.startswith(_NODE_LABEL):
        return node.api.Spec.Labels.get(descriptor[len(_NODE_LABEL) :], "")
    return node.api.Description.Engine.Labels.get(descriptor[len(_ENGINE_LABEL) :], "")
