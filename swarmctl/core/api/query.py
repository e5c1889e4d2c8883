"""What a request's query and path mean: flags, versions, filters, and names of objects.

Matching semantics and texts are Docker's (docker-api.md sections 2.1 and 2.3): ids and names match
by prefix, values of one filter are OR-ed (labels AND-ed), filters AND-ed, lists come sorted by id.
Pure: it reads a view and never changes one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..errors import BadRequest, NotFound, OutOfSequence, SwarmError, UnknownOption
from ..model.change import Kind
from ..model.dirty import is_dirty
from ..model.objects import (
    ClusterRow,
    ConfigRow,
    NetworkRow,
    NodeRow,
    SecretRow,
    ServiceRow,
    TaskRow,
)
from ..model.task import STATES_BY_NAME

if TYPE_CHECKING:
    from ..store.view import View

Filters = Mapping[str, tuple[str, ...]]
"""Filter keys and the values asked for; a key without values counts for ``_up-to-date`` only."""

R = TypeVar("R", ServiceRow, NodeRow, TaskRow, SecretRow, ConfigRow, NetworkRow)

# --- flags and versions --------------------------------------------------------------------------

_FALSE_WORDS = frozenset({"", "0", "no", "false", "none"})
_GO_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_GO_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def flag(text: str) -> bool:
    """Return a lenient boolean (``force``, ``follow``...): anything but a few words is true."""
    return text.strip().lower() not in _FALSE_WORDS


def strict_flag(name: str, text: str) -> bool:
    """Return a strict boolean (``status``, ``insertDefaults``, ``rotate*``); "" is false.

    Raises:
        BadRequest: not one of the spellings that Go's strconv takes.
    """
    if text in _GO_TRUE:
        return True
    if not text or text in _GO_FALSE:
        return False
    raise BadRequest(
        f"invalid value for {name}: strconv.ParseBool: parsing {_quoted(text)}: invalid syntax"
    )


_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_FEW_DIGITS = re.compile(r"[0-9]{1,30}", re.ASCII)
LAST_MOMENT_NS = 2**63 - 1


def moment(name: str, text: str) -> int:
    """Return nanoseconds of ``seconds[.fraction]``; 0 for none, the last that fits for later.

    Raises:
        SwarmError: it is no such number.
    """
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    if not _FEW_DIGITS.fullmatch(seconds) or not _FEW_DIGITS.fullmatch(fraction or "0"):
        raise SwarmError(f"{name} value {text!r} must be seconds since the epoch")
    return min(int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9]), LAST_MOMENT_NS)


def object_version(kind: str, text: str) -> int:
    """Return the ``version`` that every update has to carry.

    Args:
        kind: what is updated, for the text: ``service``, ``node``, ``swarm``...

    Raises:
        BadRequest: missing, or no unsigned number of 64 bits.
    """
    problem = "invalid syntax"
    if _DIGITS.fullmatch(text):
        if len(text.lstrip("0")) <= 20 and int(text) < 2**64:
            return int(text)
        problem = "value out of range"
    raise BadRequest(
        f"invalid {kind} version '{text}': strconv.ParseUint: parsing {_quoted(text)}: {problem}"
    )


def check_sequence(
    row: ServiceRow | NodeRow | SecretRow | ConfigRow | ClusterRow, version: int
) -> None:
    """Check that nobody changed an object's spec since its client read it.

    Bookkeeping moves the version too, and spoils nobody's read-modify-write (decision 0005).

    Args:
        version: what the client read.

    Raises:
        OutOfSequence: somebody did, or this version never was.
    """
    if not row.private.spec_index <= version <= row.api.Version.Index:
        raise OutOfSequence


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()  # near enough to Go's %q


# --- filters -------------------------------------------------------------------------------------

_BOTH_SHAPES = msgspec.json.Decoder(dict[str, dict[str, bool] | list[str] | None] | None)


def parse_filters(text: str, allowed: frozenset[str]) -> Filters:
    """Return the ``filters`` of a list request, in either of the shapes that clients send.

    ``{"label":{"a=b":true}}`` is Go's and ``{"label":["a=b"]}`` is docker-py's; in the first, a
    value counts by being there.

    Raises:
        BadRequest: no JSON of these shapes, or a key that this list does not know.
    """
    if not text:
        return {}
    try:
        sent = _BOTH_SHAPES.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest(
            'invalid filters: they must be JSON such as {"name":["web"]} or {"name":{"web":true}}'
        ) from None
    filters = {key: tuple(values or ()) for key, values in (sent or {}).items()}
    for key in filters:
        if key not in allowed:
            raise BadRequest(f"invalid filter '{key}'")
    return filters


def filter_services(rows: Iterable[ServiceRow], filters: Filters) -> list[ServiceRow]:
    """Return the services that a list request asks for.

    Raises:
        BadRequest: no such mode.
    """
    for mode in filters.get("mode", ()):
        if mode not in _MODES:
            raise BadRequest(f"invalid filter 'mode={mode}'")
    return _select(rows, filters, _SERVICE_TESTS)


_MODES = ("replicated", "global", "replicated-job", "global-job")


def service_mode(row: ServiceRow) -> str:
    """Return the word for a service's mode, as the CLI writes it."""
    mode = row.api.Spec.Mode
    given = (mode.Replicated, mode.Global, mode.ReplicatedJob, mode.GlobalJob)
    words = zip(_MODES, given, strict=True)
    return next((word for word, one in words if one is not None), "replicated")


def filter_nodes(rows: Iterable[NodeRow], filters: Filters) -> list[NodeRow]:
    """Return the nodes that a list request asks for.

    ``label`` means the engine's labels, ``node.label`` those of the node; the name is the hostname.

    Raises:
        UnknownOption: no such role or membership.
    """
    for key, words in (("membership", ("accepted", "pending")), ("role", ("worker", "manager"))):
        for word in filters.get(key, ()):
            if word not in words:
                raise UnknownOption(f"Invalid {key} filter: '{word}'")
    return _select(rows, filters, _NODE_TESTS)


def filter_tasks(view: View, filters: Filters) -> list[TaskRow]:
    """Return the tasks that a list request asks for.

    ``service`` and ``node`` name objects as paths do; ``label`` means the service's labels;
    ``_up-to-date`` leaves the tasks that match their service's present spec.

    Raises:
        NotFound, BadRequest: a service or node that is not there, or an ambiguous name.
        UnknownOption: no such state.
    """
    states = filters.get("desired-state", ())
    for word in states:
        if word.lower() not in STATES_BY_NAME:
            raise UnknownOption(f"Invalid desired-state filter: '{word}'")
    filters = {**filters, "desired-state": tuple(word.lower() for word in states)}
    services = {resolve_service(view, name).api.ID for name in filters.get("service", ())}
    nodes = {resolve_node(view, name).api.ID for name in filters.get("node", ())}
    # Clients poll for one service five times a second: look at as few tasks as may be.
    rows: Iterable[TaskRow]
    if services:
        rows = (row for service_id in services for row in view.tasks_of(service_id))
        rows = (row for row in rows if not nodes or row.api.NodeID in nodes)
    elif nodes:
        rows = (row for node_id in nodes for row in view.tasks_on(node_id))
    else:
        rows = view.tasks()
    if "_up-to-date" in filters:
        rows = (row for row in rows if _is_up_to_date(view, row))
    return _select(rows, filters, _TASK_TESTS)


def _is_up_to_date(view: View, row: TaskRow) -> bool:
    service = view.service(row.api.ServiceID)
    return service is not None and not is_dirty(service, row, view.node(row.api.NodeID))


def filter_secrets(rows: Iterable[SecretRow], filters: Filters) -> list[SecretRow]:
    """Return the secrets that a list request asks for; ``names`` matches whole names."""
    return _select(rows, filters, _SECRET_TESTS)


def filter_configs(rows: Iterable[ConfigRow], filters: Filters) -> list[ConfigRow]:
    """Return the configs that a list request asks for; ``names`` matches whole names."""
    return _select(rows, filters, _CONFIG_TESTS)


def filter_networks(rows: Iterable[NetworkRow], filters: Filters) -> list[NetworkRow]:
    """Return the swarm networks that a list request asks for; names match by any part of them.

    ``type`` tells networks that users made from the engine's own, ``dangling`` those without
    containers.

    Raises:
        BadRequest: no such type, or no boolean for ``dangling``.
    """
    for word in filters.get("type", ()):
        if word not in ("builtin", "custom"):
            raise BadRequest(f"invalid filter 'type={word}'")
    dangling = {strict_flag("dangling", word) for word in filters.get("dangling", ())}
    chosen = _select(rows, filters, _NETWORK_TESTS)
    return [row for row in chosen if not dangling or (not row.api.Containers) in dangling]


def _begins(wanted: tuple[str, ...], actual: str) -> bool:
    return actual.lower().startswith(tuple(prefix.lower() for prefix in wanted))


def labelled(wanted: tuple[str, ...], labels: Mapping[str, str]) -> bool:
    """Return whether labels have every wanted one, given as ``key`` or ``key=value``."""
    for text in wanted:
        key, _, value = text.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    return True


def _any(_row: object, _wanted: tuple[str, ...]) -> bool:
    return True  # narrowed down already, before the tests


def _display_name(row: TaskRow) -> str:
    return row.name


Test = Callable[[R, tuple[str, ...]], bool]

_SERVICE_TESTS: dict[str, Test[ServiceRow]] = {
    "id": lambda row, wanted: _begins(wanted, row.api.ID),
    "name": lambda row, wanted: _begins(wanted, row.api.Spec.Name),
    "label": lambda row, wanted: labelled(wanted, row.api.Spec.Labels),
    "mode": lambda row, wanted: service_mode(row) in wanted,
    "runtime": lambda row, wanted: (row.api.Spec.TaskTemplate.Runtime or "container") in wanted,
}
_NODE_TESTS: dict[str, Test[NodeRow]] = {
    "id": lambda row, wanted: _begins(wanted, row.api.ID),
    "name": lambda row, wanted: _begins(wanted, row.api.Description.Hostname),
    "label": lambda row, wanted: labelled(wanted, row.api.Description.Engine.Labels),
    "node.label": lambda row, wanted: labelled(wanted, row.api.Spec.Labels),
    "membership": lambda _row, wanted: "accepted" in wanted,  # nodes are never pending here
    "role": lambda row, wanted: row.api.Spec.Role in wanted,
}
_TASK_TESTS: dict[str, Test[TaskRow]] = {
    "id": lambda row, wanted: _begins(wanted, row.api.ID),
    "name": lambda row, wanted: _begins(wanted, _display_name(row)),
    "label": lambda row, wanted: labelled(wanted, row.private.service_labels),
    "service": _any,
    "node": _any,
    "desired-state": lambda row, wanted: row.api.DesiredState.value in wanted,
    "runtime": lambda row, wanted: (row.api.Spec.Runtime or "container") in wanted,
    "_up-to-date": _any,
}
_SECRET_TESTS: dict[str, Test[SecretRow]] = {
    "id": lambda row, wanted: _begins(wanted, row.api.ID),
    "name": lambda row, wanted: _begins(wanted, row.api.Spec.Name),
    "names": lambda row, wanted: row.api.Spec.Name in wanted,
    "label": lambda row, wanted: labelled(wanted, row.api.Spec.Labels),
}
_CONFIG_TESTS: dict[str, Test[ConfigRow]] = {
    "id": lambda row, wanted: _begins(wanted, row.api.ID),
    "name": lambda row, wanted: _begins(wanted, row.api.Spec.Name),
    "names": lambda row, wanted: row.api.Spec.Name in wanted,
    "label": lambda row, wanted: labelled(wanted, row.api.Spec.Labels),
}
_NETWORK_TESTS: dict[str, Test[NetworkRow]] = {
    "id": lambda row, wanted: any(part in row.api.Id for part in wanted),
    "name": lambda row, wanted: any(part in row.api.Name for part in wanted),
    "label": lambda row, wanted: labelled(wanted, row.api.Labels),
    "driver": lambda row, wanted: row.api.Driver in wanted,
    "scope": lambda row, wanted: row.api.Scope in wanted,
    "type": lambda _row, wanted: "custom" in wanted,
    "dangling": _any,
}

SERVICE_FILTERS = frozenset(_SERVICE_TESTS)
NODE_FILTERS = frozenset(_NODE_TESTS)
TASK_FILTERS = frozenset(_TASK_TESTS)
SECRET_FILTERS = frozenset(_SECRET_TESTS)
CONFIG_FILTERS = frozenset(_CONFIG_TESTS)
NETWORK_FILTERS = frozenset(_NETWORK_TESTS)


def _select(rows: Iterable[R], filters: Filters, tests: Mapping[str, Test[R]]) -> list[R]:
    asked = [(tests[key], wanted) for key, wanted in filters.items() if wanted]
    chosen = [row for row in rows if all(test(row, wanted) for test, wanted in asked)]
    return sorted(chosen, key=lambda row: row.api.ID)


# --- names of objects ----------------------------------------------------------------------------


def resolve_service(view: View, reference: str) -> ServiceRow:
    """Return the service that a path or filter names.

    Raises:
        NotFound: none. BadRequest: several.
    """
    row = view.service(reference) or view.by_name(Kind.SERVICE, reference)
    if isinstance(row, ServiceRow):
        return row
    return _by_prefix("service", reference, view.services())


def resolve_node(view: View, reference: str) -> NodeRow:
    """Return the node that a path or filter names; its name is its hostname.

    Raises:
        NotFound: none. BadRequest: several, such as two nodes of one hostname.
    """
    row = view.node(reference)
    if row is not None:
        return row
    named = [view.node(node_id) for node_id in view.ids(("hostname", reference.lower()))]
    found = [row for row in named if row is not None]
    return _only("node", reference, found) or _by_prefix("node", reference, view.nodes())


def resolve_task(view: View, reference: str) -> TaskRow:
    """Return the task that a path names.

    Raises:
        NotFound: none. BadRequest: several.
    """
    row = view.task(reference)
    if row is not None:
        return row
    found = [row for row in view.tasks() if _display_name(row) == reference]
    return _only("task", reference, found) or _by_prefix("task", reference, view.tasks())


def resolve_secret(view: View, reference: str) -> SecretRow:
    """Return the secret that a path names.

    Raises:
        NotFound: none. BadRequest: several.
    """
    row = view.secret(reference) or view.by_name(Kind.SECRET, reference)
    if isinstance(row, SecretRow):
        return row
    rows = (row for row in view.rows(Kind.SECRET) if isinstance(row, SecretRow))
    return _by_prefix("secret", reference, rows)


def resolve_config(view: View, reference: str) -> ConfigRow:
    """Return the config that a path names.

    Raises:
        NotFound: none. BadRequest: several.
    """
    row = view.config(reference) or view.by_name(Kind.CONFIG, reference)
    if isinstance(row, ConfigRow):
        return row
    rows = (row for row in view.rows(Kind.CONFIG) if isinstance(row, ConfigRow))
    return _by_prefix("config", reference, rows)


def resolve_network(view: View, reference: str) -> NetworkRow:
    """Return the swarm network that a path names.

    Raises:
        NotFound: none. BadRequest: several.
    """
    row = view.network(reference) or view.by_name(Kind.NETWORK, reference)
    if isinstance(row, NetworkRow):
        return row
    rows = (row for row in view.rows(Kind.NETWORK) if isinstance(row, NetworkRow))
    return _by_prefix("network", reference, rows)


def _by_prefix(word: str, reference: str, rows: Iterable[R]) -> R:
    found = [row for row in rows if reference and row.api.ID.startswith(reference)]
    row = _only(word, reference, found)
    if row is None:
        raise NotFound(f"{word} {reference} not found")
    return row


def _only(word: str, reference: str, found: list[R]) -> R | None:
    if len(found) > 1:
        raise BadRequest(f"{word} {reference} is ambiguous ({len(found)} matches found)")
    return found[0] if found else None
