"""swarmctl: Swarm mode, free of any one engine."""

__version__ = "0.1.0"
