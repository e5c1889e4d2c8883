"""What is drawn once for a seed: sizes, speeds, limits, and how much goes wrong how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.sim.queue import MS, S

if TYPE_CHECKING:
    import random

HOUR_NS = 3600 * S


@dataclass
class Options:
    """One seed's cluster.

    Attributes:
        managers, workers: hosts at first; managers are workers too.
        raft: for RaftConfig.
        skews_ns: how far off wall clocks may be.
        fault_gap_ms: time between faults, on average, while there are any.
        membership: who changes it: "roles" by the wishes of administrators, as the product does;
            "direct" by proposals of any kind, joint ones too; "none" nobody.
        newcomers: machines that join later, as workers at first.
    """

    managers: int
    workers: int
    tick_ns: int
    raft: dict[str, Any]
    snapshot_interval: int
    keep_entries: int
    disk_ms: float
    stop_ms: float
    heartbeat_ns: int
    part_bytes: int
    skews_ns: int
    drift: float
    jumps: bool
    loss: float
    slowness: float
    fault_gap_ms: float
    client_gap_ms: float
    membership: str
    history: int
    newcomers: int


def choose(rng: random.Random) -> Options:
    """Draw one."""
    managers, workers = rng.choice([(3, 3), (3, 3), (5, 0), (5, 1), (3, 4)])
    small = rng.random() < 0.35
    raft = {
        "election_ticks": 5,
        "heartbeat_ticks": 1,
        "max_message_size": 1 if small else rng.choice([600, 64 * 1024]),
        "max_inflight_messages": rng.choice([1, 4, 256]),
        "max_committed_size": rng.choice([1, 2000, 256 * 1024]),
        "max_uncommitted_size": rng.choice([4000, 64 * 1024 * 1024, 64 * 1024 * 1024]),
    }
    return Options(
        managers=managers,
        workers=workers,
        tick_ns=rng.choice([60, 100]) * MS,
        raft=raft,
        snapshot_interval=rng.choice([12, 30, 80, 10_000]),
        keep_entries=rng.choice([0, 1, 5, 50]),
        disk_ms=rng.choice([0.5, 3, 25]),
        stop_ms=rng.choice([20, 300, 2000]),
        heartbeat_ns=rng.choice([500, 500, 1000]) * MS,
        part_bytes=rng.choice([0, 0, 2000]),
        skews_ns=rng.choice([0, 50 * MS, 50 * MS, 10 * S, HOUR_NS]),
        drift=rng.choice([0.0, 0.001, 0.001, 0.05]),
        jumps=rng.random() < 0.3,
        loss=rng.choice([0.0, 0.01, 0.05, 0.2]),
        slowness=rng.choice([0.0, 0.01, 0.1]),
        fault_gap_ms=rng.choice([80, 150, 300]),
        client_gap_ms=rng.choice([40, 100, 250]),
        membership=rng.choice(["roles", "roles", "direct", "direct", "none"]),
        history=rng.choice([0, 1, 5]),
        newcomers=rng.choice([0, 1, 1, 2]),
    )
