"""Sentence-transformers models on PyTorch, run in batches by tokens. Imports torch: import it late."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from ray_app.encoders.batching import (
    DEFAULT_BUDGETS,
    MODEL_FAULTS,
    BatchBudget,
    Failure,
    budget_batches,
    run_bisecting,
    unit_rows,
)
from ray_app.encoders.model_files import ModelFiles
from ray_app.encoders.port import Encoded, FloatArray
from ray_app.errors import ConfigError, ItemError, ProviderUnavailable
from ray_app.spaces import EmbeddingSpace

#: Characters tokenised for each token the model reads; what comes after could not be read anyway.
_CHARS_PER_TOKEN: Final = 250
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PROBES: Final = ("ready", "A second, longer text, so that the first one is padded.")
#: Half precision moves a vector by 1e-6 in cosine (measured on a CPU); a wrong pooling or prompt far more.
_SAME_MODEL_COSINE: Final = 0.999


class TorchEncoder:
    """An ``Encoder`` on CPU, CUDA (half precision) or Apple's MPS.

    A call tokenises its texts once, sorts them by tokens and runs batches within ``budget``.
    ``threads`` is set for the whole process: torch has one pool.

    Raises:
        ConfigError: the files do not make the model that ``space`` describes.
    """

    def __init__(
        self,
        files: ModelFiles,
        space: EmbeddingSpace,
        *,
        device: str | None = None,
        threads: int | None = None,
        budget: BatchBudget | None = None,
    ) -> None:
        files.check()
        self._device = device or _best_device()
        torch.set_num_threads(threads or _cores())
        self._budget = budget or DEFAULT_BUDGETS[torch.device(self._device).type]
        #: The library's own model, for checks and measurements.
        self.model = _load(files, self._device)
        self._tokenizer = self.model.tokenizer
        self._specials = self._tokenizer.num_special_tokens_to_add(pair=False)
        self._limit = files.config().max_seq_length
        self._dimensions = space.dimensions
        # A fast tokenizer refuses to be used by two threads: "Already borrowed".
        self._lock = Lock()
        self._check_agrees(files, space)

    @property
    def device(self) -> str:
        return torch.device(self._device).type

    def encode(self, texts: Sequence[str]) -> Encoded:
        """See ``Encoder``; vectors are float32 of shape (n, dimensions) on every device."""
        if not texts:
            return Encoded(np.zeros((0, self._dimensions), np.float32), [])
        with self._lock, torch.inference_mode():
            encoded = self._encode(texts)
            if encoded.faults:
                self._prove_alive()
        return encoded

    def _encode(self, texts: Sequence[str]) -> Encoded:
        columns = self._tokenize(texts)
        lengths = [len(ids) for ids in columns["input_ids"]]
        vectors = np.zeros((len(texts), self._dimensions), np.float32)
        reasons: dict[int, str] = {}
        for batch in budget_batches(lengths, self._budget):
            for positions, outcome in run_bisecting(batch, lambda part: self._forward(columns, part)):
                if isinstance(outcome, Failure):
                    reasons[positions[0]] = outcome.reason
                else:
                    vectors[positions] = outcome
        vectors, directionless = unit_rows(vectors)
        for position in directionless:
            reasons.setdefault(position, "its vector has no direction")
        faults = {
            position: ItemError(f"The model cannot embed this text: {reason}.")
            for position, reason in sorted(reasons.items())
        }
        read = [0 if place in faults else length - self._specials for place, length in enumerate(lengths)]
        return Encoded(vectors, read, faults)

    def _tokenize(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """The model's inputs by name, each a list of token lists, truncated and not padded."""
        cut = [_LONE_SURROGATE.sub("\ufffd", text[: self._limit * _CHARS_PER_TOKEN]) for text in texts]
        return dict(self._tokenizer(cut, truncation=True, max_length=self._limit, padding=False))

    def _forward(self, columns: Mapping[str, list[list[int]]], positions: list[int]) -> FloatArray:
        batch = {name: [column[place] for place in positions] for name, column in columns.items()}
        features = self._tokenizer.pad(batch, return_tensors="pt").to(self._device)
        vectors: torch.Tensor = self.model(dict(features))["sentence_embedding"]
        answer: FloatArray = vectors[:, : self._dimensions].float().cpu().numpy()
        return answer

    def _prove_alive(self) -> None:
        """Tell a text at fault from a model that fails on everything.

        Raises:
            ProviderUnavailable: the model fails on a harmless text too.
        """
        try:
            alive = np.isfinite(self._forward(self._tokenize(_PROBES[:1]), [0])).all()
        except MODEL_FAULTS as error:
            raise ProviderUnavailable(
                f"The local model has stopped working on {self._device} ({type(error).__name__}).",
                hint="Start the job again with --resume; if it happens again, look at the device's memory.",
            ) from error
        if not alive:
            raise ProviderUnavailable(f"The local model answers no finite numbers on {self._device}.")

    def _check_agrees(self, files: ModelFiles, space: EmbeddingSpace) -> None:
        """Compare with the space, and own batches with the library's; this also warms the model up.

        Raises:
            ConfigError: they differ.
        """
        reference = self.model.encode(list(_PROBES), prompt="", show_progress_bar=False)
        loaded = (reference.shape[1], self.model.max_seq_length)
        if loaded != (space.dimensions, self._limit):
            raise ConfigError(
                f"{files.name} has (dimensions, tokens) {loaded} once loaded,"
                f" but its files say {(space.dimensions, self._limit)}."
            )
        expected, _ = unit_rows(reference.astype(np.float32))
        found = self.encode(_PROBES)
        cosines = (found.vectors * expected).sum(axis=1)
        if found.faults or cosines.min() < _SAME_MODEL_COSINE:
            raise ConfigError(
                f"{files.name} does more than embed a text's tokens, so Rowbeam cannot run it.",
                hint="Use a plain sentence-transformers text model.",
            )


def _load(files: ModelFiles, device: str) -> SentenceTransformer:
    options: dict[str, Any] = {"dtype": torch.float16} if torch.device(device).type == "cuda" else {}
    try:
        with _no_progress_bars():
            model = SentenceTransformer(
                str(files.folder), device=device, local_files_only=True, model_kwargs=options
            )
    except (*MODEL_FAULTS, OSError, ImportError) as error:
        raise ConfigError(f"The model {files.name} in {files.folder} cannot be loaded: {error}") from error
    return model.eval()


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading draws a bar for each model, into the middle of Rowbeam's own."""
    bars: Any = transformers_logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cores() -> int:
    """The cores this process may use. Torch would believe OMP_NUM_THREADS, which Ray sets to 1."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
