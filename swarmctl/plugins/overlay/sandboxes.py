"""The namespaces of this node's tasks: virtual addresses in each of them."""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import trio

from swarmctl.plugins import Finding

from .balance import sandbox_rules
from .conntrack import Follower, Lead, Leads
from .findings import rule_findings
from .namespaces import Namespace, NamespaceGone
from .nft import RulesRefused
from .pathmtu import limit_of, route_sizes, set_route_sizes, subnets_of
from .probe import PROBES_MAX, choose, try_path
from .returning import ensure_ways_back, ways_back, ways_there
from .ruleslot import RuleSlot
from .writing import Writer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from swarmctl.plugins import Probe, Sandbox
    from swarmctl.plugins.model import EndpointTable, NetworkTable

    from .nft import Nft
    from .returning import WayBack
    from .rules import Ruleset

TURNS = 8
"""Clients begin their turns at so many different places; those of one place share their rules."""

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a pass went: what failed, and what was found changed and mended, in words."""

    failures: list[str]
    drift: list[str]


class Wish(NamedTuple):
    """What one namespace shall have.

    Attributes:
        sizes: of packets into each subnet, 0 for those of the interface.
    """

    rules: Ruleset
    leads: Leads
    parts: Sequence[NetworkTable]
    ways: frozenset[WayBack]
    sizes: dict[str, int]

    @property
    def has_routes(self) -> bool:
        """Whether there is anything about routes that others could have changed."""
        return bool(self.ways) or any(self.sizes.values())


class _Pass(NamedTuple):
    """What all namespaces of one pass share.

    Attributes:
        ready: ids of those that agree so far.
        audit: it looks also where nothing new is wanted.
    """

    writer: Writer
    outcome: Outcome
    ready: set[str]
    audit: bool


class _Kind(NamedTuple):
    """What sandboxes have in common that have the same rules."""

    networks: tuple[str, ...]
    turn: int
    has_resolver: bool
    resolvers: tuple[str, ...]


class Wishes:
    """What a table asks of any namespace; those on the same networks share their rules.

    Args:
        resolved: ids of the sandboxes in which our resolver listens.
        narrow: what gets through to peers where that is less than it should be, by address; None
            before that is known, when sizes stay as they are.
    """

    def __init__(
        self, table: EndpointTable, resolved: Collection[str], narrow: Mapping[str, int] | None
    ) -> None:
        self._table = table
        self._narrow = narrow
        self._resolved = resolved
        self._networks = {part.network.id: part for part in table.networks}
        self._made: dict[_Kind, Ruleset] = {}
        self._leads: dict[tuple[str, ...], Leads] = {}
        self._keeps_sources = any(port.keep_source for port in table.published)

    def of(self, sandbox: Sandbox) -> Wish:
        """Return what a sandbox's namespace shall have."""
        parts = [self._networks[one] for one in sandbox.networks if one in self._networks]
        turn = zlib.crc32(sandbox.id.encode()) % TURNS
        kind = _Kind(sandbox.networks, turn, sandbox.id in self._resolved, sandbox.resolvers)
        if kind not in self._made:
            self._made[kind] = sandbox_rules(
                parts,
                seed=str(turn),
                has_resolver=kind.has_resolver,
                resolvers=kind.resolvers,
            )
        if sandbox.networks not in self._leads:
            self._leads[sandbox.networks] = _leads(parts)
        ways: frozenset[WayBack] = frozenset()
        if self._keeps_sources:
            ways = ways_back(self._table, sandbox.id)
        sizes: dict[str, int] = {}
        if self._narrow is not None:
            for part, subnet in subnets_of(parts):
                sizes[subnet] = limit_of(part, self._table.own_addr, self._narrow)
        return Wish(self._made[kind], self._leads[sandbox.networks], parts, ways, sizes)


class SandboxSide:
    """The namespaces that are wanted, held open.

    Attributes:
        ready: ids of those that can reach what they may reach.
        named: ids of those whose questions are answered in their own namespace.
    """

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._open: dict[str, _Held] = {}
        self._wanted: frozenset[str] = frozenset()
        self._one_look = trio.CapacityLimiter(1)
        self.ready: frozenset[str] = frozenset()
        self.named: frozenset[str] = frozenset()

    def close(self) -> None:
        """Let go of all; what is in them stays."""
        for held in self._open.values():
            held.namespace.close()
        self._open.clear()

    def take(self, sandboxes: Sequence[Sandbox]) -> None:
        """Open what is new, at once: who has a process id today may not have it tomorrow.

        The others are let go by the next :meth:`reconcile`.
        """
        self._wanted = frozenset(sandbox.id for sandbox in sandboxes)
        for sandbox in sandboxes:
            held = self._open.get(sandbox.id)
            if held is not None and held.sandbox.pid == sandbox.pid:
                held.sandbox = sandbox
                continue
            if held is not None:
                self._drop(sandbox.id)  # the same task in a new namespace
            try:
                self._open[sandbox.id] = _Held(sandbox, Namespace(sandbox.pid), self._nft)
            except NamespaceGone as error:
                log.info("task %s: %s", sandbox.id, error)
            except OSError as error:
                log.warning("task %s has no virtual addresses: %s", sandbox.id, error)

    async def reconcile(
        self,
        table: EndpointTable,
        meant: Collection[str],
        *,
        resolved: Collection[str],
        narrow: Mapping[str, int] | None,
        audit: bool,
    ) -> Outcome:
        """Make every namespace agree with a table.

        Args:
            meant: ids of the sandboxes that were wanted with that table.
            resolved: ids of those in which our resolver listens.
            narrow: what gets through to peers where that is less than it should be, by address;
                None before that is known.
            audit: routes are looked at also when nothing new is wanted.
        """
        for sandbox_id in [one for one in self._open if one not in self._wanted]:
            await self._release(sandbox_id)
        wishes = Wishes(table, resolved, narrow)
        gone = set(meant) - self._open.keys()  # nobody is to wait for them
        this = _Pass(Writer(self._nft), Outcome([], []), ready=gone, audit=audit)
        async with trio.open_nursery() as nursery:
            for held in list(self._open.values()):
                await trio.lowlevel.checkpoint()  # a task's rules take a moment to compute
                wish = wishes.of(held.sandbox)
                if held.is_as(wish) and not (audit and wish.has_routes):
                    this.ready.add(held.sandbox.id)
                else:
                    nursery.start_soon(self._ensure, held, wish, this)
        self.ready = frozenset(this.ready) & frozenset(meant)
        self.named = self.ready & frozenset(resolved)
        return this.outcome

    def findings(
        self,
        table: EndpointTable,
        *,
        resolved: Collection[str],
        narrow: Mapping[str, int] | None,
    ) -> list[Finding]:
        """Compare every namespace with a table, mending nothing; arguments as in `reconcile`.

        Raises:
            OSError: what is in one cannot be listed.
        """
        wishes = Wishes(table, resolved, narrow)
        found: list[Finding] = []
        for held in list(self._open.values()):
            wish = wishes.of(held.sandbox)
            names = ", ".join(part.network.name for part in wish.parts)
            found += rule_findings(names, wish.rules, held.slot.listed(), held.sandbox.id)
            if wish.has_routes:
                found += held.route_findings(names, wish)
        return found

    async def probes(self, table: EndpointTable, node_id: str) -> list[Probe]:
        """Try paths from tasks here to tasks elsewhere, side by side."""
        wishes = Wishes(table, (), {})
        found: list[Probe] = []

        async def one(held: _Held, network: str, target: str, address: str) -> None:
            source = held.sandbox.id
            found.append(await try_path(held.namespace, network, source, target, address))

        async with trio.open_nursery() as nursery:
            for held in list(self._open.values())[:PROBES_MAX]:
                paths = choose(held.sandbox.id, wishes.of(held.sandbox).parts, node_id)
                for path in islice(paths, max(1, PROBES_MAX // len(self._open))):
                    nursery.start_soon(one, held, *path)
        return sorted(found, key=lambda probe: (probe.network, probe.source, probe.target))

    async def _ensure(self, held: _Held, wish: Wish, this: _Pass) -> None:
        try:
            drift = [f"rules {name}" for name in await held.slot.ensure(wish.rules, this.writer)]
            drift += held.ensure_routes(wish.ways, wish.sizes, look=this.audit)
            await self._follow(held, wish.leads)
        except (RulesRefused, OSError) as error:
            if held.is_alive():
                this.outcome.failures.append(f"task {held.sandbox.id}: {error}")
                return
        else:
            this.outcome.drift.extend(f"{what} of a task" for what in drift)
        this.ready.add(held.sandbox.id)

    async def _follow(self, held: _Held, leads: Leads) -> None:
        """Have connections that lead to nobody begin anew.

        Raises:
            OSError: what the kernel says.
        """
        follow = partial(held.follower.follow, held.namespace.netfilter, leads)
        if held.follower.lessened(leads):  # it takes a while to look at thousands of connections
            await trio.to_thread.run_sync(follow, limiter=self._one_look)
        else:
            follow()

    async def _release(self, sandbox_id: str) -> None:
        """Let go of a namespace; one that lives on loses what we put into it.

        Unless it is wanted again meanwhile: then it gets all of it anew.
        """
        held = self._open[sandbox_id]
        if held.is_alive():
            with contextlib.suppress(RulesRefused, OSError):
                held.ensure_routes(frozenset(), {})
                await held.slot.ensure({})
        if self._open.get(sandbox_id) is held and sandbox_id not in self._wanted:
            self._drop(sandbox_id)

    def _drop(self, sandbox_id: str) -> None:
        self._open.pop(sandbox_id).namespace.close()


class _Held:
    """One namespace."""

    def __init__(self, sandbox: Sandbox, namespace: Namespace, nft: Nft) -> None:
        self.sandbox = sandbox
        self.namespace = namespace
        self.slot = RuleSlot(namespace, nft)
        self.follower = Follower()
        self._ways: frozenset[WayBack] = frozenset()
        self._sizes: dict[str, int] = {}

    def is_as(self, wish: Wish) -> bool:
        if (self._ways, self._sizes) != (wish.ways, wish.sizes):
            return False
        if not self.follower.follows(wish.leads):
            return False
        try:
            return self.slot.is_as(wish.rules)
        except OSError:
            return False

    def route_findings(self, names: str, wish: Wish) -> Iterator[Finding]:
        """Yield ways back of clients, and sizes of packets where these are limited.

        Raises:
            OSError: what the kernel says.
        """
        kernel = self.namespace.route_socket()
        try:
            ways = ways_there(kernel, wish.ways)
            sizes = route_sizes(kernel, wish.sizes)
        finally:
            kernel.close()
        for way in sorted(wish.ways):
            words = f"over {way.gateway}"
            kind, subject = "way back", f"{self.sandbox.id} {way.address}"
            yield _finding(names, kind, subject, words, words if way in ways else "")
        for subnet, limit in sorted(wish.sizes.items()):
            if limit or sizes.get(subnet):
                subject = f"{self.sandbox.id} {subnet}"
                yield _finding(names, "size", subject, str(limit), str(sizes.get(subnet, 0)))

    def is_alive(self) -> bool:
        """Return whether the process is still in the namespace that was opened."""
        return self.namespace.is_of_its_process()

    def ensure_routes(
        self, ways: frozenset[WayBack], sizes: dict[str, int], *, look: bool = False
    ) -> list[str]:
        """Have these ways back and sizes of packets; return what was found changed by others.

        Args:
            look: at them also when they were there last.

        Raises:
            OSError: what the kernel says.
        """
        is_new = (self._ways, self._sizes) != (ways, sizes)
        if not (is_new or look):
            return []
        kernel = self.namespace.route_socket()
        try:
            codes = ensure_ways_back(kernel, ways)
            if failed := next((code for code in codes if code), 0):
                raise OSError(failed, f"the way back of clients: {os.strerror(failed)}")
            resized = set_route_sizes(kernel, {**dict.fromkeys(self._sizes, 0), **sizes})
        finally:
            kernel.close()
        self._ways, self._sizes = ways, sizes
        changed = {"the way back of clients": bool(codes), "sizes of packets": resized}
        return [] if is_new else [what for what, is_changed in changed.items() if is_changed]


def _finding(network: str, kind: str, subject: str, table: str, kernel: str) -> Finding:
    return Finding(network=network, kind=kind, subject=subject, table=table, kernel=kernel)


def _leads(parts: Iterable[NetworkTable]) -> Leads:
    """Return where connections from a task on these networks may lead."""
    return Leads(
        Lead(
            frozenset({vip}),
            frozenset(address for one in service.members for address in one.addresses),
        )
        for part in parts
        for service in part.services
        for vip in service.vips
    )
