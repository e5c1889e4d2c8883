"""The executor called ``podman``: what all engines share, in Podman's dialect."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from swarmctl.plugins.engine import EngineExecutor

from .dialect import OF_ROOT, PodmanDialect

if TYPE_CHECKING:
    from swarmctl.plugins import ExecutorSettings


class PodmanExecutor(EngineExecutor):
    """Implements :class:`swarmctl.plugins.Executor` on a Podman engine."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings, PodmanDialect(runtime_dir()))


def runtime_dir() -> str:
    """Return where this user's Podman has its socket: ``/run`` for root."""
    if os.geteuid() == 0:
        return OF_ROOT
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
