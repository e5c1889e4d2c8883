"""The end of a run: no more faults, and everything has to come to what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.manager.pipeline import reconcilers
from swarmctl.core.model.change import Applied, Kind, Ref
from swarmctl.core.model.objects import NodeRow, ServiceRow, TaskRow
from swarmctl.core.model.rolling import PAUSED, ROLLBACK_PAUSED
from swarmctl.core.model.task import TaskState
from swarmctl.core.raft.errors import ConfChangeRefused, ProposalDropped
from swarmctl.core.raft.message import ConfChange
from swarmctl.core.store.indexes import ref_of
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.subnets import SubnetAllocator
from tests.sim.chaos import correct_roles
from tests.sim.clients import JOBS, Request
from tests.sim.queue import MS, S

if TYPE_CHECKING:
    from tests.sim.clients import Client
    from tests.sim.cluster import Cluster
    from tests.sim.member import Manager

LOOK_EVERY_NS = S // 2
LONGEST_NS = 240 * S
STEPS_MAX = 300_000
"""A lost append behind a full window of reordered ones may cost a hundred thousand messages."""


class Settling:
    """Lets a mended cluster run until there is nothing left to say."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._insisted = False

    def run(self) -> None:
        """Run until all is well.

        Raises:
            AssertionError: it does not become well; the text says what is missing.
        """
        cluster = self._cluster
        cluster.chaos.stop()
        cluster.open_for_clients = False
        cluster.bad_images = 0.0
        cluster.note("no more faults")
        for host in cluster.hosts.values():
            if not host.up:
                host.start()
            if host.manager is not None:
                host.manager.disk.slowness_ns = cluster.options.disk_ms * MS
        end = cluster.queue.now + LONGEST_NS
        began = cluster.queue.now
        wrong = "nothing was looked at"
        steps = 0
        while cluster.queue.now < end:
            look_at = cluster.queue.now + LOOK_EVERY_NS
            while cluster.queue.now < look_at and steps < STEPS_MAX:
                cluster.queue.step()
                steps += 1
            if steps >= STEPS_MAX:
                break
            wrong = self._what_is_wrong()
            if not wrong:
                cluster.counts["seconds to settle"] += (cluster.queue.now - began) // S
                return
        after_s = (cluster.queue.now - began) // S
        raise AssertionError(f"not at rest {after_s} s after the last fault: {wrong}")

    def _what_is_wrong(self) -> str:
        cluster = self._cluster
        leader = cluster.leader()
        if leader is None:
            return "nobody leads"
        if cluster.pending_requests:
            return f"{cluster.pending_requests} writes have no answer"
        if not self._insisted:
            self._insisted = True
            self._activate_nodes()
            return "the nodes are being activated"
        return (
            self._membership(leader)
            or self._nodes()
            or self._services()
            or self._containers()
            or self._managers(leader)
            or self._rest(leader)
        )

    def _activate_nodes(self) -> None:
        """Have every node take tasks again, in the zone that some services ask for."""
        cluster = self._cluster
        for place in range(len(cluster.hosts)):
            for kind, text in (("node", "active"), ("label", "a")):
                request = Request(f"end-{kind}-{place}", kind, "", place, text)
                cluster.scope.start(_insist(cluster.clients[0], request))

    def _membership(self, leader: Manager) -> str:
        state = leader.membership
        if self._cluster.options.membership == "roles":
            wrong = self._wishes(leader)
            if wrong:
                return wrong
        elif correct_roles(leader):
            return "nodes' rows do not know the members"
        self._help_the_lost(leader)
        if state.voters_outgoing:
            if not state.auto_leave:
                try:
                    leader.runner.reconfigure(ConfChange())
                    leader.kick()
                except (ConfChangeRefused, ProposalDropped):
                    pass
            return "the membership is joint"
        members = {*state.voters, *state.learners}
        for host in self._cluster.hosts.values():
            if host.raft_id and host.raft_id not in members:
                if host.raft_id in leader.runner.removed:
                    return f"{host.name} does not know that it was removed"
                host.stop_manager()  # its addition was never committed
        return ""

    def _wishes(self, leader: Manager) -> str:
        """Whoever shall be a manager has a vote, and nobody else is a member."""
        for row in leader.view.nodes():
            wished, number = row.api.Spec.Role == "manager", row.private.raft_id
            if wished != (number in leader.membership.voters):
                self._help_the_lost(leader)
                return f"node {row.api.ID} shall be a {row.api.Spec.Role} and is none"
        return ""

    def _help_the_lost(self, leader: Manager) -> None:
        """Tell a node where the managers are that knows none of those there are now.

        It was away while all managers were replaced; an administrator has to tell it.
        """
        for host in self._cluster.hosts.values():
            known = [self._cluster.hosts[name].manager for name in host.managers_known]
            if not any(known):
                self._cluster.counts["nodes that knew no manager"] += 1
                host.managers_known = [leader.host.name]

    def _managers(self, leader: Manager) -> str:
        """Every member has the very same tables."""
        checks = self._cluster.checks
        state = leader.membership
        for raft_id in (*state.voters, *state.learners):
            manager = self._cluster.member(raft_id)
            if manager is None:
                return f"member {raft_id} does not run"
            if manager.store.index != checks.frontier:
                return f"{manager.host.name} is at {manager.store.index} of {checks.frontier}"
            rows, _ = manager.store.contents()
            if {ref_of(row): row for row in rows} != checks.tables.rows:
                raise AssertionError(f"{manager.host.name} has other tables")
        return ""

    def _rows(self, kind: type) -> list:  # type: ignore[type-arg]
        rows = self._cluster.checks.tables.rows
        return [row for row in rows.values() if isinstance(row, kind)]

    def _nodes(self) -> str:
        for node in self._rows(NodeRow):
            if node.api.Status.State != "ready" or node.api.Spec.Availability != "active":
                return (
                    f"node {node.api.ID} is {node.api.Status.State}, {node.api.Spec.Availability}"
                )
        return ""

    def _services(self) -> str:
        running: dict[str, set[str]] = {}
        images: dict[str, set[str]] = {}
        for task in self._rows(TaskRow):
            state = task.api.Status.State
            if Ref(Kind.SERVICE, task.api.ServiceID) not in self._cluster.checks.tables.rows:
                return f"task {task.api.ID} of no service"
            if _is_wanted(task):
                if state is not TaskState.RUNNING:
                    return f"task {task.api.ID} is {state.value}: {task.api.Status.Err}"
                running.setdefault(task.api.ServiceID, set()).add(task.place)
                image = task.api.Spec.ContainerSpec.Image
                images.setdefault(task.api.ServiceID, set()).add(image)
            elif TaskState.ASSIGNED <= state <= TaskState.RUNNING:
                return f"task {task.api.ID} is still {state.value}"
        for service in self._rows(ServiceRow):
            status = service.api.UpdateStatus
            if status is not None and status.State in (PAUSED, ROLLBACK_PAUSED):
                self._resume(service)
                return f"{service.api.Spec.Name} is {status.State}: {status.Message}"
            most = self._wanted(service)
            image = service.api.Spec.TaskTemplate.ContainerSpec.Image
            if images.get(service.api.ID, {image}) != {image}:
                return f"{service.api.Spec.Name} runs {images[service.api.ID]}, not {image}"
            found = len(running.get(service.api.ID, ()))
            ends = service.api.Spec.Name in ("job", *JOBS)  # their tasks may have had their turn
            if found > most or (found < most and not ends):
                return f"{service.api.Spec.Name} has {found} of {most} tasks"
            if service.api.Spec.Mode.GlobalJob is not None:
                left = self._left_of(service)
                if left:
                    return f"{service.api.Spec.Name} did not run on {left}"
        return ""

    def _left_of(self, service: ServiceRow) -> list[str]:
        """Return the nodes where a global job has nothing of its run, at work or complete."""
        status = service.api.JobStatus
        assert status is not None
        there = {
            task.place
            for task in self._rows(TaskRow)
            if task.api.ServiceID == service.api.ID
            and task.api.JobIteration == status.JobIteration
            and task.api.Status.State in (TaskState.RUNNING, TaskState.COMPLETE)
        }
        return sorted({node.api.ID for node in self._rows(NodeRow)} - there)

    def _resume(self, service: ServiceRow) -> None:
        """Have a paused update go on, as its user would."""
        cluster = self._cluster
        cluster.counts["updates resumed"] += 1
        name = service.api.Spec.Name
        request = Request(f"end-resume-{cluster.counts['updates resumed']}", "resume", name)
        cluster.scope.start(_insist(cluster.clients[0], request))

    def _wanted(self, service: ServiceRow) -> int:
        """Return how many tasks of a service are to run at a time."""
        mode = service.api.Spec.Mode
        if mode.Global is not None or mode.GlobalJob is not None:
            return len(self._rows(NodeRow))
        if mode.ReplicatedJob is not None:
            return int(mode.ReplicatedJob.MaxConcurrent)
        return int(mode.Replicated.Replicas)

    def _containers(self) -> str:
        wanted = {
            (task.api.NodeID, task.api.ID)
            for task in self._rows(TaskRow)
            if task.api.Status.State is TaskState.RUNNING
        }
        found = {
            (host.name, task_id)
            for host in self._cluster.hosts.values()
            for task_id in host.containers
        }
        if wanted != found:
            return f"containers differ from tasks: {sorted(wanted ^ found)[:3]}"
        held = {
            (host.name, task_id)
            for host in self._cluster.hosts.values()
            if host.agent is not None
            for task_id in host.agent.runners
        }
        assigned = {
            (task.api.NodeID, task.api.ID)
            for task in self._rows(TaskRow)
            if task.api.Status.State >= TaskState.ASSIGNED
        }
        if held != assigned:
            return f"agents do not hold what is assigned: {sorted(held ^ assigned)[:3]}"
        return ""

    def _rest(self, leader: Manager) -> str:
        """Fresh reconcilers want nothing."""
        now = leader.host.now()
        for one in reconcilers(SpreadScheduler(), SubnetAllocator()):
            for key in one.keys(leader.view, None):
                overlay = leader.view.overlay()
                wanted = one.decide(overlay, key, now, self._cluster.new_id).transactions
                if wanted:
                    return f"{one.name} wants something of {key}: {wanted[0].changes[:1]}"
        return ""


def _is_wanted(task: TaskRow) -> bool:
    """Return whether a task is to run, or if it is a job's to complete and is not complete."""
    if task.api.JobIteration is None:
        return task.api.DesiredState <= TaskState.RUNNING
    wanted = task.api.DesiredState <= TaskState.COMPLETE
    return wanted and task.api.Status.State is not TaskState.COMPLETE


async def _insist(client: Client, request: Request) -> None:
    """Have a request applied, again as a new one for as long as others are faster."""
    tries = 0
    while not isinstance(await client.write(request), Applied):
        tries += 1
        request = request._replace(request_id=f"{request.request_id}-{tries}")
