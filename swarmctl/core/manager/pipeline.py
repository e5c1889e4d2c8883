"""The reconcilers that a leader runs, in the order of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..allocator import decide as allocation
from ..allocator.policy import Outsider as AllocatorOutside
from ..ca import rotation
from ..orchestrator import decide as orchestrator
from ..orchestrator import enforcer, reaper
from ..scheduler import rebalance
from ..scheduler.decide import Scheduling
from ..scheduler.outside import Judge, Outsider
from ..scheduler.rebalance import Rebalancing
from . import levels
from .passes import Run, Wake
from .reconcile import Reconciler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..allocator.policy import Allocator
    from ..scheduler.decide import Scheduler


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """What runs outside this process: filters of plugins, and what carries the questions there.

    Attributes:
        judges: filters for the scheduler.
        move_judges: the same filters for the rebalancer, which asks at its own times.
        beside: what runs while this manager leads, by name.
    """

    judges: tuple[Judge, ...] = ()
    move_judges: tuple[Judge, ...] = ()
    beside: dict[str, Run] = msgspec.field(default_factory=dict)


def reconcilers(
    scheduler: Scheduler,
    allocator: Allocator,
    strategies: Mapping[str, Scheduler] | None = None,
    outside: Outside | None = None,
) -> tuple[Reconciler, ...]:
    """Return what a leader runs.

    Args:
        scheduler: ranks nodes for tasks.
        allocator: chooses among free subnets and addresses.
        strategies: by name, those that rank them for the services that ask for it.
        outside: filters of plugins; the scheduler and allocator may be stand-ins for such as well.
    """
    outside = outside or Outside()
    allocating = allocation.Allocating(allocator)
    scheduling = Scheduling(scheduler, strategies=strategies, judges=outside.judges)
    rebalancing = Rebalancing(judges=outside.move_judges)
    return (
        Reconciler(name="orchestrator", keys=orchestrator.keys, decide=orchestrator.decide),
        Reconciler(name=reaper.NAME, keys=reaper.keys, decide=reaper.decide),
        Reconciler(name=enforcer.NAME, keys=enforcer.keys, decide=enforcer.decide),
        Reconciler(
            name="allocator",
            keys=allocation.keys,
            decide=allocating.decide,
            told_by=_told_by(allocator),
        ),
        Reconciler(
            name="scheduler",
            keys=scheduling.keys,
            decide=scheduling.decide,
            told_by=_told_by(*outside.judges, scheduler, *(strategies or {}).values()),
            beside=outside.beside,
        ),
        Reconciler(
            name=rebalance.NAME,
            keys=rebalancing.keys,
            decide=rebalancing.decide,
            told_by=_told_by(*outside.move_judges),
        ),
        Reconciler(name=rotation.NAME, keys=rotation.keys, decide=rotation.decide),
        Reconciler(name=levels.NAME, keys=levels.keys, decide=levels.decide),
    )


def _told_by(*objects: object) -> tuple[Callable[[Wake], None], ...]:
    """Return how those of them that answer later are told whom to wake."""
    return tuple(one.listen for one in objects if isinstance(one, (Outsider, AllocatorOutside)))
