"""Internal networks: this host passes nothing on from them, or to them.

What goes from container to container stays on the bridge, and between hosts in the tunnel, so none
of it is passed on. Engines see to the rest as well, but not all of them for IPv6. The host's own
addresses are reached, as on any internal network of an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins import bridge_name

from .rules import FAMILIES, Chain, Rule

if TYPE_CHECKING:
    from swarmctl.plugins.model import EndpointTable

    from .rules import Ruleset

FORWARD = "type filter hook forward priority -5"


def closed_rules(table: EndpointTable) -> Ruleset:
    """Return what the host's own namespace shall have for its internal networks."""
    rules = tuple(
        Rule(f'{one} "{bridge}" {other} != "{bridge}" drop', name)
        for name, bridge in sorted(
            (part.network.name, bridge_name(part.network.id))
            for part in table.networks
            if part.network.internal
        )
        for one, other in (("iifname", "oifname"), ("oifname", "iifname"))
    )
    return {family: {"closed": Chain(rules, FORWARD)} for family in FAMILIES} if rules else {}
