"""The rotation reconciler: whom it asks, how fast, and when it is over (scenarios 41 and 50)."""

from __future__ import annotations

from collections import Counter
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.ca.issue import fresh_tokens
from swarmctl.core.ca.rotation import (
    ASK_AGAIN,
    ASK_EVERY,
    ASK_MAX,
    KEY,
    LOOK_MAX,
    decide,
    has_issuer,
    issuer_name,
    keys,
    shall_renew,
)
from swarmctl.core.ca.token import parse_token
from swarmctl.core.model.base import SECOND
from swarmctl.core.model.change import (
    NOTHING,
    Applied,
    Change,
    Create,
    Decision,
    Delete,
    Entry,
    Kind,
    Ref,
    Transaction,
    Update,
)
from swarmctl.core.model.cluster import ClusterInfo, ClusterPrivate, RootRotation, TLSInfo
from swarmctl.core.model.objects import ClusterRow, Node, NodeDescription, NodeRow, NodeStatus
from swarmctl.core.store.store import Store

LINK = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
START = 1_800_000_000 * SECOND


def tokens(root: str) -> tuple[str, str]:
    return fresh_tokens(root.encode(), worker_secret=b"w" * 16, manager_secret=b"m" * 16)


def issuer(root: str) -> TLSInfo:
    return TLSInfo(
        TrustRoot="", CertIssuerSubject=b"swarm-ca", CertIssuerPublicKey=f"key of {root}".encode()
    )


class Swarm:
    """Tables with a cluster and nodes, the reconciler, and nodes that do what they are asked."""

    def __init__(self, nodes: int = 0) -> None:
        self.store = Store()
        self.view = self.store.view
        self.now = START
        self.asked_at: list[tuple[int, str]] = []
        self._index = count(1)
        self._ids = count(1)
        worker, manager = tokens("root0")
        self.write(
            Create(
                row=ClusterRow(
                    api=ClusterInfo(
                        ID="cluster", TLSInfo=replace(issuer("root0"), TrustRoot="root0")
                    ),
                    private=ClusterPrivate(
                        ca_cert="root0", ca_key="k", worker_token=worker, manager_token=manager
                    ),
                )
            )
        )
        for _ in range(nodes):
            self.add()

    # --- the tables ---

    def write(self, *changes: Change) -> None:
        (result,) = self.apply(Transaction(changes=changes))
        assert isinstance(result, Applied), result

    def apply(self, *transactions: Transaction) -> tuple[object, ...]:
        return self.store.apply(next(self._index), Entry(transactions=transactions)).results

    @property
    def cluster(self) -> ClusterRow:
        row = self.view.cluster()
        assert row is not None
        return row

    def node(self, node_id: str) -> NodeRow:
        row = self.view.node(node_id)
        assert row is not None
        return row

    def ids(self) -> list[str]:
        return sorted(row.api.ID for row in self.view.nodes())

    # --- what happens to it ---

    def add(self, state: str = "ready", root: str = "root0") -> str:
        node_id = f"node{next(self._ids):04}"
        api = Node(
            ID=node_id,
            Description=NodeDescription(TLSInfo=issuer(root)),
            Status=NodeStatus(State=state),
        )
        self.write(Create(row=NodeRow(api=api)))
        return node_id

    def set_state(self, node_id: str, state: str) -> None:
        row = self.node(node_id)
        self.write(Update(row=replace(row, api=replace(row.api, Status=NodeStatus(State=state)))))

    def remove(self, node_id: str) -> None:
        version = self.node(node_id).api.Version.Index
        self.write(Delete(ref=Ref(Kind.NODE, node_id), version=version))

    def renew(self, node_id: str, root: str | None = None) -> None:
        """Let a node show a certificate of the CA that signs now, or of another."""
        shown = issuer(root) if root else replace(self.cluster.api.TLSInfo, TrustRoot="")
        row = self.node(node_id)
        api = replace(row.api, Description=NodeDescription(TLSInfo=shown))
        self.write(Update(row=replace(row, api=api)))

    def rotate(self, root: str) -> None:
        worker, manager = tokens(root)
        rotation = RootRotation(
            ca_cert=root,
            ca_key="k",
            cross_signed=LINK.format(f"{root} by {self.cluster.private.ca_cert}"),
            worker_token=worker,
            manager_token=manager,
        )
        self._rotate(rotation, root)

    def give_up(self) -> None:
        self._rotate(None, self.cluster.private.ca_cert)

    def _rotate(self, rotation: RootRotation | None, root: str) -> None:
        row = self.cluster
        trust = replace(issuer(root), TrustRoot=row.private.ca_cert)
        api = replace(row.api, TLSInfo=trust, RootRotationInProgress=rotation is not None)
        private = replace(row.private, rotation=rotation)
        self.write(Update(row=replace(row, api=api, private=private)))

    # --- the reconciler ---

    def decide(self) -> Decision:
        return decide(self.view, KEY, self.now, lambda: "id")

    def reconcile(self) -> Decision:
        """Decide and apply; whoever was asked is noted."""
        decision = self.decide()
        for result in self.apply(*decision.transactions) if decision.transactions else ():
            assert isinstance(result, Applied), result
        self.asked_at += [
            (self.now, change.row.api.ID)
            for transaction in decision.transactions
            for change in transaction.changes
            if isinstance(change, Update) and isinstance(change.row, NodeRow)
        ]
        return decision

    def asked(self) -> list[str]:
        return [each for each in self.ids() if shall_renew(self.node(each), self.cluster)]

    def settle(self, rounds: int = 200) -> None:
        """Let time pass and nodes obey until nothing is left to do."""
        for _ in range(rounds):
            decision = self.reconcile()
            for node_id in self.asked():
                self.renew(node_id)
            if decision == NOTHING and self.decide() == NOTHING:
                return
            self.now = max(self.now, min(decision.wake_at or self.now, self.now + ASK_EVERY))
        raise AssertionError("it does not come to rest")


def test_nothing_is_done_while_everybody_has_the_issuer() -> None:
    """Without a rotation and with certificates of the present root there is nothing to write."""
    swarm = Swarm(5)
    assert swarm.decide() == NOTHING
    assert list(keys(swarm.view, {Ref(Kind.NODE, "node0001")})) == []


def test_exactly_the_nodes_behind_are_asked() -> None:
    """A node that shows the coming root's certificate already is left alone, and so is a node
    that is down."""
    swarm = Swarm(4)
    swarm.rotate("root1")
    swarm.renew("node0002")
    swarm.set_state("node0003", "down")
    swarm.reconcile()
    assert swarm.asked() == ["node0001", "node0004"]


def test_thirty_are_asked_at_a_time() -> None:
    """Of a hundred nodes thirty are asked at once, and the next thirty three seconds later."""
    swarm = Swarm(100)
    swarm.rotate("root1")
    decision = swarm.reconcile()
    assert len(swarm.asked()) == ASK_MAX
    assert decision.wake_at == START + ASK_EVERY
    assert swarm.decide().transactions == ()
    swarm.now += ASK_EVERY - 1
    assert swarm.decide().transactions == ()
    swarm.now += 1
    swarm.reconcile()
    assert len(swarm.asked()) == 2 * ASK_MAX


def test_nodes_that_obey_at_once_do_not_open_the_throttle() -> None:
    """The limit counts who was asked, not who is still busy."""
    swarm = Swarm(100)
    swarm.rotate("root1")
    swarm.reconcile()
    for node_id in swarm.asked():
        swarm.renew(node_id)
    assert swarm.decide().transactions == ()


def test_a_new_leader_goes_on_where_the_old_one_stopped() -> None:
    """Who was asked when is in the tables: whoever decides next asks nobody twice."""
    swarm = Swarm(40)
    swarm.rotate("root1")
    swarm.reconcile()
    first = set(swarm.asked())
    assert list(keys(swarm.view, None)) == [KEY]
    swarm.now += ASK_EVERY
    swarm.reconcile()
    assert set(swarm.asked()) > first
    assert len(swarm.asked_at) == 40


def test_it_ends_when_the_last_node_has_renewed() -> None:
    """The coming root replaces the present one, both tokens are new, the old ones are known as
    rotated, and the link between the roots is kept for who missed it: in one transaction."""
    swarm = Swarm(3)
    before = swarm.cluster.private
    swarm.rotate("root1")
    swarm.settle()
    private, api = swarm.cluster.private, swarm.cluster.api
    assert (private.ca_cert, private.rotation) == ("root1", None)
    assert (api.TLSInfo.TrustRoot, api.RootRotationInProgress) == ("root1", False)
    assert (private.worker_token, private.manager_token) == tokens("root1")
    assert private.retired_tokens == tuple(
        parse_token(token).fingerprint() for token in (before.worker_token, before.manager_token)
    )
    assert private.intermediates == LINK.format("root1 by root0")
    assert swarm.decide() == NOTHING


def test_a_node_that_is_down_holds_it_up_until_it_is_back_or_gone() -> None:
    """A stopped node blocks the end; its return, or its removal, brings it (scenario 50)."""
    for ending in ("returns", "is removed"):
        swarm = Swarm(3)
        swarm.set_state("node0002", "down")
        swarm.rotate("root1")
        swarm.settle()
        assert swarm.cluster.private.rotation is not None
        if ending == "returns":
            swarm.set_state("node0002", "ready")
        else:
            swarm.remove("node0002")
        assert list(keys(swarm.view, {Ref(Kind.NODE, "node0002")})) == [KEY]
        swarm.settle()
        assert swarm.cluster.private.ca_cert == "root1", ending


def test_a_newcomer_that_has_not_reported_holds_it_up() -> None:
    """A node without a word on its certificate is not taken for one that has renewed."""
    swarm = Swarm(1)
    swarm.rotate("root1")
    swarm.add("unknown", root="")
    swarm.settle()
    assert swarm.cluster.private.rotation is not None


def test_several_rotations_in_a_row_end_in_the_last() -> None:
    """Begun anew in the middle, a rotation asks everybody again, and only the last root stays."""
    swarm = Swarm(5)
    swarm.rotate("root1")
    swarm.reconcile()
    swarm.renew("node0001")
    swarm.rotate("root2")
    assert swarm.asked() == []  # the earlier asking was for another CA
    swarm.settle()
    assert swarm.cluster.private.ca_cert == "root2"
    swarm.rotate("root3")
    swarm.settle()
    assert swarm.cluster.private.ca_cert == "root3"
    assert swarm.cluster.private.intermediates == LINK.format("root3 by root2")


def test_a_rotation_that_is_given_up_is_undone() -> None:
    """Nodes that had renewed already are asked back to the present root, and the tokens stay."""
    swarm = Swarm(3)
    before = swarm.cluster.private
    swarm.rotate("root1")
    swarm.reconcile()
    swarm.renew("node0001")
    swarm.give_up()
    swarm.now += ASK_EVERY  # it was asked just now
    swarm.reconcile()
    assert swarm.asked() == ["node0001"]
    swarm.settle()
    assert swarm.cluster.private == before


def test_who_does_not_obey_is_asked_again_after_a_minute() -> None:
    """A renewal that failed, or that an earlier CA answered, is asked for with a new time."""
    swarm = Swarm(1)
    swarm.rotate("root1")
    decision = swarm.reconcile()
    swarm.renew("node0001", "some other root")
    assert swarm.decide().transactions == ()
    assert decision.wake_at == START + ASK_AGAIN
    swarm.now += ASK_AGAIN
    swarm.reconcile()
    assert swarm.node("node0001").private.renew_asked == swarm.now


def test_a_clock_that_jumps_back_stops_nothing() -> None:
    """A time of asking that lies in the future counts as long ago."""
    swarm = Swarm(40)
    swarm.rotate("root1")
    swarm.reconcile()
    swarm.now -= 3600 * SECOND
    swarm.reconcile()
    swarm.settle()
    assert swarm.cluster.private.ca_cert == "root1"


def looked_at_all(swarm: Swarm) -> list[str]:
    """Return whom to ask now, by a look at every node: the rule in its plainest form."""
    issuer, now = issuer_name(swarm.cluster), swarm.now
    stamps = {node.api.ID: node.private.renew_asked for node in swarm.view.nodes()}
    recent = {one for one, at in stamps.items() if now - ASK_EVERY < at <= now}
    due = []
    for node in swarm.view.nodes():
        if has_issuer(node, swarm.cluster) or node.api.Status.State != "ready":
            continue
        at = node.private.renew_asked if node.private.renew_issuer == issuer else 0
        if at + ASK_AGAIN <= now and node.api.ID not in recent:
            due.append((at, node.api.ID))
    return [node_id for _, node_id in sorted(due)[: max(0, ASK_MAX - len(recent))]]


def chosen_of(decision: Decision) -> list[str]:
    changes = [change for transaction in decision.transactions for change in transaction.changes]
    return [
        change.row.api.ID
        for change in changes
        if isinstance(change, Update) and isinstance(change.row, NodeRow)
    ]


def test_of_many_that_cannot_renew_all_have_their_turn() -> None:
    """With more than one decision looks at, nobody is forgotten, and the pace stays."""
    swarm = Swarm(LOOK_MAX + 200)
    swarm.rotate("root1")
    for _ in range(120):
        swarm.reconcile()
        swarm.now += ASK_EVERY
    assert len(swarm.asked_at) == 120 * ASK_MAX
    often = Counter(node_id for _, node_id in swarm.asked_at)
    assert len(often) == LOOK_MAX + 200
    assert max(often.values()) - min(often.values()) <= 3


EVENTS = ("renew", "down", "up", "remove", "add", "foreign", "rotate", "give up", "pass")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 200)), max_size=40))
def test_whatever_happens_it_is_throttled_quiet_and_ends(script: list[tuple[str, int]]) -> None:
    """After any events, deciding twice writes once; no three seconds see more than thirty asked;
    and once every node is up and obeys, the wish of the last moment comes true."""
    swarm = Swarm(35)
    roots = (f"root{number}" for number in count(1))
    wanted = "root0"
    for event, choice in script:
        ids = swarm.ids()
        node_id = ids[choice % len(ids)] if ids else ""
        rotating = swarm.cluster.private.rotation is not None
        if event == "pass":
            swarm.now += choice * SECOND // 20
        elif event == "add":
            swarm.add(("ready", "unknown")[choice % 2], ("root0", "")[choice % 2])
        elif event == "rotate":
            wanted = next(roots)
            swarm.rotate(wanted)
        elif event == "give up" and rotating:
            wanted = swarm.cluster.private.ca_cert
            swarm.give_up()
        elif event == "remove" and node_id:
            swarm.remove(node_id)
        elif event in ("down", "up") and node_id:
            swarm.set_state(node_id, {"down": "down", "up": "ready"}[event])
        elif event == "renew" and node_id:
            swarm.renew(node_id)
        elif event == "foreign" and node_id:
            swarm.renew(node_id, "nobody's root")
        assert chosen_of(swarm.decide()) == looked_at_all(swarm)
        swarm.reconcile()
        while swarm.cluster.private.rotation is None and swarm.reconcile().transactions:
            pass
        assert swarm.decide().transactions == ()
    for node_id in swarm.ids():
        swarm.set_state(node_id, "ready")
    swarm.settle()
    assert swarm.cluster.private.ca_cert == wanted
    assert all(has_issuer(node, swarm.cluster) for node in swarm.view.nodes())
    times = [at for at, node_id in swarm.asked_at if swarm.view.node(node_id) is not None]
    for start in times:
        assert sum(start <= at < start + ASK_EVERY for at in times) <= ASK_MAX
