"""Other clients of OpenAI's API, unchanged: only their constructors' arguments are ours."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

from ray_app.encoders.stub import StubEncoder
from tests.support.api_site import ApiSite

TEXTS = [f"document number {number}" for number in range(300)]


@pytest.fixture(scope="module")
def url(shared_site: ApiSite) -> str:
    return f"{shared_site.url}/v1"


@pytest.fixture(scope="module")
def key(shared_http: httpx.Client) -> str:
    return shared_http.headers["authorization"].removeprefix("Bearer ")


def check(found: object, texts: list[str] = TEXTS) -> None:
    assert np.array(found, np.float32).tobytes() == StubEncoder().encode(texts).vectors.tobytes()


def test_the_asynchronous_client_with_many_calls_at_once(url: str, key: str) -> None:
    async def embed_each() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=url, api_key=key) as client:
            calls = (client.embeddings.create(model="stub", input=text) for text in TEXTS[:40])
            return [answer.data[0].embedding for answer in await asyncio.gather(*calls)]

    check(asyncio.run(embed_each()), TEXTS[:40])


def test_langchains_embeddings(url: str, key: str) -> None:
    embeddings = OpenAIEmbeddings(
        model="stub", base_url=url, api_key=key, check_embedding_ctx_length=False, chunk_size=128
    )
    check(embeddings.embed_documents(TEXTS))
    check([embeddings.embed_query(TEXTS[0])], TEXTS[:1])
    check(asyncio.run(embeddings.aembed_documents(TEXTS)))


def test_llama_indexs_embeddings(url: str, key: str) -> None:
    embedding = OpenAIEmbedding(model_name="stub", api_base=url, api_key=key, embed_batch_size=100)
    check(embedding.get_text_embedding_batch(TEXTS))
    check([embedding.get_query_embedding(TEXTS[0])], TEXTS[:1])
    check(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)))
