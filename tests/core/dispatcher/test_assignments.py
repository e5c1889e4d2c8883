"""What a node is sent: played against an agent that keeps what it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.dispatcher.assignments import EMPTY, assignments_for, diff, parts_of
from swarmctl.core.model.base import Driver, Time
from swarmctl.core.model.objects import (
    Config,
    ConfigRow,
    ConfigSpec,
    Secret,
    SecretPrivate,
    SecretRow,
    SecretSpec,
    ServiceRow,
    TaskRow,
)
from swarmctl.core.model.service import Endpoint, Service
from swarmctl.core.model.session import Assignments, Dependency
from swarmctl.core.model.spec import (
    ConfigReference,
    ContainerSpec,
    PortConfig,
    SecretReference,
    TaskSpec,
)
from swarmctl.core.model.task import Task, TaskPrivate, TaskState, TaskStatus
from swarmctl.core.store.view import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarmctl.core.dispatcher.assignments import NodeSet

SECRETS = ("s0", "s1", "s2")
CONFIGS = ("c0", "c1")
NODES = ("w1", "w2")


def tables(rows: Iterable[TaskRow] = ()) -> Tables:
    found = Tables()
    for name in SECRETS:
        spec = SecretSpec(Name=name)
        private = SecretPrivate(data=f"secret of {name}".encode())
        found.put(SecretRow(api=Secret(ID=name, Spec=spec), private=private))
    for name in CONFIGS:
        found.put(ConfigRow(api=Config(ID=name, Spec=ConfigSpec(Name=name, Data=b"config"))))
    ports = (PortConfig(TargetPort=80, PublishedPort=8080, PublishMode="host"),)
    found.put(ServiceRow(api=Service(ID="web", Endpoint=Endpoint(Ports=ports))))
    for row in rows:
        found.put(row)
    return found


def task(
    task_id: str = "t1",
    *,
    node: str = "w1",
    state: TaskState = TaskState.ASSIGNED,
    desired: TaskState = TaskState.RUNNING,
    secrets: Iterable[str] = (),
    configs: Iterable[str] = (),
    image: str = "image",
) -> TaskRow:
    container = ContainerSpec(
        Image=image,
        Secrets=tuple(SecretReference(SecretID=each, SecretName=each) for each in secrets),
        Configs=tuple(ConfigReference(ConfigID=each, ConfigName=each) for each in configs),
    )
    return TaskRow(
        api=Task(
            ID=task_id,
            ServiceID="web",
            NodeID=node,
            Spec=TaskSpec(ContainerSpec=container),
            Status=TaskStatus(State=state),
            DesiredState=desired,
        ),
        private=TaskPrivate(
            service_name="web", registry_auth="credentials", log_driver=Driver(Name="json-file")
        ),
    )


class Agent:
    """Does what ``model/session.py`` says that an agent does, and nothing else."""

    def __init__(self) -> None:
        self.tasks: dict[str, object] = {}
        self.secrets: dict[str, Dependency] = {}
        self.configs: dict[str, Dependency] = {}
        self.number = 0

    def take(self, message: Assignments) -> None:
        assert message.number == self.number + 1
        self.number = message.number
        if message.complete:
            assert not self.tasks
        for put in message.put:
            self.tasks[put.task.ID] = wish(put)
        for task_id in message.removed:
            del self.tasks[task_id]
        for held, sent in ((self.secrets, message.secrets), (self.configs, message.configs)):
            for each in sent:
                assert each.id not in held, "sent twice"
                held[each.id] = each
        for each_id in message.dropped:
            assert (each_id in self.secrets) != (each_id in self.configs)
            self.secrets.pop(each_id, None)
            self.configs.pop(each_id, None)


def wish(assigned: object) -> object:
    """What of an assignment the agent acts on: all but the statuses it told itself."""
    api = assigned.task  # type: ignore[attr-defined]
    bare = replace(api, Status=TaskStatus(), Version=type(api.Version)(), UpdatedAt=Time(0))
    return replace(assigned, task=bare, ports=())  # type: ignore[type-var]


def wishes(wanted: NodeSet) -> dict[str, object]:
    return {task_id: wish(assigned) for task_id, assigned in wanted.tasks.items()}


LIVE = [state for state in TaskState if state >= TaskState.PENDING]
rows = st.builds(
    task,
    st.sampled_from([f"t{n}" for n in range(6)]),
    node=st.sampled_from(NODES),
    state=st.sampled_from(LIVE),
    desired=st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN]),
    secrets=st.lists(st.sampled_from(SECRETS), unique=True),
    configs=st.lists(st.sampled_from(CONFIGS), unique=True),
    image=st.sampled_from(["a", "b"]),
)


@given(st.lists(st.lists(rows, max_size=8), min_size=1, max_size=8))
@settings(deadline=None)
def test_what_was_sent_always_adds_up_to_what_is_wanted(worlds: list[list[TaskRow]]) -> None:
    """After every message the agent holds exactly what is wanted, and nothing comes twice."""
    agent, sent = Agent(), EMPTY
    for world in worlds:
        view = tables(world)
        wanted = assignments_for(view, "w1")
        message = diff(wanted, sent, agent.number + 1)
        if message is not None:
            agent.take(message)
            sent = wanted
        assert agent.tasks == wishes(wanted)
        assert (agent.secrets, agent.configs) == (wanted.secrets, wanted.configs)
        assert diff(wanted, sent, agent.number + 1) is None
        used = {
            use.SecretID
            for row in view.tasks_on("w1")
            if TaskState.ASSIGNED <= row.api.Status.State <= TaskState.RUNNING
            for use in container_of(row).Secrets
        }
        assert set(agent.secrets) == used, "a secret goes to nodes with a live task that uses it"


def container_of(row: TaskRow) -> ContainerSpec:
    assert row.api.Spec.ContainerSpec is not None
    return row.api.Spec.ContainerSpec


def test_the_first_message_is_a_complete_set_even_of_nothing() -> None:
    """An agent learns that it has no tasks; without that it would keep old ones for ever."""
    message = diff(assignments_for(tables(), "w1"), EMPTY, 1)
    assert message == Assignments(number=1, complete=True)


@pytest.mark.parametrize("state", [TaskState.PREPARING, TaskState.RUNNING])
def test_a_status_is_not_echoed(state: TaskState) -> None:
    """A task of which only the status changed is not sent again."""
    sent = assignments_for(tables([task()]), "w1")
    told = task(state=state)
    told = replace(told, api=replace(told.api, UpdatedAt=Time(5)))
    assert diff(assignments_for(tables([told]), "w1"), sent, 2) is None


def test_an_ended_task_stays_and_frees_its_secrets() -> None:
    """A task that ended stays assigned, so its output can be read; its secrets are dropped."""
    sent = assignments_for(tables([task(secrets=["s0"])]), "w1")
    ended = assignments_for(tables([task(state=TaskState.FAILED, secrets=["s0"])]), "w1")
    assert diff(ended, sent, 2) == Assignments(number=2, dropped=("s0",))


def test_an_unassigned_task_is_nobodys() -> None:
    """A task that is not assigned yet goes to no node, whatever node it names."""
    assert assignments_for(tables([task(state=TaskState.PENDING)]), "w1") == EMPTY


def test_a_secret_that_is_gone_is_left_out() -> None:
    """A task that refers to a missing secret goes all the same; the node says what is missing."""
    wanted = assignments_for(tables([task(secrets=["s0", "gone"])]), "w1")
    assert list(wanted.tasks) == ["t1"]
    assert list(wanted.secrets) == ["s0"]


def test_a_task_goes_with_what_only_its_node_may_see() -> None:
    """Registry credentials, service name, log driver and ports are beside the task."""
    (assigned,) = assignments_for(tables([task()]), "w1").tasks.values()
    assert assigned.registry_auth == "credentials"
    assert assigned.service_name == "web"
    assert assigned.log_driver == Driver(Name="json-file")
    assert assigned.ports[0].PublishedPort == 8080


def test_parts_hold_what_the_whole_holds() -> None:
    """A message too large for a frame goes in numbered parts; only the first is complete."""
    view = tables([task(f"t{n}", secrets=SECRETS, configs=CONFIGS) for n in range(9)])
    whole = diff(assignments_for(view, "w1"), EMPTY, 1)
    assert whole is not None
    parts = parts_of(replace(whole, removed=("x",), dropped=("y", "z")), limit_bytes=900)
    assert len(parts) > 3
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [part.complete for part in parts] == [True] + [False] * (len(parts) - 1)
    assert tuple(each for part in parts for each in part.put) == whole.put
    assert tuple(each for part in parts for each in part.secrets) == whole.secrets
    assert tuple(each for part in parts for each in part.configs) == whole.configs
    assert tuple(each for part in parts for each in part.removed + part.dropped) == ("x", "y", "z")


def test_a_small_message_is_its_only_part() -> None:
    """What fits goes as it is."""
    message = Assignments(number=4, removed=("t1",))
    assert parts_of(message) == [message]
