"""docker-py as transport: a session over a unix socket, whose wire can be cut. Used in threads.

This is the only module that knows docker-py, requests and urllib3. It must not know trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker
import docker.transport.unixconn as unix
import requests
import urllib3
from docker.errors import DockerException

from swarmctl.plugins.engine import CONNECT_TIMEOUT_S, Transport, open_wire

if TYPE_CHECKING:
    from swarmctl.plugins.engine import Line


def open_session(socket_path: str, line: Line) -> Any:
    """Open docker-py's session for one line."""
    # A version is named so that docker-py asks the engine nothing of itself.
    session = docker.APIClient(base_url=f"unix://{socket_path}", version="1.24")
    session.trust_env = False  # a proxy or a .netrc has no say on a unix socket
    session.mount("http+docker://", _Adapter(socket_path, line))
    return session


TRANSPORT = Transport(
    open_session=open_session,
    base_url="http+docker://localhost",
    broken=(requests.RequestException, urllib3.exceptions.HTTPError, DockerException, OSError),
    silent=(requests.Timeout,),
)


class _Adapter(unix.UnixHTTPAdapter):  # type: ignore[misc] # docker-py is untyped
    """docker-py's, with one connection instead of one for each path."""

    def __init__(self, socket_path: str, line: Line) -> None:
        super().__init__(f"http+unix://{socket_path}")
        self._pool = _Pool(socket_path, line)

    def get_connection(self, url: str, proxies: object = None) -> _Pool:
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


class _Pool(unix.UnixHTTPConnectionPool):  # type: ignore[misc] # docker-py is untyped
    def __init__(self, socket_path: str, line: Line) -> None:
        super().__init__("http+docker://localhost", socket_path, CONNECT_TIMEOUT_S, maxsize=1)
        self._line = line

    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self._line)


class _Connection(unix.UnixHTTPConnection):  # type: ignore[misc] # docker-py is untyped
    def __init__(self, base_url: str, socket_path: str, line: Line) -> None:
        super().__init__(base_url, socket_path, CONNECT_TIMEOUT_S)
        self._line = line

    def connect(self) -> None:
        self.sock = open_wire(self.unix_socket, self.timeout, self._line)
