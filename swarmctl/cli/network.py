"""``swarmctl network``: the networks of the swarm."""

from __future__ import annotations

import ipaddress
import sys
from typing import TYPE_CHECKING, Any

import click

from .api import DaemonError, Json, filters_of, path_to
from .command import ONE, SOME, Failure, command
from .flags import BOOL, MAP, TEXT, Flag, Kind
from .present import INSPECT_FLAGS, write_objects
from .table import FILTER_FLAG, FORMAT_FLAG, NO_TRUNC_FLAG, QUIET_FLAG, gathered, write_list
from .task_table import natural
from .wording import short_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .command import Invocation
    from .flags import Given

HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Addresses": "ADDRESSES",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
    "Error": "ERROR",
}
DEFAULT = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}\t{{.Addresses}}"
_COUNTABLE = 2**32


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


LABELS = Kind("list", _pair, many=True)
STRINGS = Kind("strings", lambda text: text.split(","), many=True)


# --- create --------------------------------------------------------------------------------------


@command(
    "create [OPTIONS] NETWORK",
    "Create a network",
    Flag("attachable", BOOL, "Enable manual container attachment"),
    Flag("aux-address", MAP, "Auxiliary IPv4 or IPv6 addresses, which no task gets"),
    Flag("driver", TEXT, "Driver to manage the Network", short="d", default="overlay"),
    Flag("gateway", STRINGS, "IPv4 or IPv6 Gateway for the subnet"),
    Flag("ingress", BOOL, "Create swarm routing-mesh network"),
    Flag("internal", BOOL, "Restrict external access to the network"),
    Flag("ip-range", STRINGS, "Allocate container ip from a sub-range"),
    Flag("ipam-driver", TEXT, "IP Address Management Driver", default="default"),
    Flag("ipam-opt", MAP, "Set IPAM driver specific options"),
    Flag("ipv4", BOOL, "Enable or disable IPv4 address assignment", default="true"),
    Flag("ipv6", BOOL, "Enable or disable IPv6 address assignment"),
    Flag("label", LABELS, "Set metadata on a network"),
    Flag("opt", MAP, "Set driver specific options", short="o"),
    Flag("scope", TEXT, "Control the network's scope"),
    Flag("subnet", STRINGS, "Subnet in CIDR format that represents a network segment"),
    arity=ONE,
)
def create(call: Invocation) -> None:
    """Create a network and print its id; what it does not do yet goes to standard error."""
    given = call.given
    body: Json = {
        "Name": call.arguments[0],
        "Driver": given.text("driver", "overlay"),
        "Scope": given.text("scope"),
        "IPAM": {
            "Driver": given.text("ipam-driver", "default"),
            "Options": dict(given.each("ipam-opt")),
            "Config": ipam_configs(given),
        },
        "Internal": given.is_set("internal"),
        "Attachable": given.is_set("attachable"),
        "Ingress": given.is_set("ingress"),
        "Options": dict(given.each("opt")),
        "Labels": dict(given.each("label")),
    }
    for flag, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in given:
            body[key] = given.is_set(flag)
    made = call.api.post("/networks/create", body)
    if made.get("Warning"):
        click.echo(f"WARNING: {made['Warning']}", err=True)
    click.echo(made["Id"])


def ipam_configs(given: Given) -> list[Json]:
    """Return a subnet each, with the range, gateway and reserved addresses that lie in it.

    Raises:
        Failure: in Docker's words, what lies in none or twice in one.
    """
    configs: dict[str, Json] = {}
    for text in _each(given, "subnet"):
        if any(_contains(text, other) or _contains(other, text) for other in configs):
            raise Failure("multiple overlapping subnet configuration is not supported")
        configs[text] = {"Subnet": text}
    ranges, gateways = _each(given, "ip-range"), _each(given, "gateway")
    reserved = given.each("aux-address")
    if not configs and (ranges or gateways or reserved):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    for key, word, texts in (("IPRange", "range", ranges), ("Gateway", "gateway", gateways)):
        for text in texts:
            config = configs[_home(configs, text, f"no matching subnet for {word} {text}")]
            if key in config:
                raise Failure(
                    f"cannot configure multiple {word}s ({text}, {config[key]}) on the same subnet "
                    f"({config['Subnet']})"
                )
            config[key] = text
    for name, text in reserved:
        config = configs[_home(configs, text, f"no matching subnet for aux-address {text}")]
        config.setdefault("AuxiliaryAddresses", {})[name] = text
    return list(configs.values())


def _each(given: Given, flag: str) -> list[str]:
    return [text for texts in given.each(flag) for text in texts]


def _home(configs: Iterable[str], text: str, otherwise: str) -> str:
    for subnet in configs:
        if _contains(subnet, text):
            return subnet
    raise Failure(otherwise)


def _contains(subnet: str, text: str) -> bool:
    try:
        outer, inner = (ipaddress.ip_network(one, strict=False) for one in (subnet, text))
    except ValueError:
        raise Failure(f"invalid subnet or address: {subnet}, {text}") from None
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type] # same family


# --- ls ------------------------------------------------------------------------------------------


@command(
    "ls [OPTIONS]",
    "List networks",
    FILTER_FLAG,
    FORMAT_FLAG,
    NO_TRUNC_FLAG,
    QUIET_FLAG,
    aliases="swarmctl network ls, swarmctl network list",
)
def list_networks(call: Invocation) -> None:
    """Print the networks by name, with how many of their addresses are in use."""
    given = call.given
    networks = call.api.get("/networks", filters_of(gathered(given.each("filter"))))
    networks.sort(key=lambda network: natural(network["Name"]))
    write_list(
        [_row(network, whole=given.is_set("no-trunc")) for network in networks],
        HEADERS,
        DEFAULT,
        asked=given.text("format"),
        quiet=given.is_set("quiet"),
    )


def _row(network: Json, *, whole: bool) -> dict[str, Any]:
    labels = network.get("Labels") or {}
    return {
        "ID": network["Id"] if whole else short_id(network["Id"]),
        "Name": network["Name"],
        "Driver": network["Driver"],
        "Scope": network["Scope"],
        "Addresses": ", ".join(_uses(network)),
        "IPv4": str(network.get("EnableIPv4", True)).lower(),
        "IPv6": str(network.get("EnableIPv6", False)).lower(),
        "Internal": str(network["Internal"]).lower(),
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "CreatedAt": network["Created"],
        "Error": (network.get("Status") or {}).get("Err", ""),
    }


def _uses(network: Json) -> Iterator[str]:
    """Yield for each subnet how many of its addresses are in use, of how many where that counts."""
    ipam = (network.get("Status") or {}).get("IPAM") or {}
    for subnet, use in sorted((ipam.get("Subnets") or {}).items(), key=lambda one: ":" in one[0]):
        in_use, total = use["IPsInUse"], use["IPsInUse"] + use["DynamicIPsAvailable"]
        yield f"{in_use} of {subnet}" if total >= _COUNTABLE else f"{in_use}/{total}"


# --- inspect -------------------------------------------------------------------------------------


@command(
    "inspect [OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    INSPECT_FLAGS[0],
    Flag("verbose", BOOL, "Verbose output for diagnostics", short="v"),
    arity=SOME,
)
def inspect(call: Invocation) -> None:
    """Print networks, whole."""
    query = {"verbose": "true"} if call.given.is_set("verbose") else {}

    def find(reference: str) -> Json:
        found: Json = call.api.get(path_to("networks", reference), query)
        return found

    write_objects("", call.arguments, find, model=_model, form=call.given.text("format"))


def _model() -> type:
    from swarmctl.core.model.objects import Network

    return Network


# --- rm, prune -----------------------------------------------------------------------------------

INGRESS_QUESTION = (
    "WARNING! Before removing the routing-mesh network, make sure that no service is to publish a "
    "port before there is another one.\nAre you sure you want to continue?"
)
PRUNE_QUESTION = (
    "WARNING! This will remove all networks not used by at least one service or task.\n"
    "Are you sure you want to continue?"
)


@command(
    "rm NETWORK [NETWORK...]",
    "Remove one or more networks",
    Flag("force", BOOL, "Do not error if the network does not exist", short="f"),
    arity=SOME,
    aliases="swarmctl network rm, swarmctl network remove",
)
def remove(call: Invocation) -> None:
    """Remove networks; one that cannot be removed does not keep the others."""
    force = call.given.is_set("force")
    errors: list[str] = []
    for reference in call.arguments:
        try:
            if not force and sys.stdin.isatty():
                network = call.api.get(path_to("networks", reference))
                if network["Ingress"] and not click.confirm(INGRESS_QUESTION):
                    continue
            call.api.delete(path_to("networks", reference))
        except DaemonError as error:
            if not (force and error.code == 404):
                errors.append(str(error))
        else:
            click.echo(reference)
    if errors:
        raise Failure("\n".join(errors))


@command(
    "prune [OPTIONS]",
    "Remove all unused networks",
    Flag("filter", FILTER_FLAG.kind, 'Provide filter values (e.g. "until=<timestamp>")'),
    Flag("force", BOOL, "Do not prompt for confirmation", short="f"),
)
def prune(call: Invocation) -> None:
    """Remove the networks that nobody uses."""
    if not call.given.is_set("force") and not click.confirm(PRUNE_QUESTION):
        raise Failure("network prune has been cancelled")
    filters = filters_of(gathered(call.given.each("filter")))
    names = call.api.post("/networks/prune", query=filters)["NetworksDeleted"] or ()
    if names:
        click.echo("Deleted Networks:")
        for name in names:
            click.echo(name)
        click.echo()
