"""``POST /v1/embeddings`` as it looks on the wire."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from ray_app.encoders.stub import STUB_SPACE, StubEncoder
from ray_app.serving.options import ServingOptions
from ray_app.settings import GatewaySettings, Settings
from tests.support.api_site import ApiSite
from tests.support.fake_gateway import FakeGateway
from tests.support.fake_gateway_steps import vector_of
from tests.support.gateway_helpers import KEY


@pytest.fixture
def http(shared_http: httpx.Client) -> httpx.Client:
    return shared_http


def embed(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": "stub"} | body)


def vectors(response: httpx.Response) -> npt.NDArray[np.float32]:
    """Of a float answer; indexes must count up."""
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return np.array([item["embedding"] for item in data], dtype=np.float64).astype(np.float32)


def stub(*texts: str) -> npt.NDArray[np.float32]:
    return StubEncoder().encode(texts).vectors


def refusal(response: httpx.Response) -> tuple[str, str | None, str | None]:
    """Message, param and code of a 400."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error["message"], error["param"], error["code"]


def test_the_answer_is_openais_and_nothing_else(http: httpx.Client) -> None:
    response = embed(http, input=["alpha beta", "gamma"], user="someone")
    body = response.json()
    assert body.keys() == {"object", "data", "model", "usage"}
    assert (body["object"], body["model"]) == ("list", "stub")
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert [item.keys() for item in body["data"]] == [{"object", "index", "embedding"}] * 2
    assert {item["object"] for item in body["data"]} == {"embedding"}
    assert response.headers["x-rowbeam-provider"] == "stub"
    assert response.headers["x-embedding-space"] == STUB_SPACE.space_id


def test_floats_and_base64_are_the_very_bits_of_the_model(http: httpx.Client) -> None:
    texts = [f"text number {number}" for number in range(20)]
    expected = stub(*texts)
    plain = vectors(embed(http, input=texts))
    assert plain.tobytes() == expected.tobytes()
    data = embed(http, input=texts, encoding_format="base64").json()["data"]
    raw = b"".join(base64.b64decode(item["embedding"], validate=True) for item in data)
    assert raw == expected.astype("<f4").tobytes()


def test_nulls_are_as_good_as_nothing(http: httpx.Client) -> None:
    response = embed(http, input="alpha", encoding_format=None, dimensions=None, user=None)
    assert vectors(response).shape == (1, 384)


def test_a_model_goes_by_its_name_or_its_space(http: httpx.Client) -> None:
    by_space = embed(http, input="alpha", model=STUB_SPACE.space_id)
    assert by_space.json()["model"] == "stub"
    assert vectors(by_space).tobytes() == vectors(embed(http, input="alpha")).tobytes()


def test_an_unknown_model_is_404(http: httpx.Client) -> None:
    response = embed(http, input="alpha", model="text-embedding-3-small")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_models_are_listed_with_their_spaces(http: httpx.Client) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["id"], model["space"], model["dimensions"]) == ("stub", STUB_SPACE.space_id, 384)
    assert http.get("/v1/models/stub").json() == http.get(f"/v1/models/{model['space']}").json() == model
    assert http.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("", "input"),
        ([], "input"),
        (["a", "b", ""], "input[2]"),
        ([[1], []], "input[1]"),
        (["a", 1], "input[1]"),
        (["a", None], "input[1]"),
        ([[1], "a"], "input[1]"),
        ([1, "a"], "input"),
        ([1, -1], "input"),
        ([[1, 2], [3, -4]], "input[1]"),
        ([1.5], "input[0]"),
        ([True], "input[0]"),
        ([["a"]], "input[0]"),
        (7, "input"),
        ({"text": "a"}, "input"),
        (None, "input"),
    ],
)
def test_an_input_that_cannot_be_used_is_named_by_its_index(
    http: httpx.Client, value: object, param: str
) -> None:
    message, named, _ = refusal(embed(http, input=value))
    assert named == param
    assert f"'{param}'" in message


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": "a", "inputs": "b"}, "inputs", "unknown_parameter"),
        ({}, "input", "missing_required_parameter"),
        ({"input": "a", "encoding_format": "md5"}, "encoding_format", "invalid_value"),
        ({"input": "a", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "a", "dimensions": "384"}, "dimensions", "invalid_type"),
        ({"input": "a", "dimensions": 100}, "dimensions", None),
        ({"input": "a", "dimensions": 385}, "dimensions", None),
        ({"input": "a", "model": ""}, "model", "invalid_value"),
        ({"input": "a", "user": 7}, "user", "invalid_type"),
        ({"input": "a", "truncate": "yes"}, "truncate", "invalid_type"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(
    http: httpx.Client, body: dict[str, Any], param: str, code: str | None
) -> None:
    assert refusal(embed(http, **body))[1:] == (param, code)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'"a"', b"\xff\xfe", b'{"a":' * 5000])
def test_a_body_that_is_no_object_is_400(http: httpx.Client, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    refusal(http.post("/v1/embeddings", content=content, headers=headers))


def test_two_thousand_and_48_inputs_are_taken_and_one_more_is_not(http: httpx.Client) -> None:
    texts = [f"text {number}" for number in range(2048)]
    assert vectors(embed(http, input=texts)).tobytes() == stub(*texts).tobytes()
    message, param, _ = refusal(embed(http, input=[*texts, "one more"]))
    assert param == "input"
    assert "2049" in message


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(http: httpx.Client) -> None:
    fits, long = "word " * 254, "word " * 255
    assert vectors(embed(http, input=fits)).shape == (1, 384)
    _, param, code = refusal(embed(http, input=["short", long]))
    assert (param, code) == ("input[1]", "context_length_exceeded")
    assert vectors(embed(http, input=["short", long], truncate=True)).shape == (2, 384)


def test_a_long_blob_is_too_long_as_well(http: httpx.Client) -> None:
    assert refusal(embed(http, input="x" * 1_000_000))[2] == "context_length_exceeded"


@pytest.mark.parametrize("text", [" ", "\n", "\x00", "\U0001f600", "日本語", "a" + " " * 5_000 + "b"])
def test_strange_texts_are_embedded(http: httpx.Client, text: str) -> None:
    (row,) = vectors(embed(http, input=[text]))
    assert np.isclose(np.linalg.norm(row), 1.0, atol=1e-5)


def test_half_a_surrogate_pair_counts_as_the_replacement_character(http: httpx.Client) -> None:
    content = b'{"model": "stub", "input": "broken \\ud800 text"}'
    response = http.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
    assert vectors(response).tobytes() == stub("broken � text").tobytes()


def test_one_bad_text_refuses_the_request_by_its_index(http: httpx.Client) -> None:
    message, param, _ = refusal(embed(http, input=["a", "b", "has rowbeam-poison", "d", "rowbeam-poison"]))
    assert param == "input[2]"
    assert "1 others" in message
    assert refusal(embed(http, input="has rowbeam-poison"))[1] == "input"


def test_the_stub_has_no_token_ids(http: httpx.Client) -> None:
    assert "token ids" in refusal(embed(http, input=[1, 2]))[0]


def test_what_was_read_is_on_the_tenants_bill(site: ApiSite, key: str) -> None:
    with site.http(key) as client:
        embed(client, input=["one two", "three"])
        embed(client, input="four")
    site.services.usage.flush()
    with site.workspace.ledger.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT provider, model, table_name, texts, tokens FROM rowbeam.usage WHERE job_id = ''"
        ).all()
    assert [tuple(row) for row in rows] == [("stub", "stub", "", 3, 4)]


def test_the_usage_is_written_without_being_asked_for(
    make_settings: Callable[..., Settings],
) -> None:
    with ApiSite(make_settings()) as site:
        key = site.add_tenant("acme")
        with site.http(key) as http:
            embed(http, input="four")
    # The site has ended: what it had not written by then is lost.
    with ApiSite(make_settings()) as site, site.workspace.ledger.connect() as connection:
        assert connection.exec_driver_sql("SELECT sum(texts) FROM rowbeam.usage").scalar() == 1


def test_a_smaller_server_takes_fewer_inputs(make_settings: Callable[..., Settings]) -> None:
    with ApiSite(make_settings(), options=ServingOptions(max_inputs=2)) as site:
        key = site.add_tenant("acme")
        with site.http(key) as http:
            assert "3" in refusal(embed(http, input=["a", "b", "c"]))[0]


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway(api_key=KEY, dimensions=1536) as server:
        yield server


@pytest.fixture
def gateway_site(gateway: FakeGateway, make_settings: Callable[..., Settings]) -> Iterator[ApiSite]:
    """A site whose second model is a gateway's."""
    settings = GatewaySettings(
        url=gateway.url, api_key=KEY, model="text-embedding-3-small", timeout=5, outage_budget=5
    )
    with ApiSite(make_settings(gateway=settings)) as site:
        yield site


@pytest.fixture
def gateway_http(gateway_site: ApiSite) -> Iterator[httpx.Client]:
    with gateway_site.http(gateway_site.add_tenant("acme")) as client:
        yield client


def test_a_model_that_can_be_cut_is_cut_to_unit_length(gateway_http: httpx.Client) -> None:
    body = {"model": "text-embedding-3-small", "input": ["alpha", "beta"]}
    whole = vectors(embed(gateway_http, **body))
    cut = vectors(embed(gateway_http, **body, dimensions=256))
    assert (whole.shape, cut.shape) == ((2, 1536), (2, 256))
    expected = whole[:, :256] / np.linalg.norm(whole[:, :256], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-5)
    assert refusal(embed(gateway_http, **body, dimensions=1537))[1] == "dimensions"


def test_the_gateway_counts_its_tokens_and_is_named(gateway: FakeGateway, gateway_http: httpx.Client) -> None:
    texts = ["alpha", "beta gamma delta"]
    response = embed(gateway_http, model="text-embedding-3-small", input=texts)
    row = vector_of("alpha", 1536)
    np.testing.assert_allclose(vectors(response)[0], row / np.linalg.norm(row), atol=1e-6)
    assert response.json()["usage"]["total_tokens"] == 4 == gateway.charged
    assert response.headers["x-rowbeam-provider"] == "gateway"


def test_a_text_the_gateway_refuses_is_named_by_its_index(
    gateway: FakeGateway, gateway_http: httpx.Client
) -> None:
    gateway.behaviour.poison.add("bad")
    response = embed(gateway_http, model="text-embedding-3-small", input=["fine", "bad", "good"])
    assert refusal(response)[1] == "input[1]"


def test_token_ids_of_a_gateways_model_are_refused_with_a_way_out(gateway_http: httpx.Client) -> None:
    message, param, _ = refusal(embed(gateway_http, model="text-embedding-3-small", input=[[1, 2]]))
    assert param == "input"
    assert "check_embedding_ctx_length=False" in message
