"""The dispatcher at the edges of its time: many changes at once, and a session that comes late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.clock import TrioClock
from swarmctl.core.dispatcher.server import Dispatcher
from swarmctl.core.errors import NoLeader
from swarmctl.core.model.codec import pack
from swarmctl.core.model.objects import NodeDescription
from swarmctl.core.model.session import SESSION_METHOD, Register
from swarmctl.core.store.store import Store
from swarmctl.core.store.watch import Watch
from swarmctl.core.wire.link import Methods

from .lone_manager import LoneManager
from .memory_network import MemoryNetwork
from .test_link import linked

if TYPE_CHECKING:
    from swarmctl.core.wire.stream import LinkStream

BLOCKED_WITHIN_S = 5.0


async def test_everything_may_change_while_everything_is_looked_at() -> None:
    """More changes than can be listed, again and again: in the end it waits for the next one."""
    watch = Watch()
    dispatcher = Dispatcher(
        view=Store().view,
        watch=watch,
        proposer=None,  # type: ignore[arg-type] # nobody comes, so nothing is written
        leader=None,  # type: ignore[arg-type]
        clock=TrioClock(),
        new_id=lambda: "id",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run)
        await trio.testing.wait_all_tasks_blocked()
        for index in range(1, 10):
            watch.publish_everything(index)
            await trio.lowlevel.checkpoint()
        with trio.fail_after(BLOCKED_WITHIN_S):
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.still
async def test_who_registers_after_the_leaders_time_is_not_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session that began while this manager led, and was not registered, is no session here."""
    cluster = LoneManager(MemoryNetwork(monkeypatch))
    async with cluster.running():
        node = await cluster.admit("w1")
        dispatcher = Dispatcher(
            view=cluster.view,
            watch=cluster.manager.watch,
            proposer=cluster.manager,  # type: ignore[arg-type] # all that it takes of one
            leader=cluster.manager.leader,
            clock=cluster.clock,
            new_id=cluster.new_id,
        )
        streams = {SESSION_METHOD: dispatcher.serve_session}
        async with linked(Methods(streams=streams)) as (link, accepted):
            accepted.peer_certificate_der = node.material.pair.cert_pem
            async with link.open_stream(SESSION_METHOD) as stream:
                async with trio.open_nursery() as leading:
                    leading.start_soon(dispatcher.run)
                    await trio.testing.wait_all_tasks_blocked()
                    leading.cancel_scope.cancel()
                assert isinstance(await answer_to_register(cluster, stream), NoLeader)


async def answer_to_register(cluster: LoneManager, stream: LinkStream) -> bytes | NoLeader:
    answers: list[bytes | NoLeader] = []

    async def register() -> None:
        await stream.send(pack(Register(description=NodeDescription(), instance="one")))
        try:
            answers.append(await stream.receive())
        except NoLeader as refusal:
            answers.append(refusal)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(register)
        await cluster.until(lambda: answers, 10)
    return answers[0]
