"""A storm: clients at work on a swarm of several managers while faults befall it; then the verdict.

At most a minority is in trouble at a time, and the next fault waits until the swarm is whole again,
so it should be writable throughout but for elections. In the end everybody is killed at once and
started again: what was acknowledged must be on the disks.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.clients import LABEL, Client, Record
from tests.chaos.faults import FAULTS, KILL, NETWORK
from tests.e2e.lab import eventually
from tests.linearizability.monotonic import first_contradiction, first_fall
from tests.linearizability.register import Register, lost_writes
from tests.linearizability.wgl import Outcome, Verdict, check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.managers import ManagerHost, Managers
    from tests.chaos.faults import Fault
    from tests.linearizability.register import Action

CLIENTS = 8
OBJECTS = 3
_RECOVERED_S = 60.0


@dataclass
class Report:
    """What a storm showed.

    Attributes:
        verdicts: of the checker, by object.
        lost: acknowledged writes that the final state does not rest on, in words.
        contradictions: what may not be, in words: versions that fell or stood for two contents, a
            swarm that did not become whole after a fault.
        longest_stall_s: the longest time without an acknowledged write.
        stalled_under: the fault that held or had just ended then.
        faults: how often each kind befell the managers.
        recoveries_s: from the end of each fault until the swarm was whole.
        leaders: how often the leader was among those hit.
    """

    seconds: float = 0.0
    record: Record = field(default_factory=Record)
    verdicts: dict[str, Verdict[Action]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    longest_stall_s: float = 0.0
    stalled_under: str = "no fault"
    faults: Counter[str] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    leaders: int = 0

    @property
    def surprises(self) -> list[str]:
        """Answers that nobody may give."""
        return [kind for kind in self.record.answers if kind.startswith("surprise")]

    @property
    def is_good(self) -> bool:
        """Linearizable, nothing lost, nothing odd."""
        outcomes = {verdict.outcome for verdict in self.verdicts.values()}
        odd = self.lost or self.contradictions or self.surprises
        return outcomes == {Outcome.LINEARIZABLE} and not odd

    def __str__(self) -> str:
        operations = sum(map(len, self.record.operations.values()))
        answers = ", ".join(f"{n} {kind}" for kind, n in sorted(self.record.answers.items()))
        faults = ", ".join(f"{n} x {kind}" for kind, n in self.faults.most_common())
        slowest = max(self.recoveries_s, default=0.0)
        lines = [
            f"{operations} operations in {self.seconds:.0f} s by {CLIENTS} clients: {answers}",
            f"faults: {faults}; the leader was hit {self.leaders} times",
            f"whole again after {slowest:.1f} s at most",
            f"longest stall: {self.longest_stall_s:.2f} s, under {self.stalled_under}",
            *(f"{name}: {verdict}" for name, verdict in self.verdicts.items()),
            *self.contradictions,
            f"lost acknowledged writes: {len(self.lost)}",
            *self.lost,
        ]
        return "\n".join(lines)


class Storm:
    """One storm over a whole swarm.

    Args:
        think_s: seconds between two operations of one client.
    """

    def __init__(self, managers: Managers, seed: int, *, think_s: float = 0.01) -> None:
        self.report = Report()
        self._managers = managers
        self._rng = random.Random(seed)
        self._think_s = think_s
        self._holding: list[tuple[float, str]] = []
        self._objects = {name: self._create(name) for name in self._names()}

    def plan(self, faults: Sequence[Fault], *, hold_s: float, calm_s: float) -> None:
        """Let each of these faults befall the leader, or a minority with it, one after another."""
        with self._clients():
            for fault in faults:
                time.sleep(calm_s)
                if not self._befall(fault, hold_s, leader=True):
                    break
            time.sleep(calm_s)
        self._judge()

    def rage(self, seconds: float) -> None:
        """Let random faults befall random minorities for so long."""
        until = time.monotonic() + seconds
        with self._clients():
            for fault in self._random_faults():
                time.sleep(self._rng.uniform(1, 3))
                hold_s = self._rng.uniform(1, 6)
                if time.monotonic() + hold_s > until:
                    break
                if not self._befall(fault, hold_s, leader=self._rng.random() < 0.5):
                    until = 0.0
                    break
            time.sleep(max(0.0, until - time.monotonic()))
        self._judge()

    def _random_faults(self) -> Iterator[Fault]:
        while True:  # each kind as often as the others, in ever new orders
            faults = faults_for(len(self._managers.hosts))
            yield from self._rng.sample(faults, len(faults))

    def _names(self) -> list[str]:
        return [f"hot{number}" for number in range(OBJECTS)]

    def _create(self, name: str) -> str:
        spec = {
            "Name": name,
            "TaskTemplate": {"ContainerSpec": {"Image": "hot", "Command": ["true"]}},
            "Mode": {"Replicated": {"Replicas": 0}},
            "Labels": {LABEL: ""},
        }
        return str(self._managers.ask("POST", "/services/create", spec)["ID"])

    # --- while it lasts -----------------------------------------------------------------------

    @contextmanager
    def _clients(self) -> Iterator[None]:
        stop = threading.Event()
        sockets = [host.socket for host in self._managers.hosts]
        clients = [
            Client(
                number,
                sockets,
                self._objects,
                self.report.record,
                random.Random(self._rng.random()),
                think_s=self._think_s,
            )
            for number in range(CLIENTS)
        ]
        self._started = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(client.run, stop) for client in clients]
            try:
                yield
            finally:
                self._ended = time.monotonic()
                stop.set()
        for done in running:
            done.result()

    def _befall(self, fault: Fault, hold_s: float, *, leader: bool) -> bool:
        """Let a fault begin and end; False when the swarm does not become whole again."""
        victims, others = self._victims(leader=leader)
        self.report.faults[fault.name] += 1
        self._holding.append((time.monotonic(), fault.name))
        try:
            fault.begin(victims, others)
            time.sleep(hold_s)
        finally:
            fault.end(victims, others)
        ended = time.monotonic()
        try:
            self._managers.wait_whole(_RECOVERED_S)
        except AssertionError as error:
            hit = ", ".join(victim.host.name for victim in victims)
            self.report.contradictions.append(f"after {fault.name} of {hit}: {error}")
            return False
        self.report.recoveries_s.append(time.monotonic() - ended)
        return True

    def _victims(self, *, leader: bool) -> tuple[list[ManagerHost], list[ManagerHost]]:
        """Choose a minority; a lone manager has none, and is the victim itself."""
        hosts = self._managers.hosts
        leads = self._managers.leader()
        pool = [host for host in hosts if host is not leads]
        most = max(1, (len(hosts) - 1) // 2)
        victims = self._rng.sample(pool, min(len(pool), self._rng.randint(1, most)))
        if leader or not victims:
            victims = [leads, *victims[1:]]
            self.report.leaders += 1
        return victims, [host for host in hosts if host not in victims]

    # --- afterwards -----------------------------------------------------------------------------

    def _judge(self) -> None:
        self.report.seconds = self._ended - self._started
        self._find_stall()
        self._restart_everybody()
        final = self._read_last()
        for name, operations in self.report.record.operations.items():
            self.report.verdicts[name] = check(operations, Register())
            try:
                lost = lost_writes(operations, initial="", final=final[name])
                self.report.lost += [f"{name}: {one}" for one in lost]
            except ValueError as error:
                self.report.contradictions.append(f"{name}: {error}")
        for name, versions in self.report.record.versions.items():
            for what, find in (
                ("fell", first_fall),
                ("means two things", first_contradiction),
            ):
                found = find(versions)
                if found is not None:
                    self.report.contradictions.append(f"{name}: a version {what}: {found}")

    def _find_stall(self) -> None:
        times = [self._started, *sorted(self.report.record.writes), self._ended]
        pairs = [(b, a) for a, b in itertools.pairwise(times) if b <= self._ended + 1]
        until, since = max(pairs, key=lambda pair: pair[0] - pair[1])
        self.report.longest_stall_s = until - since
        under = [name for began, name in self._holding if began <= until]
        if under:
            self.report.stalled_under = under[-1]

    def _restart_everybody(self) -> None:
        """Kill all managers at once and start them again: the memory of all is gone."""
        hosts = self._managers.hosts
        KILL.begin(hosts, [])
        with ThreadPoolExecutor(len(hosts)) as pool:
            for done in [pool.submit(host.restart) for host in hosts]:
                done.result()
        self._managers.wait_whole(_RECOVERED_S)

    def _read_last(self) -> dict[str, str]:
        """Read every object through every manager; the content that they agree on."""
        hosts = self._managers.hosts
        reader = Client(
            CLIENTS,
            [host.socket for host in hosts],
            self._objects,
            self.report.record,
            self._rng,
            think_s=0,
        )
        final: dict[str, str] = {}
        try:
            for name in self._objects:
                for manager in range(len(hosts)):
                    read = _read_until_answered(reader, manager, name)
                    if final.setdefault(name, read) != read:
                        self.report.contradictions.append(
                            f"{name}: {hosts[manager].host.name} says {read!r} in the end,"
                            f" {hosts[0].host.name} {final[name]!r}"
                        )
        finally:
            reader.close()
        return final


def _read_until_answered(reader: Client, manager: int, name: str) -> str:
    answers: list[str] = []

    def answered() -> bool:
        read = reader.read(manager, name)
        if read is not None:
            answers.append(read)
        return bool(answers)

    eventually(answered, 30, what=f"a last read of {name}")
    return answers[0]


def faults_for(managers: int) -> tuple[Fault, ...]:
    """The faults that mean something among so many managers: one alone has no network."""
    return FAULTS if managers > 1 else tuple(one for one in FAULTS if one not in NETWORK)
