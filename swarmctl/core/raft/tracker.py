"""All members as one member sees them: configuration, progress of each, votes received.

Laws
- There is a Progress for exactly the members; iteration is in rising id order, so that two runs
  with the same input send the same messages in the same order.

It must not know: terms, messages, the log.
"""

from __future__ import annotations

from swarmctl.core.raft.confchange import Configuration
from swarmctl.core.raft.progress import Inflights, Progress
from swarmctl.core.raft.quorum import Vote, joint_vote_result, quorum_index


class Tracker:
    def __init__(self, *, max_inflight_messages: int, max_inflight_bytes: int) -> None:
        self._window = (max_inflight_messages, max_inflight_bytes)
        self.configuration = Configuration()
        self.progress: dict[int, Progress] = {}
        self._votes: dict[int, bool] = {}

    def switch_to(
        self, configuration: Configuration, fresh: frozenset[int], last_index: int
    ) -> None:
        """Take over a configuration. Members keep their progress, ``fresh`` ones start anew.

        A new member counts as active, or CheckQuorum might depose the leader before it could
        answer; it is first probed at ``last_index``.
        """
        old = self.progress
        learners = configuration.learners
        self.configuration = configuration
        self.progress = {}
        for node in sorted(configuration.members):
            progress = None if node in fresh else old.get(node)
            if progress is None:
                progress = Progress(
                    match=0,
                    next_index=max(last_index, 1),
                    inflights=Inflights(*self._window),
                    learner=node in learners,
                    active=True,
                )
            progress.learner = node in learners
            self.progress[node] = progress

    def reset(self, own_id: int, last_index: int) -> None:
        """Know nothing about anybody's log but our own, and no votes: a new term or role."""
        self._votes = {}
        for node, progress in self.progress.items():
            self.progress[node] = Progress(
                match=last_index if node == own_id else 0,
                next_index=last_index + 1,
                inflights=Inflights(*self._window),
                learner=progress.learner,
                active=False,
            )

    def committed(self) -> int:
        """The largest index that a quorum (of both halves, if joint) has in its log."""
        progress = self.progress
        configuration = self.configuration
        index = quorum_index([progress[voter].match for voter in configuration.voters])
        if configuration.outgoing:
            outgoing = quorum_index([progress[voter].match for voter in configuration.outgoing])
            index = min(index, outgoing)
        return index

    def quorum_active(self) -> bool:
        """Has a quorum answered lately? Learners do not count: they decide nothing."""
        active = {node: each.recently_active for node, each in self.progress.items()}
        return self._tally(active) is Vote.WON

    def record_vote(self, node: int, *, granted: bool) -> None:
        """The first answer of a node counts; what it says later in the same ballot does not."""
        self._votes.setdefault(node, granted)

    def tally(self) -> Vote:
        return self._tally(self._votes)

    def clear_votes(self) -> None:
        self._votes = {}

    def _tally(self, votes: dict[int, bool]) -> Vote:
        return joint_vote_result(self.configuration.voters, self.configuration.outgoing, votes)
