"""The rules of everything that is not a service: nodes, the swarm, secrets, configs, networks.

Rules and texts: swarm-behaviour.md section 5.3 and docker-api.md section 4.4. Like validate.py it
sees one spec (and its predecessor, where an update may not change something) and no other object.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from ..errors import BadRequest, Forbidden, InvalidArgument, PermissionDenied
from .base import HOUR
from .labels import AUTO, FILES, VERSIONS, check_labels
from .template import TEMPLATE_DRIVER, check_data_template
from .validate import check_object_name

if TYPE_CHECKING:
    from .base import Driver
    from .cluster import SwarmSpec
    from .objects import (
        IPAM,
        ConfigSpec,
        IPAMConfig,
        NetworkSpec,
        NodeSpec,
        SecretSpec,
    )
    from .request import InitRequest

MAX_SECRET_BYTES = 500 * 1024
MAX_CONFIG_BYTES = 1000 * 1024
MIN_CERT_EXPIRY = HOUR
PREDEFINED_NETWORKS = frozenset({"bridge", "host", "none", "default"})
PREDEFINED_LABEL = "com.docker.swarm.predefined"

MTU_OPTION = "com.docker.network.driver.mtu"
MTU_MIN, MTU6_MIN = 68, 1280  # RFC 791, RFC 8200
MTU_MAX = 65_485
"""What the tunnel adds has to fit into a packet, too."""

_DIGITS = re.compile(r"[0-9]{1,9}")
_FILE_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-_.]{0,62}[a-zA-Z0-9])?")
_MIN_DATA_PATH_PORT, _MAX_DATA_PATH_PORT = 1024, 49_151
_ROLES = ("worker", "manager")
_AVAILABILITIES = ("active", "pause", "drain")


def check_node_spec(spec: NodeSpec) -> None:
    """Check a node's spec.

    Raises:
        BadRequest: no such role or availability.
        InvalidArgument: a swarmctl label (labels.py).
    """
    if spec.Role not in _ROLES:
        raise BadRequest(f'invalid Role: "{spec.Role}"')
    check_availability(spec.Availability)
    check_labels(spec.Labels)


def check_availability(availability: str) -> None:
    """Check a node's availability.

    Raises:
        BadRequest: no such availability.
    """
    if availability not in _AVAILABILITIES:
        raise BadRequest(f'invalid Availability: "{availability}"')


def check_init_request(request: InitRequest) -> None:
    """Check what ``POST /swarm/init`` says by itself; addresses are the daemon's to resolve.

    Raises:
        BadRequest, InvalidArgument: which value is wrong, and what would be right.
    """
    if request.Availability:
        check_availability(request.Availability)
    port = request.DataPathPort
    if port and not _MIN_DATA_PATH_PORT <= port <= _MAX_DATA_PATH_PORT:
        raise BadRequest(
            "Datapath port number is not in valid range "
            f"({_MIN_DATA_PATH_PORT}-{_MAX_DATA_PATH_PORT}) : {port}"
        )
    if request.Spec.Name not in ("", "default"):
        raise BadRequest('swarm spec must be named "default"')
    _check_swarm_values(request.Spec)
    for text in request.DefaultAddrPool or ():
        pool = _subnet(text, f"invalid default address pool {text!r}: it must be a subnet")
        size = request.SubnetSize or 24
        if pool.version == 4 and not pool.prefixlen <= size <= 29:
            raise BadRequest(
                f"invalid CIDR: {text!r} holds no subnets of size /{size}; "
                f"the mask length must be from {pool.prefixlen} to 29"
            )


def check_swarm_spec(spec: SwarmSpec) -> None:
    """Check the cluster's settings, as an update sends them: whole.

    Raises:
        InvalidArgument: another name, or a value that is not allowed.
    """
    if spec.Name != "default":
        raise InvalidArgument("modification of cluster name is not allowed")
    _check_swarm_values(spec)


def _check_swarm_values(spec: SwarmSpec) -> None:
    check_labels(spec.Labels)
    expiry = spec.CAConfig.NodeCertExpiry
    if expiry and expiry < MIN_CERT_EXPIRY:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")
    if spec.Dispatcher.HeartbeatPeriod < 0:
        raise InvalidArgument("heartbeat time period cannot be a negative duration")


# --- secrets and configs -------------------------------------------------------------------------


def check_secret_spec(spec: SecretSpec) -> None:
    """Check a new secret.

    Raises:
        InvalidArgument: its name, its size, a driver without a name, or data that is no template
            though it should be one.
    """
    _check_file_name(spec.Name)
    check_labels(spec.Labels, on=FILES)
    if spec.Driver is not None:
        if not spec.Driver.Name:
            raise InvalidArgument("secret driver must have a name")
        return  # the data lives elsewhere
    _check_size("secret", spec.Data, MAX_SECRET_BYTES)
    if is_template(spec.Templating):
        check_data_template(spec.Data, secret=True)


def check_config_spec(spec: ConfigSpec) -> None:
    """Check a new config.

    Raises:
        InvalidArgument: its name, its size, or data that is no template though it should be one.
    """
    _check_file_name(spec.Name)
    check_labels(spec.Labels, on=FILES)
    _check_size("config", spec.Data, MAX_CONFIG_BYTES)
    if is_template(spec.Templating):
        check_data_template(spec.Data, secret=False)


def check_file_update(
    old: SecretSpec | ConfigSpec, old_data: bytes, new: SecretSpec | ConfigSpec
) -> None:
    """Check an update of a secret or config: only labels may change.

    Data that is sent again unchanged is no change; ``docker stack deploy`` does so every time.

    Raises:
        InvalidArgument: name, data or templating differ, or a swarmctl label (labels.py).
    """
    retold = new.Templating is not None and new.Templating != old.Templating
    other_data = new.Data and new.Data != old_data
    if new.Name != old.Name or other_data or retold:
        way = f"; for a new version of the data set the label {VERSIONS}={AUTO}"
        raise InvalidArgument(f"only updates to Labels are allowed{way if other_data else ''}")
    check_labels(new.Labels, on=FILES)


def asks_for_version(
    old: SecretSpec | ConfigSpec, old_data: bytes, new: SecretSpec | ConfigSpec
) -> bool:
    """Return whether an update is to make a new version: it has other data and says so."""
    if new.Name != old.Name or not new.Data or new.Data == old_data:
        return False
    return new.Labels.get(VERSIONS) == AUTO


def is_template(templating: Driver | None) -> bool:
    """Return whether a secret or config is expanded on the node that shows it to a task.

    Raises:
        InvalidArgument: by a template driver that there is not.
    """
    if templating is None or not templating.Name:
        return False
    if templating.Name != TEMPLATE_DRIVER:
        raise InvalidArgument(
            f"template driver {templating.Name!r} is not known; {TEMPLATE_DRIVER!r} is the one "
            "there is"
        )
    return True


def _check_file_name(name: str) -> None:
    if not name:
        raise InvalidArgument("name must be provided")
    if not _FILE_NAME.fullmatch(name):
        raise InvalidArgument(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end "
            "character must be [a-zA-Z0-9]"
        )


def _check_size(kind: str, data: bytes, limit: int) -> None:
    if not 0 < len(data) < limit:
        raise InvalidArgument(f"{kind} data must be larger than 0 and less than {limit} bytes")


# --- networks ------------------------------------------------------------------------------------


def check_network_spec(spec: NetworkSpec) -> None:
    """Check a new swarm network.

    Raises:
        Forbidden: the name of a network that every engine has.
        PermissionDenied: the label that marks predefined networks.
        InvalidArgument: its name, its options, or its addresses.
    """
    if spec.Name in PREDEFINED_NETWORKS:
        raise Forbidden(f"operation is not permitted on predefined {spec.Name} network ")
    check_object_name(spec.Name)
    check_labels(spec.Labels)
    if PREDEFINED_LABEL in spec.Labels:
        raise PermissionDenied(f"label {PREDEFINED_LABEL} is for predefined networks only")
    if spec.Ingress and spec.Attachable:
        raise InvalidArgument("ingress network cannot be attachable")
    if spec.EnableIPv4 is False and not spec.EnableIPv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if MTU_OPTION in spec.Options:
        _check_mtu(spec.Options[MTU_OPTION], MTU6_MIN if spec.EnableIPv6 else MTU_MIN)
    if spec.IPAM is not None:
        _check_ipam(spec, spec.IPAM)


def _check_mtu(text: str, least: int) -> None:
    if not (_DIGITS.fullmatch(text) and least <= int(text) <= MTU_MAX):
        raise InvalidArgument(
            f"option {MTU_OPTION}={text}: a number of bytes from {least} to {MTU_MAX} is expected"
        )


def _check_ipam(spec: NetworkSpec, ipam: IPAM) -> None:
    if ipam.Driver not in ("", "default"):
        raise InvalidArgument(
            f"ipam driver {ipam.Driver!r} is not available; addresses are swarmctl's to give "
            "(driver default)"
        )
    checked: list[_Subnet] = []
    for config in ipam.Config or ():
        _check_addresses(config)
        subnet = ipaddress.ip_network(config.Subnet, strict=False)
        if subnet.version == 6 and not spec.EnableIPv6:
            raise InvalidArgument(
                f"ipam configuration: subnet {config.Subnet} is IPv6, which is not enabled (--ipv6)"
            )
        if subnet.version == 4 and spec.EnableIPv4 is False:
            raise InvalidArgument(
                f"ipam configuration: subnet {config.Subnet} is IPv4, which is not enabled"
            )
        for other in checked:
            if other.overlaps(subnet):
                raise InvalidArgument(
                    f"ipam configuration: subnet {config.Subnet} overlaps with {other}"
                )
        checked.append(subnet)


def _check_addresses(config: IPAMConfig) -> None:
    text = f"ipam configuration: invalid subnet {config.Subnet}"
    subnet = _subnet(config.Subnet, text, InvalidArgument)
    if config.IPRange:
        text = f"ipam configuration: invalid ip range {config.IPRange}"
        addresses = _subnet(config.IPRange, text, InvalidArgument)
        if not _is_inside(addresses, subnet):
            raise InvalidArgument(
                f"ipam configuration: subnet {config.Subnet} does not contain ip range "
                f"{config.IPRange}"
            )
    if config.Gateway:
        text = f"ipam configuration: invalid gateway {config.Gateway}"
        gateway = _subnet(config.Gateway, text, InvalidArgument)
        if "/" in config.Gateway:
            raise InvalidArgument(text)
        if not _is_inside(gateway, subnet):
            raise InvalidArgument(
                f"ipam configuration: subnet {config.Subnet} does not contain gateway "
                f"{config.Gateway}"
            )
    for name, text in config.AuxiliaryAddresses.items():
        wrong = f"ipam configuration: invalid aux address {name}={text}"
        reserved = _subnet(text, wrong, InvalidArgument)
        if "/" in text:
            raise InvalidArgument(wrong)
        if not _is_inside(reserved, subnet):
            raise InvalidArgument(
                f"ipam configuration: subnet {config.Subnet} does not contain aux address "
                f"{name}={text}"
            )


_Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def _subnet(
    text: str, wrong: str, error: type[BadRequest | InvalidArgument] = BadRequest
) -> _Subnet:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise error(wrong) from None


def _is_inside(inner: _Subnet, outer: _Subnet) -> bool:
    return (
        inner.version == outer.version
        and inner.network_address in outer
        and inner.broadcast_address in outer
    )
