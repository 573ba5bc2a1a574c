"""Sentence-transformers models on PyTorch, run in batches by tokens. Imports torch: import it late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from ray_app.cores import usable_cores
from ray_app.encoders.batched_encoder import PROBES, BatchedEncoder
from ray_app.encoders.batching import DEFAULT_BUDGETS, MODEL_FAULTS, BatchBudget, unit_rows
from ray_app.encoders.model_files import ModelFiles
from ray_app.encoders.port import FloatArray
from ray_app.errors import ConfigError
from ray_app.spaces import EmbeddingSpace

#: Half precision moves a vector by 1e-6 in cosine (measured on a CPU); a wrong pooling or prompt far more.
_SAME_MODEL_COSINE: Final = 0.999


#: A call's inputs by name, each a list of token lists, truncated and not padded.
_Columns = dict[str, list[list[int]]]


class TorchEncoder(BatchedEncoder[_Columns]):
    """An ``Encoder`` on CPU, CUDA (half precision) or Apple's MPS.

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
        torch.set_num_threads(threads or usable_cores())
        #: The library's own model, for checks and measurements.
        self.model = _load(files, self._device)
        self._tokenizer = self.model.tokenizer
        super().__init__(
            dimensions=space.dimensions,
            max_seq_length=files.config().max_seq_length,
            specials=self._tokenizer.num_special_tokens_to_add(pair=False),
            budget=budget or DEFAULT_BUDGETS[self.device],
        )
        self._check_agrees(files, space)

    @property
    def device(self) -> str:
        return torch.device(self._device).type

    def _tokenize(self, texts: Sequence[str]) -> tuple[_Columns, list[int]]:
        columns = dict(
            self._tokenizer(list(texts), truncation=True, max_length=self._max_seq_length, padding=False)
        )
        return columns, [len(ids) for ids in columns["input_ids"]]

    def _forward(self, tokens: _Columns, positions: list[int]) -> FloatArray:
        batch = {name: [column[place] for place in positions] for name, column in tokens.items()}
        with torch.inference_mode():
            features = self._tokenizer.pad(batch, return_tensors="pt").to(self._device)
            vectors: torch.Tensor = self.model(dict(features))["sentence_embedding"]
            answer: FloatArray = vectors[:, : self._dimensions].float().cpu().numpy()
        return answer

    def _check_agrees(self, files: ModelFiles, space: EmbeddingSpace) -> None:
        """Compare with the space, and own batches with the library's; this also warms the model up.

        Raises:
            ConfigError: they differ.
        """
        reference = self.model.encode(list(PROBES), prompt="", show_progress_bar=False)
        loaded = (reference.shape[1], self.model.max_seq_length)
        if loaded != (space.dimensions, self._max_seq_length):
            raise ConfigError(
                f"{files.name} has (dimensions, tokens) {loaded} once loaded,"
                f" but its files say {(space.dimensions, self._max_seq_length)}."
            )
        expected, _ = unit_rows(reference.astype(np.float32))
        found = self.encode(PROBES)
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
