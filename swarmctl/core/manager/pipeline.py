"""The reconcilers that a leader runs, in the order of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..allocator import decide as allocation
from ..ca import rotation
from ..orchestrator import decide as orchestrator
from ..orchestrator import enforcer, reaper
from ..scheduler.decide import Scheduling
from .reconcile import Reconciler

if TYPE_CHECKING:
    from ..allocator.policy import Allocator
    from ..scheduler.decide import Scheduler


def reconcilers(scheduler: Scheduler, allocator: Allocator) -> tuple[Reconciler, ...]:
    """Return what a leader runs.

    Args:
        scheduler: ranks nodes for tasks.
        allocator: chooses among free subnets and addresses.
    """
    allocating = allocation.Allocating(allocator)
    scheduling = Scheduling(scheduler)
    return (
        Reconciler(name="orchestrator", keys=orchestrator.keys, decide=orchestrator.decide),
        Reconciler(name=reaper.NAME, keys=reaper.keys, decide=reaper.decide),
        Reconciler(name=enforcer.NAME, keys=enforcer.keys, decide=enforcer.decide),
        Reconciler(name="allocator", keys=allocation.keys, decide=allocating.decide),
        Reconciler(name="scheduler", keys=scheduling.keys, decide=scheduling.decide),
        Reconciler(name=rotation.NAME, keys=rotation.keys, decide=rotation.decide),
    )
