"""Scaling by conditions on a whole node: flags to labels, load to replicas, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarmctl.plugins.null_exec import NullExecutor
from tests.numbers_server import numbers

from .running import hurried_api, running_api, service_body
from .test_placement import INVALID, PRECONDITION, eventually, refused, running, update
from .test_stock_clients import Docker, cli

if TYPE_CHECKING:
    from pathlib import Path

    from .running import RunningApi

PREFIX = "swarmctl.scale."

__all__ = ["cli"]  # a fixture


def labels(**wanted: str) -> dict[str, str]:
    return {PREFIX + name.replace("__", "."): value for name, value in wanted.items()}


def busy(cpu: float, memory: int = 100 << 20, cpus: float = 1.0) -> dict[str, Any]:
    """A template whose tasks pretend to use so many cores each, of those they reserve."""
    return {
        "ContainerSpec": {
            "Image": "host",
            "Env": [f"SWARMCTL_NULL_CPU={cpu}", f"SWARMCTL_NULL_MEMORY={memory}"],
        },
        "Resources": {"Reservations": {"NanoCPUs": int(cpus * 1e9), "MemoryBytes": 200 << 20}},
    }


async def replicas_of(api: RunningApi, service_id: str) -> int:
    found = await api.get(f"/services/{service_id}")
    return int(found["Spec"]["Mode"]["Replicated"]["Replicas"])


async def scaling(api: RunningApi, service_id: str) -> Any:
    return await api.get(f"/services/{service_id}/scaling")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {"max": "5", "up__when": "cpu > 80 %"},
            (
                "label 'swarmctl.scale.up.when': no space is between a number and its unit %\n"
                "  cpu > 80 %\n           ^"
            ),
        ),
        (
            {"max": "5", "target": "cpu=70%"},
            (
                "label 'swarmctl.scale.target': cpu in % is of what a task reserves, or of its "
                "limit, and this service has neither (--reserve-cpu, --limit-cpu)\n  cpu=70%\n"
                "        ^"
            ),
        ),
        (
            {"max": "5", "target": "x=1", "metric__x": "carbon+http://c/"},
            "label swarmctl.scale.metric.x: there is no metric source 'carbon'",
        ),
        (
            {"max": "5", "target": "x=1", "metric__x": "http://c/,secret=token"},
            "label swarmctl.scale.metric.x: there is no secret 'token'",
        ),
    ],
)
async def test_rules_that_cannot_be_are_refused(
    tmp_path: Path, wanted: dict[str, str], text: str
) -> None:
    """What is wrong with a rule is said when it is written, and where."""
    async with running_api(tmp_path) as api:
        await api.init()
        assert await refused(api, Labels=labels(**wanted)) == (400, INVALID + text)


@pytest.mark.hurried
async def test_rules_are_shown_with_what_the_user_should_know_of_them(tmp_path: Path) -> None:
    """A service that can only grow says so, when it is made and whenever it is looked at."""
    async with hurried_api(tmp_path) as api:
        await api.init()
        wanted = labels(max="4", up__when="cpu > 50% for 5s", up__by="to=4")
        body = service_body("web", replicas=2, Labels=wanted, TaskTemplate=busy(0.01))
        reply = await api.request("POST", "/services/create", body)
        note = "nothing says when to scale down, so the number only grows"
        assert reply.json["Warnings"] == [note]
        found = await api.get(f"/services/{reply.json['ID']}")
        assert found["Warnings"] == [note]
        told = await scaling(api, reply.json["ID"])
        assert (told["Mode"], told["Min"], told["Max"], told["Count"]) == ("act", 1, 4, 2)
        assert told["Notes"] == [note]


@pytest.mark.hurried
async def test_a_metric_of_ones_own_scales(tmp_path: Path) -> None:
    """Jobs in a queue, each task taking ten, make as many tasks as there are jobs for."""
    with numbers() as told:
        async with hurried_api(tmp_path) as api:
            await api.init()
            wanted = labels(
                min="1",
                max="4",
                target="jobs=10 per replica",
                metric__jobs=f"http://127.0.0.1:{told.port}/depth#/pending",
            )
            told.document = {"pending": 30}
            service_id = await api.create("web", Labels=wanted)

            async def three() -> bool:
                return await replicas_of(api, service_id) == 3

            await eventually(three)
            await running(api, service_id, 3)
            found = await scaling(api, service_id)
            last = found["Decisions"][0]
            assert (last["From"], last["To"], last["Rule"]) == (
                1,
                3,
                "target jobs=10 per replica",
            )
            assert last["Reason"] == "jobs is 30, target jobs=10 per replica"
            assert last["Values"] == {"jobs": 30}
            assert found["Metrics"][0]["Value"] == "30"
            assert found["Rules"] == [
                {"Kind": "target", "Text": "jobs=10 per replica", "State": "wants 3"}
            ]
            listed = (await api.get("/services?status=true"))[0]
            assert listed["ServiceStatus"]["DesiredTasks"] == 3
            assert listed["Spec"]["Mode"]["Replicated"]["Replicas"] == 3


@pytest.mark.hurried
async def test_a_dead_source_is_shown_and_nothing_shrinks(tmp_path: Path) -> None:
    """A source that gives nothing counts as missing; the answer says what it said."""
    with numbers() as told:
        async with hurried_api(tmp_path) as api:
            await api.init()
            told.document = None
            wanted = labels(
                max="4", target="jobs=10", metric__jobs=f"http://127.0.0.1:{told.port}/"
            )
            service_id = await api.create("web", replicas=3, Labels=wanted)

            async def dead() -> bool:
                metric = (await scaling(api, service_id))["Metrics"]
                return (
                    bool(metric) and metric[0].get("Err") == "it answered 503 Service Unavailable"
                )

            await eventually(dead)
            assert (await scaling(api, service_id))["Count"] == 3


@pytest.mark.hurried
async def test_credentials_come_from_a_secret(tmp_path: Path) -> None:
    """What the secret holds goes to the source, and into no answer."""
    with numbers() as told:
        async with hurried_api(tmp_path) as api:
            await api.init()
            secret = {"Name": "token", "Data": "aHVudGVyMg=="}
            assert (await api.request("POST", "/secrets/create", secret)).status == 201
            address = f"http://127.0.0.1:{told.port}/x#/pending,secret=token"
            wanted = labels(max="4", target="jobs=10", metric__jobs=address)
            service_id = await api.create("web", Labels=wanted)

            async def asked() -> bool:
                return bool(told.credentials)

            await eventually(asked)
            assert told.credentials[0] == "Bearer hunter2"
            assert "hunter2" not in json.dumps(await scaling(api, service_id))


@pytest.mark.hurried
async def test_a_secret_that_a_metric_is_read_with_is_in_use(tmp_path: Path) -> None:
    """It is not removed while services name it, and they are named; its older versions may go, and
    so may it once no label names it. An update that would need it back is refused."""
    async with hurried_api(tmp_path) as api:
        await api.init()
        secret = {"Name": "token", "Data": "aHVudGVyMg=="}
        assert (await api.request("POST", "/secrets/create", secret)).status == 201
        address = "http://127.0.0.1:1/x#/pending,secret=token"
        wanted = labels(max="4", target="jobs=10", metric__jobs=address)
        for name in ("web", "api"):
            await api.create(name, Labels=wanted)
        text = "secret 'token' is in use by the following services: api, web"
        assert await api.refusal("DELETE", "/secrets/token") == (400, INVALID + text)
        newer = {"Data": "aHVudGVyMw=="}
        assert (await api.request("POST", "/secrets/token/versions", newer)).status == 201
        pruned = await api.request("POST", "/secrets/prune")
        assert len(pruned.json["Deleted"]) == 1
        assert await api.refusal("DELETE", "/secrets/token") == (400, INVALID + text)
        for name in ("web", "api"):
            await update(api, name, lambda spec: spec["Labels"].clear())
        assert (await api.request("DELETE", "/secrets/token")).status == 204
        found = await api.get("/services/web")
        path = f"/services/web/update?rollback=previous&version={found['Version']['Index']}"
        said = await api.refusal("POST", path, found["Spec"])
        assert said == (400, INVALID + "secret not found: token")


@pytest.mark.hurried
async def test_a_humans_number_is_the_least_for_a_while(tmp_path: Path) -> None:
    """``scale web=3`` on a scaled service raises it, warns, and takes nothing away later."""
    async with hurried_api(tmp_path) as api:
        await api.init()
        wanted = labels(min="1", max="8", target="mem=50%")
        body = busy(0.01)
        service_id = await api.create("web", replicas=2, Labels=wanted, TaskTemplate=body)
        found = await api.get(f"/services/{service_id}")
        path = f"/services/{service_id}/update?version={found['Version']['Index']}"
        found["Spec"]["Mode"]["Replicated"]["Replicas"] = 3
        reply = await api.request("POST", path, found["Spec"])
        assert reply.json["Warnings"] == [
            (
                "service web is scaled automatically, from 1 to 8 tasks: 3 is the least for 5m0s "
                "and resets nothing"
            )
        ]
        await running(api, service_id, 3)
        told = await scaling(api, service_id)
        assert (told["Floor"], told["Min"]) == (3, 3)
        again = await api.get(f"/services/{service_id}")
        found["Spec"]["Mode"]["Replicated"]["Replicas"] = 0
        path = f"/services/{service_id}/update?version={again['Version']['Index']}"
        status, text = await api.refusal("POST", path, found["Spec"])
        assert (status, text.startswith(PRECONDITION)) == (400, True)
        assert "service stop web" in text


@pytest.mark.hurried
async def test_posting_what_is_shown_changes_nothing(tmp_path: Path) -> None:
    """Read, modify, write by any client keeps the number; so does a body that names none."""
    with numbers() as told:
        async with hurried_api(tmp_path) as api:
            await api.init()
            told.document = 30
            address = f"http://127.0.0.1:{told.port}/"
            wanted = labels(max="4", target="jobs=10 per replica", metric__jobs=address)
            service_id = await api.create("web", Labels=wanted)

            async def three() -> bool:
                return await replicas_of(api, service_id) == 3

            await eventually(three)
            await update(api, service_id, lambda spec: spec["Labels"].update(a="b"))
            assert await replicas_of(api, service_id) == 3
            await update(api, service_id, lambda spec: spec["Mode"].update(Replicated={}))
            assert await replicas_of(api, service_id) == 3
            assert "Floor" not in await scaling(api, service_id)
            reply = await api.request("POST", f"/services/{service_id}/stop")
            assert reply.status == 200
            assert await replicas_of(api, service_id) == 0
            assert (await scaling(api, service_id))["Count"] == 3
            assert (await api.request("POST", f"/services/{service_id}/start")).status == 200
            assert await replicas_of(api, service_id) == 3


@pytest.mark.hurried
async def test_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    """Load that asks for more than the nodes hold is capped, and no task waits for a node."""
    with numbers() as told:
        executor = NullExecutor(hostname="here", cpus=3)
        async with hurried_api(tmp_path, executor=executor) as api:
            await api.init()
            told.document = 1000
            wanted = labels(
                max="50",
                target="jobs=10 per replica",
                metric__jobs=f"http://127.0.0.1:{told.port}/",
            )
            service_id = await api.create("web", Labels=wanted, TaskTemplate=busy(0.0, cpus=1))

            async def capped() -> bool:
                found = await scaling(api, service_id)
                return "capped: no room" in found["Reason"] and found["Count"] == 3

            await eventually(capped)
            await running(api, service_id, 3)
            tasks = await api.get("/tasks")
            assert len(tasks) == 3
            reasons = [one["Reason"] for one in (await scaling(api, service_id))["Decisions"]]
            assert any(reason.startswith("capped: no room for ") for reason in reasons)


@pytest.mark.hurried
async def test_a_dry_run_tries_rules_on_the_load_there_is(tmp_path: Path) -> None:
    """Rules that are not set are judged by what the node has measured, and set nothing; what no
    node can measure is refused."""
    async with hurried_api(tmp_path) as api:
        await api.init()
        service_id = await api.create("web", replicas=2, TaskTemplate=busy(0.5))
        await running(api, service_id, 2)
        rules = {"Labels": labels(max="9", up__when="mem > 10%", up__by="to=6")}
        with trio.fail_after(30):
            while True:
                reply = await api.request("POST", f"/services/{service_id}/scaling", rules)
                assert reply.status == 200, reply
                if reply.json["WindowSeconds"] or reply.json["Metrics"][0]["Value"]:
                    break
                await trio.sleep(1)
        assert reply.json["DryRun"] is True
        assert await replicas_of(api, service_id) == 2
        found = await api.get(f"/services/{service_id}")
        assert "swarmctl.scale.max" not in found["Spec"].get("Labels", {})
        more = {"Labels": labels(min="4", max="9", target="mem=50%")}
        reply = await api.request("POST", f"/services/{service_id}/scaling", more)
        assert (reply.json["Count"], reply.json["Wanted"]) == (2, 4)  # as it is, and as it would be
        waits = labels(max="9", up__when="psi.cpu > 10%")
        text = "its kernel does not tell it, which takes cgroup v2"
        reason = f"psi metrics cannot be had here: here: {text}"
        body = service_body("other", Labels=waits)
        said = await api.refusal("POST", "/services/create", body)
        assert said == (400, INVALID + reason)
        tried = {"Labels": waits}
        said = await api.refusal("POST", f"/services/{service_id}/scaling", tried)
        assert said == (400, INVALID + reason)
        bad = {"Labels": labels(max="9", up__when="mem > lots")}
        status, text = await api.refusal("POST", f"/services/{service_id}/scaling", bad)
        assert status == 400
        assert "a number is expected" in text


@pytest.mark.hurried
async def test_a_dry_run_is_for_what_can_be_scaled_and_counts_the_room(tmp_path: Path) -> None:
    """A service of another mode is refused as it is when rules are set, and what no node would take
    is not promised."""
    executor = NullExecutor(hostname="here", cpus=3)
    async with hurried_api(tmp_path, executor=executor) as api:
        await api.init()
        await api.create("everywhere", Mode={"Global": {}})
        rules = {"Labels": labels(min="9", max="9", target="cpu=50%")}
        told = await api.refusal("POST", "/services/everywhere/scaling", rules)
        assert told[0] == 400
        assert "are for replicated services" in told[1]
        with numbers() as source:
            source.document = 1000
            service_id = await api.create("web", TaskTemplate=busy(0.0, cpus=1))
            await running(api, service_id, 1)
            address = f"http://127.0.0.1:{source.port}/"
            wanted = labels(max="50", target="jobs=10 per replica", metric__jobs=address)
            path = f"/services/{service_id}/scaling"
            reply = await api.request("POST", path, {"Labels": wanted})
            assert (reply.json["Count"], reply.json["Wanted"]) == (1, 3)
            assert reply.json["Reason"].startswith("capped: no room for 5 tasks")


@pytest.mark.hurried
async def test_recommend_only_says_so(tmp_path: Path) -> None:
    """In mode recommend the number stays, and the decision is noted as not applied."""
    with numbers() as told:
        async with hurried_api(tmp_path) as api:
            await api.init()
            told.document = 30
            address = f"http://127.0.0.1:{told.port}/"
            wanted = labels(
                max="4", target="jobs=10 per replica", metric__jobs=address, mode="recommend"
            )
            body = service_body("web", Labels=wanted)
            reply = await api.request("POST", "/services/create", body)
            service_id = reply.json["ID"]

            async def noted() -> bool:
                return bool((await scaling(api, service_id))["Decisions"])

            await eventually(noted)
            found = await scaling(api, service_id)
            step = found["Decisions"][0]
            assert (step["From"], step["To"], step["Applied"]) == (1, 3, False)
            assert (found["Count"], found["Wanted"]) == (1, 3)
            assert await replicas_of(api, service_id) == 1


async def test_the_stock_cli_scales_what_is_scaled(tmp_path: Path, cli: str) -> None:
    """Labels do it all: docker sets rules, is told where they are wrong, and shows the number."""
    async with running_api(tmp_path) as api:
        await api.init()
        run = Docker(cli, api, tmp_path)
        create = ("service", "create", "--detach", "--name", "web")
        rules = {"min": "2", "max": "5", "target": "mem=50%"}
        words = [
            word
            for name, value in labels(**rules).items()
            for word in ("--label", f"{name}={value}")
        ]
        refused = await run(*create, *words, "host", code=1)
        assert "mem in % is of what a task reserves" in refused.err
        assert refused.err.rstrip().endswith("\n  mem=50%\n        ^")
        made = await run(*create, *words, "--reserve-memory", "100m", "host")
        service_id = made.out.strip()
        await running(api, service_id, 2)
        listed = await run("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
        assert listed.out == "web 2/2\n"
        await run("service", "scale", "--detach", "web=4")
        await running(api, service_id, 4)
        assert (await scaling(api, service_id))["Floor"] == 4
        await run("service", "update", "--detach", "--label-rm", f"{PREFIX}target", "web", code=1)
        away = [word for name in labels(**rules) for word in ("--label-rm", name)]
        await run("service", "update", "--detach", *away, "web")
        assert await replicas_of(api, service_id) == 4
        assert (await scaling(api, service_id))["Mode"] == ""


STACK = """
version: "3.8"
services:
  web:
    image: host
    deploy:
      mode: replicated
      {replicas}
      resources: {{reservations: {{memory: 100M}}}}
      labels:
        swarmctl.scale.min: "2"
        swarmctl.scale.max: "5"
        swarmctl.scale.target: "mem=50%"
"""


async def test_deploying_a_stack_again_resets_nothing(tmp_path: Path, cli: str) -> None:
    """``deploy.labels`` are rules; a stack file without a number, or with the one it always had,
    leaves what scaling and a human have made of the number since."""
    async with running_api(tmp_path) as api:
        await api.init()
        run = Docker(cli, api, tmp_path)
        stack = tmp_path / "stack.yml"
        deploy = ("stack", "deploy", "--resolve-image=never", "-c", str(stack), "app")
        for replicas in ("", "replicas: 2", "replicas: 3"):
            stack.write_text(STACK.format(replicas=replicas))
            await run(*deploy)
            if not replicas:
                assert await replicas_of(api, "app_web") == 2
                await run("service", "scale", "--detach", "app_web=4")
            assert await replicas_of(api, "app_web") == 4
        assert (await scaling(api, "app_web"))["Floor"] == 3
