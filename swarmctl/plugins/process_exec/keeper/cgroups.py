"""Control groups, version 1, version 2 and both at once: limits, membership, accounting.

Each task gets a directory in every hierarchy that is of use: ``<place>/swarmctl/<key>/<task id>``
where ``key`` stands for the state directory. ``place`` is the mount point for root, as Docker's
own cgroupfs driver has it, and otherwise the highest ancestor of our own group that was delegated
to us. A :class:`Layout` says where; a *group* is a plain dict, hierarchy -> directory, that a
task's record keeps. Hierarchies: ``memory``, ``cpu``, ``cpuacct``, ``pids`` and ``track`` (the
one by which processes are found and killed).
"""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Group = dict[str, str]

LIMITED = ("memory", "cpu", "pids")
CPU_PERIOD_US = 100_000
MIN_CPU_QUOTA_US = 1_000  # the kernel takes no less
NANO = 1_000_000_000


class Layout:
    """Where this host lets us make groups.

    Attributes:
        parents: hierarchy -> directory in which a task's own directory is made.
        problems: controller -> why it cannot be used here.
    """

    def __init__(self, parents: dict[str, str], problems: dict[str, str]) -> None:
        self.parents = parents
        self.problems = problems

    @property
    def limits(self) -> frozenset[str]:
        """The controllers by which a task can be limited here."""
        return frozenset(name for name in LIMITED if name in self.parents)

    def create(self, task_id: str) -> Group:
        """Make the task's directories; those that cannot be made are left out."""
        group: Group = {}
        for name, parent in self.parents.items():
            path = f"{parent}/{task_id}"
            with contextlib.suppress(OSError):
                if not os.path.isdir(parent):  # a daemon that only looked may have tidied it away
                    _open(parent, [one for one in LIMITED if self.parents.get(one) == parent])
                _make(path)
                group[name] = path
        return group

    def tidy(self) -> None:
        """Remove the empty directories above tasks; those in use stay."""
        for parent in set(self.parents.values()):
            with contextlib.suppress(OSError):
                os.rmdir(parent)
                os.rmdir(os.path.dirname(parent))


def _make(path: str) -> None:
    """Make a group and those above it; processes may look up their own limits in it.

    Runtimes do, to size themselves, and they are not root; our umask would keep them out.
    """
    if os.path.isdir(path):
        return
    _make(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):  # another keeper's doing, just now
        os.mkdir(path)
        os.chmod(path, 0o755)  # noqa: S103 - to look, as /proc lets anybody


def _open(parent: str, names: list[str]) -> None:
    """Make a parent of tasks' groups; in version 2 they have these controllers by it alone."""
    _make(parent)
    top = os.path.dirname(parent)
    for level in (os.path.dirname(top), top, parent):
        for name in names:
            with contextlib.suppress(OSError):
                _write(f"{level}/cgroup.subtree_control", f"+{name}")


def find_layout(key: str) -> Layout:
    """Look where groups can be made on this host, by making the parents of all tasks' groups.

    Args:
        key: names the state directory; part of every path.
    """
    version1, version2 = _mounts()
    own = _own_groups()
    parents: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name in (*LIMITED, "cpuacct"):
        if name in version1:
            parent = f"{version1[name]}/swarmctl/{key}"
            try:
                _make(parent)
                if not os.access(parent, os.W_OK):
                    raise PermissionError(13, "Permission denied")
                parents[name] = parent
            except OSError as error:
                problems[name] = f"{version1[name]}: {error.strerror}"
    if version2:
        missing = [name for name in LIMITED if name not in version1]
        _find_version2(version2, own, key, missing, parents, problems)
    for name in LIMITED:
        if name not in parents and name not in problems:
            problems[name] = "the kernel offers no such controller here"
    if "track" not in parents and parents:
        parents["track"] = parents.get("pids") or next(iter(parents.values()))
    return Layout(parents, problems)


def _find_version2(
    mount: str,
    own: str,
    key: str,
    missing: list[str],
    parents: dict[str, str],
    problems: dict[str, str],
) -> None:
    """Add what the version 2 hierarchy at ``mount`` gives: the tracking, and missing limits."""
    for place in _places(mount, own):
        parent = f"{place}/swarmctl/{key}"
        try:
            _open(parent, missing)
        except OSError as error:
            problems.update(dict.fromkeys(missing, f"{place}: {error.strerror}"))
            continue
        usable = _read(f"{parent}/cgroup.subtree_control").split()
        parents["track"] = parent
        for name in missing:
            if name in usable:
                parents[name] = parent
                problems.pop(name, None)
            else:
                problems[name] = f"{place}: the {name} controller is not delegated to us"
        if all(name in usable for name in missing):
            return


def _places(mount: str, own: str) -> Iterator[str]:
    """Yield the directories below which a group may be made, the best first."""
    if os.access(mount, os.W_OK):
        yield mount
        return
    path = ""
    for part in own.strip("/").split("/"):
        path = f"{path}/{part}"
        place = f"{mount}{path}"
        # Processes can only be moved below a group whose cgroup.procs we may write.
        if os.access(place, os.W_OK) and os.access(f"{place}/cgroup.procs", os.W_OK):
            yield place


def _mounts() -> tuple[dict[str, str], str]:
    """Return controller -> mount point for version 1, and the mount point of version 2 or ""."""
    version1: dict[str, str] = {}
    version2 = ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            kind, _, options = tail.split(" ", 2)
            mount = head.split(" ")[4]
            if kind == "cgroup2":
                version2 = mount
            elif kind == "cgroup":
                for name in options.strip().split(","):
                    version1[name] = mount
    return version1, version2


def _own_groups() -> str:
    """Return our own place in the version 2 hierarchy, "/" when unknown."""
    for line in _read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


# --- one task's group ----------------------------------------------------------------------------


def limit(group: Group, *, memory_bytes: int, nano_cpus: int, pids: int) -> str:
    """Set limits, 0 meaning none.

    Returns:
        "" or the sentence that says which limit could not be set.
    """
    try:
        if memory_bytes:
            _limit_memory(group, memory_bytes)
        if nano_cpus:
            _limit_cpu(group, nano_cpus)
        if pids:
            _write(f"{group['pids']}/pids.max", str(pids))
    except KeyError as error:
        return f"no cgroup for the {error.args[0]} controller on this host"
    except OSError as error:
        return f"cgroup {error.filename}: {error.strerror}"
    return ""


def _limit_memory(group: Group, memory_bytes: int) -> None:
    path = group["memory"]
    if _is_version2(path):
        _write(f"{path}/memory.max", str(memory_bytes))
    else:
        _write(f"{path}/memory.limit_in_bytes", str(memory_bytes))


def _limit_cpu(group: Group, nano_cpus: int) -> None:
    path = group["cpu"]
    quota = max(MIN_CPU_QUOTA_US, nano_cpus * CPU_PERIOD_US // NANO)
    if _is_version2(path):
        _write(f"{path}/cpu.max", f"{quota} {CPU_PERIOD_US}")
    else:
        _write(f"{path}/cpu.cfs_period_us", str(CPU_PERIOD_US))
        _write(f"{path}/cpu.cfs_quota_us", str(quota))


def join(group: Group, pid: int) -> None:
    """Put a process into the group.

    Raises:
        OSError: a hierarchy refuses; the process is then in some of them only.
    """
    for path in dict.fromkeys(group.values()):
        _write(f"{path}/cgroup.procs", str(pid))


def pids(group: Group) -> list[int]:
    """Return the processes in the group, of version 2 also those in groups below it."""
    path = group.get("track", "")
    found: list[int] = []
    for folder, _, _ in os.walk(path):
        found += [int(line) for line in _read(f"{folder}/cgroup.procs").split() if line != "0"]
    return found


def kill_all(group: Group) -> bool:
    """Kill every process in the group in one step; False when the kernel has no such step."""
    try:
        _write(f"{group.get('track', '')}/cgroup.kill", "1")
    except OSError:
        return False
    return True


def remove(group: Group) -> bool:
    """Remove the group's directories; False while one is still busy."""
    done = True
    for path in dict.fromkeys(group.values()):
        for folder, _, _ in os.walk(path, topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                done = False
    return done


def oom_kills(group: Group) -> int:
    """Return how many of the group's processes were killed for want of memory."""
    path = group.get("memory", "")
    name = "memory.events" if _is_version2(path) else "memory.oom_control"
    return _keyed(f"{path}/{name}").get("oom_kill", 0)


def usage(group: Group) -> dict[str, int]:
    """Return ``cpu_ns``, ``memory_bytes`` and ``pids``; what cannot be read is left out."""
    result: dict[str, int] = {}
    track = group.get("track", "")
    memory = group.get("memory", "")
    if "cpuacct" in group:
        _put(result, "cpu_ns", _read(f"{group['cpuacct']}/cpuacct.usage"))
    elif _is_version2(track):
        ticks = _keyed(f"{track}/cpu.stat").get("usage_usec")
        if ticks is not None:
            result["cpu_ns"] = ticks * 1000
    if memory:
        version2 = _is_version2(memory)
        name = "memory.current" if version2 else "memory.usage_in_bytes"
        _put(result, "memory_bytes", _read(f"{memory}/{name}"))
        # File pages that can be dropped at once are not the task's need; docker stats says so too.
        idle = "inactive_file" if version2 else "total_inactive_file"
        spare = _keyed(f"{memory}/memory.stat").get(idle, 0)
        if result.get("memory_bytes", 0) >= spare:
            result["memory_bytes"] = result.get("memory_bytes", 0) - spare
    if "pids" in group:
        _put(result, "pids", _read(f"{group['pids']}/pids.current"))
    return result


def pressure(group: Group) -> dict[str, int]:
    """Return for how long something waited in all, where the kernel tells (version 2)."""
    track = group.get("track", "")
    result: dict[str, int] = {}
    for name, resource in (("psi_cpu_ns", "cpu"), ("psi_mem_ns", "memory"), ("psi_io_ns", "io")):
        text = _read(f"{track}/{resource}.pressure") if _is_version2(track) else ""
        for line in text.splitlines():
            total = line.rpartition("total=")[2]
            if line.startswith("some ") and total.isdigit():
                result[name] = int(total) * 1000
    return result


def _put(result: dict[str, int], name: str, text: str) -> None:
    if text.strip().isdigit():
        result[name] = int(text)


def _keyed(path: str) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _is_version2(path: str) -> bool:
    return bool(path) and os.path.exists(f"{path}/cgroup.controllers")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
