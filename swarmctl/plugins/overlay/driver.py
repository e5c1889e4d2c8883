"""The ``overlay`` network driver: keeps this node's kernel as the endpoint table says.

One loop. It is woken by a new table, by news from the kernel, and every few seconds anyway; a pass
looks at what shall be and makes it so, in the host's namespace and then in each task's. Whoever
waits for a version is woken when a whole pass for it went well.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import NetworkState, NodeReport, SwarmError
from swarmctl.plugins.model import EMPTY_TABLE

from .dns.link import ResponderLink
from .host import HostSide
from .netlink import ROUTE, NetlinkSocket
from .nft import Nft
from .pathmtu import measure, wanted_sizes
from .sandboxes import SandboxSide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.plugins import Finding, NetworkDriverSettings, NodeIdentity, Probe, Sandbox
    from swarmctl.plugins.model import EndpointTable

AUDIT_S = 5.0
RETRY_S = 1.0
MEASURE_S = 600.0
NAMES_S = 1.0
"""How long is waited for the responder: in a new sandbox, and for it to know a new table."""
NEWS_PAUSE_S = 0.05
"""Making one bridge is a dozen pieces of news."""
_LINKS_AND_ADDRESSES = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR

log = logging.getLogger(__name__)


class CannotCarryTraffic(SwarmError):
    """This host lacks what overlays need."""


class NotRemoved(SwarmError):
    """Some of what carried our mark is there still."""


class OverlayDriver:
    """Implements :class:`swarmctl.plugins.NetworkDriver`."""

    name = "overlay"
    answers_names = True

    def __init__(self, settings: NetworkDriverSettings) -> None:
        self._names = ResponderLink(Path(settings.state_dir))
        self._table: EndpointTable | None = None
        self._sandboxes: tuple[Sandbox, ...] = ()
        self._version = 0
        self._problems: tuple[str, ...] = ()
        self._repaired: Counter[str] = Counter()
        self._wake = trio.Event()
        self._news = trio.Event()
        self._passed = trio.Event()
        self._one_pass = trio.Lock()
        self._narrow: dict[str, int] | None = None  # not known yet
        self._served: frozenset[str] = frozenset()  # where names are answered, as last seen to
        self._peers_changed = trio.Event()
        self._host: HostSide | None = None
        self._tasks: SandboxSide | None = None

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See :class:`swarmctl.plugins.NetworkDriver`.

        Raises:
            CannotCarryTraffic: not root, or ``nft`` is missing.
        """
        _check_host()
        nft = Nft()
        try:
            self._host = HostSide(identity.node_id, nft)
            news = NetlinkSocket(ROUTE)
            news.subscribe(_LINKS_AND_ADDRESSES)
        except OSError as error:
            raise CannotCarryTraffic(f"the kernel's network cannot be changed: {error}") from error
        self._tasks = SandboxSide(nft)
        self._tasks.take(self._sandboxes)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, news, name="kernel's news")
                nursery.start_soon(self._measure, self._host, name="path mtu")
                await nursery.start(self._names.run)
                self._served = self._names.served
                nursery.start_soon(self._hear_names, name="names served")
                task_status.started()
                await self._reconcile_forever(self._host, self._tasks)
        finally:
            news.close()
            self._tasks.close()
            self._host.close()
            self._host = self._tasks = None

    def want(self, table: EndpointTable, sandboxes: Sequence[Sandbox]) -> None:
        """See :class:`swarmctl.plugins.NetworkDriver`."""
        if self._table is None or wanted_sizes(table) != wanted_sizes(self._table):
            self._peers_changed.set()
        self._table = table
        self._sandboxes = tuple(sandboxes)
        if self._tasks is not None:
            self._tasks.take(sandboxes)
        self._names.want(table, sandboxes)
        self._wake.set()

    async def wait_version(self, version: int) -> NetworkState:
        """See :class:`swarmctl.plugins.NetworkDriver`."""
        while self._version < version:
            await self._passed.wait()
        with trio.move_on_after(NAMES_S):  # who asks for a name is not sent where nobody listens
            await self._names.wait_current()
        await trio.lowlevel.checkpoint()
        return self.state()

    async def wait_sandbox(self, sandbox_id: str) -> None:
        """See :class:`swarmctl.plugins.NetworkDriver`."""
        while self._tasks is None or sandbox_id not in self._tasks.ready:
            await self._passed.wait()
        if self._is_to_be_named(sandbox_id):
            with trio.move_on_after(NAMES_S):  # until then the gateway answers it
                while self._tasks is None or sandbox_id not in self._tasks.named:
                    await self._passed.wait()
        await trio.lowlevel.checkpoint()

    def _is_to_be_named(self, sandbox_id: str) -> bool:
        """Return whether a sandbox is on a network in which names are answered."""
        networks = self._table.networks if self._table is not None else ()
        users = {part.network.id for part in networks if not part.network.ingress}
        return any(
            one.id == sandbox_id and not users.isdisjoint(one.networks) for one in self._sandboxes
        )

    def state(self) -> NetworkState:
        """See :class:`swarmctl.plugins.NetworkDriver`."""
        return NetworkState(
            version=self._version, problems=self._problems, repaired=dict(self._repaired)
        )

    async def doctor(self, *, brief: bool, probe: bool) -> NodeReport:
        """See :class:`swarmctl.plugins.NetworkDriver`."""
        table, host, tasks = self._table, self._host, self._tasks
        if table is None or host is None or tasks is None:
            await trio.lowlevel.checkpoint()
            return NodeReport(problems=self._problems, repaired=dict(self._repaired))
        problems = list(self._problems)
        findings: list[Finding] = []
        probes: list[Probe] = []
        async with self._one_pass:  # so that nothing is compared while it changes
            repaired = dict(self._repaired)
            try:
                findings = await host.findings(table)
                findings += tasks.findings(table, resolved=self._served, narrow=self._narrow)
            except (SwarmError, OSError) as error:
                problems.append(f"the kernel could not be read: {error}")
        if probe:
            probes = await tasks.probes(table, host.node_id)
        return NodeReport(
            version=table.version,
            findings=tuple(one for one in findings if not brief or one.table != one.kernel),
            compared=len(findings),
            probes=tuple(probes),
            problems=tuple(problems),
            repaired=repaired,
        )

    async def remove_all(self) -> None:
        """See :class:`swarmctl.plugins.NetworkDriver`.

        Raises:
            SwarmError: what the kernel did not let go of, or ``nft`` not take.
        """
        await self._names.remove()  # whatever the kernel says of the rest
        async with self._one_pass:
            if self._host is not None and self._tasks is not None:
                self._tasks.take(())
                await self._tasks.reconcile(EMPTY_TABLE, (), resolved=(), narrow=None, audit=False)
                try:
                    failures = await self._host.remove_all()
                except OSError as error:
                    raise NotRemoved(str(error)) from error
                if failures:
                    raise NotRemoved("; ".join(failures))

    # --- the loop ---

    async def _reconcile_forever(self, host: HostSide, tasks: SandboxSide) -> None:
        audit_at = trio.current_time()
        while True:
            await self._wait_reason(audit_at)
            audit, look = trio.current_time() >= audit_at, self._news.is_set()
            self._wake, self._news = trio.Event(), trio.Event()
            table = self._table
            if table is None:
                audit_at = trio.current_time() + AUDIT_S
                continue
            is_well = await self._pass(host, tasks, table, look=look, audit=audit)
            if audit or not is_well:
                audit_at = trio.current_time() + (AUDIT_S if is_well else RETRY_S)

    async def _wait_reason(self, audit_at: float) -> None:
        """Sleep until there is a reason to look: something new is wanted, news, or the time."""
        with trio.move_on_at(audit_at):
            await self._wake.wait()

    async def _pass(
        self, host: HostSide, tasks: SandboxSide, table: EndpointTable, *, look: bool, audit: bool
    ) -> bool:
        """Make the kernel agree once; return whether it does."""
        sandboxes = self._sandboxes
        problems: list[str] = []
        failures: list[str] = []
        drift: list[str] = []
        async with self._one_pass:
            try:
                outcome = await host.reconcile(table, look=look, audit=audit)
                problems += outcome.problems
                failures += outcome.failures
                drift += outcome.drift
            except (SwarmError, OSError) as error:
                failures.append(str(error))  # which is the host's: tasks have theirs all the same
            problems += self._names.problems
            meant = {sandbox.id for sandbox in sandboxes}
            served = self._served = self._names.served
            inside = await tasks.reconcile(
                table, meant, resolved=served, narrow=self._narrow, audit=audit
            )
            failures += inside.failures
            drift += inside.drift
        for what in drift:
            log.warning("repaired: %s", what)
        for what in failures:
            log.warning("network: %s", what)
        self._repaired.update(drift)
        self._problems = tuple(dict.fromkeys(problems + failures))
        if not failures:
            self._version = table.version
        self._passed.set()
        self._passed = trio.Event()
        return not failures

    async def _listen(self, news: NetlinkSocket) -> None:
        """Wake the loop when links or addresses change."""
        while True:
            await trio.lowlevel.wait_readable(news.fileno())
            news.drain()
            self._news.set()
            self._wake.set()
            await trio.sleep(NEWS_PAUSE_S)

    async def _hear_names(self) -> None:
        """Have the loop look when names are answered in another namespace, or in one less."""
        served = self._names.served
        while True:
            await self._names.wait_news()
            if self._names.served != served:
                served = self._names.served
                self._wake.set()

    async def _measure(self, host: HostSide) -> None:
        """Find out what gets through to peers: when they change, and now and then."""
        while True:
            with trio.move_on_after(MEASURE_S):
                await self._peers_changed.wait()
            self._peers_changed = trio.Event()
            if self._table is None:
                continue
            narrow = await measure(host.namespace, self._table)
            for peer, size in narrow.items():
                log.warning("packets of more than %d bytes do not get through to %s", size, peer)
            if narrow != self._narrow:
                self._narrow = narrow
                self._wake.set()


def _check_host() -> None:
    if os.geteuid() != 0:
        raise CannotCarryTraffic("networks need root; this node carries no traffic between hosts")
    for tool, package in (("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            raise CannotCarryTraffic(
                f"networks need {tool}, which is not on this host; install {package} and restart"
            )
