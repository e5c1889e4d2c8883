"""Secrets and configs over the API of a whole node: their life, their versions, what follows."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarmctl.core.api import payloads
from swarmctl.core.errors import Unavailable
from swarmctl.core.model.change import Kind
from swarmctl.plugins.null_exec import NullExecutor

from .running import running_api, service_body

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from swarmctl.plugins import TaskController
    from swarmctl.plugins.model import TaskAssignment

    from .running import RunningApi

INVALID = "rpc error: code = InvalidArgument desc = "
EXISTS = "rpc error: code = AlreadyExists desc = "
UNIMPLEMENTED = "rpc error: code = Unimplemented desc = "
BAD_NAME = (
    INVALID + "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end "
    "character must be [a-zA-Z0-9]"
)
LABELS_ONLY = INVALID + "only updates to Labels are allowed"
KINDS = ("secret", "config")
WAIT_S = 30.0


class Recorder(NullExecutor):
    """Pretends to run tasks, and remembers what it was given for them."""

    def __init__(self) -> None:
        super().__init__(hostname="here")
        self.given: dict[str, TaskAssignment] = {}

    def controller(self, assignment: TaskAssignment) -> TaskController:
        self.given[assignment.task.ID] = assignment
        return super().controller(assignment)


def _data(content: bytes) -> str:
    return base64.b64encode(content).decode()


async def _create(
    api: RunningApi, kind: str, name: str, content: bytes = b"one", **spec: object
) -> str:
    body = {"Name": name, "Data": _data(content), **spec}
    reply = await api.request("POST", f"/{kind}s/create", body)
    assert reply.status == 201, reply
    return str(reply.json["ID"])


async def _new_version(
    api: RunningApi, kind: str, name: str, content: bytes, *, roll: bool = True, **more: object
) -> Any:
    path = f"/{kind}s/{name}/versions" + ("" if roll else "?roll=false")
    reply = await api.request("POST", path, {"Data": _data(content), **more})
    assert reply.status == (200 if reply.json["Unchanged"] else 201), reply
    return reply.json


def _uses(kind: str, payload_id: str, name: str = "pw") -> dict[str, Any]:
    word = kind.capitalize()
    file = {"Name": name, "UID": "0", "GID": "0", "Mode": 0o444}
    return {f"{word}s": [{"File": file, f"{word}ID": payload_id, f"{word}Name": name}]}


def _service(name: str, uses: dict[str, Any], *, replicas: int = 0) -> dict[str, Any]:
    container = {"Image": "host", "Args": ["sleep", "60"], **uses}
    return service_body(name, replicas=replicas, TaskTemplate={"ContainerSpec": container})


async def _serve(api: RunningApi, name: str, uses: dict[str, Any], *, replicas: int = 0) -> None:
    body = _service(name, uses, replicas=replicas)
    reply = await api.request("POST", "/services/create", body)
    assert reply.status == 201, reply


async def _update(api: RunningApi, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Read a service, change its spec in place, post it back: as every client does."""
    shown = await api.get(f"/services/{name}")
    change(shown["Spec"])
    path = f"/services/{name}/update?version={shown['Version']['Index']}"
    reply = await api.request("POST", path, shown["Spec"])
    assert reply.status == 200, reply


def _container(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["TaskTemplate"]["ContainerSpec"]
    return found


def _ids_in(spec: dict[str, Any], kind: str) -> list[str]:
    word = kind.capitalize()
    return [use[f"{word}ID"] for use in _container(spec).get(f"{word}s", ())]


async def _ids(api: RunningApi, service: str, kind: str) -> list[str]:
    return _ids_in((await api.get(f"/services/{service}"))["Spec"], kind)


async def _until(condition: Callable[[], object]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - no one event stands for any condition
            await trio.sleep(0.01)


# --- as Docker has it ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_the_life_of_one(tmp_path: Path, kind: str) -> None:
    """Created, listed, read, relabelled and removed, in Docker's shapes; a secret's data shows
    nowhere, a config's in both answers."""
    async with running_api(tmp_path) as api:
        await api.init()
        made = await _create(api, kind, "pw", b"hunter2", Labels={"a": "b"})
        shown = await api.get(f"/{kind}s/{made}")
        assert shown == await api.get(f"/{kind}s/pw") == await api.get(f"/{kind}s/{made[:8]}")
        assert await api.get(f"/{kind}s") == [shown]
        spec = {"Name": "pw", "Labels": {"a": "b"}}
        if kind == "config":
            spec["Data"] = _data(b"hunter2")  # type: ignore[assignment] # JSON
        assert shown["Spec"] == spec
        assert set(shown) == {"ID", "Version", "CreatedAt", "UpdatedAt", "Spec"}
        # stack deploy sends the data again with every update
        path = f"/{kind}s/{made}/update?version={shown['Version']['Index']}"
        changed = {"Name": "pw", "Labels": {"c": "d"}, "Data": _data(b"hunter2")}
        done = await api.request("POST", path, changed)
        assert (done.status, done.body) == (200, b"")
        after = await api.get(f"/{kind}s/pw")
        assert after["Spec"] == {**spec, "Labels": {"c": "d"}}
        assert after["CreatedAt"] == shown["CreatedAt"]
        sequence = (500, "rpc error: code = Unknown desc = update out of sequence")
        assert await api.refusal("POST", path, changed) == sequence
        path = f"/{kind}s/{made}/update?version={after['Version']['Index']}"
        assert await api.refusal("POST", path, {"Name": "other"}) == (400, LABELS_ONLY)
        way = f"{LABELS_ONLY}; for a new version of the data set the label swarmctl.versions=auto"
        other = {"Name": "pw", "Data": _data(b"x")}
        assert await api.refusal("POST", path, other) == (400, way)
        gone = await api.request("DELETE", f"/{kind}s/pw")
        assert (gone.status, gone.body) == (204, b"")
        assert await api.refusal("GET", f"/{kind}s/pw") == (404, f"{kind} pw not found")
        assert await api.get(f"/{kind}s") == []
        await _create(api, kind, "pw")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_label_makes_versions_of_updates(tmp_path: Path, kind: str) -> None:
    """Where it is set, Docker's own update with other data is a new version that services follow;
    it is still refused out of sequence, and with the same data it changes labels only."""
    async with running_api(tmp_path) as api:
        await api.init()
        auto = {"swarmctl.versions": "auto"}
        old = await _create(api, kind, "pw", b"1", Labels=auto)
        await _serve(api, "web", _uses(kind, old))
        shown = await api.get(f"/{kind}s/pw")
        path = f"/{kind}s/{old}/update?version={shown['Version']['Index']}"
        same = {"Name": "pw", "Data": _data(b"1"), "Labels": {**auto, "a": "b"}}
        assert (await api.request("POST", path, same)).status == 200
        assert (await api.get(f"/{kind}s/pw"))["ID"] == old
        sequence = (500, "rpc error: code = Unknown desc = update out of sequence")
        other = {"Name": "pw", "Data": _data(b"2"), "Labels": auto}
        assert await api.refusal("POST", path, other) == sequence
        shown = await api.get(f"/{kind}s/pw")
        path = f"/{kind}s/{old}/update?version={shown['Version']['Index']}"
        done = await api.request("POST", path, other)
        assert (done.status, done.body) == (200, b"")
        after = await api.get(f"/{kind}s/pw")
        assert (after["Revision"], after["Spec"]["Labels"]) == (2, auto)
        assert await _ids(api, "web", kind) == [after["ID"]]
        assert await api.refusal("POST", path, {**other, "Data": _data(b"3")}) == sequence


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_refused(tmp_path: Path, kind: str) -> None:
    """Names, sizes, drivers and templates that cannot be, in Docker's words where it has any."""
    limit = 512_000 if kind == "secret" else 1_024_000
    size = INVALID + f"{kind} data must be larger than 0 and less than {limit} bytes"
    one = _data(b"1")
    no_template = INVALID + (
        "the secret's data is no template"
        if kind == "secret"
        else "the config's data: template parsing error: unclosed action"
    )
    async with running_api(tmp_path) as api:
        await api.init()
        await _create(api, kind, "taken", b"x" * (limit - 1))
        for body, answer in (
            ({"Data": one}, (400, INVALID + "name must be provided")),
            ({"Name": "a/b", "Data": one}, (400, BAD_NAME)),
            ({"Name": "a" * 65, "Data": one}, (400, BAD_NAME)),
            ({"Name": "a"}, (400, size)),
            ({"Name": "a", "Data": _data(b"x" * limit)}, (400, size)),
            ({"Name": "TAKEN", "Data": one}, (409, EXISTS + f"{kind} TAKEN already exists")),
            (
                {"Name": "a", "Data": one, "Templating": {"Name": "jinja"}},
                (
                    400,
                    INVALID + "template driver 'jinja' is not known; 'golang' is the one there is",
                ),
            ),
            (
                {"Name": "a", "Data": _data(b"{{hunter2"), "Templating": {"Name": "golang"}},
                (400, no_template),
            ),
        ):
            assert await api.refusal("POST", f"/{kind}s/create", body) == answer
        assert [row["Spec"]["Name"] for row in await api.get(f"/{kind}s")] == ["taken"]


async def test_a_secret_of_a_driver_is_refused(tmp_path: Path) -> None:
    """Where data would come from elsewhere, the answer says that it cannot and what can be done."""
    async with running_api(tmp_path) as api:
        await api.init()
        status, text = await api.refusal(
            "POST", "/secrets/create", {"Name": "a", "Driver": {"Name": "vault"}}
        )
        assert status == 501
        assert text == UNIMPLEMENTED + (
            "secret driver 'vault' is not available in this release: the swarm keeps the data "
            "itself, so create the secret from a file or standard input"
        )


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_used_is_not_removed(tmp_path: Path, kind: str) -> None:
    """Removal is refused naming the services, until none of them uses it any more."""
    async with running_api(tmp_path) as api:
        await api.init()
        made = await _create(api, kind, "pw")
        await _serve(api, "web", _uses(kind, made))
        text = f"{kind} 'pw' is in use by the following service: web"
        assert await api.refusal("DELETE", f"/{kind}s/pw") == (400, INVALID + text)
        await _serve(api, "api", _uses(kind, made))
        text = f"{kind} 'pw' is in use by the following services: api, web"
        assert await api.refusal("DELETE", f"/{kind}s/pw") == (400, INVALID + text)
        await api.request("DELETE", "/services/api")
        await _update(api, "web", lambda spec: _container(spec).update(NOTHING))
        assert (await api.request("DELETE", f"/{kind}s/pw")).status == 204
        # the spec before used it; going back there cannot be
        shown = await api.get("/services/web")
        path = f"/services/web/update?version={shown['Version']['Index']}&rollback=previous"
        assert await api.refusal("POST", path, {}) == (400, INVALID + f"{kind} not found: pw")


NOTHING: dict[str, Any] = {"Secrets": [], "Configs": []}


async def test_a_secrets_data_is_told_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Through a secret's whole life no answer, no refusal, no log line, no task's error and no
    file of the node holds its data, in text or in base64; nor a config's that is made of it."""
    caplog.set_level(logging.DEBUG)
    marks = (MARKER, base64.b64encode(MARKER)[:-4])
    said = b""
    async with running_api(tmp_path, executor=Recorder()) as api:
        await api.init()
        templated = {"Templating": {"Name": "golang"}}
        made = await _create(api, "secret", "pw", MARKER)
        conf = await _create(api, "config", "conf", b'{{secret "pw"}}', **templated)
        wrong = await _create(api, "config", "wrong", b'{{range secret "pw"}}{{end}}', **templated)
        uses = _uses("secret", made)
        await _serve(api, "web", {**uses, **_uses("config", conf, "conf")}, replicas=1)
        await _serve(api, "bad", {**uses, **_uses("config", wrong, "wrong")}, replicas=1)
        for method, path, body in (
            ("POST", "/secrets/create", {"Name": "pw", "Data": _data(MARKER)}),
            ("POST", "/secrets/create", {"Name": "a/b", "Data": _data(MARKER)}),
            ("POST", "/secrets/create", {"Name": "t", "Data": _data(b"{{" + MARKER), **templated}),
            ("POST", "/secrets/create", {"Name": "t", "Data": _data(MARKER * 40_000)}),
            ("POST", "/secrets/create", {"Name": ["t"], "Data": _data(MARKER)}),
            ("POST", "/secrets/create", {"Name": "t", "Data": MARKER.decode() + "!"}),
            ("POST", "/secrets/pw/update?version=1", {"Name": "pw", "Data": _data(MARKER)}),
            ("POST", "/secrets/pw/versions", {"Data": _data(MARKER)}),
            ("POST", "/secrets/pw/versions", {"Data": _data(MARKER + b"2"), "Labels": {"a": "b"}}),
            ("POST", "/secrets/nope/versions", {"Data": _data(MARKER)}),
            ("DELETE", "/secrets/pw", None),
        ):
            reply = await api.request(method, path, body)
            said += reply.body + repr(reply.headers).encode()
        await _until(lambda: _states(api, "web", "running") and _states(api, "bad", "rejected"))
        for path in ("/secrets?all=1", "/secrets/pw", f"/secrets/{made}", "/configs", "/services"):
            said += (await api.request("GET", path)).body
        tasks = (await api.request("GET", "/tasks")).body
        assert b"config wrong cannot be expanded" in tasks
        said += tasks
        held = api.manager.view.secret(made)
        assert held is not None
        assert held.private.data == MARKER
    assert not any(mark in said for mark in marks)
    assert not any(mark.decode() in caplog.text for mark in marks)
    _assert_nowhere_below(tmp_path, marks)


MARKER = b"hunter2-hunter2-hunter2"


def _assert_nowhere_below(folder: Path, marks: Sequence[bytes]) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "raft.db" for path in files)
    for path in files:
        assert not any(mark in path.read_bytes() for mark in marks), path


def _states(api: RunningApi, service: str, state: str) -> bool:
    tasks = [row.api for row in api.manager.view.tasks() if row.private.service_name == service]
    return any(task.Status.State.value == state for task in tasks)


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_version_rolls_who_uses_the_name(tmp_path: Path, kind: str) -> None:
    """Tasks are replaced by ones that read the new data; a rollback brings the old data back."""
    executor = Recorder()

    def read(data: bytes) -> int:
        """How many running tasks read this."""
        found = 0
        for row in api.manager.view.tasks():
            given = executor.given.get(row.api.ID)
            if row.api.Status.State.value == "running" and given is not None:
                files = given.secrets if kind == "secret" else given.configs
                found += [file.data for file in files] == [data]
        return found

    async with running_api(tmp_path, executor=executor) as api:
        await api.init()
        old = await _create(api, kind, "pw", b"one", Labels={"a": "b"})
        await _serve(api, "web", _uses(kind, old), replicas=2)
        await _serve(api, "other", {})
        await _until(lambda: read(b"one") == 2)
        other = await api.get("/services/other")
        made = await _new_version(api, kind, "pw", b"two")
        assert made == {
            "ID": made["ID"],
            "Revision": 2,
            "Unchanged": False,
            "Moving": {"Count": 1, "Names": ["web"]},
            "Waiting": {"Count": 0, "Names": []},
        }
        new = made["ID"]
        shown = await api.get("/services/web")
        assert _ids_in(shown["Spec"], kind) == [new]
        assert _ids_in(shown["PreviousSpec"], kind) == [old]
        assert await api.get("/services/other") == other
        await _until(lambda: read(b"two") == 2)
        # the name means the new one; the old one is read by its id
        assert (await api.get(f"/{kind}s/pw"))["ID"] == new
        assert (await api.get(f"/{kind}s/pw"))["Spec"]["Labels"] == {"a": "b"}
        assert (await api.get(f"/{kind}s/{old}"))["Newest"] == new
        assert [row["ID"] for row in await api.get(f"/{kind}s")] == [new]
        assert {row["ID"] for row in await api.get(f"/{kind}s?all=true")} == {old, new}
        shown = await api.get("/services/web")
        path = f"/services/web/update?version={shown['Version']['Index']}&rollback=previous"
        assert (await api.request("POST", path, {})).status == 200
        await _until(lambda: read(b"one") == 2)
        assert await _ids(api, "web", kind) == [old]


async def test_who_names_an_older_version_keeps_it(tmp_path: Path) -> None:
    """A client that posts the old id stays with it, through further versions."""
    async with running_api(tmp_path) as api:
        await api.init()
        first = await _create(api, "secret", "pw")
        await _serve(api, "web", _uses("secret", first))
        second = (await _new_version(api, "secret", "pw", b"two"))["ID"]

        def pin(spec: dict[str, Any]) -> None:
            _container(spec).update(_uses("secret", first))

        await _update(api, "web", pin)
        assert await _ids(api, "web", "secret") == [first]
        made = await _new_version(api, "secret", "pw", b"three")
        assert made["Moving"]["Count"] == 0
        assert await _ids(api, "web", "secret") == [first]
        # and the name is in use by way of it, but not the version in between
        text = "secret 'pw' is in use by the following service: web"
        assert await api.refusal("DELETE", "/secrets/pw") == (400, INVALID + text)
        assert await api.refusal("DELETE", f"/secrets/{first}") == (400, INVALID + text)
        assert (await api.request("DELETE", f"/secrets/{second}")).status == 204
        assert len(await api.get("/secrets?all=1")) == 2


async def test_without_rolling_a_service_follows_when_its_tasks_are_replaced(
    tmp_path: Path,
) -> None:
    """Scaling and labels leave a due service as it is; the next change of its tasks takes it on,
    though the client posts back the id that it read."""
    async with running_api(tmp_path) as api:
        await api.init()
        old = await _create(api, "secret", "pw")
        await _serve(api, "web", _uses("secret", old))
        before = await api.get("/services/web")
        made = await _new_version(api, "secret", "pw", b"two", roll=False)
        assert made["Waiting"] == {"Count": 1, "Names": ["web"]}
        assert made["Moving"]["Count"] == 0
        after = await api.get("/services/web")
        assert after["Spec"] == before["Spec"]
        await _update(api, "web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=1))
        await _update(api, "web", lambda spec: spec.update(Labels={"a": "b"}))
        assert await _ids(api, "web", "secret") == [old]
        newest = (await _new_version(api, "secret", "pw", b"three", roll=False))["ID"]
        await _update(api, "web", lambda spec: spec["TaskTemplate"].update(ForceUpdate=1))
        assert await _ids(api, "web", "secret") == [newest]
        # it is no longer due: whoever posts the old id now means it
        await _update(
            api,
            "web",
            lambda spec: _container(spec).update(_uses("secret", old)),
        )
        assert await _ids(api, "web", "secret") == [old]


async def test_the_same_again_is_no_version_but_moves_who_is_due(tmp_path: Path) -> None:
    """Data and labels of now make nothing new; those who were left waiting follow."""
    async with running_api(tmp_path) as api:
        await api.init()
        first = await _create(api, "config", "pw")
        await _serve(api, "web", _uses("config", first))
        same = await _new_version(api, "config", "pw", b"one")
        assert (same["ID"], same["Revision"], same["Unchanged"]) == (first, 1, True)
        second = (await _new_version(api, "config", "pw", b"two", roll=False))["ID"]
        assert await _ids(api, "web", "config") == [first]
        again = await _new_version(api, "config", "pw", b"two")
        assert (again["ID"], again["Unchanged"]) == (second, True)
        assert again["Moving"] == {"Count": 1, "Names": ["web"]}
        assert await _ids(api, "web", "config") == [second]
        relabelled = await _new_version(api, "config", "pw", b"two", Labels={"a": "b"})
        assert (relabelled["Revision"], relabelled["Unchanged"]) == (3, False)


async def test_versions_that_are_refused(tmp_path: Path) -> None:
    """A new version keeps the rules of a first one, and is made of the newest."""
    async with running_api(tmp_path) as api:
        await api.init()
        first = await _create(api, "secret", "pw", b"{{1}}", Templating={"Name": "golang"})
        await _new_version(api, "secret", "pw", b"{{2}}")
        for path, body, answer in (
            (
                "pw",
                {},
                (400, INVALID + "secret data must be larger than 0 and less than 512000 bytes"),
            ),
            ("pw", {"Data": _data(b"{{")}, (400, INVALID + "the secret's data is no template")),
            (
                first,
                {"Data": _data(b"x")},
                (
                    400,
                    INVALID + f"secret {first} is an older version of pw; a new version is made "
                    "of the newest: name it pw",
                ),
            ),
            ("nope", {"Data": _data(b"x")}, (404, "secret nope not found")),
        ):
            assert await api.refusal("POST", f"/secrets/{path}/versions", body) == answer
        assert len(await api.get("/secrets?all=1")) == 2


async def test_more_services_than_fit_into_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for three rows at once, eight services follow all the same, and none is due."""
    monkeypatch.setattr(payloads, "AT_ONCE", 3)
    monkeypatch.setattr(payloads, "NAMED_MAX", 2)
    async with running_api(tmp_path) as api:
        await api.init()
        old = await _create(api, "secret", "pw")
        for number in range(8):
            await _serve(api, f"web{number}", _uses("secret", old))
        made = await _new_version(api, "secret", "pw", b"two")
        assert made["Moving"] == {"Count": 8, "Names": ["web0", "web1"]}
        for row in api.manager.view.services():
            assert await _ids(api, row.api.ID, "secret") == [made["ID"]]
            assert row.private.due == ()
            assert row.api.PreviousSpec is not None
            assert (await api.get(f"/services/{row.api.ID}"))["PreviousSpec"] is not None


async def test_services_that_were_cut_off_follow_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where moving the services ends early the version is there all the same; those left behind
    are due, and the same update once more, or their own next update, takes them on."""
    real = payloads.write

    async def cut(manager: Any, call: Any, plan: Any, *, part: str = "") -> Any:
        if part.startswith("moves"):
            raise Unavailable("cut off")
        return await real(manager, call, plan, part=part)

    monkeypatch.setattr(payloads, "AT_ONCE", 3)
    monkeypatch.setattr(payloads, "write", cut)
    async with running_api(tmp_path) as api:
        await api.init()
        old = await _create(api, "secret", "pw")
        for number in range(8):
            await _serve(api, f"web{number}", _uses("secret", old))
        new = (await _new_version(api, "secret", "pw", b"two"))["ID"]
        uses = {
            row.api.Spec.Name: await _ids(api, row.api.ID, "secret")
            for row in api.manager.view.services()
        }
        behind = [name for name, ids in uses.items() if ids == [old]]
        assert len(behind) == 5
        await _update(api, behind[0], lambda spec: spec["TaskTemplate"].update(ForceUpdate=1))
        assert await _ids(api, behind[0], "secret") == [new]
        monkeypatch.undo()
        again = await _new_version(api, "secret", "pw", b"two")
        assert (again["Unchanged"], again["Moving"]["Count"]) == (True, 4)
        for number in range(8):
            assert await _ids(api, f"web{number}", "secret") == [new]


async def test_a_large_config_goes_beside_its_services(tmp_path: Path) -> None:
    """The largest config and a service of some size do not make the change too large."""
    async with running_api(tmp_path) as api:
        await api.init()
        old = await _create(api, "config", "pw", b"x" * 1_023_999)
        uses = {**_uses("config", old), "Env": [f"A{n}={'y' * 1000}" for n in range(250)]}
        for name in ("one", "two"):
            await _serve(api, name, uses)
        made = await _new_version(api, "config", "pw", b"z" * 1_023_999)
        for name in ("one", "two"):
            assert await _ids(api, name, "config") == [made["ID"]]


# --- removing versions ---------------------------------------------------------------------------


async def test_a_name_goes_with_all_its_versions(tmp_path: Path) -> None:
    """By name everything goes; then the name is free, and begins anew."""
    async with running_api(tmp_path) as api:
        await api.init()
        await _create(api, "secret", "pw")
        await _new_version(api, "secret", "pw", b"two")
        newest = await _new_version(api, "secret", "pw", b"three")
        await _create(api, "secret", "pw2")
        assert (await api.request("DELETE", f"/secrets/{newest['ID']}")).status == 204
        assert [row["Spec"]["Name"] for row in await api.get("/secrets?all=1")] == ["pw2"]
        again = await _create(api, "secret", "pw")
        assert "Revision" not in await api.get(f"/secrets/{again}")


def _again(spec: dict[str, Any], uses: dict[str, Any]) -> None:
    _container(spec).update(uses)
    spec["TaskTemplate"]["ForceUpdate"] = spec["TaskTemplate"].get("ForceUpdate", 0) + 1


async def test_unused_versions_are_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned is what no spec that is or can be had again and no running task uses, nor a newest."""
    monkeypatch.setattr(payloads, "AT_ONCE", 1)
    async with running_api(tmp_path) as api:
        await api.init()
        first = await _create(api, "secret", "pw")
        ids = [first]
        await _serve(api, "pinned", _uses("secret", first))
        for content in (b"two", b"three", b"four", b"five"):
            made = await _new_version(api, "secret", "pw", content, roll=False)
            ids.append(made["ID"])
        await _serve(api, "web", _uses("secret", ids[2]))
        for used in (ids[3], ids[3]):  # once more, and only the history knows ids[2]
            await _update(
                api,
                "web",
                lambda spec, used=used: _again(spec, _uses("secret", used)),
            )
        monkeypatch.setattr(payloads, "AT_ONCE", 400)
        reply = await api.request("POST", "/secrets/prune")
        assert (reply.status, reply.json) == (200, {"Deleted": [ids[1]]})
        left = {row["ID"] for row in await api.get("/secrets?all=1")}
        assert left == set(ids) - {ids[1]}
        for service in ("pinned", "web"):
            await api.request("DELETE", f"/services/{service}")
        monkeypatch.setattr(payloads, "AT_ONCE", 1)
        reply = await api.request("POST", "/secrets/prune")
        assert set(reply.json["Deleted"]) == {ids[0], ids[2], ids[3]}
        assert (await api.request("POST", "/secrets/prune")).json == {"Deleted": []}
        assert [row["ID"] for row in await api.get("/secrets?all=1")] == [ids[4]]


async def test_ten_unused_versions_are_kept(tmp_path: Path) -> None:
    """Beyond ten versions of a name, those that nothing uses go with the next one."""
    async with running_api(tmp_path) as api:
        await api.init()
        first = await _create(api, "secret", "pw", b"0")
        await _serve(api, "web", _uses("secret", first))
        for number in range(1, 15):
            await _new_version(api, "secret", "pw", str(number).encode(), roll=False)
        listed = await api.get("/secrets?all=1")
        revisions = sorted(row.get("Revision", 1) for row in listed)
        assert revisions == [1, *range(6, 16)]
        assert len(api.manager.view.versions(Kind.SECRET, "PW")) == 11
