"""Starting a process: fork, everything that has to happen between, exec.

The child waits for a byte before it goes on, so its pid is on record and in its cgroup before any
of the task's own code runs; should the keeper die first, the child ends without a trace. It then
reports on a pipe that exec closes: silence means the program runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .frames import Message

DEFAULT_UMASK = 0o022
CANNOT_EXECUTE, NOT_FOUND = 126, 127  # exit codes of a shell that cannot run a command
_PR_SET_NO_NEW_PRIVS = 38


class Child:
    """A forked child that waits for its go.

    Attributes:
        go: descriptor; :meth:`release` lets the child run, closing it makes the child end.
        report: descriptor to read the child's failure from; end of file means that exec worked.
    """

    __slots__ = ("go", "pid", "report")

    def __init__(self, pid: int, go: int, report: int) -> None:
        self.pid = pid
        self.go = go
        self.report = report

    def release(self) -> None:
        """Let the child go on."""
        os.write(self.go, b"g")
        os.close(self.go)

    def abandon(self) -> None:
        """Let the child end without having run anything."""
        os.close(self.go)
        os.close(self.report)


def fork(spec: Message, stdio: tuple[int, int, int], limits: tuple[int, int]) -> Child:
    """Fork a child that will run ``spec``.

    Args:
        spec: ``argv``, ``env``, ``cwd``; ``uid``, ``gid`` and ``groups`` (uid None: as we are);
            ``rlimits`` as (number, soft, hard); ``oom_score_adj``; ``no_new_privileges``.
        stdio: descriptors of the child's standard streams.
        limits: soft and hard limit of open files to give back to the child.

    Raises:
        OSError: this host has no room for another process.
    """
    go_read, go_write = os.pipe()
    report_read, report_write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        for descriptor in (go_read, go_write, report_read, report_write):
            os.close(descriptor)
        raise
    if pid == 0:
        _run_child(spec, stdio, limits, go_read, go_write, report_write)
    os.close(go_read)
    os.close(report_write)
    os.set_blocking(report_read, False)
    return Child(pid, go_write, report_read)


def _run_child(
    spec: Message,
    stdio: tuple[int, int, int],
    limits: tuple[int, int],
    go_read: int,
    go_write: int,
    report: int,
) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        os.close(go_write)
        if os.read(go_read, 1) == b"g":
            _become_task(spec, stdio, limits, report)
    finally:
        # Whatever happened: the keeper's own code must never go on in a forked child.
        os._exit(CANNOT_EXECUTE)


def _become_task(
    spec: Message, stdio: tuple[int, int, int], limits: tuple[int, int], report: int
) -> NoReturn:
    step = "start"
    try:
        _reset_signals()
        for number, descriptor in enumerate(stdio):
            os.dup2(descriptor, number)
        os.umask(DEFAULT_UMASK)
        step = "ulimit"
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number, soft, hard in spec["rlimits"]:
            resource.setrlimit(number, (soft, hard))
        step = "oom_score_adj"
        _set_oom_score(spec["oom_score_adj"])
        step = f"chdir to {spec['cwd']}"
        os.chdir(_bytes(spec["cwd"]))
        step = "user"
        _become_user(spec)
        step = "no_new_privileges"
        if spec["no_new_privileges"]:
            _forbid_new_privileges()
        step = f'exec "{spec["argv"][0]}"'
        _exec(spec)
    except BaseException as error:
        _report(report, step, error)
        raise


def _report(descriptor: int, step: str, error: BaseException) -> None:
    if isinstance(error, OSError) and error.errno is not None:
        text = os.strerror(error.errno)
        missing = isinstance(error, FileNotFoundError) and step.startswith("exec")
        code = NOT_FOUND if missing else CANNOT_EXECUTE
    else:
        text, code = str(error) or type(error).__name__, CANNOT_EXECUTE
    os.write(descriptor, json.dumps({"code": code, "text": f"{step}: {text}"}).encode())
    os._exit(code)


def _reset_signals() -> None:
    """Undo what this interpreter set up: handlers end at exec by themselves, ignoring does not."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _set_oom_score(wanted: int) -> None:
    with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
        present = int(file.read())
        if present == wanted:
            return
        try:
            file.seek(0)
            file.write(str(wanted))
            file.flush()
        except PermissionError:
            if wanted:  # 0 is also what nobody asked for
                raise


def _become_user(spec: Message) -> None:
    if spec["uid"] is None:
        return
    if os.geteuid() == 0:
        os.setgroups(spec["groups"])
    os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])


def _forbid_new_privileges() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _exec(spec: Message) -> NoReturn:
    argv = [_bytes(argument) for argument in spec["argv"]]
    env = {_bytes(name): _bytes(value) for name, value in spec["env"].items()}
    os.execvpe(argv[0], argv, env)  # noqa: S606 - exactly what was asked for, without a shell


def _bytes(text: str) -> bytes:
    # Not os.fsencode: the locale of whoever started the keeper says nothing about tasks.
    return text.encode("utf-8", "surrogateescape")
