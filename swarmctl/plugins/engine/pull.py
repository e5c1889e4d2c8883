"""Images: when a task pulls, how long it waits for it, and what a failed pull means.

Swarm's rule is that a task always tries to pull, and that a failed pull matters only when the image
is not there either. Followed to the letter, a registry that does not answer would cost every
replacement of a container seconds. So:

- a digest or image id that is here already is never pulled;
- tasks that want the same image at the same time share one pull;
- an image that was pulled, or tried, within the last minute is not tried again;
- neither is one that this very spec was already resolved with on this node: replicas of one spec
  run the same image, and ``--force`` makes another spec;
- with the image at hand, the other pulls and the registry have a few seconds each.

A skipped pull is made up for when the engine then says that the image is missing.
"""

from __future__ import annotations

import logging
import math
import re
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable

from .calls import Refused, quoted, unless_refused
from .line import Answer

if TYPE_CHECKING:
    from .calls import Engine
    from .dialect import PullRequest
    from .line import Line

logger = logging.getLogger(__name__)

FRESH_S = 60.0
FIRST_ANSWER_S = 10.0  # from a registry, when the image is here already
SILENCE_S = 300.0  # verifying and unpacking a large layer shows no progress
MAX_REMEMBERED = 1000

_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")


class Wanted(NamedTuple):
    """An image for one task.

    Attributes:
        image: as the spec names it.
        auth: value for ``X-Registry-Auth``, or "".
        spec_key: the same for all tasks of one spec of one service.
    """

    image: str
    auth: str
    spec_key: bytes


class _Remembered:
    """What happened to one image, and who pulls it now."""

    def __init__(self) -> None:
        self.pulling = trio.Lock()
        self.tried_at = float("-inf")


class Images:
    """Pulls on behalf of all tasks of one engine."""

    def __init__(self, engine: Engine, *, pulls: int) -> None:
        self._engine = engine
        self._places = trio.CapacityLimiter(pulls)
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._resolved: OrderedDict[bytes, None] = OrderedDict()

    async def try_pull(self, wanted: Wanted, *, even_if_fresh: bool = False) -> str | None:
        """Bring the engine's copy up to date, where that is called for.

        Args:
            even_if_fresh: the image turned out to be missing, so no earlier try counts.

        Returns:
            Why the pull failed, in the engine's words, "" when it went well, None when it was
            skipped. Only the container's creation tells whether a failure matters.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        if _IMAGE_ID.fullmatch(wanted.image):
            return None
        known = self._remember(wanted)
        async with known.pulling:
            age_s = trio.current_time() - known.tried_at
            is_known = age_s < FRESH_S or wanted.spec_key in self._resolved
            if is_known and not even_if_fresh:
                return None
            is_here = await self._is_here(wanted.image)
            if is_here and "@" in wanted.image:
                return None
            failure = await self._pull_in_turn(wanted, patient=not is_here)
            known.tried_at = trio.current_time()
        if failure:
            logger.warning("pulling %s failed: %s", wanted.image, failure)
        return failure

    def resolved(self, wanted: Wanted) -> None:
        """Note that a container was created from the image: it is here."""
        self._resolved[wanted.spec_key] = None
        if len(self._resolved) > MAX_REMEMBERED:
            self._resolved.popitem(last=False)

    async def _is_here(self, image: str) -> bool:
        try:
            name = quoted(self._engine.dialect.image_name(image))
            await self._engine.get(f"/images/{name}/json")
        except Refused as error:
            if error.status == 404:
                return False
            raise EngineUnavailable(f"the engine cannot look for {image}: {error}") from error
        return True

    async def _pull_in_turn(self, wanted: Wanted, *, patient: bool) -> str:
        """Pull when there is a place for it. Returns the failure, "" for none."""
        with trio.move_on_after(math.inf if patient else FIRST_ANSWER_S) as turn:
            await self._places.acquire()
        if turn.cancelled_caught:
            return "other pulls take too long"
        try:
            return await self._pull(wanted, SILENCE_S if patient else FIRST_ANSWER_S)
        finally:
            self._places.release()

    async def _pull(self, wanted: Wanted, first_answer_s: float) -> str:
        """Pull; a registry that stays silent has failed. Returns the failure, "" for none."""
        work = partial(
            _pull_in_thread,
            request=self._engine.dialect.pull(wanted.image),
            auth=wanted.auth,
            prefix=await self._engine.prefix(),
            first_answer_s=first_answer_s,
        )
        try:
            answer = await self._engine.call(work, self._engine.unlimited)
        except Refused as error:
            return str(error)
        except EngineUnavailable:
            # An engine that waits for its registry is silent too. Asking it something else tells.
            await self._engine.get("/version")
            return f"the registry has not answered within {first_answer_s:g} s"
        return answer.body.decode(errors="replace")

    def _remember(self, wanted: Wanted) -> _Remembered:
        key = (wanted.image, wanted.auth)
        known = self._remembered.setdefault(key, _Remembered())
        self._remembered.move_to_end(key)
        while len(self._remembered) > MAX_REMEMBERED:
            oldest = next(iter(self._remembered))
            if self._remembered[oldest].pulling.locked():
                break
            del self._remembered[oldest]
        return known


def _pull_in_thread(
    line: Line, *, request: PullRequest, auth: str, prefix: str, first_answer_s: float
) -> Answer:
    """Pull and read the progress to its end; the answer's body is the failure, empty for none."""
    answer = unless_refused(
        line.ask(
            "POST",
            prefix + request.path,
            query=request.query,
            headers={"X-Registry-Auth": auth} if auth else {},
            patience_s=first_answer_s,
            stream=True,
        )
    )
    line.be_patient(first_answer_s)
    failure, rest = "", b""
    for chunk in answer.chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        if any(request.asking not in row for row in complete):
            line.be_patient(SILENCE_S)
        for row in complete:
            failure = _failure_in(row) or failure
    return Answer(200, {}, (_failure_in(rest) or failure).encode(), iter(()))


def _failure_in(row: bytes) -> str:
    """The error that a line of progress tells, if any."""
    if b'"error' not in row:
        return ""
    try:
        said = msgspec.json.decode(row)
    except msgspec.DecodeError:
        return ""
    return str(said.get("error") or said.get("errorDetail", {}).get("message", ""))
