from __future__ import annotations

from decimal import Decimal

import pytest

from ray_app.providers.gateway_models import contradicts, known_model
from ray_app.providers.pricing import cost_of, price_per_million


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("text-embedding-3-small", "0.02"),
        ("text-embedding-3-large", "0.13"),
        ("text-embedding-ada-002", "0.10"),
        ("openai/text-embedding-3-small", "0.02"),
        ("Text-Embedding-3-Small", "0.02"),
    ],
)
def test_known_models_have_a_price(model: str, price: str) -> None:
    assert price_per_million(model) == Decimal(price)


def test_an_unknown_model_has_none_and_costs_nothing() -> None:
    assert price_per_million("somebody's model") is None
    assert cost_of(1_000_000, None) == 0


def test_the_setting_wins_over_the_table_even_when_it_is_zero() -> None:
    assert price_per_million("text-embedding-3-small", 0.07) == Decimal("0.07")
    assert price_per_million("text-embedding-3-small", 0.0) == 0
    assert price_per_million("somebody's model", 0.5) == Decimal("0.5")


def test_cost_is_exact() -> None:
    assert cost_of(7, Decimal("0.02")) == Decimal("0.00000014")
    assert sum((cost_of(1, Decimal("0.02")) for _ in range(1_000_000)), Decimal(0)) == Decimal("0.02")


@pytest.mark.parametrize(
    ("configured", "served", "other"),
    [
        ("text-embedding-3-small", "text-embedding-ada-002", True),
        ("openai/text-embedding-3-small", "text-embedding-3-large", True),
        ("text-embedding-ada-002", "text-embedding-ada-002-v2", False),
        ("text-embedding-3-small", "text-embedding-3-small", False),
        ("text-embedding-3-small", "our-alias", False),
        ("our-alias", "text-embedding-3-small", False),
        ("text-embedding-3-small", None, False),
    ],
)
def test_only_two_different_known_models_contradict(configured: str, served: str | None, other: bool) -> None:
    assert contradicts(configured, served) is other


def test_versions_of_a_known_model_are_known() -> None:
    assert known_model("azure/text-embedding-ada-002-v2") == "text-embedding-ada-002"
    assert known_model("nomic-embed-text") is None
