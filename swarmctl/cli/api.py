"""The daemon's API as the commands use it: paths and plain JSON in, plain JSON or an error out.

The CLI works on the API's JSON as it comes and knows no model types: a read-modify-write so sends
back every field it did not touch, those of a newer daemon too, and no command pays for types it
does not use. ``Json`` marks where that freedom is; keys are the Engine API's own
(docker-api.md section 3).
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final
from urllib.parse import quote

import msgspec

from swarmctl.core.errors import SwarmError

from .client import ANSWER_TIMEOUT_S, Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .client import Answer

Json = dict[str, Any]
"""One object of the API, as decoded from JSON."""


_DOCKERS = re.compile(r'"docker (?:swarm )?(\w+)"')


class DaemonError(SwarmError):
    """The daemon refused; ``text`` is its own, ``code`` the HTTP status.

    Docker's texts name Docker's commands; who reads them here is told ours.
    """

    def __init__(self, code: int, text: str) -> None:
        told = _DOCKERS.sub(r'"swarmctl \1"', text)
        super().__init__(f"Error response from daemon: {told}")
        self.code = code
        self.text = text


@final
class Api:
    """Requests to one daemon, in JSON."""

    def __init__(self, socket_path: str, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.socket_path = socket_path
        self._client = Client(socket_path, answer_timeout_s=answer_timeout_s)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return what ``GET path`` answers.

        Raises:
            DaemonError: the daemon says no. ClientError: it says nothing.
        """
        return self._call("GET", path, query)

    def post(
        self,
        path: str,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        """Return what ``POST path`` answers; None for an empty answer.

        Raises:
            DaemonError, ClientError: as :meth:`get`.
        """
        data = None if body is None else msgspec.json.encode(body)
        return self._call("POST", path, query, data, headers)

    def delete(self, path: str, query: Mapping[str, str] | None = None) -> None:
        """Delete an object.

        Raises:
            DaemonError, ClientError: as :meth:`get`.
        """
        self._call("DELETE", path, query)

    def find(self, path: str) -> Json | None:
        """Return what ``GET path`` answers, or None where there is no such object.

        Raises:
            DaemonError, ClientError: as :meth:`get`, save for 404.
        """
        try:
            found: Json = self.get(path)
        except DaemonError as error:
            if error.code == 404:
                return None
            raise
        return found

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield content type and pieces of an answer that may last.

        Raises:
            DaemonError, ClientError: as :meth:`get`; the latter also out of the iterator.
        """
        with self._client.stream("GET", path, query) as (status, headers, chunks):
            if status >= 400:
                raise _refusal(status, path, b"".join(chunks))
            yield headers.get("content-type"), chunks

    @contextmanager
    def download(self, path: str, body: Json) -> Iterator[Iterator[bytes]]:
        """Yield the pieces of what ``POST path`` answers.

        Raises:
            DaemonError, ClientError: as :meth:`get`; the latter also out of the iterator.
        """
        data = msgspec.json.encode(body)
        with self._client.stream("POST", path, None, data) as (status, _, chunks):
            if status >= 400:
                raise _refusal(status, path, b"".join(chunks))
            yield chunks

    def upload(
        self,
        path: str,
        body: bytes,
        query: Mapping[str, str],
        headers: tuple[tuple[str, str], ...],
    ) -> Any:
        """Return what ``POST path`` answers to bytes.

        Raises:
            DaemonError, ClientError: as :meth:`get`.
        """
        headers = (("Content-Type", "application/octet-stream"), *headers)
        return self._call("POST", path, query, body, headers)

    def ping(self) -> bool:
        """Does a daemon answer?

        Raises:
            ClientError: one is there, and does not let us in or sends nonsense.
        """
        return self._client.request("GET", "/_ping").status == 200

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        answer = self._client.request(method, path, query, body, headers)
        if answer.status >= 400:
            raise _refusal(answer.status, path, answer.body)
        return _decoded(answer, path)


def path_to(*parts: str) -> str:
    """Return a path whose parts may hold anything: ``path_to("services", name, "logs")``."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def filters_of(pairs: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the query for filters; none for no filter."""
    chosen = {key: dict.fromkeys(values, True) for key, values in pairs.items() if values}
    return {"filters": msgspec.json.encode(chosen).decode()} if chosen else {}


def _decoded(answer: Answer, path: str) -> Any:
    if not answer.body:
        return None
    try:
        return msgspec.json.decode(answer.body)
    except msgspec.DecodeError as error:
        raise SwarmError(f"the daemon answered {path} with something other than JSON") from error


def _refusal(status: int, path: str, body: bytes) -> DaemonError:
    try:
        text = msgspec.json.decode(body)["message"]
    except (msgspec.DecodeError, LookupError, TypeError):
        text = body.decode(errors="replace").strip()
    if not text:
        text = f"request returned {status} for API route {path}, check if the daemon supports it"
    return DaemonError(status, str(text).strip())
