"""A web service on a swarm, whichever's, and what is done to it while clients ask.

Its containers run :mod:`.web_server` with this machine's interpreter, which is mounted in them with
the libraries that it needs, to be read. They have a health check: to run is not yet to listen. All
goes through whichever manager answers, with the Engine API's routes.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.asking import PYTHON
from benchmarks.cluster import Cluster
from tests.e2e.lab import IMAGE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.managers import ManagerHost, Managers
    from tests.e2e.lab import Host

PORT = 8000
NETWORK = "net"
_SECOND = 1_000_000_000
# An API call, a list of containers from each engine.
_POLL_S = 0.2
_SETTLED_S = 120.0


class Web:
    """One service of so many replicas, and a container that asks it, on a network.

    Args:
        hosts: all that are in the swarm, with engines.

    Attributes:
        client_pid: a process in the namespace of the container that asks.
    """

    def __init__(self, managers: Managers, hosts: list[Host]) -> None:
        self._managers = managers
        self._cluster = Cluster(hosts, [], manager=managers)
        self._client = self._id = ""
        self.client_pid = self._replicas = self._force = 0

    def make_client(self, host: Host) -> None:
        """Make the network, and run the container on a host."""
        make_network(self._managers)
        self._client, self.client_pid = self._cluster.run_sleeper("client", host, NETWORK)

    def create(self, replicas: int, *, check_s: float, **parts: Any) -> None:
        """Create it, on managers alone; returns when all replicas are healthy.

        Args:
            check_s: seconds between two health checks, and before the first one.
            parts: of the spec, laid over ours.
        """
        spec = {**_web_spec(replicas, check_s=check_s), **parts}
        self._id, self._replicas = self._cluster.create_from(spec), replicas
        self.settle()

    def remove(self) -> None:
        """Remove both and the network, and wait until the containers are gone."""
        for service in (self._id, self._client):
            self._cluster.remove(service)
        self._managers.ask("DELETE", f"/networks/{NETWORK}")

    def vip(self) -> str:
        """The service's virtual address in the network."""
        return vip_of(self._managers, self._id)

    def runs_on(self, host: ManagerHost) -> bool:
        """Whether a task of it runs on a host."""
        node_id = self._managers.node_id(host)
        return any(task["NodeID"] == node_id for task in self._cluster.running(self._id))

    def settle(self) -> None:
        """Wait until as many containers run as shall, and their tasks are running."""
        self._cluster.wait_running(self._id, self._replicas)
        eventually(
            lambda: len(self._cluster.containers(self._id, running=True)) == self._replicas,
            _SETTLED_S,
            every_s=_POLL_S,
            what=f"{self._replicas} containers of {self._id}",
        )

    def begin_update(self, order: str, *, at_once: int) -> None:
        """Have every task replaced, so many at once."""
        found = self._managers.ask("GET", f"/services/{self._id}")
        spec = found["Spec"]
        self._force = spec["TaskTemplate"]["ForceUpdate"] = self._force + 1
        spec["UpdateConfig"] = {"Parallelism": at_once, "Order": order}
        self._post(found)

    def finish_update(self) -> None:
        """Wait until every task is of the last update, and the old ones are gone."""
        self._cluster.wait_forced(self._id, self._replicas, self._force)
        self.settle()

    def update_status(self) -> str:
        """What the service says of its last update."""
        found = self._managers.ask("GET", f"/services/{self._id}").get("UpdateStatus", {})
        return f"its update is {found.get('State', 'not known')}: {found.get('Message', '')}"

    def update(self, order: str, *, at_once: int) -> None:
        """Replace every task; returns when all are new and the old ones are gone."""
        self.begin_update(order, at_once=at_once)
        self.finish_update()

    def scale(self, replicas: int) -> None:
        """Have so many replicas, and wait for that."""
        found = self._managers.ask("GET", f"/services/{self._id}")
        found["Spec"]["Mode"]["Replicated"]["Replicas"] = self._replicas = replicas
        self._post(found)
        self.settle()

    def _post(self, found: dict[str, Any]) -> None:
        version = {"version": str(found["Version"]["Index"])}
        self._managers.ask("POST", f"/services/{self._id}/update", found["Spec"], query=version)

    def set_availability(self, host: ManagerHost, availability: str) -> None:
        """Change a node to ``drain`` or back to ``active``; returns at once."""
        node_id = self._managers.node_id(host)
        node = self._managers.ask("GET", f"/nodes/{node_id}")
        version = {"version": str(node["Version"]["Index"])}
        spec = {**node["Spec"], "Availability": availability}
        self._managers.ask("POST", f"/nodes/{node_id}/update", spec, query=version)

    def drain(self, host: ManagerHost) -> None:
        """Take a node's tasks to others; returns when it has none and all run."""
        node_id = self._managers.node_id(host)
        self.set_availability(host, "drain")
        self._cluster.wait_running(self._id, self._replicas, not_node=node_id)
        self.settle()

    @contextmanager
    def leader_killed(self, *, back_after_s: float) -> Iterator[ManagerHost]:
        """``kill -9`` of the leader's process; do the block; start it again after so long.

        Returns when the swarm is whole.
        """
        leader = self._managers.leader()
        leader.kill()
        back_at = time.monotonic() + back_after_s
        yield leader
        time.sleep(max(0.0, back_at - time.monotonic()))
        leader.restart()
        self._managers.wait_whole()


def make_network(managers: Managers) -> None:
    """Make the network that containers ask over."""
    managers.ask("POST", "/networks/create", {"Name": NETWORK, "Driver": "overlay"})


def vip_of(managers: Managers, service: str) -> str:
    """A service's virtual address in that network."""
    found = managers.ask("GET", f"/services/{service}")["Endpoint"]["VirtualIPs"]
    network = managers.ask("GET", f"/networks/{NETWORK}")["Id"]
    (address,) = (one["Addr"] for one in found if one["NetworkID"] == network)
    return str(address).partition("/")[0]


def _web_spec(replicas: int, *, check_s: float) -> dict[str, Any]:
    program = Path(__file__).with_name("web_server.py").read_text()
    check = ["CMD", "/bin/wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{PORT}/"]
    container = {
        "Image": IMAGE,
        "Command": [*PYTHON, "-c", program, str(PORT)],
        "Mounts": [
            {"Type": "bind", "Source": one, "Target": one, "ReadOnly": True}
            for one in dict.fromkeys(["/lib", "/lib64", "/usr", sys.base_prefix])
            if Path(one).is_dir()
        ],
        "StopGracePeriod": 20 * _SECOND,
        "Healthcheck": {
            "Test": check,
            "Interval": int(check_s * _SECOND),
            "Timeout": 10 * _SECOND,
            "Retries": 5,
        },
    }
    return {
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": container,
            "Networks": [{"Target": NETWORK}],
            "Placement": {"Constraints": ["node.role==manager"]},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }
