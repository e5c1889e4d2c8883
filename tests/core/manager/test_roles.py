"""From wishes to members: each step, what has to wait, and that no way ever costs the quorum."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.manager.roles import Members, Plan, Step, StepKind, decide, may_remove
from swarmctl.core.model.change import (
    Applied,
    AtLeast,
    Conflict,
    ConflictKind,
    Create,
    Entry,
    Index,
    Transaction,
    Update,
)
from swarmctl.core.model.objects import Node, NodePrivate, NodeRow, NodeSpec
from swarmctl.core.store.store import Store


def node(
    number: int, *, wish: str = "manager", role: str = "manager", raft_id: int = -1
) -> NodeRow:
    """A node's row; its member number is its own number unless said otherwise."""
    return NodeRow(
        api=Node(ID=f"n{number}", Spec=NodeSpec(Role=wish)),
        private=NodePrivate(
            role=role,
            raft_id=number if raft_id < 0 else raft_id,
            manager_addr=f"10.0.0.{number}:2377",
        ),
    )


def tables(*rows: NodeRow) -> Store:
    store = Store()
    store.apply(1, Entry(transactions=tuple(Transaction(changes=(Create(row=r),)) for r in rows)))
    return store


def members(
    voters: set[int],
    *,
    own: int = 1,
    learners: set[int] | None = None,
    away: set[int] | None = None,
    behind: set[int] | None = None,
    stale: set[int] | None = None,
) -> Members:
    everybody = frozenset(voters | (learners or set()))
    return Members(
        own=own,
        voters=frozenset(voters),
        learners=frozenset(learners or ()),
        reachable=everybody - (away or set()),
        caught_up=everybody - (behind or set()),
        stale=frozenset(stale or ()),
    )


def steps(store: Store, said: Members) -> Step | None:
    return decide(store.view, said).step


def test_nothing_is_due_when_all_is_as_wished() -> None:
    """Managers that are voters and workers that are none need nothing."""
    store = tables(node(1), node(2), node(3, wish="worker", role="worker", raft_id=0))
    assert decide(store.view, members({1, 2})) == Plan()


def test_a_promoted_node_gets_its_certificate_first() -> None:
    """The wish changes the role that certificates are issued for; consensus comes later."""
    store = tables(node(1), node(2, role="worker", raft_id=0))
    plan = decide(store.view, members({1}))
    (transaction,) = plan.transactions
    (change,) = transaction.changes
    assert isinstance(change, Update)
    assert isinstance(change.row, NodeRow)
    assert change.row.private.role == "manager"
    assert plan.step is None


def test_a_learner_gets_its_vote_when_it_has_caught_up() -> None:
    """Neither one that is behind nor one that is away may vote."""
    store = tables(node(1), node(2))
    assert steps(store, members({1}, learners={2}, behind={2})) is None
    assert steps(store, members({1}, learners={2}, away={2})) is None
    assert steps(store, members({1}, learners={2})) == Step(StepKind.GIVE_VOTE, 2)


def test_a_demoted_manager_leaves_consensus_before_it_gets_its_certificate() -> None:
    """As long as it is a member its role stays; then role, number and address go at once."""
    store = tables(node(1), node(2, wish="worker"), node(3))
    plan = decide(store.view, members({1, 2, 3}))
    assert plan == Plan(step=Step(StepKind.REMOVE, 2))
    (transaction,) = decide(store.view, members({1, 3})).transactions
    (change,) = transaction.changes
    assert isinstance(change, Update)
    assert isinstance(change.row, NodeRow)
    private = change.row.private
    assert (private.role, private.raft_id, private.manager_addr) == ("worker", 0, "")


def test_a_leader_that_is_to_go_hands_over() -> None:
    """Only to a voter that is there and has everything; without one it waits and says so."""
    store = tables(node(1, wish="worker"), node(2), node(3))
    assert steps(store, members({1, 2, 3}, behind={2})) == Step(StepKind.HAND_OVER, 3)
    plan = decide(store.view, members({1, 2, 3}, behind={2, 3}))
    assert plan.step is None
    assert "leads and is to be demoted" in plan.waiting[0]


def test_a_removal_that_would_cost_the_quorum_waits() -> None:
    """It is said who is there and who is needed; the vote of a newcomer may come first."""
    store = tables(node(1), node(2, wish="worker"), node(3), node(4))
    plan = decide(store.view, members({1, 2, 3}, away={3}))
    assert plan.step is None
    (sentence,) = plan.waiting
    assert sentence == (
        "manager n2 is to be removed, which would cost the swarm its quorum: "
        "1 of the remaining 2 managers is reachable, 2 are needed"
    )
    said = members({1, 2, 3}, learners={4}, away={3})
    assert steps(store, said) == Step(StepKind.GIVE_VOTE, 4)


def test_members_that_no_row_stands_for_are_evicted() -> None:
    """A removed node, or the old number of one that came back, goes; dead learners go always."""
    store = tables(node(1), node(2))
    assert steps(store, members({1, 2, 9}, away={9})) == Step(StepKind.REMOVE, 9)
    assert steps(store, members({1, 2}, learners={9}, away={2, 9})) == Step(StepKind.REMOVE, 9)


def test_a_learner_that_gets_nowhere_is_given_up() -> None:
    """After its patience is over it is removed, wished or not: it asks again when it is there."""
    store = tables(node(1), node(2))
    said = members({1}, learners={2}, away={2}, behind={2}, stale={2})
    assert steps(store, said) == Step(StepKind.REMOVE, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_who_may_be_removed_with_whoever_is_there(count: int) -> None:
    """For every set of reachable managers: exactly when the reachable rest is a majority of it."""
    everybody = set(range(1, count + 1))
    for size in range(count + 1):
        for away in combinations(everybody, size):
            said = members(everybody, away=set(away))
            for member in everybody:
                there = len(everybody - {member} - set(away))
                enough = count > 1 and there >= (count - 1) // 2 + 1
                assert may_remove(said, member) == enough


def test_two_demotions_of_the_last_two_managers() -> None:
    """Whichever is applied second is refused: one manager stays wished."""
    for order in ((1, 2), (2, 1)):
        store = tables(node(1), node(2))
        results = []
        for index, number in enumerate(order, start=2):
            row = store.view.node(f"n{number}")
            assert row is not None
            spec = replace(row.api.Spec, Role="worker")
            demotion = Transaction(
                changes=(Update(row=replace(row, api=replace(row.api, Spec=spec))),),
                requires=(AtLeast(index=Index.WISH, key="manager", count=1),),
            )
            results.append(store.apply(index, Entry(transactions=(demotion,))).results[0])
        assert isinstance(results[0], Applied)
        assert isinstance(results[1], Conflict)
        assert results[1].kind is ConflictKind.COUNT


@st.composite
def situations(draw: st.DrawFn) -> tuple[Store, Members]:
    """Any wishes, any members, anybody away or behind."""
    numbers = list(range(1, 7))
    rows = [
        node(
            number,
            wish=draw(st.sampled_from(["manager", "worker"])),
            role=draw(st.sampled_from(["manager", "worker"])),
            raft_id=draw(st.sampled_from([0, number, number + 10])),
        )
        for number in numbers
    ]
    pool = st.sets(st.sampled_from([*numbers, *(number + 10 for number in numbers)]))
    voters = draw(pool) | {1}
    learners = draw(pool) - voters
    said = members(
        voters,
        learners=learners,
        away=draw(pool) - {1},
        behind=draw(pool) - {1},
        stale=draw(pool) & learners,
    )
    return tables(*rows), said


@given(situations())
def test_no_step_costs_the_quorum(situation: tuple[Store, Members]) -> None:
    """Whatever is wished and whoever is there: after a step the reachable voters still decide."""
    store, said = situation
    step = decide(store.view, said).step
    if step is None or step.kind is StepKind.HAND_OVER:
        assert step is None or step.member in said.voters & said.reachable & said.caught_up
        return
    after = said.voters | {step.member}
    if step.kind is StepKind.REMOVE:
        assert step.member != said.own
        after = said.voters - {step.member}
    decided_before = 2 * len(said.voters & said.reachable) > len(said.voters)
    if decided_before or step.member in said.voters:
        assert 2 * len(after & said.reachable) > len(after)


@given(situations())
def test_wishes_come_to_rest(situation: tuple[Store, Members]) -> None:
    """With everybody there and caught up, step after step ends with nothing left to do."""
    store, said = situation
    everybody = said.all
    said = said._replace(reachable=everybody, caught_up=everybody, stale=frozenset())
    index = store.index
    for _ in range(60):
        plan = decide(store.view, said)
        if plan.transactions:
            index += 1
            outcome = store.apply(index, Entry(transactions=plan.transactions))
            assert all(isinstance(result, Applied) for result in outcome.results)
        if plan.step is not None:
            said = take(said, plan.step)
        elif not plan.transactions:
            break
    else:
        raise AssertionError("it never comes to rest")
    assert decide(store.view, said).transactions == ()


def take(said: Members, step: Step) -> Members:
    if step.kind is StepKind.HAND_OVER:
        return said._replace(own=step.member)
    voters, learners = said.voters - {step.member}, said.learners - {step.member}
    if step.kind is StepKind.GIVE_VOTE:
        voters |= {step.member}
    everybody = voters | learners
    return said._replace(voters=voters, learners=learners, reachable=everybody, caught_up=everybody)
