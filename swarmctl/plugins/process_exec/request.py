"""From an assignment to what the keeper is asked: every field that a plain process can honour.

Labels stay in the cluster's tables and reservations with the scheduler; ``Init`` is always true
of tasks here, since the keeper adopts and reaps whatever loses its parent. What cannot be honoured
is refused first (``refuse.py``).

Secrets and configs become files below a directory in memory that only the task's user can enter,
named by SWARMCTL_SECRETS_DIR and SWARMCTL_CONFIGS_DIR. A relative target is a path in there. An
absolute one, meant for the inside of a container, keeps its path below it, without a leading
``/run/secrets/`` or slash: ``/etc/app.conf`` is ``$SWARMCTL_CONFIGS_DIR/etc/app.conf``.
"""

from __future__ import annotations

import base64
import os
import re
import resource
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import NANOSECONDS_PER_SECOND, ContainerSpec

from .accounts import is_id
from .health import HealthCheck, health_check
from .keeper.output import DEFAULT_MAX_BYTES, DEFAULT_MAX_FILES
from .refuse import log_driver, objections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.plugins.model import SecretFile, TaskAssignment

    from .accounts import Account

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_LANG = "C.UTF-8"
DEFAULT_STOP_SIGNAL = int(signal.SIGTERM)
DEFAULT_STOP_GRACE_S = 10.0
CONTAINER_SECRETS = "/run/secrets/"  # where Docker shows secrets
_SIZE = re.compile(r"(\d+)([kmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_RLIMIT_LOCKS = 10  # the one that Python's resource module does not name


class Stop(NamedTuple):
    """How a task is asked to end."""

    signal: int
    grace_s: float


class Limits(NamedTuple):
    """What a task may use at most, 0 for no limit."""

    memory_bytes: int = 0
    nano_cpus: int = 0
    pids: int = 0

    @property
    def controllers(self) -> set[str]:
        """The cgroup controllers that have to work for it."""
        asked = {"memory": self.memory_bytes, "cpu": self.nano_cpus, "pids": self.pids}
        return {name for name, value in asked.items() if value}


def check(assignment: TaskAssignment) -> None:
    """Refuse what cannot be honoured, all at once and before anything is made.

    Raises:
        ExecutorError: its text names every field and says why.
    """
    found = objections(assignment)
    if found:
        raise ExecutorError("the process executor cannot run this task: " + "; ".join(found))
    spec = container_spec(assignment)
    stop(spec)
    health(spec)
    limits(assignment)
    _rlimits(spec)
    _log(assignment)
    _environment(assignment, "/", "")
    for kind, files in (("secrets", assignment.secrets), ("configs", assignment.configs)):
        _file_entries(kind, files)


def start_spec(assignment: TaskAssignment, account: Account, node_id: str) -> dict[str, Any]:
    """Return what to start, as the keeper takes it; ``check`` was passed.

    Raises:
        ExecutorError: a value cannot be used.
    """
    spec = container_spec(assignment)
    privileges = spec.Privileges
    return {
        "argv": [*spec.Command, *spec.Args],
        "env": _environment(assignment, account.home, node_id),
        "cwd": spec.Dir,
        "uid": account.uid,
        "gid": account.gid,
        "groups": list(account.groups),
        "rlimits": _rlimits(spec),
        "oom_score_adj": spec.OomScoreAdj,
        "no_new_privileges": privileges is not None and privileges.NoNewPrivileges,
        "limits": limits(assignment)._asdict(),
        "log": _log(assignment),
        "secrets": _file_entries("secrets", assignment.secrets),
        "configs": _file_entries("configs", assignment.configs),
    }


def container_spec(assignment: TaskAssignment) -> ContainerSpec:
    """Return what runs; an empty one stands for a missing one, which ``check`` refuses."""
    return assignment.task.Spec.ContainerSpec or ContainerSpec()


def stop(spec: ContainerSpec) -> Stop:
    """Return stop signal and grace.

    Raises:
        ExecutorError: there is no such signal.
    """
    grace = spec.StopGracePeriod
    grace_s = DEFAULT_STOP_GRACE_S if grace is None else max(0, grace) / NANOSECONDS_PER_SECOND
    return Stop(_signal_number(spec.StopSignal), grace_s)


def health(spec: ContainerSpec) -> HealthCheck | None:
    """Return the health check, None for none."""
    return health_check(spec.Healthcheck)


def limits(assignment: TaskAssignment) -> Limits:
    """Return the task's limits."""
    resources = assignment.task.Spec.Resources
    if resources is None or resources.Limits is None:
        return Limits()
    asked = resources.Limits
    return Limits(max(0, asked.MemoryBytes), max(0, asked.NanoCPUs), max(0, asked.Pids))


def _signal_number(text: str) -> int:
    if not text:
        return DEFAULT_STOP_SIGNAL
    if text.isascii() and text.isdecimal() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name in signal.Signals.__members__:
        return int(signal.Signals[name])
    raise ExecutorError(f'ContainerSpec.StopSignal "{text}": no such signal on this host')


def _environment(assignment: TaskAssignment, home: str, node_id: str) -> dict[str, str]:
    """Return the whole environment: a small base, the spec's, then what nobody may set by hand."""
    env = {"PATH": DEFAULT_PATH, "HOME": home, "LANG": DEFAULT_LANG}
    for entry in container_spec(assignment).Env:
        name, equals, value = entry.partition("=")
        if not name or "\0" in entry:
            raise ExecutorError("ContainerSpec.Env: an entry is no NAME=value")
        if equals:
            env[name] = value
        else:
            env.pop(name, None)  # a bare name takes a variable away, as Docker has it
    env.update(_resource_variables(assignment))
    task = assignment.task
    ours = {
        "SWARMCTL_TASK_ID": task.ID,
        "SWARMCTL_TASK_NAME": assignment.name,
        "SWARMCTL_TASK_SLOT": "" if assignment.by_node else str(task.Slot),
        "SWARMCTL_SERVICE_ID": task.ServiceID,
        "SWARMCTL_SERVICE_NAME": assignment.service_name,
        "SWARMCTL_NODE_ID": node_id,
    }
    return {**env, **{name: value for name, value in ours.items() if value}}


def _resource_variables(assignment: TaskAssignment) -> dict[str, str]:
    """Tell which generic resources the task got, under the names that Docker uses."""
    held: dict[str, list[str]] = {}
    for one in assignment.task.GenericResources:
        if one.NamedResourceSpec is not None:
            held.setdefault(one.NamedResourceSpec.Kind, []).append(one.NamedResourceSpec.Value)
        if one.DiscreteResourceSpec is not None:
            discrete = one.DiscreteResourceSpec
            held.setdefault(discrete.Kind, []).append(str(discrete.Value))
    return {f"DOCKER_RESOURCE_{kind.upper()}": ",".join(values) for kind, values in held.items()}


def _rlimits(spec: ContainerSpec) -> list[tuple[int, int, int]]:
    found = []
    for ulimit in spec.Ulimits:
        name = ulimit.Name.lower()
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if name == "locks":
            number = _RLIMIT_LOCKS
        if not isinstance(number, int):
            raise ExecutorError(f'ContainerSpec.Ulimits "{ulimit.Name}": no such limit here')
        soft, hard = (
            resource.RLIM_INFINITY if value < 0 else value for value in (ulimit.Soft, ulimit.Hard)
        )
        if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
            raise ExecutorError(f'ContainerSpec.Ulimits "{ulimit.Name}": soft is above hard')
        found.append((number, soft, hard))
    return found


def _log(assignment: TaskAssignment) -> dict[str, int]:
    _, options = log_driver(assignment)
    size, files = options.get("max-size"), options.get("max-file")
    max_bytes, max_files = DEFAULT_MAX_BYTES, DEFAULT_MAX_FILES
    if size is not None:
        match = _SIZE.fullmatch(size)
        max_bytes = int(match[1]) * _UNITS[match[2].lower()] if match else 0
        if not max_bytes:
            raise ExecutorError(f'LogDriver.Options max-size "{size}": must be like 10m or 512k')
    if files is not None:
        max_files = int(files) if files.isascii() and files.isdecimal() else 0
        if not max_files:
            raise ExecutorError(f'LogDriver.Options max-file "{files}": must be 1 or more')
    return {"max_bytes": max_bytes, "max_files": max_files}


def _file_entries(kind: str, files: Sequence[SecretFile]) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for file in files:
        path = _file_path(kind, file.target)
        if path in entries:
            raise ExecutorError(f'two {kind} have the target "{path}"')
        uid, gid = _file_owner(kind, file)
        data = base64.b64encode(file.data).decode("ascii")
        entries[path] = {"path": path, "uid": uid, "gid": gid, "mode": file.mode, "data": data}
    return list(entries.values())


def _file_path(kind: str, target: str) -> str:
    path = target.removeprefix(CONTAINER_SECRETS).lstrip("/")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise ExecutorError(f'{kind}: the target "{target}" is no path of a file')
    return path


def _file_owner(kind: str, file: SecretFile) -> tuple[int | None, int | None]:
    """Return who owns the file; only root can give files away, others keep Docker's default."""
    for number in (file.uid, file.gid):
        if not is_id(number):
            raise ExecutorError(
                f'{kind} "{file.target}": UID and GID must be numbers below {2**32 - 1}'
            )
    uid, gid = int(file.uid), int(file.gid)
    if os.geteuid() == 0:
        return uid, gid
    if uid not in (0, os.geteuid()) or gid not in (0, os.getegid()):
        raise ExecutorError(
            f'{kind} "{file.target}": only root can give a file to uid {uid}, gid {gid}'
        )
    return None, None
