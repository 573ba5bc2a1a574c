"""The gateway for a job's encoder: through the server's proxy where one runs, else one of its own."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError

from ray_app.actors.metrics import export_metrics
from ray_app.errors import (
    BudgetExhausted,
    DependencyError,
    ProviderUnavailable,
    RateLimited,
    RowbeamError,
)
from ray_app.providers.approximate_chunker import estimate_tokens
from ray_app.providers.gateway import LoopThread
from ray_app.providers.port import Embedded
from ray_app.providers.retry import Backoff, OutageClock
from ray_app.serving.gateway_proxy import GatewayProxy
from ray_app.serving.port import EmbedCall, Lane, Purpose
from ray_app.spaces import EmbeddingSpace
from ray_app.text import Chunker
from ray_app.tracing.spans import carried
from ray_app.workspace import Workspace

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

logger: Final = logging.getLogger(__name__)

#: The server's application and its proxy, as ``deployments.names`` has them.
APPLICATION: Final = "rowbeam"
GATEWAY_PROXY: Final = "GatewayProxy"
#: Seconds after which a server is looked for again, by a job that began without one.
LOOK_AGAIN: Final = 30.0
#: Seconds a call may take in the server's proxy, its turn behind callers included.
ANSWER_TIMEOUT: Final = 120.0


class Proxy(Protocol):
    """What embeds a call; raises as ``EmbeddingTarget.embed``."""

    def embed(self, call: EmbedCall) -> Embedded: ...

    def close(self) -> None: ...


class ServedProxy:
    """The proxy of the Rowbeam server on this Ray cluster."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    def embed(self, call: EmbedCall) -> Embedded:
        """Raises ProviderUnavailable also when the replica dies, is full or does not answer."""
        from ray.serve.exceptions import RayServeException

        response = self._handle.embed.remote(call)
        try:
            answer: Embedded = response.result(timeout_s=ANSWER_TIMEOUT)
        except RayTaskError as error:
            if isinstance(error.cause, RowbeamError):
                raise error.cause from None
            raise
        except TimeoutError:
            response.cancel()
            raise ProviderUnavailable(
                f"The server's gateway proxy did not answer within {ANSWER_TIMEOUT:.0f} s."
            ) from None
        except (RayActorError, RayServeException, TaskCancelledError) as error:
            raise ProviderUnavailable(
                f"The server's gateway proxy cannot be used ({type(error).__name__})."
            ) from error
        return answer

    def close(self) -> None:
        """The server owns it."""


class OwnProxy:
    """A proxy in this process, with a breaker and limits of its own.

    Cost budgets hold, but between processes only by what the ledger has: each may spend once more what
    another spends while its parts are on their way to the ledger.
    """

    def __init__(self, workspace: Workspace, space: EmbeddingSpace) -> None:
        self._proxy = GatewayProxy(workspace, space=space)
        self._loop = LoopThread()
        export_metrics(self._proxy.sample)

    def embed(self, call: EmbedCall) -> Embedded:
        return self._loop.run(self._proxy.embed(call))

    def close(self) -> None:
        self._loop.run(self._proxy.close())
        self._loop.close()


def find_served_proxy() -> ServedProxy | None:
    """The server's proxy, or None when no server, or one without a gateway, runs on this cluster.

    Asks for the handle only: ``serve.start`` and ``serve.run`` would start a server.
    """
    if not ray.is_initialized():
        return None  # asking would start a cluster
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return ServedProxy(serve.get_deployment_handle(GATEWAY_PROXY, APPLICATION))
    except (RayServeException, RayActorError, KeyError):  # no controller, a dying one, no such deployment
        return None


class BulkGateway:
    """The gateway as the ``EmbeddingProvider`` of a job: waits out what passes, within the outage budget.

    What a failed try was charged is added to the answer of the one that succeeds, or to the error. Safe
    to call from several threads.
    """

    def __init__(
        self,
        workspace: Workspace,
        space: EmbeddingSpace,
        incarnation: UUID,
        job_id: str,
        backoff: Backoff | None = None,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        """``rest`` is called with the seconds to wait before another try."""
        self._workspace = workspace
        self._space = space
        self._incarnation = incarnation
        self._job_id = job_id
        self._backoff = backoff or Backoff()
        self._rest = rest
        gateway = workspace.settings.gateway
        self._outage_budget = 0.0 if gateway is None else gateway.outage_budget
        self._own: OwnProxy | None = None
        self._looked_at = float("-inf")
        self._choosing = threading.Lock()

    @property
    def name(self) -> str:
        return "gateway"

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def chunker(self) -> Chunker:
        return self._workspace.providers.chunker_for(self._space)

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        """Raises ProviderUnavailable after the outage budget, or at once (ProviderRefused,
        BudgetExhausted) when no waiting helps; with what was spent."""
        return self._embed(texts, Purpose.DOCUMENT)

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Raises ItemError, and as ``embed_documents``."""
        answer = self._embed([text], Purpose.QUERY)
        if answer.faults:
            raise answer.faults[0]
        vector: npt.NDArray[np.float32] = answer.vectors[0]
        return vector

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None

    def _embed(self, texts: Sequence[str], purpose: Purpose) -> Embedded:
        call = EmbedCall(
            space=self._space,
            texts=list(texts),
            tokens=[estimate_tokens(text) for text in texts],
            incarnation=self._incarnation,
            purpose=purpose,
            lane=Lane.BULK,
            job_id=self._job_id,
        )
        clock = OutageClock(self._outage_budget)
        tokens, cost = 0, Decimal(0)
        for attempt in itertools.count():
            started = time.monotonic()
            try:
                answer = self._proxy().embed(carried(call))
            except (DependencyError, RateLimited, BudgetExhausted) as error:
                if isinstance(error, ProviderUnavailable | BudgetExhausted):
                    tokens, cost = tokens + error.tokens, cost + error.cost
                wait = self._backoff.wait(attempt, getattr(error, "retry_after", None))
                if not error.retryable or not clock.failed(started, wait):
                    raise _with_spending(error, tokens, cost) from None
                logger.warning("%s Next try in %.1f s.", error.message, wait)
                self._rest(wait)
            else:
                break
        return replace(answer, tokens=answer.tokens + tokens, cost=answer.cost + cost)

    def _proxy(self) -> Proxy:
        """The server's proxy; while there is none, one of this process."""
        with self._choosing:
            now = time.monotonic()
            if self._own is not None and now - self._looked_at < LOOK_AGAIN:
                return self._own
            self._looked_at = now
            served = find_served_proxy()
            if served is not None:
                return served  # our own stays open: another thread's call may be under way in it
            if self._own is None:
                self._own = OwnProxy(self._workspace, self._space)
            return self._own


def _with_spending(error: RowbeamError, tokens: int, cost: Decimal) -> RowbeamError:
    if not isinstance(error, ProviderUnavailable | BudgetExhausted):
        error = ProviderUnavailable(error.message, hint=error.hint)
    error.tokens, error.cost = tokens, cost
    return error
