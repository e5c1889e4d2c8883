"""What a spec asks for is there where the task runs: looked at from inside, not in a request.

Services are made by ``swarmctl service create``, so its flags are under test too. Each task tells
by its output what it finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import IMAGE, eventually
from tests.e2e.swarm import Swarm, swarm_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.lab import Host, Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine, pytest.mark.every_engine]


@pytest.fixture
def swarm(lab1: Lab) -> Iterator[Swarm]:
    """One manager with an engine."""
    with swarm_on(lab1.hosts) as swarm:
        yield swarm


@pytest.fixture
def processes(lab1: Lab) -> Iterator[Swarm]:
    """One manager that runs plain processes."""
    lab1[0].start_daemon("--executor=process", engine=False)
    swarm = Swarm(lab1.hosts)
    try:
        swarm.init()
        yield swarm
    finally:
        swarm.close()


def create(host: Host, name: str, *flags: str, script: str, image: str = IMAGE) -> None:
    """Create a service that runs a script, by the command line."""
    words = ["service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", name]
    host.swarmctl([*words, *flags, image, "/bin/sh", "-c", script])


def facts(swarm: Swarm, name: str) -> dict[str, str]:
    """Return what a task has told, ``key=value`` a line, once it has said ``done=``."""

    def told() -> dict[str, str]:
        done = swarm.hosts[0].swarmctl(["service", "logs", "--raw", name], check=False)
        found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        if "done" not in found:
            failed = [task["Status"].get("Err") for task in swarm.tasks(name)]
            assert not any(failed), failed
        return found if "done" in found else {}

    found: dict[str, str] = eventually(told, 30, what=f"{name} to tell")
    return found


def test_options_reach_the_container(swarm: Swarm) -> None:
    """Hostname, environment, user, groups, directory, limits, kernel settings, capabilities, hosts
    and DNS are inside what the flags say."""
    script = """
        echo hostname=$(hostname); echo env=$GREETING; echo slot=$SLOT
        echo uid=$(id -u):$(id -g); echo groups=$(id -G); echo dir=$(pwd)
        echo files=$(ulimit -n); echo hardfiles=$(ulimit -Hn)
        echo oom=$(cat /proc/self/oom_score_adj)
        echo sysctl=$(cat /proc/sys/net/ipv4/ip_default_ttl)
        echo bounding=$(grep CapBnd /proc/self/status | cut -f2)
        echo hosts=$(grep 10.9.8.7 /etc/hosts | tr '\\t' ' ')
        echo nameserver=$(grep nameserver /etc/resolv.conf)
        echo search=$(grep search /etc/resolv.conf)
        echo options=$(grep options /etc/resolv.conf)
        echo root=$(touch /file 2>&1)
        [ -t 1 ] && echo tty=yes || echo tty=no
        echo done=; sleep 3600
    """
    create(
        swarm.hosts[0],
        "all",
        "--hostname={{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}",
        "--env=GREETING=hello from {{.Node.Hostname}}",
        "--env=SLOT={{.Task.Slot}}",
        "--user=1000:1001",
        "--group=1234",
        "--workdir=/var",
        "--ulimit=nofile=700:800",
        "--oom-score-adj=321",
        "--sysctl=net.ipv4.ip_default_ttl=99",
        "--cap-drop=ALL",
        "--cap-add=NET_ADMIN",
        "--host=there:10.9.8.7",
        "--dns=10.1.2.3",
        "--dns-search=lan.example",
        "--dns-option=ndots:3",
        "--read-only",
        script=script,
    )
    found = facts(swarm, "all")
    assert found.pop("groups").split() == ["1001", "1234"]
    assert found == {
        "hostname": "all-1-h1",
        "env": "hello from h1",
        "slot": "1",
        "uid": "1000:1001",
        "dir": "/var",
        "files": "700",
        "hardfiles": "800",
        "oom": "321",
        "sysctl": "99",
        "bounding": f"{1 << 12:016x}",  # CAP_NET_ADMIN
        "hosts": "10.9.8.7 there",
        "nameserver": "nameserver 10.1.2.3",
        "search": "search lan.example",
        "options": "options ndots:3",
        "root": "touch: /file: Read-only file system",
        "tty": "no",
        "done": "",
    }


def test_privileges_and_terminals(swarm: Swarm) -> None:
    """What only the API can ask for is there too: no new privileges, no system call filter, a
    terminal."""
    script = """
        echo privileges=$(grep NoNewPrivs /proc/self/status | cut -f2)
        echo filter=$(grep Seccomp: /proc/self/status | cut -f2)
        [ -t 1 ] && echo tty=yes || echo tty=no
        echo done=; sleep 3600
    """
    privileges = {"NoNewPrivileges": True, "Seccomp": {"Mode": "unconfined"}}
    container = {"Command": ["/bin/sh", "-c", script], "Privileges": privileges}
    swarm.create_spec("guarded", 1, container={**container, "TTY": True})
    assert facts(swarm, "guarded") == {
        "privileges": "1",
        "filter": "0",
        "tty": "yes",
        "done": "",
    }
    swarm.create_spec("plain", 1, container={"Command": ["/bin/sh", "-c", script]})
    assert facts(swarm, "plain") == {
        "privileges": "0",
        "filter": "2",
        "tty": "no",
        "done": "",
    }


def test_mounts_of_every_kind(swarm: Swarm) -> None:
    """A bind is the host's directory and read-only if asked, a volume is one for each slot with its
    labels, a tmpfs has its size and mode; a bind whose source is missing rejects the task."""
    shared = swarm.hosts[0].state_dir / "shared"
    shared.mkdir()
    (shared / "word").write_text("from the host")
    script = """
        echo bind=$(cat /bind/word); echo write=$(touch /bind/x 2>&1)
        echo slot > /data/file; echo data=$(cat /data/file)
        echo tmpfs=$(grep ' /fast ' /proc/mounts | cut -d' ' -f3,4)
        echo mode=$(stat -c %a /fast)
        echo done=; sleep 3600
    """
    create(
        swarm.hosts[0],
        "mounts",
        f"--mount=type=bind,source={shared},target=/bind,readonly",
        "--mount=type=volume,source=data-{{.Task.Slot}},target=/data,volume-label=of={{.Service.Name}}",
        "--mount=type=tmpfs,target=/fast,tmpfs-size=1m,tmpfs-mode=1700",
        script=script,
    )
    found = facts(swarm, "mounts")
    assert found["bind"] == "from the host"
    assert "Read-only file system" in found["write"]
    assert found["data"] == "slot"
    assert found["tmpfs"].startswith("tmpfs ")
    assert "size=1024k" in found["tmpfs"]
    assert found["mode"] == "1700"
    engine = swarm.hosts[0].engine
    assert engine is not None
    volume = engine.api("GET", "/volumes/data-1")
    assert volume["Labels"] == {"of": "mounts"}
    create(swarm.hosts[0], "lost", "--mount=type=bind,source=/no/such,target=/x", script="true")
    eventually(
        lambda: any("/no/such" in task["Status"].get("Err", "") for task in swarm.tasks("lost")),
        20,
        what="the task to be rejected",
    )
    swarm.remove("mounts")


def test_limits_init_and_stopping(swarm: Swarm) -> None:
    """Memory, CPU and process limits are the control group's; with an init the command is its
    child; the stop signal and the grace are the spec's, and a container that ends in time says so.
    """
    script = """
        trap 'echo caught=usr1; sleep 0.5; echo cleaned=yes; exit 7' USR1
        c=/sys/fs/cgroup
        echo memory=$(cat $c/memory.max 2>/dev/null || cat $c/memory/memory.limit_in_bytes)
        echo cpu=$(cat $c/cpu.max 2>/dev/null ||
            cat $c/cpu/cpu.cfs_quota_us $c/cpu/cpu.cfs_period_us)
        echo pids=$(cat $c/pids.max 2>/dev/null || cat $c/pids/pids.max)
        echo pid=$$; echo first=$(tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1)
        echo done=; while :; do sleep 0.1; done
    """
    create(
        swarm.hosts[0],
        "limits",
        "--limit-memory=64m",
        "--limit-cpu=0.5",
        "--limit-pids=77",
        "--init",
        "--stop-signal=SIGUSR1",
        "--stop-grace-period=20s",
        script=script,
    )
    found = facts(swarm, "limits")
    assert (found["memory"], found["pids"]) == (str(64 << 20), "77")
    assert found["cpu"] == "50000 100000"
    assert found["pid"] != "1"
    assert "init" in found["first"]
    (task,) = swarm.running("limits")
    swarm.hosts[0].swarmctl(["service", "update", "--detach", "--force", "limits"])

    def stopped() -> bool:
        return bool(swarm.task(task["ID"])["Status"]["State"] == "shutdown")

    eventually(stopped, 15, what="the task to obey its signal")
    assert swarm.task(task["ID"])["Status"]["ContainerStatus"]["ExitCode"] == 7
    said = swarm.hosts[0].swarmctl(["task", "logs", "--raw", task["ID"]]).stdout
    assert said.endswith("caught=usr1\ncleaned=yes\n")


def test_a_command_inside_a_running_task(swarm: Swarm) -> None:
    """What is not the swarm's is the engine's own to answer, by the daemon's socket: the stock
    client runs a command in a task, hands it input, and gets its output and exit code."""
    service = swarm.create_spec("web", 1)
    swarm.wait_running(service, 1)
    (task,) = swarm.running(service)
    container = swarm.container_of(task["ID"])[1]["Id"]
    docker = f"docker --host=unix://{swarm.daemons[0].socket}"
    ran = swarm.hosts[0].run(
        ["sh", "-c", f"echo hello | {docker} exec -i {container} sh -c 'cat; echo no >&2; exit 3'"],
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "hello\n", "no\n")
    listed = swarm.hosts[0].run(["sh", "-c", f"{docker} ps --quiet --no-trunc"]).stdout
    assert listed.split() == [container]


HEALTH = ("--health-interval=500ms", "--health-retries=2", "--health-timeout=2s")


def check_health(swarm: Swarm, image: str) -> None:
    """A service is running once its check passes; an unhealthy task is replaced; with checks
    switched off it is left alone."""
    script = "f=$PWD/ok; rm -f $f; sleep 1; touch $f; sleep 2; rm $f; echo failing=; sleep 3600"
    create(
        swarm.hosts[0],
        "checked",
        "--workdir=/tmp",
        "--health-cmd=test -e /tmp/ok",
        "--health-start-period=10s",
        "--restart-delay=0s",
        "--stop-signal=SIGKILL",
        *HEALTH,
        script=script,
        image=image,
    )
    first = eventually(lambda: swarm.tasks("checked"), what="a task")[0]["ID"]
    eventually(lambda: swarm.task(first)["Status"]["State"] == "starting", 20, what="a start")
    swarm.wait_running("checked", 1)
    assert swarm.running("checked")[0]["ID"] == first
    eventually(lambda: swarm.task(first)["Status"]["State"] == "failed", 20, what="its end")
    assert "unhealthy container" in swarm.task(first)["Status"]["Err"]
    swarm.wait_running("checked", 1, not_tasks=first)
    swarm.hosts[0].swarmctl(["service", "update", "--detach", "--no-healthcheck", "checked"])

    def unchecked() -> list[dict[str, Any]]:
        return [
            task
            for task in swarm.running("checked")
            if task["Spec"]["ContainerSpec"]["Healthcheck"] == {"Test": ["NONE"]}
        ]

    last = eventually(unchecked, 30, what="a task without checks")[0]["ID"]
    log = ["service", "logs", "--raw", "--tail", "1", last]
    eventually(lambda: "failing" in swarm.hosts[0].swarmctl(log).stdout, 20, what="its failing")
    assert swarm.task(last)["Status"]["State"] == "running"


def test_health_checks_of_containers(swarm: Swarm) -> None:
    """The engine runs the checks, and what it finds unhealthy is replaced."""
    check_health(swarm, IMAGE)


def test_health_checks_of_processes(processes: Swarm) -> None:
    """We run the checks, with interval, timeout, retries and start period, to the same effect."""
    check_health(processes, "host")


def test_options_of_processes(processes: Swarm) -> None:
    """What a process can have it gets; what it cannot is told with the field and the reason."""
    script = """
        echo env=$GREETING; echo uid=$(id -u):$(id -g); echo groups=$(id -G); echo dir=$(pwd)
        echo files=$(ulimit -n); echo oom=$(cat /proc/self/oom_score_adj)
        echo done=; sleep 3600
    """
    create(
        processes.hosts[0],
        "plain",
        "--env=GREETING={{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}}",
        "--user=65534:65534",
        "--group=1234",
        "--workdir=/tmp",
        "--ulimit=nofile=700:800",
        "--oom-score-adj=321",
        script=script,
        image="host",
    )
    found = facts(processes, "plain")
    assert set(found.pop("groups").split()) == {"65534", "1234"}
    assert found == {
        "env": "plain.1 on h1",
        "uid": "65534:65534",
        "dir": "/tmp",
        "files": "700",
        "oom": "321",
        "done": "",
    }
    create(
        processes.hosts[0],
        "refused",
        "--hostname={{.Task.Name}}",
        "--mount=type=tmpfs,target=/x",
        "--cap-drop=ALL",
        "--read-only",
        script="true",
        image="host",
    )
    error = eventually(
        lambda: [
            task["Status"]["Err"]
            for task in processes.tasks("refused")
            if task["Status"]["State"] == "rejected"
        ],
        what="a rejected task",
    )[0]
    for field in ("Hostname", "Mounts", "CapabilityDrop", "ReadOnly"):
        assert f"ContainerSpec.{field}: " in error, error
    shown = processes.hosts[0].swarmctl(["service", "ps", "--no-trunc", "refused"]).stdout
    assert "a plain process has the host's" in shown
