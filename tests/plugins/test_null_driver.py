"""The network driver that pretends keeps every law, and the check finds those that do not."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.errors import InvalidArgument
from swarmctl.plugins import (
    ExecutorSettings,
    NetworkDriverSettings,
    NetworkState,
    NodeIdentity,
    NodeReport,
    Sandbox,
)
from swarmctl.plugins.loader import NoSuchNetworkDriver, load_plugins
from swarmctl.plugins.model import (
    EMPTY_TABLE,
    EndpointTable,
    HostNetwork,
    Member,
    NetworkTable,
    Peer,
    PublishedPort,
    ServiceEndpoint,
)
from swarmctl.plugins.null_driver import AUDIT_S, NullDriver, NullKernel
from swarmctl.plugins.testing import ConformanceError, check_network_driver

IDENTITY = NodeIdentity(cluster_id="c" * 25, node_id="n" * 25, hostname="h", state_dir="/nowhere")
MEMBERS = (
    Member(task_id="t1", node_id="n1", addresses=("10.0.1.3",), ready=True),
    Member(task_id="t2", node_id="n2", addresses=("10.0.1.4",), ready=True),
)
TABLE = EndpointTable(
    version=20,
    own_addr="10.77.0.1",
    networks=(
        NetworkTable(
            network=HostNetwork(id="net", name="net", vni=4097, gateways=("10.0.1.1/24",)),
            peers=(Peer(node_id="n2", addr="10.77.0.2"),),
            services=(
                ServiceEndpoint(
                    service_id="web", names=("web",), vips=("10.0.1.2",), members=MEMBERS
                ),
            ),
        ),
    ),
    published=(
        PublishedPort(
            service_id="web", service_name="web", published=80, target=80, members=MEMBERS
        ),
    ),
)
SANDBOX = Sandbox(id="t1", pid=1001, networks=("net",))


async def test_it_keeps_the_laws(autojump_clock: trio.testing.MockClock) -> None:
    """The conformance check passes, on a quick kernel and on a slow one."""
    for delay_s in (0.0, 0.1):
        kernel = NullKernel()
        kernel.delay_s = delay_s
        await check_network_driver(
            lambda kernel=kernel: NullDriver(kernel),  # type: ignore[misc] # of this turn
            identity=IDENTITY,
            table=TABLE,
            sandboxes=(SANDBOX,),
        )


class Forgetful(NullDriver):
    """Its kernel does not outlive it."""

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.kernel.table = EMPTY_TABLE
        await super().run(identity, task_status=task_status)


class Boastful(NullDriver):
    """It says that it is done before it is."""

    async def wait_version(self, version: int) -> NetworkState:
        await trio.lowlevel.checkpoint()
        return NetworkState(version=version + 1)


class Blind(NullDriver):
    """It compares nothing."""

    async def doctor(self, *, brief: bool, probe: bool) -> NodeReport:
        await trio.lowlevel.checkpoint()
        return NodeReport(version=self.state().version)


@pytest.mark.parametrize(
    ("bad", "law"),
    [
        (Forgetful, "A driver that was told nothing yet takes nothing down"),
        (Boastful, "The kernel comes to agree"),
        (Blind, "doctor\\(\\) compares everything"),
    ],
)
async def test_the_check_names_the_law_that_is_broken(
    autojump_clock: trio.testing.MockClock,
    bad: type[NullDriver],
    law: str,
) -> None:
    """A driver that breaks one is told which."""
    kernel = NullKernel()
    with pytest.raises(ConformanceError, match=law):
        await check_network_driver(
            lambda: bad(kernel), identity=IDENTITY, table=TABLE, sandboxes=(SANDBOX,)
        )


async def test_damage_is_found_and_mended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What somebody took out of the kernel is back after the next audit, and counted."""
    kernel = NullKernel()
    driver = NullDriver(kernel)
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run, IDENTITY)
        driver.want(TABLE, (SANDBOX,))
        await driver.wait_version(20)
        kernel.table = replace(TABLE, published=())
        report = await driver.doctor(brief=True, probe=True)
        assert [(one.kind, one.subject, one.kernel) for one in report.findings] == [
            ("port", "80/tcp", "")
        ]
        assert [(one.source, one.target) for one in report.probes] == [("t1", "t2")]
        await trio.sleep(AUDIT_S + 0.1)
        assert kernel.table == TABLE
        assert driver.state().repaired == {"table": 1}
        nursery.cancel_scope.cancel()


def test_it_comes_through_the_hook() -> None:
    """By its name, with its options checked; another name has no driver."""
    plugins = load_plugins(candidates=())
    settings = NetworkDriverSettings(state_dir="/nowhere/at/all", options={"delay": "50ms"})
    made = plugins.network_driver("null", settings)
    assert isinstance(made, NullDriver)
    assert made.kernel.delay_s == 0.05
    again = plugins.network_driver("null", replace(settings, options={}))
    assert isinstance(again, NullDriver)
    assert again.kernel is made.kernel
    for options in ({"speed": "1"}, {"delay": "soon"}):
        with pytest.raises(InvalidArgument, match="the null network driver"):
            plugins.network_driver("null", replace(settings, options=options))
    with pytest.raises(NoSuchNetworkDriver, match='no plugin has a network driver called "frr"'):
        plugins.network_driver("frr", settings)
    assert plugins.executor("null", ExecutorSettings(state_dir="/nowhere")).name == "null"
