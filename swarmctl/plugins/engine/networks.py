"""The engine's bridge networks that stand for networks of the swarm on this host.

One is made when the first task needs it and removed with the last container on it; those that users
may put containers of their own on are kept without any. Laws:

- Only what carries this cluster's and this node's identity is touched; a network of somebody else
  that stands in the way is an error that names it. One that another node of ours left on this host
  is taken away if it stands in the way, no container is on it, and that node is not at work here.
- Whoever is about to make a container has said so first (:meth:`join`), so no network goes from
  under it; containers of an earlier daemon are found by asking the engine.
- A host keeps the addresses it has: no bridge gets a subnet that a route of the host leads to.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable, ExecutorError, bridge_name, is_at_work

from .calls import Refused
from .endpoints import connected_routes, fits, overlapping, subnets_of
from .labels import NETWORK_LABEL, NODE_LABEL, owner_filter
from .observe import Bell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.model import HostNetwork

    from .calls import Engine
    from .changes import Changes
    from .dialect import Json, SeenNetwork

ROUTES = Path("/proc/net/route")
SWEEP_RETRY_S = 5.0
KEPT_S = 3.0
"""How long after its start a daemon may take to say which networks are kept."""
KEEPER = ""
"""Uses a network that is kept, beside the tasks that do."""

log = logging.getLogger(__name__)


class EngineNetworks:
    """The bridge networks of one node on one engine.

    Args:
        changes: sees a network that is being made through, as it does containers.
        disk: lets one thread at a time at files.

    Attributes:
        are_kept: set once the networks that are to be kept are there.
        visited: rung when somebody may have come to one of them, or left it.
        has_leftovers: there are networks that only containers of users keep.
    """

    def __init__(
        self,
        engine: Engine,
        changes: Changes,
        identity: NodeIdentity,
        disk: trio.CapacityLimiter,
    ) -> None:
        self._engine = engine
        self._words = engine.dialect.networks
        self._identity = identity
        self._changes = changes
        self._disk = disk
        self._lock = trio.Lock()
        self._users: dict[str, set[str]] = {}
        self._made: dict[str, HostNetwork] = {}
        self._kept: tuple[HostNetwork, ...] = ()
        self._is_told = trio.Event()
        self._any_visited = trio.Event()
        self.are_kept = trio.Event()
        self.visited = Bell()
        self.has_leftovers = False

    async def run(self) -> None:
        """Remove what an earlier daemon left without containers, once the engine answers."""
        with trio.move_on_after(KEPT_S):
            await self._is_told.wait()
        while True:
            try:
                await self.sweep()
                return
            except EngineUnavailable:
                await trio.sleep(SWEEP_RETRY_S)

    async def join(self, task_id: str, networks: Sequence[HostNetwork]) -> None:
        """Make sure that the networks of a task that is about to get a container are there.

        Raises:
            ExecutorError: one cannot be made beside what this host has.
            EngineUnavailable: the engine does not answer, or one cannot be made yet.
        """
        for network in networks:
            self._users.setdefault(network.id, set()).add(task_id)
        for network in networks:
            if self._made.get(network.id) != network:
                async with self._lock:
                    await self._ensure(network)

    async def leave(self, task_id: str) -> None:
        """Note that a task is gone, and remove the networks that nobody is on any more.

        Raises:
            EngineUnavailable: the engine does not answer, or cannot tell.
        """
        for network_id in [one for one, users in self._users.items() if task_id in users]:
            self._users[network_id].discard(task_id)
            if not self._users[network_id]:
                del self._users[network_id]
        await self.sweep()

    async def keep(self, networks: Sequence[HostNetwork]) -> None:
        """Have these networks here whether or not tasks are on them, and of all others none.

        Raises:
            ExecutorError: some cannot be made beside what this host has; the others are there.
            EngineUnavailable: the engine does not answer, or one cannot be made yet.
        """
        self._kept = tuple(networks)
        ids = {network.id for network in networks}
        for network_id in {*self._users, *ids}:
            users = self._users.setdefault(network_id, set())
            if network_id in ids:
                users.add(KEEPER)
            else:
                users.discard(KEEPER)
            if not users:
                del self._users[network_id]
        self._is_told.set()
        refused = []
        for network in networks:
            if self._made.get(network.id) != network:
                try:
                    async with self._lock:
                        await self._ensure(network)
                except ExecutorError as error:
                    refused.append(str(error))
        self.are_kept.set()
        self.visited.ring()
        if self.kept():
            self._any_visited.set()
        await self.sweep()
        if refused:
            raise ExecutorError("; ".join(refused))

    def kept(self) -> list[HostNetwork]:
        """Return the networks that are kept, and are there."""
        return [network for network in self._kept if self._made.get(network.id) == network]

    async def wait_visited(self) -> None:
        """Sleep until there was a network that users may have put containers on."""
        await self._any_visited.wait()

    def forget(self, networks: Sequence[HostNetwork]) -> None:
        """Look again next time: the engine says that one of them is not there."""
        for network in networks:
            self._made.pop(network.id, None)

    async def sweep(self) -> None:
        """Remove what is ours and nobody is on, or about to be. Raises as :meth:`leave`."""
        async with self._lock:
            self.has_leftovers = False
            for seen in await self._networks(label=owner_filter(self._identity)):
                network_id = _id_of(seen)
                # Engines differ in what two labels in a filter mean.
                if self._is_mine(seen) and network_id not in self._users:
                    self._made.pop(network_id, None)  # who joins meanwhile waits, and looks again
                    on_it = msgspec.json.encode({"network": [seen.id]}).decode()
                    if await self._ask("/containers/json", all="1", filters=on_it):
                        self.has_leftovers = True
                        self._any_visited.set()
                    else:
                        await self._remove(seen)

    # --- one network ---

    async def _ensure(self, network: HostNetwork) -> None:
        """Make a network, or find it made."""
        await self._changes.settled(_key(network))
        if self._made.get(network.id) == network:
            return  # while we waited for our turn
        for seen in await self._networks():
            if self._is_mine(seen) and _id_of(seen) == network.id and fits(seen, network):
                # One of an older release is made anew when nobody is on it.
                choice = set(self._words.own_choice(network))
                if set(seen.own_choice) == choice or not await self._remove(seen):
                    self._made[network.id] = network
                    return
            else:
                await self._clear_way(seen, network)
        await self._check_routes(network)
        body = self._words.body(network, self._identity)
        try:
            async with self._words.making(network):
                await self._changes.post(_key(network), "/networks/create", body)
        except Refused as error:
            if self._words.exists_already(error):  # made meanwhile, not by us
                raise EngineUnavailable(f"network {network.name}: {error}") from error
            raise ExecutorError(f"network {network.name} cannot be made: {error}") from error
        self._made[network.id] = network

    async def _clear_way(self, seen: SeenNetwork, network: HostNetwork) -> None:
        """See to a network of the engine that stands in the way of one to make, if it does.

        Raises:
            ExecutorError: it is somebody else's, or in use.
            EngineUnavailable: it is ours, of an earlier time, and not yet free of containers.
        """
        overlap = overlapping(network, subnets_of(seen))
        has_name = seen.name == network.name
        if not (overlap or has_name or (self._is_mine(seen) and _id_of(seen) == network.id)):
            return
        if not self._is_mine(seen):
            owner = seen.labels.get(NODE_LABEL, "") if _id_of(seen) else ""
            if owner and not is_at_work(owner):
                await self._remove_leaving(seen, owner, network)
                return
            what = (
                f"this host's engine has a network called {network.name} that is not swarmctl's; "
                "rename or remove one of the two"
                if has_name
                else f"network {network.name} ({', '.join(network.subnets)}) overlaps with "
                f"{overlap} of this engine's network {seen.name}; remove that, or create the "
                "network with another --subnet"
            )
            raise ExecutorError(what)
        if not await self._remove(seen):
            raise EngineUnavailable(
                f"network {network.name} waits for containers that are still on {seen.name} "
                f"({', '.join(subnets_of(seen))})"
            )
        self._made.pop(_id_of(seen), None)

    async def _remove_leaving(self, seen: SeenNetwork, owner: str, network: HostNetwork) -> None:
        """Remove what a node left that this host was before.

        Raises:
            ExecutorError: containers are on it.
        """
        on_it = msgspec.json.encode({"network": [seen.id]}).decode()
        rows = await self._ask("/containers/json", all="1", filters=on_it)
        if rows or not await self._remove(seen):
            names = ", ".join(sorted(row["Names"][0].lstrip("/") for row in rows))
            raise ExecutorError(
                f"network {network.name}: the network {seen.name} ({', '.join(subnets_of(seen))}) "
                f"stands in the way, which node {owner} left on this host; it goes by itself once "
                f"its containers are removed ({names})"
            )
        log.warning("network %s is taken away, which node %s left here", seen.name, owner)

    async def _check_routes(self, network: HostNetwork) -> None:
        """Check that the host itself does not use a network's addresses.

        Raises:
            ExecutorError: which interface does.
        """
        try:
            table = await trio.to_thread.run_sync(ROUTES.read_text, limiter=self._disk)
        except OSError:
            return  # no IPv4 here
        for interface, subnet in connected_routes(table):
            if interface != bridge_name(network.id) and overlapping(network, [subnet]):
                raise ExecutorError(
                    f"network {network.name} ({', '.join(network.subnets)}) overlaps with {subnet},"
                    f" which this host reaches through {interface}; create the network with another"
                    " --subnet, or the swarm with another --default-addr-pool"
                )

    async def _remove(self, seen: SeenNetwork) -> bool:
        """Remove a network of ours; False while containers run on it.

        Containers that have ended do not keep it: none of ours is started a second time.
        """
        try:
            await self._words.remove(self._engine, seen)
        except Refused as error:
            if self._words.is_in_use(error):
                return False
            if error.status != 404:
                raise EngineUnavailable(
                    f"network {seen.name} cannot be removed: {error}"
                ) from error
        return True

    async def _ask(self, path: str, **query: str) -> list[Json]:
        try:
            found: list[Json] = await self._engine.get(path, **query)
        except Refused as error:
            raise EngineUnavailable(f"the engine cannot list {path}: {error}") from error
        return found

    async def _networks(self, **filters: list[str]) -> list[SeenNetwork]:
        query = {"filters": msgspec.json.encode(filters).decode()} if filters else {}
        return [self._words.seen(row) for row in await self._ask(self._words.list_path, **query)]

    def _is_mine(self, seen: SeenNetwork) -> bool:
        wanted = dict(text.split("=", 1) for text in owner_filter(self._identity))
        return wanted.items() <= seen.labels.items() and NETWORK_LABEL in seen.labels


def _id_of(seen: SeenNetwork) -> str:
    return seen.labels.get(NETWORK_LABEL, "")


def _key(network: HostNetwork) -> str:
    """Return what a network's making goes by among the changes under way."""
    return f"network {network.id}"
