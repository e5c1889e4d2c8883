"""Which addresses a node listens on and tells others.

Users write ``<ip|interface>[:port]`` as for Docker; the texts of the errors are Docker's too. A
shell: it asks the kernel for its interfaces. It must not know swarms.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from typing import NamedTuple

from ..errors import BadRequest

DEFAULT_PORT = 2377
_SIOCGIFCONF = 0x8912
_IFREQ_BYTES = 40  # struct ifreq on 64-bit Linux
_INTERFACES_MAX = 256
# Addresses that belong to containers' bridges are nothing another host could reach.
_LOCAL_BRIDGES = ("docker", "br-", "veth", "podman", "cni", "virbr", "sw-")


class NoAddressToAdvertise(BadRequest):
    """This host has no address of its own to choose, or several; the user has to name one."""


class InterfaceAddress(NamedTuple):
    """An IPv4 address and the interface that has it."""

    interface: str
    address: str


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port to listen on; an interface stands for its address.

    Raises:
        BadRequest: neither an IP address nor an interface of this host.
    """
    host, port = _split(text or "0.0.0.0")
    resolved = _resolve(host)
    if resolved is None:
        raise BadRequest(
            "listen address must be an IP address or network interface (with optional port "
            f"number), got {text!r}"
        )
    return resolved, port


def parse_advertise(text: str, listen_host: str, listen_port: int) -> tuple[str, int]:
    """Return host and port that others shall dial.

    Without a text it is the listen address or, listening everywhere, this host's only address.

    Raises:
        BadRequest: not an address others could dial, or there are several to choose from.
    """
    if not text:
        if not _is_unspecified(listen_host):
            return listen_host, listen_port
        return _only_address(), listen_port
    host, port = _split(text, listen_port)
    resolved = _resolve(host)
    if resolved is None or _is_unspecified(resolved):
        raise BadRequest(
            "advertise address must be a non-zero IP address or network interface (with optional "
            f"port number), got {text!r}"
        )
    return resolved, port


def parse_data_path(text: str) -> str:
    """Return the address that carries traffic between containers, "" for none of its own.

    Raises:
        BadRequest: neither an IP address nor an interface of this host.
    """
    if not text:
        return ""
    resolved = _resolve(text.strip("[]"))
    if resolved is None or _is_unspecified(resolved):
        raise BadRequest(
            "data path address must be a non-zero IP address or network interface (without a port "
            f"number), got {text!r}"
        )
    return resolved


def parse_remote(text: str) -> str:
    """Return ``host:port`` of a manager to join; the host may be a name, the port left out.

    Raises:
        BadRequest: no address.
    """
    host, port = _split(text.strip())
    if not host or "/" in host or any(char.isspace() for char in host):
        raise BadRequest(f"invalid remoteAddr {text!r}: expected HOST or HOST:PORT")
    return join_host_port(host, port)


def join_host_port(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def interface_addresses() -> list[InterfaceAddress]:
    """Return the IPv4 addresses of this host's interfaces, as the kernel lists them."""
    buffer = array.array("B", bytes(_IFREQ_BYTES * _INTERFACES_MAX))
    place, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("iL", length, place)
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFCONF, request)
    used = struct.unpack("iL", answer)[0]
    found = []
    for start in range(0, used, _IFREQ_BYTES):
        entry = bytes(buffer[start : start + _IFREQ_BYTES])
        name = entry[:16].split(b"\0", 1)[0].decode()
        found.append(InterfaceAddress(name, socket.inet_ntoa(entry[20:24])))
    return found


def is_of_this_host(address: str) -> bool:
    """True if one of this host's interfaces has an IPv4 address; always for IPv6."""
    return ":" in address or any(found.address == address for found in interface_addresses())


def _split(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Split off the port, if there is one."""
    host, colon, port = text.rpartition(":")
    bracketed = text.startswith("[")
    if not colon or (":" in host and not bracketed) or (bracketed and text.endswith("]")):
        return text.strip("[]"), default_port
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadRequest(f"port {port!r} of address {text!r} is not a number from 1 to 65535")
    return host.strip("[]"), int(port)


def _resolve(host: str) -> str | None:
    """Return an IP address for an address or an interface name; None if it is neither."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    for interface, address in interface_addresses():
        if interface == host:
            return address
    return None


def _only_address() -> str:
    candidates = [
        found
        for found in interface_addresses()
        if not found.interface.startswith(_LOCAL_BRIDGES)
        and not ipaddress.ip_address(found.address).is_loopback
    ]
    if not candidates:
        raise NoAddressToAdvertise(
            "could not find the system's IP address - specify one with --advertise-addr"
        )
    if len(candidates) > 1:
        names = " and ".join(f"{found.address} on {found.interface}" for found in candidates)
        raise NoAddressToAdvertise(
            "could not choose an IP address to advertise since this system has multiple addresses "
            f"on different interfaces ({names}) - specify one with --advertise-addr"
        )
    return candidates[0].address


def _is_unspecified(host: str) -> bool:
    return ipaddress.ip_address(host).is_unspecified
