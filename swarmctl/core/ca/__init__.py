"""IDENTITY: root CA, node certificates, join tokens, issue and renewal."""
