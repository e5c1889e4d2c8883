"""swarmctl beside real Docker Swarm, in the same lab, in the same run. See README.md."""
