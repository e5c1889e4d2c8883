"""One task in the keeper: from a directory to a running process to an exit code on disk.

Phases only move forward: ``made`` -> ``starting`` (forked, exec not confirmed) -> ``running`` ->
``ending`` (the main process is gone, the rest is being killed and the pipes are drained) ->
``ended``. As in a container, the end of the main process ends all others of its task.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from . import cgroups, launch, procfs, records
from .output import OutputFiles
from .pipes import OutputPipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .frames import Message
    from .loop import Timer
    from .server import Keeper

    Reply = Callable[[Message], None]

UNKNOWN_EXIT_CODE = 255
KEEPER_KILLED = "exit code unknown: its keeper was killed"
HOST_RESTARTED = "exit code unknown: the host was restarted"
SWEEP_FIRST_S, SWEEP_MAX_S = 0.01, 0.2
SWEEP_GIVE_UP_S = 10.0  # processes that survive SIGKILL this long hang in the kernel
LIVE = ("starting", "running", "ending")


class Refused(Exception):
    """A request that cannot be met; the text is for the user."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class Task:
    """One task.

    Args:
        keeper: what all tasks share.
        steps: its record: ``made``, and ``started`` and ``ended`` as far as it came.
    """

    def __init__(self, keeper: Keeper, task_id: str, steps: Message) -> None:
        self.id = task_id
        self.phase = "made"
        self.made: Message = steps["made"]
        self.started: Message | None = steps.get("started")
        self.ended: Message | None = steps.get("ended")
        self.spec: Message | None = None  # in memory only: arguments and environment
        self.on_end: list[Callable[[], None]] = []
        self._keeper = keeper
        self._folder = keeper.folder(task_id)
        self._child: launch.Child | None = None
        self._pidfd = -1
        self._files: OutputFiles | None = None
        self._pipes: OutputPipes | None = None
        self._started_replies: list[tuple[Reply, Callable[[Refused], None]]] = []
        self._followers: list[tuple[int, Reply]] = []
        self._kill_timer: Timer | None = None
        self._reason = ""
        self._sweep_until = 0.0

    # --- what it is ------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Does anything of it run?"""
        return self.phase in LIVE

    @property
    def pid(self) -> int:
        """The main process, 0 before there is one."""
        return int(self.started["pid"]) if self.started else 0

    @property
    def group(self) -> cgroups.Group:
        """Its cgroup; empty when the host gives none."""
        group: cgroups.Group = self.started["group"] if self.started else {}
        return group

    def view(self) -> Message:
        """Return what the daemon is told."""
        started, ended = self.started or {}, self.ended or {}
        return {
            "task_id": self.id,
            "phase": self.phase,
            "cluster_id": self.made["cluster_id"],
            "node_id": self.made["node_id"],
            "pid": self.pid,
            "start": started.get("start", 0),
            "started_at": started.get("at", 0),
            "group": self.group,
            "code": ended.get("code", 0),
            "error": ended.get("error", ""),
            "never_ran": ended.get("never_ran", False),
            "ended_at": ended.get("at", 0),
        }

    # --- start -----------------------------------------------------------------------------------

    def start(self, spec: Message, reply: Reply, refuse: Callable[[Refused], None]) -> None:
        """Start it, unless that was done before; answer when exec worked or failed."""
        if self.phase == "made":
            self._launch(spec)
        self._started_replies.append((reply, refuse))
        if self.phase != "starting":
            self._answer_starters()

    def _launch(self, spec: Message) -> None:
        group = self._keeper.layout.create(self.id)
        problem = cgroups.limit(group, **spec["limits"])
        if problem:
            cgroups.remove(group)
            raise Refused(problem)
        try:
            spec = self._complete(spec)
            self._files = OutputFiles(self._folder, **spec["log"])
            self._pipes = OutputPipes(self._keeper.loop, self._folder, self._files, self._grew)
            out, err = self._pipes.make(spec["uid"])
            try:
                child = self._fork(spec, out, err)
            finally:
                os.close(out)
                os.close(err)
            self._enlist(child, spec, group)
        except OSError as error:
            if self._pipes is not None:
                self._pipes.finish()
            cgroups.remove(group)
            self._keeper.private.drop(self.id)
            raise Refused(f"starting: {error.filename or ''} {error.strerror}") from error
        self._child = child
        self.spec = spec
        self.phase = "starting"
        self._keeper.loop.watch(child.report, self._read_report)
        child.release()

    def _complete(self, spec: Message) -> Message:
        """Write secrets and configs, and fill in what only the keeper knows."""
        env = dict(spec["env"])
        owner = os.geteuid() if spec["uid"] is None else spec["uid"]
        for kind in ("secrets", "configs"):
            if spec[kind]:
                self._keeper.private.write(self.id, kind, spec[kind], owner)
                env[f"SWARMCTL_{kind.upper()}_DIR"] = self._keeper.private.folder(self.id, kind)
        cwd = spec["cwd"] or f"{self._folder}/work"
        kept = {key: spec[key] for key in spec if key not in ("secrets", "configs")}
        return {**kept, "env": env, "cwd": cwd}

    def _fork(self, spec: Message, out: int, err: int) -> launch.Child:
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            return launch.fork(spec, (null, out, err), self._keeper.file_limits)
        finally:
            os.close(null)

    def _enlist(self, child: launch.Child, spec: Message, group: cgroups.Group) -> None:
        """Put the child into its cgroup and on record, before it may run."""
        try:
            cgroups.join(group, child.pid)
            process = procfs.read(child.pid)
            started = {
                "pid": child.pid,
                "start": process.start if process else 0,
                "boot": self._keeper.boot,
                "at": time.time_ns(),
                "group": group,
                "run": {key: spec[key] for key in RUN_KEYS},
                "log": spec["log"],
                "limits": spec["limits"],
            }
            records.append(self._folder, "started", started)
        except OSError:
            child.abandon()
            raise
        self.started = started

    def _read_report(self) -> None:
        """Learn whether exec worked: silence says yes."""
        child = self._child
        if child is None or self.phase != "starting":
            return
        try:
            report = os.read(child.report, 4096)
        except BlockingIOError:
            return
        self._keeper.loop.forget(child.report)
        os.close(child.report)
        self._child = None
        if report:
            failure = json.loads(report)
            self.ended = {"code": failure["code"], "error": failure["text"], "never_ran": True}
            return  # the child is about to end, and then all is told
        self.phase = "running"
        self._keeper.publish(self)  # first, so that who gets an answer knows the task as it is
        self._answer_starters()

    def _answer_starters(self) -> None:
        replies, self._started_replies = self._started_replies, []
        for reply, refuse in replies:
            if self.ended is not None and self.ended.get("never_ran"):
                refuse(Refused(self.ended["error"], self.ended["code"]))
            else:
                reply(self.view())

    # --- stop ------------------------------------------------------------------------------------

    def stop(self, number: int, grace_s: float, reason: str) -> None:
        """Send the stop signal to the main process, and kill all when the grace is over."""
        if self.phase not in ("starting", "running"):
            return
        self._reason = self._reason or reason
        self._signal_main(number)
        timer = self._keeper.loop.later(grace_s, self.kill)
        if self._kill_timer is not None and self._kill_timer.due <= timer.due:
            timer.cancel()  # asking again gives no more time
            return
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = timer

    def kill(self) -> None:
        """Kill every process of the task."""
        if self.phase in ("starting", "running"):
            self._kill_members()
            self._signal_main(signal.SIGKILL)

    def _signal_main(self, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)  # our child, not reaped yet: the pid is still its own

    def _kill_members(self) -> bool:
        """Kill what there is; True when nothing was left."""
        if self.group:
            members = cgroups.pids(self.group)
            if members and not cgroups.kill_all(self.group):
                for pid in members:
                    process = procfs.read(pid)
                    if process is not None:
                        procfs.send_signal(pid, process.start, signal.SIGKILL)
            return not members
        start = self.started["start"] if self.started else 0
        marker = f"SWARMCTL_TASK_ID={self.id}".encode()
        found = procfs.members(self.pid, start, marker)
        for process in found:
            procfs.send_signal(process.pid, process.start, signal.SIGKILL)
        return not found

    # --- end -------------------------------------------------------------------------------------

    def exited(self, code: int) -> None:
        """Take note that the main process is gone; on disk before its pid is reaped."""
        self._read_report()
        error = self._reason
        limit = (self.started or {}).get("limits", {}).get("memory_bytes", 0)
        if code == 128 + signal.SIGKILL and limit and cgroups.oom_kills(self.group):
            error = f"out of memory: its limit is {limit} bytes"
        self._end({"code": code, "error": error, **(self.ended or {}), "at": time.time_ns()})

    def _end(self, ended: Message) -> None:
        self.ended = ended
        self.phase = "ending"
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        try:
            records.append(self._folder, "ended", ended)
        except OSError as error:
            self._keeper.complain(f"task {self.id}: its end is not on disk: {error}")
        self._sweep_until = self._keeper.loop.now() + SWEEP_GIVE_UP_S
        self._sweep(SWEEP_FIRST_S)

    def _sweep(self, pause_s: float) -> None:
        """Kill what the main process left behind until nothing is left."""
        if not self._kill_members() and self._keeper.loop.now() < self._sweep_until:
            longer = min(pause_s * 2, SWEEP_MAX_S)
            self._keeper.loop.later(pause_s, lambda: self._sweep(longer))
            return
        if self._pipes is not None:
            self._pipes.finish()
        if self._files is not None:
            self._files.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._keeper.private.drop(self.id)
        cgroups.remove(self.group)
        self.spec = None
        self.phase = "ended"
        self._keeper.publish(self)
        self._answer_starters()
        self._grew()
        callbacks, self.on_end = self.on_end, []
        for callback in callbacks:
            callback()

    # --- output ----------------------------------------------------------------------------------

    def follow(self, seen: int, reply: Reply) -> None:
        """Answer once more than ``seen`` bytes were written, or the task has ended."""
        self._followers.append((seen, reply))
        self._grew()

    def removed(self) -> None:
        """Answer who follows a task that never ran: no more will come."""
        self.phase = "ended"
        self._grew()

    def _grew(self) -> None:
        written = self._files.written if self._files is not None else 0
        over = not self.live and self.phase != "made"
        waiting, self._followers = self._followers, []
        for seen, reply in waiting:
            if over or written != seen:
                reply({"written": written, "ended": over})
            else:
                self._followers.append((seen, reply))

    # --- adoption --------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what an earlier keeper left: a running orphan, or the remains of its end."""
        if self.started is None:
            return
        same_boot = self.started["boot"] == self._keeper.boot
        if self.ended is not None:
            self.phase = "ending" if same_boot else "ended"
            if same_boot:
                self._sweep(SWEEP_FIRST_S)
            return
        pid, start = self.pid, self.started["start"]
        pidfd = procfs.open_pidfd(pid, start) if same_boot else None
        if pidfd is None:
            error = KEEPER_KILLED if same_boot else HOST_RESTARTED
            self._end({"code": UNKNOWN_EXIT_CODE, "error": error, "at": 0})
            return
        self._pidfd = pidfd
        self.phase = "running"
        self.spec = {**self.started["run"], "env": procfs.environment(pid)}
        self._files = OutputFiles(self._folder, **self.started["log"])
        self._pipes = OutputPipes(self._keeper.loop, self._folder, self._files, self._grew)
        self._pipes.attach()
        self._keeper.loop.watch(pidfd, self._orphan_exited)

    def _orphan_exited(self) -> None:
        self._keeper.loop.forget(self._pidfd)
        error = self._reason or KEEPER_KILLED
        self._end({"code": UNKNOWN_EXIT_CODE, "error": error, "at": time.time_ns()})


RUN_KEYS = ("cwd", "uid", "gid", "groups", "rlimits", "oom_score_adj", "no_new_privileges")
