"""A worker's API: it knows itself and sends everybody else to a manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl.core.api.route import ROUTES

from .running import RunningApi, running_api

if TYPE_CHECKING:
    from pathlib import Path

A_WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
PRECONDITION = "rpc error: code = FailedPrecondition desc = "


async def _join(worker: RunningApi, manager: RunningApi, token: str) -> tuple[int, str]:
    address = f"127.0.0.1:{worker.port}"
    reply = await worker.request(
        "POST",
        "/swarm/join",
        {
            "ListenAddr": address,
            "AdvertiseAddr": address,
            "RemoteAddrs": [f"127.0.0.1:{manager.port}"],
            "JoinToken": token,
        },
    )
    return reply.status, reply.json["message"] if reply.body else ""


async def test_a_worker_joins_knows_itself_and_leaves(tmp_path: Path) -> None:
    """Bad tokens are refused by name; a joined worker answers 503 for the cluster, tells of itself
    by /info and _ping, and after leaving may join again."""
    for name in ("m", "w"):
        (tmp_path / name).mkdir()
    async with running_api(tmp_path / "m") as manager, running_api(tmp_path / "w") as worker:
        await manager.init()
        token = (await manager.get("/swarm"))["JoinTokens"]["Worker"]
        status, text = await _join(worker, manager, "SWMTKN-1-x-y")
        assert status in (400, 500)
        assert "join token" in text
        assert await _join(worker, manager, token) == (200, "")
        for route in ROUTES:
            if route.needs_manager:
                path = route.pattern.replace("{id}", "x")
                assert await worker.refusal(route.method, path) == (503, A_WORKER), route
        forced = {"ForceNewCluster": True}
        assert await worker.refusal("POST", "/swarm/init", forced) == (503, A_WORKER)
        ping = await worker.request("HEAD", "/_ping")
        assert ping.headers["Swarm"] == "active/worker"
        swarm = (await worker.get("/info"))["Swarm"]
        assert swarm["LocalNodeState"] == "active"
        assert swarm["ControlAvailable"] is False
        assert "Cluster" not in swarm
        assert [each["Addr"] for each in swarm["RemoteManagers"]] == [f"127.0.0.1:{manager.port}"]
        await _until_nodes(manager, ready=2)
        node = await manager.get(f"/nodes/{swarm['NodeID']}")
        assert "ManagerStatus" not in node
        assert node["Status"]["State"] == "ready"
        refused = await manager.refusal("DELETE", f"/nodes/{swarm['NodeID']}")
        assert refused == (
            400,
            PRECONDITION + f"node {swarm['NodeID']} is not down and can't be removed",
        )
        assert (await worker.request("POST", "/swarm/leave")).status == 200
        assert await _join(worker, manager, token) == (200, "")
        forced = await manager.request("DELETE", f"/nodes/{swarm['NodeID']}?force=1")
        assert (forced.status, forced.body) == (200, b"")
        assert len(await manager.get("/nodes")) == 2


async def _until_nodes(manager: RunningApi, *, ready: int) -> None:
    with trio.fail_after(20):
        while True:
            states = [node["Status"]["State"] for node in await manager.get("/nodes")]
            if states.count("ready") == ready:
                return
            await trio.sleep(0.02)
