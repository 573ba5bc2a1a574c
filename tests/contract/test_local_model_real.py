"""The bundled model under many callers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from ray_app.encoders.model_config import load_tokenizer
from ray_app.encoders.model_files import find_model
from ray_app.providers.port import Embedded
from ray_app.serving.local_model import LocalModel, local_model
from ray_app.serving.port import EmbedCall, Lane
from ray_app.settings import Settings
from tests.support.sentences import WORDS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[LocalModel]:
    home = tmp_path_factory.mktemp("home")
    made = local_model(Settings(home=home, cache_dir=model_cache), device="cpu")
    asyncio.run(made.warm_up())
    yield made
    assert made.close(wait=30)


@pytest.fixture(scope="module")
def folder() -> Path:
    return find_model("bundled").folder


def texts_of(caller: int) -> list[str]:
    """1 to 6 texts of 1 to 200 words; some callers send the same ones."""
    dice = np.random.default_rng(caller % 40)
    sizes = dice.choice(
        [1, 2, 3, 5, 8, 20, 60, 200], dice.integers(1, 7), p=[0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.07, 0.03]
    )
    return [" ".join(dice.choice(WORDS, size)) for size in sizes]


def test_fifty_callers_at_once_get_what_sentence_transformers_gives_each(
    model: LocalModel, folder: Path
) -> None:
    tokenizer = load_tokenizer(find_model("bundled").config().tokenizer)
    sent = [texts_of(caller) for caller in range(50)]
    tokens = [[len(tokenizer.encode(text, add_special_tokens=False)) for text in texts] for texts in sent]
    calls = [
        EmbedCall(
            model.space,
            texts,
            counts,
            UUID(int=place % 5),
            lane=Lane.BULK if place % 4 == 0 else Lane.INTERACTIVE,
        )
        for place, (texts, counts) in enumerate(zip(sent, tokens, strict=True))
    ]

    async def embed_all() -> list[Embedded]:
        *answers, _ = await asyncio.gather(*map(model.embed, calls), model.check(limit=120))
        return answers

    answers = asyncio.run(embed_all())
    reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    flat = [text for texts in sent for text in texts]
    expected = iter(
        np.split(
            reference.encode(flat, normalize_embeddings=True, show_progress_bar=False),
            np.cumsum([len(texts) for texts in sent])[:-1],
        )
    )
    for answer, counts in zip(answers, tokens, strict=True):
        assert not answer.faults
        # 8-bit weights turn a vector a little; another text's is nowhere near.
        assert (answer.vectors * next(expected)).sum(axis=1).min() >= 0.99
        assert answer.tokens == sum(min(count, 254) for count in counts)
    stats = model.stats()
    assert stats.batches < len(flat)
    assert stats.load.queued_tokens == 0


def test_an_odd_text_does_not_spoil_its_neighbours(model: LocalModel) -> None:
    odd = ["", " ", "\x00", "\ud800 lone", "word " * 50_000, "中文字符"]

    async def embed_all() -> list[Embedded]:
        return await asyncio.gather(
            model.embed(EmbedCall(model.space, odd, [1] * len(odd), UUID(int=1))),
            model.embed(EmbedCall(model.space, ["fix the build"], [3], UUID(int=2))),
        )

    answers = asyncio.run(embed_all())
    for answer in answers:
        assert not answer.faults
        assert np.allclose(np.linalg.norm(answer.vectors, axis=1), 1, atol=1e-6)
    assert answers[1].tokens == 3
