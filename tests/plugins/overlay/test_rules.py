"""Rules as values: the script between two of them, and what a listing tells."""

from __future__ import annotations

import re

from hypothesis import given

from swarmctl.plugins.overlay.balance import sandbox_rules
from swarmctl.plugins.overlay.mesh import host_rules
from swarmctl.plugins.overlay.rules import (
    Chain,
    Found,
    FoundChain,
    Rule,
    Ruleset,
    as_found,
    changes,
    differing,
)
from tests.plugins.overlay.tables import tables

HOOK = "type nat hook output priority -110"
ONE: Ruleset = {"ip": {"output": Chain((Rule("jump a"),), HOOK), "a": Chain((Rule("accept"),))}}


def interpret(found: Found, script: str) -> Found:
    """What nft does with the handful of commands that we use, said plainly."""
    after = {family: dict(chains) for family, chains in found.items()}
    for line in script.splitlines():
        words = line.split()
        verb, noun, family = words[:3]
        if noun == "table":
            if verb == "delete":
                del after[family]
            else:
                after.setdefault(family, {})
            continue
        if words[1:3] == ["ct", "timeout"]:
            assert words[3] in after  # what rules name is there before them
            continue
        chain = words[4]
        chains = after[family]
        if (verb, noun) == ("add", "chain"):
            assert chain not in chains
            hook = re.search(r"{ (.*); policy accept; }", line)
            chains[chain] = FoundChain((), hook[1] if hook else "")
        elif (verb, noun) == ("flush", "chain"):
            chains[chain] = FoundChain((), chains[chain].hook)
        elif (verb, noun) == ("delete", "chain"):
            assert not chains.pop(chain).comments
        else:
            comment = re.search(r'comment "([^"]*)"$', line)
            assert comment, line
            chains[chain] = FoundChain((*chains[chain].comments, comment[1]), chains[chain].hook)
    return after


def test_nothing_to_do_is_no_script() -> None:
    """Rules that are as they shall be cost no process."""
    assert changes(ONE, as_found(ONE)) == ""


def test_a_changed_chain_is_written_anew_and_no_other() -> None:
    """What changes with one service touches that service's chain."""
    other: Ruleset = {"ip": {**ONE["ip"], "a": Chain((Rule("drop"),))}}
    script = changes(other, as_found(ONE))
    assert "output" not in script
    assert script.splitlines()[0] == "flush chain ip swarmctl a"


def test_a_chain_that_nobody_wants_goes() -> None:
    """A chain that somebody added to our table is taken away again."""
    found = as_found(ONE)
    found["ip"]["stranger"] = FoundChain(("x",))
    script = changes(ONE, found)
    assert script == "flush chain ip swarmctl stranger\ndelete chain ip swarmctl stranger\n"


def test_another_hook_makes_the_table_anew() -> None:
    """A chain keeps its hook for life, so an upgrade that moves it replaces the table at once."""
    moved: Ruleset = {"ip": {**ONE["ip"], "output": Chain((Rule("jump a"),), HOOK + "1")}}
    script = changes(moved, as_found(ONE))
    assert script.startswith("delete table ip swarmctl\nadd table ip swarmctl\n")
    assert interpret(as_found(ONE), script) == as_found(moved)


def test_no_rules_take_the_table_away() -> None:
    """A namespace that needs nothing has nothing of ours."""
    assert changes({}, as_found(ONE)) == "delete table ip swarmctl\n"


def test_a_rule_written_over_shows() -> None:
    """A rule with other text has another comment, so a listing tells."""
    assert Rule("accept", "web").comment != Rule("drop", "web").comment
    assert Rule("accept", 'we"b').comment.startswith("we_b ")


def test_what_differs_is_named() -> None:
    """A chain that has a rule more, or less, or is not there, is told by its name."""
    found = as_found(ONE)
    found["ip"]["a"] = FoundChain((*found["ip"]["a"].comments, ""))
    found["ip"]["b"] = FoundChain()
    assert list(differing(ONE, found)) == ["ip a", "ip b"]


def _rules(any_table) -> Ruleset:
    return host_rules(any_table, node_id="node1", interfaces={"eth0": ["10.77.0.1"]})


@given(tables(), tables())
def test_the_script_between_two_rulesets_leads_from_one_to_the_other(before, after) -> None:
    """For the host and for a task, whatever the table was: the script gives the new rules."""
    for make in (_rules, lambda one: sandbox_rules(one.networks, seed="t")):
        old, new = make(before), make(after)
        reached = interpret(as_found(old), changes(new, as_found(old)))
        assert reached == as_found(new)
        assert not changes(new, reached)


@given(tables())
def test_every_chain_that_is_named_is_there(any_table) -> None:
    """No rule jumps to a chain that does not exist."""
    for rules in (_rules(any_table), sandbox_rules(any_table.networks, seed="t")):
        for chains in rules.values():
            for chain in chains.values():
                for rule in chain.rules:
                    for target in re.findall(r"(?:goto|jump) ([\w.-]+)", rule.text):
                        assert target in chains
