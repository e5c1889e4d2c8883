"""How a member behaves: every limit and choice of the consensus core, by name."""

from __future__ import annotations

import msgspec

from swarmctl.core.errors import InvalidArgument
from swarmctl.core.raft.storage import NO_LIMIT


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are the product's. Sizes are bytes, times are ticks.

    Raises:
        InvalidArgument: at construction, for values that cannot work together.
    """

    election_ticks: int = 10
    """Silence after which a follower may campaign: this long up to just under twice as long."""
    heartbeat_ticks: int = 2
    async_storage: bool = True
    """The asynchronous form of Ready (STORAGE_APPEND and STORAGE_APPLY), see message.Ready."""
    pre_vote: bool = True
    """Ask whether an election could be won before disturbing anybody with a new term."""
    check_quorum: bool = True
    """A leader that hears no quorum for `election_ticks` steps down; followers that hear their
    leader ignore candidates. Use it together with `pre_vote`: each alone leaves a hole."""
    lease_reads: bool = False
    """Answer reads without asking anybody. Rests on clocks; needs `check_quorum`."""
    step_down_on_removal: bool = True
    """A leader that is no voter any more stops leading. Off only to compare with etcd."""
    forward_proposals: bool = True
    """A follower sends proposals on to the leader instead of refusing them."""
    validate_conf_changes: bool = True
    """Turn a membership change that may not be proposed now into an empty entry."""
    max_message_size: int = 64 * 1024
    """Entries of one append; a larger single entry still goes out."""
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 0
    """Per follower; 0: no limit."""
    max_uncommitted_size: int = NO_LIMIT
    """Data proposed and not yet applied, above which proposals are dropped; one always passes."""
    max_committed_size: int = NO_LIMIT
    """Entries handed out for applying and not yet reported applied."""
    applied: int = 0
    """Last index the state machine has applied already, when starting."""

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise InvalidArgument(
                f"heartbeat_ticks ({self.heartbeat_ticks}) must be at least 1 "
                f"and below election_ticks ({self.election_ticks})"
            )
        if self.max_inflight_messages < 1:
            raise InvalidArgument("max_inflight_messages must be at least 1")
        if 0 < self.max_inflight_bytes < self.max_message_size:
            raise InvalidArgument("max_inflight_bytes must be 0 or at least max_message_size")
        if self.max_uncommitted_size < 1 or self.max_committed_size < 1:
            raise InvalidArgument("max_uncommitted_size and max_committed_size must be positive")
        if self.lease_reads and not self.check_quorum:
            raise InvalidArgument("lease_reads needs check_quorum")
