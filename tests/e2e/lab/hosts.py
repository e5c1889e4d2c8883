"""One host of a lab: namespaces, a wire to the others, and commands run inside.

A host sees its own network, process ids, host name, /run, /etc/hosts, resolver, /sys and control
groups; the rest of the file system is the machine's. So a program's default paths under /run work
in every host at once, and the same files can be reached from outside under ``state_dir/run``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from . import cgroups
from .daemons import Daemon, daemon_environment
from .engines import KINDS, Engine
from .processes import HostProcess
from .registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .lab import Lab

# Writes "0", which means "me", to each file before "--", then becomes what follows it.
_JOIN_AND_EXEC = 'while [ "$1" != -- ]; do echo 0 > "$1"; shift; done; shift; exec "$@"'
_INIT = Path(__file__).with_name("init.py")
_BAD_WIRE = Path(__file__).with_name("bad_wire.py")
# The bare interpreter, for scripts that need nothing but the standard library and a quick start.
_SCRIPT = (os.path.realpath(sys.executable), "-I", "-S")
_NAMESPACES = ("--net", "--mount", "--uts", "--pid", "--cgroup")


class HostCommandFailed(Exception):
    """A command in a host ended with another status than 0; the text holds its output."""

    def __init__(self, host: str, done: subprocess.CompletedProcess[str]) -> None:
        said = "\n".join(part.strip() for part in (done.stdout, done.stderr) if part)
        super().__init__(f"{host}: {done.args!r} ended with {done.returncode}: {said}")
        self.returncode = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr


class Host:
    """A host of a :class:`Lab`, which makes it and ends it.

    Attributes:
        name: ``h1``, ``h2``, ...; also its host name.
        address: its IPv4 address on the lab's bridge; see :meth:`move`.
        state_dir: a directory of its own, the same path inside and outside.
        engine: its engine once :meth:`start_engine` was called.
        daemon: its swarmctl daemon once :meth:`start_daemon` was called.
    """

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab = lab
        self.number = number
        self.name = f"h{number}"
        self.address = lab.names.address(number)
        self.veth = lab.names.veth(number)
        self.state_dir = lab.names.state_dir / self.name
        self.engine: Engine | None = None
        self.daemon: Daemon | None = None
        self._init: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._bad_wire: subprocess.Popen[bytes] | None = None
        self._join: list[str] = []
        self._started: list[HostProcess] = []

    @property
    def pid(self) -> int:
        """A process in the host's namespaces that lives as long as they do."""
        return self._pid

    # --- commands -------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        timeout_s: float = 60.0,
        input_text: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this host and wait for it.

        Args:
            env: variables added to ours.

        Raises:
            HostCommandFailed: it ended with another status than 0 and ``check`` is true.
            subprocess.TimeoutExpired: it did not end within ``timeout_s`` seconds.
        """
        process = self.popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL if input_text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process.popen:
            try:
                sent = None if input_text is None else input_text.encode()
                out, err = process.popen.communicate(sent, timeout_s)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(
            [str(part) for part in argv],
            process.popen.returncode,
            out.decode(errors="replace"),
            err.decode(errors="replace"),
        )
        if check and done.returncode != 0:
            raise HostCommandFailed(self.name, done)
        return done

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> HostProcess:
        """Start a command in this host. It ends with the host at the latest."""
        enter = ["nsenter", f"--target={self._pid}", *_NAMESPACES, "--", *map(str, argv)]
        started = HostProcess(
            subprocess.Popen(
                ["sh", "-c", _JOIN_AND_EXEC, "sh", *self._join, "--", *enter],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # Ctrl-C is for us; hosts end by our hand
            )
        )
        self._started = [process for process in self._started if process.running] + [started]
        return started

    def swarmctl(
        self,
        args: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = 60.0,
        input_text: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the swarmctl under test in this host, on this host's state and socket.

        Returns and raises as :meth:`run` does.
        """
        return self.run(
            [*self.lab.swarmctl_command, *args],
            check=check,
            timeout_s=timeout_s,
            input_text=input_text,
            env=daemon_environment(self),
        )

    def start_daemon(self, *args: str, engine: bool | None = None) -> Daemon:
        """Start ``swarmctl daemon`` and wait until it answers; see :class:`Daemon`.

        Args:
            args: further arguments of ``swarmctl daemon``.
            engine: whether to point it at this host's engine; by default, if it runs one.
        """
        if self.daemon is None:
            self.daemon = Daemon(self)
        self.daemon.start(*args, engine=engine)
        return self.daemon

    def start_engine(
        self, kind: str = "docker", *, live_restore: bool = False, wait: bool = True
    ) -> Engine:
        """Start an engine of this host's own, with the lab's image loaded.

        Args:
            kind: ``docker`` or ``podman``; a host that has one keeps its kind.
            wait: whether to return only when it can run containers. Without, call
                ``engine.wait_until_ready()`` later: several engines start faster side by side.
        """
        if self.engine is None:
            self.engine = KINDS[kind](self)
        self.engine.start(live_restore=live_restore, wait=wait)
        return self.engine

    def start_dockerd(self, *, live_restore: bool = False, wait: bool = True) -> Engine:
        """As :meth:`start_engine`, for Docker's."""
        return self.start_engine(live_restore=live_restore, wait=wait)

    def start_registry(self) -> Registry:
        """Start a registry on this host that every engine of the lab can pull from."""
        return Registry(self)

    def pids(self) -> set[int]:
        """The processes of this host but for its init and its containers; ids as seen outside.

        Each started with :meth:`popen` counts twice: it and the nsenter that waits for it.
        """
        group = Path(self._join[0]).parent
        return cgroups.members(group) - {self._pid}

    def pid_here(self, pid: int) -> int:
        """What we call a process that this host, which has a process table of its own, calls so.

        Raises:
            LookupError: it has no such process.
        """
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        table = {one: _status(one) for one in found}
        for one, status in table.items():
            if status.get("NSpid", [])[1:2] == [str(pid)]:
                above = one
                while above not in (0, self._pid):
                    above = int(table.get(above, {}).get("PPid", ["0"])[0])
                if above == self._pid:
                    return one
        raise LookupError(f"{self.name} has no process {pid}")

    # --- trouble --------------------------------------------------------------------------

    def cut(self) -> None:
        """Pull the network cable. The host keeps its address and hears nobody."""
        _ip("link", "set", self.veth, "down")

    def heal(self) -> None:
        """Put a good cable back: ends :meth:`cut` and :meth:`slow`."""
        if self._bad_wire is not None:
            self._end_bad_wire()
            _ip("link", "set", self.veth, "arp", "on", "master", self.lab.names.bridge)
        _ip("link", "set", self.veth, "up")

    def move(self, number: int = 0) -> None:
        """Give the host another address on the lab's bridge, as its DHCP server might.

        Args:
            number: the last number of the address; 0 for the host's own.
        """
        before, self.address = self.address, self.lab.names.address(number or self.number)
        if before != self.address:
            self.run(["ip", "address", "del", f"{before}/24", "dev", "eth0"])
            self.run(["ip", "address", "add", f"{self.address}/24", "dev", "eth0"])

    def slow(self, delay_s: float, *, loss: float = 0.0) -> None:
        """Make the wire worse, alike in both directions, until :meth:`heal`.

        Args:
            delay_s: seconds each packet waits, so a round trip takes twice as long.
            loss: the share of packets lost each way, from 0 to 1.

        Raises:
            RuntimeError: no such wire could be made.
        """
        self.heal()
        tap = self.lab.names.tap(self.number)
        self._bad_wire = subprocess.Popen(
            [*_SCRIPT, str(_BAD_WIRE), self.veth, tap, str(delay_s), str(loss)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._bad_wire.stdout is not None
        if self._bad_wire.stdout.readline() != b"ready\n":
            self._end_bad_wire()
            raise RuntimeError(f"no slow wire for {self.name}; its words are on standard error")
        # Off the bridge the machine itself would answer the host's ARP on this interface.
        _ip("link", "set", self.veth, "nomaster", "arp", "off")
        _ip("link", "set", tap, "master", self.lab.names.bridge, "up")

    def _end_bad_wire(self) -> None:
        if self._bad_wire is not None:
            self._bad_wire.communicate(timeout=5)  # closes its input, which ends it
            self._bad_wire = None

    def kill_all(self) -> None:
        """Power loss: SIGKILL to every process of this host at once, containers included.

        Files stay. The host's namespaces stay too, so it can be "switched on" by starting its
        engine and daemon again.
        """
        # To all but the host's init and the sender itself, says kill(2).
        self.run(["kill", "-KILL", "--", "-1"])
        for service in (self.engine, self.daemon):
            if service is not None and service.process is not None:
                service.process.wait(10)
        if self.engine is not None:
            self.engine.lost_power()

    # --- making and ending it, for Lab ------------------------------------------------------

    def begin(self) -> None:
        """Start making the host; :meth:`finish` waits for it. Only :class:`Lab` calls these."""
        (self.state_dir / "run" / "lock").mkdir(parents=True)
        (self.state_dir / "etc-docker").mkdir()
        (self.state_dir / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        groups = cgroups.make_groups(str(self.lab.names), self.name)
        self._join = [str(group / cgroups.NODE / "cgroup.procs") for group, _ in groups]
        plan = {
            "hostname": self.name,
            "state": str(self.state_dir),
            "join": self._join,
            "groups": [[str(group), str(mount)] for group, mount in groups],
            "binds": self._binds(),
        }
        unshare = ["unshare", *_NAMESPACES, "--fork", "--kill-child"]
        plan_file = self.state_dir / "plan.json"
        plan_file.write_text(json.dumps(plan))
        script = [*_SCRIPT, str(_INIT), str(plan_file)]
        # Groups first: the namespace made by unshare has the group it was made in for its root.
        join = [str(group / "cgroup.procs") for group, _ in groups]
        with (self.state_dir / "init.log").open("wb") as log:
            self._init = subprocess.Popen(
                ["sh", "-c", _JOIN_AND_EXEC, "sh", *join, "--", *unshare, *script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def _binds(self) -> list[list[str]]:
        """What this host has of its own: [file or directory, where it is seen]."""
        binds = [
            [str(self.state_dir / "run"), "/run"],
            [str(self.state_dir / "resolv.conf"), "/etc/resolv.conf"],
            [str(self.lab.names.state_dir / "hosts"), "/etc/hosts"],
        ]
        if Path("/etc/docker").is_dir():
            # An engine keeps its key, hence its identity, there: three hosts, three engines.
            binds.append([str(self.state_dir / "etc-docker"), "/etc/docker"])
        return binds

    def finish(self) -> None:
        """Wait until the host stands, and wire it to the bridge.

        Raises:
            RuntimeError: it could not be made; the text holds its init's words.
        """
        assert self._init is not None
        assert self._init.stdout is not None
        word, _, pid = self._init.stdout.readline().decode().strip().partition(" ")
        if word != "ready":
            raise RuntimeError(
                f"host {self.name}: {(self.state_dir / 'init.log').read_text().strip()}"
            )
        self._pid = int(pid)
        _ip("link", "add", self.veth, "type", "veth", "peer", "eth0", "netns", pid)
        _ip("link", "set", self.veth, "master", self.lab.names.bridge, "up")
        self.run(["ip", "link", "set", "lo", "up"])
        self.run(["ip", "address", "add", f"{self.address}/24", "dev", "eth0"])
        self.run(["ip", "link", "set", "eth0", "up"])

    def end(self) -> None:
        """End every process of this host. Never fails for one that is already over."""
        self._end_bad_wire()
        if self._init is None:
            return
        with suppress(OSError):  # its read end may be gone
            assert self._init.stdin is not None
            self._init.stdin.close()
        try:
            self._init.wait(5)
        except subprocess.TimeoutExpired:
            self._init.send_signal(signal.SIGKILL)  # unshare's death kills the init
            self._init.wait(5)
        assert self._init.stdout is not None
        self._init.stdout.close()
        for process in self._started:
            process.wait(10)

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address}>"


def _status(pid: int) -> dict[str, list[str]]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def _ip(*args: str) -> None:
    """Run ip on the machine itself, outside every host."""
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostCommandFailed("the machine", done)


def hosts_file(hosts: Sequence[Any]) -> str:
    """The text of /etc/hosts that all hosts of a lab share."""
    lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in hosts)]
    return "\n".join(lines) + "\n"
