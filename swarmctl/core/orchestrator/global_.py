"""Services and jobs with one task on every node that suits them.

The nodes are the slots, and a task is made for its node: the scheduler only confirms it, and says
why it waits. What a node means for such a service:

| node | its task |
|---|---|
| suits and takes tasks (for a job: and answers) | is made, restarted and updated; once in a run |
| paused (for a job: or does not answer) | stays while it runs; nothing new, no update |
| drained, down, or no longer suitable | is shut down and has no successor |
| removed | goes, history included; what a run of a job completed there stays |

So a node that comes, returns or begins to suit gets its task, and one that was away gets another,
which waits until the former has stopped. A policy that wants no successor settles a node's place
for as long as the spec, or the run, stays: but only a task that ended by itself has had its turn,
not one that its node's trouble ended. (swarm-behaviour.md sections 6.3, 6.4 and 6.10)
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from ..model.change import At, Kind, Ref
from ..model.suits import suits
from . import jobs
from .slots import Slot, run_of, slots_of
from .tend import Tending

if TYPE_CHECKING:
    from ..ids import NewId
    from ..model.change import Decision
    from ..model.objects import NodeRow, ServiceRow
    from ..store.view import View


class Standing(Enum):
    """What a node means for a service that runs everywhere."""

    WANTED = "wanted"
    HELD = "held"
    UNWANTED = "unwanted"


def decide(view: View, service: ServiceRow, now: int, new_id: NewId) -> Decision:
    """Return what one global service or job needs."""
    tending = Tending(view, service, now, new_id)
    slots = slots_of(view, service)
    is_job = run_of(service) is not None
    if is_job:
        jobs.end_earlier_runs(tending, slots)
    of_node = {slot.node_id: slot for slot in slots}
    does_suit = suits(service.api.Spec.TaskTemplate)
    kept: list[Slot] = []
    held: list[Slot] = []
    vacant: list[Slot] = []
    for node in sorted(view.nodes(), key=lambda node: node.api.ID):
        slot = of_node.pop(node.api.ID, None) or Slot(0, [], [], node.api.ID)
        standing = standing_of(node, is_suitable=does_suit(node), is_job=is_job)
        if slot.done or standing is Standing.UNWANTED:
            at = At(ref=Ref(Kind.NODE, node.api.ID), version=node.api.Version.Index)
            tending.stop(slot, (at,))
        elif standing is Standing.HELD:
            held.append(slot)
        elif slot.runnable or jobs.has_had_its_turn(service, slot, now):
            kept.append(slot)
        else:
            vacant.append(slot)
    if not is_job:
        tending.plan(kept)
    tending.remove(slot for slot in of_node.values() if not slot.done)
    for slot in vacant:
        if not tending.fill(slot):
            break
    tending.tend(held, successors=False)
    tending.tend(kept)
    return tending.decision()


def standing_of(node: NodeRow, *, is_suitable: bool, is_job: bool) -> Standing:
    """Return what a node means for such a service."""
    state, availability = node.api.Status.State, node.api.Spec.Availability
    if not is_suitable or state == "down" or availability == "drain":
        return Standing.UNWANTED
    if availability == "pause" or (is_job and state != "ready"):
        return Standing.HELD
    return Standing.WANTED
