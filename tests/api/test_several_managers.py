"""The front doors of three real managers: consensus, disks, sockets and certificates are true."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from .following import Follower
from .running import WAIT_S, RunningApi, running_api, service_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from swarmctl.core.model.change import Result, Transaction


class ThreeManagers:
    """Three nodes that are managers, and the scopes that end them."""

    def __init__(self) -> None:
        self.apis: list[RunningApi] = []
        self.ends: list[trio.CancelScope] = []

    def leader(self) -> int:
        """Return which one leads."""
        (leads,) = [
            number
            for number, api in enumerate(self.apis)
            if api.node.manager is not None and api.node.manager.leading
        ]
        return leads

    def followers(self) -> list[RunningApi]:
        leader = self.leader()
        return [api for number, api in enumerate(self.apis) if number != leader]


async def _until(condition: Callable[[], object]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - no one event stands for any condition
            await trio.sleep(0.01)


@asynccontextmanager
async def three_managers(folder: Path) -> AsyncIterator[ThreeManagers]:
    """Run a swarm of three managers; each may be ended by its scope, as SIGTERM does."""
    swarm = ThreeManagers()

    async def live(name: str, *, task_status: trio.TaskStatus[RunningApi]) -> None:
        with trio.CancelScope() as scope:
            (folder / name).mkdir()
            async with running_api(folder / name) as api:
                swarm.ends.append(scope)
                task_status.started(api)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for name in "abc":
            api = await nursery.start(live, name)
            if not swarm.apis:
                await api.init()
                token = (await api.get("/swarm"))["JoinTokens"]["Manager"]
                first = f"127.0.0.1:{api.port}"
            else:
                address = f"127.0.0.1:{api.port}"
                body = {
                    "ListenAddr": address,
                    "AdvertiseAddr": address,
                    "RemoteAddrs": [first],
                    "JoinToken": token,
                }
                reply = await api.request("POST", "/swarm/join", body)
                assert reply.status == 200, reply
            swarm.apis.append(api)
        manager = swarm.apis[0].manager
        await _until(lambda: len(manager.raft_status().membership.voters) == 3)
        await _until(lambda: all(api.node.manager is not None for api in swarm.apis))
        yield swarm
        nursery.cancel_scope.cancel()


async def test_any_manager_serves_the_whole_swarm(tmp_path: Path) -> None:
    """What is written through one manager is read at once through each; who leads, who is reached
    and who is asked is told alike everywhere; a service that was created at a follower runs."""
    async with three_managers(tmp_path) as swarm:
        for number, api in enumerate(swarm.apis):
            await api.create(f"web{number}", replicas=2)
            for other in swarm.apis:
                assert (await other.get(f"/services/web{number}"))["Spec"]["Name"]
        lists = [await api.get("/services") for api in swarm.apis]
        assert [len(each) for each in lists] == [3, 3, 3]
        for api in swarm.apis:
            assert (await api.get("/nodes/self"))["ID"] == api.node.node_id
            nodes = await api.get("/nodes")
            managers = {node["ID"]: node["ManagerStatus"] for node in nodes}
            assert len(managers) == 3
            assert {each["Reachability"] for each in managers.values()} == {"reachable"}
            leaders = [node for node, status in managers.items() if status.get("Leader")]
            assert leaders == [swarm.apis[swarm.leader()].node.node_id]
            info = (await api.get("/info"))["Swarm"]
            assert (info["Managers"], info["Error"], info["ControlAvailable"]) == (3, "", True)
        await _until_running(swarm.followers()[0], 6)


@pytest.mark.parametrize("was_applied", [True, False])
async def test_a_leader_that_ends_between_commit_and_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_applied: bool
) -> None:
    """The follower that was asked gets the first answer from the next leader: of a create, an
    update and a delete, each of which loses the leader that it reached."""
    async with three_managers(tmp_path) as swarm:
        follower = swarm.followers()[0]
        await follower.create("web")
        lost: list[str] = []

        def lose_next() -> None:
            """Let whoever leads now lose its leadership over the next write of a client."""
            manager = swarm.apis[swarm.leader()].manager
            propose = manager.propose
            lost_before = len(lost)

            async def lossy(transactions: Sequence[Transaction]) -> tuple[Result, ...]:
                if len(lost) > lost_before:
                    return await propose(transactions)
                lost.append(transactions[0].request_id)
                if was_applied:
                    await propose(transactions)
                others = [api for api in swarm.apis if api.node.manager is not manager]
                member = others[0].manager.raft_status().id
                await manager._runner.transfer_leadership(member)
                await trio.sleep_forever()
                raise AssertionError

            monkeypatch.setattr(manager, "propose", lossy)

        async def ask(method: str, path: str, body: Any = None) -> Any:
            await _until(lambda: any(api.manager.leading for api in swarm.apis))
            lose_next()
            return await follower.request(method, path, body)

        created = await ask("POST", "/services/create", service_body("new", replicas=0))
        assert created.status == 201, created
        found = await follower.get("/services/new")
        assert found["ID"] == created.json["ID"]
        path = f"/services/new/update?version={found['Version']['Index']}"
        updated = await ask("POST", path, {**found["Spec"], "Labels": {"a": "b"}})
        assert updated.status == 200, updated
        removed = await ask("DELETE", "/services/new")
        assert (removed.status, removed.body) == (200, b"")
        names = [service["Spec"]["Name"] for service in await follower.get("/services")]
        assert names == ["web"]
        assert len(lost) == 3


async def test_a_follower_goes_on_when_the_leader_stops(tmp_path: Path) -> None:
    """Clients of a follower notice nothing of a leader that is stopped under their writes."""
    async with three_managers(tmp_path) as swarm:
        follower = swarm.followers()[0]
        statuses: list[int] = []

        async def create(client: int) -> None:
            for number in range(6):
                body = service_body(f"s{client}-{number}", replicas=0)
                reply = await follower.request("POST", "/services/create", body)
                statuses.append(reply.status)
                if len(statuses) == 8:
                    swarm.ends[swarm.leader()].cancel()

        async with trio.open_nursery() as nursery:
            for client in range(4):
                nursery.start_soon(create, client)
        assert statuses == [201] * 24
        assert len(await follower.get("/services")) == 24


async def test_output_is_followed_through_a_follower(tmp_path: Path) -> None:
    """Following a service at a follower gives the lines of its tasks on all nodes, and ends with
    the service, also when another follower removes it."""
    async with three_managers(tmp_path) as swarm:
        follower, other = swarm.followers()
        container = {"Image": "host", "Env": ["SWARMCTL_NULL_OUTPUT=one"]}
        await follower.create("web", TaskTemplate={"ContainerSpec": container}, replicas=3)
        await _until_running(follower, 3)
        once = await other.request("GET", "/services/web/logs?stdout=1")
        assert once.body.count(b"one\n") == 3
        said = b""
        with trio.fail_after(WAIT_S):
            async with await trio.open_unix_socket(follower.socket) as client:
                path = b"/services/web/logs?stdout=1&follow=1"
                await client.send_all(b"GET %b HTTP/1.1\r\nHost: d\r\n\r\n" % path)
                while said.count(b"one\n") < 3:
                    said += await client.receive_some()
                assert (await other.request("DELETE", "/services/web")).status == 200
                while not said.endswith(b"\r\n0\r\n\r\n"):
                    more = await client.receive_some()
                    assert more, "the answer broke off"
                    said += more
        assert said.count(b"one\n") == 3


@pytest.mark.parametrize("how", ["hands over", "ends"])
async def test_following_outlasts_the_leader(tmp_path: Path, how: str) -> None:
    """Who follows at a manager that stays reads on when another one leads: of each task that runs
    on, every line once and in order."""
    async with three_managers(tmp_path) as swarm:
        follower = swarm.followers()[0]
        leader = swarm.apis[swarm.leader()]
        env = ["SWARMCTL_NULL_OUTPUT=tick", "SWARMCTL_NULL_OUTPUT_EVERY=20ms"]
        container = {"Image": "host", "Env": env}
        await follower.create("web", TaskTemplate={"ContainerSpec": container}, replicas=3)
        await _until_running(follower, 3)
        tasks = {task["ID"]: task["NodeID"] for task in await follower.get("/tasks")}
        reading = Follower(follower, "/services/web/logs?stdout=1&stderr=1&follow=1&details=1")

        def numbers(task_id: str) -> list[int]:
            mine = [text for _, text in reading.frames if task_id.encode() in text]
            return [int(text.partition(b" tick")[2].strip() or b"0") for text in mine]

        async with trio.open_nursery() as nursery:
            await nursery.start(reading.run)
            await _until(lambda: all(len(numbers(task_id)) > 20 for task_id in tasks))
            if how == "ends":
                swarm.ends[swarm.leader()].cancel()
                staying = [id_ for id_, node in tasks.items() if node != leader.node.node_id]
            else:
                member = follower.manager.raft_status().id
                await leader.manager._runner.transfer_leadership(member)
                staying = list(tasks)
            before = {task_id: len(numbers(task_id)) for task_id in staying}
            await _until(lambda: all(len(numbers(id_)) > before[id_] + 100 for id_ in staying))
            for task_id in staying:
                found = numbers(task_id)
                assert found == list(range(len(found)))
            assert not any(b"[swarmctl:" in text for _, text in reading.frames)
            nursery.cancel_scope.cancel()


async def test_output_of_the_whole_swarm_is_had_at_every_manager(tmp_path: Path) -> None:
    """Each manager gives the same lines of all nodes, of running and of ended tasks."""
    async with three_managers(tmp_path) as swarm:
        for name, more in (("runs", []), ("ended", ["SWARMCTL_NULL_EXIT_AFTER=1ms"])):
            env = [f"SWARMCTL_NULL_OUTPUT={name}", *more]
            template = {
                "ContainerSpec": {"Image": "host", "Env": env},
                "RestartPolicy": {"Condition": "none"},
            }
            await swarm.apis[0].create(name, TaskTemplate=template, replicas=3)
        await _until_running(swarm.apis[0], 3, others="complete")
        for api in swarm.apis:
            for name in ("runs", "ended"):
                body = (await api.request("GET", f"/services/{name}/logs?stdout=1")).body
                assert body.count(f"{name}\n".encode()) == 3, (name, body)
            for task in await api.get("/tasks"):
                body = (await api.request("GET", f"/tasks/{task['ID']}/logs?stdout=1")).body
                assert len(body.splitlines()) == 1


async def _until_running(api: RunningApi, count: int, *, others: str = "") -> None:
    """Wait until so many tasks run, and as many are in another state if one is named."""
    with trio.fail_after(WAIT_S):
        while True:
            states = [task["Status"]["State"] for task in await api.get("/tasks")]
            if states.count("running") == count and (not others or states.count(others) == count):
                return
            await trio.sleep(0.05)
