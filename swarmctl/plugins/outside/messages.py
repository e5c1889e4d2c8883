"""What a manager and the child process of a plugin say to each other: msgpack, one answer to each.

Every message is framed by its length. Rows cross redacted (:mod:`.redact`) and incrementally, so
that a question names tasks and nodes by their ids. Both ends are of one release: a child of another
one refuses to start.
"""

from __future__ import annotations

from typing import Union

import msgspec

from ...core.model.base import PrivateStruct
from ...core.model.change import Ref
from ...core.model.codec import pack, unpack
from ...core.model.objects import IPAMConfig, Network, Row, TaskRow
from ..sources import Source

LENGTH_BYTES = 4
MESSAGE_MAX = 64 * 1024 * 1024


class Start(PrivateStruct, frozen=True, kw_only=True, tag="start"):
    """The first message: what to load, and within which limits.

    Attributes:
        version: this release's.
        options: settings, by the name of the scheduler, allocator or plugin they are for.
        memory_bytes: address space that the child may have.
        deadline_s: after so long with one question the child ends itself, should nobody do it.
    """

    version: str
    source: Source
    options: dict[str, dict[str, str]]
    memory_bytes: int
    deadline_s: float


class Ready(PrivateStruct, frozen=True, kw_only=True, tag="ready"):
    """The plugin is loaded.

    Attributes:
        is_static: none of its filters looks at what nodes hold.
    """

    is_static: bool


class Rows(PrivateStruct, frozen=True, kw_only=True, tag="rows"):
    """Rows that changed, and those that are gone.

    Attributes:
        is_anew: what was sent before counts no more.
    """

    index: int
    rows: tuple[Row, ...]
    gone: tuple[Ref, ...] = ()
    is_anew: bool = False


class Done(PrivateStruct, frozen=True, kw_only=True, tag="done"):
    """Rows were taken in."""


class Failed(PrivateStruct, frozen=True, kw_only=True, tag="failed"):
    """The plugin raised, or what it returned is no answer."""

    text: str


# --- schedulers and filters ----------------------------------------------------------------------


class Seat(msgspec.Struct, frozen=True, array_like=True):
    """A candidate without its row; see :class:`swarmctl.core.scheduler.decide.Candidate`."""

    node_id: str
    room: int
    service_tasks: int
    tasks: int
    failures: int
    cpu: int
    memory: int


class Place(PrivateStruct, frozen=True, kw_only=True, tag="place"):
    """Choose nodes for tasks that are alike.

    Attributes:
        is_first: of its batch; later ones see what was placed for those before.
    """

    scheduler: str
    tasks: tuple[str, ...]
    seats: tuple[Seat, ...]
    is_first: bool = True


class Placed(PrivateStruct, frozen=True, kw_only=True, tag="placed"):
    """Node ids by task id."""

    chosen: dict[str, str]


class Load(msgspec.Struct, frozen=True, array_like=True):
    """What is held on a node; see :class:`swarmctl.core.scheduler.resources.NodeLoad`."""

    cpu: int
    memory: int
    tasks: int
    services: dict[str, int]
    ports: dict[str, int]
    discrete: dict[str, int]
    named: tuple[tuple[str, str, int], ...]


class Judge(PrivateStruct, frozen=True, kw_only=True, tag="judge"):
    """Say how many such tasks each node takes.

    Attributes:
        nodes: their ids, and what they hold; None where no filter looks at that.
    """

    task: TaskRow
    nodes: tuple[tuple[str, Load | None], ...]


class Judged(PrivateStruct, frozen=True, kw_only=True, tag="judged"):
    """Rooms in the order of the question, and how many nodes each filter refused, in words."""

    rooms: tuple[int, ...]
    blamed: tuple[tuple[int, str], ...]


# --- allocators ----------------------------------------------------------------------------------


class ChooseSubnet(PrivateStruct, frozen=True, kw_only=True, tag="choose-subnet"):
    """Choose a free subnet; see :class:`swarmctl.core.allocator.policy.SubnetWish`."""

    allocator: str
    network: Network
    pools: tuple[str, ...]
    prefixlen: int
    after: str
    taken: tuple[tuple[str, str], ...]


class Subnet(PrivateStruct, frozen=True, kw_only=True, tag="subnet"):
    """The subnet in CIDR form, "" for none."""

    chosen: str


class User(msgspec.Struct, frozen=True, array_like=True):
    """Who gets an address; see :class:`swarmctl.core.allocator.policy.AddressUser`."""

    kind: str
    id: str
    service_name: str
    slot: int


class ChooseAddresses(PrivateStruct, frozen=True, kw_only=True, tag="choose-addresses"):
    """Choose an address of one subnet for each user, one after the other.

    Attributes:
        held: what may not be given; addresses as text, since numbers of IPv6 are too long.
    """

    allocator: str
    network: Network
    config: IPAMConfig
    cursor: str
    held: tuple[str, ...]
    users: tuple[User, ...]


class Addresses(PrivateStruct, frozen=True, kw_only=True, tag="addresses"):
    """Addresses in the order of the users, "" for none."""

    chosen: tuple[str, ...]


Question = Union[Place, Judge, ChooseSubnet, ChooseAddresses]  # noqa: UP007 - read at run time
ToChild = Union[Start, Rows, Place, Judge, ChooseSubnet, ChooseAddresses]  # noqa: UP007
Answer = Union[Placed, Judged, Subnet, Addresses]  # noqa: UP007
FromChild = Union[Ready, Done, Failed, Placed, Judged, Subnet, Addresses]  # noqa: UP007


class _ToChild(msgspec.Struct, frozen=True, array_like=True):
    message: ToChild


class _FromChild(msgspec.Struct, frozen=True, array_like=True):
    message: FromChild


def encode_question(message: ToChild) -> bytes:
    """Return what a manager says, with its length before it."""
    return _framed(pack(_ToChild(message)))


def encode_answer(message: FromChild) -> bytes:
    """Return what a child says, with its length before it."""
    return _framed(pack(_FromChild(message)))


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_question(body: bytes) -> ToChild:
    """Return what a manager says.

    Raises:
        Undecodable: these bytes are no message.
    """
    return unpack(body, _ToChild).message


def decode_answer(body: bytes) -> FromChild:
    """Return what a child says.

    Raises:
        Undecodable: these bytes are no message.
    """
    return unpack(body, _FromChild).message
