"""The embedded stack: Postgres from a wheel and a local Ray head."""
