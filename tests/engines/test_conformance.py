"""The laws that hold for every executor, checked on a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from swarmctl.plugins import ExecutorSettings
from swarmctl.plugins.testing import ShellPrograms, check_executor

from .assignments import IMAGE, identity
from .conftest import EXECUTORS

if TYPE_CHECKING:
    from .private import PrivateEngine


@pytest.mark.engine
async def test_an_engines_executor_keeps_the_laws_of_executors(engine: PrivateEngine) -> None:
    """Exit codes, repetition, stops, adoption, leftovers, strangers, logs, and cancellation."""
    state_dir = str(engine.home / "nodes" / "conformance")
    settings = ExecutorSettings(state_dir=state_dir, engine=f"unix://{engine.socket}")
    try:
        await check_executor(
            lambda: EXECUTORS[engine.kind](settings),
            programs=ShellPrograms(IMAGE),
            identity=identity(state_dir=state_dir),
        )
    finally:
        engine.remove_all()
