"""Secrets and configs on real engines and as plain processes: delivered, rolled, gone, untold.

A manager and a worker with engines, and a worker that runs plain processes. What a task reads it
prints, and what it must not leave behind is looked for on the hosts, past swarmctl.
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.lab import Host, Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SLEEP = "exec sleep 7654"
ENGINE, PROCESS = 1, 2  # hosts by index; the manager is host 0


@pytest.fixture
def swarm(lab3: Lab) -> Iterator[Swarm]:
    """Two nodes with engines, the first of them the manager, and one that runs processes."""
    for host in lab3.hosts[:2]:
        host.start_daemon()
    lab3[PROCESS].start_daemon("--executor=process", engine=False)
    swarm = Swarm(lab3.hosts)
    try:
        swarm.init()
        swarm.join_all()
        yield swarm
    finally:
        swarm.close()


# --- what the tests do ---------------------------------------------------------------------------


def _make(swarm: Swarm, kind: str, name: str, data: str, **spec: object) -> str:
    body = {"Name": name, "Data": base64.b64encode(data.encode()).decode(), **spec}
    return str(swarm.api("POST", f"/{kind}s/create", body)["ID"])


def _use(kind: str, payload_id: str, name: str, target: str = "", **file: object) -> dict[str, Any]:
    word = kind.capitalize()
    place = {"Name": target or name, "UID": "0", "GID": "0", "Mode": 0o444, **file}
    return {"File": place, f"{word}ID": payload_id, f"{word}Name": name}


def _serve(
    swarm: Swarm, name: str, where: int, script: str, replicas: int = 1, **container: Any
) -> str:
    """Start a service of shell scripts on one host, and wait until it runs."""
    image = {"Image": "host", "StopSignal": "SIGKILL"} if where == PROCESS else {}
    on_host = {"Constraints": [f"node.hostname=={swarm.hosts[where].name}"]}
    service = swarm.create_spec(
        name,
        replicas,
        container={**image, "Command": ["sh", "-c", script], **container},
        task={"Placement": on_host},
    )
    swarm.wait_running(service, replicas)
    return service


def _only(swarm: Swarm, service: str) -> dict[str, Any]:
    """The service's one running task."""
    running = swarm.running(service)
    assert len(running) == 1, running
    return running[0]


def _lines(swarm: Swarm, task: str) -> list[str]:
    """What a task has printed."""
    with swarm.daemons[0].client() as client:
        body = client.request("GET", f"/tasks/{task}/logs", query={"stdout": "1"}).body
    found = []
    while body:  # Docker's frames: a stream's number, three zeros, a length, a line
        size = int.from_bytes(body[4:8], "big")
        found.append(body[8 : 8 + size].decode().rstrip("\n"))
        body = body[8 + size :]
    return found


def _said(swarm: Swarm, service: str, count: int) -> list[str]:
    """What the service's one running task has printed, once it is so many lines."""

    def lines() -> list[str]:
        found = _lines(swarm, _only(swarm, service)["ID"])
        return found if len(found) >= count else []

    return eventually(lines, 20, what=f"{count} lines of {service}")


def _files_in_memory(host: Host) -> list[str]:
    """The files of tasks on a host, as that host sees them: its tmpfs cannot be seen from here."""
    assert host.daemon is not None
    mounts = host.run(["cat", "/proc/self/mountinfo"]).stdout
    state_dir = str(host.daemon.state_dir)
    found = []
    for line in mounts.splitlines():
        where = line.split()[4]
        if where.startswith(state_dir) and " tmpfs " in line:
            found += host.run(["find", where, "-type", "f"]).stdout.splitlines()
    return found


READ = {
    ENGINE: "cd /run/secrets; stat -c '%a %u %g' pw; cat pw; echo; cat /etc/app.conf; echo;"
    " stat -f -c %T pw; ",
    PROCESS: "cd $SWARMCTL_SECRETS_DIR; stat -c '%a %u %g' pw; cat pw; echo;"
    " cat $SWARMCTL_CONFIGS_DIR/etc/app.conf; echo; stat -f -c %T pw; ",
}


def _serve_reader(swarm: Swarm, where: int, secret: str, config: str) -> str:
    return _serve(
        swarm,
        "web",
        where,
        READ[where] + SLEEP,
        Secrets=[_use("secret", secret, "pw", UID="7", GID="8", Mode=0o440)],
        Configs=[_use("config", config, "conf", "/etc/app.conf")],
    )


# --- tests ---------------------------------------------------------------------------------------


@pytest.mark.every_engine
@pytest.mark.parametrize("where", [ENGINE, PROCESS], ids=["engine", "process"])
def test_files_are_as_asked_for_and_go_with_the_task(swarm: Swarm, where: int) -> None:
    """Owner, mode and content are right, a config's template is filled in, all of it in memory;
    no other host has any of it, and neither has this one once the task has ended."""
    data = secrets.token_hex(16)
    secret = _make(swarm, "secret", "pw", data)
    template = '{{.Service.Name}}.{{.Task.Slot}} {{secret "pw"}} {{env "MODE"}}'
    config = _make(swarm, "config", "conf", template, Templating={"Name": "golang"})
    service = _serve_reader(swarm, where, secret, config)
    lines = _said(swarm, service, 4)
    assert lines[0] == "440 7 8"
    assert lines[1:3] == [data, f"web.1 {data} "]
    assert lines[3] in ("tmpfs", "ramfs")
    for index, host in enumerate(swarm.hosts):
        files = _files_in_memory(host)
        assert len(files) == (2 if index == where else 0), (host, files)
    # ended, though it is kept as history
    old = _only(swarm, service)["ID"]
    swarm.update(service, lambda spec: spec["TaskTemplate"].update(ForceUpdate=1))
    swarm.wait_running(service, 1, not_tasks=old)
    assert swarm.task(old)["Status"]["State"] == "shutdown"
    eventually(lambda: len(_files_in_memory(swarm.hosts[where])) == 2, what="its files to go")
    assert not any(old in file for file in _files_in_memory(swarm.hosts[where]))
    swarm.scale(service, 0)
    eventually(lambda: not _files_in_memory(swarm.hosts[where]), 20, what="all files to go")


@pytest.mark.parametrize("where", [ENGINE, PROCESS], ids=["engine", "process"])
def test_a_new_version_rolls_the_service_and_a_rollback_returns(swarm: Swarm, where: int) -> None:
    """`secret update` replaces the tasks with ones that read the new data; after `rollback` they
    read the old; with --no-roll nothing happens until the service is updated."""
    manager = swarm.hosts[0]
    manager.swarmctl(["secret", "create", "pw", "-"], input_text="one")
    manager.swarmctl(["config", "create", "conf", "-"], input_text="setting")
    old = manager.swarmctl(["secret", "ls", "-q"]).stdout.strip()
    config = manager.swarmctl(["config", "ls", "-q"]).stdout.strip()
    service = _serve_reader(swarm, where, old, config)
    assert _said(swarm, service, 4)[1:3] == ["one", "setting"]

    done = manager.swarmctl(["secret", "update", "pw", "-"], input_text="two")
    assert done.stderr == "service web is updated to use it\n"
    new = done.stdout.strip()
    _reads(swarm, service, "two", "setting")
    listed = manager.swarmctl(["secret", "ls", "--all", "--format", "{{.ID}} {{.Revision}}"])
    assert listed.stdout.splitlines() == [f"{new} 2", f"{old} 1"]
    refused = manager.swarmctl(["secret", "rm", "pw"], check=False)
    assert "secret 'pw' is in use by the following service: web" in refused.stderr

    manager.swarmctl(["service", "update", "--rollback", "-d", "web"])
    _reads(swarm, service, "one", "setting")
    manager.swarmctl(["service", "update", "--rollback", "-d", "web"])
    _reads(swarm, service, "two", "setting")

    done = manager.swarmctl(["config", "update", "--no-roll", "conf", "-"], input_text="other")
    assert "service web goes on with an older version" in done.stderr
    before = {task["ID"] for task in swarm.running(service)}
    manager.swarmctl(["service", "update", "--label-add", "a=b", "-d", "web"])
    assert {task["ID"] for task in swarm.running(service)} == before
    manager.swarmctl(["service", "update", "--force", "-d", "web"])
    _reads(swarm, service, "two", "other")


def _reads(swarm: Swarm, service: str, secret: str, config: str) -> None:
    """Soon the service's one task reads this."""

    def right() -> bool:
        return _lines(swarm, _only(swarm, service)["ID"])[1:3] == [secret, config]

    eventually(right, 30, what=f"{secret} and {config} to be read")


@pytest.mark.parametrize("where", [ENGINE, PROCESS], ids=["engine", "process"])
def test_a_restarted_daemon_gets_secrets_again(swarm: Swarm, where: int) -> None:
    """A killed daemon's tasks keep their files; the next daemon, which has none of the data on its
    disk, is given it again by the manager and starts further tasks."""
    secret = _make(swarm, "secret", "pw", "one")
    config = _make(swarm, "config", "conf", "setting")
    service = _serve_reader(swarm, where, secret, config)
    task = _only(swarm, service)
    swarm.daemons[where].kill()
    assert len(_files_in_memory(swarm.hosts[where])) == 2
    if where == PROCESS:
        swarm.hosts[where].start_daemon("--executor=process", engine=False)
    else:
        swarm.hosts[where].start_daemon()
    swarm.wait_ready(3)
    assert [one["ID"] for one in swarm.running(service)] == [task["ID"]], "it was not adopted"
    assert len(_files_in_memory(swarm.hosts[where])) == 2
    swarm.scale(service, 2)
    swarm.wait_running(service, 2)
    for one in swarm.running(service):
        said = eventually(lambda one=one: _lines(swarm, one["ID"])[3:], 20, what="output")
        assert said
        assert _lines(swarm, one["ID"])[1:3] == ["one", "setting"]


@pytest.mark.every_engine
def test_secrets_are_nowhere_to_be_found(swarm: Swarm) -> None:
    """Not on any host's disk, databases and logs included, not in arguments or environments of
    processes, not in what the engine knows of a container; in memory nobody else opens them."""
    data = secrets.token_hex(16)
    secret = _make(swarm, "secret", "pw", data)
    template = _make(swarm, "config", "conf", 'key={{secret "pw"}}', Templating={"Name": "golang"})
    for name, where in (("boxed", ENGINE), ("plain", PROCESS)):
        check = "test -s /run/secrets/pw" if where == ENGINE else "test -s $SWARMCTL_SECRETS_DIR/pw"
        _serve(
            swarm,
            name,
            where,
            f"{check} && {SLEEP}",
            Secrets=[_use("secret", secret, "pw")],
            Configs=[_use("config", template, "conf", "/etc/app.conf")],
        )
    for where in (ENGINE, PROCESS):
        host = swarm.hosts[where]
        assert len(_files_in_memory(host)) == 2
        for file in _files_in_memory(host):
            as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", file]
            assert host.run(as_nobody, check=False).returncode != 0, f"{file} is open to all"
    for host in swarm.hosts:
        assert host.daemon is not None
        for shown in (host.run(["ps", "-eo", "args"]).stdout, _environments(host)):
            assert data not in shown
    for daemon in swarm.daemons:
        daemon.terminate()  # what was in memory is on the disk now
    marks = (data.encode(), base64.b64encode(data.encode())[:-4])
    for host in swarm.hosts:
        assert host.daemon is not None
        for file in [*_all_files(host.daemon.state_dir), host.daemon.log]:
            content = file.read_bytes()
            assert not any(mark in content for mark in marks), f"{file} holds the secret"
    for engine in swarm.engines():
        for container in engine.containers():
            assert data not in str(engine.api("GET", f"/containers/{container['Id']}/json"))


def _environments(host: Host) -> str:
    return host.run(["sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null || true"]).stdout


def _all_files(directory: Path) -> list[Path]:
    """Every file below a directory, as it lies on the disk: what hosts mount is not seen here."""
    found = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.suffix == ".db" for path in found), "there is no database to look into"
    return found
