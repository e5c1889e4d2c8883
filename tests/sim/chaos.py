"""What goes wrong, and when: crashes, cuts, storms, clocks; and changes of the membership."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.errors import SwarmError
from swarmctl.core.model.change import Transaction, Update
from swarmctl.core.model.task import TaskState
from swarmctl.core.raft.errors import ConfChangeRefused, ProposalDropped
from swarmctl.core.raft.message import ChangeKind, ConfChange, MemberChange, Transition
from tests.sim.noderows import as_manager
from tests.sim.options import HOUR_NS
from tests.sim.queue import MS, S, Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.cluster import Cluster
    from tests.sim.host import Host
    from tests.sim.member import Manager

MEMBERS_MAX = 6
VOTERS_MIN = 3


class Chaos:
    """Breaks and mends things until its scope ends."""

    def __init__(self, cluster: Cluster, scope: Scope) -> None:
        self._cluster = cluster
        self._rng = cluster.rng
        self._counts = cluster.counts
        self._scope = Scope(cluster.queue)
        options = cluster.options
        faults: list[tuple[Callable[[], None], float]] = [
            (self._kill, 3),
            (self._power_off, 1),
            (self._restart, 1.5),
            (self._kill_leader, 2),
            (self._cut_one_way, 3),
            (self._isolate, 1.5),
            (self._split, 1),
            (self._storm, 2),
            (self._slow_disk, 1),
            (self._fill_disk, 0.7),
            (self._transfer, 2),
            (self._campaign, 0.3),
            (self._exit_container, 9),
            (self._newcomer, 1),
            (self._jump, 1.5 if options.jumps else 0),
        ]
        self._faults = [fault for fault, _ in faults]
        self._weights = [weight for _, weight in faults]
        self._newcomers = options.newcomers
        self._calm_weather()
        self._next_fault()
        if options.membership == "direct":
            self._next_change()

    def stop(self) -> None:
        """No more faults; mend the network. Hosts that are down stay so."""
        self._scope.cancel()
        self._cluster.network.heal()
        weather = self._cluster.network.weather
        weather.loss = weather.doubling = weather.reordering = weather.slowness = 0.0

    def _next_fault(self) -> None:
        gap = self._rng.expovariate(1 / (self._cluster.options.fault_gap_ms * MS))
        if self._rng.random() < 0.06:
            gap += self._rng.uniform(1, 4) * S  # a calm in which something gets done
        self._scope.after(gap, self._fault)

    def _fault(self) -> None:
        (fault,) = self._rng.choices(self._faults, self._weights)
        fault()
        self._next_fault()

    def _host(self) -> Host:
        return self._rng.choice(list(self._cluster.hosts.values()))

    # --- hosts ---

    def _newcomer(self) -> None:
        """A machine joins that was never seen before."""
        if self._newcomers:
            self._newcomers -= 1
            self._cluster.admit(f"h{len(self._cluster.hosts)}")

    def _down(self, host: Host, what: str, *, farewell: bool = False, power: bool = False) -> None:
        if not host.up:
            return
        manager = host.manager
        if manager is not None and manager.raft.transferee:
            self._counts["crashes in a transfer"] += 1
        if manager is not None and manager.membership.voters_outgoing:
            self._counts["crashes in a joint membership"] += 1
        self._cluster.note("%s: %s", host.name, what)
        lost = host.stop(farewell=farewell, power=power)
        self._counts[what] += 1
        self._counts["writes lost"] += lost
        longest = 7 if farewell else 4
        away_s = self._rng.uniform(0.1, 1) * self._rng.uniform(0.1, longest)
        self._cluster.queue.after(away_s * S, self._up, host)

    def _up(self, host: Host) -> None:
        if not host.up:
            self._cluster.note("%s starts", host.name)
            self._counts["restarts"] += 1
            host.start()

    def _kill(self) -> None:
        self._down(self._host(), "daemon killed")

    def _power_off(self) -> None:
        self._down(self._host(), "power lost", power=True)

    def _restart(self) -> None:
        self._down(self._host(), "daemon stopped", farewell=True)

    def _kill_leader(self) -> None:
        leader = self._cluster.leader()
        if leader is not None:
            self._counts["leaders killed"] += 1
            self._down(leader.host, "daemon killed")

    def _slow_disk(self) -> None:
        manager = self._host().manager
        if manager is not None:
            self._counts["disks slow"] += 1
            manager.disk.slowness_ns = self._rng.choice([50, 300]) * MS
            usual = self._cluster.options.disk_ms * MS
            after = self._rng.uniform(0.5, 3) * S
            self._scope.after(after, setattr, manager.disk, "slowness_ns", usual)

    def _fill_disk(self) -> None:
        """Leave a manager no room: it accepts no change until there is some again."""
        manager = self._host().manager
        if manager is not None:
            self._counts["disks full"] += 1
            manager.disk.complaint = "the disk is full"
            after = self._rng.uniform(0.3, 2) * S
            self._cluster.queue.after(after, setattr, manager.disk, "complaint", "")

    def _jump(self) -> None:
        host = self._host()
        host.wall_ns += self._rng.choice([-HOUR_NS, HOUR_NS, 10 * S, -10 * S])
        self._cluster.note("%s: its clock jumps", host.name)
        self._counts["clocks jumped"] += 1

    def _exit_container(self) -> None:
        busy = [each for each in self._cluster.hosts.values() if each.agent and each.containers]
        if not busy:
            return
        host = self._rng.choice(busy)
        task_id = self._rng.choice(list(host.containers))
        del host.containers[task_id]
        self._counts["containers ended"] += 1
        runner = host.agent.runners.get(task_id) if host.agent is not None else None
        if runner is not None and runner.status.State is TaskState.RUNNING:
            runner.exited(self._rng.choice([0, 1, 1]))

    # --- the network ---

    def _calm_weather(self) -> None:
        options, weather = self._cluster.options, self._cluster.network.weather
        weather.loss = options.loss * self._rng.random()
        weather.slowness = options.slowness
        weather.doubling = self._rng.choice([0.0, 0.01, 0.05])
        weather.reordering = self._rng.choice([0.0, 0.02, 0.2])

    def _storm(self) -> None:
        weather = self._cluster.network.weather
        weather.loss = self._rng.choice([0.1, 0.3, 0.5])
        weather.doubling = weather.reordering = 0.2
        self._counts["storms"] += 1
        self._scope.after(self._rng.uniform(0.3, 3) * S, self._calm_weather)

    def _cut(self, links: list[tuple[str, str]]) -> None:
        self._cluster.network.cut(links)
        self._scope.after(
            self._rng.uniform(0.1, 1) * self._rng.uniform(0.1, 4) * S, self._mend, links
        )

    def _mend(self, links: list[tuple[str, str]]) -> None:
        self._cluster.network.cuts.difference_update(links)

    def _cut_one_way(self) -> None:
        one, other = self._host().name, self._host().name
        self._counts["links cut one way"] += one != other
        self._cut([(one, other)])

    def _isolate(self) -> None:
        leader = self._cluster.leader()
        host = self._host().name
        if leader is not None and self._rng.random() < 0.3:
            host = leader.host.name
        self._counts["leaders cut off"] += leader is not None and leader.host.name == host
        self._cluster.note("%s is cut off", host)
        self._counts["hosts cut off"] += 1
        everybody = list(self._cluster.hosts)
        links = [(host, each) for each in everybody] + [(each, host) for each in everybody]
        self._cut(links)

    def _split(self) -> None:
        names = list(self._cluster.hosts)
        self._rng.shuffle(names)
        half = self._rng.randrange(1, len(names))
        one, other = names[:half], names[half:]
        self._cluster.note("split: %s | %s", one, other)
        self._counts["partitions"] += 1
        self._cut([link for a in one for b in other for link in ((a, b), (b, a))])

    # --- consensus ---

    def _transfer(self) -> None:
        leader = self._cluster.leader()
        if leader is not None and leader.membership.voters:
            target = self._rng.choice(leader.membership.voters)
            leader.runner.transfer(target)
            leader.kick()
            self._counts["transfers"] += 1

    def _campaign(self) -> None:
        manager = self._host().manager
        if manager is not None:
            manager.raft.campaign()
            manager.runner._kick()
            manager.kick()

    # --- membership ---

    def _next_change(self) -> None:
        self._scope.after(self._rng.expovariate(1 / (0.5 * S)), self._change)

    def _change(self) -> None:
        leader = self._cluster.leader()
        if leader is not None and not correct_roles(leader):
            self._change_membership(leader)
        self._next_change()

    def _change_membership(self, leader: Manager) -> None:
        state = leader.membership
        rng = self._rng
        if state.voters_outgoing:
            if not state.auto_leave:
                self._reconfigure(leader, ConfChange())
            return
        members = [*state.voters, *state.learners]
        joinable = [host for host in self._cluster.hosts.values() if not host.raft_id and host.up]
        roll = rng.random()
        caught_up = [each for each in state.learners if _is_caught_up(leader, each)]
        if caught_up and roll < 0.7:
            steps = [MemberChange(ChangeKind.ADD_VOTER, caught_up[0])]
            transition = Transition.AUTO
            if len(state.voters) > VOTERS_MIN and rng.random() < 0.6:
                gone = rng.choice(state.voters)
                steps.append(MemberChange(ChangeKind.REMOVE, gone))
                transition = rng.choice([Transition.JOINT_IMPLICIT, Transition.JOINT_EXPLICIT])
            elif rng.random() < 0.5:
                transition = rng.choice([Transition.JOINT_IMPLICIT, Transition.JOINT_EXPLICIT])
            self._reconfigure(leader, ConfChange(tuple(steps), transition))
        elif joinable and len(members) < MEMBERS_MAX and roll < 0.85:
            host = rng.choice(joinable)
            raft_id = self._cluster.new_raft_id()
            step = MemberChange(ChangeKind.ADD_LEARNER, raft_id)
            if self._reconfigure(leader, ConfChange((step,))):
                self._cluster.join(host, raft_id)
                self._counts["learners added"] += 1
        elif len(state.voters) > VOTERS_MIN:
            gone = rng.choice(state.voters)
            self._reconfigure(leader, ConfChange((MemberChange(ChangeKind.REMOVE, gone),)))

    def _reconfigure(self, leader: Manager, change: ConfChange) -> bool:
        try:
            leader.runner.reconfigure(change)
        except (ConfChangeRefused, ProposalDropped):
            return False
        self._cluster.note("%s proposes %s", leader.host.name, change)
        leader.kick()
        for step in change.changes:
            if step.kind is ChangeKind.REMOVE:
                self._counts["removals"] += 1
            elif step.kind is ChangeKind.ADD_VOTER:
                self._counts["learners promoted"] += 1
        return True


def correct_roles(leader: Manager) -> bool:
    """Have nodes' rows say who is a manager; return whether they did not."""
    cluster = leader.cluster
    state = leader.membership
    members = {*state.voters, *state.learners, *state.voters_outgoing}
    updates = []
    for row in leader.view.nodes():
        host = cluster.hosts.get(row.api.ID)  # a newcomer's row is there before the newcomer
        raft_id = host.raft_id if host is not None and host.raft_id in members else 0
        if row.private.raft_id != raft_id:
            updates.append(Update(row=as_manager(row, raft_id)))

    async def write() -> None:
        try:
            await leader.proposer.propose([Transaction(changes=(each,)) for each in updates])
        except SwarmError:
            return  # somebody looks again

    if updates:
        leader.scope.start(write())
    return bool(updates)


def _is_caught_up(leader: Manager, member: int) -> bool:
    progress = leader.raft.tracker.progress.get(member)
    return progress is not None and progress.match + 5 >= leader.raft.log.last_index
