"""``network doctor``: table and kernel side by side on every node, and paths between tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import NONE, Failure, command
from .flags import BOOL, TEXT, Flag
from .table import aligned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .api import Json
    from .command import Invocation

NODES = "NODE\tDRIVER\tTABLE\tCOMPARED\tWRONG\tMENDED\tPATHS"
FINDINGS = "NODE\tNETWORK\tWHAT\tWHICH\tTABLE SAYS\tKERNEL HAS"
PATHS = "NODE\tNETWORK\tFROM\tTO\tRESULT"
MENDED = "NODE\tTIMES\tMENDED SINCE ITS DAEMON STARTED"
NOTHING = "-"


@command(
    "doctor [OPTIONS]",
    "Compare what every node's kernel has with what it shall have",
    Flag("all", BOOL, "Show what is as it should be, too", short="a"),
    Flag("format", TEXT, '"json" for programs', short="f"),
    Flag("probe", BOOL, "Try paths between tasks", default="true"),
    arity=NONE,
    text=(
        "Every node in session is asked to look at its kernel; nothing is mended by it. The exit "
        "code is 1 if anything is not as it should be."
    ),
)
def doctor(call: Invocation) -> None:
    """Print what is found, and fail when something is wrong."""
    given = call.given
    form = given.text("format")
    if form not in ("", "json"):
        raise Failure('the only --format of this command is "json"')
    probe = given.is_set("probe") or "probe" not in given
    found = call.api.get(
        "/swarm/doctor/networks",
        {"all": "1" if given.is_set("all") else "0", "probe": "1" if probe else "0"},
    )
    if form:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
    else:
        click.echo("\n".join(_text(found["Nodes"], everything=given.is_set("all"))))
    if any(map(_is_ill, found["Nodes"])):
        raise Failure("")


def _is_ill(node: Json) -> bool:
    return bool(
        node["Err"]
        or node["Problems"]
        or any(map(_differs, node["Findings"]))
        or any(path["Err"] for path in node["Paths"])
    )


def _differs(finding: Json) -> bool:
    return bool(finding["Table"] != finding["Kernel"])


def _text(nodes: list[Json], *, everything: bool) -> Iterator[str]:
    yield from aligned([NODES, *map(_node_line, nodes)])
    for node in nodes:
        for text in filter(None, (node["Err"], *node["Problems"])):
            yield f"{node['Name']}: {text}"
    findings = [
        "\t".join(
            (
                node["Name"],
                one["Network"] or NOTHING,
                one["Kind"],
                one["Subject"],
                one["Table"] or NOTHING,
                one["Kernel"] or NOTHING,
            )
        )
        for node in nodes
        for one in node["Findings"]
        if everything or _differs(one)
    ]
    if findings:
        yield ""
        yield from aligned([FINDINGS, *findings])
    paths = [
        "\t".join((node["Name"], one["Network"] or NOTHING, one["Source"], one["Target"], result))
        for node in nodes
        for one in node["Paths"]
        if (result := one["Err"] or f"{one['TookNs'] / 1e6:.1f} ms")
        if everything or one["Err"]
    ]
    if paths:
        yield ""
        yield from aligned([PATHS, *paths])
    mended = [
        f"{node['Name']}\t{times}\t{what}"
        for node in nodes
        for what, times in sorted((node.get("Repaired") or {}).items())
    ]
    if mended:
        yield ""
        yield from aligned([MENDED, *mended])


def _node_line(node: Json) -> str:
    wrong = sum(map(_differs, node["Findings"]))
    mended = sum((node.get("Repaired") or {}).values())
    open_paths = sum(not path["Err"] for path in node["Paths"])
    behind = f"{node['Known']} of {node['Sent']}" if node["Known"] != node["Sent"] else node["Sent"]
    cells = (
        node["Name"],
        node["Driver"] or NOTHING,
        NOTHING if node["Err"] else behind,
        NOTHING if node["Err"] else node["Compared"],
        NOTHING if node["Err"] else wrong,
        mended or NOTHING,
        f"{open_paths}/{len(node['Paths'])}" if node["Paths"] else NOTHING,
    )
    return "\t".join(map(str, cells))
