"""Embedding any number of texts through one endpoint: batches, learnt limits, and the text at fault.

One rule protects rows from the endpoint's failures: a text is charged with a fault only after the
endpoint, asked again, embeds a harmless text. If it does not, the endpoint is at fault.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ray_app.errors import ItemError, ProviderRefused, ProviderUnavailable
from ray_app.providers.approximate_chunker import estimate_tokens
from ray_app.providers.batching import RequestLimits, cut
from ray_app.providers.gateway_endpoint import Endpoint
from ray_app.providers.gateway_faults import Fault, Verdict
from ray_app.providers.gateway_models import contradicts
from ray_app.providers.gateway_transport import Call, Transport
from ray_app.providers.gateway_wire import Answer, RequestForm
from ray_app.providers.retry import Backoff
from ray_app.settings import GatewaySettings

logger: Final = logging.getLogger(__name__)

#: A text no endpoint has a reason to refuse.
HARMLESS: Final = "hello"


class Work:
    """The texts of one ``embed`` call and what became of them so far."""

    def __init__(self, call: Call, texts: Sequence[str], dimensions: int) -> None:
        self.call = call
        self.texts = texts
        self.sizes = [0] * len(texts)
        self.vectors: npt.NDArray[np.float32] = np.zeros((len(texts), dimensions), dtype=np.float32)
        self.faults: dict[int, ItemError] = {}

    def sendable(self) -> list[int]:
        """Positions of the texts that can be sent; the others are charged."""
        positions = []
        for position, text in enumerate(self.texts):
            try:
                if text.strip():
                    self.sizes[position] = estimate_tokens(text)
                    text.encode()
                    positions.append(position)
                else:
                    self.faults[position] = ItemError("The text is empty.")
            except UnicodeEncodeError:
                self.faults[position] = ItemError(
                    "The text holds half a surrogate pair, which is not Unicode."
                )
        return positions

    def texts_of(self, batch: Sequence[int]) -> list[str]:
        return [self.texts[position] for position in batch]

    def sizes_of(self, batch: Sequence[int]) -> list[int]:
        return [self.sizes[position] for position in batch]

    def place(self, batch: Sequence[int], answer: Answer) -> list[int]:
        """Store the usable vectors; returns the positions of the others."""
        unusable = set(answer.unusable)
        for row, position in enumerate(batch):
            if row not in unusable:
                self.vectors[position] = answer.vectors[row]
        return [batch[row] for row in answer.unusable]

    def charge(self, batch: Sequence[int], reason: str) -> None:
        for position in batch:
            self.faults[position] = ItemError(f"The gateway cannot embed the text: {reason}.")


class GatewayClient:
    """Asks one endpoint for the vectors of one model. Belongs to one event loop.

    ``dimensions`` is the size every vector must have; None takes what comes, for probing.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        endpoint: Endpoint,
        *,
        dimensions: int | None,
        concurrency: int,
        backoff: Backoff,
    ) -> None:
        self._label = endpoint.label
        self._model = settings.model
        self._dimensions = dimensions
        self._form = RequestForm(settings.model, settings.dimensions)
        self._limits = RequestLimits(settings.max_inputs, settings.max_request_tokens)
        self._transport = Transport(
            endpoint, timeout=settings.timeout, connections=concurrency, backoff=backoff
        )
        self._slots = asyncio.Semaphore(concurrency)
        self._proving = asyncio.Lock()

    async def aclose(self) -> None:
        await self._transport.aclose()

    def lower(self, *, max_tokens: int) -> None:
        """Send at most so many estimated tokens in one request from now on."""
        self._limits = self._limits.lowered(max_tokens=max_tokens)

    async def embed(self, work: Work) -> None:
        """Fill ``work``: each text ends with a vector or a fault.

        Raises:
            ProviderUnavailable: the endpoint is down, or refuses us (ProviderRefused).
        """
        await self._batches(work, work.sendable())

    async def probe(self, call: Call) -> int:
        """The size of the model's vectors, from one request."""
        return (await self._prove(call)).dimensions

    async def _batches(self, work: Work, positions: Sequence[int]) -> None:
        runs = cut(work.sizes_of(positions), self._limits)
        await _all([self._batch(work, [positions[index] for index in run]) for run in runs])

    async def _batch(
        self, work: Work, batch: list[int], *, proven: bool = False, again: bool = False
    ) -> None:
        """Embed ``batch`` in one request, or in several when one does not do.

        ``proven``: the texts were refused while a harmless one was not. ``again``: the endpoint
        was asked for these texts before and left their vectors out.
        """
        async with self._slots:
            form = self._form
            # Limits may have been learnt while this batch waited.
            fits = self._limits.admits(work.sizes_of(batch))
            outcome = await self._transport.exchange(work.call, form, work.texts_of(batch)) if fits else None
        if isinstance(outcome, Answer):
            self._verify(work.call, outcome)
            await self._ask_again(work, work.place(batch, outcome), alone=len(batch) == 1, again=again)
        elif outcome is None:
            await self._batches(work, batch)
        elif outcome.verdict is Verdict.TOO_LARGE:
            self._learn(outcome, work.sizes_of(batch))
            await self._batches(work, batch)
        else:
            await self._isolate(work, batch, outcome, form, proven=proven)

    async def _ask_again(self, work: Work, missing: list[int], *, alone: bool, again: bool) -> None:
        """Ask for the vectors an answer left out: together, then one by one, then charge the text.

        An endpoint that drops some vectors of every answer would otherwise look like texts at fault.
        """
        if not missing:
            return
        if not again:
            await self._batch(work, missing, again=True)
        elif not alone:
            await _all([self._batch(work, [position], again=True) for position in missing])
        else:
            await self._prove(work.call)
            work.charge(missing, "it answers without a usable vector")

    async def _isolate(
        self, work: Work, batch: list[int], fault: Fault, form: RequestForm, *, proven: bool
    ) -> None:
        """Find the texts a refused request was refused for, by halving it."""
        if form == self._form and not (proven and len(batch) > 1 and fault.verdict is Verdict.REFUSED):
            await self._prove(work.call)
        if form != self._form:
            await self._batch(work, batch)
            return
        if len(batch) == 1:
            work.charge(batch, fault.reason)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            await self._batch(work, half, proven=True)
        if not work.faults.keys() & set(batch):
            self._learn(fault, work.sizes_of(batch))

    def _learn(self, fault: Fault, sizes: Sequence[int]) -> None:
        """Send less from now on: a request of texts of these ``sizes`` was too large."""
        if fault.too_many_tokens:
            # Half, whatever limit the message states: it counts in real tokens, this in estimated ones.
            self._limits = self._limits.lowered(max_tokens=sum(sizes) // 2)
        else:
            self._limits = self._limits.lowered(max_inputs=fault.max_inputs or len(sizes) // 2)
        logger.info(
            "The gateway %s takes less at once than set: from now on %d inputs and about %d tokens.",
            self._label,
            self._limits.max_inputs,
            self._limits.max_tokens,
        )

    async def _prove(self, call: Call) -> Answer:
        """Embed a harmless text, in a simpler form where the endpoint refuses this one, and keep that form.

        Raises:
            ProviderRefused: no form is accepted, or only one that gives vectors of another size.
            ProviderUnavailable: the endpoint is down, or answers without a usable vector.
        """
        async with self._proving:
            outcome = await self._harmless(call, self._form)
            for form in self._form.simpler():
                if isinstance(outcome, Answer):
                    break
                simpler = await self._harmless(call, form)
                if isinstance(simpler, Answer):
                    logger.info(
                        "The gateway %s is asked in a simpler form from now on: %s.", self._label, form
                    )
                    self._form, outcome = form, simpler
        if isinstance(outcome, Fault):
            raise call.fail(
                ProviderRefused(
                    f"The gateway {self._label} refuses even a harmless text ({outcome.reason}).",
                    hint="Check ROWBEAM_GATEWAY_MODEL and ROWBEAM_GATEWAY_DIMENSIONS.",
                )
            )
        if outcome.unusable:
            raise call.fail(ProviderUnavailable(f"The gateway {self._label} answers without usable vectors."))
        self._verify(call, outcome)
        return outcome

    async def _harmless(self, call: Call, form: RequestForm) -> Answer | Fault:
        async with self._slots:
            return await self._transport.exchange(call, form, [HARMLESS], suspicious=False)

    def _verify(self, call: Call, answer: Answer) -> None:
        """Refuse vectors of another space: storing them would spoil the index without a sign."""
        if contradicts(self._model, answer.model):
            raise call.fail(
                ProviderRefused(
                    f"The gateway {self._label} serves {answer.model}, not {self._model}.",
                    hint="Set ROWBEAM_GATEWAY_MODEL to the model it serves, or change the deployment.",
                )
            )
        if self._dimensions is not None and answer.dimensions not in {0, self._dimensions}:
            raise call.fail(
                ProviderRefused(
                    f"The gateway {self._label} answers with {answer.dimensions} dimensions"
                    f" where {self._dimensions} are expected.",
                    hint="Check ROWBEAM_GATEWAY_MODEL and ROWBEAM_GATEWAY_DIMENSIONS.",
                )
            )


async def _all(parts: Sequence[Coroutine[None, None, None]]) -> None:
    """Run ``parts`` to their ends, all of them, then raise the first error.

    A failing part stops the others through ``Call``, not by cancelling: a request on the wire is
    paid for, and its tokens must be counted.
    """
    for outcome in await asyncio.gather(*parts, return_exceptions=True):
        if outcome is not None:
            raise outcome
