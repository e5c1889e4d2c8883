"""Ports that tests choose stay theirs."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.ports import free_port

IP_LOCAL_PORT_RANGE = 51  # of Linux 6.3 and later


def test_a_chosen_port_is_given_to_nobody_by_chance_and_can_be_listened_at() -> None:
    """With only that port to choose from, neither binding port 0 nor connecting gets it; a server
    that names it does, and is reached."""
    port = free_port()
    only = (port << 16 | port).to_bytes(4, "little")
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as by_chance:
        try:
            by_chance.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only)
        except OSError as error:
            pytest.skip(f"this kernel cannot narrow a socket's choice of ports: {error}")
        with pytest.raises(OSError, match="in use"):
            by_chance.bind(("127.0.0.1", 0))
        with socket.socket() as client:
            client.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only)
            with pytest.raises(OSError) as caught:
                client.connect(other.getsockname())
            assert caught.value.errno == errno.EADDRNOTAVAIL
    with (
        socket.create_server(("127.0.0.1", port)),  # with SO_REUSEADDR
        socket.create_connection(("127.0.0.1", port)),
    ):
        pass
