"""Built-in executor that runs tasks as plain processes under a keeper: ``process``.

The embedded default where no engine answers. ``executor.py`` says what it does, ``keeper/`` is the
program that stays when the daemon goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl import __version__
from swarmctl.plugins import PluginInfo, hookimpl

if TYPE_CHECKING:
    from swarmctl.plugins import Executor, ExecutorSettings


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Name this plugin."""
    return PluginInfo(name="process", version=__version__)


@hookimpl
def swarmctl_executor(name: str, settings: ExecutorSettings) -> Executor | None:
    """Make the executor for plain processes on this host."""
    if name != "process":
        return None
    from .executor import ProcessExecutor

    return ProcessExecutor(settings)
