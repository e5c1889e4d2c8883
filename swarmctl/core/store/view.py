"""Reading the tables: one consistent world for everyone who decides.

A :class:`View` answers by id, by name and by index. The live tables are one (trio switches tasks
only at checkpoints, so a synchronous reader sees them stand still), an :class:`Overlay` is another:
a view with changes laid over it, used to judge a transaction before it touches the tables and to
show one reconciler key what the pass has decided for the keys before it.

Laws: no view hands out anything mutable; rows are frozen and shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..model.change import Index, Kind, Ref
from .indexes import (
    ATTACHABLE,
    CARRIES,
    KIND_OF,
    LACKING,
    MEMBER,
    ON_EVERY_NODE,
    asked_key,
    issuer_key,
    keys_of,
    ref_of,
    revision_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.cluster import TLSInfo
    from ..model.objects import (
        ClusterRow,
        ConfigRow,
        NetworkRow,
        NodeRow,
        Row,
        SecretRow,
        ServiceRow,
        TaskRow,
    )
    from ..model.task import TaskState
    from .indexes import Key


__all__ = ["KIND_OF", "Overlay", "Tables", "View"]


class View:
    """Typed questions over three primitives that a subclass answers.

    ``index`` is the log index of the last entry applied to what is seen.
    """

    index: int = 0

    def row(self, ref: Ref) -> Row | None:
        """Return one row, or None."""
        raise NotImplementedError  # pragma: no cover - both subclasses answer

    def rows(self, kind: Kind) -> Iterable[Row]:
        """Return all rows of a table."""
        raise NotImplementedError  # pragma: no cover

    def row_ids(self, kind: Kind) -> Iterable[str]:
        """Return the ids of all rows of a table; unlike the rows themselves they are at hand."""
        raise NotImplementedError  # pragma: no cover

    def ids(self, key: Key) -> Iterable[str]:
        """Return the ids found under an index key."""
        raise NotImplementedError  # pragma: no cover

    # by id

    def cluster(self) -> ClusterRow | None:
        """Return the cluster's own row; None before it was made."""
        for row in self.rows(Kind.CLUSTER):
            return cast("ClusterRow", row)
        return None

    def node(self, node_id: str) -> NodeRow | None:
        return cast("NodeRow | None", self.row(Ref(Kind.NODE, node_id)))

    def service(self, service_id: str) -> ServiceRow | None:
        return cast("ServiceRow | None", self.row(Ref(Kind.SERVICE, service_id)))

    def task(self, task_id: str) -> TaskRow | None:
        return cast("TaskRow | None", self.row(Ref(Kind.TASK, task_id)))

    def secret(self, secret_id: str) -> SecretRow | None:
        return cast("SecretRow | None", self.row(Ref(Kind.SECRET, secret_id)))

    def config(self, config_id: str) -> ConfigRow | None:
        return cast("ConfigRow | None", self.row(Ref(Kind.CONFIG, config_id)))

    def network(self, network_id: str) -> NetworkRow | None:
        return cast("NetworkRow | None", self.row(Ref(Kind.NETWORK, network_id)))

    # whole tables

    def nodes(self) -> Iterable[NodeRow]:
        return cast("Iterable[NodeRow]", self.rows(Kind.NODE))

    def services(self) -> Iterable[ServiceRow]:
        return cast("Iterable[ServiceRow]", self.rows(Kind.SERVICE))

    def tasks(self) -> Iterable[TaskRow]:
        return cast("Iterable[TaskRow]", self.rows(Kind.TASK))

    def services_everywhere(self) -> list[ServiceRow]:
        """Return the services and jobs that have a task on every node that suits them."""
        found = (self.service(service_id) for service_id in self.ids(ON_EVERY_NODE))
        return [row for row in found if row is not None]

    def services_lacking(self) -> list[ServiceRow]:
        """Return the services that may lack a port or virtual IP, or have one too many."""
        found = (self.service(service_id) for service_id in self.ids(LACKING))
        return [row for row in found if row is not None]

    def lacks_anybody(self) -> bool:
        """Return whether there are services as :meth:`services_lacking` tells them."""
        return next(iter(self.ids(LACKING)), None) is not None

    def networks(self) -> Iterable[NetworkRow]:
        return cast("Iterable[NetworkRow]", self.rows(Kind.NETWORK))

    # by index

    def by_name(self, kind: Kind, name: str) -> Row | None:
        """Return the row of that (case-insensitive) name, or None; of several, the newest."""
        return max(self.versions(kind, name), key=revision_of, default=None)

    def versions(self, kind: Kind, name: str) -> list[Row]:
        """Return every version that goes by a (case-insensitive) name, in no order."""
        found = (self.row(Ref(kind, row_id)) for row_id in self.ids(("name", kind, name.lower())))
        return [row for row in found if row is not None]

    def _tasks_by(self, key: Key) -> list[TaskRow]:
        found = (self.task(task_id) for task_id in self.ids(key))
        return [row for row in found if row is not None]

    def tasks_of(self, service_id: str) -> list[TaskRow]:
        """Return every task of a service, history included."""
        return self._tasks_by(("task.service", service_id))

    def tasks_in(self, service_id: str, place: str) -> list[TaskRow]:
        """Return every task of a place: a slot's number as text or, for global ones, a node id."""
        return self._tasks_by(("task.slot", service_id, place))

    def tasks_on(self, node_id: str) -> list[TaskRow]:
        """Return every task that was assigned to a node or made for it."""
        return self._tasks_by(("task.node", node_id))

    def tasks_at(self, state: TaskState) -> list[TaskRow]:
        """Return every task whose observed state is ``state``."""
        return self._tasks_by(("task.state", state.name))

    def tasks_attached(self, network_id: str) -> list[TaskRow]:
        """Return every task that holds a place on a network."""
        return self._tasks_by(("network.task", network_id))

    def nodes_in_state(self, state: str) -> Iterable[str]:
        """Return the ids of the nodes of a state."""
        return self.ids(("node.state", state))

    def carriers(self) -> Iterable[str]:
        """Return the ids of the nodes with a network driver that works."""
        return self.ids(CARRIES)

    def attachable(self) -> Iterable[str]:
        """Return the ids of the networks that plain containers may join."""
        return self.ids(ATTACHABLE)

    def quiet_nodes(self) -> list[NodeRow]:
        """Return the nodes in touch that carry no traffic between tasks."""
        quiet = set(self.nodes_in_state("ready")).difference(self.carriers())
        return [row for node_id in quiet if (row := self.node(node_id)) is not None]

    def members(self) -> list[NodeRow]:
        """Return the nodes that have a part in consensus, or had when last looked at."""
        found = (self.node(node_id) for node_id in self.ids(MEMBER))
        return [row for row in found if row is not None]

    def nodes_showing(self, issuer: TLSInfo) -> Iterable[str]:
        """Return the ids of the nodes whose certificate is of that issuer, as they report it."""
        return self.ids(issuer_key(issuer))

    def nodes_asked(self, issuer: str) -> Iterable[str]:
        """Return the ids of the nodes that were last asked for a certificate of that issuer."""
        return self.ids(("node.asked", issuer))

    def nodes_asked_around(self, at: int) -> Iterable[str]:
        """Return the ids of the nodes last asked to renew in a span that a time lies in."""
        return self.ids(asked_key(at))

    def holders(self, index: Index, key: str) -> tuple[str, ...]:
        """Return the ids that hold a key of one of the public indexes."""
        return tuple(self.ids((index, key)))

    def is_held(self, index: Index, key: str) -> bool:
        """Return whether anybody holds a key of one of the public indexes."""
        return next(iter(self.ids((index, key))), None) is not None

    def referrers(self, ref: Ref) -> tuple[str, ...]:
        """Return the ids of the services that refer to a secret, config or network."""
        return tuple(self.ids(("ref", ref.kind, ref.id)))

    def labelled(self, label: str) -> tuple[str, ...]:
        """Return the ids of the services that carry one of our own labels."""
        return tuple(self.ids(("label", label)))

    def awaiting(self, service_name: str) -> tuple[str, ...]:
        """Return the ids of the services whose start order names a service."""
        return tuple(self.ids(("awaited", service_name.lower())))

    def overlay(self) -> Overlay:
        """Return an empty layer over this view."""
        return Overlay(self)


class Overlay(View):
    """A view with rows put over it or taken away from it. Writes stay in the overlay.

    The base must not change below a decision made in one synchronous stretch; across checkpoints
    it may, and the version rules catch what became stale.
    """

    def __init__(self, base: View) -> None:
        self._base = base
        self.index = base.index
        self._over: dict[Ref, Row | None] = {}
        self._by_kind: dict[Kind, dict[str, Row | None]] = {}
        self._found: dict[Key, dict[str, None]] = {}
        self._hidden: dict[Key, set[str]] = {}

    def row(self, ref: Ref) -> Row | None:
        if ref in self._over:
            return self._over[ref]
        return self._base.row(ref)

    def rows(self, kind: Kind) -> Iterable[Row]:
        over = self._by_kind.get(kind)
        if over is None:
            return self._base.rows(kind)
        return self._merged(kind, over)

    def _merged(self, kind: Kind, over: dict[str, Row | None]) -> Iterator[Row]:
        for row in self._base.rows(kind):
            if row.api.ID not in over:
                yield row
        for row_over in over.values():
            if row_over is not None:
                yield row_over

    def row_ids(self, kind: Kind) -> Iterable[str]:
        over = self._by_kind.get(kind)
        if over is None:
            return self._base.row_ids(kind)
        gone = {row_id for row_id, row in over.items() if row is None}
        return (set(self._base.row_ids(kind)) | over.keys()) - gone

    def ids(self, key: Key) -> Iterable[str]:
        hidden = self._hidden.get(key, ())
        for row_id in self._base.ids(key):
            if row_id not in hidden:
                yield row_id
        yield from self._found.get(key, ())

    def _tasks_by(self, key: Key) -> list[TaskRow]:
        # A row laid over is hidden under all its former keys, so a key that was never touched
        # still finds what it finds below.
        if key not in self._hidden and key not in self._found:
            return self._base._tasks_by(key)
        return super()._tasks_by(key)

    def put(self, row: Row) -> None:
        """Add or replace a row."""
        ref = ref_of(row)
        self._forget(ref)
        self._over[ref] = row
        self._by_kind.setdefault(ref.kind, {})[ref.id] = row
        for key in keys_of(row):
            self._found.setdefault(key, {})[ref.id] = None

    def drop(self, ref: Ref) -> None:
        """Take a row away."""
        self._forget(ref)
        self._over[ref] = None
        self._by_kind.setdefault(ref.kind, {})[ref.id] = None

    def _forget(self, ref: Ref) -> None:
        if ref not in self._over:
            below = self._base.row(ref)
            for key in keys_of(below) if below is not None else ():
                self._hidden.setdefault(key, set()).add(ref.id)
            return
        previous = self._over[ref]
        for key in keys_of(previous) if previous is not None else ():
            self._found[key].pop(ref.id, None)

    def written(self) -> Iterable[tuple[Ref, Row | None]]:
        """Return what was put (row) or dropped (None), in order of first touch."""
        return self._over.items()


class Tables(View):
    """The live tables. Only :class:`~swarmctl.core.store.store.Store` writes them."""

    def __init__(self) -> None:
        self.index = 0
        self._rows: dict[Kind, dict[str, Row]] = {kind: {} for kind in Kind}
        self._ids: dict[Key, dict[str, None]] = {}

    def row(self, ref: Ref) -> Row | None:
        return self._rows[ref.kind].get(ref.id)

    def rows(self, kind: Kind) -> Iterable[Row]:
        return self._rows[kind].values()

    def row_ids(self, kind: Kind) -> Iterable[str]:
        return self._rows[kind].keys()

    def ids(self, key: Key) -> Iterable[str]:
        return self._ids.get(key, ())

    def _tasks_by(self, key: Key) -> list[TaskRow]:
        rows = cast("dict[str, TaskRow]", self._rows[Kind.TASK])
        return [rows[task_id] for task_id in self._ids.get(key, ())]

    def put(self, row: Row) -> Row | None:
        """Add or replace a row; return what stood there."""
        ref = ref_of(row)
        before = self._rows[ref.kind].get(ref.id)
        self._rows[ref.kind][ref.id] = row
        keys = keys_of(row)
        if before is not None:
            kept = set(keys)
            self._unindex(ref.id, (key for key in keys_of(before) if key not in kept))
        for key in keys:
            self._ids.setdefault(key, {})[ref.id] = None
        return before

    def drop(self, ref: Ref) -> Row | None:
        """Take a row away; return what stood there."""
        before = self._rows[ref.kind].pop(ref.id, None)
        if before is not None:
            self._unindex(ref.id, keys_of(before))
        return before

    def _unindex(self, row_id: str, keys: Iterable[Key]) -> None:
        for key in keys:
            found = self._ids[key]
            found.pop(row_id, None)
            if not found:
                del self._ids[key]
