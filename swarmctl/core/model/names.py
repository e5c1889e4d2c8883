"""Names for services that were given none: ``brisk_heron``.

Docker's clients expect an adjective and a noun; the words are our own. Pure: chance comes in as an
argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ADJECTIVES = (
    *("amber", "ample", "apt", "bold", "brave", "brief", "bright", "brisk", "calm", "candid"),
    *("clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "early", "easy", "fair"),
    *("fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "green", "hardy"),
    *("honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "mild"),
    *("modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prompt"),
    *("proud", "quick", "quiet", "rapid", "ready", "robust", "sharp", "silent", "smart", "snug"),
    *("solid", "sound", "spry", "steady", "sunny", "swift", "tidy", "trusty", "vivid", "warm"),
    *("wise", "witty", "zesty"),
)
NOUNS = (
    *("ant", "badger", "bee", "bison", "bittern", "carp", "cicada", "cod", "crane", "cricket"),
    *("curlew", "deer", "dove", "duck", "eider", "elk", "falcon", "finch", "firefly", "fox"),
    *("gannet", "gecko", "goose", "grebe", "gull", "hare", "heron", "herring", "hornet", "ibex"),
    *("ibis", "jay", "kestrel", "kite", "lark", "linnet", "locust", "lynx", "mackerel", "magpie"),
    *("marten", "midge", "mink", "minnow", "moth", "newt", "osprey", "otter", "owl", "perch"),
    *("pika", "plover", "quail", "raven", "robin", "rook", "salmon", "seal", "shrew", "siskin"),
    *("snipe", "sparrow", "starling", "stoat", "stork", "swallow", "swan", "swift", "teal"),
    *("tern", "thrush", "toad", "trout", "turtle", "vole", "wasp", "weasel", "wren"),
)


def random_name(choice: Callable[[Sequence[str]], str], is_taken: Callable[[str], bool]) -> str:
    """Return a free name.

    Args:
        choice: picks one of a sequence (``random.Random.choice``).
        is_taken: whether a name is in use.
    """
    name = f"{choice(ADJECTIVES)}_{choice(NOUNS)}"
    number = 2
    free = name
    while is_taken(free):  # ends: the cluster holds finitely many names
        free = f"{name}{number}"
        number += 1
    return free
