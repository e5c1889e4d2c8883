"""Versions of secrets and configs: who follows a new one, and which nobody needs (decision 0010).

Laws:

- A name means its newest version. An older one stays readable by its id until it is pruned.
- **Who uses the newest follows; who names an older one keeps it.** A new version so moves the
  services that used the newest until then, and those that are due: they used the newest once, and
  were left to wait for their tasks to be replaced anyway.
- A job follows with its next run: moving it at once would run it again.
- What a service, the spec before its present one, or a task that has not ended uses is needed.

Pure: it reads a view and never changes one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model.change import Kind, Ref
from ..model.dirty import needs_new_tasks
from ..model.objects import ConfigRow, SecretRow
from ..model.payload import payload_ids, with_payloads
from ..model.scaling import named_secret
from ..model.task import TaskState
from ..store.view import KIND_OF

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.objects import ServiceRow
    from ..model.payload import PayloadRow
    from ..model.spec import ServiceSpec
    from ..store.view import View

KEPT_VERSIONS = 10
"""How many versions of a name are kept though nothing uses them; as many as specs of a service."""


def payloads(view: View, kind: Kind) -> Iterator[PayloadRow]:
    """Yield every version of every secret, or of every config."""
    for row in view.rows(kind):
        if isinstance(row, (SecretRow, ConfigRow)):
            yield row


def newest(view: View, kind: Kind, name: str) -> PayloadRow | None:
    """Return the version that a name means."""
    row = view.by_name(kind, name)
    return row if isinstance(row, (SecretRow, ConfigRow)) else None


def versions(view: View, kind: Kind, name: str) -> list[PayloadRow]:
    """Return every version of a name, the newest first."""
    rows = [row for row in view.versions(kind, name) if isinstance(row, (SecretRow, ConfigRow))]
    return sorted(rows, key=lambda row: row.api.Revision, reverse=True)


def newest_id(view: View, row: PayloadRow) -> str:
    """Return the id of the version that a version's name means, "" where it is this one."""
    found = newest(view, KIND_OF[type(row)], row.api.Spec.Name)
    return found.api.ID if found is not None and found.api.ID != row.api.ID else ""


def users(view: View, rows: Iterable[PayloadRow]) -> set[str]:
    """Return the names of the services that use one of these versions."""
    names = set()
    for row in rows:
        for ref in uses_of(view, row):
            for service_id in view.referrers(ref):
                service = view.service(service_id)
                if service is not None:
                    names.add(service.api.Spec.Name)
    return names


def uses_of(view: View, row: PayloadRow) -> tuple[Ref, ...]:
    """Return by what services refer to a version: its id; a secret's name is its newest's too."""
    own = Ref(KIND_OF[type(row)], row.api.ID)
    if not isinstance(row, SecretRow) or newest_id(view, row):
        return (own,)
    return own, named_secret(row.api.Spec.Name)


# --- following -----------------------------------------------------------------------------------


class Follower(NamedTuple):
    """A service that goes on to another version.

    Attributes:
        leaves: ids of the versions that it uses instead as yet.
        is_due: all of these are noted in its row.
    """

    row: ServiceRow
    kind: Kind
    leaves: frozenset[str]

    @property
    def is_due(self) -> bool:
        return self.leaves <= set(self.row.private.due)

    @property
    def due_then(self) -> tuple[str, ...]:
        """What it is due for once it is left to wait."""
        return tuple(dict.fromkeys([*self.row.private.due, *sorted(self.leaves)]))

    @property
    def waits(self) -> bool:
        """True for one that is never moved at once: a job."""
        mode = self.row.api.Spec.Mode
        return mode.ReplicatedJob is not None or mode.GlobalJob is not None

    def spec_with(self, payload_id: str) -> ServiceSpec:
        """Return its spec once it has moved."""
        return with_payloads(self.row.api.Spec, self.kind, dict.fromkeys(self.leaves, payload_id))

    @property
    def due_after(self) -> tuple[str, ...]:
        """What it is still due for once it has moved."""
        return tuple(one for one in self.row.private.due if one not in self.leaves)


def followers(view: View, latest: PayloadRow, *, replaced: bool) -> list[Follower]:
    """Return the services that do not use what they should, by id.

    Args:
        latest: the newest version of its name.
        replaced: it is about to get a successor, so who uses it follows too.
    """
    kind = KIND_OF[type(latest)]
    leaves: dict[str, set[str]] = {}
    for version in versions(view, kind, latest.api.Spec.Name):
        is_latest = version.api.ID == latest.api.ID
        if is_latest and not replaced:
            continue
        for service_id in view.referrers(Ref(kind, version.api.ID)):
            service = view.service(service_id)
            if service is not None and (is_latest or version.api.ID in service.private.due):
                leaves.setdefault(service_id, set()).add(version.api.ID)
    found = []
    for service_id in sorted(leaves):
        service = view.service(service_id)
        assert service is not None, "it was there a moment ago, in the same view"
        found.append(Follower(service, kind, frozenset(leaves[service_id])))
    return found


def with_due_moved(
    view: View, row: ServiceRow, wanted: ServiceSpec
) -> tuple[ServiceSpec, tuple[str, ...]]:
    """Return an update's spec, and what the service is due for afterwards.

    A client that read the spec and posts it back names the versions it read. Where the service is
    due for newer ones and its tasks are replaced by this update anyway, the newest take their
    place.

    Args:
        row: the service as it is.
        wanted: the spec as asked for, normalized.
    """
    due = row.private.due
    if not due:
        return wanted, due
    is_job = wanted.Mode.ReplicatedJob is not None or wanted.Mode.GlobalJob is not None
    if not is_job and not needs_new_tasks(row.api.Spec.TaskTemplate, wanted.TaskTemplate):
        return wanted, due
    for kind in (Kind.SECRET, Kind.CONFIG):
        moves = {}
        for old_id in due:
            old = view.row(Ref(kind, old_id))
            if isinstance(old, (SecretRow, ConfigRow)):
                moves[old_id] = newest_id(view, old) or old_id
        wanted = with_payloads(wanted, kind, moves)
    return wanted, ()


# --- pruning -------------------------------------------------------------------------------------


def unneeded(view: View, kind: Kind) -> list[PayloadRow]:
    """Return the older versions that nothing uses, by id."""
    needed = _needed(view, kind)
    found = [
        row for row in payloads(view, kind) if row.api.ID not in needed and newest_id(view, row)
    ]
    return sorted(found, key=lambda row: row.api.ID)


def surplus(view: View, latest: PayloadRow) -> list[PayloadRow]:
    """Return what is one too many of a name's versions when ``latest`` gets a successor."""
    kind = KIND_OF[type(latest)]
    rest = versions(view, kind, latest.api.Spec.Name)[KEPT_VERSIONS - 1 :]
    if not rest:
        return []
    needed = _needed(view, kind)
    return [row for row in rest if row.api.ID not in needed and row.api.ID != latest.api.ID]


def _needed(view: View, kind: Kind) -> set[str]:
    needed: set[str] = set()
    for service in view.services():
        kept = (revision.spec for revision in service.private.revisions)
        for spec in (service.api.Spec, service.api.PreviousSpec, *kept):
            if spec is not None:
                needed.update(payload_ids(spec.TaskTemplate, kind))
    for task in view.tasks():
        if task.api.Status.State <= TaskState.RUNNING:
            needed.update(payload_ids(task.api.Spec, kind))
    return needed
