"""What goes between the leader and nodes about traffic: tables out, "the kernel knows" back.

Keeps :class:`~.endpoints.Endpoints` up with the tables, remembers what each node in session was
sent and what its kernel knows, and lets a task's order to stop wait for that (``drain.py``). It
must not know how messages travel.

Law: whoever is about to send asks :meth:`Traffic.catch_up` first, in the same synchronous stretch,
so that no order to stop goes out before the tables that go with it are known here.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import trio

from ..model.change import Kind
from .drain import BELIEVED_S, DRAIN_S, Drains, is_leaving
from .endpoints import NOTHING_SENT, Endpoints, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..model.change import Ref
    from ..model.endpoints import EndpointChanges
    from ..model.objects import TaskRow
    from ..store.view import View
    from .drain import Released

log = logging.getLogger(__name__)


class Carrier:
    """A node in session that carries traffic.

    Attributes:
        sent: what it was sent in this session.
        known: the version of the tables that its kernel agrees with.
        given_up_at: when it is not waited for any longer, having been told what it does not know
            and not come any nearer to it since.
        is_leaving: it will not be back, and takes its rules away itself.
    """

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.sent: Sent = NOTHING_SENT
        self.known = 0
        self.given_up_at = float("inf")
        self.is_leaving = False


class Away(NamedTuple):
    """A node out of touch, whose kernel may go on as before.

    Attributes:
        known: the version of the tables that its kernel agreed with last.
        given_up_at: when it is not waited for any longer.
    """

    known: int
    given_up_at: float


class Traffic:
    """The leader's knowledge of who can reach whom.

    Args:
        nudge: told of each node whose table changed.
        release: told of each node that has tasks whose order to stop need not wait any longer.
    """

    def __init__(
        self, view: View, nudge: Callable[[str], None], release: Callable[[str], None]
    ) -> None:
        self._view = view
        self._nudge = nudge
        self._release = release
        self._endpoints = Endpoints(view)
        self._drains = Drains()
        self._carriers: dict[str, Carrier] = {}
        self._away: dict[str, Away] = {}
        self._is_new = True
        self._ready = trio.Event()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Let go of what nobody waits for any longer, until cancelled."""
        while True:
            self._changed.set()  # that time has passed may be what others wait for
            self._changed = trio.Event()
            now = trio.current_time()
            for released in self._drains.settle(cache(self._known), now):
                self._warn(released)
                self._release(released.node_id)
            nodes: list[Carrier | Away] = [*self._carriers.values(), *self._away.values()]
            ends = [one.given_up_at for one in nodes if one.given_up_at > now]
            with trio.move_on_at(min([self._drains.next_deadline(now), *ends])):
                await self._changed.wait()

    def _warn(self, released: Released) -> None:
        """Tell of a task that stops although somebody may still send to it."""
        unaware = {
            node_id
            for network_id, version in released.unknown.items()
            for node_id in self._awaited(network_id)
            if self._known_by(node_id) < version
        }
        if unaware:
            log.warning(
                "task %s stops now; its clients on nodes %s may fail, which did not say within "
                "%g s that they know",
                released.task_id,
                ", ".join(sorted(unaware)),
                DRAIN_S,
            )

    def forget(self) -> None:
        """Forget all that a leader knows: another one leads."""
        self._drains = Drains()
        self._away.clear()
        self._is_new = True
        self._ready = trio.Event()

    # --- keeping up with the tables ---

    @property
    def ready(self) -> bool:
        """Whether everything was looked at since this manager leads."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Sleep until everything was looked at."""
        await self._ready.wait()

    async def rebuild(self) -> None:
        """Look at everything; what is touched meanwhile is looked at again afterwards."""
        if self.ready:  # whoever waits already goes on waiting for the same
            self._ready = trio.Event()
        self._drains.keep_only(self._is_leaving)
        if self._is_new:
            self._is_new = False
            self._expect_all()
        for _ in self._endpoints.rebuild():
            await trio.lowlevel.checkpoint()
        self._ready.set()
        for node_id in self._carriers:
            self._nudge(node_id)

    def _expect_all(self) -> None:
        """Take every node for out of touch that was not down before this manager led."""
        given_up_at = trio.current_time() + DRAIN_S
        for row in self._view.nodes():
            if row.api.Status.State != "down" and row.api.ID not in self._carriers:
                self._away[row.api.ID] = Away(known=0, given_up_at=given_up_at)

    def catch_up(self, touched: Iterable[Ref]) -> None:
        """Look again at what was touched, and have the nodes told that it concerns."""
        touched = list(touched)
        for ref in touched:
            if ref.kind is Kind.TASK and not self._is_leaving(ref.id):
                self._drains.forget(ref.id)
        changed = self._endpoints.refresh(touched)
        concerned = {node_id for one in changed for node_id in self._endpoints.nodes_of(one)}
        gone = {one for one in changed if not self._view_has(one)}
        for node_id, carrier in self._carriers.items():
            if node_id in concerned or changed & carrier.sent.networks.keys() or gone:
                self._nudge(node_id)
        for ref in touched:
            if ref.kind is Kind.NODE and self._view.node(ref.id) is None:
                self._away.pop(ref.id, None)
        if any(ref.kind in (Kind.NODE, Kind.NETWORK) for ref in touched):
            self._changed.set()  # somebody may not count any more

    # --- nodes ---

    def join(self, node_id: str) -> Carrier:
        """Take in a node that carries traffic; a session before this one is over."""
        carrier = self._carriers[node_id] = Carrier(node_id)
        self._away.pop(node_id, None)
        return carrier

    def leave(self, carrier: Carrier) -> None:
        """Note the end of a node's session."""
        if self._carriers.get(carrier.node_id) is carrier:
            del self._carriers[carrier.node_id]
            if not carrier.is_leaving:
                given_up_at = trio.current_time() + DRAIN_S
                self._away[carrier.node_id] = Away(carrier.known, given_up_at)
            self._changed.set()

    def changes(self, carrier: Carrier) -> list[EndpointChanges]:
        """Return what a node is to be told, in parts; nothing when it knows all."""
        parts, carrier.sent = self._endpoints.changes(carrier.node_id, carrier.sent)
        if parts and carrier.given_up_at == float("inf"):
            carrier.given_up_at = trio.current_time() + DRAIN_S
            self._changed.set()
        return parts

    def note_known(self, carrier: Carrier, version: int) -> None:
        """Note that a node's kernel agrees with a version of the tables.

        One of tables that are not there yet is of a swarm that was founded anew since.
        """
        version = min(version, self._view.index)
        if version > carrier.known:
            carrier.known = version
            is_behind = version < carrier.sent.version
            carrier.given_up_at = trio.current_time() + DRAIN_S if is_behind else float("inf")
            self._changed.set()

    # --- tasks that shall stop ---

    def holds(self, row: TaskRow) -> bool:
        """Return whether a task's order to stop has to wait."""
        if not is_leaving(row):
            return False
        networks = self._endpoints.places_of(row.api.ID)
        rest_s = BELIEVED_S if networks and self._is_found_by_name(row) else 0.0
        now = trio.current_time()
        held = self._drains.holds(row, networks, self._known, now, rest_s=rest_s)
        if held:
            self._changed.set()
        return held

    async def wait_left(self, node_id: str) -> None:
        """Sleep until no other sends a node anything new that is down, or for long enough.

        What it knows itself is not waited for: after its farewell it is not heard any more.
        """
        own = self._endpoints.networks_of(node_id)
        networks = {one: self._endpoints.last_change(one) for one in own}

        def is_over() -> bool:
            found = ((self._known(one, node_id), version) for one, version in networks.items())
            return all(known is None or known >= version for known, version in found)

        with trio.move_on_after(DRAIN_S):
            while not is_over():
                await self._changed.wait()

    def _known(self, network_id: str, but: str = "") -> int | None:
        """Return the version of the tables that every node of a network knows, but for one."""
        awaited = (one for one in self._awaited(network_id) if one != but)
        return min(map(self._known_by, awaited), default=None)

    def _awaited(self, network_id: str) -> Iterator[str]:
        """Yield the nodes of a network that are waited for."""
        now = trio.current_time()
        for node_id in self._endpoints.nodes_of(network_id):
            row, other = self._view.node(node_id), self._other(node_id)
            if row is None or other is None or not row.private.network_driver:
                continue
            if now < other.given_up_at:
                yield node_id

    def _other(self, node_id: str) -> Carrier | Away | None:
        return self._carriers.get(node_id) or self._away.get(node_id)

    def _known_by(self, node_id: str) -> int:
        other = self._other(node_id)
        return other.known if other is not None else 0

    def _is_leaving(self, task_id: str) -> bool:
        row = self._view.task(task_id)
        return row is not None and is_leaving(row)

    def _is_found_by_name(self, row: TaskRow) -> bool:
        """Return whether clients are given a task's own address, and not its service's."""
        service = self._view.service(row.api.ServiceID)
        endpoint = service.api.Spec.EndpointSpec if service is not None else None
        return endpoint is not None and endpoint.Mode == "dnsrr"

    def _view_has(self, network_id: str) -> bool:
        return self._view.network(network_id) is not None
