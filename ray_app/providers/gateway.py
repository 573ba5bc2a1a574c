"""The AI gateway as an embedding provider: any OpenAI-compatible or Azure OpenAI endpoint."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from decimal import Decimal
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ray_app.errors import ProviderUnavailable
from ray_app.providers.approximate_chunker import ApproximateChunker
from ray_app.providers.gateway_client import GatewayClient, Work
from ray_app.providers.gateway_endpoint import endpoint_of
from ray_app.providers.gateway_models import KNOWN_DIMENSIONS, MAX_INPUT_TOKENS, canonical_name
from ray_app.providers.gateway_transport import Call
from ray_app.providers.port import Embedded
from ray_app.providers.pricing import cost_of, price_per_million
from ray_app.providers.retry import Backoff
from ray_app.settings import GatewaySettings
from ray_app.spaces import EmbeddingSpace

T = TypeVar("T")

#: Requests under way at once; embedding is bound by the endpoint's rate limit long before more would help.
DEFAULT_CONCURRENCY: Final = 4
#: Seconds a search waits for an endpoint that is down; a person is waiting with it.
QUERY_OUTAGE_BUDGET: Final = 10.0
#: Part of a chunk that repeats the one before, so that a sentence on the border is whole in one of them.
OVERLAP_SHARE: Final = 0.1
#: The model's name alone identifies the weights: an endpoint tells nothing more, and two endpoints
#: that serve one model serve one space. Raise the number when requests change in a way that changes vectors.
_REVISION: Final = "gateway:1"


class LoopThread:
    """An event loop on a thread of its own, so that plain code, and code inside another loop, can use it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rowbeam-gateway", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, waited for; an interrupt cancels it."""
        future = self._submit(work)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the provider was closed during the call") from None
        finally:
            future.cancel()  # no effect unless an interrupt ended the wait

    async def await_(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, awaited from any other loop."""
        return await asyncio.wrap_future(self._submit(work))

    def close(self) -> None:
        """Cancel what still runs, stop the loop, join the thread. Idempotent."""
        if self._loop.is_closed():
            return
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("the provider is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class GatewayProvider:
    """Embeds through ``settings.url``; see ``EmbeddingProvider`` for the contract.

    Asks for the size of the vectors once when neither the settings nor the table of known models
    tell it, so construction may raise ProviderUnavailable. Methods may be called from any thread,
    also several at once; the ``a…`` ones are for callers on an event loop.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        backoff: Backoff | None = None,
    ) -> None:
        endpoint = endpoint_of(settings)
        self._space = gateway_space(settings, backoff=backoff)
        self._chunker = gateway_chunker(settings)
        self._price = price_per_million(settings.model, settings.price_per_million)
        self._outage_budget = settings.outage_budget
        self._label = endpoint.label
        self._loop = LoopThread()
        self._client = GatewayClient(
            settings,
            endpoint,
            dimensions=self._space.dimensions,
            concurrency=concurrency,
            backoff=backoff or Backoff(),
        )
        self._closed = False

    def __repr__(self) -> str:
        return f"GatewayProvider({self._label!r}, model={self._space.model!r})"

    @property
    def name(self) -> str:
        return "gateway"

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def chunker(self) -> ApproximateChunker:
        return self._chunker

    @property
    def price(self) -> Decimal | None:
        """US dollars per million tokens; None when unknown, and then every cost is zero."""
        return self._price

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        """Raises ProviderUnavailable, with the tokens and cost already spent."""
        return self._loop.run(self._embed_documents(texts))

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Raises ItemError, ProviderUnavailable."""
        return self._loop.run(self._embed_query(text))

    async def aembed_documents(self, texts: Sequence[str]) -> Embedded:
        """``embed_documents`` for a caller on an event loop, whichever it is."""
        return await self._loop.await_(self._embed_documents(texts))

    async def aembed_query(self, text: str) -> npt.NDArray[np.float32]:
        """``embed_query`` for a caller on an event loop, whichever it is."""
        return await self._loop.await_(self._embed_query(text))

    def close(self) -> None:
        """Close the connections and the loop's thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.run(self._client.aclose())
            self._loop.close()

    async def _embed_documents(self, texts: Sequence[str]) -> Embedded:
        prefix = self._space.document_prefix
        return await self._embed([prefix + text if text else text for text in texts], self._outage_budget)

    async def _embed_query(self, text: str) -> npt.NDArray[np.float32]:
        prefix = self._space.query_prefix
        budget = min(self._outage_budget, QUERY_OUTAGE_BUDGET)
        embedded = await self._embed([prefix + text if text else text], budget)
        if embedded.faults:
            raise embedded.faults[0]
        vector: npt.NDArray[np.float32] = embedded.vectors[0]
        return vector

    async def _embed(self, texts: Sequence[str], outage_budget: float) -> Embedded:
        call = Call(outage_budget)
        work = Work(call, texts, self._space.dimensions)
        try:
            await self._client.embed(work)
        except ProviderUnavailable as error:
            error.tokens, error.cost = call.tokens, cost_of(call.tokens, self._price)
            raise
        return Embedded(work.vectors, call.tokens, cost_of(call.tokens, self._price), work.faults)


def gateway_space(settings: GatewaySettings, *, backoff: Backoff | None = None) -> EmbeddingSpace:
    """The space of the gateway's model. One request finds its size when nothing else tells it.

    Raises:
        ProviderUnavailable: the size is unknown and the endpoint does not tell it.
        ConfigError: the URL or the key cannot be used.
    """
    dimensions = settings.dimensions or KNOWN_DIMENSIONS.get(canonical_name(settings.model))
    return EmbeddingSpace(
        model=settings.model,
        revision=_REVISION,
        dimensions=dimensions or probe_dimensions(settings, backoff=backoff),
        max_tokens=MAX_INPUT_TOKENS,
    )


def gateway_chunker(settings: GatewaySettings) -> ApproximateChunker:
    """Cuts into ``settings.chunk_tokens`` with a tenth of overlap.

    1,000 estimated tokens are 2,500 bytes, a page of prose. A vector of a longer text says less
    about any one of its passages, and 99.6 in 100 rows of real commit texts are shorter. It is far
    below what the models read (8,191 tokens; 2,500 bytes are at most 2,500), so no chunk is refused.
    """
    return ApproximateChunker(settings.chunk_tokens, int(settings.chunk_tokens * OVERLAP_SHARE))


def probe_dimensions(settings: GatewaySettings, *, backoff: Backoff | None = None) -> int:
    """The size of the vectors the endpoint answers with, from one request for a harmless text.

    Raises:
        ProviderUnavailable: the endpoint is down or refuses us.
        ConfigError: the URL or the key cannot be used.
    """
    client = GatewayClient(
        settings, endpoint_of(settings), dimensions=None, concurrency=1, backoff=backoff or Backoff()
    )

    async def probe() -> int:
        try:
            return await client.probe(Call(settings.outage_budget))
        finally:
            await client.aclose()

    loop = LoopThread()
    try:
        return loop.run(probe())
    finally:
        loop.close()
