"""Bring a used host back to how it was when made, in a fraction of the time of making one.

Tests share a lab and must not see each other: afterwards wires are whole, engines run and are
empty, no swarmctl process lives and no state of one is left.
"""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .unix_http import ApiError
from .waiting import eventually

if TYPE_CHECKING:
    from .engines import Engine
    from .hosts import Host
    from .unix_http import UnixClient

# What a network driver made outlives its daemon; a swarm that was left in order takes it along. And
# netavark leaves a bridge to which a tunnel was connected.
_FORGET_NETWORKS = """
for link in $(ls /sys/class/net | grep '^s[wx]-'); do ip link del $link 2>/dev/null; done
for family in ip ip6; do nft delete table $family swarmctl 2>/dev/null; done
exit 0
"""


def clean_hosts(hosts: list[Host]) -> None:
    """Clean every host of a lab.

    Raises:
        RuntimeError: an engine does not come up again.
        ApiError: an engine refuses to let go of something.
        AssertionError: a process does not die.
    """
    for host in hosts:
        host.heal()
        host.move()
        if host.daemon is not None:
            host.daemon.kill()  # first: it would put back what is removed below
    started = [host.engine for host in hosts if host.engine and _revive(host.engine)]
    for engine in started:
        engine.wait_until_ready()
    for host in hosts:
        if host.engine is not None:
            _empty_engine(host.engine)
        _kill_strays(host)
        host.run(["sh", "-c", _FORGET_NETWORKS])
        if host.daemon is not None:
            shutil.rmtree(host.daemon.state_dir, ignore_errors=True)
            host.daemon.log.write_bytes(b"")


def _revive(engine: Engine) -> bool:
    """Make it run; True when it had to be started."""
    if engine.process is not None and engine.process.running:
        engine.resume()
        return False
    # A dockerd that finds containers alive stops them with 10 s of grace each: spare it that.
    engine.host.kill_all()
    engine.start(wait=False)
    return True


def _empty_engine(engine: Engine) -> None:
    with engine.client() as client:
        if client.call("GET", "/info")["Swarm"]["LocalNodeState"] != "inactive":
            client.call("POST", "/swarm/leave", query={"force": "1"})
        eventually(lambda: not _remove_all(client), 30, what="the engine to be empty")
        images = client.call("GET", "/images/json")
        for image in {tag for listed in images for tag in listed["RepoTags"] or ()} - {
            *engine.images
        }:
            client.call("DELETE", f"/images/{image}", query={"force": "1"})
        client.call("POST", "/networks/prune")
        client.call("POST", "/volumes/prune")


def _remove_all(client: UnixClient) -> list[dict[str, Any]]:
    """Remove what is there, and return it: what a killed daemon asked for may come only now."""
    listed: list[dict[str, Any]] = client.call("GET", "/containers/json", query={"all": "1"})
    for container in listed:
        _remove(client, container["Id"])
    return listed


def _remove(client: UnixClient, container: str) -> None:
    """Remove a container, which a daemon that is gone now may have begun already."""
    try:
        client.call("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})
    except ApiError as error:
        if error.status not in (404, 409):
            raise


def _kill_strays(host: Host) -> None:
    """Kill what runs besides the host's init and its engine, keepers of processes above all."""
    eventually(lambda: not _kill_once(host), 10, every_s=0.01, what=f"{host.name} to be quiet")


def _kill_once(host: Host) -> set[int]:
    strays = host.pids() - _engine_pids(host.engine)
    for pid in strays:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return strays


def _engine_pids(engine: Engine | None) -> set[int]:
    if engine is None or engine.process is None or not engine.process.running:
        return set()
    pid = engine.process.pid
    pids = {engine.process.popen.pid, pid}
    # containerd, dockerd's only lasting child; started by any of its threads.
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):
            pids.update(map(int, children.read_text().split()))
    return pids
