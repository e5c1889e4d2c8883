"""NOUNS: the Docker Engine API's objects, the changes to them, and the rules they keep."""
