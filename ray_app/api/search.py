"""``POST /v1/search``: a tenant's records by text, by vector, or by likeness to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Response

from ray_app.api.authentication import Principal
from ray_app.api.counting import count, estimate
from ray_app.api.embeddings_models import Inputs
from ray_app.api.online_usage import record_usage
from ray_app.api.principals import FromTenant
from ray_app.api.search_models import LikeRecord, SearchAnswer, SearchRequest
from ray_app.api.services import FromServices, Services
from ray_app.errors import InputError, InvalidFilter
from ray_app.records.single import spelled_id
from ray_app.searching import (
    Answer,
    Query,
    Vector,
    as_vector,
    clean_query,
    find,
    find_indexes,
    only_space,
    spaces_of,
    vector_of,
)
from ray_app.serving.port import EmbedCall, Purpose
from ray_app.serving.splitting import embed_in_parts
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import IndexKey
from ray_app.tenants import TenantScope

router = APIRouter(prefix="/v1", tags=["search"])


@dataclass(frozen=True)
class _Target:
    """Where to search, and with what as far as that needs no model."""

    #: Of the place that the indexes are in, which the key's own scope may not know of yet.
    scope: TenantScope
    indexes: Sequence[IndexKey]
    vectors: Mapping[str, Vector]
    without: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Embedded:
    """A search text in one space."""

    space: EmbeddingSpace
    vector: Vector
    providers: Sequence[str]
    tokens: int


@dataclass(frozen=True)
class Found:
    """What a search found, and who embedded its text; nobody where there was none."""

    answer: Answer
    providers: Sequence[str]


@router.post("/search", summary="Find records by meaning, by words, or by likeness")
async def search(
    body: SearchRequest, services: FromServices, caller: FromTenant, response: Response
) -> SearchAnswer:
    """The tenant's own records, each once by its best chunk, best first."""
    found = await run_search(services, caller, body)
    if found.providers:
        response.headers["x-rowbeam-provider"] = ",".join(found.providers)
    return SearchAnswer.of(found.answer)


async def run_search(services: Services, caller: Principal, body: SearchRequest) -> Found:
    """Search as ``caller``: within its tenant's limits, and counted as its tenant's usage.

    Raises:
        InputError: what is asked for cannot be looked for.
        RateLimited, Overloaded: it has to come back later.
        DependencyError: the ledger, the store or every provider of a space is out of reach.
    """
    body.check()
    words = clean_query(body.text) if body.text is not None else None
    inputs = Inputs([words] if words else [], single=True)
    # The tables' spaces are not known yet; most searches are in one.
    guess = estimate(inputs, services.backend.spaces()[0])
    with services.admission.admit(caller.tenant, guess) as ticket:
        target = await services.in_thread(_target, services, caller, body)
        embedded = [
            await _embed(services, caller, space, inputs)
            for space in (spaces_of(target.indexes) if words else ())
        ]
        ticket.settle(sum(each.tokens for each in embedded))
        query = Query(
            target.indexes,
            {**target.vectors, **{each.space.space_id: each.vector for each in embedded}},
            body.limit,
            [each.condition() for each in body.filters],
            body.score_threshold,
            words if body.hybrid else None,
            target.without,
        )
        answer = await services.in_thread(_find, services, target.scope, query)
    return Found(answer, sorted({name for each in embedded for name in each.providers}))


def _target(services: Services, caller: Principal, body: SearchRequest) -> _Target:
    if body.like is not None:
        return _like(services, caller, body, body.like)
    located = find_indexes(services.workspace, caller.tenant, caller.scope, body.tables, body.vector_type)
    if body.vector is not None:
        space = only_space(located.indexes)
        return _Target(located.scope, located.indexes, {space.space_id: as_vector(body.vector, space)})
    return _Target(located.scope, located.indexes, {})


def _like(
    services: Services,
    caller: Principal,
    body: SearchRequest,
    like: LikeRecord,
) -> _Target:
    wanted = None if body.tables is None else [*body.tables, like.table]
    # Looked up at once: between two looks an index may be bound to another space.
    located = find_indexes(services.workspace, caller.tenant, caller.scope, wanted, body.vector_type)
    scope, indexes = located.scope, located.indexes
    own = next((index for index in indexes if index.table == like.table), None)
    if own is None:
        (own,) = find_indexes(
            services.workspace, caller.tenant, scope, [like.table], body.vector_type
        ).indexes
    record = spelled_id(services.directory, like.table, str(like.id), param="like.id")
    vector = vector_of(services.store, scope, own, record)
    if body.tables is None:
        # What was not asked for by name is passed over when it does not compare.
        indexes = [index for index in indexes if index.space == own.space]
    else:
        only_space(indexes)
        names = {services.workspace.tables.get(name).name for name in body.tables}
        indexes = [index for index in indexes if index.table in names]
    return _Target(scope, indexes, {own.space.space_id: vector}, (like.table, record))


async def _embed(services: Services, caller: Principal, space: EmbeddingSpace, inputs: Inputs) -> _Embedded:
    """The text in ``space``; of a long one a model reads the beginning."""
    counted = await services.in_thread(count, services.workspace, inputs, space, truncate=True)
    call = EmbedCall(space, counted.texts, counted.tokens, caller.tenant.incarnation, purpose=Purpose.QUERY)
    joined = await embed_in_parts(services.backend, call)
    record_usage(services, caller.tenant, space, joined)
    for fault in joined.embedded.faults.values():
        raise InputError(f"The text cannot be searched for: {fault.message}", param="text")
    return _Embedded(space, joined.embedded.vectors[0], joined.providers, joined.embedded.tokens)


def _find(services: Services, scope: TenantScope, query: Query) -> Answer:
    try:
        return find(services.store, scope, query)
    except InvalidFilter as error:
        error.param = error.param or "filters"
        raise
