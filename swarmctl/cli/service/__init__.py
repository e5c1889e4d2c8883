"""``swarmctl service``: what runs on the swarm, from a flag to a converged service."""
