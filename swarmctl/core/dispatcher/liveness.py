"""Who is silent for too long, and what that means.

Pure: times come in. All of them are monotonic seconds of the leader's clock, except where a name
ends in ``_ns``. Rules (DESIGN section 8):

- Three missed heartbeats and a node is down.
- After taking leadership every node has two periods, and the time it may take to notice that the
  old leader is gone, to register before its silence counts.
- A daemon that said it restarts is expected back within the time it named.
- When over half of the ready nodes (at least three) fall silent within one period, replacement
  waits: the cut is more likely ours.
- The leader's own stalls are no silence of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PERIOD_S = 2.0
NODES_PER_SECOND = 500
MISSED_MAX = 3
TAKEOVER_PERIODS = 2
TAKEOVER_EXTRA_S = 1.0
"""For an agent that dials a second manager in vain: its connect time-out."""
MASS_SILENCE_MIN = 3
MASS_SILENCE_WAIT_S = 30.0
ORPHAN_AFTER_NS = 24 * 3600 * 1_000_000_000


class Heard(NamedTuple):
    """What the leader knows of one ready node.

    Attributes:
        at: when something came from it last, or when silence began to count.
        period: how often it was told to send something; a change may not have reached it yet.
        grace_until: silence before this time is expected; 0 for none.
    """

    at: float
    period: float = 0.0
    grace_until: float = 0.0


class Verdict(NamedTuple):
    """Who is down now, when to look again (None: when something changes), and a warning."""

    down: tuple[str, ...]
    look_again: float | None
    warning: str = ""


def period_s(configured_ns: int, nodes: int) -> float:
    """Return the heartbeat period to tell agents.

    Many nodes are spread out, so that the leader reads at most some 500 heartbeats a second.
    """
    return max(configured_ns / 1e9 or DEFAULT_PERIOD_S, nodes / NODES_PER_SECOND)


def heard_at_takeover(now: float, period: float, grace_s: float = 0.0) -> Heard:
    """Return what a new leader assumes of a node that was not down.

    Args:
        grace_s: how much is left of a restart that the node announced; none if not above 0.
    """
    due = now + TAKEOVER_PERIODS * period + TAKEOVER_EXTRA_S
    grace_until = now + grace_s if grace_s > 0 else 0.0
    return Heard(due - MISSED_MAX * period, period, grace_until)


def judge(heard: Mapping[str, Heard], now: float, period: float, silent_since: float) -> Verdict:
    """Decide which of the ready nodes are down.

    Args:
        heard: every node that counts as ready or unknown, by id.
        period: what nodes are told now.
        silent_since: when mass silence was first seen, 0 for not now.
    """
    due = {
        node_id: max(_silent_after(entry, period, MISSED_MAX), entry.grace_until)
        for node_id, entry in heard.items()
    }
    down = tuple(node_id for node_id, at in due.items() if at <= now)
    if down and is_mass_silence(heard, now, period):
        held_until = (silent_since or now) + MASS_SILENCE_WAIT_S
        if now < held_until:
            return Verdict(
                (),
                held_until,
                f"{len(down)} of {len(heard)} nodes fell silent at once: the cut is more likely "
                f"this manager's, so their tasks are not replaced for {MASS_SILENCE_WAIT_S:g} s",
            )
    waiting = [at for at in due.values() if at > now]
    return Verdict(down, min(waiting) if waiting else None)


def is_mass_silence(heard: Mapping[str, Heard], now: float, period: float) -> bool:
    """True when over half of the nodes, and at least three, fell silent within one period."""
    # One period earlier than for being down: those who follow within it belong to the same cut.
    silent = [
        entry
        for entry in heard.values()
        if max(_silent_after(entry, period, MISSED_MAX - 1), entry.grace_until) <= now
    ]
    if len(silent) < MASS_SILENCE_MIN or 2 * len(silent) <= len(heard):
        return False
    fell = [entry.at for entry in silent]
    return max(fell) - min(fell) <= max(period, *(entry.period for entry in silent))


def _silent_after(entry: Heard, period: float, missed: int) -> float:
    return entry.at + missed * max(period, entry.period)
