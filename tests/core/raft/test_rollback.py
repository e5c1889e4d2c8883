"""Which members' disks have forgotten something that a peer remembers."""

from __future__ import annotations

import pytest

from swarmctl.core.raft.rollback import Known, Shown, acknowledged, answered, judge, learn

NOW = Shown(starts=3, run=33, term=7, last_index=100)
KNOWN = Known(starts=3, run=33, term=7, match=100, match_term=7, kept=90)


@pytest.mark.parametrize(
    ("shown", "known"),
    [
        (NOW, Known()),  # nobody remembers anything
        (NOW, KNOWN),
        (NOW._replace(starts=4, run=44), KNOWN),  # restarted
        (NOW._replace(last_index=500, term=9), KNOWN),  # came further meanwhile
        (NOW._replace(term=8, last_index=95), KNOWN),  # a newer leader cut what was not committed
        (NOW._replace(term=6, last_index=50), KNOWN),  # the same run, shown before it went on
    ],
)
def test_a_member_that_forgot_nothing_takes_part(shown: Shown, known: Known) -> None:
    """Being new, restarted, ahead, or cut by a newer leader is no crime."""
    assert judge(shown, known) is None


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (NOW._replace(starts=2, run=22), "has seen 2 starts, yet it was started 3 times"),
        (NOW._replace(run=34), "has forgotten its start number 3"),  # a copy of before, started
        (NOW._replace(starts=4, run=44, term=6), "is of term 6, yet it answered in term 7"),
        (
            NOW._replace(starts=4, run=44, last_index=99),
            "ends at log entry 99, yet it acknowledged 100",
        ),
        (
            NOW._replace(starts=4, run=44, term=8, last_index=89),
            "ends at log entry 89, yet it acknowledged 90",
        ),
    ],
)
def test_a_member_that_forgot_is_found_out(shown: Shown, says: str) -> None:
    """An older copy shows in starts, term or log, whichever of them it is too old in."""
    said = judge(shown, KNOWN)
    assert said is not None
    assert says in said


def test_what_is_known_only_grows() -> None:
    """A peer that was told less later still remembers the most."""
    known = acknowledged(KNOWN, term=7, match=50, commit=40)
    assert (known.match, known.kept) == (100, 90)
    assert answered(known, term=5).term == 7
    assert answered(known, term=9).term == 9
    assert learn(known, NOW._replace(starts=4, run=44, term=6)).term == 7


def test_another_leadership_starts_counting_anew() -> None:
    """What was acknowledged to an older leader may have been cut; what was committed may not."""
    known = acknowledged(KNOWN, term=8, match=92, commit=91)
    assert (known.match, known.match_term, known.kept) == (92, 8, 91)
