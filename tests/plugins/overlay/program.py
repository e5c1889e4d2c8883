"""Runs the overlay driver and obeys lines of JSON: what the agent is to it, for tests."""

from __future__ import annotations

import json
import sys
import time

import msgspec
import trio

from swarmctl.plugins import NetworkDriverSettings, NodeIdentity, Sandbox
from swarmctl.plugins.model import EMPTY_TABLE, EndpointTable
from swarmctl.plugins.overlay.driver import OverlayDriver


async def main(node_id: str, state_dir: str) -> None:
    """Run until standard input ends."""
    driver = OverlayDriver(NetworkDriverSettings(state_dir=state_dir))
    identity = NodeIdentity(cluster_id="c", node_id=node_id, hostname=node_id, state_dir=state_dir)
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run, identity)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps(await obey(driver, json.loads(line))), flush=True)
        nursery.cancel_scope.cancel()


async def obey(driver: OverlayDriver, words: dict) -> dict:
    """Do one thing."""
    if words["do"] == "want":
        table = msgspec.convert(words["table"], EndpointTable)
        sandboxes = [msgspec.convert(one, Sandbox) for one in words["sandboxes"]]
        began = time.perf_counter()
        driver.want(table, sandboxes)
        if words["wait"]:
            with trio.move_on_after(10):
                await driver.wait_version(table.version)
                for sandbox in sandboxes:
                    await driver.wait_sandbox(sandbox.id)
        return {**msgspec.to_builtins(driver.state()), "took_s": time.perf_counter() - began}
    if words["do"] == "doctor":
        report = await driver.doctor(brief=words["brief"], probe=words["probe"])
        return {
            "findings": [msgspec.structs.asdict(one) for one in report.findings],
            "probes": [msgspec.structs.asdict(one) for one in report.probes],
            "compared": report.compared,
        }
    if words["do"] == "leave":
        driver.want(EMPTY_TABLE, ())
        await driver.remove_all()
    return msgspec.to_builtins(driver.state())


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
