"""The one registry of ``swarmctl.*`` labels: what Swarm does not have rides in labels.

Every stock client can set a label and none can lose it, so our extensions are labels. Laws:

- A ``swarmctl.`` label that is not in :data:`LABELS` is refused, with the nearest known name; so is
  a value that its grammar does not allow, and a label on an object that it means nothing for. A
  typo is an error and not a silence.
- A label whose feature this release does not have is refused too: nothing is accepted and not done.
- ``swarmctl.x.<plugin>.*`` belongs to plugins and passes unseen.

A feature that lands flips ``available`` here, and ``--help`` and the documentation list this table.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "swarmctl."
PLUGIN_PREFIX = "swarmctl.x."
STRATEGY = "swarmctl.strategy"
REBALANCE = "swarmctl.rebalance"
ON_JOIN = "on-join"
DEPENDS_ON = "swarmctl.depends-on"
VERSIONS = "swarmctl.versions"
AUTO = "auto"
SERVICES = "services"
FILES = "secrets and configs"
OTHERS = "other objects"
TASK_IPS = "swarmctl.ip."
SERVICE_IP = "swarmctl.vip."
PUBLISH = "swarmctl.publish."
SCALE_PREFIX = "swarmctl.scale."
_PLUGIN_LABEL = re.compile(r"swarmctl\.x\.[a-z0-9][a-z0-9_-]*\..+", re.DOTALL)

NUMBER = r"\d{1,6}"
PERCENT = r"\d{1,3}%"
# One letter at a time: "[a-zA-Z0-9]+" there would try every way to cut a wrong name into pieces.
NAME = r"[a-zA-Z0-9](?:[-_]*[a-zA-Z0-9])*"
ADDRESS = r"[0-9a-fA-F.:]+"
_WORDS = re.compile(r"[a-z-]+(?:\|[a-z-]+)+")
TEXT = r"[^\x00-\x1f]{1,2048}"


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """One known label.

    Attributes:
        name: with ``<placeholder>`` where the user puts a part of their own.
        grammar: regular expression that the whole value must match. Where the feature has a parser
            of its own (scaling expressions), this is the outer shape only.
        example: a value that is right, for messages and documentation.
        meaning: one sentence.
        on: what it is set on, :data:`SERVICES` or :data:`FILES`.
        available: False while this release cannot do it; the label is then refused.
    """

    name: str
    grammar: str
    example: str
    meaning: str
    on: str = SERVICES
    available: bool = False


LABELS: tuple[Label, ...] = (
    Label(
        name=STRATEGY,
        grammar=NAME,
        example="binpack",
        meaning="How replicas are laid out over nodes: the name of a scheduler.",
        available=True,
    ),
    Label(
        name=REBALANCE,
        grammar=f"{ON_JOIN}|never",
        example=ON_JOIN,
        meaning="Move replicas to a node that joins or returns, one at a time, start-first.",
        available=True,
    ),
    Label(
        name=DEPENDS_ON,
        grammar=rf"{NAME}:(?:running|healthy|completed)(?:,{NAME}:(?:running|healthy|completed))*",
        example="db:healthy,migrate:completed",
        meaning="Hold back new tasks until these services are that far.",
        available=True,
    ),
    Label(
        name=VERSIONS,
        grammar=AUTO,
        example=AUTO,
        meaning="Make a new version of an update with other data, and have services follow it.",
        on=FILES,
        available=True,
    ),
    Label(
        name="swarmctl.ip.<network>",
        grammar=rf"{ADDRESS}(?:,{ADDRESS})*",
        example="10.0.1.10,10.0.1.11",
        meaning="Fixed addresses of the tasks on a network, by slot, of each family in turn.",
        available=True,
    ),
    Label(
        name="swarmctl.vip.<network>",
        grammar=rf"{ADDRESS}(?:,{ADDRESS})?",
        example="10.0.1.5",
        meaning="The service's own (virtual) address on a network, one of each family.",
        available=True,
    ),
    Label(
        name="swarmctl.publish.<port>.ip",
        grammar=rf"{ADDRESS}|{NAME}",
        example="192.168.1.5",
        meaning="The address or interface a published port is bound to.",
        available=True,
    ),
    Label(
        name="swarmctl.publish.<port>.source",
        grammar="keep",
        example="keep",
        meaning="Keep the client's address; only tasks on the node it reached answer.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.min",
        grammar=NUMBER,
        example="2",
        meaning="Never fewer replicas than this.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.max",
        grammar=NUMBER,
        example="20",
        meaning="Never more replicas than this.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.target",
        grammar=TEXT,
        example="cpu=70%",
        meaning="Keep a metric near a value by adding and removing replicas.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.up.when",
        grammar=TEXT,
        example="cpu > 80% for 1m",
        meaning="Add replicas when this holds.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.up.by",
        grammar=rf"\+?{NUMBER}|{PERCENT}|to={NUMBER}",
        example="50%",
        meaning="How many replicas one step up adds.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.down.when",
        grammar=TEXT,
        example="cpu < 30% for 5m",
        meaning="Remove replicas when this holds.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.down.by",
        grammar=rf"-?{NUMBER}|{PERCENT}|to={NUMBER}",
        example="1",
        meaning="How many replicas one step down removes.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.cooldown",
        grammar=TEXT,
        example="up=30s,down=5m",
        meaning="How long to hold still after a step.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.tolerance",
        grammar=PERCENT,
        example="10%",
        meaning="How far from its target a metric may be before anything happens.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.missing",
        grammar="hold|ignore|zero",
        example="hold",
        meaning="What a metric without a value counts as.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.metric.<name>",
        grammar=TEXT,
        example="prometheus+http://127.0.0.1:9090?query=up",
        meaning="Where the values of a metric of your own come from.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.schedule",
        grammar=TEXT,
        example="Mon-Fri 08:00-20:00 Europe/Zurich min=6",
        meaning="Other bounds at certain times.",
        available=True,
    ),
    Label(
        name="swarmctl.scale.mode",
        grammar="act|recommend|off",
        example="recommend",
        meaning="Whether to scale, or only to say what would be done.",
        available=True,
    ),
)


def find_label(name: str) -> Label | None:
    """Return the registered label that ``name`` is an instance of, or None."""
    for label, pattern in _PATTERNS:
        if pattern.fullmatch(name):
            return label
    return None


def check_labels(labels: Mapping[str, str], *, on: str = OTHERS) -> None:
    """Check the ``swarmctl.*`` labels among ``labels``; all others are the user's own.

    Args:
        on: what they are set on.

    Raises:
        InvalidArgument: an unknown label (with the nearest known one), a wrong value, a label for
            something else, or a feature that this release does not have.
    """
    for name, value in labels.items():
        if not name.startswith(PREFIX):
            continue
        if name.startswith(PLUGIN_PREFIX):
            if not _PLUGIN_LABEL.fullmatch(name):
                raise InvalidArgument(
                    f"label {name!r}: a plugin's labels are named swarmctl.x.<plugin>.<name>"
                )
            continue
        label = find_label(name)
        if label is None:
            raise InvalidArgument(f"unknown label {name!r}{_nearest(name)}")
        if label.on != on:
            raise InvalidArgument(f"label {name!r} is for {label.on} only")
        if not re.fullmatch(label.grammar, value, re.ASCII):
            raise InvalidArgument(_wrong(label, name, value))
        if not label.available:
            raise InvalidArgument(f"label {name!r} is not available in this release")


def _wrong(label: Label, name: str, value: str) -> str:
    right = f", for example, {label.example!r}"
    if _WORDS.fullmatch(label.grammar):
        right = f" {', '.join(map(repr, label.grammar.split('|')))}"
    text = f"label {name!r} has the invalid value {value!r}; right would be{right}"
    # As scaling's own parsers show a place.
    return (
        f"{text}\n  {value}\n  ^" if name.startswith(SCALE_PREFIX) and value.isprintable() else text
    )


def bound_to(labels: Mapping[str, str], port: int, protocol: str) -> str:
    """Return the address or interface that a published port is bound to, "" for all."""
    return _of_port(labels, port, protocol, "ip")


def keeps_source(labels: Mapping[str, str], port: int, protocol: str) -> bool:
    """Return whether a published port keeps its clients' addresses."""
    return _of_port(labels, port, protocol, "source") == "keep"


def _of_port(labels: Mapping[str, str], port: int, protocol: str, what: str) -> str:
    """Return what a label says of a port; that of its protocol goes before that of the number."""
    both = labels.get(f"{PUBLISH}{port}.{what}", "")
    return labels.get(f"{PUBLISH}{port}/{protocol}.{what}", both)


def _nearest(name: str) -> str:
    known = [label.name for label in LABELS]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; labels that begin with {PREFIX!r} are reserved for swarmctl's own"


_PLACEHOLDER = re.compile(r"<(\w+)>")
_PART = {"port": r"\d{1,5}(?:/(?:tcp|udp|sctp))?"}


def _pattern(name: str) -> re.Pattern[str]:
    """Return what a label's name may look like: ``<port>`` is a port, any other part a name."""
    pieces = _PLACEHOLDER.split(name)  # text and placeholders take turns
    return re.compile(
        "".join(
            _PART.get(piece, r"[A-Za-z0-9][\w.-]*") if at % 2 else re.escape(piece)
            for at, piece in enumerate(pieces)
        ),
        re.ASCII,
    )


_PATTERNS = tuple((label, _pattern(label.name)) for label in LABELS)
