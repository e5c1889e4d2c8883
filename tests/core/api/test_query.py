"""What a request's query and path mean (core/api/query.py)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.api.query import (
    CONFIG_FILTERS,
    NODE_FILTERS,
    SECRET_FILTERS,
    SERVICE_FILTERS,
    TASK_FILTERS,
    filter_configs,
    filter_nodes,
    filter_secrets,
    filter_services,
    filter_tasks,
    flag,
    object_version,
    parse_filters,
    resolve_config,
    resolve_network,
    resolve_node,
    resolve_secret,
    resolve_service,
    resolve_task,
    strict_flag,
)
from swarmctl.core.errors import BadRequest, NotFound, SwarmError, UnknownOption
from swarmctl.core.model.task import TaskState

from .rows import config, network, node, secret, service, tables, task

# --- flags and versions --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "0", "no", "No", "false", "FALSE", "none", " false "])
def test_lenient_flags_are_false_for_few_words(text: str) -> None:
    """force, follow and their like are false only for Docker's few words."""
    assert flag(text) is False


@pytest.mark.parametrize("text", ["1", "true", "True", "yes", "2", "x", "f"])
def test_lenient_flags_are_true_otherwise(text: str) -> None:
    """Any other word means yes."""
    assert flag(text) is True


def test_strict_flags() -> None:
    """status and insertDefaults take Go's spellings, docker-py's True among them."""
    for text in ("1", "t", "T", "TRUE", "true", "True"):
        assert strict_flag("status", text) is True
    for text in ("", "0", "f", "F", "FALSE", "false", "False"):
        assert strict_flag("status", text) is False
    with pytest.raises(BadRequest) as caught:
        strict_flag("insertDefaults", "yes")
    assert str(caught.value) == (
        'invalid value for insertDefaults: strconv.ParseBool: parsing "yes": invalid syntax'
    )


def test_versions() -> None:
    """An update's version is an unsigned number of 64 bits."""
    assert object_version("service", "0") == 0
    assert object_version("service", "007") == 7
    assert object_version("service", str(2**64 - 1)) == 2**64 - 1


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("service", "", "invalid syntax"),
        ("node", "-1", "invalid syntax"),
        ("swarm", "+1", "invalid syntax"),
        ("secret", "1_0", "invalid syntax"),
        ("config", "٣", "invalid syntax"),
        ("service", "1.0", "invalid syntax"),
        ("service", str(2**64), "value out of range"),
        ("service", "9" * 5000, "value out of range"),
    ],
)
def test_bad_versions(kind: str, text: str, problem: str) -> None:
    """A missing or bad version is a 400 in Go's words, naming what was to be updated."""
    with pytest.raises(BadRequest) as caught:
        object_version(kind, text)
    assert str(caught.value) == (
        f"invalid {kind} version '{text}': strconv.ParseUint: parsing \"{text}\": {problem}"
    )


# --- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", {}),
        ("null", {}),
        ("{}", {}),
        ('{"name":["a","b"]}', {"name": ("a", "b")}),
        ('{"name":{"a":true,"b":false}}', {"name": ("a", "b")}),
        ('{"name":null,"id":[]}', {"name": (), "id": ()}),
    ],
)
def test_both_shapes_of_filters(text: str, filters: dict[str, tuple[str, ...]]) -> None:
    """Go's and docker-py's shape mean the same; a value counts by being there."""
    assert parse_filters(text, SERVICE_FILTERS) == filters


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"name":"a"}', '{"name":[1]}', "[" * 5000])
def test_bad_filters(text: str) -> None:
    """What has neither shape is a 400 that shows both."""
    with pytest.raises(BadRequest, match=r"^invalid filters: they must be JSON such as"):
        parse_filters(text, SERVICE_FILTERS)


def test_an_unknown_filter_is_refused() -> None:
    """A key that the list does not know is a 400, though another list may know it."""
    with pytest.raises(BadRequest, match=r"^invalid filter 'role'$"):
        parse_filters('{"role":["manager"]}', SERVICE_FILTERS)
    assert parse_filters('{"role":["manager"]}', NODE_FILTERS)


def _ids(rows) -> list[str]:
    return [row.api.ID for row in rows]


SERVICES = [
    service("b2", "Web-two", Labels={"tier": "front", "x": ""}),
    service("a1", "web", Labels={"tier": "back"}, Mode={"Global": {}}),
    service("c3", "db", Mode={"ReplicatedJob": {}}),
]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["a1", "b2", "c3"]),
        ({"name": ["we"]}, ["a1", "b2"]),
        ({"name": ["WEB-"]}, ["b2"]),
        ({"name": ["db", "web-"]}, ["b2", "c3"]),
        ({"id": ["a"]}, ["a1"]),
        ({"id": ["1"]}, []),
        ({"label": ["tier"]}, ["a1", "b2"]),
        ({"label": ["tier="]}, ["a1", "b2"]),
        ({"label": ["tier=front"]}, ["b2"]),
        ({"label": ["tier=front", "x"]}, ["b2"]),
        ({"label": ["tier=back", "x"]}, []),
        ({"mode": ["global"]}, ["a1"]),
        ({"mode": ["replicated", "replicated-job"]}, ["b2", "c3"]),
        ({"runtime": ["container"]}, ["a1", "b2", "c3"]),
        ({"runtime": ["plugin"]}, []),
        ({"name": ["web"], "mode": ["replicated"]}, ["b2"]),
        ({"name": []}, ["a1", "b2", "c3"]),
    ],
)
def test_service_filters(filters: dict[str, list[str]], ids: list[str]) -> None:
    """Prefixes of id and name, labels AND-ed, other values OR-ed, keys AND-ed, sorted by id."""
    parsed = parse_filters(json.dumps(filters), SERVICE_FILTERS)
    assert _ids(filter_services(SERVICES, parsed)) == ids


def test_an_unknown_mode_is_refused() -> None:
    """A mode that does not exist is a 400, not an empty list."""
    with pytest.raises(BadRequest, match=r"^invalid filter 'mode=x'$"):
        filter_services(SERVICES, {"mode": ("x",)})


NODES = [
    node("n2", "host2", Role="manager", Labels={"zone": "a"}),
    node("n1", "host1", engine={"disk": "ssd"}),
]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"name": ["HOST"]}, ["n1", "n2"]),
        ({"id": ["n2"]}, ["n2"]),
        ({"role": ["worker"]}, ["n1"]),
        ({"role": ["worker", "manager"]}, ["n1", "n2"]),
        ({"label": ["disk=ssd"]}, ["n1"]),
        ({"label": ["zone"]}, []),
        ({"node.label": ["zone=a"]}, ["n2"]),
        ({"membership": ["accepted"]}, ["n1", "n2"]),
        ({"membership": ["pending"]}, []),
    ],
)
def test_node_filters(filters: dict[str, list[str]], ids: list[str]) -> None:
    """A node's name is its hostname; label means the engine's, node.label its own."""
    parsed = parse_filters(json.dumps(filters), NODE_FILTERS)
    assert _ids(filter_nodes(NODES, parsed)) == ids


@pytest.mark.parametrize("key", ["role", "membership"])
def test_unknown_words_of_nodes(key: str) -> None:
    """A role or membership that does not exist is Docker's 500."""
    with pytest.raises(UnknownOption) as caught:
        filter_nodes(NODES, {key: ("x",)})
    assert (caught.value.status, caught.value.message) == (500, f"Invalid {key} filter: 'x'")


WEB = service("s1", "web", Labels={"tier": "front"}, index=5)
DB = service("s2", "db")
VIEW = tables(
    WEB,
    DB,
    *NODES,
    task("t1", WEB, node_id="n1"),
    task("t2", WEB, slot=2, node_id="n2", desired=TaskState.SHUTDOWN, version=1),
    task("t3", DB, node_id="n1", desired=TaskState.READY, version=0),
)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["t1", "t2", "t3"]),
        ({"id": ["t1"]}, ["t1"]),
        ({"name": ["web."]}, ["t1", "t2"]),
        ({"name": ["web.2.t"]}, ["t2"]),
        ({"label": ["tier=front"]}, ["t1", "t2"]),
        ({"service": ["web"]}, ["t1", "t2"]),
        ({"service": ["s2"]}, ["t3"]),
        ({"service": ["web", "db"]}, ["t1", "t2", "t3"]),
        ({"node": ["host1"]}, ["t1", "t3"]),
        ({"service": ["web"], "node": ["n1"]}, ["t1"]),
        ({"desired-state": ["Running"]}, ["t1"]),
        ({"desired-state": ["shutdown", "ready"]}, ["t2", "t3"]),
        ({"runtime": ["container"]}, ["t1", "t2", "t3"]),
        ({"service": ["web"], "_up-to-date": ["true"]}, ["t1", "t2"]),
        ({"_up-to-date": []}, ["t1", "t2", "t3"]),
    ],
)
def test_task_filters(filters: dict[str, list[str]], ids: list[str]) -> None:
    """Tasks are found by their own and their service's words; the list is sorted by id."""
    parsed = parse_filters(json.dumps(filters), TASK_FILTERS)
    assert _ids(filter_tasks(VIEW, parsed)) == ids


def test_up_to_date_means_not_dirty() -> None:
    """A changed task template leaves old tasks out of date, a mere scale leaves none."""
    changed = service("s1", "web", index=9, **{"TaskTemplate.ForceUpdate": 1})
    scaled = service("s1", "web", index=9, Mode={"Replicated": {"Replicas": 7}})
    old = task("t1", service("s1", "web"), node_id="n1", version=5)
    asked = {"service": ("web",), "_up-to-date": ("true",)}
    assert _ids(filter_tasks(tables(changed, old), asked)) == []
    assert _ids(filter_tasks(tables(scaled, old), asked)) == ["t1"]
    assert _ids(filter_tasks(tables(old), {"_up-to-date": ("true",)})) == []


def test_task_filters_name_what_is_missing() -> None:
    """An unknown service or node is a 404, an unknown state Docker's 500."""
    with pytest.raises(NotFound, match=r"^service x not found$"):
        filter_tasks(VIEW, {"service": ("x",)})
    with pytest.raises(NotFound, match=r"^node x not found$"):
        filter_tasks(VIEW, {"node": ("x",)})
    with pytest.raises(UnknownOption, match=r"^Invalid desired-state filter: 'x'$"):
        filter_tasks(VIEW, {"desired-state": ("x",)})


def test_file_filters() -> None:
    """Secrets and configs: name is a prefix, names is whole."""
    secrets = [secret("b", "pw"), secret("a", "pw2", env="prod")]
    configs = [config("b", "pw"), config("a", "pw2", env="prod")]
    for given_filters, ids in (
        ({"name": ["pw"]}, ["a", "b"]),
        ({"names": ["pw"]}, ["b"]),
        ({"label": ["env=prod"]}, ["a"]),
        ({"id": ["b"]}, ["b"]),
    ):
        text = json.dumps(given_filters)
        assert _ids(filter_secrets(secrets, parse_filters(text, SECRET_FILTERS))) == ids
        assert _ids(filter_configs(configs, parse_filters(text, CONFIG_FILTERS))) == ids


@given(text=st.text(max_size=40))
def test_any_filter_text_is_read_or_refused(text: str) -> None:
    """No text gets anything but filters or a BadRequest."""
    try:
        parse_filters(text, TASK_FILTERS)
    except BadRequest as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


# --- names of objects ----------------------------------------------------------------------------

NAMED = tables(
    service("abc1", "web"),
    service("abc2", "abc"),
    service("web9", "other"),
    node("abc1", "host"),
    node("abc2", "twin"),
    node("abd3", "twin"),
    task("abc1", WEB),
    task("abc2", WEB, slot=2),
    secret("abc1", "pw"),
    secret("abc2", "pw2"),
    config("abc1", "pw"),
    config("abc2", "pw2"),
    network("abc1", "net"),
    network("abc2", "net2"),
)


@pytest.mark.parametrize(
    ("resolve", "reference", "row_id"),
    [
        (resolve_service, "abc1", "abc1"),
        (resolve_service, "web", "abc1"),  # a name comes before the prefix of another's id
        (resolve_service, "abc", "abc2"),
        (resolve_service, "web9", "web9"),
        (resolve_service, "we" + "b9", "web9"),
        (resolve_node, "abc1", "abc1"),
        (resolve_node, "HOST", "abc1"),
        (resolve_node, "abd", "abd3"),
        (resolve_task, "abc2", "abc2"),
        (resolve_task, "web.2.abc2", "abc2"),
        (resolve_secret, "pw", "abc1"),
        (resolve_secret, "abc2", "abc2"),
        (resolve_config, "pw2", "abc2"),
        (resolve_network, "net", "abc1"),
    ],
)
def test_objects_are_found(resolve, reference: str, row_id: str) -> None:
    """A whole id wins over a name, and a name over the only id that begins so."""
    assert row_id == resolve(NAMED, reference).api.ID


@pytest.mark.parametrize(
    ("resolve", "reference", "status", "text"),
    [
        (resolve_service, "gone", 404, "service gone not found"),
        (resolve_service, "", 404, "service  not found"),
        (resolve_node, "gone", 404, "node gone not found"),
        (resolve_task, "gone", 404, "task gone not found"),
        (resolve_secret, "gone", 404, "secret gone not found"),
        (resolve_config, "gone", 404, "config gone not found"),
        (resolve_network, "gone", 404, "network gone not found"),
        (resolve_node, "twin", 400, "node twin is ambiguous (2 matches found)"),
        (resolve_node, "ab", 400, "node ab is ambiguous (3 matches found)"),
        (resolve_service, "ab", 400, "service ab is ambiguous (2 matches found)"),
        (resolve_task, "abc", 400, "task abc is ambiguous (2 matches found)"),
        (resolve_secret, "abc", 400, "secret abc is ambiguous (2 matches found)"),
        (resolve_config, "abc", 400, "config abc is ambiguous (2 matches found)"),
        (resolve_network, "abc", 400, "network abc is ambiguous (2 matches found)"),
    ],
)
def test_objects_that_are_not_found(resolve, reference: str, status: int, text: str) -> None:
    """None is a 404 and several are a 400, in Docker's plain words."""
    with pytest.raises(SwarmError) as caught:
        resolve(NAMED, reference)
    assert (caught.value.status, caught.value.message) == (status, text)
