"""Work that one process at a time may do, held by an advisory lock of the ledger's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from sqlalchemy import Engine, func, select, text


@contextmanager
def alone(ledger: Engine, name: str) -> Iterator[bool]:
    """Hold ``name`` against other processes while the block runs; False where another holds it.

    Postgres frees it when this process dies.
    """
    key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
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
