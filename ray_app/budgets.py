"""What a job may spend, as it is given and as it is reported."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from ray_app.errors import InputError


@dataclass(frozen=True)
class JobLimits:
    """What a job may spend in all, resumed runs included; None sets no limit."""

    #: US dollars.
    cost: Decimal | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        cost = self.cost
        if (cost is not None and not (cost.is_finite() and cost > 0)) or (
            self.tokens is not None and self.tokens < 1
        ):
            raise InputError("A budget must be above zero.", hint="Give US dollars, such as --budget 2.50.")

    def to_json(self) -> dict[str, str | int | None]:
        """The cost as text, for it is exact; however it was written, the same amount gives the same text."""
        return {"cost": None if self.cost is None else f"{self.cost.normalize():f}", "tokens": self.tokens}

    @property
    def given(self) -> bool:
        return self.cost is not None or self.tokens is not None


@dataclass(frozen=True)
class JobBudget:
    """What a job may spend in all, what it has spent of it, and what its rest would take."""

    #: US dollars; None sets no limit.
    cost_limit: Decimal | None
    token_limit: int | None
    #: Calls that died with their process count as the most they could cost.
    cost_spent: Decimal
    tokens_spent: int
    rows_left: int
    #: At what the rows so far have taken each; zero before the first.
    tokens_left: int
    cost_left: Decimal
