"""This node as a manager: for as long as its certificate says so, and it is a member of consensus.

    run
    └ while the certificate is a manager's
      ├ node port            for other nodes; open before the others are asked for a place
      └ manager              joins the members if it has no number, runs, ends when removed

A worker that is promoted becomes a manager here, and a demoted manager a worker again, without an
end of the process, its agent or its tasks. What fails here ends the manager and not the node: the
failure is kept as a sentence.

It must not know the agent, executors, the API.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from .ca import keyfiles
from .ca.credentials import call_once
from .ca.x509 import Role
from .errors import FailedPrecondition, MemberRemoved, StorageFailed, SwarmError, Unavailable
from .manager import state as manager_state
from .manager.calls import JOIN, RESIGN, Joined, JoinManagers
from .manager.manager import Manager, ManagerEnded
from .model.change import FORMAT_LEVEL
from .model.codec import pack, unpack
from .nodeport import close_port
from .together import run_until_first
from .wire.connect import serve_links

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .autoscaler.source import SourceOf
    from .ca.credentials import Credentials
    from .clock import Clock
    from .manager.eventlog import EventLog
    from .manager.reconcile import Reconciler
    from .membership import Membership
    from .wire.link import Link, StreamMethod

ROLE_WAIT_S = 5.0
LEARNING_S = 10.0
"""How long a member without a vote waits for one until it asks whether it still is a member."""
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
RESIGN_S = 25.0

OpenPort = Callable[[str], Awaitable[Sequence[trio.SocketListener]]]

log = logging.getLogger(__name__)


class Managership:
    """The manager's side of a stay in a swarm.

    Args:
        place: reads this node's place.
        keep: writes it, to the disk too.
        open_port: opens the node port at ``host:port``.
        listeners: the port, where it is open already.
        streams: what this node offers other managers while it is one, by method.
        renew: asks for another certificate of this node.
        events: gets what happens in the swarm meanwhile.

    Attributes:
        manager: while this node is one.
        failure: why it is none although it should be, if so.
        broken: it stays none until this daemon restarts.
        settled: set once the manager runs and has the tables, or cannot.
        ended: set when the present, or last, time as a manager is over; then replaced.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        credentials: Credentials,
        place: Callable[[], Membership],
        keep: Callable[[Membership], Awaitable[None]],
        open_port: OpenPort,
        listeners: Sequence[trio.SocketListener],
        streams: Mapping[str, StreamMethod],
        reconcilers: Sequence[Reconciler],
        metric_source: SourceOf,
        events: EventLog,
        clock: Clock,
        new_id: Callable[[], str],
        renew: Callable[[], None],
    ) -> None:
        self._renew = renew
        self._state_dir = state_dir
        self._credentials = credentials
        self._place = place
        self._keep = keep
        self._open_port = open_port
        self._listeners = listeners
        self._streams = streams
        self._reconcilers, self._metric_source = reconcilers, metric_source
        self._events = events
        self._clock = clock
        self._new_id = new_id
        self._given = 0  # the number that no database was made for yet
        self.manager: Manager | None = None
        self.failure: SwarmError | None = None
        self.broken = False
        self.settled = trio.Event()
        self.ended = trio.Event()

    async def run(self) -> None:
        """Be a manager whenever the certificate says so, until cancelled."""
        pause_s = RETRY_FIRST_S
        while True:
            changed = self._credentials.changed
            if self._credentials.role is not Role.MANAGER:
                await self._forget_place()
                self._settle(None)
                await changed.wait()
                continue
            try:
                await self._be_manager()
            except ManagerEnded as end:
                if not end.may_return:
                    log.exception("this node stops being a manager")
                    self._settle(end)
                    self.broken = True
                    await trio.sleep_forever()
                log.info("%s", end)
                await self._forget_place()
                with trio.move_on_after(ROLE_WAIT_S):  # mostly a worker's certificate is under way
                    await changed.wait()
                pause_s = RETRY_FIRST_S
            except SwarmError as error:
                log.info("this node is not a manager yet: %s", error)
                self.failure = error
                if not isinstance(error, Unavailable):
                    self._settle(error)
                with trio.move_on_after(pause_s):
                    await changed.wait()
                pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _settle(self, failure: SwarmError | None) -> None:
        self.failure = failure
        self.settled.set()

    async def resign(self) -> None:
        """Stop being a manager, if the others can do without; returns when this is no member.

        Raises:
            FailedPrecondition: the swarm would lose its quorum, or its last manager.
            Unavailable: the others did not bring it about in time.
        """
        manager = self.manager
        if manager is None:
            return
        certificate = self._credentials.material.pair.cert_pem
        ended = self.ended
        with trio.move_on_after(RESIGN_S):
            while not ended.is_set():
                try:
                    await manager.ask_leader(RESIGN, b"", certificate)
                    await ended.wait()
                except FailedPrecondition:
                    raise
                except SwarmError as error:  # the leader went, or this one did as the leader
                    log.info("resigning goes on: %s", error)
                    with trio.move_on_after(RETRY_FIRST_S):
                        await ended.wait()
            return
        raise Unavailable(f"the other managers did not let this one go within {RESIGN_S:g} s")

    # --- one time as a manager ---

    async def _be_manager(self) -> None:
        """Open the port, come in, and be a manager to the end.

        Raises:
            SwarmError: how it ended.
        """
        listeners = self._listeners or await self._open_port(self._place().listen_addr)
        self._listeners = ()
        self.ended = trio.Event()
        try:
            await run_until_first(lambda: self._serve_port(listeners), self._run_manager)
        finally:
            self.manager = None
            self.ended.set()
            close_port(listeners)

    async def _serve_port(self, listeners: Sequence[trio.SocketListener]) -> None:
        await serve_links(listeners, self._credentials.server_context, self._welcome)

    async def _welcome(self, link: Link) -> None:
        if self.manager is None:
            raise Unavailable("this manager is being prepared")
        await self.manager.welcome(self._credentials.links.add(link))

    async def _run_manager(self) -> None:
        place = self._place()
        exists = await trio.to_thread.run_sync(manager_state.exists, self._state_dir)
        others = {addr for addr in place.managers if addr != place.advertise_addr}
        if not place.raft_id or (not exists and others):
            place = await self._come_in(place)
        elif not exists:
            log.error("the Raft database is missing, and no other manager is known")
        try:
            opened = await trio.to_thread.run_sync(
                lambda: manager_state.open_state(
                    self._state_dir,
                    owner=self._owner(),
                    raft_id=place.raft_id,
                    unlock_key=self._credentials.unlock_key,
                )
            )
        except SwarmError as error:
            raise ManagerEnded([error]) from error
        manager = Manager(
            opened,
            self._credentials,
            self._reconcilers,
            self._clock,
            self._new_id,
            told=dict(place.peers),
            streams=self._streams,
            renew=self._renew,
            metric_source=self._metric_source,
            events=self._events,
        )
        self.manager = manager
        await run_until_first(
            manager.run,
            partial(self._arrive, manager),
            self._end_as_worker,
            partial(self._end_when_given_up, manager),
        )

    async def _arrive(self, manager: Manager) -> None:
        """Note that the manager runs, and that it is where it is."""
        await manager.wait_prepared()
        self._settle(None)
        await self._tell_address(manager)
        await trio.sleep_forever()

    async def _end_as_worker(self) -> None:
        """Wait until this node's certificate is a worker's: then it is no member any more.

        A member that was removed before anything of the leader reached it has nothing to say to the
        others, so none of them would ever answer that.

        Raises:
            ManagerEnded: that is so.
        """
        while self._credentials.role is Role.MANAGER:
            await self._credentials.changed.wait()
        raise ManagerEnded([MemberRemoved("this node's certificate is a worker's now")])

    async def _end_when_given_up(self, manager: Manager) -> None:
        """Ask, for as long as this member has no vote, whether it is one still.

        Whoever has a vote would ask for others', and be told. One that learns is only spoken to: if
        it was removed for having been away too long, or for a change of mind that was taken back,
        it would be silent for ever, and the others take it for a manager that is on its way.

        Raises:
            ManagerEnded: it is no member; it comes in again under another number.
        """
        while True:
            await trio.sleep(LEARNING_S)
            place = self._place()
            if place.raft_id in manager.raft_status().membership.voters:
                continue
            try:
                joined = await self._ask_for_place(place, raft_id=place.raft_id)
            except SwarmError as error:
                log.info("whether this member is one still is not known: %s", error)
                continue
            if joined.raft_id != place.raft_id:
                gone = f"this manager's member number {place.raft_id} was given up"
                raise ManagerEnded([MemberRemoved(gone)])

    def _owner(self) -> str:
        return manager_state.owner_of(self._credentials.cluster_id, self._credentials.node_id)

    # --- coming in ---

    async def _come_in(self, place: Membership) -> Membership:
        """Ask the managers for a member number, and make an empty database for it.

        A number whose database could not be made is asked for again, so that a disk that refuses
        costs the others no more than one. No number is on the disk meanwhile: after a crash the
        empty database would be that number's.

        Raises:
            StorageFailed: the disk refused.
            Unavailable: none of them answers, or the leader cannot be reached now.
            SwarmError: this node is refused.
        """
        joined = await self._ask_for_place(place, raft_id=self._given)
        self._given = joined.raft_id
        if place.raft_id:
            await self._keep(replace(place, raft_id=0, peers=()))
        await trio.to_thread.run_sync(
            lambda: manager_state.make_empty(self._state_dir, owner=self._owner())
        )
        self._given = 0
        peers = tuple((each.raft_id, each.addr) for each in joined.managers)
        place = replace(self._place(), raft_id=joined.raft_id, peers=peers)
        await self._keep(place)
        return place

    async def _ask_for_place(self, place: Membership, *, raft_id: int = 0) -> Joined:
        """Return the member number that the others have for this node, and who they are.

        Args:
            raft_id: the number that it has.

        Raises:
            SwarmError: as of :meth:`_come_in`.
        """
        request = pack(
            JoinManagers(addr=place.advertise_addr, raft_id=raft_id, format_level=FORMAT_LEVEL)
        )
        failure: SwarmError = Unavailable("no other manager is known to join")
        for address in place.managers:
            if address == place.advertise_addr:
                continue
            try:
                return unpack(await self._ask(address, request), Joined)
            except SwarmError as error:
                failure = error
        raise failure

    async def _ask(self, address: str, request: bytes) -> bytes:
        return await call_once(await self._credentials.dial(address), JOIN, request)

    async def _tell_address(self, manager: Manager) -> None:
        """Tell the others when this manager is not where, or what, the tables say."""
        place = self._place()
        row = manager.view.node(self._credentials.node_id)
        told = (place.advertise_addr, FORMAT_LEVEL)
        if row is None or (row.private.manager_addr, row.private.format_level) == told:
            return
        request = pack(JoinManagers(addr=told[0], raft_id=place.raft_id, format_level=FORMAT_LEVEL))
        while True:
            try:
                await manager.ask_leader(JOIN, request, self._credentials.material.pair.cert_pem)
                return
            except SwarmError as error:
                log.info("the managers do not know this one's address or release yet: %s", error)
            await trio.sleep(RETRY_MAX_S)

    async def _forget_place(self) -> None:
        """Forget the member number and its database: they never come back.

        A disk that refuses is asked again for as long as it takes: the agent goes on meanwhile.
        """
        known = self._place().raft_id != 0
        while known:
            try:
                await self._open_tls_key()
                await trio.to_thread.run_sync(manager_state.forget, self._state_dir)
                await self._keep(replace(self._place(), raft_id=0, peers=()))
                return
            except StorageFailed as error:
                log.warning("what this node was as a manager is not forgotten yet: %s", error)
                self.failure = error
            await trio.sleep(RETRY_MAX_S)

    async def _open_tls_key(self) -> None:
        """Decrypt the node's key on the disk, before what opens it goes with the database."""
        credentials = self._credentials
        async with credentials.changing:
            passphrase = credentials.passphrase
            if passphrase:
                await trio.to_thread.run_sync(
                    lambda: keyfiles.reseal_key(self._state_dir, before=passphrase, after=b"")
                )
            credentials.passphrase, credentials.unlock_key = b"", None
