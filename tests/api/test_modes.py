"""Global services and jobs through the API: what is stored, counted, started anew and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from .running import RunningApi, running_api, service_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LOOKS = 200
LOOK_EVERY_S = 0.1
INVALID = "rpc error: code = InvalidArgument desc = "


def ending(after: str = "0s", code: int = 0) -> dict[str, object]:
    """A task that ends by itself."""
    env = [f"SWARMCTL_NULL_EXIT_AFTER={after}", f"SWARMCTL_NULL_EXIT_CODE={code}"]
    return {"ContainerSpec": {"Image": "host", "Env": env}}


async def eventually(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Wait until something is as wanted."""
    last = None
    for _ in range(LOOKS):
        last = await ask()
        if last == wanted:
            return
        await trio.sleep(LOOK_EVERY_S)
    assert last == wanted


async def counts(api: RunningApi, name: str) -> tuple[int, int, int]:
    """Running, desired and completed tasks, as ``service ls`` asks for them."""
    listed = await api.get('/services?status=true&filters={"name":["%s"]}' % name)  # noqa: UP031
    (found,) = listed
    status = found["ServiceStatus"]
    return status["RunningTasks"], status["DesiredTasks"], status["CompletedTasks"]


async def update(api: RunningApi, name: str, query: str = "", **changes: object) -> None:
    """Update a service as a client does: read, change, write."""
    shown = await api.get(f"/services/{name}")
    path = f"/services/{name}/update?version={shown['Version']['Index']}{query}"
    done = await api.request("POST", path, {**shown["Spec"], **changes})
    assert done.status == 200, done


async def run_of(api: RunningApi, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(f"/services/{name}"))["JobStatus"]
    return found


async def test_a_global_service_runs_on_the_node(tmp_path: Path) -> None:
    """It is stored as sent, its task has a node and no slot, and one is counted as desired."""
    async with running_api(tmp_path) as api:
        node_id = await api.init()
        await api.create("agent", Mode={"Global": {}})
        await eventually(lambda: counts(api, "agent"), (1, 1, 0))
        shown = await api.get("/services/agent")
        assert shown["Spec"]["Mode"] == {"Global": {}}
        assert "JobStatus" not in shown
        (task,) = await api.get("/tasks")
        assert task["NodeID"] == node_id
        assert "Slot" not in task
        await update(api, "agent", Mode={"Global": {}}, Labels={"a": "b"})
        await eventually(lambda: counts(api, "agent"), (1, 1, 0))


async def test_a_job_counts_and_runs_again(tmp_path: Path) -> None:
    """Runs count from 0; each update starts one, and only its tasks are counted."""
    async with running_api(tmp_path) as api:
        await api.init()
        mode = {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}
        await api.create("batch", Mode=mode, TaskTemplate=ending())
        await eventually(lambda: counts(api, "batch"), (0, 2, 5))
        first = await run_of(api, "batch")
        assert first["JobIteration"] == {"Index": 0}
        tasks = await api.get("/tasks")
        assert sorted(task.get("Slot", 0) for task in tasks) == [0, 1, 2, 3, 4]
        assert {task["DesiredState"] for task in tasks} == {"complete"}
        assert all(task["JobIteration"] == {"Index": 0} for task in tasks)
        await update(api, "batch")
        second = await run_of(api, "batch")
        assert second["JobIteration"] == {"Index": 1}
        assert second["LastExecution"] > first["LastExecution"]
        await eventually(lambda: counts(api, "batch"), (0, 2, 5))
        assert len(await api.get("/tasks")) == 10


async def test_a_job_goes_back_in_a_run_of_its_own(tmp_path: Path) -> None:
    """A rollback starts a run of the former spec; there is no update whose status could be told."""
    async with running_api(tmp_path) as api:
        await api.init()
        mode = {"ReplicatedJob": {"TotalCompletions": 2}}
        await api.create("batch", Mode=mode, TaskTemplate=ending())
        await update(api, "batch", Mode={"ReplicatedJob": {"TotalCompletions": 3}})
        await eventually(lambda: counts(api, "batch"), (0, 1, 3))
        await update(api, "batch", "&rollback=previous")
        await eventually(lambda: counts(api, "batch"), (0, 1, 2))
        shown = await api.get("/services/batch")
        assert shown["JobStatus"]["JobIteration"] == {"Index": 2}
        assert "UpdateStatus" not in shown


async def test_a_global_job_completes_once(tmp_path: Path) -> None:
    """One completion for the node, and what it was waits in the list."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("sweep", Mode={"GlobalJob": {}}, TaskTemplate=ending())
        await eventually(lambda: counts(api, "sweep"), (0, 0, 1))


async def test_a_job_that_fails_for_good_says_so(tmp_path: Path) -> None:
    """Without restarts a failed task is not tried again, and its slot stays short."""
    async with running_api(tmp_path) as api:
        await api.init()
        task = {**ending(code=3), "RestartPolicy": {"Condition": "none"}}
        await api.create("batch", Mode={"ReplicatedJob": {}}, TaskTemplate=task)

        async def states() -> list[tuple[str, str]]:
            tasks = await api.get("/tasks")
            return [(task["DesiredState"], task["Status"].get("Err", "")) for task in tasks]

        await eventually(states, [("shutdown", "task: non-zero exit (3)")])
        assert await counts(api, "batch") == (0, 1, 0)


async def test_what_is_read_with_defaults_may_be_written_back(tmp_path: Path) -> None:
    """A job shows no update settings, since it may not be given any."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("sweep", Mode={"GlobalJob": {}}, TaskTemplate=ending())
        shown = await api.get("/services/sweep?insertDefaults=true")
        assert "UpdateConfig" not in shown["Spec"]
        path = f"/services/sweep/update?version={shown['Version']['Index']}"
        assert (await api.request("POST", path, shown["Spec"])).status == 200
        rolled = {**shown["Spec"], "UpdateConfig": {"Parallelism": 2}}
        shown = await api.get("/services/sweep")
        path = f"/services/sweep/update?version={shown['Version']['Index']}"
        assert await api.refusal("POST", path, rolled) == (
            400,
            INVALID + "Jobs may not have an update config",
        )


async def test_numbers_that_no_job_may_have(tmp_path: Path) -> None:
    """What Go reads as negative, and more than any cluster holds, is refused by name."""
    async with running_api(tmp_path) as api:
        await api.init()
        for numbers, text in (
            ({"MaxConcurrent": 2**63}, "Maximum concurrent jobs must not be negative"),
            ({"TotalCompletions": 2**63}, "Total completed jobs must not be negative"),
            ({"TotalCompletions": 100_001}, "100001 tasks are more than the 100000 a service may"),
        ):
            body = service_body("batch", Mode={"ReplicatedJob": numbers})
            status, said = await api.refusal("POST", "/services/create", body)
            assert status == 400
            assert said.startswith(INVALID + text)
        assert await api.get("/services") == []
