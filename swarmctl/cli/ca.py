"""``swarmctl ca``: show the root CA, or rotate it and watch how far the nodes are.

Five looks a second, as Docker's CLI does: a node is done when its certificate is of the CA that the
swarm wants, and again when it trusts the swarm's root. On a terminal the lines are redrawn;
elsewhere each is written when it changes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import click

from .command import Failure, command
from .flags import BOOL, Flag
from .swarm_spec import CERT_EXPIRY, EXTERNAL_CA, PEM_FILE, merge_flags, post_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .api import Api, Json
    from .command import Invocation

LOOK_EVERY_S = 0.2
_BAR_WIDTH = 40
_NAMED = 5
_ISSUER = ("CertIssuerSubject", "CertIssuerPublicKey")
_NEEDS_ROTATE = ("ca-cert", "ca-key", "cert-expiry", "external-ca")


@command(
    "ca [OPTIONS]",
    "Display and rotate the root CA",
    Flag("ca-cert", PEM_FILE, "Path to the PEM-formatted root CA certificate to use from now on"),
    Flag("ca-key", PEM_FILE, "Path to the PEM-formatted root CA key to use from now on"),
    CERT_EXPIRY,
    Flag("detach", BOOL, "Exit immediately instead of waiting for the end", short="d"),
    EXTERNAL_CA,
    Flag("quiet", BOOL, "Suppress progress output", short="q"),
    Flag(
        "rotate",
        BOOL,
        "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated",
    ),
)
def ca(call: Invocation) -> None:
    """Print the root certificate, after rotating it if asked."""
    swarm = call.api.get("/swarm")
    if not call.given.is_set("rotate"):
        for flag in _NEEDS_ROTATE:
            if flag in call.given:
                raise Failure(f"`--{flag}` flag requires the `--rotate` flag to update the CA")
        _print_root(swarm)
        return
    _ask(call, swarm)
    if call.given.is_set("detach"):
        return
    quiet = call.given.is_set("quiet")
    if _wait(call.api, _Nothing() if quiet else _screen()) and not quiet:
        _print_root(call.api.get("/swarm"))


def _ask(call: Invocation, swarm: Json) -> None:
    given = call.given
    if "external-ca" in given and "ca-cert" not in given:
        raise Failure(
            "rotating to an external CA requires the `--ca-cert` flag to specify the external "
            "CA's cert - to add an external CA with the current root CA certificate, use the "
            "`update` command instead"
        )
    if "ca-cert" in given and not given.any_of("external-ca", "ca-key"):
        raise Failure(
            "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be "
            "provided as well"
        )
    config = swarm["Spec"].setdefault("CAConfig", {})
    merge_flags(swarm["Spec"], given, ca_cert=given.text("ca-cert"))
    config["SigningCACert"] = given.text("ca-cert")
    config["SigningCAKey"] = given.text("ca-key")
    if not given.any_of("ca-cert", "ca-key"):
        config["ForceRotate"] = config.get("ForceRotate", 0) + 1
    post_spec(call, swarm)


def _print_root(swarm: Json) -> None:
    root = swarm["TLSInfo"].get("TrustRoot", "").strip()
    if not root:
        raise Failure("No CA information available")
    click.echo(root)


# --- how far it is --------------------------------------------------------------------------------


class Look(NamedTuple):
    """How far a rotation is.

    Attributes:
        digest: of the root that the swarm trusts now.
        certificates, roots: how many nodes have the wanted one.
        missing: names of nodes that are down and have not renewed, which hold it up.
    """

    digest: str
    certificates: int
    roots: int
    nodes: int
    done: bool
    missing: tuple[str, ...] = ()

    def lines(self) -> tuple[tuple[str, int | None], ...]:
        """Name and number of each line; None for one without."""
        names = ", ".join(self.missing[:_NAMED])
        more = f" and {len(self.missing) - _NAMED} more" if len(self.missing) > _NAMED else ""
        waits = f"  waits for nodes that are down: {names}{more}" if self.missing else ""
        return (
            (f"desired root digest: sha256:{self.digest}", None),
            ("  rotated TLS certificates", self.certificates),
            ("  rotated CA certificates", self.roots),
            *(((waits, None),) if waits else ()),
        )


def look_at(swarm: Json, nodes: Sequence[Json]) -> Look:
    """Judge what the daemon says of the swarm and its nodes."""
    wanted = swarm["TLSInfo"]
    shown = [(node.get("Description") or {}).get("TLSInfo") or {} for node in nodes]
    issuer = [wanted.get(key) for key in _ISSUER]
    behind = [
        node
        for node, info in zip(nodes, shown, strict=True)
        if [info.get(key) for key in _ISSUER] != issuer
    ]
    certificates = len(nodes) - len(behind)
    missing = tuple(
        sorted(
            (node.get("Description") or {}).get("Hostname") or node["ID"]
            for node in behind
            if node["Status"].get("State") == "down"
        )
    )
    renewed = certificates == len(nodes) and not swarm["RootRotationInProgress"]
    # Before everybody has renewed the roots of nodes say nothing: they all trust the old one.
    roots = sum(info.get("TrustRoot") == wanted["TrustRoot"] for info in shown) if renewed else 0
    digest = hashlib.sha256(wanted["TrustRoot"].encode()).hexdigest()
    done = renewed and roots == len(nodes)
    return Look(digest, certificates, roots, len(nodes), done, missing)


def _wait(api: Api, screen: _Lines | _Nothing) -> bool:
    """Watch until it is over; False if the keyboard ended the watching."""
    look: Look | None = None
    try:
        while look is None or not look.done:
            if look is not None:
                time.sleep(LOOK_EVERY_S)
            look = look_at(api.get("/swarm"), api.get("/nodes"))
            screen.show(look)
    except KeyboardInterrupt:
        screen.say("Operation continuing in background.")
        screen.say("Use `swarmctl info` to check progress.")
        return False
    return True


def _screen() -> _Lines:
    return _Bars() if sys.stdout.isatty() else _Lines()


class _Nothing:
    def show(self, look: Look) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class _Lines:
    """For a log: each line when it changes."""

    def __init__(self) -> None:
        self._shown: dict[str, int | None] = {}

    def show(self, look: Look) -> None:
        for name, number in look.lines():
            if name not in self._shown or self._shown[name] != number:
                self._shown[name] = number
                click.echo(name if number is None else f"{name}: {number}/{look.nodes} nodes")

    def say(self, text: str) -> None:
        click.echo(text)


class _Bars(_Lines):
    """For a terminal: the lines are drawn over the ones before."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn = 0

    def show(self, look: Look) -> None:
        if self._drawn:
            click.echo(f"\x1b[{self._drawn}A\x1b[J", nl=False, color=True)
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be drawn over
        for name, number in look.lines():
            line = name if number is None else name + _bar(number, look.nodes)
            click.echo(line[:width])
        self._drawn = len(look.lines())


def _bar(number: int, of: int) -> str:
    full = _BAR_WIDTH * number // of if of else _BAR_WIDTH
    return f": [{'=' * full}{' ' * (_BAR_WIDTH - full)}] {number}/{of} nodes"
