"""Does a member's disk still have what it once told us? Pure.

A disk that was rolled back to an older copy (a restored machine, a cloned volume, a bit that
flipped in the newest write) has forgotten votes it gave and entries it acknowledged. Such a member
may elect a second leader of a term or make a committed entry vanish, so it must not take part: it
is removed and joins as new.

The member cannot know. What it *shows* when it connects is compared with what a peer *knows* of it
from its own answers. A peer remembers as long as it runs, which covers the case that matters: one
member goes back while the others go on.
"""

from __future__ import annotations

from typing import NamedTuple


class Shown(NamedTuple):
    """What a member's disk says, once it was read back.

    Attributes:
        starts: how often it was started; each start counts one up before anything is sent.
        run: drawn anew by each start: two starts of one count are told apart.
        term: of its hard state.
        last_index: of its log.
    """

    starts: int
    run: int
    term: int
    last_index: int


class Known(NamedTuple):
    """What a peer remembers of a member.

    Attributes:
        starts, run: of the newest start it has seen.
        term: the newest in which the member answered a vote or an append, or led.
        match: the highest index that the member acknowledged to this peer as leader, in
            ``match_term``. A member cuts what it acknowledged only on the word of a newer leader.
        match_term: the term of that leadership; 0 for none.
        kept: the highest index that the member acknowledged and that is committed: no leader's
            word cuts that.
    """

    starts: int = 0
    run: int = 0
    term: int = 0
    match: int = 0
    match_term: int = 0
    kept: int = 0


def judge(shown: Shown, known: Known) -> str | None:
    """Say what a member has forgotten, in a sentence, or None when it may take part.

    The same start on a new connection is believed: a disk goes back while nobody runs on it, and
    what was sent on an older connection may well arrive after this.
    """
    if (shown.starts, shown.run) == (known.starts, known.run):
        return None
    if shown.starts < known.starts:
        return f"its disk has seen {shown.starts} starts, yet it was started {known.starts} times"
    if shown.starts == known.starts and shown.run != known.run:
        return f"its disk has forgotten its start number {known.starts}"
    if shown.term < known.term:
        return f"its disk is of term {shown.term}, yet it answered in term {known.term}"
    acknowledged_index = known.match if shown.term == known.match_term else known.kept
    if shown.last_index < max(acknowledged_index, known.kept):
        return (
            f"its disk ends at log entry {shown.last_index}, yet it acknowledged "
            f"{max(acknowledged_index, known.kept)}"
        )
    return None


def learn(known: Known, shown: Shown) -> Known:
    """Return what is known after a member that may take part has shown itself."""
    return known._replace(starts=shown.starts, run=shown.run, term=max(known.term, shown.term))


def answered(known: Known, *, term: int) -> Known:
    """Return what is known after the member answered in a term."""
    return known if term <= known.term else known._replace(term=term)


def acknowledged(known: Known, *, term: int, match: int, commit: int) -> Known:
    """Return what is known after the member acknowledged entries to us, leader of ``term``.

    Args:
        commit: what is committed, as far as we know.
    """
    kept = max(known.kept, min(match, commit))
    if term == known.match_term:
        match = max(match, known.match)
    return known._replace(term=max(term, known.term), match=match, match_term=term, kept=kept)
