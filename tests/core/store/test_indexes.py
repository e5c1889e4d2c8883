"""Questions that indexes answer, against a look at every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.store.view import Overlay, Tables
from tests.core.pipeline.world import make_node

if TYPE_CHECKING:
    from swarmctl.core.model.objects import NodeRow
    from swarmctl.core.store.view import View


@st.composite
def nodes(draw: st.DrawFn) -> NodeRow:
    """A node that carries traffic or not, is a manager or not, in any state."""
    row = make_node(
        draw(st.sampled_from(("n1", "n2", "n3", "n4"))),
        state=draw(st.sampled_from(("ready", "down", "unknown"))),
    )
    private = replace(
        row.private,
        network_driver=draw(st.sampled_from(("", "overlay"))),
        raft_id=draw(st.sampled_from((0, 7))),
    )
    return replace(row, private=private)


def judge(view: View) -> None:
    rows = list(view.nodes())
    assert set(view.carriers()) == {row.api.ID for row in rows if row.private.network_driver}
    assert {row.api.ID for row in view.members()} == {
        row.api.ID for row in rows if row.private.raft_id
    }
    assert {row.api.ID for row in view.quiet_nodes()} == {
        row.api.ID
        for row in rows
        if row.api.Status.State == "ready" and not row.private.network_driver
    }


@given(st.lists(nodes(), max_size=8), st.lists(nodes(), max_size=4))
def test_nodes_are_found_by_what_they_are(rows: list[NodeRow], changed: list[NodeRow]) -> None:
    """In the tables, whatever was there before, and in a view with changes laid over it."""
    tables = Tables()
    for row in rows:
        tables.put(row)
    judge(tables)
    overlay = Overlay(tables)
    for row in changed:
        overlay.put(row)
    judge(overlay)
