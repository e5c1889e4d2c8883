"""Which handler answers a request (core/api/route.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.api.route import ROUTES, find_route, split_version
from swarmctl.core.errors import BadRequest


@pytest.mark.parametrize(
    ("method", "path", "handler", "params"),
    [
        ("HEAD", "/_ping", "system.ping", {}),
        ("GET", "/v1.50/_ping", "system.ping", {}),
        ("GET", "/swarm", "swarm.inspect", {}),
        ("POST", "/v1.24/swarm/init", "swarm.init", {}),
        ("GET", "/v1.41/services", "services.list", {}),
        ("POST", "/services/create", "services.create", {}),
        ("GET", "/services/create", "services.inspect", {"id": "create"}),
        ("GET", "/services/web", "services.inspect", {"id": "web"}),
        ("POST", "/services/web/update", "services.update", {"id": "web"}),
        ("DELETE", "/services/web", "services.remove", {"id": "web"}),
        ("GET", "/services/web/logs", "logs.service", {"id": "web"}),
        ("GET", "/tasks/web.1.x", "tasks.inspect", {"id": "web.1.x"}),
        ("GET", "/distribution/nginx:1/json", "system.distribution", {"name": "nginx:1"}),
        (
            "GET",
            "/v1.50/distribution/reg.example:5000/x/y:1/json",
            "system.distribution",
            {"name": "reg.example:5000/x/y:1"},
        ),
        ("GET", "/distribution/a/json/json", "system.distribution", {"name": "a/json"}),
    ],
)
def test_routes(method: str, path: str, handler: str, params: dict[str, str]) -> None:
    """A request finds its handler with and without a version, and what its path names."""
    match = find_route(method, path)
    assert match is not None
    assert (match.route.handler, match.params) == (handler, params)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/containers/json"),
        ("PUT", "/services/web"),
        ("HEAD", "/services"),
        ("GET", "/services/"),
        ("GET", "/services//logs"),
        ("GET", "/services/a/b"),
        ("GET", "/services\n"),
        ("GET", "/xservices"),
        ("GET", "/v/services"),
        ("GET", "/vx1/services"),
        ("GET", "/v1.50"),
        ("GET", "/distribution/json"),
    ],
)
def test_what_is_not_ours(method: str, path: str) -> None:
    """Any other path or method has no route here."""
    assert find_route(method, path) is None


def test_the_prefix_is_taken_off_for_everyone() -> None:
    """The version and the bare path are known for a request that goes on to the engine, too."""
    assert split_version("/v1.41/containers/json") == ("1.41", "/containers/json")
    assert split_version("/containers/json") == ("", "/containers/json")
    match = find_route("GET", "/v1.44/info")
    assert match is not None
    assert (match.version, match.path) == ("1.44", "/info")


@pytest.mark.parametrize("version", ["1.51", "1.99", "2.0", "9" * 30, "1.50.1"])
def test_too_new(version: str) -> None:
    """A version beyond ours is refused in Docker's words."""
    with pytest.raises(BadRequest) as caught:
        find_route("GET", f"/v{version}/info")
    assert str(caught.value) == (
        f"client version {version} is too new. Maximum supported API version is 1.50"
    )


@pytest.mark.parametrize("version", ["1.23", "1.20", "1.9", "0", "1", "..", "1."])
def test_too_old(version: str) -> None:
    """A version before ours is refused in Docker's words; 1.9 is older than 1.24."""
    with pytest.raises(BadRequest) as caught:
        find_route("GET", f"/v{version}/info")
    assert str(caught.value) == (
        f"client version {version} is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )


def test_no_two_routes_answer_one_request() -> None:
    """The table has no pair of rows for the same method and pattern."""
    rows = [(route.method, route.pattern) for route in ROUTES]
    assert len(set(rows)) == len(rows)


def test_who_answers_without_a_manager() -> None:
    """Joining, leaving, restoring, ping and what the engine has too work on any node, no more."""
    free = {route.handler for route in ROUTES if not route.needs_manager}
    assert {handler.partition(".")[0] for handler in free} == {
        "system",
        "events",
        "swarm",
        "networks",
        "backup",
    }
    assert {handler for handler in free if handler.startswith("swarm.")} == {
        "swarm.init",
        "swarm.join",
        "swarm.leave",
        "swarm.unlock",
    }


@given(path=st.text(alphabet="/v1.509servicsdtbuon_ping\n*{}", max_size=30))
def test_any_path_is_routed_or_refused(path: str) -> None:
    """No path gets anything but a match, None or a BadRequest."""
    try:
        match = find_route("GET", path)
    except BadRequest:
        return
    assert match is None or match.route in ROUTES
