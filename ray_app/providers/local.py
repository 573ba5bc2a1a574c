"""Local providers: an encoder in this process, loaded when the first text comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

from ray_app.encoders.batching import DEFAULT_BUDGETS, padding_of
from ray_app.encoders.device import likely_device
from ray_app.encoders.loading import load_encoder
from ray_app.encoders.model_files import describe_space, find_model
from ray_app.encoders.port import Encoder
from ray_app.encoders.stub import STUB_NAME, StubEncoder, StubOptions, WordChunker
from ray_app.encoders.token_chunker import TokenChunker
from ray_app.metrics.counting import count_batch
from ray_app.metrics.declared import JOB
from ray_app.providers.port import Embedded
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace
from ray_app.text import Chunker


class LocalProvider:
    """An ``EmbeddingProvider`` over an ``Encoder``; costs nothing.

    ``load`` is called once, at the first text: a job that finds nothing changed never waits for a
    model. ``name`` defaults to ``local-gpu`` on CUDA, which Ray can hand out, else ``local-cpu``.
    Safe to call from several threads, which take turns.
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        chunker: Chunker,
        load: Callable[[], Encoder],
        *,
        name: str | None = None,
    ) -> None:
        self._space = space
        self._chunker = chunker
        self._load = load
        self._name = name
        self._encoder: Encoder | None = None
        self._lock = Lock()

    @property
    def name(self) -> str:
        """Until the encoder is loaded, its device is a guess."""
        return self._name or name_on(self._encoder.device if self._encoder else likely_device())

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def chunker(self) -> Chunker:
        return self._chunker

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        """Tokens are those the model read, prefix included, special tokens and padding not.

        A text longer than the space's ``max_tokens`` is cut off; chunks never are. Raises
        ConfigError when the model cannot be loaded, ProviderUnavailable when it has stopped working.
        """
        if not texts:
            return Embedded(np.zeros((0, self._space.dimensions), np.float32), 0)
        encoder = self._ready()
        began = time.perf_counter()
        encoded = encoder.encode([self._space.document_prefix + text for text in texts])
        seconds = time.perf_counter() - began
        padding = padding_of(encoded.counts, DEFAULT_BUDGETS[encoder.device])
        count_batch(self.name, JOB, len(texts), encoded.tokens, padding, seconds)
        return Embedded(encoded.vectors, encoded.tokens, faults=encoded.faults)

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Raises ItemError; ConfigError and ProviderUnavailable as ``embed_documents`` does."""
        encoded = self._ready().encode([self._space.query_prefix + text])
        for fault in encoded.faults.values():
            raise fault
        vector: npt.NDArray[np.float32] = encoded.vectors[0]
        return vector

    def close(self) -> None:
        """Let go of the model; the next text would load it again."""
        with self._lock:
            self._encoder = None

    def _ready(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder


def local_provider(settings: Settings) -> LocalProvider:
    """The provider of ``settings.local_model``, its model not loaded yet.

    Raises:
        ConfigError: the model is not there or its files cannot be used.
        ProviderUnavailable: its hub cannot be reached.
    """
    chunker = local_chunker(settings)
    space = describe_space(settings)
    name = STUB_NAME if StubOptions.parse(settings.local_model) is not None else None
    return LocalProvider(space, chunker, encoder_loader(settings, space), name=name)


def encoder_loader(
    settings: Settings, space: EmbeddingSpace, *, device: str | None = None
) -> Callable[[], Encoder]:
    """What loads the encoder of ``settings.local_model``, on ``device`` or the best there is.

    The loader raises ConfigError when the files do not make the model that ``space`` describes.
    """
    stub = StubOptions.parse(settings.local_model)
    if stub is not None:
        return lambda: StubEncoder(stub.latency_ms, stub.dimensions)

    return lambda: load_encoder(settings, space, device=device)


def local_chunker(settings: Settings) -> Chunker:
    """The chunker of ``settings.local_model``; raises as ``local_provider`` does."""
    if StubOptions.parse(settings.local_model) is not None:
        return WordChunker()
    config = find_model(settings.local_model).config()
    return TokenChunker(config.tokenizer, config.text_tokens())


def local_name(settings: Settings) -> str:
    """The name the local provider will likely have: ``stub``, ``local-cpu`` or ``local-gpu``."""
    return STUB_NAME if StubOptions.parse(settings.local_model) is not None else name_on(likely_device())


def name_on(device: str) -> str:
    """``local-gpu`` on CUDA, which Ray can hand out, else ``local-cpu``."""
    return "local-gpu" if device == "cuda" else "local-cpu"
