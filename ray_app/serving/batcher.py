"""Batches across callers: many small calls share one pass of the model. Asyncio, no Ray."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

import numpy as np

from ray_app.encoders.batching import BatchBudget, padding_of
from ray_app.encoders.port import Encoded
from ray_app.errors import ItemError, ProviderUnavailable, RowbeamError
from ray_app.metrics.counting import count_batch
from ray_app.metrics.declared import JOB, ONLINE, QUEUE_SECONDS, QUEUE_TOKENS
from ray_app.serving.batcher_stats import BatcherStats
from ray_app.serving.encoder_thread import PROBE, Encode, EncoderThread
from ray_app.serving.fair_queue import FairQueue
from ray_app.serving.pending import PendingCall, WaitingText
from ray_app.serving.port import Lane, Load
from ray_app.serving.speed import Speed

#: Forward passes in one batch. What arrives has to wait for the batch that runs, so few; but lengths even
#: out over several. Texts of as many callers, median 71 tokens, pad 25 % of one pass, 20 % of two and
#: 14 % of four (computed); the texts of one large call come sorted and pad little in any number.
PASSES: Final = 2
_CLOSED: Final = "The local model was closed."


class TokenBatcher:
    """Gathers the texts of concurrent calls into batches for one encoder.

    - Greedy: an idle encoder takes what is there at once; what comes meanwhile is the next batch.
    - A batch is of one lane; bulk texts wait while interactive ones do. Turns go round the tenants, and
      round each tenant's calls: a large call is spread over batches and does not block the line.
    - Equal texts of one tenant that wait together are encoded once. Never those of two tenants: how
      long an answer takes would tell one of them what the other has just sent.
    - A cancelled call's texts leave the queue. Every other call is answered, on every path.

    Used from one event loop at a time. ``forward`` is what one forward pass of the encoder holds, and
    ``provider`` the name of the encoder in metrics.
    """

    def __init__(
        self,
        encode: Encode,
        dimensions: int,
        forward: BatchBudget,
        *,
        passes: int = PASSES,
        provider: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dimensions = dimensions
        self._forward = forward
        self._provider = provider
        self._thread = EncoderThread(encode, dimensions, name="rowbeam-encoder")
        budget = BatchBudget(forward.max_tokens * passes, forward.max_texts * passes)
        self._interactive, self._bulk = FairQueue(budget), FairQueue(budget)
        self._running: list[WaitingText] = []
        self._probes: list[asyncio.Future[None]] = []
        self._worker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        #: Set while the encoder is overdue; until it answers, nothing is taken in.
        self._overdue: ProviderUnavailable | None = None
        self._speed = Speed(clock)
        self._batches = self._texts = self._tokens = self._padded = 0

    async def embed(
        self, texts: Sequence[str], tokens: Sequence[int], *, tenant: UUID, lane: Lane
    ) -> Encoded:
        """The vectors of ``texts``, row i for text i, prefixes included; ``tokens`` is what they count as.

        Raises:
            ProviderUnavailable: the encoder is down, hangs, or was closed. Nothing is charged.
            ConfigError: the encoder cannot be loaded.
        """
        if not texts:
            return Encoded(np.zeros((0, self._dimensions), np.float32), [])
        self._refuse_when_down()
        call = PendingCall(texts, tenant, self._dimensions)
        queue = self._interactive if lane is Lane.INTERACTIVE else self._bulk
        queue.push(call, tokens)
        self._wake()
        try:
            return await call.future
        except BaseException:
            queue.withdraw(call)
            raise

    async def warm_up(self, texts: Sequence[str], tokens: Sequence[int]) -> None:
        """Encode a batch and measure how long the second run takes.

        Raises:
            ProviderUnavailable: the encoder does not work.
            ConfigError: the encoder cannot be loaded.
        """
        batch = [WaitingText(text, count) for text, count in zip(texts, tokens, strict=True)]
        await self._encode(texts)
        encoded = await self._timed(batch)
        for fault in encoded.faults.values():
            raise _broken(fault)

    async def check(self, limit: float) -> None:
        """Encode a harmless text next, before everything that waits.

        When it takes longer than ``limit`` seconds the encoder hangs: whoever waits is told so, and
        nothing more is taken in until it answers.

        Raises:
            ProviderUnavailable: it hangs, fails, has ended or was closed.
        """
        self._refuse_when_down(overdue=False)
        probe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probes.append(probe)
        self._wake()
        try:
            async with asyncio.timeout(limit):
                await probe
        except TimeoutError:
            self._overdue = ProviderUnavailable(f"The local model has not answered for {limit:g} s.")
            self._fail_all(self._overdue)
            raise self._overdue from None

    def stats(self) -> BatcherStats:
        running = sum(text.tokens for text in self._running)
        waiting = self._interactive.tokens, self._bulk.tokens
        return BatcherStats(
            Load(running + sum(waiting), self._speed.tokens_per_second),
            *waiting,
            batches=self._batches,
            texts=self._texts,
            tokens=self._tokens,
            padded_tokens=self._padded,
        )

    def sample(self) -> None:
        """Set the gauges of what waits."""
        QUEUE_TOKENS.set(self._interactive.tokens, self._provider, Lane.INTERACTIVE)
        QUEUE_TOKENS.set(self._bulk.tokens, self._provider, Lane.BULK)

    def close(self, wait: float = 5.0) -> bool:
        """Answer whoever waits with ProviderUnavailable and end the thread. Idempotent, from any thread.

        Blocks until the batch that runs has ended, ``wait`` seconds at most; False when it has not.
        """
        self._closed = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the event loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(self._fail_all, ProviderUnavailable(_CLOSED))
        return self._thread.stop(wait)

    def _refuse_when_down(self, *, overdue: bool = True) -> None:
        if self._closed:
            raise ProviderUnavailable(_CLOSED)
        if overdue and self._overdue is not None:
            raise ProviderUnavailable(self._overdue.message)

    def _wake(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = self._loop.create_task(self._work())

    async def _work(self) -> None:
        """Encode until nothing waits."""
        try:
            while not self._closed:
                if self._probes:
                    await self._answer_probes()
                elif batch := self._interactive.take():
                    await self._answer(batch, Lane.INTERACTIVE)
                elif batch := self._bulk.take():
                    await self._answer(batch, Lane.BULK)
                else:
                    break
        finally:
            self._worker = None
            # Nobody waits here unless the batcher was closed, its event loop ends, or this is a bug.
            self._fail_all(ProviderUnavailable("The local model stopped before it had answered."))
            self._running = []

    async def _answer_probes(self) -> None:
        probes = tuple(self._probes)
        try:
            encoded = await self._encode([PROBE])
            for fault in encoded.faults.values():
                raise _broken(fault)
        except RowbeamError as error:
            for probe in probes:
                if not probe.done():
                    probe.set_exception(copy.copy(error))
        for probe in probes:
            if not probe.done():
                probe.set_result(None)
        self._probes = [probe for probe in self._probes if not probe.done()]

    async def _answer(self, batch: list[WaitingText], lane: Lane) -> None:
        self._running = batch
        began = self._note_turn(batch, lane)
        try:
            encoded = await self._timed(batch)
        except RowbeamError as error:
            for text in batch:
                text.fail(error)
        else:
            self._count(encoded, lane, time.perf_counter() - began)
            for row, text in enumerate(batch):
                if row in encoded.faults:
                    text.refused(encoded.faults[row])
                else:
                    text.embedded(encoded.vectors[row], encoded.counts[row])
        self._running = []

    async def _timed(self, batch: list[WaitingText]) -> Encoded:
        answered = 0
        self._speed.begin()
        try:
            encoded = await self._encode([text.text for text in batch])
            answered = sum(text.tokens for text in batch)
            return encoded
        finally:
            self._speed.end(answered)

    async def _encode(self, texts: Sequence[str]) -> Encoded:
        try:
            return await asyncio.wrap_future(self._thread.encode(texts))
        finally:
            self._overdue = None

    def _note_turn(self, batch: list[WaitingText], lane: Lane) -> float:
        """Measure how long the calls whose turn this is have waited; answers the time."""
        now = time.perf_counter()
        for text in batch:
            for call in text.readers:
                if call.waits_since is not None:
                    QUEUE_SECONDS.observe(now - call.waits_since, self._provider, lane)
                    call.waits_since = None
        return now

    def _count(self, encoded: Encoded, lane: Lane, seconds: float) -> None:
        tokens, padding = encoded.tokens, padding_of(encoded.counts, self._forward)
        self._batches += 1
        self._texts += len(encoded.counts)
        self._tokens += tokens
        self._padded += tokens + padding
        source = ONLINE if lane is Lane.INTERACTIVE else JOB
        count_batch(self._provider, source, len(encoded.counts), tokens, padding, seconds)

    def _fail_all(self, error: ProviderUnavailable) -> None:
        for text in (*self._running, *self._interactive.clear(), *self._bulk.clear()):
            text.fail(error)
        for probe in self._probes:
            if not probe.done():
                probe.set_exception(copy.copy(error))
        self._probes = []


def _broken(fault: ItemError) -> ProviderUnavailable:
    return ProviderUnavailable(f"The local model fails on a harmless text: {fault.message}")
