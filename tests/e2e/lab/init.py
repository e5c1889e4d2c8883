"""The first process of a lab host. Runs alone, as a script: nothing of the package is imported.

Started inside new namespaces by ``hosts.py`` with one argument, the file that says what to mount,
as JSON. It makes the host look like a machine of its own, says ``ready <pid>`` (its id outside)
and then only reaps orphans, as any init must: a container shim left unreaped looks alive to its
engine.

Its life is its standard input. When the lab closes that, or dies in whatever way, this process
ends, and the kernel kills everything else in its process namespace with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Set the host up, report, and reap until standard input ends."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    # Only the old /proc knows our id outside; from the mount below on it is 1.
    outer_pid = Path("/proc/self").readlink()
    for file in plan["join"]:
        Path(file).write_text("0")
    socket.sethostname(plan["hostname"])
    _mount_all(plan)
    _reap_until_end_of_input(f"ready {outer_pid}\n")


def _mount_all(plan: dict[str, Any]) -> None:
    _mount("-t", "proc", "proc", "/proc")
    _mount_sys(plan["groups"], Path(plan["state"]) / "cgroup")
    for source, target in plan["binds"]:
        place = Path(os.path.realpath(target))
        if not place.exists():  # a link into /run, which is empty now
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        _mount("--bind", source, str(place))


def _mount_sys(groups: list[list[str]], aside: Path) -> None:
    """A /sys that shows this host's network, with this host's groups as roots in it."""
    aside.mkdir()
    _mount("-t", "tmpfs", "-o", "size=64k", "groups", str(aside))
    for number, (group, _) in enumerate(groups):
        held = aside / str(number)
        held.mkdir()
        _mount("--bind", group, str(held))
    # Laid over the old one, the new /sys would hide its mounts but leave them in mountinfo, where
    # engines look their groups up.
    subprocess.run(["umount", "--lazy", "--recursive", "/sys"], check=True)
    _mount("-t", "sysfs", "sysfs", "/sys")
    if any(mount != "/sys/fs/cgroup" for _, mount in groups):
        _mount("-t", "tmpfs", "-o", "size=64k", "cgroup", "/sys/fs/cgroup")
    for number, (_, mount) in enumerate(groups):
        Path(mount).mkdir(exist_ok=True)
        _mount("--move", str(aside / str(number)), mount)
    subprocess.run(["umount", str(aside)], check=True)


def _mount(*argv: str) -> None:
    subprocess.run(["mount", *argv], check=True)


def _reap_until_end_of_input(greeting: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print(greeting, end="", flush=True)
    while True:
        readable, _, _ = select.select([0, reader], [], [])
        if 0 in readable and not os.read(0, 1024):
            return
        if reader in readable:
            os.read(reader, 1024)
            _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main()
