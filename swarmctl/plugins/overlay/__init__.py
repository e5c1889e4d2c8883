"""The built-in network driver ``overlay``: VXLAN between hosts, virtual addresses, routing mesh.

``topology``, ``rules``, ``balance`` and ``mesh`` say what the kernel shall have, as values; the
others read the kernel and change it. See docs/design/overlay.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl import __version__
from swarmctl.plugins import PLUGIN_API, PluginInfo, hookimpl

if TYPE_CHECKING:
    from swarmctl.plugins import NetworkDriver, NetworkDriverSettings


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Say who this is."""
    return PluginInfo(name="overlay", version=__version__, api=PLUGIN_API)


@hookimpl
def swarmctl_network_driver(name: str, settings: NetworkDriverSettings) -> NetworkDriver | None:
    """Make the driver; its modules are loaded only when it is wanted."""
    if name != "overlay":
        return None
    from .driver import OverlayDriver

    return OverlayDriver(settings)
