"""An open-loop HTTP client. Runs alone, in the network namespace where the requests begin.

    python open_loop.py --rate 200 [--keep-alive] [--path /] [--resolver IP] HOST:PORT...

Asks one target after the other, at fixed times, whether or not earlier requests were answered, and
counts how long one took from the time at which it was due: a server that stands still is seen with
all that it makes wait. Each request has a connection of its own, or with ``--keep-alive`` the one
that has been idle for longest. Nothing is tried again. A target's name is looked up each time.

Says ``asking`` when it begins, goes on until its standard input ends, waits for the answers that
are due, and prints them: for each request [due, seconds, target, answer, error], the times those of
the machine's monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import struct
import sys
import time
from collections import deque

ANSWER_S = 10.0
"""Who has no answer after so long has none."""
_RESOLVER_PORT = 53


class Asker:
    """Makes requests and notes what became of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.done: list[tuple[float, float, str, str, str]] = []
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, deque[socket.socket]] = {target: deque() for target in options.target}
        how = "keep-alive" if options.keep_alive else "close"
        self._head = f"GET {options.path} HTTP/1.1\r\nHost: web\r\nConnection: {how}\r\n\r\n"

    async def run(self) -> None:
        """Ask until standard input ends."""
        over = asyncio.Event()
        self._loop.add_reader(sys.stdin, over.set)
        asking: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        print("asking", flush=True)
        number = 0
        while not over.is_set():
            due = began + number / self._options.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            target = self._options.target[number % len(self._options.target)]
            task = asyncio.create_task(self._note(due, target))
            asking.add(task)
            task.add_done_callback(asking.discard)
            number += 1
        if asking:
            await asyncio.wait(asking)

    async def _note(self, due: float, target: str) -> None:
        answer = error = ""
        story: list[str] = []
        try:
            answer = await asyncio.wait_for(self._ask(target, story), ANSWER_S)
        except asyncio.TimeoutError:
            error = f"no answer; {', '.join(story) or 'not connected'}"
        except (OSError, ValueError) as problem:
            error = str(problem) or type(problem).__name__
        self.done.append((due, time.monotonic() - due, target, answer, error))

    async def _ask(self, target: str, story: list[str]) -> str:
        """Ask once; what happens is told in ``story``."""
        idle = self._idle[target]
        client = idle.popleft() if idle else await self._connect(target)
        story.append(f"connected from port {client.getsockname()[1]}")
        keep = False
        try:
            await self._loop.sock_sendall(client, self._head.encode())
            head, body = await self._read(client)
            keep = self._options.keep_alive and b"connection: close" not in head.lower()
        finally:
            if keep:
                idle.append(client)
            else:
                client.close()
        return body.decode().strip()

    async def _read(self, client: socket.socket) -> tuple[bytes, bytes]:
        """The head and the body of one answer.

        Raises:
            ValueError: it is no whole answer of status 200.
        """
        data = b""
        while True:
            more = await self._loop.sock_recv(client, 4096)
            if not more:
                raise ValueError(f"the connection ended after {len(data)} bytes")
            data += more
            head, found, body = data.partition(b"\r\n\r\n")
            if not found:
                continue
            if not head.startswith(b"HTTP/1.1 200"):
                raise ValueError(head.partition(b"\r\n")[0].decode())
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            if len(body) == int(length):
                return head, body

    async def _connect(self, target: str) -> socket.socket:
        host, _, port = target.rpartition(":")
        address = await self._look_up(host) if self._options.resolver else host
        client = socket.socket()
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(client, (address, int(port)))
        except BaseException:
            client.close()
            raise
        return client

    async def _look_up(self, name: str) -> str:
        """The first address that the resolver gives for a name; nothing is remembered.

        Raises:
            ValueError: it gives none.
        """
        number = os.urandom(2)
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        question = number + struct.pack("!5H", 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.setblocking(False)
            asked.connect((self._options.resolver, _RESOLVER_PORT))
            await self._loop.sock_sendall(asked, question)
            answer = await self._loop.sock_recv(asked, 4096)
        if not struct.unpack("!H", answer[6:8])[0]:
            raise ValueError(f"no address of {name}: code {answer[3] & 15}")
        # The first record: a name (whole, or a pointer to it), type, class, time to live, length,
        # the address.
        at = len(question)
        while 0 < answer[at] < 0xC0:
            at += 1 + answer[at]
        at += (2 if answer[at] else 1) + 10
        return socket.inet_ntoa(answer[at : at + 4])


async def _ask_all(options: argparse.Namespace) -> None:
    asker = Asker(options)
    await asker.run()
    json.dump(asker.done, sys.stdout)


def main() -> None:
    """Ask, and print what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="+", metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--path", default="/")
    parser.add_argument("--keep-alive", action="store_true")
    parser.add_argument("--resolver", metavar="IP", help="looks up the targets' names")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_ask_all(parser.parse_args()))


if __name__ == "__main__":
    main()
