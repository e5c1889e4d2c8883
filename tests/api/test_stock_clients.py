"""The docker CLI and docker-py as they are, against a whole node: output and exit codes.

Facts of the CLI's requests: docker-api.md section 2.4. Without a ``docker`` command the CLI's tests
are skipped with that reason (with ``CI=true`` they fail).
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import docker
import docker.errors
import docker.types
import pytest
import trio

from .running import RunningApi, running_api

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    T = TypeVar("T")

CLI_S = 60.0


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli() -> str:
    """Path of the stock docker CLI."""
    path = shutil.which("docker")
    if path is not None:
        return path
    reason = "needs the docker command (any recent docker CLI)"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must be able to run this: {reason}", pytrace=False)
    pytest.skip(reason)


class Docker:
    """The stock CLI, talking to one node."""

    def __init__(self, path: str, api: RunningApi, home: Path) -> None:
        self._path = path
        self._env = {"DOCKER_HOST": f"unix://{api.socket}", "HOME": str(home), "PATH": ""}

    async def __call__(self, *args: str, code: int = 0) -> Said:
        """Run one command, which has to end with ``code``."""
        with trio.fail_after(CLI_S):
            done = await trio.run_process(
                [self._path, *args],
                env=self._env,
                check=False,
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
            )
        said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert said.code == code, said
        return said


async def test_the_cli_builds_and_takes_down_a_swarm(tmp_path: Path, cli: str) -> None:
    """init, join-token, update, ca, info, version, node and leave print what Docker's daemon makes
    them print."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        said = await run("node", "ls", code=1)
        assert said.err.startswith("Error response from daemon: This node is not a swarm manager.")
        address = f"127.0.0.1:{api.port}"
        said = await run("swarm", "init", "--listen-addr", address, "--advertise-addr", address)
        assert said.out.startswith("Swarm initialized: current node (")
        assert f" {address}\n" in said.out
        assert "already part of a swarm" in (await run("swarm", "init", code=1)).err
        token = (await run("swarm", "join-token", "-q", "worker")).out
        assert token.startswith("SWMTKN-1-")
        assert (await run("swarm", "join-token", "-q", "--rotate", "worker")).out != token
        assert (await run("swarm", "update", "--task-history-limit", "3")).out == "Swarm updated.\n"
        assert (await run("swarm", "ca")).out.startswith("-----BEGIN CERTIFICATE-----")
        old_root = (await run("swarm", "ca")).out
        rotated = await run("swarm", "ca", "--rotate")
        assert rotated.out.endswith("-----END CERTIFICATE-----\n")
        assert (await run("swarm", "ca")).out != old_root
        assert (await run("swarm", "join-token", "-q", "worker")).out != token
        assert (await run("swarm", "unlock-key", code=1)).err == "no unlock key is set\n"
        info = (await run("info")).out
        assert "Is Manager: true" in info
        assert "Task History Retention Limit: 3" in info
        assert "Server: swarmctl" in (await run("version")).out
        row = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"
        assert (await run("node", "ls", "--format", row)).out == "here Ready Leader\n"
        node = (await run("node", "ls", "-q")).out.strip()
        await run("node", "update", "--label-add", "a=b", node)
        assert (await run("node", "ls", "-q", "--filter", "node.label=a=b")).out.strip() == node
        labels = await run("node", "inspect", "self", "--format", "{{.Spec.Labels}}")
        assert labels.out == "map[a:b]\n"
        assert (
            "attempting to demote the last manager"
            in (await run("node", "demote", node, code=1)).err
        )
        assert "participating as a manager" in (await run("swarm", "leave", code=1)).err
        assert (await run("swarm", "leave", "--force")).out == "Node left the swarm.\n"


async def test_the_cli_runs_a_service_through_its_life(tmp_path: Path, cli: str) -> None:
    """create converges and exits 0; ls, ps, inspect, logs, scale, update, rollback and rm work."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        said = await run(
            "service", "create", "--name", "web", "--replicas", "2", "--update-monitor", "1s",
            "--detach=false", "host",
        )  # fmt: skip
        assert "overall progress: 2 out of 2 tasks" in said.out
        assert said.out.rstrip().endswith("converged")
        line = "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}"
        listed = await run("service", "ls", "--format", line)
        assert listed.out == "web replicated 2/2 host:latest\n"
        line = "{{.Name}} {{.Node}} {{.CurrentState}}"
        shown = await run("service", "ps", "web", "--format", line)
        assert [row[:18] for row in sorted(shown.out.splitlines())] == [
            "web.1 here Running",
            "web.2 here Running",
        ]
        pretty = await run("service", "inspect", "--pretty", "web")
        assert "Service Mode:\tReplicated" in pretty.out
        assert (await run("service", "scale", "web=3")).out.startswith("web scaled to 3\n")
        assert (await run("service", "ls", "--format", "{{.Replicas}}")).out == "3/3\n"
        await run("service", "update", "--env-add", "A=1", "web")
        env = "{{.Spec.TaskTemplate.ContainerSpec.Env}}"
        assert (await run("service", "inspect", "--format", env, "web")).out == "[A=1]\n"
        await run("service", "rollback", "web")
        assert (await run("service", "inspect", "--format", env, "web")).out == "[]\n"
        assert (await run("node", "ps", "-q")).out
        assert (await run("service", "rm", "web")).out == "web\n"
        assert (await run("service", "ls", "-q")).out == ""


async def test_the_cli_runs_jobs_and_global_services(tmp_path: Path, cli: str) -> None:
    """Every other mode is created, waited for, listed and run again as on Docker."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        said = await run(
            "service", "create", "--name", "agent", "--mode", "global", "--update-monitor", "1s",
            "--detach=false", "host",
        )  # fmt: skip
        assert "overall progress: 1 out of 1 tasks" in said.out
        said = await run(
            "service", "create", "--name", "batch", "--mode", "replicated-job", "--replicas", "4",
            "--max-concurrent", "2", "--env", "SWARMCTL_NULL_EXIT_AFTER=10ms",
            "--detach=false", "host",
        )  # fmt: skip
        assert "active tasks: 0 out of 0 tasks\n" in said.out
        assert said.out.rstrip().endswith("job complete")
        said = await run(
            "service", "create", "--name", "sweep", "--mode", "global-job",
            "--env", "SWARMCTL_NULL_EXIT_AFTER=10ms", "--detach=false", "host",
        )  # fmt: skip
        assert said.out.rstrip().endswith("job complete")
        line = "{{.Name}} {{.Mode}} {{.Replicas}}"
        assert (await run("service", "ls", "--format", line)).out.splitlines() == [
            "agent global 1/1",
            "batch replicated job 0/2 (4/4 completed)",
            "sweep global job 0/0 (1/1 completed)",
        ]
        said = await run("service", "update", "--force", "--detach=false", "batch")
        assert said.out.rstrip().endswith("job complete")
        runs = "{{.JobStatus.JobIteration.Index}}"
        assert (await run("service", "inspect", "--format", runs, "batch")).out == "1\n"
        said = await run("service", "scale", "--detach=false", "batch=2")
        assert said.out.startswith("batch scaled to 2\n")
        assert said.out.rstrip().endswith("job complete")
        assert "scale can only be used" in (await run("service", "scale", "agent=2", code=1)).err


async def test_the_cli_shows_a_services_output(tmp_path: Path, cli: str) -> None:
    """service logs prefixes each line with its task and node, by name or by task id."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        await run(
            "service", "create", "-q", "--name", "web", "--update-monitor", "1s",
            "--env", "SWARMCTL_NULL_OUTPUT=hello", "host",
        )  # fmt: skip
        lines = (await run("service", "logs", "web")).out.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("web.1.")
        assert lines[0].endswith("@here    | hello")
        raw = await run("service", "logs", "--raw", "--timestamps", "web")
        assert raw.out.endswith("Z hello\n")
        task = (await run("service", "ps", "-q", "--no-trunc", "web")).out.strip()
        assert (await run("service", "logs", "--raw", task)).out == "hello\n"


RPC = "Error response from daemon: rpc error: code = "
WRONG_CREATES = {
    "unknown flag": (("--bogus", "host"), 125, "unknown flag: --bogus"),
    "constraint": (
        ("--constraint", "node.role=manager", "host"),
        1,
        RPC + "Unknown desc = constraint expected one operator from ==, !=",
    ),
    "name": (
        ("--name", "web", "host"),
        1,
        RPC + "AlreadyExists desc = name conflicts with an existing object: service web already",
    ),
    "memory": (
        ("--limit-memory", "4b", "host"),
        1,
        RPC + "InvalidArgument desc = invalid memory value 4: Must be at least 4MiB",
    ),
    "port": (
        ("-p", "80:80", "-p", "80:81", "host"),
        1,
        RPC + "InvalidArgument desc = EndpointSpec: duplicate published ports provided",
    ),
    "network": (("--network", "foo", "host"), 1, "foo"),  # old CLIs have words of their own
    "secret": (("--secret", "foo", "host"), 1, "secret not found: foo"),
}


async def test_the_cli_says_why_a_service_was_refused(tmp_path: Path, cli: str) -> None:
    """A service that cannot be made ends the command with Docker's words and exit code."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        await api.create("web")
        for case, (args, code, text) in WRONG_CREATES.items():
            said = await run("service", "create", "-d", *args, code=code)
            assert text in said.err, case


async def test_the_cli_makes_networks(tmp_path: Path, cli: str) -> None:
    """create, ls, inspect, a service on one, its refusal to go, rm."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        made = await run("network", "create", "-d", "overlay", "--subnet", "10.5.0.0/24", "net")
        shown = await run("network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}} {{.Scope}}")
        assert f"{made.out.strip()} net swarm" in shown.out.splitlines()
        form = "{{(index .IPAM.Config 0).Subnet}}"
        assert (await run("network", "inspect", "-f", form, "net")).out == "10.5.0.0/24\n"
        await run("service", "create", "-d", "--name", "web", "--network", "net", "host")
        said = await run("network", "rm", "net", code=1)
        assert "is in use by service" in said.err
        await run("service", "rm", "web")
        assert (await run("network", "rm", "net")).out == "net\n"


async def test_the_cli_lists_what_there_is_none_of(tmp_path: Path, cli: str) -> None:
    """Lists of what there is none of are empty, not errors."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        await api.wait_ready()
        assert (await run("network", "ls", "--format", "{{.Name}}")).out == "ingress\n"
        for noun in ("secret", "config"):
            assert (await run(noun, "ls", "-q")).out == ""
        assert (await run("stack", "ls", "--format", "{{.Name}}")).out == ""
        said = await run("service", "create", "-d", "-p", "80:80", "host")
        assert said.err.startswith("published port 80 is reserved but not routed")


async def test_the_cli_keeps_secrets_and_configs(tmp_path: Path, cli: str) -> None:
    """create, ls, inspect, service create --secret and rm work; of a name with several versions
    the CLI sees the newest, and what it posts back moves nothing."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        path = tmp_path / "data"
        path.write_text("hunter2")
        for noun in ("secret", "config"):
            made = (await run(noun, "create", "-l", "a=b", "pw", str(path))).out.strip()
            assert (await run(noun, "ls", "-q", "--filter", "label=a=b")).out.strip() == made
            row = "{{.ID}} {{.Name}} {{.Labels}}"
            assert (await run(noun, "ls", "--format", row)).out == f"{made} pw a=b\n"
            shown = await run(noun, "inspect", "pw", "--format", "{{.ID}} {{.Spec.Name}}")
            assert shown.out == f"{made} pw\n"
            said = await run(noun, "create", "pw", str(path), code=1)
            assert f"{noun} pw already exists" in said.err
            refused = (await run(noun, "rm", "nope", code=1)).err.strip()
            assert refused.endswith((f"{noun} nope not found", f"No such {noun}: nope"))
        await run(
            *("service", "create", "-d", "--name", "web", "--replicas", "0"),
            *("--secret", "pw", "--config", "source=pw,target=/etc/pw,mode=0400", "host"),
        )
        said = await run("secret", "rm", "pw", code=1)
        assert "secret 'pw' is in use by the following service: web" in said.err
        old = (await run("secret", "ls", "-q")).out.strip()
        reply = await api.request("POST", "/secrets/pw/versions", {"Data": "bmV3"})
        new = reply.json["ID"]
        assert (await run("secret", "ls", "-q")).out.strip() == new != old
        await run("service", "update", "-d", "--label-add", "x=y", "web")
        assert await _secret_of(api) == new
        await run("service", "update", "-d", "--secret-rm", "pw", "web")
        assert (await run("secret", "rm", "pw")).out == "pw\n"
        assert (await run("secret", "inspect", old, code=1)).out == "[]\n"


STACK = """
version: "3.8"
services:
  web:
    image: host
    command: sleep 60
    secrets: [key]
    configs: [site]
secrets:
  key:
    file: ./key
    {labels}
configs:
  site:
    file: ./site
    {labels}
"""
VERSIONS = "labels: {swarmctl.versions: auto}"


async def test_stack_deploy_and_files_that_change(tmp_path: Path, cli: str) -> None:
    """Unchanged files change nothing; a changed one is refused as on Docker, with the way out; by
    ``secret update`` before, or with the label, it is a new version that the service uses."""
    async with running_api(tmp_path) as api:
        run = Docker(cli, api, tmp_path)
        await api.init()
        stack = tmp_path / "stack.yml"
        for name in ("key", "site"):
            (tmp_path / name).write_text("1")
        deploy = ("stack", "deploy", "--resolve-image=never", "-c", str(stack), "app")
        stack.write_text(STACK.format(labels=""))
        assert "Creating secret app_key" in (await run(*deploy)).out
        first = await _payloads_of(api, "app_web")
        await run(*deploy)
        assert await _payloads_of(api, "app_web") == first
        (tmp_path / "key").write_text("2")
        said = await run(*deploy, code=1)
        assert said.err.endswith(  # newer ones say before that they do not wait
            "failed to update secret app_key: Error response from daemon: rpc error: code = "
            "InvalidArgument desc = only updates to Labels are allowed; for a new version of the "
            "data set the label swarmctl.versions=auto\n"
        )
        reply = await api.request("POST", "/secrets/app_key/versions", {"Data": "Mg=="})
        second = await _payloads_of(api, "app_web")
        assert second == {"app_key": reply.json["ID"], "app_site": first["app_site"]}
        await run(*deploy)
        assert await _payloads_of(api, "app_web") == second
        stack.write_text(STACK.format(labels=VERSIONS))
        (tmp_path / "key").write_text("3")
        (tmp_path / "site").write_text("3")
        await run(*deploy)
        third = await _payloads_of(api, "app_web")
        assert not set(third.values()) & set(second.values())
        for noun, name in (("secrets", "app_key"), ("configs", "app_site")):
            newest = await api.get(f"/{noun}/{name}")
            assert newest["ID"] == third[name]
            assert newest["Spec"]["Labels"]["com.docker.stack.namespace"] == "app"
        await run(*deploy)
        assert await _payloads_of(api, "app_web") == third
        await run("stack", "rm", "app")
        assert await api.get("/secrets?all=true") == await api.get("/configs?all=true") == []


async def _payloads_of(api: RunningApi, service: str) -> dict[str, str]:
    """Return the ids of the secrets and configs that a service uses, by name."""
    spec = (await api.get(f"/services/{service}"))["Spec"]["TaskTemplate"]["ContainerSpec"]
    found = {use["SecretName"]: use["SecretID"] for use in spec["Secrets"]}
    return found | {use["ConfigName"]: use["ConfigID"] for use in spec["Configs"]}


async def _secret_of(api: RunningApi) -> str:
    (use,) = (await api.get("/services/web"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"]
    return str(use["SecretID"])


# --- docker-py -----------------------------------------------------------------------------------


async def _ask(api: RunningApi, work: Callable[[docker.DockerClient], T]) -> T:
    """Run ``work`` with a docker-py client in a thread, as its users do."""

    def run() -> T:
        client = docker.DockerClient(base_url=f"unix://{api.socket}", version="auto")
        try:
            return work(client)
        finally:
            client.close()

    return await trio.to_thread.run_sync(run)


async def test_docker_py_drives_a_swarm(tmp_path: Path) -> None:
    """docker-py founds a swarm, changes it and a node, and reads tokens and facts."""
    async with running_api(tmp_path) as api:
        address = f"127.0.0.1:{api.port}"

        def work(client: docker.DockerClient) -> None:
            assert client.ping() is True
            node_id = client.swarm.init(advertise_addr=address, listen_addr=address)
            assert client.info()["Swarm"]["NodeID"] == node_id
            client.swarm.update(rotate_worker_token=True, labels={"a": "b"})
            client.swarm.reload()
            assert client.swarm.attrs["Spec"]["Labels"] == {"a": "b"}
            (node,) = client.nodes.list(filters={"role": "manager"})
            assert node.id == node_id
            wish = {"Availability": "drain", "Role": "manager", "Labels": {"k": "v"}}
            assert node.update(wish) is True
            node.reload()
            assert node.attrs["Spec"] == wish
            assert client.swarm.get_unlock_key() == {"UnlockKey": ""}
            assert [network.name for network in client.networks.list()] == ["ingress"]
            for listed in (client.secrets.list(), client.configs.list()):
                assert listed == []
            assert client.swarm.leave(force=True) is True
            with pytest.raises(docker.errors.APIError) as caught:
                client.nodes.list()
            assert caught.value.status_code == 503

        await _ask(api, work)


async def test_docker_py_keeps_secrets_and_configs(tmp_path: Path) -> None:
    """docker-py creates, finds, reads, updates and removes them, and hears Docker's refusals."""
    async with running_api(tmp_path) as api:
        await api.init()

        def work(client: docker.DockerClient) -> None:
            secret = client.secrets.create(name="pw", data=b"hunter2", labels={"a": "b"})
            config = client.configs.create(name="conf", data=b"setting", labels={"a": "b"})
            (found,) = client.secrets.list(filters={"names": ["pw"]})
            assert found.id == secret.id
            assert found.name == "pw"
            assert "Data" not in found.attrs["Spec"]
            (found,) = client.configs.list(filters={"label": "a=b"})
            assert found.id == config.id
            assert client.configs.get(config.id).attrs["Spec"]["Data"] == "c2V0dGluZw=="
            with pytest.raises(docker.errors.APIError) as caught:
                client.secrets.create(name="pw", data=b"other")
            assert caught.value.status_code == 409
            secret.remove()
            with pytest.raises(docker.errors.NotFound):
                client.secrets.get(secret.id)
            config.remove()

        await _ask(api, work)


async def test_docker_py_runs_a_service(tmp_path: Path) -> None:
    """docker-py creates, finds, scales, updates, reads the output of, and removes a service."""
    async with running_api(tmp_path) as api:
        await api.init()
        service_id = await _ask(api, _create)
        await _until_running(api, service_id, 2)

        def work(client: docker.DockerClient) -> set[str]:
            (service,) = client.services.list(filters={"label": ["a=b"]}, status=True)
            assert service.id == service_id
            assert service.attrs["ServiceStatus"]["DesiredTasks"] == 2
            stale = client.services.get(service_id)
            before = {task["ID"] for task in service.tasks()}
            assert service.scale(3) == {"Warnings": None}
            with pytest.raises(docker.errors.APIError) as caught:
                stale.update(labels={})
            assert caught.value.status_code == 500
            assert str(caught.value.explanation).endswith("update out of sequence")
            return before

        def finish(client: docker.DockerClient) -> None:
            service = client.services.get(service_id)
            assert service.force_update() == {"Warnings": None}
            assert b"".join(service.logs(stdout=True)) == b""
            with pytest.raises(docker.errors.APIError, match="already exists"):
                _create(client)
            assert service.remove() is True
            with pytest.raises(docker.errors.NotFound):
                client.services.get(service_id)

        before = await _ask(api, work)
        tasks = await _until_running(api, service_id, 3)
        assert before < tasks, "scaling by docker-py restarted tasks"
        await _ask(api, finish)


def _create(client: docker.DockerClient) -> str:
    mode = docker.types.ServiceMode("replicated", 2)
    service: Any = client.services.create("host", name="web", mode=mode, labels={"a": "b"})
    return str(service.id)


async def _until_running(api: RunningApi, service_id: str, count: int) -> set[str]:
    """Wait until a service's tasks run; return their ids."""
    with trio.fail_after(20):
        while True:
            tasks = await api.get("/tasks")
            running = {
                task["ID"]
                for task in tasks
                if task["ServiceID"] == service_id and task["Status"]["State"] == "running"
            }
            if len(running) == count:
                return running
            await trio.sleep(0.05)
