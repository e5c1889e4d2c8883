"""WHAT A MANAGER DOES: the loops that run while this node leads."""
