"""Why a node does not init, join or leave: in Docker's words, which its clients know."""

from __future__ import annotations

from .errors import FailedPrecondition, NotManager, SwarmError, Unavailable


class AlreadyInSwarm(NotManager):
    """init or join on a node that is in a swarm."""

    def __init__(self) -> None:
        super().__init__(
            'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm '
            "and join another one."
        )


class NotInSwarm(NotManager):
    """leave on a node that is in no swarm."""

    def __init__(self) -> None:
        super().__init__("This node is not part of a swarm")


class BrokenStay(NotManager):
    """leave without force on a node whose state cannot be used."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"This node cannot take part in its swarm: {why}. Use `--force` to leave it without "
            "telling anybody."
        )


class LockedStay(NotManager):
    """leave without force on a locked manager."""

    def __init__(self) -> None:
        super().__init__(
            "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this "
            "message."
        )


class LastManager(NotManager):
    """leave without force on a manager whose leaving ends the swarm."""

    def __init__(self) -> None:
        super().__init__(
            "You are attempting to leave the swarm on a node that is participating as a manager. "
            "Removing the last manager erases all current state of the swarm. Use `--force` to "
            "ignore this message. "
        )


class CannotResign(FailedPrecondition):
    """leave without force on a manager that the others cannot do without, or may not be able to."""

    def __init__(self, why: SwarmError) -> None:
        super().__init__(
            "You are attempting to leave the swarm on a node that is participating as a manager. "
            f"It cannot be let go: {why}. The only way to restore a swarm that has lost consensus "
            "is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this "
            "message."
        )


class HasLeader(FailedPrecondition):
    """init by force on a manager of a swarm that has a leader, hence a majority."""

    def __init__(self) -> None:
        super().__init__(
            "The swarm has a leader, so nothing of it is lost. A new cluster now would lose what "
            "this manager has not heard of yet. `--force-new-cluster` is for a swarm that has lost "
            "most of its managers: stop the others first if this one is to go on alone."
        )


class JoinGoesOn(Unavailable):
    """A join that takes long; Docker's words."""

    def __init__(self) -> None:
        super().__init__(
            "Timeout was reached before node joined. The attempt to join the swarm will continue "
            'in the background. Use the "docker info" command to see the current swarm status of '
            "your node."
        )
