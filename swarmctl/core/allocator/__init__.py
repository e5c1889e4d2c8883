"""NEW -> PENDING: ports and addresses."""
