"""CONSENSUS: a pure Raft core, its disk, its transport and the loop that drives it."""
