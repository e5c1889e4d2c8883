"""What a task of the executor that pretends will do, and how that is said.

By variables in its environment, ``SWARMCTL_NULL_EXIT_AFTER=2s``, or by container labels,
``swarmctl.x.null.exit-after=2s``:

| name            | meaning                                                          | default |
|-----------------|------------------------------------------------------------------|---------|
| prepare-after   | how long prepare takes                                           | 0s      |
| prepare-error   | prepare fails with this text                                     |         |
| start-after     | how long start takes                                             | 0s      |
| start-error     | start fails with this text                                       |         |
| healthy-after   | start returns once the task is healthy, this long after it runs  |         |
| unhealthy-after | the task is stopped as unhealthy, this long after it runs        |         |
| exit-after      | it ends by itself, this long after it runs                       | never   |
| exit-code       | with this code                                                   | 0       |
| exit-error      | and this text                                                    |         |
| stop-after      | how long it takes to obey its stop signal                        | 0s      |
| output          | what it prints on stdout when it starts, lines apart by ``\\n``  |         |
| error-output    | the same on stderr                                               |         |
| output-every    | it prints both again so often, with a number after each line     | never   |
| cpu             | how many processors it keeps busy                                | 0       |
| memory          | how many bytes it uses                                           | 0       |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swarmctl.core.errors import InvalidArgument
from swarmctl.core.model.duration import parse_duration
from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import NANOSECONDS_PER_SECOND

if TYPE_CHECKING:
    from swarmctl.plugins.model import ContainerSpec

VARIABLE_PREFIX = "SWARMCTL_NULL_"
LABEL_PREFIX = "swarmctl.x.null."
# The executor and the network driver that pretend have one name, and so one table of settings.
EXECUTOR_OPTIONS = {"cpus", "memory"}
DRIVER_OPTIONS = {"delay"}


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What a task will do; durations in seconds, None for never."""

    prepare_after: float = 0.0
    prepare_error: str = ""
    start_after: float = 0.0
    start_error: str = ""
    healthy_after: float | None = None
    unhealthy_after: float | None = None
    exit_after: float | None = None
    exit_code: int = 0
    exit_error: str = ""
    stop_after: float = 0.0
    output: str = ""
    error_output: str = ""
    output_every: float | None = None
    cpu: float = 0.0
    memory: int = 0


def read_behaviour(spec: ContainerSpec) -> Behaviour:
    """Return what a spec's variables and labels say; variables win.

    Raises:
        ExecutorError: a name or value that means nothing.
    """
    said = {
        name.removeprefix(LABEL_PREFIX): value
        for name, value in spec.Labels.items()
        if name.startswith(LABEL_PREFIX)
    }
    for entry in spec.Env:
        name, _, value = entry.partition("=")
        if name.startswith(VARIABLE_PREFIX):
            said[name.removeprefix(VARIABLE_PREFIX).lower().replace("_", "-")] = value
    fields = {}
    for name, value in said.items():
        field = name.replace("-", "_")
        if field not in Behaviour.__struct_fields__:
            known = ", ".join(one.replace("_", "-") for one in Behaviour.__struct_fields__)
            raise ExecutorError(f'the null executor knows no behaviour "{name}"; it knows {known}')
        fields[field] = _seconds(name, value) if name.endswith(("-after", "-every")) else value
    try:
        return msgspec.convert(fields, Behaviour, strict=False)
    except msgspec.ValidationError as error:
        raise ExecutorError(f"a behaviour of the null executor: {error}") from error


def _seconds(name: str, text: str) -> float:
    try:
        nanoseconds = parse_duration(text)
    except (ValueError, InvalidArgument) as error:
        raise ExecutorError(f'{name} "{text}": must be a duration such as 2s or 500ms') from error
    if nanoseconds < 0:
        raise ExecutorError(f'{name} "{text}": must not be negative')
    return nanoseconds / NANOSECONDS_PER_SECOND
