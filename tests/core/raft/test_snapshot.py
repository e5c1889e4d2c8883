"""Snapshots: when the log cannot help a follower any more."""

from __future__ import annotations

from typing import Any

import pytest

from swarmctl.core.raft.message import ConfState, Message, MessageKind, Role, Snapshot
from swarmctl.core.raft.progress import ProgressState
from tests.core.raft.cluster import PLAIN, Cluster, Host, change

FORMS = pytest.mark.parametrize("async_storage", [False, True], ids=["sync", "async"])

SNAPSHOT = MessageKind.SNAPSHOT


def behind(**options: Any) -> Cluster:
    """Three members; 3 has missed entries that the leader, 1, has compacted since."""
    cluster = Cluster.of(3, **{**PLAIN, **options})
    cluster.elect(1)
    cluster.cut(3)
    cluster.propose(1, b"a", b"b", b"c")
    cluster[1].compact()
    return cluster


def snapshots(cluster: Cluster) -> list[Message]:
    return [each for each in cluster.carried if each.kind is SNAPSHOT]


@FORMS
def test_a_follower_too_far_behind_gets_a_snapshot_and_then_the_log(async_storage: bool) -> None:
    """And it goes on with the entries after it."""
    cluster = behind(async_storage=async_storage)
    cluster.heal()
    cluster.tick(1)
    cluster.propose(1, b"d")
    assert len(snapshots(cluster)) == 1
    assert cluster[3].data() == [b"d"]
    assert cluster.raft(3).status().commit == cluster.raft(1).status().commit
    assert cluster.raft(1).status().progress[3].state is ProgressState.REPLICATE


def test_nobody_sends_a_snapshot_to_silence() -> None:
    """Only a follower that answers is worth the bytes."""
    cluster = behind(check_quorum=True)
    cluster.raft(1).report_unreachable(3)
    cluster.tick(1, times=20)
    cluster.cut(3)
    cluster.cut_link(3, 1)
    cluster.propose(1, b"d")
    assert cluster.raft(1).status().progress[3].state is ProgressState.PROBE
    cluster.heal()
    cluster.tick(1, times=2)
    assert len(snapshots(cluster)) == 1


def test_a_snapshot_on_its_way_stops_everything_else() -> None:
    """Until it is answered or reported the follower gets no appends."""
    cluster = behind()
    cluster.heal()
    cluster.lose(SNAPSHOT)
    cluster.tick(1)
    assert cluster.raft(1).status().progress[3].state is ProgressState.SNAPSHOT
    cluster.carried.clear()
    cluster.propose(1, b"d")
    cluster.tick(1, times=3)
    assert [each for each in cluster.carried if each.to == 3 and each.entries] == []


@pytest.mark.parametrize(("ok", "next_index"), [(True, 5), (False, 2)])
def test_a_report_ends_the_waiting(ok: bool, next_index: int) -> None:
    """Delivered: probe behind it. Lost: probe where the follower was. After a heartbeat."""
    cluster = behind()
    cluster.heal()
    cluster.lose(SNAPSHOT)
    cluster.tick(1)
    cluster.raft(1).report_snapshot(3, ok)
    progress = cluster.raft(1).status().progress[3]
    assert (progress.state, progress.next) == (ProgressState.PROBE, next_index)
    assert progress.paused
    cluster.heal()
    cluster.tick(1)
    cluster.tick(1)
    assert cluster.raft(3).status().commit == 4


def test_a_report_about_somebody_else_changes_nothing() -> None:
    """Reports on members that get no snapshot are ignored."""
    cluster = behind()
    before = cluster.raft(1).status()
    cluster.raft(1).report_snapshot(2, ok=False)
    cluster.raft(1).report_snapshot(9, ok=True)
    assert cluster.raft(1).status() == before


def test_any_snapshot_that_reconnects_to_the_log_will_do() -> None:
    """The follower may have got a newer one by other ways: its answer counts, not our record."""
    cluster = behind()
    cluster.heal()
    cluster.lose(SNAPSHOT)
    cluster.tick(1)
    cluster.propose(1, b"d")
    cluster[1].receive(Message(MessageKind.APPEND_RESPONSE, 1, 3, term=1, index=5))
    progress = cluster.raft(1).status().progress[3]
    assert (progress.state, progress.match) == (ProgressState.REPLICATE, 5)


def test_an_answer_from_before_the_log_does_not_end_it() -> None:
    """A late acknowledgement that the log does not reach back to leaves the snapshot under way."""
    cluster = behind()
    cluster.propose(1, b"d", b"e")
    cluster[1].compact()
    cluster.heal()
    cluster.lose(SNAPSHOT)
    cluster.tick(1)
    out = cluster[1].receive(Message(MessageKind.APPEND_RESPONSE, 1, 3, term=1, index=2))
    assert cluster.raft(1).status().progress[3].state is ProgressState.SNAPSHOT
    assert out == []


@pytest.mark.parametrize(
    ("index", "log_term", "commit"),
    [(2, 1, 3), (3, 1, 3)],
    ids=["older", "same"],
)
def test_an_old_snapshot_is_answered_with_the_commit_index(
    index: int, log_term: int, commit: int
) -> None:
    """It takes nobody back."""
    host = Host(2, (1, 2), log=(1, 1, 1, 1), commit=3, **PLAIN)
    host.run()
    snapshot = Snapshot(index, log_term, ConfState((1, 2)))
    (answer,) = host.receive(Message(SNAPSHOT, 2, 1, 1, snapshot=snapshot))
    assert answer.index == commit
    assert host.raft.status().last_index == 4


def test_a_snapshot_from_before_the_log_takes_nobody_back() -> None:
    """What it covers is compacted here, so its term cannot even be compared."""
    host = Host(2, snapshot=Snapshot(5, 1, ConfState((1, 2))), log=(1, 1), commit=6, **PLAIN)
    old = Snapshot(3, 1, ConfState((1, 2)))
    (answer,) = host.receive(Message(SNAPSHOT, 2, 1, 1, snapshot=old))
    assert answer.index == 6
    assert (host.raft.status().commit, host.raft.status().last_index) == (6, 7)


def test_a_snapshot_of_what_is_in_the_log_only_commits() -> None:
    """The entries after it are kept."""
    host = Host(2, (1, 2), log=(1, 1, 1, 1), commit=1, **PLAIN)
    host.receive(Message(SNAPSHOT, 2, 1, 1, snapshot=Snapshot(3, 1, ConfState((1, 2)))))
    assert (host.raft.status().commit, host.raft.status().last_index) == (3, 4)


def test_a_contradicting_log_is_replaced() -> None:
    """A tail of another term at the snapshot's index goes with everything else."""
    host = Host(2, (1, 2), log=(1, 1, 1, 1), commit=1, term=2, **PLAIN)
    (answer,) = host.receive(
        Message(SNAPSHOT, 2, 1, 2, snapshot=Snapshot(3, 2, ConfState((1, 2, 4))))
    )
    assert answer.index == 3
    assert host.raft.status().last_index == 3
    assert host.raft.status().membership.voters == (1, 2, 4)
    assert host.storage.first_index() == 4


@pytest.mark.parametrize(
    "members",
    [ConfState((1, 3)), ConfState((1, 3), learners=(4,), voters_outgoing=(1, 5))],
)
def test_a_snapshot_without_us_is_not_for_us(members: ConfState) -> None:
    """Taking it over would leave a member that does not know itself."""
    host = Host(2, (1, 2), **PLAIN)
    (answer,) = host.receive(Message(SNAPSHOT, 2, 1, 1, snapshot=Snapshot(9, 1, members)))
    assert answer.index == 0
    assert host.raft.status().last_index == 0
    assert host.raft.status().membership.voters == (1, 2)


@pytest.mark.parametrize(
    "members",
    [
        ConfState((1, 2)),
        ConfState((1,), learners=(2,)),
        ConfState((1,), voters_outgoing=(1, 2)),
        ConfState((1,), voters_outgoing=(1, 2), learners_next=(2,)),
    ],
)
def test_a_snapshot_with_us_in_any_part_is_for_us(members: ConfState) -> None:
    """Voter, learner, outgoing: all belong."""
    host = Host(2, (1, 2), **PLAIN)
    (answer,) = host.receive(Message(SNAPSHOT, 2, 1, 1, snapshot=Snapshot(9, 1, members)))
    assert answer.index == 9
    assert host.raft.status().membership == members
    assert host.raft.status().applied == 9


@pytest.mark.parametrize(("log_term", "index", "reject"), [(4, 99, True), (5, 9, False)])
def test_after_a_snapshot_votes_are_measured_by_its_last_entry(
    log_term: int, index: int, reject: bool
) -> None:
    """Installing it makes its term the last of our log, for votes that we give and ask for."""
    host = Host(1, log=(1, 1), **PLAIN)
    members = ConfState((1, 2, 3))
    host.receive(Message(SNAPSHOT, 1, 2, 5, snapshot=Snapshot(9, 5, members)))
    (answer,) = host.receive(Message(MessageKind.VOTE, 1, 3, 6, log_term=log_term, index=index))
    assert answer.reject is reject
    host.raft.campaign()
    asked = [each for each in host.run() if each.kind is MessageKind.VOTE]
    assert {(each.log_term, each.index) for each in asked} == {(5, 9)}


def test_a_candidate_that_gets_a_snapshot_follows_its_sender() -> None:
    """Whoever sends one leads the term."""
    host = Host(2, (1, 2, 3), **PLAIN)
    host.raft.campaign()
    host.receive(Message(SNAPSHOT, 2, 1, 1, snapshot=Snapshot(9, 1, ConfState((1, 2)))))
    assert (host.raft.role, host.raft.leader) == (Role.FOLLOWER, 1)
    assert host.raft.status().last_index == 9


def test_a_snapshot_still_in_the_making_is_awaited() -> None:
    """Storage may say that it has none yet; the leader asks again later."""
    cluster = behind()
    cluster[1].storage.snapshot = lambda: None  # type: ignore[method-assign]
    cluster.heal()
    cluster.tick(1, times=2)
    assert snapshots(cluster) == []
    del cluster[1].storage.snapshot
    cluster.tick(1)
    assert cluster.raft(3).status().commit == 4


@pytest.mark.parametrize("index", [0, 3])
def test_a_snapshot_overtakes_changes_that_are_being_applied(index: int) -> None:
    """An entry handed out before the snapshot came is applied after it: its change is history.

    Without the entry's index the core cannot know, and would add the member a second time.
    """
    host = Host(2, (1, 2), **PLAIN)
    members = ConfState((1, 2, 3))
    host.receive(Message(SNAPSHOT, 2, 1, 1, snapshot=Snapshot(9, 1, members)))
    returned = host.raft.apply_conf_change(change("r3"), index)
    assert returned == host.raft.status().membership
    assert returned.voters == ((1, 2, 3) if index else (1, 2))
