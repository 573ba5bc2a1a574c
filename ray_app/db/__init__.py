"""Postgres: the ledger, its migrations, and reading the platform's tables."""
