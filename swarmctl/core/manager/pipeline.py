"""The reconcilers that a leader runs, in the order of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .reconcile import Reconciler
