"""The command line: a client of the API and nothing more."""
