"""``GET /v1/models``: the embedding spaces served here, as OpenAI lists models."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from ray_app.api.principals import FromTenant
from ray_app.api.services import FromServices, Services
from ray_app.errors import UnknownModel
from ray_app.spaces import EmbeddingSpace

router = APIRouter(prefix="/v1", tags=["embeddings"])


class Model(BaseModel):
    """A model, and the embedding space that its vectors are in."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "rowbeam"
    space: str
    dimensions: int
    max_tokens: int


class ModelList(BaseModel):
    object: str = "list"
    data: list[Model]


@router.get("/models", summary="The models served here")
async def list_models(services: FromServices, _caller: FromTenant) -> ModelList:
    return ModelList(data=[_model(space) for space in services.backend.spaces()])


@router.get("/models/{model:path}", summary="One model, by its name or its space's id")
async def get_model(model: str, services: FromServices, _caller: FromTenant) -> Model:
    return _model(find_space(services, model))


def find_space(services: Services, model: str) -> EmbeddingSpace:
    """The space of that name or id. Raises UnknownModel."""
    spaces = services.backend.spaces()
    for space in spaces:
        if model in (space.space_id, space.model):
            return space
    names = ", ".join(space.model for space in spaces)
    raise UnknownModel(f"There is no such model here. Served: {names}.", param="model")


def _model(space: EmbeddingSpace) -> Model:
    return Model(
        id=space.model, space=space.space_id, dimensions=space.dimensions, max_tokens=space.max_tokens
    )
