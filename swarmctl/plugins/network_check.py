"""The check of network drivers; see :mod:`.testing`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec.structs import replace

from ..core.model.endpoints import EMPTY_TABLE
from .cancelling import cancelled_at
from .conformance import require
from .laws import beside, hold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..core.agent.executor import NodeIdentity
    from ..core.agent.network import NetworkDriver, Sandbox
    from ..core.model.endpoints import EndpointTable

CHECK_TIMEOUT_S = 60.0
CANCEL_POINTS = 12


class _Rig(NamedTuple):
    make_driver: Callable[[], NetworkDriver]
    identity: NodeIdentity
    table: EndpointTable
    sandboxes: Sequence[Sandbox]

    async def with_driver(self, body: Callable[[NetworkDriver], Awaitable[None]]) -> None:
        """Run ``body`` with a driver as a daemon has it, from start to sudden end."""
        driver = self.make_driver()
        await beside(partial(driver.run, self.identity), partial(body, driver))


async def check_network_driver(
    make_driver: Callable[[], NetworkDriver],
    *,
    identity: NodeIdentity,
    table: EndpointTable,
    sandboxes: Sequence[Sandbox] = (),
    timeout_s: float = CHECK_TIMEOUT_S,
) -> None:
    """Check that a network driver keeps the laws of :mod:`swarmctl.core.agent.network`.

    Leaves nothing in the kernel when all is well.

    Args:
        make_driver: makes a fresh driver on the same kernel each time, as a daemon that was
            restarted does.
        identity: of the node it plays.
        table: what to put into the kernel; with a version of 10 or more.
        sandboxes: network namespaces that are on its networks.
        timeout_s: how long any one check may take.

    Raises:
        ConformanceError: a law is broken.
    """
    rig = _Rig(make_driver, identity, table, sandboxes)
    await hold(CHECKS, rig, timeout_s)


# --- the checks: each one's docstring is the law -------------------------------------------------


async def _agrees(rig: _Rig) -> None:
    """The kernel comes to agree with the table that was wanted last, and wait_version() tells."""

    async def body(driver: NetworkDriver) -> None:
        before = driver.state()
        require(before.version < rig.table.version, f"it agrees with {before.version} untold")
        driver.want(replace(rig.table, version=rig.table.version - 1), ())
        driver.want(rig.table, rig.sandboxes)
        state = await driver.wait_version(rig.table.version)
        require(state.version == rig.table.version, f"it agrees with version {state.version}")
        again = await driver.wait_version(1)
        require(again.version == rig.table.version, "an older version is waited for")

    await rig.with_driver(body)


async def _connects_sandboxes(rig: _Rig) -> None:
    """wait_sandbox() returns for every sandbox that was wanted."""

    async def body(driver: NetworkDriver) -> None:
        driver.want(rig.table, rig.sandboxes)
        for sandbox in rig.sandboxes:
            await driver.wait_sandbox(sandbox.id)

    await rig.with_driver(body)


async def _is_found_as_it_was(rig: _Rig) -> None:
    """What was made outlives the driver, and the next one finds nothing to mend."""

    async def body(driver: NetworkDriver) -> None:
        driver.want(rig.table, rig.sandboxes)
        await driver.wait_version(rig.table.version)
        repaired = driver.state().repaired
        require(not repaired, f"it mended {repaired}")
        report = await driver.doctor(brief=True, probe=False)
        require(not report.findings, f"kernel and table differ: {report.findings}")

    await rig.with_driver(body)
    await rig.with_driver(body)


async def _touches_nothing_untold(rig: _Rig) -> None:
    """A driver that was told nothing yet takes nothing down."""

    async def untold(_driver: NetworkDriver) -> None:
        await trio.sleep(0.5)

    async def told(driver: NetworkDriver) -> None:
        driver.want(rig.table, rig.sandboxes)
        report = await driver.doctor(brief=True, probe=False)
        require(not report.findings, f"kernel and table differ at once: {report.findings}")

    await rig.with_driver(untold)
    await rig.with_driver(told)


async def _goes_by_what_is_wanted(rig: _Rig) -> None:
    """A table of a lower version counts all the same: the swarm may have been founded anew."""

    async def body(driver: NetworkDriver) -> None:
        driver.want(rig.table, rig.sandboxes)
        await driver.wait_version(rig.table.version)
        driver.want(replace(rig.table, version=rig.table.version - 5), rig.sandboxes)
        while driver.state().version != rig.table.version - 5:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)

    await rig.with_driver(body)


async def _reports(rig: _Rig) -> None:
    """doctor() compares everything, and in brief shows only what differs."""

    async def body(driver: NetworkDriver) -> None:
        driver.want(rig.table, rig.sandboxes)
        await driver.wait_version(rig.table.version)
        report = await driver.doctor(brief=False, probe=False)
        require(report.findings or not rig.table.networks, "nothing was compared")
        require(report.compared == len(report.findings), f"{report.compared} were compared")
        require(report.version == rig.table.version, f"it compared version {report.version}")
        wrong = [one for one in report.findings if one.table != one.kernel]
        require(not wrong, f"kernel and table differ: {wrong}")

    await rig.with_driver(body)


async def _survives_cancellation(rig: _Rig) -> None:
    """Its end may come at any checkpoint; the next one comes to agree all the same."""
    for point in range(1, CANCEL_POINTS + 1):
        driver = rig.make_driver()
        driver.want(rig.table, rig.sandboxes)
        with trio.move_on_after(0.5):
            await cancelled_at(point, partial(driver.run, rig.identity))
    await _is_found_as_it_was(rig)


async def _removes_all(rig: _Rig) -> None:
    """remove_all() leaves nothing behind."""

    async def body(driver: NetworkDriver) -> None:
        driver.want(rig.table, rig.sandboxes)
        await driver.wait_version(rig.table.version)
        driver.want(EMPTY_TABLE, ())
        await driver.remove_all()
        report = await driver.doctor(brief=False, probe=False)
        left = [one for one in report.findings if one.kernel]
        require(not left, f"there is still {left}")

    await rig.with_driver(body)


CHECKS: tuple[Callable[[_Rig], Awaitable[None]], ...] = (
    _agrees,
    _connects_sandboxes,
    _is_found_as_it_was,
    _touches_nothing_untold,
    _goes_by_what_is_wanted,
    _reports,
    _survives_cancellation,
    _removes_all,
)
