"""``init``, ``join``, ``leave``, ``join-token``: this host's place in a swarm.

``init`` and ``join`` start the daemon first when none answers (``launch.py``); then each is one
request and a sentence on what to do next, as Docker's are.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import click

from .api import path_to
from .command import ONE, Failure, command
from .flags import BOOL, LIST, TEXT, UINT, Flag
from .launch import DAEMON_FLAGS, ensure_daemon, stop_if_started, token_of
from .swarm_spec import SPEC_FLAGS, merge_flags
from .unlock import tell_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from .api import Json
    from .command import Invocation

T = TypeVar("T")

DEFAULT_LISTEN_ADDR = "0.0.0.0:2377"
LEAVE_TIMEOUT_S = 90.0
POLL_S = 0.1
_AVAILABILITIES = ("active", "pause", "drain")


_MEMBER_FLAGS = (
    *DAEMON_FLAGS,
    Flag("advertise-addr", TEXT, 'Advertised address (format: "<ip|interface>[:port]")'),
    Flag(
        "availability",
        TEXT,
        'Availability of the node ("active", "pause", "drain")',
        default="active",
    ),
    Flag(
        "data-path-addr",
        TEXT,
        'Address or interface to use for data path traffic (format: "<ip|interface>")',
    ),
    Flag("foreground", BOOL, "Run the daemon here instead of in the background"),
    Flag(
        "listen-addr",
        TEXT,
        'Listen address (format: "<ip|interface>[:port]")',
        default=DEFAULT_LISTEN_ADDR,
    ),
)


# --- init ----------------------------------------------------------------------------------------


@command(
    "init [OPTIONS]",
    "Initialize a swarm",
    *_MEMBER_FLAGS,
    Flag("autolock", BOOL, "Enable manager autolocking (requiring an unlock key to start)"),
    *SPEC_FLAGS,
    Flag("data-path-port", UINT, "Port number to use for data path traffic (1024 - 49151)"),
    Flag("default-addr-pool", LIST, "Default address pool in CIDR format"),
    Flag("default-addr-pool-mask-length", UINT, "Subnet mask length of the pool", default="24"),
    Flag("force-new-cluster", BOOL, "Force create a new cluster from current state"),
    text="Starts the daemon first when none answers.",
)
def init(call: Invocation) -> None:
    """Found a swarm with this node as its first manager."""
    body = init_request(call)

    def found() -> str:
        node_id: str = call.api.post("/swarm/init", body)
        return node_id

    _run_member(call, found, lambda node_id: _tell_founded(call, node_id))


def init_request(call: Invocation) -> Json:
    """Return the body of ``POST /swarm/init``; zero values mean "use the default".

    Raises:
        Failure: an availability that does not exist.
    """
    given = call.given
    spec: Json = {
        "Labels": None,
        "Orchestration": {},
        "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
        "Dispatcher": {},
        "CAConfig": {},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": given.is_set("autolock")},
    }
    merge_flags(spec, given)
    return {
        "ListenAddr": given.text("listen-addr", DEFAULT_LISTEN_ADDR),
        "AdvertiseAddr": given.text("advertise-addr"),
        "DataPathAddr": given.text("data-path-addr"),
        "DataPathPort": given.number("data-path-port"),
        "ForceNewCluster": given.is_set("force-new-cluster"),
        "Spec": spec,
        "AutoLockManagers": given.is_set("autolock"),
        "Availability": _availability(call),
        "DefaultAddrPool": [
            pool for text in given.each("default-addr-pool") for pool in text.split(",")
        ],
        "SubnetSize": given.number("default-addr-pool-mask-length", 24),
    }


def _availability(call: Invocation) -> str:
    word = call.given.text("availability").lower()
    if word and word not in _AVAILABILITIES:
        raise Failure(f'invalid availability "{word}", only active, pause and drain are supported')
    return word


def _tell_founded(call: Invocation, node_id: str) -> None:
    swarm = call.api.get("/swarm")
    click.echo(f"Swarm initialized: current node ({node_id}) is now a manager.\n")
    _tell_join(swarm["JoinTokens"]["Worker"], _manager_address(call, node_id), "worker")
    click.echo(
        "To add a manager to this swarm, run 'swarmctl join-token manager' and follow the "
        "instructions.\n"
    )
    if call.given.is_set("autolock"):
        tell_key(call.api.get("/swarm/unlockkey")["UnlockKey"])


def _tell_join(token: str, address: str, role: str) -> None:
    click.echo(f"To add a {role} to this swarm, run the following command:\n")
    click.echo(f"    swarmctl join --token {token} {address}\n")


def _manager_address(call: Invocation, node_id: str) -> str:
    node = call.api.get(path_to("nodes", node_id))
    address: str = (node.get("ManagerStatus") or {}).get("Addr", "")
    return address


# --- join ----------------------------------------------------------------------------------------


@command(
    "join [OPTIONS] HOST:PORT",
    "Join a swarm as a node and/or manager",
    *_MEMBER_FLAGS,
    Flag("token", TEXT, 'Token for entry into the swarm; "-" reads it from standard input'),
    Flag("token-file", TEXT, "File that holds the token"),
    arity=ONE,
    text="Starts the daemon first when none answers. SWARMCTL_TOKEN is the token when no flag is.",
)
def join(call: Invocation) -> None:
    """Make this node a member of somebody's swarm; the token says in which role."""
    token = token_of(call)
    if not token:
        raise Failure(
            "a token is needed: `swarmctl join-token worker` on a manager prints the whole command"
        )
    given = call.given
    body = {
        "ListenAddr": given.text("listen-addr", DEFAULT_LISTEN_ADDR),
        "AdvertiseAddr": given.text("advertise-addr"),
        "DataPathAddr": given.text("data-path-addr"),
        "RemoteAddrs": [call.arguments[0]],
        "JoinToken": token,
        "Availability": _availability(call),
    }

    def tell(_answer: object) -> None:
        is_manager = call.api.get("/info")["Swarm"].get("ControlAvailable")
        role = "manager" if is_manager else "worker"
        click.echo(f"This node joined a swarm as a {role}.")

    _run_member(call, lambda: call.api.post("/swarm/join", body), tell)


def _run_member(call: Invocation, request: Callable[[], T], tell: Callable[[T], None]) -> None:
    """Send a request that needs a daemon, starting one if need be, and tell what came of it.

    What was started stays once the request is done, though nobody may read what is told.
    """
    if call.given.is_set("foreground"):
        from .daemon import run_in_foreground

        def unless_member() -> None:
            state = call.api.get("/info")["Swarm"]["LocalNodeState"]
            if state == "inactive":
                tell(request())
            else:  # a restarted container runs the same command again
                click.echo(f"This node is in a swarm already ({state}); it goes on.")

        run_in_foreground(call, unless_member)
    started = ensure_daemon(call)
    try:
        answer = request()
    except BaseException:
        stop_if_started(started)
        raise
    tell(answer)


# --- leave ---------------------------------------------------------------------------------------


@command(
    "leave [OPTIONS]",
    "Leave the swarm",
    Flag("force", BOOL, "Force this node to leave the swarm, ignoring warnings", short="f"),
)
def leave(call: Invocation) -> None:
    """Leave; done when this node's tasks have stopped and the node says it is in no swarm."""
    call.api.post("/swarm/leave", query={"force": "1"} if call.given.is_set("force") else None)
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while call.api.get("/info")["Swarm"]["LocalNodeState"] not in ("inactive", "error"):
        if time.monotonic() > deadline:
            raise Failure(
                "the node is still leaving the swarm; `swarmctl info` shows when it has left"
            )
        time.sleep(POLL_S)
    click.echo("Node left the swarm.")


# --- join-token ----------------------------------------------------------------------------------


@command(
    "join-token [OPTIONS] (worker|manager)",
    "Manage join tokens",
    Flag("quiet", BOOL, "Only display token", short="q"),
    Flag("rotate", BOOL, "Rotate join token"),
    arity=ONE,
)
def join_token(call: Invocation) -> None:
    """Show the token of a role, after making a new one if asked."""
    role = call.arguments[0]
    if role not in ("worker", "manager"):
        raise Failure(f"unknown role {role}: it must be worker or manager")
    quiet = call.given.is_set("quiet")
    swarm = call.api.get("/swarm")
    if call.given.is_set("rotate"):
        call.api.post(
            "/swarm/update",
            swarm["Spec"],
            {
                "version": str(swarm["Version"]["Index"]),
                "rotateWorkerToken": str(role == "worker").lower(),
                "rotateManagerToken": str(role == "manager").lower(),
                "rotateManagerUnlockKey": "false",
            },
        )
        swarm = call.api.get("/swarm")
        if not quiet:
            click.echo(f"Successfully rotated {role} join token.\n")
    token = swarm["JoinTokens"][role.capitalize()]
    if quiet:
        click.echo(token)
        return
    node_id = call.api.get("/info")["Swarm"]["NodeID"]
    _tell_join(token, _manager_address(call, node_id), role)
