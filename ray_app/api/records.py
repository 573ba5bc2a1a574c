"""``/v1/tables/{table}/records``: rows that an ETL pushes, searchable when the call returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Response

from ray_app.api.authentication import Principal
from ray_app.api.online_usage import record_usage
from ray_app.api.principals import FromTenant
from ray_app.api.records_models import (
    DeletedRecord,
    RecordsAnswer,
    RecordsRequest,
    RecordStateAnswer,
    VectorState,
)
from ray_app.api.services import FromServices, Services
from ray_app.errors import TooLarge
from ray_app.records import single
from ray_app.records.planning import IndexUpsert
from ray_app.records.pushing import Push
from ray_app.serving.port import EmbedCall, Served
from ray_app.serving.splitting import embed_in_parts
from ray_app.spaces import VectorType
from ray_app.tables import TableSpec

router = APIRouter(prefix="/v1/tables", tags=["records"])

#: UTF-8 bytes that one token of ordinary text has at the least.
_BYTES_PER_TOKEN: Final = 3
_TableName = Annotated[str, Path(description="A table's name.", min_length=1, max_length=128)]
_RecordId = Annotated[str, Path(description="The record's key; slashes in it need no escape.")]


@router.put("/{table}/records", summary="Embed and index rows now")
async def put_records(
    table: _TableName, body: RecordsRequest, services: FromServices, caller: FromTenant, response: Response
) -> RecordsAnswer:
    """Each row is embedded, unless its text is embedded already or a newer state of it is.

    Safe to repeat: what is stored already costs nothing. A row that cannot be embedded does not hold up
    the others. When the call fails as a whole, nothing of it counts.
    """
    most = services.options.max_records
    if len(body.records) > most:
        raise TooLarge(
            f"'records' has {len(body.records)} rows; one request takes {most}.",
            hint="Send them in several requests.",
            param="records",
        )
    spec = services.workspace.tables.get(table)
    push = Push(
        services.directory, caller.tenant, caller.scope, spec.name, services.options.max_record_tokens
    )
    guess = _estimate(spec, body.vector_types or spec.vector_types, body.records)
    with services.admission.admit(caller.tenant, guess) as ticket:
        upserts = await services.in_thread(push.begin, body.records, body.vector_types)
        ticket.settle(_tokens(upserts))
        tokens, providers = 0, set[str]()
        try:
            while upserts:
                served = [await _embed(services, caller, upsert) for upsert in upserts]
                tokens += sum(answer.embedded.tokens for answer in served if answer)
                providers |= {answer.provider for answer in served if answer}
                upserts = await services.in_thread(push.settle, upserts, served)
        finally:
            ticket.settle(tokens)
    if providers:
        response.headers["x-rowbeam-provider"] = ",".join(sorted(providers))
    return RecordsAnswer.of(spec.name, [row.record_id for row in push.rows], push.settled, tokens)


async def _embed(services: Services, caller: Principal, upsert: IndexUpsert) -> Served | None:
    if not upsert.texts:
        return None
    index = upsert.reader.index
    call = EmbedCall(index.space, upsert.texts, upsert.tokens, caller.tenant.incarnation, table=index.table)
    joined = await embed_in_parts(services.backend, call)
    record_usage(services, caller.tenant, index.space, joined, table=index.table)
    seconds = sum(share.seconds for share in joined.shares)
    return Served(joined.embedded, ",".join(joined.providers), seconds)


def _tokens(upserts: Iterable[IndexUpsert]) -> int:
    return sum(sum(upsert.tokens) for upsert in upserts)


def _estimate(spec: TableSpec, kinds: Iterable[VectorType], rows: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of the rows' texts as far as their size tells; the same for the same request."""
    columns = [name for kind in kinds if kind in spec.text for name in spec.text[kind].columns]
    size = sum(_bytes(row.get(name)) for row in rows for name in columns)
    return math.ceil(size / _BYTES_PER_TOKEN)


def _bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return sum(_bytes(item) for item in value if isinstance(item, str))
    return 0


@router.get("/{table}/records/{record_id:path}", summary="What is stored of a record")
async def get_record(
    table: _TableName, record_id: _RecordId, services: FromServices, caller: FromTenant
) -> RecordStateAnswer:
    """Its vectors of each type; 404 when nothing is stored of it."""
    with services.admission.admit(caller.tenant, 0):
        spelled, states = await services.in_thread(
            single.record_state, services.directory, caller.tenant, table, record_id
        )
    return RecordStateAnswer(table=table, id=spelled, vectors=[VectorState.of(state) for state in states])


@router.delete("/{table}/records/{record_id:path}", summary="Take a record out of every index")
async def delete_record(
    table: _TableName, record_id: _RecordId, services: FromServices, caller: FromTenant
) -> DeletedRecord:
    """Safe to repeat. A record whose row is still in its table comes back with the next backfill."""
    with services.admission.admit(caller.tenant, 0):
        spelled, deleted = await services.in_thread(
            single.delete_record, services.directory, caller.tenant, caller.scope, table, record_id
        )
    return DeletedRecord(table=table, id=spelled, deleted=deleted)
