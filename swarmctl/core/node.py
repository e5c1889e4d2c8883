"""This node: in no swarm, or a member of one (``member.py``), by turns.

The daemon's API calls ``LocalNode.init``, ``join`` and ``leave``, one at a time. Each leaves the
state directory whole or as it was. Containers outlive this process; only ``leave`` stops them.
"""

from __future__ import annotations

import logging
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from .autoscaler.source import no_source
from .ca import credentials as identity
from .ca.x509 import Role
from .comeback import Comeback
from .errors import BadRequest, IdentityMissing, ManagerLocked, NotLocked, SwarmError
from .leftovers import remove_leftovers
from .manager import state as manager_state
from .manager.eventlog import EventLog
from .member import Member, MemberSettings
from .nodeport import NodePort, close_port, open_port, with_addresses
from .nodestate import LocalState, NodeSettings
from .refusals import AlreadyInSwarm, BrokenStay, JoinGoesOn, LockedStay, NotInSwarm
from .statedir import StateDirectory, Stay
from .together import leaves
from .wire.address import parse_data_path, parse_remote

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .agent.agent import Agent
    from .agent.executor import Executor
    from .agent.network import NetworkDriver
    from .autoscaler.source import SourceOf
    from .clock import Clock
    from .manager.backup import Head
    from .manager.manager import Manager
    from .manager.reconcile import Reconciler
    from .membership import Membership
    from .model.cluster import SwarmSpec
    from .model.request import InitRequest, JoinRequest
    from .store.store import Store
    from .wire.link import StreamMethod

STOP_TASKS_S = 60.0
JOIN_S = 20.0

__all__ = ["LocalNode", "LocalState", "NodeSettings"]

log = logging.getLogger(__name__)


class LocalNode:
    """This host's place in a swarm, if it has one.

    Args:
        executor: runs this node's tasks; driven from here.
        reconcilers: what this node runs while it leads.
        metric_source: gives what reads metrics, by name.
        driver: carries traffic of its tasks; None for nothing that does.

    Attributes:
        manager_streams: what this node offers to other managers while it is one, by method name;
            its owner fills it before the node runs.
        events: what happened in the swarm, as far as this node is a manager.
    """

    def __init__(
        self,
        settings: NodeSettings,
        executor: Executor,
        reconcilers: Sequence[Reconciler],
        clock: Clock,
        new_id: Callable[[], str],
        metric_source: SourceOf = no_source,
        *,
        driver: NetworkDriver | None = None,
    ) -> None:
        self._settings, self._metric_source = settings, metric_source
        self._driver = driver
        self._state_dir = StateDirectory(
            Path(settings.state_dir),
            accept_moved_state=settings.accept_moved_state,
            clock=clock,
            new_id=new_id,
        )
        self._port = NodePort(settings.listen_addr, settings.advertise_addr)
        self.executor = executor
        self.manager_streams: dict[str, StreamMethod] = {}
        self.events = EventLog(clock)
        self._reconcilers, self._clock, self._new_id = reconcilers, clock, new_id
        self._changing = trio.Lock()
        self._member: Member | None = None
        self._arrived, self._error = trio.Event(), ""
        self._comeback, self._locked = Comeback(self._state_dir, clock), False

    # --- what the API asks ---

    @property
    def state(self) -> LocalState:
        """Whether this node is in a swarm, and how it goes."""
        if self._locked:
            return LocalState.LOCKED
        if self._member is None:
            return LocalState.ERROR if self._error else LocalState.INACTIVE
        if self._member.broken:
            return LocalState.ERROR
        return LocalState.ACTIVE if self._member.ready.is_set() else LocalState.PENDING

    @property
    def error(self) -> str:
        """What keeps this node from taking part in its swarm, in a sentence; else empty."""
        member = self._member
        return self._error if member is None else self._comeback.text_of(member) or member.error

    @property
    def node_id(self) -> str:
        return self._member.credentials.node_id if self._member is not None else ""

    @property
    def cluster_id(self) -> str:
        return self._member.credentials.cluster_id if self._member is not None else ""

    @property
    def advertise_addr(self) -> str:
        """``host:port`` that others find this node at, or empty."""
        return self._member.membership.advertise_addr if self._member is not None else ""

    @property
    def managers(self) -> tuple[str, ...]:
        """Addresses of the managers as last heard."""
        return self._member.membership.managers if self._member is not None else ()

    @property
    def state_dir(self) -> str:
        return self._settings.state_dir

    @property
    def hostname(self) -> str:
        return self._settings.hostname or socket.gethostname()

    @property
    def is_manager(self) -> bool:
        """True for a node whose place is among the managers, started or not."""
        return self._member is not None and self._member.is_manager

    @property
    def manager(self) -> Manager | None:
        """This node as a manager; None while it is none."""
        return self._member.manager if self._member is not None else None

    @property
    def agent(self) -> Agent | None:
        """This node's agent; None while it is in no swarm."""
        return self._member.agent if self._member is not None else None

    # --- changing the swarm ---

    async def init(self, request: InitRequest, spec: SwarmSpec) -> str:
        """Found a swarm with this node as its first manager; return the node's id.

        Args:
            spec: complete and checked.

        Raises:
            AlreadyInSwarm: leave first.
            BadRequest: an address that cannot be used.
            StorageFailed: the disk refused; this node is in no swarm, as before.
        """
        async with self._changing:
            if request.ForceNewCluster and self._member is not None and self.is_manager:
                return await self._found_anew(self._member, request)
            return await self._found(
                request, partial(self._state_dir.found, request, spec), request.DataPathPort
            )

    async def restore(self, request: InitRequest, head: Head, store: Store) -> str:
        """Found the swarm of a backup anew, with this node as its only manager; return its id.

        Args:
            request: its addresses count.

        Raises:
            AlreadyInSwarm: leave first.
            BadRequest, FailedPrecondition, StorageFailed: this node is in no swarm, as before.
        """
        async with self._changing:
            cluster = store.view.cluster()
            port = cluster.api.DataPathPort if cluster is not None else 0
            return await self._found(request, partial(self._state_dir.restore, head, store), port)

    async def _found(
        self, request: InitRequest, found: Callable[[Membership], Stay], data_path_port: int
    ) -> str:
        self.require_inactive()
        parse_data_path(request.DataPathAddr)
        place = self._port.place(request.ListenAddr, request.AdvertiseAddr)
        listeners = await open_port(place.listen_addr)
        membership = msgspec.structs.replace(
            place,
            raft_id=manager_state.new_raft_id(),
            managers=(place.advertise_addr,),
            data_path_addr=request.DataPathAddr,
            data_path_port=data_path_port or 4789,
        )
        try:
            stay = await trio.to_thread.run_sync(found, membership)
            credentials = stay.credentials(self._clock.now())
        except BaseException:
            close_port(listeners)
            raise
        member = self._stay(membership, credentials, listeners)
        await self._enter(member)
        await member.wait_leading()
        return credentials.node_id

    async def _found_anew(self, member: Member, request: InitRequest) -> str:
        """Go on as the only manager of the cluster that this node is a manager of.

        Tasks, certificates and tables stay. The other managers' numbers are gone for good. Where it
        cannot be done all is as it was: what is on this disk may be all that is left of the swarm.
        """
        await member.require_lost_majority()
        place = self._port.again(member.membership, request.ListenAddr, request.AdvertiseAddr)
        after = msgspec.structs.replace(
            place, raft_id=manager_state.new_raft_id(), managers=(place.advertise_addr,), peers=()
        )
        with trio.CancelScope(shield=True):  # a client that hangs up now would leave no stay at all
            fresh, failure = await self._renumber(member, after)
        begun = await fresh.wait_begun()
        if (failure := failure or begun) is not None:
            raise failure
        await fresh.wait_leading()
        return fresh.credentials.node_id

    async def _renumber(self, old: Member, after: Membership) -> tuple[Member, SwarmError | None]:
        """End a stay and begin it again as the only manager, or as it was; return why not."""
        old.scope.cancel()
        await old.ended.wait()
        before, credentials = old.membership, old.credentials
        listeners: Sequence[trio.SocketListener] = ()
        failure: SwarmError | None = None
        try:
            listeners = await open_port(after.listen_addr)
            await trio.to_thread.run_sync(self._state_dir.found_anew, before, after, credentials)
        except SwarmError as error:
            close_port(listeners)
            listeners, after, failure = (), before, error
        except BaseException:
            close_port(listeners)
            raise
        return self._begin(self._stay(after, credentials, listeners)), failure

    async def join(self, request: JoinRequest) -> None:
        """Become a node of an existing swarm, or come back to it with an expired certificate.

        Raises:
            AlreadyInSwarm: leave first.
            InvalidJoinToken, Unreachable: this node is in no swarm, or out of touch, as before.
        """
        async with self._changing:
            if self._comeback.is_needed(self._member):
                await self._come_back(request)
                return
            self.require_inactive()
            if not request.RemoteAddrs:
                raise BadRequest("at least 1 RemoteAddr is required to join")
            parse_data_path(request.DataPathAddr)
            managers = tuple(parse_remote(address) for address in request.RemoteAddrs)
            place = self._port.worker_place(request.ListenAddr, request.AdvertiseAddr)
            material = await identity.join(
                managers, request.JoinToken, request.Availability, self._clock.now()
            )
            credentials = identity.Credentials(material, self._clock.now())
            membership = msgspec.structs.replace(
                place, managers=managers, data_path_addr=request.DataPathAddr
            )
            listeners: Sequence[trio.SocketListener] = ()
            if credentials.role is Role.MANAGER:
                membership, listeners = await self._prepare_manager(membership, request)
            try:
                await trio.to_thread.run_sync(self._state_dir.store, membership, material)
            except BaseException:
                close_port(listeners)
                raise
            with trio.move_on_after(JOIN_S):
                await self._enter(self._stay(membership, credentials, listeners))
                return
            raise JoinGoesOn

    async def _prepare_manager(
        self, membership: Membership, request: JoinRequest
    ) -> tuple[Membership, Sequence[trio.SocketListener]]:
        """Open the port of a node that joins as a manager; the others must be able to dial it.

        Raises:
            BadRequest: there is no address to advertise, or the port is taken.
        """
        place = self._port.place(request.ListenAddr, request.AdvertiseAddr)
        return with_addresses(membership, place), await open_port(place.listen_addr)

    async def _come_back(self, request: JoinRequest) -> None:
        """Take up the stay again that an expired certificate ended, or keeps out of touch.

        Raises:
            ManagerLocked: the certificate is a new one, and the key is needed as ever.
        """
        member = self._member
        await self._comeback.renew(request, member)
        if member is not None:
            return
        self._error = ""
        await self._resume()
        if self._locked:
            raise ManagerLocked
        if self._member is None:
            raise SwarmError(self._error)
        await self._member.wait_begun()

    async def unlock(self, unlock_key: bytes) -> None:
        """Take up the stay of a locked manager.

        Raises:
            NotInSwarm, NotLocked: there is nothing to unlock.
            InvalidUnlockKey: the key does not open it; it is locked as before.
        """
        async with self._changing:
            if self.state is LocalState.INACTIVE:
                raise NotInSwarm
            if not self._locked:
                raise NotLocked
            self._member = member = await self._take_up(unlock_key)
            self._locked = False
            self._arrived.set()
            await member.wait_begun()

    async def leave(self, *, force: bool) -> None:
        """Leave the swarm: stop and remove this node's tasks, forget everything.

        Raises:
            NotInSwarm: nothing to leave.
            LastManager: it would end the swarm, and ``force`` was not given.
        """
        async with self._changing:
            member = self._member
            if member is None:
                if self._locked and not force:
                    raise LockedStay
                if not self._error and not self._locked:
                    raise NotInSwarm
                if not force:
                    raise BrokenStay(self._error)
                whose = await trio.to_thread.run_sync(self._state_dir.whose, self.hostname)
                with trio.move_on_after(STOP_TASKS_S):
                    await remove_leftovers(self.executor, self._driver, whose)
                await self._forget()
                return
            if member.is_manager and not member.failure:
                await member.resign(force=force)
            with trio.move_on_after(STOP_TASKS_S) as scope:
                await member.wait_begun()  # a daemon that has just started has tasks to adopt
                if member.agent is not None:
                    await member.agent.leave()
                else:
                    await remove_leftovers(self.executor, self._driver, member.node)
            if scope.cancelled_caught:
                log.warning("tasks do not stop within %g s and stay behind", STOP_TASKS_S)
            if member.ended.is_set():
                await self._forget()
                return
            member.leaving = True  # whoever lives the stay forgets it, also if we are cancelled now
            member.scope.cancel()
            await member.ended.wait()

    async def _forget(self) -> None:
        await trio.to_thread.run_sync(self._state_dir.forget)
        self._member = None
        self._error = ""
        self._comeback.forget()
        self._locked = False

    # --- living it ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be what the state directory says, then what init and join make of it, until cancelled."""
        await self._resume()
        task_status.started()
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            if self._member is not None:
                await self._live(self._member)

    async def _resume(self) -> None:
        """Take up the stay that the state directory holds, if it holds one."""
        try:
            self._member = await self._take_up()
        except IdentityMissing as error:
            log.info("in no swarm: %s", error)
        except ManagerLocked:
            self._locked = True
            log.warning("this manager is locked: `swarmctl unlock` lets it go on")
        except SwarmError as error:
            self._error = str(error)
            log.error("this node cannot take part in its swarm: %s", error)  # noqa: TRY400
        else:
            self._arrived.set()

    async def _take_up(self, unlock_key: bytes | None = None) -> Member:
        """Return the stay that the state directory holds, with a manager's port open."""
        stay = await trio.to_thread.run_sync(self._state_dir.load, unlock_key)
        place = self._port.moved(stay.membership)
        if place != stay.membership:
            await trio.to_thread.run_sync(self._state_dir.store_place, place)
            log.info("others are told %s now", place.advertise_addr)
        credentials = await self._comeback.certified(stay)
        listeners: Sequence[trio.SocketListener] = ()
        if credentials.role is Role.MANAGER:
            listeners = await open_port(place.listen_addr)
        return self._stay(place, credentials, listeners)

    def _begin(self, member: Member) -> Member:
        self._error, self._member = "", member
        self._arrived.set()
        return member

    async def _enter(self, member: Member) -> None:
        """Begin a stay, and wait until it has begun.

        Raises:
            SwarmError: it failed; this node is in no swarm, as before.
        """
        self._begin(member)
        if (failure := await member.wait_begun()) is None:
            return
        if member.ended.is_set():
            await self._forget()
        else:
            member.leaving = True
            member.scope.cancel()
            await member.ended.wait()
        raise failure

    async def _live(self, member: Member) -> None:
        """Live one stay to its end. A failure ends it with a sentence, not the daemon."""
        try:
            with member.scope:
                await member.run(self.executor, self._driver)
            if member.leaving:
                await self._forget()
        except BaseExceptionGroup as group:
            failures, others = group.split(SwarmError)
            if others is not None:
                raise
            assert failures is not None
            member.failure = "; ".join(str(error) for error in leaves(failures))
            log.exception("this node's part in the swarm ended")
        finally:
            member.agent = None
            close_port(member.listeners)
            member.ended.set()

    # --- founding and files (blocking parts run in threads) ---

    def _stay(
        self,
        membership: Membership,
        credentials: identity.Credentials,
        listeners: Sequence[trio.SocketListener],
    ) -> Member:
        settings = MemberSettings(
            state_dir=self._state_dir.path,
            hostname=self.hostname,
            clock=self._clock,
            new_id=self._new_id,
            manager_streams=self.manager_streams,
            moved=self._port.moved,
            reconcilers=self._reconcilers,
            metric_source=self._metric_source,
            events=self.events,
        )
        return Member(settings, membership, credentials, listeners)

    def require_inactive(self) -> None:
        """Raise AlreadyInSwarm unless this node is in no swarm."""
        if self._member is not None or self._error or self._locked:
            raise AlreadyInSwarm
