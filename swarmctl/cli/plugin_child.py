"""``swarmctl plugin-child``: the program of a plugin's child process, for the daemon alone.

Hidden: it speaks msgpack on its standard streams and does nothing for who types it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import command

if TYPE_CHECKING:
    from .command import Invocation


@command("plugin-child", "Run a plugin for the daemon")
def plugin_child(call: Invocation) -> None:  # noqa: ARG001 - it has no arguments
    """Answer the daemon until it hangs up."""
    from swarmctl.plugins.outside.child import run_child

    run_child()
