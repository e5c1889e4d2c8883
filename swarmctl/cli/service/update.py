"""``service update``: a read, a change of what the flags name, a write, and waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..api import path_to
from ..command import ONE, Failure, command
from .changes import changed_spec
from .converge import wait_converged
from .flags import UPDATE
from .references import file_references, network_ids, pin_image, registry_auth

if TYPE_CHECKING:
    from ..api import Json
    from ..command import Invocation

_NO_CHANGE = ("rollback", "detach", "quiet", "socket")


@command("update [OPTIONS] SERVICE", "Update a service", *UPDATE, arity=ONE)
def update(call: Invocation) -> None:
    """Change a service and wait until its tasks are as it says."""
    given = call.given
    name = call.arguments[0]
    service = call.api.get(path_to("services", name))
    query = {"version": str(service["Version"]["Index"])}
    headers: tuple[tuple[str, str], ...] = ()
    spec: Json = service["Spec"]
    if given.is_set("rollback"):
        if any(flag not in _NO_CHANGE for flag in given.names()):
            raise Failure("other flags may not be combined with --rollback")
        query["rollback"] = "previous"
    else:
        spec = _changed(call, spec)
    if given.is_set("with-registry-auth"):
        image = spec["TaskTemplate"]["ContainerSpec"]["Image"]
        headers = (("X-Registry-Auth", registry_auth(image)),)
    else:
        query["registryAuthFrom"] = "spec"
    answer = call.api.post(path_to("services", service["ID"], "update"), spec, query, headers)
    for warning in (answer or {}).get("Warnings") or ():
        click.echo(f"WARNING: {warning}", err=True)
    click.echo(name)
    if not given.is_set("detach"):
        back = given.is_set("rollback")
        wait_converged(call.api, service["ID"], quiet=given.is_set("quiet"), back=back)


def _changed(call: Invocation, spec: Json) -> Json:
    """Return the spec with the flags' changes, names resolved."""
    given = call.given

    def networks(wanted: list[Json]) -> list[Json]:
        return network_ids(call.api, wanted)

    def files(kind: str, wanted: list[Json]) -> list[Json]:
        return file_references(call.api, kind, wanted)

    try:
        spec = changed_spec(spec, given, networks=networks, files=files)
    except ValueError as error:
        raise Failure(str(error)) from None
    if "image" in given and not given.is_set("no-resolve-image"):
        pin_image(call.api, spec)
    return spec
