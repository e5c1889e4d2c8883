"""FRONT DOOR: the Docker Engine API's swarm routes on a unix socket."""
