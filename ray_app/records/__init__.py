"""Rows that callers push: embedded and searchable when the call returns.

An upsert has three steps, so that no transaction is open while a model works: ``planning`` (what has
to be embedded), the caller's own embedding, and ``committing`` (points first, ledger second).
"""
