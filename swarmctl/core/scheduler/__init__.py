"""PENDING -> ASSIGNED: which node runs a task."""
