"""Whether executors are told that names are answered here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from swarmctl.core.agent.disk import open_task_table
from swarmctl.core.agent.executor import NodeIdentity
from swarmctl.core.agent.networking import Networking
from swarmctl.plugins.null_driver import NullDriver
from swarmctl.plugins.null_exec import NullExecutor

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = NodeIdentity(cluster_id="c", node_id="n", hostname="h", state_dir="/nowhere")


class Answering(NullDriver):
    """A driver that answers names."""

    answers_names = True


async def test_names_are_answered_where_a_driver_that_does_is_at_work(
    nursery: trio.Nursery, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Not before it is, not by one that does not, and not where there is none."""
    table, _ = open_task_table(tmp_path)
    silent, answering, without = (
        Networking(driver, table, NullExecutor()) for driver in (NullDriver(), Answering(), None)
    )
    assert not answering.answers_names
    for networking in (silent, answering, without):
        nursery.start_soon(networking.run, IDENTITY)
    await trio.sleep(1)
    assert [one.answers_names for one in (silent, answering, without)] == [False, True, False]
    table.close()
    assert autojump_clock.current_time() > 0
