"""One network as nodes are told of it: its items, and at which log index each changed last.

Pure. Items are the peers, services and members of a network. What a node lacks is what changed
after the log index that it knows; what is gone is remembered for a while, and a node that knows
less than that begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.endpoints import Member, NetworkChange, Peer, ServiceChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..model.objects import NetworkRow
    from ..model.task import HostNetwork

TOMBSTONES_MAX = 1_000

_PEER, _SERVICE, _MEMBER = "peer", "service", "member"
Item = tuple[str, ...]


def member_item(service_id: str, task_id: str) -> Item:
    """Return the item of a task in its service."""
    return _MEMBER, service_id, task_id


class Journal:
    """At which log index each item changed last, the latest at the end.

    Attributes:
        floor: what changed up to here may be forgotten; who knows less has to begin anew.
    """

    def __init__(self) -> None:
        self.floor = 0
        self._at: dict[Item, int] = {}
        self._items_max = TOMBSTONES_MAX

    def note(self, item: Item, index: int) -> None:
        self._at.pop(item, None)
        self._at[item] = index

    @property
    def last(self) -> int:
        """The log index of the newest change."""
        return self._at[next(reversed(self._at))] if self._at else 0

    def at(self, item: Item) -> int:
        return self._at.get(item, 0)

    def since(self, index: int) -> list[Item]:
        """Return what changed after a log index, the oldest first."""
        found: list[Item] = []
        for item in reversed(self._at):
            if self._at[item] <= index:
                break
            found.append(item)
        found.reverse()
        return found

    def prune(self, is_there: Callable[[Item], bool]) -> None:
        """Forget the oldest of the items that are gone, once they may be many."""
        if len(self._at) <= self._items_max:
            return
        gone = [item for item in self._at if not is_there(item)]
        for item in gone[: max(0, len(gone) - TOMBSTONES_MAX // 2)]:
            self.floor = max(self.floor, self._at.pop(item))
        self._items_max = len(self._at) + TOMBSTONES_MAX


class _Service:
    """One service in one network."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.vips: tuple[str, ...] = ()
        self.members: dict[str, Member] = {}


class Network:
    """One network: all that its nodes have in common."""

    def __init__(self, network_id: str) -> None:
        self.id = network_id
        self.row: NetworkRow | None = None
        self.journal = Journal()
        self.peers: dict[str, Peer] = {}
        self.services: dict[str, _Service] = {}

    def nodes(self) -> Iterable[str]:
        """Return the nodes that take part."""
        return self.row.private.gateways if self.row is not None else ()

    def set_peer(self, node_id: str, peer: Peer | None, index: int) -> bool:
        if self.peers.get(node_id) == peer:
            return False
        if peer is None:
            del self.peers[node_id]
        else:
            self.peers[node_id] = peer
        self.journal.note((_PEER, node_id), index)
        return True

    def set_service(
        self, service_id: str, names: tuple[str, ...], vips: tuple[str, ...], index: int
    ) -> bool:
        service = self.services.get(service_id)
        if service is None:
            if not names:
                return False
            service = self.services[service_id] = _Service()
        if (service.names, service.vips) == (names, vips):
            return False
        service.names, service.vips = names, vips
        self._drop_if_empty(service_id, service)
        self.journal.note((_SERVICE, service_id), index)
        return True

    def set_member(self, service_id: str, task_id: str, member: Member | None, index: int) -> bool:
        service = self.services.get(service_id)
        if (service.members.get(task_id) if service is not None else None) == member:
            return False
        if service is None:
            service = self.services[service_id] = _Service()
        if member is None:
            del service.members[task_id]
            self._drop_if_empty(service_id, service)
        else:
            service.members[task_id] = member
        self.journal.note((_MEMBER, service_id, task_id), index)
        return True

    def _drop_if_empty(self, service_id: str, service: _Service) -> None:
        if not service.names and not service.members:
            del self.services[service_id]

    def prune(self) -> None:
        self.journal.prune(self._has)

    def _has(self, item: Item) -> bool:
        if item[0] == _PEER:
            return item[1] in self.peers
        service = self.services.get(item[1])
        return service is not None and (item[0] == _SERVICE or item[2] in service.members)

    # --- what a node is told ---

    def everything(self) -> list[Item]:
        """Return every item there is."""
        items: list[Item] = [(_PEER, node_id) for node_id in self.peers]
        for service_id, service in self.services.items():
            items.append((_SERVICE, service_id))
            items += ((_MEMBER, service_id, task_id) for task_id in service.members)
        return items

    def change(
        self, items: Iterable[Item], node_id: str, head: HostNetwork | None, *, complete: bool
    ) -> NetworkChange:
        """Return what a node is told of some items."""
        peers: list[Peer] = []
        gone_peers: list[str] = []
        touched: dict[str, tuple[list[Member], list[str]]] = {}
        for item in items:
            if item[0] == _PEER:
                peer = self.peers.get(item[1])
                if item[1] == node_id:
                    continue
                if peer is not None:
                    peers.append(peer)
                else:
                    gone_peers.append(item[1])
                continue
            put, gone = touched.setdefault(item[1], ([], []))
            service = self.services.get(item[1])
            if item[0] == _MEMBER and service is not None:
                member = service.members.get(item[2])
                if member is not None:
                    put.append(member)
                else:
                    gone.append(item[2])
        services: list[ServiceChange] = []
        for service_id, (put, gone) in touched.items():
            service = self.services.get(service_id)
            if service is not None:
                services.append(
                    ServiceChange(
                        service_id=service_id,
                        names=service.names,
                        vips=service.vips,
                        members=tuple(put),
                        gone=tuple(gone),
                    )
                )
        return NetworkChange(
            id=self.id,
            network=head,
            complete=complete,
            peers=tuple(peers),
            gone_peers=tuple(gone_peers),
            services=tuple(services),
            gone_services=tuple(one for one in touched if one not in self.services),
        )
