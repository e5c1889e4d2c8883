"""The executor called ``docker``: what all engines share, in Docker's dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins.engine import EngineExecutor

from .dialect import DockerDialect

if TYPE_CHECKING:
    from swarmctl.plugins import ExecutorSettings


class DockerExecutor(EngineExecutor):
    """Implements :class:`swarmctl.plugins.Executor` on a Docker engine."""

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings, DockerDialect())
