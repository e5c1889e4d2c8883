"""ASSIGNED -> THE NODE: sessions, assignments, liveness."""
