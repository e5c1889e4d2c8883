"""What a lab leaves on a machine while it lives: its names, how to find them, how to remove them.

Teardown and the sweep after a killed run are the same code: they remove what carries the name of
one lab. A name holds the owner's process id; ``owner.json`` in the state directory adds the
owner's start time, so a process id used again protects nobody's leftovers and a living owner's
lab is never touched.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cgroups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Short on purpose: containerd's socket lies below it, and such a path has 107 characters at most.
_ROOT = Path("/tmp")
_NET = "10.77"
_LAB_NAME = re.compile(r"lab-(\d+)-(\d+)")


@dataclass(frozen=True)
class Names:
    """Every name of one lab, made of its owner's process id and the octet of its subnet.

    Interface names have 15 characters at most; the longest ids fit.
    """

    pid: int
    octet: int

    def __str__(self) -> str:
        return f"lab-{self.pid}-{self.octet}"

    @property
    def bridge(self) -> str:
        return str(self)

    @property
    def state_dir(self) -> Path:
        return _ROOT / str(self)

    @property
    def subnet(self) -> str:
        return f"{_NET}.{self.octet}.0/24"

    @property
    def accept_rule(self) -> list[str]:
        """Our only firewall rule: an engine in the root namespace makes FORWARD drop the rest."""
        return ["FORWARD", "-i", self.bridge, "-o", self.bridge, "-j", "ACCEPT"]

    def address(self, number: int) -> str:
        return f"{_NET}.{self.octet}.{number}"

    def veth(self, number: int) -> str:
        return f"v{self.octet}h{number}-{self.pid}"

    def tap(self, number: int) -> str:
        return f"t{self.octet}h{number}-{self.pid}"

    def owns_link(self, link: str) -> bool:
        return link == self.bridge or bool(re.fullmatch(rf"[tv]{self.octet}h\d+-{self.pid}", link))


def claim() -> Names:
    """Sweep what dead owners left, and take a free subnet and name for this process.

    The state directory, with ``owner.json`` in it, and the bridge exist when this returns.

    Raises:
        RuntimeError: all 250 subnets are taken.
    """
    with _claiming():
        sweep()
        taken = {int(match["octet"]) for match in _addresses_in_use()}
        taken |= {names.octet for names in _labs_on_disk()}
        octet = next((n for n in range(1, 251) if n not in taken), None)
        if octet is None:
            raise RuntimeError(f"every subnet of {_NET}.0.0/16 is in use")
        names = Names(os.getpid(), octet)
        names.state_dir.mkdir(mode=0o711)
        owner = {"pid": names.pid, "start": _start_time(names.pid)}
        (names.state_dir / "owner.json").write_text(json.dumps(owner))
        try:
            _run("ip", "link", "add", names.bridge, "type", "bridge")
            _run("ip", "address", "add", f"{names.address(254)}/24", "dev", names.bridge)
            _run("ip", "link", "set", names.bridge, "up")
            _run("iptables", "-w", "-I", *names.accept_rule)
        except BaseException:
            erase(names)
            raise
        return names


def sweep() -> list[Names]:
    """Remove every lab whose owner is dead; returns their names."""
    dead = [names for names in _labs_anywhere() if not _owner_lives(names)]
    for names in dead:
        erase(names)
    return dead


def erase(names: Names) -> None:
    """Remove everything that carries the names of one lab. Nothing there: nothing done.

    Raises:
        RuntimeError: something stayed; every step was tried, and the text says what is left.
    """
    failures: list[str] = []
    for step in (_erase_processes, _erase_links, _erase_rules, _erase_files):
        try:
            step(names)
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(f"{step.__name__.strip('_')}: {error}")
    left = find_traces(names)
    if left:
        raise RuntimeError(f"{names} is not gone: {'; '.join([*left, *failures])}")


def find_traces(names: Names) -> list[str]:
    """What on this machine still carries the names of one lab, in words; empty when it is gone."""
    found = [f"link {link}" for link in _links() if names.owns_link(link)]
    found += [f"rule {rule}" for rule in _rules() if names.bridge in rule.split()]
    for group in cgroups.lab_groups(str(names)):
        found += [f"process {pid}" for pid in cgroups.members(group)]
        found.append(f"control group {group}")
    if names.state_dir.exists():
        found.append(f"directory {names.state_dir}")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if str(names.state_dir) in line]
    return found


def _erase_processes(names: Names) -> None:
    for group in cgroups.lab_groups(str(names)):
        cgroups.remove_groups(group)


def _erase_links(names: Names) -> None:
    # By name and at once: a namespace that dies frees its end of a pair only some time later.
    for link in _links():
        if names.owns_link(link):
            subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)


def _erase_rules(names: Names) -> None:
    while any(names.bridge in rule.split() for rule in _rules()):
        _run("iptables", "-w", "-D", *names.accept_rule)


def _erase_files(names: Names) -> None:
    if not names.state_dir.exists():
        return
    # The kernel takes a namespace's mounts down a moment after its last process has died.
    _retry(lambda: shutil.rmtree(names.state_dir))


def _retry(act: Callable[[], None], *, patience_s: float = 5.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return act()
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


@contextmanager
def _claiming() -> Iterator[None]:
    """One at a time: two labs that start at once must not take the same subnet."""
    # The directory itself is locked, so the lock leaves no file behind.
    root = os.open(_ROOT, os.O_RDONLY)
    try:
        fcntl.flock(root, fcntl.LOCK_EX)
        yield
    finally:
        os.close(root)


def _owner_lives(names: Names) -> bool:
    start = _start_time(names.pid)
    if start is None:
        return False
    try:
        owner = json.loads((names.state_dir / "owner.json").read_text())
    except (OSError, ValueError):
        return True  # cannot tell: better a leftover than somebody's lab
    return bool(owner["start"] == start)


def _start_time(pid: int) -> int | None:
    """When a process started, in the kernel's ticks since boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command, in parentheses, and may itself hold spaces and ")".
    return int(stat.rpartition(")")[2].split()[19])


def _labs_anywhere() -> set[Names]:
    found = set(_labs_on_disk())
    for text in _links():
        if match := _LAB_NAME.fullmatch(text):
            found.add(Names(int(match[1]), int(match[2])))
    return found


def _labs_on_disk() -> list[Names]:
    matches = (_LAB_NAME.fullmatch(path.name) for path in _ROOT.glob("lab-*"))
    return [Names(int(match[1]), int(match[2])) for match in matches if match]


def _addresses_in_use() -> Iterator[re.Match[str]]:
    text = _run("ip", "-4", "address", "show")
    yield from re.finditer(rf"inet {re.escape(_NET)}\.(?P<octet>\d+)\.", text)


def _links() -> list[str]:
    listed: list[dict[str, Any]] = json.loads(_run("ip", "-json", "link", "show"))
    return [link["ifname"] for link in listed if link.get("ifname")]


def _rules() -> list[str]:
    return _run("iptables", "-w", "-S", "FORWARD").splitlines()


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
