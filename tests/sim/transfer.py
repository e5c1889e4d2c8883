"""Snapshots on their way from one manager to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.queue import MS, S

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarmctl.core.raft.message import Message
    from swarmctl.core.raft.waiting import Reception
    from tests.sim.member import Manager

LONGEST_NS = 4 * S
"""After that the sender takes the receiver for gone."""


class Transfer:
    """A snapshot on its way to another member, chunk by chunk, like the product's stream."""

    def __init__(self, sender: Manager, message: Message) -> None:
        self._sender = sender
        self._message = message
        self._cluster = sender.cluster
        assert message.snapshot is not None
        self._index = message.snapshot.index
        self._chunks: tuple[bytes, ...] = ()
        self._reception: Reception | None = None
        self._over = False

    def begin(self) -> None:
        self._cluster.counts["snapshots sent"] += 1
        self._sender.scope.after(LONGEST_NS, self._break)
        target = self._cluster.member(self._message.to)
        chunks = self._sender.disk.chunks_of(self._index)
        if target is None or chunks is None:
            self._break()
            return
        self._chunks = chunks
        self._carry(self._start, target)

    def _carry(self, call: Callable[[Manager], None], target: Manager) -> None:
        """Go on at the target after one message's time, or end."""
        network, source = self._cluster.network, self._sender.host.name
        back_and_forth = network.passes(source, target.host.name) and network.passes(
            target.host.name, source
        )
        if back_and_forth:
            self._cluster.queue.after(network.delay(), self._arrive, call, target)
        else:
            self._break()

    def _arrive(self, call: Callable[[Manager], None], target: Manager) -> None:
        if target.scope.alive and self._sender.scope.alive and not self._over:
            call(target)
        else:
            self._break()

    def _start(self, target: Manager) -> None:
        stamp = b"%d %d" % (self._index, self._message.snapshot.term)  # type: ignore[union-attr]
        reception = target.runner.expect(stamp)
        if reception is None:
            self._break()
            return
        if reception.chunks:
            self._cluster.counts["snapshots resumed"] += 1
        self._reception = reception
        self._next(target)

    def _next(self, target: Manager) -> None:
        reception = self._reception
        assert reception is not None
        if target.runner._incoming is not reception:
            self._break()  # another transfer has taken its place
        elif reception.chunks < len(self._chunks):
            chunk = self._chunks[reception.chunks]
            reception.state.add(chunk)
            place, reception.chunks = reception.chunks, reception.chunks + 1
            target.disk.stage(place, chunk, lambda: self._carry(self._next, target))
        else:
            if self._cluster.broken_transfers.pop(target.raft_id, None):
                self._cluster.counts["snapshots under loss"] += 1
            target.runner.arrived(reception, self._message)
            target.kick()
            self._report(ok=True)

    def _break(self) -> None:
        if self._over:
            return
        self._cluster.counts["snapshots broken off"] += 1
        self._cluster.broken_transfers[self._message.to] = True
        self._report(ok=False)

    def _report(self, *, ok: bool) -> None:
        self._over = True
        self._cluster.queue.after(100 * MS, self._tell, ok)

    def _tell(self, ok: bool) -> None:
        if self._sender.scope.alive:
            self._sender.runner.report_snapshot(self._message.to, ok=ok)
            self._sender.kick()
