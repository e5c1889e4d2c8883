"""How fast the deciders are on a large cluster, in one process and without consensus.

Prints CPU seconds for 1,000 nodes and 10,000 tasks (the size of one of SwarmKit's own benchmarks),
and the longest decision; then what it costs the allocator that one of many services is removed. Run
it as ``python -m benchmarks.pipeline [nodes] [tasks]``. Garbage collection is off, so that the
figures are the deciders' own.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from swarmctl.core.manager.pipeline import reconcilers
from swarmctl.core.model.change import Applied, Create, Delete, Entry, Kind, Ref, Transaction
from swarmctl.core.model.network import make_network
from swarmctl.core.model.objects import IPAM, IPAMConfig, NetworkSpec
from swarmctl.core.model.spec import (
    NetworkAttachmentConfig,
    ResourceRequirements,
    Resources,
    TaskSpec,
)
from swarmctl.core.store.store import Store, lay
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.subnets import SubnetAllocator
from tests.core.pipeline.world import creation, make_node, spec

if TYPE_CHECKING:
    from swarmctl.core.manager.reconcile import Reconciler

NOW = 1_700_000_000_000_000_000
RESERVING = TaskSpec(
    Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=10_000_000, MemoryBytes=1 << 20))
)
NETWORKED = TaskSpec(Networks=(NetworkAttachmentConfig(Target="net"),))


class Cost(NamedTuple):
    """CPU seconds of one reconciler's work, and its longest decision."""

    decide: float
    longest: float
    apply: float
    passes: int


class Bench:
    """One store and the reconcilers over it."""

    def __init__(self, nodes: int, services: int, replicas: int, task: TaskSpec | None) -> None:
        self.store = Store()
        self._ids = 0
        self.write(
            *(Transaction(changes=(Create(row=make_node(f"n{i:06}")),)) for i in range(nodes))
        )
        subnet = IPAM(Config=(IPAMConfig(Subnet="10.128.0.0/16"),))
        network = make_network("net", NetworkSpec(Name="net", IPAM=subnet))
        self.write(Transaction(changes=(Create(row=network),)))
        for number in range(services):
            self.write(creation(f"s{number:06}", spec(f"s{number}", replicas, task=task)))
        self.reconcilers = {
            one.name: one for one in reconcilers(SpreadScheduler(), SubnetAllocator())
        }

    def write(self, *transactions: Transaction) -> set[Ref]:
        outcome = self.store.apply(self.store.index + 1, Entry(transactions=transactions))
        assert all(isinstance(one, Applied) for one in outcome.results)
        return {change.ref for change in outcome.changes}

    def run(self, name: str) -> Cost:
        """Let one reconciler work until it rests."""
        one: Reconciler = self.reconcilers[name]
        touched: set[Ref] | None = None
        decide = longest = applying = 0.0
        passes = 0
        woken: set[str] = set()
        while True:
            start = time.process_time()
            keys = woken.union(one.keys(self.store.view, touched))
            woken = set()
            overlay = self.store.view.overlay()
            wanted: list[Transaction] = []
            decide += time.process_time() - start
            for key in keys:
                start = time.process_time()
                decision = one.decide(overlay, key, NOW, self.new_id)
                taken = time.process_time() - start
                decide, longest = decide + taken, max(longest, taken)
                if decision.wake_at is not None and decision.wake_at <= NOW:
                    woken.add(key)
                start = time.process_time()
                for transaction in decision.transactions:
                    wanted.append(transaction)
                    for change in transaction.changes:
                        lay(overlay, change, overlay.index + 1, NOW)
                applying += time.process_time() - start
            start = time.process_time()
            touched = self.write(*wanted) if wanted else set()
            applying += time.process_time() - start
            passes += 1
            if not wanted and not woken:
                return Cost(decide, longest, applying, passes)

    def new_id(self) -> str:
        self._ids += 1
        return f"t{self._ids:08}"


def main(nodes: int, tasks: int) -> None:
    gc.disable()
    print(f"{nodes} nodes, {tasks} tasks; CPU seconds")
    for services in (1, 10, tasks // 10):
        for kind, task in (("plain", None), ("reserving", RESERVING), ("on a network", NETWORKED)):
            bench = Bench(nodes, services, tasks // services, task)
            print(f"{services} services, {kind}")
            for name in ("orchestrator", "allocator", "scheduler"):
                cost = bench.run(name)
                print(
                    f"  {name:12} decide {cost.decide:6.2f}  apply {cost.apply:6.2f}  "
                    f"longest decision {cost.longest * 1e3:6.1f} ms  {cost.passes} passes"
                )
    removal(tasks)


def removal(services: int) -> None:
    """Print what the allocator's look takes after a service on a network was removed."""
    bench = Bench(10, services, 1, NETWORKED)
    for name in ("orchestrator", "allocator", "scheduler", "allocator"):
        bench.run(name)
    row = bench.store.view.service("s000000")
    assert row is not None
    gone = Delete(ref=Ref(Kind.SERVICE, row.api.ID), version=row.api.Version.Index)
    touched = bench.write(Transaction(changes=(gone,)))
    one = bench.reconcilers["allocator"]
    start = time.process_time()
    for key in one.keys(bench.store.view, touched):
        one.decide(bench.store.view.overlay(), key, NOW, bench.new_id)
    taken = time.process_time() - start
    print(f"one of {services} services removed: allocator {taken * 1e3:.1f} ms")


if __name__ == "__main__":
    main(*(int(one) for one in [*sys.argv[1:], "1000", "10000"][:2]))
