"""What the routes of secrets and configs share: create, labels, new versions, remove, prune.

Laws:

- Data goes into the tables and never into an answer, a note, an error or a log line from here.
- A new version and the services that follow it are one transaction wherever they fit into one.
  Where they do not, all of these services are noted as due first, then the version is made, then
  they are moved in batches: whatever cuts that short leaves no service behind, since one that is
  due follows with its next update, or with the next ``update`` of the secret.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..errors import InvalidArgument, NotFound, Unavailable
from ..model.change import (
    Change,
    Create,
    Delete,
    Exists,
    Kind,
    Ref,
    Transaction,
    Unreferenced,
    Update,
)
from ..model.codec import pack
from ..model.crosscheck import check_unused, name_taken
from ..model.objects import SecretRow, SecretSpec
from ..model.payload import data_of, new_payload
from ..model.request import Created, NamedServices, PayloadsPruned, VersionMade, VersionRequest
from ..model.revision import updated
from ..model.validate_cluster import (
    asks_for_version,
    check_config_spec,
    check_file_update,
    check_secret_spec,
)
from ..store.view import KIND_OF
from ..wire.http1 import Response
from . import query
from .call import EMPTY, json_reply, list_reply
from .present import present_config, present_secret
from .versions import (
    Follower,
    followers,
    newest,
    newest_id,
    surplus,
    unneeded,
    users,
    uses_of,
    versions,
)
from .write import write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..model.objects import Config, Secret, ServiceRow
    from ..model.payload import PayloadRow, PayloadSpec
    from ..store.view import View
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

    Handler = Callable[[ApiServer, Call], Awaitable[Reply]]

AT_ONCE = 400
"""How many rows one transaction changes at most: an entry takes 1,000."""
BYTES_AT_ONCE = 400_000
"""How many bytes of services go with one: an entry takes 1.5 MB, and the largest config is 1 MB."""
MARKS_MAX = 1_000
NAMED_MAX = 50


def handlers(kind: Kind, spec: type[PayloadSpec]) -> dict[str, Handler]:
    """Return what answers the routes that are the same for secrets and configs.

    Args:
        spec: what a client sends of one.
    """

    async def relabel(server: ApiServer, call: Call) -> Response:
        return await update(server, call, kind, call.body(spec))

    return {
        "inspect": partial(inspect, kind=kind),
        "update": relabel,
        "add_version": partial(add_version, kind=kind),
        "remove": partial(remove, kind=kind),
        "prune": partial(prune, kind=kind),
    }


# --- reading -------------------------------------------------------------------------------------


async def list_all(
    server: ApiServer,
    call: Call,
    allowed: frozenset[str],
    chosen: Callable[[View, query.Filters], Sequence[PayloadRow]],
) -> Reply:
    """Answer with the newest version of each name; with ``all=true`` with every version.

    Args:
        allowed: the filters that there are.
        chosen: returns the versions that match them.
    """
    filters = query.parse_filters(call.query.get("filters"), allowed)
    every = query.strict_flag("all", call.query.get("all"))
    view = await server.manager().read()
    shown = []
    for row in chosen(view, filters):
        name_means = newest_id(view, row)
        if every or not name_means:
            shown.append((row, name_means))
    return list_reply(shown, lambda pair: _presented(*pair))


async def inspect(server: ApiServer, call: Call, kind: Kind) -> Reply:
    """``GET /secrets/{id}``: one version: the newest by its name, any by its id."""
    view = await server.manager().read()
    row = resolve(view, kind, call.params["id"])
    return json_reply(_presented(row, newest_id(view, row)))


def _presented(row: PayloadRow, name_means: str) -> Secret | Config:
    if isinstance(row, SecretRow):
        return present_secret(row.api, newest=name_means)
    return present_config(row.api, newest=name_means)


def resolve(view: View, kind: Kind, reference: str) -> PayloadRow:
    """Return the version that a path names.

    Raises:
        NotFound: none. BadRequest: several.
    """
    if kind is Kind.SECRET:
        return query.resolve_secret(view, reference)
    return query.resolve_config(view, reference)


# --- create and labels ---------------------------------------------------------------------------


async def create(server: ApiServer, call: Call, kind: Kind, spec: PayloadSpec) -> Response:
    """Make the first version of a name.

    Args:
        spec: checked.
    """
    manager = server.manager()
    payload_id = server.new_id()

    def plan(view: View) -> tuple[Transaction, Response]:
        if newest(view, kind, spec.Name) is not None:
            raise name_taken(kind, spec.Name)
        row = new_payload(payload_id, spec)
        return Transaction(changes=(Create(row=row),)), json_reply(Created(ID=payload_id), 201)

    return await write(manager, call, plan)


async def update(server: ApiServer, call: Call, kind: Kind, asked: PayloadSpec) -> Response:
    """``POST /secrets/{id}/update``: a version's labels; nothing else of it ever changes.

    Other data makes a new version where a label asks for that: ``docker stack deploy`` has no other
    way to say so.
    """
    manager = server.manager()
    version = query.object_version(kind.value, call.query.get("version"))
    before = resolve(await manager.read(), kind, call.params["id"])
    payload_id = before.api.ID
    if asks_for_version(before.api.Spec, data_of(before), asked):

        def check(latest: PayloadRow) -> None:
            if data_of(latest) != asked.Data:  # else it was made already, by this very request
                query.check_sequence(latest, version)

        wanted = VersionRequest(Data=asked.Data, Labels=asked.Labels, Templating=asked.Templating)
        await _succeed(server, call, kind, before.api.Spec.Name, wanted, check=check)
        return EMPTY

    def plan(view: View) -> tuple[Transaction, Response]:
        row = resolve(view, kind, payload_id)
        query.check_sequence(row, version)
        check_file_update(row.api.Spec, data_of(row), asked)
        return Transaction(changes=(Update(row=_relabelled(row, asked)),)), EMPTY

    return await write(manager, call, plan)


def _relabelled(row: PayloadRow, asked: PayloadSpec) -> PayloadRow:
    spec = replace(row.api.Spec, Labels=asked.Labels)
    return replace(row, api=replace(row.api, Spec=spec))


# --- new versions --------------------------------------------------------------------------------


class _TooMany(Exception):
    """The services that follow do not fit beside the new version."""


async def add_version(server: ApiServer, call: Call, kind: Kind) -> Response:
    """``POST /secrets/{id}/versions``: make the next version, and have services follow it.

    With ``roll=false`` they are only noted as due. The same data and labels again make no new
    version, but who is due follows.
    """
    asked = call.body(VersionRequest)
    roll = query.strict_flag("roll", call.query.get("roll") or "true")
    name = _latest(await server.manager().read(), kind, call.params["id"]).api.Spec.Name
    return await _succeed(server, call, kind, name, asked, roll=roll)


async def _succeed(
    server: ApiServer,
    call: Call,
    kind: Kind,
    name: str,
    asked: VersionRequest,
    *,
    roll: bool = True,
    check: Callable[[PayloadRow], None] | None = None,
) -> Response:
    """Make the next version of a name, and have services follow it.

    Args:
        check: refuses by the newest version as it is found.
    """
    manager = server.manager()
    version_id = server.new_id()

    def plan(view: View) -> tuple[Transaction, Response]:
        latest = _still_there(view, kind, name)
        if check is not None:
            check(latest)
        at = server.clock.now()
        return _Succession(view, latest, asked, version_id, at=at, roll=roll).plan()

    def mark(view: View) -> tuple[Transaction, Response]:
        waiting = followers(view, _still_there(view, kind, name), replaced=True)
        rows = [_marked(one) for one in waiting if not one.is_due]
        return Transaction(changes=_updates(_fitting(rows))), EMPTY

    answer = None
    for attempt in range(MARKS_MAX):
        try:
            answer = await write(manager, call, plan)
            break
        except _TooMany:
            await write(manager, call, mark, part=f"marks/{attempt}")
    if answer is None:
        raise Unavailable("the services that use it change too fast for this request; try again")

    def move(view: View) -> tuple[Transaction, Response]:
        latest = _still_there(view, kind, name)
        at = server.clock.now()
        rows = [_moved(one, latest.api.ID, at) for one in _movable(view, latest)]
        requires = (Exists(ref=Ref(kind, latest.api.ID)),)
        return Transaction(changes=_updates(_fitting(rows)), requires=requires), EMPTY

    batch = 0
    while roll and _movable(manager.view, _still_there(manager.view, kind, name)):
        await write(manager, call, move, part=f"moves/{batch}")
        batch += 1
    return answer


def _latest(view: View, kind: Kind, reference: str) -> PayloadRow:
    """Return the newest version of what a path names.

    Raises:
        InvalidArgument: it names an older version.
    """
    row = resolve(view, kind, reference)
    if newest_id(view, row):
        raise InvalidArgument(
            f"{kind.value} {reference} is an older version of {row.api.Spec.Name}; a new version "
            f"is made of the newest: name it {row.api.Spec.Name}"
        )
    return row


def _still_there(view: View, kind: Kind, name: str) -> PayloadRow:
    row = newest(view, kind, name)
    if row is None:
        raise NotFound(f"{kind.value} {name} not found")
    return row


def _movable(view: View, latest: PayloadRow) -> list[Follower]:
    return [one for one in followers(view, latest, replaced=False) if not one.waits]


class _Succession(NamedTuple):
    """One look at what a new version of ``latest`` changes."""

    view: View
    latest: PayloadRow
    asked: VersionRequest
    version_id: str
    at: int
    roll: bool

    def plan(self) -> tuple[Transaction, Response]:
        """Return the transaction, and what the client is told.

        Raises:
            _TooMany: not all services fit in that are not due yet.
            InvalidArgument: the new version may not be.
        """
        kind, latest = KIND_OF[type(self.latest)], self.latest
        made = self._made()
        now = made or latest
        following = followers(self.view, latest, replaced=made is not None)
        moving = [one for one in following if self.roll and not one.waits]
        waiting = [one for one in following if not self.roll or one.waits]
        # Those that are not due yet come first: a service that is due is found again later.
        moving.sort(key=lambda one: one.is_due)
        rows = [_marked(one) for one in waiting if not one.is_due]
        rows += [_moved(one, now.api.ID, self.at) for one in moving]
        fitting = _fitting(rows, at_least=0)
        if len(fitting) < sum(not one.is_due for one in following):
            raise _TooMany
        changes: list[Change] = list(_updates(fitting))
        requires: list[Exists | Unreferenced] = [Exists(ref=Ref(kind, latest.api.ID))]
        if made is not None:
            changes.append(Create(row=made))
            for row in surplus(self.view, latest)[:AT_ONCE]:
                ref = Ref(kind, row.api.ID)
                changes.append(Delete(ref=ref, version=row.api.Version.Index))
                requires.append(Unreferenced(ref=ref))
        told = VersionMade(
            ID=now.api.ID,
            Revision=now.api.Revision,
            Unchanged=made is None,
            Moving=_named(moving),
            Waiting=_named(waiting),
        )
        answer = json_reply(told, 200 if made is None else 201)
        return Transaction(changes=tuple(changes), requires=tuple(requires)), answer

    def _made(self) -> PayloadRow | None:
        """Return the new version's row; None when it would be as the newest is."""
        asked, before = self.asked, self.latest.api.Spec
        labels = before.Labels if asked.Labels is None else asked.Labels
        templating = before.Templating if asked.Templating is None else asked.Templating
        if (asked.Data, labels, templating) == (
            data_of(self.latest),
            before.Labels,
            before.Templating,
        ):
            return None
        spec = replace(before, Data=asked.Data, Labels=labels, Templating=templating)
        if isinstance(spec, SecretSpec):
            check_secret_spec(spec)
        else:
            check_config_spec(spec)
        return new_payload(self.version_id, spec, revision=self.latest.api.Revision + 1)


def _moved(one: Follower, payload_id: str, at: int) -> ServiceRow:
    """Return a service's row with another version in its spec, for the update engine to roll."""
    row = one.row
    auth = row.private.registry_auth
    moved = updated(row, one.spec_with(payload_id), at, registry_auth=auth)
    return replace(moved, private=replace(moved.private, due=one.due_after))


def _marked(one: Follower) -> ServiceRow:
    return replace(one.row, private=replace(one.row.private, due=one.due_then))


def _updates(rows: Sequence[ServiceRow]) -> tuple[Change, ...]:
    return tuple(Update(row=row) for row in rows)


def _fitting(rows: Sequence[ServiceRow], *, at_least: int = 1) -> list[ServiceRow]:
    """Return as many of the first rows as go into one entry beside a version."""
    fitting: list[ServiceRow] = []
    size = 0
    for row in rows[:AT_ONCE]:
        size += len(pack(row))
        if size > BYTES_AT_ONCE and len(fitting) >= at_least:
            break
        fitting.append(row)
    return fitting


def _named(services: Sequence[Follower]) -> NamedServices:
    names = sorted(one.row.api.Spec.Name for one in services)
    return NamedServices(Count=len(names), Names=tuple(names[:NAMED_MAX]))


# --- removing ------------------------------------------------------------------------------------


async def remove(server: ApiServer, call: Call, kind: Kind) -> Response:
    """``DELETE /secrets/{id}``: every version of a name; by an older version's id that one only.

    A version in use keeps the name: it would be of no use to find it gone by half.
    """
    manager = server.manager()
    payload_id = resolve(await manager.read(), kind, call.params["id"]).api.ID

    def plan(view: View) -> tuple[Transaction, Response]:
        row = resolve(view, kind, payload_id)
        name = row.api.Spec.Name
        going = [row] if newest_id(view, row) else versions(view, kind, name)
        check_unused(kind, name, users(view, going))
        return _without(view, kind, going), Response(204)

    return await write(manager, call, plan)


async def prune(server: ApiServer, call: Call, kind: Kind) -> Response:
    """``POST /secrets/prune``: remove the older versions that nothing uses."""
    manager = server.manager()
    gone: list[str] = []

    def plan(view: View) -> tuple[Transaction, Response]:
        going = unneeded(view, kind)[:AT_ONCE]
        ids = (*gone, *(row.api.ID for row in going))
        return _without(view, kind, going), json_reply(PayloadsPruned(Deleted=ids))

    batch = 0
    while len(going := unneeded(manager.view, kind)) > AT_ONCE:
        await write(manager, call, plan, part=f"batch/{batch}")
        gone += [row.api.ID for row in going[:AT_ONCE]]
        batch += 1
    return await write(manager, call, plan)


def _without(view: View, kind: Kind, going: Sequence[PayloadRow]) -> Transaction:
    deletes = [Delete(ref=Ref(kind, row.api.ID), version=row.api.Version.Index) for row in going]
    uses = [ref for row in going for ref in uses_of(view, row)]
    return Transaction(
        changes=tuple(deletes), requires=tuple(Unreferenced(ref=ref) for ref in uses)
    )
