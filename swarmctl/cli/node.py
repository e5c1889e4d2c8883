"""``swarmctl node``: the members of the swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .api import DaemonError, Json, filters_of, path_to
from .command import ANY, ONE, SOME, Failure, command
from .flags import BOOL, LIST, TEXT, Flag
from .present import INSPECT_FLAGS, write_objects
from .table import FILTER_FLAG, FORMAT_FLAG, QUIET_FLAG, gathered, write_list
from .task_table import PS_FLAGS, find_tasks, natural, write_tasks
from .wording import bytes_size, capitalized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .command import Invocation

HEADERS = {
    "ID": "ID",
    "Self": "",
    "Hostname": "HOSTNAME",
    "Status": "STATUS",
    "Availability": "AVAILABILITY",
    "ManagerStatus": "MANAGER STATUS",
    "EngineVersion": "ENGINE VERSION",
    "TLSStatus": "TLS STATUS",
}
DEFAULT = (
    "{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t"
    "{{.ManagerStatus}}\t{{.EngineVersion}}"
)


# --- ls ------------------------------------------------------------------------------------------


@command(
    "ls [OPTIONS]",
    "List nodes in the swarm",
    FILTER_FLAG,
    FORMAT_FLAG,
    QUIET_FLAG,
    aliases="swarmctl node ls, swarmctl node list",
)
def list_nodes(call: Invocation) -> None:
    """Print the swarm's nodes, this one marked."""
    given = call.given
    nodes = call.api.get("/nodes", filters_of(gathered(given.each("filter"))))
    quiet = given.is_set("quiet") and "format" not in given
    swarm = {} if quiet else call.api.get("/info")["Swarm"]
    nodes.sort(key=lambda node: natural(node["Description"].get("Hostname", "")))
    write_list(
        [_row(node, swarm) for node in nodes],
        HEADERS,
        DEFAULT,
        asked=given.text("format"),
        quiet=given.is_set("quiet"),
    )


def _row(node: Json, swarm: Json) -> dict[str, Any]:
    description = node["Description"]
    return {
        "ID": node["ID"],
        "Self": node["ID"] == swarm.get("NodeID"),
        "Hostname": description.get("Hostname", ""),
        "Status": capitalized(node["Status"].get("State", "")),
        "Availability": capitalized(node["Spec"].get("Availability", "")),
        "ManagerStatus": _manager_status(node.get("ManagerStatus")),
        "EngineVersion": (description.get("Engine") or {}).get("EngineVersion", ""),
        "TLSStatus": _tls_status(description.get("TLSInfo"), swarm.get("Cluster")),
    }


def _manager_status(status: Json | None) -> str:
    if not status:
        return ""
    return "Leader" if status.get("Leader") else capitalized(status.get("Reachability", ""))


def _tls_status(of_node: Json | None, cluster: Json | None) -> str:
    of_cluster = cluster.get("TLSInfo") if cluster else None
    if not of_node or not of_cluster:
        return "Unknown"
    return "Ready" if of_node == of_cluster else "Needs Rotation"


# --- inspect -------------------------------------------------------------------------------------


@command(
    "inspect [OPTIONS] self|NODE [NODE...]",
    "Display detailed information on one or more nodes",
    *INSPECT_FLAGS,
    arity=SOME,
)
def inspect(call: Invocation) -> None:
    """Print nodes, whole."""
    write_objects(
        "",
        call.arguments,
        lambda reference: _node(call, reference),
        model=_model,
        form=call.given.text("format"),
        pretty=_pretty if call.given.is_set("pretty") else None,
    )


def _model() -> type:
    from swarmctl.core.model.objects import Node

    return Node


def _node(call: Invocation, reference: str) -> Json:
    if reference == "self":
        reference = _own_id(call)
    found: Json = call.api.get(path_to("nodes", reference))
    return found


def _own_id(call: Invocation) -> str:
    node_id: str = call.api.get("/info")["Swarm"].get("NodeID", "")
    if not node_id:  # let the daemon say why there is none
        call.api.get("/nodes")
    return node_id


def _pretty(node: Json) -> str:
    return "\n".join(_pretty_lines(node))


def _pretty_lines(node: Json) -> Iterator[str]:
    spec, description, status = node["Spec"], node["Description"], node["Status"]
    yield f"ID:\t\t\t{node['ID']}"
    if spec.get("Name"):
        yield f"Name:\t\t\t{spec['Name']}"
    yield from _labels("Labels:", spec.get("Labels"))
    yield f"Hostname:              \t{description.get('Hostname', '')}"
    yield f"Joined at:             \t{node['CreatedAt']}"
    yield "Status:"
    yield f" State:\t\t\t{capitalized(status.get('State', ''))}"
    if status.get("Message"):
        yield f" Message:              \t{capitalized(status['Message'])}"
    yield f" Availability:         \t{capitalized(spec.get('Availability', ''))}"
    if status.get("Addr"):
        yield f" Address:\t\t{status['Addr']}"
    manager = node.get("ManagerStatus")
    if manager:
        yield "Manager Status:"
        yield f" Address:\t\t{manager.get('Addr', '')}"
        yield f" Raft Status:\t\t{capitalized(manager.get('Reachability', ''))}"
        yield f" Leader:\t\t{'Yes' if manager.get('Leader') else 'No'}"
    yield from _machine_lines(description)


def _machine_lines(description: Json) -> Iterator[str]:
    platform = description.get("Platform") or {}
    resources = description.get("Resources") or {}
    engine = description.get("Engine") or {}
    yield "Platform:"
    yield f" Operating System:\t{platform.get('OS', '')}"
    yield f" Architecture:\t\t{platform.get('Architecture', '')}"
    yield "Resources:"
    yield f" CPUs:\t\t\t{resources.get('NanoCPUs', 0) // 1_000_000_000}"
    yield f" Memory:\t\t{bytes_size(resources.get('MemoryBytes', 0))}"
    kinds: dict[str, list[str]] = {}
    for plugin in engine.get("Plugins") or ():
        kinds.setdefault(plugin["Type"], []).append(plugin["Name"])
    if kinds:
        yield "Plugins:"
        for kind in sorted(kinds):
            yield f" {kind}:\t\t{', '.join(kinds[kind])}"
    yield f"Engine Version:\t\t{engine.get('EngineVersion', '')}"
    yield from _labels("Engine Labels:", engine.get("Labels"))
    tls = description.get("TLSInfo") or {}
    if tls:
        yield "TLS Info:"
        yield " TrustRoot:"
        yield tls.get("TrustRoot", "").rstrip()
        yield f" Issuer Subject:\t{tls.get('CertIssuerSubject', '')}"
        yield f" Issuer Public Key:\t{tls.get('CertIssuerPublicKey', '')}"


def _labels(title: str, labels: Json | None) -> Iterator[str]:
    if labels:
        yield title
        for key in sorted(labels):
            yield f" - {key}={labels[key]}" if labels[key] else f" - {key}"


# --- ps ------------------------------------------------------------------------------------------


@command(
    "ps [OPTIONS] [NODE...]",
    "List tasks running on one or more nodes, defaults to current node",
    *PS_FLAGS,
    arity=ANY,
)
def ps(call: Invocation) -> None:
    """Print the tasks of nodes; a node that is not there is told after the rest."""
    errors: list[str] = []
    tasks: list[Json] = []
    filters = gathered(call.given.each("filter"))
    for reference in call.arguments or ("self",):
        try:
            node_id = _node(call, reference)["ID"]
        except DaemonError as error:
            errors.append(str(error))
            continue
        tasks += find_tasks(call.api, {**filters, "node": [node_id]})
    if tasks or not errors:
        write_tasks(call, tasks)
    if errors:
        raise Failure("\n".join(errors))


# --- promote, demote, update, rm -----------------------------------------------------------------


@command("promote NODE [NODE...]", "Promote one or more nodes to manager in the swarm", arity=SOME)
def promote(call: Invocation) -> None:
    """Wish nodes to be managers, one after the other; the first that cannot be ends it."""
    _change_roles(call, "manager", "Node {} promoted to a manager in the swarm.")


@command("demote NODE [NODE...]", "Demote one or more nodes from manager in the swarm", arity=SOME)
def demote(call: Invocation) -> None:
    """Wish nodes to be workers, one after the other; the first that cannot be ends it."""
    _change_roles(call, "worker", "Manager {} demoted in the swarm.")


def _change_roles(call: Invocation, role: str, done: str) -> None:
    for reference in call.arguments:
        node = _node(call, reference)
        if node["Spec"].get("Role") == role:
            click.echo(f"Node {node['ID']} is already a {role}.")
            continue
        version = {"version": str(node["Version"]["Index"])}
        call.api.post(
            path_to("nodes", node["ID"], "update"), {**node["Spec"], "Role": role}, version
        )
        click.echo(done.format(reference))


@command(
    "update [OPTIONS] NODE",
    "Update a node",
    Flag("availability", TEXT, 'Availability of the node ("active", "pause", "drain")'),
    Flag("label-add", LIST, 'Add or update a node label ("key=value")'),
    Flag("label-rm", LIST, "Remove a node label if exists"),
    Flag("role", TEXT, 'Role of the node ("worker", "manager")'),
    arity=ONE,
)
def update(call: Invocation) -> None:
    """Change what an administrator wants of a node."""
    given = call.given
    node = _node(call, call.arguments[0])
    spec = node["Spec"]
    for flag, key in (("availability", "Availability"), ("role", "Role")):
        if flag in given:
            spec[key] = given.text(flag).lower()
    labels = spec.get("Labels") or {}
    for text in given.each("label-add"):
        key, _, value = text.partition("=")
        labels[key] = value
    for key in given.each("label-rm"):
        if key not in labels:
            raise Failure(f"key {key} doesn't exist in node's labels")
        del labels[key]
    spec["Labels"] = labels
    version = {"version": str(node["Version"]["Index"])}
    call.api.post(path_to("nodes", node["ID"], "update"), spec, version)
    click.echo(call.arguments[0])


@command(
    "rm [OPTIONS] NODE [NODE...]",
    "Remove one or more nodes from the swarm",
    Flag("force", BOOL, "Force remove a node from the swarm", short="f"),
    arity=SOME,
    aliases="swarmctl node rm, swarmctl node remove",
)
def remove(call: Invocation) -> None:
    """Remove nodes; one that cannot be removed does not keep the others."""
    query = {"force": "1"} if call.given.is_set("force") else None
    errors: list[str] = []
    for reference in call.arguments:
        try:
            call.api.delete(path_to("nodes", reference), query)
        except DaemonError as error:
            errors.append(str(error))
        else:
            click.echo(reference)
    if errors:
        raise Failure("\n".join(errors))
