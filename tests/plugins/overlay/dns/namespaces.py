"""A network namespace of one's own, with a process in it: what the responder takes for a container.

Needs root. Nothing leaves it: it has a loopback interface and no other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from swarmctl.plugins.overlay.dns.sockets import call_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import TypeVar

    T = TypeVar("T")

MISSING = (
    "needs root, for a network namespace"
    if os.geteuid()
    else next((f"needs {one}" for one in ("unshare", "ip", "nft") if shutil.which(one) is None), "")
)


@contextlib.asynccontextmanager
async def namespace() -> AsyncIterator[int]:
    """Yield the pid of a process in a fresh namespace; both end with the block."""
    script = "ip link set lo up && echo up && exec sleep 120"
    process = await trio.lowlevel.open_process(
        ["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(10):
            assert await process.stdout.receive_some() == b"up\n"
        yield process.pid
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def inside(pid: int, function: Callable[[], T]) -> T:
    """Call a function in a process's namespace; sockets that it makes stay there."""

    def call() -> T:
        with Path(f"/proc/{pid}/ns/net").open() as file:
            return call_in(file.fileno(), function)

    return await trio.to_thread.run_sync(call)


async def nft(pid: int, rules: str) -> None:
    """Load rules in a process's namespace."""
    await trio.run_process(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "-f", "-"], stdin=rules.encode()
    )


async def add_interface(pid: int, address: str) -> None:
    """Give a process's namespace an interface that leads nowhere, with an address."""
    script = "ip link add eth0 type bridge && ip addr add $0 dev eth0 && ip link set eth0 up"
    await trio.run_process(["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", script, address])
