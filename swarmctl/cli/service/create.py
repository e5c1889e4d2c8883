"""``service create``: flags become a ServiceSpec, the spec becomes a service, and it converges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..command import SOME, Failure, command
from .converge import wait_converged
from .flags import CREATE
from .references import file_references, network_ids, pin_image, registry_auth
from .spec import new_spec

if TYPE_CHECKING:
    from ..api import Json
    from ..command import Invocation

_PLAIN_PROCESS = ("host", "host:latest")


@command(
    "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new service",
    *CREATE,
    arity=SOME,
    interspersed=False,
)
def create(call: Invocation) -> None:
    """Create a service and wait until it runs."""
    given = call.given
    image, *arguments = call.arguments
    if arguments[:1] == ["--"]:  # no program has that name; who types it ends the flags
        arguments = arguments[1:]
    try:
        spec = new_spec(given, image, arguments)
    except ValueError as error:
        raise Failure(str(error)) from None
    if image in _PLAIN_PROCESS and not arguments and not given.text("entrypoint"):
        raise Failure(
            f"image {image!r} is a plain process on a host and needs to know which: "
            f"swarmctl service create {image} COMMAND [ARG...]"
        )
    _resolve(call, spec)
    headers: tuple[tuple[str, str], ...] = ()
    if given.is_set("with-registry-auth"):
        headers = (("X-Registry-Auth", registry_auth(image)),)
    if not given.is_set("no-resolve-image"):
        pin_image(call.api, spec)
    answer = call.api.post("/services/create", spec, headers=headers)
    for warning in answer.get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)
    click.echo(answer["ID"])
    if not given.is_set("detach"):
        wait_converged(call.api, answer["ID"], quiet=given.is_set("quiet"))


def _resolve(call: Invocation, spec: Json) -> None:
    """Put ids where the user wrote names."""
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    if task.get("Networks"):
        task["Networks"] = network_ids(call.api, task["Networks"])
    if container.get("Secrets"):
        container["Secrets"] = file_references(call.api, "secret", container["Secrets"])
    if container.get("Configs"):
        container["Configs"] = file_references(call.api, "config", container["Configs"])
    credentials = (container.get("Privileges") or {}).get("CredentialSpec") or {}
    if credentials.get("Config"):  # a config that the runtime reads has no file
        runtime = {"Runtime": {}, "ConfigName": credentials["Config"]}
        (found,) = file_references(call.api, "config", [runtime])
        credentials["Config"] = found["ConfigID"]
        container["Configs"] = [*container.get("Configs", ()), found]
