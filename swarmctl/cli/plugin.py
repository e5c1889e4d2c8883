"""``swarmctl plugin``: what the daemon loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import command
from .table import FORMAT_FLAG, write_list

if TYPE_CHECKING:
    from .command import Invocation

HEADERS = {"Name": "NAME", "Version": "VERSION", "API": "API"}
DEFAULT = "{{.Name}}\t{{.Version}}\t{{.API}}"


@command(
    "ls [OPTIONS]",
    "List the plugins that the daemon loaded",
    FORMAT_FLAG,
    aliases="swarmctl plugin ls, swarmctl plugin list",
)
def list_plugins(call: Invocation) -> None:
    """Print the loaded plugins, in the order in which they were loaded."""
    loaded = call.api.get("/info").get("LoadedPlugins") or []
    write_list(loaded, HEADERS, DEFAULT, asked=call.given.text("format"))
