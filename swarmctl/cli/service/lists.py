"""``service ls``, ``service ps``, ``service rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..api import DaemonError, Json, filters_of, path_to
from ..command import SOME, Failure, command
from ..table import FILTER_FLAG, FORMAT_FLAG, QUIET_FLAG, gathered, write_list
from ..task_table import PS_FLAGS, find_tasks, natural, write_tasks
from ..wording import plain_image, short_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..command import Invocation

HEADERS = {
    "ID": "ID",
    "Name": "NAME",
    "Mode": "MODE",
    "Replicas": "REPLICAS",
    "Image": "IMAGE",
    "Ports": "PORTS",
}
DEFAULT = "\t".join(f"{{{{.{name}}}}}" for name in HEADERS)


# --- ls ------------------------------------------------------------------------------------------


@command(
    "ls [OPTIONS]",
    "List services",
    FILTER_FLAG,
    FORMAT_FLAG,
    QUIET_FLAG,
    aliases="swarmctl service ls, swarmctl service list",
)
def list_services(call: Invocation) -> None:
    """Print the services, by name, with how many of their tasks run."""
    given = call.given
    query = filters_of(gathered(given.each("filter")))
    only_ids = given.is_set("quiet") and "format" not in given
    if not only_ids:  # counting tasks is work for the daemon
        query["status"] = "true"
    services = call.api.get("/services", query)
    services.sort(key=lambda service: natural(service["Spec"].get("Name", "")))
    write_list(
        [service_row(service) for service in services],
        HEADERS,
        DEFAULT,
        asked=given.text("format"),
        quiet=given.is_set("quiet"),
    )


def service_row(service: Json) -> dict[str, Any]:
    """Return a service's columns."""
    spec = service["Spec"]
    container = spec["TaskTemplate"].get("ContainerSpec") or {}
    mode = mode_of(spec)
    return {
        "ID": short_id(service["ID"]),
        "Name": spec.get("Name", ""),
        "Mode": mode,
        "Replicas": _replicas(service, mode),
        "Image": plain_image(container.get("Image", "")),
        "Ports": ports_text((service.get("Endpoint") or {}).get("Ports") or ()),
    }


MODES = {
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated job",
    "GlobalJob": "global job",
}


def mode_of(spec: Json) -> str:
    """Return the words for a service's mode."""
    mode = spec.get("Mode") or {}
    return next((word for key, word in MODES.items() if mode.get(key) is not None), "")


def _replicas(service: Json, mode: str) -> str:
    status = service.get("ServiceStatus") or {}
    running, desired = status.get("RunningTasks", 0), status.get("DesiredTasks", 0)
    text = f"{running}/{desired}"
    stopped = service.get("Stopped")
    if stopped:
        former = f"; {stopped['Replicas']} when started" if stopped.get("Replicas") else ""
        return f"{text} (stopped{former})"
    if mode == "replicated":
        most = (service["Spec"]["TaskTemplate"].get("Placement") or {}).get("MaxReplicas", 0)
        return f"{text} (max {most} per node)" if most else text
    done = status.get("CompletedTasks", 0)
    if mode == "replicated job":
        total = service["Spec"]["Mode"]["ReplicatedJob"].get("TotalCompletions", 0)
        return f"{text} ({done}/{total} completed)"
    # Desired is what is still to complete.
    return f"{text} ({done}/{desired + done} completed)" if mode == "global job" else text


def ports_text(ports: Iterable[Json]) -> str:
    """Return the published ports: ``*:8080->80/tcp``, neighbours drawn together."""
    found = sorted(
        (port.get("Protocol", ""), port.get("PublishedPort", 0), port.get("TargetPort", 0))
        for port in ports
        if port.get("PublishMode") == "ingress"
    )
    runs: list[tuple[str, int, int, int]] = []  # protocol, first published, first target, length
    for protocol, published, target in found:
        if runs:
            last, first, inner, length = runs[-1]
            if (protocol, published, target) == (last, first + length, inner + length):
                runs[-1] = (last, first, inner, length + 1)
                continue
        runs.append((protocol, published, target, 1))
    return ", ".join(_run_text(*run) for run in runs)


def _run_text(protocol: str, published: int, target: int, length: int) -> str:
    if length == 1:
        return f"*:{published}->{target}/{protocol}"
    last = length - 1
    return f"*:{published}-{published + last}->{target}-{target + last}/{protocol}"


# --- ps ------------------------------------------------------------------------------------------


@command(
    "ps [OPTIONS] SERVICE [SERVICE...]",
    "List the tasks of one or more services",
    *PS_FLAGS,
    arity=SOME,
)
def ps(call: Invocation) -> None:
    """Print the tasks of services; a service that is not there is told after the rest.

    What a service asks for and does not get is told too, on standard error.
    """
    filters = gathered(call.given.each("filter"))
    filters["node"] = [_own_node(call, name) for name in filters.get("node", ())]
    found, missing = _find_services(call, call.arguments)
    quiet = call.given.is_set("quiet")
    if found:
        tasks = find_tasks(call.api, {**filters, "service": list(found)})
        write_tasks(call, tasks, whole_ids=quiet)
    for service in found.values() if not quiet else ():
        for warning in service.get("Warnings") or ():
            click.echo(f"WARNING: {service['Spec']['Name']}: {warning}", err=True)
    if missing:
        raise Failure("\n".join(f"no such service: {name}" for name in missing))


def _find_services(call: Invocation, names: Iterable[str]) -> tuple[dict[str, Json], list[str]]:
    """Return those that are there by id, and the names of those that are not."""
    found: dict[str, Json] = {}
    missing: list[str] = []
    for name in names:
        service = call.api.find(path_to("services", name))
        if service is None:
            missing.append(name)
        else:
            found[service["ID"]] = service
    return found, missing


def _own_node(call: Invocation, name: str) -> str:
    if name != "self":
        return name
    node_id: str = call.api.get("/info")["Swarm"]["NodeID"]
    return node_id


# --- rm ------------------------------------------------------------------------------------------


@command(
    "rm SERVICE [SERVICE...]",
    "Remove one or more services",
    arity=SOME,
    aliases="swarmctl service rm, swarmctl service remove",
)
def remove(call: Invocation) -> None:
    """Remove services; one that cannot be removed does not keep the others."""
    errors: list[str] = []
    for reference in call.arguments:
        try:
            call.api.delete(path_to("services", reference))
        except DaemonError as error:
            errors.append(str(error))
        else:
            click.echo(reference)
    if errors:
        raise Failure("\n".join(errors))
