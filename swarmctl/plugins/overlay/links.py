"""Links, addresses, forwarding entries and neighbours: read from the kernel, and changed in it.

The words of rtnetlink are here and nowhere else; what shall be is ``topology.py``'s.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .netlink import (
    APPEND,
    CREATE,
    DUMP,
    REPLACE,
    Request,
    address_bytes,
    address_text,
    attribute,
    attributes,
    flag,
    mac_bytes,
    nested,
    number,
    string_of,
    text,
)
from .topology import (
    BRIDGE,
    FLOOD_MAC,
    VXLAN,
    Forwarding,
    InterfaceAddress,
    Link,
    Neighbour,
    Step,
    Topology,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .netlink import NetlinkSocket

# linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h
_NEW_LINK, _DEL_LINK, _GET_LINK, _SET_LINK = 16, 17, 18, 19
_NEW_ADDR, _DEL_ADDR, _GET_ADDR = 20, 21, 22
_NEW_NEIGH, _DEL_NEIGH, _GET_NEIGH = 28, 29, 30
_AF_UNSPEC, _AF_INET, _AF_BRIDGE, _AF_INET6 = 0, 2, 7, 10
_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBI")
_NEIGH = struct.Struct("=BxxxiHBB")
_UP = 1
_ADDRESS, _NAME, _MTU, _MASTER, _INFO, _ALIAS = 1, 3, 4, 10, 18, 20
_INFO_KIND, _INFO_DATA, _INFO_PORT_KIND, _INFO_PORT = 1, 2, 4, 5
_VX_ID, _VX_LOCAL, _VX_LEARNING, _VX_PORT, _VX_LOCAL6 = 1, 4, 7, 15, 17
_PORT_LEARNING, _PORT_NEIGH_SUPPRESS = 8, 32
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR, _NDA_MASTER = 1, 2, 9
_NOARP, _PERMANENT = 0x40, 0x80
_SELF, _MASTER_FLAG = 0x02, 0x04


class Seen:
    """The kernel's links as they were read, and what they are called.

    Attributes:
        topology: everything that was read, foreign values included.
        interfaces: bare addresses by interface.
    """

    def __init__(self, kernel: NetlinkSocket) -> None:
        """Read them.

        Raises:
            OSError: what the kernel says.
        """
        self._names: dict[int, str] = {}
        links = {link.name: link for link in self._read_links(kernel)}
        masters = dict(self._names)
        self.topology = Topology(
            {
                name: link._replace(master=masters.get(int(link.master or 0), ""))
                for name, link in links.items()
            },
            frozenset(self._read_forwarding(kernel)),
            frozenset(self._read_neighbours(kernel)),
            frozenset(self._read_addresses(kernel)),
        )
        self.interfaces: dict[str, list[str]] = {}
        for device, cidr in sorted(self.topology.addresses):
            self.interfaces.setdefault(device, []).append(cidr.partition("/")[0])

    @property
    def indexes(self) -> dict[str, int]:
        """Interface numbers by name."""
        return {name: index for index, name in self._names.items()}

    def _read_links(self, kernel: NetlinkSocket) -> Iterator[Link]:
        for body in kernel.ask(Request(_GET_LINK, DUMP, _LINK.pack(_AF_UNSPEC, 0, 0, 0, 0))):
            _, _, index, flags, _ = _LINK.unpack_from(body)
            found = attributes(body, _LINK.size)
            name = string_of(found[_NAME])
            self._names[index] = name
            info = attributes(found.get(_INFO, b""))
            data = attributes(info.get(_INFO_DATA, b""))
            port = attributes(info.get(_INFO_PORT, b""))
            kind = string_of(info.get(_INFO_KIND, b""))
            link = Link(
                name,
                kind,
                mac=found.get(_ADDRESS, b"").hex(":"),
                mtu=struct.unpack("=I", found[_MTU])[0],
                is_up=bool(flags & _UP),
                alias=string_of(found.get(_ALIAS, b"")),
                # by number until all names are known
                master=str(struct.unpack("=I", found[_MASTER])[0]) if _MASTER in found else "",
                is_static_port=port.get(_PORT_LEARNING) == b"\0"
                and port.get(_PORT_NEIGH_SUPPRESS) == b"\1",
            )
            if kind == VXLAN:
                local = data.get(_VX_LOCAL) or data.get(_VX_LOCAL6) or b""
                link = link._replace(
                    vni=struct.unpack("=I", data[_VX_ID])[0],
                    local=address_text(local) if local else "",
                    port=struct.unpack("!H", data[_VX_PORT])[0],
                )
            yield link

    def _read_forwarding(self, kernel: NetlinkSocket) -> Iterator[Forwarding]:
        body = _LINK.pack(_AF_BRIDGE, 0, 0, 0, 0)
        for answer in kernel.ask(Request(_GET_NEIGH, DUMP, body)):
            _, index, state, flags, _ = _NEIGH.unpack_from(answer)
            found = attributes(answer, _NEIGH.size)
            mac, peer = found.get(_NDA_LLADDR, b"").hex(":"), found.get(_NDA_DST)
            device = self._names.get(index, "")
            if flags & _SELF and peer is not None:
                yield Forwarding(device, mac, address_text(peer))
            elif _NDA_MASTER in found and state & _NOARP and not state & _PERMANENT:
                yield Forwarding(device, mac)

    def _read_neighbours(self, kernel: NetlinkSocket) -> Iterator[Neighbour]:
        for answer in kernel.ask(Request(_GET_NEIGH, DUMP, _NEIGH.pack(_AF_UNSPEC, 0, 0, 0, 0))):
            family, index, state, _, _ = _NEIGH.unpack_from(answer)
            found = attributes(answer, _NEIGH.size)
            if family in (_AF_INET, _AF_INET6) and state & _PERMANENT and _NDA_LLADDR in found:
                yield Neighbour(
                    self._names.get(index, ""),
                    address_text(found[_NDA_DST]),
                    found[_NDA_LLADDR].hex(":"),
                )

    def _read_addresses(self, kernel: NetlinkSocket) -> Iterator[InterfaceAddress]:
        for answer in kernel.ask(Request(_GET_ADDR, DUMP, _ADDR.pack(_AF_UNSPEC, 0, 0, 0, 0))):
            _, length, _, _, index = _ADDR.unpack_from(answer)
            found = attributes(answer, _ADDR.size)
            packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
            if packed:
                device = self._names.get(index, "")
                yield InterfaceAddress(device, f"{address_text(packed)}/{length}")


def carry_out(kernel: NetlinkSocket, steps: Sequence[Step], seen: Seen) -> list[tuple[Step, int]]:
    """Make changes in order; return those that failed, with the kernel's error number.

    Links come one by one, since what follows needs their numbers; all others go in bulk.
    """
    failed = []
    indexes = seen.indexes
    for step in steps:
        if isinstance(step.value, Link):
            for request in _link_requests(step, indexes):
                code = kernel.tell([request])[0]
                if code:
                    failed.append((step, code))
                    break
            indexes[step.value.name] = index_of(kernel, step.value.name)
    others = [step for step in steps if not isinstance(step.value, Link)]
    usable = [step for step in others if indexes.get(step.value[0])]
    codes = kernel.tell([_request(step, indexes[str(step.value[0])]) for step in usable])
    return failed + [(step, code) for step, code in zip(usable, codes, strict=True) if code]


def index_of(kernel: NetlinkSocket, name: str) -> int:
    """Return an interface's number, 0 when there is none of that name."""
    body = _LINK.pack(_AF_UNSPEC, 0, 0, 0, 0) + text(_NAME, name)
    try:
        answer = kernel.ask(Request(_GET_LINK, 0, body))
    except OSError:
        return 0
    return int(_LINK.unpack_from(answer[0])[2]) if answer else 0


def remove_link(index: int) -> Request:
    """Return the request that removes an interface."""
    return Request(_DEL_LINK, 0, _LINK.pack(_AF_UNSPEC, 0, index, 0, 0))


def _link_requests(step: Step, indexes: dict[str, int]) -> Iterator[Request]:
    link = step.value
    assert isinstance(link, Link), "only links are made one by one"
    index = indexes.get(link.name, 0)
    if not step.put:
        yield remove_link(index)
        return
    if not index:
        yield Request(_NEW_LINK, CREATE, _LINK.pack(0, 0, 0, 0, 0) + b"".join(_making(link)))
    # From here on by name: what was just made has a number that we were not told.
    name = text(_NAME, link.name)
    if link.alias:
        yield Request(_SET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + name + text(_ALIAS, link.alias))
    parts = name
    if link.master:
        parts += number(_MASTER, indexes.get(link.master, 0))
    if link.mtu:
        parts += number(_MTU, link.mtu)
    if link.mac:
        parts += attribute(_ADDRESS, mac_bytes(link.mac))
    yield Request(_SET_LINK, 0, _LINK.pack(0, 0, 0, _UP, _UP) + parts)
    if link.is_static_port:
        flags = (flag(_PORT_LEARNING, on=False), flag(_PORT_NEIGH_SUPPRESS, on=True))
        port = nested(_INFO, text(_INFO_PORT_KIND, BRIDGE), nested(_INFO_PORT, *flags))
        yield Request(_NEW_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + name + port)


def _making(link: Link) -> Iterator[bytes]:
    yield text(_NAME, link.name)
    if link.kind == BRIDGE:
        yield nested(_INFO, text(_INFO_KIND, BRIDGE))
        return
    local = address_bytes(link.local)
    data = (
        number(_VX_ID, link.vni),
        attribute(_VX_LOCAL6 if len(local) == 16 else _VX_LOCAL, local),
        flag(_VX_LEARNING, on=False),
        attribute(_VX_PORT, struct.pack("!H", link.port)),
    )
    yield nested(_INFO, text(_INFO_KIND, VXLAN), nested(_INFO_DATA, *data))


def _request(step: Step, index: int) -> Request:
    value = step.value
    kind = _NEW_NEIGH if step.put else _DEL_NEIGH
    if isinstance(value, Forwarding):
        if value.peer:
            flags = APPEND if value.mac == FLOOD_MAC else REPLACE
            head = _NEIGH.pack(_AF_BRIDGE, index, _NOARP | _PERMANENT, _SELF, 0)
            body = head + attribute(_NDA_DST, address_bytes(value.peer))
        else:
            flags = REPLACE
            body = _NEIGH.pack(_AF_BRIDGE, index, _NOARP, _MASTER_FLAG, 0)
        body += attribute(_NDA_LLADDR, mac_bytes(value.mac))
        return Request(kind, flags | CREATE if step.put else 0, body)
    if isinstance(value, Neighbour):
        packed = address_bytes(value.address)
        family = _AF_INET6 if len(packed) == 16 else _AF_INET
        body = _NEIGH.pack(family, index, _PERMANENT, 0, 0) + attribute(_NDA_DST, packed)
        body += attribute(_NDA_LLADDR, mac_bytes(value.mac))
        return Request(kind, REPLACE | CREATE if step.put else 0, body)
    assert isinstance(value, InterfaceAddress), "links are made one by one"
    address, _, length = value.cidr.partition("/")
    packed = address_bytes(address)
    family = _AF_INET6 if len(packed) == 16 else _AF_INET
    # No duplicate address detection: the leader gives each address once.
    body = _ADDR.pack(family, int(length), 0x02 if family == _AF_INET6 else 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    kind = _NEW_ADDR if step.put else _DEL_ADDR
    return Request(kind, CREATE | REPLACE if step.put else 0, body)
