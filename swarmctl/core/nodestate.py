"""What a node is told and what it says of itself: values, for the daemon and the API."""

from __future__ import annotations

from enum import Enum

import msgspec


class LocalState(str, Enum):
    """The API's ``LocalNodeState``."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon tells this node.

    Attributes:
        state_dir: absolute; private to the daemon's user.
        listen_addr, advertise_addr: used when a request names none.
        hostname: "" for the system's.
    """

    state_dir: str
    listen_addr: str = ""
    advertise_addr: str = ""
    hostname: str = ""
    accept_moved_state: bool = False
