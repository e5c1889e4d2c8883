"""Published ports: which number each port of a service gets, and who has it already.

Ingress ports are unique in the cluster, each protocol for itself. A fixed number is recorded, a
port without one gets the lowest free number of 30000 to 32767 and keeps it over updates. Host-mode
ports are copied through: the scheduler and the node see to those. No dynamic port gets the number
of one, which it would take from that service's clients.
(Rules: swarm-behaviour.md section 8.3.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.change import At, Free, Index, Kind, Ref
from ..model.network import DYNAMIC_FIRST, DYNAMIC_LAST
from ..model.spec import EndpointSpec, PortConfig

if TYPE_CHECKING:
    from ..model.change import Requirement
    from ..model.objects import ServiceRow
    from ..model.service import Endpoint
    from ..store.view import View

_NO_SPEC = EndpointSpec()


class Allocation(NamedTuple):
    """A service's endpoint as it should be, and what must hold when it is written.

    ``refused`` says in words why there is none; the endpoint is the present one then.
    """

    endpoint: Endpoint
    requires: tuple[Requirement, ...] = ()
    refused: str = ""


class PortBook:
    """Who has which ingress port: the tables, and what this decision has handed out so far."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._handed_out: dict[str, str] = {}
        self._on_hosts: set[str] | None = None

    def allocate(self, service: ServiceRow) -> Allocation:
        """Return the endpoint that a service's present spec asks for.

        A pure function of the tables: asked again for an allocated service, it gives the same
        endpoint, so "allocated" needs no flag.
        """
        spec = service.api.Spec.EndpointSpec or _NO_SPEC
        present = service.api.Endpoint
        if not spec.Ports and not present.Ports and present.Spec == spec:
            return Allocation(present)  # most services, and this is asked of each
        kept = _kept(spec.Ports, present.Ports)
        chosen: list[PortConfig] = []
        requires: list[Requirement] = []
        mine = {_key(port) for port in (*spec.Ports, *kept.values()) if _is_fixed_ingress(port)}
        for place, asked in enumerate(spec.Ports):
            port = replace(
                asked,
                Protocol=asked.Protocol or "tcp",
                PublishMode=asked.PublishMode or "ingress",
            )
            if port.PublishMode == "ingress":
                if not port.PublishedPort:
                    number = kept[place].PublishedPort if place in kept else 0
                    number = number or self._next_free(port.Protocol, mine)
                    if not number:
                        return Allocation(present, refused=_exhausted(port.Protocol))
                    port = replace(port, PublishedPort=number)
                    mine.add(_key(port))
                need = self._need(service, port)
                if isinstance(need, str):
                    return Allocation(present, refused=need)
                requires.extend(need)
            chosen.append(port)
        self._handed_out.update(dict.fromkeys(mine, service.api.ID))
        endpoint = replace(present, Spec=spec, Ports=tuple(chosen))
        return Allocation(endpoint, tuple(requires))

    def _next_free(self, protocol: str, mine: set[str]) -> int:
        """Return the lowest dynamic number that nobody has, or 0."""
        for number in range(DYNAMIC_FIRST, DYNAMIC_LAST + 1):
            key = f"{protocol}/{number}"
            if key in mine or key in self._handed_out:
                continue
            if not self._view.holders(Index.INGRESS_PORT, key) and key not in self._host_ports():
                return number
        return 0

    def _host_ports(self) -> set[str]:
        """Return what services publish on their nodes; looked up when first asked for."""
        if self._on_hosts is None:
            self._on_hosts = {
                f"{port.Protocol or 'tcp'}/{port.PublishedPort}"
                for row in self._view.services()
                for port in (row.api.Spec.EndpointSpec or _NO_SPEC).Ports
                if port.PublishMode == "host"
            }
        return self._on_hosts

    def _need(self, service: ServiceRow, port: PortConfig) -> tuple[Requirement, ...] | str:
        """Return what makes a port ours when the entry is applied, or why it cannot be ours.

        Normally nobody else so much as asks for it. Should two services ask for one number, it
        goes to the one that has it, else to the older one, provided that the others still wait.
        """
        key = _key(port)
        own_id = service.api.ID
        rival = self._handed_out.get(key)
        if rival is not None and rival != own_id:
            return self._taken(port, rival)
        rivals = [held for held in self._view.holders(Index.INGRESS_PORT, key) if held != own_id]
        if not rivals:
            return (Free(index=Index.INGRESS_PORT, key=key, holder=own_id),)
        mine = any(_key(have) == key for have in service.api.Endpoint.Ports)
        needs: list[Requirement] = []
        for rival_id in rivals:
            row = self._view.service(rival_id)
            if row is None:
                continue
            has_it = any(_key(have) == key for have in row.api.Endpoint.Ports)
            older = (row.api.CreatedAt, rival_id) < (service.api.CreatedAt, own_id)
            if has_it or (older and not mine):
                return self._taken(port, rival_id)
            needs.append(At(ref=Ref(Kind.SERVICE, rival_id), version=row.api.Version.Index))
        return tuple(needs)

    def _taken(self, port: PortConfig, holder_id: str) -> str:
        holder = self._view.service(holder_id)
        name = holder.api.Spec.Name if holder is not None else holder_id
        return f"port {port.PublishedPort}/{port.Protocol} is already in use by service {name}"


def _kept(asked: tuple[PortConfig, ...], present: tuple[PortConfig, ...]) -> dict[int, PortConfig]:
    """Return, by place in ``asked``, the allocated port that a dynamic one keeps.

    Ports are the same when name, protocol and target are; numbers that the spec now fixes are
    matched first, so no dynamic port keeps one of those.
    """
    fixed = {_key(port) for port in asked if _is_fixed_ingress(port)}
    free = [port for port in present if _is_fixed_ingress(port) and _key(port) not in fixed]
    kept: dict[int, PortConfig] = {}
    for place, port in enumerate(asked):
        if port.PublishedPort or port.PublishMode == "host":
            continue
        for candidate in free:
            in_range = DYNAMIC_FIRST <= candidate.PublishedPort <= DYNAMIC_LAST
            if in_range and _identity(candidate) == _identity(port):
                kept[place] = candidate
                free.remove(candidate)
                break
    return kept


def _identity(port: PortConfig) -> tuple[str, str, int]:
    return port.Name, port.Protocol or "tcp", port.TargetPort


def _is_fixed_ingress(port: PortConfig) -> bool:
    return bool(port.PublishedPort) and port.PublishMode in ("", "ingress")


def _key(port: PortConfig) -> str:
    return f"{port.Protocol or 'tcp'}/{port.PublishedPort}" if _is_fixed_ingress(port) else ""


def _exhausted(protocol: str) -> str:
    return f"no free {protocol} port is left between {DYNAMIC_FIRST} and {DYNAMIC_LAST}"
