"""Whether a task is outdated: does what it runs differ from what its service now asks for?

The one answer for the orchestrator, which replaces dirty tasks, and for the ``_up-to-date`` filter,
by which clients watch it do so (docker-api.md section 4.3; swarm-behaviour.md section 6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import InvalidConstraint
from .constraint import node_matches, parse_constraints
from .defaults import spell_out_task
from .spec import EndpointSpec, Placement, TaskSpec
from .task import TaskState

if TYPE_CHECKING:
    from .objects import NodeRow, ServiceRow, TaskRow


def is_dirty(service: ServiceRow, task: TaskRow, node: NodeRow | None) -> bool:
    """Return whether ``task`` has to be replaced for its service's sake.

    A pure scale, a change of labels or names, defaults spelled out, and a placement that the
    task's node still satisfies leave a task clean: clients drop ``Placement.Platforms`` whenever
    they did not ask a registry.

    Args:
        node: where the task is, None while it is nowhere.
    """
    if task.private.spec_version == service.private.spec_index:
        return False
    wanted, actual = _comparable(service.api.Spec.TaskTemplate), _comparable(task.api.Spec)
    wanted_endpoint = _filled(service.api.Spec.EndpointSpec)
    if wanted_endpoint != _filled(task.private.endpoint) or _auth_differs(service, task):
        return True
    if wanted == actual:
        return False
    # docker-py's scale() reads with insertDefaults and posts what it read: nothing has to restart.
    wanted, actual = spell_out_task(wanted), spell_out_task(actual)
    if wanted == actual:
        return False
    if replace(wanted, Placement=None) != replace(actual, Placement=None):
        return True
    return node is None or not _satisfies(node, wanted.Placement)


def needs_new_tasks(old: TaskSpec, new: TaskSpec) -> bool:
    """Return whether a task made of one spec is of no use for the other, wherever it is."""
    before, after = (spell_out_task(_comparable(spec)) for spec in (old, new))
    return replace(before, Placement=None) != replace(after, Placement=None)


def _comparable(spec: TaskSpec) -> TaskSpec:
    # Services print their runtime and tasks do not; both mean a container.
    return replace(spec, Runtime="") if spec.Runtime == "container" else spec


def _filled(endpoint: EndpointSpec | None) -> EndpointSpec:
    # None, {} and {"Mode": "vip"} ask for the same.
    endpoint = endpoint or EndpointSpec()
    return replace(endpoint, Mode=endpoint.Mode or "vip")


def _auth_differs(service: ServiceRow, task: TaskRow) -> bool:
    """New pull credentials matter only to a task that may still have to pull."""
    if service.private.registry_auth == task.private.registry_auth:
        return False
    started = TaskState.READY <= task.api.Status.State <= TaskState.RUNNING
    return not (started and task.api.DesiredState <= TaskState.RUNNING)


def _satisfies(node: NodeRow, placement: Placement | None) -> bool:
    try:
        return node_matches(parse_constraints(placement.Constraints if placement else ()), node)
    except InvalidConstraint:  # no spec is accepted with one, so this is an old release's
        return False
