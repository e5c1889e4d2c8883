"""Pings: which paths are tried, and what counts as an answer."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.plugins.overlay.probe import choose, is_reply
from tests.plugins.overlay.tables import member, network, service

FAMILIES = st.sampled_from((socket.AF_INET, socket.AF_INET6))


def test_paths_to_ready_members_elsewhere_are_tried() -> None:
    """One that is being prepared, or is on a host that is down, has no path to be missed."""
    web = service(
        member(7),
        member(8, ready=False),
        member(9, "node1"),
        member(10, on_host=True),
        member(11, "node3"),
    )
    paths = list(choose("task11", [network(web)], "node1"))
    assert paths == [("net", "task7", "10.0.1.7")]


@given(st.binary(max_size=70), FAMILIES)
def test_any_bytes_are_an_answer_or_none(data: bytes, family: socket.AddressFamily) -> None:
    """Whoever reaches this host can send it any packet while it waits for an answer."""
    assert is_reply(data, family, 70_000) is False


@pytest.mark.parametrize("header", [20, 60])
def test_a_reply_is_found_behind_any_header(header: int) -> None:
    """Options make a packet's header longer."""
    packet = bytes([0x40 | header // 4]).ljust(header, b"\0") + struct.pack("!BBHHH", 0, 0, 0, 9, 1)
    assert is_reply(packet, socket.AF_INET, 9)
    assert not is_reply(packet, socket.AF_INET, 10)
    assert not is_reply(packet[:-1], socket.AF_INET, 9)
    six = struct.pack("!BBHHH", 129, 0, 0, 9, 1)
    assert is_reply(six, socket.AF_INET6, 9)
