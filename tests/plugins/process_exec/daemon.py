"""A daemon in small, for tests to kill: starts the tasks it is told to and waits to be killed.

python daemon.py <state dir> <cluster id> <node id> <task id>=<script> ...
"""

from __future__ import annotations

import sys

import trio

from swarmctl.plugins import ExecutorSettings, NodeIdentity
from swarmctl.plugins.model import ContainerSpec
from swarmctl.plugins.process_exec.executor import ProcessExecutor
from swarmctl.plugins.testing import simple_assignment


async def main() -> None:
    state_dir, cluster_id, node_id, *tasks = sys.argv[1:]
    identity = NodeIdentity(
        cluster_id=cluster_id, node_id=node_id, hostname="here", state_dir=state_dir
    )
    async with trio.open_nursery() as nursery:
        executor = ProcessExecutor(ExecutorSettings(state_dir=state_dir), keeper_idle_s=20.0)
        await nursery.start(executor.run, identity)
        for task in tasks:
            task_id, _, script = task.partition("=")
            spec = ContainerSpec(Image="host", Command=("sh", "-c", script))
            control = executor.controller(simple_assignment(task_id, spec, identity))
            await control.prepare()
            await control.start()
        print("started", flush=True)
        await trio.sleep_forever()


trio.run(main)
