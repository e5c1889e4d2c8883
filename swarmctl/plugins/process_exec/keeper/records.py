"""What lies on disk about a task: who made it, which process it is, how it ended.

A record file holds JSON lines, each a step of the task's life: ``made``, ``started``, ``ended``.
Only ``ended`` is synced: it must survive a crash of the machine, because exit codes are told once.
(After such a crash no process of before runs, so a lost ``started`` line misleads nobody.)
Arguments, environment and secrets are never part of a record.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .frames import Message

NAME = "record"
STEPS = ("made", "started", "ended")


def append(folder: str, step: str, content: Message) -> None:
    """Add one step to the record in ``folder``.

    Raises:
        OSError: the disk refused.
    """
    line = json.dumps({step: content}, separators=(",", ":")).encode() + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(f"{folder}/{NAME}", flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # a step that was cut short must not swallow this one
        view = memoryview(line)
        while view:
            view = view[os.write(descriptor, view) :]
        if step == "ended":
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def load(folder: str) -> Message | None:
    """Return the steps on record, or None when there is no readable ``made``."""
    try:
        with open(f"{folder}/{NAME}", "rb") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    steps: Message = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            steps.update((k, v) for k, v in entry.items() if k in STEPS and isinstance(v, dict))
    return steps if "made" in steps else None


def task_ids(root: str) -> list[str]:
    """Return the ids of the tasks that have a record below ``root``."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if os.path.exists(f"{root}/{name}/{NAME}"))
