"""What tasks have written, as the log routes stream it (docker-api.md section 2.7)."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import trio

from swarmctl.core.api import merge

from .following import Follower, frames_of
from .running import RunningApi, running_api

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from swarmctl.core.wire.link import Link


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
        assert sorted(frames_of(both.body)) == [(1, b"one\n"), (1, b"two\n"), (2, b"oops\n")]
        one = await api.request("GET", "/services/web/logs?stdout=1&tail=1")
        assert frames_of(one.body) == [(1, b"two\n")]
        many = await api.request("GET", f"/services/web/logs?stdout=1&tail={10**25}")
        assert len(frames_of(many.body)) == 2
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
        assert frames_of(old.body) == [(1, b"one\n"), (1, b"two\n")]
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
        ((stream, line),) = frames_of((await api.request("GET", path)).body)
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
        assert sorted(frames_of(answers[0])) == [(1, b"one\n")] * 3 + [(1, b"two\n")] * 3


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


async def test_output_that_cannot_be_had_is_named_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node without a session costs its own lines only; the stream's end says once which it is."""
    monkeypatch.setattr(merge, "PATIENCE_S", 0.2)
    async with running_api(tmp_path) as api:
        node = await api.init()
        await _say(api, "web", replicas=3)
        monkeypatch.setattr(api.manager.dispatcher, "connected", lambda _node_id: None)
        frames = frames_of((await api.request("GET", "/services/web/logs?stdout=1")).body)
        assert frames == [
            (
                3,
                b"warning: incomplete log stream. some logs could not be retrieved for the "
                b"following reasons: node here (%b) is not available: it is not in session with "
                b"the leader" % node.encode(),
            )
        ]


async def test_a_session_that_comes_back_in_time_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a new leader, agents take a moment; a question meanwhile is answered whole."""
    async with running_api(tmp_path) as api:
        await api.init()
        await _say(api, "web")
        dispatcher = api.manager.dispatcher
        connected, asked = dispatcher.connected, []

        def late(node_id: str) -> Link | None:
            asked.append(node_id)
            return connected(node_id) if len(asked) > 3 else None

        monkeypatch.setattr(dispatcher, "connected", late)
        body = (await api.request("GET", "/services/web/logs?stdout=1")).body
        assert frames_of(body) == [(1, b"one\n"), (1, b"two\n")]


async def test_a_follower_of_the_present_misses_nothing_of_what_comes(tmp_path: Path) -> None:
    """A tail of 0 leaves out what there was; of tasks that start later all lines come."""
    async with running_api(tmp_path) as api:
        await api.init()
        await _say(api, "web")
        follower = Follower(api, "/services/web/logs?stdout=1&stderr=1&follow=1&tail=0")
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run)
            shown = await api.get("/services/web")
            spec = {**shown["Spec"], "Mode": {"Replicated": {"Replicas": 2}}}
            path = f"/services/web/update?version={shown['Version']['Index']}"
            assert (await api.request("POST", path, spec)).status == 200
            await follower.wait(lambda frames: len(frames) >= 3)
            assert sorted(follower.frames) == [(1, b"one\n"), (1, b"two\n"), (2, b"oops\n")]
            nursery.cancel_scope.cancel()


async def test_following_goes_on_over_ends_and_replacements(tmp_path: Path) -> None:
    """Each task of a service that ends again and again is read once, however short it ran; the
    follower of one task ends with that task."""
    async with running_api(tmp_path) as api:
        await api.init()
        env = ["SWARMCTL_NULL_OUTPUT=hello", "SWARMCTL_NULL_EXIT_AFTER=300ms"]
        template = {
            "ContainerSpec": {"Image": "host", "Env": env},
            "RestartPolicy": {"Condition": "any", "Delay": 0},
        }
        await api.create("again", TaskTemplate=template)
        follower = Follower(api, "/services/again/logs?stdout=1&stderr=1&follow=1&details=1")
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run)
            await follower.wait(lambda frames: len(frames) >= 4)
            origins = [text for _, text in follower.frames]
            assert len(set(origins)) == len(origins)
            assert all(text.endswith(b" hello\n") for text in origins)
            (running,) = await _until(api, "again", "running", 1)
            one = Follower(api, f"/tasks/{running['ID']}/logs?stdout=1&follow=1")
            await nursery.start(one.run)
            await one.wait(lambda _: one.over)
            assert one.frames == [(1, b"hello\n")]
            assert not follower.over
            nursery.cancel_scope.cancel()


async def test_a_node_that_is_lost_is_named_while_the_rest_streams_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower reads of a lost node in one line on stderr, with a task of it as origin, so that
    stock clients bear it; what comes of other nodes goes on; a node that came back and is lost
    again is named again."""
    async with running_api(tmp_path) as api:
        node = await api.init()
        await _say(api, "web", replicas=2)
        lost: set[str] = set()
        monkeypatch.setattr(merge.Merge, "_is_lost", lambda _self, node_id: node_id in lost)
        follower = Follower(api, "/services/web/logs?stdout=1&stderr=1&follow=1&details=1&tail=0")
        lost.add(node)
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run)
            await follower.wait(lambda frames: frames)
            ((stream, text),) = follower.frames
            assert stream == 2
            assert b"com.docker.swarm.task.id=" in text
            said = text.decode().partition(" ")[2]
            assert said == (
                f"[swarmctl: node here ({node}) cannot be reached: the output of its tasks is "
                "missing until it is back]\n"
            )
            for number in range(2):
                await api.create(f"touch{number}")  # something for the look
                lost.symmetric_difference_update([node])
                await api.create(f"look{number}")
                await _until(api, f"look{number}", "running", 1)
            await follower.wait(lambda frames: len([f for f in frames if b"cannot" in f[1]]) == 2)
            nursery.cancel_scope.cancel()


async def test_a_slow_reader_stalls_nobody(tmp_path: Path) -> None:
    """While some clients do not read what they follow, another gets every line as it comes, and the
    node stays in session."""
    async with running_api(tmp_path) as api:
        node = await api.init()
        text = "\n".join("x" * 500 for _ in range(100))
        env = [f"SWARMCTL_NULL_OUTPUT={text}", "SWARMCTL_NULL_OUTPUT_EVERY=20ms"]
        await api.create("web", TaskTemplate={"ContainerSpec": {"Image": "host", "Env": env}})
        await _until(api, "web", "running", 1)
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for _ in range(3):
                slow = await stack.enter_async_context(await trio.open_unix_socket(str(api.socket)))
                target = b"/services/web/logs?stdout=1&follow=1"
                await slow.send_all(b"GET " + target + b" HTTP/1.1\r\nHost: d\r\n\r\n")
                assert (await slow.receive_some(12)).startswith(b"HTTP/1.1 200")
            follower = Follower(api, "/services/web/logs?stdout=1&follow=1")
            await nursery.start(follower.run)
            await follower.wait(lambda frames: len(frames) > 20_000)  # 10 MB: more than is buffered
            numbers = [int(b"0" + text[501:]) for _, text in follower.frames]
            assert numbers == [at // 100 for at in range(len(numbers))]
            assert (await api.get(f"/nodes/{node}"))["Status"]["State"] == "ready"
            nursery.cancel_scope.cancel()
