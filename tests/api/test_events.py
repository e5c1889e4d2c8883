"""``GET /events`` and what stock clients and ours make of it (docker-api.md section 2.6)."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import docker
import trio

from swarmctl.core.errors import RemoteProtocolError
from swarmctl.core.manager import eventlog
from swarmctl.core.model.change import Create, Transaction
from swarmctl.core.model.objects import Config, ConfigRow, ConfigSpec

from .following import Follower
from .running import RunningApi, running_api
from .test_placement import eventually, running, update
from .test_stock_clients import Docker, cli

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

__all__ = ["cli"]  # a fixture

Event = dict[str, Any]


class Told(Follower):
    """A client that follows events and keeps what it has read."""

    def __init__(self, api: RunningApi, **filters: list[str]) -> None:
        query = f"?filters={json.dumps(filters)}".replace(" ", "") if filters else ""
        super().__init__(api, f"/events{query}")
        self.events: list[Event] = []
        self.broke_off = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until the answer is over, or breaks off."""
        try:
            await super().run(task_status=task_status)
        except RemoteProtocolError:
            self.broke_off = True

    def _take(self) -> None:
        *whole, self._unread = self._unread.split(b"\n")
        self.events += [json.loads(line) for line in whole]

    def of(self, action: str, **attributes: str) -> list[Event]:
        """Return the events of an action with these attributes; a dot is written as __."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        return [
            event
            for event in self.events
            if event["Action"] == action and wanted.items() <= event["Actor"]["Attributes"].items()
        ]

    async def until(self, action: str, **attributes: str) -> Event:
        """Wait for an event."""
        await self.wait(lambda _: self.of(action, **attributes))
        return self.of(action, **attributes)[0]


@asynccontextmanager
async def told(api: RunningApi, **filters: list[str]) -> AsyncIterator[Told]:
    """Follow a node's events for the length of a block."""
    client = Told(api, **filters)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            await nursery.start(client.run)  # the head is there although nothing happened yet
        yield client
        nursery.cancel_scope.cancel()


def _replicated(count: int) -> dict[str, Any]:
    return {"Replicated": {"Replicas": count}}


async def past(api: RunningApi, query: str) -> list[Event]:
    """Return what an answer with an end tells."""
    reply = await api.request("GET", f"/events?{query}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json"), reply
    return [json.loads(line) for line in reply.body.splitlines()]


async def test_a_service_is_told_of_through_its_life(tmp_path: Path) -> None:
    """Created, scaled, updated and removed: each at once, in Docker's words and shape."""
    async with running_api(tmp_path) as api:
        await api.init()
        async with told(api) as client:
            service_id = await api.create("web", UpdateConfig={"Monitor": 10**6})
            made = await client.until("create", name="web")
            found = await api.get(f"/services/{service_id}")
            assert made == {
                "Type": "service",
                "Action": "create",
                "Actor": {"ID": service_id, "Attributes": {"name": "web"}},
                "scope": "swarm",
                "time": made["timeNano"] // 10**9,
                "timeNano": made["timeNano"],
            }
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(made["time"]))
            assert found["CreatedAt"].startswith(stamp)
            await running(api, service_id, 1)
            await update(api, service_id, lambda spec: spec["Mode"].update(_replicated(2)))
            await client.until("update", replicas__old="1", replicas__new="2")
            await update(
                api,
                service_id,
                lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Image="other"),
            )
            await client.until("update", image__old="host", image__new="other")
            await client.until("update", updatestate__old="", updatestate__new="updating")
            await client.until("update", updatestate__old="updating", updatestate__new="completed")
            assert (await api.request("DELETE", f"/services/{service_id}")).status == 200
            gone = await client.until("remove", name="web")
            assert gone["time"] >= made["time"]
            assert not [event for event in client.events if event["Type"] == "task"]


async def test_secrets_configs_networks_and_nodes_are_told_of(tmp_path: Path) -> None:
    """What comes and goes, by name; a node with its availability, and nothing of a secret."""
    async with running_api(tmp_path) as api:
        node_id = await api.init()
        await api.wait_ready()
        async with told(api) as client:
            for kind in ("secret", "config"):
                body = {"Name": f"a-{kind}", "Data": "aHVudGVyMg=="}
                reply = await api.request("POST", f"/{kind}s/create", body)
                assert reply.status == 201
                assert (await api.request("DELETE", f"/{kind}s/a-{kind}")).status == 204
                await client.until("remove", name=f"a-{kind}")
            body = {"Name": "net", "Driver": "overlay"}
            assert (await api.request("POST", "/networks/create", body)).status == 201
            assert (await client.until("create", name="net"))["Type"] == "network"
            found = await api.get(f"/nodes/{node_id}")
            path = f"/nodes/{node_id}/update?version={found['Version']['Index']}"
            wish = {"Role": "manager", "Availability": "drain"}
            assert (await api.request("POST", path, wish)).status == 200
            await client.until("update", availability__old="active", availability__new="drain")
            assert "hunter2" not in json.dumps(client.events)
            kinds = [event["Type"] for event in client.of("create") + client.of("remove")]
            assert kinds == ["secret", "config", "network", "secret", "config"]


async def test_a_client_gets_what_it_filters_by(tmp_path: Path) -> None:
    """Values are alternatives, keys have to agree; names and ids count by their beginning, labels
    by the object's own; tasks are told of where they are named, and then by their service too."""
    async with running_api(tmp_path) as api:
        await api.init()
        async with AsyncExitStack() as stack:

            async def client(**filters: list[str]) -> Told:
                return await stack.enter_async_context(told(api, **filters))

            kinds = await client(type=["secret", "service"], event=["create"])
            named = await client(service=["we"])
            other = await client(service=["other"])
            node = await client(node=["web"])
            label = await client(label=["tier=front"])
            local = await client(scope=["local"])
            engine = await client(container=["web"])
            tasks = await client(type=["task"], service=["web"])
            everything = await client()
            service_id = await api.create("web", Labels={"tier": "front"})
            body = {"Name": "key", "Data": "eA=="}
            assert (await api.request("POST", "/secrets/create", body)).status == 201
            await tasks.until("update", state__new="running", service="web")
            assert {event["Type"] for event in tasks.events} == {"task"}
            assert tasks.events[0]["Action"] == "create"
            assert (await api.request("DELETE", f"/services/{service_id}")).status == 200
            await everything.until("remove", name="web")
            await named.until("remove", name="web")
            await label.until("remove", name="web")
            assert [event["Type"] for event in kinds.events] == ["service", "secret"]
            assert {event["Actor"]["ID"] for event in named.events} == {service_id}
            assert "task" not in {event["Type"] for event in everything.events}
            for quiet in (other, node, local, engine):
                assert quiet.events == []


async def test_the_past_is_told_on_request(tmp_path: Path) -> None:
    """``since`` begins with what was, ``until`` ends the answer; what cannot be is refused."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("one")
        first = await past(api, f"since=0&until={time.time():.9f}")
        made = next(event for event in first if event["Actor"]["Attributes"]["name"] == "one")
        await api.create("two")
        later = f"{made['timeNano'] // 10**9}.{made['timeNano'] % 10**9 + 1:09d}"
        found = await past(api, f"since={later}&until={time.time():.9f}")
        assert [e["Actor"]["Attributes"]["name"] for e in found if e["Action"] == "create"] == [
            "two"
        ]
        before = await past(api, "until=1.5")
        assert before == []
        began = time.monotonic()
        soon = await past(api, f"until={time.time() + 0.7:.9f}")
        assert 0.5 < time.monotonic() - began < 20
        assert {"one", "two"} <= {event["Actor"]["Attributes"]["name"] for event in soon}
        for query, code, text in (
            ("since=2&until=1", 400, "`since` time (2) cannot be after `until` time (1)"),
            ("since=now", 500, "since value 'now' must be seconds since the epoch"),
            ('filters={"bogus":["x"]}', 400, "invalid filter 'bogus'"),
        ):
            assert await api.refusal("GET", f"/events?{query}") == (code, text)


async def test_every_manager_tells_the_same_over_a_change_of_leaders(tmp_path: Path) -> None:
    """Streams of three managers hold the same events with the same times while the leader is
    demoted; its own stream ends then, and says why."""
    for name in "abc":
        (tmp_path / name).mkdir()
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(running_api(tmp_path / name)) for name in "abc"]
        leader = apis[0]
        leader_id = await leader.init()
        tokens = (await leader.get("/swarm"))["JoinTokens"]
        for api in apis[1:]:
            await _join(api, leader, tokens["Manager"])
        await leader.wait_ready()
        clients = [
            await stack.enter_async_context(told(api, type=["config", "node"])) for api in apis
        ]
        for number in range(3):
            await _config(leader, f"before-{number}")
        for client in clients:
            await client.until("create", name="before-2")
        found = await apis[1].get(f"/nodes/{leader_id}")
        path = f"/nodes/{leader_id}/update?version={found['Version']['Index']}"
        wish = {"Role": "worker", "Availability": "active"}
        assert (await apis[1].request("POST", path, wish)).status == 200
        for client in clients[1:]:
            await client.until("update", role__old="manager", role__new="worker")
            await client.until("update", leader__old="false", leader__new="true")
        for number in range(3):
            await _config(apis[1], f"after-{number}")
        for client in clients[1:]:
            await client.until("create", name="after-2")
        lost = await clients[0].until("lost")
        await clients[0].wait(lambda _: clients[0].broke_off)
        assert (lost["Type"], lost["scope"]) == ("daemon", "local")
        assert "is no manager any more" in lost["Actor"]["Attributes"]["message"]
        heard = [client.of("create") for client in clients]
        assert heard[1] == heard[2]
        assert heard[0] == heard[1][: len(heard[0])]
        names = [event["Actor"]["Attributes"]["name"] for event in heard[1]]
        assert names == [f"{when}-{n}" for when in ("before", "after") for n in range(3)]


async def _join(api: RunningApi, manager: RunningApi, token: str) -> None:
    address = f"127.0.0.1:{api.port}"
    body = {
        "ListenAddr": address,
        "AdvertiseAddr": address,
        "RemoteAddrs": [f"127.0.0.1:{manager.port}"],
        "JoinToken": token,
    }
    reply = await api.request("POST", "/swarm/join", body)
    assert reply.status == 200, reply


async def _config(api: RunningApi, name: str) -> None:
    reply = await api.request("POST", "/configs/create", {"Name": name, "Data": "eA=="})
    assert reply.status == 201, reply


async def test_a_worker_has_nothing_to_tell_until_it_is_a_manager(tmp_path: Path) -> None:
    """The route answers on every node; who waits on a worker is told once it was promoted."""
    for name in "mw":
        (tmp_path / name).mkdir()
    async with AsyncExitStack() as stack:
        manager, worker = [
            await stack.enter_async_context(running_api(tmp_path / name)) for name in "mw"
        ]
        async with told(worker) as client:
            await manager.init()
            await _join(worker, manager, (await manager.get("/swarm"))["JoinTokens"]["Worker"])
            await _config(manager, "unseen")
            node_id = (await worker.get("/info"))["Swarm"]["NodeID"]
            assert client.events == []
            found = await manager.get(f"/nodes/{node_id}")
            path = f"/nodes/{node_id}/update?version={found['Version']['Index']}"
            wish = {"Role": "manager", "Availability": "active"}
            assert (await manager.request("POST", path, wish)).status == 200

            async def is_manager() -> bool:
                return bool((await worker.get("/info"))["Swarm"]["ControlAvailable"])

            await eventually(is_manager)
            await _config(manager, "seen")
            await client.until("create", name="seen")
            assert not client.of("create", name="unseen")


async def test_a_slow_client_is_cut_off_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not read while more happens than is kept finds the reason at the end of what
    it can read, and a broken answer; whoever reads gets everything."""
    monkeypatch.setattr(eventlog, "KEPT", 600)
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        async with told(api) as quick:
            slow = await trio.open_unix_socket(str(api.socket))
            async with slow:
                await slow.send_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
                for batch in range(12):
                    names = [f"{'x' * 900}{batch}-{n}" for n in range(500)]
                    rows = [
                        ConfigRow(api=Config(ID=f"c{name}", Spec=ConfigSpec(Name=name)))
                        for name in names
                    ]
                    changes = tuple(Create(row=row) for row in rows)
                    await api.propose(Transaction(changes=changes))
                    await quick.until("create", name=rows[-1].api.Spec.Name)
                data = b""
                with trio.fail_after(20):
                    while chunk := await slow.receive_some(1 << 20):
                        data += chunk
        assert len(quick.of("create")) == 6000
        assert not data.endswith(b"0\r\n\r\n")  # the answer breaks off
        lines = [line for line in data.split(b"\r\n") if line.startswith(b"{")]
        last = json.loads(lines[-1].splitlines()[-1])
        assert (last["Type"], last["Action"]) == ("daemon", "lost")
        assert "reads too slowly" in last["Actor"]["Attributes"]["message"]


async def test_decisions_of_scaling_are_events(tmp_path: Path) -> None:
    """A human's number on a scaled service is a decision like any other, and told with why."""
    async with running_api(tmp_path) as api:
        await api.init()
        labels = {"swarmctl.scale.max": "9", "swarmctl.scale.target": "pids=50"}
        service_id = await api.create("web", Labels=labels)
        async with told(api, event=["scale"]) as client:
            await update(api, service_id, lambda spec: spec["Mode"].update(_replicated(3)))
            event = await client.until("scale")
            attributes = event["Actor"]["Attributes"]
            assert attributes.pop("reason") == "scaled to 3 by hand"
            assert attributes == {
                "name": "web",
                "rule": "floor",
                "replicas.old": "1",
                "replicas.new": "3",
            }


async def test_the_stock_cli_and_ours_print_events(tmp_path: Path, cli: str) -> None:
    """``docker events`` and ``swarmctl events`` print the same lines; filters, templates and times
    work in both."""
    async with running_api(tmp_path) as api:
        await api.init()
        service_id = await api.create("web")
        await _config(api, "conf")
        run = Docker(cli, api, tmp_path)

        async def ours(*words: str) -> str:
            command = [sys.executable, "-m", "swarmctl", f"--socket={api.socket}", *words]
            done = await trio.run_process(command, capture_stdout=True)
            return done.stdout.decode()

        both = ("--since", "1h", "--until", f"{time.time() + 0.1:.6f}")
        theirs = await run("events", *both, "--filter", "event=create", "--filter", "service=web")
        assert theirs.out.endswith(f" service create {service_id} (name=web)\n")
        assert await ours("events", *both, "-f", "event=create", "-f", "service=web") == theirs.out
        for form in ("{{.Type}}/{{.Action}} {{.Actor.Attributes.name}}", "{{json .}}", "json"):
            known = "{{json .}}" if form == "json" else form  # its short name is new in Docker 23
            shown = await run("events", *both, "--filter", "type=config", "--format", known)
            mine = await ours("events", *both, "-f", "type=config", "--format", form)
            if "json" in form:
                assert json.loads(mine)["Actor"] == json.loads(shown.out)["Actor"]
            else:
                assert mine == shown.out == "config/create conf\n"


async def test_docker_py_follows_events(tmp_path: Path) -> None:
    """``client.events`` gives each event as it comes, and ends when it is closed."""
    async with running_api(tmp_path) as api:
        await api.init()

        def follow() -> list[tuple[str, str]]:
            client = docker.DockerClient(base_url=f"unix://{api.socket}", version="auto")
            try:
                stream = client.events(decode=True, filters={"type": ["config"]})
                client.configs.create(name="one", data=b"x")
                first = next(stream)
                client.configs.get(first["Actor"]["ID"]).remove()
                second = next(stream)
                stream.close()
                return [(event["Action"], event["Type"]) for event in (first, second)]
            finally:
                client.close()

        with trio.fail_after(30):
            heard = await trio.to_thread.run_sync(follow)
        assert heard == [("create", "config"), ("remove", "config")]
