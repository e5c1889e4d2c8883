"""Whether a task is outdated (core/model/dirty.py)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.defaults import insert_defaults, normalize_service_spec
from swarmctl.core.model.dirty import is_dirty
from swarmctl.core.model.objects import Node, NodeRow, NodeSpec, ServiceRow, TaskRow
from swarmctl.core.model.service import Service, ServicePrivate
from swarmctl.core.model.spec import EndpointSpec
from swarmctl.core.model.task import Task, TaskPrivate, TaskState, TaskStatus

from .specs import service_spec

EAST = NodeRow(api=Node(ID="n1", Spec=NodeSpec(Labels={"zone": "east"})))


def _service(index: int = 2, auth: str = "", **changes: object) -> ServiceRow:
    spec = normalize_service_spec(service_spec(**changes))
    return ServiceRow(
        api=Service(Spec=spec), private=ServicePrivate(spec_index=index, registry_auth=auth)
    )


def _task_of(service: ServiceRow, index: int = 1, auth: str = "") -> TaskRow:
    spec = service.api.Spec
    return TaskRow(
        api=Task(
            Spec=replace(spec.TaskTemplate, Runtime=""),
            Status=TaskStatus(State=TaskState.RUNNING),
            DesiredState=TaskState.RUNNING,
        ),
        private=TaskPrivate(spec_version=index, endpoint=spec.EndpointSpec, registry_auth=auth),
    )


def test_defaults_spelled_out_replace_no_task() -> None:
    """A client that posts what it read with insertDefaults (docker-py's scale) restarts nothing;
    a value that is none of the defaults still does."""
    task = _task_of(_service(index=1))
    service = _service()
    spelled = replace(service, api=insert_defaults(service.api))
    assert spelled.api.Spec.TaskTemplate != service.api.Spec.TaskTemplate
    assert not is_dirty(spelled, task, EAST)
    changed = _service(**{"TaskTemplate.ContainerSpec.StopGracePeriod": 1})
    assert is_dirty(replace(changed, api=insert_defaults(changed.api)), task, EAST)


@pytest.mark.parametrize(
    ("changes", "dirty"),
    [
        ({}, False),
        ({"Mode": {"Replicated": {"Replicas": 9}}}, False),
        ({"Labels": {"a": "b"}}, False),
        ({"UpdateConfig": {"Parallelism": 2}}, False),
        ({"EndpointSpec": {"Mode": "vip"}}, False),
        ({"EndpointSpec": {"Ports": [{"TargetPort": 80}]}}, True),
        ({"TaskTemplate.ForceUpdate": 1}, True),
        ({"TaskTemplate.ContainerSpec.Image": "nginx:2"}, True),
        ({"TaskTemplate.ContainerSpec.Labels": {"a": "b"}}, True),
        ({"TaskTemplate.Resources": {"Limits": {"Pids": 5}}}, True),
        ({"TaskTemplate.Placement": {"Platforms": [{"OS": "linux"}]}}, False),
        ({"TaskTemplate.Placement": {"Constraints": ["node.labels.zone==east"]}}, False),
        ({"TaskTemplate.Placement": {"Constraints": ["node.labels.zone==west"]}}, True),
        (
            {
                "TaskTemplate.Placement": {"Constraints": ["node.labels.zone==east"]},
                "TaskTemplate.ForceUpdate": 1,
            },
            True,
        ),
    ],
)
def test_what_makes_a_task_dirty(changes: dict[str, object], dirty: bool) -> None:
    """The task's own spec and the endpoint do; scale, labels and a placement still met do not."""
    assert is_dirty(_service(**changes), _task_of(_service()), EAST) is dirty


def test_equal_versions_are_never_dirty() -> None:
    """A task made from the service's present spec is up to date, whatever it looks like."""
    task = _task_of(_service(), index=2)
    assert not is_dirty(_service(**{"TaskTemplate.ForceUpdate": 1}), task, EAST)


def test_a_new_placement_needs_a_node_that_meets_it() -> None:
    """Without a node, a task with another placement is outdated."""
    service = _service(**{"TaskTemplate.Placement": {"MaxReplicas": 1}})
    assert is_dirty(service, _task_of(_service()), None)
    assert not is_dirty(service, _task_of(_service()), EAST)


def test_credentials_matter_only_before_the_pull() -> None:
    """New pull credentials leave a task alone that has its image, and replace one that has not."""
    service = _service(auth="new")
    running = _task_of(_service(), auth="old")
    pulling = TaskRow(
        api=replace(running.api, Status=TaskStatus(State=TaskState.PREPARING)),
        private=running.private,
    )
    assert not is_dirty(service, running, EAST)
    assert is_dirty(service, pulling, EAST)


def test_no_endpoint_is_the_default_endpoint() -> None:
    """A client that drops an empty endpoint spec restarts nothing."""
    task = _task_of(_service(EndpointSpec={"Mode": "vip"}))
    assert not is_dirty(_service(), task, EAST)
    bare = TaskRow(api=task.api, private=replace(task.private, endpoint=EndpointSpec()))
    assert not is_dirty(_service(EndpointSpec={"Mode": "vip"}), bare, EAST)


def test_a_constraint_of_an_old_release_cannot_be_met() -> None:
    """A stored constraint that no longer parses makes a task outdated instead of failing."""
    service = _service(**{"TaskTemplate.Placement": {"Constraints": ["nonsense"]}})
    assert is_dirty(service, _task_of(_service()), EAST)
