"""A host: its clocks, its disks, what runs on it, and what it knows after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.agent import Agent
from tests.sim.disk import Platter
from tests.sim.member import Manager
from tests.sim.noderows import describe

if TYPE_CHECKING:
    from tests.sim.agent import Remembered
    from tests.sim.cluster import Cluster

EPOCH_NS = 1_700_000_000 * 1_000_000_000


class Host:
    """A machine with a node's daemon on it.

    Attributes:
        rate: how long this host's seconds are; its timers run by it.
        wall_ns: how far its wall clock is off.
        platter: its Raft database; None for one that is no manager.
        containers: tasks whose containers run; they outlive the daemon.
        table: the tasks that the agent remembers.
        managers_known: where to look for a leader.
        founded: it was there from the beginning.
    """

    def __init__(self, cluster: Cluster, name: str, rate: float, wall_ns: int) -> None:
        self.name = name
        self.rate = rate
        self.wall_ns = wall_ns
        self.raft_id = 0
        self.platter: Platter | None = None
        self.manager: Manager | None = None
        self.agent: Agent | None = None
        self.containers: dict[str, None] = {}
        self.table: dict[str, Remembered] = {}
        self.managers_known: list[str] = []
        self.founded = True
        self.description = describe(name)
        self._cluster = cluster

    @property
    def up(self) -> bool:
        return self.agent is not None

    def now(self) -> int:
        """The wall clock, in nanoseconds; for whoever wants a Clock."""
        return EPOCH_NS + self.wall_ns + int(self._cluster.queue.now * self.rate)

    def start(self) -> None:
        """Start the daemon with what is on the disks."""
        if self.platter is not None:
            self.manager = Manager(self._cluster, self, self.raft_id, self.platter)
        self.agent = Agent(self._cluster, self)

    def become_manager(self, raft_id: int, platter: Platter | None = None) -> None:
        """Become a member of consensus that nobody knew before, while the daemon runs."""
        self.raft_id = raft_id
        self.platter = platter or Platter()
        if self.up:
            self.manager = Manager(self._cluster, self, raft_id, self.platter)

    def stop_manager(self, manager: Manager | None = None) -> None:
        """Stop being a manager and forget its database, as a removed member does."""
        if manager is not None and manager is not self.manager:
            return
        if self.manager is not None:
            self.manager.stop()
            self.manager = None
        self.platter = None
        self.raft_id = 0
        if self.agent is not None:
            self.agent.removed()

    def stop(self, *, farewell: bool = False, power: bool = False) -> int:
        """End the daemon; return how many of the manager's writes are lost.

        Args:
            farewell: on purpose, with a word to the dispatcher.
            power: the whole host goes, and its containers with it.
        """
        lost = 0
        if self.agent is not None:
            self.agent.stop(farewell=farewell, power=power)
            self.agent = None
        if self.manager is not None:
            lost = self.manager.stop()
            self.manager = None
        if power:
            self.containers.clear()
        return lost
