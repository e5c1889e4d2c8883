"""The process executor keeps the laws of executors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins.testing import ShellPrograms, check_executor

if TYPE_CHECKING:
    from tests.plugins.process_exec.hosts import Host


async def test_conformance(host: Host) -> None:
    """Every law of executors holds for plain processes, and nothing stays behind."""
    await check_executor(
        host.executor, programs=ShellPrograms("host"), identity=host.identity, timeout_s=60
    )
    assert not [
        entry for entry in host.root.iterdir() if entry.is_dir() and entry.name != "private"
    ]
