"""What this host offers: processors, memory, platform, as far as they are ours to use.

Reads files in /proc and /sys; callers run it in a thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from swarmctl import __version__
from swarmctl.plugins import ExecutorDescription
from swarmctl.plugins.model import (
    LACKS,
    NANOSECONDS_PER_SECOND,
    EngineDescription,
    NodeDescription,
    Platform,
    PluginDescription,
    Resources,
)

from .keeper import cgroups

PLUGINS = (
    PluginDescription(Type="Log", Name="json-file"),
    PluginDescription(Type="Log", Name="local"),
    PluginDescription(Type="Network", Name="host"),
)
_CGROUP = Path("/sys/fs/cgroup")


def describe(key: str, *, layout: cgroups.Layout | None = None) -> ExecutorDescription:
    """Describe this host.

    Args:
        key: names the state directory in cgroup paths.
        layout: what is known of cgroups already; found out when None.
    """
    if layout is None:
        layout = cgroups.find_layout(key)
        layout.tidy()
    machine = os.uname()
    node = NodeDescription(
        Hostname=machine.nodename,
        Platform=Platform(Architecture=machine.machine, OS="linux"),
        Resources=Resources(
            NanoCPUs=int(cpu_count() * NANOSECONDS_PER_SECOND), MemoryBytes=memory_bytes()
        ),
        Engine=EngineDescription(
            EngineVersion=__version__,
            Labels={"swarmctl.executor": "process", **_lacks(layout)},
            Plugins=PLUGINS,
        ),
    )
    return ExecutorDescription(node=node, warnings=_warnings(layout))


def cpu_count() -> float:
    """Return how many processors are ours: by affinity, and by our own cgroup's quota."""
    count = float(len(os.sched_getaffinity(0)))
    for folder in _own_folders("cpu"):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            count = min(count, quota / period)
    return count


def memory_bytes() -> int:
    """Return how much memory is ours: the machine's, or our own cgroup's limit if lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in _own_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdecimal():
                total = min(total, int(text))
    return total


def _lacks(layout: cgroups.Layout) -> dict[str, str]:
    """Return the labels by which the scheduler keeps tasks away whose limits cannot be given."""
    return {
        f"{LACKS}{name}-limit": reason
        for name, reason in layout.problems.items()
        if name in cgroups.LIMITED
    }


def _warnings(layout: cgroups.Layout) -> tuple[str, ...]:
    return tuple(
        f"No {name} limit support: {reason}. Tasks with such a limit are refused."
        for name, reason in sorted(layout.problems.items())
        if name in cgroups.LIMITED
    )


def _quota(folder: Path) -> tuple[int, int]:
    version2 = _read(folder / "cpu.max").split()
    if len(version2) == 2 and version2[0].isdecimal():
        return int(version2[0]), int(version2[1])
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():
        return int(quota), int(period)
    return 0, 0


def _own_folders(controller: str) -> list[Path]:
    """Return our own group and those above it: version 1's of ``controller``, version 2's else."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        number, names, path = line.split(":", 2)
        if controller in names.split(","):
            root = next((p for p in (_CGROUP / names, _CGROUP / controller) if p.is_dir()), _CGROUP)
        elif number == "0" and (_CGROUP / "cgroup.controllers").exists():
            root = _CGROUP
        else:
            continue
        own = root / path.lstrip("/")
        return [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
