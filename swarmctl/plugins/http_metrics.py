"""Built-in metric sources: a number in a JSON document, and a Prometheus query.

``http://queue:8080/stats#/jobs/pending`` reads the document and takes what the JSON pointer (RFC
6901) behind ``#`` names: a number, or a list of numbers. ``prometheus+http://prom:9090?query=...``
asks a Prometheus server (or what speaks its HTTP API) for the present value; a vector gives one
value for each series. The query need not be percent-encoded.

Requests run in threads of their own, a few at a time, and are given up with whoever asks. Answers
are read up to a megabyte. Credentials go into the Authorization header: ``user:password`` as Basic,
a header's whole value (``Bearer ...``) as it is, anything else as a bearer token. They are sent to
the address of the label alone: redirections are not followed.
"""

from __future__ import annotations

import base64
import json
import math
import re
import socket
import ssl
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import trio

from swarmctl import __version__
from swarmctl.plugins import MetricUnavailable, PluginInfo, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from swarmctl.plugins import MetricSource

TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 1 << 20
VALUES_MAX = 1000
THREADS = 8
_INDEX = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Tell what this is."""
    return PluginInfo(name="http-metrics", version=__version__)


@hookimpl
def swarmctl_metric_source(name: str) -> MetricSource | None:
    """Make the sources ``json`` and ``prometheus``; neither has settings."""
    if name == "json":
        return JsonSource()
    return PrometheusSource() if name == "prometheus" else None


class JsonSource:
    """Numbers in JSON documents."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(THREADS)

    async def read(self, url: str, credentials: str) -> tuple[float, ...]:
        """Return what the pointer behind ``#`` names."""
        address, _, pointer = url.partition("#")
        document = await _get(address, credentials, self._threads)
        return tuple(_numbers(_pointed(document, unquote(pointer)), pointer or "the document"))


class PrometheusSource:
    """Values of PromQL queries, by Prometheus' HTTP API."""

    def __init__(self) -> None:
        self._threads = trio.CapacityLimiter(THREADS)

    async def read(self, url: str, credentials: str) -> tuple[float, ...]:
        """Return the values of the query's series."""
        answer = await _get(query_address(url), credentials, self._threads)
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise MetricUnavailable(f"it answered: {_short(answer)}")
        data = answer.get("data")
        kind = data.get("resultType") if isinstance(data, dict) else None
        result = data.get("result") if isinstance(data, dict) else None
        if kind == "scalar":
            result = [{"value": result}]
        if kind not in ("scalar", "vector") or not isinstance(result, list):
            raise MetricUnavailable(f"the query gives a {kind}, and an instant vector is needed")
        values: list[Any] = [series.get("value") for series in result if isinstance(series, dict)]
        try:
            found = tuple(float(value[1]) for value in values)
        except (TypeError, ValueError, OverflowError, IndexError, KeyError):
            raise MetricUnavailable(f"it answered: {_short(answer)}") from None
        return tuple(_finite(found, "the query"))


def query_address(url: str) -> str:
    """Return the address that answers a query; what the label has need not be encoded.

    Everything behind ``query=`` is the query, also ``&`` and ``#``.
    """
    head, found, query = url.partition("query=")
    if not found:
        raise MetricUnavailable("the address has no query=...")
    parts = urlsplit(head)
    path = parts.path.rstrip("/")
    if not path.endswith("/api/v1/query"):
        path += "/api/v1/query"
    asked = [*parse_qsl(parts.query), ("query", unquote(query))]
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(asked), ""))


def authorization(credentials: str) -> str:
    """Return the header for what a secret holds."""
    scheme, space, _ = credentials.partition(" ")
    if space and scheme.lower() in ("basic", "bearer"):
        return credentials
    if ":" in credentials:
        return f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return f"Bearer {credentials}"


async def _get(address: str, credentials: str, threads: trio.CapacityLimiter) -> Any:
    headers = {
        "Accept": "application/json",
        "Connection": "close",
        "User-Agent": f"swarmctl/{__version__}",
    }
    if credentials:
        if any(letter in credentials for letter in "\r\n\0"):
            raise MetricUnavailable("the secret has more than one line")
        headers["Authorization"] = authorization(credentials)
        if any(letter > "\xff" for letter in headers["Authorization"]):
            raise MetricUnavailable("the secret has letters that no header can have")
    fetch = _Fetch(urlsplit(address), headers)
    try:
        body = await trio.to_thread.run_sync(fetch.run, limiter=threads, abandon_on_cancel=True)
    finally:
        fetch.end()
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MetricUnavailable(f"it answered no JSON: {_short(body)}") from None


class _Fetch:
    """One document, read in a thread.

    Redirections are not followed: the secret is for the address that the label names. There are few
    threads, and a server that says a byte now and then would keep one for as long as it likes: who
    gives the document up ends it.
    """

    def __init__(self, address: SplitResult, headers: Mapping[str, str]) -> None:
        self._address, self._headers = address, headers
        self._socket: socket.socket | None = None
        self._ended = False

    def run(self) -> bytes:
        """Return the document; in a thread.

        Raises:
            MetricUnavailable: it cannot be had, or :meth:`end` was called.
        """
        address = self._address
        made = HTTPSConnection if address.scheme == "https" else HTTPConnection
        host = address.hostname or ""
        try:
            connection = made(host, address.port)
            connection.sock = self._connected(host, connection.port)
        except (OSError, HTTPException, ValueError) as error:
            raise MetricUnavailable(f"it cannot be reached: {error}") from error
        try:
            path = (address.path or "/") + (f"?{address.query}" if address.query else "")
            connection.request("GET", path, headers=self._headers)
            with connection.getresponse() as answer:
                if answer.status // 100 != 2:
                    raise MetricUnavailable(f"it answered {answer.status} {answer.reason}")
                body = answer.read(ANSWER_BYTES_MAX + 1)
        except (OSError, HTTPException, ValueError) as error:
            raise MetricUnavailable(f"it cannot be read: {error}") from error
        finally:
            connection.close()
        if len(body) > ANSWER_BYTES_MAX:
            raise MetricUnavailable("its answer is larger than a megabyte")
        return body

    def _connected(self, host: str, port: int) -> socket.socket:
        """Return a connection that :meth:`end` can end, from its first byte on."""
        found = socket.create_connection((host, port), TIMEOUT_S)
        try:
            if self._address.scheme == "https":
                found = ssl.create_default_context().wrap_socket(
                    found, server_hostname=host, do_handshake_on_connect=False
                )
            self._socket = found
            if self._ended:
                self.end()
            if isinstance(found, ssl.SSLSocket):
                found.do_handshake()
        except BaseException:
            found.close()
            raise
        return found

    def end(self) -> None:
        """Have the thread end soon, wherever it is."""
        self._ended = True
        if self._socket is not None:
            with suppress(OSError):  # it is closed already
                # TLS has a shutdown of its own, which is not for another thread than the reader's.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _pointed(document: Any, pointer: str) -> Any:
    """Return what a JSON pointer names (RFC 6901); "" is the document."""
    if not pointer:
        return document
    if not pointer.startswith("/"):
        raise MetricUnavailable(f"{pointer!r} is no JSON pointer: it begins with /")
    for part in pointer[1:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and _INDEX.fullmatch(name) and int(name) < len(document):
            document = document[int(name)]
        else:
            raise MetricUnavailable(f"its answer has nothing at {pointer}")
    return document


def _numbers(found: Any, where: str) -> Iterator[float]:
    values = found if isinstance(found, list) else [found]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise MetricUnavailable(f"{where} is no number")
    try:
        yield from _finite(tuple(float(value) for value in values), where)
    except (ValueError, OverflowError):
        raise MetricUnavailable(f"{where} is no number") from None


def _finite(values: tuple[float, ...], where: str) -> tuple[float, ...]:
    """Return values that are numbers; NaN is what Prometheus gives for 0 / 0, so it is none."""
    kept = tuple(value for value in values if math.isfinite(value))
    if not kept:
        raise MetricUnavailable(f"{where} has no value")
    if len(kept) > VALUES_MAX:
        raise MetricUnavailable(f"{where} has more than {VALUES_MAX} values")
    return kept


def _short(answer: object) -> str:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else json.dumps(answer)
    return text if len(text) <= 200 else f"{text[:200]}..."
