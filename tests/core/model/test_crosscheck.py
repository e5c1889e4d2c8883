"""The rules between objects (core/model/crosscheck.py), asked of the real tables."""

from __future__ import annotations

import pytest

from swarmctl.core.errors import SwarmError
from swarmctl.core.model.change import Kind
from swarmctl.core.model.crosscheck import (
    check_ingress_network,
    check_ports,
    check_references,
    check_unused,
    name_taken,
    resolve_networks,
)
from swarmctl.core.model.objects import (
    Config,
    ConfigRow,
    ConfigSpec,
    Network,
    NetworkRow,
    Secret,
    SecretRow,
    SecretSpec,
    ServiceRow,
)
from swarmctl.core.model.service import Endpoint, Service
from swarmctl.core.model.spec import PortConfig
from swarmctl.core.store.view import Tables

from .specs import service_spec

INVALID = "rpc error: code = InvalidArgument desc = "


def _answer(check, *args: object, **more: object) -> tuple[int, str]:
    with pytest.raises(SwarmError) as caught:
        check(*args, **more)
    return caught.value.status, caught.value.message


# --- secrets and configs -------------------------------------------------------------------------


def _tables() -> Tables:
    tables = Tables()
    tables.put(SecretRow(api=Secret(ID="s1", Spec=SecretSpec(Name="pw"))))
    tables.put(ConfigRow(api=Config(ID="c1", Spec=ConfigSpec(Name="conf"))))
    return tables


def _uses(secrets: list[tuple[str, str]], configs: list[tuple[str, str]] = ()):
    container = "TaskTemplate.ContainerSpec"
    return service_spec(
        **{
            f"{container}.Secrets": [{"SecretID": i, "SecretName": n} for i, n in secrets],
            f"{container}.Configs": [{"ConfigID": i, "ConfigName": n} for i, n in configs],
        }
    )


def test_references_that_exist_pass() -> None:
    """Secrets and configs that are there under their names are fine."""
    check_references(_uses([("s1", "pw")], [("c1", "conf")]), _tables())
    check_references(service_spec(TaskTemplate=None), _tables())


def test_missing_references_are_named() -> None:
    """What is not there, or has another name, is named; several in one sentence."""
    tables = _tables()
    assert _answer(check_references, _uses([("s9", "x")]), tables) == (
        400,
        f"{INVALID}secret not found: x",
    )
    assert _answer(check_references, _uses([("s1", "other"), ("s9", "x")]), tables) == (
        400,
        f"{INVALID}secrets not found: other, x",
    )
    assert _answer(check_references, _uses([("s1", "pw")], [("c9", "y")]), tables) == (
        400,
        f"{INVALID}config not found: y",
    )


def test_what_is_in_use_names_its_users() -> None:
    """A secret in use cannot go, and the text lists the services, sorted."""
    check_unused(Kind.SECRET, "pw", [])
    assert _answer(check_unused, Kind.SECRET, "pw", ["web"]) == (
        400,
        f"{INVALID}secret 'pw' is in use by the following service: web",
    )
    assert _answer(check_unused, Kind.CONFIG, "c", ["b", "a"]) == (
        400,
        f"{INVALID}config 'c' is in use by the following services: a, b",
    )


# --- networks ------------------------------------------------------------------------------------

NETWORKS = [
    NetworkRow(api=Network(Id="net1", Name="front")),
    NetworkRow(api=Network(Id="net2", Name="net1x")),
    NetworkRow(api=Network(Id="ing1", Name="ingress", Ingress=True)),
    NetworkRow(api=Network(Id="loc1", Name="bridge", Scope="local")),
]


@pytest.mark.parametrize(
    ("target", "found"), [("net1", "net1"), ("front", "net1"), ("net1x", "net2"), ("net2", "net2")]
)
def test_networks_are_stored_by_id(target: str, found: str) -> None:
    """A network is found by id, then by name, then by the beginning of its id."""
    spec = service_spec(**{"TaskTemplate.Networks": [{"Target": target, "Aliases": ["a"]}]})
    (attachment,) = resolve_networks(spec, NETWORKS).TaskTemplate.Networks
    assert (attachment.Target, attachment.Aliases) == (found, ("a",))


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("gone", (500, "network gone not found")),
        ("", (500, "network  not found")),
        ("net", (400, f"{INVALID}network net is ambiguous (2 matches found)")),
        (
            "ingress",
            (
                400,
                f'{INVALID}Service cannot be explicitly attached to the ingress network "ingress"',
            ),
        ),
        (
            "bridge",
            (
                403,
                (
                    "The network bridge cannot be used with services. Only networks scoped to the "
                    "swarm can be used, such as those created with the overlay driver."
                ),
            ),
        ),
    ],
)
def test_networks_that_cannot_be_joined(target: str, answer: tuple[int, str]) -> None:
    """Each kind of network that no service can join has Docker's answer."""
    assert (
        _answer(resolve_networks, service_spec(Networks=[{"Target": target}]), NETWORKS) == answer
    )


def test_an_ingress_port_needs_an_ingress_network() -> None:
    """Only a port published through the ingress asks for that network."""
    spec = service_spec(EndpointSpec={"Ports": [{"TargetPort": 80}]})
    assert _answer(check_ingress_network, spec, NETWORKS[:2]) == (
        400,
        (
            "rpc error: code = FailedPrecondition desc = service needs ingress network, but no "
            "ingress network is present"
        ),
    )
    check_ingress_network(spec, NETWORKS)
    host = service_spec(EndpointSpec={"Ports": [{"TargetPort": 80, "PublishMode": "host"}]})
    check_ingress_network(host, [])


# --- ports ---------------------------------------------------------------------------------------


def _publishing(*ports: dict[str, object], service_id: str = "id1") -> ServiceRow:
    spec = service_spec(EndpointSpec={"Ports": [{"TargetPort": 80, **port} for port in ports]})
    return ServiceRow(api=Service(ID=service_id, Spec=spec))


INGRESS = {"PublishedPort": 8080}
HOST = {"PublishedPort": 8080, "PublishMode": "host"}


@pytest.mark.parametrize(
    ("new", "other", "how"),
    [
        (INGRESS, INGRESS, "as an ingress port"),
        (INGRESS, HOST, "as a host-published port"),
        (HOST, INGRESS, "as an ingress port"),
        (INGRESS, {**INGRESS, "Protocol": "tcp"}, "as an ingress port"),
    ],
)
def test_ports_that_clash(new: dict[str, object], other: dict[str, object], how: str) -> None:
    """A port that another service has is refused, naming it and how it is published."""
    spec = _publishing(new).api.Spec
    assert _answer(check_ports, spec, [_publishing(other)]) == (
        400,
        f"{INVALID}port '8080' is already in use by service 'web' (id1) {how}",
    )


def test_an_allocated_port_is_taken_too() -> None:
    """A port that the allocator gave to another service cannot be asked for."""
    other = ServiceRow(
        api=Service(
            ID="id1",
            Spec=service_spec(),
            Endpoint=Endpoint(Ports=(PortConfig(PublishedPort=30000),)),
        )
    )
    spec = _publishing({"PublishedPort": 30000}).api.Spec
    assert "port '30000'" in _answer(check_ports, spec, [other])[1]


def test_ports_that_do_not_clash() -> None:
    """Host ports may repeat, protocols are apart, 0 asks for any, a service keeps its own."""
    check_ports(_publishing(HOST).api.Spec, [_publishing(HOST)])
    check_ports(_publishing(INGRESS).api.Spec, [_publishing({**INGRESS, "Protocol": "udp"})])
    check_ports(_publishing({}).api.Spec, [_publishing({})])
    check_ports(_publishing(INGRESS).api.Spec, [_publishing(INGRESS)], own_id="id1")


@pytest.mark.parametrize("mode", ["host", "ingress"])
def test_a_port_that_a_service_has_already_is_no_question(mode: str) -> None:
    """Two services that came to one number can both be updated; another number is asked about."""
    own = _publishing({**HOST, "PublishMode": mode})
    others = "host" if mode == "ingress" else "ingress"
    other = _publishing({**INGRESS, "PublishMode": others}, service_id="id2")
    check_ports(own.api.Spec, [own, other], own_id="id1")
    moved = _publishing({**HOST, "PublishMode": mode, "PublishedPort": 8081})
    refusal = _answer(check_ports, own.api.Spec, [moved, other], own_id="id1")
    assert "port '8080' is already in use by service 'web' (id2)" in refusal[1]


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            Kind.SERVICE,
            (
                "rpc error: code = AlreadyExists desc = name conflicts with an existing object: "
                "service a already exists"
            ),
        ),
        (Kind.SECRET, "rpc error: code = AlreadyExists desc = secret a already exists"),
        (Kind.CONFIG, "rpc error: code = AlreadyExists desc = config a already exists"),
        (Kind.NETWORK, "network with name a already exists"),
    ],
)
def test_a_taken_name_is_a_conflict(kind: Kind, text: str) -> None:
    """Each kind of object has Docker's text for a name that is taken, always with 409."""
    error = name_taken(kind, "a")
    assert (error.status, error.message) == (409, text)
