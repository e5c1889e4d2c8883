"""This node: in no swarm, or a member of one (``member.py``), by turns.

The daemon's API calls ``LocalNode.init``, ``join`` and ``leave``, one at a time. Each leaves the
state directory whole or as it was. Containers outlive this process; only ``leave`` stops them.
"""

from __future__ import annotations

import logging
import socket
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from .ca import credentials as identity
from .errors import (
    BadRequest,
    IdentityMissing,
    NotManager,
    SwarmError,
)
from .manager import state as manager_state
from .member import Member, MemberSettings
from .membership import Membership
from .statedir import StateDirectory
from .wire.address import (
    NoAddressToAdvertise,
    join_host_port,
    parse_advertise,
    parse_listen,
    parse_remote,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .agent.agent import Agent
    from .agent.executor import Executor, NodeIdentity
    from .clock import Clock
    from .manager.manager import Manager
    from .manager.reconcile import Reconciler
    from .model.cluster import SwarmSpec
    from .model.request import InitRequest, JoinRequest

STOP_TASKS_S = 60.0

log = logging.getLogger(__name__)


class LocalState(str, Enum):
    """The API's ``LocalNodeState``."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


class AlreadyInSwarm(NotManager):
    """init or join on a node that is in a swarm."""

    def __init__(self) -> None:
        super().__init__(
            'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm '
            "and join another one."
        )


class NotInSwarm(NotManager):
    """leave on a node that is in no swarm."""

    def __init__(self) -> None:
        super().__init__("This node is not part of a swarm")


class BrokenStay(NotManager):
    """leave without force on a node whose state cannot be used."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"This node cannot take part in its swarm: {why}. Use `--force` to leave it without "
            "telling anybody."
        )


class LastManager(NotManager):
    """leave without force on a manager whose leaving ends the swarm."""

    def __init__(self) -> None:
        super().__init__(
            "You are attempting to leave the swarm on a node that is participating as a manager. "
            "Removing the last manager erases all current state of the swarm. Use `--force` to "
            "ignore this message. "
        )


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
        self.executor = executor
        self._reconcilers = reconcilers
        self._clock = clock
        self._new_id = new_id
        self._changing = trio.Lock()
        self._member: Member | None = None
        self._arrived = trio.Event()
        self._error = ""

    # --- what the API asks ---

    @property
    def state(self) -> LocalState:
        """Whether this node is in a swarm, and how it goes."""
        if self._member is None:
            return LocalState.ERROR if self._error else LocalState.INACTIVE
        if self._member.failure:
            return LocalState.ERROR
        return LocalState.ACTIVE if self._member.ready.is_set() else LocalState.PENDING

    @property
    def error(self) -> str:
        """What keeps this node from taking part in its swarm, in a sentence; else empty.

        Of a member that is out of session, why: no manager answers, or they refuse it.
        """
        member = self._member
        if member is None:
            return self._error
        if member.failure or member.agent is None:
            return member.failure
        return member.agent.error

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
        return self._member is not None and self._member.membership.raft_id != 0

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
            self._require_inactive()
            listen, advertise, listeners = await self._open_port(request)
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
                _close_all(listeners)
                raise
            member = self._stay(membership, credentials, listeners)
            await self._enter(member)
            assert member.manager is not None
            await member.manager.wait_leading()
            return credentials.node_id

    async def join(self, request: JoinRequest) -> None:
        """Become a node of an existing swarm.

        Raises:
            AlreadyInSwarm: leave first.
            InvalidJoinToken, Unreachable: this node is in no swarm, as before.
        """
        async with self._changing:
            self._require_inactive()
            if not request.RemoteAddrs:
                raise BadRequest("at least 1 RemoteAddr is required to join")
            managers = tuple(parse_remote(address) for address in request.RemoteAddrs)
            listen, advertise = self._worker_addresses(request.ListenAddr, request.AdvertiseAddr)
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
            await trio.to_thread.run_sync(self._state_dir.store, membership, material)
            await self._enter(self._stay(membership, credentials, ()))

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
                await self._remove_tasks_of(await self._read_identity())
                await self._forget()
                return
            if member.membership.raft_id and not force:
                raise LastManager
            with trio.move_on_after(STOP_TASKS_S):
                await _begun_or_over(member)  # a daemon that has just started has tasks to adopt
                if member.agent is not None:
                    await member.agent.leave()
                else:
                    await self._remove_tasks_of(member.node)
            if member.ended.is_set():
                await self._forget()
                return
            member.leaving = True  # whoever lives the stay forgets it, also if we are cancelled now
            member.scope.cancel()
            await member.ended.wait()

    async def _read_identity(self) -> NodeIdentity | None:
        """Return who this node is by what is left of its state, if that can be read."""
        try:
            return await trio.to_thread.run_sync(self._state_dir.whose, self.hostname)
        except SwarmError as error:
            log.warning("tasks of the swarm that this node leaves may run on: %s", error)
            return None

    async def _remove_tasks_of(self, node: NodeIdentity | None) -> None:
        """Remove the tasks of a stay that failed: no agent minds them, but they run on."""
        if node is None:
            return
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.executor.run, node)
                known = await self.executor.known_tasks()
                async with trio.open_nursery() as removals:
                    for task_id in known:
                        removals.start_soon(self.executor.remove_leftover, task_id)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failures, others = group.split(SwarmError)
            if others is not None:
                raise
            log.warning("tasks of the swarm that this node leaves may run on: %s", failures)

    async def _forget(self) -> None:
        await trio.to_thread.run_sync(self._state_dir.forget)
        self._member = None
        self._error = ""

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
            credentials = identity.Credentials(material, self._clock.now())
            listeners: Sequence[trio.SocketListener] = ()
            if membership.raft_id:
                host, port = identity.split_address(membership.listen_addr)
                listeners = await _listen(host, port)
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

    async def _live(self, member: Member) -> None:
        """Live one stay to its end. A failure ends it with a sentence, not the daemon."""
        try:
            with member.scope:
                await member.run(self.executor, self._reconcilers)
            if member.leaving:
                await self._forget()
        except BaseExceptionGroup as group:
            failures, others = group.split(SwarmError)
            if others is not None:
                raise
            assert failures is not None
            member.failure = "; ".join(str(error) for error in _leaves(failures))
            log.exception("this node's part in the swarm ended")
        finally:
            member.manager = None
            member.agent = None
            _close_all(member.listeners)
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
        )
        return Member(settings, membership, credentials, listeners)

    def _require_inactive(self) -> None:
        if self._member is not None or self._error:
            raise AlreadyInSwarm

    def _addresses(self, listen: str, advertise: str) -> tuple[str, str]:
        host, port = parse_listen(listen or self._settings.listen_addr)
        wanted = advertise or self._settings.advertise_addr
        advertise_host, advertise_port = parse_advertise(wanted, host, port)
        return join_host_port(host, port), join_host_port(advertise_host, advertise_port)

    def _worker_addresses(self, listen: str, advertise: str) -> tuple[str, str]:
        """As for a manager, but nobody dials a worker: which address is its own, others can see."""
        try:
            return self._addresses(listen, advertise)
        except NoAddressToAdvertise:
            return join_host_port(*parse_listen(listen or self._settings.listen_addr)), ""

    async def _open_port(
        self, request: InitRequest
    ) -> tuple[str, str, Sequence[trio.SocketListener]]:
        listen, advertise = self._addresses(request.ListenAddr, request.AdvertiseAddr)
        host, port = identity.split_address(listen)
        return listen, advertise, await _listen(host, port)


async def _listen(host: str, port: int) -> Sequence[trio.SocketListener]:
    """Open the node port.

    Raises:
        BadRequest: somebody else has it, or the address is not ours.
    """
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise BadRequest(
            f"cannot listen on {join_host_port(host, port)}: {error.strerror or error}; "
            "choose another with --listen-addr"
        ) from error


def _close_all(listeners: Sequence[trio.SocketListener]) -> None:
    for listener in listeners:
        listener.socket.close()


async def _begun_or_over(member: Member) -> None:
    """Wait until a stay has begun, or failed to."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_first, member.ready.wait, nursery.cancel_scope)
        nursery.start_soon(_first, member.ended.wait, nursery.cancel_scope)


async def _first(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


def _leaves(group: BaseExceptionGroup[SwarmError]) -> list[SwarmError]:
    """Return the errors of a group without its nesting."""
    found: list[SwarmError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found.extend(_leaves(error))
        else:
            found.append(error)
    return found
