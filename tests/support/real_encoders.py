"""Real encoders, and a way to see and spoil their passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from ray_app.encoders.openvino_encoder import OpenVinoEncoder
from ray_app.encoders.torch_encoder import TorchEncoder

RealEncoder = TorchEncoder | OpenVinoEncoder


class WatchedRequest:
    """An inference request of OpenVINO, which has no hooks of its own."""

    def __init__(self, request: Any, before: Callable[[Any], None], after: Callable[[], None]) -> None:
        self._request = request
        self._before = before
        self._after = after

    def infer(self, inputs: Any, **options: Any) -> Any:
        self._before(inputs["input_ids"])
        answer = self._request.infer(inputs, **options)
        self._after()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


@contextmanager
def watched(
    encoder: RealEncoder, before: Callable[[Any], None], after: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Call ``before`` with the token ids of each batch, and ``after`` when the model is through with it."""
    if isinstance(encoder, OpenVinoEncoder):
        infer = encoder._infer

        def watched_infer(request: Any, *arguments: Any) -> Any:
            return infer(WatchedRequest(request, before, after), *arguments)

        with patch.object(encoder, "_infer", watched_infer):
            yield
        return
    handles = [
        encoder.model.register_forward_pre_hook(lambda _, inputs: before(inputs[0]["input_ids"])),
        encoder.model.register_forward_hook(lambda *_: after()),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def failing(encoder: RealEncoder, fails: Callable[[Any], bool]) -> Iterator[None]:
    """The model raises for batches whose token ids ``fails`` picks, as it does out of memory."""

    def before(ids: Any) -> None:
        if fails(ids):
            raise torch.OutOfMemoryError("the model's own words")

    with watched(encoder, before):
        yield
