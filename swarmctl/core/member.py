"""One stay in a swarm: from joining (or starting) to leaving (or ending).

    run
    ├ executor             its events and checks
    ├ managership          node port, consensus, the leader's work; while this node is a manager
    ├ agent                one session with the leader's dispatcher; runs the tasks
    ├ ca renewal           own certificate
    └ ca links             ends links whose peers the trusted roots vouch for no more

It must not know the API, nor how a node comes to be a member.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from . import membership as member_file
from .agent.agent import Agent
from .agent.executor import NodeIdentity
from .ca import credentials as identity
from .ca.x509 import Role
from .errors import CertificateRefused, SwarmError
from .managership import Managership
from .nodeport import open_port
from .refusals import CannotResign, HasLeader, LastManager
from .together import run_until_first
from .wire.address import parse_data_path
from .wire.stream import again

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .agent.executor import Executor
    from .agent.network import NetworkDriver
    from .autoscaler.source import SourceOf
    from .clock import Clock
    from .manager.eventlog import EventLog
    from .manager.manager import Manager
    from .manager.reconcile import Reconciler
    from .membership import Membership
    from .model.session import NodeNews
    from .wire.link import StreamMethod

FORCED_RESIGN_S = 3.0
SETTLE_S = 5.0
"""A manager's agent begins with its own manager, unless that takes too long."""
ROLE_AGAIN_S = 2.0
"""After that a certificate is asked for again that is not of the role we were told."""

log = logging.getLogger(__name__)


class MemberSettings(NamedTuple):
    """What every stay on this host has in common.

    Attributes:
        manager_streams: what this node offers to other managers while it is one.
        moved: returns where a node is whose host may have another address by now.
        events: gets what happens in the swarm while this node is a manager.
    """

    state_dir: Path
    hostname: str
    clock: Clock
    new_id: Callable[[], str]
    manager_streams: Mapping[str, StreamMethod]
    moved: Callable[[Membership], Membership]
    reconcilers: Sequence[Reconciler]
    metric_source: SourceOf
    events: EventLog


class Member:
    """This node in its swarm.

    Args:
        membership: its place; changes when a manager tells of other managers.
        listeners: the node port of a manager, if it is open already.

    ``ready`` is set when everything has started, ``ended`` by the owner when :meth:`run` is over,
    ``failure`` then says why in a sentence. Cancelling ``scope`` ends the stay; with ``leaving``
    set, its owner then forgets it.
    """

    def __init__(
        self,
        settings: MemberSettings,
        membership: Membership,
        credentials: identity.Credentials,
        listeners: Sequence[trio.SocketListener],
    ) -> None:
        self._settings = settings
        self.membership = membership
        self.credentials = credentials
        self.listeners = listeners
        self.managership = Managership(
            state_dir=settings.state_dir,
            credentials=credentials,
            place=lambda: self.membership,
            keep=self._keep,
            open_port=open_port,
            listeners=listeners,
            streams=settings.manager_streams,
            reconcilers=settings.reconcilers,
            metric_source=settings.metric_source,
            events=settings.events,
            clock=settings.clock,
            new_id=settings.new_id,
            renew=lambda: self._renew_asked.set(),
        )
        self.agent: Agent | None = None
        self.ready = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.failure = ""
        self.leaving = False
        self._renew_asked = trio.Event()
        self._keeping = trio.Lock()
        self._renewal_answered = 0
        self._told_role = ""

    @property
    def manager(self) -> Manager | None:
        """This node as a manager that knows the cluster; None while it is none."""
        manager = self.managership.manager
        return manager if manager is not None and manager.prepared else None

    @property
    def is_manager(self) -> bool:
        """True for a node whose certificate is a manager's, started or not."""
        return self.credentials.role is Role.MANAGER

    @property
    def broken(self) -> bool:
        """True when something ended that this daemon does not begin again."""
        return bool(self.failure) or self.managership.broken

    @property
    def error(self) -> str:
        """What keeps this node from taking part as it should, in a sentence; else empty.

        Out of session it says why: no manager answers, or they refuse it.
        """
        if self.failure or self.managership.failure is not None:
            return self.failure or str(self.managership.failure)
        return self.agent.error if self.agent is not None else ""

    @property
    def node(self) -> NodeIdentity:
        """Who this node is, for its executor."""
        return NodeIdentity(
            cluster_id=self.credentials.cluster_id,
            node_id=self.credentials.node_id,
            hostname=self._settings.hostname,
            state_dir=str(self._settings.state_dir),
        )

    async def run(self, executor: Executor, driver: NetworkDriver | None) -> None:
        """Be a member until cancelled: the agent says farewell, then a leader hands over.

        Raises:
            StorageFailed, CertificateRefused: this node cannot take part.
        """
        manages = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(executor.run, self.node)
            nursery.start_soon(self._manage, manages, name="managership")
            try:
                async with trio.open_nursery() as inner:
                    await self._run_agent(executor, driver, inner)
                    inner.start_soon(self._renew, name="ca renewal")
                    inner.start_soon(
                        self.credentials.run_links, self._settings.clock, name="ca links"
                    )
                    self.ready.set()
            finally:
                manages.cancel()

    async def _manage(self, scope: trio.CancelScope) -> None:
        """Be a manager for as long as the agent needs one: its farewell goes through it."""
        with scope:
            await self.managership.run()

    async def _run_agent(
        self, executor: Executor, driver: NetworkDriver | None, nursery: trio.Nursery
    ) -> None:
        """Add the agent to ``nursery``; returns when it runs."""
        if self.is_manager:
            with trio.move_on_after(SETTLE_S):
                await self.managership.settled.wait()
        self.agent = Agent(
            credentials=self.credentials,
            executor=executor,
            driver=driver,
            identity=self.node,
            advertise_addr=self._own_addr,
            data_path_addr=lambda: _data_path_addr(self.membership),
            managers=self.dial_order,
            on_news=self._take_news,
            clock=self._settings.clock,
        )
        await nursery.start(self.agent.run)

    async def _own_addr(self) -> str:
        """Return where others find this node, as its host's interfaces are now.

        A manager's place is what its peers dial: it moves when its daemon starts, and not before.
        """
        moved = self.membership if self.is_manager else self._settings.moved(self.membership)
        if moved != self.membership:
            log.info("others are told %s now", moved.advertise_addr)
            await self._keep(moved)
        return self.membership.advertise_addr

    async def wait_begun(self) -> SwarmError | None:
        """Sleep until the stay has begun, or is over; return what keeps it from going as it should.

        Returns:
            Why it is over, or why this node is no manager although it should be.
        """
        await run_until_first(self.ready.wait, self.ended.wait)
        if self.failure:
            return SwarmError(self.failure)
        refusal = self.managership.failure
        return None if refusal is None else again(refusal)

    async def require_lost_majority(self) -> None:
        """Return when no majority can acknowledge what this manager does not hear of.

        Raises:
            HasLeader: one can.
        """
        manager = self.manager
        if manager and not (manager.alone or await manager.wait_without_leader()):
            raise HasLeader

    async def wait_leading(self) -> None:
        """Sleep until this node, a manager that knows of no other, leads.

        Raises:
            SwarmError: it is no manager.
        """
        await run_until_first(self.managership.settled.wait, self.ended.wait)
        if self.manager is None:
            raise SwarmError(self.error)
        await self.manager.wait_leading()

    async def resign(self, *, force: bool) -> None:
        """Leave the managers first, if they can do without this one.

        Raises:
            LastManager, FailedPrecondition: they cannot, and ``force`` was not given.
            SwarmError: whether they can is unknown, and ``force`` was not given.
        """
        manager = self.manager
        if manager is not None and manager.alone:
            if not force:
                raise LastManager
            return
        try:
            with trio.move_on_after(FORCED_RESIGN_S if force else math.inf):
                await self.managership.resign()
        except SwarmError as error:
            if not force:
                raise CannotResign(error) from error
            log.warning("leaving although the managers may need this one: %s", error)

    def dial_order(self) -> tuple[str, ...]:
        """Return the managers to dial; a manager begins with itself."""
        own = (self.membership.advertise_addr,) if self.manager is not None else ()
        return own + tuple(addr for addr in self.membership.managers if addr not in own)

    async def _renew(self) -> None:
        await identity.run_renewal(
            self.credentials,
            self._settings.state_dir,
            self.dial_order,
            self._wait_renewal_asked,
            self._settings.clock,
        )

    async def _wait_renewal_asked(self) -> None:
        """Sleep until a manager wants a new certificate; an earlier wish counts, once.

        A role that changes twice may be told before the certificate of the first change is here.
        """
        late = self._told_role not in ("", self.credentials.role.value)
        with trio.move_on_after(ROLE_AGAIN_S if late else math.inf):
            await self._renew_asked.wait()
        self._renew_asked = trio.Event()

    async def _keep(self, membership: Membership) -> None:
        """Note this node's place, on the disk too."""
        self.membership = membership
        async with self._keeping:  # the newest is written last
            await trio.to_thread.run_sync(
                member_file.store, self._settings.state_dir, self.membership
            )

    async def _take_news(self, news: NodeNews) -> None:
        """Keep what a manager told: the managers there are, whether to renew."""
        managers = tuple(peer.addr for peer in news.managers)
        if managers and managers != self.membership.managers:
            await self._keep(msgspec.structs.replace(self.membership, managers=managers))
        if news.root_ca:
            await self._trust(news.root_ca.encode())
        self._told_role = news.role
        asked = news.renew and news.renew_asked != self._renewal_answered
        if asked or news.role != self.credentials.role.value:
            self._renewal_answered = news.renew_asked
            self._renew_asked.set()

    async def _trust(self, root_pem: bytes) -> None:
        """Trust the roots that a manager tells of."""
        settings = self._settings
        try:
            await identity.trust(
                self.credentials, settings.state_dir, root_pem, settings.clock.now()
            )
        except CertificateRefused as error:
            log.warning("the new root CA does not vouch for this node yet: %s", error)
            self._renew_asked.set()


def _data_path_addr(membership: Membership) -> str:
    """Return where other nodes reach this one below the overlays; "" for where they see it."""
    try:
        return parse_data_path(membership.data_path_addr)
    except SwarmError as error:
        log.warning("traffic between containers takes the usual way: %s", error)
        return ""
