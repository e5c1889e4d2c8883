"""New specs for old: what an update and a rollback make of a service's row, and what is kept.

The one place that writes a service's spec. Laws:

- Whoever gives a service another spec starts its update anew: the status goes (a finished one would
  end a waiting client's wait at once, a paused one would stay paused) and with it the record.
- ``PreviousSpec`` is Docker's: the spec before the last accepted update, swapped back by a
  rollback, gone after an automatic one.
- Beyond it the last ``REVISIONS_KEPT`` specs are kept with their numbers, oldest dropped first, and
  never more than ``REVISIONS_BYTES_MAX`` of them: they are written with every change of the row.

Pure. Who may do it and whether the spec fits is the caller's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import FailedPrecondition, NotFound
from .base import Time
from .codec import pack
from .request import ServiceRevision
from .rolling import ROLLBACK_STARTED
from .service import Revision, UpdateStatus, next_run
from .spec import EndpointSpec
from .specdiff import spec_changes

if TYPE_CHECKING:
    from .objects import ServiceRow
    from .service import Service, ServicePrivate
    from .spec import ServiceSpec

REVISIONS_KEPT = 10
REVISIONS_BYTES_MAX = 256 * 1024
MANUAL = "manually requested rollback"


def updated(row: ServiceRow, spec: ServiceSpec, now: int, *, registry_auth: str) -> ServiceRow:
    """Return the row with a new spec from its user.

    Args:
        now: wall time in nanoseconds.
        registry_auth: the pull credentials that go with it.
    """
    api = replace(_with_spec(row.api, spec), PreviousSpec=row.api.Spec, UpdateStatus=None)
    private = replace(
        _revised(row, spec, now, "updated"),
        registry_auth=registry_auth,
        previous_registry_auth=row.private.registry_auth,
    )
    return _with_next_run(replace(row, api=api, private=private), now)


def rolled_back(row: ServiceRow, now: int) -> ServiceRow:
    """Return the row with its two specs swapped, as its user asked.

    Raises:
        FailedPrecondition: there is no previous spec.
    """
    previous = row.api.PreviousSpec
    if previous is None:
        raise FailedPrecondition(f"service {row.api.ID} does not have a previous spec")
    auth = row.private.previous_registry_auth
    return _back_to(row, previous, auth, now, _number_of(row, previous), MANUAL)


def rolled_back_to(row: ServiceRow, number: int, now: int) -> ServiceRow:
    """Return the row with the spec of an older revision, as its user asked.

    Raises:
        NotFound: that revision was never there, or is not kept.
        FailedPrecondition: it is the present one.
    """
    name, private = row.api.Spec.Name, row.private
    if number == private.revision:
        raise FailedPrecondition(f"service {name} is at revision {number} already")
    for revision in private.revisions:
        if revision.number == number:
            text = f"{MANUAL} to revision {number}"
            return _back_to(row, revision.spec, revision.registry_auth, now, number, text)
    kept = ", ".join(str(revision.number) for revision in private.revisions) or "none"
    raise NotFound(f"service {name} has no revision {number} to go back to (kept: {kept})")


def given_up(row: ServiceRow, now: int, message: str) -> ServiceRow:
    """Return the row of a failed update: with its previous spec, and none previous to that.

    Args:
        message: why, for the status.
    """
    previous, status = row.api.PreviousSpec, row.api.UpdateStatus
    assert previous is not None, "who rolls back looks whether there is something to go back to"
    number = _number_of(row, previous)
    how = f"rolled back to {number} after a failure" if number else "rolled back after a failure"
    started = status.StartedAt if status is not None else None
    api = replace(
        _with_spec(row.api, previous),
        PreviousSpec=None,
        UpdateStatus=UpdateStatus(
            State=ROLLBACK_STARTED, StartedAt=started or Time(now), Message=message
        ),
    )
    private = replace(
        _revised(row, previous, now, how),
        registry_auth=row.private.previous_registry_auth,
        previous_registry_auth="",
    )
    return replace(row, api=api, private=private)


def history_of(row: ServiceRow) -> tuple[ServiceRevision, ...]:
    """Return the specs that are kept and the present one, newest first, as the API shows them."""
    private = row.private
    revisions = (*private.revisions, _present(row))
    shown: list[ServiceRevision] = []
    before: ServiceSpec | None = None
    for one in revisions:
        shown.append(
            ServiceRevision(
                Number=one.number,
                CreatedAt=Time(one.at),
                How=one.how,
                Changes=() if before is None else spec_changes(before, one.spec),
                Current=one.number == private.revision,
                Spec=one.spec,
            )
        )
        before = one.spec
    return tuple(reversed(shown))


def _present(row: ServiceRow) -> Revision:
    private = row.private
    return Revision(
        number=private.revision,
        at=private.revised_at or row.api.CreatedAt,
        how=private.revised_how,
        spec=row.api.Spec,
        registry_auth=private.registry_auth,
    )


def _back_to(
    row: ServiceRow, spec: ServiceSpec, auth: str, now: int, number: int, message: str
) -> ServiceRow:
    """Return the row with an older spec; the present one becomes the previous."""
    status = UpdateStatus(State=ROLLBACK_STARTED, StartedAt=Time(now), Message=message)
    api = replace(_with_spec(row.api, spec), PreviousSpec=row.api.Spec, UpdateStatus=status)
    how = f"rolled back to {number}" if number else "rolled back"
    private = replace(
        _revised(row, spec, now, how),
        registry_auth=auth,
        previous_registry_auth=row.private.registry_auth,
    )
    return _with_next_run(replace(row, api=api, private=private), now)


def _with_next_run(row: ServiceRow, now: int) -> ServiceRow:
    """Return the row as it is; of a job with its next run, of which nothing was restarted yet."""
    run = next_run(row.api.Spec, row.api.JobStatus, now)
    if run is None:
        return row
    # A run has no update to show: it begins whole, and goes back whole.
    api = replace(row.api, JobStatus=run, UpdateStatus=None)
    return replace(row, api=api, private=replace(row.private, restarts={}))


def _with_spec(service: Service, spec: ServiceSpec) -> Service:
    endpoint = replace(service.Endpoint, Spec=spec.EndpointSpec or EndpointSpec())
    return replace(service, Spec=spec, Endpoint=endpoint)


def _number_of(row: ServiceRow, spec: ServiceSpec) -> int:
    """Return the newest revision of that spec, 0 for none that is kept."""
    numbers = (one.number for one in reversed(row.private.revisions) if one.spec == spec)
    return next(numbers, 0)


def _revised(row: ServiceRow, spec: ServiceSpec, now: int, how: str) -> ServicePrivate:
    """Return the private half for a new spec: the old one is noted, the update's record goes.

    The same spec over again is no new revision.
    """
    private = replace(row.private, rollout=None, previous_spec_index=row.private.spec_index)
    if spec == row.api.Spec:
        return private
    return replace(
        private,
        revision=private.revision + 1,
        revised_at=now,
        revised_how=how,
        revisions=_kept((*private.revisions, _present(row))),
    )


def _kept(revisions: tuple[Revision, ...]) -> tuple[Revision, ...]:
    """Return the newest revisions that may be kept."""
    kept: list[Revision] = []
    room = REVISIONS_BYTES_MAX
    for revision in reversed(revisions[-REVISIONS_KEPT:]):
        room -= len(pack(revision))
        if room < 0:
            break
        kept.append(revision)
    return tuple(reversed(kept))
