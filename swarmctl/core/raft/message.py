"""The words of consensus: what members say to each other, keep on disk and hand to the host.

Laws
- Everything here is an immutable value and may cross a task or thread border as it is.
- Structs are encoded as arrays: field order is the wire and disk format. New fields go to the end,
  with a default; none is ever removed or moved. Enum numbers never change either.
- A node id is a random positive int of at most 63 bits, never used twice. 0 is nobody; negative
  numbers are the local workers, which no network message may name.

It must not know: how messages travel, how they are stored, what an entry's data means.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

NOBODY = 0
"""The id that no member has: no leader known, no vote given."""

LOCAL_APPEND = -1
"""Receiver of STORAGE_APPEND, sender of its answer: the host's log writer."""

LOCAL_APPLY = -2
"""Receiver of STORAGE_APPLY, sender of its answer: the host's state machine."""

MAX_NODE_ID = 2**63 - 1


class Role(IntEnum):
    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


class EntryKind(IntEnum):
    NORMAL = 0
    CONF_CHANGE_V1 = 1
    """One single-step membership change."""
    CONF_CHANGE = 2
    """Any membership change; empty data is the change that leaves a joint configuration."""


class MessageKind(IntEnum):
    # Between members.
    APPEND = 0
    APPEND_RESPONSE = 1
    HEARTBEAT = 2
    HEARTBEAT_RESPONSE = 3
    VOTE = 4
    VOTE_RESPONSE = 5
    PRE_VOTE = 6
    PRE_VOTE_RESPONSE = 7
    SNAPSHOT = 8
    PROPOSE = 9
    READ_INDEX = 10
    READ_INDEX_RESPONSE = 11
    TRANSFER_LEADER = 12
    TIMEOUT_NOW = 13
    # Between the core and the host's storage workers; never on the network.
    STORAGE_APPEND = 32
    STORAGE_APPEND_RESPONSE = 33
    STORAGE_APPLY = 34
    STORAGE_APPLY_RESPONSE = 35


FROM_MEMBERS = frozenset(
    kind
    for kind in MessageKind
    if kind < MessageKind.STORAGE_APPEND and kind not in (MessageKind.PROPOSE, MessageKind.SNAPSHOT)
)
"""What the product takes from other members as it comes. Proposals are not passed on: writes go to
the leader's API, which knows who asks. Snapshots come with their data, see `Runner.take_snapshot`.
"""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One log entry. ``data`` is opaque, except that conf changes are ours (see ConfChange)."""

    term: int = 0
    index: int = 0
    kind: EntryKind = EntryKind.NORMAL
    data: bytes = b""


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must survive a crash besides the log. ``commit`` may lag: it needs no fsync."""

    term: int = 0
    vote: int = NOBODY
    commit: int = 0


class ConfState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A membership. ``voters_outgoing`` is not empty exactly while the configuration is joint.

    ``learners_next``: voters of the outgoing half that turn into learners when it is left.
    ``auto_leave``: the leader leaves the joint configuration by itself.
    """

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State as of exactly ``index``: membership, ids removed so far, the host's data."""

    index: int = 0
    term: int = 0
    conf_state: ConfState = ConfState()
    removed: tuple[int, ...] = ()
    data: bytes = b""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one member (or local worker) tells another.

    ``index`` and ``log_term`` name the log position the message is about: the entry before
    ``entries`` in APPEND, the last entry of the log in VOTE, the acknowledged index in a response.
    ``reject_hint`` is the largest index at which a refusing follower might still agree; together
    with ``log_term``, its term there. ``vote`` and ``responses`` are used by STORAGE_* only: the
    hard state's vote, and the messages to release once the work is durable (or applied).
    """

    kind: MessageKind
    to: int
    sender: int = NOBODY
    term: int = 0
    log_term: int = 0
    index: int = 0
    commit: int = 0
    entries: tuple[Entry, ...] = ()
    reject: bool = False
    reject_hint: int = 0
    context: bytes = b""
    snapshot: Snapshot | None = None
    vote: int = NOBODY
    responses: tuple[Message, ...] = ()


class SoftState(msgspec.Struct, frozen=True, gc=False):
    """Who leads and what we are: changes are worth acting on, none is worth storing."""

    leader: int = NOBODY
    role: Role = Role.FOLLOWER


class ReadState(msgspec.Struct, frozen=True, gc=False):
    """The read asked for with ``context`` may be answered once ``index`` has been applied."""

    index: int
    context: bytes


class Ready(msgspec.Struct, frozen=True, gc=False):
    """What the host has to do now; None and () mean nothing of that sort.

    Synchronous form: make ``snapshot``, ``entries`` and ``hard_state`` durable (with an fsync if
    ``must_sync``), then send ``messages``, apply ``committed_entries``, and call ``advance``.

    Asynchronous form: send ``messages`` at once. Those to LOCAL_APPEND and LOCAL_APPLY carry the
    same entries, hard state and snapshot again; each worker handles its messages in order and then
    delivers their ``responses``, those to ourselves by ``Raft.step``.
    """

    soft_state: SoftState | None = None
    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()
    snapshot: Snapshot | None = None
    committed_entries: tuple[Entry, ...] = ()
    messages: tuple[Message, ...] = ()
    read_states: tuple[ReadState, ...] = ()
    must_sync: bool = False


class ChangeKind(IntEnum):
    ADD_VOTER = 0
    """Add a voter, or promote a learner."""
    REMOVE = 1
    UPDATE = 2
    """Membership stays; the change's context is news (a new address)."""
    ADD_LEARNER = 3
    """Add a learner, or demote a voter."""


class Transition(IntEnum):
    AUTO = 0
    """Single-step if that is safe, else joint and left automatically."""
    JOINT_IMPLICIT = 1
    """Joint, left automatically."""
    JOINT_EXPLICIT = 2
    """Joint until an empty change is proposed."""


class MemberChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    kind: ChangeKind
    node: int


class ConfChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A membership change. No ``changes`` at all means: leave the joint configuration.

    ``context`` is the host's (node id, address). ``v1`` asks for the older entry kind, which can
    carry exactly one step.
    """

    changes: tuple[MemberChange, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""
    v1: bool = False

    @property
    def leaves_joint(self) -> bool:
        """True for the change that ends a joint configuration, whatever its context says."""
        return not self.changes and self.transition is Transition.AUTO


_conf_encoder = msgspec.msgpack.Encoder()
_conf_decoder = msgspec.msgpack.Decoder(ConfChange)


def encode_conf_change(change: ConfChange) -> bytes:
    """The data of a CONF_CHANGE entry; nothing to say is said in no bytes."""
    if change == _LEAVE_JOINT:
        return b""
    return _conf_encoder.encode(change)


def decode_conf_change(data: bytes) -> ConfChange:
    """Inverse of `encode_conf_change`.

    Raises:
        msgspec.DecodeError: ``data`` is not a conf change.
    """
    if not data:
        return _LEAVE_JOINT
    return _conf_decoder.decode(data)


_LEAVE_JOINT = ConfChange()
