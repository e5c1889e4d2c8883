"""Scales services by conditions while this manager leads: the shell around ``core/autoscaler``.

    run
    ├ decisions       every five seconds, service by service: frame, verdict, and what is written
    ├ read back       what the nodes kept from before this manager led
    └ named metrics   every ten seconds, all addresses at once, each with a deadline

What it knows is in memory and dies with the term; what it decided is in the tables. A service that
cannot be decided for is logged and left as it is; it keeps no other from being scaled.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec.structs import replace

from ..agent.sampler import read_window
from ..autoscaler.book import Book, Window, wanted_tasks
from ..autoscaler.decide import decide
from ..autoscaler.metrics import PERIOD_NS, SECOND
from ..autoscaler.policy import check_scaling, policy_of, read_policy
from ..autoscaler.record import recorded, situation_of
from ..autoscaler.report import report_of
from ..autoscaler.source import MetricUnavailable
from ..autoscaler.tracking import answer_of
from ..clock import ClockWatch
from ..errors import InvalidArgument, SwarmError
from ..model.change import Kind, Transaction, Update
from ..model.labels import SCALE_PREFIX
from ..model.objects import SecretRow
from ..model.scaling import has_aliases, replicas_of, scale_labels
from ..raft.errors import ProposalDropped
from ..scheduler.explain import room_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..autoscaler.decide import Situation, Verdict
    from ..autoscaler.metrics import Frame
    from ..autoscaler.policy import Policy, Source
    from ..autoscaler.source import MetricSource, SourceOf
    from ..autoscaler.tracking import Answer
    from ..clock import Clock
    from ..dispatcher.server import Dispatcher
    from ..model.change import Change
    from ..model.objects import ServiceRow
    from ..model.scalestatus import ScalingReport
    from ..model.session import Samples
    from ..store.view import View
    from ..wire.link import Link
    from .propose import Proposer

PERIOD_S = PERIOD_NS / SECOND
POLL_S = 10.0
POLL_TIMEOUT_S = 5.0
POLLS_AT_ONCE = 20
STALE_S = 30.0
READ_BACK_S = 10.0
LOOKS_AT_ONCE = 50
NAMED_MAX = 5
"""How many nodes are named that all have the same trouble."""

log = logging.getLogger(__name__)


class _Known(NamedTuple):
    """A service's rules, as of one version of its spec."""

    spec_index: int
    policy: Policy | None


class _Reading(NamedTuple):
    """What a named metric last gave, at which of trio's seconds; and why it gives nothing."""

    at: float = 0
    values: tuple[float, ...] = ()
    error: str = ""


class Autoscaler:
    """Watches load and says how many tasks services have; :meth:`run` is one term.

    Args:
        dispatcher: hands on what nodes measure, and knows the links to them.
        source_of: gives what reads metrics, by name.
    """

    def __init__(
        self,
        view: View,
        proposer: Proposer,
        clock: Clock,
        dispatcher: Dispatcher,
        source_of: SourceOf,
    ) -> None:
        self._view, self._proposer, self._clock = view, proposer, clock
        self._dispatcher = dispatcher
        self._source_of = source_of
        self._sources: dict[str, MetricSource] = {}
        self._known: dict[str, _Known] = {}
        self._readings: dict[Source, _Reading] = {}
        self._sources_changed = trio.Event()
        self._book = Book()
        dispatcher.on_samples = self._take

    async def run(self) -> None:
        """Scale until cancelled (leadership lost).

        Raises:
            NoLeader, LostLeadership: in a group; leadership went before the cancellation came.
        """
        self._book = Book()
        self._readings.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._decide_always, name="scaling decisions")
            nursery.start_soon(self._read_back_always, name="scaling read back")
            nursery.start_soon(self._poll_always, name="scaling metrics")

    def no_psi(self) -> str:
        """Return why no node can tell pressure, as far as nodes have said; "" if one can.

        The first node that can, or has not said, ends the search.
        """
        reasons, silent = self._book.no_psi, list[str]()
        for node_id in self._view.nodes_in_state("ready"):
            if node_id not in reasons:
                return ""
            silent.append(node_id)
        nodes = [self._view.node(node_id) for node_id in sorted(silent)[:NAMED_MAX]]
        named = {row.api.Description.Hostname: row.api.ID for row in nodes if row is not None}
        told = "; ".join(f"{name}: {reasons[node_id]}" for name, node_id in sorted(named.items()))
        more = len(silent) - len(named)
        return f"{told}; and {more} nodes more" if more else told

    def check_sources(self, policy: Policy | None) -> None:
        """Check that every metric of a service can be read here.

        Raises:
            InvalidArgument: a source that nobody has, or a secret that is not there.
        """
        for name, source in policy.sources.items() if policy is not None else ():
            label = f"label {SCALE_PREFIX}metric.{name}"
            if self._source(source.kind) is None:
                raise InvalidArgument(f"{label}: there is no metric source {source.kind!r}")
            if source.secret and self._view.by_name(Kind.SECRET, source.secret) is None:
                raise InvalidArgument(f"{label}: there is no secret {source.secret!r}")

    # --- decisions ---

    def _take(self, node_id: str, samples: Samples) -> None:
        self._book.take(node_id, samples.rows, samples.no_psi, self._clock.now())

    async def _decide_always(self) -> None:
        clock_watch = ClockWatch(self._clock)
        due = trio.current_time()
        while True:
            if clock_watch.was_set():
                self._book.forget()
            await self._decide_all()
            due = max(due + PERIOD_S, trio.current_time())
            await trio.sleep_until(due)

    async def _decide_all(self) -> None:
        """Look at every scaled service once, and write what changes."""
        changes: list[Change] = []
        for service_id, policy in (await self._watched()).items():
            await trio.lowlevel.checkpoint()
            row = self._view.service(service_id)
            window = self._book.windows.get(service_id)
            if row is None or window is None or self._policy(row) is not policy:
                continue  # it changed meanwhile; the next look sees it
            changed = await self._decide_one(row, policy, window)
            if changed is not None:
                changes.append(Update(row=changed))
        if changes:
            await self._write(changes)

    async def _watched(self) -> dict[str, Policy]:
        """Return the rules of all services that have some; others are forgotten."""
        found: dict[str, Policy] = {}
        tasks: set[str] = set()
        for at, row in enumerate(list(self._view.services()), 1):
            policy = self._policy(row)
            if policy is not None:
                found[row.api.ID] = policy
                tasks.update(task.api.ID for task in self._view.tasks_of(row.api.ID))
            if at % LOOKS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        self._book.watch(found, tasks)
        for service_id in [one for one in self._known if self._view.service(one) is None]:
            del self._known[service_id]
        return found

    def _policy(self, row: ServiceRow) -> Policy | None:
        known = self._known.get(row.api.ID)
        if known is not None and known.spec_index == row.private.spec_index:
            return known.policy
        policy = None
        try:
            policy = policy_of(row.api.Spec)
        except InvalidArgument as error:  # of an add-on's labels, or of another release
            log.warning("service %s is not scaled: %s", row.api.Spec.Name, error)
        if row.api.Spec.Mode.Replicated is None:
            policy = None
        self._known[row.api.ID] = _Known(row.private.spec_index, policy)
        if policy is not None and not self._readings.keys() >= set(policy.sources.values()):
            self._sources_changed.set()
        return policy

    async def _decide_one(
        self, row: ServiceRow, policy: Policy, window: Window
    ) -> ServiceRow | None:
        now = self._clock.now()
        window.add(self._book.frame(self._view, row, now, self._named(policy)))
        verdict = await self._verdict(row, policy, situation_of(row), window, now)
        window.judged(verdict)
        return recorded(row, policy, verdict, now)

    async def _verdict(
        self, row: ServiceRow, policy: Policy, situation: Situation, window: Window, now: int
    ) -> Verdict:
        """Return what is decided; how much room there is is asked only where that matters."""
        verdict = decide(policy, situation, window.frames, window.answers, now)
        if verdict.count <= situation.count:
            return verdict
        room = await self._room(row, verdict.count - situation.count)
        situation = replace(situation, room=room)
        return decide(policy, situation, window.frames, window.answers, now)

    async def _room(self, row: ServiceRow, wanted: int) -> int | None:
        """Return how many tasks more could be placed; None if none of it runs, to tell by."""
        tasks = wanted_tasks(self._view.tasks_of(row.api.ID))
        if not tasks:
            return None
        like = max(tasks, key=lambda task: task.private.spec_index)
        pending = sum(not task.api.NodeID for task in tasks)
        room = 0
        for node in list(self._view.nodes()):
            room += room_on(self._view, like, node)
            if room >= wanted + pending:
                return wanted
            await trio.lowlevel.checkpoint()
        return max(0, room - pending)

    async def _write(self, changes: list[Change]) -> None:
        try:
            await self._proposer.propose([Transaction(changes=(each,)) for each in changes])
        except ProposalDropped:
            log.info("scaling waits: too much is in flight")

    # --- what was before ---

    async def _read_back_always(self) -> None:
        while True:
            for service_id, window in list(self._book.windows.items()):
                row = self._view.service(service_id)
                policy = None if row is None else self._policy(row)
                if window.reads_back and window.frames and row is not None and policy is not None:
                    await self._read_back(row, policy, window)
            await trio.sleep(1)

    async def _read_back(self, row: ServiceRow, policy: Policy, window: Window) -> None:
        """Ask the nodes of a service what they kept; once all have answered, go back."""
        tasks = wanted_tasks(self._view.tasks_of(row.api.ID))
        nodes = {task.api.NodeID for task in tasks if task.private.started_at}
        for node_id in sorted(nodes - window.asked):
            link = self._dispatcher.connected(node_id)
            if link is None:
                continue
            mine = [task.api.ID for task in tasks if task.api.NodeID == node_id]
            await self._ask_node(link, mine, window)
            window.asked.add(node_id)
        if nodes <= window.asked:
            born = {task.api.ID: task.private.started_at for task in tasks}
            for _ in window.go_back(policy, born, self._clock.now()):
                await trio.lowlevel.checkpoint()

    async def _ask_node(self, link: Link, task_ids: list[str], window: Window) -> None:
        try:
            with trio.move_on_after(READ_BACK_S):
                async with aclosing(read_window(link, task_ids)) as chunks:
                    async for samples in chunks:
                        at = self._clock.now() - samples.age_ns
                        for sample in samples.rows:
                            window.past.setdefault(sample.task_id, []).append((at, sample))
        except SwarmError as error:
            log.info("what a node's tasks used is not known: %s", error)

    # --- named metrics ---

    def _named(self, policy: Policy) -> dict[str, tuple[float, ...]]:
        """Return the newest values of a service's own metrics; a dead source gives none."""
        found: dict[str, tuple[float, ...]] = {}
        for name, source in policy.sources.items():
            reading = self._readings.get(source)
            fresh = reading is not None and trio.current_time() - reading.at <= STALE_S
            found[name] = reading.values if reading is not None and fresh else ()
        return found

    async def _poll_always(self) -> None:
        due = trio.current_time()
        while True:
            self._sources_changed = trio.Event()
            wanted = {
                source
                for known in self._known.values()
                if known.policy is not None
                for source in known.policy.sources.values()
            }
            for source in [one for one in self._readings if one not in wanted]:
                del self._readings[source]
            limiter = trio.CapacityLimiter(POLLS_AT_ONCE)
            async with trio.open_nursery() as nursery:
                for source in sorted(wanted):
                    nursery.start_soon(self._poll, source, limiter)
            due = max(due + POLL_S, trio.current_time())
            with trio.move_on_at(due):
                await self._sources_changed.wait()

    async def _poll(self, source: Source, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                with trio.fail_after(POLL_TIMEOUT_S):
                    values = await self._read(source)
                reading = _Reading(trio.current_time(), values)
            except trio.TooSlowError:
                reading = _Reading(error=f"no answer within {POLL_TIMEOUT_S:g} s")
            except SwarmError as error:
                reading = _Reading(error=str(error))
            except Exception as error:
                log.exception("metric source %s failed", source.kind)
                reading = _Reading(error=f"the metric source failed: {error!r}")
        before = self._readings.get(source, _Reading())
        if reading.error:  # what it last gave counts until it is stale
            reading = before._replace(error=reading.error)
            if not before.error:
                log.warning("metric source %s gives nothing: %s", source.kind, reading.error)
        self._readings[source] = reading

    async def _read(self, source: Source) -> tuple[float, ...]:
        reader = self._source(source.kind)
        if reader is None:
            raise MetricUnavailable(f"this manager has no metric source {source.kind!r}")
        credentials = ""
        if source.secret:
            row = self._view.by_name(Kind.SECRET, source.secret)
            if not isinstance(row, SecretRow):
                raise MetricUnavailable(f"there is no secret {source.secret!r} any more")
            credentials = row.private.data.decode("utf-8", "replace").strip()
        return await reader.read(source.url, credentials)

    def _source(self, kind: str) -> MetricSource | None:
        if kind not in self._sources:
            made = self._source_of(kind)
            if made is None:
                return None
            self._sources[kind] = made
        return self._sources[kind]

    # --- told ---

    def report(self, row: ServiceRow) -> ScalingReport:
        """Return how scaling stands for a service."""
        window = self._book.windows.get(row.api.ID, Window())
        return self._report(row, self._policy(row), window, replicas_of(row))

    async def dry_run(self, row: ServiceRow, labels: Mapping[str, str]) -> ScalingReport:
        """Return what other rules would make of a service's load, without setting them.

        Raises:
            InvalidArgument: the rules are wrong.
        """
        spec = replace(row.api.Spec, Labels=dict(labels))
        check_scaling(spec, no_psi=self.no_psi)
        policy = read_policy(spec, scale_labels(labels), lenient=has_aliases(labels))
        self.check_sources(policy)
        for source in policy.sources.values():
            if source not in self._readings:
                await self._poll(source, trio.CapacityLimiter(1))
        window = await self._tried_window(row, policy)
        window.answers = await self._answers(policy, window.frames)
        tried = replace(row, api=replace(row.api, Spec=spec))
        situation = replace(situation_of(tried), count=replicas_of(row))
        now = window.frames[-1].at
        window.verdict = await self._verdict(row, policy, situation, window, now)
        return replace(self._report(tried, policy, window, replicas_of(row)), DryRun=True)

    async def _answers(self, policy: Policy, frames: Sequence[Frame]) -> list[Answer]:
        """Return what targets would have wanted at each frame of a window."""
        found: list[Answer] = []
        for end in range(1, len(frames) + 1):
            found.append(answer_of(policy, frames[:end]))
            await trio.lowlevel.checkpoint()
        return found

    async def _tried_window(self, row: ServiceRow, policy: Policy) -> Window:
        """Return the window of a service as it looks to rules that it does not have."""
        now = self._clock.now()
        present = self._book.frame(self._view, row, now, self._named(policy))
        watched = self._book.windows.get(row.api.ID)
        window = Window()
        if watched is not None and watched.frames:
            window.frames = list(watched.frames)
        else:
            window.add(present)
            await self._read_back(row, policy, window)
            if len(window.frames) > 1:  # the newest has no samples: nobody has kept any here
                del window.frames[-1]
        window.frames[-1] = window.frames[-1]._replace(named=present.named, gauges=present.gauges)
        return window

    def _report(
        self, row: ServiceRow, policy: Policy | None, window: Window, count: int
    ) -> ScalingReport:
        errors: dict[str, str] = {}
        if policy is not None:
            for name, source in policy.sources.items():
                errors[name] = self._readings.get(source, _Reading()).error
            errors |= dict.fromkeys(policy.pressure(), self.no_psi())
        return report_of(row, policy, window, errors, self._clock.now(), count=count)
