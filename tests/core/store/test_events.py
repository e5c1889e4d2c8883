"""What the world is told of changed rows: Docker's events, and ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from msgspec.structs import replace

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.change import Create, Delete, Kind, Ref, Update
from swarmctl.core.model.event import Event, message_of
from swarmctl.core.model.network import make_network
from swarmctl.core.model.objects import (
    Config,
    ConfigRow,
    ConfigSpec,
    NetworkSpec,
    Row,
    Secret,
    SecretPrivate,
    SecretRow,
    SecretSpec,
    ServiceRow,
)
from swarmctl.core.model.service import RestartRecord, Scale, ScaleDecision
from swarmctl.core.model.spec import UpdateConfig
from swarmctl.core.model.stopping import stopped
from swarmctl.core.model.task import TaskState
from swarmctl.core.model.validate_cluster import PREDEFINED_LABEL
from swarmctl.core.store.events import events_of, leader_event
from swarmctl.core.store.store import RowChange, Store
from tests.core.model.builders import structs
from tests.core.pipeline.world import EPOCH, World, everywhere, spec

if TYPE_CHECKING:
    from collections.abc import Iterable

AT = EPOCH + 7


class Told(World):
    """A cluster, and what the world was told of it."""

    def __init__(self, *, tasks: bool = False) -> None:
        self.events: list[Event] = []
        self._tasks = tasks
        super().__init__()

    def saw(self, changes: Iterable[RowChange]) -> None:
        for change in changes:
            self.events += events_of(change, tasks=self._tasks)

    def told(self, kind: str = "") -> list[tuple[str, str, dict[str, str]]]:
        """Return actions, names and attributes since the last call, of one type or of all."""
        found, self.events = self.events, []
        return [
            (one.action, one.id, {k: v for k, v in one.attributes.items() if k != "name"})
            for one in found
            if kind in ("", one.type)
        ]

    def give(self, row: Row) -> None:
        self.write(Update(row=row))


def service_of(world: World, service_id: str = "web") -> ServiceRow:
    row = world.view.service(service_id)
    assert row is not None
    return row


def test_a_service_is_told_of_with_what_changed() -> None:
    """Created, scaled, given another image and removed, each with Docker's attributes."""
    world = Told()
    world.node("n1")
    world.told()
    world.service("web", spec("web", 2))
    assert world.told() == [("create", "web", {})]
    world.scale("web", 5)
    assert world.told() == [("update", "web", {"replicas.old": "2", "replicas.new": "5"})]
    world.update("web", spec("web", 5, image="httpd"))
    assert ("update", "web", {"image.old": "nginx", "image.new": "httpd"}) in world.told()
    row = service_of(world)
    world.give(replace(row, api=replace(row.api, Spec=replace(row.api.Spec, Labels={"a": "b"}))))
    assert world.told() == [("update", "web", {})]
    world.remove_service("web")
    assert world.told() == [("remove", "web", {})]


def test_an_update_tells_its_states() -> None:
    """It begins without a state before, and ends completed."""
    world = Told()
    world.node("n1")
    world.service("web", spec("web", 1, update=UpdateConfig(Monitor=SECOND)))
    world.run()
    world.told()
    world.update("web", spec("web", 1, image="httpd", update=UpdateConfig(Monitor=SECOND)))
    world.sleep(60 * SECOND)
    states = [
        (attributes.get("updatestate.old"), attributes["updatestate.new"])
        for _, _, attributes in world.told("service")
        if "updatestate.new" in attributes
    ]
    assert states == [("", "updating"), ("updating", "completed")]


def test_a_stopped_service_has_none_of_its_replicas() -> None:
    """Stopping tells of the number in effect, as clients are shown it."""
    world = Told()
    world.service("web", spec("web", 3))
    world.told()
    row = service_of(world)
    world.give(replace(row, api=stopped(row.api, world.now)))
    assert world.told() == [("update", "web", {"replicas.old": "3", "replicas.new": "0"})]


def test_what_the_api_does_not_show_is_no_event() -> None:
    """Restart counters and the like change a row, and nobody is woken for it."""
    world = Told()
    world.service("web", spec("web", 1))
    world.node("n1")
    world.told()
    row = service_of(world)
    private = replace(row.private, restarts={"1": RestartRecord(spec_version=1, attempts=2)})
    world.give(replace(row, private=private))
    node = world.view.node("n1")
    assert node is not None
    world.give(replace(node, private=replace(node.private, renew_asked=9)))
    assert world.told() == []


def test_a_decision_of_scaling_is_told_with_its_reason() -> None:
    """Scaling tells the number as any update, and beside it why; so does a recommendation."""
    world = Told()
    labels = {"swarmctl.scale.max": "9", "swarmctl.scale.target": "cpu=70%"}
    world.service("web", replace(spec("web", 2), Labels=labels))
    world.told()
    row = service_of(world)
    up = ScaleDecision(
        at=AT, rule="target", before=2, after=4, reason="cpu is 140%", values={"cpu": 1.4}
    )
    world.give(replace(row, private=replace(row.private, scale=Scale(count=4, decisions=(up,)))))
    numbers = {"replicas.old": "2", "replicas.new": "4"}
    why = {"rule": "target", "reason": "cpu is 140%", "value.cpu": "1.4", **numbers}
    assert world.told() == [("update", "web", numbers), ("scale", "web", why)]
    row = service_of(world)
    wish = replace(up, before=4, after=6, applied=False, values={})
    scale = Scale(count=4, decisions=(up, wish))
    world.give(replace(row, private=replace(row.private, scale=scale)))
    ((action, _, attributes),) = world.told()
    assert (action, attributes["replicas.new"]) == ("recommend", "6")


def test_a_node_is_told_of_with_what_changed() -> None:
    """Its state, availability and role, as Docker words them; its name is its host's."""
    world = Told()
    world.node("n1")
    (came,) = world.events
    assert (came.action, came.attributes) == ("create", {"name": "host-n1"})
    world.told()
    world.set_node("n1", state="down")
    assert world.told() == [("update", "n1", {"state.old": "ready", "state.new": "down"})]
    world.set_node("n1", availability="drain")
    changed = {"availability.old": "active", "availability.new": "drain"}
    assert world.told() == [("update", "n1", changed)]
    node = world.view.node("n1")
    assert node is not None
    world.give(replace(node, private=replace(node.private, role="manager")))
    assert world.told() == [("update", "n1", {"role.old": "worker", "role.new": "manager"})]
    node = world.view.node("n1")
    assert node is not None
    world.give(replace(node, private=replace(node.private, reachable=False)))
    assert world.told() == [], "it is no member of consensus yet"
    node = world.view.node("n1")
    assert node is not None
    world.give(replace(node, private=replace(node.private, raft_id=7)))
    node = world.view.node("n1")
    assert node is not None
    world.give(replace(node, private=replace(node.private, reachable=True)))
    heard = {"reachability.old": "unreachable", "reachability.new": "reachable"}
    assert world.told() == [("update", "n1", heard)]
    world.remove_node("n1")
    assert world.told("node") == [("remove", "n1", {})]
    elected = leader_event(node, leads=True, at=AT)
    assert elected.attributes == {
        "name": "host-n1", "leader.old": "false", "leader.new": "true",
    }  # fmt: skip


def test_secrets_configs_and_networks_come_and_go() -> None:
    """Each by name; never with what is in it, nor the networks that every engine has."""
    world = Told()
    secret = SecretRow(
        api=Secret(ID="s1", Spec=SecretSpec(Name="key")), private=SecretPrivate(data=b"hidden")
    )
    config = ConfigRow(api=Config(ID="c1", Spec=ConfigSpec(Name="conf", Data=b"shown")))
    network = make_network("w1", NetworkSpec(Name="net", Driver="overlay"))
    own = NetworkSpec(Name="host", Driver="host", Labels={PREDEFINED_LABEL: "true"})
    engines = make_network("h1", own)
    for row in (secret, config, network, engines):
        world.write(Create(row=row))
    for kind, key in ((Kind.SECRET, "s1"), (Kind.CONFIG, "c1"), (Kind.NETWORK, "w1")):
        row = world.view.row(Ref(kind, key))
        assert row is not None
        version = row.private.version if kind is Kind.NETWORK else row.api.Version.Index
        world.write(Delete(ref=Ref(kind, key), version=version))
    told = [(one.type, one.action, one.attributes["name"]) for one in world.events]
    assert told == [
        ("secret", "create", "key"),
        ("config", "create", "conf"),
        ("network", "create", "net"),
        ("secret", "remove", "key"),
        ("config", "remove", "conf"),
        ("network", "remove", "net"),
    ]
    assert "hidden" not in str(world.events)


def test_tasks_are_told_of_to_who_asks() -> None:
    """Every state that the tables see, with service, node and error; to others nothing."""
    world, quiet = Told(tasks=True), Told()
    for one in (world, quiet):
        one.node("n1")
        one.service("web", spec("web", 1))
        one.run()
    assert not [one for one in quiet.events if one.type == "task"]
    tasks = [one for one in world.events if one.type == "task"]
    assert tasks[0].action == "create"
    states = [one.attributes["state.new"] for one in tasks if "state.new" in one.attributes]
    assert states == ["pending", "assigned", "ready", "running"]
    assert tasks[-1].attributes["service"] == "web"
    assert tasks[-1].attributes["node.id"] == "n1"
    world.events.clear()
    (task,) = world.tasks("web")
    world.end(task, TaskState.FAILED)
    (failed,) = world.events
    assert failed.attributes["err"] == "task: non-zero exit (1)"
    assert failed.attributes["state.new"] == "failed"


def test_every_manager_tells_the_same_at_the_same_time() -> None:
    """An event's time is that of the entry, a removal's too, and not the clock's."""
    world = Told()
    world.service("web", spec("web", 1))
    world.now += 3
    world.remove_service("web")
    assert [one.at for one in world.events] == [EPOCH, EPOCH + 3]


def test_a_snapshot_tells_what_it_changed() -> None:
    """Tables that were replaced tell of what came, changed and went; the first ones of nothing."""
    ahead, behind = World(), Store()
    assert behind.replace_contents(ahead.store.index, *ahead.store.contents()) == ()
    ahead.service("web", spec("web", 1))
    behind.replace_contents(ahead.store.index, *ahead.store.contents())
    ahead.service("new", everywhere("new"))
    ahead.scale("web", 2)
    ahead.now += 5
    node = ahead.node("n1")
    ahead.remove_service("new")
    changes = behind.replace_contents(ahead.store.index, *ahead.store.contents())
    found = [one for change in changes for one in events_of(change, tasks=False)]
    assert [(one.type, one.action, one.id) for one in found] == [
        ("node", "create", "n1"),
        ("service", "update", "web"),
    ]
    assert found[0].at == node.api.UpdatedAt
    ahead.remove_service("web")
    changes = behind.replace_contents(ahead.store.index, *ahead.store.contents())
    (gone,) = (one for change in changes for one in events_of(change, tasks=False))
    assert (gone.action, gone.id, gone.at) == ("remove", "web", 0)


@pytest.mark.parametrize("kind", [ServiceRow, SecretRow, ConfigRow])
def test_any_change_can_be_told(kind: type[ServiceRow]) -> None:
    """Whatever two rows hold, telling of them never fails: it happens while entries are applied."""

    @given(structs(kind), structs(kind))
    def check(before: ServiceRow, after: ServiceRow) -> None:
        ref = Ref(Kind.SERVICE, "x")
        for change in (
            RowChange(ref, before, after, AT),
            RowChange(ref, None, after, AT),
            RowChange(ref, before, None, AT),
        ):
            for event in events_of(change, tasks=True):
                assert message_of(event).TimeNano == AT

    check()
