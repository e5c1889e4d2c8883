"""The port by which other nodes reach this one: which address it is, and opening it.

What a request names wins over what the daemon was started with, and that over what this host's
interfaces say. A host may get another address while its daemon is down; the next start sees it.
It must not know who connects.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from .ca.credentials import split_address
from .errors import BadRequest
from .membership import Membership
from .wire.address import (
    NoAddressToAdvertise,
    is_of_this_host,
    join_host_port,
    parse_advertise,
    parse_listen,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_LISTEN = "0.0.0.0:2377"

log = logging.getLogger(__name__)


class NodePort:
    """Addresses for requests that name some, one or none.

    Args:
        listen_addr, advertise_addr: what the daemon was started with, "" for nothing.
    """

    def __init__(self, listen_addr: str, advertise_addr: str) -> None:
        self._flags = (listen_addr, advertise_addr)

    def place(self, listen: str, advertise: str) -> Membership:
        """Return where to listen and what to tell others, for a request that names this.

        Raises:
            BadRequest: one of them cannot be used, or there are several to choose from.
        """
        return self._place(*self._listen(listen), advertise or self._flags[1])

    def worker_place(self, listen: str, advertise: str) -> Membership:
        """As for a manager, but nobody dials a worker: which address is its own, others can see."""
        try:
            return self.place(listen, advertise)
        except NoAddressToAdvertise:
            host, port = self._listen(listen)
            return Membership(listen_addr=join_host_port(host, port), advertise_addr="")

    def moved(self, place: Membership) -> Membership:
        """Return where a node is that starts again, on a host that may have another address now.

        A flag that the daemon did not have before counts. Else what decided the last time decides
        again; an address that was found on this host stays as long as the host has it.
        """
        wanted = place.advertised_as
        flags = tuple(map(_newer, self._flags, place.flags))
        if flags[1]:
            wanted = flags[1]
        if wanted is None or not place.advertise_addr:
            return place
        host, _ = split_address(place.advertise_addr)
        if not any(flags) and not wanted and is_of_this_host(host):
            return place
        try:
            now = self._place(*parse_listen(flags[0] or place.listen_addr), wanted)
        except BadRequest as error:
            log.warning("others go on being told %s: %s", place.advertise_addr, error)
            return place
        return with_addresses(place, now)

    def again(self, place: Membership, listen: str, advertise: str) -> Membership:
        """Return where a node is that goes on, for a request that may name another place.

        Raises:
            BadRequest: it names one that cannot be used.
        """
        named = _named(listen)
        if not named and not advertise:
            return place
        wanted = advertise or place.advertised_as
        if wanted is None:
            wanted, _ = split_address(place.advertise_addr)
        return with_addresses(place, self._place(*parse_listen(named or place.listen_addr), wanted))

    def _listen(self, listen: str) -> tuple[str, int]:
        return parse_listen(_named(listen) or self._flags[0])

    def _place(self, host: str, port: int, wanted: str) -> Membership:
        advertise_host, advertise_port = parse_advertise(wanted, host, port)
        return Membership(
            listen_addr=join_host_port(host, port),
            advertise_addr=join_host_port(advertise_host, advertise_port),
            advertised_as=wanted,
            flags=self._flags,
        )


def with_addresses(place: Membership, found: Membership) -> Membership:
    """Return a place with the addresses of another one."""
    return replace(
        place,
        listen_addr=found.listen_addr,
        advertise_addr=found.advertise_addr,
        advertised_as=found.advertised_as,
        flags=found.flags,
    )


def _named(listen: str) -> str:
    """Return what a user named. Clients name Docker's default where their user named nothing."""
    return "" if listen == DEFAULT_LISTEN else listen


def _newer(flag: str, before: str) -> str:
    return flag if flag != before else ""


async def open_port(address: str) -> Sequence[trio.SocketListener]:
    """Listen at ``host:port``.

    Raises:
        BadRequest: somebody else has it, or the address is not ours.
    """
    host, port = split_address(address)
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise BadRequest(
            f"cannot listen on {join_host_port(host, port)}: {error.strerror or error}; "
            "choose another with --listen-addr"
        ) from error


def close_port(listeners: Sequence[trio.SocketListener]) -> None:
    """Close what :func:`open_port` opened; again does no harm."""
    for listener in listeners:
        listener.socket.close()
