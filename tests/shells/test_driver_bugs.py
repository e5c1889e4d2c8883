"""A network driver whose methods raise: it costs traffic for a while, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.agent.disk import open_task_table
from swarmctl.core.agent.executor import NodeIdentity
from swarmctl.core.agent.network import Sandbox
from swarmctl.core.agent.networking import AGAIN_S, Networking
from swarmctl.core.errors import Unavailable
from swarmctl.core.model.endpoints import EndpointChanges
from swarmctl.plugins.null_driver import NullDriver
from swarmctl.plugins.null_exec import NullExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from swarmctl.core.model.session import EndpointsKnown

IDENTITY = NodeIdentity(cluster_id="c", node_id="n", hostname="h", state_dir="/nowhere")


class Table:
    """Knows which versions were told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    async def send(self, known: EndpointsKnown) -> None:
        self.told.append(known.version)


@pytest.fixture
def driver() -> NullDriver:
    return NullDriver()


@pytest.fixture
def networking(driver: NullDriver, tmp_path: Path) -> Iterator[Networking]:
    table, _ = open_task_table(tmp_path)
    yield Networking(driver, table, NullExecutor())
    table.close()


def breaks(driver: NullDriver, method: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("oops")

    setattr(driver, method, fail)


@pytest.mark.parametrize("method", ["want", "state", "wait_version", "wait_sandbox"])
async def test_a_method_that_raises_ends_the_driver_alone(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    driver: NullDriver,
    networking: Networking,
    method: str,
) -> None:
    """Its trouble is told, it is started again after a while, and then catches up."""
    manager = Table()
    nursery.start_soon(networking.run, IDENTITY)
    await networking.wait_settled()
    breaks(driver, method)
    nursery.start_soon(networking.tell, manager.send)
    networking.apply(EndpointChanges(version=1, complete=True))
    networking.enter(Sandbox(id="t", pid=1))
    await networking.wait_sandbox("t")
    await trio.sleep(0.1)
    assert "the network driver null failed: ValueError('oops')" in networking.warning
    assert networking.driver_name == ""
    delattr(driver, method)
    networking.apply(EndpointChanges(version=2, complete=True))
    await trio.sleep(AGAIN_S + 1)
    assert (networking.warning, networking.driver_name) == ("", "null")
    assert manager.told[-1] == 2
    assert "t" in driver.kernel.sandboxes
    assert autojump_clock.current_time() > AGAIN_S


async def test_a_doctor_that_raises_is_told(
    nursery: trio.Nursery, driver: NullDriver, networking: Networking
) -> None:
    """In words, to who asked; the driver goes on."""
    nursery.start_soon(networking.run, IDENTITY)
    await networking.wait_settled()
    breaks(driver, "doctor")
    with pytest.raises(Unavailable, match="the network driver null failed: ValueError"):
        await networking.doctor(brief=True, probe=False)
    assert networking.driver_name == "null"
