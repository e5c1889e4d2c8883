"""Runs tasks as containers of a Docker engine: the executor called ``docker``.

docker-py is the transport; bodies are the Engine API's own JSON. Only ``transport.py`` knows
docker-py, and this module imports nothing heavy until an executor is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins import PluginInfo, hookimpl

if TYPE_CHECKING:
    from swarmctl.plugins import Executor, ExecutorSettings

__version__ = "0.1.0"


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Name this plugin."""
    return PluginInfo(name="docker", version=__version__)


@hookimpl
def swarmctl_executor(name: str, settings: ExecutorSettings) -> Executor | None:
    """Make the executor for one Docker engine on this host."""
    if name != "docker":
        return None
    from .executor import DockerExecutor

    return DockerExecutor(settings)
