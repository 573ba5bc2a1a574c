"""Removing a tenant for good: fenced off, erased in rounds until one finds nothing, looked for again when a
retention is over, and proven by a signed record."""
