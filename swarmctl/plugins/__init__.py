"""The public plugin surface, and the built-ins that use it."""
