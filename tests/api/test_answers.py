"""What clients are answered: statuses, headers, bodies and texts, on a whole node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from swarmctl.core.api.route import ROUTES

from .running import running_api, service_body

if TYPE_CHECKING:
    from pathlib import Path

NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)
AGAIN = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join '
    "another one."
)
LAST_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. Removing "
    "the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
)
INVALID = "rpc error: code = InvalidArgument desc = "
PRECONDITION = "rpc error: code = FailedPrecondition desc = "
UNIMPLEMENTED = "rpc error: code = Unimplemented desc = "
UNKNOWN = "rpc error: code = Unknown desc = "
EXISTS = "rpc error: code = AlreadyExists desc = "
TOO_OLD = (
    "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your "
    "client to a newer version"
)
FILTERS = 'invalid filters: they must be JSON such as {"name":["web"]} or {"name":{"web":true}}'
NO_FLAG = 'invalid value for {}: strconv.ParseBool: parsing "{}": invalid syntax'


async def test_a_node_in_no_swarm_says_what_to_do(tmp_path: Path) -> None:
    """Every route of the cluster answers 503 with the way into a swarm; the others go on."""
    async with running_api(tmp_path) as api:
        for route in ROUTES:
            if not route.needs_manager:
                continue
            path = route.pattern.replace("{id}", "x")
            assert await api.refusal(route.method, path) == (503, NO_SWARM), route
        gone = (503, "This node is not part of a swarm")
        assert await api.refusal("POST", "/swarm/leave") == gone
        assert await api.refusal("POST", "/swarm/unlock", {"UnlockKey": "x"}) == gone
        ping = await api.request("HEAD", "/_ping")
        assert (ping.status, ping.headers["Swarm"]) == (200, "inactive")
        assert (await api.get("/info"))["Swarm"] == {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        }
        assert await api.get("/networks") == []
        assert await api.refusal("GET", "/networks/web") == (404, "network web not found")


async def test_headers_and_facts_by_which_clients_negotiate(tmp_path: Path) -> None:
    """Ping, version and info hold what every stock client reads before its first real request."""
    async with running_api(tmp_path) as api:
        node_id = await api.init()
        for method, body in (("HEAD", b""), ("GET", b"OK")):
            ping = await api.request(method, "/_ping")
            assert ping.status == 200
            assert ping.body == body
            wanted = {
                "Api-Version": "1.50",
                "Builder-Version": "2",
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Content-Type": "text/plain; charset=utf-8",
                "Docker-Experimental": "false",
                "Ostype": "linux",
                "Pragma": "no-cache",
                "Server": "swarmctl/9.9 (linux)",
                "Swarm": "active/manager",
            }
            assert {name: ping.headers.get(name) for name in wanted} == wanted
            assert ping.headers["Date"].endswith(" GMT")
        version = await api.get("/v1.24/version")
        assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.50", "1.24")
        assert version["Components"][0]["Details"]["ApiVersion"] == "1.50"
        reply = await api.request("GET", "/info")
        assert reply.body.endswith(b"}\n")
        info = reply.json
        assert info["Swarm"]["NodeID"] == node_id
        assert info["Swarm"]["ControlAvailable"] is True
        assert (info["Swarm"]["Nodes"], info["Swarm"]["Managers"]) == (1, 1)
        assert "JoinTokens" not in info["Swarm"]["Cluster"]
        assert info["Swarm"]["RemoteManagers"] == [
            {"NodeID": node_id, "Addr": f"127.0.0.1:{api.port}"}
        ]
        assert info["OSType"] == "linux"
        assert info["OperatingSystem"]


async def test_a_swarm_is_founded_left_and_founded_again(tmp_path: Path) -> None:
    """init, leave and init on one daemon, with Docker's refusals in between."""
    async with running_api(tmp_path) as api:
        first = await api.init()
        assert await api.refusal("POST", "/swarm/init", {}) == (503, AGAIN)
        join = {"RemoteAddrs": ["127.0.0.1:1"], "JoinToken": "x"}
        assert await api.refusal("POST", "/swarm/join", join) == (503, AGAIN)
        assert await api.refusal("POST", "/swarm/leave") == (503, LAST_MANAGER)
        left = await api.request("POST", "/swarm/leave?force=1")
        assert (left.status, left.body) == (200, b"")
        assert (await api.request("GET", "/_ping")).headers["Swarm"] == "inactive"
        assert await api.init() != first


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"RemoteAddrs": []}, 400, "at least 1 RemoteAddr is required to join"),
        ({"DataPathPort": 80}, 400, "Datapath port number is not in valid range (1024-49151) : 80"),
        ({"ListenAddr": "nowhere"}, 400, "listen address must be an IP address or network"),
        ({"Spec": {"Name": "x"}}, 400, 'swarm spec must be named "default"'),
        ({"Availability": "busy"}, 400, 'invalid Availability: "busy"'),
    ],
)
async def test_a_wrong_init_or_join_leaves_the_node_as_it_was(
    tmp_path: Path, body: dict[str, object], status: int, text: str
) -> None:
    """What cannot be done is refused in words, and the node stays in no swarm."""
    async with running_api(tmp_path) as api:
        path = "/swarm/join" if "RemoteAddrs" in body else "/swarm/init"
        answer = await api.refusal("POST", path, body)
        assert answer[0] == status
        assert answer[1].startswith(text)
        assert (await api.request("GET", "/_ping")).headers["Swarm"] == "inactive"


def _service(**changes: object) -> dict[str, object]:
    return service_body("other", **changes)


def _template(**fields: object) -> dict[str, object]:
    return _service(TaskTemplate={"ContainerSpec": {"Image": "host"}, **fields})


def _container(**fields: object) -> dict[str, object]:
    return _service(TaskTemplate={"ContainerSpec": {"Image": "host", **fields}})


PORT = {"TargetPort": 80, "PublishedPort": 8080}
REFUSED_SERVICES = {
    "no body": ({}, 400, "mismatched Runtime and *Spec fields"),
    "no image": (
        _container(Image=""),
        400,
        INVALID + "ContainerSpec: image reference must be provided",
    ),
    "name": ({**_service(), "Name": "a b"}, 400, INVALID + "name must be valid as a DNS name"),
    "long name": (
        {**_service(), "Name": "a" * 64},
        400,
        INVALID + "name must be 63 characters or fewer",
    ),
    "taken name": (
        {**_service(), "Name": "web"},
        409,
        EXISTS + "name conflicts with an existing object: service web already exists",
    ),
    "image": (
        _container(Image="A B"),
        400,
        INVALID + 'ContainerSpec: "A B" is not a valid repository/tag',
    ),
    "constraint": (
        _template(Placement={"Constraints": ["node.role=manager"]}),
        500,
        UNKNOWN + "constraint expected one operator from ==, !=",
    ),
    "memory": (
        _template(Resources={"Limits": {"MemoryBytes": 4}}),
        400,
        INVALID + "invalid memory value 4: Must be at least 4MiB",
    ),
    "cpu": (
        _template(Resources={"Limits": {"NanoCPUs": 100_000}}),
        400,
        INVALID + "invalid cpu value 0.0001: Must be at least 0.001",
    ),
    "a port twice": (
        _service(EndpointSpec={"Ports": [PORT, {**PORT, "TargetPort": 81}]}),
        400,
        INVALID + "EndpointSpec: duplicate published ports provided",
    ),
    "a port of another service": (
        _service(EndpointSpec={"Ports": [{**PORT, "PublishedPort": 90}]}),
        400,
        INVALID + "port '90' is already in use by service 'web' (",
    ),
    "two modes": (
        _service(Mode={"Replicated": {}, "Global": {}}),
        400,
        "must specify only one service mode",
    ),
    "a network": (
        _template(Networks=[{"Target": "foo"}]),
        500,
        "network foo not found",
    ),
    "a secret": (
        _container(
            Secrets=[{"SecretID": "s1", "SecretName": "pass", "File": {"Name": "pass", "Mode": 1}}]
        ),
        400,
        INVALID + "secret not found: pass",
    ),
    "a job that is updated": (
        _service(Mode={"GlobalJob": {}}, UpdateConfig={"Parallelism": 1}),
        400,
        INVALID + "Jobs may not have an update config",
    ),
    "a word for a number": (
        _service(Mode={"Replicated": {"Replicas": "2"}}),
        400,
        "invalid JSON: Mode.Replicated.Replicas: expected int, got str",
    ),
}


async def test_services_that_are_refused(tmp_path: Path) -> None:
    """Every wrong service is refused with Docker's status and text, and nothing is left of it."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", EndpointSpec={"Ports": [{**PORT, "PublishedPort": 90}]})
        for case, (body, status, text) in REFUSED_SERVICES.items():
            answer = await api.refusal("POST", "/services/create", body)
            assert (answer[0], answer[1][: len(text)]) == (status, text), case
        assert [row["Spec"]["Name"] for row in await api.get("/services")] == ["web"]


async def test_updates_that_are_refused(tmp_path: Path) -> None:
    """What an update may not change, and a rollback to nothing, in Docker's words."""
    async with running_api(tmp_path) as api:
        await api.init()
        web = await api.create("web", replicas=0)
        shown = await api.get("/services/web")
        path = f"/services/web/update?version={shown['Version']['Index']}"
        spec = shown["Spec"]
        for query, body, answer in (
            (
                "&rollback=previous",
                spec,
                (400, PRECONDITION + f"service {web} does not have a previous spec"),
            ),
            ("", {**spec, "Name": "new"}, (501, UNIMPLEMENTED + RENAMED)),
            ("", {**spec, "Mode": {"Global": {}}}, (501, UNIMPLEMENTED + NEW_MODE)),
            ("&registryAuthFrom=x", spec, (500, "unsupported registryAuthFrom value")),
            (
                "&registryAuthFrom=previous-spec",
                spec,
                (500, "service does not have a previous spec"),
            ),
            (
                "",
                {**spec, "TaskTemplate": {}},
                (400, "mismatched Runtime and *Spec fields"),
            ),
        ):
            assert await api.refusal("POST", path + query, body) == answer
        assert await api.get("/services/web") == shown
        done = await api.request("POST", path, {**spec, "Labels": {"a": "b"}})
        assert done.json == {"Warnings": None}


RENAMED = "renaming services is not supported"
NEW_MODE = "service mode change is not allowed"


async def test_references_versions_and_filters_that_are_refused(tmp_path: Path) -> None:
    """Names of nothing, versions that are none, unknown filters: each in Docker's words."""
    async with running_api(tmp_path) as api:
        node = await api.init()
        web = await api.create("web", replicas=0)
        parse = 'strconv.ParseUint: parsing "": invalid syntax'
        cluster = await api.get("/swarm")
        at = cluster["Version"]["Index"]
        for request, answer in {
            ("GET", "/services/nope"): (404, "service nope not found"),
            ("DELETE", "/services/nope"): (404, "service nope not found"),
            ("GET", "/services/nope/logs?stdout=1"): (404, "service nope not found"),
            ("GET", "/tasks/nope/logs?stdout=1"): (404, "task nope not found"),
            ("GET", "/tasks/nope"): (404, "task nope not found"),
            ("GET", "/nodes/nope"): (404, "node nope not found"),
            ("GET", "/secrets/nope"): (404, "secret nope not found"),
            ("GET", "/configs/nope"): (404, "config nope not found"),
            ("GET", "/networks/nope"): (404, "network nope not found"),
            ("GET", "/nothing"): (404, "page not found"),
            ("PUT", "/services"): (404, "page not found"),
            ("GET", "/v1.99/services"): (
                400,
                "client version 1.99 is too new. Maximum supported API version is 1.50",
            ),
            ("GET", "/v1.20/services"): (
                400,
                TOO_OLD,
            ),
            ("POST", "/v1.99/services/create"): (
                400,
                "client version 1.99 is too new. Maximum supported API version is 1.50",
            ),
            ("POST", "/v1.20/swarm/init"): (
                400,
                TOO_OLD,
            ),
            ("POST", f"/services/{web}/update"): (400, f"invalid service version '': {parse}"),
            ("POST", f"/nodes/{node}/update"): (400, f"invalid node version '': {parse}"),
            ("POST", "/swarm/update"): (400, f"invalid swarm version '': {parse}"),
            ("POST", f"/services/{web}/update?version=1&rollback=x"): (
                500,
                "unrecognized rollback option x",
            ),
            ("GET", '/services?filters={"bogus":["x"]}'): (400, "invalid filter 'bogus'"),
            ("GET", '/tasks?filters={"desired-state":["x"]}'): (
                500,
                "Invalid desired-state filter: 'x'",
            ),
            ("GET", '/nodes?filters={"role":["x"]}'): (500, "Invalid role filter: 'x'"),
            ("GET", '/tasks?filters={"service":["no-one"]}'): (404, "service no-one not found"),
            ("GET", "/services?status=x"): (
                400,
                NO_FLAG.format("status", "x"),
            ),
            ("GET", f"/services/{web}/logs"): (
                500,
                "Bad parameters: you must choose at least one stream",
            ),
            ("GET", f"/services/{web}/logs?stdout=1&tail=x"): (
                500,
                'tail value must be a positive integer or "all"',
            ),
            ("GET", f"/services/{web}/logs?stdout=1&tail=-1"): (
                500,
                "negative tail values not supported",
            ),
            ("DELETE", f"/nodes/{node}?force=1"): (
                400,
                PRECONDITION + "attempting to demote the last manager of the swarm",
            ),
            ("DELETE", f"/nodes/{node}"): (
                400,
                PRECONDITION + f"node {node} is a cluster manager and is a member of the raft "
                "cluster. It must be demoted to worker before removal",
            ),
            ("POST", "/swarm/unlock"): (409, "swarm is not locked"),
            ("POST", f"/swarm/update?version={at}&rotateWorkerToken=2"): (
                400,
                NO_FLAG.format("rotateWorkerToken", 2),
            ),
            ("POST", f"/networks/{node}/connect"): (
                501,
                UNIMPLEMENTED
                + f"POST /networks/{node}/connect is not available in this release of swarmctl",
            ),
            ("GET", "/events?since=2&until=1"): (
                400,
                "`since` time (2) cannot be after `until` time (1)",
            ),
            ("GET", '/events?filters={"x":["y"]}'): (400, "invalid filter 'x'"),
            ("GET", "/secrets?filters=[]"): (400, FILTERS),
            ("GET", '/configs?filters={"x":["y"]}'): (400, "invalid filter 'x'"),
            ("GET", "/secrets?all=2"): (400, NO_FLAG.format("all", 2)),
            ("DELETE", "/secrets/nope"): (404, "secret nope not found"),
            ("DELETE", "/configs/nope"): (404, "config nope not found"),
            ("POST", "/secrets/nope/versions"): (404, "secret nope not found"),
            ("POST", "/secrets/nope/update?version=1"): (404, "secret nope not found"),
            ("POST", "/secrets/nope/update"): (400, f"invalid secret version '': {parse}"),
            ("POST", "/configs/nope/update"): (400, f"invalid config version '': {parse}"),
        }.items():
            method, target = request
            path = target.replace("{", "%7B").replace("}", "%7D").replace('"', "%22")
            assert await api.refusal(method, path) == answer, request


async def test_nodes_and_settings_that_are_refused(tmp_path: Path) -> None:
    """Wrong settings of a node or of the swarm change nothing."""
    async with running_api(tmp_path) as api:
        node = await api.get(f"/nodes/{await api.init()}")
        path = f"/nodes/{node['ID']}/update?version={node['Version']['Index']}"
        for spec, answer in (
            ({"Role": "king", "Availability": "active"}, (400, 'invalid Role: "king"')),
            ({"Role": "manager", "Availability": "x"}, (400, 'invalid Availability: "x"')),
            (
                {"Role": "worker", "Availability": "active"},
                (400, PRECONDITION + "attempting to demote the last manager of the swarm"),
            ),
        ):
            assert await api.refusal("POST", path, spec) == answer
        cluster = await api.get("/swarm")
        path = f"/swarm/update?version={cluster['Version']['Index']}"
        for change, answer in (
            ({"Name": "mine"}, (400, INVALID + "modification of cluster name is not allowed")),
            (
                {"Dispatcher": {"HeartbeatPeriod": -1}},
                (400, INVALID + "heartbeat time period cannot be a negative duration"),
            ),
            (
                {"CAConfig": {"NodeCertExpiry": 1}},
                (400, INVALID + "minimum certificate expiry time is: 1h0m0s"),
            ),
            (
                {"CAConfig": {"SigningCAKey": "k"}},
                (
                    400,
                    INVALID + "if a signing CA key is provided, the signing CA cert must also be "
                    "provided",
                ),
            ),
        ):
            spec = {**cluster["Spec"], **change}
            assert await api.refusal("POST", path, spec) == answer
        assert await api.get("/swarm") == cluster


async def test_settings_left_out_of_a_swarm_update_take_their_defaults(tmp_path: Path) -> None:
    """docker-py sends only what its caller named, without the name; a zero means the default."""
    async with running_api(tmp_path) as api:
        await api.init()
        before = await api.get("/swarm")
        spec = {"Labels": {"a": "b"}, "Orchestration": {"TaskHistoryRetentionLimit": 2}}
        version = before["Version"]["Index"]
        done = await api.request("POST", f"/swarm/update?version={version}", spec)
        assert (done.status, done.body) == (200, b"")
        after = (await api.get("/swarm"))["Spec"]
        assert after == {**before["Spec"], **spec}


async def test_tokens_are_rotated_one_at_a_time(tmp_path: Path) -> None:
    """A rotation changes the token it names; a second one from the same reading is refused."""
    async with running_api(tmp_path) as api:
        await api.init()
        before = await api.get("/swarm")
        path = f"/swarm/update?version={before['Version']['Index']}&rotateWorkerToken=true"
        assert (await api.request("POST", path, before["Spec"])).status == 200
        assert await api.refusal("POST", path, before["Spec"]) == (
            500,
            UNKNOWN + "update out of sequence",
        )
        after = (await api.get("/swarm"))["JoinTokens"]
        assert after["Worker"] != before["JoinTokens"]["Worker"]
        assert after["Manager"] == before["JoinTokens"]["Manager"]


async def test_what_is_accepted_and_not_done_is_said_each_time(tmp_path: Path) -> None:
    """Create and update answer with warnings, and the service keeps saying so until it changes."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.wait_ready()
        body = service_body("web", EndpointSpec={"Ports": [{"TargetPort": 80}]})
        created = await api.request("POST", "/services/create", body)
        (warning,) = created.json["Warnings"]
        assert warning.startswith("a port is reserved but not routed to the service")
        shown = await api.get(f"/services/{created.json['ID']}")
        assert shown["Warnings"] == created.json["Warnings"]
        path = f"/services/web/update?version={shown['Version']['Index']}"
        updated = await api.request("POST", path, {**body, "Labels": {"a": "b"}})
        assert updated.json == {"Warnings": [warning]}
        shown = await api.get("/services/web")
        path = f"/services/web/update?version={shown['Version']['Index']}"
        updated = await api.request("POST", path, service_body("web"))
        assert updated.json == {"Warnings": None}
        shown = await api.get("/services/web")
        assert "Warnings" not in shown
        path = f"/services/web/update?version={shown['Version']['Index']}"
        rolled_back = await api.request("POST", f"{path}&rollback=previous", {})
        assert rolled_back.json == {"Warnings": [warning]}
