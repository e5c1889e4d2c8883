"""NEW -> PENDING: services get their ports and addresses, then their tasks may be scheduled.

Everything is computed from the tables, so any leader goes on where the one before it was, and
written with the requirement that it is still free. A service is allocated when its endpoint is what
:class:`~.ports.PortBook` and :class:`~.addresses.AddressBook` would give it, so an update is just
another difference; one that cannot be allocated keeps its tasks at NEW with the reason in
``Status.Err``, and whatever is given back is a new chance. For whom it is, an index says
(``View.services_lacking``) and the NEW tasks do: a service that has what it asks for is not looked
at, so giving back is cheap however many services there are.

A service without ports and networks is a key of its own; all others are one key, since they compete
for the same numbers, and with them go the networks' own subnets and the gateways of nodes that got
a network's first task. That such a gateway is not needed any more is a key apart.

A service's new tasks also wait here for the services that its start order names
(model/startorder.py): a NEW task holds nothing that others could want. A service that names none
pays for one look at its labels.

A service and the tasks that waited for it are one transaction: no task becomes PENDING on the
strength of a port that its service did not get.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.base import Time
from ..model.change import (
    NOTHING,
    ROWS_BYTES_MAX,
    Decision,
    Exists,
    Free,
    Index,
    Kind,
    Ref,
    Transaction,
    Update,
)
from ..model.codec import pack
from ..model.labels import DEPENDS_ON
from ..model.network import INGRESS_KEY, holds_addresses, problem_of
from ..model.objects import ServiceRow
from ..model.startorder import unmet
from ..model.task import TaskState
from .addresses import AddressBook, Refused, joins_networks
from .networks import allocate_networks, is_allocated
from .places import keeps_place, lacks_place, without_place
from .policy import AWAIT_NS, Outsider
from .ports import PortBook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..ids import NewId
    from ..model.change import Requirement
    from ..model.objects import NetworkRow, NodeRow, TaskRow
    from ..model.service import Endpoint
    from ..model.task import NetworkAttachment, Task
    from ..store.view import View
    from .policy import Allocator

NAME = "allocator"
EVERYTHING = "everything"
GATEWAYS = "gateways"
TASKS_MAX = 400
"""Tasks moved by one decision, if all of a service's go into one transaction; it asks for the next
turn at once when there are more."""

PENDING_MESSAGE = "pending task scheduling"


# --- what to look at -----------------------------------------------------------------------------


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    """Return what to allocate: one service, or all when some compete for something (None: all)."""
    if touched is None:
        return (EVERYTHING, GATEWAYS)
    found: dict[str, None] = {}
    moved: dict[str, None] = {}
    for ref in touched:
        for key in _keys_of(view, ref):
            found[key] = None
        if ref.kind is Kind.SERVICE:
            moved[ref.id] = None
        elif ref.kind is Kind.TASK and (task := view.task(ref.id)) is not None:
            moved[task.api.ServiceID] = None
    for service_id in _awaiting(view, moved):
        found[_key(view.service(service_id))] = None
    if EVERYTHING in found:
        rest = (GATEWAYS,) if GATEWAYS in found else ()
        return (EVERYTHING, *rest)
    return found


def _keys_of(view: View, ref: Ref) -> Iterator[str]:
    if ref.kind is Kind.SERVICE:
        yield _key(view.service(ref.id))
        if view.lacks_anybody():
            yield EVERYTHING  # it may ask no more for what another waits for
    elif ref.kind is Kind.NETWORK:
        row = view.network(ref.id)
        if row is None or not is_allocated(row) or _is_anybody_waiting(view):
            yield EVERYTHING
        elif row.api.Ingress or row.api.Attachable:
            yield from _keys_of_places(view, row)
    elif ref.kind is Kind.NODE:
        yield from _keys_of_node(view, view.node(ref.id))
    elif ref.kind is Kind.TASK:
        task = view.task(ref.id)
        if task is None:
            yield from _keys_of_gone(view)
        elif task.api.Status.State is TaskState.NEW:
            yield _key(view.service(task.api.ServiceID))
        elif task.api.NetworksAttachments:
            yield from _keys_of_attached(view, task.api)


def _awaiting(view: View, moved: Iterable[str]) -> Iterable[str]:
    """Return the services that may have waited for one of those that changed."""
    waiting = view.labelled(DEPENDS_ON)
    found: dict[str, None] = {}
    for service_id in moved if waiting else ():
        service = view.service(service_id)
        if service is None:
            return waiting  # it is gone, and its name with it
        found.update(dict.fromkeys(view.awaiting(service.api.Spec.Name)))
    return found


def _key(service: ServiceRow | None) -> str:
    """Return the key of a service; one that went may have left something to the others."""
    if service is None:
        return EVERYTHING
    asked, endpoint = service.api.Spec.EndpointSpec, service.api.Endpoint
    has_ports = (asked is not None and asked.Ports) or endpoint.Ports
    has_networks = endpoint.VirtualIPs or joins_networks(service, endpoint)
    return EVERYTHING if has_ports or has_networks else service.api.ID


def _keys_of_node(view: View, node: NodeRow | None) -> Iterator[str]:
    """Return what a node asks for that came, changed or went: its places on some networks."""
    if node is None:
        yield GATEWAYS
        if any(map(problem_of, view.networks())):
            yield EVERYTHING  # it may have been this node's
        return
    for network_id in (*view.holders(Index.INGRESS, INGRESS_KEY), *view.attachable()):
        row = view.network(network_id)
        if row is None or not row.private.vni:
            continue
        has_gateway = node.api.ID in row.private.gateways
        if has_gateway and not _keeps_gateway(view, row, node.api.ID):
            yield GATEWAYS
        elif lacks_place(node, row) or problem_of(row):
            yield EVERYTHING


def _keys_of_places(view: View, row: NetworkRow) -> Iterator[str]:
    """Return what a network asks for: places of nodes that lack one, or need none.

    One with a problem is looked at again, since its gateways may have gone that it was about.
    """
    if problem_of(row) or without_place(view, row):
        yield EVERYTHING
    idle = row.private.gateways.keys() - set(view.carriers())
    if not all(_keeps_gateway(view, row, node_id) for node_id in idle):
        yield GATEWAYS


def _keys_of_gone(view: View) -> Iterator[str]:
    """Return what a task may have left behind, of which nothing is known any more."""
    if any(row.private.gateways for row in view.networks()):
        yield GATEWAYS
        if _is_anybody_waiting(view):
            yield EVERYTHING


def _keys_of_attached(view: View, task: Task) -> Iterator[str]:
    """Return what a task with places on networks asks for by its present state."""
    if not holds_addresses(task) and _is_anybody_waiting(view):
        yield EVERYTHING
    if not task.NodeID:
        return
    for attachment in task.NetworksAttachments:
        row = view.network(attachment.Network.ID)
        if row is None or not row.private.vni:
            continue
        has_gateway = task.NodeID in row.private.gateways
        if task.Status.State is TaskState.ASSIGNED and not has_gateway:
            yield EVERYTHING
        elif has_gateway and not _keeps_gateway(view, row, task.NodeID):
            yield GATEWAYS


def _is_anybody_waiting(view: View) -> bool:
    """Return whether an address that is given back could be for somebody: nodes, too."""
    is_waiting = view.lacks_anybody() or any(
        next(iter(view.ids(("task.state", state.name))), None) is not None
        for state in (TaskState.NEW, TaskState.ASSIGNED)
    )
    return is_waiting or any(map(problem_of, view.networks()))


# --- deciding ------------------------------------------------------------------------------------


class Allocating:
    """The reconciler, with the plugin that chooses among what is free."""

    def __init__(self, allocator: Allocator) -> None:
        self._allocator = allocator
        self._outsider = allocator if isinstance(allocator, Outsider) else None

    def _send(self, decision: Decision, view: View, now: int) -> Decision:
        """Have answered what an allocator outside this process was asked, and look again then."""
        assert self._outsider is not None
        if self._outsider.send(view) and decision.wake_at is None:
            return replace(decision, wake_at=now + AWAIT_NS)
        return decision

    def decide(self, view: View, key: str, now: int, new_id: NewId) -> Decision:
        """Return the endpoints, networks and tasks that can be allocated now."""
        if key == EVERYTHING:
            decision = self._decide_all(view, now)
            return decision if self._outsider is None else self._send(decision, view, now)
        if key == GATEWAYS:
            return _decide_gateways(view)
        service = view.service(key)
        if service is None:
            return NOTHING
        books = _Books(view, PortBook(view), AddressBook(view, self._allocator), now)
        return _decide_alone(view, service, books)

    def _decide_all(self, view: View, now: int) -> Decision:
        transactions = [*allocate_networks(view, self._allocator)]
        # What got its subnets just now is ready for its users once that is written.
        books = _Books(view, PortBook(view), AddressBook(view, self._allocator), now)
        books.addresses.add_gateways()
        waiting = _waiting(view.tasks_at(TaskState.NEW))
        room = TASKS_MAX
        wake_at: int | None = None
        for service in _concerned(view, waiting):
            work = _allocate(service, waiting.pop(service.api.ID, ()), books, room)
            if work.changes:
                transactions.append(work.transaction())
                room -= work.tasks
                if work.is_full or _gives_back(service, work.changes):
                    wake_at = now  # there is more to move, or older services may wait for it
            if room <= 0:
                wake_at = now
                break
        else:
            # What is left belongs to no service (plain containers on a network) or to none now.
            alone = _allocate(None, waiting.pop("", ()), books, room)
            if alone.changes:
                transactions.append(alone.transaction())
            if alone.is_full:
                wake_at = now
        transactions += books.addresses.written()
        return Decision(transactions=tuple(transactions), wake_at=wake_at)


def _decide_gateways(view: View) -> Decision:
    """Take back the gateways of nodes that run nothing on a network any more."""
    transactions = []
    for row in view.networks():
        unused = [
            node_id for node_id in row.private.gateways if not _keeps_gateway(view, row, node_id)
        ]
        if unused:
            transactions.append(_without_gateways(row, unused))
    return Decision(transactions=tuple(transactions))


def _keeps_gateway(view: View, row: NetworkRow, node_id: str) -> bool:
    """Return whether a node still needs its address in a network."""
    if view.is_held(Index.ON_NODE, f"{row.api.ID}/{node_id}"):
        return True
    node = view.node(node_id) if row.api.Ingress or row.api.Attachable else None
    return node is not None and keeps_place(node, row)


def _without_gateways(row: NetworkRow, unused: list[str]) -> Transaction:
    def kept(places: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {node_id: place for node_id, place in places.items() if node_id not in unused}

    private = replace(
        row.private, gateways=kept(row.private.gateways), rooms=kept(row.private.rooms)
    )
    return Transaction(
        changes=(Update(row=replace(row, private=private)),),
        requires=tuple(
            Free(index=Index.ON_NODE, key=f"{row.api.ID}/{node_id}") for node_id in unused
        ),
    )


class _Books(NamedTuple):
    """Who has what, and when this is decided."""

    view: View
    ports: PortBook
    addresses: AddressBook
    now: int


class _Work(NamedTuple):
    """One service's changes and what they require.

    Attributes:
        tasks: how many of the changes are tasks.
        is_full: there may be more tasks to move at once.
    """

    changes: tuple[Update, ...] = ()
    requires: tuple[Requirement, ...] = ()
    tasks: int = 0
    is_full: bool = False

    def transaction(self) -> Transaction:
        return Transaction(changes=self.changes, requires=self.requires)


def _decide_alone(view: View, service: ServiceRow, books: _Books) -> Decision:
    """Allocate a service that competes with nobody."""
    new = [task for task in view.tasks_of(service.api.ID) if task.api.Status.State is TaskState.NEW]
    work = _allocate(service, _waiting(new).get(service.api.ID, ()), books, TASKS_MAX)
    if not work.changes:
        return NOTHING
    wake_at = books.now if work.is_full else None
    return Decision(transactions=(work.transaction(),), wake_at=wake_at)


def _gives_back(service: ServiceRow, changes: tuple[Update, ...]) -> bool:
    """Return whether a service has fewer ports or addresses after its changes than before."""
    row = changes[0].row
    if not isinstance(row, ServiceRow):
        return False
    before, after = service.api.Endpoint, row.api.Endpoint
    return not (
        set(before.Ports) <= set(after.Ports) and set(before.VirtualIPs) <= set(after.VirtualIPs)
    )


def _waiting(new: Iterable[TaskRow]) -> dict[str, list[TaskRow]]:
    """Return the tasks to allocate by service id, oldest first."""
    waiting: dict[str, list[TaskRow]] = {}
    for task in new:
        if task.api.DesiredState <= TaskState.COMPLETE:
            waiting.setdefault(task.api.ServiceID, []).append(task)
    for tasks in waiting.values():
        tasks.sort(key=lambda task: (task.private.spec_index, task.api.Slot, task.api.ID))
    return waiting


def _concerned(view: View, waiting: Iterable[str]) -> list[ServiceRow]:
    """Return the services that lack something, or whose tasks wait, the oldest first."""
    found = {row.api.ID: row for row in view.services_lacking()}
    for service_id in waiting:
        row = view.service(service_id)
        if row is not None:
            found[service_id] = row
    return sorted(found.values(), key=_seniority)


def _seniority(service: ServiceRow) -> tuple[int, str]:
    return service.api.CreatedAt, service.api.ID


def _allocate(
    service: ServiceRow | None, tasks: Iterable[TaskRow], books: _Books, room: int
) -> _Work:
    """Return what one service and its tasks get; without a service, tasks of none."""
    if service is None:
        return _attach(None, None, tasks, books, room)
    ports = books.ports.allocate(service)
    if ports.refused:
        return _explained(tasks, ports.refused, room)
    found = books.addresses.endpoint(service, ports.endpoint)
    if isinstance(found, Refused):
        return _explained(tasks, found.why, room)
    endpoint, needs = found
    waits = unmet(service.api.Spec, books.view) if tasks else ""
    if waits:
        work = _explained(tasks, waits, room)
    else:
        work = _attach(service, endpoint, tasks, books, room)
    if endpoint == service.api.Endpoint:
        if not work.changes:
            return work
        exists = Exists(ref=Ref(Kind.SERVICE, service.api.ID))
        return work._replace(requires=(exists, *work.requires))
    update = Update(row=replace(service, api=replace(service.api, Endpoint=endpoint)))
    requires = dict.fromkeys((*ports.requires, *needs, *work.requires))
    return _Work((update, *work.changes), tuple(requires), work.tasks, work.is_full)


def _attach(
    service: ServiceRow | None,
    endpoint: Endpoint | None,
    tasks: Iterable[TaskRow],
    books: _Books,
    room: int,
) -> _Work:
    """Move tasks on that get a place on each of their networks, and tell the others why not."""
    moved = _Moved(room)
    requires: dict[Requirement, None] = {}
    for task in tasks:
        if moved.is_full:
            break
        found = books.addresses.attach(task, service, endpoint)
        if isinstance(found, Refused):
            moved.add(_told(task, found.why) if found.why else ())
            continue
        requires.update(dict.fromkeys(found.requires))
        moved.add((_pending(task, found.attachments, books.now),))
    return moved.work(requires)


def _explained(tasks: Iterable[TaskRow], why: str, room: int) -> _Work:
    moved = _Moved(room)
    for task in tasks if why else ():  # nobody is told to wait for a plugin's answer
        if moved.is_full:
            break
        moved.add(_told(task, why))
    return moved.work()


class _Moved:
    """Changes of a service's tasks, which are much alike: as many as go into one transaction."""

    def __init__(self, room: int) -> None:
        self._changes: list[Update] = []
        self._room = room
        self._bytes, self._last = ROWS_BYTES_MAX, 0

    @property
    def is_full(self) -> bool:
        return len(self._changes) >= self._room or self._bytes < self._last

    def add(self, changes: Iterable[Update]) -> None:
        for change in changes:
            self._changes.append(change)
            self._last = len(pack(change.row))
            self._bytes -= self._last

    def work(self, requires: Iterable[Requirement] = ()) -> _Work:
        return _Work(tuple(self._changes), tuple(requires), len(self._changes), self.is_full)


def _pending(task: TaskRow, attachments: tuple[NetworkAttachment, ...], now: int) -> Update:
    status = replace(
        task.api.Status,
        Timestamp=Time(now),
        State=TaskState.PENDING,
        Message=PENDING_MESSAGE,
        Err="",
    )
    api = replace(task.api, Status=status, NetworksAttachments=attachments)
    return Update(row=replace(task, api=api))


def _told(task: TaskRow, why: str) -> Iterator[Update]:
    """Yield what tells a task why it waits, unless it says so already."""
    if task.api.Status.Err != why:
        status = replace(task.api.Status, Err=why)
        yield Update(row=replace(task, api=replace(task.api, Status=status)))
