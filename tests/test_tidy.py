"""The laws of the house, held with ``ast`` (docs/design, "who may import whom").

Every module of the product has a place in ``TREE``; its place says what it may import, whether it
may know trio, and whether it may touch the world at all. A law is a function from a parsed module
to sentences that say what is wrong and what would be right; each law is also shown a bad module at
the end of this file, so that a law which stopped seeing anything is noticed.

Nothing here runs or imports the product.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PLUGIN_ROOTS = ("docker_exec", "podman_exec")
TEST_ROOTS = ("tests", "examples/tests")

# Where every module belongs. A bare name is pure: it decides, or it is a value; it does no I/O,
# reads no clock and has no ``async``. The letter after a colon says otherwise:
#   T  a shell: may import trio and touch the world
#   E  an edge: touches the world (files, environment, processes) but never trio
#   P  Protocols: ``async`` signatures and trio's types in them, otherwise pure
# ``*`` stands for every module of that package.
# A new module? Put its name in the row of its package, with the least power that it needs, and in
# the tree of the design page; a new package also needs a row in ALLOWED.
TREE = """
swarmctl                       __main__:E daemon:T config:E licenses:E
swarmctl.cli                   *:E
swarmctl.cli.service           *:E
swarmctl.plugins               hookspecs model loader:E testing:T conformance spread subnets
swarmctl.plugins               null_exec:T null_behaviour binpack branches scheduler_check:E
swarmctl.plugins               cancelling:T programs detaching:T null_driver:T network_check:T
swarmctl.plugins               sources:E filter_check:E laws:T
swarmctl.plugins.outside       messages redact desk stand_ins choice:T runner:T child:E
swarmctl.plugins.outside       memory:E
swarmctl.plugins               http_metrics:T metric_check:T
swarmctl.plugins.process_exec  refuse health request:E accounts:E host:E *:T
swarmctl.plugins.process_exec.keeper  frames *:E
swarmctl.plugins.overlay       names topology rules balance mesh closed findings leavings *:T
swarmctl.plugins.overlay.dns   state zone answer resolvconf sockets:E handover:E *:T
swarmctl.plugins.engine        dialect:P spec inspection endpoints output labels line:E files:E
swarmctl.plugins.engine        calls:T changes:T container:T observe:T pull:T networks:T task:T
swarmctl.plugins.engine        executor:T cgroups:E visitors:T
swarmctl.core                  errors ids clock:T node:T member:T founding:E membership:E
swarmctl.core                  together:T statedir:E managership:T refusals nodeport:T
swarmctl.core                  comeback:T reissue:E leftovers:T nodestate batching:T
swarmctl.core.model            base spec objects cluster task change request session codec
swarmctl.core.model            duration validate defaults reference labels constraint dirty
swarmctl.core.model            template validate_cluster crosscheck release payload suits network
swarmctl.core.model            gotemplate gofunctions rolling revision specdiff startorder stopping
swarmctl.core.model            loaded
swarmctl.core.model            explain spreading strategy service endpoints
swarmctl.core.model            endpointbook pinned doctor
swarmctl.core.model            scaling scalestatus event
swarmctl.core.store            store view indexes dump watch:T events
swarmctl.core.raft             message quorum progress confchange log raft config errors storage
swarmctl.core.raft             tracker state election leading following reads orders
swarmctl.core.raft             seal:E disk:T transport:T runner:T waiting:T introductions
swarmctl.core.raft             keys:E database:E space:E wal rollback
swarmctl.core.wire             frame calls tls http1 link:T stream:T connect:T http_server:T
swarmctl.core.wire             unix_listener:T address:E
swarmctl.core.ca               keys x509 roots chain token issue rotation calls keyfiles:E server:T
swarmctl.core.ca               signing settings cfssl returning external:T credentials:T
swarmctl.core.ca               livelinks:T
swarmctl.core.orchestrator     decide slots replicated global_ jobs restart rollout reaper enforcer
swarmctl.core.orchestrator     tend overlap relief waiting
swarmctl.core.allocator        decide ports policy networks addresses places
swarmctl.core.scheduler        decide filters resources explain quantities rebalance
swarmctl.core.scheduler        outside
swarmctl.core.autoscaler       policy expression decide metrics schedule tracking words book report
swarmctl.core.autoscaler       source:P record replay
swarmctl.core.dispatcher       assignments endpoints journal liveness server:T presence:T
swarmctl.core.dispatcher       noderows:T traffic:T drain nodesession:T
swarmctl.core.agent            executor:P network:P step expand runner:T worker:T session:T
swarmctl.core.agent            reporter:T agent:T disk:T logs:T place networking:T doctor:T
swarmctl.core.agent            sampler:T visitors:T presence:E
swarmctl.core.api              route present query call:T write:T swarm:T nodes:T services:T
swarmctl.core.api              tasks:T secrets:T configs:T networks:T system:T events:T logs:T
swarmctl.core.api              proxy:T server:T backup:T forward:T frames merge:T
swarmctl.core.api              payloads:T versions network_use explain:T doctor:T
swarmctl.core.api              scaling:T event_filter
swarmctl.core.manager          reconcile:T roster:T roles propose:T leader:T manager:T
swarmctl.core.manager          door:T pipeline:T state:E calls members:T forward:T
swarmctl.core.manager          lock:T backup:E passes handover:T output:T levels
swarmctl.core.manager          autoscaling:T eventlog:T reachability:T
swarmctl_docker_exec           *:T
swarmctl_podman_exec           *:T
"""

NOUNS = frozenset({"swarmctl.core.model", "swarmctl.core.errors", "swarmctl.core.ids"})
DECIDER = NOUNS | {"swarmctl.core.store.view"}
# The Protocols that plugins implement; the plugin surface hands them on.
PROTOCOLS = frozenset(
    {
        "swarmctl.core.agent.executor",
        "swarmctl.core.agent.network",
        "swarmctl.core.allocator.policy",
        "swarmctl.core.autoscaler.source",
        "swarmctl.core.scheduler.decide",
        "swarmctl.core.scheduler.filters",
        "swarmctl.core.scheduler.outside",
        "swarmctl.core.scheduler.resources",
    }
)
SURFACE = (
    {"swarmctl.__version__"}
    | NOUNS
    | PROTOCOLS
    | {"swarmctl.core.store.view", "swarmctl.core.clock", "swarmctl.core.agent.presence"}
)

# What a module may import from the product besides its own package, longest prefix first. Shells
# (T and E in core) may import all of core, save the packages that sit above them.
ALLOWED = {
    "swarmctl": frozenset({"swarmctl"}),
    "swarmctl.config": frozenset({"swarmctl.core.model", "swarmctl.core.errors"}),
    "swarmctl.cli": frozenset(
        {"swarmctl.core.model", "swarmctl.core.errors", "swarmctl.core.wire.http1"}
        | {"swarmctl.config", "swarmctl.__main__", "swarmctl.__version__", "swarmctl.licenses"}
    ),
    # It replays a load through the very rules that the leader goes by.
    "swarmctl.cli.service.replay": frozenset(
        {"swarmctl.core.model", "swarmctl.core.errors", "swarmctl.core.autoscaler", "swarmctl.cli"}
    ),
    "swarmctl.cli.daemon": frozenset(
        {"swarmctl.daemon", "swarmctl.config", "swarmctl.core.errors"}
    ),
    "swarmctl.cli.plugin_child": frozenset({"swarmctl.plugins.outside.child"}),
    "swarmctl.cli.plugin_check": frozenset({"swarmctl.plugins", "swarmctl.core.errors"}),
    "swarmctl.plugins": SURFACE | {"swarmctl.core.errors", "swarmctl.__version__"},
    "swarmctl.plugins.process_exec.keeper": frozenset(),  # it runs from an archive of itself
    "swarmctl.core": NOUNS,
    "swarmctl.core.errors": frozenset(),
    "swarmctl.core.ids": frozenset(),
    "swarmctl.core.model": frozenset({"swarmctl.core.errors", "swarmctl.core.ids"}),
    "swarmctl.core.store": NOUNS,
    "swarmctl.core.raft": frozenset({"swarmctl.core.errors", "swarmctl.core.ids"}),
    "swarmctl.core.wire": NOUNS,
    "swarmctl.core.ca": DECIDER,
    "swarmctl.core.orchestrator": DECIDER,
    "swarmctl.core.allocator": DECIDER,
    "swarmctl.core.scheduler": DECIDER,
    "swarmctl.core.autoscaler": DECIDER,
    "swarmctl.core.dispatcher": DECIDER,
    "swarmctl.core.agent": DECIDER,
    "swarmctl.core.api": DECIDER | {"swarmctl.core.wire.http1"},  # requests and responses as values
    "swarmctl.core.manager": DECIDER,
    # It lays one key's decision over the view before the next key is decided.
    "swarmctl.core.manager.passes": DECIDER | {"swarmctl.core.store.store"},
    # An executor is written against the public surface alone, exactly like a stranger's plugin.
    "swarmctl_docker_exec": frozenset({"swarmctl.plugins"}),
    "swarmctl_podman_exec": frozenset({"swarmctl.plugins"}),
}
ABOVE_CORE = ("swarmctl.plugins", "swarmctl.cli", "swarmctl.daemon", "swarmctl.config")

# Third-party libraries and who may know them; a new one needs a page in docs/decisions first.
# trio is not here: the letters of TREE decide about it.
LIBRARIES = {
    "click": ("swarmctl.cli",),
    "cryptography": (
        *("swarmctl.core.ca.keys", "swarmctl.core.ca.x509", "swarmctl.core.ca.roots"),
        "swarmctl.core.raft.seal",
    ),
    "dns": ("swarmctl.plugins.overlay.dns.answer",),
    "docker": ("swarmctl_docker_exec",),
    "exceptiongroup": ("swarmctl", "swarmctl_docker_exec", "swarmctl_podman_exec"),
    "h11": ("swarmctl.core.wire.http1",),
    "msgspec": ("swarmctl", "swarmctl_docker_exec", "swarmctl_podman_exec"),
    "pluggy": ("swarmctl.plugins",),
    "podman": ("swarmctl_podman_exec",),
    "requests": ("swarmctl_docker_exec", "swarmctl_podman_exec"),
    "rich": ("swarmctl.cli",),
    "tomli": ("swarmctl.config",),
    "urllib3": ("swarmctl_docker_exec", "swarmctl_podman_exec"),
}

IMPURE = frozenset(
    {"asyncio", "fcntl", "glob", "importlib", "multiprocessing", "os", "pathlib", "platform"}
    | {"random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "subprocess"}
    | {"sys", "tempfile", "threading", "time", "trio", "uuid"}
)
# What of those is a value or a type, not a way out.
PURE_MAY = {
    "sys": ("version_info", "intern", "maxsize"),
    "random": ("Random",),  # the type of an argument
    "pathlib": ("PurePath", "PurePosixPath"),
}


@dataclass(frozen=True)
class Ban:
    """A call that is not made, where it is made all the same, and what to do instead."""

    places: tuple[str, ...]
    instead: str


KEEPER = "swarmctl.plugins.process_exec.keeper"  # a program of its own: one thread, no trio
CLOCK = Ban(
    ("swarmctl.core.clock", "swarmctl.cli", KEEPER),
    "wall time comes from Clock.now() (core/clock.py)",
)
FSYNC = Ban(
    (
        *(
            "swarmctl.core.raft.database",
            "swarmctl.core.agent.disk",
            "swarmctl.core.ca.keyfiles",
        ),
        *(
            "swarmctl.core.manager.state",
            "swarmctl.core.membership",
            "swarmctl.cli.backup",
            "swarmctl.cli.upgrade",
            KEEPER,
        ),
    ),
    "the loop may not wait for a disk; write through a module that owns a writer thread",
)
BANNED_CALLS = {
    # The second: a responder waits for the one before it, and serves nobody yet.
    "time.sleep": Ban(
        ("swarmctl.cli", "swarmctl.plugins.overlay.dns.handover"), "wait on an Event, or trio.sleep"
    ),
    "time.time": CLOCK,
    "time.time_ns": CLOCK,
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.utcnow": CLOCK,
    "datetime.datetime.today": CLOCK,
    "datetime.date.today": CLOCK,
    "os.fsync": FSYNC,
    "os.fdatasync": FSYNC,
    "os.system": Ban((), "trio.run_process with a list of arguments"),
    "os.popen": Ban((), "trio.run_process with a list of arguments"),
    "print": Ban(("swarmctl.cli", "swarmctl.daemon"), "only the command line talks; the rest logs"),
    "trio.lowlevel.spawn_system_task": Ban((), "a nursery that somebody owns"),
    "asyncio.run": Ban((), "trio"),
}
BANNED_WORDS = re.compile(r"\b(pkill|killall)\b")
BANNED_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})

# The places that may go on after an error nobody foresaw: per key, per request, per task, per
# plugin. Everything else lets it end its scope, or carries it to where it is raised.
MAY_SWALLOW = frozenset(
    {
        "swarmctl.core.manager.passes",
        "swarmctl.core.manager.autoscaling",  # per metric: a source of a plugin failed
        "swarmctl.core.manager.leader",  # per component: off after three failures, with an alarm
        "swarmctl.core.api.server",
        "swarmctl.core.wire.http_server",
        "swarmctl.core.wire.link",  # per call of a peer
        "swarmctl.core.wire.connect",  # per peer
        "swarmctl.core.agent.worker",
        "swarmctl.core.agent.runner",
        "swarmctl.cli.plugin_check",  # per check: its failure is the answer
        "swarmctl.core.agent.networking",  # per driver: a plugin's bug may not end the tasks
        "swarmctl.core.agent.sampler",  # per round: the executor's failure is a gap
        "swarmctl.core.agent.visitors",  # per look: the executor's failure hides visitors alone
        "swarmctl.plugins.loader",
        "swarmctl.plugins.sources",
        "swarmctl.plugins.outside.child",  # per question: what a plugin raises is its answer
        "swarmctl.plugins.process_exec.keeper.server",  # per request, and per turn: see there
        "swarmctl.plugins.overlay.dns.serve",  # per question
    }
)

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60  # the docstring is not counted
# Longer on purpose: name (module, or module:function) -> (limit, reason).
LONG: dict[str, tuple[int, str]] = {}


@dataclass(frozen=True)
class Place:
    """What TREE says about one module."""

    power: str  # "" pure, "T", "E" or "P"

    @property
    def pure(self) -> bool:
        return self.power in ("", "P")


@dataclass(frozen=True)
class Import:
    """One imported name, made absolute: ``target`` is the module or the module's member."""

    target: str
    line: int
    typing_only: bool
    at_top: bool


@dataclass(frozen=True)
class Module:
    """One parsed file of the product."""

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, filename=self.name)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(_imports(self))

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name -> dotted name, for every import of the file."""
        known: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    top = name.name.partition(".")[0]
                    known[name.asname or top] = name.name if name.asname else top
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for name in node.names:
                    known[name.asname or name.name] = f"{node.module}.{name.name}"
        return known

    def dotted(self, node: ast.expr) -> str | None:
        """``node`` as a dotted name with imports resolved, or None when it is no name."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.dotted(node.value)
            return owner and f"{owner}.{node.attr}"
        return None


def _imports(module: Module) -> Iterator[Import]:
    typing_only = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If)
        and module.dotted(node.test) in ("typing.TYPE_CHECKING", "TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    in_functions = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.package.split(".")
                base = ".".join(
                    [*parents[: len(parents) - node.level + 1], *([base] if base else [])]
                )
            targets = [f"{base}.{name.name}" for name in node.names]
        else:
            continue
        for target in targets:
            yield Import(target, node.lineno, id(node) in typing_only, id(node) not in in_functions)


@cache
def places() -> dict[str, Place]:
    """TREE, read: dotted module name -> place; ``package.*`` for rows that take any name."""
    known: dict[str, Place] = {}
    for row in TREE.strip().splitlines():
        package, *names = row.split()
        known.setdefault(package, Place(""))
        for name in names:
            stem, _, power = name.partition(":")
            known[f"{package}.{stem}"] = Place(power)
    for name, place in list(known.items()):
        if name.endswith(".*"):
            known[name[:-2]] = place  # such a package may work in its __init__ as well
    return known


def place_of(name: str) -> Place | None:
    """The place of module ``name``, or None when TREE has none for it."""
    return places().get(name) or places().get(f"{name.rpartition('.')[0]}.*")


def within(name: str, prefixes: Iterable[str]) -> bool:
    """Is ``name`` one of ``prefixes``, or inside one?"""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


# --- the laws ---------------------------------------------------------------------------------


def every_module_has_a_place(module: Module) -> Iterator[str]:
    if place_of(module.name) is None:
        yield (
            f"{module.name} has no place: add it to TREE in tests/test_tidy.py, in the row of its"
            " package, with the least power it needs (bare = pure, :P, :E, :T)"
        )


def imports_point_down_only(module: Module) -> Iterator[str]:
    place = place_of(module.name) or Place("")
    shell_of_core = not place.pure and module.name.startswith("swarmctl.core.")
    rule = max((p for p in ALLOWED if within(module.name, [p])), key=len, default=None)
    for item in module.imports:
        if item.target.partition(".")[0] not in {row.partition(".")[0] for row in ALLOWED}:
            continue
        if module.package != "swarmctl" and within(item.target, [own_package(module)]):
            fine = True
        elif shell_of_core:
            fine = within(item.target, ["swarmctl.core"])
        else:
            fine = within(item.target, ALLOWED[rule] if rule else ())
        if not fine:
            yield (
                f"{module.name}:{item.line} imports {item.target}; from here only its own package"
                f" and {', '.join(sorted(ALLOWED[rule] if rule else ())) or 'nothing'} may be known"
            )


def own_package(module: Module) -> str:
    """The package whose insides a module may use: the nearest one with a row in ALLOWED."""
    rows = [p for p in ALLOWED if within(module.package, [p])]
    return max(rows, key=len, default=module.package)


def core_knows_no_plugin(module: Module) -> Iterator[str]:
    if not within(module.name, ["swarmctl.core"]):
        return
    for item in module.imports:
        if within(item.target, [*ABOVE_CORE, "pluggy"]):
            yield (
                f"{module.name}:{item.line} imports {item.target}: core knows plugins only by the"
                " Protocols it defines; the composition root hands the objects in"
            )


def pure_modules_never_import_shells(module: Module) -> Iterator[str]:
    place = place_of(module.name) or Place("")
    if not place.pure or not within(module.name, ["swarmctl.core"]) or module.is_package:
        return
    for item in module.imports:
        target = place_of(item.target) or place_of(item.target.rpartition(".")[0])
        if within(item.target, ["swarmctl"]) and target and not target.pure:
            yield f"{module.name}:{item.line} is pure and imports the shell {item.target}"


def only_shells_import_trio(module: Module) -> Iterator[str]:
    place = place_of(module.name) or Place("")
    for item in module.imports:
        if not within(item.target, ["trio"]) or place.power in ("T", "P"):
            continue
        if within(module.name, ["swarmctl.cli"]) and not item.at_top:
            continue  # follow and exec; importing trio at the top would slow every command
        yield f"{module.name}:{item.line} imports trio but is not marked T in TREE"


def pure_modules_touch_no_world(module: Module) -> Iterator[str]:
    place = place_of(module.name) or Place("")
    if not place.pure or module.is_package:
        return
    for item in module.imports:
        top, _, member = item.target.partition(".")
        if top not in IMPURE or top == "trio" or item.typing_only:
            continue
        if top in PURE_MAY and (not member or member in PURE_MAY[top]):
            continue
        yield f"{module.name}:{item.line} is pure and imports {item.target}; take it as an argument"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            top, _, member = (module.dotted(node) or "").partition(".")
            if top in PURE_MAY and top in module.aliases and member not in PURE_MAY[top]:
                what = f"{top}.{member}"
                yield f"{module.name}:{node.lineno} is pure and uses {what}; take it as an argument"
        if isinstance(node, ast.AsyncFunctionDef) and place.power != "P":
            yield f"{module.name}:{node.lineno} is pure and has async code; that belongs in a shell"


def libraries_stay_where_they_are_known(module: Module) -> Iterator[str]:
    for item in module.imports:
        top = item.target.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("trio", "tomllib"):
            continue
        if top.startswith("swarmctl"):
            continue
        if top not in LIBRARIES:
            yield (
                f"{module.name}:{item.line} imports {top}: a new dependency needs its reasons in"
                " docs/decisions and its row in LIBRARIES"
            )
        elif not within(module.name, LIBRARIES[top]):
            yield f"{module.name}:{item.line} imports {top}, which only {LIBRARIES[top]} may know"


def banned_calls_are_not_made(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            name = module.dotted(node.func)
            ban = BANNED_CALLS.get(name or "")
            if ban and not within(module.name, ban.places):
                yield f"{module.name}:{node.lineno} calls {name}: {ban.instead}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for word in BANNED_WORDS.findall(node.value):
                yield f"{module.name}:{node.lineno} says {word}: processes are ended by pid"


def errors_are_not_swallowed(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.stmt) and type(node).__name__ == "TryStar":
            yield f"{module.name}:{node.lineno} uses except*, which CPython 3.10 cannot read"
        if not isinstance(node, ast.ExceptHandler) or module.name in MAY_SWALLOW:
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = {"Exception", "BaseException"}
        if not any(one is None or module.dotted(one) in broad for one in caught):
            continue
        if not isinstance(node.body[-1], ast.Raise) and not carries_on(node):
            yield (
                f"{module.name}:{node.lineno} swallows every error; name the ones expected, or"
                " raise again as the last statement"
            )


def carries_on(handler: ast.ExceptHandler) -> bool:
    """Does the handler keep the error as a value: ``failure = error``, ``found.append(error)``?"""
    kept = [node.value for node in ast.walk(handler) if isinstance(node, ast.Assign)]
    kept += [
        argument
        for node in ast.walk(handler)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr == "append"
        for argument in node.args
    ]
    return any(isinstance(value, ast.Name) and value.id == handler.name for value in kept)


def names_say_something(module: Module) -> Iterator[str]:
    stem = module.name.rpartition(".")[2]
    if stem in BANNED_NAMES:
        yield f"{module.name}: call it by what it holds; {stem} says nothing"


def modules_say_what_they_are_for(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield f"{module.name} has no docstring: what it is for, its laws, what it must not know"
    has_code = any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        for node in module.tree.body
    )
    if has_code and not any(item.target == "__future__.annotations" for item in module.imports):
        yield f"{module.name} lacks: from __future__ import annotations"


def packages_only_export(module: Module) -> Iterator[str]:
    if not module.is_package or not within(module.name, ["swarmctl.core", "swarmctl.cli"]):
        return
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield f"{module.name}/__init__.py defines {node.name}; a package only exports"


def sizes_stay_readable(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    limit, _ = LONG.get(module.name, (MAX_MODULE_LINES, ""))
    if lines > limit:
        yield f"{module.name} has {lines} lines, over {limit}: look for the seam"
    for node in ast.walk(module.tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = node.body[0]
        text = first if ast.get_docstring(node, clean=False) is not None else None
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if text is not None and text.end_lineno is not None:
            length -= text.end_lineno - text.lineno + 1
        limit, _ = LONG.get(f"{module.name}:{node.name}", (MAX_FUNCTION_LINES, ""))
        if length > limit:
            yield f"{module.name}:{node.lineno} {node.name} has {length} lines, over {limit}"


Law = Callable[[Module], Iterator[str]]
LAWS: tuple[Law, ...] = (
    every_module_has_a_place,
    imports_point_down_only,
    core_knows_no_plugin,
    pure_modules_never_import_shells,
    only_shells_import_trio,
    pure_modules_touch_no_world,
    libraries_stay_where_they_are_known,
    banned_calls_are_not_made,
    errors_are_not_swallowed,
    names_say_something,
    modules_say_what_they_are_for,
    packages_only_export,
    sizes_stay_readable,
)


# --- the house as it stands -------------------------------------------------------------------


def modules_below(root: Path, top: str) -> Iterator[Module]:
    for path in sorted((root / top).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield Module(
            ".".join(parts[:-1] if is_package else parts), path.read_text(), is_package=is_package
        )


@cache
def product() -> tuple[Module, ...]:
    """Every module of swarmctl and of the executor distributions beside it."""
    found = list(modules_below(REPO, "swarmctl"))
    for plugin in PLUGIN_ROOTS:
        found += modules_below(REPO / "plugins" / plugin, f"swarmctl_{plugin}")
    return tuple(found)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_house_keeps_its_laws(law: Law) -> None:
    """Every module of the product keeps this law."""
    broken = [
        sentence
        for module in product()
        if law is every_module_has_a_place or place_of(module.name)
        for sentence in law(module)
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_modules_import_each_other_in_one_direction() -> None:
    """No module needs, while it is being imported, a module that needs it."""
    names = {module.name for module in product()}
    graph: dict[str, set[str]] = {}
    for module in product():
        needs = {i.target for i in module.imports if i.at_top and not i.typing_only}
        needs |= {target.rpartition(".")[0] for target in needs}
        graph[module.name] = (needs & names) - {module.name, module.package}
    while ready := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in ready:
            del graph[name]
    assert not graph, f"these import each other in a circle: {sorted(graph)}"


def test_hook_specifications_are_documents() -> None:
    """Every hook has its prefix, types, a docstring, and says since when it exists."""
    modules = {module.name: module for module in product()}
    specs = modules.get("swarmctl.plugins.hookspecs", Module("", ""))
    for node in ast.walk(specs.tree):
        assert not isinstance(node, ast.AsyncFunctionDef), f"{node.name}: hooks are sync factories"
        if not isinstance(node, ast.FunctionDef) or not node.decorator_list:
            continue
        text = ast.get_docstring(node) or ""
        assert node.name.startswith("swarmctl_"), f"{node.name} lacks the prefix swarmctl_"
        assert node.returns, f"{node.name} does not say what it returns"
        assert all(arg.annotation for arg in node.args.args), f"{node.name} has untyped arguments"
        assert len(text.splitlines()) > 1, f"{node.name}: when called, by whom, what None means"
        assert ".. versionadded::" in text, f"{node.name} does not say since when it exists"


def test_no_second_copy_of_the_sources_lies_about() -> None:
    """setuptools leaves one where it builds: stale tomorrow, and part of what it builds next."""
    copies = [*REPO.glob("build/lib"), *REPO.glob("plugins/*/build")]
    assert copies == [], "remove them; install from a copy of the sources, or editable"


def test_every_test_says_what_it_proves() -> None:
    """Each test's docstring is the sentence it proves."""
    silent = [
        f"{path.relative_to(REPO)}:{node.lineno} {node.name}"
        for root in (*TEST_ROOTS, *(f"plugins/{plugin}/tests" for plugin in PLUGIN_ROOTS))
        for path in sorted((REPO / root).rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent, "without a docstring: " + ", ".join(silent)


# --- the laws themselves ----------------------------------------------------------------------

BAD = {
    "every_module_has_a_place": ("swarmctl.core.store.shelf", ""),
    "imports_point_down_only": ("swarmctl.core.scheduler.decide", "import swarmctl.core.raft.log"),
    "core_knows_no_plugin": ("swarmctl.core.node", "from swarmctl.plugins import loader"),
    "pure_modules_never_import_shells": ("swarmctl.core.raft.raft", "from .disk import Disk"),
    "only_shells_import_trio": ("swarmctl.core.ca.keyfiles", "import trio"),
    "pure_modules_touch_no_world": ("swarmctl.core.raft.log", "from random import choice"),
    "libraries_stay_where_they_are_known": ("swarmctl.core.node", "import requests"),
    "banned_calls_are_not_made": ("swarmctl.core.node", "from time import sleep\nsleep(1)"),
    "errors_are_not_swallowed": ("swarmctl.core.node", "try: x\nexcept Exception: pass"),
    "names_say_something": ("swarmctl.core.store.utils", ""),
    "modules_say_what_they_are_for": ("swarmctl.core.store.store", "def f() -> None: ..."),
    "packages_only_export": ("swarmctl.core.store", "def f() -> None: ..."),
    "sizes_stay_readable": ("swarmctl.core.store.store", "def f():\n" + "    x = 1\n" * 61),
}
GOOD = """
'''What it is for.'''
from __future__ import annotations
import sys
from random import Random
from typing import TYPE_CHECKING
from ..errors import SwarmError
from .quorum import joint
if TYPE_CHECKING:
    import time
def pick(rng: Random) -> int:
    try:
        return rng.randrange(sys.maxsize)
    except Exception as error:
        raise SwarmError("no luck") from error
"""


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_law_sees_what_breaks_it_and_nothing_else(law: Law) -> None:
    """The law names the module that breaks it, and lets a well-behaved pure module pass."""
    name, source = BAD[law.__name__]
    sentences = list(law(Module(name, source, is_package=name == "swarmctl.core.store")))
    assert sentences
    assert all(name in sentence for sentence in sentences)
    assert list(law(Module("swarmctl.core.raft.raft", GOOD))) == []
