"""The reconcilers that a leader runs, in the order of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..allocator import decide as allocation
from ..ca import rotation
from ..orchestrator import decide as orchestrator
from ..orchestrator import enforcer, reaper
from ..scheduler import rebalance
from ..scheduler.decide import Scheduling
from ..scheduler.rebalance import Rebalancing
from .reconcile import Reconciler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..allocator.policy import Allocator
    from ..scheduler.decide import Scheduler


def reconcilers(
    scheduler: Scheduler,
    allocator: Allocator,
    strategies: Mapping[str, Scheduler] | None = None,
) -> tuple[Reconciler, ...]:
    """Return what a leader runs.

    Args:
        scheduler: ranks nodes for tasks.
        allocator: chooses among free subnets and addresses.
        strategies: by name, those that rank them for the services that ask for it.
    """
    allocating = allocation.Allocating(allocator)
    scheduling = Scheduling(scheduler, strategies=strategies)
    rebalancing = Rebalancing()
    return (
        Reconciler(name="orchestrator", keys=orchestrator.keys, decide=orchestrator.decide),
        Reconciler(name=reaper.NAME, keys=reaper.keys, decide=reaper.decide),
        Reconciler(name=enforcer.NAME, keys=enforcer.keys, decide=enforcer.decide),
        Reconciler(name="allocator", keys=allocation.keys, decide=allocating.decide),
        Reconciler(name="scheduler", keys=scheduling.keys, decide=scheduling.decide),
        Reconciler(name=rebalance.NAME, keys=rebalancing.keys, decide=rebalancing.decide),
        Reconciler(name=rotation.NAME, keys=rotation.keys, decide=rotation.decide),
    )
