"""Usage of online work, added up in memory and written to the ledger a few times a minute."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from threading import Lock
from uuid import UUID

from sqlalchemy import Engine

from ray_app.db import usage
from ray_app.metrics.counting import count_usage
from ray_app.metrics.declared import ONLINE


@dataclass(frozen=True)
class UsageKey:
    """What usage is added up by, besides the day."""

    incarnation: UUID
    provider: str
    model: str
    table: str = ""


@dataclass
class _Sum:
    texts: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)
    seconds: float = 0.0


class UsageLog:
    """Adds usage up; ``flush`` writes it. Thread-safe.

    What costs money is flushed before the caller is answered (see ``GatewayProxy``); what a local
    model did may wait, and a crash loses the counts of the seconds since the last flush.
    """

    def __init__(self, ledger: Engine) -> None:
        self._ledger = ledger
        self._lock = Lock()
        self._sums: dict[UsageKey, _Sum] = {}

    def add(
        self, key: UsageKey, *, texts: int, tokens: int, cost: Decimal = Decimal(0), seconds: float = 0.0
    ) -> None:
        """Add one answer. ``seconds`` is the time the provider took."""
        with self._lock:
            total = self._sums.setdefault(key, _Sum())
            total.texts += texts
            total.tokens += tokens
            total.cost += cost
            total.seconds += seconds

    def flush(self) -> None:
        """Write what was added. What cannot be written is kept for the next time.

        Raises:
            DatabaseUnavailable: the ledger cannot be reached.
        """
        with self._lock:
            taken, self._sums = self._sums, {}
        try:
            with self._ledger.begin() as connection:
                for key, total in taken.items():
                    usage.add_online(
                        connection,
                        incarnation=key.incarnation,
                        provider=key.provider,
                        model=key.model,
                        table=key.table,
                        texts=total.texts,
                        tokens=total.tokens,
                        cost=total.cost,
                        seconds=total.seconds,
                    )
        except BaseException:
            for key, total in taken.items():
                self.add(key, texts=total.texts, tokens=total.tokens, cost=total.cost, seconds=total.seconds)
            raise
        # After the ledger has it, so that the two agree.
        for key, total in taken.items():
            count_usage(
                *(ONLINE, key.table, key.provider),
                texts=total.texts,
                tokens=total.tokens,
                cost=total.cost,
                seconds=total.seconds,
            )
