"""Routes of the swarm itself: init, join, leave, inspect, update."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..ca import settings
from ..ca.cfssl import ExternalCAFailed, cross_sign_request
from ..ca.issue import fresh_tokens, retire
from ..ca.roots import root_request
from ..ca.signing import externals_of
from ..ca.token import UNLOCK_KEY_BYTES, UnlockKey, parse_unlock_key
from ..ca.x509 import create_root
from ..errors import (
    CertificateRefused,
    FailedPrecondition,
    InvalidArgument,
    NotLocked,
    OutOfSequence,
    SwarmError,
)
from ..model.change import Transaction, Update
from ..model.cluster import JoinTokens, SwarmSpec
from ..model.defaults import merge_init_spec
from ..model.request import InitRequest, JoinRequest, UnlockRequest
from ..model.validate_cluster import check_init_request, check_swarm_spec
from ..node import LocalState
from ..refusals import NotInSwarm
from . import query
from .call import EMPTY, json_reply
from .present import present_swarm
from .write import write

if TYPE_CHECKING:
    from ..manager.manager import Manager
    from ..model.cluster import CAConfig, ClusterPrivate
    from ..model.objects import ClusterRow
    from ..store.view import View
    from ..wire.http1 import Response
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

SECRET_BYTES = 16


async def init(server: ApiServer, call: Call) -> Reply:
    """``POST /swarm/init``"""
    request = call.body(InitRequest)
    check_init_request(request)
    spec = merge_init_spec(request.Spec, autolock=request.AutoLockManagers)
    check_swarm_spec(spec)
    settings.check_founding(spec.CAConfig)
    node = server.node
    if request.ForceNewCluster and not node.is_manager and node.state is not LocalState.INACTIVE:
        server.manager()  # raises why this node is none, and what would help
    return json_reply(await node.init(request, spec))


async def join(server: ApiServer, call: Call) -> Reply:
    """``POST /swarm/join``"""
    await server.node.join(call.body(JoinRequest))
    return EMPTY


async def leave(server: ApiServer, call: Call) -> Reply:
    """``POST /swarm/leave``"""
    await server.node.leave(force=query.flag(call.query.get("force")))
    return EMPTY


async def inspect(server: ApiServer, _call: Call) -> Reply:
    """``GET /swarm``"""
    row = _cluster(await server.manager().read())
    tokens = JoinTokens(Worker=row.private.worker_token, Manager=row.private.manager_token)
    return json_reply(present_swarm(row.api, tokens))


async def update(server: ApiServer, call: Call) -> Reply:
    """``POST /swarm/update``: the settings as a whole, and rotation of join tokens."""
    manager = server.manager()
    version = query.object_version("swarm", call.query.get("version"))
    worker, of_managers, unlock_key = (
        query.strict_flag(name, call.query.get(name))
        for name in ("rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey")
    )
    spec = merge_init_spec(call.body(SwarmSpec))  # here too a zero means the default
    check_swarm_spec(spec)
    if unlock_key and not spec.EncryptionConfig.AutoLockManagers:
        raise FailedPrecondition("the swarm is not locked: there is no unlock key to rotate")
    row = _cluster(await manager.read())
    query.check_sequence(row, version)
    change = settings.judge(row, spec.CAConfig, server.clock.now())
    new_root = await _ask_outside(manager, change, spec.CAConfig, server.clock.now())

    def plan(view: View) -> tuple[Transaction, Response]:
        row, now_ns = _cluster(view), server.clock.now()
        query.check_sequence(row, version)
        rotates = worker or of_managers or unlock_key
        if rotates and version <= row.private.rotated_from:
            raise OutOfSequence  # else a second rotation would retire what the first one printed
        if settings.judge(row, spec.CAConfig, now_ns) != change:
            raise OutOfSequence  # a rotation ended meanwhile: the wish means another thing now
        private = _rotated(row.private, worker=worker, manager=of_managers)
        autolock = spec.EncryptionConfig.AutoLockManagers
        private = _locked(private, autolock=autolock, rotate=unlock_key)
        if rotates:
            private = replace(private, rotated_from=row.api.Version.Index)
        row = replace(row, private=private)
        changed = settings.changed(row, spec, change, new_root, now_ns)
        return Transaction(changes=(Update(row=changed),)), EMPTY

    return await write(manager, call, plan)


async def _ask_outside(
    manager: Manager, change: settings.Change, config: CAConfig, now_ns: int
) -> settings.NewRoot | None:
    """Ask the external CAs what has to be asked before the settings can be changed.

    Returns:
        The root to come, if the settings ask for one.

    Raises:
        InvalidArgument: an external CA is needed and not there.
        SwarmError: the present root's external CA did not vouch for the new root.
    """
    current = change.base[0]
    for word, cert in change.reachable:
        among = externals_of(config, cert, current)
        try:
            await manager.ca.external.first_reachable(among, cert)
        except ExternalCAFailed as error:
            raise InvalidArgument(
                "there must be at least one valid, reachable external CA corresponding to the "
                f"{word} CA certificate ({error})"
            ) from error
    if change.move is not settings.Move.ROTATE:
        return None
    cert, key = settings.new_root_of(change, create_root(now_ns))
    cross_signed = b""
    if change.outside:
        request = cross_sign_request(root_request(cert.encode(), key.encode()))
        among = externals_of(config, current, current)
        try:
            answer = await manager.ca.external.sign(among, request, current)
            cross_signed = settings.accept_cross_signed(answer, cert, current)
        except (ExternalCAFailed, CertificateRefused) as error:
            raise SwarmError(
                f"unable to generate a cross-signed certificate for root rotation: {error}"
            ) from error
    return settings.NewRoot(
        cert=cert,
        key=key,
        worker_secret=secrets.token_bytes(SECRET_BYTES),
        manager_secret=secrets.token_bytes(SECRET_BYTES),
        cross_signed=cross_signed,
    )


async def unlock(server: ApiServer, call: Call) -> Reply:
    """``POST /swarm/unlock``: answers once this manager has begun again.

    Raises:
        NotInSwarm, NotLocked: there is nothing to unlock.
        InvalidUnlockKey: it stays locked.
    """
    request = call.body(UnlockRequest)
    if server.node.state is LocalState.INACTIVE:
        raise NotInSwarm
    if server.node.state is not LocalState.LOCKED:
        raise NotLocked
    await server.node.unlock(parse_unlock_key(request.UnlockKey).key)
    return EMPTY


async def unlock_key(server: ApiServer, _call: Call) -> Reply:
    """``GET /swarm/unlockkey``: empty while autolock is off."""
    key = _cluster(await server.manager().read()).private.unlock_key
    return json_reply(UnlockRequest(UnlockKey=UnlockKey(key).reveal() if key else ""))


def _locked(private: ClusterPrivate, *, autolock: bool, rotate: bool) -> ClusterPrivate:
    """Return the private half with the unlock key that the settings ask for."""
    if not autolock:
        return replace(private, unlock_key=b"")
    if rotate or not private.unlock_key:
        return replace(private, unlock_key=secrets.token_bytes(UNLOCK_KEY_BYTES))
    return private


def _rotated(private: ClusterPrivate, *, worker: bool, manager: bool) -> ClusterPrivate:
    """Return the private half with new tokens; the old ones are remembered to be named as such."""
    if not worker and not manager:
        return private
    fresh_worker, fresh_manager = fresh_tokens(
        private.ca_cert.encode(),
        worker_secret=secrets.token_bytes(SECRET_BYTES),
        manager_secret=secrets.token_bytes(SECRET_BYTES),
    )
    retired = private.retired_tokens
    if worker:
        retired = retire(retired, private.worker_token)
        private = replace(private, worker_token=fresh_worker)
    if manager:
        retired = retire(retired, private.manager_token)
        private = replace(private, manager_token=fresh_manager)
    return replace(private, retired_tokens=retired)


def _cluster(view: View) -> ClusterRow:
    row = view.cluster()
    assert row is not None  # founding made it
    return row


HANDLERS = {
    "init": init,
    "join": join,
    "leave": leave,
    "inspect": inspect,
    "update": update,
    "unlock": unlock,
    "unlock_key": unlock_key,
}
