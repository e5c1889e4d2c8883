"""One member of a cluster that is nothing but the product's Raft: runner, disk, transport, mTLS.

The state machine is a dictionary. Clients put over links in plain text, members talk over mTLS.
Puts of one moment share an entry, as transactions do in the product. Run by ``raft_alone``, three
times.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks.closed_loop import KEY_BYTES, VALUE_BYTES
from swarmctl.core.manager.state import APPLY_BYTES_MAX, UNCOMMITTED_BYTES_MAX
from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.disk import open_disk
from swarmctl.core.raft.message import ConfState, Snapshot
from swarmctl.core.raft.raft import Raft
from swarmctl.core.raft.runner import Runner
from swarmctl.core.raft.transport import SNAPSHOT, Transport
from swarmctl.core.wire import connect, tls
from swarmctl.core.wire.link import Methods

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from swarmctl.core.raft.waiting import Proposal
    from swarmctl.core.wire.link import Link

HOST = "localhost"
ITEM_BYTES = KEY_BYTES + VALUE_BYTES
_FOUNDED = 1


class Table:
    """The state machine: keys and values."""

    def __init__(self, items: Iterable[bytes] = ()) -> None:
        self._items = {item[:KEY_BYTES]: item for item in items}

    def apply(self, index: int, data: bytes) -> object:
        """Put the items of one entry; their proposers get the index."""
        for place in range(0, len(data), ITEM_BYTES):
            item = data[place : place + ITEM_BYTES]
            self._items[item[:KEY_BYTES]] = item
        return index

    def skip(self, index: int) -> None:
        """Nothing is kept by index here."""

    def dump(self) -> Iterable[bytes]:
        """All items."""
        return list(self._items.values())

    def receive(self) -> Incoming:
        """Take in another member's items."""
        return Incoming(self)

    def replace(self, items: list[bytes]) -> None:
        """Have other items from now on."""
        self._items = {item[:KEY_BYTES]: item for item in items}


class Incoming:
    """Another member's items on their way in."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._items: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        """Take the next item."""
        self._items.append(chunk)

    def install(self) -> None:
        """Put them in the place of the table's."""
        self._table.replace(self._items)


class _Batch:
    """Puts that share one entry, and the entry's fate once it is proposed."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.proposal: Proposal | None = None


class Member:
    """One member: ``number`` of 1 to len(ports), which listens on its place of ``ports``."""

    def __init__(self, number: int, directory: Path, ports: list[int], keys: Path) -> None:
        self._number = number
        self._ports = ports
        self._trust = (keys / "root.pem").read_text()
        self._certificate = (keys / "node.pem").read_text()
        self._key = (keys / "node.key").read_text()
        disk = open_disk(
            directory / "raft.db", owner=f"bench/{number}", key_encryption_key=bytes(32)
        )
        if disk.is_new():
            voters = tuple(range(1, len(ports) + 1))
            disk.bootstrap(Snapshot(_FOUNDED, _FOUNDED, ConfState(voters)))
        table = Table(disk.read_chunks())
        disk.load()
        snapshot = disk.log.snapshot()
        config = RaftConfig(
            applied=snapshot.index if snapshot is not None else 0,
            max_committed_size=APPLY_BYTES_MAX,
            max_uncommitted_size=UNCOMMITTED_BYTES_MAX,
        )
        raft = Raft(number, disk.log, config, random.Random(number))
        self._batch = _Batch()
        self._transport = Transport(self._dial, disk, lambda: None)
        self._runner = Runner(raft, disk, table, self._transport.send)
        self._transport.serve(self._runner)
        self._transport.set_peers(
            {
                member: f"{HOST}:{port}"
                for member, port in enumerate(ports, start=1)
                if member != number
            }
        )

    async def run(self, client_port: int) -> None:
        """Take part, and serve clients, until killed."""
        members = await trio.open_tcp_listeners(self._ports[self._number - 1], host="127.0.0.1")
        clients = await trio.open_tcp_listeners(client_port, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            await nursery.start(self._runner.run)
            nursery.start_soon(self._transport.run)
            await nursery.start(
                connect.serve_links, members, self._server_context, self._meet_member
            )
            await nursery.start(connect.serve_links, clients, lambda: None, self._meet_client)

    async def _dial(self, address: str) -> Link:
        context = tls.client_context(self._trust)
        connect.present_identity(context, self._certificate, self._key)
        host, _, port = address.rpartition(":")
        return await connect.dial(host, int(port), context, server_hostname=HOST)

    def _server_context(self) -> ssl.SSLContext:
        context = tls.server_context(self._trust)
        connect.present_identity(context, self._certificate, self._key)
        return context

    async def _meet_member(self, link: Link) -> None:
        await link.run(
            Methods(
                messages=self._transport.messages(),
                streams={SNAPSHOT: self._transport.serve_snapshot},
            )
        )

    async def _meet_client(self, link: Link) -> None:
        await link.run(Methods(calls={"put": self._put, "leads": self._leads}))

    async def _put(self, _link: Link, body: bytes) -> bytes:
        """Answers when a majority has it on disk and it is applied here."""
        batch = self._batch
        batch.items.append(body)
        await trio.lowlevel.checkpoint()  # the others of this moment may join
        if batch.proposal is None:
            self._batch = _Batch()
            batch.proposal = self._runner.propose(b"".join(batch.items))
        await batch.proposal.wait()
        return b""

    async def _leads(self, _link: Link, _body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"yes" if self._runner.leading else b""


def main() -> None:
    """Run one member."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.raft_node")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--ports", required=True, help="of all members, by number")
    parser.add_argument("--client-port", type=int, required=True)
    parser.add_argument("--keys", type=Path, required=True, help="root.pem, node.pem, node.key")
    wanted = parser.parse_args()
    ports = [int(port) for port in wanted.ports.split(",")]
    member = Member(wanted.number, wanted.dir, ports, wanted.keys)
    trio.run(member.run, wanted.client_port)


if __name__ == "__main__":
    main()
