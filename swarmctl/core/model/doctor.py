"""What ``network doctor`` finds: the endpoint table beside the kernel, node by node.

Ours: Docker has no such route. Gathered from the nodes for each answer and never stored.
"""

from __future__ import annotations

import msgspec

from .base import U64, ApiStruct, printed


class NetworkFinding(ApiStruct, frozen=True, kw_only=True):
    """One thing that shall be so, and how it is; equal when all is well, "" for "not there"."""

    Network: str = printed("")
    Kind: str = printed("")
    Subject: str = printed("")
    Table: str = printed("")
    Kernel: str = printed("")


class NetworkPath(ApiStruct, frozen=True, kw_only=True):
    """A path that was tried: from a task or node to another, and why not."""

    Network: str = printed("")
    Source: str = printed("")
    Target: str = printed("")
    TookNs: U64 = printed(0)
    Err: str = printed("")


class NodeNetworks(ApiStruct, frozen=True, kw_only=True):
    """One node.

    Attributes:
        Driver: what carries traffic there, by its own word; "" for nothing.
        Sent: version of the newest table that it was sent; 0 out of session.
        Known: version that its kernel agrees with, by its own word.
        Compared: how many things were compared; ``Findings`` may be only those that differ.
        Repaired: how often something was mended since its daemon started, by what it was.
        Err: why it could not be asked.
    """

    ID: str = printed("")
    Name: str = printed("")
    Driver: str = printed("")
    Sent: U64 = printed(0)
    Known: U64 = printed(0)
    Compared: U64 = printed(0)
    Findings: tuple[NetworkFinding, ...] = printed(())
    Paths: tuple[NetworkPath, ...] = printed(())
    Problems: tuple[str, ...] = printed(())
    Repaired: dict[str, U64] = msgspec.field(default_factory=lambda: dict[str, U64]())
    Err: str = printed("")


class NetworkExamination(ApiStruct, frozen=True, kw_only=True):
    """All nodes, by name."""

    Nodes: tuple[NodeNetworks, ...] = printed(())
