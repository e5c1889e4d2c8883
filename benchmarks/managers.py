"""Several managers on the hosts of a lab, each a process that can be killed, stopped and started.

The same code drives swarmctl's daemons and dockerds, as :mod:`.cluster` does for services: only
what is started differs. What is asked of the swarm is asked through whichever manager answers.
"""

from __future__ import annotations

import http.client
import signal
from typing import TYPE_CHECKING, Any

from tests.e2e.lab import ApiError, UnixClient, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.e2e.lab import Daemon, Engine, Host
    from tests.e2e.lab.processes import HostProcess

PORT = 2377
# What a call costs at most that a manager may hold back while nobody leads.
_CALL_S = 15.0
_WHOLE_S = 90.0
NO_ANSWER = (OSError, http.client.HTTPException)


class ManagerHost:
    """One manager: its host, its process, its socket.

    Attributes:
        address: of its host.
        socket: of its API.
    """

    def __init__(self, host: Host, service: Daemon | Engine, start: Callable[[], object]) -> None:
        self.host = host
        self.address = host.address
        self.socket: Path = service.socket
        self._service = service
        self._start = start

    @property
    def process(self) -> HostProcess:
        """The process that runs, or ran last."""
        assert self._service.process is not None
        return self._service.process

    @property
    def log(self) -> str:
        """What its process has said, also before it was restarted."""
        return self._service.log.read_text(errors="replace")

    def client(self, *, timeout_s: float = _CALL_S) -> UnixClient:
        """A new connection to its API."""
        return UnixClient(self.socket, timeout_s=timeout_s)

    def kill(self) -> None:
        """``kill -9``."""
        self._service.kill()

    def terminate(self) -> None:
        """Stop it as an init system does, and wait for its end."""
        self.process.terminate(60)

    def pause(self) -> None:
        """SIGSTOP: its connections stay and nothing comes out of them."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start it again if it does not run; returns when its API answers."""
        if not self.process.running:
            self._start()


class Managers:
    """The managers of one swarm.

    Attributes:
        hosts: the managers, in the order in which they joined.
    """

    def __init__(self, hosts: Sequence[ManagerHost]) -> None:
        """Their processes run, and are in no swarm yet."""
        self.hosts = list(hosts)

    def make(self) -> None:
        """Make a swarm of them all; returns when each says that all can be reached."""
        first, *others = self.hosts
        where = f"{first.address}:{PORT}"
        with first.client(timeout_s=60) as client:
            client.call("POST", "/swarm/init", {"ListenAddr": where, "AdvertiseAddr": where})
        for other in others:
            self.join(other)
        self.wait_whole()

    def join(self, host: ManagerHost, *, role: str = "Manager") -> None:
        """Join one more host."""
        where = f"{host.address}:{PORT}"
        body = {
            "ListenAddr": where,
            "AdvertiseAddr": where,
            "RemoteAddrs": [f"{self.hosts[0].address}:{PORT}"],
            "JoinToken": self.ask("GET", "/swarm")["JoinTokens"][role],
        }
        with host.client(timeout_s=60) as client:
            client.call("POST", "/swarm/join", body)

    def ask(
        self, method: str, path: str, body: object = None, *, query: dict[str, Any] | None = None
    ) -> Any:
        """One call through the first manager that answers it; tries until one does.

        Raises:
            ApiError: the answer is about the request, not about who leads.
        """
        answers: list[Any] = []

        def answered() -> bool:
            for host in self.hosts:
                try:
                    with host.client() as client:
                        answers.append(client.call(method, path, body, query=query))
                        return True
                except NO_ANSWER:
                    continue
                except ApiError as error:
                    if error.status < 500:
                        raise
            return False

        eventually(answered, 60, what=f"an answer to {method} {path}")
        return answers[0]

    call = ask  # as clients of one manager have it

    def nodes(self, through: ManagerHost, *, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """The nodes as one manager lists them.

        Raises:
            ApiError, OSError, http.client.HTTPException: it cannot now.
        """
        with through.client(timeout_s=timeout_s) as client:
            listed: list[dict[str, Any]] = client.call("GET", "/nodes")
            return listed

    def leader(self, *, timeout_s: float = 60.0) -> ManagerHost:
        """The manager that leads, as the first one says that knows."""
        found: list[ManagerHost] = []

        def known() -> bool:
            for through in self.hosts:
                try:
                    listed = self.nodes(through)
                except (*NO_ANSWER, ApiError):
                    continue
                names = {_name(one) for one in listed if _manages(one).get("Leader")}
                found.extend(one for one in self.hosts if one.host.name in names)
                if found:
                    return True
            return False

        eventually(known, timeout_s, what="a leader")
        return found[0]

    def node_id(self, host: ManagerHost) -> str:
        """A manager's node id."""
        listed = self.ask("GET", "/nodes")
        return next(str(node["ID"]) for node in listed if _name(node) == host.host.name)

    def is_whole(self) -> bool:
        """True when every manager says that all of them are ready and can be reached."""
        for through in self.hosts:
            try:
                listed = self.nodes(through)
            except (*NO_ANSWER, ApiError):
                return False
            good = [
                one
                for one in listed
                if one["Status"]["State"] == "ready"
                and _manages(one).get("Reachability") == "reachable"
            ]
            if len(good) < len(self.hosts):
                return False
            if not any(_manages(one).get("Leader") for one in listed):
                return False
        return True

    def wait_whole(self, timeout_s: float = _WHOLE_S) -> None:
        """Wait until the swarm is whole, see :meth:`is_whole`.

        Raises:
            AssertionError: it did not come to that; says what each manager sees instead.
        """
        try:
            eventually(self.is_whole, timeout_s, every_s=0.1, what="all managers to be reachable")
        except AssertionError as error:
            seen = "; ".join(self._seen_by(host) for host in self.hosts)
            raise AssertionError(f"{error}; {seen}") from error

    def _seen_by(self, through: ManagerHost) -> str:
        try:
            listed = self.nodes(through)
        except (*NO_ANSWER, ApiError) as error:
            return f"{through.host.name}: {error}"
        states = [
            f"{_name(one)} {one['Status']['State']} {_manages(one).get('Reachability')}"
            for one in listed
        ]
        return f"{through.host.name}: {', '.join(sorted(states))}"


def _name(node: dict[str, Any]) -> str:
    return str(node["Description"]["Hostname"])


def _manages(node: dict[str, Any]) -> dict[str, Any]:
    return node.get("ManagerStatus") or {}
