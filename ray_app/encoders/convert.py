"""Converts a model for OpenVINO and measures what came of it, in a process of its own.

The libraries that convert take a gigabyte that nothing gives back, so ``model_cache`` runs this
as ``python -m ray_app.encoders.convert``. Imports torch.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ray_app.encoders.agreement import agreement, mean_cosine
from ray_app.encoders.check_texts import check_texts
from ray_app.encoders.choice import CANDIDATES, TOLERANCES, Backend, EncoderChoice, Precision, Trial, choose
from ray_app.encoders.model_cache import MODEL_FILE, Entry, digests_of
from ray_app.encoders.model_files import ModelFiles
from ray_app.encoders.openvino_encoder import OpenVinoEncoder, Padding
from ray_app.encoders.openvino_runtime import OpenVinoBackend, import_openvino
from ray_app.encoders.port import Encoder, FloatArray
from ray_app.encoders.torch_encoder import TorchEncoder
from ray_app.errors import RowbeamError
from ray_app.spaces import EmbeddingSpace

#: Passes over the check texts for each backend, in turn; the best counts, as others use the machine too.
_ROUNDS: Final = 3
#: Seconds after which no further round begins: a large model takes minutes for one.
_ENOUGH_SECONDS: Final = 20.0


class CandidateFailed(RowbeamError):
    """A model that OpenVINO does not convert or run."""


def convert(files: ModelFiles, precision: Precision, out: Path, threads: int | None = None) -> EncoderChoice:
    """Write an entry of the model cache to the folder ``out``: the fastest encoder that agrees with torch.

    Raises:
        ConfigError: torch cannot load the model either.
    """
    dimensions = files.config().dimensions
    original = TorchEncoder(files, EmbeddingSpace(files.name, "", dimensions), device="cpu", threads=threads)
    padding = _padding(original.model.tokenizer)
    encoders: dict[Backend, Encoder] = {}
    failed: list[Trial] = []
    for backend in CANDIDATES[precision]:
        try:
            model = _converted(original, backend, out / backend)
            encoders[backend] = OpenVinoEncoder(model, backend, files.config(), padding, threads=threads)
        except RowbeamError as error:
            failed.append(Trial(backend=backend, refused=error.message))
    choice = choose([*failed, *measure({**encoders, "torch": original}, precision)])
    _keep(choice, padding, out)
    return choice


def measure(encoders: Mapping[Backend, Encoder], precision: Precision) -> list[Trial]:
    """The trials of ``encoders``, ``torch`` among them, over the check texts."""
    texts = check_texts()
    vectors: dict[Backend, FloatArray] = {}
    seconds: dict[Backend, float] = {}
    began = time.monotonic()
    for done in range(_ROUNDS):
        if done and time.monotonic() - began > _ENOUGH_SECONDS:
            break
        for backend, encoder in encoders.items():
            start = time.perf_counter()
            vectors[backend] = encoder.encode(texts).vectors
            seconds[backend] = min(time.perf_counter() - start, seconds.get(backend, float("inf")))
    return [
        _trial(backend, found, vectors["torch"], len(texts) / seconds[backend], precision)
        for backend, found in vectors.items()
    ]


def _trial(
    backend: Backend, found: FloatArray, reference: FloatArray, rate: float, precision: Precision
) -> Trial:
    if backend == "torch":
        return Trial(backend=backend, texts_per_second=rate)
    shared, cosine = agreement(found, reference), mean_cosine(found, reference)
    return Trial(
        backend=backend,
        texts_per_second=rate,
        agreement=shared,
        mean_cosine=cosine,
        refused=TOLERANCES[precision].refusal(shared, cosine),
    )


def _converted(original: TorchEncoder, backend: OpenVinoBackend, folder: Path) -> Path:
    """The ``.xml`` of the model for ``backend``, written to ``folder``. Raises CandidateFailed."""
    try:
        openvino = import_openvino()
        model = _traced(original.model, openvino)
        if backend == "openvino-int8":
            nncf = import_openvino("nncf")
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        folder.mkdir(parents=True)
        openvino.save_model(model, str(folder / MODEL_FILE), compress_to_fp16=False)
    except Exception as error:  # tracers and converters raise whatever the model's code happens to raise
        raise CandidateFailed(f"the model cannot be converted ({type(error).__name__})") from error
    return folder / MODEL_FILE


def _traced(model: Any, openvino: Any) -> Any:
    """The ``openvino.Model`` of a SentenceTransformer, its inputs named as the tokenizer names them."""
    example = dict(model.tokenizer(["a", "a second, longer text"], padding=True, return_tensors="pt"))

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.model(dict(zip(example, inputs, strict=True)))["sentence_embedding"]
            return answer

    with torch.no_grad():
        traced = openvino.convert_model(Embedding().eval(), example_input=tuple(example.values()))
    for port, name in zip(traced.inputs, example, strict=True):
        port.set_names({name})
    return traced


def _padding(tokenizer: Any) -> Padding:
    return Padding(
        token_id=tokenizer.pad_token_id or 0,
        left=tokenizer.padding_side == "left",
        cut_left=tokenizer.truncation_side == "left",
    )


def _keep(choice: EncoderChoice, padding: Padding, out: Path) -> None:
    """Move the chosen model's files up, drop the others, and write the entry last."""
    for backend in CANDIDATES["fast"]:
        folder = out / backend
        for file in folder.glob("*"):
            if backend == choice.backend:
                file.rename(out / file.name)
            else:
                file.unlink()
        if folder.exists():
            folder.rmdir()
    Entry(choice=choice, padding=padding, digests=digests_of(out)).write(out)


def _end_with_parent() -> None:
    """Nobody waits for this process any more when its standard input ends."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a model for OpenVINO and measure it.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--sha256")
    parser.add_argument("--precision", required=True, choices=list(CANDIDATES))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", required=True, type=Path)
    order = parser.parse_args()
    _end_with_parent()
    convert(ModelFiles(order.name, order.folder, order.sha256), order.precision, order.out, order.threads)


if __name__ == "__main__":
    main()
