"""What a task is given: its secrets and configs as files, templates of them filled in."""

from __future__ import annotations

import pytest

from swarmctl.core.agent.executor import ExecutorError, NodeIdentity
from swarmctl.core.agent.expand import adoption_of, assignment_of
from swarmctl.core.model.session import AssignedTask, Dependency
from swarmctl.core.model.spec import (
    ConfigReference,
    ContainerSpec,
    FileTarget,
    RuntimeTarget,
    SecretReference,
    TaskSpec,
)
from swarmctl.core.model.task import SecretFile, Task, TaskAssignment

NODE = NodeIdentity(cluster_id="c1", node_id="n1", hostname="host1", state_dir="/x")
PLATFORM = ("linux", "x86_64")
MARKER = b"hunter2hunter2"


def _secret(item_id: str, **target: object) -> SecretReference:
    file = FileTarget(**{"Name": item_id, "UID": "0", "GID": "0", "Mode": 0o444, **target})
    return SecretReference(SecretID=item_id, SecretName=f"{item_id}-name", File=file)


def _config(item_id: str, **target: object) -> ConfigReference:
    file = FileTarget(**{"Name": item_id, "UID": "0", "GID": "0", "Mode": 0o444, **target})
    return ConfigReference(ConfigID=item_id, ConfigName=f"{item_id}-name", File=file)


def _given(container: ContainerSpec, **data: bytes | Dependency) -> TaskAssignment:
    """Give a task its data by id; a Dependency says more than bytes do."""
    held = {
        item_id: one if isinstance(one, Dependency) else Dependency(id=item_id, data=one)
        for item_id, one in data.items()
    }
    spec = TaskSpec(ContainerSpec=container)
    task = Task(ID="t1", ServiceID="s1", Slot=3, NodeID="n1", Spec=spec)
    assigned = AssignedTask(task=task, service_name="web", service_labels={"tier": "gold"})
    return assignment_of(assigned, NODE, PLATFORM, held, held, {})


def _expanded(text: str | bytes, container: ContainerSpec | None = None, **data: bytes) -> bytes:
    """Return what a task reads in a config whose data is this template."""
    text = text.encode() if isinstance(text, str) else text
    template = Dependency(id="app", data=text, templating="golang")
    container = container or ContainerSpec(Image="x")
    uses = (*container.Configs, _config("app"))
    container = ContainerSpec(Image="x", Env=container.Env, Secrets=container.Secrets, Configs=uses)
    return _given(container, app=template, **data).configs[-1].data


def test_files_have_their_place_owner_and_mode() -> None:
    """Relative secrets go below /run/secrets, relative configs to the root, absolute ones stay."""
    container = ContainerSpec(
        Image="x",
        Secrets=(_secret("a", UID="7", GID="8", Mode=0o440), _secret("b", Name="/etc/key")),
        Configs=(
            _config("c"),
            _config("d", Name="/etc/app.conf", Mode=0o400),
            ConfigReference(ConfigID="e", ConfigName="e", Runtime=RuntimeTarget()),
        ),
    )
    given = _given(container, a=b"1", b=b"2", c=b"3", d=b"4", e=b"5")
    assert given.secrets == (
        SecretFile(id="a", target="/run/secrets/a", uid="7", gid="8", mode=0o440, data=b"1"),
        SecretFile(id="b", target="/etc/key", data=b"2"),
    )
    assert given.configs == (
        SecretFile(id="c", target="/c", data=b"3"),
        SecretFile(id="d", target="/etc/app.conf", mode=0o400, data=b"4"),
    )


def test_what_is_no_template_is_not_touched() -> None:
    """Without a template driver every byte counts."""
    container = ContainerSpec(Image="x", Secrets=(_secret("a"),))
    data = b"{{.Service.Name}} \xff\x00 {{"
    assert _given(container, a=data).secrets[0].data == data


def test_a_template_sees_the_task_and_what_it_may_read() -> None:
    """Fields, labels, environment, and other secrets and configs by their target's name."""
    container = ContainerSpec(
        Image="x",
        Env=("MODE=slot {{.Task.Slot}}", "EMPTY=", "BARE"),
        Secrets=(_secret("s", Name="db"),),
        Configs=(_config("c", Name="/etc/base"),),
    )
    text = """{{- /* all there is */ -}}
{{.Service.Name}} {{.Service.ID}} {{.Service.Labels.tier}} {{index .Service.Labels "tier"}}
{{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}
{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}
{{env "MODE"}}|{{env "EMPTY"}}|{{env "BARE"}}|{{env "NONE"}}
{{secret "db"}} {{config "/etc/base" | upper}}
{{if eq (env "EMPTY") ""}}nothing{{else}}something{{end}}
{{range $key, $value := .Service.Labels}}{{$key}}={{$value}}{{end}}
"""
    assert _expanded(text, container, s=b"pw", c=b"base").decode().splitlines() == [
        "web s1 gold gold",
        "n1 host1 linux/x86_64",
        "t1 web.3.t1 3",
        "slot 3|||",
        "pw BASE",
        "nothing",
        "tier=gold",
    ]


@pytest.mark.parametrize(
    ("slot", "by_node", "expected"),
    [(3, False, "3 web.3.t1"), (0, False, "0 web.0.t1"), (0, True, "n1 web.n1.t1")],
)
def test_a_slot_is_a_number_or_a_node(slot: int, by_node: bool, expected: str) -> None:
    """The first slot of a job is 0; where the nodes are the slots, the node's id stands for it."""
    container = ContainerSpec(Image="x", Env=("AT={{.Task.Slot}} {{.Task.Name}}",))
    task = Task(
        ID="t1", ServiceID="s1", Slot=slot, NodeID="n1", Spec=TaskSpec(ContainerSpec=container)
    )
    assigned = AssignedTask(task=task, service_name="web", by_node=by_node)
    for given in (
        assignment_of(assigned, NODE, PLATFORM, {}, {}, {}),
        adoption_of(assigned, NODE),
    ):
        assert given.name == expected.split()[1]
    given = assignment_of(assigned, NODE, PLATFORM, {}, {}, {})
    assert given.task.Spec.ContainerSpec is not None
    assert given.task.Spec.ContainerSpec.Env == (f"AT={expected}",)


def test_other_bytes_pass_through_a_template() -> None:
    """What is no UTF-8, in the template or in what it reads, comes out as it went in."""
    container = ContainerSpec(Image="x", Secrets=(_secret("s"),))
    assert _expanded(b'\xff{{secret "s"}}\xfe', container, s=b"\x80\x00") == b"\xff\x80\x00\xfe"


def test_templates_read_data_as_it_was_stored() -> None:
    """A template that reads another one, or itself, gets its text: there is no loop."""
    container = ContainerSpec(Image="x", Secrets=(_secret("s"),))
    template = Dependency(id="s", data=b'{{secret "s"}}', templating="golang")
    assert _given(container, s=template).secrets[0].data == template.data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{{secret "other"}}', "it asks for a secret or config that is no target of its service"),
        ('{{config "other"}}', "it asks for a secret or config that is no target of its service"),
        ('{{secret "s" | index 1}}', "it calls a function, or names a field, in a way that"),
        ("{{.Service.Nmae}}", "it calls a function, or names a field, in a way that"),
        ('{{(secret "s").Field}}', "it calls a function, or names a field, in a way that"),
        ('{{range secret "s"}}{{end}}', "it calls a function, or names a field, in a way that"),
        ('{{join (secret "s") 5}}', "it calls a function, or names a field, in a way that"),
        ('{{printf "%9999999999d" 1}}', "it calls a function, or names a field, in a way that"),
        ('{{printf "%9999d" 1}}' * 500, "it grows beyond 4194304 bytes"),
        ("{{hunter2hunter2}}", "it calls a function, or names a field, in a way that"),
    ],
)
def test_a_template_that_fails_rejects_the_task_and_tells_nothing(text: str, reason: str) -> None:
    """The error names the config and the reason, and quotes neither template nor secret."""
    container = ContainerSpec(Image="x", Secrets=(_secret("s"),))
    with pytest.raises(ExecutorError) as caught:
        _expanded(text, container, s=MARKER, other=b"not this task's")
    assert str(caught.value).startswith(f"config app-name cannot be expanded: {reason}")
    assert MARKER.decode() not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_was_not_given_rejects_the_task() -> None:
    """A task whose secret is gone says which, and an unknown driver is named."""
    container = ContainerSpec(Image="x", Secrets=(_secret("s"),))
    with pytest.raises(ExecutorError, match=r"^secret s-name is not available on this node"):
        _given(container)
    strange = Dependency(id="s", data=b"x", templating="jinja")
    with pytest.raises(ExecutorError, match="unknown template driver 'jinja'"):
        _given(container, s=strange)


def test_an_adopted_task_needs_none_of_it() -> None:
    """A task that was given its files long ago is taken up without them."""
    container = ContainerSpec(Image="x", Secrets=(_secret("s"),), Configs=(_config("c"),))
    task = Task(ID="t1", ServiceID="s1", Spec=TaskSpec(ContainerSpec=container))
    adopted = adoption_of(AssignedTask(task=task, service_name="web"), NODE)
    assert (adopted.secrets, adopted.configs) == ((), ())
