"""Keeping indexes in step with tables cheaply: only what changed is read, and what is gone is found.

``watermark`` says from when on rows have to be read, ``comparing`` reads and applies them for one index,
``operation`` does it for a tenant, ``service`` for all tenants of a running server.
"""
