"""The reconcilers that a leader runs, in the order of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..allocator import decide as allocator
from ..ca import rotation
from ..orchestrator import decide as orchestrator
from ..orchestrator import enforcer, reaper
from ..scheduler.decide import Scheduling
from .reconcile import Reconciler

if TYPE_CHECKING:
    from ..scheduler.decide import Scheduler


def reconcilers(scheduler: Scheduler) -> tuple[Reconciler, ...]:
    """Return what a leader runs.

    Args:
        scheduler: ranks nodes for tasks.
    """
    scheduling = Scheduling(scheduler)
    return (
        Reconciler(name="orchestrator", keys=orchestrator.keys, decide=orchestrator.decide),
        Reconciler(name=reaper.NAME, keys=reaper.keys, decide=reaper.decide),
        Reconciler(name=enforcer.NAME, keys=enforcer.keys, decide=enforcer.decide),
        Reconciler(name="allocator", keys=allocator.keys, decide=allocator.decide),
        Reconciler(name="scheduler", keys=scheduling.keys, decide=scheduling.decide),
        Reconciler(name=rotation.NAME, keys=rotation.keys, decide=rotation.decide),
    )
