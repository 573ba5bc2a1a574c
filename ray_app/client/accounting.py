"""What a tenant has: coverage of its tables, usage, models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from ray_app.client.reading import ask_list, read
from ray_app.client.steps import Operation, Patience, Request, call_json
from ray_app.reports import CoverageRow, UsageRow


@dataclass(frozen=True)
class Usage:
    """From ``first`` to ``last``, both included; the sums are those of ``rows``."""

    first: date
    last: date
    texts: int
    tokens: int
    #: US dollars.
    cost: Decimal
    #: By day, provider, model and table.
    rows: tuple[UsageRow, ...]


@dataclass(frozen=True)
class Model:
    """A model served here, and the embedding space that its vectors are in."""

    id: str
    space: str
    dimensions: int
    max_tokens: int


def coverage(patience: Patience) -> Operation[list[CoverageRow]]:
    return ask_list(patience, CoverageRow, "coverage", Request("GET", "/v1/coverage"))


def usage(patience: Patience, first: date | None, last: date | None) -> Operation[Usage]:
    days = {"from": first, "to": last}
    query = {name: day.isoformat() for name, day in days.items() if day is not None}
    answer = yield from call_json(patience, Request("GET", "/v1/usage", query=query))
    return read(Usage, {**answer, "first": answer.get("from"), "last": answer.get("to")})


def models(patience: Patience) -> Operation[list[Model]]:
    return ask_list(patience, Model, "data", Request("GET", "/v1/models"))
