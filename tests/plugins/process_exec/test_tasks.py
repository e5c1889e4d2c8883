"""What a task gets, and how it ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import (
    SECOND,
    ContainerSpec,
    DiscreteResourceSpec,
    GenericResource,
    HealthConfig,
    NamedResourceSpec,
    PortConfig,
    Privileges,
    SecretFile,
    Ulimit,
)
from tests.plugins.process_exec.hosts import (
    alive,
    enough_lines,
    eventually,
    first_line,
    started,
    texts,
)

if TYPE_CHECKING:
    from swarmctl.plugins.process_exec.executor import ProcessExecutor
    from tests.plugins.process_exec.hosts import Host

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


async def run(host: Host, executor: ProcessExecutor, script: str, **fields: object) -> list[str]:
    """Run a script to its end and return what it printed."""
    control = await started(executor, host.assignment(script, **fields))
    await control.wait()
    return await texts(control)


async def test_environment(host: Host, executor: ProcessExecutor) -> None:
    """A task sees a small base, its spec's variables and who it is; nothing of the daemon's."""
    os.environ["SWARMCTL_TEST_LEAK"] = "1"
    assignment = host.assignment("env", Env=("A=b=c", "HOME=/h", "LANG"))
    try:
        control = await started(executor, assignment)
        await control.wait()
    finally:
        del os.environ["SWARMCTL_TEST_LEAK"]
    seen = dict(line.split("=", 1) for line in await texts(control))
    for name in ("PWD", "SHLVL", "_", "OLDPWD"):
        seen.pop(name, None)
    assert seen == {
        "A": "b=c",
        "HOME": "/h",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SWARMCTL_TASK_ID": assignment.task.ID,
        "SWARMCTL_TASK_NAME": f"conformance.1.{assignment.task.ID}",
        "SWARMCTL_TASK_SLOT": "1",
        "SWARMCTL_SERVICE_ID": assignment.task.ServiceID,
        "SWARMCTL_SERVICE_NAME": "conformance",
        "SWARMCTL_NODE_ID": host.identity.node_id,
    }


@pytest.mark.parametrize(("by_node", "expected"), [(False, "0"), (True, "none")])
async def test_the_slot_of_a_job_and_of_a_node(
    host: Host,
    executor: ProcessExecutor,
    by_node: bool,
    expected: str,
) -> None:
    """A job's first slot is 0; a task that was made for its node has none."""
    assignment = host.assignment("echo ${SWARMCTL_TASK_SLOT-none}; echo $SWARMCTL_TASK_NAME")
    task = msgspec.structs.replace(assignment.task, Slot=0)
    control = await started(
        executor, msgspec.structs.replace(assignment, task=task, by_node=by_node)
    )
    await control.wait()
    place = task.NodeID if by_node else "0"
    assert await texts(control) == [expected, f"conformance.{place}.{task.ID}"]


async def test_generic_resources(host: Host, executor: ProcessExecutor) -> None:
    """Generic resources a task got are told under Docker's names."""
    held = (
        GenericResource(NamedResourceSpec=NamedResourceSpec(Kind="gpu", Value="a")),
        GenericResource(NamedResourceSpec=NamedResourceSpec(Kind="gpu", Value="b")),
        GenericResource(DiscreteResourceSpec=DiscreteResourceSpec(Kind="fpga", Value=2)),
    )
    assignment = host.assignment("echo $DOCKER_RESOURCE_GPU $DOCKER_RESOURCE_FPGA")
    task = msgspec.structs.replace(assignment.task, GenericResources=held)
    control = await started(executor, msgspec.structs.replace(assignment, task=task))
    await control.wait()
    assert await texts(control) == ["a,b 2"]


async def test_command_and_args(host: Host, executor: ProcessExecutor) -> None:
    """argv is Command followed by Args, found on the task's own PATH, bytes kept as they are."""
    spec = ContainerSpec(Image="host:latest", Command=("printf", "%s|"), Args=("a b", "ü", "*"))
    control = await started(executor, host.assignment(spec))
    await control.wait()
    assert await texts(control) == ["a b|ü|*|"]


async def test_working_directory(host: Host, executor: ProcessExecutor, tmp_path: Path) -> None:
    """A task works in a directory of its own that goes away with it, or in the one it names."""
    assignment = host.assignment("pwd; mkdir -p a/b; touch a/b/c; ln -s /etc a/etc; chmod 0 a/b")
    control = await started(executor, assignment)
    await control.wait()
    assert await texts(control) == [str(host.folder(assignment) / "work")]
    await control.remove()
    assert not host.folder(assignment).exists()
    assert exists("/etc/passwd")
    assert await run(host, executor, "pwd", Dir=str(tmp_path)) == [str(tmp_path)]
    missing = executor.controller(host.assignment("pwd", Dir="/no/such/place"))
    with pytest.raises(ExecutorError, match=r'Dir "/no/such/place": no such directory'):
        await missing.prepare()


@as_root
async def test_what_a_task_mounted_is_kept(
    host: Host, executor: ProcessExecutor, tmp_path: Path
) -> None:
    """A directory of the host that a task mounted in its own is let go of, and nothing of it is
    removed with the task."""
    (tmp_path / "precious").touch()
    script = f'mkdir "a b" && mount --bind {tmp_path} "a b" && ls "a b"'
    assignment = host.assignment(script)
    control = await started(executor, assignment)
    await control.wait()
    assert await texts(control) == ["precious"]
    await control.remove()
    assert (tmp_path / "precious").exists()
    assert not host.folder(assignment).exists()
    assert str(host.root) not in await trio.Path("/proc/self/mountinfo").read_text()
    assert not list(host.root.glob(".trash-*"))


async def test_stdio_limits_and_masks(host: Host, executor: ProcessExecutor) -> None:
    """A task starts with an empty stdin, default signals, a usual umask, its own session and
    the ulimits and OOM score it asked for."""
    script = (
        "cat; ulimit -n; ulimit -Hc; umask; cat /proc/self/oom_score_adj;"
        "sed -n 's/^NoNewPrivs:\\t//p;s/^SigIgn:\\t//p;s/^SigBlk:\\t//p' /proc/self/status;"
        "test $(cut -d' ' -f6 /proc/$$/stat) = $$ && echo leader"
    )
    found = await run(
        host,
        executor,
        script,
        Ulimits=(Ulimit(Name="nofile", Soft=77, Hard=99), Ulimit(Name="core", Soft=0, Hard=0)),
        OomScoreAdj=321,
        Privileges=Privileges(NoNewPrivileges=True),
    )
    assert found[:4] == ["77", "0", "0022", "321"]
    assert found[4:] == ["0" * 16, "0" * 16, "1", "leader"]


@as_root
async def test_user_and_groups(host: Host, executor: ProcessExecutor) -> None:
    """A task runs as its user, with that user's groups and the ones it names, and owns its work."""
    script = "id -u; id -g; id -G; touch mine; stat -c %U mine; echo $HOME"
    found = await run(host, executor, script, User="nobody", Groups=("adm", "1234"))
    assert found == ["65534", "65534", "65534 4 1234", "nobody", "/nonexistent"]
    assert await run(host, executor, "id -u; id -G", User="4242:5") == ["4242", "5"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"User": "nobody-knows"}, 'User "nobody-knows": no such user on this host'),
        ({"User": "4242"}, 'write "4242:GROUP"'),
        ({"User": "root:nogroupatall"}, 'User: no group "nogroupatall"'),
        ({"User": "root", "Groups": ("nogroupatall",)}, 'Groups: no group "nogroupatall"'),
        ({"Dir": "/" + "x" * 300}, "no such directory on this host"),
    ],
)
async def test_what_this_host_does_not_have(
    host: Host, executor: ProcessExecutor, fields: dict[str, object], text: str
) -> None:
    """A user, group or directory that is not here is refused by prepare(), in words."""
    control = executor.controller(host.assignment("true", **fields))
    with pytest.raises(ExecutorError, match=text):
        await control.prepare()
    assert await executor.known_tasks() == {}


@as_root
async def test_user_kept_out(host: Host, executor: ProcessExecutor) -> None:
    """A user who cannot reach his own working directory is told which directory is closed."""
    host.state_dir.chmod(0o700)
    control = executor.controller(host.assignment("true", User="nobody"))
    with pytest.raises(ExecutorError, match=rf"chmod o\+x {host.state_dir} would open it"):
        await control.prepare()


async def test_secrets_and_configs(host: Host, executor: ProcessExecutor) -> None:
    """Secrets and configs are files in memory, named by variables, gone when the task ends."""
    assignment = msgspec.structs.replace(
        host.assignment(
            "cd $SWARMCTL_SECRETS_DIR; cat key sub/deep; stat -c %a key .; stat -f -c %T .;"
            "cat $SWARMCTL_CONFIGS_DIR/etc/app.conf; echo; pwd; sleep 1000"
        ),
        secrets=(
            SecretFile(id="1", target="/run/secrets/key", mode=0o440, data=b"top\n"),
            SecretFile(id="2", target="sub/deep", data=b"secret\x01\n"),
        ),
        configs=(SecretFile(id="3", target="/etc/app.conf", data=b"setting"),),
    )
    control = await started(executor, assignment)
    lines = await enough_lines(control, 7)
    assert lines[:6] == ["top", "secret\x01", "440", "700", "tmpfs", "setting"]
    assert exists(lines[6])
    await control.kill()
    assert not exists(lines[6])
    await control.remove()


def exists(path: str) -> bool:
    return Path(path).exists()


@as_root
async def test_secrets_belong_to_the_user(host: Host, executor: ProcessExecutor) -> None:
    """Nobody but the task's user can enter the directory of its secrets."""
    secret = SecretFile(id="1", target="key", uid="65534", gid="0", mode=0o400, data=b"top")
    assignment = host.assignment(
        "cat $SWARMCTL_SECRETS_DIR/key; echo; echo $SWARMCTL_SECRETS_DIR; sleep 1000", User="nobody"
    )
    control = await started(executor, msgspec.structs.replace(assignment, secrets=(secret,)))
    assert await first_line(control) == "top"
    lines = await enough_lines(control, 2)
    stranger = await run(host, executor, f"ls {lines[1]} || echo kept out", User="4242:4242")
    assert stranger[-1] == "kept out"
    await control.kill()


async def test_nothing_secret_stays_on_disk(host: Host, executor: ProcessExecutor) -> None:
    """Neither records nor the process list of the keeper hold arguments, variables or secrets."""
    assignment = msgspec.structs.replace(
        host.assignment("exit 3", Env=("TOKEN=marker-one",)),
        secrets=(SecretFile(id="1", target="key", data=b"marker-two"),),
    )
    control = await started(executor, assignment)
    await control.wait()
    files = [path for path in host.root.rglob("*") if path.is_file()]
    assert host.folder(assignment) / "record" in files
    found = b"".join(path.read_bytes() for path in files if path.suffix != ".pyz")
    for marker in (b"marker-one", b"marker-two", b"exit 3"):
        assert marker not in found


async def test_exec_fails(host: Host, executor: ProcessExecutor) -> None:
    """A program that cannot be run fails start(), every time, with a shell's exit code."""
    cases = (("no-such-program", 127, "No such file"), ("/etc/passwd", 126, "Permission denied"))
    for program, code, text in cases:
        control = executor.controller(
            host.assignment(ContainerSpec(Image="host", Command=(program,)))
        )
        await control.prepare()
        for _ in range(2):
            with pytest.raises(ExecutorError, match=f'exec "{program}": {text}') as caught:
                await control.start()
            assert caught.value.exit_code == code
        assert (await control.wait()).code == code


async def test_ends_by_signal(host: Host, executor: ProcessExecutor) -> None:
    """A task killed by a signal has code 128 + signal, and the time of its end is told."""
    control = await started(executor, host.assignment("kill -SEGV $$"))
    status = await control.wait()
    assert status.code == 128 + signal.SIGSEGV
    assert status.finished_at > 0


async def test_stop_signal(host: Host, executor: ProcessExecutor) -> None:
    """shutdown() sends the task's own stop signal to its main process."""
    script = "trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.02; done"
    control = await started(executor, host.assignment(script, StopSignal="SIGUSR1"))
    assert await first_line(control) == "ready"
    await control.shutdown()
    assert (await control.wait()).code == 5
    assert await texts(control) == ["ready", "got it"]


async def test_grace(host: Host, executor: ProcessExecutor) -> None:
    """A task that ignores its stop signal is killed when its grace is over, and not before."""
    script = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    control = await started(executor, host.assignment(script, StopGracePeriod=SECOND // 2))
    assert await first_line(control) == "ready"
    before = trio.current_time()
    await control.shutdown()
    assert trio.current_time() - before >= 0.5
    assert (await control.wait()).code == 137


async def test_grace_goes_on_without_daemon(host: Host) -> None:
    """A stop that was asked for is seen through by the keeper when the daemon goes away."""
    script = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    assignment = host.assignment(script, StopGracePeriod=SECOND // 2)
    async with trio.open_nursery() as nursery:
        executor = host.executor()
        await nursery.start(executor.run, host.identity)
        control = await started(executor, assignment)
        await first_line(control)
        with trio.move_on_after(0.1):
            await control.shutdown()
        nursery.cancel_scope.cancel()
    eventually(lambda: host.ask("watch")["ok"]["tasks"][0]["phase"] == "ended", "end of the task")
    assert host.ask("watch")["ok"]["tasks"][0]["code"] == 137


async def test_whole_tree_ends(host: Host, executor: ProcessExecutor) -> None:
    """When the main process ends all others of its task end: also those in other sessions, whose
    parents are gone, that ignore signals."""
    script = (
        "setsid sh -c 'trap \"\" TERM; echo $$; sleep 1000' & "
        "(setsid env -i sleep 1001 & echo $!) ; sleep 1002 & echo $!; read x < /dev/null; "
        "while [ ! -e go ]; do sleep 0.01; done; exit 4"
    )
    assignment = host.assignment(script)
    control = await started(executor, assignment)
    lines = await enough_lines(control, 3)
    pids = [int(line) for line in lines]
    assert all(alive(pid) for pid in pids)
    (host.folder(assignment) / "work" / "go").touch()
    assert (await control.wait()).code == 4
    assert not [pid for pid in pids if alive(pid)]


async def test_health_gates_start(host: Host, executor: ProcessExecutor) -> None:
    """start() returns once the health check passed, run as the task with its variables."""
    check = HealthConfig(
        Test=("CMD-SHELL", "test $WANTED = yes && test -e ready"), Interval=SECOND // 50
    )
    assignment = host.assignment("sleep 1000", Healthcheck=check, Env=("WANTED=yes",))
    control = executor.controller(assignment)
    await control.prepare()
    async with trio.open_nursery() as nursery:
        task_started = trio.Event()

        async def start() -> None:
            await control.start()
            task_started.set()

        nursery.start_soon(start)
        with trio.move_on_after(0.05):
            await task_started.wait()
        (host.folder(assignment) / "work" / "ready").touch()
    assert (await control.observe()).healthy is True
    await control.kill()


async def test_unhealthy_task_is_stopped(host: Host, executor: ProcessExecutor) -> None:
    """After so many failures in a row a task is stopped, and its end says why in Docker's words;
    a check that hangs counts as failed."""
    check = HealthConfig(
        Test=("CMD", "sleep", "1000"), Interval=SECOND // 50, Timeout=SECOND // 20, Retries=2
    )
    control = await started(executor, host.assignment("sleep 1000", Healthcheck=check))
    status = await control.wait()
    assert (status.code, status.error) == (143, "unhealthy container")


async def test_unhealthy_task_never_looks_alive(host: Host, executor: ProcessExecutor) -> None:
    """A task that fails its first checks has ended when start() returns, however long its grace:
    until then it would pass for one that runs."""
    check = HealthConfig(Test=("CMD", "false"), Interval=SECOND // 50, Retries=1)
    script = "trap '' TERM; while :; do sleep 0.05; done"
    assignment = host.assignment(script, Healthcheck=check, StopGracePeriod=SECOND // 2)
    control = await started(executor, assignment)
    seen = (await control.observe()).container
    assert seen is not None
    assert seen.PID == 0
    assert (await control.wait()).error == "unhealthy container"


async def test_health_is_watched_after_adoption(host: Host) -> None:
    """A daemon that finds a running task goes on with its health checks."""
    check = HealthConfig(Test=("CMD", "test", "-e", "ready"), Interval=SECOND // 50, Retries=1)
    assignment = host.assignment("touch ready; sleep 1000", Healthcheck=check)
    for act in ("start", "break"):
        async with trio.open_nursery() as nursery:
            executor = host.executor()
            await nursery.start(executor.run, host.identity)
            control = executor.controller(assignment)
            if act == "start":
                await control.prepare()
                await control.start()
            else:
                (host.folder(assignment) / "work" / "ready").unlink()
                assert (await control.wait()).error == "unhealthy container"
            nursery.cancel_scope.cancel()


async def test_reports_ports_as_asked(host: Host, executor: ProcessExecutor) -> None:
    """Host-mode ports are reported as published; the process binds them itself."""
    port = PortConfig(Protocol="tcp", TargetPort=80, PublishedPort=8080, PublishMode="host")
    ingress = PortConfig(Protocol="tcp", TargetPort=81, PublishedPort=8081, PublishMode="ingress")
    assignment = msgspec.structs.replace(host.assignment("sleep 1000"), ports=(port, ingress))
    control = await started(executor, assignment)
    seen = await control.observe()
    assert seen.ports is not None
    assert seen.ports.Ports == (port,)
    assert seen.container is not None
    assert alive(seen.container.PID)
    await control.kill()


async def test_describe(host: Host) -> None:
    """describe() tells of this host without starting a keeper."""
    described = await host.executor().describe()
    node = described.node
    assert node.Engine.Labels == {"swarmctl.executor": "process"}
    assert node.Platform.Architecture == os.uname().machine
    assert 0 < node.Resources.NanoCPUs <= (os.cpu_count() or 1) * SECOND
    assert node.Resources.MemoryBytes > 0
    assert not (host.root / "keeper.sock").exists()
