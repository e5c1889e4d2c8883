"""What this release refuses or warns about (core/model/release.py)."""

from __future__ import annotations

import pytest

from swarmctl.core.errors import Unimplemented
from swarmctl.core.model.base import Driver
from swarmctl.core.model.defaults import (
    insert_defaults,
    normalize_service_spec,
)
from swarmctl.core.model.objects import SecretSpec
from swarmctl.core.model.release import (
    check_secret_available,
    check_service_available,
    needs_traffic,
    network_warnings,
    quiet_nodes,
    service_warnings,
)
from swarmctl.core.model.service import Service
from tests.core.pipeline.world import make_node

from .specs import service_spec


def test_secrets_of_a_driver_are_refused() -> None:
    """Data that would have to come from elsewhere is refused, with what can be done instead."""
    check_secret_available(SecretSpec(Name="a", Data=b"x"))
    with pytest.raises(Unimplemented, match=r"^secret driver 'vault' is not available .*"):
        check_secret_available(SecretSpec(Name="a", Driver=Driver(Name="vault")))


def test_cluster_volumes_are_refused() -> None:
    """CSI volumes are not offered, and say so."""
    spec = service_spec(
        **{
            "TaskTemplate.ContainerSpec.Mounts": [
                {"Type": "cluster", "Source": "v", "Target": "/v"}
            ]
        }
    )
    with pytest.raises(Unimplemented, match="cluster volumes are not supported"):
        check_service_available(spec)


def test_a_plain_service_has_no_warnings() -> None:
    """What the docker CLI always sends (endpoint mode vip, empty groups) is no reason to warn."""
    spec = normalize_service_spec(
        service_spec(
            **{
                "EndpointSpec": {
                    "Mode": "vip",
                    "Ports": [{"TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"}],
                },
                "TaskTemplate.Resources": {"Limits": {}, "Reservations": {}},
                "TaskTemplate.Placement": {"Constraints": ["node.role==worker"]},
            }
        )
    )
    check_service_available(spec)
    assert service_warnings(spec) == ()


HOST_PORT = {"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}
HELD = "host-mode port 8080 can be held by one task only"
QUIET = ("h1", "h2", "h3", "h4", "h5")
WHERE = "h1, h2, h3 and 2 more"
NETWORK_WARNING = (
    f"tasks on {WHERE} reach others, by address and by name, only on the same node: no network "
    "driver works there"
)


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        (
            {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}},
            [
                (
                    "published port 8080 is reserved but not routed to the service (target port "
                    f"80) on {WHERE}, where no network driver works; mode=host publishes it on the "
                    "nodes that run a task"
                )
            ],
        ),
        (
            {"EndpointSpec": {"Ports": [{"TargetPort": 80}]}},
            [
                (
                    f"a port is reserved but not routed to the service (target port 80) on {WHERE},"
                    " where no network driver works; mode=host publishes it on the nodes that run "
                    "a task"
                )
            ],
        ),
        (
            {"TaskTemplate.Networks": [{"Target": "a"}, {"Target": "b"}]},
            [
                NETWORK_WARNING,
                f"the service's virtual IPs are reserved but not answered on {WHERE}",
            ],
        ),
        (
            {"Networks": [{"Target": "a"}], "EndpointSpec": {"Mode": "dnsrr"}},
            [NETWORK_WARNING],
        ),
        (
            {
                "Networks": [{"Target": "a", "Aliases": ["x"], "DriverOpts": {"k": "v"}}],
                "EndpointSpec": {"Mode": "dnsrr"},
            },
            [
                NETWORK_WARNING,
                (
                    f"aliases of Spec.Networks are not set on {WHERE}; those of "
                    "Spec.TaskTemplate.Networks are"
                ),
                "driver options of network a have no effect",
            ],
        ),
        ({"UpdateConfig": {"Parallelism": 3, "Delay": 5, "FailureAction": "pause"}}, []),
        ({"UpdateConfig": {"Parallelism": 0, "Monitor": 5000000000}}, []),
        ({"UpdateConfig": {"Order": "start-first", "FailureAction": "rollback"}}, []),
        (
            {"UpdateConfig": {"Order": "start-first"}, "EndpointSpec": {"Ports": [HOST_PORT]}},
            [f"updates are stop-first although start-first is asked for: {HELD}"],
        ),
        (
            {"RollbackConfig": {"Order": "start-first"}, "EndpointSpec": {"Ports": [HOST_PORT]}},
            [f"rollbacks are stop-first although start-first is asked for: {HELD}"],
        ),
        ({"UpdateConfig": {"Order": "stop-first"}, "EndpointSpec": {"Ports": [HOST_PORT]}}, []),
        (
            {"TaskTemplate.Placement": {"Constraints": ["node.ip==x"]}},
            [
                (
                    "constraint 'node.ip==x' matches no node: 'x' is neither an IP address nor a "
                    "subnet"
                )
            ],
        ),
        (
            {
                "TaskTemplate.ContainerSpec.Privileges": {"CredentialSpec": {"File": "x"}},
                "TaskTemplate.ContainerSpec.Isolation": "hyperv",
            },
            [
                "the credential spec has no effect: it is for Windows containers",
                "isolation 'hyperv' has no effect: it is for Windows containers",
            ],
        ),
    ],
    ids=str,
)
def test_what_is_not_done_is_said(changes: dict[str, object], warnings: list[str]) -> None:
    """Each thing that a service gets less than it asked for is one sentence."""
    spec = normalize_service_spec(service_spec(**changes))
    assert list(service_warnings(spec, QUIET)) == warnings
    assert needs_traffic(spec) == (service_warnings(spec, QUIET) != service_warnings(spec))


def test_where_every_node_carries_traffic_nothing_is_missing() -> None:
    """Networks, virtual IPs and published ports then are what they say."""
    spec = normalize_service_spec(
        service_spec(
            **{
                "TaskTemplate.Networks": [{"Target": "a"}],
                "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]},
            }
        )
    )
    assert service_warnings(spec) == ()
    assert list(network_warnings(())) == []


def test_quiet_nodes_go_by_name_in_order() -> None:
    """By host name, as users know them."""
    assert quiet_nodes([make_node("n2"), make_node("n1")]) == ("host-n1", "host-n2")


def test_defaults_that_a_client_posts_back_are_no_wishes() -> None:
    """A service whose spec came back with every default spelled out has no warnings by that."""
    spec = normalize_service_spec(service_spec())
    assert service_warnings(insert_defaults(Service(Spec=spec)).Spec) == ()


def test_a_service_without_a_container_has_no_warnings() -> None:
    """Warnings never fail, whatever the spec lacks."""
    assert service_warnings(service_spec(TaskTemplate=None)) == ()
