"""The program in a plugin's child process: load one plugin, answer what the manager asks.

Blocking and single-threaded: read a message, ask the plugin, write the answer. What the plugin
prints goes to standard error, which the manager logs; nothing it does can write into the answers.
Limits are set before any of its code runs, and an alarm ends a child that nobody watches any more.

It trusts the manager and knows nothing but what it is told: no state directory, no socket, no
variables but those that Python needs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
import signal
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import msgspec

from ... import __version__
from ...core.allocator.policy import AddressSpace, AddressUser, SubnetWish, Taken
from ...core.errors import SwarmError
from ...core.scheduler.decide import Candidate
from ...core.scheduler.resources import NodeLoad, holding_of
from ...core.store.view import Tables, View
from ..hookspecs import AllocatorSettings, SchedulerSettings
from ..loader import load_alone
from ..sources import PluginError, cause
from .messages import (
    LENGTH_BYTES,
    Addresses,
    ChooseAddresses,
    ChooseSubnet,
    Done,
    Failed,
    Judge,
    Judged,
    Load,
    Place,
    Placed,
    Ready,
    Rows,
    Seat,
    Start,
    Subnet,
    decode_question,
    encode_answer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...core.allocator.policy import Allocator
    from ...core.model.change import Index
    from ...core.model.objects import NodeRow, TaskRow
    from ...core.scheduler.decide import Scheduler
    from ...core.scheduler.filters import Filter
    from ..loader import Plugins
    from .messages import Answer, FromChild, Question

NICER_BY = 5
NO_LIMIT = 1 << 31

T = TypeVar("T")


def run_child() -> None:
    """Answer on the standard streams until they end."""
    incoming = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    outgoing = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    start = _read(incoming)
    if not isinstance(start, Start):
        return
    _limit(start)
    try:
        child = Child(start)
    except (Exception, SystemExit) as error:
        outgoing.write(encode_answer(Failed(text=told(error))))
        return
    outgoing.write(encode_answer(Ready(is_static=child.is_static)))
    while (message := _read(incoming)) is not None:
        signal.setitimer(signal.ITIMER_REAL, 2 * start.deadline_s + 1)
        outgoing.write(encode_answer(child.answer(message)))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _read(stream: BinaryIO) -> Start | Rows | Question | None:
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    body = stream.read(int.from_bytes(head, "big"))
    return decode_question(body)


def _limit(start: Start) -> None:
    """Bound what the plugin can take from its host, before any of its code runs."""
    resource.setrlimit(resource.RLIMIT_AS, (start.memory_bytes, start.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICER_BY)
    with contextlib.suppress(OSError):  # no /proc: then it is one of many for the kernel
        Path("/proc/self/oom_score_adj").write_text("1000")


def told(error: BaseException) -> str:
    """Return an error in a line, with the place in the plugin where it was raised."""
    return str(error) if isinstance(error, SwarmError) else cause(error)


class Child:
    """One loaded plugin and what it knows of the cluster."""

    def __init__(self, start: Start) -> None:
        if start.version != __version__:
            raise PluginError(
                f"this is swarmctl {__version__}, and the daemon is still {start.version}: "
                "restart it"
            )
        self._plugins: Plugins = load_alone(start.source)
        self._options = start.options
        self._tables = Tables()
        self._schedulers: dict[str, Scheduler] = {}
        self._allocators: dict[str, Allocator] = {}
        self._booked: dict[str, NodeLoad] = {}
        self._filters: list[Filter] = self._plugins.filters()

    @property
    def is_static(self) -> bool:
        return all(one.static for one in self._filters)

    def answer(self, message: Start | Rows | Question) -> FromChild:
        """Return the answer to one message; what the plugin raises is an answer too."""
        try:
            if isinstance(message, Rows):
                return self._take(message)
            return self._ask(message)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            return Failed(text=told(error))

    def _ask(self, message: Start | Question) -> Answer:
        if isinstance(message, Place):
            return self._place(message)
        if isinstance(message, Judge):
            return self._judge(message)
        if isinstance(message, ChooseSubnet):
            return self._choose_subnet(message)
        if isinstance(message, ChooseAddresses):
            return self._choose_addresses(message)
        raise PluginError("the manager spoke out of turn")

    def _take(self, message: Rows) -> Done:
        if message.is_anew:
            self._tables = Tables()
        for row in message.rows:
            self._tables.put(row)
        for ref in message.gone:
            self._tables.drop(ref)
        self._tables.index = message.index
        return Done()

    # --- schedulers ---

    def _place(self, message: Place) -> Placed:
        scheduler = self._schedulers.get(message.scheduler)
        if scheduler is None:
            options = self._options.get(message.scheduler, {})
            settings = SchedulerSettings(options=options)
            scheduler = self._plugins.scheduler(message.scheduler, settings)
            self._schedulers[message.scheduler] = scheduler
        if message.is_first:
            self._booked.clear()
        tasks = [self._task(task_id) for task_id in message.tasks]
        candidates = [self._candidate(tasks[0], seat) for seat in message.seats]
        chosen = scheduler.place(self._tables, tasks, candidates)
        placed = _checked(chosen, dict[str, str], "place() must return node ids by task id")
        self._book(tasks, placed)
        return Placed(chosen=placed)

    def _task(self, task_id: str) -> TaskRow:
        row = self._tables.task(task_id)
        if row is None:
            raise PluginError(f"the manager asked about task {task_id} and did not send it")
        return row

    def _candidate(self, task: TaskRow, seat: Seat) -> Candidate:
        """Return a candidate, with what this batch has placed there already."""
        service_tasks, tasks, cpu, memory = seat.service_tasks, seat.tasks, seat.cpu, seat.memory
        booked = self._booked.get(seat.node_id)
        if booked is not None:
            service_tasks += booked.services.get(task.api.ServiceID, 0)
            tasks, cpu, memory = tasks + booked.tasks, cpu + booked.cpu, memory + booked.memory
        node = self._node(seat.node_id)
        return Candidate(node, seat.room, service_tasks, tasks, seat.failures, cpu, memory)

    def _node(self, node_id: str) -> NodeRow:
        row = self._tables.node(node_id)
        if row is None:
            raise PluginError(f"the manager asked about node {node_id} and did not send it")
        return row

    def _book(self, tasks: Iterable[TaskRow], placed: Mapping[str, str]) -> None:
        for task in tasks:
            node_id = placed.get(task.api.ID)
            if node_id is not None:
                holding = holding_of(task)._replace(node_id=node_id, counted=True)
                self._booked.setdefault(node_id, NodeLoad()).add(holding)

    # --- filters ---

    def _judge(self, message: Judge) -> Judged:
        checks = [(one, one.check(message.task)) for one in self._filters]
        refused = [0] * len(checks)
        rooms: list[int] = []
        for node_id, load in message.nodes:
            node = self._node(node_id)
            held = load_from(load) if load is not None else NodeLoad()
            room = NO_LIMIT
            for at, (_, check) in enumerate(checks):
                if check is not None:
                    room = min(room, _checked(check(node, held), int, "a check must return a room"))
                    if room <= 0:
                        refused[at] += 1
                        break
            rooms.append(min(max(0, room), NO_LIMIT))
        blamed = tuple(
            (count, _checked(one.explain(count), str, "explain() must return a sentence"))
            for (one, _), count in zip(checks, refused, strict=True)
            if count
        )
        return Judged(rooms=tuple(rooms), blamed=blamed)

    # --- allocators ---

    def _allocator(self, name: str) -> Allocator:
        allocator = self._allocators.get(name)
        if allocator is None:
            settings = AllocatorSettings(options=self._options.get(name, {}))
            allocator = self._allocators[name] = self._plugins.allocator(name, settings)
        return allocator

    def _choose_subnet(self, message: ChooseSubnet) -> Subnet:
        numbers = [
            (int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last)))
            for first, last in message.taken
        ]
        wish = SubnetWish(
            network=message.network,
            pools=tuple(map(ipaddress.ip_network, message.pools)),
            prefixlen=message.prefixlen,
            after=ipaddress.ip_network(message.after) if message.after else None,
            taken=Taken(numbers),
        )
        chosen = self._allocator(message.allocator).subnet(wish)
        return Subnet(chosen=str(chosen) if chosen is not None else "")

    def _choose_addresses(self, message: ChooseAddresses) -> Addresses:
        allocator = self._allocator(message.allocator)
        held = _Held(message)
        space = AddressSpace(held, message.network, message.config, message.cursor)
        held.suffix = f"/{space.subnet.prefixlen}"
        chosen: list[str] = []
        for one in message.users:
            user = AddressUser(one.kind, one.id, one.service_name, one.slot)
            number = allocator.address(space, user)
            if number is None:
                chosen.append("")
                continue
            number = _checked(number, int, "address() must return a number or None")
            chosen.append(space.bare(number))
            space.take(number)
        return Addresses(chosen=tuple(chosen))


class _Held(View):
    """As much of the tables as an address space asks for: who has which address."""

    def __init__(self, message: ChooseAddresses) -> None:
        self.suffix = ""
        self._head = f"{message.network.ID}/"
        self._held = set(message.held)

    def is_held(self, index: Index, key: str) -> bool:
        return key.removeprefix(self._head).removesuffix(self.suffix) in self._held


def load_from(load: Load) -> NodeLoad:
    """Return what is held on a node as filters know it."""
    held = NodeLoad()
    held.cpu, held.memory, held.tasks = load.cpu, load.memory, load.tasks
    held.services, held.ports, held.discrete = load.services, load.ports, load.discrete
    held.named = {(kind, name): count for kind, name, count in load.named}
    return held


def _checked(value: object, kind: type[T], rule: str) -> T:
    """Return what a plugin returned, if it is of the right type."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise PluginError(f"{rule}, and returned {value!r:.100}: {error}") from None
