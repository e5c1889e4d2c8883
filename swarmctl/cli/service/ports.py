"""``--publish``: ``8080:80/udp``, ``8000-8010:80`` and ``published=8080,target=80,mode=host``.

Texts and checks are the docker CLI's. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from .values import split_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..api import Json

MAX_PORT = 65_535
_LONG_PORT = re.compile(r"\w+=\w+(,\w+=\w+)*", re.ASCII)
_PROTOCOLS = ("tcp", "udp", "sctp")
_PUBLISH_MODES = ("ingress", "host")


def parse_ports(text: str) -> list[Json]:
    """Return the ports of ``8080:80/tcp``, ``8000-8010:80`` or ``published=8080,target=80``.

    Raises:
        ValueError: in Docker's words.
    """
    if _LONG_PORT.match(text):
        return [_long_port(text)]
    return _short_ports(text)


def _long_port(text: str) -> Json:
    port: Json = {"Protocol": "tcp", "TargetPort": 0, "PublishMode": "ingress"}
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        key, value = key.lower(), value.lower()
        if not equals:
            raise ValueError(f"invalid field: {field}")
        if key == "protocol":
            if value not in _PROTOCOLS:
                raise ValueError(f"invalid protocol value '{value}'")
            port["Protocol"] = value
        elif key == "mode":
            if value not in _PUBLISH_MODES:
                raise ValueError(
                    f"invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                )
            port["PublishMode"] = value
        elif key in ("target", "published"):
            port["TargetPort" if key == "target" else "PublishedPort"] = _port_number(key, value)
        else:
            raise ValueError(f"invalid field key: {key}")
    if not port["TargetPort"]:
        raise ValueError("missing mandatory field 'target'")
    return _without_zeros(port)


def _port_number(key: str, value: str) -> int:
    problem = "invalid syntax"
    if value.isascii() and value.isdigit():
        if len(value) <= 5 and int(value) <= MAX_PORT:
            return int(value)
        problem = "value out of range"
    raise ValueError(f"invalid {key} port ({value}): value must be an integer: {problem}")


def _short_ports(text: str) -> list[Json]:
    rest, _, protocol = text.partition("/")
    address, published, target = _split_port(rest)
    if address and not _is_address(address):
        raise ValueError(f"invalid IP address: {address}")
    if not target:
        raise ValueError(f"no port specified: {text}<empty>")
    targets = _port_range(target)
    if targets is None:
        raise ValueError(f"invalid containerPort: {target}")
    publishes = _port_range(published) if published else None
    if published and publishes is None:
        raise ValueError(f"invalid hostPort: {published}")
    if publishes and len(targets) not in (1, len(publishes)):
        raise ValueError(
            f"invalid ranges specified for container and host Ports: {target} and {published}"
        )
    if protocol and protocol.lower() not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    if address:
        raise ValueError("hostip is not supported")
    inner: Iterable[int] = targets
    if publishes and len(targets) == 1:  # each published port leads to the same one inside
        inner = [targets[0]] * len(publishes)
    return [
        _without_zeros(
            {
                "Protocol": protocol.lower() or "tcp",
                "TargetPort": one,
                "PublishedPort": publishes[at] if publishes else 0,
                "PublishMode": "ingress",
            }
        )
        for at, one in enumerate(inner)
    ]


def _split_port(text: str) -> tuple[str, str, str]:
    """Return address, published and target of ``[[address:]published:]target``."""
    before, _, target = text.rpartition(":")
    address, _, published = before.rpartition(":")
    return address, published, target


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _port_range(text: str) -> range | None:
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first, first]
    if not all(number.isascii() and number.isdigit() and len(number) <= 5 for number in numbers):
        return None
    low, high = int(numbers[0]), int(numbers[1])
    return range(low, high + 1) if low <= high <= MAX_PORT else None


def _without_zeros(port: Json) -> Json:
    return {key: value for key, value in port.items() if value != 0}
