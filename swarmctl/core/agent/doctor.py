"""A manager asks a node how its networks are: one call over the link of its session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.base import PrivateStruct
from ..model.codec import pack, unpack
from .network import NodeReport

if TYPE_CHECKING:
    from ..wire.link import Link
    from .networking import Networking

DOCTOR_METHOD = "network-doctor"


class DoctorRequest(PrivateStruct, frozen=True, kw_only=True):
    """What to look at, as in :meth:`~.network.NetworkDriver.doctor`."""

    brief: bool = True
    probe: bool = False


class DoctorAnswer(PrivateStruct, frozen=True, kw_only=True):
    """What a node says, and the name of the driver that says it."""

    driver: str
    report: NodeReport


async def serve_doctor(networking: Networking, body: bytes) -> bytes:
    """Answer on the node.

    Raises:
        Unavailable: nothing carries traffic there.
    """
    request = unpack(body, DoctorRequest)
    report = await networking.doctor(brief=request.brief, probe=request.probe)
    return pack(DoctorAnswer(driver=networking.driver_name, report=report))


async def ask_doctor(link: Link, request: DoctorRequest) -> DoctorAnswer:
    """Ask the node behind a link.

    Raises:
        Unavailable: nothing carries traffic there.
        LinkClosed: the node went away.
    """
    return unpack(await link.call(DOCTOR_METHOD, pack(request)), DoctorAnswer)
