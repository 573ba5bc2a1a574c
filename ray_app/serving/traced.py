"""Providers that say in spans where a call's time went; used where there is a collector, and only there."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.encoders.port import Encoded
from ray_app.providers.port import Embedded
from ray_app.serving.local_model import LocalModel
from ray_app.serving.port import EmbedCall, EmbeddingTarget
from ray_app.spaces import EmbeddingSpace
from ray_app.tracing.spans import past_span, span


class TracedTarget:
    """An ``EmbeddingTarget`` whose calls are spans, the wait for company in front of it included."""

    def __init__(self, target: EmbeddingTarget) -> None:
        self._target = target

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def space(self) -> EmbeddingSpace:
        return self._target.space

    async def embed(self, call: EmbedCall) -> Embedded:
        """See ``EmbeddingTarget``."""
        with span(f"embed {self.name}", kind="client", texts=len(call.texts), tokens=call.total_tokens):
            return await self._target.embed(call)

    async def check(self) -> None:
        """See ``EmbeddingTarget``."""
        await self._target.check()


@dataclass(eq=False)
class _Waiting:
    """A call from its arrival on; times in nanoseconds since 1970, 0 for what has not been."""

    arrived: int
    began: int = 0
    ended: int = 0
    batches: int = 0


class TracedLocalModel(LocalModel):
    """A ``LocalModel`` that tells apart what a call waited for its turn and what the model took.

    A batch is made of several calls' texts, and a text's vector goes to every call that has it; so a
    call is told by its texts which batches were its own.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: dict[str, list[_Waiting]] = defaultdict(list)

    async def embed(self, call: EmbedCall) -> Embedded:
        """See ``LocalModel``."""
        waiting = _Waiting(time.time_ns())
        texts = {self.prefix(call.purpose) + text for text in call.texts}
        with span("local model", kind="server", parent=call.traceparent, texts=len(call.texts)):
            for text in texts:
                self._waiting[text].append(waiting)
            try:
                return await super().embed(call)
            finally:
                for text in texts:
                    self._waiting[text].remove(waiting)
                    if not self._waiting[text]:
                        del self._waiting[text]
                _tell(waiting)

    def _encode(self, texts: Sequence[str]) -> Encoded:
        """On the encoder's thread."""
        # A copy in one step: the event loop adds and removes meanwhile.
        mine = {waiting for text in texts for waiting in tuple(self._waiting.get(text, ()))}
        began = time.time_ns()
        for waiting in mine:
            waiting.began = waiting.began or began
            waiting.batches += 1
        try:
            return super()._encode(texts)
        finally:
            for waiting in mine:
                waiting.ended = time.time_ns()


def _tell(waiting: _Waiting) -> None:
    if waiting.began:
        past_span("queue wait", waiting.arrived, waiting.began)
        past_span("encode", waiting.began, waiting.ended or time.time_ns(), batches=waiting.batches)
