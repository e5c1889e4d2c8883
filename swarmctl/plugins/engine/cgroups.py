"""What containers use, read from the kernel: a few small files each instead of an engine call.

The engine answers ``stats`` for one container at a time and some milliseconds each; a node with a
hundred tasks would spend more on asking than on anything else. A container's group is named by its
whole id, so a directory of that name is that container and no other. Where it is not found (another
driver, a remote engine, a container within a container) the engine is asked instead.

Blocking reads of kernel memory; callers run them in a thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from swarmctl.plugins import SystemClock, TaskStats

ROOT = Path("/sys/fs/cgroup")
_PLACES = (
    *("docker/{id}", "system.slice/docker-{id}.scope"),
    *("libpod_parent/libpod-{id}", "machine.slice/libpod-{id}.scope"),
)
_CONTROLLERS = ("cpuacct", "memory", "pids")
_MICROSECOND = 1000


class Group(NamedTuple):
    """Where one container's files are.

    Attributes:
        unified: cgroup v2; one directory then.
    """

    unified: bool
    cpu: Path
    memory: Path
    pids: Path


class Groups:
    """Finds containers' groups, and remembers where they were."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._found: dict[str, Group] = {}

    def sample(self, containers: dict[str, str]) -> dict[str, TaskStats]:
        """Return a sample of each task whose container's group can be read.

        Args:
            containers: by task, the id of the container; ended ones are forgotten.
        """
        wanted = set(containers.values())
        self._found = {name: group for name, group in self._found.items() if name in wanted}
        samples: dict[str, TaskStats] = {}
        for task_id, container_id in containers.items():
            group = self._group(container_id)
            sample = None if group is None else read(group)
            if sample is None:
                self._found.pop(container_id, None)
            else:
                samples[task_id] = sample
        return samples

    def _group(self, container_id: str) -> Group | None:
        if container_id not in self._found:
            group = find(container_id, self._root)
            if group is None:
                return None
            self._found[container_id] = group
        return self._found[container_id]


def find(container_id: str, root: Path = ROOT) -> Group | None:
    """Return where a container's files are, None where this host does not show them."""
    unified = (root / "cgroup.controllers").exists()
    for place in _PLACES:
        name = place.format(id=container_id)
        if unified:
            paths = [root / name] * 3
        else:
            paths = [root / controller / name for controller in _CONTROLLERS]
        if all(path.is_dir() for path in paths):
            return Group(unified, *paths)
    return None


def read(group: Group) -> TaskStats | None:
    """Return what a group uses; None for one that is gone, or never told."""
    at = SystemClock().now()
    pids = _number(group.pids / "pids.current")
    if group.unified:
        cpu = _keyed(group.cpu / "cpu.stat").get("usage_usec", 0) * _MICROSECOND
        memory, idle = _number(group.memory / "memory.current"), "inactive_file"
    else:
        cpu = _number(group.cpu / "cpuacct.usage")
        memory, idle = _number(group.memory / "memory.usage_in_bytes"), "total_inactive_file"
    if not cpu or not pids:
        return None
    # What `docker stats` shows: page cache that can be given back at once does not count.
    spare = _keyed(group.memory / "memory.stat").get(idle, 0)
    received, sent = _traffic(_network_pid(group.pids))
    waits = [_pressure(group.cpu / f"{name}.pressure") for name in ("cpu", "memory", "io")]
    psi_cpu, psi_mem, psi_io = waits if group.unified else (None, None, None)
    return TaskStats(
        at=at,
        cpu_ns=cpu,
        memory_bytes=max(0, memory - spare),
        pids=pids,
        net_rx_bytes=received,
        net_tx_bytes=sent,
        psi_cpu_ns=psi_cpu,
        psi_mem_ns=psi_mem,
        psi_io_ns=psi_io,
    )


def _network_pid(path: Path) -> int:
    """Return a process of the group, unless its network is this host's own."""
    first = _text(path / "cgroup.procs").partition("\n")[0]
    if not first.isdigit():
        return 0
    try:
        own = Path("/proc/self/ns/net").readlink()
        return 0 if Path(f"/proc/{first}/ns/net").readlink() == own else int(first)
    except OSError:
        return 0


def _traffic(pid: int) -> tuple[int, int]:
    """Return bytes received and sent by a process's network, loopback aside; 0 for unknown."""
    received = sent = 0
    lines = _text(Path(f"/proc/{pid}/net/dev")).splitlines() if pid else []
    for line in lines[2:]:
        name, _, counters = line.partition(":")
        numbers = counters.split()
        if name.strip() != "lo" and len(numbers) > 8:
            received += int(numbers[0])
            sent += int(numbers[8])
    return received, sent


def _pressure(path: Path) -> int | None:
    """Return for how long something waited in all: ``some avg10=0.00 ... total=1234``."""
    for line in _text(path).splitlines():
        if line.startswith("some "):
            total = line.rpartition("total=")[2]
            return int(total) * _MICROSECOND if total.isdigit() else None
    return None


def _keyed(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
