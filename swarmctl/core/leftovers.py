"""What is left of a stay that is over, or never began: no agent minds it, but it is there."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import trio

from .errors import SwarmError
from .model.endpoints import EMPTY_TABLE

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from .agent.executor import Executor, NodeIdentity
    from .agent.network import NetworkDriver

log = logging.getLogger(__name__)


async def remove_leftovers(
    executor: Executor, driver: NetworkDriver | None, node: NodeIdentity | None
) -> None:
    """Remove what runs for a node and its networks, as far as we may; a warning tells of the rest.

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
        if driver is not None:
            await _remove_networks(driver, node)
    except BaseExceptionGroup as group:
        failures, others = group.split(SwarmError)
        if others is not None:
            raise
        log.warning("tasks or networks of the swarm that this node leaves may stay: %s", failures)


async def _remove_networks(driver: NetworkDriver, node: NodeIdentity) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run, node)
        driver.want(EMPTY_TABLE, ())
        await driver.remove_all()
        nursery.cancel_scope.cancel()
