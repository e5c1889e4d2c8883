"""Names for services that were given none (core/model/names.py)."""

from __future__ import annotations

import random

from swarmctl.core.model.names import ADJECTIVES, NOUNS, random_name
from swarmctl.core.model.validate import check_object_name


def test_every_name_is_a_good_one() -> None:
    """Any adjective with any noun passes the rules of service names; no word comes twice."""
    for words in (ADJECTIVES, NOUNS):
        assert len(set(words)) == len(words)
    for adjective in ADJECTIVES:
        for noun in NOUNS:
            check_object_name(f"{adjective}_{noun}")


def test_a_taken_name_gets_a_number() -> None:
    """A name in use is numbered until one is free, so chance never makes a conflict."""
    taken: set[str] = set()
    for _ in range(5):
        name = random_name(random.Random(7).choice, taken.__contains__)
        check_object_name(name)
        taken.add(name)
    assert len(taken) == 5
