"""Engines that are not there, are something else, or do not answer. Stubs on real sockets."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from swarmctl_docker_exec.dialect import DockerDialect
from swarmctl_podman_exec.dialect import PodmanDialect

from swarmctl.plugins import EngineUnavailable, ExecutorSettings
from swarmctl.plugins.engine import Engine, EngineExecutor, NotAnEngine, Refused, calls
from swarmctl.plugins.engine.pull import Images, Wanted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarmctl.plugins.engine import Dialect

VERSION = '{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}'
OF_PODMAN = (
    '{"ApiVersion": "1.41", "Components": [{"Name": "Podman Engine", "Version": "%s"}],'
    ' "MinAPIVersion": "1.24"}'
)
VERSIONS = {"docker": VERSION, "podman": OF_PODMAN % "4.3.1"}
PREFIXES = {"docker": "/v1.41", "podman": "/v4.3.0/libpod"}
MAKE: dict[str, Callable[[], Dialect]] = {"docker": DockerDialect, "podman": PodmanDialect}


@pytest.fixture(params=["docker", "podman"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Either engine's; the transports below them are different libraries."""
    return MAKE[request.param]()


@pytest.fixture
def serve(tmp_path: Path, nursery: trio.Nursery) -> Callable[..., Awaitable[str]]:
    """Serves these bodies by path on a unix socket; a path without one is never answered."""

    async def one(stream: trio.SocketStream, bodies: dict[str, tuple[int, str]]) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                received = b""
                while data := await stream.receive_some():
                    received += data
                    while b"\r\n\r\n" in received:
                        head, _, received = received.partition(b"\r\n\r\n")
                        path = head.split()[1].decode().partition("?")[0]
                        if path not in bodies:
                            await trio.sleep_forever()
                        status, body = bodies[path]
                        answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                        await stream.send_all(answer.encode())

    async def start(bodies: dict[str, str | tuple[int, str]]) -> str:
        path = str(tmp_path / "engine.sock")
        known = {
            name: body if isinstance(body, tuple) else (200, body) for name, body in bodies.items()
        }
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(path)
        listener.listen(64)

        async def accept() -> None:
            with listener:
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(one, trio.SocketStream(connection), known)

        nursery.start_soon(accept)
        return path

    return start


async def test_our_own_api_is_refused_as_an_engine(
    serve: Callable[..., Awaitable[str]], dialect: Dialect
) -> None:
    """A node whose engine is its own socket would ask itself for ever; it is told what to do."""
    version = '{"Platform": {"Name": "swarmctl"}, "ApiVersion": "1.50"}'
    path = await serve({"/version": version})
    settings = ExecutorSettings(state_dir="/nowhere", engine=f"unix://{path}")
    with pytest.raises(EngineUnavailable, match=r"is swarmctl's own API, not an engine.*--engine"):
        await EngineExecutor(settings, dialect).describe()


@pytest.mark.parametrize(
    ("kind", "version", "text"),
    [
        ("docker", '{"ApiVersion": "1.39"}', "speaks API 1.40 to 1.39; 1.40 to 1.50 can be used"),
        ("docker", '{"ApiVersion": "1.60", "MinAPIVersion": "1.51"}', "speaks API 1.51 to 1.60"),
        ("docker", OF_PODMAN % "4.3.1", "is Podman's; start with --executor podman"),
        ("podman", OF_PODMAN % "3.4.4", "is Podman 3.4.4; 4.0 is the oldest that can be used"),
        ("podman", VERSION, "is not Podman's; start with --executor docker"),
    ],
)
async def test_engines_that_cannot_be_used_are_refused(
    serve: Callable[..., Awaitable[str]], kind: str, version: str, text: str
) -> None:
    """Too old, too new, or another kind of engine: the error says which, and what would do."""
    engine = Engine(await serve({"/version": version}), MAKE[kind](), changes=8)
    with pytest.raises(NotAnEngine, match=text):
        await engine.get("/info")
    engine.close()


async def test_what_speaks_http_but_is_no_engine(
    serve: Callable[..., Awaitable[str]], dialect: Dialect
) -> None:
    """Some other server on that socket is said to be none."""
    for body in ((404, '{"message": "page not found"}'), (200, "<html>")):
        engine = Engine(await serve({"/version": body}), dialect, changes=8)
        with pytest.raises(EngineUnavailable, match=r"no engine|no JSON"):
            await engine.get("/info")
        engine.close()
        Path(engine.socket_path).unlink()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: path.parent, "there is no such socket"),
        (lambda path: path.write_text("x"), "it is no socket"),
    ],
)
async def test_an_engine_that_is_not_there(
    tmp_path: Path, dialect: Dialect, make: Callable[[Path], object], text: str
) -> None:
    """A missing socket, or a file that is none, is named with its path."""
    path = tmp_path / "engine.sock"
    make(path)
    with pytest.raises(EngineUnavailable, match=text) as caught:
        await Engine(str(path), dialect, changes=8).get("/info")
    assert f"no {dialect.title} engine at unix://{path}" in str(caught.value)


async def test_an_engine_whose_path_leads_nowhere(tmp_path: Path, dialect: Dialect) -> None:
    """A path that cannot even be looked at is unavailable, too, in the kernel's words."""
    (tmp_path / "file").touch()
    with pytest.raises(EngineUnavailable, match=r"/file/engine\.sock: Not a directory"):
        await Engine(str(tmp_path / "file" / "engine.sock"), dialect, changes=8).get("/info")


async def test_an_engine_that_has_gone(tmp_path: Path, dialect: Dialect) -> None:
    """A socket that nobody listens on any more is said not to answer, and why."""
    path = str(tmp_path / "engine.sock")
    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(path)
    with pytest.raises(EngineUnavailable, match="does not answer: Connection refused"):
        await Engine(path, dialect, changes=8).get("/info")


def bodies_of(dialect: Dialect, **answers: str | tuple[int, str]) -> dict[str, object]:
    """What a stub of this engine answers: its version, and these paths below the prefix."""
    prefix = PREFIXES[dialect.name]
    return {
        "/version": VERSIONS[dialect.name],
        **{f"{prefix}/{name}": body for name, body in answers.items()},
    }


async def test_an_engine_that_hangs_is_unavailable(
    serve: Callable[..., Awaitable[str]], dialect: Dialect
) -> None:
    """An engine that accepts and does not answer is given up after a while."""
    engine = Engine(await serve(bodies_of(dialect)), dialect, changes=8)
    with pytest.raises(EngineUnavailable, match="it hangs"):
        await engine.ask("GET", "/info", patience_s=0.2)
    engine.close()


async def test_a_cancelled_call_frees_its_thread_and_its_place(
    serve: Callable[..., Awaitable[str]], dialect: Dialect
) -> None:
    """Cancelling calls that hang ends their threads at once, so the next ones find a place."""
    engine = Engine(await serve(bodies_of(dialect, info="{}")), dialect, changes=8)
    with trio.move_on_after(0.3) as scope:
        async with trio.open_nursery() as nursery:
            for _ in range(2 * calls.LOOKUPS):
                nursery.start_soon(engine.get, "/hangs")
    assert scope.cancelled_caught
    with trio.fail_after(2):
        assert await engine.get("/info") == {}
        while engine.lookups.borrowed_tokens:
            await trio.sleep(0.01)
    engine.close()


PULLS = {
    "docker": b"POST /v1.41/images/create?fromImage=host%3A5000%2Fapp&tag=1 ",
    "podman": b"POST /v4.3.0/libpod/images/pull?reference=host%3A5000%2Fapp%3A1&policy=always ",
}


async def test_registry_credentials_go_with_the_pull(
    tmp_path: Path, nursery: trio.Nursery, dialect: Dialect
) -> None:
    """The assignment's credentials are sent as the engine wants them, and only for the pull."""
    heads: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                heads.append(bytes(data))
                body = VERSIONS[dialect.name].encode() if b"/version " in data else b"{}"
                status = b"404 X" if b"/json " in data else b"200 OK"
                head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                await stream.send_all(head + body)

    listener = trio.socket.socket(trio.socket.AF_UNIX)
    path = str(tmp_path / "engine.sock")
    await listener.bind(path)
    listener.listen(8)
    nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(listener)])
    engine = Engine(path, dialect, changes=8)
    wanted = Wanted(image="host:5000/app:1", auth="c2VjcmV0", spec_key=b"")
    assert await Images(engine, pulls=3).try_pull(wanted) == ""
    engine.close()
    pulls = [head for head in heads if b"X-Registry-Auth: c2VjcmV0" in head]
    assert len(pulls) == 1
    assert pulls[0].startswith(PULLS[dialect.name])


async def test_a_refusal_carries_the_engines_own_words(
    serve: Callable[..., Awaitable[str]], dialect: Dialect
) -> None:
    """Status and message of an error answer are kept, and the connection is used on."""
    refused = (409, '{"cause": "why", "message": "no, sorry", "response": 409}')
    engine = Engine(await serve(bodies_of(dialect, info=refused)), dialect, changes=8)
    for _ in range(2):
        with pytest.raises(Refused, match="no, sorry") as caught:
            await engine.get("/info")
        assert caught.value.status == 409
    engine.close()
