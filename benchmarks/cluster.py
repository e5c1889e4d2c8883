"""The steps that are measured, written once against the Docker Engine API.

Docker's engine and swarmctl serve the same routes, so the same code drives both, through the same
client, and only the sockets differ. Each step returns when its result can be seen by any client;
how long that took is for the caller to measure, or returned where a step has a part that does not
count.

Nothing here knows which side it drives.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.e2e.lab import IMAGE, ApiError, UnixClient, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.lab import Engine, Host

TASK_LABEL = "com.docker.swarm.task.id"
SERVICE_LABEL = "com.docker.swarm.service.id"

# How often states are asked for. A list of tasks costs the manager and us some 50 us a task; with
# this pause watching takes a few per cent of one CPU, and a time is late by a few per cent at most.
_POLL_S = 0.02
_POLL_PER_TASK_S = 0.002
_STEP_S = 180.0
# A first restart may be immediate only for a task that has run as long as its restart delay (5 s).
_SETTLED_S = 6.0


@dataclass(frozen=True)
class Audit:
    """Containers that run against tasks that should, once both have stopped changing.

    Attributes:
        running: containers of the service that run, over all engines.
        twice: tasks that have more than one of them.
        orphaned: containers whose task is not one that should run.
        absent: tasks that should run and have no container.
    """

    running: int
    twice: int
    orphaned: int
    absent: int

    @property
    def is_clean(self) -> bool:
        """One container for each task and none besides."""
        return self.twice == self.orphaned == self.absent == 0


class Caller(Protocol):
    """Whoever takes a call to a manager."""

    def call(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> Any:
        """As :meth:`UnixClient.call`."""


class Cluster:
    """A swarm over the hosts of a lab, driven through the first host's socket.

    Args:
        sockets: of daemons that answer and are in no swarm yet, one for each host; none for a swarm
            that is there.
        manager: drives it in place of the first host's.
    """

    def __init__(
        self, hosts: list[Host], sockets: list[Path], *, manager: Caller | None = None
    ) -> None:
        self.hosts = hosts
        self._clients = [UnixClient(socket) for socket in sockets]
        self._manager = manager or self._clients[0]

    def close(self) -> None:
        """Close the connections; the swarm is left as it is."""
        for client in self._clients:
            client.close()

    # --- making the swarm -------------------------------------------------------------------

    def init(self) -> float:
        """Make a swarm on the first host; seconds until the call returned."""
        started = time.perf_counter()
        where = f"{self.hosts[0].address}:2377"
        self._manager.call("POST", "/swarm/init", {"ListenAddr": where, "AdvertiseAddr": where})
        return time.perf_counter() - started

    def join(self, index: int, *, as_manager: bool) -> float:
        """Join a host; seconds from the call until the manager lists the node as ready."""
        tokens = self._manager.call("GET", "/swarm")["JoinTokens"]
        where = f"{self.hosts[index].address}:2377"
        body = {
            "ListenAddr": where,
            "AdvertiseAddr": where,
            "RemoteAddrs": [f"{self.hosts[0].address}:2377"],
            "JoinToken": tokens["Manager" if as_manager else "Worker"],
        }
        started = time.perf_counter()
        self._clients[index].call("POST", "/swarm/join", body)
        self._wait(lambda: self._ready_nodes() == index + 1, f"{index + 1} nodes to be ready")
        return time.perf_counter() - started

    def node_id(self, index: int) -> str:
        """The node id of a host."""
        return str(self._clients[index].call("GET", "/info")["Swarm"]["NodeID"])

    def leave_all(self) -> None:
        """Take every host out of its swarm, so that nothing of it is left."""
        for client in reversed(self._clients):
            if client.call("GET", "/info")["Swarm"]["LocalNodeState"] != "inactive":
                client.call("POST", "/swarm/leave", query={"force": "1"})

    def _ready_nodes(self) -> int:
        nodes = self._manager.call("GET", "/nodes")
        return sum(node["Status"]["State"] == "ready" for node in nodes)

    # --- services ---------------------------------------------------------------------------

    def create(self, name: str, replicas: int) -> str:
        """Create a service of sleeping containers; returns its id at once."""
        container = {
            "Image": IMAGE,
            "Command": ["sleep", "3600"],
            # As the first process sleep ignores SIGTERM, and cleaning up is not what is measured.
            "StopSignal": "SIGKILL",
        }
        spec = {
            "Name": name,
            "TaskTemplate": {"ContainerSpec": container},
            "Mode": {"Replicated": {"Replicas": replicas}},
        }
        return str(self._manager.call("POST", "/services/create", spec)["ID"])

    def run_sleeper(self, name: str, host: Host, network: str, **parts: Any) -> tuple[str, int]:
        """Run a sleeping container on a host, on a network, for the namespace that it has.

        Args:
            parts: of the spec, laid over ours.

        Returns:
            The service's id, and a process in the namespace.
        """
        container = {"Image": IMAGE, "Command": ["sleep", "3600"], "StopSignal": "SIGKILL"}
        spec = {
            "Name": name,
            "TaskTemplate": {
                "ContainerSpec": container,
                "Placement": {"Constraints": [f"node.hostname=={host.name}"]},
                "Networks": [{"Target": network}],
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            **parts,
        }
        service = self.create_from(spec)
        self.wait_running(service, 1)
        (found,) = self.containers(service, running=True)
        assert host.engine is not None
        return service, host.engine.container_pid(found["Id"])

    def create_and_wait(self, name: str, replicas: int) -> tuple[str, float]:
        """Create a service; its id, and seconds from the call until every task runs."""
        started = time.perf_counter()
        service = self.create(name, replicas)
        self.wait_running(service, replicas)
        return service, time.perf_counter() - started

    def running(self, service: str) -> list[dict[str, Any]]:
        """The service's tasks that should run and do."""
        return [t for t in self.wanted(service) if t["Status"]["State"] == "running"]

    def wanted(self, service: str) -> list[dict[str, Any]]:
        """The service's tasks that should run."""
        filters = {"service": [service], "desired-state": ["running"]}
        tasks: list[dict[str, Any]] = self._manager.call(
            "GET", "/tasks", query={"filters": filters}
        )
        return tasks

    def wait_running(
        self, service: str, replicas: int, *, not_tasks: str = "", not_node: str = ""
    ) -> None:
        """Wait until that many tasks run, not counting one task or those of one node."""

        def enough() -> bool:
            tasks = self.running(service)
            counted = [t for t in tasks if t["ID"] != not_tasks and t.get("NodeID") != not_node]
            return len(counted) == replicas

        pause = _POLL_S + _POLL_PER_TASK_S * replicas
        self._wait(enough, f"{replicas} running tasks", every_s=pause)

    def kill_one_and_wait(self, service: str, replicas: int) -> float:
        """Kill one container from outside; seconds until another has taken its place.

        The service has run long enough before for its crash not to look like a crash loop.
        """
        time.sleep(_SETTLED_S)
        victim = self.running(service)[0]
        engine, container = self._container_of(victim["ID"])
        with engine.client() as client:
            started = time.perf_counter()
            client.call("POST", f"/containers/{container}/kill")
            self.wait_running(service, replicas, not_tasks=victim["ID"])
            return time.perf_counter() - started

    def create_from(self, spec: dict[str, Any]) -> str:
        """Create a service of any kind; returns its id at once."""
        return str(self._manager.call("POST", "/services/create", spec)["ID"])

    def update(self, service: str, **changes: Any) -> None:
        """Post a service's spec back with other top-level fields, as any client does."""
        found = self._manager.call("GET", f"/services/{service}")
        version = {"version": found["Version"]["Index"]}
        spec = {**found["Spec"], **changes}
        self._manager.call("POST", f"/services/{service}/update", spec, query=version)

    def wait_forced(self, service: str, replicas: int, force: int) -> None:
        """Wait until that many tasks of the spec with this ForceUpdate run and no others should."""
        self.wait_renewed(service, replicas, lambda spec: spec.get("ForceUpdate") == force)

    def wait_renewed(
        self, service: str, replicas: int, is_new: Callable[[dict[str, Any]], bool]
    ) -> None:
        """Wait until that many tasks run, all of a spec that is new, and no others should.

        Args:
            is_new: judges a task's spec.
        """

        def all_new() -> bool:
            tasks = self.wanted(service)
            return len(tasks) == replicas and all(
                task["Status"]["State"] == "running" and is_new(task["Spec"]) for task in tasks
            )

        self._wait(all_new, f"{replicas} tasks of the new spec")

    def wait_update(self, service: str, state: str) -> None:
        """Wait until a service's update is in a state."""

        def is_so() -> bool:
            found = self._manager.call("GET", f"/services/{service}")
            return bool((found.get("UpdateStatus") or {}).get("State") == state)

        self._wait(is_so, f"an update that is {state}")

    def create_secret(self, name: str, data: str) -> dict[str, Any]:
        """Create a secret; returns what a service's spec says to use it as the file ``secret``."""
        body = {"Name": name, "Data": base64.b64encode(data.encode()).decode()}
        found = self._manager.call("POST", "/secrets/create", body)["ID"]
        place = {"Name": "secret", "UID": "0", "GID": "0", "Mode": 0o444}
        return {"File": place, "SecretID": found, "SecretName": name}

    def set_availability(self, node_id: str, word: str) -> None:
        """Drain a node, or let it take tasks again."""
        node = self._manager.call("GET", f"/nodes/{node_id}")
        version = {"version": node["Version"]["Index"]}
        spec = {**node["Spec"], "Availability": word}
        self._manager.call("POST", f"/nodes/{node_id}/update", spec, query=version)

    def wait_completed(self, service: str, count: int) -> None:
        """Wait until that many tasks of a job are complete."""

        def done() -> bool:
            filters = {"service": [service]}
            tasks = self._manager.call("GET", "/tasks", query={"filters": filters})
            return sum(task["Status"]["State"] == "complete" for task in tasks) >= count

        self._wait(done, f"{count} completed tasks")

    def remove(self, service: str) -> None:
        """Remove a service and wait until no engine knows a container of it."""
        self._manager.call("DELETE", f"/services/{service}")
        self._wait(lambda: not self.containers(service), f"the containers of {service} to go")

    # --- what the engines say -----------------------------------------------------------------

    def engines(self) -> list[Engine]:
        """The engines under the swarm, asked directly and past it."""
        return [host.engine for host in self.hosts if host.engine is not None]

    def containers(self, service: str, *, running: bool = False) -> list[dict[str, Any]]:
        """The service's containers on all engines."""
        label = f"{SERVICE_LABEL}={service}"
        return [c for e in self.engines() for c in e.containers(label=label, running=running)]

    def audit(self, service: str) -> Audit:
        """Compare what runs with what should, when they agree or after 30 s."""
        last: list[Audit] = []

        def agree() -> bool:
            last[:] = [self._compare(service)]
            return last[0].is_clean

        with suppress(AssertionError):  # a disagreement that stays is the result
            eventually(agree, 30, every_s=0.2)
        return last[0]

    def _compare(self, service: str) -> Audit:
        wanted = {task["ID"] for task in self.wanted(service)}
        found = Counter(
            container["Labels"][TASK_LABEL] for container in self.containers(service, running=True)
        )
        return Audit(
            running=sum(found.values()),
            twice=sum(count > 1 for count in found.values()),
            orphaned=sum(count for task, count in found.items() if task not in wanted),
            absent=len(wanted - found.keys()),
        )

    def _container_of(self, task: str) -> tuple[Engine, str]:
        for engine in self.engines():
            for container in engine.containers(label=f"{TASK_LABEL}={task}", running=True):
                return engine, container["Id"]
        raise LookupError(f"no engine runs a container of task {task}")

    def _wait(self, ask: Callable[[], bool], what: str, *, every_s: float = _POLL_S) -> None:
        def answer() -> bool:
            try:
                return ask()
            except ApiError as error:
                if error.status < 500:
                    raise
                return False  # a manager that has just started may know no leader yet

        eventually(answer, _STEP_S, every_s=every_s, what=what)
