"""Samples of what tasks use: from their cgroups, or from /proc where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.clock import SystemClock
from swarmctl.plugins import TaskStats

from .keeper import cgroups, procfs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .link import TaskView

NANOSECONDS_PER_TICK = 1_000_000_000 // procfs.TICKS_PER_SECOND


def sample(views: Iterable[TaskView]) -> dict[str, TaskStats]:
    """Sample each task; those that ended meanwhile are left out."""
    found = {}
    for view in views:
        numbers = cgroups.usage(view.group) if view.group else {}
        if len(numbers) < 3:
            numbers = {**_from_proc(view), **numbers}
        if numbers:
            waits = cgroups.pressure(view.group) if view.group else {}
            found[view.task_id] = TaskStats(at=SystemClock().now(), **numbers, **waits)
    return found


def _from_proc(view: TaskView) -> dict[str, int]:
    """Add up a task's processes; processor time of those that ended already is lost here."""
    marker = f"SWARMCTL_TASK_ID={view.task_id}".encode()
    members = procfs.members(view.pid, view.start, marker)
    if not members:
        return {}
    return {
        "cpu_ns": sum(process.cpu_ticks for process in members) * NANOSECONDS_PER_TICK,
        "memory_bytes": sum(process.rss_bytes for process in members),
        "pids": len(members),
    }
