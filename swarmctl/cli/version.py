"""``swarmctl version``: what this client is, and the daemon behind the socket if one answers."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from swarmctl import __version__
from swarmctl.core.model.change import FORMAT_LEVEL
from swarmctl.core.model.gofunctions import go_json
from swarmctl.core.model.gotemplate import Template

from .client import ClientError
from .command import Failure, command
from .flags import BOOL, TEXT, Flag

if TYPE_CHECKING:
    from .command import Invocation


@command(
    "version [OPTIONS]",
    "Show the swarmctl version information",
    Flag("format", TEXT, "json | Go TEMPLATE", short="f"),
    Flag("licenses", BOOL, "List what this swarmctl is made of, and under which licenses"),
)
def version(call: Invocation) -> None:
    """Print the client's side, then the daemon's; no daemon is worth a word, not an error."""
    if call.given.is_set("licenses"):
        _write_licenses(call.given.text("format"))
        return
    machine = os.uname()
    client: dict[str, Any] = {
        "Version": __version__,
        "PythonVersion": ".".join(str(part) for part in sys.version_info[:3]),
        "Os": machine.sysname.lower(),
        "Arch": machine.machine,
        "FormatLevel": FORMAT_LEVEL,
    }
    absent = ""
    server = None
    try:
        server = call.api.get("/version")
    except ClientError as error:
        absent = str(error)
    shown = {"Client": client, "Server": server}
    form = call.given.text("format")
    if form == "json":
        click.echo(go_json(shown))
    elif form:
        click.echo(Template(form).render(shown))
    else:
        _write_text(client, server)
    if absent:
        raise Failure(absent)


def _write_licenses(form: str) -> None:
    """Print every distribution; the texts lie beside them, as their authors want it."""
    from swarmctl.licenses import parts

    from .table import write_list

    write_list(
        [{"Name": name, "Version": number, "License": terms} for name, number, terms in parts()],
        {"Name": "NAME", "Version": "VERSION", "License": "LICENSE"},
        "{{.Name}}\t{{.Version}}\t{{.License}}",
        asked=form,
    )


def _write_text(client: dict[str, Any], server: dict[str, Any] | None) -> None:
    _write_part(
        "Client:",
        {
            "Version": client["Version"],
            "Python version": client["PythonVersion"],
            "OS/Arch": f"{client['Os']}/{client['Arch']}",
        },
    )
    if server is None:
        return
    click.echo()
    _write_part(
        "Server:",
        {
            "Version": server.get("Version", ""),
            "API version": f"{server.get('ApiVersion', '')} "
            f"(minimum version {server.get('MinAPIVersion', '')})",
            "OS/Arch": f"{server.get('Os', '')}/{server.get('Arch', '')}",
            "Kernel version": server.get("KernelVersion", ""),
        },
    )


def _write_part(title: str, rows: dict[str, str]) -> None:
    click.echo(title)
    for name, value in rows.items():
        click.echo(f" {name + ':':<18} {value}")
