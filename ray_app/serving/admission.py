"""Admission: all of a request or none of it, in tokens, before any work. Written by its helper."""

from __future__ import annotations


class Admission:
    """Placeholder until its helper commits."""
