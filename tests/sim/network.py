"""The network: datagrams that are lost, doubled, late and out of order; streams that break.

Consensus speaks in datagrams (its product link keeps order, but a new link after a broken one does
not, and its messages may be dropped at any time). Sessions and calls use a :class:`Stream`: in
order and whole until a message cannot get through, then dead in both directions; each end learns
of that some time later, as with TCP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.sim.queue import MS, S

if TYPE_CHECKING:
    import random
    from collections import Counter
    from collections.abc import Callable, Iterable

    from tests.sim.queue import Queue


@dataclass
class Weather:
    """How bad it is; the simulation changes it as it goes. All are probabilities."""

    loss: float = 0.0
    doubling: float = 0.0
    reordering: float = 0.0
    slowness: float = 0.0


class Network:
    """Carries messages between hosts, which are known by their names."""

    def __init__(self, queue: Queue, rng: random.Random, counts: Counter[str]) -> None:
        self.weather = Weather()
        self.cuts: set[tuple[str, str]] = set()
        self.counts = counts
        self._queue = queue
        self._rng = rng

    def cut(self, links: Iterable[tuple[str, str]]) -> None:
        """Let nothing pass over these one-way links."""
        self.cuts.update(link for link in links if link[0] != link[1])

    def heal(self) -> None:
        self.cuts.clear()

    def passes(self, source: str, target: str) -> bool:
        """Decide the fate of one message."""
        if self.cuts and (source, target) in self.cuts:
            self.counts["messages cut off"] += 1
            return False
        if self.weather.loss and self._rng.random() < self.weather.loss:
            self.counts["messages lost"] += 1
            return False
        return True

    def delay(self) -> float:
        """Return how long one message takes, in nanoseconds."""
        delay = (0.3 + 2 * self._rng.random()) * MS
        if self.weather.slowness and self._rng.random() < self.weather.slowness:
            self.counts["messages delayed"] += 1
            delay += self._rng.random() * 800 * MS
        return delay

    def send(self, source: str, target: str, call: Callable[..., object], *args: object) -> None:
        """Send a datagram: ``call(*args)`` happens at the target, none, one or two times."""
        if not self.passes(source, target):
            return
        delay = self.delay()
        weather, rng = self.weather, self._rng
        if weather.reordering and rng.random() < weather.reordering:
            self.counts["messages reordered"] += 1
            delay += rng.random() * 150 * MS
        self._queue.after(delay, call, *args)
        if weather.doubling and rng.random() < weather.doubling:
            self.counts["messages doubled"] += 1
            self._queue.after(delay + rng.random() * 300 * MS, call, *args)

    def open(self, source: str, target: str) -> tuple[Stream, Stream]:
        """Return the two ends of a stream: the source's and the target's."""
        one, other = Stream(self, source), Stream(self, target)
        one.peer, other.peer = other, one
        return one, other

    def later(self, delay: float, call: Callable[..., object], *args: object) -> None:
        self._queue.after(delay, call, *args)

    @property
    def now(self) -> int:
        return self._queue.now

    def breakage_delay(self) -> float:
        """Return after how long an end of a dead stream notices."""
        return (0.2 + 3 * self._rng.random()) * S


class Stream:
    """One end of a stream.

    Attributes:
        on_message: called with each message.
        on_end: called once when the stream has ended and this end learns of it.
    """

    peer: Stream

    def __init__(self, network: Network, host: str) -> None:
        self.host = host
        self.open = True
        self.on_message: Callable[[Any], None] = _ignore
        self.on_end: Callable[[], None] = _nothing
        self._network = network
        self._arrival = 0.0

    def send(self, message: object) -> None:
        """Send a message to the other end; lost if the stream is dead by now."""
        if not self.open:
            return
        network, peer = self._network, self.peer
        if not network.passes(self.host, peer.host):
            network.counts["streams broken"] += 1
            self._die(network.breakage_delay())
            peer._die(network.breakage_delay())
            return
        arrival = max(self._arrival, network.now + network.delay())
        self._arrival = arrival
        network.later(arrival - network.now, peer._receive, message)

    def close(self, *, reset: bool = True) -> None:
        """End the stream from here; the other end learns of it.

        Args:
            reset: soon. Otherwise (the host lost its power) only much later.
        """
        if not self.open:
            return
        self.open = False
        network = self._network
        reached = reset and network.passes(self.host, self.peer.host)
        when = max(network.delay(), self._arrival - network.now)
        self.peer._die(when if reached else network.breakage_delay(), deaf=False)

    def _receive(self, message: object) -> None:
        if self.open:
            self.on_message(message)

    def _die(self, delay: float, *, deaf: bool = True) -> None:
        """Have this end notice later; until then it may send into the void."""
        if not self.open:
            return
        if deaf:
            self.on_message = _ignore
        self._network.later(delay, self._notice)

    def _notice(self) -> None:
        if self.open:
            self.open = False
            self.on_end()


def _ignore(message: object) -> None:
    """Take no notice."""


def _nothing() -> None:
    """Take no notice."""
