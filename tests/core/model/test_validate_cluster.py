"""The rules of nodes, swarm, secrets, configs and networks (core/model/validate_cluster.py)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.errors import SwarmError
from swarmctl.core.model.base import Driver
from swarmctl.core.model.cluster import CAConfig, DispatcherConfig, SwarmSpec
from swarmctl.core.model.defaults import DEFAULT_SWARM_SPEC
from swarmctl.core.model.objects import (
    IPAM,
    ConfigSpec,
    IPAMConfig,
    NetworkSpec,
    NodeSpec,
    SecretSpec,
)
from swarmctl.core.model.request import InitRequest
from swarmctl.core.model.validate_cluster import (
    MTU_OPTION,
    check_config_spec,
    check_file_update,
    check_init_request,
    check_network_spec,
    check_node_spec,
    check_secret_spec,
    check_swarm_spec,
)

INVALID = "rpc error: code = InvalidArgument desc = "
BAD_NAME = (
    f"{INVALID}invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end "
    "character must be [a-zA-Z0-9]"
)


def _net(subnet: str, **more: str) -> NetworkSpec:
    return NetworkSpec(Name="n", IPAM=IPAM(Config=(IPAMConfig(Subnet=subnet, **more),)))


@pytest.mark.parametrize(
    ("check", "status", "text"),
    [
        (lambda: check_node_spec(NodeSpec(Role="boss")), 400, 'invalid Role: "boss"'),
        (lambda: check_node_spec(NodeSpec(Role="")), 400, 'invalid Role: ""'),
        (
            lambda: check_node_spec(NodeSpec(Availability="off")),
            400,
            'invalid Availability: "off"',
        ),
        (
            lambda: check_node_spec(NodeSpec(Labels={"swarmctl.qqq": ""})),
            400,
            (
                f"{INVALID}unknown label 'swarmctl.qqq'; labels that begin with 'swarmctl.' are "
                "reserved for swarmctl's own"
            ),
        ),
        (
            lambda: check_init_request(InitRequest(Availability="off")),
            400,
            'invalid Availability: "off"',
        ),
        (
            lambda: check_init_request(InitRequest(DataPathPort=80)),
            400,
            "Datapath port number is not in valid range (1024-49151) : 80",
        ),
        (
            lambda: check_init_request(InitRequest(Spec=SwarmSpec(Name="mine"))),
            400,
            'swarm spec must be named "default"',
        ),
        (
            lambda: check_init_request(InitRequest(DefaultAddrPool=("10.0.0.0/33",))),
            400,
            "invalid default address pool '10.0.0.0/33': it must be a subnet",
        ),
        (
            lambda: check_init_request(
                InitRequest(DefaultAddrPool=("10.0.0.0/16",), SubnetSize=15)
            ),
            400,
            (
                "invalid CIDR: '10.0.0.0/16' holds no subnets of size /15; the mask length must be "
                "from 16 to 29"
            ),
        ),
        (
            lambda: check_swarm_spec(replace(DEFAULT_SWARM_SPEC, Name="mine")),
            400,
            f"{INVALID}modification of cluster name is not allowed",
        ),
        (
            lambda: check_swarm_spec(
                replace(DEFAULT_SWARM_SPEC, CAConfig=CAConfig(NodeCertExpiry=3599 * 10**9))
            ),
            400,
            f"{INVALID}minimum certificate expiry time is: 1h0m0s",
        ),
        (
            lambda: check_swarm_spec(
                replace(DEFAULT_SWARM_SPEC, Dispatcher=DispatcherConfig(HeartbeatPeriod=-1))
            ),
            400,
            f"{INVALID}heartbeat time period cannot be a negative duration",
        ),
        (
            lambda: check_secret_spec(SecretSpec(Data=b"x")),
            400,
            f"{INVALID}name must be provided",
        ),
        (lambda: check_secret_spec(SecretSpec(Name="-a", Data=b"x")), 400, BAD_NAME),
        (lambda: check_secret_spec(SecretSpec(Name="a" * 65, Data=b"x")), 400, BAD_NAME),
        (lambda: check_config_spec(ConfigSpec(Name="a/b", Data=b"x")), 400, BAD_NAME),
        (
            lambda: check_secret_spec(SecretSpec(Name="a")),
            400,
            f"{INVALID}secret data must be larger than 0 and less than 512000 bytes",
        ),
        (
            lambda: check_secret_spec(SecretSpec(Name="a", Data=b"x" * 512000)),
            400,
            f"{INVALID}secret data must be larger than 0 and less than 512000 bytes",
        ),
        (
            lambda: check_config_spec(ConfigSpec(Name="a", Data=b"x" * 1024000)),
            400,
            f"{INVALID}config data must be larger than 0 and less than 1024000 bytes",
        ),
        (
            lambda: check_secret_spec(SecretSpec(Name="a", Driver=Driver())),
            400,
            f"{INVALID}secret driver must have a name",
        ),
        (
            lambda: check_file_update(SecretSpec(Name="a"), b"1", SecretSpec(Name="b")),
            400,
            f"{INVALID}only updates to Labels are allowed",
        ),
        (
            lambda: check_file_update(SecretSpec(Name="a"), b"1", SecretSpec(Name="a", Data=b"2")),
            400,
            (
                f"{INVALID}only updates to Labels are allowed; for a new version of the data set "
                "the label swarmctl.versions=auto"
            ),
        ),
        (
            lambda: check_file_update(
                ConfigSpec(Name="a"), b"1", ConfigSpec(Name="a", Templating=Driver(Name="golang"))
            ),
            400,
            f"{INVALID}only updates to Labels are allowed",
        ),
        (
            lambda: check_config_spec(
                ConfigSpec(Name="a", Data=b"{{.X", Templating=Driver(Name="golang"))
            ),
            400,
            f"{INVALID}the config's data: template parsing error: unclosed action",
        ),
        (
            lambda: check_secret_spec(
                SecretSpec(Name="a", Data=b"{{hunter2}}", Templating=Driver(Name="golang"))
            ),
            400,
            f"{INVALID}the secret's data is no template",
        ),
        (
            lambda: check_network_spec(NetworkSpec(Name="bridge")),
            403,
            "operation is not permitted on predefined bridge network ",
        ),
        (
            lambda: check_network_spec(NetworkSpec(Name="a b")),
            400,
            f"{INVALID}name must be valid as a DNS name component",
        ),
        (
            lambda: check_network_spec(NetworkSpec(Name="n", Ingress=True, Attachable=True)),
            400,
            f"{INVALID}ingress network cannot be attachable",
        ),
        (
            lambda: check_network_spec(
                NetworkSpec(Name="n", Labels={"com.docker.swarm.predefined": "1"})
            ),
            403,
            (
                "rpc error: code = PermissionDenied desc = label com.docker.swarm.predefined is "
                "for predefined networks only"
            ),
        ),
        (
            lambda: check_network_spec(_net("x")),
            400,
            f"{INVALID}ipam configuration: invalid subnet x",
        ),
        (
            lambda: check_network_spec(_net("10.0.0.0/24", Gateway="10.1.0.1")),
            400,
            f"{INVALID}ipam configuration: subnet 10.0.0.0/24 does not contain gateway 10.1.0.1",
        ),
        (
            lambda: check_network_spec(_net("10.0.0.0/24", Gateway="10.0.0.0/25")),
            400,
            f"{INVALID}ipam configuration: invalid gateway 10.0.0.0/25",
        ),
        (
            lambda: check_network_spec(_net("10.0.0.0/24", IPRange="10.0.0.0/23")),
            400,
            (
                f"{INVALID}ipam configuration: subnet 10.0.0.0/24 does not contain ip range "
                "10.0.0.0/23"
            ),
        ),
        (
            lambda: check_network_spec(_net("10.0.0.0/24", IPRange="y")),
            400,
            f"{INVALID}ipam configuration: invalid ip range y",
        ),
        (
            lambda: check_network_spec(_net("10.0.0.0/24", AuxiliaryAddresses={"a": "10.1.0.9"})),
            400,
            (
                f"{INVALID}ipam configuration: subnet 10.0.0.0/24 does not contain aux address "
                "a=10.1.0.9"
            ),
        ),
        (  # what is given as a subnet would be none of the addresses that the allocator reads
            lambda: check_network_spec(
                _net("10.0.0.0/24", AuxiliaryAddresses={"a": "10.0.0.9/32"})
            ),
            400,
            f"{INVALID}ipam configuration: invalid aux address a=10.0.0.9/32",
        ),
        (
            lambda: check_network_spec(NetworkSpec(Name="n", Options={MTU_OPTION: "jumbo"})),
            400,
            f"{INVALID}option {MTU_OPTION}=jumbo: a number of bytes from 68 to 65485 is expected",
        ),
        (
            lambda: check_network_spec(
                NetworkSpec(Name="n", EnableIPv6=True, Options={MTU_OPTION: "1279"})
            ),
            400,
            f"{INVALID}option {MTU_OPTION}=1279: a number of bytes from 1280 to 65485 is expected",
        ),
    ],
)
def test_rules(check, status: int, text: str) -> None:
    """Each rule answers with its status and its exact text."""
    with pytest.raises(SwarmError) as caught:
        check()
    assert (caught.value.status, caught.value.message) == (status, text)


def test_what_is_right_passes() -> None:
    """What Docker accepts is accepted."""
    check_node_spec(NodeSpec(Role="manager", Availability="drain", Labels={"a": "b"}))
    check_init_request(InitRequest(ListenAddr="0.0.0.0:2377", DefaultAddrPool=(), SubnetSize=24))
    check_init_request(InitRequest(DefaultAddrPool=("10.0.0.0/8", "fd00::/48"), DataPathPort=1024))
    check_swarm_spec(DEFAULT_SWARM_SPEC)
    check_secret_spec(SecretSpec(Name="a" * 64, Data=b"x" * 511_999))
    check_secret_spec(SecretSpec(Name="a", Driver=Driver(Name="vault")))
    check_config_spec(ConfigSpec(Name="nginx.conf", Data=b"x"))
    check_config_spec(ConfigSpec(Name="a", Data=b"{{", Templating=Driver()))
    template = b'{{secret "a"}}{{config "b"}}{{if env "C"}}{{.Task.Slot}}{{end}}'
    check_config_spec(ConfigSpec(Name="a", Data=template, Templating=Driver(Name="golang")))
    check_network_spec(NetworkSpec(Name="n"))
    check_network_spec(NetworkSpec(Name="n", EnableIPv6=True, Options={MTU_OPTION: "1280"}))
    check_network_spec(_net("10.0.0.0/24", Gateway="10.0.0.1", IPRange="10.0.0.128/25"))


def test_secret_data_sent_again_is_no_change() -> None:
    """`docker stack deploy` sends the same data with every update; labels may change with it."""
    check_file_update(
        SecretSpec(Name="a"), b"1", SecretSpec(Name="a", Data=b"1", Labels={"x": "y"})
    )
    check_file_update(ConfigSpec(Name="a"), b"1", ConfigSpec(Name="a"))
