"""Token ids as input, with the real model that is shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from tokenizers import Tokenizer

from ray_app.encoders.model_config import load_tokenizer
from ray_app.encoders.model_files import find_model
from ray_app.providers.local import local_provider
from ray_app.settings import Settings
from tests.conftest import fresh_database
from tests.support.api_site import ApiSite

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [
    "do not decode this as don't",
    "Überraschung: naïve café, isn't it?",
    "fix(parser): handle 0x1F and snake_case_names",
    "日本語 text",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(find_model("bundled").config().tokenizer)


@pytest.fixture(scope="module")
def real(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[httpx.Client]:
    """A client of a site with the shipped model, loaded before the first of these tests asks for it."""
    home: Path = tmp_path_factory.mktemp("home")
    with fresh_database(postgres_url, template_database) as url:
        settings = Settings(home=home, cache_dir=model_cache, database_url=SecretStr(url), encoder_threads=1)
        local_provider(settings).embed_query("ready")
        with ApiSite(settings) as site, site.http(site.add_tenant("acme")) as client:
            yield client


def embed(http: httpx.Client, value: object) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": MODEL, "input": value})


def vectors(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]])


def test_ids_give_the_vectors_and_the_usage_of_their_text(real: httpx.Client, tokenizer: Tokenizer) -> None:
    name = real.get("/v1/models").json()["data"][0]["id"]
    assert name == MODEL
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    by_text, by_ids = embed(real, TEXTS), embed(real, ids)
    np.testing.assert_allclose(vectors(by_ids), vectors(by_text), atol=1e-6)
    assert (
        by_ids.json()["usage"]
        == by_text.json()["usage"]
        == {
            "prompt_tokens": sum(map(len, ids)),
            "total_tokens": sum(map(len, ids)),
        }
    )


def test_special_tokens_around_a_text_make_no_difference(real: httpx.Client, tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode(TEXTS[0])
    np.testing.assert_allclose(vectors(embed(real, encoding.ids)), vectors(embed(real, TEXTS[0])), atol=1e-6)


def test_ids_out_of_the_vocabulary_say_what_langchain_users_must_set(real: httpx.Client) -> None:
    response = embed(real, [[15339, 1917], [100_256]])
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "input[1]")
    assert "check_embedding_ctx_length=False" in error["message"]


def test_ids_that_no_text_has_are_refused(real: httpx.Client, tokenizer: Tokenizer) -> None:
    tail = tokenizer.token_to_id("##ing")
    response = embed(real, [tail, tail, 2023])
    assert response.status_code == 400
    assert "tokenizer" in response.json()["error"]["message"]


def test_the_limit_is_the_models_own_to_the_token(real: httpx.Client) -> None:
    limit = real.get("/v1/models").json()["data"][0]["max_tokens"]
    assert embed(real, "word " * limit).json()["usage"]["total_tokens"] == limit
    response = embed(real, "word " * (limit + 1))
    assert response.json()["error"]["code"] == "context_length_exceeded"
