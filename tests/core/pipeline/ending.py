"""What must be in the end, once everybody who answers has had all the time: the model's answer.

Given the wishes, the nodes and what happened: which places have a task that runs, which places of a
job are complete, and that nothing else is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.core.pipeline.model import RUNNING, Model, Seen, Service, Wish

if TYPE_CHECKING:
    from collections.abc import Iterator


class Places(NamedTuple):
    """The places of a service.

    Attributes:
        wanted: the tasks that shall run, or complete.
        ready: where one runs.
        settled: where none is wanted any more, surely or perhaps.
        done: complete in the present run.
    """

    wanted: list[Seen]
    ready: set[str]
    settled: set[str]
    done: set[str]


def complaints(model: Model) -> list[str]:
    """Return what is not as it should be."""
    return [*_of_the_gone(model), *(text for key in model.services for text in _of(model, key))]


def _of_the_gone(model: Model) -> Iterator[str]:
    """Of a service that was removed nothing is wanted, and nothing runs where it can be stopped."""
    for task in model.tasks.values():
        gone = task.service not in model.services
        runs = task.number <= RUNNING and not model.is_in_trouble(task)
        if gone and (task.is_wanted or runs):
            yield f"{task} of a service that is gone"


def _of(model: Model, service_id: str) -> Iterator[str]:
    service = model.services[service_id]
    places = _places(model, service_id)
    if service.stopped:
        yield from (f"{task} of a stopped service" for task in places.wanted)
        return
    for task in places.wanted:
        if not _may_stay(model, service, task):
            yield f"{task} is on {model.nodes.get(task.node)}, which {service.wish} forbids"
    if service.wish.is_job:
        yield from _of_job(model, service.wish, places)
    elif service.wish.is_everywhere:
        yield from _of_global(model, service.wish, places)
    else:
        yield from _of_replicated(model, service, places)
    if "paused" not in service.status and _is_whole(model, service.wish, places):
        yield from _of_update(model, service, places)


def _places(model: Model, service_id: str) -> Places:
    service = model.services[service_id]
    tasks = [task for task in model.tasks.values() if task.service == service_id]
    tasks.sort(key=lambda one: (one.made, one.id))
    wanted = [task for task in tasks if task.is_wanted]
    at_work = {task.place for task in wanted}
    last = {task.place: task for task in tasks if task.place not in at_work}
    return Places(
        wanted=wanted,
        ready={task.place for task in wanted if task.is_ready},
        settled={place for place, task in last.items() if model.settled(service, task)},
        done={
            place for key, run, place in model.completed if (key, run) == (service_id, service.run)
        },
    )


def _may_stay(model: Model, service: Service, task: Seen) -> bool:
    """A task is on a node that is there, and that it need not leave.

    Start-first, it leaves a drained one as soon as there is somewhere to go. An active one suits
    it, or while an update has no place to go on to, the wish that it was made of.
    """
    node = model.nodes.get(task.node)
    if not task.node or task.state in ("new", "pending"):
        return True
    if node is None or node.state == "down":
        return False
    if node.availability == "drain":
        return service.wish.overlaps and not model.usable(service.wish)
    zones = (service.wish.zone, service.editions[task.edition].zone)
    return node.availability == "pause" or any(zone in ("", node.zone) for zone in zones)


def _of_replicated(model: Model, service: Service, places: Places) -> Iterator[str]:
    """So many slots are taken. Each has had its turn, or runs if there is a node for it.

    While an update is paused a task may wait for a node that suits a former wish.
    """
    wish, paused = service.wish, "paused" in service.status
    taken = {task.place for task in places.wanted} | places.settled
    if len(taken) != wish.count:
        yield f"{wish} has the slots {sorted(taken)}"
    usable, room = model.usable(wish), wish.count
    if wish.port:  # one a node; one that holds it on a paused node stays there
        held = [task for task in places.wanted if task.is_ready and task.node not in usable]
        room = len(usable) + len(held)
    stuck = [
        task for task in places.wanted if paused and not task.is_ready and _is_former(service, task)
    ]
    placed = wish.count - len(places.settled) - len(stuck)
    if usable and len(places.ready) < min(room, placed):
        yield f"{wish} runs at {places.ready} only, though {usable} are usable"


def _is_former(service: Service, task: Seen) -> bool:
    return service.editions[task.edition].task != service.wish.task


def _of_global(model: Model, wish: Wish, places: Places) -> Iterator[str]:
    """One runs on each node that is fit, none on others; a paused one keeps what it has."""
    for node_id in model.usable(wish):
        if node_id not in places.ready | places.settled:
            yield f"{wish} does not run on {node_id}"
    for task in places.wanted:
        if wish.zone not in ("", model.nodes[task.place].zone):
            yield f"{task} is on {model.nodes[task.place]}, which {wish} forbids"


def _of_job(model: Model, wish: Wish, places: Places) -> Iterator[str]:
    """Each place is complete or has had its turn, and nothing is left to do there."""
    usable = model.usable(wish)
    asked = usable if wish.is_everywhere else [str(number) for number in range(wish.count)]
    left = [place for place in asked if place not in places.done | places.settled]
    if left and usable:
        yield f"{wish} is not complete at {left}"
    for task in places.wanted:
        if task.place in places.done:
            yield f"{task} is at work for what is complete"


def _is_whole(model: Model, wish: Wish, places: Places) -> bool:
    """Return whether nothing that an update could wait for is missing."""
    if wish.is_everywhere:
        return all(place in places.ready | places.settled for place in model.usable(wish))
    whole = len(places.ready) + len(places.settled) == wish.count
    return whole and bool(model.usable(wish))


def _of_update(model: Model, service: Service, places: Places) -> Iterator[str]:
    """An update comes to an end, and then every task is of the present wish."""
    if service.status in ("updating", "rollback_started"):
        yield f"{service.wish} is {service.status} for ever"
    for task in places.wanted:
        node = model.nodes.get(task.node)
        held = service.wish.is_everywhere and node is not None and node.availability == "pause"
        made_of = service.editions[task.edition]
        last = model.at(task.service, task.place)[-1]
        given_up = last.edition == service.edition and model.settled(service, last, beside=True)
        if made_of.image != service.wish.image and not held and not given_up:
            yield f"{task} is of {made_of}, not of {service.wish}"
