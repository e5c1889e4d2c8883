"""Replicated services: so many slots, each with one task that should run.

Every decision compares what the service asks for with the slots as the tables show them, whatever
happened in between. The order of work in one decision:

1. :mod:`.rollout` says which outdated slots may be replaced now. Where it has something to write
   about the update itself (it begins, it failed, it is over), that is all of this decision;
2. slots beyond the wanted number go, missing ones are filled (:func:`decide`);
3. in each slot that stays a superfluous task is shut down, an ended one replaced or settled, a
   waiting one promoted when its time has come, and what may be replaced is (:mod:`.tend`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.scaling import replicas_of
from ..model.task import TaskState
from .restart import may_restart
from .rollout import is_ready
from .slots import Slot, slots_of
from .tend import Tending

if TYPE_CHECKING:
    from ..ids import NewId
    from ..model.change import Decision
    from ..model.objects import ServiceRow
    from ..store.view import View


def decide(view: View, service: ServiceRow, now: int, new_id: NewId) -> Decision:
    """Return what one replicated service needs."""
    tending = Tending(view, service, now, new_id)
    taken: list[Slot] = []
    vacant: list[Slot] = []
    for slot in slots_of(view, service):
        (vacant if _is_vacant(tending, slot) else taken).append(slot)
    wanted = replicas_of(service)
    kept, surplus = taken, list[Slot]()
    if len(taken) > wanted:
        kept, surplus = _split(tending, taken, wanted)
    tending.plan(kept)
    tending.remove(surplus)
    free = {slot.number: slot for slot in vacant}
    filled = _more(tending, wanted - len(kept), {slot.number for slot in kept}, free)
    tending.remove(slot for slot in vacant if slot.number not in filled)
    tending.tend(kept)
    return tending.decision()


def _is_vacant(tending: Tending, slot: Slot) -> bool:
    if slot.runnable:
        return False
    newest = slot.newest
    removed = newest.api.DesiredState is TaskState.REMOVE
    return removed or may_restart(tending.service, newest, tending.now)


def _split(tending: Tending, slots: list[Slot], wanted: int) -> tuple[list[Slot], list[Slot]]:
    """Return the slots to keep and those to give up when there are more than wanted.

    Given up first: slots without a node, then those that do not run, then those on the node
    that has the most; the higher number where all that is equal.
    """
    ranked: list[tuple[bool, bool, int, int, Slot]] = []
    on_node: dict[str, int] = {}
    ready = {slot.number: is_ready(slot, tending.fates) for slot in slots}
    for slot in sorted(slots, key=lambda slot: (not ready[slot.number], slot.number)):
        node_id = tending.home(slot).api.NodeID
        copy = on_node[node_id] = on_node.get(node_id, 0) + 1
        ranked.append((not node_id, not ready[slot.number], copy, slot.number, slot))
    ranked.sort(key=lambda rank: rank[:4])
    in_order = [rank[4] for rank in ranked]
    kept = sorted(in_order[:wanted], key=lambda slot: slot.number)
    return kept, in_order[wanted:]


def _more(tending: Tending, count: int, taken: set[int], vacant: dict[int, Slot]) -> set[int]:
    """Put tasks into the lowest free slots; return the numbers used."""
    used: set[int] = set()
    number = 0
    while len(used) < count:
        number += 1
        if number in taken:
            continue
        if not tending.fill(vacant.get(number) or Slot(number, [], [])):
            break
        used.add(number)
    return used
