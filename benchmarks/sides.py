"""The two sides of the comparison, and the limit that both share.

A side brings up its daemons on the lab's hosts, hands out a :class:`Cluster` on them, and takes
everything down again. Only one side is up at a time, on empty engines, so that neither pays for
the other.
"""

from __future__ import annotations

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cluster import Cluster
from benchmarks.managers import ManagerHost, Managers
from tests.e2e.lab import IMAGE, Engine, Host, Lab, run_container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# How many starts an engine is given at once. On two CPUs and three engines 2 and 4 were alike and
# the fastest, 1 and 8 some 15 % slower.
_AT_ONCE = 4
_BODY = {"Image": IMAGE, "Cmd": ["sleep", "3600"]}


@dataclass(frozen=True)
class Side:
    """One cluster manager.

    Attributes:
        name: as the table calls it.
        missing: why it cannot take part, in words; None when it can.
        open: a context manager with a Cluster whose hosts are in no swarm yet.
        kill_manager: SIGKILL to the first host's manager process.
        restart_manager: start it again; returns when it answers.
        managers: a context manager with a swarm in which the lab's first so many hosts are
            managers and the others workers.
        elected: what a manager logs when it begins to lead.
    """

    name: str
    missing: Callable[[Lab], str | None]
    open: Callable[[Lab], AbstractContextManager[Cluster]]
    kill_manager: Callable[[Host], None]
    restart_manager: Callable[[Host], None]
    managers: Callable[[Lab, int], AbstractContextManager[Managers]]
    elected: re.Pattern[str]

    def elections(self, hosts: Sequence[ManagerHost]) -> int:
        """How often one of these managers has begun to lead since its log was begun."""
        return sum(len(self.elected.findall(host.log)) for host in hosts)


@contextmanager
def _managers(lab: Lab, count: int, start: Callable[[Host], ManagerHost]) -> Iterator[Managers]:
    """Make a swarm on all hosts, and whatever has befallen it since, leave the hosts clean."""
    try:
        with ThreadPoolExecutor() as pool:
            hosts = list(pool.map(start, lab.hosts))
        managers = Managers(hosts[:count])
        managers.make()
        for worker in hosts[count:]:
            managers.join(worker, role="Worker")
        yield managers
    finally:
        lab.clean()


# --- Docker Swarm ---------------------------------------------------------------------------


@contextmanager
def _open_swarm(lab: Lab) -> Iterator[Cluster]:
    """dockerd is engine and manager in one: nothing to start."""
    cluster = Cluster(lab.hosts, [_engine(host).socket for host in lab.hosts])
    try:
        yield cluster
        cluster.leave_all()
    finally:
        cluster.close()
        lab.clean()


def _swarm_manager(host: Host) -> ManagerHost:
    return ManagerHost(host, _engine(host), _engine(host).start)


SWARM = Side(
    name="Swarm",
    missing=lambda _lab: None,
    open=_open_swarm,
    kill_manager=lambda host: _engine(host).kill(),
    restart_manager=lambda host: _engine(host).start(),
    managers=lambda lab, count: _managers(lab, count, _swarm_manager),
    elected=re.compile(r"became leader at term \d+"),
)


# --- swarmctl -------------------------------------------------------------------------------


@contextmanager
def _open_swarmctl(lab: Lab) -> Iterator[Cluster]:
    daemons = [host.start_daemon() for host in lab.hosts]
    cluster = Cluster(lab.hosts, [daemon.socket for daemon in daemons])
    try:
        yield cluster
        cluster.leave_all()
    finally:
        cluster.close()
        lab.clean()


def _swarmctl_missing(lab: Lab) -> str | None:
    for word in lab.swarmctl_command:
        if word.endswith(".pyz") and not Path(word).exists():
            return f"{word} is not built; run python3 build_zipapp.py"
    if shutil.which(lab.swarmctl_command[0]) is None:
        return f"{lab.swarmctl_command[0]} is not there"
    try:
        lab[0].start_daemon()
    except (RuntimeError, AssertionError) as error:
        return f"its daemon does not start: {error}"
    finally:
        lab.clean()
    return None


def _kill_daemon(host: Host) -> None:
    if host.daemon is None:
        raise RuntimeError(f"{host.name} runs no swarmctl daemon")
    host.daemon.kill()


def _restart_daemon(host: Host) -> None:
    host.start_daemon()


def _swarmctl_manager(host: Host) -> ManagerHost:
    return ManagerHost(host, host.start_daemon(), host.start_daemon)


SWARMCTL = Side(
    name="swarmctl",
    missing=_swarmctl_missing,
    open=_open_swarmctl,
    kill_manager=_kill_daemon,
    restart_manager=_restart_daemon,
    managers=lambda lab, count: _managers(lab, count, _swarmctl_manager),
    elected=re.compile(r"this manager leads, in term \d+"),
)


# --- the engines alone ----------------------------------------------------------------------


def engine_start(lab: Lab, count: int) -> float:
    """Seconds in which the engines start that many containers, with nobody managing them.

    This is the floor for any manager on these engines: each gets its share at once and works on
    four at a time.
    """
    engines = [_engine(host) for host in lab.hosts]
    shares = [range(number, count, len(engines)) for number in range(len(engines))]
    with ThreadPoolExecutor(len(engines) * _AT_ONCE) as pool:
        started = time.perf_counter()
        jobs = [
            pool.submit(_start_some, engine, len(share[lane::_AT_ONCE]))
            for engine, share in zip(engines, shares, strict=True)
            for lane in range(_AT_ONCE)
        ]
        for job in jobs:
            job.result()
        took = time.perf_counter() - started
        for done in [pool.submit(_remove_all, engine) for engine in engines]:
            done.result()
    return took


def engine_replace(lab: Lab) -> float:
    """Seconds in which an engine kills one container and starts another in its place."""
    engine = _engine(lab.hosts[0])
    with engine.client() as client:
        container = run_container(client, _BODY)
        started = time.perf_counter()
        client.call("POST", f"/containers/{container}/kill")
        client.call("POST", f"/containers/{container}/wait")
        run_container(client, _BODY)
        took = time.perf_counter() - started
    _remove_all(engine)
    return took


def _start_some(engine: Engine, count: int) -> None:
    with engine.client() as client:
        for _ in range(count):
            run_container(client, _BODY)


def _remove_all(engine: Engine) -> None:
    for container in engine.containers():
        engine.remove_container(container["Id"])


def _engine(host: Host) -> Engine:
    if host.engine is None:
        raise RuntimeError(f"{host.name} has no engine")
    return host.engine
