"""A state directory on this host whose keeper and tasks are gone when the test is over."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.plugins.process_exec.hosts import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

    from swarmctl.plugins.process_exec.executor import ProcessExecutor


@pytest.fixture
def host() -> Iterator[Host]:
    """A node's state directory that every user may pass through."""
    state_dir = Path(tempfile.mkdtemp(prefix="swarmctl-test-"))
    state_dir.chmod(0o711)
    made = Host(state_dir)
    try:
        yield made
    finally:
        made.clean_up()


@pytest.fixture
async def executor(host: Host, nursery: trio.Nursery) -> ProcessExecutor:
    """An executor of that node, running."""
    made = host.executor()
    await nursery.start(made.run, host.identity)
    return made
