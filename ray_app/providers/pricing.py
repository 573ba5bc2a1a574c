"""From tokens to US dollars."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from ray_app.providers.gateway_models import canonical_name

#: US dollars per million tokens: OpenAI's list prices of November 2026. A setting overrides them.
DEFAULT_PRICES: Final[Mapping[str, Decimal]] = {
    "text-embedding-3-small": Decimal("0.02"),
    "text-embedding-3-large": Decimal("0.13"),
    "text-embedding-ada-002": Decimal("0.10"),
}
_MILLION: Final = 1_000_000


def price_per_million(model: str, override: float | None = None) -> Decimal | None:
    """US dollars per million tokens of ``model``, or None when nobody said and the table does not know."""
    if override is not None:
        # Through str, so that 0.02 is 0.02 and not its binary neighbour.
        return Decimal(str(override))
    return DEFAULT_PRICES.get(canonical_name(model))


def cost_of(tokens: int, price: Decimal | None) -> Decimal:
    """US dollars for ``tokens`` at ``price`` per million; zero when the price is unknown."""
    return Decimal(0) if price is None else tokens * price / _MILLION
