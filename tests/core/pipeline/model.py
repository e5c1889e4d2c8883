"""What must come of what is done to a cluster, in plain rules: the slow and obvious version.

The model is told each deed (a service gets a spec, a job another run) and sees each entry of the
log, as a reader of the tables would. How the product decides it does not know: its rules are the
sentences of Swarm's behaviour, asked over whole lists, without counters, caches or plans. It
objects at once to what must never be; what must be in the end is :mod:`.ending`.

Vocabulary: a *wish* is what a service's user asks for, its *edition* the log index it came with, as
tasks carry it. A *place* is the number of a slot, or the node of what runs on every node. It is
*settled* when its task ended and the restart policy wants no other; *surely*, or *perhaps* where it
depends on who looked when (a node's label that went and came back between two passes).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple

from swarmctl.core.model.objects import NodeRow, ServiceRow, TaskRow

if TYPE_CHECKING:
    from collections.abc import Iterable

REPLICATED, GLOBAL, JOB, GLOBAL_JOB = "replicated", "global", "job", "global job"
ASSIGNED, RUNNING, COMPLETE, SHUTDOWN, REMOVE = 192, 512, 576, 640, 800
"""Numbers of states (swarm-behaviour.md section 1.4); above RUNNING a task has ended."""
STOP_NS = 60 * 10**9
"""How long a task's successor waits for it to stop (section 6.5)."""
SURELY, PERHAPS = "surely", "perhaps"
EVICTED = "assigned node no longer meets constraints"


class Objection(AssertionError):
    """What must never be, is."""


@dataclass(frozen=True, repr=False)
class Wish:
    """What a service's user asks for.

    Attributes:
        count: replicas, or completions of a job.
        at_once: how many of a job's tasks run at a time.
        zone: the value of the node label that it asks for, "" for any.
        secret: the id of the secret that it uses, "" for none.
        port: it binds a port of its node, so a node has room for one.
    """

    mode: str = REPLICATED
    count: int = 1
    at_once: int = 1
    image: str = "v1"
    zone: str = ""
    secret: str = ""
    port: bool = False
    condition: str = "any"
    attempts: int = 0
    start_first: bool = False
    parallelism: int = 1
    action: str = "pause"

    def __repr__(self) -> str:
        told = (
            f"{each.name}={value!r}"
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        )
        return f"Wish({', '.join(told)})"

    @property
    def is_job(self) -> bool:
        return self.mode in (JOB, GLOBAL_JOB)

    @property
    def is_everywhere(self) -> bool:
        return self.mode in (GLOBAL, GLOBAL_JOB)

    @property
    def overlaps(self) -> bool:
        """Two tasks of a place may be wanted at a time, one to take over from the other."""
        return self.start_first and not self.port and not self.is_job

    @property
    def task(self) -> tuple[object, ...]:
        """What its tasks are made of; where nothing of it changes, no task has to be replaced."""
        return self.image, self.zone, self.secret, self.port, self.condition, self.attempts


@dataclass
class Service:
    """A service as its user sees it.

    Attributes:
        editions: every wish that it ever had.
        run: which execution of a job this is.
        missing: places whose ready task an update took, and that have none again.
    """

    wish: Wish
    previous: Wish | None = None
    stopped: bool = False
    run: int = 0
    edition: int = 0
    status: str = ""
    editions: dict[int, Wish] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


class Node(NamedTuple):
    """A node, and how it may be used."""

    zone: str
    state: str
    availability: str


class Seen(NamedTuple):
    """A task as the tables show it; ``number`` is of its state, ``wished`` of what it shall be."""

    id: str
    service: str
    place: str
    edition: int
    run: int | None
    node: str
    state: str
    number: int
    wished: int
    made: int
    err: str

    def __str__(self) -> str:
        where = f"{self.service}/{self.place} on {self.node or 'no node'}"
        return f"{self.id} ({where}, edition {self.edition}, {self.state}, wished {self.wished})"

    @property
    def ended_by_itself(self) -> bool:
        return self.state in ("complete", "failed", "rejected") and self.err != EVICTED

    @property
    def is_wanted(self) -> bool:
        """It shall run, or of a job complete and has not."""
        if self.run is None:
            return self.wished <= RUNNING
        return self.wished <= COMPLETE and self.number != COMPLETE

    @property
    def is_ready(self) -> bool:
        return self.is_wanted and self.number == RUNNING


def seen(row: TaskRow) -> Seen:
    """Return what the model wants to know of a task."""
    api = row.api
    return Seen(
        id=api.ID,
        service=api.ServiceID,
        place=api.NodeID if row.private.by_node else str(api.Slot),
        edition=row.private.spec_version,
        run=None if api.JobIteration is None else api.JobIteration.Index,
        node=api.NodeID,
        state=api.Status.State.value,
        number=api.Status.State.number,
        wished=api.DesiredState.number,
        made=row.private.spec_index,
        err=api.Status.Err,
    )


class Model:
    """What was asked for, and what happened.

    Attributes:
        by_user: the entry that is seen next is a user's.
        restarts: of a place in one edition (and run): each replacement of a task that had ended,
            true where that is a restart beyond doubt.
        failed: services and editions of which a task ended by itself.
        completed: places of a job's run that were.
        met: how often what was seen, for who wants to know whether anything was.
        now: the time, in nanoseconds.
    """

    def __init__(self) -> None:
        self.by_user = False
        self.services: dict[str, Service] = {}
        self.nodes: dict[str, Node] = {}
        self.tasks: dict[str, Seen] = {}
        self.restarts: dict[tuple[str, str, int, int | None], list[bool]] = {}
        self.failed: set[tuple[str, int]] = set()
        self.completed: set[tuple[str, int | None, str]] = set()
        self.met: Counter[str] = Counter()
        self.now = 0
        self._asked: dict[str, int] = {}
        self._lost: set[str] = set()

    # --- what users do ---

    def create(self, service_id: str, wish: Wish) -> None:
        self.services[service_id] = Service(wish)

    def update(self, service_id: str, wish: Wish) -> None:
        """Another wish, also the same again; of a job each is another run."""
        service = self.services[service_id]
        service.previous, service.wish = service.wish, wish
        service.run += 1

    def roll_back(self, service_id: str) -> None:
        """The wish before, and a way back to the present one."""
        service = self.services[service_id]
        assert service.previous is not None
        self.update(service_id, service.previous)

    def remove(self, service_id: str) -> None:
        del self.services[service_id]

    def users_of(self, secret: str) -> list[str]:
        """Return the services for whose sake a secret may not be removed."""
        return [key for key, service in self.services.items() if service.wish.secret == secret]

    # --- what is seen ---

    def see(self, changes: Iterable[tuple[object, object]]) -> None:
        """An entry of the log was applied: rows before and after.

        Raises:
            Objection: what must never be, is.
        """
        before_it = dict(self.tasks)
        touched: dict[tuple[str, str], None] = {}
        for before, after in changes:
            if isinstance(after, ServiceRow):
                self._see_service(after)
            elif isinstance(after, NodeRow):
                spec = after.api.Spec
                zone = spec.Labels.get("zone", "")
                self.nodes[after.api.ID] = Node(zone, after.api.Status.State, spec.Availability)
            elif isinstance(after, TaskRow):
                task = seen(after)
                if task.id in self.tasks:
                    self._see_progress(self.tasks[task.id], task)
                else:
                    self._see_creation(task, list(before_it.values()))
                self.tasks[task.id] = task
                touched[task.service, task.place] = None
            elif isinstance(before, NodeRow):
                del self.nodes[before.api.ID]
            elif isinstance(before, TaskRow):
                self._see_deletion(self.tasks.pop(before.api.ID))
        for service_id, place in touched:
            self._look_at_place(service_id, place)
            service = self.services.get(service_id)
            if service is not None and not self._is_missing(service_id, place):
                service.missing.discard(place)
        self._remember_who_is_excused()
        for was in before_it.values():
            task = self.tasks.get(was.id)
            runs_on = task is not None and was.is_ready and task.number == RUNNING
            if runs_on and task.wished == SHUTDOWN:
                self._see_taken(task)

    def _see_service(self, row: ServiceRow) -> None:
        service, edition = self.services[row.api.ID], row.private.spec_index
        status = row.api.UpdateStatus.State if row.api.UpdateStatus is not None else ""
        if "paused" in status and "paused" not in service.status:
            self._see_that_it_failed(row.api.ID, status)
        goes_back = status == "rollback_started" != service.status
        if goes_back and not self.by_user:  # a failed update, by itself, once (section 6.6)
            self._see_that_it_failed(row.api.ID, status)
            if service.wish.action != "rollback" or service.previous is None:
                raise Objection(f"{row.api.ID} is rolled back by nobody")
            service.wish, service.previous = service.previous, None
            self.met["gone back by itself"] += 1
        elif edition != service.edition and not self.by_user:
            raise Objection(f"{row.api.ID} was given another spec by nobody")
        service.edition = edition
        service.editions[edition] = service.wish
        self.met[status] += status != service.status
        service.status = status

    def _see_that_it_failed(self, service_id: str, status: str) -> None:
        if (service_id, self.services[service_id].edition) not in self.failed:
            raise Objection(f"{service_id} is {status}, and none of its new tasks has ended")

    def _see_creation(self, task: Seen, before: Iterable[Seen]) -> None:
        """There may be one more task in a place, as far as its policy allows (section 6.5).

        It follows the one that was wanted there before, else the last that was.
        """
        service = self.services.get(task.service)
        if service is None or service.stopped:
            raise Objection(f"{task} is made for a service that is removed or stopped")
        if task.edition != service.edition:
            raise Objection(f"{task} is made of a wish that is no more")
        if (task.service, task.run, task.place) in self.completed:
            raise Objection(f"{task} runs again what is complete in this run")
        older = [one for one in self.at(task.service, task.place) if one.wished < REMOVE]
        if not older:
            return
        wanted = [one.id for one in before if one.is_wanted]
        last = ([one for one in older if one.id in wanted] or older)[-1]
        same_task = service.wish.task == service.editions[last.edition].task
        beside = any(one.is_wanted and one.id != last.id for one in older)
        settled = self.settled(service, last, beside=beside)
        if last.run == task.run and same_task and settled == SURELY:
            raise Objection(f"{task} follows {last}, whose policy wants no other")
        if self.is_in_trouble(older[-1]):
            service.missing.discard(task.place)
        same = (last.edition, last.run) == (task.edition, task.run)
        certain = same and last.id in wanted and last.ended_by_itself
        made = self.restarts.setdefault((task.service, task.place, task.edition, task.run), [])
        made.append(certain)
        self.met["restarts"] += certain
        if service.wish.attempts and sum(made) > service.wish.attempts:
            raise Objection(f"{task} is restart {sum(made)} of {service.wish.attempts}")

    def _see_progress(self, was: Seen, task: Seen) -> None:
        """A task moves on, never back, and to no other node (section 1.4)."""
        if task.number < was.number or task.wished < was.wished:
            raise Objection(f"{was} goes back to {task}")
        if was.node and task.node != was.node:
            raise Objection(f"{was} moves to {task.node}")
        wish = self._wish_of(task)
        service = self.services.get(task.service)
        if service is not None and service.stopped and was.wished < REMOVE == task.wished:
            self._forget_restarts(task.service)
        is_given = was.number < ASSIGNED <= task.number <= RUNNING
        if is_given and wish is not None and task.node not in self.usable(wish):
            raise Objection(f"{task} is given to {self.nodes.get(task.node)}")
        if was.number <= RUNNING < task.number:
            self.met["evictions"] += task.err == EVICTED
            if task.err != EVICTED:
                self.failed.add((task.service, task.edition))
        if was.number < RUNNING == task.number and wish is not None:
            self.met[f"{wish.mode} task running"] += 1
            self._see_that_it_is_alone(task)
        if task.number == COMPLETE and task.run is not None:
            self.met["completions"] += was.number != COMPLETE
            self.completed.add((task.service, task.run, task.place))

    def _forget_restarts(self, service_id: str) -> None:
        """A service that was stopped begins anew when it is started."""
        self.restarts = {key: made for key, made in self.restarts.items() if key[0] != service_id}

    def _see_that_it_is_alone(self, task: Seen) -> None:
        """Nothing older of its place runs, that could be asked to stop and was not for long."""
        for other in self.at(task.service, task.place):
            may_run = ASSIGNED <= other.number <= RUNNING and other.id not in self._lost
            over = other.id in self._asked and self.now - self._asked[other.id] >= STOP_NS
            if other.id == task.id or not may_run or over:
                continue
            service = self.services[task.service]
            if not self._may_overlap(service, (task, other)):
                raise Objection(f"{task} runs beside {other}")

    def _may_overlap(self, service: Service, tasks: Iterable[Seen]) -> bool:
        """Return whether one task may have been started to take over from another.

        Any wish since the older one may have begun that; it goes on whatever is wished then.
        """
        oldest = min(task.edition for task in tasks)
        since = (wish for edition, wish in service.editions.items() if edition >= oldest)
        return service.wish.overlaps or any(wish.overlaps for wish in since)

    def _remember_who_is_excused(self) -> None:
        """Nobody waits for what is on a lost node, nor for ever for what does not stop."""
        for task in self.tasks.values():
            node = self.nodes.get(task.node)
            if task.node and (node is None or node.state == "down"):
                self._lost.add(task.id)
            if not task.is_wanted:
                self._asked.setdefault(task.id, self.now)

    def _see_deletion(self, task: Seen) -> None:
        """What may still run is not forgotten (section 6.8)."""
        if ASSIGNED <= task.number <= RUNNING and task.node in self.nodes:
            raise Objection(f"{task} is deleted and may run")

    def _look_at_place(self, service_id: str, place: str) -> None:
        """One task of a place is wanted, or one and the one that takes over from it."""
        service = self.services.get(service_id)
        wanted = [one for one in self.at(service_id, place) if one.is_wanted]
        if service is None or len(wanted) < 2:
            return
        wanted = [one for one in wanted if one.run is None or one.run == service.run]
        most = 2 if self._may_overlap(service, wanted) else 1
        if len(wanted) > most:
            raise Objection(f"wanted at {service_id}/{place}: {wanted}")

    def _see_taken(self, task: Seen) -> None:
        """A ready task is taken for an update's sake: the floor holds (section 6.6).

        Start-first takes none unless another is ready in its place, or was and has had its turn;
        stop-first takes no more than ``parallelism`` that have not come back.
        """
        service = self.services.get(task.service)
        if service is None or service.stopped or service.wish.is_job or self.is_in_trouble(task):
            return
        wish = service.wish
        if wish.is_everywhere and task.node not in self.usable(wish):
            return
        if any(one.is_ready for one in self.at(task.service, task.place)):
            self.met["ready in its place"] += 1
            return
        last = self.at(task.service, task.place)[-1]
        if wish.overlaps:
            if not (last.id != task.id and self.settled(service, last)):
                raise Objection(f"ready task {task} is taken, and none is in its place")
            return
        self.met["taken for an update"] += 1
        found = {*service.missing, task.place}
        service.missing = {place for place in found if self._is_missing(task.service, place)}
        if wish.parallelism and len(service.missing) > wish.parallelism:
            raise Objection(f"{task} is taken while {service.missing} are not back")

    def _is_missing(self, service_id: str, place: str) -> bool:
        """Return whether a place that an update took a task from still owes one to its users."""
        service, here = self.services[service_id], self.at(service_id, place)
        wanted = [one for one in here if one.is_wanted]
        if not wanted or any(one.is_ready for one in wanted):
            return False
        if service.wish.is_everywhere and place not in self.usable(service.wish):
            return False
        failed = any(one.ended_by_itself for one in here)
        return not self.is_in_trouble(wanted[-1]) and not (
            failed and service.wish.action == "continue"
        )

    # --- what is so ---

    def usable(self, wish: Wish) -> list[str]:
        """Return the nodes that take tasks of a wish (section 7.2)."""
        return [
            key
            for key, node in self.nodes.items()
            if (node.state, node.availability) == ("ready", "active")
            and wish.zone in ("", node.zone)
        ]

    def at(self, service_id: str, place: str) -> list[Seen]:
        """Return the tasks of a place, oldest first."""
        here = [
            one for one in self.tasks.values() if (one.service, one.place) == (service_id, place)
        ]
        return sorted(here, key=lambda one: (one.made, one.id))

    def _wish_of(self, task: Seen) -> Wish | None:
        service = self.services.get(task.service)
        return None if service is None else service.editions[task.edition]

    def is_in_trouble(self, task: Seen) -> bool:
        """Return whether a task has to go because of its node: lost, drained, or unfit for it."""
        if not task.node:
            return False
        node = self.nodes.get(task.node)
        return (
            node is None
            or node.state == "down"
            or node.availability == "drain"
            or task.err == EVICTED
        )

    def settled(self, service: Service, last: Seen, *, beside: bool = False) -> str:
        """Return SURELY or PERHAPS where a place's last task wants no other, else "".

        What runs on every node, jobs, and what was started beside a task that goes on, end for good
        only by themselves; a numbered slot also by its node (sections 6.2 to 6.5).
        """
        wish = service.editions[last.edition]
        if last.wished >= REMOVE or (last.run is not None and last.run != service.run):
            return ""
        over = last.ended_by_itself
        if wish.mode == REPLICATED and not beside:
            over = last.number > RUNNING or last.wished > RUNNING or self.is_in_trouble(last)
        if not over:
            return ""
        condition = "on-failure" if wish.is_job and wish.condition == "any" else wish.condition
        if condition == "none" or (condition == "on-failure" and last.number == COMPLETE):
            return SURELY
        made = self.restarts.get((last.service, last.place, last.edition, last.run), [])
        if not wish.attempts or len(made) < wish.attempts:
            return ""
        return SURELY if sum(made) >= wish.attempts else PERHAPS
