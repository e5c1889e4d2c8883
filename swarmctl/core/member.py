"""One stay in a swarm: from joining (or starting) to leaving (or ending).

    run
    ├ executor             its events and checks
    ├ manager              consensus, node port, the leader's work; while this node is one
    ├ agent                one session with the leader's dispatcher; runs the tasks
    └ ca renewal           own certificate

It must not know the API, nor how a node comes to be a member.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from . import membership as member_file
from .agent.agent import Agent
from .agent.executor import NodeIdentity
from .ca import credentials as identity
from .manager import state as manager_state
from .manager.manager import Manager

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .agent.executor import Executor
    from .clock import Clock
    from .manager.reconcile import Reconciler
    from .membership import Membership
    from .model.session import NodeNews


class MemberSettings(NamedTuple):
    """What every stay on this host has in common."""

    state_dir: Path
    hostname: str
    clock: Clock
    new_id: Callable[[], str]


class Member:
    """This node in its swarm.

    Args:
        membership: its place; changes when a manager tells of other managers.
        listeners: the open node port, for a manager.

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
        self.manager: Manager | None = None
        self.agent: Agent | None = None
        self.ready = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.failure = ""
        self.leaving = False
        self._renew_asked = trio.Event()

    @property
    def node(self) -> NodeIdentity:
        """Who this node is, for its executor."""
        return NodeIdentity(
            cluster_id=self.credentials.cluster_id,
            node_id=self.credentials.node_id,
            hostname=self._settings.hostname,
            state_dir=str(self._settings.state_dir),
        )

    async def run(self, executor: Executor, reconcilers: Sequence[Reconciler]) -> None:
        """Be a member until cancelled.

        Raises:
            StorageFailed, Undecodable, CertificateRefused: this node cannot take part.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(executor.run, self.node)
            if self.membership.raft_id:
                await nursery.start(self._run_manager, reconcilers)
            self.agent = Agent(
                credentials=self.credentials,
                executor=executor,
                identity=self.node,
                advertise_addr=self.membership.advertise_addr,
                managers=self.dial_order,
                on_news=self._take_news,
                clock=self._settings.clock,
            )
            await nursery.start(self.agent.run)
            nursery.start_soon(self._renew, name="ca renewal")
            self.ready.set()

    def dial_order(self) -> tuple[str, ...]:
        """Return the managers to dial; a manager begins with itself."""
        own = (self.membership.advertise_addr,) if self.membership.raft_id else ()
        return own + tuple(addr for addr in self.membership.managers if addr not in own)

    async def _run_manager(
        self,
        reconcilers: Sequence[Reconciler],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        credentials, settings = self.credentials, self._settings
        opened = await trio.to_thread.run_sync(
            lambda: manager_state.open_state(
                settings.state_dir,
                owner=owner_of(credentials.cluster_id, credentials.node_id),
                raft_id=self.membership.raft_id,
            )
        )
        self.manager = Manager(opened, credentials, reconcilers, settings.clock, settings.new_id)
        await self.manager.run(self.listeners, task_status=task_status)

    async def _renew(self) -> None:
        await identity.run_renewal(
            self.credentials,
            self._settings.state_dir,
            self.dial_order,
            self._wait_renewal_asked,
            self._settings.clock,
        )

    async def _wait_renewal_asked(self) -> None:
        """Sleep until a manager wants a new certificate; an earlier wish counts, once."""
        await self._renew_asked.wait()
        self._renew_asked = trio.Event()

    async def _take_news(self, news: NodeNews) -> None:
        """Keep what a manager told: the managers there are, whether to renew."""
        managers = tuple(peer.addr for peer in news.managers)
        if managers and managers != self.membership.managers:
            self.membership = msgspec.structs.replace(self.membership, managers=managers)
            await trio.to_thread.run_sync(
                member_file.store, self._settings.state_dir, self.membership
            )
        if news.renew or news.role != self.credentials.role.value:
            self._renew_asked.set()


def owner_of(cluster_id: str, node_id: str) -> str:
    """Return what a manager's database records are bound to."""
    return f"{cluster_id}/{node_id}"
