"""Two looks at a task become a sample (core/agent/sampler.py)."""

from __future__ import annotations

from swarmctl.core.agent.executor import TaskStats
from swarmctl.core.agent.sampler import sample_of

SECOND = 10**9


def test_a_sample_is_what_was_used_in_between() -> None:
    """Counters become rates, what is held stays; 0 of what every task has is unknown."""
    before = TaskStats(at=0, cpu_ns=SECOND, memory_bytes=10, pids=1, net_rx_bytes=1000)
    now = TaskStats(at=5 * SECOND, cpu_ns=3 * SECOND, memory_bytes=20, pids=2, net_rx_bytes=6000)
    row = sample_of("t", before, now)
    assert row is not None
    assert (row.cpu, row.mem, row.pids, row.net_rx) == (0.4, 20.0, 2.0, 1000.0)
    assert (row.net_tx, row.psi_cpu) == (None, None)
    unknown = sample_of("t", TaskStats(at=0), TaskStats(at=SECOND))
    assert unknown is not None
    assert (unknown.cpu, unknown.mem, unknown.pids) == (None, None, None)
    waited = sample_of(
        "t", TaskStats(at=0, psi_cpu_ns=0), TaskStats(at=2 * SECOND, psi_cpu_ns=SECOND)
    )
    assert waited is not None
    assert waited.psi_cpu == 0.5


def test_the_first_look_and_another_run_give_no_sample() -> None:
    """A counter that fell belongs to another process than the one before."""
    stats = TaskStats(at=5, cpu_ns=SECOND)
    assert sample_of("t", None, stats) is None
    assert sample_of("t", stats, stats) is None
    assert sample_of("t", TaskStats(at=0, cpu_ns=2 * SECOND), stats) is None
