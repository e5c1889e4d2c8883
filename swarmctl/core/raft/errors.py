"""What can go wrong in the consensus core, by what the caller can do about it."""

from __future__ import annotations

from swarmctl.core.errors import InvalidArgument, SwarmError, Unavailable


class ProposalDropped(Unavailable):
    """The proposal was not taken: no leader, a transfer under way, or too much in flight.

    Nothing has been written; proposing again later (or at the leader) is safe.
    """


class NoRoom(ProposalDropped):
    """The leader's disk is nearly full, so it takes no changes until there is room."""


class ConfChangeRefused(InvalidArgument):
    """A membership change that no configuration rule allows; nothing has changed."""


class SafetyViolation(SwarmError):
    """A rule that consensus rests on does not hold: corrupt storage, a reused id, or a bug.

    The member must stop at once and must not answer anybody.
    """


class LogLost(SafetyViolation):
    """Our log lacks what we once acknowledged: the disk went back, or is damaged.

    The member must stop at once; it may come back as a new one.
    """


class Compacted(SwarmError):
    """The entry asked for has been replaced by a snapshot."""


class EntryUnavailable(SwarmError):
    """The entry asked for is past the end of the log."""
