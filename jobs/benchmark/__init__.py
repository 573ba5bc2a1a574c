"""Benchmarks that a reader can run: ``python -m jobs.benchmark memory``, ``realtime`` and ``crowd``."""
