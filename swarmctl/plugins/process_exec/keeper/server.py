"""The keeper itself: its tasks, its clients, and what clients may ask.

A failing request answers its client and harms nothing else: this process is parent of everybody's
tasks, so it goes on after errors nobody foresaw (they are in ``keeper.log``).
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback

from . import cgroups, procfs, records
from .frames import PROTOCOL
from .loop import Loop
from .private import PrivateFiles
from .probes import Probe
from .tasks import Refused, Task
from .trees import is_empty, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .clients import Client, Listener
    from .frames import Message
    from .loop import Timer

IDLE_S = 30.0
TRASH = ".trash-"
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED = ("private", "keeper")


class Keeper:
    """All tasks of one state directory.

    Args:
        root: the executor's directory below the state directory.
        key: a name for it that is unique on this host.
        build: which program this is, told to daemons.
        file_limits: soft and hard limit of open files as tasks get them.
        idle_s: how long to stay without tasks and clients.
    """

    def __init__(
        self, root: str, key: str, build: str, file_limits: tuple[int, int], idle_s: float = IDLE_S
    ) -> None:
        self.loop = Loop()
        self.layout = cgroups.find_layout(key)
        self.private = PrivateFiles(root, key)
        self.boot = procfs.boot_id()
        self.file_limits = file_limits
        self._root = root
        self._build = build
        self._idle_s = idle_s
        self._idle_timer: Timer | None = None
        self._leaving = False  # asked to end: no new tasks, and gone with the last
        self._done = False
        self._tasks: dict[str, Task] = {}
        self._clients: set[Client] = set()
        self._probes: dict[int, Probe] = {}
        self._removals: dict[int, Callable[[], None]] = {}

    def run(self, listener: Listener) -> None:
        """Serve until there is nothing left to keep."""
        wakeup_read, wakeup_write = os.pipe()
        for descriptor in (wakeup_read, wakeup_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self.loop.watch(wakeup_read, lambda: self._on_signal(wakeup_read))
        self._load()
        self.loop.watch(listener.fileno(), lambda: self._accept(listener))
        self._reap()
        self._look_idle()
        while not self._done:
            try:
                self.loop.turn()
            except Exception:
                self.complain(traceback.format_exc())
        self.private.close()
        self.layout.tidy()

    def folder(self, task_id: str) -> str:
        """Return a task's directory."""
        return f"{self._root}/{task_id}"

    def publish(self, task: Task) -> None:
        """Tell the clients that watch that ``task`` changed."""
        for client in list(self._clients):
            if client.watches:
                client.send({"event": "task", "task": task.view()})
        self._look_idle()

    def complain(self, text: str) -> None:
        """Write to keeper.log."""
        sys.stderr.write(text.rstrip("\n") + "\n")
        sys.stderr.flush()

    # --- start and end ---------------------------------------------------------------------------

    def _load(self) -> None:
        """Take over the tasks on record."""
        for name in os.listdir(self._root):
            if name.startswith(TRASH):
                self._remove_folder(f"{self._root}/{name}", lambda: None)
        for task_id in records.task_ids(self._root):
            steps = records.load(self.folder(task_id))
            if steps is not None:
                self._tasks[task_id] = task = Task(self, task_id, steps)
                task.adopt()
        self.private.keep_only({task.id for task in self._tasks.values() if task.live})

    def _look_idle(self) -> None:
        """End a while after the last task and the last client are gone."""
        busy = any(task.live for task in self._tasks.values()) or self._removals
        if self._leaving and not busy:
            self._done = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if not busy and not self._clients:
            self._idle_timer = self.loop.later(self._idle_s, self._end_if_idle)

    def _end_if_idle(self) -> None:
        self._leaving = True
        self._look_idle()

    # --- children --------------------------------------------------------------------------------

    def _on_signal(self, wakeup: int) -> None:
        numbers = os.read(wakeup, 4096)
        if signal.SIGTERM in numbers:
            # The host goes down: the tasks have got the same signal. Stay until the last is told.
            self._leaving = True
        self._reap()
        self._look_idle()

    def _reap(self) -> None:
        """Take note of every child that ended, and only then let the kernel forget it."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, options)
            except ChildProcessError:
                return
            if info is None:
                return
            exited = info.si_code == os.CLD_EXITED
            try:
                self._child_ended(info.si_pid, info.si_status if exited else 128 + info.si_status)
            finally:
                os.waitpid(info.si_pid, 0)

    def _child_ended(self, pid: int, code: int) -> None:
        if pid in self._probes:
            self._probes.pop(pid).exited(code)
        elif pid in self._removals:
            self._removals.pop(pid)()
        else:
            own = (t for t in self._tasks.values() if t.pid == pid)
            task = next((t for t in own if t.phase in ("starting", "running")), None)
            if task is not None:  # anything else is a stray that had lost its own parent
                task.exited(code)

    def _remove_folder(self, path: str, then: Callable[[], None]) -> None:
        """Remove a directory in a child of ours: it may be large, and tasks must not wait."""
        pid = os.fork()
        if pid == 0:
            try:
                os.closerange(3, 1 << 20)  # the lock too: it must not outlive the keeper
                remove_tree(path)
            finally:
                os._exit(0)
        self._removals[pid] = then

    # --- clients ---------------------------------------------------------------------------------

    def _accept(self, listener: Listener) -> None:
        client = listener.accept(self.loop, self._on_request, self._on_gone)
        if client is not None:
            self._clients.add(client)
            self._look_idle()

    def _on_gone(self, client: Client) -> None:
        self._clients.discard(client)
        self._look_idle()

    def _on_request(self, client: Client, request: Message) -> None:
        number = request.get("id")

        def reply(answer: Message) -> None:
            client.send({"id": number, "ok": answer})

        def refuse(error: Refused) -> None:
            kind = "leaving" if self._leaving else "refused"
            told = {"kind": kind, "text": str(error), "code": error.code}
            client.send({"id": number, "error": told})

        try:
            self._answer(client, request, reply, refuse)
        except Refused as error:
            refuse(error)
        except Exception as error:
            self.complain(traceback.format_exc())
            text = f"the keeper failed at {request.get('op')}: {type(error).__name__}"
            client.send({"id": number, "error": {"kind": "internal", "text": text}})

    def _answer(
        self,
        client: Client,
        request: Message,
        reply: Callable[[Message], None],
        refuse: Callable[[Refused], None],
    ) -> None:
        op = request["op"]
        if op == "hello":
            live = sum(task.live for task in self._tasks.values())
            answer = {"protocol": PROTOCOL, "build": self._build, "live": live}
            reply({**answer, "pid": os.getpid(), "limits": sorted(self.layout.limits)})
        elif op == "watch":
            client.watches = True
            reply({"tasks": [task.view() for task in self._tasks.values()]})
        elif op == "prepare":
            reply(self._prepare(request).view())
        elif op == "start":
            self._task(request).start(request["spec"], reply, refuse)
        elif op == "stop":
            self._task(request).stop(request["signal"], request["grace_s"], request["reason"])
            reply({})
        elif op == "kill":
            self._task(request).kill()
            reply({})
        elif op == "probe":
            self._probe(self._task(request), request, reply)
        elif op == "grown":
            self._task(request).follow(request["seen"], reply)
        elif op == "remove":
            self._remove(request["task_id"], reply)
        elif op == "quit":
            self._leave(reply)
        else:
            raise Refused(f"this keeper does not know {op!r}")

    def _task(self, request: Message) -> Task:
        task = self._tasks.get(request["task_id"])
        if task is None:
            raise Refused(f"no task {request['task_id']} was prepared here")
        return task

    def _prepare(self, request: Message) -> Task:
        task_id = request["task_id"]
        made = {key: request[key] for key in ("cluster_id", "node_id")}
        task = self._tasks.get(task_id)
        if task is not None:
            if {key: task.made[key] for key in made} != made:
                raise Refused(f"task {task_id} belongs to another cluster or node")
            return task
        if not _TASK_ID.fullmatch(task_id) or task_id.startswith(_RESERVED):
            raise Refused(f"{task_id!r} is no task id")
        if self._leaving:
            raise Refused("the keeper is ending")
        folder = self.folder(task_id)
        try:
            os.makedirs(f"{folder}/work", exist_ok=True)
            os.chmod(folder, 0o711)  # noqa: S103 - its user may pass through, and read nothing
            os.chmod(f"{folder}/work", 0o700)
            if request["uid"] is not None:
                os.chown(f"{folder}/work", request["uid"], request["gid"])
            records.append(folder, "made", made)
        except OSError as error:
            raise Refused(f"making {folder}: {error.strerror}") from error
        self._tasks[task_id] = task = Task(self, task_id, {"made": made})
        self.publish(task)
        return task

    def _probe(self, task: Task, request: Message, reply: Callable[[Message], None]) -> None:
        if task.phase != "running" or task.spec is None:
            raise Refused("the task does not run")
        spec = {**task.spec, "argv": request["argv"]}
        try:
            probe = Probe(
                self.loop, spec, task.group, self.file_limits, request["timeout_s"], reply
            )
        except OSError as error:
            raise Refused(f"starting the health check: {error.strerror}") from error
        self._probes[probe.pid] = probe

    def _remove(self, task_id: str, reply: Callable[[Message], None]) -> None:
        task = self._tasks.get(task_id)
        if task is None:
            reply({})
        elif task.live:
            task.on_end.append(lambda: self._remove(task_id, reply))
            task.kill()
        else:
            trash = f"{self._root}/{TRASH}{task_id}"
            try:
                os.rename(self.folder(task_id), trash)
            except OSError as error:
                raise Refused(f"removing {self.folder(task_id)}: {error.strerror}") from error
            del self._tasks[task_id]
            task.removed()
            for client in list(self._clients):
                if client.watches:
                    client.send({"event": "removed", "task_id": task_id})

            def done() -> None:
                reply({})
                self._look_idle()

            if is_empty(f"{trash}/work"):
                remove_tree(trash)  # the few files of our own: not worth a process
                done()
            else:
                self._remove_folder(trash, done)

    def _leave(self, reply: Callable[[Message], None]) -> None:
        if any(task.live for task in self._tasks.values()):
            raise Refused("tasks run")
        reply({})
        self._leaving = True
        self._look_idle()
