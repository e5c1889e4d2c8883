"""The exercises that MIT's distributed systems course (6.824) names, played on our core.

They see members only as a client and a saboteur do: who leads, what is applied where, who is cut
off, crashed, or behind a bad network. `Rough` checks agreement in every round.
"""

from __future__ import annotations

from typing import Any

import pytest

from swarmctl.core.raft.message import Role
from tests.core.raft.rough import Rough

SEEDS = pytest.mark.parametrize("seed", range(3))
SMALL: dict[str, Any] = {"max_message_size": 64}
"""One or two entries an append, so that figure 8 can happen."""


# Elections


def test_initial_election() -> None:
    """InitialElection: one leader, one term known to all, and no change while nothing fails."""
    net = Rough(3)
    leader = net.wait_leader()
    net.rounds(5)
    terms = {host.raft.term for host in net.hosts.values()}
    assert len(terms) == 1
    net.rounds(100)
    assert net.leader() == leader
    assert {host.raft.term for host in net.hosts.values()} == terms


def test_re_election() -> None:
    """ReElection: a lost leader is replaced, its return disturbs nobody, and no quorum elects no
    one."""
    net = Rough(3)
    first = net.wait_leader()
    net.disconnect(first)
    second = net.wait_leader()
    net.connect(first)
    net.rounds(50)
    assert net.leader() == second
    assert net.hosts[first].raft.role is Role.FOLLOWER
    (other,) = set(net.hosts) - {first, second}
    net.disconnect(second, other)
    net.rounds(100)
    assert net.leader() is None
    net.connect(other)
    third = net.wait_leader()
    net.connect(second)
    net.rounds(50)
    assert net.leader() == third


@SEEDS
def test_many_elections(seed: int) -> None:
    """ManyElections: of seven any three may be away, there is always a leader."""
    net = Rough(7, seed=seed)
    net.wait_leader()
    for _ in range(10):
        away = net.rng.sample(sorted(net.hosts), 3)
        net.disconnect(*away)
        net.wait_leader()
        net.connect(*away)
    net.wait_leader()


# Agreement


def test_basic_agree() -> None:
    """BasicAgree: what is proposed is applied by everybody, in order."""
    net = Rough(3)
    for data in (b"a", b"b", b"c"):
        net.one(data, 3)
    assert {tuple(net.data(node)) for node in net.hosts} == {(b"a", b"b", b"c")}


def test_fail_agree() -> None:
    """FailAgree: with a follower away the others agree, and it catches up when it is back."""
    net = Rough(3)
    net.one(b"before", 3)
    away = next(node for node in net.hosts if node != net.leader())
    net.disconnect(away)
    for number in range(5):
        net.one(b"meanwhile %d" % number, 2)
    net.connect(away)
    net.one(b"after", 3)
    assert len({tuple(net.data(node)) for node in net.hosts}) == 1


def test_fail_no_agree() -> None:
    """FailNoAgree: with three of five away nothing is committed, and everything goes on later."""
    net = Rough(5)
    net.one(b"before", 5)
    leader = net.wait_leader()
    away = [node for node in net.hosts if node != leader][:3]
    net.disconnect(*away)
    net.propose(leader, b"lonely")
    net.rounds(100)
    assert net.agreed(b"lonely") == 0
    net.connect(*away)
    net.one(b"after", 5)


def test_concurrent_starts() -> None:
    """ConcurrentStarts: proposals made at one moment are all committed, each once."""
    net = Rough(3)
    leader = net.wait_leader()
    wanted = [b"%d" % number for number in range(20)]
    for data in wanted:
        assert net.propose(leader, data)
    assert net.until(lambda: all(net.agreed(data) == 3 for data in wanted))
    assert {tuple(net.data(node)) for node in net.hosts} == {tuple(wanted)}


def test_rejoin() -> None:
    """Rejoin: a leader cut off with proposals of its own gives way, and so does the next."""
    net = Rough(3)
    net.one(b"1", 3)
    first = net.wait_leader()
    net.disconnect(first)
    for data in (b"lost 1", b"lost 2"):
        net.propose(first, data)
    net.one(b"2", 2)
    second = net.wait_leader()
    net.disconnect(second)
    net.connect(first)
    net.one(b"3", 2)
    net.connect(second)
    net.one(b"4", 3)
    assert all(net.data(node) == [b"1", b"2", b"3", b"4"] for node in net.hosts)


def test_backup() -> None:
    """Backup: long contradicting logs on both sides of a partition soon agree."""
    net = Rough(5)
    net.one(b"start", 5)
    first = net.wait_leader()
    others = [node for node in net.hosts if node != first]
    net.disconnect(*others[1:])  # first and one more: no quorum
    for number in range(50):
        net.propose(first, b"lost %d" % number)
    net.disconnect(first, others[0])
    net.connect(*others[1:])
    for number in range(50):
        net.one(b"kept %d" % number, 3)
    net.connect(first, others[0])
    before = net.carried
    net.one(b"end", 5)
    assert net.carried - before < 120
    assert len({tuple(net.data(node)) for node in net.hosts}) == 1


# Crashes


def test_persist_one() -> None:
    """Persist1: after everybody, the leader, or a follower has crashed, all goes on."""
    net = Rough(3)
    net.one(b"1", 3)
    net.crash(1, 2, 3)
    net.restart(1, 2, 3)
    net.one(b"2", 3)
    for who, data in (("leader", b"3"), ("follower", b"4")):
        leader = net.wait_leader()
        node = leader if who == "leader" else next(each for each in net.hosts if each != leader)
        net.crash(node)
        net.one(data, 2)
        net.restart(node)
        net.one(data + b" again", 3)
    assert len({tuple(net.data(node)) for node in net.hosts}) == 1


def test_persist_two() -> None:
    """Persist2: of five, changing pairs are down and all five crash together; nothing is lost."""
    net = Rough(5)
    for index in range(4):
        net.one(b"a %d" % index, 5)
        leader = net.wait_leader()
        ring = [(leader + step - 1) % 5 + 1 for step in range(5)]
        net.crash(ring[1], ring[2])
        net.one(b"b %d" % index, 3)
        net.crash(ring[0], ring[3], ring[4])
        net.restart(ring[1], ring[2], ring[3])
        net.one(b"c %d" % index, 3)
        net.restart(ring[0], ring[4])
    net.one(b"end", 5)


def test_persist_three() -> None:
    """Persist3: one follower was away when leader and the other one crashed: the one that is left
    and the leader's disk are a quorum."""
    net = Rough(3)
    net.one(b"1", 3)
    leader = net.wait_leader()
    near, far = (node for node in net.hosts if node != leader)
    net.disconnect(far)
    net.one(b"2", 2)
    net.crash(leader, near)
    net.connect(far)
    net.restart(leader)
    net.one(b"3", 2)
    net.restart(near)
    net.one(b"4", 3)
    assert all(net.data(node) == [b"1", b"2", b"3", b"4"] for node in net.hosts)


@SEEDS
def test_figure_eight(seed: int) -> None:
    """Figure8: leaders crash before or after they could commit, over and over."""
    net = Rough(5, seed=seed, **SMALL)
    net.one(b"start", 5)
    for number in range(120):
        leader = net.leader()
        if leader is not None:
            net.propose(leader, b"%d" % number)
        net.rounds(net.rng.randrange(12) if net.rng.random() < 0.3 else 1)
        if leader is not None:
            net.crash(leader)
        if len(net.up()) < 3:
            net.restart(net.rng.choice([node for node in net.hosts if node not in net.up()]))
        net.rounds(net.rng.randrange(25))
    net.restart(*(node for node in net.hosts if node not in net.up()))
    net.one(b"end", 5)


# Bad networks


@SEEDS
def test_unreliable_agree(seed: int) -> None:
    """UnreliableAgree: with a tenth of all messages lost everything is committed all the same."""
    net = Rough(5, seed=seed, reliable=False)
    for number in range(40):
        net.one(b"%d" % number, 1)
    net.reliable = True
    net.one(b"end", 5)


@SEEDS
def test_figure_eight_unreliable(seed: int) -> None:
    """Figure8Unreliable: as before, with messages lost and answers overtaken by later ones."""
    net = Rough(5, seed=seed, reliable=False, **SMALL)
    net.one(b"start", 1)
    for number in range(200):
        net.reordering = number > 60
        leader = net.leader()
        if leader is not None:
            net.propose(leader, b"%d" % number)
            if net.rng.random() < 0.3:
                net.disconnect(leader)
        net.rounds(net.rng.randrange(10))
        if len(net.up()) < 3:
            net.connect(net.rng.choice([node for node in net.hosts if node not in net.up()]))
    net.connect(*net.hosts)
    net.reordering, net.reliable = False, True
    net.one(b"end", 5)


def _churn(net: Rough) -> None:
    tried: list[bytes] = []
    for number in range(60):
        if net.rng.random() < 0.2:
            net.disconnect(net.rng.choice(list(net.hosts)))
        if net.rng.random() < 0.5:
            net.restart(net.rng.choice(list(net.hosts)))
        if net.rng.random() < 0.2:
            net.crash(net.rng.choice(list(net.hosts)))
        for node in net.up():
            data = b"%d at %d" % (number, node)
            if net.hosts[node].raft.role is Role.LEADER and net.propose(node, data):
                tried.append(data)
        if net.rng.random() < 0.4:
            net.connect(net.rng.choice(list(net.hosts)))
        net.rounds(net.rng.randrange(30))
    net.reliable = True
    net.connect(*net.hosts)
    net.restart(*net.hosts)
    seen = {entry.data for entry in net.history.values()}
    net.one(b"end", 5)
    final = [entry.data for _, entry in sorted(net.history.items())]
    assert seen - set(final) == set()
    assert {data for data in final if data and data != b"end"} <= set(tried)
    assert len([data for data in final if data in set(tried)]) > 5


@SEEDS
def test_reliable_churn(seed: int) -> None:
    """ReliableChurn: members come and go all the time; what was applied once stays, and only what
    was proposed is there."""
    _churn(Rough(5, seed=seed))


@SEEDS
def test_unreliable_churn(seed: int) -> None:
    """UnreliableChurn: the same on a network that loses and delays."""
    _churn(Rough(5, seed=seed, reliable=False))


# Snapshots


def _with_snapshots(
    *, cut: bool = False, crash: bool = False, reliable: bool = True, seed: int = 1
) -> Rough:
    net = Rough(3, seed=seed, reliable=reliable)
    net.one(b"start", 1)
    for number in range(12):
        leader = net.wait_leader()
        victim = next(node for node in net.hosts if node != leader)
        if number % 3 == 1:
            victim = leader
        if cut:
            net.disconnect(victim)
        if crash:
            net.crash(victim)
        for step in range(5):
            net.one(b"%d.%d" % (number, step), 1)
        for node in net.up():
            if net.hosts[node].raft.log.applied > net.hosts[node].storage.first_index() + 1:
                net.hosts[node].compact()
        if cut:
            net.connect(victim)
        if crash:
            net.restart(victim)
        net.one(b"%d" % number, 1)
    net.reliable = True
    net.one(b"end", 3)
    return net


def _most_is_compacted(net: Rough) -> bool:
    return all(len(host.log()) < 20 < host.raft.log.applied for host in net.hosts.values())


def test_snapshot_basic() -> None:
    """SnapshotBasic: with everybody compacting its log all the time everybody agrees."""
    assert _most_is_compacted(_with_snapshots())


def test_snapshot_install() -> None:
    """SnapshotInstall: who was cut off while the log was compacted is brought up by a snapshot."""
    assert _most_is_compacted(_with_snapshots(cut=True))


@SEEDS
def test_snapshot_install_unreliable(seed: int) -> None:
    """SnapshotInstallUnreliable: also if messages are lost."""
    assert _most_is_compacted(_with_snapshots(cut=True, reliable=False, seed=seed))


def test_snapshot_install_crash() -> None:
    """SnapshotInstallCrash: also if it had crashed."""
    assert _most_is_compacted(_with_snapshots(crash=True))


@SEEDS
def test_snapshot_install_unreliable_crash(seed: int) -> None:
    """SnapshotInstallUnCrash: also with both."""
    assert _most_is_compacted(_with_snapshots(crash=True, reliable=False, seed=seed))


def test_snapshot_all_crash() -> None:
    """SnapshotAllCrash: a cluster that crashed whole comes back from snapshots and what follows."""
    net = Rough(3)
    net.one(b"start", 3)
    for number in range(5):
        for step in range(4):
            net.one(b"%d.%d" % (number, step), 3)
        for host in net.hosts.values():
            host.compact()
        before = max(net.history)
        net.crash(1, 2, 3)
        net.restart(1, 2, 3)
        net.one(b"%d" % number, 3)
        assert max(net.history) > before


def test_snapshot_init() -> None:
    """SnapshotInit: after restarts with nothing but a snapshot the first new entry is taken."""
    net = Rough(3)
    net.one(b"before", 3)
    for host in net.hosts.values():
        host.compact()
        assert host.log() == []
    for _ in range(2):
        net.crash(1, 2, 3)
        net.restart(1, 2, 3)
        net.wait_leader()
    net.one(b"after", 3)
    assert all(net.data(node)[-1] == b"after" for node in net.hosts)
