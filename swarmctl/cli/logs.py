"""``service logs`` and ``task logs``: what tasks have written, line by line, each with its origin.

The daemon streams Docker's frames (docker-api.md section 2.7): a header of eight bytes and one
line, whose end is missing where the task wrote none. Unless ``--raw`` was asked for, a line's
details say which task wrote it, and its name is put before the line: ``web.1.abc@host    | text``.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, final
from urllib.parse import unquote_plus

from swarmctl.core.errors import SwarmError
from swarmctl.core.model.duration import parse_duration, parse_time

from .api import path_to
from .command import ONE, Failure, command
from .flags import BOOL, TEXT, Flag
from .task_table import Names
from .wording import short_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .api import Api, Json
    from .command import Invocation

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3
HEADER_BYTES = 8
MAX_FRAME_BYTES = 16 * 1024 * 1024
_NODE = "com.docker.swarm.node.id"
_SERVICE = "com.docker.swarm.service.id"
_TASK = "com.docker.swarm.task.id"

_FLAGS = (
    Flag("details", BOOL, "Show extra details provided to logs"),
    Flag("follow", BOOL, "Follow log output", short="f"),
    Flag("no-resolve", BOOL, "Do not map IDs to Names in output"),
    Flag("no-task-ids", BOOL, "Do not include task IDs in output"),
    Flag("no-trunc", BOOL, "Do not truncate output"),
    Flag("raw", BOOL, "Do not neatly format logs"),
    Flag(
        "since",
        TEXT,
        'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 '
        "minutes)",
    ),
    Flag("tail", TEXT, "Number of lines to show from the end of the logs", "n", "all"),
    Flag("timestamps", BOOL, "Show timestamps", short="t"),
)


@command("logs [OPTIONS] SERVICE|TASK", "Fetch the logs of a service or task", *_FLAGS, arity=ONE)
def service_logs(call: Invocation) -> None:
    """Print what the tasks of a service, or one task, have written."""
    name = call.arguments[0]
    service = call.api.find(path_to("services", name))
    if service is not None:
        template = service["Spec"]["TaskTemplate"]
        replicas = (service["Spec"]["Mode"].get("Replicated") or {}).get("Replicas") or 1
        _print_logs(call, "services", service["ID"], template, len(str(replicas)))
        return
    _print_task_logs(call, name, f"no such task or service: {name}")


@command("logs [OPTIONS] TASK", "Fetch the logs of a task", *_FLAGS, arity=ONE)
def task_logs(call: Invocation) -> None:
    """Print what one task has written."""
    _print_task_logs(call, call.arguments[0], f"no such task: {call.arguments[0]}")


def _print_task_logs(call: Invocation, name: str, missing: str) -> None:
    task = call.api.find(path_to("tasks", name))
    if task is None:
        raise Failure(missing)
    _print_logs(call, "tasks", task["ID"], task["Spec"], len(str(task.get("Slot", 0))))


def _print_logs(
    call: Invocation, kind: str, object_id: str, template: Json, slot_width: int
) -> None:
    given = call.given
    tty = bool((template.get("ContainerSpec") or {}).get("TTY"))
    if tty and not given.is_set("raw"):
        raise Failure("tty service logs only supported with --raw")
    query = {"stdout": "1", "stderr": "1", "tail": given.text("tail", "all")}
    if given.is_set("details") or not given.is_set("raw"):
        query["details"] = "1"
    for flag in ("follow", "timestamps"):
        if given.is_set(flag):
            query[flag] = "1"
    if "since" in given:
        query["since"] = moment_of("since", given.text("since"), time.time_ns())
    origins = _Origins(call, slot_width)
    with call.api.stream(path_to(kind, object_id, "logs"), query) as (content_type, chunks):
        if "raw-stream" in content_type:
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            return
        _print_frames(call, origins, chunks)


def _print_frames(call: Invocation, origins: _Origins, chunks: Iterable[bytes]) -> None:
    """Print frames to where they belong; what came together is written together."""
    out, err = sys.stdout.buffer, sys.stderr.buffer
    last = out
    unread = bytearray()
    for chunk in chunks:
        unread += chunk
        for frame in take_frames(unread):
            if frame.stream == SYSTEM_ERROR:
                out.flush()
                text = frame.payload.decode(errors="replace")
                raise Failure(f"Error from daemon in stream: {text}")
            to = err if frame.stream == STDERR else out
            if to is not last:  # the two are often one screen
                last.flush()
                last = to
            to.write(frame.payload if call.given.is_set("raw") else origins.told(frame.payload))
        last.flush()
    if unread:
        raise SwarmError("the log stream ended in the middle of a line")


# --- frames --------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One write of a task: to which stream, and what."""

    stream: int
    payload: bytes


def take_frames(unread: bytearray) -> list[Frame]:
    """Take the whole frames off the front of what was received.

    Raises:
        SwarmError: these are no frames.
    """
    found: list[Frame] = []
    at = 0
    while len(unread) - at >= HEADER_BYTES:
        stream = unread[at]
        length = int.from_bytes(unread[at + 4 : at + HEADER_BYTES], "big")
        if stream > SYSTEM_ERROR or any(unread[at + 1 : at + 4]) or length > MAX_FRAME_BYTES:
            raise SwarmError(f"Unrecognized input header: {stream}")
        begin = at + HEADER_BYTES
        if len(unread) < begin + length:
            break
        found.append(Frame(stream, bytes(unread[begin : begin + length])))
        at = begin + length
    del unread[:at]
    return found


_RELATIVE = re.compile(r"[0-9.]+[a-zµ][a-zµ0-9.]*")
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LOCAL = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?)?Z?")


def moment_of(flag: str, text: str, now_ns: int) -> str:
    """Return a moment in seconds, from a duration back, RFC 3339, or seconds.

    A date without a zone is local time, as Docker takes it.

    Args:
        flag: whose value it is, for the error.

    Raises:
        Failure: it is none of these.
    """
    if _SECONDS.fullmatch(text):
        return text
    try:
        if _RELATIVE.fullmatch(text):
            moment = now_ns - parse_duration(text)
        elif _LOCAL.fullmatch(text):
            moment = _from_date(text)
        else:
            moment = parse_time(text)
    except ValueError as error:
        ways = "right would be 2013-01-02T13:23:37Z, seconds, or a duration back such as 42m"
        raise Failure(f"invalid value for {flag} {text!r}: {error}; {ways}") from None
    return f"{moment // 1_000_000_000}.{moment % 1_000_000_000:09d}"


def _from_date(text: str) -> int:
    from datetime import datetime, timezone

    whole, _, fraction = text.removesuffix("Z").partition(".")  # Python's has but six digits of it
    moment = datetime.fromisoformat(whole)
    if text.endswith("Z"):
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * 1_000_000_000 + int(f"{fraction:0<9.9}")


# --- origins -------------------------------------------------------------------------------------


@final
class _Origins:
    """Puts a name before each line; every task's name is made once."""

    def __init__(self, call: Invocation, slot_width: int) -> None:
        self._api: Api = call.api
        self._given = call.given
        self._slot_width = slot_width
        self._names = Names(call.api, resolve=not call.given.is_set("no-resolve"))
        self._known: dict[str, str] = {}

    def told(self, line: bytes) -> bytes:
        """Return a line with its origin instead of its details.

        Raises:
            SwarmError: the daemon sent no details.
        """
        parts = line.split(b" ", 2 if self._given.is_set("timestamps") else 1)
        stamp = parts.pop(0) + b" " if self._given.is_set("timestamps") else b""
        if len(parts) < 2:
            raise SwarmError(f"invalid context in log message: {line!r}")
        details = _details(parts[0].decode(errors="replace"))
        for key in (_NODE, _SERVICE, _TASK):
            if key not in details:
                raise SwarmError(f"missing {key} in the details of a log line")
        origin = self._origin(details.pop(_TASK), details.pop(_SERVICE), details.pop(_NODE))
        extra = ""
        if self._given.is_set("details"):
            extra = ",".join(f"{key}={details[key]}" for key in sorted(details)) + " "
        text = parts[1] if parts[1].endswith(b"\n") else parts[1] + b"\n"
        return stamp + f"{origin}    | {extra}".encode() + text

    def _origin(self, task_id: str, service_id: str, node_id: str) -> str:
        if task_id not in self._known:
            task = self._api.find(path_to("tasks", task_id)) or {}
            slot = str(task.get("Slot", 0))
            name = f"{self._names.service(service_id)}.{slot}"
            if not self._given.is_set("no-task-ids"):
                whole = self._given.is_set("no-trunc")
                name += f".{task_id if whole else short_id(task_id)}"
            padding = " " * (self._slot_width - len(slot))
            self._known[task_id] = f"{name}@{self._names.node(node_id)}{padding}"
        return self._known[task_id]


def _details(text: str) -> dict[str, str]:
    found = {}
    for pair in text.split(","):
        key, _, value = pair.partition("=")
        found[unquote_plus(key)] = unquote_plus(value)
    return found
