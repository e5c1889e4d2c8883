"""swarmctl's swarm on the hosts of a lab, as the end-to-end tests drive it.

The steps that the benchmarks measure, and what else tests need: specs of any kind, changes of
services and nodes, what each engine really runs. Everything goes through the API's routes and the
engines' own; the engines are asked past swarmctl, so it cannot say that all is well.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.cluster import SERVICE_LABEL, TASK_LABEL, Cluster
from benchmarks.managers import ManagerHost, Managers
from tests.e2e.lab import IMAGE, ApiError, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.e2e.lab import Daemon, Engine, Host

PORT = 2377
# As its container's first process, sleep would ignore SIGTERM and take its whole grace.
_QUICK_STOP = {"StopSignal": "SIGKILL"}


class Swarm(Cluster):
    """One manager, on the first host, and workers.

    Attributes:
        daemons: of the hosts, in order.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        """The hosts' daemons run, and are in no swarm yet."""
        self.daemons: list[Daemon] = [host.daemon for host in hosts if host.daemon is not None]
        super().__init__(list(hosts), [daemon.socket for daemon in self.daemons])

    # --- nodes ------------------------------------------------------------------------------

    def join_all(self) -> None:
        """Join every host but the first, side by side, as workers."""
        body = self.join_body()
        with ThreadPoolExecutor() as pool:
            for done in [
                pool.submit(daemon.api, "POST", "/swarm/join", body) for daemon in self.daemons[1:]
            ]:
                done.result()
        self.wait_ready(len(self.daemons))

    def join_body(self, *, role: str = "Worker", token: str = "") -> dict[str, object]:
        """What ``POST /swarm/join`` takes; by default with the worker's token of now."""
        return {
            "RemoteAddrs": [f"{self.hosts[0].address}:{PORT}"],
            "JoinToken": token or self.api("GET", "/swarm")["JoinTokens"][role],
        }

    def wait_ready(self, count: int, *, timeout_s: float = 15) -> None:
        """Wait until exactly that many nodes are ready.

        A manager that has just been started leads only a moment after its socket answers.
        """

        def ready() -> bool:
            try:
                return self._ready_nodes() == count
            except ApiError as error:
                if error.status != 503:
                    raise
                return False

        eventually(ready, timeout_s, what=f"{count} ready nodes")

    def node(self, index: int) -> dict[str, Any]:
        """A host's node, as the manager lists it under the host's name."""
        name = self.hosts[index].name
        found: list[dict[str, Any]] = self.api("GET", "/nodes", query={"filters": {"name": [name]}})
        assert len(found) == 1, f"{len(found)} nodes are called {name}"
        return found[0]

    def node_state(self, index: int) -> str:
        """``ready``, ``down``, ..."""
        return str(self.node(index)["Status"]["State"])

    def update_node(self, index: int, **changes: object) -> None:
        """Change a node's spec: ``Availability="drain"``, ``Labels={...}``."""
        node = self.node(index)
        query = {"version": str(node["Version"]["Index"])}
        self.api("POST", f"/nodes/{node['ID']}/update", {**node["Spec"], **changes}, query=query)

    # --- services ---------------------------------------------------------------------------

    def api(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> Any:
        """One call to the manager, on a connection of its own: it may have been restarted."""
        return self.daemons[0].api(method, path, body, query=query)

    def create_spec(self, name: str, replicas: int, **parts: Any) -> str:
        """Create a service; returns its id.

        Args:
            parts: of the spec by place: ``container`` and ``task`` are laid over the container's
                and the task's, all others over the service's own.
        """
        return str(
            self.api("POST", "/services/create", service_spec(name, replicas, **parts))["ID"]
        )

    def spec(self, service: str) -> dict[str, Any]:
        """The service's spec of now."""
        spec: dict[str, Any] = self.api("GET", f"/services/{service}")["Spec"]
        return spec

    def update(self, service: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Update a service: ``change`` edits its spec in place."""
        found = self.api("GET", f"/services/{service}")
        change(found["Spec"])
        query = {"version": str(found["Version"]["Index"])}
        self.api("POST", f"/services/{service}/update", found["Spec"], query=query)

    def scale(self, service: str, replicas: int) -> None:
        """Set the number of replicas."""
        self.update(service, lambda spec: spec["Mode"]["Replicated"].update(Replicas=replicas))

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """All of the service's tasks, history included."""
        filters = {"service": [service]}
        tasks: list[dict[str, Any]] = self.api("GET", "/tasks", query={"filters": filters})
        return tasks

    def task(self, task_id: str) -> dict[str, Any]:
        """One task."""
        task: dict[str, Any] = self.api("GET", f"/tasks/{task_id}")
        return task

    def nodes_of(self, tasks: Sequence[dict[str, Any]]) -> list[int]:
        """Which hosts tasks are on, sorted."""
        index = {self.node(i)["ID"]: i for i in range(len(self.hosts))}
        return sorted(index[task["NodeID"]] for task in tasks)

    def why_waiting(self, service: str) -> set[str]:
        """What the tasks that found no node yet say."""
        waiting = [t for t in self.wanted(service) if t["Status"]["State"] == "pending"]
        return {task["Status"].get("Err", "") for task in waiting}

    # --- containers -------------------------------------------------------------------------

    def container_of(self, task_id: str) -> tuple[Engine, dict[str, Any]]:
        """The engine that has a task's container, and the container as it is listed."""
        for engine in self.engines():
            for container in engine.containers(label=f"{TASK_LABEL}={task_id}"):
                return engine, container
        raise LookupError(f"no engine has a container of task {task_id}")

    def containers_on(self, index: int, service: str, *, running: bool = True) -> set[str]:
        """Ids of the service's containers on one host."""
        engine = self.hosts[index].engine
        assert engine is not None
        listed = engine.containers(label=f"{SERVICE_LABEL}={service}", running=running)
        return {container["Id"] for container in listed}

    def kill_container(self, task_id: str) -> None:
        """Have the engine kill a task's container, as an operator might."""
        engine, container = self.container_of(task_id)
        engine.api("POST", f"/containers/{container['Id']}/kill")

    def assert_exactly(self, service: str, replicas: int) -> None:
        """Soon each of so many wanted tasks has one running container, and no other one runs.

        Raises:
            AssertionError: it did not come to that; says what runs instead.
        """
        last = None

        def agree() -> bool:
            nonlocal last
            last = self._compare(service)
            return last.is_clean and last.running == replicas

        try:
            eventually(agree, 60, every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"not {replicas} containers: {last}") from error
        self.wait_running(service, replicas)


@contextmanager
def swarm_on(hosts: Sequence[Host], *daemon_args: str) -> Iterator[Swarm]:
    """Start the hosts' daemons, make a swarm of them, and close its connections in the end.

    The lab's fixture ends the daemons and removes what they leave.
    """
    with ThreadPoolExecutor() as pool:
        for started in [pool.submit(host.start_daemon, *daemon_args) for host in hosts]:
            started.result()
    swarm = Swarm(hosts)
    try:
        swarm.init()
        swarm.join_all()
        yield swarm
    finally:
        swarm.close()


@contextmanager
def managers_on(hosts: Sequence[Host], *daemon_args: str) -> Iterator[Managers]:
    """Start the hosts' daemons and make a swarm in which all of them are managers.

    The lab's fixture, or its end, ends the daemons and removes what they leave.
    """

    def manager(host: Host) -> ManagerHost:
        return ManagerHost(
            host, host.start_daemon(*daemon_args), lambda: host.start_daemon(*daemon_args)
        )

    with ThreadPoolExecutor() as pool:
        managers = Managers(list(pool.map(manager, hosts)))
    managers.make()
    yield managers


def service_spec(
    name: str,
    replicas: int,
    *,
    container: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A service of sleeping containers that stop at once; see :meth:`Swarm.create_spec`."""
    of_container = {
        "Image": IMAGE,
        "Command": ["sleep", "3600"],
        **_QUICK_STOP,
        **(container or {}),
    }
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": of_container, **(task or {})},
        "Mode": {"Replicated": {"Replicas": replicas}},
        **spec,
    }
