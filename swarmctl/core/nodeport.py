"""The port by which other nodes reach this one: which address it is, and opening it.

What a request names wins over what the daemon was started with, and that over what this host's
interfaces say. It must not know who connects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .ca.credentials import split_address
from .errors import BadRequest
from .wire.address import NoAddressToAdvertise, join_host_port, parse_advertise, parse_listen

if TYPE_CHECKING:
    from collections.abc import Sequence


class NodePort:
    """Addresses for requests that name some, one or none.

    Args:
        listen_addr, advertise_addr: what the daemon was started with, "" for nothing.
    """

    def __init__(self, listen_addr: str, advertise_addr: str) -> None:
        self._listen_addr = listen_addr
        self._advertise_addr = advertise_addr

    def addresses(self, listen: str, advertise: str) -> tuple[str, str]:
        """Return where to listen and what to tell others, each as ``host:port``.

        Raises:
            BadRequest: one of them cannot be used, or there are several to choose from.
        """
        host, port = parse_listen(listen or self._listen_addr)
        wanted = advertise or self._advertise_addr
        advertise_host, advertise_port = parse_advertise(wanted, host, port)
        return join_host_port(host, port), join_host_port(advertise_host, advertise_port)

    def worker_addresses(self, listen: str, advertise: str) -> tuple[str, str]:
        """As for a manager, but nobody dials a worker: which address is its own, others can see."""
        try:
            return self.addresses(listen, advertise)
        except NoAddressToAdvertise:
            return join_host_port(*parse_listen(listen or self._listen_addr)), ""


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
