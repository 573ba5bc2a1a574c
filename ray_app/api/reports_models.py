"""Bodies of the routes that report: coverage and usage."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, ConfigDict, Field

from ray_app.api.amounts import Dollars
from ray_app.spaces import VectorType


class CoverageBody(BaseModel):
    """How much of one index is in step with its table."""

    model_config = ConfigDict(from_attributes=True)

    table: str
    vector_type: VectorType
    #: Active rows of the tenant.
    rows: int
    #: Records with vectors, stale ones included.
    embedded: int
    #: Records whose text, space or chunking has changed since they were embedded, or whose row is gone.
    stale: int
    no_text: int
    dead: int
    #: Null while the index does not exist.
    space_id: str | None
    model: str | None
    points: int


class CoverageList(BaseModel):
    coverage: list[CoverageBody]


class UsageBody(BaseModel):
    """What one provider and model did for one table on one day (UTC)."""

    model_config = ConfigDict(from_attributes=True)

    day: dt.date
    provider: str
    model: str
    #: Empty for texts of no table, such as those of the embeddings route.
    table: str
    texts: int
    tokens: int
    cost: Dollars


class UsageAnswer(BaseModel):
    """Both days are included; the sums are those of the rows."""

    model_config = ConfigDict(from_attributes=True, validate_by_name=True)

    first: dt.date = Field(alias="from")
    last: dt.date = Field(alias="to")
    texts: int
    tokens: int
    cost: Dollars
    rows: list[UsageBody]
