"""Limits of a container's processes where its spec sets none: what this host allows.

Asked by its API, Podman gives a container a million files and a million processes, whatever its
configuration says. On a host that allows less, nothing could be started then. So a container gets
no more than this daemon may have itself.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarmctl.plugins.engine import Body

PODMANS = 1 << 20
KINDS = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
PID_MAX = Path("/proc/sys/kernel/pid_max")


def limits_here() -> dict[str, int]:
    """Return the most that this host allows of each kind, as far as Podman would ask for more."""
    most = {name: resource.getrlimit(number)[1] for name, number in KINDS.items()}
    allowed = {
        name: PODMANS if value == resource.RLIM_INFINITY else value for name, value in most.items()
    }
    # Podman bounds itself, and so what it can hand on, by how many processes there can be.
    allowed["nproc"] = min(allowed["nproc"], int(PID_MAX.read_text()))
    return {name: value for name, value in allowed.items() if value < PODMANS}


def with_limits(body: Body, here: dict[str, int]) -> list[Body]:
    """Return the ``r_limits`` of a create: the spec's, and this host's where it has none. Pure."""
    wanted = body.get("r_limits")
    limits: list[Body] = list(wanted) if isinstance(wanted, list) else []
    asked = {limit["type"] for limit in limits}
    own = {name: value for name, value in here.items() if name not in asked}
    return limits + [{"type": name, "soft": value, "hard": value} for name, value in own.items()]
