"""``POST /v1/embeddings``, as OpenAI's."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/v1", tags=["embeddings"])
