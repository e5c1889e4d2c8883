"""The agent: worker, reporter and session put together, and what managers may ask of this node.

    run
    ├ task table           what survives this daemon
    ├ network              the network driver, and what it was told
    ├ worker               a runner for each task
    ├ sampler              what the tasks use, every five seconds
    └ session              one connection to a dispatcher

It hangs off another branch than the manager and outlives any trouble there.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..clock import new_id
from ..errors import NotFound, SwarmError
from ..model.cluster import TLSInfo
from ..model.objects import NodeDescription
from ..model.session import Carriage, NodeNews, Register
from ..wire.link import Methods
from . import disk
from .doctor import DOCTOR_METHOD, serve_doctor
from .logs import LOGS_METHOD, serve_logs
from .networking import Networking
from .presence import at_work
from .reporter import Reporter
from .sampler import SAMPLES_METHOD, Sampler
from .session import Session
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..ca.credentials import Credentials
    from ..clock import Clock
    from ..model.base import Platform
    from ..wire.link import Link
    from ..wire.stream import LinkStream
    from .executor import Executor, NodeIdentity
    from .network import NetworkDriver

DESCRIBE_S = 5.0
LEAVE_S = 4.0
"""For the farewell of a node that goes, and for the others to know: ``dispatcher/drain.py``."""

log = logging.getLogger(__name__)


class Agent:
    """This node's agent.

    Args:
        driver: carries the tasks' traffic; None for nothing that does.
        advertise_addr: tells where the node says it is, ``host:port``; asked for each session.
        data_path_addr: where other nodes reach it below the overlays; "" for where it is seen.
            Asked for each session, too.
        managers: addresses to dial, the best first.
        on_news: told what a manager says beyond tasks.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        executor: Executor,
        driver: NetworkDriver | None = None,
        identity: NodeIdentity,
        advertise_addr: Callable[[], Awaitable[str]],
        data_path_addr: Callable[[], str] = str,
        managers: Callable[[], Sequence[str]],
        on_news: Callable[[NodeNews], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._credentials = credentials
        self._executor = executor
        self._driver = driver
        self._data_path_addr = data_path_addr
        self._networking: Networking | None = None
        self._identity = identity
        self._advertise_addr = advertise_addr
        self._instance = new_id()
        self._description = NodeDescription(Hostname=identity.hostname)
        self._reporter = Reporter()
        self._state_dir = Path(identity.state_dir)
        self._managers = managers
        self._on_news = on_news
        self._clock = clock
        self._worker: Worker | None = None
        self._session: Session | None = None
        self.warnings: tuple[str, ...] = ()

    @property
    def description(self) -> NodeDescription:
        """What this node last said of itself."""
        return self._description

    @property
    def manager(self) -> str:
        """Address of the manager in session, or empty."""
        return self._session.manager if self._session is not None else ""

    @property
    def error(self) -> str:
        """Why there is no session, or empty."""
        return self._session.error if self._session is not None else ""

    @property
    def network_warning(self) -> str:
        """What does not work of this node's networks, in a sentence; else empty."""
        return self._networking.warning if self._networking is not None else ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be this node's agent until cancelled. Tasks keep running then."""
        with at_work(self._identity.node_id):
            await self._run(task_status)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        table, remembered = await trio.to_thread.run_sync(disk.open_task_table, self._state_dir)
        networking = Networking(self._driver, table, self._executor)
        worker = Worker(
            self._executor, self._identity, table, self._reporter, self._clock, networking
        )
        sampler = Sampler(self._executor, worker.running)
        session = Session(
            credentials=self._credentials,
            worker=worker,
            reporter=self._reporter,
            managers=self._managers,
            describe=self._register,
            on_news=self._on_news,
            sampler=sampler,
            methods=Methods(
                streams={LOGS_METHOD: self._serve_logs, SAMPLES_METHOD: sampler.serve_window},
                calls={DOCTOR_METHOD: self._serve_doctor},
            ),
            networking=networking,
        )
        self._worker, self._session, self._networking = worker, session, networking
        remembers = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            await nursery.start(_run_within, remembers, table.run)
            # It writes what the others put at their end. Not before: cancelled while it starts,
            # it would never be told.
            remembers.shield = True
            try:
                async with trio.open_nursery() as inner:
                    inner.start_soon(networking.run, self._identity, name="network")
                    await networking.wait_settled()
                    await inner.start(worker.run, remembered)
                    inner.start_soon(sampler.run, name="sampler")
                    inner.start_soon(session.run, name="session")
                    task_status.started()
            finally:
                remembers.cancel()

    async def leave(self) -> None:
        """Stop and remove all of this node's tasks; returns when they are gone.

        The dispatcher is told first, so that nothing new is placed here meanwhile; it answers once
        nobody sends those tasks anything new.
        """
        if self._session is not None:
            with trio.move_on_after(LEAVE_S):
                await self._session.say_farewell(0)
        if self._worker is not None:
            await self._worker.leave()
        if self._networking is not None:
            await self._networking.remove_all()

    @staticmethod
    def forget(state_dir: Path) -> None:
        """Remove what an agent keeps on disk; blocking."""
        shutil.rmtree(state_dir / disk.DIRECTORY, ignore_errors=True)

    # --- what the session asks ---

    async def _register(self) -> Register:
        """Describe this node; when the executor cannot, as it was last, and say so."""
        can_run, warning = True, ""
        bug: Exception | None = None
        try:
            with trio.fail_after(DESCRIBE_S):
                described = await self._executor.describe()
            self._description = self._with_trust(described.node)
            self.warnings = described.warnings
            self._tell_platform(described.node.Platform)
        except (SwarmError, trio.TooSlowError) as error:
            why = f"{error}" if isinstance(error, SwarmError) else f"no word in {DESCRIBE_S:g} s"
            can_run, warning = False, f"the {self._executor.name} engine does not answer: {why}"
        except Exception as error:  # of the executor: the tasks go on
            log.exception("the executor failed to describe this node")
            bug = error
        if bug is not None:
            can_run, warning = False, f"the {self._executor.name} executor has a bug: {bug!r}"
        carriage = Carriage()
        if self._networking is not None:
            warning = "; ".join(text for text in (warning, self.network_warning) if text)
            carriage = Carriage(
                driver=self._networking.driver_name,
                host_network=self._networking.host_network,
                data_path_addr=self._data_path_addr(),
            )
        return Register(
            description=self._description,
            can_run=can_run,
            instance=self._instance,
            advertise_addr=await self._advertise_addr(),
            warning=warning,
            carriage=carriage,
        )

    def _tell_platform(self, platform: Platform) -> None:
        if self._worker is not None and platform.OS:
            self._worker.platform = (platform.OS, platform.Architecture)

    def _with_trust(self, description: NodeDescription) -> NodeDescription:
        trust = self._credentials.trust_info()
        tls = TLSInfo(
            TrustRoot=trust.trust_root,
            CertIssuerSubject=trust.issuer_subject,
            CertIssuerPublicKey=trust.issuer_public_key,
        )
        return replace(description, Hostname=self._identity.hostname, TLSInfo=tls)

    async def _serve_logs(self, _link: Link, stream: LinkStream) -> None:
        if self._worker is None:
            raise NotFound("this node runs no tasks yet")
        await serve_logs(self._worker, stream, self._clock)

    async def _serve_doctor(self, _link: Link, body: bytes) -> bytes:
        if self._networking is None:
            raise NotFound("this node carries no traffic yet")
        return await serve_doctor(self._networking, body)


async def _run_within(
    scope: trio.CancelScope,
    run: Callable[..., Awaitable[None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with scope:
        await run(task_status=task_status)
