"""What the responder is told: the networks of this node, and who asks from where.

Pure. The daemon writes it as one JSON file (``state.json``); a responder that starts, or is told to
look again, reads it whole. Times, counters and sockets are none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swarmctl.core.model.base import PrivateStruct
from swarmctl.core.model.endpoints import NetworkTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swarmctl.core.agent.network import Sandbox
    from swarmctl.core.model.endpoints import EndpointTable


class Client(PrivateStruct, frozen=True, kw_only=True):
    """Somebody who asks: a task, or a container that a user put on an attachable network.

    Attributes:
        pid: a process in its network namespace; 0 when it is reached at gateways only.
        start: when that process started, in clock ticks since boot, since pids are used again.
        addresses: its own in our networks, bare.
        networks: ids of those it is on.
        nameservers: whom it wants asked for names that are not ours; empty for the host's servers.
        names: what it is called here in its networks; a task's names are in the networks.
    """

    id: str
    pid: int = 0
    start: int = 0
    addresses: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class ResponderState(PrivateStruct, frozen=True, kw_only=True):
    """All that the responder answers from.

    Attributes:
        number: which one this is; grows while one daemon lives.
        boot: the boot of this machine in which the clients' processes were seen.
    """

    number: int = 0
    boot: str = ""
    networks: tuple[NetworkTable, ...] = ()
    clients: tuple[Client, ...] = ()


def state_of(
    table: EndpointTable,
    sandboxes: Sequence[Sandbox],
    *,
    number: int,
    boot: str,
    start_of: Callable[[int], int],
) -> ResponderState:
    """Return what the responder has to know of what the driver was told.

    Args:
        start_of: when a process started; 0 for one that is gone.
    """
    networks = tuple(one for one in table.networks if not one.network.ingress)
    known = {one.network.id for one in networks}
    members = _member_addresses(networks, {sandbox.id for sandbox in sandboxes})
    clients = (_client(sandbox, known, members, start_of(sandbox.pid)) for sandbox in sandboxes)
    return ResponderState(
        number=number,
        boot=boot,
        # Peers carry packets and have no names; leaving them out keeps the file small.
        networks=tuple(msgspec.structs.replace(one, peers=()) for one in networks),
        clients=tuple(client for client in clients if client.networks),
    )


def _client(
    sandbox: Sandbox, known: set[str], members: dict[str, tuple[str, ...]], start: int
) -> Client:
    return Client(
        id=sandbox.id,
        pid=sandbox.pid if start else 0,
        start=start,
        addresses=sandbox.addresses or members.get(sandbox.id, ()),
        networks=tuple(one for one in sandbox.networks if one in known),
        nameservers=sandbox.nameservers,
        names=sandbox.names,
    )


def _member_addresses(
    networks: Sequence[NetworkTable], wanted: set[str]
) -> dict[str, tuple[str, ...]]:
    """Return the addresses that the table itself knows of some tasks."""
    found: dict[str, dict[str, None]] = {}
    for task_id, address in _addressed(networks):
        if task_id in wanted:
            found.setdefault(task_id, {})[address] = None
    return {task_id: tuple(addresses) for task_id, addresses in found.items()}


def _addressed(networks: Sequence[NetworkTable]) -> Iterator[tuple[str, str]]:
    for network in networks:
        for service in network.services:
            for member in service.members:
                if not member.on_host:
                    for address in member.addresses:
                        yield member.task_id, address


def encode(state: ResponderState) -> bytes:
    """Return the file's content."""
    return msgspec.json.encode(state)


def decode(content: bytes) -> ResponderState:
    """Return what a file holds.

    Raises:
        msgspec.DecodeError: it is not whole, or not ours.
    """
    return msgspec.json.decode(content, type=ResponderState)
