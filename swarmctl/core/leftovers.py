"""The tasks of a stay that is over, or never began: no agent minds them, but they run on."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import trio

from .errors import SwarmError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from .agent.executor import Executor, NodeIdentity

log = logging.getLogger(__name__)


async def remove_tasks(executor: Executor, node: NodeIdentity | None) -> None:
    """Remove what runs for a node, as far as the engine lets us; a warning tells of the rest.

    Args:
        node: whose; None when nobody knows, and then nothing is done.
    """
    if node is None:
        return
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(executor.run, node)
            known = await executor.known_tasks()
            async with trio.open_nursery() as removals:
                for task_id in known:
                    removals.start_soon(executor.remove_leftover, task_id)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failures, others = group.split(SwarmError)
        if others is not None:
            raise
        log.warning("tasks of the swarm that this node leaves may run on: %s", failures)
