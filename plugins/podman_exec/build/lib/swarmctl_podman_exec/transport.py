"""podman-py as transport: a session over a unix socket, whose wire can be cut. Used in threads.

This is the only module that knows podman-py, requests and urllib3. It must not know trio.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from podman.api.client import APIClient
from podman.api.uds import UDSAdapter, UDSConnection, UDSConnectionPool
from podman.errors import PodmanError

from swarmctl.plugins.engine import CONNECT_TIMEOUT_S, Transport, open_wire

if TYPE_CHECKING:
    import socket

    from swarmctl.plugins.engine import Line

HOST = "podman"


def open_session(socket_path: str, line: Line) -> Any:
    """Open podman-py's session for one line."""
    url = f"http+unix://{urllib.parse.quote_plus(socket_path)}"
    session = APIClient(base_url=url)
    session.mount("http://", _Adapter(url, socket_path, line))
    return session


TRANSPORT = Transport(
    open_session=open_session,
    base_url=f"http://{HOST}",
    broken=(requests.RequestException, urllib3.exceptions.HTTPError, PodmanError, OSError),
    silent=(requests.Timeout,),
)


class _Adapter(UDSAdapter):
    """podman-py's, with one connection, whose end can be brought about."""

    def __init__(self, url: str, socket_path: str, line: Line) -> None:
        super().__init__(url)
        self._pool = _Pool(url, socket_path, line)

    def get_connection_with_tls_context(
        self, request: object, verify: object, proxies: object = None, cert: object = None
    ) -> _Pool:
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()


class _Pool(UDSConnectionPool):
    def __init__(self, url: str, socket_path: str, line: Line) -> None:
        super().__init__(HOST, maxsize=1)
        self._how = (url, socket_path, line)

    def _new_conn(self) -> _Connection:
        return _Connection(*self._how)


class _Connection(UDSConnection):
    def __init__(self, url: str, socket_path: str, line: Line) -> None:
        super().__init__(HOST, 80, CONNECT_TIMEOUT_S, uds=url)
        self._socket_path = socket_path
        self._line = line
        self.sock: socket.socket | None

    def connect(self) -> None:
        self.sock = open_wire(self._socket_path, self.timeout, self._line)
