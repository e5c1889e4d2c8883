"""A plugin as ``GET /info`` lists it, under ``LoadedPlugins``; ours, Docker has no such thing."""

from __future__ import annotations

from .base import ApiStruct, printed


class LoadedPlugin(ApiStruct, frozen=True, kw_only=True):
    """How a plugin stands on this node.

    Attributes:
        Name: what it calls itself, else what the configuration calls it.
        API: the level of the plugin surface that it was written for.
        Kind: ``built-in``, ``project``, ``installed``, ``file`` or ``wheel``.
        Place: its module or path.
        Hooks: what it implements.
        State: ``loaded``; ``isolated``, in a process of its own while this node leads; ``off``, it
            failed too often; ``failed``, it could not be loaded.
        Why: what went wrong last, in a sentence.
        Failures: how often it failed since this daemon started.
    """

    Name: str = printed("")
    Version: str = printed("")
    API: int = printed(0)
    Kind: str = printed("")
    Place: str = printed("")
    Hooks: tuple[str, ...] = printed(())
    State: str = printed("loaded")
    Why: str = printed("")
    Failures: int = printed(0)
