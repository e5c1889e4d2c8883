"""The scenarios of hashicorp/raft's fuzzy tests, without processes: clients keep writing while
somebody moves leadership and members about, and what a client was answered is never missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from swarmctl.core.raft.errors import ConfChangeRefused, ProposalDropped
from swarmctl.core.raft.message import ConfChange, MessageKind
from tests.core.raft.cluster import change
from tests.core.raft.rough import Rough

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = pytest.mark.parametrize("seed", range(3))


class Clients:
    """Write something in every few rounds to whoever leads, and remember what was answered."""

    def __init__(self, net: Rough) -> None:
        self._net = net
        self._open: list[bytes] = []
        self._count = 0
        self.answered: list[bytes] = []

    def rounds(self, count: int) -> None:
        for _ in range(count):
            leader = self._net.leader()
            data = b"write %d" % self._count
            if leader is not None and self._net.propose(leader, data):
                self._count += 1
                self._open.append(data)
            self._net.rounds(1)
            done = [each for each in self._open if self._net.agreed(each)]
            self.answered += done
            self._open = [each for each in self._open if each not in done]

    def check(self, members: int) -> None:
        """In the end everybody has everything that was answered."""
        self._net.one(b"end", members)
        final = {entry.data for entry in self._net.history.values()}
        assert [data for data in self.answered if data not in final] == []
        assert len(self.answered) > 30


def alter(net: Rough, clients: Clients, step: str) -> None:
    """Make one membership change, over as many leaders as it takes."""
    wanted: ConfChange = change(step)
    node = int(step[1:])
    for _ in range(30):
        leader = net.hosts[net.wait_leader()].raft
        configuration = leader.tracker.configuration
        if node in (configuration.voters if step[0] == "v" else configuration.members):
            if step[0] != "r":
                return
        elif step[0] == "r":
            return
        try:
            leader.check_membership(wanted)
            leader.propose_membership(wanted)
        except (ConfChangeRefused, ProposalDropped):
            pass
        clients.rounds(10)
    raise AssertionError(f"{step} did not come through")


def play(size: int, seed: int, act: Callable[[Rough, Clients], int], **options: bool) -> None:
    """Let ``act`` do its worst between quiet times; it tells how many members there are then."""
    net = Rough(size, seed=seed, **options)
    net.wait_leader()
    clients = Clients(net)
    clients.rounds(20)
    members = act(net, clients)
    clients.rounds(20)
    net.slow.clear()
    net.reliable = True
    clients.check(members)


@SEEDS
def test_leadership_transfer(seed: int) -> None:
    """LeadershipTransfer: it goes round and round under load, and nothing answered is lost."""

    def act(net: Rough, clients: Clients) -> int:
        led = set()
        for _ in range(12):
            leader = net.wait_leader()
            led.add(leader)
            target = net.rng.choice([node for node in net.hosts if node != leader])
            net.hosts[leader].raft.transfer_leadership(target)
            clients.rounds(12)
        assert len(led) > 2
        return 5

    play(5, seed, act)


@SEEDS
def test_add_membership(seed: int) -> None:
    """AddMembership: three become seven under load, over a bad network."""

    def act(net: Rough, clients: Clients) -> int:
        for node in (4, 5, 6, 7):
            net.add(node)
            alter(net, clients, f"l{node}")
            clients.rounds(10)
            alter(net, clients, f"v{node}")
        return 7

    play(3, seed, act, reliable=False)


@SEEDS
def test_add_and_remove_members_that_do_not_lead(seed: int) -> None:
    """AddRemoveNodesNotLeader: newcomers replace followers one by one."""

    def act(net: Rough, clients: Clients) -> int:
        for node in (6, 7, 8):
            leader = net.wait_leader()
            victim = next(each for each in sorted(net.hosts) if each != leader)
            net.add(node)
            alter(net, clients, f"l{node}")
            alter(net, clients, f"v{node}")
            alter(net, clients, f"r{victim}")
            del net.hosts[victim]
        return 5

    play(5, seed, act)


@SEEDS
def test_remove_leader(seed: int) -> None:
    """RemoveLeader: whoever leads is removed, three times in a row."""

    def act(net: Rough, clients: Clients) -> int:
        for _ in range(3):
            leader = net.wait_leader()
            alter(net, clients, f"r{leader}")
            clients.rounds(30)
            del net.hosts[leader]
        return 2

    play(5, seed, act)


@SEEDS
def test_remove_a_partitioned_member(seed: int) -> None:
    """RemovePartitionedNode: it does not hear of its removal, and disturbs nobody when it is back.

    Its ids are answered by the transport ("removed"); the core owes it no more than silence.
    """

    def act(net: Rough, clients: Clients) -> int:
        leader = net.wait_leader()
        victim = next(node for node in net.hosts if node != leader)
        net.disconnect(victim)
        clients.rounds(40)
        alter(net, clients, f"r{victim}")
        net.connect(victim)
        term = net.hosts[net.wait_leader()].raft.term
        clients.rounds(100)
        assert net.hosts[net.wait_leader()].raft.term == term
        del net.hosts[victim]
        return 4

    play(5, seed, act)


@SEEDS
def test_leader_partitions(seed: int) -> None:
    """LeaderPartitions: leaders are cut off again and again, and come back."""

    def act(net: Rough, clients: Clients) -> int:
        for _ in range(8):
            leader = net.wait_leader()
            net.disconnect(leader)
            clients.rounds(30)
            net.connect(leader)
            clients.rounds(5)
        return 5

    play(5, seed, act)


@SEEDS
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param({MessageKind.VOTE, MessageKind.PRE_VOTE}, id="SlowSendVote"),
        pytest.param({MessageKind.VOTE_RESPONSE, MessageKind.PRE_VOTE_RESPONSE}, id="SlowRecvVote"),
    ],
)
def test_slow_votes(seed: int, kinds: set[MessageKind]) -> None:
    """SlowSendVote, SlowRecvVote: with votes late by most of a timeout leaders are still found."""

    def act(net: Rough, clients: Clients) -> int:
        net.slow |= kinds
        for _ in range(4):
            leader = net.wait_leader()
            net.crash(leader)
            clients.rounds(60)
            net.restart(leader)
        return 5

    play(5, seed, act)
