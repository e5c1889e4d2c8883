"""A network driver that pretends: its kernel is a value, and no packet goes anywhere.

For demonstrations, simulations and tests, beside the executor that pretends. The kernel outlasts
drivers as a real one outlasts daemons; it can be slow, stuck, or damaged by hand. The setting
``delay`` (``50ms``) says how long a change takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl import __version__
from swarmctl.core.errors import InvalidArgument
from swarmctl.core.model.duration import parse_duration
from swarmctl.plugins import Finding, NetworkState, NodeReport, PluginInfo, Probe, hookimpl
from swarmctl.plugins.model import EMPTY_TABLE, NANOSECONDS_PER_SECOND

from .null_behaviour import DRIVER_OPTIONS, EXECUTOR_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swarmctl.plugins import NetworkDriver, NetworkDriverSettings, NodeIdentity, Sandbox
    from swarmctl.plugins.model import EndpointTable, Member

NAME = "null"
AUDIT_S = 5.0


class NullKernel:
    """What a kernel would have of a node's networks.

    Attributes:
        table: what is programmed; give it another and it was damaged by hand.
        sandboxes: the tasks that reach their networks.
        delay_s: how long a change takes.
        problems: what the driver will find wrong with this host.
    """

    def __init__(self) -> None:
        self.table: EndpointTable = EMPTY_TABLE
        self.sandboxes: dict[str, Sandbox] = {}
        self.delay_s = 0.0
        self.problems: tuple[str, ...] = ()
        self._free = trio.Event()
        self._free.set()

    @property
    def stuck(self) -> bool:
        """Whether changes wait until this is False again."""
        return not self._free.is_set()

    @stuck.setter
    def stuck(self, value: bool) -> None:
        if value:
            self._free = trio.Event()
        else:
            self._free.set()

    async def change(self, table: EndpointTable, sandboxes: Sequence[Sandbox]) -> None:
        """Program all of it at once, after as long as it takes."""
        await trio.sleep(self.delay_s)
        await self._free.wait()
        self.table = table
        self.sandboxes = {one.id: one for one in sandboxes}


class NullDriver:
    """See :class:`swarmctl.plugins.NetworkDriver`.

    Args:
        kernel: one of its own by default.
    """

    name = NAME

    def __init__(self, kernel: NullKernel | None = None) -> None:
        self.kernel = kernel or NullKernel()
        self._wanted: tuple[EndpointTable, tuple[Sandbox, ...]] | None = None
        self._agreed: tuple[EndpointTable, tuple[Sandbox, ...]] | None = None
        self._repaired: dict[str, int] = {}
        self._told = trio.Event()
        self._done = trio.Event()

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Reconcile when told, and every few seconds."""
        task_status.started()
        while True:
            self._told = trio.Event()
            if self._wanted is not None:
                await self._reconcile(*self._wanted)
            with trio.move_on_after(AUDIT_S):
                await self._told.wait()

    async def _reconcile(self, table: EndpointTable, sandboxes: tuple[Sandbox, ...]) -> None:
        kernel = self.kernel
        there = {one.id: one for one in sandboxes}
        if (kernel.table, kernel.sandboxes) != (table, there):
            if self._agreed == (table, sandboxes):
                self._repaired["table"] = self._repaired.get("table", 0) + 1
            await kernel.change(table, sandboxes)
        self._agreed = (table, sandboxes)
        self._done.set()
        self._done = trio.Event()
        await trio.lowlevel.checkpoint()

    def want(self, table: EndpointTable, sandboxes: Sequence[Sandbox]) -> None:
        """Take the table, for the next turn."""
        self._wanted = (table, tuple(sandboxes))
        self._told.set()

    async def wait_version(self, version: int) -> NetworkState:
        """Sleep until the kernel agreed with a table at least this new."""
        await trio.lowlevel.checkpoint()
        while self.state().version < version:
            await self._done.wait()
        return self.state()

    async def wait_sandbox(self, sandbox_id: str) -> None:
        """Sleep until a sandbox is connected, and with the newest table."""
        await trio.lowlevel.checkpoint()
        while self._wanted != self._agreed or sandbox_id not in self.kernel.sandboxes:
            await self._done.wait()

    def state(self) -> NetworkState:
        """Tell how kernel and table agree now."""
        return NetworkState(
            version=self._agreed[0].version if self._agreed is not None else 0,
            problems=self.kernel.problems,
            repaired=dict(self._repaired),
        )

    async def doctor(self, *, brief: bool, probe: bool) -> NodeReport:
        """Compare service by service; every path to a ready task is open here."""
        await trio.lowlevel.checkpoint()
        table = self._wanted[0] if self._wanted is not None else EMPTY_TABLE
        wanted, seen = dict(_said(table)), dict(_said(self.kernel.table))
        findings = [
            Finding(network=network, kind=kind, subject=subject, table=want, kernel=have)
            for network, kind, subject in {**wanted, **seen}
            for want, have in (
                (
                    wanted.get((network, kind, subject), ""),
                    seen.get((network, kind, subject), ""),
                ),
            )
        ]
        state = self.state()
        return NodeReport(
            version=state.version,
            findings=tuple(one for one in findings if not brief or one.table != one.kernel),
            compared=len(findings),
            probes=tuple(self._probes(table)) if probe else (),
            problems=state.problems,
            repaired=state.repaired,
        )

    def _probes(self, table: EndpointTable) -> Iterator[Probe]:
        for network in table.networks:
            for service in network.services:
                for member in service.members:
                    if member.ready and member.task_id not in self.kernel.sandboxes:
                        for source in self.kernel.sandboxes.values():
                            if network.network.id in source.networks:
                                yield Probe(
                                    network=network.network.name,
                                    source=source.id,
                                    target=member.task_id,
                                    took_ns=1,
                                )

    async def remove_all(self) -> None:
        """Forget everything."""
        self._wanted = (EMPTY_TABLE, ())
        await self.kernel.change(*self._wanted)
        self._agreed = self._wanted


def _said(table: EndpointTable) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Yield what a table asks for, in words."""
    for one in table.networks:
        name = one.network.name
        yield (name, "bridge", one.network.id), ", ".join(one.network.gateways)
        for peer in one.peers:
            yield (name, "peer", peer.node_id), peer.addr
        for service in one.services:
            yield (
                (name, "vip", ", ".join(service.vips) or service.service_id),
                _ready(service.members),
            )
    for port in table.published:
        yield ("", "port", f"{port.published}/{port.protocol}"), _ready(port.members)


def _ready(members: Sequence[Member]) -> str:
    return ", ".join(sorted(one.task_id for one in members if one.ready)) or "no task"


# --- the hook ------------------------------------------------------------------------------------

_kernels: dict[str, NullKernel] = {}
"""By state directory: a driver that is made again in this process finds its kernel."""


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Name this plugin."""
    return PluginInfo(name="null-network", version=__version__)


@hookimpl
def swarmctl_network_driver(name: str, settings: NetworkDriverSettings) -> NetworkDriver | None:
    """Make the driver that pretends."""
    if name != NAME:
        return None
    unknown = set(settings.options) - DRIVER_OPTIONS - EXECUTOR_OPTIONS
    if unknown:
        raise InvalidArgument(f"the null network driver has no option {', '.join(sorted(unknown))}")
    kernel = _kernels.setdefault(settings.state_dir, NullKernel())
    try:
        delay_ns = parse_duration(settings.options.get("delay", "0s"))
    except ValueError as error:
        raise InvalidArgument(f"the null network driver's option delay: {error}") from error
    kernel.delay_s = delay_ns / NANOSECONDS_PER_SECOND
    return NullDriver(kernel)
