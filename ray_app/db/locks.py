"""Advisory locks of the ledger's database: their keys, and work that one process at a time may do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from sqlalchemy import Engine, func, select, text


def lock_key(name: str) -> int:
    """The key, a signed 64-bit number, of the advisory lock of that name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


@contextmanager
def alone(ledger: Engine, name: str) -> Iterator[bool]:
    """Hold ``name`` against other processes while the block runs; False where another holds it.

    Postgres frees it when this process dies.
    """
    key = lock_key(name)
    with ledger.connect() as connection:
        connection.detach()  # back in the pool it would go on to hold the lock
        taken = bool(connection.scalar(select(func.pg_try_advisory_lock(key))))
        connection.commit()
        try:
            yield taken
        finally:
            if taken:
                connection.execute(text("SELECT pg_advisory_unlock_all()"))
                connection.commit()
