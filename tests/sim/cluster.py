"""A whole cluster on one seeded queue.

    Cluster
    ├ Queue        time, and the order of everything
    ├ Network      datagrams and streams, with weather and cuts
    ├ Host ...     clock, disks, containers
    │ ├ Manager    the product's runner, store, proposer, reconcilers; a leader's dispatcher
    │ └ Agent      sessions, tasks
    ├ Client ...   writes and reads with retries
    ├ Chaos        what goes wrong
    └ Checks       what is never seen

One step is one event of the queue.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, deque
from typing import TYPE_CHECKING

from swarmctl.core.errors import NoLeader, SwarmError
from swarmctl.core.model.change import Create, Entry, Transaction
from swarmctl.core.model.session import Register
from swarmctl.core.raft.message import ConfState, Snapshot
from swarmctl.core.store.dump import dump
from swarmctl.core.store.indexes import ref_of
from swarmctl.core.store.store import Store
from tests.sim.chaos import Chaos
from tests.sim.checks import Broken, Checks
from tests.sim.clients import Client, Front, Request
from tests.sim.disk import Platter
from tests.sim.dispatch import Refused
from tests.sim.host import Host
from tests.sim.network import Network
from tests.sim.noderows import cluster_row, node_row
from tests.sim.options import choose
from tests.sim.queue import Queue, S, Scope, Wait
from tests.sim.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarmctl.core.raft.message import Message
    from tests.sim.member import Manager
    from tests.sim.network import Stream

CLIENTS = 3
TRACE = 60
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Cluster:
    """One seed's cluster, founded and running.

    Args:
        seed: everything random comes from it.

    Attributes:
        steps: how many events happened under faults.
        counts: how often what happened.
        bad_images: how often a task cannot be prepared.
        open_for_clients: clients begin new calls.
        pending_requests: writes without an answer.
        broken_transfers: members that a snapshot did not reach, by number.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.options = choose(self.rng)
        self.steps = 0
        self.queue = Queue()
        self.network = Network(self.queue, self.rng, self.counts)
        self.bad_images = 0.03
        self.open_for_clients = True
        self.pending_requests = 0
        self.broken_transfers: dict[int, bool] = {}
        self.trace: deque[tuple[int, str, tuple[object, ...]]] = deque(maxlen=TRACE)
        self.members: dict[int, Host] = {}
        self.scope = Scope(self.queue)
        self.checks = Checks(self, 1)
        options = self.options
        agree = options.skews_ns <= S and options.drift < 0.01 and not options.jumps
        self.checks.tables.clocks_agree = agree
        self._raft_ids = 0
        self.hosts: dict[str, Host] = {}
        self._found()
        self.clients = [Client(self, f"c{each}", self.scope) for each in range(CLIENTS)]
        self.chaos = Chaos(self, self.scope)

    # --- the run ---

    def run(self, steps: int) -> None:
        """Let ``steps`` events happen, then stop all faults and see that all comes to rest.

        Raises:
            Broken: with the seed and the last events in its text.
        """
        quiet, logging.root.manager.disable = logging.root.manager.disable, logging.CRITICAL
        try:
            for _ in range(steps):
                self.queue.step()
                self.steps += 1
            Settling(self).run()
            self.counts["tasks evicted"] = self.checks.tables.evictions
            self.counts["ready tasks taken"] = self.checks.tables.floors
        except Exception as error:
            text = f"seed {self.seed}, step {self.steps}: {type(error).__name__}: {error}"
            raise Broken(f"{text}\n{self.story()}") from error
        finally:
            logging.root.manager.disable = quiet

    def note(self, text: str, *args: object) -> None:
        """Add a line to the trace; it is formatted only for a failure."""
        self.trace.append((self.queue.now, text, args))

    def story(self) -> str:
        """Return the last events as text."""
        return "\n".join(f"  {at / S:9.4f}  {text % args}" for at, text, args in self.trace)

    # --- founding ---

    def _found(self) -> None:
        options = self.options
        names = [f"h{each}" for each in range(options.managers + options.workers)]
        for name in names:
            self._add_host(name)
        managers = names[: options.managers]
        store = Store()
        rows = [cluster_row(options.heartbeat_ns, options.history)]
        ids = {name: self.new_raft_id() for name in managers}
        rows += [node_row(name, ids.get(name, 0)) for name in names]
        changes = tuple(Create(row=row) for row in rows)
        store.apply(1, Entry(transactions=(Transaction(changes=changes),)))
        found, _ = store.contents()
        self.checks.tables.found(found, [ref_of(row) for row in found])
        snapshot = Snapshot(index=1, term=1, conf_state=ConfState(voters=tuple(ids.values())))
        for name, raft_id in ids.items():
            platter = Platter()
            platter.bootstrap(snapshot, tuple(dump(store)))
            self.join(self.hosts[name], raft_id, platter)
        for host in self.hosts.values():
            host.managers_known = list(managers)
            host.start()

    def _add_host(self, name: str) -> Host:
        options, rng = self.options, self.rng
        rate = 1 + rng.uniform(-options.drift, options.drift)
        host = Host(self, name, rate, int(rng.uniform(-1, 1) * options.skews_ns))
        self.hosts[name] = host
        return host

    def admit(self, name: str) -> None:
        """Let a new machine join: its node's row comes first, with its certificate."""
        self.scope.start(self._admit(name))

    async def _admit(self, name: str) -> None:
        await self.clients[0].write(Request(f"join-{name}", "join", name))
        self.note("%s joins", name)
        self.counts["nodes that joined"] += 1
        host = self._add_host(name)
        host.founded = False
        host.managers_known = [manager.host.name for manager in self.managers()]
        host.start()

    def join(self, host: Host, raft_id: int, platter: Platter | None = None) -> None:
        """Make a host a member of consensus under a number that was never used."""
        self.members[raft_id] = host
        host.become_manager(raft_id, platter)

    def new_raft_id(self) -> int:
        self._raft_ids += 1
        return self._raft_ids

    def new_id(self) -> str:
        """Return a fresh id whose order says nothing, like the product's."""
        number = self.rng.getrandbits(50)
        digits = []
        for _ in range(10):
            number, rest = divmod(number, 36)
            digits.append(_DIGITS[rest])
        return "".join(digits)

    def fork(self) -> random.Random:
        """Return a generator of its own for one part."""
        return random.Random(self.rng.getrandbits(64))

    # --- who is there ---

    def member(self, raft_id: int) -> Manager | None:
        """Return a member of consensus if it is running."""
        host = self.members.get(raft_id)
        manager = host.manager if host is not None else None
        return manager if manager is not None and manager.raft_id == raft_id else None

    def managers(self) -> list[Manager]:
        return [host.manager for host in self.hosts.values() if host.manager is not None]

    def leader(self) -> Manager | None:
        """Return who leads in the latest term, as an onlooker sees it."""
        leading = [manager for manager in self.managers() if manager.leads]
        return max(leading, key=lambda manager: manager.raft.term, default=None)

    # --- messages ---

    def post(self, manager: Manager, message: Message) -> None:
        """Carry a message of consensus."""
        host = self.members.get(message.to)
        if host is not None:
            self.network.send(manager.host.name, host.name, self._deliver, message)

    def _deliver(self, message: Message) -> None:
        manager = self.member(message.to)
        if manager is not None:
            manager.receive(message)

    def tell_removed(self, manager: Manager, raft_id: int) -> None:
        """Tell a member that it was removed; its next message asks again."""
        host = self.members[raft_id]
        self.network.send(manager.host.name, host.name, self._removed, host, raft_id)

    def _removed(self, host: Host, raft_id: int) -> None:
        if host.raft_id == raft_id:
            self.counts["removed members told"] += 1
            host.stop_manager()

    def dial(self, source: Host, target: str) -> Stream:
        """Open a stream from an agent to a manager's dispatcher."""
        mine, theirs = self.network.open(source.name, target)
        theirs.on_message = lambda message: self._register(theirs, source.name, message)
        return mine

    def _register(self, stream: Stream, node_id: str, message: object) -> None:
        host = self.hosts.get(stream.host)
        manager = host.manager if host is not None else None
        if manager is None or manager.term is None or not isinstance(message, Register):
            leader = self.members.get(manager.runner.leader) if manager is not None else None
            hint = leader.name if leader is not None else ""
            stream.send(Refused("this manager does not lead", hint))
            stream.close()
            return
        manager.term.dispatcher.open(stream, node_id, message)

    def ask(self, source: str, target: str, method: str, argument: object) -> Wait:  # type: ignore[type-arg]
        """Call a manager's API; never answered when a message is lost on the way."""
        wait: Wait[object] = Wait()
        network = self.network
        if network.passes(source, target):
            self.queue.after(network.delay(), self._serve, source, target, method, argument, wait)
        return wait

    def _serve(
        self, source: str, target: str, method: str, argument: object, wait: Wait[object]
    ) -> None:
        host = self.hosts.get(target)
        manager = host.manager if host is not None else None

        def reply(call: Callable[..., None], answer: object) -> None:
            if self.network.passes(target, source):
                self.queue.after(self.network.delay(), call, answer)
            else:
                self.counts["answers lost"] += 1

        async def serve(front: Front) -> None:
            try:
                reply(wait.resolve, await getattr(front, method)(argument))
            except SwarmError as error:
                reply(wait.fail, error)

        if manager is None:
            reply(wait.fail, NoLeader())
        else:
            manager.scope.start(serve(Front(manager)))
