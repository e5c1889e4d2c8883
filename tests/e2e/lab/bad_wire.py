"""A wire that is slow and loses packets. Runs alone, as a script, while ``Host.slow`` lasts.

    python bad_wire.py VETH TAP DELAY_S LOSS

It takes the place of the bridge's port VETH: frames from the host behind VETH are held for
DELAY_S seconds and come out of the new interface TAP, which the caller puts on the bridge, and the
other way round; a share LOSS of them disappears. The kernel's own netem would do, but is not
built into every kernel that CI machines run.

It says ``ready`` when TAP is there, and ends, TAP with it, when its standard input does.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress

# linux/if_tun.h, linux/if_packet.h, linux/if_ether.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 0x01, 0x02, 0x04
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_ETH_P_ALL = 3

# The longest frame that segmentation offload hands over, with both its headers.
_FRAME_BYTES = 1 << 17
# Some 10 s of a busy link of 1,000 frames/s; what comes on top is lost, as in a real queue.
_QUEUE_FRAMES = 10_000


def main() -> None:
    """Carry frames until standard input ends."""
    veth, tap_name, delay_s, loss = sys.argv[1:]
    tap = _open_tap(tap_name)
    port = _open_port(veth)
    print("ready", flush=True)
    _carry(tap, port, float(delay_s), float(loss))


def _open_tap(name: str) -> int:
    """A new interface; frames to it are read from the descriptor, frames written come out of it.

    Frames go with the kernel's offload header, here and at the other end: it is handed through
    as it is, so unfinished checksums and unsegmented frames stay understood.
    """
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(tap, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
    return tap


def _open_port(veth: str) -> int:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    port.bind((veth, _ETH_P_ALL))
    port.setblocking(False)
    return port.detach()


def _carry(tap: int, port: int, delay_s: float, loss: float) -> None:
    # One delay for all, so what came first is due first.
    held: deque[tuple[float, int, bytes]] = deque()
    chance = random.Random()
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        readable, _, _ = select.select([0, tap, port], [], [], wait)
        if 0 in readable and not os.read(0, 1024):
            return
        for source, target in ((tap, port), (port, tap)):
            if source in readable:
                frame = _read(source)
                if frame and len(held) < _QUEUE_FRAMES and chance.random() >= loss:
                    held.append((time.monotonic() + delay_s, target, frame))
        while held and held[0][0] <= time.monotonic():
            _, target, frame = held.popleft()
            _write(target, frame)


def _read(source: int) -> bytes:
    try:
        return os.read(source, _FRAME_BYTES)
    except OSError:  # nothing after all, or the interface is down
        return b""


def _write(target: int, frame: bytes) -> None:
    with suppress(OSError):  # down, or its queue full: a wire loses such frames silently
        os.write(target, frame)


if __name__ == "__main__":
    main()
