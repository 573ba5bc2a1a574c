"""Benchmarks that a reader can run: ``python -m jobs.benchmark`` prints the table."""
