"""Small rows and tables for the API's tests."""

from __future__ import annotations

from swarmctl.core.model.defaults import normalize_service_spec
from swarmctl.core.model.objects import (
    Config,
    ConfigRow,
    ConfigSpec,
    EngineDescription,
    Network,
    NetworkRow,
    Node,
    NodeDescription,
    NodeRow,
    NodeSpec,
    Row,
    Secret,
    SecretRow,
    SecretSpec,
    ServiceRow,
    TaskRow,
)
from swarmctl.core.model.service import Service, ServicePrivate
from swarmctl.core.model.task import Task, TaskPrivate, TaskState, TaskStatus
from swarmctl.core.store.view import Tables
from tests.core.model.specs import service_spec


def tables(*rows: Row) -> Tables:
    """Return tables that hold these rows."""
    made = Tables()
    for row in rows:
        made.put(row)
    return made


def service(row_id: str, name: str, *, index: int = 1, **changes: object) -> ServiceRow:
    """Return a service; ``changes`` as in ``service_spec``."""
    spec = normalize_service_spec(service_spec(**{"Name": name, **changes}))
    return ServiceRow(api=Service(ID=row_id, Spec=spec), private=ServicePrivate(spec_index=index))


def node(row_id: str, hostname: str, **spec: object) -> NodeRow:
    """Return a node; ``spec`` are fields of its NodeSpec, ``engine`` the engine's labels."""
    engine = EngineDescription(Labels=spec.pop("engine", {}))
    description = NodeDescription(Hostname=hostname, Engine=engine)
    return NodeRow(api=Node(ID=row_id, Spec=NodeSpec(**spec), Description=description))


def task(
    row_id: str,
    of: ServiceRow,
    *,
    slot: int = 1,
    node_id: str = "",
    state: TaskState = TaskState.RUNNING,
    desired: TaskState = TaskState.RUNNING,
    version: int | None = None,
    **more: object,
) -> TaskRow:
    """Return a task made from a service's present spec."""
    spec = of.api.Spec
    return TaskRow(
        api=Task(
            ID=row_id,
            ServiceID=of.api.ID,
            Slot=slot,
            NodeID=node_id,
            Spec=spec.TaskTemplate,
            Status=TaskStatus(State=state),
            DesiredState=desired,
            **more,
        ),
        private=TaskPrivate(
            spec_version=of.private.spec_index if version is None else version,
            service_name=spec.Name,
            service_labels=spec.Labels,
            endpoint=spec.EndpointSpec,
        ),
    )


def secret(row_id: str, name: str, **labels: str) -> SecretRow:
    """Return a secret."""
    return SecretRow(api=Secret(ID=row_id, Spec=SecretSpec(Name=name, Labels=labels)))


def config(row_id: str, name: str, **labels: str) -> ConfigRow:
    """Return a config."""
    return ConfigRow(api=Config(ID=row_id, Spec=ConfigSpec(Name=name, Labels=labels)))


def network(row_id: str, name: str) -> NetworkRow:
    """Return a network."""
    return NetworkRow(api=Network(Id=row_id, Name=name))
