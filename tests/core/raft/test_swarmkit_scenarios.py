"""What SwarmKit's Raft tests name, as far as it shows without disks and networks.

Numbers are those of the behaviour notes, section 12.1. What needs a disk, a network or the tables
(addresses in use, refusals by reachability, keys) is proved where those are.
"""

from __future__ import annotations

from itertools import product

import pytest

from swarmctl.core.raft.errors import (
    Compacted,
    ConfChangeRefused,
    EntryUnavailable,
    ProposalDropped,
    SafetyViolation,
)
from swarmctl.core.raft.message import (
    ChangeKind,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    MemberChange,
    Role,
    Snapshot,
    decode_conf_change,
)
from swarmctl.core.raft.quorum import majority
from tests.core.raft.cluster import Cluster, Host, change
from tests.core.raft.rough import Rough


def voters(host: Host) -> tuple[int, ...]:
    return host.raft.status().membership.voters


def contexts(host: Host) -> list[bytes]:
    """What the membership entries that were applied say besides the membership."""
    return [
        decode_conf_change(entry.data).context
        for entry in host.applied
        if entry.kind is not EntryKind.NORMAL
    ]


def swarm(size: int) -> Rough:
    net = Rough(size)
    net.one(b"founded", size)
    return net


def change_in(net: Rough, conf_change: ConfChange) -> None:
    """Let whoever leads make a membership change, and wait until it has applied it."""
    leader = net.hosts[net.wait_leader()]
    leader.raft.propose_membership(conf_change)
    index = leader.raft.log.last_index
    assert net.until(lambda: leader.raft.log.applied >= index)


def join(net: Rough, node: int) -> None:
    """As the product does: a learner first, a voter once it has caught up."""
    net.add(node)
    change_in(net, change(f"l{node}"))

    def caught_up() -> bool:
        leader = net.hosts[net.wait_leader()].raft
        return leader.status().progress[node].match == leader.log.last_index

    assert net.until(caught_up)
    change_in(net, change(f"v{node}"))


def test_1_bootstrap() -> None:
    """Three nodes joined one after the other: exactly one leads, all list three members."""
    net = swarm(1)
    join(net, 2)
    join(net, 3)
    net.one(b"all", 3)
    assert [host.raft.role for host in net.hosts.values()].count(Role.LEADER) == 1
    assert {voters(host) for host in net.hosts.values()} == {(1, 2, 3)}


def test_2_joining_twice() -> None:
    """A second join of one id with a new address adds no member; the address survives a restart."""
    net = swarm(3)
    update = ConfChange((MemberChange(ChangeKind.UPDATE, 3),), context=b"10.0.0.9:2377")
    change_in(net, update)
    net.one(b"after", 3)
    for host in net.hosts.values():
        assert voters(host) == (1, 2, 3)
        assert contexts(host) == [b"10.0.0.9:2377"]
    net.crash(1, 2, 3)
    net.restart(1, 2, 3)
    net.one(b"again", 3)
    assert all(contexts(host) == [b"10.0.0.9:2377"] for host in net.hosts.values())


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_3_a_member_stops(who: str) -> None:
    """The other two go on accepting proposals, and the stopped one catches up on return."""
    net = swarm(3)
    leader = net.wait_leader()
    stopped = leader if who == "leader" else next(each for each in net.hosts if each != leader)
    net.crash(stopped)
    net.one(b"meanwhile", 2)
    net.restart(stopped)
    net.one(b"after", 3)
    assert b"meanwhile" in net.data(stopped)


def test_4_a_stuck_leader_hands_over() -> None:
    """A leader whose state machine does not get on can still give leadership away; who gets it
    commits what is pending."""

    class Stuck(Host):
        def _apply(self, committed: tuple[Entry, ...]) -> None:
            if self.raft.role is not Role.LEADER:
                super()._apply(committed)

    founding = Snapshot(1, 1, ConfState((1, 2, 3)))
    cluster = Cluster(*(Stuck(node, snapshot=founding, term=1) for node in (1, 2, 3)))
    cluster.elect(1)
    cluster.propose(1, b"pending")
    assert cluster[1].data() == []
    cluster.raft(1).transfer_leadership(2)
    cluster.settle()
    assert cluster.roles() == {1: Role.FOLLOWER, 2: Role.LEADER, 3: Role.FOLLOWER}
    cluster.propose(2, b"next")
    assert cluster[3].data() == [b"pending", b"next"]


def test_5_a_proposal_at_a_follower() -> None:
    """Where proposals are not passed on, one at a follower fails and changes nothing anywhere."""
    net = Rough(3, forward_proposals=False)
    leader = net.wait_leader()
    follower = next(node for node in net.hosts if node != leader)
    before = {node: host.log() for node, host in net.hosts.items()}
    with pytest.raises(ProposalDropped):
        net.hosts[follower].raft.propose(b"no")
    net.rounds(30)
    assert {node: host.log() for node, host in net.hosts.items()} == before


def test_6_quorum_lost_and_recovered() -> None:
    """Three of five are lost: nothing commits. One returns: what was pending and what is new do."""
    net = swarm(5)
    leader = net.wait_leader()
    lost = [node for node in net.hosts if node != leader][:3]
    net.crash(*lost)
    assert net.propose(leader, b"pending")
    net.rounds(5)
    assert net.agreed(b"pending") == 0
    net.restart(lost[0])
    net.one(b"new", 3)
    assert net.agreed(b"pending") >= 3


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_7_a_member_leaves(who: str) -> None:
    """One member fewer everywhere, and writable; if it led, somebody else does."""
    net = swarm(5)
    leader = net.wait_leader()
    leaving = leader if who == "leader" else next(each for each in net.hosts if each != leader)
    change_in(net, change(f"r{leaving}"))
    net.crash(leaving)
    net.one(b"after", 4)
    rest = [node for node in net.hosts if node != leaving]
    assert net.until(lambda: all(voters(net.hosts[node]) == tuple(rest) for node in rest))
    assert net.wait_leader() in rest


def test_8_a_late_joiner_gets_everything() -> None:
    """What was written before it joined is there, from the log or from a snapshot."""
    net = swarm(1)
    for number in range(10):
        net.one(b"%d" % number, 1)
    join(net, 2)
    net.one(b"after", 2)
    assert net.hosts[2].raft.log.applied == net.hosts[1].raft.log.applied
    assert voters(net.hosts[2]) == (1, 2)


def test_9_changes_between_two_points() -> None:
    """Entry by entry as long as they are kept: none at the end, an error before and after that."""
    net = swarm(1)
    for data in (b"a", b"b", b"c"):
        net.one(data, 1)
    storage = net.hosts[1].storage
    last = storage.last_index()
    assert [entry.data for entry in storage.entries(last - 1, last + 1, 2**63)] == [b"b", b"c"]
    assert storage.entries(last + 1, last + 1, 2**63) == ()
    with pytest.raises(EntryUnavailable):
        storage.entries(last, last + 2, 2**63)
    net.hosts[1].compact(keep=1)
    with pytest.raises(Compacted):
        storage.entries(last - 1, last + 1, 2**63)


@pytest.mark.parametrize("staggered", [False, True], ids=["at once", "one by one"])
def test_10_the_cluster_restarts(staggered: bool) -> None:
    """All at once or one after the other: what was written is there, and more can be."""
    net = swarm(3)
    net.one(b"before", 3)
    if staggered:
        for node in (1, 2, 3):
            net.crash(node)
            net.one(b"without %d" % node, 2)
            net.restart(node)
            net.one(b"with %d" % node, 3)
    else:
        net.crash(1, 2, 3)
        net.restart(1, 2, 3)
    net.one(b"after", 3)
    assert all(b"before" in net.data(node) for node in net.hosts)


def test_11_wiped_state() -> None:
    """A member with its old id and an empty disk stops itself, not the leader; as a new member it
    comes in again."""
    net = swarm(3)
    leader = net.wait_leader()
    wiped = next(node for node in net.hosts if node != leader)
    net.hosts[wiped] = Host(wiped, (1, 2, 3))
    with pytest.raises(SafetyViolation, match="damaged, truncated or lost"):
        net.rounds(20)
    net.crash(wiped)
    net.one(b"on", 2)
    change_in(net, change(f"r{wiped}"))
    join(net, 4)
    net.one(b"whole again", 3)
    assert net.until(lambda: len(voters(net.hosts[4])) == 3)


def test_12_a_new_cluster_by_force() -> None:
    """Its membership is itself: it leads at once, has what was committed, and takes others."""
    old = swarm(3)
    old.one(b"kept", 3)
    survivor = old.hosts[3]
    index = survivor.raft.log.applied
    state = Snapshot(index, survivor.storage.term(index), ConfState((3,)))
    net = Rough(1)
    net.hosts.clear()
    net.add(3)
    net.hosts[3] = Host(3, snapshot=state, term=survivor.raft.term)
    net.hosts[3].raft.campaign()
    net.rounds(1)
    assert net.hosts[3].raft.role is Role.LEADER
    assert net.hosts[3].raft.log.applied > index
    join(net, 8)
    join(net, 9)
    net.one(b"on", 3)
    assert {voters(host) for host in net.hosts.values()} == {(3, 8, 9)}


def test_13_a_joiner_that_never_answers() -> None:
    """It stays a learner and blocks nobody: not writes, not the next join, not an election."""
    net = swarm(1)
    change_in(net, change("l7"))
    net.one(b"on", 1)
    join(net, 2)
    join(net, 3)
    net.one(b"more", 3)
    leader = net.wait_leader()
    net.crash(leader)
    net.one(b"still", 2)


def test_14_a_refused_join_leaves_no_trace() -> None:
    """Whether a change could be made is asked before it is proposed: a no appends nothing."""
    net = swarm(1)
    host = net.hosts[1]
    before = (host.log(), host.raft.status().membership)
    with pytest.raises(ConfChangeRefused, match="the last voter cannot be removed"):
        host.raft.check_membership(change("r1"))
    net.rounds(10)
    assert (host.log(), host.raft.status().membership) == before


@pytest.mark.parametrize("seed", range(5))
def test_15_stress(seed: int) -> None:
    """Members are killed and restarted at random: a proposal that failed may be there later, one
    that was answered is, and all are equal at the end."""
    net = Rough(5, seed=seed, reliable=seed % 2 == 0)
    net.wait_leader()
    answered: list[bytes] = []
    for number in range(80):
        roll = net.rng.random()
        node = net.rng.choice(list(net.hosts))
        if roll < 0.15 and len(net.up()) > 3:
            net.crash(node)
        elif roll < 0.4:
            net.restart(node)
        data = b"%d" % number
        leader = net.leader()
        if leader is not None and net.propose(leader, data):
            net.rounds(net.rng.randrange(8))
            if net.agreed(data):
                answered.append(data)
        net.rounds(net.rng.randrange(5))
    net.reliable = True
    net.restart(*net.hosts)
    net.one(b"end", 5)
    final = [entry.data for _, entry in sorted(net.history.items())]
    assert [data for data in answered if data not in final] == []
    assert len(answered) > 20
    assert {host.raft.log.applied for host in net.hosts.values()} == {max(net.history)}


def test_17_snapshots_follow_each_other() -> None:
    """A newcomer starts from a snapshot and knows all members; the next replaces the first."""
    net = swarm(3)
    for number in range(10):
        net.one(b"%d" % number, 3)
    for host in net.hosts.values():
        host.compact()
    first = net.hosts[1].storage.snapshot()
    join(net, 4)
    joined = net.hosts[4]
    assert joined.storage.first_index() > 10
    assert set(voters(joined)) >= {1, 2, 3}
    net.one(b"more", 4)
    for host in net.hosts.values():
        host.compact()
    second = net.hosts[1].storage.snapshot()
    assert first is not None
    assert second is not None
    assert second.index > first.index
    assert second.conf_state.voters == (1, 2, 3, 4)
    assert all(host.log() == [] for host in net.hosts.values())


def test_18_a_member_added_while_another_was_down() -> None:
    """The one that was down gets a snapshot, and with it the right member set."""
    net = swarm(3)
    leader = net.wait_leader()
    down = next(node for node in net.hosts if node != leader)
    net.crash(down)
    join(net, 4)
    for node in net.up():
        net.hosts[node].compact()
    net.restart(down)
    assert voters(net.hosts[down]) == (1, 2, 3)
    net.one(b"after", 4)
    assert voters(net.hosts[down]) == (1, 2, 3, 4)
    assert net.hosts[down].storage.first_index() > 2


@pytest.mark.parametrize("size", [3, 5])
def test_21_who_can_be_removed(size: int) -> None:
    """For every combination of live and dead members: after one is removed the rest can write
    exactly if its living ones are a majority of it, and the leader can tell that before."""
    for dead in product([False, True], repeat=size - 1):
        silent = [node for node, is_dead in enumerate(dead, 2) if is_dead]
        if size - len(silent) < majority(size):
            continue  # no quorum, no leader, no removal
        for removed in range(2, size + 1):
            cluster = Cluster.founded(size, heartbeat_ticks=1)
            cluster.elect(1)
            cluster.cut(*silent)
            cluster.tick(1, times=12)
            progress = cluster.raft(1).status().progress
            alive = [
                node
                for node, each in progress.items()
                if node != removed and (each.recently_active or node == 1)
            ]
            assert set(alive) == set(progress) - set(silent) - {removed}
            cluster.change(1, change(f"r{removed}"))
            cluster.propose(1, b"after")
            writable = len(alive) >= majority(size - 1)
            assert (b"after" in cluster[1].data()) is writable, (silent, removed)
