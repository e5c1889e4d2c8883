"""What clients may do to a running node: much, slowly, at once, or wrong."""

from __future__ import annotations

import gc
import json
import time
from typing import TYPE_CHECKING

import trio

from swarmctl.core.model.base import Time
from swarmctl.core.model.change import Applied, Create, Transaction
from swarmctl.core.model.objects import TaskRow
from swarmctl.core.model.task import Task, TaskPrivate, TaskState, TaskStatus
from tests.e2e.lab.unix_http import UnixClient
from tests.stalls import Stalls

from .running import RunningApi, running_api, service_body

if TYPE_CHECKING:
    from pathlib import Path

TASKS = 4_000
STALL_S = 0.02
POLLERS = 200
LIMIT_BYTES = 4 * 1024 * 1024


async def _add_tasks(api: RunningApi, service_id: str, count: int) -> None:
    """Put running tasks of a service into the tables."""
    service = api.manager.view.service(service_id)
    assert service is not None
    rows = [
        TaskRow(
            api=Task(
                ID=f"task{number:021}",
                ServiceID=service_id,
                Slot=number + 1,
                NodeID="n",
                Spec=service.api.Spec.TaskTemplate,
                Status=TaskStatus(State=TaskState.RUNNING, Timestamp=Time(1 + number)),
                DesiredState=TaskState.RUNNING,
            ),
            private=TaskPrivate(service_name="big", spec_version=service.private.spec_index),
        )
        for number in range(count)
    ]
    for start in range(0, count, 500):
        changes = tuple(Create(row=row) for row in rows[start : start + 500])
        assert isinstance(await api.propose(Transaction(changes=changes)), Applied)


async def test_a_long_list_lets_others_work(tmp_path: Path) -> None:
    """Listing thousands of tasks holds the loop for no more than 20 ms at a time, and is whole."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        await _add_tasks(api, await api.create("big", replicas=TASKS), TASKS)
        gc.collect()
        gc.freeze()  # the test's own garbage is not the node's doing
        stalls = Stalls(time.thread_time)
        trio.lowlevel.add_instrument(stalls)
        try:
            reply = await api.request("GET", "/tasks")
            counted = await api.request("GET", "/services?status=true")
        finally:
            trio.lowlevel.remove_instrument(stalls)
            gc.unfreeze()
        assert reply.headers["Transfer-Encoding"] == "chunked"
        assert [row["Slot"] for row in reply.json] == list(range(1, TASKS + 1))
        assert reply.body.endswith(b"]\n")
        assert counted.json[0]["ServiceStatus"]["RunningTasks"] == TASKS
        assert stalls.longest_s < STALL_S
        few = await api.request("GET", "/tasks", query={"filters": {"id": ["task" + "0" * 19]}})
        assert len(few.json) == 100
        assert "Transfer-Encoding" not in few.headers


async def test_a_client_that_does_not_read_costs_only_itself(tmp_path: Path) -> None:
    """While a client sits on a long list without reading it, another is served as ever."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        await _add_tasks(api, await api.create("big", replicas=0), TASKS)
        async with await trio.open_unix_socket(str(api.socket)) as sleeper:
            await sleeper.send_all(b"GET /tasks HTTP/1.1\r\nHost: d\r\n\r\n")
            with trio.fail_after(20):
                assert len(await api.get("/nodes")) == 1
                assert len(await api.get("/tasks")) == TASKS


async def test_two_hundred_clients_may_poll_at_once(tmp_path: Path) -> None:
    """200 clients that watch a service converge are all answered, while another writes."""
    async with running_api(tmp_path) as api:
        await api.init()
        service_id = await api.create("web", replicas=3)
        filters = json.dumps({"service": [service_id], "_up-to-date": ["true"]})

        def poll() -> list[int]:
            with UnixClient(api.socket, timeout_s=60) as client:
                return [
                    client.request("GET", path, query=query).status
                    for _ in range(3)
                    for path, query in (
                        (f"/services/{service_id}", {"insertDefaults": "false"}),
                        ("/tasks", {"filters": filters}),
                        ("/nodes", {}),
                    )
                ]

        statuses: list[int] = []

        many = trio.CapacityLimiter(POLLERS)

        async def run_poll() -> None:
            statuses.extend(await trio.to_thread.run_sync(poll, limiter=many))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(POLLERS):
                    nursery.start_soon(run_poll)
                for number in range(5):
                    await api.create(f"other-{number}")
        assert statuses == [200] * (POLLERS * 9)


BODIES = {
    "no JSON": (b"{", "application/json", 400, "invalid JSON: unexpected EOF"),
    "two values": (b"{} {}", "application/json", 400, "unexpected content after JSON"),
    "a list": (b"[]", "application/json", 400, "invalid JSON: expected object, got array"),
    "not UTF-8": (b'{"Name":"\xff"}', "application/json", 400, "invalid JSON: not UTF-8"),
    "too deep": (b"[" * 100_000, "application/json", 400, "invalid JSON: "),
    "no type": (b"{}", "", 400, "unsupported Content-Type header (): must be 'application/json'"),
    "wrong type": (
        b"{}",
        "text/plain",
        400,
        "unsupported Content-Type header (text/plain): must be 'application/json'",
    ),
    "too long": (
        b" " * (LIMIT_BYTES + 1),
        "application/json",
        413,
        f"request body is larger than {LIMIT_BYTES} bytes",
    ),
}


async def test_bodies_that_are_none(tmp_path: Path) -> None:
    """Whatever comes as a body is answered with what is wrong with it, and the node lives on."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        for case, (body, kind, status, text) in BODIES.items():
            reply = await api.request(
                "POST", "/services/create", body, headers={"Content-Type": kind}
            )
            assert reply.status == status, case
            assert reply.json["message"].startswith(text), case
        env = {"ContainerSpec": {"Image": "host", "Env": ["A=" + "x" * 2_000_000]}}
        answer = await api.refusal(
            "POST", "/services/create", service_body("web", TaskTemplate=env)
        )
        assert answer[0] == 400
        assert "the change is too large: 2000" in answer[1]
        more = {"Content-Type": "Application/JSON; charset=utf-8"}
        body = json.dumps(service_body("web", replicas=0)).encode()
        assert (await api.request("POST", "/services/create", body, headers=more)).status == 201


async def test_a_chunked_body_may_not_be_empty(tmp_path: Path) -> None:
    """No body is the zero value; one that was announced and holds nothing is an error."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        async with await trio.open_unix_socket(str(api.socket)) as stream:
            await stream.send_all(
                b"POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
            )
            answer = b"".join([chunk async for chunk in stream])
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"invalid JSON: got EOF while reading request body" in answer
