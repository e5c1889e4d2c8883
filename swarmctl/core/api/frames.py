"""Lines of output as Docker's clients take them (docker-api.md section 2.7). Pure.

A frame is eight bytes, ``[stream, 0, 0, 0, length (4)]``, and one line; the output of a terminal
goes without. A line may bear its time and its origin before its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote_plus

from ..model.base import Time
from ..model.duration import format_time

if TYPE_CHECKING:
    from ..model.objects import TaskRow

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3


class Form(NamedTuple):
    """How lines are written.

    Attributes:
        framed: with a head that tells the stream; else bare, with a terminal's line ends.
        timestamps: with their time.
        details: with node, service and task.
    """

    framed: bool
    timestamps: bool
    details: bool

    def piece(self, row: TaskRow, *, at: int, stream: int, text: bytes) -> bytes:
        """Return a line of a task's output, with its line end if it has one, as it is sent."""
        prefix = b""
        if self.timestamps:
            prefix = _nine_digits(at).encode() + b" "
        if self.details:
            prefix += _origin(row).encode() + b" "
        return _frame(stream, prefix + text) if self.framed else prefix + text


def system_frame(text: str) -> bytes:
    """Return what a client takes for the daemon's own error, and ends with."""
    return _frame(SYSTEM_ERROR, text.encode())


def _origin(row: TaskRow) -> str:
    details = {
        "com.docker.swarm.node.id": row.api.NodeID,
        "com.docker.swarm.service.id": row.api.ServiceID,
        "com.docker.swarm.task.id": row.api.ID,
    }
    return ",".join(f"{quote_plus(key)}={quote_plus(details[key])}" for key in sorted(details))


def _frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def _nine_digits(at_ns: int) -> str:
    """Return RFC 3339 with all nine digits, so that lines sort as text."""
    seconds = format_time(Time(at_ns // 1_000_000_000 * 1_000_000_000)).removesuffix("Z")
    return f"{seconds}.{at_ns % 1_000_000_000:09d}Z"
