"""What tasks have written, as the log routes stream it (docker-api.md section 2.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from .running import RunningApi, running_api

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

Frame = tuple[int, bytes]


def _frames(data: bytes) -> list[Frame]:
    """Take Docker's frames apart: the stream's number and what was written."""
    found = []
    while data:
        assert data[1:4] == b"\0\0\0"
        length = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + length]))
        data = data[8 + length :]
    return found


async def _say(api: RunningApi, name: str, *, replicas: int = 1, **container: Any) -> str:
    """Create a service whose tasks print on both streams, and wait until they run."""
    env = ["SWARMCTL_NULL_OUTPUT=one\ntwo", "SWARMCTL_NULL_ERROR_OUTPUT=oops"]
    template = {"ContainerSpec": {"Image": "host", "Env": env, **container}}
    service_id = await api.create(name, replicas=replicas, TaskTemplate=template)
    await _until(api, name, "running", replicas)
    return service_id


async def _until(api: RunningApi, name: str, state: str, count: int) -> list[dict[str, Any]]:
    with trio.fail_after(20):
        while True:
            query = {"filters": {"service": [name]}}
            reply = await api.request("GET", "/tasks", query=query)
            tasks = [task for task in reply.json if task["Status"]["State"] == state]
            if len(tasks) == count:
                return tasks
            await trio.sleep(0.02)


async def test_each_line_is_a_frame_of_its_stream(tmp_path: Path) -> None:
    """One line a frame, its stream in the header; only the streams asked for; the last n lines."""
    async with running_api(tmp_path) as api:
        await api.init()
        await _say(api, "web")
        both = await api.request("GET", "/services/web/logs?stdout=1&stderr=true")
        assert both.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert sorted(_frames(both.body)) == [(1, b"one\n"), (1, b"two\n"), (2, b"oops\n")]
        one = await api.request("GET", "/services/web/logs?stdout=1&tail=1")
        assert _frames(one.body) == [(1, b"two\n")]
        many = await api.request("GET", f"/services/web/logs?stdout=1&tail={10**25}")
        assert len(_frames(many.body)) == 2
        later = await api.request("GET", "/services/web/logs?stdout=1&since=99999999999.5")
        assert later.body == b""
        since = await api.refusal("GET", "/services/web/logs?stdout=1&since=now")
        assert since == (500, "since value 'now' must be seconds since the epoch")


async def test_old_clients_and_terminals_have_their_own_type(tmp_path: Path) -> None:
    """Before API 1.42 frames had the raw stream's name; a terminal's output has no frames."""
    async with running_api(tmp_path) as api:
        await api.init()
        await _say(api, "web")
        raw = "application/vnd.docker.raw-stream"
        old = await api.request("GET", "/v1.41/services/web/logs?stdout=1")
        assert old.headers["Content-Type"] == raw
        assert _frames(old.body) == [(1, b"one\n"), (1, b"two\n")]
        new = await api.request("GET", "/v1.42/services/web/logs?stdout=1")
        assert new.headers["Content-Type"] != raw
        await _say(api, "terminal", TTY=True)
        terminal = await api.request("GET", "/services/terminal/logs?stdout=1")
        assert terminal.headers["Content-Type"] == raw
        assert terminal.body == b"one\ntwo\n"


async def test_details_name_the_task_and_its_node(tmp_path: Path) -> None:
    """The CLI asks for details and finds node, service and task in each line, sorted by key."""
    async with running_api(tmp_path) as api:
        node = await api.init()
        service = await _say(api, "web")
        (task,) = await _until(api, "web", "running", 1)
        path = f"/tasks/{task['ID']}/logs?stderr=1&details=1&timestamps=1"
        ((stream, line),) = _frames((await api.request("GET", path)).body)
        at, details, text = line.decode().split(" ", 2)
        assert (stream, text) == (2, "oops\n")
        assert len(at) == len("2023-11-14T22:13:20.000000000Z")
        assert details == (
            f"com.docker.swarm.node.id={node},com.docker.swarm.service.id={service},"
            f"com.docker.swarm.task.id={task['ID']}"
        )


async def test_following_takes_in_new_tasks_and_ends_with_the_service(tmp_path: Path) -> None:
    """A follower reads tasks that come later too, and its stream ends once the service is gone."""
    async with running_api(tmp_path) as api:
        await api.init()
        await _say(api, "web")
        answers: list[bytes] = []

        async def follow() -> None:
            reply = await api.request("GET", "/services/web/logs?stdout=1&follow=1")
            answers.append(reply.body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            shown = await api.get("/services/web")
            spec = {**shown["Spec"], "Mode": {"Replicated": {"Replicas": 3}}}
            path = f"/services/web/update?version={shown['Version']['Index']}"
            assert (await api.request("POST", path, spec)).status == 200
            await _until(api, "web", "running", 3)
            assert (await api.request("DELETE", "/services/web")).status == 200
        assert sorted(_frames(answers[0])) == [(1, b"one\n")] * 3 + [(1, b"two\n")] * 3


async def test_a_follower_that_leaves_is_no_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that hangs up in the middle of a stream ends its reading, and nothing is logged."""
    async with running_api(tmp_path) as api:
        await api.init()
        await _say(api, "web")
        for _ in range(3):
            async with await trio.open_unix_socket(str(api.socket)) as stream:
                target = b"/services/web/logs?stdout=1&follow=1"
                await stream.send_all(b"GET " + target + b" HTTP/1.1\r\nHost: d\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK\r\n")
            assert (await api.get("/services/web"))["Spec"]["Name"] == "web"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_output_that_cannot_be_had_is_named_at_the_end(tmp_path: Path) -> None:
    """A node without a session costs its own lines only; the stream's end says which it is."""
    async with running_api(tmp_path) as api:
        node = await api.init()
        await _say(api, "web")
        assert api.node.agent is not None
        link = api.manager.dispatcher.connected(node)
        assert link is not None
        api.manager.dispatcher.connected = lambda _node_id: None  # type: ignore[method-assign]
        frames = _frames((await api.request("GET", "/services/web/logs?stdout=1")).body)
        assert frames == [
            (
                3,
                b"warning: incomplete log stream. some logs could not be retrieved for the "
                b"following reasons: node %b is not available" % node.encode(),
            )
        ]
