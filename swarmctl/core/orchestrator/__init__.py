"""SERVICES -> TASKS: which tasks should exist."""
