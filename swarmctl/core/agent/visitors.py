"""Containers that users put on the swarm's attachable networks of this host.

Their networks are kept on the host for them, also where no task is on one, and who is on them is
told to the network driver like a task. Nothing else is known of them, and none is ever touched.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

import trio

from ..errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..model.endpoints import EndpointTable
    from ..model.task import HostNetwork
    from .executor import NetworkHost
    from .network import Sandbox

RETRY_S = 5.0

log = logging.getLogger(__name__)


class Visitors:
    """Keeps the networks, and knows who is there.

    Args:
        changed: called when others are there than before.

    Attributes:
        are_known: whether it was looked since the daemon's start.
    """

    def __init__(self, host: NetworkHost, changed: Callable[[], None]) -> None:
        self._host = host
        self._tell = changed
        self._wanted: tuple[HostNetwork, ...] | None = None
        self._new = trio.Event()
        self._sandboxes: tuple[Sandbox, ...] = ()
        self._failure = ""
        self._blindness = ""
        self.are_known = False

    @property
    def sandboxes(self) -> tuple[Sandbox, ...]:
        """Who is there."""
        return self._sandboxes

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences: what does not work and why, and who has an address that is not his."""
        kept = {network.id: network for network in self._wanted or ()}
        strays = [
            f"the container {next(iter(sandbox.names), sandbox.id)} has the address {address} on "
            f"network {network.name}, which may be another's: those for containers on this node "
            f"are {', '.join(network.room) or 'none'}"
            for sandbox in self._sandboxes
            for network in (kept[one] for one in sandbox.networks if one in kept)
            for address in sandbox.addresses
            if _is_in(address, network.subnets) and not _is_in(address, network.room)
        ]
        return (*filter(None, (self._failure, self._blindness)), *strays)

    def want(self, table: EndpointTable) -> None:
        """Keep the attachable networks of a table."""
        wanted = tuple(
            part.network
            for part in table.networks
            if part.network.attachable and part.network.gateways
        )
        if wanted != self._wanted:
            self._wanted = wanted
            self.are_known = self.are_known or not wanted
            self._new.set()

    async def run(self) -> None:
        """Keep and watch until cancelled, which takes nothing down."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, name="visitors")
            while True:
                await self._new.wait()
                self._new = trio.Event()
                await self._keep(self._wanted or ())

    async def forget(self) -> None:
        """Keep no network any more; those that containers are on stay as long as these."""
        self._wanted = ()
        await self._ask_to_keep(())  # if it cannot, whoever cleans up after us can
        self._sandboxes = ()

    async def _watch(self) -> None:
        """Have the executor watch, again and again should it fail."""
        while True:
            try:
                await self._host.watch_visitors(self._take)
            except Exception as error:  # of the executor: the tasks go on
                self._blindness = f"plain containers on networks are not seen: {error!r}"
                log.exception("the executor failed to watch plain containers")
            await trio.sleep(RETRY_S)

    async def _keep(self, networks: tuple[HostNetwork, ...]) -> None:
        failure = await self._ask_to_keep(networks)
        if failure and failure != self._failure:
            log.warning("plain containers cannot join a network here: %s", failure)
        self._failure = failure
        if failure:
            with trio.move_on_after(RETRY_S):
                await self._new.wait()
            self._new.set()

    async def _ask_to_keep(self, networks: tuple[HostNetwork, ...]) -> str:
        """Return why the executor cannot keep some, or ""."""
        try:
            await self._host.keep_networks(networks)
        except SwarmError as error:
            return str(error)
        except Exception as error:  # of the executor: the tasks go on
            log.exception("the executor failed to keep networks")
            return f"networks are not kept for plain containers: {error!r}"
        return ""

    def _take(self, sandboxes: Sequence[Sandbox]) -> None:
        self._blindness = ""
        found = tuple(sorted(sandboxes, key=lambda one: one.id))
        if found != self._sandboxes or not self.are_known:
            self._sandboxes, self.are_known = found, True
            self._tell()


def _is_in(address: str, subnets: Iterable[str]) -> bool:
    one = ipaddress.ip_address(address)
    return any(one in ipaddress.ip_network(subnet) for subnet in subnets)
