"""A manager: the product's runner, store, proposer and reconcilers, driven by the queue.

What the product's shells do with trio, this does in events: hand the runner its messages, ticks and
the disk's answers, and let it take its turn; after the turn tell whoever waited, and give each
reconciler whose mailbox has something a pass soon after. The order inside a turn, the judging of
transactions, the batching of entries and the passes are the product's own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio

from swarmctl.core.errors import LostLeadership, NoLeader
from swarmctl.core.manager.passes import Passes
from swarmctl.core.manager.pipeline import reconcilers
from swarmctl.core.manager.propose import Proposer, TableMachine, TableSnapshot, _encode
from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.raft.message import ConfState, MessageKind, Snapshot
from swarmctl.core.raft.raft import Raft
from swarmctl.core.raft.runner import Runner
from swarmctl.core.raft.waiting import Proposal, Reception, WaitingRead
from swarmctl.core.store.dump import load
from swarmctl.core.store.store import Store
from swarmctl.core.store.watch import Mailbox, Watch
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.subnets import SubnetAllocator
from tests.sim.disk import Platter, SimDisk
from tests.sim.dispatch import Dispatcher
from tests.sim.membership import Membership
from tests.sim.queue import MS, Scope, Wait
from tests.sim.transfer import Transfer

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from swarmctl.core.manager.passes import Reconciler
    from swarmctl.core.model.change import Ref, Result, Transaction
    from swarmctl.core.raft.message import ConfChange, Message
    from swarmctl.core.store.store import Outcome
    from swarmctl.core.store.view import View
    from tests.sim.cluster import Cluster
    from tests.sim.host import Host


class SimRunner(Runner):
    """The product's runner without its loop: whoever feeds it calls :meth:`turn`."""

    def begin(self) -> None:
        self._running = True
        if self._conf_state.voters == (self._raft.id,):
            self._raft.campaign()

    @property
    def raft(self) -> Raft:
        return self._raft

    @property
    def applied(self) -> int:
        return self._applied

    @property
    def has_work(self) -> bool:
        return self._work.is_set()

    def turn(self) -> None:
        """Take in what is there and do all that follows from it."""
        self._work = trio.Event()
        self._take_in()
        while self._raft.has_ready():
            self._handle(self._raft.ready())
            self._take_in()

    def tick(self) -> None:
        self._ticking = True
        self._kick()

    def read(self) -> WaitingRead:
        """Ask from when on a read is linearizable; see ``wait_readable``."""
        self._read_count += 1
        context = self._read_count.to_bytes(8, "big")
        read = self._reads[context] = WaitingRead()
        self._raft.read_index(context)
        self._kick()
        return read

    def reconfigure(self, change: ConfChange) -> Proposal:
        """Propose a membership change; see ``change_membership``."""
        self._raft.check_membership(change)
        self._raft.propose_membership(change)
        return self._await_last()

    def transfer(self, member: int) -> None:
        self._raft.transfer_leadership(member)
        self._kick()

    def expect(self, stamp: bytes) -> Reception | None:
        """Return what takes a snapshot's chunks, None while another is being put in place."""
        if self._installing is not None:
            return None
        if self._incoming is None or self._incoming.stamp != stamp:
            self._incoming = Reception(stamp, self._machine.receive())
        return self._incoming

    def arrived(self, reception: Reception, message: Message) -> None:
        """All chunks of a snapshot are on our disk."""
        self._incoming = None
        self._installing = reception
        reception.message = message
        self._inbox.append(message)
        self._kick()


class _Incoming(TableSnapshot):
    """The product's dump on its way in; the checkers see what it brings."""

    def __init__(self, manager: Manager) -> None:
        super().__init__(manager.store, manager.watch)
        self._manager = manager

    def install(self) -> None:
        super().install()
        self._manager.cluster.counts["snapshots installed"] += 1
        self._manager.cluster.checks.loaded(self._manager)


class SimMachine(TableMachine):
    """The product's state machine, which shows the checkers what it does."""

    def __init__(self, manager: Manager, store: Store, watch: Watch) -> None:
        super().__init__(store, watch)
        self._manager = manager

    def apply(self, index: int, data: bytes) -> Outcome:
        outcome = super().apply(index, data)
        self._manager.cluster.checks.applied(self._manager, index, data, outcome)
        return outcome

    def skip(self, index: int) -> None:
        super().skip(index)
        self._manager.cluster.checks.skipped(self._manager, index)

    def receive(self) -> TableSnapshot:
        return _Incoming(self._manager)


class SimProposer(Proposer):
    """The product's batching; a script awaits it."""

    def __init__(self, manager: Manager) -> None:
        super().__init__(manager.runner, manager.host)
        self._manager = manager
        self._waiting: list[tuple[Any, Wait[tuple[Result, ...]]]] = []

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        manager = self._manager
        encoded = [_encode(transaction, self._clock.now()) for transaction in transactions]
        tickets = [self._join(each) for each in encoded]
        mine = list(dict.fromkeys(batch for batch, _ in tickets))
        await manager.scope.sleep(manager.cluster.rng.random() * 0.5 * MS)
        for batch in mine:
            self._send(batch)
        manager.kick()
        for batch in mine:
            wait: Wait[tuple[Result, ...]] = Wait()
            self._waiting.append((batch, wait))
            self.look()
            await wait
        return tuple(batch.results[place] for batch, place in tickets)

    def look(self) -> None:
        """Tell those whose entry's fate is known."""
        if not self._waiting:
            return
        still = []
        over = []
        for ticket in self._waiting:
            batch = ticket[0]
            known = batch.failure is not None or batch.proposal._done.is_set()
            (over if known else still).append(ticket)
        self._waiting = still
        for batch, wait in over:
            counts = self._manager.cluster.counts
            if batch.failure is not None:
                counts["proposals dropped"] += isinstance(batch.failure, ProposalDropped)
                wait.fail(batch.failure)
            elif batch.proposal._lost:
                counts["writes lost with leadership"] += 1
                wait.fail(LostLeadership("leadership was lost"))
            else:
                batch.results = batch.proposal._result.results
                wait.resolve(batch.results)


class SimLoop:
    """One reconciler for one term of leadership: the product's passes on the queue."""

    def __init__(self, manager: Manager, reconciler: Reconciler, scope: Scope) -> None:
        self._manager = manager
        self._scope = scope
        self._passes = Passes(reconciler, manager.cluster.new_id)
        self._mailbox = Mailbox()
        manager.watch._mailboxes[self._mailbox] = None
        self._busy = False
        self._wake_at: int | None = None
        self._wall_ns = manager.host.wall_ns

    def close(self) -> None:
        self._manager.watch._mailboxes.pop(self._mailbox, None)

    def look(self) -> None:
        """Have a pass soon if anything was touched."""
        if not self._busy and self._mailbox._event.is_set():
            self._busy = True
            self._scope.after(self._manager.cluster.rng.random() * MS, self._start)

    def _start(self) -> None:
        self._scope.start(self._pass())

    def _woken(self, at: int) -> None:
        if self._wake_at == at and not self._busy:
            self._busy = True
            self._start()

    async def _pass(self) -> None:
        manager, passes = self._manager, self._passes
        now = manager.host.now()
        self._wake_at = None
        touched = self._mailbox.take()
        if touched is not None:  # a set's own order is not the same in every process
            by_name = sorted(touched, key=lambda ref: (ref.kind.value, ref.id))
            touched = cast("set[Ref]", dict.fromkeys(by_name).keys())
        if manager.host.wall_ns != self._wall_ns:
            self._wall_ns = manager.host.wall_ns
            passes.ask_again()
        due = passes.due(manager.store.view, touched, now)
        overlay = manager.store.view.overlay()
        wanted: dict[str, tuple[Transaction, ...]] = {}
        for key in due:
            transactions = passes.decide(overlay, key, now)
            if transactions:
                wanted[key] = transactions
        if wanted:
            await self._propose(wanted)
        self._busy = False
        self._sleep()

    async def _propose(self, wanted: dict[str, tuple[Transaction, ...]]) -> None:
        manager, passes = self._manager, self._passes
        try:
            results = await manager.proposer.propose(
                [each for key in wanted for each in wanted[key]]
            )
        except ProposalDropped:
            for key in wanted:
                passes.put_off(key, manager.host.now())
            return
        except (NoLeader, LostLeadership):
            await Wait()  # the term is about to end
        start = 0
        for key, transactions in wanted.items():
            end = start + len(transactions)
            passes.take_results(key, results[start:end], manager.host.now())
            start = end

    def _sleep(self) -> None:
        self.look()
        at = self._passes.wake_at()
        if at is not None and not self._busy:
            self._wake_at = at
            self._scope.after(max(0, at - self._manager.host.now()), self._woken, at)


class Term:
    """What runs while a manager leads."""

    def __init__(self, manager: Manager) -> None:
        self.scope = Scope(manager.cluster.queue)
        self.dispatcher = Dispatcher(manager, self.scope)
        self.membership: Membership | None = None
        if manager.cluster.options.membership == "roles":
            self.membership = Membership(manager, self.scope)
        self.loops = [SimLoop(manager, one, self.scope) for one in manager.reconcilers]

    def look(self) -> None:
        for loop in self.loops:
            loop.look()
        self.dispatcher.look()

    def end(self) -> None:
        self.scope.cancel()
        for loop in self.loops:
            loop.close()
        self.dispatcher.close()


class Manager:
    """A manager from start to crash.

    Attributes:
        term: what it does as a leader; None while it does not lead.
        heard: when something came from which member last.
    """

    def __init__(self, cluster: Cluster, host: Host, raft_id: int, platter: Platter) -> None:
        self.cluster = cluster
        self.host = host
        self.raft_id = raft_id
        self.scope = Scope(cluster.queue)
        self.disk = SimDisk(platter, self.scope, cluster.rng)
        self.disk.slowness_ns = cluster.options.disk_ms * MS
        self.store = Store()
        self.watch = Watch()
        if platter.chunks:
            load(self.store, platter.chunks)
            cluster.checks.loaded(self)
        self.watch.index = self.store.index
        self.machine = SimMachine(self, self.store, self.watch)
        snapshot = self.disk.log.snapshot()
        config = RaftConfig(
            **cluster.options.raft, applied=snapshot.index if snapshot is not None else 0
        )
        rng: random.Random = cluster.fork()
        self.runner = SimRunner(
            Raft(raft_id, self.disk.log, config, rng),
            self.disk,  # type: ignore[arg-type] # all that a runner asks of one
            self.machine,
            self._send,
            snapshot_interval=cluster.options.snapshot_interval,
            keep_entries=cluster.options.keep_entries,
        )
        self.proposer = SimProposer(self)
        self.reconcilers = tuple(
            map(cluster.checks.watched, reconcilers(SpreadScheduler(), SubnetAllocator()))
        )
        self.term: Term | None = None
        self.led_term = 0
        self.heard: dict[int, int] = {}
        self._reads: list[tuple[WaitingRead, Wait[None]]] = []
        self._turning = False
        self.disk.on_report = self.kick
        self.disk.on_write = lambda message: cluster.checks.written(raft_id, platter, message)
        self.runner.begin()
        self._tick()
        self.kick()

    # --- what it is ---

    @property
    def raft(self) -> Raft:
        return self.runner.raft

    @property
    def view(self) -> View:
        return self.store.view

    @property
    def leads(self) -> bool:
        return self.runner.leading

    @property
    def membership(self) -> ConfState:
        return self.runner.membership

    # --- what happens to it ---

    def stop(self) -> int:
        """End at once; return how many writes are lost."""
        lost = self.disk.crash()
        self.scope.cancel()
        if self.term is not None:
            self.term.end()
            self.term = None
        return lost

    def receive(self, message: Message) -> None:
        """Take in a message from another member."""
        if not self.scope.alive:
            return
        if message.sender in self.runner.removed:
            self.cluster.tell_removed(self, message.sender)
            return
        self.heard[message.sender] = self.cluster.queue.now
        self.runner.receive(message)
        self.kick()

    def kick(self) -> None:
        """Let the runner take its turn, and another for whatever that led to."""
        if self._turning:
            return
        self._turning = True
        while self.runner.has_work and self.scope.alive:
            self._turn()
        self._turning = False

    def _tick(self) -> None:
        self.runner.tick()
        self.kick()
        self.scope.after(self.cluster.options.tick_ns * self.host.rate, self._tick)

    def _turn(self) -> None:
        runner = self.runner
        runner.turn()
        self.cluster.checks.look(self)
        if runner.leading != (self.term is not None):
            self._change_term()
        self.proposer.look()
        self._answer_reads()
        if self.term is not None:
            self.term.look()
        if self.raft_id in runner.removed and self.raft_id not in _members(runner.membership):
            self.cluster.queue.after(50 * MS, self.host.stop_manager, self)

    def _change_term(self) -> None:
        if self.term is not None:
            self.term.end()
            self.term = None
        if self.runner.leading:
            self.cluster.note("%s leads term %d", self.host.name, self.raft.term)
            self.term = Term(self)

    # --- reads ---

    async def read(self) -> View:
        """Return the tables once reading them is linearizable."""
        if not self.runner.leading:
            raise NoLeader
        read = self.runner.read()
        wait: Wait[None] = Wait()
        self._reads.append((read, wait))
        self.kick()
        await wait
        if read.lost:
            raise NoLeader
        return self.view

    def _answer_reads(self) -> None:
        if not self._reads:
            return
        over = [each for each in self._reads if each[0].done.is_set()]
        self._reads = [each for each in self._reads if not each[0].done.is_set()]
        for _, wait in over:
            wait.resolve(None)

    # --- what it sends ---

    def _send(self, message: Message) -> None:
        self.cluster.checks.sends(self, message)
        if message.kind is MessageKind.SNAPSHOT:
            assert isinstance(message.snapshot, Snapshot)
            Transfer(self, message).begin()
        else:
            self.cluster.post(self, message)


def _members(state: ConfState) -> set[int]:
    return {*state.voters, *state.learners, *state.voters_outgoing}
