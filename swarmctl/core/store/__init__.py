"""TABLES: rows changed only by applying committed entries, read through views."""
