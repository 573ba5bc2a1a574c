from __future__ import annotations

import pytest
from pydantic import SecretStr

from ray_app.errors import ConfigError
from ray_app.providers.gateway import gateway_chunker, gateway_space
from ray_app.providers.gateway_endpoint import endpoint_of
from ray_app.settings import GatewaySettings

AZURE = "https://unit.openai.azure.com"


def settings(url: str, key: str | None = "k") -> GatewaySettings:
    return GatewaySettings(url=url, api_key=SecretStr(key) if key is not None else None)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com/v1/embeddings", "https://api.openai.com/v1/embeddings"),
        (" http://host:8080/embeddings ", "http://host:8080/embeddings"),
        ("https://gateway.example/llm", "https://gateway.example/llm/v1/embeddings"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/embeddings"),
        (
            "https://generativelanguage.googleapis.com/v1beta/openai/",
            "https://generativelanguage.googleapis.com/v1beta/openai/embeddings",
        ),
        ("https://host/v1?team=a%20b#top", "https://host/v1/embeddings?team=a+b"),
        (
            f"{AZURE}/openai/deployments/small/embeddings?api-version=2023-05-15",
            f"{AZURE}/openai/deployments/small/embeddings?api-version=2023-05-15",
        ),
        (
            f"{AZURE}/openai/deployments/small",
            f"{AZURE}/openai/deployments/small/embeddings?api-version=2024-10-21",
        ),
        (AZURE, f"{AZURE}/openai/v1/embeddings"),
        (f"{AZURE}/openai/v1/", f"{AZURE}/openai/v1/embeddings"),
    ],
)
def test_urls(url: str, asked: str) -> None:
    assert endpoint_of(settings(url)).url == asked


@pytest.mark.parametrize(
    "url", [AZURE, f"{AZURE}/openai/v1", "https://proxy.example/openai/deployments/small?api-version=1"]
)
def test_azure_takes_the_key_in_a_header_of_its_own(url: str) -> None:
    headers = endpoint_of(settings(url)).headers
    assert headers["api-key"] == "k"
    assert "authorization" not in headers


def test_others_take_a_bearer_token() -> None:
    headers = endpoint_of(settings("https://api.openai.com/v1")).headers
    assert headers["authorization"] == "Bearer k"
    assert "api-key" not in headers


@pytest.mark.parametrize("key", [None, "", "  "])
def test_no_key_is_no_header(key: str | None) -> None:
    assert (
        not {"authorization", "api-key"} & endpoint_of(settings("http://localhost:8000", key)).headers.keys()
    )


def test_a_key_read_with_its_line_end_works() -> None:
    assert endpoint_of(settings("http://host", "k\n")).headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("key", ["two words", "schlüssel", "a\nb"])
def test_a_key_no_header_can_hold_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        endpoint_of(settings("http://host", key))
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "api.openai.com/v1", "ftp://host", "http://", "http://[::1", "http://host:x"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="ROWBEAM_GATEWAY_URL"):
        endpoint_of(settings(url))


def test_no_secret_shows() -> None:
    endpoint = endpoint_of(settings("https://user:password@host/v1?token=t0ken", "k3y"))
    for secret in ("password", "t0ken", "k3y"):
        assert secret not in repr(endpoint)
    assert endpoint.label == "host"


def test_the_space_of_a_known_model_needs_no_endpoint() -> None:
    space = gateway_space(settings("http://127.0.0.1:1"))
    assert (space.model, space.dimensions, space.max_tokens) == ("text-embedding-3-small", 1536, 8191)
    assert space.normalized


def test_configured_dimensions_make_another_space() -> None:
    small = GatewaySettings(url="http://127.0.0.1:1", dimensions=256)
    assert gateway_space(small).dimensions == 256
    assert gateway_space(small).space_id != gateway_space(settings("http://127.0.0.1:1")).space_id


def test_the_space_is_the_models_and_not_the_addresss() -> None:
    assert gateway_space(settings("http://a")) == gateway_space(settings(AZURE, None))


@pytest.mark.parametrize("chunk_tokens", [16, 200, 1000])
def test_a_chunk_fits_any_known_model_even_at_one_token_a_byte(chunk_tokens: int) -> None:
    chunker = gateway_chunker(GatewaySettings(url="http://a", chunk_tokens=chunk_tokens))
    (chunks,) = chunker.chunk(["0123456789 " * 1_000])
    assert all(len(chunk.text.encode()) <= chunk_tokens * 2.5 <= 8191 for chunk in chunks)
