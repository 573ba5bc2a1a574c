"""US dollars in JSON: text, for they are exact."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

#: ``Decimal`` of its own would print 1E-9 for a billionth.
Dollars = Annotated[
    Decimal,
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)?$",
            "description": "US dollars, exact.",
            "examples": ["0.000012"],
        },
        mode="serialization",
    ),
]
