"""Deterministic ids: the same record and chunk always name the same point, so every write is idempotent.

HMAC and not a plain UUIDv5, so that nobody without the deployment's secret can compute the id of
another tenant's point. Parts are length-prefixed: ("a_b", "c") and ("a", "b_c") must not meet.
"""

from __future__ import annotations

import hmac
from uuid import UUID


def keyed_uuid(secret: bytes, *parts: str) -> UUID:
    """First 16 bytes of HMAC-SHA256 over the length-prefixed UTF-8 ``parts``, as a UUID."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    message = b"".join(len(data).to_bytes(8, "big") + data for data in encoded)
    # Version and variant bits keep the id a well-formed (random-style) UUID for strict parsers.
    return UUID(bytes=hmac.digest(secret, message, "sha256")[:16], version=4)


def partition_id(secret: bytes, incarnation: UUID, table: str, vector_type: str) -> UUID:
    """The payload partition ``_p`` of one index: a search names exactly one."""
    return keyed_uuid(secret, "partition", str(incarnation), table, vector_type)


def point_id(
    secret: bytes, incarnation: UUID, table: str, vector_type: str, record_id: str, chunk: int
) -> UUID:
    """The id of the point that holds one chunk of one record."""
    return keyed_uuid(secret, "point", str(incarnation), table, vector_type, record_id, str(chunk))
