"""The API through the official OpenAI client: answers, exceptions, retries, order, hanging up."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_app import errors
from ray_app.encoders.stub import STUB_SPACE, StubEncoder
from ray_app.errors import RowbeamError
from ray_app.providers.port import Embedded
from ray_app.serving.port import EmbedCall, Load, Served
from ray_app.settings import GatewaySettings, Settings
from ray_app.spaces import EmbeddingSpace
from tests.support.api_site import ApiSite
from tests.support.fake_gateway import FakeGateway
from tests.support.fake_gateway_steps import items, vector_of
from tests.support.gateway_helpers import KEY
from tests.support.waiting import wait_for


def client_of(site: ApiSite, key: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{site.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 20} | options
    )


@pytest.fixture(scope="module")
def client(shared_site: ApiSite, shared_http: httpx.Client) -> Iterator[openai.OpenAI]:
    """The official client, which tries nothing twice."""
    key = shared_http.headers["authorization"].removeprefix("Bearer ")
    with client_of(shared_site, key) as client:
        yield client


class Failing:
    """What ``GET /v1/fails`` raises, once each; when there is no more, it answers."""

    def __init__(self) -> None:
        self.errors: list[RowbeamError] = []
        self.times: list[float] = []

    async def answer(self) -> dict[str, str]:
        self.times.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        return {"object": "answer"}


@pytest.fixture(scope="module")
def failing(shared_site: ApiSite) -> Failing:
    failing = Failing()
    shared_site.app.add_api_route("/v1/fails", failing.answer)
    return failing


def test_the_client_reads_the_answer_and_the_usage(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="stub", input=["alpha beta", "gamma"])
    assert (answer.object, answer.model) == ("list", "stub")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
    assert [item.index for item in answer.data] == [0, 1]
    expected = StubEncoder().encode(["alpha beta", "gamma"]).vectors
    assert np.array([item.embedding for item in answer.data], np.float32).tobytes() == expected.tobytes()


def test_the_bits_are_the_same_whatever_the_client_asks_for(client: openai.OpenAI) -> None:
    by_default = client.embeddings.create(model="stub", input="alpha").data[0].embedding
    floats = client.embeddings.create(model="stub", input="alpha", encoding_format="float").data[0].embedding
    packed: Any = (
        client.embeddings.create(model="stub", input="alpha", encoding_format="base64").data[0].embedding
    )
    assert (
        base64.b64decode(packed) == np.array(floats, "<f4").tobytes() == np.array(by_default, "<f4").tobytes()
    )


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["stub"]
    assert client.models.retrieve(STUB_SPACE.space_id).id == "stub"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("arguments", "kind", "status", "code", "param"),
    [
        ({"model": "other", "input": "a"}, openai.NotFoundError, 404, "model_not_found", "model"),
        ({"input": ["a", ""]}, openai.BadRequestError, 400, None, "input[1]"),
        ({"input": []}, openai.BadRequestError, 400, None, "input"),
        ({"input": "w " * 300}, openai.BadRequestError, 400, "context_length_exceeded", "input"),
        ({"input": "a", "dimensions": 7}, openai.BadRequestError, 400, None, "dimensions"),
        ({"input": "a", "extra_body": {"x": 1}}, openai.BadRequestError, 400, "unknown_parameter", "x"),
        ({"input": "rowbeam-poison"}, openai.BadRequestError, 400, None, "input"),
    ],
)
def test_bad_input_is_a_bad_request_error(
    client: openai.OpenAI,
    arguments: dict[str, Any],
    kind: type[openai.APIStatusError],
    status: int,
    code: str | None,
    param: str,
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(**{"model": "stub"} | arguments)
    error = caught.value
    assert (type(error), error.status_code, error.code, error.param) == (kind, status, code, param)
    assert error.type == "invalid_request_error"
    assert error.request_id
    assert isinstance(error.body, dict)
    assert error.body["message"] in error.message


def test_truncate_is_an_extension_that_the_client_can_send(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="stub", input="w " * 300, extra_body={"truncate": True})
    assert len(answer.data[0].embedding) == STUB_SPACE.dimensions


def test_keys_that_are_wrong_are_authentication_and_permission_errors(shared_site: ApiSite) -> None:
    with (
        client_of(shared_site, "rb_00000000_wrong") as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"
    with (
        client_of(shared_site, shared_site.admin_key) as operator,
        pytest.raises(openai.PermissionDeniedError),
    ):
        operator.models.list()


@pytest.mark.parametrize(
    ("error", "kind", "tries"),
    [
        (errors.InputError("No."), openai.BadRequestError, 1),
        (errors.JobConflict("No.", job_id="j"), openai.ConflictError, 1),
        (errors.RateLimited("No.", retry_after=0.05), openai.RateLimitError, 3),
        (errors.RateLimited("No.", retry_after=3600), openai.RateLimitError, 1),
        (errors.BudgetExhausted("No."), openai.RateLimitError, 1),
        (errors.Overloaded("No.", retry_after=0.05), openai.InternalServerError, 3),
        (errors.ProviderUnavailable("No.", retry_after=0.05), openai.InternalServerError, 3),
        (errors.ProviderRefused("No."), openai.InternalServerError, 1),
        (errors.IsolationViolation("No."), openai.InternalServerError, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_client_tries_again_exactly_when_that_can_help(
    client: openai.OpenAI, failing: Failing, error: RowbeamError, kind: type[Exception], tries: int
) -> None:
    failing.errors, failing.times = [error] * 10, []
    with pytest.raises(openai.APIStatusError) as caught:
        client.with_options(max_retries=2).get("/fails", cast_to=object)
    assert type(caught.value) is kind
    assert len(failing.times) == tries


def test_the_client_waits_as_long_as_it_is_told_and_is_served(
    client: openai.OpenAI, failing: Failing
) -> None:
    failing.errors, failing.times = [errors.RateLimited("No.", retry_after=0.4)], []
    client.with_options(max_retries=1).get("/fails", cast_to=object)
    first, second = failing.times
    assert second - first >= 0.4  # the client's own backoff would begin at half a second with less jitter


def test_a_client_that_obeys_a_rate_limit_is_let_in(site: ApiSite) -> None:
    key = site.add_tenant("busy", requests_per_minute=20)
    with client_of(site, key) as client:

        def call_until_refused() -> None:
            while True:
                client.embeddings.create(model="stub", input="alpha")

        with pytest.raises(openai.RateLimitError) as caught:
            call_until_refused()
        assert caught.value.code == "rate_limit_exceeded"
        time.sleep(float(caught.value.response.headers["retry-after-ms"]) / 1000)
        assert client.embeddings.create(model="stub", input="alpha").data


TEXTS = st.lists(st.integers(0, 30).map(lambda number: f"text number {number}"), min_size=1, max_size=600)


@given(TEXTS)
@settings(max_examples=25)
def test_every_text_gets_its_own_vector_in_its_own_place(client: openai.OpenAI, texts: list[str]) -> None:
    """Duplicates, and sizes beyond what one provider is handed at once, included."""
    answer = client.embeddings.create(model="stub", input=texts)
    direct = StubEncoder().encode(texts)
    assert (
        np.array([item.embedding for item in answer.data], np.float32).tobytes() == direct.vectors.tobytes()
    )
    assert answer.usage.total_tokens == direct.tokens


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway(api_key=KEY) as server:
        yield server


@pytest.fixture
def proxied(gateway: FakeGateway, make_settings: Callable[..., Settings]) -> Iterator[openai.OpenAI]:
    """The official client of a site in front of a gateway."""
    through = GatewaySettings(
        url=gateway.url, api_key=KEY, model="fake", dimensions=8, timeout=5, outage_budget=5
    )
    with ApiSite(make_settings(gateway=through)) as site:
        site.add_tenant("acme")
        key = site.add_tenant("roomy", tokens_per_minute=1_000_000_000)
        with client_of(site, key) as client:
            yield client


@given(texts=TEXTS, max_inputs=st.integers(20, 200), seed=st.integers(0, 2**32))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_gateway_that_shuffles_and_takes_few_at_once_changes_nothing(
    gateway: FakeGateway, proxied: openai.OpenAI, texts: list[str], max_inputs: int, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - it shuffles, and keeps nothing secret
    gateway.behaviour.max_inputs = max_inputs
    gateway.script(*[items(lambda data: dice.sample(data, len(data)))] * 64)
    answer = proxied.embeddings.create(model="fake", input=texts)
    expected = np.stack([vector_of(text, 8) for text in texts])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = np.array([item.embedding for item in answer.data], np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert answer.usage.total_tokens == 3 * len(texts)


class HeldBackend:
    """Answers nothing until ``released``."""

    def __init__(self) -> None:
        self.waiting = 0
        self.released = False

    def spaces(self) -> Sequence[EmbeddingSpace]:
        return [STUB_SPACE]

    async def embed(self, call: EmbedCall) -> Served:
        self.waiting += 1
        try:
            while not self.released:
                await asyncio.sleep(0.005)
        finally:
            self.waiting -= 1
        encoded = StubEncoder().encode(call.texts)
        return Served(Embedded(encoded.vectors, encoded.tokens), "stub", 0.1)

    def load(self, space: EmbeddingSpace) -> Load:
        return Load(0, 0.0)

    async def not_ready(self) -> Sequence[str]:
        return ()


@pytest.fixture
def held() -> HeldBackend:
    return HeldBackend()


@pytest.fixture
def narrow(make_settings: Callable[..., Settings], held: HeldBackend) -> Iterator[openai.OpenAI]:
    """The official client of a tenant that may have one request under way, of a model that holds it."""
    with ApiSite(make_settings(), backend=lambda _: held) as site:
        try:
            with client_of(site, site.add_tenant("acme", concurrent_requests=1)) as client:
                yield client
        finally:
            held.released = True


def is_admitted(client: openai.OpenAI) -> bool:
    """Whether a request is let in, by one that is found to be too long right after."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="stub", input="w " * 300)
    return caught.value.code == "context_length_exceeded"


def test_a_call_that_times_out_frees_its_slot(narrow: openai.OpenAI, held: HeldBackend) -> None:
    assert is_admitted(narrow)
    with pytest.raises(openai.APITimeoutError):
        narrow.with_options(timeout=0.3).embeddings.create(model="stub", input="too slow")
    wait_for(lambda: is_admitted(narrow))
    assert held.waiting == 0


def test_a_call_that_is_cancelled_frees_its_slot(narrow: openai.OpenAI, held: HeldBackend) -> None:
    async def call_and_cancel() -> None:
        async with openai.AsyncOpenAI(base_url=narrow.base_url, api_key=narrow.api_key) as client:
            task = asyncio.ensure_future(client.embeddings.create(model="stub", input=["a"] * 1000))
            while not held.waiting:
                await asyncio.sleep(0.005)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    asyncio.run(call_and_cancel())
    wait_for(lambda: held.waiting == 0)
    assert is_admitted(narrow)


def test_a_slot_in_use_refuses_the_next_call_until_it_is_free(
    narrow: openai.OpenAI, held: HeldBackend
) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(narrow.embeddings.create, model="stub", input="first")
        wait_for(lambda: held.waiting == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            narrow.embeddings.create(model="stub", input="second")
        held.released = True
        assert first.result().data
    time.sleep(float(caught.value.response.headers["retry-after-ms"]) / 1000)
    assert narrow.embeddings.create(model="stub", input="second").data
