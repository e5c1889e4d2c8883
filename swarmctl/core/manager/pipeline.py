"""The reconcilers that a leader runs, in the order of the pipeline."""

from __future__ import annotations

from ..allocator import decide as allocator
from ..orchestrator import decide as orchestrator
from .reconcile import Reconciler


def reconcilers() -> tuple[Reconciler, ...]:
    """Return what a leader runs."""
    return (
        Reconciler(name="orchestrator", keys=orchestrator.keys, decide=orchestrator.decide),
        Reconciler(name="allocator", keys=allocator.keys, decide=allocator.decide),
    )
