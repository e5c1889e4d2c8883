"""Stand-ins for a scheduler, filters and an allocator that run in a child process.

Each keeps the Protocol of what it stands for, synchronously: it gives the answer that is known, or
asks and raises :class:`~swarmctl.core.errors.AnswerAwaited`. What an answer must be to count is
decided here: it has to fit its question when it comes, and the present when it is used. Where the
plugin is off, or did not answer, the built-in takes its place; of filters there are none then.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import TYPE_CHECKING, Generic, NamedTuple

from ...core.errors import AnswerAwaited
from ...core.scheduler.outside import Blame, Verdict
from .desk import Asked, Desk, FoundT, ImpossibleAnswer
from .messages import (
    Addresses,
    ChooseAddresses,
    ChooseSubnet,
    Judge,
    Judged,
    Load,
    Place,
    Placed,
    Seat,
    Subnet,
    User,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...core.allocator import policy
    from ...core.model.change import Ref
    from ...core.model.objects import TaskRow
    from ...core.scheduler.decide import Candidate, Scheduler
    from ...core.scheduler.resources import NodeLoad
    from ...core.scheduler.resources import Place as NodePlace
    from ...core.store.view import View
    from .desk import Plugin
    from .messages import Answer
    from .redact import Redactor

USERS_MAX = 400
"""Addresses that are chosen in one question."""


def _group(task: TaskRow) -> tuple[str, int, str]:
    """Return what is the same for all tasks that are alike."""
    alone = "" if task.api.ServiceID else task.api.ID
    return task.api.ServiceID, task.private.spec_version, alone


class _AsksOfRows(Generic[FoundT]):
    """A stand-in whose questions are about nodes and tasks, of which the child has a mirror."""

    def __init__(self, plugin: Plugin) -> None:
        self._mirror = plugin.mirror
        self.desk: Desk[FoundT] = Desk(plugin)

    @property
    def busy(self) -> bool:
        return self.desk.busy

    def note(self, touched: set[Ref] | None) -> None:
        self._mirror.note(touched)

    def listen(self, wake: Callable[[], None]) -> None:
        self.desk.wake = wake

    def send(self, view: View, *, waits: bool) -> None:
        self.desk.send(view, waits=waits)


# --- schedulers ----------------------------------------------------------------------------------


class _Chosen(NamedTuple):
    """Node ids by task id, and the log index of the tables that they were chosen on."""

    at_index: int
    chosen: dict[str, str]


class OutsideScheduler(_AsksOfRows[_Chosen]):
    """Stands in for the scheduler called ``name``; ``default`` places what it does not."""

    def __init__(self, plugin: Plugin, name: str, default: Scheduler) -> None:
        super().__init__(plugin)
        self._name = name
        self._default = default

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        """Return node ids by task id, as far as they were chosen; see :class:`Scheduler`."""
        key = _group(tasks[0])
        if self.desk.is_for_default(key):
            return self._default.place(view, tasks, nodes)
        known = self.desk.find(key)
        if known is not None:
            self.desk.drop(key)
            # That it found nothing counts for the tables that it was asked on and for no others.
            if known.at_index == view.index or _fits(known.chosen, tasks, nodes):
                return known.chosen
        raise self.desk.ask(key, self._asked(view.index, tasks, nodes))

    def _asked(
        self, index: int, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Asked[_Chosen]:
        ids = tuple(task.api.ID for task in tasks)
        seats = tuple(Seat(node.api.ID, *rest) for node, *rest in nodes)

        def question(is_first: bool) -> Place:
            return Place(scheduler=self._name, tasks=ids, seats=seats, is_first=is_first)

        def found(answer: Answer) -> _Chosen:
            if not isinstance(answer, Placed):
                raise ImpossibleAnswer("it answered another question")
            _check_placed(answer.chosen, ids, seats)
            return _Chosen(index, answer.chosen)

        return Asked(question, found)


def _fits(chosen: Mapping[str, str], tasks: Sequence[TaskRow], nodes: Sequence[Candidate]) -> bool:
    """Return whether any choice still holds; where none does it has to choose again."""
    wanted = {chosen.get(task.api.ID) for task in tasks}
    return any(one.room > 0 and one.node.api.ID in wanted for one in nodes)


def _check_placed(chosen: Mapping[str, str], ids: Sequence[str], seats: Sequence[Seat]) -> None:
    strangers = chosen.keys() - set(ids)
    if strangers:
        raise ImpossibleAnswer(f"it placed tasks that it was not asked for ({min(strangers)})")
    rooms = {seat.node_id: seat.room for seat in seats}
    for node_id, count in Counter(chosen.values()).items():
        if node_id not in rooms:
            raise ImpossibleAnswer(f"it chose a node that does not exist ({node_id!r})")
        if count > rooms[node_id]:
            raise ImpossibleAnswer(
                f"it put {count} tasks on node {node_id}, which has room for {rooms[node_id]}"
            )


# --- filters -------------------------------------------------------------------------------------


class _Known(NamedTuple):
    """What filters said of one node, and of which state of it."""

    version: int
    load: Load | None
    room: int


class _Judged(NamedTuple):
    nodes: dict[str, _Known]
    blamed: tuple[Blame, ...]


class OutsideFilters(_AsksOfRows[_Judged]):
    """Stands in for all filters of one plugin.

    Attributes:
        is_static: no filter looks at what nodes hold; known once the plugin was loaded.
    """

    def __init__(self, plugin: Plugin, redactor: Redactor) -> None:
        super().__init__(plugin)
        self.name = plugin.name
        self._redactor = redactor
        self.is_static = False

    def judge(self, task: TaskRow, places: Sequence[NodePlace]) -> Verdict:
        """Return what the filters say of the nodes as they are; see :class:`Judge`."""
        key = (*_group(task), task.api.NodeID)
        if self.desk.is_for_default(key):
            return Verdict({place.node.api.ID: _NO_LIMIT for place in places}, ())
        known = self.desk.find(key)
        states = {
            node.api.ID: (node.api.Version.Index, None if self.is_static else load_of(load))
            for node, load in places
        }
        rooms: dict[str, int] = {}
        if known is not None:
            for node_id, state in states.items():
                one = known.nodes.get(node_id)
                if one is not None and (one.version, one.load) == state:
                    rooms[node_id] = one.room
        if len(rooms) == len(states) or any(rooms.values()):
            return Verdict(rooms, known.blamed if known is not None else ())
        raise self.desk.ask(key, self._asked(task, states, known))

    def told(self, task: TaskRow) -> Mapping[str, str]:
        """Return why nodes were refused when this was last asked; see :class:`Judge`."""
        known = self.desk.find((*_group(task), task.api.NodeID))
        if known is None:
            return {}
        why = "; ".join(blame.sentence for blame in known.blamed)
        return {node_id: why for node_id, one in known.nodes.items() if one.room <= 0}

    def _asked(
        self, task: TaskRow, states: dict[str, tuple[int, Load | None]], known: _Judged | None
    ) -> Asked[_Judged]:
        def question(is_first: bool) -> Judge:  # noqa: ARG001 - a callback's only argument
            nodes = tuple((node_id, load) for node_id, (_, load) in states.items())
            return Judge(task=self._redactor.task(task), nodes=nodes)

        def found(answer: Answer) -> _Judged:
            if not isinstance(answer, Judged) or len(answer.rooms) != len(states):
                raise ImpossibleAnswer("it answered another question")
            nodes = dict(known.nodes) if known is not None else {}
            nodes.update(
                (node_id, _Known(*state, max(0, room)))
                for (node_id, state), room in zip(states.items(), answer.rooms, strict=True)
            )
            return _Judged(nodes, tuple(Blame(*one) for one in answer.blamed))

        return Asked(question, found)


_NO_LIMIT = 1 << 31


def load_of(load: NodeLoad) -> Load:
    """Return what is held on a node as a value."""
    return Load(
        load.cpu,
        load.memory,
        load.tasks,
        dict(load.services),
        dict(load.ports),
        dict(load.discrete),
        tuple((*name, count) for name, count in load.named.items()),
    )


# --- allocators ----------------------------------------------------------------------------------


class _Subnet(NamedTuple):
    """What was chosen, None for nothing; and what was taken then."""

    chosen: policy.Subnet | None
    taken: tuple[tuple[int, int], ...]


class _Addresses(NamedTuple):
    """Addresses by the id of who gets them, "" for none; and what was held then.

    That nothing was left counts while nothing of it was given back.
    """

    held: frozenset[int]
    chosen: dict[str, str]


class OutsideAllocator:
    """Stands in for the allocator called ``name``; ``default`` chooses what it does not."""

    def __init__(self, plugin: Plugin, name: str, default: policy.Allocator) -> None:
        self._name = name
        self._default = default
        self.subnets: Desk[_Subnet] = Desk(plugin)
        self.addresses: Desk[_Addresses] = Desk(plugin)
        self._users: dict[str, dict[str, User]] = {}

    def listen(self, wake: Callable[[], None]) -> None:
        self.subnets.wake = self.addresses.wake = wake

    def send(self, view: View) -> bool:
        self._users.clear()
        sent = [self.subnets.send(view), self.addresses.send(view)]
        return any(sent)

    def subnet(self, wish: policy.SubnetWish) -> policy.Subnet | None:
        """Return a free subnet; see :class:`swarmctl.core.allocator.policy.Allocator`."""
        key = (wish.network.ID, wish.pools[0].version)
        if self.subnets.is_for_default(key):
            return self._default.subnet(wish)
        known = self.subnets.find(key)
        if known is not None:
            self.subnets.drop(key)
            chosen, taken = known
            if chosen is None and taken == wish.taken.stretches():
                return None
            if chosen is not None and _is_offered(chosen, wish):
                return chosen
        raise self.subnets.ask(key, self._asked_subnet(wish))

    def _asked_subnet(self, wish: policy.SubnetWish) -> Asked[_Subnet]:
        address = type(wish.pools[0].network_address)
        taken = wish.taken.stretches()
        message = ChooseSubnet(
            allocator=self._name,
            network=wish.network,
            pools=tuple(map(str, wish.pools)),
            prefixlen=wish.prefixlen,
            after=str(wish.after) if wish.after is not None else "",
            taken=tuple((str(address(first)), str(address(last))) for first, last in taken),
        )

        def found(answer: Answer) -> _Subnet:
            if not isinstance(answer, Subnet):
                raise ImpossibleAnswer("it answered another question")
            try:
                chosen = ipaddress.ip_network(answer.chosen) if answer.chosen else None
            except ValueError:
                raise ImpossibleAnswer(f"{answer.chosen!r} is no subnet") from None
            if chosen is not None and not _is_offered(chosen, wish):
                raise ImpossibleAnswer(
                    f"it chose subnet {chosen}, which is not free in the pools, or not of size "
                    f"/{wish.prefixlen}"
                )
            return _Subnet(chosen, taken)

        return Asked(lambda _: message, found)

    def address(self, space: policy.AddressSpace, user: policy.AddressUser) -> int | None:
        """Return a free address; see :class:`swarmctl.core.allocator.policy.Allocator`."""
        key = f"{space.network.ID}/{space.subnet}"
        if self.addresses.is_for_default(key):
            return self._default.address(space, user)
        known = self.addresses.find(key)
        text = known.chosen.pop(user.id, None) if known is not None else None
        if text and space.is_free(int(ipaddress.ip_address(text))):
            return int(ipaddress.ip_address(text))
        if known is not None and text == "" and known.held.issubset(space.held()):
            return None
        if self.addresses.busy:
            raise AnswerAwaited
        users = self._users.setdefault(key, {})
        if len(users) < USERS_MAX:
            users[user.id] = User(*user)
        asked = self.addresses.wish(key) or self._asked_addresses(space, users)
        raise self.addresses.ask(key, asked)

    def _asked_addresses(
        self, space: policy.AddressSpace, users: dict[str, User]
    ) -> Asked[_Addresses]:
        held = space.held()
        config = next(one for one in space.network.IPAM.Config or () if _is_of(one.Subnet, space))
        network, cursor = space.network, space.bare(space.cursor) if space.cursor >= 0 else ""

        def question(is_first: bool) -> ChooseAddresses:  # noqa: ARG001 - a callback's
            return ChooseAddresses(
                allocator=self._name,
                network=network,
                config=config,
                cursor=cursor,
                held=tuple(map(space.bare, held)),
                users=tuple(users.values()),
            )

        def found(answer: Answer) -> _Addresses:
            if not isinstance(answer, Addresses) or len(answer.chosen) != len(users):
                raise ImpossibleAnswer("it answered another question")
            taken = set(held)
            for text in answer.chosen:
                if text:
                    _take(text, space, taken)
            return _Addresses(frozenset(held), dict(zip(users, answer.chosen, strict=True)))

        return Asked(question, found)


def _take(text: str, space: policy.AddressSpace, taken: set[int]) -> None:
    try:
        number = int(ipaddress.ip_address(text))
    except ValueError:
        raise ImpossibleAnswer(f"{text!r} is no address") from None
    if number in taken or not space.first <= number <= space.last:
        raise ImpossibleAnswer(f"it chose address {text}, which is not free in {space.subnet}")
    taken.add(number)


def _is_of(subnet: str, space: policy.AddressSpace) -> bool:
    return ipaddress.ip_network(subnet) == space.subnet


def _is_offered(chosen: policy.Subnet, wish: policy.SubnetWish) -> bool:
    """Return whether a subnet is what was asked for, and still free."""
    inside = any(
        pool.version == chosen.version and chosen.subnet_of(pool)  # type: ignore[arg-type] # same family
        for pool in wish.pools
    )
    first, last = int(chosen.network_address), int(chosen.broadcast_address)
    is_free = wish.taken.blocker(first, last) is None
    return inside and chosen.prefixlen == wish.prefixlen and is_free
