"""Bodies of ``/v1/search``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ray_app.errors import InputError
from ray_app.reports import SearchHit
from ray_app.searching import Answer, Scoring
from ray_app.spaces import VectorType
from ray_app.store.port import Condition

#: Characters of a search text; a model reads the beginning of it.
MAX_TEXT = 32_768
#: Numbers of a vector; more than any model has.
MAX_DIMENSIONS = 65_536
MAX_HITS = 100
#: Tables of one search; each is asked by itself.
MAX_TABLES = 50
MAX_FILTERS = 100


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class LikeRecord(_Request):
    """A record of the tenant's own."""

    table: Annotated[str, Field(min_length=1, max_length=128)]
    id: Annotated[str | int, Field(description="Its key, as a number or text.")]


class Filter(_Request):
    """A condition on a payload column; all have to be met."""

    field: Annotated[str, Field(description="A payload column; a list meets a condition when an item does.")]
    op: Annotated[
        Literal["eq", "in", "gt", "gte", "lt", "lte"],
        Field(description='"in" takes a list; the last four take numbers or times in ISO 8601.'),
    ]
    # Checked by the store's own rules, which name the column.
    value: Annotated[Any, Field(description="A text, number, boolean, or a list of them.")]

    def condition(self) -> Condition:
        return Condition(self.field, self.op, self.value)


class SearchRequest(_Request):
    """Exactly one of ``text``, ``vector`` and ``like`` says what to look for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "text": "login fails after the update",
                    "tables": ["issues"],
                    "filters": [{"field": "status", "op": "eq", "value": "open"}],
                }
            ]
        }
    )

    text: Annotated[str | None, Field(min_length=1, max_length=MAX_TEXT)] = None
    vector: Annotated[
        list[float] | None,
        Field(min_length=1, max_length=MAX_DIMENSIONS, description="In the tables' one space."),
    ] = None
    like: Annotated[LikeRecord | None, Field(description="More like this record, which is left out.")] = None
    tables: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]] | None,
        Field(min_length=1, max_length=MAX_TABLES, description="By default all that have such vectors."),
    ] = None
    # Lax: an enumeration is a string in JSON.
    vector_type: Annotated[VectorType, Field(strict=False)] = VectorType.CONTENT
    filters: Annotated[list[Filter], Field(max_length=MAX_FILTERS)] = []
    limit: Annotated[int, Field(ge=1, le=MAX_HITS)] = 10
    score_threshold: Annotated[
        float | None,
        Field(
            ge=-1,
            le=1,
            allow_inf_nan=False,
            description="The least cosine; what a hybrid search finds by its words alone is not held to it.",
        ),
    ] = None
    hybrid: Annotated[
        bool, Field(description="Search the words of the text too (BM25), and fuse both by rank.")
    ] = False

    def check(self) -> None:
        """Raises InputError unless it asks for exactly one thing."""
        given = [name for name in ("text", "vector", "like") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                "Send exactly one of 'text', 'vector' and 'like'.", param=given[1] if given else "text"
            )
        if self.hybrid and self.text is None:
            raise InputError("A hybrid search looks for words, so it needs 'text'.", param="hybrid")


class Hit(BaseModel):
    """A record found, by its best chunk."""

    table: str
    id: str
    score: float
    snippet: str
    #: Its payload columns.
    data: Mapping[str, Any]

    @classmethod
    def of(cls, hit: SearchHit) -> Hit:
        return cls(table=hit.table, id=hit.record_id, score=hit.score, snippet=hit.snippet, data=hit.data)


class SearchAnswer(BaseModel):
    """Records, each once, best first."""

    scoring: Annotated[
        Scoring,
        Field(
            description=(
                "cosine: scores are similarities, -1 to 1. rrf: lists that do not compare (of words and"
                " vectors, or of several embedding spaces) were fused by rank, and only the order counts."
            )
        ),
    ]
    hits: list[Hit]

    @classmethod
    def of(cls, answer: Answer) -> SearchAnswer:
        return cls(scoring=answer.scoring, hits=[Hit.of(hit) for hit in answer.hits])
