"""Limits by cgroup, and what a task is seen to use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from swarmctl.core.clock import new_id
from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import Limit, ResourceRequirements, Resources, TaskSpec
from swarmctl.plugins.process_exec import bundle as bundling
from swarmctl.plugins.process_exec import host as host_facts
from swarmctl.plugins.process_exec.keeper import cgroups
from swarmctl.plugins.process_exec.link import TaskView
from swarmctl.plugins.process_exec.usage import sample
from tests.plugins.process_exec.hosts import alive, enough_lines, first_line, started, texts

if TYPE_CHECKING:
    from swarmctl.plugins.model import TaskAssignment
    from swarmctl.plugins.process_exec.executor import ProcessExecutor
    from tests.plugins.process_exec.hosts import Host

MEGABYTE = 1024 * 1024
with_cgroups = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make cgroups")


def limited(host: Host, script: str, **limits: int) -> TaskAssignment:
    assignment = host.assignment(script)
    spec = TaskSpec(
        ContainerSpec=assignment.task.Spec.ContainerSpec,
        Resources=ResourceRequirements(Limits=Limit(**limits), Reservations=Resources()),
    )
    return msgspec.structs.replace(
        assignment, task=msgspec.structs.replace(assignment.task, Spec=spec)
    )


@with_cgroups
async def test_memory_limit(host: Host, executor: ProcessExecutor) -> None:
    """A task that needs more memory than its limit is killed, and its end says so."""
    script = "exec python3 -c 'x = b\"x\" * (200 << 20); print(len(x))'"
    control = await started(executor, limited(host, script, MemoryBytes=64 * MEGABYTE))
    status = await control.wait()
    assert (status.code, status.error) == (
        137,
        f"out of memory: its limit is {64 * MEGABYTE} bytes",
    )


@with_cgroups
async def test_pids_limit(host: Host, executor: ProcessExecutor) -> None:
    """A task cannot have more processes than its limit."""
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all"
    control = await started(executor, limited(host, script, Pids=5))
    status = await control.wait()
    assert status.code != 0
    assert "all" not in await texts(control)


@with_cgroups
async def test_cpu_limit(host: Host, executor: ProcessExecutor) -> None:
    """A task gets no more processor time than its limit."""
    script = "echo go; while :; do :; done"
    assignment = limited(host, script, NanoCPUs=100_000_000)
    control = await started(executor, assignment)
    await first_line(control)
    task_id = assignment.task.ID
    first = (await executor.stats([task_id]))[task_id]
    await trio.sleep(1.0)
    last = (await executor.stats([task_id]))[task_id]
    share = (last.cpu_ns - first.cpu_ns) / (last.at - first.at)
    assert 0 < share < 0.2
    await control.kill()


@with_cgroups
async def test_a_cpu_limit_seen_from_inside(host: Host, executor: ProcessExecutor) -> None:
    """The process is in a group with the limit's quota, and a second of work takes it longer."""
    program = """
import time, pathlib
group = {}
for line in open("/proc/self/cgroup"):
    _, names, path = line.rstrip().split(":", 2)
    group.update((name, (names, path)) for name in names.split(","))
base = pathlib.Path("/sys/fs/cgroup")
if "cpu" in group:
    place = base / group["cpu"][0] / group["cpu"][1].lstrip("/")
    quota, period = (place / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
    print(quota.read_text().strip(), period.read_text().strip())
else:
    print((base / group[""][1].lstrip("/") / "cpu.max").read_text().strip())
end = time.monotonic() + 1
worked = time.process_time()
while time.monotonic() < end:
    pass
print(time.process_time() - worked)
"""
    script = f"exec python3 -c '{program}'"
    control = await started(executor, limited(host, script, NanoCPUs=200_000_000))
    status = await control.wait()
    assert status.code == 0
    quota, share = await texts(control)
    assert quota == "20000 100000"
    assert 0 < float(share) < 0.4


async def test_stats(host: Host, executor: ProcessExecutor) -> None:
    """A sample tells memory, processor time and processes of the whole task."""
    # Without a group the kernel counts by its ticks, of up to 10 ms.
    script = "sleep 1000 & i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; wait"
    assignment = host.assignment(script)
    control = await started(executor, assignment)
    await first_line(control)
    task_id = assignment.task.ID
    seen = (await executor.stats([task_id, "unknown"]))[task_id]
    assert seen.pids == 2
    assert seen.cpu_ns > 0
    assert seen.memory_bytes > 0

    view = msgspec.structs.replace(executor.link.tasks[task_id], group={})
    without = sample([view])[task_id]
    assert isinstance(view, TaskView)
    assert without.pids == 2
    assert without.cpu_ns > 0
    assert without.memory_bytes > 0
    await control.kill()
    assert await executor.stats([task_id]) == {}


@with_cgroups
async def test_without_cgroups(host: Host, executor: ProcessExecutor) -> None:
    """Where there are no cgroups, a limit is refused in words, and a task's processes are found
    by session, parents and environment: its whole tree ends with it, and can be sampled."""
    await trio.to_thread.run_sync(start_keeper_without_cgroups, host)
    control = executor.controller(limited(host, "true", MemoryBytes=64 * MEGABYTE, Pids=4))
    with pytest.raises(ExecutorError, match="no cgroup for memory, pids"):
        await control.prepare()
    assignment = host.assignment(
        "(setsid sh -c 'trap \"\" TERM; echo $$; sleep 1000' &) ; sleep 1001 & echo $!; wait"
    )
    control = await started(executor, assignment)
    pids = [int(line) for line in await enough_lines(control, 2)]
    task_id = assignment.task.ID
    assert executor.link.tasks[task_id].group == {}
    assert (await executor.stats([task_id]))[task_id].pids >= 3
    assert all(alive(pid) for pid in pids)
    await control.shutdown()
    assert not [pid for pid in pids if alive(pid)]


def start_keeper_without_cgroups(host: Host) -> None:
    """Start the keeper in a mount namespace that has no cgroup file systems."""
    program = bundling._write_program(host.root)
    script = 'umount --lazy --recursive /sys/fs/cgroup && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-I", "-S"]
    arguments = [str(program), str(host.root), "test", bundling.bundle().build, "20"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


def test_missing_controllers_are_told() -> None:
    """describe() warns of each limit that this host cannot give, and says why."""
    layout = cgroups.Layout({}, {"memory": "/sys/fs/cgroup: Permission denied"})
    described = host_facts.describe("x", layout=layout)
    sentence = "No memory limit support: /sys/fs/cgroup: Permission denied. "
    assert described.warnings == (sentence + "Tasks with such a limit are refused.",)


@with_cgroups
def test_a_group_after_somebody_tidied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that looks at its host takes away the empty directories above tasks; the next task
    has its group all the same, and in version 2 the controllers that this host has there."""
    _, mount = cgroups._mounts()
    there = (Path(mount) / "cgroup.controllers").read_text().split()[:1] if mount else []
    switch = Path(mount) / "cgroup.subtree_control"
    was_on = set(there) <= set(switch.read_text().split()) if mount else True
    monkeypatch.setattr(cgroups, "LIMITED", tuple(there))
    layout = cgroups.find_layout(f"test-{new_id()}")
    name = there[0] if there else "track"
    layout.tidy()
    assert not Path(layout.parents[name]).exists()
    group = layout.create("t0")
    try:
        assert Path(group[name]).is_dir()
        for controller in there:
            has = (Path(group[controller]) / "cgroup.controllers").read_text().split()
            assert controller in has
    finally:
        assert cgroups.remove(group)
        layout.tidy()
        if not was_on:
            switch.write_text(f"-{there[0]}")


def test_version_2(tmp_path: Path) -> None:
    """In the files of a version 2 group, limits are written and usage is read under their names
    there."""
    (tmp_path / "cgroup.controllers").touch()
    for name in ("memory.max", "cpu.max", "pids.max"):
        (tmp_path / name).touch()
    group = {name: str(tmp_path) for name in ("memory", "cpu", "pids", "track")}
    limits = {"memory_bytes": 64 * MEGABYTE, "nano_cpus": 1_500_000_000, "pids": 7}
    assert cgroups.limit(group, **limits) == ""
    assert (tmp_path / "memory.max").read_text() == str(64 * MEGABYTE)
    assert (tmp_path / "cpu.max").read_text() == "150000 100000"
    assert (tmp_path / "pids.max").read_text() == "7"
    (tmp_path / "cpu.stat").write_text("usage_usec 42\nuser_usec 40\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (tmp_path / "pids.current").write_text("3\n")
    assert cgroups.usage(group) == {"cpu_ns": 42000, "memory_bytes": 700, "pids": 3}
    assert cgroups.oom_kills(group) == 1
    assert "no cgroup for the memory controller" in cgroups.limit(
        {}, memory_bytes=1, nano_cpus=0, pids=0
    )
    assert "No such file" in cgroups.limit(
        {"pids": "/no/such"}, memory_bytes=0, nano_cpus=0, pids=1
    )
