"""Routes of ours for placement, on a whole node: strategies, start order, stop, start, explain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarmctl.core.model.change import Advance, Transaction
from swarmctl.core.model.task import TaskState, TaskStatus

from .running import running_api, service_body
from .test_stock_clients import Docker, cli

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from .running import RunningApi

INVALID = "rpc error: code = InvalidArgument desc = "
PRECONDITION = "rpc error: code = FailedPrecondition desc = "

__all__ = ["cli"]  # a fixture


async def eventually(ask: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is true."""
    with trio.fail_after(20):
        while not await ask():  # noqa: ASYNC110 - no one event stands for any answer
            await trio.sleep(0.02)


async def running(api: RunningApi, service_id: str, count: int) -> None:
    """Wait until so many tasks of a service run."""

    async def enough() -> bool:
        tasks = await api.get("/tasks")
        mine = [task for task in tasks if task["ServiceID"] == service_id]
        states = [str(task["Status"]["State"]) for task in mine]
        return states.count("running") == count

    await eventually(enough)


async def refused(api: RunningApi, **spec: Any) -> tuple[int, str]:
    return await api.refusal("POST", "/services/create", service_body("web", **spec))


async def update(
    api: RunningApi, service_id: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """Read, modify, write: as every stock client updates a service."""
    found = await api.get(f"/services/{service_id}")
    change(found["Spec"])
    version = found["Version"]["Index"]
    path = f"/services/{service_id}/update?version={version}"
    reply = await api.request("POST", path, found["Spec"])
    assert reply.status == 200, reply


async def test_an_unknown_strategy_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    """At create, and at an update that asks for it anew."""
    async with running_api(tmp_path) as api:
        await api.init()
        text = (
            f"{INVALID}label 'swarmctl.strategy': there is no strategy 'tetris'; there are: "
            "binpack, spread"
        )
        assert await refused(api, Labels={"swarmctl.strategy": "tetris"}) == (400, text)
        service_id = await api.create("web", Labels={"swarmctl.strategy": "binpack"})
        found = await api.get(f"/services/{service_id}")
        found["Spec"]["Labels"]["swarmctl.strategy"] = "tetris"
        path = f"/services/{service_id}/update?version={found['Version']['Index']}"
        assert await api.refusal("POST", path, found["Spec"]) == (400, text)


async def test_rebalancing_goes_with_spread_only(tmp_path: Path) -> None:
    """Two wishes that undo each other are told apart at once."""
    async with running_api(tmp_path) as api:
        await api.init()
        labels = {"swarmctl.strategy": "binpack", "swarmctl.rebalance": "on-join"}
        status, text = await refused(api, Labels=labels)
        assert status == 400
        assert "contradict each other" in text
        await api.create("web", Labels={**labels, "swarmctl.strategy": "spread"})


async def test_start_order_is_checked_when_it_is_written(tmp_path: Path) -> None:
    """Unknown services and cycles are refused; a label that cannot be read, too."""
    async with running_api(tmp_path) as api:
        await api.init()
        label = "swarmctl.depends-on"
        assert await refused(api, Labels={label: "db:running"}) == (
            400,
            f"{INVALID}label '{label}': there is no service 'db' to wait for; create it first",
        )
        status, text = await refused(api, Labels={label: "db"})
        assert status == 400
        assert "has the invalid value 'db'" in text
        db = await api.create("db")
        await api.create("web", Labels={label: "db:healthy"})
        found = await api.get(f"/services/{db}")
        found["Spec"]["Labels"] = {label: "web:running"}
        path = f"/services/{db}/update?version={found['Version']['Index']}"
        assert await api.refusal("POST", path, found["Spec"]) == (
            400,
            f"{INVALID}label '{label}': services would wait for each other: db -> web -> db",
        )


async def test_a_service_waits_for_another_and_says_so(tmp_path: Path) -> None:
    """In the task list, in explain, and until the other one runs."""
    async with running_api(tmp_path) as api:
        await api.init()
        db = await api.create("db", replicas=0)
        web = await api.create("web", Labels={"swarmctl.depends-on": "db:running"})

        async def told() -> bool:
            errors = [task["Status"].get("Err") for task in await api.get("/tasks")]
            return errors == ["waits for db to be running"]

        await eventually(told)
        found = await api.get("/services/web/explain")
        assert (found["Running"], found["Wanted"]) == (0, 1)
        assert found["Text"] == "0 of 1 tasks run; waits for db to be running"
        assert found["Tasks"][0]["Waits"] == [
            {"For": "service", "Text": "waits for db to be running"}
        ]
        await update(api, db, lambda spec: spec["Mode"]["Replicated"].update(Replicas=1))
        await running(api, web, 1)
        found = await api.get("/services/web/explain")
        assert found["Text"] == "1 of 1 tasks run"
        assert found["Tasks"] == found["Nodes"] == []


async def test_stop_and_start_keep_the_spec(tmp_path: Path) -> None:
    """What is shown asks for 0 and tells the former number; what comes back is what was there."""
    async with running_api(tmp_path) as api:
        await api.init()
        web = await api.create("web", replicas=3)
        await running(api, web, 3)
        before = await api.get(f"/services/{web}")
        for _ in range(2):
            assert (await api.request("POST", "/services/web/stop")).status == 200
        shown = await api.get(f"/services/{web}")
        assert shown["Spec"]["Mode"] == {"Replicated": {"Replicas": 0}}
        assert shown["Stopped"]["Replicas"] == 3
        await eventually(lambda: _no_tasks(api))
        (listed,) = await api.get("/services?status=true")
        assert listed["ServiceStatus"]["DesiredTasks"] == 0
        assert listed["Stopped"]["Replicas"] == 3
        found = await api.get("/services/web/explain")
        assert found["Text"] == (
            "0 of 0 tasks run; the service is stopped; service start brings it back"
        )
        for _ in range(2):
            assert (await api.request("POST", "/services/web/start")).status == 200
        await running(api, web, 3)
        after = await api.get(f"/services/{web}")
        assert after["Spec"] == before["Spec"]
        assert "Stopped" not in after


async def _no_tasks(api: RunningApi) -> bool:
    return not await api.get("/tasks")


async def test_a_stock_clients_update_keeps_a_service_stopped(tmp_path: Path) -> None:
    """Read, change the arguments, write: it stays stopped and starts with the new ones."""
    async with running_api(tmp_path) as api:
        await api.init()
        web = await api.create("web", replicas=2)
        await running(api, web, 2)
        await api.request("POST", f"/services/{web}/stop")
        await eventually(lambda: _no_tasks(api))

        def change(spec: dict[str, Any]) -> None:
            spec["TaskTemplate"]["ContainerSpec"]["Args"] = ["sleep", "61"]

        await update(api, web, change)
        assert (await api.get(f"/services/{web}"))["Stopped"]["Replicas"] == 2
        reply = await api.request("POST", f"/services/{web}/start")
        assert reply.status == 200
        await running(api, web, 2)
        for task in await api.get("/tasks"):
            assert task["Spec"]["ContainerSpec"]["Args"] == ["sleep", "61"]


async def test_scaling_a_stopped_service_starts_it(tmp_path: Path) -> None:
    """Another number than the 0 that is shown is a command."""
    async with running_api(tmp_path) as api:
        await api.init()
        web = await api.create("web", replicas=2)
        await api.request("POST", f"/services/{web}/stop")
        await update(api, web, lambda spec: spec["Mode"]["Replicated"].update(Replicas=1))
        await running(api, web, 1)
        assert "Stopped" not in await api.get(f"/services/{web}")


async def test_a_rollback_leaves_a_service_stopped(tmp_path: Path) -> None:
    """Specs change places; whether it runs is beside them."""
    async with running_api(tmp_path) as api:
        await api.init()
        web = await api.create("web", replicas=2)
        await update(api, web, lambda spec: spec["Mode"]["Replicated"].update(Replicas=3))
        await api.request("POST", f"/services/{web}/stop")
        found = await api.get(f"/services/{web}")
        path = f"/services/{web}/update?version={found['Version']['Index']}&rollback=previous"
        assert (await api.request("POST", path, found["Spec"])).status == 200
        assert (await api.get(f"/services/{web}"))["Stopped"]["Replicas"] == 2


async def test_what_cannot_be_stopped_or_started_says_why(tmp_path: Path) -> None:
    """A service that is not there, and one that was only scaled to nothing."""
    async with running_api(tmp_path) as api:
        await api.init()
        assert await api.refusal("POST", "/services/x/stop") == (404, "service x not found")
        await api.create("web", replicas=0)
        status, text = await api.refusal("POST", "/services/web/start")
        assert status == 400
        assert text.startswith(f"{PRECONDITION}service web was not stopped: it asks for 0 replicas")


@pytest.mark.parametrize("route", ["services/web", "tasks/{task}"])
async def test_explain_tells_what_each_node_says(tmp_path: Path, route: str) -> None:
    """Filter, need and stock, for a task or its whole service."""
    async with running_api(tmp_path) as api:
        node_id = await api.init()
        task_spec = {
            "ContainerSpec": {"Image": "host", "Args": ["sleep", "60"]},
            "Placement": {"Constraints": ["node.labels.zone==b"]},
            "Resources": {"Reservations": {"MemoryBytes": 1 << 60}},
        }
        await api.create("web", TaskTemplate=task_spec)

        async def refused() -> bool:
            errors = [task["Status"].get("Err", "") for task in await api.get("/tasks")]
            return any(error.startswith("no suitable node") for error in errors)

        await eventually(refused)
        (task,) = await api.get("/tasks")
        found = await api.get(f"/{route.format(task=task['ID'])}/explain")
        (node,) = found["Nodes"]
        assert (node["ID"], node["Name"], node["Fits"]) == (node_id, "here", False)
        resources, constraints = node["Refusals"]
        assert resources["Filter"] == "resources"
        assert resources["Needs"] == "1024 PiB"
        assert " free of " in resources["Has"]
        assert constraints == {
            "Filter": "constraints",
            "Needs": "node.labels.zone==b",
            "Has": "node.labels.zone is ''",
        }
        assert found["Failures"] == []


@pytest.mark.parametrize(
    ("mode", "place"),
    [
        ({"Replicated": {"Replicas": 1}}, "web.1"),
        ({"Global": {}}, "web on node here"),
        ({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}, "web.0"),
        ({"GlobalJob": {}}, "web on node here"),
    ],
)
async def test_explain_tells_what_ended_for_good(
    tmp_path: Path, mode: dict[str, Any], place: str
) -> None:
    """Whatever the mode: a place whose restart policy wants no other task."""
    async with running_api(tmp_path) as api:
        await api.init()
        template = service_body("web")["TaskTemplate"]
        template["RestartPolicy"] = {"Condition": "none"}
        service_id = await api.create("web", Mode=mode, TaskTemplate=template)
        await running(api, service_id, 1)
        (task,) = await api.get("/tasks")
        failed = Advance(task_id=task["ID"], status=TaskStatus(State=TaskState.FAILED, Err="no"))
        await api.propose(Transaction(changes=(failed,)))
        note = f"{place} ended (failed) and is not started again: its restart condition is none"

        async def told() -> bool:
            return (await api.get(f"/services/{service_id}/explain"))["Notes"] == [note]

        await eventually(told)


async def test_a_drain_that_cannot_go_on_says_so_everywhere(tmp_path: Path) -> None:
    """The task that stays, in lists; and explain, of the task and of the service."""
    async with running_api(tmp_path) as api:
        node_id = await api.init()
        service_id = await api.create(
            "web", replicas=2, UpdateConfig={"Parallelism": 1, "Order": "start-first"}
        )
        await running(api, service_id, 2)
        node = await api.get(f"/nodes/{node_id}")
        body = {**node["Spec"], "Availability": "drain"}
        path = f"/nodes/{node_id}/update?version={node['Version']['Index']}"
        assert (await api.request("POST", path, body)).status == 200

        async def staying() -> bool:
            found = await api.get("/tasks")
            states = [task["Status"] for task in found if task["Status"]["State"] == "running"]
            return any("no suitable node" in status.get("Err", "") for status in states)

        await eventually(staying)
        notes = (await api.get(f"/services/{service_id}/explain"))["Notes"]
        assert notes[0].startswith("web.1 stays on drained node here until its replacement ")
        assert notes[1] == "tasks on drained nodes that are not replaced yet: 1 more"
        (task,) = (
            task
            for task in await api.get("/tasks")
            if task["Slot"] == 2 and task["Status"]["State"] == "running"
        )
        text = (await api.get(f"/tasks/{task['ID']}/explain"))["Text"]
        assert text.startswith("runs on node here; stays on drained node here until it is its turn")


async def test_a_task_tells_that_it_could_not_start_first(tmp_path: Path) -> None:
    """In its status message, for every client, and in explain."""
    async with running_api(tmp_path) as api:
        await api.init()
        port = {"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}
        service_id = await api.create(
            "web",
            EndpointSpec={"Ports": [port]},
            UpdateConfig={"Parallelism": 1, "Order": "start-first"},
        )
        await running(api, service_id, 1)
        await update(api, service_id, lambda spec: spec["TaskTemplate"].update(ForceUpdate=1))
        reason = "stop-first: host-mode port 8080 can be held by one task only"

        async def replaced() -> bool:
            messages = [
                task["Status"]["Message"]
                for task in await api.get("/tasks")
                if task["Status"]["State"] == "running"
            ]
            return messages == [f"started, {reason}"]

        await eventually(replaced)
        (task,) = await api.get('/tasks?filters={"desired-state":["running"]}')
        assert (await api.get(f"/tasks/{task['ID']}"))["Status"]["Message"].endswith(reason)
        text = (await api.get(f"/tasks/{task['ID']}/explain"))["Text"]
        assert text == f"runs on node here; it was started {reason}"


async def test_explain_of_what_is_not_there_is_a_404(tmp_path: Path) -> None:
    """As every other route of these objects."""
    async with running_api(tmp_path) as api:
        await api.init()
        assert await api.refusal("GET", "/services/x/explain") == (404, "service x not found")
        assert await api.refusal("GET", "/tasks/x/explain") == (404, "task x not found")


async def test_the_stock_cli_and_a_stopped_service(tmp_path: Path, cli: str) -> None:
    """It lists 0/0, an update waits for nothing and starts nothing, and scaling starts it."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        web = await api.create("web", replicas=2)
        await running(api, web, 2)
        await api.request("POST", "/services/web/stop")
        await eventually(lambda: _no_tasks(api))
        row = "{{.Name}} {{.Replicas}}"
        assert (await run("service", "ls", "--format", row)).out == "web 0/0\n"
        assert (await run("service", "update", "-d", "--env-add", "A=1", "web")).out == "web\n"
        assert await _no_tasks(api)
        assert (await api.get("/services/web"))["Stopped"]["Replicas"] == 2
        await run("service", "scale", "-d", "web=3")
        await running(api, web, 3)
        (task, *_) = await api.get("/tasks")
        assert task["Spec"]["ContainerSpec"]["Env"] == ["A=1"]


async def test_the_stock_cli_sets_our_labels(tmp_path: Path, cli: str) -> None:
    """Everything of ours rides in labels; what is wrong with one is told as by our own."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        label = "swarmctl.depends-on=db:running"
        create = ("service", "create", "-d", "--no-resolve-image", "--name", "web")
        said = await run(*create, "--label", label, "nginx", code=1)
        assert "there is no service 'db' to wait for" in said.err
        await api.create("db", replicas=0)
        await run(*create, "--label", label, "nginx")

        async def told() -> bool:
            row = ("service", "ps", "--no-trunc", "--format", "{{.Error}}", "web")
            return "waits for db to be running" in (await run(*row)).out

        await eventually(told)
