"""This node: in no swarm, or a member of one (``member.py``), by turns.

The daemon's API calls ``LocalNode.init``, ``join`` and ``leave``, one at a time. Each leaves the
state directory whole or as it was. Containers outlive this process; only ``leave`` stops them.
"""

from __future__ import annotations

import logging
import math
import socket
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from .ca import credentials as identity
from .ca.x509 import Role
from .comeback import Comeback
from .errors import (
    BadRequest,
    IdentityMissing,
    SwarmError,
)
from .leftovers import remove_tasks
from .manager import state as manager_state
from .member import Member, MemberSettings
from .membership import Membership
from .nodeport import NodePort, close_port, open_port
from .refusals import (
    AlreadyInSwarm,
    BrokenStay,
    CannotResign,
    JoinGoesOn,
    LastManager,
    NotInSwarm,
)
from .statedir import StateDirectory
from .together import leaves, run_until_first
from .wire.address import parse_remote
from .wire.stream import again

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .agent.agent import Agent
    from .agent.executor import Executor, NodeIdentity
    from .clock import Clock
    from .manager.manager import Manager
    from .manager.reconcile import Reconciler
    from .model.cluster import SwarmSpec
    from .model.request import InitRequest, JoinRequest
    from .wire.link import StreamMethod

STOP_TASKS_S = 60.0
JOIN_S = 20.0
FORCED_RESIGN_S = 3.0

log = logging.getLogger(__name__)


class LocalState(str, Enum):
    """The API's ``LocalNodeState``."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon tells this node.

    Attributes:
        state_dir: absolute; private to the daemon's user.
        listen_addr, advertise_addr: used when a request names none.
        hostname: "" for the system's.
    """

    state_dir: str
    listen_addr: str = ""
    advertise_addr: str = ""
    hostname: str = ""
    accept_moved_state: bool = False


class LocalNode:
    """This host's place in a swarm, if it has one.

    Args:
        executor: runs this node's tasks; driven from here.
        reconcilers: what this node runs while it leads.

    Attributes:
        manager_streams: what this node offers to other managers while it is one, by method name;
            its owner fills it before the node runs.
    """

    def __init__(
        self,
        settings: NodeSettings,
        executor: Executor,
        reconcilers: Sequence[Reconciler],
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._state_dir = StateDirectory(
            Path(settings.state_dir),
            accept_moved_state=settings.accept_moved_state,
            clock=clock,
            new_id=new_id,
        )
        self._port = NodePort(settings.listen_addr, settings.advertise_addr)
        self.executor = executor
        self.manager_streams: dict[str, StreamMethod] = {}
        self._reconcilers = reconcilers
        self._clock = clock
        self._new_id = new_id
        self._changing = trio.Lock()
        self._member: Member | None = None
        self._arrived = trio.Event()
        self._error = ""
        self._comeback = Comeback(self._state_dir, clock)

    # --- what the API asks ---

    @property
    def state(self) -> LocalState:
        """Whether this node is in a swarm, and how it goes."""
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
            self._require_inactive()
            listen, advertise = self._port.addresses(request.ListenAddr, request.AdvertiseAddr)
            listeners = await open_port(listen)
            raft_id = manager_state.new_raft_id()
            membership = Membership(
                listen_addr=listen,
                advertise_addr=advertise,
                raft_id=raft_id,
                managers=(advertise,),
                data_path_addr=request.DataPathAddr,
                data_path_port=request.DataPathPort or 4789,
            )
            try:
                material = await trio.to_thread.run_sync(
                    self._state_dir.found, request, spec, membership
                )
                credentials = identity.Credentials(material, self._clock.now())
            except BaseException:
                close_port(listeners)
                raise
            member = self._stay(membership, credentials, listeners)
            await self._enter(member)
            assert member.manager is not None
            await member.manager.wait_leading()
            return credentials.node_id

    async def _found_anew(self, member: Member, request: InitRequest) -> str:
        """Go on as the only manager of the cluster that this node is a manager of.

        Tasks, certificates and tables stay. The other managers' numbers are gone for good.
        """
        member.scope.cancel()
        await member.ended.wait()
        place, credentials = member.membership, member.credentials
        listen, advertise = place.listen_addr, place.advertise_addr
        if request.ListenAddr or request.AdvertiseAddr:
            listen, advertise = self._port.addresses(request.ListenAddr, request.AdvertiseAddr)
        new_raft_id = manager_state.new_raft_id()
        membership = msgspec.structs.replace(
            place,
            listen_addr=listen,
            advertise_addr=advertise,
            raft_id=new_raft_id,
            managers=(advertise,),
            peers=(),
        )
        failure: SwarmError | None = None
        try:
            await trio.to_thread.run_sync(
                self._state_dir.found_anew, place, membership, credentials.identity
            )
        except SwarmError as error:
            failure, membership = error, place
        fresh = self._stay(membership, credentials, ())
        await self._enter(fresh)
        if failure is not None:
            raise failure
        assert fresh.manager is not None
        await fresh.manager.wait_leading()
        return credentials.node_id

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
            self._require_inactive()
            if not request.RemoteAddrs:
                raise BadRequest("at least 1 RemoteAddr is required to join")
            managers = tuple(parse_remote(address) for address in request.RemoteAddrs)
            listen, advertise = self._port.worker_addresses(
                request.ListenAddr, request.AdvertiseAddr
            )
            material = await identity.join(
                managers, request.JoinToken, request.Availability, self._clock.now()
            )
            credentials = identity.Credentials(material, self._clock.now())
            membership = Membership(
                listen_addr=listen,
                advertise_addr=advertise,
                managers=managers,
                data_path_addr=request.DataPathAddr,
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
        _, advertise = self._port.addresses(request.ListenAddr, request.AdvertiseAddr)
        listeners = await open_port(membership.listen_addr)
        return msgspec.structs.replace(membership, advertise_addr=advertise), listeners

    async def _come_back(self, request: JoinRequest) -> None:
        """Take up the stay again that an expired certificate ended, or keeps out of touch."""
        member = self._member
        await self._comeback.renew(request, member)
        if member is not None:
            return
        self._error = ""
        await self._resume()
        if self._member is None:
            raise SwarmError(self._error)
        await _begun_or_over(self._member)

    async def leave(self, *, force: bool) -> None:
        """Leave the swarm: stop and remove this node's tasks, forget everything.

        Raises:
            NotInSwarm: nothing to leave.
            LastManager: it would end the swarm, and ``force`` was not given.
        """
        async with self._changing:
            member = self._member
            if member is None:
                if not self._error:
                    raise NotInSwarm
                if not force:
                    raise BrokenStay(self._error)
                await remove_tasks(self.executor, await self._read_identity())
                await self._forget()
                return
            if member.is_manager and not member.failure:
                await self._resign(member, force=force)
            with trio.move_on_after(STOP_TASKS_S):
                await _begun_or_over(member)  # a daemon that has just started has tasks to adopt
                if member.agent is not None:
                    await member.agent.leave()
                else:
                    await remove_tasks(self.executor, member.node)
            if member.ended.is_set():
                await self._forget()
                return
            member.leaving = True  # whoever lives the stay forgets it, also if we are cancelled now
            member.scope.cancel()
            await member.ended.wait()

    async def _resign(self, member: Member, *, force: bool) -> None:
        """Leave the managers first, if they can do without this one.

        Raises:
            LastManager, FailedPrecondition: they cannot, and ``force`` was not given.
            SwarmError: whether they can is unknown, and ``force`` was not given.
        """
        manager = member.manager
        if manager is not None and manager.alone:
            if not force:
                raise LastManager
            return
        try:
            with trio.move_on_after(FORCED_RESIGN_S if force else math.inf):
                await member.managership.resign()
        except SwarmError as error:
            if not force:
                raise CannotResign(error) from error
            log.warning("leaving although the managers may need this one: %s", error)

    async def _read_identity(self) -> NodeIdentity | None:
        """Return who this node is by what is left of its state, if that can be read."""
        try:
            return await trio.to_thread.run_sync(self._state_dir.whose, self.hostname)
        except SwarmError as error:
            log.warning("tasks of the swarm that this node leaves may run on: %s", error)
            return None

    async def _forget(self) -> None:
        await trio.to_thread.run_sync(self._state_dir.forget)
        self._member = None
        self._error = ""
        self._comeback.forget()

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
            membership, material = await trio.to_thread.run_sync(self._state_dir.load)
            credentials = await self._comeback.certified(membership, material)
            listeners: Sequence[trio.SocketListener] = ()
            if credentials.role is Role.MANAGER:
                listeners = await open_port(membership.listen_addr)
        except IdentityMissing as error:
            log.info("in no swarm: %s", error)
            return
        except SwarmError as error:
            self._error = str(error)
            log.error("this node cannot take part in its swarm: %s", error)  # noqa: TRY400
            return
        self._member = self._stay(membership, credentials, listeners)
        self._arrived.set()

    async def _enter(self, member: Member) -> None:
        """Begin a stay, and wait until it has begun.

        Raises:
            SwarmError: it failed; this node is in no swarm, as before.
        """
        self._error = ""
        self._member = member
        self._arrived.set()
        await _begun_or_over(member)
        if member.failure:
            await self._forget()
            raise SwarmError(member.failure)
        refusal = member.managership.failure
        if refusal is not None:
            member.leaving = True
            member.scope.cancel()
            await member.ended.wait()
            raise again(refusal)

    async def _live(self, member: Member) -> None:
        """Live one stay to its end. A failure ends it with a sentence, not the daemon."""
        try:
            with member.scope:
                await member.run(self.executor)
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
            open_port=open_port,
            reconcilers=self._reconcilers,
        )
        return Member(settings, membership, credentials, listeners)

    def _require_inactive(self) -> None:
        if self._member is not None or self._error:
            raise AlreadyInSwarm


async def _begun_or_over(member: Member) -> None:
    """Wait until a stay has begun, or failed to."""
    await run_until_first(member.ready.wait, member.ended.wait)
