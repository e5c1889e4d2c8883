"""What a leader knows of a follower, state by state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.raft.errors import SafetyViolation
from swarmctl.core.raft.progress import Inflights, Progress, ProgressState


def progress(match: int = 3, next_index: int = 5, window: int = 4) -> Progress:
    return Progress(
        match=match,
        next_index=next_index,
        inflights=Inflights(window, 0),
        learner=False,
        active=True,
    )


@given(
    st.integers(1, 5),
    st.integers(0, 30),
    st.lists(st.tuples(st.sampled_from(["add", "free"]), st.integers(0, 12)), max_size=60),
)
def test_the_window_counts_as_a_plain_list_does(
    messages: int, size_limit: int, steps: list[tuple[str, int]]
) -> None:
    """Whatever is sent and answered, the window holds what a list of the unanswered holds."""
    window = Inflights(messages, size_limit)
    model: list[tuple[int, int]] = []
    index = 0
    for verb, number in steps:
        if verb == "free":
            window.free_to(number)
            model = [each for each in model if each[0] > number]
        elif not window.full:
            index += 1
            window.add(index, number)
            model.append((index, number))
        weight = sum(size for _, size in model)
        assert len(window) == len(model)
        assert window.full == (len(model) >= messages or 0 < size_limit <= weight)


def test_a_full_window_refuses() -> None:
    """Sending past a full window is an error of the sender, said aloud."""
    window = Inflights(1, 0)
    window.add(1, 10)
    with pytest.raises(SafetyViolation):
        window.add(2, 10)


def test_a_window_may_be_overshot_by_one_message() -> None:
    """The byte limit closes the window after the message that reaches it, never before."""
    window = Inflights(10, 100)
    window.add(1, 99)
    assert not window.full
    window.add(2, 5000)
    assert window.full


def test_probing_sends_one_message_at_a_time() -> None:
    """After entries have been sent a probe pauses; an empty message does not pause it."""
    peer = progress()
    peer.sent_entries(0, 0)
    assert not peer.blocked
    peer.sent_entries(2, 20)
    assert peer.blocked
    assert peer.next == 5


def test_replicating_runs_ahead_until_the_window_is_full() -> None:
    """``next`` moves at sending; when the window is full the peer pauses."""
    peer = progress(window=2)
    peer.become_replicate()
    peer.sent_entries(1, 1)
    assert (peer.next, peer.blocked) == (5, False)
    peer.sent_entries(3, 3)
    assert (peer.next, peer.blocked) == (8, True)


def test_an_acknowledgement_moves_match_and_wakes() -> None:
    """News about the peer's log raises match and next; old news changes nothing."""
    peer = progress(match=3, next_index=5)
    peer.paused = True
    assert not peer.acknowledge(3)
    assert peer.paused
    assert peer.acknowledge(6)
    assert (peer.match, peer.next, peer.paused) == (6, 7, False)


@pytest.mark.parametrize(
    ("rejected", "hint", "believed", "next_index"),
    [
        (3, 3, False, 10),  # at or below match: an old refusal
        (2, 0, False, 10),
        (9, 7, True, 4),  # a lost append: back to just after match
    ],
)
def test_a_refusal_while_replicating(
    rejected: int, hint: int, believed: bool, next_index: int
) -> None:
    """In a pipeline a refusal above match means a gap; at or below match it is stale."""
    peer = progress(match=3)
    peer.become_replicate()
    peer.next = 10
    assert peer.step_back(rejected, hint) is believed
    assert peer.next == next_index


@pytest.mark.parametrize(
    ("rejected", "hint", "believed", "next_index"),
    [
        (8, 5, False, 10),  # not what was probed last
        (9, 5, True, 6),  # follow the hint
        (9, 20, True, 9),  # a hint beyond the probe: one step back at least
        (9, 1, True, 4),  # never below match + 1
    ],
)
def test_a_refusal_while_probing(rejected: int, hint: int, believed: bool, next_index: int) -> None:
    """A probe listens only to the answer to itself, and never goes back behind match."""
    peer = progress(match=3, next_index=10)
    peer.paused = True
    assert peer.step_back(rejected, hint) is believed
    assert peer.next == next_index
    assert peer.paused is not believed


def test_after_a_snapshot_probing_goes_on_behind_it() -> None:
    """A delivered snapshot moves the next probe past it; a lost one does not."""
    peer = progress(match=3)
    peer.become_snapshot(20)
    assert peer.blocked
    peer.become_probe()
    assert (peer.state, peer.next, peer.blocked) == (ProgressState.PROBE, 21, False)
    peer.become_snapshot(20)
    peer.pending_snapshot = 0
    peer.become_probe()
    assert peer.next == 4


def test_the_commit_index_is_worth_a_message_once() -> None:
    """An empty append is due only if it tells the peer a commit index that it can use."""
    peer = progress(match=3, next_index=5)
    assert peer.can_bump_commit(2)
    peer.sent_commit(2)
    assert not peer.can_bump_commit(2)
    peer.sent_commit(4)
    assert not peer.can_bump_commit(9)  # it has nothing beyond 4 yet
