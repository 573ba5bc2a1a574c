"""A lone short text, embedded where it was received.

A call to another process and back takes about as long as embedding a short text does twice over. While
nothing else is under way, the router therefore embeds such a text itself, with a copy of the model of
one thread; whatever is larger, or comes beside something else, goes to the replicas, which batch.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ray_app.errors import ProviderUnavailable, RowbeamError
from ray_app.providers.port import Embedded
from ray_app.serving.port import EmbedCall, EmbeddingTarget, Lane
from ray_app.spaces import EmbeddingSpace

log = logging.getLogger(__name__)
#: Seconds that a short text may take here, on a machine however busy, before the copy counts as stuck.
PATIENCE: Final = 5.0
#: Seconds between looks at whether the replicas are ready.
_LOOK: Final = 1.0


class NearbyTarget:
    """An ``EmbeddingTarget`` in front of ``target``, with ``near``, the same model in this process.

    ``near`` is used for a caller's single text of ``max_tokens`` at the most, while this target has
    nothing else under way. The first call starts loading it, and goes to ``target`` as all do until it
    works. When it fails or is stuck, it is not used again. Used from one event loop.
    """

    def __init__(self, target: EmbeddingTarget, near: EmbeddingTarget, *, max_tokens: int) -> None:
        self._target = target
        self._near = near
        self._max_tokens = max_tokens
        self._usable = False
        self._under_way = 0
        self._loading: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def space(self) -> EmbeddingSpace:
        return self._target.space

    async def embed(self, call: EmbedCall) -> Embedded:
        """See ``EmbeddingTarget``."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        lone = not self._under_way and len(call.texts) == 1 and call.lane is Lane.INTERACTIVE
        self._under_way += 1
        try:
            if self._usable and lone and call.total_tokens <= self._max_tokens:
                embedded = await self._embed_here(call)
                if embedded is not None:
                    return embedded
            return await self._target.embed(call)
        finally:
            self._under_way -= 1

    async def check(self) -> None:
        """See ``EmbeddingTarget``: of the replicas, which most texts need."""
        await self._target.check()

    async def _load(self) -> None:
        """Waits for the replicas, the first of which may have to convert the model."""
        while not await _answers(self._target):
            await asyncio.sleep(_LOOK)
        try:
            await self._near.check()
        except ProviderUnavailable as error:
            log.warning("Every text goes to a replica of the model: %s", error.message)
        else:
            self._usable = True

    async def _embed_here(self, call: EmbedCall) -> Embedded | None:
        """None when the copy does not work."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._near.embed(call)
        except (ProviderUnavailable, TimeoutError) as error:
            self._usable = False
            log.warning("The router's copy of the model is not used any more: %r", error)
            return None


async def _answers(target: EmbeddingTarget) -> bool:
    try:
        await target.check()
    except RowbeamError:
        return False
    return True
