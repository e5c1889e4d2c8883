"""Load -> replicas: what a service's labels ask for, against what was measured; all of it pure."""
