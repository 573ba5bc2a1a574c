"""Providers that live in other replicas, as the router sees them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from deployments.handles import LOST, direct
from ray_app.errors import Overloaded, ProviderUnavailable, RowbeamError
from ray_app.providers.port import Embedded
from ray_app.serving.port import EmbedCall
from ray_app.spaces import EmbeddingSpace
from ray_app.tracing.spans import carried

#: Seconds for a provider's own check, which goes before what waits.
CHECK_SECONDS: Final = 10.0
#: Seconds for a call: what a slow model needs for a full queue of ``max_queued_tokens``, and more.
CALL_SECONDS: Final = 300.0
#: Seconds after which a caller may try a replica that has died; another is up by then, or nearly.
_RESTART_SECONDS: Final = 3.0
#: Seconds until there is room at a replica that refuses more calls; admission refuses long before.
_QUEUE_SECONDS: Final = 1.0
#: Bytes that fit into one gRPC message with much to spare; what is larger goes through the object store.
_LARGEST_MESSAGE: Final = 2 * 1024**2


class HandleTarget:
    """An ``EmbeddingTarget`` over the handle of a deployment with methods ``embed`` and ``check``.

    A caller that gives up cancels its call in the replica too. A call whose replica dies is not
    repeated here: a text may have killed it, and the caller knows best whether to come again.
    """

    def __init__(self, name: str, space: EmbeddingSpace, handle: DeploymentHandle) -> None:
        self._name = name
        self._space = space
        self._handle = handle
        self._direct: DeploymentHandle | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    async def embed(self, call: EmbedCall) -> Embedded:
        """See ``EmbeddingTarget``; raises what the replica raised, freed from Ray's wrapping."""
        handle = self._directly()
        if _size(call) > _LARGEST_MESSAGE:
            handle = handle.options(_by_reference=True)
        embedded: Embedded = await self._within(CALL_SECONDS, handle.embed, carried(call))
        return embedded

    async def check(self) -> None:
        """Raises ProviderUnavailable when no replica answers in ``CHECK_SECONDS``."""
        await self._within(CHECK_SECONDS, self._directly().check)

    def _directly(self) -> DeploymentHandle:
        """Made on the event loop that it is used on."""
        if self._direct is None:
            self._direct = direct(self._handle)
        return self._direct

    async def _within(self, seconds: float, method: Any, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await self._answer(method.remote(*arguments))
        except TimeoutError:
            raise ProviderUnavailable(f"{self._name} does not answer.") from None

    async def _answer(self, response: Any) -> Any:
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._stopped() from None  # the replica's own end, which comes as what it felt
        except RayTaskError as error:
            raise _cause(error, self._name) from None
        except BackPressureError as error:
            raise Overloaded(f"{self._name} has no room.", retry_after=_QUEUE_SECONDS) from error
        except LOST as error:
            raise self._stopped() from error

    def _stopped(self) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"{self._name} has stopped while it worked and is being started again.",
            retry_after=_RESTART_SECONDS,
        )


def _size(call: EmbedCall) -> int:
    """Bytes of a call or of its answer, whichever are more."""
    texts = sum(len(text) for text in call.texts) * 4  # UTF-8
    return max(texts, len(call.texts) * call.space.dimensions * 4)


def _cause(error: RayTaskError, name: str) -> RowbeamError:
    """The error of ours inside Ray's wrapping; any other is a defect that its replica has logged."""
    cause = error.cause
    return cause if isinstance(cause, RowbeamError) else ProviderUnavailable(f"{name} has failed.")
