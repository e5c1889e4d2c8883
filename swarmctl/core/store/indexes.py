"""What a row is called, and the keys under which it is found.

Pure functions of one row, so that every table is indexed alike wherever it is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import Index, Kind, Ref
from ..model.cluster import RENEWALS_NS
from ..model.labels import PREFIX
from ..model.network import (
    INGRESS_KEY,
    INGRESS_USERS,
    asked_networks,
    has_what_it_asks,
    holds_addresses,
    publishes_ingress,
    room_addresses,
    subnet_keys,
    subnets_of,
)
from ..model.objects import (
    ClusterRow,
    ConfigRow,
    NetworkRow,
    NodeRow,
    Row,
    SecretRow,
    ServiceRow,
    TaskRow,
)
from ..model.scaling import named_secret, source_secrets
from ..model.startorder import dependencies
from ..model.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.cluster import TLSInfo
    from ..model.task import Task

KIND_OF: dict[type[object], Kind] = {
    ClusterRow: Kind.CLUSTER,
    NodeRow: Kind.NODE,
    ServiceRow: Kind.SERVICE,
    TaskRow: Kind.TASK,
    SecretRow: Kind.SECRET,
    ConfigRow: Kind.CONFIG,
    NetworkRow: Kind.NETWORK,
}

Key = tuple[str, ...]


def ref_of(row: Row) -> Ref:
    """Return the table and id of a row."""
    return Ref(KIND_OF[type(row)], row.api.ID)


def version_of(row: Row) -> int:
    """Return the log index of the last write to a row."""
    if isinstance(row, NetworkRow):
        return row.private.version
    return row.api.Version.Index


def name_of(row: Row) -> str | None:
    """Return the name that a row goes by in its table, lower-cased, or None.

    It is the row's alone; but several versions of a secret or config share theirs.
    """
    if isinstance(row, (ServiceRow, SecretRow, ConfigRow)):
        return row.api.Spec.Name.lower() or None
    if isinstance(row, NetworkRow):
        return row.api.Name.lower() or None
    return None


def revision_of(row: Row) -> int:
    """Return which version of its name a row is, from 1; only secrets and configs have several."""
    return row.api.Revision if isinstance(row, (SecretRow, ConfigRow)) else 1


# --- keys ----------------------------------------------------------------------------------------
# An index maps a row to the keys under which it is found. The first part of a key names the index.


ON_EVERY_NODE: Key = ("service.everywhere",)
LACKING: Key = ("service.lacking",)
CARRIES: Key = ("node.carries",)
MEMBER: Key = ("node.member",)
ATTACHABLE: Key = ("network.attachable",)


def _service_keys(row: ServiceRow) -> Iterator[Key]:
    spec, endpoint = row.api.Spec, row.api.Endpoint
    asked = spec.EndpointSpec.Ports if spec.EndpointSpec else ()
    for port in {*asked, *endpoint.Ports}:
        if port.PublishedPort and port.PublishMode in ("", "ingress"):
            yield (Index.INGRESS_PORT, f"{port.Protocol or 'tcp'}/{port.PublishedPort}")
    for vip in endpoint.VirtualIPs:
        yield (Index.ADDRESS, f"{vip.NetworkID}/{vip.Addr}")
    container = spec.TaskTemplate.ContainerSpec
    if container is not None:
        for secret in container.Secrets:
            yield ("ref", Kind.SECRET, secret.SecretID)
        for config in container.Configs:
            yield ("ref", Kind.CONFIG, config.ConfigID)
    for network in asked_networks(spec):
        yield ("ref", Kind.NETWORK, network.Target)
    if spec.Mode.Global is not None or spec.Mode.GlobalJob is not None:
        yield ON_EVERY_NODE
    if not has_what_it_asks(row.api):
        yield LACKING
    if publishes_ingress(spec):
        yield ("ref", INGRESS_USERS.kind, INGRESS_USERS.id)
    for label in spec.Labels:
        if label.startswith(PREFIX):
            yield ("label", label)
    for name in source_secrets(spec.Labels):
        ref = named_secret(name)
        yield ("ref", ref.kind, ref.id)
    for dependency in dependencies(spec.Labels):
        yield ("awaited", dependency.key)


def _task_keys(row: TaskRow) -> Iterator[Key]:
    task = row.api
    yield ("task.state", task.Status.State.name)
    if task.ServiceID:
        place = row.place
        yield ("task.service", task.ServiceID)
        yield ("task.slot", task.ServiceID, place)
        if task.JobIteration is not None:
            # One task of a run in a place, also once it is complete: that is the run's progress.
            if task.DesiredState <= TaskState.COMPLETE:
                yield (Index.SLOT, f"{task.ServiceID}/{place}/{task.JobIteration.Index}")
        elif task.DesiredState <= TaskState.RUNNING:
            yield (Index.SLOT, f"{task.ServiceID}/{place}")
    if task.NodeID:
        yield ("task.node", task.NodeID)
    if task.NetworksAttachments and holds_addresses(task):
        yield from _attachment_keys(task)


def _attachment_keys(task: Task) -> Iterator[Key]:
    """Return the keys of a task's places on networks, which it still holds."""
    for attachment in task.NetworksAttachments:
        network_id = attachment.Network.ID
        yield ("network.task", network_id)
        if task.DesiredState <= TaskState.RUNNING:
            yield (Index.ATTACHED, network_id)
        if task.NodeID:
            yield (Index.ON_NODE, f"{network_id}/{task.NodeID}")
        for address in attachment.Addresses:
            yield (Index.ADDRESS, f"{network_id}/{address}")


def _network_keys(row: NetworkRow) -> Iterator[Key]:
    if row.api.Ingress:
        yield (Index.INGRESS, INGRESS_KEY)
    if row.api.Attachable:
        yield ATTACHABLE
    if not row.private.vni:
        return
    yield (Index.VNI, str(row.private.vni))
    for subnet in subnets_of(row):
        for key in subnet_keys(subnet):
            yield (Index.SUBNET, key)
    for addresses in row.private.gateways.values():
        for address in addresses:
            yield (Index.ADDRESS, f"{row.api.ID}/{address}")
    for address in room_addresses(row):
        yield (Index.ADDRESS, f"{row.api.ID}/{address}")


def _node_keys(row: NodeRow) -> Iterator[Key]:
    private = row.private
    yield (Index.ROLE, private.role)
    yield (Index.WISH, row.api.Spec.Role)
    yield ("hostname", row.api.Description.Hostname.lower())
    yield ("node.state", row.api.Status.State)
    yield issuer_key(row.api.Description.TLSInfo)
    if private.network_driver:
        yield CARRIES
    if private.raft_id:
        yield MEMBER
    if private.renew_asked:
        yield ("node.asked", private.renew_issuer)
        yield asked_key(private.renew_asked)


def issuer_key(shown: TLSInfo) -> Key:
    """Return the key of the nodes whose certificate is of an issuer, as they report it."""
    issuer = shown.CertIssuerSubject + b"/" + shown.CertIssuerPublicKey
    return ("node.issuer", issuer.decode("latin-1"))


def asked_key(at: int) -> Key:
    """Return the key of the nodes last asked to renew in the span that a time lies in."""
    return ("node.asked.at", str(at // RENEWALS_NS))


def keys_of(row: Row) -> list[Key]:
    """Return every key under which a row is found, its name included."""
    keys: list[Key] = []
    name = name_of(row)
    if name is not None:
        keys.append(("name", KIND_OF[type(row)], name))
    if isinstance(row, ServiceRow):
        keys.extend(_service_keys(row))
    elif isinstance(row, TaskRow):
        keys.extend(_task_keys(row))
    elif isinstance(row, NetworkRow):
        keys.extend(_network_keys(row))
    elif isinstance(row, NodeRow):
        keys.extend(_node_keys(row))
    return list(dict.fromkeys(keys))  # a spec may well name one secret or port twice
