"""Tables of tasks: ``service ps``, ``node ps``, ``task ls``.

Tasks of one slot stand together, the newest first and the older ones below it with ``\\_``, so that
what a slot went through reads from top to bottom.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, final

from swarmctl.core.model.duration import parse_time

from .api import filters_of, path_to
from .table import (
    FILTER_FLAG,
    FORMAT_FLAG,
    NO_RESOLVE_FLAG,
    NO_TRUNC_FLAG,
    QUIET_FLAG,
    write_list,
)
from .wording import age_of, capitalized, ellipsis, plain_image, short_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .api import Api, Json
    from .command import Invocation

ERROR_WIDTH = 30
HEADERS = {
    "ID": "ID",
    "Name": "NAME",
    "Image": "IMAGE",
    "Node": "NODE",
    "DesiredState": "DESIRED STATE",
    "CurrentState": "CURRENT STATE",
    "Error": "ERROR",
    "Ports": "PORTS",
}
DEFAULT = "\t".join(f"{{{{.{name}}}}}" for name in HEADERS)
PS_FLAGS = (
    FILTER_FLAG,
    FORMAT_FLAG,
    NO_RESOLVE_FLAG,
    NO_TRUNC_FLAG,
    QUIET_FLAG._replace(help="Only display task IDs"),
)


@final
class Names:
    """Names of services and nodes by id, each asked for once.

    Args:
        resolve: False leaves ids as they are, and asks nothing.
    """

    def __init__(self, api: Api, *, resolve: bool) -> None:
        self._api = api
        self._resolve = resolve
        self._known: dict[tuple[str, str], str] = {}
        self._jobs: set[str] = set()

    def service(self, service_id: str) -> str:
        """Return a service's name, or its id where it is gone."""
        return self._name("services", service_id)

    def has_numbers(self, service_id: str) -> bool:
        """Return whether a service whose name was asked for is a job with numbered slots."""
        return service_id in self._jobs

    def node(self, node_id: str) -> str:
        """Return a node's name, else its hostname, or its id where it is gone."""
        return self._name("nodes", node_id)

    def _name(self, kind: str, object_id: str) -> str:
        if not object_id or not self._resolve:
            return object_id
        key = (kind, object_id)
        if key not in self._known:
            found = self._api.find(path_to(kind, object_id))
            self._known[key] = _name_of(found) or object_id
            if found is not None and "ReplicatedJob" in (found["Spec"].get("Mode") or {}):
                self._jobs.add(object_id)
        return self._known[key]


def _name_of(found: Json | None) -> str:
    if found is None:
        return ""
    name: str = found["Spec"].get("Name") or (found.get("Description") or {}).get("Hostname", "")
    return name


def write_tasks(call: Invocation, tasks: Iterable[Json], *, whole_ids: bool = False) -> None:
    """Print tasks as the flags of ``ps`` ask.

    Args:
        whole_ids: do not shorten, as with ``--no-trunc``.

    Raises:
        SwarmError: a name could not be asked for; or the format is wrong.
    """
    given = call.given
    form = given.text("format")
    only_ids = given.is_set("quiet") and form in ("", "table")
    names = Names(call.api, resolve=not given.is_set("no-resolve") and not only_ids)
    rows = task_rows(
        tasks,
        names,
        now_ns=time.time_ns(),
        whole=whole_ids or given.is_set("no-trunc"),
        indent=form in ("", "table") or form.startswith("table "),
    )
    write_list(rows, HEADERS, DEFAULT, asked=form, quiet=given.is_set("quiet"))


def find_tasks(api: Api, filters: dict[str, list[str]]) -> list[Json]:
    """Return the tasks that match.

    Raises:
        DaemonError: a filter that the daemon does not know, or a service that is not there.
    """
    found: list[Json] = api.get("/tasks", filters_of(filters))
    return found


def task_rows(
    tasks: Iterable[Json], names: Names, *, now_ns: int, whole: bool, indent: bool
) -> Iterator[dict[str, Any]]:
    """Yield a row for each task, in the order of the table.

    Args:
        whole: ids, images and errors are not shortened.
        indent: mark the older tasks of a slot.
    """
    named = [(_slot_name(task, names), task) for task in tasks]
    # two sorts, both stable: by slot, and within a slot the newest first
    named.sort(key=lambda pair: parse_time(pair[1]["CreatedAt"]), reverse=True)
    named.sort(key=lambda pair: natural(pair[0]))
    before = None
    for name, task in named:
        status = task["Status"]
        shown = f" \\_ {name}" if indent and name == before else name
        before = name
        yield {
            "ID": task["ID"] if whole else short_id(task["ID"]),
            "Name": shown,
            "Image": _image(task, whole=whole),
            "Node": names.node(task.get("NodeID", "")),
            "DesiredState": capitalized(task["DesiredState"]),
            "CurrentState": f"{capitalized(status['State'])} "
            f"{age_of(parse_time(status['Timestamp']), now_ns)}",
            "Error": _error(status.get("Err", ""), whole=whole),
            "Ports": _ports((status.get("PortStatus") or {}).get("Ports") or ()),
        }


def _slot_name(task: Json, names: Names) -> str:
    service_id = task.get("ServiceID", "")
    name = names.service(service_id)
    # A job's first slot is 0, which Docker's API leaves out as it does where there is none.
    first = "0" if names.has_numbers(service_id) else ""
    return f"{name}.{task.get('Slot') or first or task.get('NodeID', '')}"


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts ``web.2`` before ``web.10``."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _image(task: Json, *, whole: bool) -> str:
    image: str = (task["Spec"].get("ContainerSpec") or {}).get("Image", "")
    return image if whole else plain_image(image)


def _error(text: str, *, whole: bool) -> str:
    if not text:
        return ""
    return f'"{text}"' if whole else f'"{ellipsis(text, ERROR_WIDTH)}"'


def _ports(ports: Iterable[Json]) -> str:
    return ",".join(
        f"*:{port.get('PublishedPort', 0)}->{port.get('TargetPort', 0)}/{port.get('Protocol', '')}"
        for port in ports
    )
