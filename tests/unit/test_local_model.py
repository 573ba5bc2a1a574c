"""A local model as a target, over encoders that a real model cannot be told to be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from ray_app.encoders.port import Encoder
from ray_app.encoders.stub import POISON, StubEncoder
from ray_app.errors import ConfigError, ProviderUnavailable
from ray_app.serving.in_process import local_backend
from ray_app.serving.local_model import LocalModel, local_model
from ray_app.serving.port import EmbedCall, Purpose
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace
from tests.support.fake_encoder import DIMENSIONS, FakeEncoder, tokens_of, vector_of

SPACE = EmbeddingSpace(
    "fake", "1", DIMENSIONS, document_prefix="passage: ", query_prefix="query: ", max_tokens=100
)


def call_of(*texts: str, purpose: Purpose = Purpose.DOCUMENT, space: EmbeddingSpace = SPACE) -> EmbedCall:
    return EmbedCall(space, texts, list(map(tokens_of, texts)), UUID(int=1), purpose)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def stub_settings(home: Path) -> Settings:
    return Settings(home=home, local_model="stub")


def test_the_prefix_goes_with_the_purpose_and_counts() -> None:
    async def test() -> None:
        encoder = FakeEncoder()
        model = LocalModel("fake", SPACE, lambda: encoder)
        document = await model.embed(call_of("one", "two words"))
        query = await model.embed(call_of("one", purpose=Purpose.QUERY))
        assert np.array_equal(document.vectors, [vector_of("passage: one"), vector_of("passage: two words")])
        assert np.array_equal(query.vectors, [vector_of("query: one")])
        assert (document.tokens, query.tokens, document.cost) == (5, 2, 0)
        assert model.close()

    run(test())


def test_tokens_are_those_the_model_read_not_those_the_caller_guessed() -> None:
    async def test() -> None:
        encoder = FakeEncoder()
        model = LocalModel("fake", SPACE, lambda: encoder)
        call = EmbedCall(SPACE, ["one two", "three"], [0, 10**12], UUID(int=1))
        assert (await model.embed(call)).tokens == 3 + 2
        assert model.close()

    run(test())


def test_a_check_fails_while_the_model_hangs() -> None:
    async def test() -> None:
        encoder = FakeEncoder()
        model = LocalModel("fake", SPACE, lambda: encoder)
        await model.warm_up()
        await model.check(30)
        encoder.hold()
        with pytest.raises(ProviderUnavailable, match="has not answered"):
            await model.check(0.05)
        encoder.release()
        await model.check(30)
        assert model.close()

    run(test())


def test_warming_up_loads_the_model_and_fills_a_batch() -> None:
    async def test() -> None:
        encoder = FakeEncoder()
        model = LocalModel("fake", SPACE, lambda: encoder)
        assert model.stats().load.tokens_per_second == 0
        await model.warm_up()
        assert sum(map(tokens_of, encoder.batches[0])) > 900
        assert model.stats().load.tokens_per_second > 0
        assert model.close()

    run(test())


def test_a_model_that_cannot_be_loaded_is_a_wrong_setting_at_the_start_and_an_outage_later() -> None:
    """A caller is told neither that it made a mistake nor where the files are."""

    async def test() -> None:
        def load() -> Encoder:
            raise ConfigError("The files in /private/folder are broken.")

        model = LocalModel("fake", SPACE, load)
        with pytest.raises(ConfigError, match="broken"):
            await model.warm_up()
        for attempt in (model.embed(call_of("text")), model.check(30)):
            with pytest.raises(ProviderUnavailable) as caught:
                await attempt
            assert "private" not in str(caught.value)
        assert model.close()

    run(test())


def test_a_load_that_crashes_is_tried_again_at_the_next_text() -> None:
    async def test() -> None:
        encoder = FakeEncoder()
        loads = [OSError("busy"), OSError("busy"), None]

        def load() -> Encoder:
            error = loads.pop(0)
            if error is not None:
                raise error
            return encoder

        model = LocalModel("fake", SPACE, load)
        with pytest.raises(ProviderUnavailable):
            await model.embed(call_of("text"))
        assert (await model.embed(call_of("text"))).tokens == 2
        assert model.close()

    run(test())


def test_the_stub_answers_many_callers_at_once_as_it_answers_one(tmp_path: Path) -> None:
    async def test() -> None:
        model = local_model(stub_settings(tmp_path))
        assert model.name == "stub"
        calls = [
            call_of(*(f"caller {caller} text {text}" for text in range(caller % 7)), space=model.space)
            for caller in range(200)
        ]
        answers = await asyncio.gather(*map(model.embed, calls))
        encoder = StubEncoder()
        for call, answer in zip(calls, answers, strict=True):
            alone = encoder.encode(call.texts) if call.texts else None
            assert answer.tokens == (alone.tokens if alone else 0)
            assert np.array_equal(answer.vectors, alone.vectors if alone else np.zeros((0, 384)))
        assert model.stats().batches < 200
        assert model.close()

    run(test())


def test_the_backend_of_this_process_serves_the_local_space(tmp_path: Path) -> None:
    async def test() -> None:
        backend = local_backend(stub_settings(tmp_path))
        (space,) = backend.spaces()
        served = await backend.embed(call_of("fine", POISON, space=space))
        assert (served.provider, set(served.embedded.faults)) == ("stub", {1})
        assert await backend.not_ready() == []
        backend.close()
        with pytest.raises(ProviderUnavailable):
            await backend.embed(call_of("fine", space=space))
        assert await backend.not_ready() == ["stub: The local model was closed."]
        backend.close()

    run(test())
    assert not [thread for thread in threading.enumerate() if thread.name == "rowbeam-encoder"]
