"""Changes, what they require, and the transactions and entries that carry them (DESIGN section 6).

These are the words of the replicated log: every manager decodes the same bytes and must come to the
same tables. Nothing here may depend on a clock, fresh randomness or local settings.
"""

from __future__ import annotations

from collections.abc import Iterable  # noqa: TC003 - msgspec looks its names up at run time
from enum import Enum
from typing import Union

import msgspec

from .base import PrivateStruct
from .objects import Row
from .task import TaskState, TaskStatus

FORMAT_LEVEL = 1
"""The newest format of entries that this release writes and understands.

Who adds a change kind, or a field to what the tables hold, goes up by one here and says so in
NEWER_KINDS or NEWER_FIELDS: until every manager has a release of that level, no entry holds it.
"""


class Kind(str, Enum):
    """The tables."""

    CLUSTER = "cluster"
    NODE = "node"
    SERVICE = "service"
    TASK = "task"
    SECRET = "secret"  # noqa: S105 - a table, not a password
    CONFIG = "config"
    NETWORK = "network"


class Index(str, Enum):
    """The indexes that a requirement may ask.

    Keys: INGRESS_PORT ``protocol/port`` of a service's endpoint; ADDRESS ``network id/address``
    (CIDR form) of services, live tasks and nodes' gateways; SLOT ``service id/slot`` (a node id for
    global services) of tasks whose desired state is RUNNING or below, ``service id/slot/run`` of a
    job's tasks that shall complete or did; ROLE the certificate role of a node; WISH the role that
    its administrator wants it to have; VNI a network's number on the wire; SUBNET see
    ``model/network.py``; ATTACHED the network id of tasks that are live and wanted so; ON_NODE
    ``network id/node id`` of live tasks, wanted or not; INGRESS ``network`` of the ingress one.
    """

    INGRESS_PORT = "ingress-port"
    ADDRESS = "address"
    SLOT = "slot"
    ROLE = "role"
    WISH = "wished-role"
    VNI = "vni"
    SUBNET = "subnet"
    ATTACHED = "attached"
    ON_NODE = "on-node"
    INGRESS = "ingress"


class Ref(msgspec.Struct, frozen=True, array_like=True):
    """One row, by table and id."""

    kind: Kind
    id: str


# --- changes -------------------------------------------------------------------------------------


class Create(PrivateStruct, frozen=True, kw_only=True, tag="create"):
    """Add a row. Rule: its id and its name are free.

    The next revision of a secret or config, and no other, may share the name of those before.
    """

    row: Row


class Update(PrivateStruct, frozen=True, kw_only=True, tag="update"):
    """Replace a row. Rule: the version it carries equals the stored one."""

    row: Row


class Delete(PrivateStruct, frozen=True, kw_only=True, tag="delete"):
    """Remove a row. Rule: ``version`` equals the stored one."""

    ref: Ref
    version: int


class Advance(PrivateStruct, frozen=True, kw_only=True, tag="advance"):
    """Move a task forward; never conflicts.

    A lower observed state is ignored, an equal one with other content replaces, a missing task is
    no error. ``desired`` only rises. Beyond ASSIGNED nothing else writes a task's status.

    Attributes:
        node_id: when set, the change is ignored unless the task is assigned to this node.
    """

    task_id: str
    status: TaskStatus | None = None
    desired: TaskState | None = None
    node_id: str = ""


Change = Union[Create, Update, Delete, Advance]  # noqa: UP007 - read at run time


NEWER_KINDS: dict[type[object], int] = {}
"""The level that a kind of change came with; those that are not named came with the first."""

NEWER_FIELDS: dict[type[object], dict[str, int]] = {}
"""The same of fields, of the structs named: the halves of rows, or what lies at their top."""


def level_of(changes: Iterable[Change]) -> int:
    """Return the format level that managers need to know, to apply changes as they are meant."""
    level = 1
    for change in changes:
        level = max(level, NEWER_KINDS.get(type(change), 1))
        if NEWER_FIELDS and isinstance(change, (Create, Update)):
            for half in (change.row.api, change.row.private):
                level = max(level, _level_of_fields(half))
    return level


def _level_of_fields(half: msgspec.Struct) -> int:
    plain = type(half)() if type(half) in NEWER_FIELDS else half
    newer = NEWER_FIELDS.get(type(half), {})
    used = (n for name, n in newer.items() if getattr(half, name) != getattr(plain, name))
    return max(used, default=1)


# --- requirements --------------------------------------------------------------------------------


class Exists(PrivateStruct, frozen=True, kw_only=True, tag="exists"):
    """The row is there, at any version."""

    ref: Ref


class At(PrivateStruct, frozen=True, kw_only=True, tag="at"):
    """The row is there, at this version."""

    ref: Ref
    version: int


class SpecAt(PrivateStruct, frozen=True, kw_only=True, tag="spec-at"):
    """The row is there, and its user's part last changed at this log index.

    Bookkeeping (endpoints, update status) may have gone on meanwhile.
    """

    ref: Ref
    index: int


class Unreferenced(PrivateStruct, frozen=True, kw_only=True, tag="unreferenced"):
    """No service refers to this secret, config or network."""

    ref: Ref


class Free(PrivateStruct, frozen=True, kw_only=True, tag="free"):
    """Nobody holds this key of an index, or only ``holder`` (an id) does."""

    index: Index
    key: str
    holder: str = ""


class AtLeast(PrivateStruct, frozen=True, kw_only=True, tag="at-least"):
    """At least ``count`` rows hold this key of an index once the transaction is applied."""

    index: Index
    key: str
    count: int


Requirement = Union[  # noqa: UP007 - read at run time
    Exists, At, SpecAt, Unreferenced, Free, AtLeast
]


# --- transactions --------------------------------------------------------------------------------


class Transaction(PrivateStruct, frozen=True, kw_only=True):
    """Changes and what they require: all of it or nothing.

    Attributes:
        changes: applied in order; a later one sees the earlier ones.
        requires: checked against the tables before the first change (AtLeast: after the last).
        request_id: of the client's request that this is for; of all transactions with one id at
            most one takes effect, and the others get its answer.
        note: what its maker wants to find in that answer, such as what the client is to be told;
            kept and replicated with it, so it is small and no secret.
        now: wall time of the proposing leader, nanoseconds; stamps CreatedAt, UpdatedAt and
            ``applied_at``.
    """

    changes: tuple[Change, ...]
    requires: tuple[Requirement, ...] = ()
    request_id: str = ""
    now: int = 0
    note: bytes = b""


class Entry(PrivateStruct, frozen=True, kw_only=True):
    """What one Raft entry carries. ``level`` is the format level needed to apply it."""

    transactions: tuple[Transaction, ...]
    level: int = FORMAT_LEVEL


class Applied(PrivateStruct, frozen=True, kw_only=True, tag="applied"):
    """The transaction took effect at this log index; ``note`` is its own."""

    index: int
    note: bytes = b""


class ConflictKind(str, Enum):
    """Why a transaction did not take effect."""

    EXISTS = "exists"  # id or name taken
    MISSING = "missing"  # row not there
    VERSION = "version"  # row changed meanwhile
    REFERENCED = "referenced"  # still in use
    HELD = "held"  # key of an index taken
    COUNT = "count"  # too few would remain
    INVALID = "invalid"  # the transaction contradicts itself


class Conflict(PrivateStruct, frozen=True, kw_only=True, tag="conflict"):
    """The transaction changed nothing.

    Attributes:
        ref: the row it failed on, where there is one.
        holders: ids that hold or reference what was asked for.
        text: a sentence for logs.
    """

    kind: ConflictKind
    ref: Ref | None = None
    holders: tuple[str, ...] = ()
    text: str = ""


Result = Union[Applied, Conflict]  # noqa: UP007 - read at run time


# --- decisions -----------------------------------------------------------------------------------

ROWS_BYTES_MAX = 1_000_000
"""How many bytes of rows a decision puts into one transaction of many.

An entry has room for half as much again, which is for what goes with them.
"""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a reconciler wants written, and when it wants to be asked again at the latest.

    ``wake_at`` is wall time in nanoseconds, None for "only when something changes".
    """

    transactions: tuple[Transaction, ...] = ()
    wake_at: int | None = None


NOTHING = Decision()
