"""Control groups of a lab: one subtree a host, so that whatever runs there is found and removed.

Works with version 1, version 2 and both at once. A host gets ``<ours>/<lab>/<host>`` in every
hierarchy; it sees that as its root, and its own processes sit in the child ``node``, because a
version 2 group cannot hold processes and controlled children at once.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NODE = "node"


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy.

    Attributes:
        mount: where it is mounted.
        base: the directory under it in which labs put their groups.
        is_v2: whether it is the unified hierarchy.
    """

    mount: Path
    base: Path
    is_v2: bool


def hierarchies() -> list[Hierarchy]:
    """The mounted hierarchies, with the place in each where this process may make groups.

    In version 1 that is our own group, so limits set on us hold for the lab too. In version 2 it
    is the root: our own group holds processes, hence cannot have controlled children.
    """
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers.removeprefix("name=")] = path
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            found.append(Hierarchy(Path(mount), Path(mount), True))
        elif kind == "cgroup":
            names = {option.removeprefix("name=") for option in options.split(",")}
            path = next((own[c] for c in own if c and set(c.split(",")) <= names), "/")
            inside = path.removeprefix(root) if root != "/" else path
            found.append(Hierarchy(Path(mount), Path(mount) / inside.lstrip("/"), False))
    return found


def make_groups(lab: str, host: str) -> list[tuple[Path, Path]]:
    """Make a host's groups in every hierarchy.

    Returns:
        For each hierarchy the host's group and the mount point it will be seen at.
    """
    made = []
    for hierarchy in hierarchies():
        group = hierarchy.base
        for part in (lab, host, NODE):
            group = group / part
            group.mkdir(exist_ok=True)
            _inherit_cpuset(group)
        made.append((group.parent, hierarchy.mount))
    return made


def _inherit_cpuset(group: Path) -> None:
    """A new version 1 cpuset has no CPUs and takes no process until it is told some."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        setting = group / name
        if setting.exists() and not setting.read_text().strip():
            with suppress(OSError):  # version 2 inherits by itself and refuses copies
                setting.write_text((group.parent / name).read_text())


def lab_groups(lab: str) -> list[Path]:
    """A lab's top group in every hierarchy that has one."""
    tops = {hierarchy.base / lab for hierarchy in hierarchies()}
    tops |= {hierarchy.mount / lab for hierarchy in hierarchies()}
    return sorted(top for top in tops if top.is_dir())


def members(top: Path) -> set[int]:
    """Ids of the processes in a group and below it, as seen from our process namespace."""
    found: set[int] = set()
    for folder, _, _ in os.walk(top):
        with suppress(OSError):
            found.update(int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())
    return found - {0}


def remove_groups(top: Path, *, patience_s: float = 10.0) -> None:
    """Remove a group and all below it, killing what still runs there.

    Raises:
        OSError: something in it did not die within ``patience_s`` seconds.
    """
    deadline = time.monotonic() + patience_s
    while True:
        for pid in members(top):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()
            return
        except FileNotFoundError:
            pass  # an engine's shim removed a group under our feet: look again
        except OSError:  # busy: the killed are still being reaped
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
