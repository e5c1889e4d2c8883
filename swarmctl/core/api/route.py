"""Which handler answers a request, and on which node: the table of routes, and the version prefix.

A handler is named ``module.function`` and lives in ``api/<module>.py``; the server looks it up. A
request that no row matches is not ours: the server passes it on to the node's own engine, or
answers 404 ``page not found`` where there is none (Docker says so for a wrong method too).

Facts: docker-api.md sections 2.1 to 2.3. Pure: it sees a method and a decoded path, nothing else.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from ..errors import BadRequest

API_VERSION = "1.50"
MIN_API_VERSION = "1.24"


class By(Enum):
    """Whose answer it is."""

    NODE = "node"  # the node's that is asked, whatever it is
    LEADER = "leader"  # the leader's, through any manager
    MANAGER = "manager"  # the manager's that is asked, whoever leads
    EITHER = "either"  # the leader's through a manager, else the node's own


class Route(NamedTuple):
    """One row of the table.

    Attributes:
        pattern: ``{name}`` takes one segment, ``{name*}`` as many as it can.
    """

    method: str
    pattern: str
    handler: str
    by: By = By.LEADER

    @property
    def needs_manager(self) -> bool:
        """True for what a node that is no manager answers with 503."""
        return self.by in (By.LEADER, By.MANAGER)


class Match(NamedTuple):
    """A request's route and what its path named.

    Attributes:
        version: the API version of the prefix, "" without one.
        path: the path without the prefix.
    """

    route: Route
    params: dict[str, str]
    version: str
    path: str


ROUTES: tuple[Route, ...] = (
    Route("HEAD", "/_ping", "system.ping", By.NODE),
    Route("GET", "/_ping", "system.ping", By.NODE),
    Route("GET", "/version", "system.version", By.NODE),
    Route("GET", "/info", "system.info", By.NODE),
    Route("GET", "/events", "events.stream", By.NODE),
    Route("GET", "/distribution/{name*}/json", "system.distribution", By.NODE),
    Route("GET", "/swarm", "swarm.inspect"),
    Route("POST", "/swarm/init", "swarm.init", By.NODE),
    Route("POST", "/swarm/join", "swarm.join", By.NODE),
    Route("POST", "/swarm/leave", "swarm.leave", By.NODE),
    Route("POST", "/swarm/unlock", "swarm.unlock", By.NODE),
    Route("POST", "/swarm/update", "swarm.update"),
    Route("GET", "/swarm/doctor/networks", "doctor.networks"),
    Route("GET", "/swarm/unlockkey", "swarm.unlock_key"),
    Route("POST", "/swarm/backup", "backup.make"),
    Route("POST", "/swarm/restore", "backup.restore", By.NODE),
    Route("GET", "/nodes", "nodes.list"),
    Route("GET", "/nodes/{id}", "nodes.inspect"),
    Route("POST", "/nodes/{id}/update", "nodes.update"),
    Route("DELETE", "/nodes/{id}", "nodes.remove"),
    Route("GET", "/services", "services.list"),
    Route("POST", "/services/create", "services.create"),
    Route("GET", "/services/{id}", "services.inspect"),
    Route("POST", "/services/{id}/update", "services.update"),
    Route("DELETE", "/services/{id}", "services.remove"),
    Route("GET", "/services/{id}/history", "services.history"),
    Route("POST", "/services/{id}/stop", "services.stop"),
    Route("POST", "/services/{id}/start", "services.start"),
    Route("GET", "/services/{id}/explain", "explain.service"),
    Route("GET", "/services/{id}/scaling", "scaling.inspect"),
    Route("POST", "/services/{id}/scaling", "scaling.dry_run"),
    Route("GET", "/services/{id}/logs", "logs.service", By.MANAGER),
    Route("GET", "/tasks", "tasks.list"),
    Route("GET", "/tasks/{id}", "tasks.inspect"),
    Route("GET", "/tasks/{id}/explain", "explain.task"),
    Route("GET", "/tasks/{id}/logs", "logs.task", By.MANAGER),
    Route("GET", "/secrets", "secrets.list"),
    Route("POST", "/secrets/create", "secrets.create"),
    Route("POST", "/secrets/prune", "secrets.prune"),
    Route("GET", "/secrets/{id}", "secrets.inspect"),
    Route("POST", "/secrets/{id}/update", "secrets.update"),
    Route("POST", "/secrets/{id}/versions", "secrets.add_version"),
    Route("DELETE", "/secrets/{id}", "secrets.remove"),
    Route("GET", "/configs", "configs.list"),
    Route("POST", "/configs/create", "configs.create"),
    Route("POST", "/configs/prune", "configs.prune"),
    Route("GET", "/configs/{id}", "configs.inspect"),
    Route("POST", "/configs/{id}/update", "configs.update"),
    Route("POST", "/configs/{id}/versions", "configs.add_version"),
    Route("DELETE", "/configs/{id}", "configs.remove"),
    Route("GET", "/networks", "networks.list", By.EITHER),
    Route("POST", "/networks/create", "networks.create", By.EITHER),
    Route("POST", "/networks/prune", "networks.prune", By.EITHER),
    Route("GET", "/networks/{id}", "networks.inspect", By.EITHER),
    Route("DELETE", "/networks/{id}", "networks.remove", By.EITHER),
    Route("POST", "/networks/{id}/connect", "networks.connect", By.NODE),
    Route("POST", "/networks/{id}/disconnect", "networks.disconnect", By.NODE),
)


def find_route(method: str, path: str) -> Match | None:
    """Return the route of a request, or None for one that is not ours.

    Args:
        path: percent-decoded, without the query.

    Raises:
        BadRequest: the version prefix is newer or older than what is spoken here.
    """
    version, rest = split_version(path)
    for route, pattern in _BY_METHOD.get(method, ()):
        match = pattern.fullmatch(rest)
        if match is not None:
            return Match(route, match.groupdict(), version, rest)
    return None


_PREFIX = re.compile(r"/v([0-9.]+)(/.*)", re.DOTALL | re.ASCII)
_MAX_VERSION_LENGTH = 16


def split_version(path: str) -> tuple[str, str]:
    """Return the API version of a path's prefix ("" without one) and the path without it.

    Raises:
        BadRequest: in Docker's words, a version that is too new or too old.
    """
    match = _PREFIX.fullmatch(path)
    if match is None:
        return "", path
    version, rest = match.groups()
    if len(version) > _MAX_VERSION_LENGTH or _numbers(version) > _numbers(API_VERSION):
        raise BadRequest(
            f"client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )
    if _numbers(version) < _numbers(MIN_API_VERSION):
        raise BadRequest(
            f"client version {version} is too old. Minimum supported API version is "
            f"{MIN_API_VERSION}, please upgrade your client to a newer version"
        )
    return version, rest


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers; 1.9 comes before 1.24, and a missing number is 0."""
    return tuple(int(part or 0) for part in version.split("."))


_PLACEHOLDER = re.compile(r"\{(\w+)(\*?)\}")


def _compile(pattern: str) -> re.Pattern[str]:
    """Return what a pattern matches; its text has no character that a regex would read."""

    def group(match: re.Match[str]) -> str:
        return f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"

    return re.compile(_PLACEHOLDER.sub(group, pattern), re.DOTALL)


_BY_METHOD: dict[str, list[tuple[Route, re.Pattern[str]]]] = {}
for _route in ROUTES:
    _BY_METHOD.setdefault(_route.method, []).append((_route, _compile(_route.pattern)))
