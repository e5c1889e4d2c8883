"""Runs tasks as containers of a Podman engine, with or without root: the executor ``podman``.

podman-py is the transport; bodies are libpod's own JSON. Only ``transport.py`` knows podman-py, and
this module imports nothing heavy until an executor is asked for.
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
    return PluginInfo(name="podman", version=__version__)


@hookimpl
def swarmctl_executor(name: str, settings: ExecutorSettings) -> Executor | None:
    """Make the executor for one Podman engine on this host."""
    if name != "podman":
        return None
    from .executor import PodmanExecutor

    return PodmanExecutor(settings)
