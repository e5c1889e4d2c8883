"""Changing the root CA while the swarm runs: who is asked to renew when, and when it is over.

A rotation is data (``RootRotation`` in the cluster's private half): the root to come, and its name
and key certified by the present root. While it runs every new certificate is signed by the coming
root and carries that link, so nodes that trust only the present root believe it. Once every node
has such a certificate the coming root becomes the trusted one, in one transaction.

Laws:

- What counts is the issuer that a node *reports* of its certificate. Nodes that are down hold a
  rotation up; they return, or are removed.
- At most ASK_MAX nodes are asked in any ASK_EVERY: a fleet does not renew in one instant. When a
  node was asked stands in its row, so a new leader goes on where the old one stopped.
- A node that keeps another issuer (its renewal failed, or the rotation it renewed for was given up)
  is asked again, every ASK_AGAIN.
- Asking is a wish; the node renews as always. So it does no harm to ask once too often.
- Who is behind is the difference of two sets of ids; rows are read of a few nodes only. There may
  be ten thousand, and the cold rows of all took up to a tenth of a second.

Must not know: certificates beyond the names and keys that ``TLSInfo`` shows, connections.
"""

from __future__ import annotations

import hashlib
from heapq import nsmallest
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.base import SECOND
from ..model.change import NOTHING, Decision, Kind, Transaction, Update
from ..model.cluster import RENEWALS_NS
from .issue import retire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Ref
    from ..model.objects import ClusterRow, NodeRow
    from ..store.view import View

NAME = "rotation"
KEY = "root"
ASK_MAX = 30
ASK_EVERY = RENEWALS_NS
ASK_AGAIN = 60 * SECOND
LOOK_MAX = 600
"""Nodes that were asked and did not renew that are looked at in one decision."""
KEPT_LINKS = 1  # a node that missed the end of one rotation holds up the next
_END = "-----END CERTIFICATE-----\n"


def has_issuer(node: NodeRow, cluster: ClusterRow) -> bool:
    """True if the node reports a certificate of the CA that the cluster wants to sign."""
    reported, wanted = node.api.Description.TLSInfo, cluster.api.TLSInfo
    return (reported.CertIssuerSubject, reported.CertIssuerPublicKey) == (
        wanted.CertIssuerSubject,
        wanted.CertIssuerPublicKey,
    )


def shall_renew(node: NodeRow, cluster: ClusterRow) -> bool:
    """True if the node was asked for a certificate of the present issuer and has not shown it."""
    asked = node.private.renew_issuer == issuer_name(cluster)
    return asked and not has_issuer(node, cluster)


def issuer_name(cluster: ClusterRow) -> str:
    """Return a name for the CA that the cluster wants to sign."""
    wanted = cluster.api.TLSInfo
    return hashlib.sha256(wanted.CertIssuerSubject + wanted.CertIssuerPublicKey).hexdigest()[:16]


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    """Return the one key, if what was touched can make a difference (None: everything was)."""
    cluster = view.cluster()
    if cluster is None:
        return ()
    if touched is None or any(ref.kind is Kind.CLUSTER for ref in touched):
        return (KEY,)
    for ref in touched:
        if ref.kind is Kind.NODE:
            node = view.node(ref.id)
            if cluster.private.rotation is not None or (
                node is not None and not has_issuer(node, cluster)
            ):
                return (KEY,)
    return ()


def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:  # noqa: ARG001
    """Return whom to ask now, or the end of the rotation."""
    cluster = view.cluster()
    if cluster is None:
        return NOTHING
    behind = set(view.row_ids(Kind.NODE)).difference(view.nodes_showing(cluster.api.TLSInfo))
    if cluster.private.rotation is not None and not behind:
        return Decision(transactions=(Transaction(changes=(Update(row=finished(cluster)),)),))
    return _ask(view, issuer_name(cluster), behind, now)


def _ask(view: View, issuer: str, behind: set[str], now: int) -> Decision:
    """Ask the nodes that are there and behind, a few at a time.

    Who was not asked for this issuer yet comes first, then who was longest ago.
    """
    recent = _asked_lately(view, now)
    room = max(0, ASK_MAX - len(recent))
    there = behind.intersection(view.nodes_in_state("ready"))
    before = there.intersection(view.nodes_asked(issuer))
    fresh = there - before
    busy = fresh.intersection(recent)  # asked a moment ago, for a CA that is not wanted any more
    fresh -= busy
    due = [(0, node_id) for node_id in nsmallest(room, fresh)]
    waiting = bool(busy) or len(fresh) > len(due)
    wake: list[int] = []
    if not waiting:
        more, wake, whole = _due_again(view, before, now)
        waiting = not whole or len(due) + len(more) > room
        due = nsmallest(room, [*due, *more])
    chosen = [node for _, node_id in due if (node := view.node(node_id)) is not None]
    if chosen:
        wake.append(now + ASK_AGAIN)
    if waiting:
        wake.append(min([*recent.values(), now]) + ASK_EVERY)
    return Decision(
        transactions=tuple(_asking(node, issuer, now) for node in chosen),
        wake_at=min(wake, default=None),
    )


def _asked_lately(view: View, now: int) -> dict[str, int]:
    """Return when nodes were asked within ASK_EVERY, for whatever issuer."""
    found: dict[str, int] = {}
    for span in (now - ASK_EVERY, now):
        for node_id in view.nodes_asked_around(span):
            node = view.node(node_id)
            if node is not None and now - ASK_EVERY < node.private.renew_asked <= now:
                found[node_id] = node.private.renew_asked
    return found


def _due_again(
    view: View, asked: set[str], now: int
) -> tuple[list[tuple[int, str]], list[int], bool]:
    """Return which nodes are due to be asked again, and when the others are.

    Of more than LOOK_MAX that do not renew, others are looked at each time, in turn; False at the
    end says that these were not all.
    """
    looked_at = list(asked)
    if len(asked) > LOOK_MAX:
        looked_at = sorted(asked)
        first = now // ASK_EVERY * LOOK_MAX % len(asked)
        looked_at = [*looked_at, *looked_at][first : first + LOOK_MAX]
    due: list[tuple[int, str]] = []
    wake: list[int] = []
    for node_id in looked_at:
        node = view.node(node_id)
        if node is None:
            continue
        at = node.private.renew_asked
        # A time in the future was stamped by a clock that ran ahead. It counts as long ago: better
        # to ask once too often than to wait for the clock.
        if at <= now < at + ASK_AGAIN:
            wake.append(at + ASK_AGAIN)
        else:
            due.append((at if at <= now else 0, node_id))
    return due, wake, len(looked_at) == len(asked)


def _asking(node: NodeRow, issuer: str, now: int) -> Transaction:
    private = replace(node.private, renew_issuer=issuer, renew_asked=now)
    return Transaction(changes=(Update(row=replace(node, private=private)),))


def finished(cluster: ClusterRow) -> ClusterRow:
    """Return the cluster with the coming root in place of the present one, and the new tokens.

    The link from the new root to the old goes on being handed out with certificates: a node that
    left after it had renewed and before it heard of the end still trusts the old root alone.
    """
    private, rotation = cluster.private, cluster.private.rotation
    assert rotation is not None
    links = (rotation.cross_signed + private.intermediates).split(_END)[:-1]
    retired = retire(private.retired_tokens, private.worker_token)
    changed = replace(
        private,
        ca_cert=rotation.ca_cert,
        ca_key=rotation.ca_key,
        intermediates="".join(link + _END for link in links[:KEPT_LINKS]),
        worker_token=rotation.worker_token,
        manager_token=rotation.manager_token,
        retired_tokens=retire(retired, private.manager_token),
        rotation=None,
    )
    api = replace(
        cluster.api,
        RootRotationInProgress=False,
        TLSInfo=replace(cluster.api.TLSInfo, TrustRoot=rotation.ca_cert),
    )
    return replace(cluster, api=api, private=changed)
