"""Several managers in this process: one log, an API at each, real links and doors between them.

Consensus is a stand-in: an entry is agreed on when `Several.commit` says so, and who leads is what
the test says. What may go wrong on the way of one write is a *fate*: see the functions below.
"""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from swarmctl.core.api.server import ApiServer
from swarmctl.core.autoscaler.source import no_source
from swarmctl.core.ca.server import new_node_row
from swarmctl.core.ca.x509 import DAY_NS, Role, Signer, new_key_and_csr, sign_node_certificate
from swarmctl.core.clock import TrioClock
from swarmctl.core.errors import LostLeadership, NoLeader
from swarmctl.core.founding import make_cluster
from swarmctl.core.manager.autoscaling import Autoscaler
from swarmctl.core.manager.door import Door
from swarmctl.core.manager.forward import LEADER_WAIT_S
from swarmctl.core.manager.leader import Alarms
from swarmctl.core.manager.manager import Manager
from swarmctl.core.membership import Membership
from swarmctl.core.model.base import Time
from swarmctl.core.model.change import Applied, Change, Create, Entry, Result, Transaction, Update
from swarmctl.core.model.cluster import SwarmSpec
from swarmctl.core.model.codec import decode_entry, pack
from swarmctl.core.model.loaded import LoadedPlugin
from swarmctl.core.model.objects import ClusterRow, ManagerStatus
from swarmctl.core.model.request import InitRequest
from swarmctl.core.node import LocalState
from swarmctl.core.store.dump import dump, load
from swarmctl.core.store.store import Store
from swarmctl.core.store.watch import Watch
from swarmctl.core.wire.calls import LinkClosed
from swarmctl.core.wire.connect import open_link
from swarmctl.core.wire.http1 import ClientCodec, Signal
from swarmctl.plugins.null_exec import NullExecutor
from tests.shells.memory_network import MemoryListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from swarmctl.core.model.objects import NodeRow, ServiceRow
    from swarmctl.core.store.view import View
    from swarmctl.core.wire.link import Link

    Fate = Callable[["Several", "StandIn", Transaction], Awaitable[Result]]

ELECTION_S = 0.6
NOW_NS = time.time_ns()


class StandIn:
    """A manager whose consensus is the test's. Everything else the API sees of one is real."""

    while_leading = Manager.while_leading
    while_managing = Manager.while_managing

    def __init__(self, managers: Several, node_id: str, certificate_der: bytes) -> None:
        self._managers = managers
        self._led: set[trio.CancelScope] = set()
        self._managing: set[trio.CancelScope] = set()
        self.node_id = node_id
        self.certificate_der = certificate_der
        self.store = Store()
        self.watch = Watch()
        self.alarms = Alarms()
        self.ca = SimpleNamespace(external=None)  # nobody asks for one here
        self.leader = SimpleNamespace(is_elsewhere=self._is_led_elsewhere)
        self.membership = SimpleNamespace(status_of=self.status_of, waiting=())
        self.dispatcher = SimpleNamespace(  # no agent has a session in these tests
            warning="", connected=lambda _node_id: None, versions_of=lambda _node_id: None
        )
        at_rest: Any = None  # it proposes only while it runs
        self.autoscaler = Autoscaler(
            self.store.view, at_rest, managers.clock, self.dispatcher, no_source
        )
        self.disk_complaint = ""
        self.leadership_changed = trio.Event()
        self.dead = False
        self.lagging = False

    @property
    def view(self) -> View:
        return self.store.view

    @property
    def leading(self) -> bool:
        return self._managers.leader is self

    def _is_led_elsewhere(self) -> bool:
        return self._managers.leader not in (None, self)

    def status_of(self, row: NodeRow) -> ManagerStatus | None:
        leads = self._managers.leader is not None and self._managers.leader.node_id == row.api.ID
        return ManagerStatus(Leader=leads, Reachability="reachable", Addr=row.private.manager_addr)

    def answer_of(self, request_id: str) -> Applied | None:
        return self.store.answer_of(request_id)

    async def read(self) -> View:
        await trio.lowlevel.checkpoint()
        if not self.leading:
            raise NoLeader
        return self.view

    async def read_here(self) -> View:
        with trio.move_on_after(LEADER_WAIT_S):
            while self._managers.leader is None:
                await self.leadership_changed.wait()
            await trio.lowlevel.checkpoint()
            self.catch_up(self._managers.log)
            return self.view
        raise NoLeader

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        await trio.lowlevel.checkpoint()
        if not self.leading:
            raise NoLeader
        return tuple([await self._managers.decide(self, each) for each in transactions])

    async def leader_link(self) -> Link:
        with trio.move_on_after(LEADER_WAIT_S):
            while True:
                changed, leader = self.leadership_changed, self._managers.leader
                if leader is self:
                    raise NoLeader
                if leader is not None:
                    return await self._managers.link(self, leader)
                await changed.wait()
        raise NoLeader

    def tell(self) -> None:
        """Say that somebody else leads now, or nobody."""
        changed, self.leadership_changed = self.leadership_changed, trio.Event()
        changed.set()
        if not self.leading:
            for scope in self._led:
                scope.cancel()

    def catch_up(self, log: Sequence[bytes]) -> None:
        for index in range(self.store.index + 1, len(log) + 1):
            outcome = self.store.apply(index, decode_entry(log[index - 1]))
            self.watch.publish(index, outcome.changes)


class LocalSeat:
    """What the API needs of a node."""

    state = LocalState.ACTIVE
    is_manager = True
    error = ""
    managers: tuple[str, ...] = ()
    state_dir = "/nowhere"
    agent = None

    def __init__(self, manager: StandIn, address: str) -> None:
        self.manager: StandIn | None = manager
        self.node_id = manager.node_id
        self.hostname = manager.node_id
        self.advertise_addr = address
        self.manager_streams: dict[str, Any] = {}
        self.executor = NullExecutor(hostname=manager.node_id)


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to one manager's API."""

    def __init__(self, listener: MemoryListener) -> None:
        self.stream, self.peer = trio.testing.memory_stream_pair()
        listener.arriving.send_nowait(self.peer)
        self._codec = ClientCodec()

    async def ask(self, method: str, path: str, body: object = None) -> None:
        """Send a request."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = (
            (("Host", "d"), ("Content-Type", "application/json")) if data else (("Host", "d"),)
        )
        await self.stream.send_all(self._codec.request(method, path, headers, data))

    async def begin(
        self, method: str, path: str, body: object = None
    ) -> tuple[int, dict[str, str]]:
        """Send a request; return the head of its answer."""
        await self.ask(method, path, body)
        while (head := self._codec.next_head()) is Signal.NEED_DATA:
            self._codec.receive(await self.stream.receive_some(65536))
        assert not isinstance(head, Signal)
        return head.status, {key.title(): value for key, value in head.headers.pairs}

    async def piece(self) -> bytes:
        """Return the next piece of the answer; empty at its end."""
        while (chunk := self._codec.next_chunk()) is Signal.NEED_DATA:
            self._codec.receive(await self.stream.receive_some(65536))
        return chunk if isinstance(chunk, bytes) else b""

    async def request(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request and return its whole answer."""
        status, found = await self.begin(method, path, body)
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return Answer(status, found, b"".join(pieces))


class Seat:
    """One node: its API, its door, its clients."""

    def __init__(self, managers: Several, manager: StandIn, address: str) -> None:
        self.manager = manager
        self.node = LocalSeat(manager, address)
        self.listener = MemoryListener()
        self.api = ApiServer(
            self.node,  # type: ignore[arg-type] # what it needs of one
            lambda: [LoadedPlugin(Name="spread")],
            "9.9",
            managers.clock,
            managers.new_id,
        )
        self.door = Door(
            manager.view,
            manager.watch,
            calls={},
            streams=self.node.manager_streams,
            messages={},
            removed=tuple,
        )

    def client(self) -> Client:
        return Client(self.listener)

    async def request(self, method: str, path: str, body: object = None) -> Answer:
        """Send one request on a connection of its own."""
        client = self.client()
        async with client.stream:
            return await client.request(method, path, body)


class Several:
    """Managers with one log.

    Attributes:
        leader: who leads, if anybody.
        fates: what happens to the next writes; one without is agreed on at once.
        opened: who opened a link to whom, in order.
        in_flight: entries that are in the leader's log and not agreed on yet.
        truth: what was agreed on.
        by_snapshot: a new leader gets what it lacks as a snapshot.
    """

    def __init__(self, size: int, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._links: dict[tuple[str, str], tuple[Link, Link]] = {}
        self._dialling = trio.Lock()
        self._ids = count(1)
        self.log: list[bytes] = []
        self.truth = Store()
        self.by_snapshot = False
        self.in_flight: list[Transaction] = []
        self.clock = TrioClock(NOW_NS)
        self.fates: list[Fate] = []
        self.opened: list[tuple[str, str]] = []
        self.leader: StandIn | None = None
        founded = _found(size)
        self.seats = [
            Seat(self, StandIn(self, name, _der(pem)), f"10.0.0.{name[1:]}:2377")
            for name, pem in founded.certificates.items()
        ]
        self.commit(Transaction(changes=founded.changes, now=NOW_NS))
        self.elect(0)

    def new_id(self) -> str:
        return f"a{next(self._ids):024d}"

    def __getitem__(self, number: int) -> Seat:
        return self.seats[number]

    # --- agreeing ---

    def commit(self, transaction: Transaction) -> Result:
        """Agree on an entry, and on those before it; all apply it, but those that lag."""
        in_flight, self.in_flight = self.in_flight, []
        for write in (*in_flight, transaction):
            self.log.append(pack(Entry(transactions=(write,))))
            (result,) = self.truth.apply(len(self.log), decode_entry(self.log[-1])).results
        for seat in self.seats:
            if not seat.manager.lagging:
                seat.manager.catch_up(self.log)
        return result

    def land(self) -> None:
        """Agree on what is in flight."""
        if self.in_flight:
            self.commit(self.in_flight.pop())

    async def decide(self, manager: StandIn, transaction: Transaction) -> Result:
        """Agree on a write of the leader's, or let happen what the test wants."""
        if self.fates:
            return await self.fates.pop(0)(self, manager, transaction)
        return self.commit(transaction)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something after a while."""

        async def wait() -> None:
            await trio.sleep(seconds)
            act()

        self._nursery.start_soon(wait)

    # --- leading ---

    def elect(self, number: int | None) -> None:
        """Let somebody lead, or nobody."""
        self.leader = None if number is None else self.seats[number].manager
        if self.leader is not None:
            self.leader.lagging = False
            if self.by_snapshot:
                load(self.leader.store, dump(self.truth))
            self.leader.catch_up(self.log)
        for seat in self.seats:
            seat.manager.tell()

    def fail_over(self) -> None:
        """Let nobody lead for the length of an election, then the next one that lives."""
        number = next(at for at, seat in enumerate(self.seats) if seat.manager is self.leader)
        alive = [
            at % len(self.seats)
            for at in range(number + 1, number + len(self.seats))
            if not self.seats[at % len(self.seats)].manager.dead
        ]
        self.elect(None)
        if alive:
            self.later(ELECTION_S, lambda: self.elect(alive[0]))

    def kill(self, manager: StandIn) -> None:
        """End a manager: its connections break, and somebody else will lead."""
        manager.dead = True
        self.cut(manager)
        if self.leader is manager:
            self.fail_over()

    # --- connections ---

    async def link(self, source: StandIn, target: StandIn) -> Link:
        """Return a live link, made if there is none."""
        async with self._dialling:
            key = (source.node_id, target.node_id)
            if key not in self._links:
                self.opened.append(key)
                self._links[key] = await self._connect(source, target)
            return self._links[key][0]

    async def _connect(self, source: StandIn, target: StandIn) -> tuple[Link, Link]:
        ours, theirs = trio.testing.memory_stream_pair()
        links: dict[bool, Link] = {}

        async def greet(stream: trio.abc.Stream, dialling: bool) -> None:
            links[dialling] = await open_link(stream, None, dialling=dialling)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet, ours, True)
            nursery.start_soon(greet, theirs, False)
        dialled, accepted = links[True], links[False]
        dialled.peer_certificate_der = target.certificate_der
        accepted.peer_certificate_der = source.certificate_der
        (door,) = [seat.door for seat in self.seats if seat.manager is target]

        async def carry(run: Callable[[], Awaitable[object]]) -> None:
            with suppress(LinkClosed):
                await run()
            self._links.pop((source.node_id, target.node_id), None)

        self._nursery.start_soon(carry, dialled.run)
        self._nursery.start_soon(carry, lambda: door.welcome(accepted))
        return dialled, accepted

    def cut(self, manager: StandIn) -> None:
        """Break all links from and to a manager, as they are now."""
        for key, pair in list(self._links.items()):
            if manager.node_id in key:
                del self._links[key]
                for link in pair:
                    link.close("the connection was cut")

    # --- what there is ---

    def services(self) -> list[ServiceRow]:
        """Return the services that were agreed on."""
        return list(self.truth.view.services())

    def touch(self, name: str) -> None:
        """Change a service's row, as bookkeeping does, behind everybody's back."""
        for row in self.services():
            if row.api.Spec.Name == name:
                self.commit(Transaction(changes=(Update(row=row),), now=int(Time(1))))


class _Founded(NamedTuple):
    changes: tuple[Change, ...]
    certificates: dict[str, bytes]


@cache
def _found(size: int) -> _Founded:
    """Return the rows of a new cluster, and its managers' certificates."""
    address = "10.0.0.1:2377"
    first = make_cluster(
        InitRequest(),
        SwarmSpec(Name="default"),
        Membership(listen_addr=address, advertise_addr=address, raft_id=1),
        cluster_id="cluster",
        node_id="m1",
        now_ns=NOW_NS,
    )
    certificates = {"m1": first.material.pair.cert_pem}
    (cluster,) = [
        change.row
        for change in first.founding.changes
        if isinstance(change, Create) and isinstance(change.row, ClusterRow)
    ]
    signer = Signer.from_pem(cluster.private.ca_cert.encode(), cluster.private.ca_key.encode())
    changes: list[Change] = list(first.founding.changes)
    for number in range(2, size + 1):
        _, csr_pem = new_key_and_csr()
        certificates[f"m{number}"] = sign_node_certificate(
            signer,
            csr_pem,
            node_id=f"m{number}",
            role=Role.MANAGER,
            cluster_id="cluster",
            expiry_ns=90 * DAY_NS,
            now_ns=NOW_NS,
        )
        row = new_node_row(
            f"m{number}",
            Role.MANAGER,
            availability="active",
            public_key="",
            raft_id=number,
            manager_addr=f"10.0.0.{number}:2377",
        )
        changes.append(Create(row=row))
    return _Founded(tuple(changes), certificates)


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)


@asynccontextmanager
async def several(size: int = 3) -> AsyncIterator[Several]:
    """Run managers and their APIs; the first one leads."""
    async with trio.open_nursery() as nursery:
        managers = Several(size, nursery)
        for seat in managers.seats:
            await nursery.start(partial(seat.api.run, [seat.listener]))
        yield managers
        nursery.cancel_scope.cancel()


# --- fates of one write --------------------------------------------------------------------------


async def killed_before_commit(managers: Several, leader: StandIn, _: Transaction) -> Result:
    """The leader dies, and its entry with it."""
    managers.kill(leader)
    return await _never()


async def killed_after_commit(managers: Several, leader: StandIn, write: Transaction) -> Result:
    """The leader dies between commit and reply."""
    managers.commit(write)
    managers.kill(leader)
    return await _never()


async def committed_by_the_next(managers: Several, leader: StandIn, write: Transaction) -> Result:
    """The leader dies; the next one finds the entry in its log and commits it as it begins."""
    managers.later(ELECTION_S * 0.99, lambda: managers.commit(write))
    managers.kill(leader)
    return await _never()


async def deposed_before_commit(managers: Several, _: StandIn, __: Transaction) -> Result:
    """The leader lives, but another takes over, and the entry is lost."""
    managers.fail_over()
    raise LostLeadership("lost")


async def deposed_after_commit(managers: Several, _: StandIn, write: Transaction) -> Result:
    """The leader lives, but another takes over before it knows that the entry is committed."""
    managers.commit(write)
    managers.fail_over()
    raise LostLeadership("lost")


async def cut_after_commit(managers: Several, leader: StandIn, write: Transaction) -> Result:
    """The leader leads on, but whoever asked cannot hear it."""
    managers.commit(write)
    managers.cut(leader)
    return await _never()


async def cut_in_flight(managers: Several, leader: StandIn, write: Transaction) -> Result:
    """Whoever asked cannot hear the leader, and asks again before the entry is committed."""
    managers.in_flight.append(write)
    managers.later(0.3, managers.land)
    managers.cut(leader)
    return await _never()


async def overtaken(managers: Several, _: StandIn, write: Transaction) -> Result:
    """Somebody else changes the same row first."""
    managers.touch("web")
    return managers.commit(write)


async def _never() -> Result:
    await trio.sleep_forever()
    raise AssertionError
