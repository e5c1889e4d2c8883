"""What one member knows and remembers: the fields that every rule of consensus works on.

The rules live beside it, one module a concern, as plain functions over a State: `election`,
`leading`, `following`, `reads`. `raft.Raft` is the State with a front door.

Laws
- Messages leave through `send`; those that promise something to others (append and vote answers,
  our own among them) through `send_when_stable`: they wait until everything unstable at this
  moment is durable.
- A change of term or role goes through `reset`, so nothing of the old one stays behind.

It must not know: what any message means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.raft.confchange import restore
from swarmctl.core.raft.errors import SafetyViolation
from swarmctl.core.raft.log import RaftLog
from swarmctl.core.raft.message import MAX_NODE_ID, NOBODY, Message, ReadState, Role
from swarmctl.core.raft.reads import ReadQueue
from swarmctl.core.raft.tracker import Tracker

if TYPE_CHECKING:
    import random

    from swarmctl.core.raft.config import RaftConfig
    from swarmctl.core.raft.storage import Storage


class State:
    """Fields that are not obvious:

    ``transferee``: whom we are handing leadership to; no proposals are taken meanwhile.
    ``pending_conf_index``: at or after the last membership change in our log that may not be
    applied yet. Leader only.
    ``configured_at``: index of the snapshot that the membership was last taken from as a whole.
    ``uncommitted_size``: bytes of data in proposals not yet applied. Leader only; may be too low.
    ``election_elapsed``: ticks since we heard from a leader, or campaigned; a leader counts from
    its last CheckQuorum.
    """

    def __init__(
        self, node_id: int, storage: Storage, config: RaftConfig, rng: random.Random
    ) -> None:
        if not 0 < node_id <= MAX_NODE_ID:
            raise SafetyViolation(f"a member id is between 1 and {MAX_NODE_ID}, not {node_id}")
        self.id = node_id
        self.config = config
        self._rng = rng
        self.term = 0
        self.vote = NOBODY
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.log = RaftLog(storage, max_applying_size=config.max_committed_size)
        self.tracker = Tracker(
            max_inflight_messages=config.max_inflight_messages,
            max_inflight_bytes=config.max_inflight_bytes,
        )
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomized_election_timeout = 0
        self.transferee = NOBODY
        self.pending_conf_index = 0
        self.configured_at = 0
        self.uncommitted_size = 0
        self.reads = ReadQueue()
        self.read_states: list[ReadState] = []
        self.outbox: list[Message] = []
        self.outbox_when_stable: list[Message] = []
        self._load(storage)
        self.become_follower(self.term, NOBODY)

    def _load(self, storage: Storage) -> None:
        """Take up where storage says we stopped.

        Raises:
            SafetyViolation: storage contradicts itself.
        """
        hard_state, conf_state = storage.initial_state()
        self.tracker.switch_to(restore(conf_state), frozenset(), self.log.last_index)
        if 0 < hard_state.term < self.log.last_term:
            raise SafetyViolation(
                f"the log ends in term {self.log.last_term}, after our term {hard_state.term}"
            )
        self.term = hard_state.term
        self.vote = hard_state.vote
        # What is compacted or applied was committed, even if the hard state's commit lags behind.
        applied = max(self.config.applied, self.log.applied)
        self.log.commit_to(max(hard_state.commit, applied))
        self.log.applied_to(applied, 0)

    def send(self, message: Message) -> None:
        self.outbox.append(message)

    def send_when_stable(self, message: Message) -> None:
        self.outbox_when_stable.append(message)

    def become_follower(self, term: int, leader: int) -> None:
        self.reset(term)
        self.leader = leader
        self.role = Role.FOLLOWER

    def reset(self, term: int) -> None:
        """Forget everything that belonged to the term or role we leave."""
        if self.term != term:
            self.term = term
            self.vote = NOBODY
        self.leader = NOBODY
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        ticks = self.config.election_ticks
        self.randomized_election_timeout = ticks + self._rng.randrange(ticks)
        self.transferee = NOBODY
        self.tracker.reset(self.id, self.log.last_index)
        self.pending_conf_index = 0
        self.uncommitted_size = 0
        self.reads = ReadQueue()

    @property
    def promotable(self) -> bool:
        """May we campaign? Only as a voter whose log is whole."""
        progress = self.tracker.progress.get(self.id)
        return progress is not None and not progress.learner and self.log.pending_snapshot is None

    @property
    def committed_in_term(self) -> bool:
        """Has an entry of our own term been committed? Before, `committed` may be behind."""
        return self.log.matches(self.log.committed, self.term)
