"""Routes of services: list, create, inspect, update, remove, stop, start.

A write is checked against the tables as they are and carries what it rests on as requirements.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..autoscaler.policy import check_scaling, policy_of, scaling_warnings
from ..errors import BadRequest, InvalidArgument, SwarmError
from ..model import revision
from ..model.change import (
    Advance,
    Change,
    Create,
    Delete,
    Exists,
    Kind,
    Ref,
    Requirement,
    SpecAt,
    Transaction,
    Update,
)
from ..model.crosscheck import (
    check_ingress_network,
    check_ports,
    check_references,
    name_taken,
    resolve_networks,
    rests_on,
)
from ..model.defaults import normalize_service_spec
from ..model.objects import ServiceRow
from ..model.pinned import check_pinned, check_pinned_networks
from ..model.release import check_service_available, needs_traffic, quiet_nodes, service_warnings
from ..model.request import ServiceCreated, ServiceUpdated
from ..model.scaling import as_meant, as_scaled, has_aliases, source_secrets
from ..model.service import Endpoint, Service, ServicePrivate, next_run
from ..model.spec import EndpointSpec, ServiceSpec
from ..model.startorder import check_start_order
from ..model.stopping import as_posted, started, stopped
from ..model.strategy import check_strategy, lost_strategy
from ..model.task import TaskState
from ..model.validate import check_service_spec, check_service_update
from . import query
from .call import EMPTY, json_reply, list_reply
from .present import present_listed_service, present_service, service_status
from .versions import with_due_moved
from .write import write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..manager.manager import Manager
    from ..model.service import ServiceStatus
    from ..store.view import View
    from ..wire.http1 import Response
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

NAMES_TRIED = 20
TASKS_AT_ONCE = 900
NUMBER_DIGITS_MAX = 9
_ADJECTIVES = ("agile", "brave", "calm", "deft", "eager", "keen", "lucid", "noble", "quick", "wise")
_PEOPLE = ("curie", "darwin", "euler", "gauss", "hopper", "kepler", "lamport", "noether", "turing")


async def list_services(server: ApiServer, call: Call) -> Reply:
    """``GET /services``; with ``status=true`` each has the counts of its tasks."""
    view = await server.manager().read()
    filters = query.parse_filters(call.query.get("filters"), query.SERVICE_FILTERS)
    counted = query.strict_flag("status", call.query.get("status"))
    shown: list[tuple[Service, ServiceStatus | None]] = []
    for row in query.filter_services(view.services(), filters):
        status = None
        if counted:
            tasks = (task.api for task in view.tasks_of(row.api.ID))
            status = service_status(as_scaled(row), tasks)
        shown.append((as_scaled(row), status))
    return list_reply(shown, lambda pair: present_listed_service(*pair))


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /services/{id}``"""
    with_defaults = query.strict_flag("insertDefaults", call.query.get("insertDefaults"))
    view = await server.manager().read()
    row = query.resolve_service(view, call.params["id"])
    quiet = _quiet(view, row.api.Spec)
    shown = present_service(as_scaled(row), with_defaults=with_defaults, quiet=quiet)
    more = [*scaling_warnings(row.api.Spec), lost_strategy(row.api.Spec, server.strategies)]
    warnings = (*shown.Warnings, *filter(None, more))
    return json_reply(replace(shown, Warnings=warnings) if warnings else shown)


async def history(server: ApiServer, call: Call) -> Reply:
    """``GET /services/{id}/history``: the specs that are kept, newest first; ours."""
    view = await server.manager().read()
    row = query.resolve_service(view, call.params["id"])
    return json_reply(revision.history_of(row))


async def create(server: ApiServer, call: Call) -> Reply:
    """``POST /services/create``"""
    manager = server.manager()
    asked = call.body(ServiceSpec)
    service_id = server.new_id()

    def plan(view: View) -> tuple[Transaction, Response]:
        named = asked if asked.Name else replace(asked, Name=_random_name(view))
        spec = _fitted(_checked(named), view)
        check_strategy(spec, server.strategies)
        _check_scaling(manager, spec)
        meant = as_meant(None, spec, server.clock.now(), named=_names_number(asked))
        if view.by_name(Kind.SERVICE, spec.Name) is not None:
            raise name_taken(Kind.SERVICE, spec.Name)
        row = ServiceRow(
            api=Service(
                ID=service_id,
                Spec=spec,
                Endpoint=Endpoint(Spec=spec.EndpointSpec or EndpointSpec()),
                JobStatus=next_run(spec, None, server.clock.now()),
            ),
            private=ServicePrivate(
                registry_auth=call.request.headers.get("x-registry-auth"), scale=meant.scale
            ),
        )
        quiet = _quiet(view, spec)
        told = (*service_warnings(spec, quiet), *scaling_warnings(spec), meant.warning)
        warnings = tuple(filter(None, told)) or None
        created = json_reply(ServiceCreated(ID=service_id, Warnings=warnings), 201)
        requires = (
            *rests_on(spec, view.networks()),
            *_metric_secrets(spec, view),
            *_start_order(spec, view),
        )
        return Transaction(changes=(Create(row=row),), requires=requires), created

    return await write(manager, call, plan)


async def update(server: ApiServer, call: Call) -> Reply:
    """``POST /services/{id}/update``: a new spec, or an older one.

    ``rollback=previous`` is Docker's: the spec before. ``rollback=N`` is ours: that revision.
    """
    manager = server.manager()
    version = query.object_version("service", call.query.get("version"))
    rollback = call.query.get("rollback")
    if rollback not in ("", "previous") and not _is_number(rollback):
        raise SwarmError(f"unrecognized rollback option {rollback}")
    asked = call.body(ServiceSpec)
    service_id = query.resolve_service(await manager.read(), call.params["id"]).api.ID

    def plan(view: View) -> tuple[Transaction, Response]:
        row = query.resolve_service(view, service_id)
        query.check_sequence(row, version)
        told = ""
        if rollback:
            changed = _rolled_back(row, rollback, server.clock.now())
            check_references(changed.api.Spec, view)  # what it used may be gone
            _check_networks(changed.api.Spec, view)
            check_ports(changed.api.Spec, view.services(), own_id=service_id)
        else:
            changed, told = _updated(server, call, view, row, asked)
        requires = (
            *rests_on(changed.api.Spec, view.networks(), own_id=service_id),
            *_metric_secrets(changed.api.Spec, view),
            *_start_order(changed.api.Spec, view, before=row.api.Spec),
        )
        spec = changed.api.Spec
        quiet = _quiet(view, spec)
        found = (*service_warnings(spec, quiet), *scaling_warnings(spec), told)
        warnings = tuple(filter(None, found)) or None
        updated = json_reply(ServiceUpdated(Warnings=warnings))
        return Transaction(changes=(Update(row=changed),), requires=requires), updated

    return await write(manager, call, plan)


async def remove(server: ApiServer, call: Call) -> Reply:
    """``DELETE /services/{id}``: its tasks are wanted gone in the same moment."""
    manager = server.manager()
    service_id = query.resolve_service(await manager.read(), call.params["id"]).api.ID

    def plan(view: View) -> tuple[Transaction, Response]:
        row = query.resolve_service(view, service_id)
        ref = Ref(Kind.SERVICE, service_id)
        changes: list[Change] = [Delete(ref=ref, version=row.api.Version.Index)]
        changes += [
            Advance(task_id=task.api.ID, desired=TaskState.REMOVE)
            for task in view.tasks_of(service_id)[:TASKS_AT_ONCE]
        ]  # the orchestrator sees to those beyond
        return Transaction(changes=tuple(changes)), EMPTY

    return await write(manager, call, plan)


async def stop(server: ApiServer, call: Call) -> Reply:
    """``POST /services/{id}/stop``: no task of it is to run any more; ours."""
    return await _switch(server, call, lambda service: stopped(service, server.clock.now()))


async def start(server: ApiServer, call: Call) -> Reply:
    """``POST /services/{id}/start``: it runs again, with as many replicas as before; ours."""
    return await _switch(server, call, started)


async def _switch(server: ApiServer, call: Call, switch: Callable[[Service], Service]) -> Reply:
    """Stop or start a service; what is so already is so without a change."""
    manager = server.manager()
    service_id = query.resolve_service(await manager.read(), call.params["id"]).api.ID

    def plan(view: View) -> tuple[Transaction, Response]:
        row = query.resolve_service(view, service_id)
        api = switch(row.api)
        changes = () if api is row.api else (Update(row=replace(row, api=api)),)
        return Transaction(changes=changes), EMPTY

    return await write(manager, call, plan)


# --- checks --------------------------------------------------------------------------------------


def _checked(asked: ServiceSpec) -> ServiceSpec:
    """Return the spec as it is stored, if it is in order by itself."""
    check_service_spec(asked)
    spec = normalize_service_spec(asked)
    check_service_available(spec)
    check_pinned(spec)
    return spec


def _fitted(spec: ServiceSpec, view: View, *, own_id: str = "") -> ServiceSpec:
    """Return the spec with networks named by id, if it fits the other objects."""
    spec = _check_networks(spec, view)
    check_references(spec, view)
    check_ports(spec, view.services(), own_id=own_id)
    return spec


def _check_scaling(manager: Manager, spec: ServiceSpec) -> None:
    """Check that a service can be scaled as its labels say, by what this manager has."""
    check_scaling(spec, no_psi=manager.autoscaler.no_psi)
    if not has_aliases(spec.Labels):
        manager.autoscaler.check_sources(policy_of(spec))


def _metric_secrets(spec: ServiceSpec, view: View) -> list[Requirement]:
    """Return that the secrets are there which a service's metrics are read with.

    Raises:
        InvalidArgument: one is not.
    """
    requires: list[Requirement] = []
    for name in sorted(source_secrets(spec.Labels)):
        row = view.by_name(Kind.SECRET, name)
        if row is None:
            raise InvalidArgument(f"secret not found: {name}")
        requires.append(Exists(ref=Ref(Kind.SECRET, row.api.ID)))
    return requires


def _quiet(view: View, spec: ServiceSpec) -> Sequence[str]:
    """Return which nodes carry no traffic, where a spec has to do without for it."""
    return quiet_nodes(view.quiet_nodes()) if needs_traffic(spec) else ()


def _check_networks(spec: ServiceSpec, view: View) -> ServiceSpec:
    """Return the spec with networks named by id, if they are there."""
    networks = list(view.networks())
    check_ingress_network(spec, networks)
    spec = resolve_networks(spec, networks)
    check_pinned_networks(spec, networks)
    return spec


def _start_order(
    spec: ServiceSpec, view: View, *, before: ServiceSpec | None = None
) -> list[Requirement]:
    """Return what has to hold still so that no two writes close a cycle between them."""
    awaited = check_start_order(spec, view, before=before)
    return [
        SpecAt(ref=Ref(Kind.SERVICE, row.api.ID), index=row.private.spec_index) for row in awaited
    ]


# --- new rows ------------------------------------------------------------------------------------


def _updated(
    server: ApiServer, call: Call, view: View, row: ServiceRow, asked: ServiceSpec
) -> tuple[ServiceRow, str]:
    """Return the row with what its user posted, and what to tell of it, or ""."""
    now, before = server.clock.now(), row.api.Spec
    spec = _fitted(_checked(asked), view, own_id=row.api.ID)
    spec, stop = as_posted(row.api, spec)
    meant = as_meant(row, spec, now, named=stop is None and _names_number(asked))
    check_service_update(before, meant.spec)
    check_strategy(meant.spec, server.strategies, before=before)
    _check_scaling(server.manager(), meant.spec)
    spec, due = with_due_moved(view, row, meant.spec)
    changed = revision.updated(row, spec, now, registry_auth=_auth_for(call, row))
    changed = replace(
        changed,
        api=replace(changed.api, Stopped=stop),
        private=replace(changed.private, due=due, scale=meant.scale),
    )
    return changed, meant.warning


def _names_number(asked: ServiceSpec) -> bool:
    """True for a spec that says how many replicas; what is normalized always does."""
    return asked.Mode.Replicated is not None and asked.Mode.Replicated.Replicas is not None


def _auth_for(call: Call, row: ServiceRow) -> str:
    """Return the pull credentials of an update: the request's own, else the stored ones."""
    source = call.query.get("registryAuthFrom")
    given = call.request.headers.get("x-registry-auth")
    if given:
        return given
    if source in ("", "spec"):
        return row.private.registry_auth
    if source == "previous-spec":
        if row.api.PreviousSpec is None:
            raise SwarmError("service does not have a previous spec")
        return row.private.previous_registry_auth
    raise SwarmError("unsupported registryAuthFrom value")


def _rolled_back(row: ServiceRow, rollback: str, now: int) -> ServiceRow:
    """Return the row with an older spec, as the query asks for it."""
    if rollback == "previous":
        return revision.rolled_back(row, now)
    return revision.rolled_back_to(row, int(rollback), now)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX


def _random_name(view: View) -> str:
    """Return a free name for a service whose user gave none."""
    for _ in range(NAMES_TRIED):
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_PEOPLE)}"
        if view.by_name(Kind.SERVICE, name) is None:
            return name
        name += str(secrets.randbelow(1000))
        if view.by_name(Kind.SERVICE, name) is None:
            return name
    raise BadRequest("meta: name must be provided")


HANDLERS = {
    "list": list_services,
    "inspect": inspect,
    "history": history,
    "create": create,
    "update": update,
    "remove": remove,
    "stop": stop,
    "start": start,
}
