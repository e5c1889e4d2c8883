"""The Protocol of a network driver: it makes this node's kernel agree with the endpoint table.

There is one driver per node process, made by the ``swarmctl_network_driver`` hook. It is told what
shall be, never what to do: the table of endpoints and the tasks whose network namespaces it may
enter. Laws, checked by ``swarmctl.plugins.testing.check_network_driver``:

- What it made outlives the daemon, and the daemon after adopts it without a dropped packet.
- It finds and repairs drift by comparing kernel and table, and touches nothing that is not its own.
- It knows no engine: an engine's executor makes the bridge of a network (named by
  :func:`bridge_name`, with the node's gateways as its addresses) and puts the task on it; the
  driver does everything beyond. Where no executor made the bridge of a network in the table - the
  ingress network on a node without tasks on it - the driver makes it.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from ..model.base import PrivateStruct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.endpoints import EndpointTable
    from .executor import NodeIdentity


def bridge_name(network_id: str) -> str:
    """Return the name of a network's bridge on every host; an interface has 15 characters."""
    return f"sw-{network_id[:12]}"


@lru_cache(maxsize=1 << 16)
def mac_address(*addresses: str) -> str:
    """Return the MAC address of an interface with these bare addresses in a network of ours.

    It is 02:42 and the IPv4 address, as engines choose it by themselves, else the end of the IPv6
    address. Containers get it from their executor and bridges from the driver, so that who is where
    follows from the endpoint table alone.
    """
    parsed = sorted((ipaddress.ip_address(text) for text in addresses), key=lambda ip: ip.version)
    return "02:42:" + parsed[0].packed[-4:].hex(":")


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A network namespace that is on networks of ours.

    Attributes:
        id: the task's id; for a container that a user put on an attachable network, its own.
        pid: a process in it.
        networks: ids of the networks that it is on.
        addresses: its own in them, bare.
        nameservers: whom its spec wants asked for names that are not the swarm's; empty for the
            host's own servers.
        names: what others on this host may call it in its networks; a task's are in the table.
        resolvers: whom its programs ask about names, beside those that every engine has them ask:
            what they send there is answered like any other question of theirs.
    """

    id: str
    pid: int
    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()


class NetworkState(msgspec.Struct, frozen=True, kw_only=True):
    """How well kernel and table agree.

    Attributes:
        version: of the newest table that the kernel agreed with, whole.
        problems: sentences, such as a published port that another process has.
        repaired: how often something was found that was not as it should be, and mended, by what
            it was; since the daemon's start.
    """

    version: int = 0
    problems: tuple[str, ...] = ()
    repaired: dict[str, int] = msgspec.field(default_factory=dict)


class Finding(PrivateStruct, frozen=True, kw_only=True):
    """One thing that the table asks for, or that the kernel has, as ``network doctor`` shows it.

    Attributes:
        network: its name; "" for what belongs to none.
        kind: ``bridge``, ``tunnel``, ``peer``, ``neighbour``, ``vip``, ``port``, ``name``...
        subject: which one: an address, a port, a task.
        table, kernel: what it shall be and what it is, in the same words, so that equal means well;
            "" for "not there".
    """

    network: str = ""
    kind: str
    subject: str
    table: str = ""
    kernel: str = ""


class Probe(PrivateStruct, frozen=True, kw_only=True):
    """A path that was tried.

    Attributes:
        network: its name.
        source, target: what it was tried from, and to: task ids, node ids or addresses.
        took_ns: until the answer; 0 when there was none.
        error: why there was none, or "".
    """

    network: str = ""
    source: str
    target: str
    took_ns: int = 0
    error: str = ""


class NodeReport(PrivateStruct, frozen=True, kw_only=True):
    """What a driver finds on its node, compared here and now.

    Attributes:
        version: of the table that was compared.
        findings: everything, or with ``brief`` only what differs.
        compared: how many things were compared.
        problems: sentences, as in :class:`NetworkState`.
        repaired: as in :class:`NetworkState`.
    """

    version: int = 0
    findings: tuple[Finding, ...] = ()
    compared: int = 0
    probes: tuple[Probe, ...] = ()
    problems: tuple[str, ...] = ()
    repaired: dict[str, int] = msgspec.field(default_factory=dict)


class NetworkDriver(Protocol):
    """Carries the traffic of this node's tasks.

    One that answers names, at the node's own address in each network at least, says so by an
    attribute ``answers_names`` that is True; executors then name these addresses as DNS servers.
    """

    name: str

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Reconcile and audit until cancelled, which takes nothing down.

        ``started()`` comes when :meth:`want` may be called, before anything is in the kernel.

        Raises:
            SwarmError: it cannot work on this host at all; the node goes on without and says so.
        """
        ...

    def want(self, table: EndpointTable, sandboxes: Sequence[Sandbox]) -> None:
        """Say what shall be from now on. Returns at once; :meth:`wait_version` tells when it is."""
        ...

    async def wait_version(self, version: int) -> NetworkState:
        """Sleep until the kernel agreed with a table at least this new."""
        ...

    async def wait_sandbox(self, sandbox_id: str) -> None:
        """Sleep until a sandbox that was wanted can reach what it may reach."""
        ...

    def state(self) -> NetworkState:
        """Tell how kernel and table agree now."""
        ...

    async def doctor(self, *, brief: bool, probe: bool) -> NodeReport:
        """Compare kernel and table now, mending nothing.

        Args:
            brief: leave out what is as it should be.
            probe: try paths from tasks here to tasks on other nodes, a few seconds at most.
        """
        ...

    async def remove_all(self) -> None:
        """Remove every trace of this node's networks, as when it leaves the swarm.

        Called while :meth:`run` runs, after an empty table was wanted.
        """
        ...
