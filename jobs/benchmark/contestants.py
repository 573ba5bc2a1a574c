"""Encoders that compete, each in a process of its own.

Thread pools of torch and of other engines spin for a while after their work; in one process they would
take cores from each other. A contestant is loaded and warm before it is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Final, TypeAlias

import numpy as np

from ray_app.cores import usable_cores
from ray_app.encoders.model_files import describe_space, find_model
from ray_app.encoders.port import FloatArray
from ray_app.encoders.stub import StubOptions
from ray_app.providers.local import encoder_loader
from ray_app.settings import Settings

#: Turns texts into float32 vectors of shape (n, dimensions); ``options`` are the contestant's own.
Encode: TypeAlias = Callable[..., FloatArray]
#: Texts of the warm-up call: enough for a batch of several lengths.
_WARM: Final = 64

_encode: Encode | None = None


class Contestant:
    """An encoder in a child process, made there by ``load(*arguments)``; use as a context manager.

    ``load`` and what it is given are pickled, so ``load`` is a function of a module.
    """

    def __init__(self, load: Callable[..., Encode], *arguments: Any) -> None:
        self._pool = ProcessPoolExecutor(
            max_workers=1, mp_context=get_context("spawn"), initializer=_load, initargs=(load, arguments)
        )

    def __enter__(self) -> Contestant:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def warm(self, texts: Sequence[str], **options: Any) -> None:
        """Load now, and run once."""
        self.vectors(texts[:_WARM], **options)

    def rate(self, texts: Sequence[str], **options: Any) -> float:
        """Texts a second of one call with all of them; the way to the child and back is not timed."""
        seconds: float = self._pool.submit(_seconds, list(texts), options).result()
        return len(texts) / seconds

    def vectors(self, texts: Sequence[str], **options: Any) -> FloatArray:
        found: FloatArray = self._pool.submit(_vectors, list(texts), options).result()
        return found

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function(encode, *arguments)`` answers there."""
        return self._pool.submit(_call, function, arguments).result()


def is_stub(model: str) -> bool:
    """Whether this ``ROWBEAM_LOCAL_MODEL`` is the stub, which nothing else can run."""
    return StubOptions.parse(model) is not None


def rowbeam_encoder(settings: Settings, device: str) -> Encode:
    """Rowbeam's own, as its providers load it."""
    encoder = encoder_loader(settings, describe_space(settings), device=device)()
    return lambda texts: encoder.encode(texts).vectors


def sentence_transformer(settings: Settings, device: str, half: bool = False) -> Encode:
    """``SentenceTransformer.encode`` of the same model files; takes ``batch_size``."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(settings.encoder_threads or usable_cores())
    model = SentenceTransformer(
        str(find_model(settings.local_model).folder),
        device=device,
        local_files_only=True,
        model_kwargs={"dtype": torch.float16} if half else {},
    ).eval()

    def encode(texts: Sequence[str], batch_size: int = 32) -> FloatArray:
        found: FloatArray = model.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return found.astype(np.float32, copy=False)

    return encode


def _load(load: Callable[..., Encode], arguments: tuple[Any, ...]) -> None:
    global _encode  # noqa: PLW0603 - a process pool has no other place for what its process holds
    _encode = load(*arguments)


def _loaded() -> Encode:
    if _encode is None:
        raise RuntimeError("The contestant's process was not set up.")
    return _encode


def _seconds(texts: list[str], options: dict[str, Any]) -> float:
    encode = _loaded()
    began = time.perf_counter()
    encode(texts, **options)
    return time.perf_counter() - began


def _vectors(texts: list[str], options: dict[str, Any]) -> FloatArray:
    return _loaded()(texts, **options)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(_loaded(), *arguments)
