"""``POST /v1/embeddings``, as OpenAI's."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from ray_app.api.authentication import Principal
from ray_app.api.counting import Counted, count, estimate
from ray_app.api.embeddings_models import EmbeddingsRequest, EmbeddingsResponse, Inputs, parse_inputs
from ray_app.api.models import find_space
from ray_app.api.online_usage import record_usage
from ray_app.api.principals import FromTenant
from ray_app.api.services import FromServices, Services
from ray_app.api.vectors import check_dimensions, cut_vectors, encode_answer
from ray_app.errors import InputError
from ray_app.serving.port import EmbedCall
from ray_app.serving.splitting import Joined, embed_in_parts
from ray_app.spaces import EmbeddingSpace

router = APIRouter(prefix="/v1", tags=["embeddings"])

#: Numbers that are written out, and characters whose tokens are counted, on the event loop; more would
#: keep others waiting, so a thread does it.
_FEW_NUMBERS: Final = 8_192
_FEW_CHARACTERS: Final = 2_048


@router.post("/embeddings", summary="Embed texts, as OpenAI's API does", response_model=EmbeddingsResponse)
async def create_embeddings(body: EmbeddingsRequest, services: FromServices, caller: FromTenant) -> Response:
    """Vectors in the order of the inputs: of all, or of none, for OpenAI's API has no partial answers."""
    started = time.perf_counter()
    space = find_space(services, body.model)
    size = check_dimensions(space, body.dimensions)
    inputs = parse_inputs(body.input, services.options.max_inputs)
    with services.admission.admit(caller.tenant, estimate(inputs, space)) as ticket:
        counted = await _count(services, inputs, space, truncate=body.truncate)
        call = EmbedCall(space, counted.texts, counted.tokens, caller.tenant.incarnation)
        joined = await embed_in_parts(services.backend, call)
        record_usage(services, caller.tenant, space, joined)
        ticket.settle(joined.embedded.tokens)
        _refuse_faults(joined, inputs)
        content = await _encode(services, joined, body, space, size)
    milliseconds = (time.perf_counter() - started) * 1000
    return Response(
        content, media_type="application/json", headers=_headers(caller, space, joined, milliseconds)
    )


def _refuse_faults(joined: Joined, inputs: Inputs) -> None:
    """Raises InputError for the first text that could not be embedded."""
    faults = joined.embedded.faults
    if not faults:
        return
    index = min(faults)
    name = inputs.name(index)
    others = f" {len(faults) - 1} others cannot either." if len(faults) > 1 else ""
    raise InputError(f"'{name}' cannot be embedded: {faults[index].message}{others}", param=name)


async def _count(services: Services, inputs: Inputs, space: EmbeddingSpace, *, truncate: bool) -> Counted:
    call = partial(count, services.workspace, inputs, space, truncate=truncate)
    few = sum(map(len, inputs.items)) <= _FEW_CHARACTERS
    return call() if few else await services.in_thread(call)


async def _encode(
    services: Services, joined: Joined, body: EmbeddingsRequest, space: EmbeddingSpace, size: int
) -> bytes:
    vectors, tokens = joined.embedded.vectors, joined.embedded.tokens
    encoding = body.encoding_format or "float"

    def encode() -> bytes:
        return encode_answer(cut_vectors(vectors, size), model=space.model, tokens=tokens, encoding=encoding)

    return encode() if vectors.size <= _FEW_NUMBERS else await services.in_thread(encode)


def _headers(caller: Principal, space: EmbeddingSpace, joined: Joined, milliseconds: float) -> dict[str, str]:
    limits = caller.tenant.limits
    return {
        "x-rowbeam-provider": ",".join(joined.providers),
        "x-embedding-space": space.space_id,
        "x-ratelimit-limit-requests": str(limits.requests_per_minute),
        "x-ratelimit-limit-tokens": str(limits.tokens_per_minute),
        "openai-processing-ms": f"{milliseconds:.0f}",
    }
