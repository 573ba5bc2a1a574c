"""Converted models on OpenVINO. Imports neither torch nor transformers: a quick start, and little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from ray_app.cores import usable_cores
from ray_app.encoders.batched_encoder import PROBES, BatchedEncoder
from ray_app.encoders.batching import (
    DEFAULT_BUDGETS,
    MODEL_FAULTS,
    BatchBudget,
    Outcome,
    run_bisecting,
)
from ray_app.encoders.model_config import ModelConfig, load_tokenizer
from ray_app.encoders.openvino_runtime import OpenVinoBackend, compile_for_cpu
from ray_app.encoders.port import FloatArray
from ray_app.errors import ConfigError

#: What of a token goes into which input of a model.
_COLUMNS: Final = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
#: Tokens, padding included, up to which one thread is as quick as two that have to be woken for it
#: (8 tokens: 2.1 and 2.8 ms; 32: 4.4 ms both; 128: 16.6 and 9.7 ms), and leaves the other cores alone.
SMALL_BATCH: Final = 32


@dataclass(frozen=True)
class Padding:
    """How the library's tokenizer pads and cuts, which ``tokenizer.json`` does not say."""

    token_id: int
    left: bool = False
    cut_left: bool = False


class OpenVinoEncoder(BatchedEncoder[list[Encoding]]):
    """An ``Encoder`` on the CPU, over the ``model.xml`` and ``model.bin`` that ``convert`` wrote.

    ``threads`` are this encoder's own; default: all cores this process may use.

    Raises:
        ConfigError: OpenVINO cannot run the files, or they make other vectors than ``config`` says.
    """

    device: Final = "cpu"

    def __init__(
        self,
        model: Path,
        backend: OpenVinoBackend,
        config: ModelConfig,
        padding: Padding,
        *,
        threads: int | None = None,
        budget: BatchBudget | None = None,
    ) -> None:
        self.backend: Final = backend
        self._tokenizer = _cutting(config, padding)
        self._padding = padding
        super().__init__(
            dimensions=config.dimensions,
            max_seq_length=config.max_seq_length,
            specials=self._tokenizer.num_special_tokens_to_add(is_pair=False),
            budget=budget or DEFAULT_BUDGETS["cpu"],
        )
        try:
            self._start(model, backend, threads or usable_cores())
            warm = self._encode(PROBES)
        except (*MODEL_FAULTS, ImportError) as error:
            raise ConfigError(f"OpenVINO cannot run {model} ({type(error).__name__}).") from error
        if warm.faults:
            raise ConfigError(f"The converted model {model} makes no usable vectors.")

    def _start(self, model: Path, backend: OpenVinoBackend, threads: int) -> None:
        """Compile the model both ways, for 17 MB and 0.1 s more than once: nobody must wait for it later."""
        compiled = compile_for_cpu(model, backend, threads, streams=threads)
        self._inputs = [(port.any_name, _COLUMNS[port.any_name]) for port in compiled.inputs]
        self._pool = ThreadPoolExecutor(threads, "rowbeam-lane")
        self._lanes: SimpleQueue[Any] = SimpleQueue()
        for _ in range(threads):
            self._lanes.put(compiled.create_infer_request())
        self._lane_count = threads
        self._whole = compile_for_cpu(model, backend, threads).create_infer_request()
        # Threads start with the first batch, and must be there when somebody lowers their priority.
        tokens, _ = self._tokenize(PROBES)
        self._infer(self._whole, tokens, [0])
        list(self._pool.map(lambda _: self._in_lane(tokens, [0]), range(threads)))

    def _tokenize(self, texts: Sequence[str]) -> tuple[list[Encoding], list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return encodings, [len(encoding) for encoding in encodings]

    def _run(self, tokens: list[Encoding], batches: list[list[int]]) -> Iterator[tuple[list[int], Outcome]]:
        """Side by side, a thread each, where there are enough; else one after another on all threads.

        Threads that share a batch wait for the slowest of them at every step: side by side two cores did
        1.2 times the texts/s, and 1.5 times while another process took 40 % of a core.
        """
        if len(batches) < self._lane_count:
            yield from super()._run(tokens, batches)
            return

        def run(batch: list[int]) -> list[tuple[list[int], Outcome]]:
            return list(run_bisecting(batch, lambda part: self._in_lane(tokens, part)))

        for outcomes in self._pool.map(run, batches):
            yield from outcomes

    def _forward(self, tokens: list[Encoding], positions: list[int]) -> FloatArray:
        if len(positions) * max(len(tokens[place]) for place in positions) <= SMALL_BATCH:
            return self._in_lane(tokens, positions)
        return self._infer(self._whole, tokens, positions)

    def _in_lane(self, tokens: list[Encoding], positions: list[int]) -> FloatArray:
        """On one thread."""
        lane = self._lanes.get()
        try:
            return self._infer(lane, tokens, positions)
        finally:
            self._lanes.put(lane)

    def _infer(self, request: Any, tokens: list[Encoding], positions: list[int]) -> FloatArray:
        batch = [tokens[place] for place in positions]
        inputs = {name: self._padded(batch, column) for name, column in self._inputs}
        request.infer(inputs, share_inputs=True)
        vectors = request.get_output_tensor(0).data[:, : self._dimensions]
        # The request writes its next batch to the same place.
        return np.array(vectors, dtype=np.float32)

    def _padded(self, batch: list[Encoding], column: str) -> npt.NDArray[np.int64]:
        """One input of the model: int64 of shape (texts, tokens of the longest)."""
        width = max(map(len, batch))
        fill = self._padding.token_id if column == "ids" else 0
        padded = np.full((len(batch), width), fill, dtype=np.int64)
        for row, encoding in enumerate(batch):
            values = getattr(encoding, column)
            if self._padding.left:
                padded[row, width - len(values) :] = values
            else:
                padded[row, : len(values)] = values
        return padded


def _cutting(config: ModelConfig, padding: Padding) -> Tokenizer:
    tokenizer = load_tokenizer(config.tokenizer)
    tokenizer.enable_truncation(config.max_seq_length, direction="left" if padding.cut_left else "right")
    return tokenizer
