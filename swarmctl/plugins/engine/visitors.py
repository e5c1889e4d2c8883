"""Containers that users put on networks of the swarm by the engine's own commands.

They are looked for when the engine tells of anything that may have brought one or taken one away,
and every half minute, since an event may be missed. Nothing of theirs is touched.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable, Sandbox

from .calls import Refused, quoted
from .labels import TASK_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .calls import Engine
    from .dialect import Json
    from .networks import EngineNetworks

RECHECK_S = 30.0
RETRY_S = 2.0
NEWS_PAUSE_S = 0.05
"""One container that starts is several events."""


class Visitors:
    """Finds them."""

    def __init__(self, engine: Engine, networks: EngineNetworks) -> None:
        self._engine = engine
        self._networks = networks

    async def run(self, tell: Callable[[Sequence[Sandbox]], None]) -> None:
        """Tell who is on networks that are kept, whenever that may have changed; until cancelled.

        While the engine does not answer, nothing is told: who was there may be there still.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, name="events of visitors")
            await self._networks.are_kept.wait()
            while True:
                with suppress(EngineUnavailable, Refused):
                    tell(await self._find())
                    if self._networks.has_leftovers:
                        await self._networks.sweep()
                with trio.move_on_after(RECHECK_S):
                    await self._networks.visited.wait()
                await trio.sleep(NEWS_PAUSE_S)

    async def _find(self) -> list[Sandbox]:
        places: dict[str, dict[str, str]] = {}  # networks' ids by their names, for each container
        for network in self._networks.kept():
            filters = msgspec.json.encode({"network": [network.name]}).decode()
            for row in await self._engine.get("/containers/json", filters=filters):
                if TASK_LABEL not in (row.get("Labels") or {}):
                    places.setdefault(row["Id"], {})[network.name] = network.id
        found = []
        for container_id, networks in places.items():
            with suppress(Refused):  # it has just gone
                seen = await self._engine.get(f"/containers/{quoted(container_id)}/json")
                if seen["State"]["Pid"]:
                    resolv_conf = await trio.to_thread.run_sync(
                        _read, seen.get("ResolvConfPath") or "", limiter=self._engine.lookups
                    )
                    found.append(visitor(seen, networks, resolv_conf))
        return found

    async def _follow(self) -> None:
        """Look again at every event, through every absence of the engine."""
        query = {"filters": msgspec.json.encode(self._engine.dialect.networks.arrivals).decode()}
        while True:
            await self._networks.wait_visited()
            with suppress(EngineUnavailable, Refused):
                async with self._engine.stream("/events", query) as stream:
                    self._networks.visited.ring()  # what came before the stream was open
                    async for _ in stream:
                        self._networks.visited.ring()
            await trio.sleep(RETRY_S)


def visitor(seen: Json, networks: dict[str, str], resolv_conf: str) -> Sandbox:
    """Return a container as a sandbox.

    Args:
        seen: what the engine says of it when it is inspected.
        networks: ids of the swarm's networks that it is on, by their names.
        resolv_conf: what its programs read; an engine without a resolver of its own has them ask
            the host's servers, which know no names of the swarm.
    """
    places = {
        name: place
        for name, place in (seen["NetworkSettings"].get("Networks") or {}).items()
        if name in networks
    }
    addresses = [
        place.get(key) for place in places.values() for key in ("IPAddress", "GlobalIPv6Address")
    ]
    aliases = [name for place in places.values() for name in place.get("Aliases") or ()]
    return Sandbox(
        id=seen["Id"],
        pid=seen["State"]["Pid"],
        networks=tuple(networks[name] for name in places),
        addresses=tuple(address for address in addresses if address),
        nameservers=tuple((seen.get("HostConfig") or {}).get("Dns") or ()),
        resolvers=tuple(_servers(resolv_conf)),
        names=tuple(dict.fromkeys((seen["Name"].lstrip("/"), *aliases))),
    )


def _servers(resolv_conf: str) -> Iterator[str]:
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with suppress(ValueError):
                yield str(ipaddress.ip_address(words[1]))


def _read(path: str) -> str:
    try:
        return Path(path).read_text() if path else ""
    except OSError:
        return ""
